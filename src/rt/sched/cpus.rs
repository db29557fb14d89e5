//! [`Cpus`]: whether other threads leave a CPU free for one more worker.
//!
//! A woken worker helps only on a CPU that no other thread needs. If all CPUs are in use, the
//! worker takes time from other threads, often from the peer whose requests it serves. Wake-ups,
//! context switches and cold caches add to that. Sysmon therefore reads the number of runnable
//! threads of the machine (the first number in the fourth field of /proc/loadavg) at each check
//! that finds activity, if there are several workers. The CPUs are in use if there are fewer of
//! them than the sum of these threads: the runnable threads that are neither workers nor sysmon,
//! the awake workers and, unless all workers are awake, one more worker. The workers alone use all
//! CPUs only if there are more workers than CPUs.
//!
//! A single sample means little, because threads often run only briefly between two waits. So the
//! samples are weighted and summed, and one that finds the CPUs in use counts as much as
//! [`BUSY_WEIGHT`] others; see [`Cpus::add`].
//!
//! The CPUs never count as busy if this process may use only some of the machine's CPUs, because
//! the file counts the threads on all of them. The same applies if the number of the machine's CPUs
//! is not known, or if the file cannot be opened or read. A file that does not belong to procfs is
//! not read, because a read of another file system might block sysmon.
//!
//! The file stays open as long as sysmon's thread lives. Otherwise a program that counts its
//! descriptors, such as a test, would see their number change.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::sys::os;

/// The weight of a sample that finds all CPUs in use. The weight of other samples is -1.
const BUSY_WEIGHT: u32 = 3;
/// The maximum sum of the weights.
const SUM_MAX: u32 = 16;
/// The minimum sum at which the CPUs count as busy.
const BUSY_FROM: u32 = 8;

/// The samples of one sysmon; see the [module documentation](self).
#[derive(Debug)]
pub(super) struct Cpus {
    /// /proc/loadavg, if it can be used.
    file: Option<File>,
    /// The number of CPUs.
    count: usize,
    /// The sum of the samples' weights, between 0 and [`SUM_MAX`].
    sum: u32,
}

impl Cpus {
    /// Counts the CPUs, and opens /proc/loadavg if this process may use all of them.
    pub(super) fn new() -> Cpus {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let file = if Some(count) == os::online_cpus() { os::load_average() } else { None };
        Cpus { file, count, sum: 0 }
    }

    /// Takes a sample while `awake` of `workers` workers are awake. Returns whether the CPUs are
    /// busy.
    pub(super) fn sample(&mut self, awake: usize, workers: usize) -> bool {
        let mut text = [0; 64];
        let Some(Ok(len)) = self.file.as_ref().map(|file| file.read_at(&mut text, 0)) else { return false };
        let all_in_use = runnable(&text[..len]).is_some_and(|running| self.are_in_use(running, awake, workers));
        self.add(all_in_use)
    }

    /// Returns whether no CPU is left for one more worker. `running` includes the calling thread.
    fn are_in_use(&self, running: usize, awake: usize, workers: usize) -> bool {
        let others = running.saturating_sub(1 + awake);
        others + workers.min(awake + 1) > self.count
    }

    /// Adds a sample to the sum, and returns whether the CPUs are busy.
    fn add(&mut self, all_in_use: bool) -> bool {
        self.sum = if all_in_use { (self.sum + BUSY_WEIGHT).min(SUM_MAX) } else { self.sum.saturating_sub(1) };
        self.sum >= BUSY_FROM
    }

    /// Discards the samples, because they are outdated.
    pub(super) fn reset(&mut self) {
        self.sum = 0;
    }
}

/// Returns the number of runnable threads in the text of /proc/loadavg.
fn runnable(text: &[u8]) -> Option<usize> {
    let field = str::from_utf8(text).ok()?.split(' ').nth(3)?;
    field.split_once('/')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(count: usize) -> Cpus {
        Cpus { file: None, count, sum: 0 }
    }

    #[test]
    fn number_of_runnable_threads_is_in_the_fourth_field() {
        assert_eq!(runnable(b"0.20 0.18 0.12 13/80 11206\n"), Some(13));
        for text in [&b""[..], b"0.20 0.18 0.12", b"a b c d/e", b"1 2 3 4", b"\xff 1 1 1/1"] {
            assert_eq!(runnable(text), None);
        }
        let mut cpus = Cpus::new();
        assert!(os::online_cpus().is_none_or(|online| online >= cpus.count));
        cpus.sample(1, 2);
        assert!(cpus.count > 0 && cpus.sum <= BUSY_WEIGHT);
    }

    #[test]
    fn workers_alone_do_not_use_all_cpus() {
        for count in 1..=16 {
            for awake in 0..=count {
                // All awake workers and sysmon run.
                assert!(!cpus(count).are_in_use(1 + awake, awake, count), "{awake} of {count}");
                // If there are as many other threads as CPUs, no CPU is free.
                assert!(cpus(count).are_in_use(1 + awake + count, awake, count), "{awake} of {count}");
            }
        }
        // A peer runs while one of two workers is awake, and while both are.
        assert!(cpus(2).are_in_use(3, 1, 2) && cpus(2).are_in_use(4, 2, 2));
        // There are more workers than CPUs.
        assert!(!cpus(2).are_in_use(2, 1, 4) && cpus(2).are_in_use(3, 2, 4));
        // A worker that is awake and blocked is not runnable.
        assert!(!cpus(2).are_in_use(1, 2, 2));
    }

    #[test]
    fn several_samples_decide() {
        let mut cpus = cpus(1);
        assert!(!cpus.sample(5, 5), "no file");
        assert_eq!([true; 4].map(|all_in_use| cpus.add(all_in_use)), [false, false, true, true]);
        // One busy sample in four keeps the sum constant.
        assert!((0..100).all(|number| cpus.add(number % 4 == 3)));
        while cpus.add(false) {}
        assert_eq!(cpus.sum, BUSY_FROM - 1);
        cpus.reset();
        assert!(!cpus.add(true) && !cpus.add(true));
    }
}
