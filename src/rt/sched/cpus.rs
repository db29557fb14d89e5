//! [`Cpus`]: whether other threads leave a CPU free for a second worker.
//!
//! A woken worker helps only on a CPU that nothing else needs. If all are in use, it takes the time
//! from other threads, often from the peer whose requests it serves, and wake-ups, context switches
//! and cold caches come on top. Sysmon therefore compares the number of runnable threads of the
//! machine (the fourth field of /proc/loadavg) with the number of CPUs at each check.
//!
//! A sample may find a thread between two waits, so one sample that finds all CPUs in use outweighs
//! [`BUSY_WEIGHT`] others, and several are needed: see [`Cpus::add`]. If the file cannot be read, the
//! CPUs are never busy. The figures are those of the machine, also in a container that may use only
//! some of its CPUs.
//!
//! The file stays open as long as sysmon's thread lives: a program that counts its descriptors, such
//! as a test, would otherwise see one come and go.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// The weight of a sample that finds all CPUs in use. Other samples count -1.
const BUSY_WEIGHT: u32 = 3;
/// The maximum sum.
const SUM_MAX: u32 = 16;
/// The CPUs are busy from this sum on.
const BUSY_FROM: u32 = 8;

/// The samples of one sysmon; see the [module documentation](self).
#[derive(Debug)]
pub(super) struct Cpus {
    file: Option<File>,
    count: u32,
    /// The sum of the samples' weights, between 0 and [`SUM_MAX`].
    sum: u32,
}

impl Cpus {
    /// Opens the file.
    pub(super) fn new() -> Cpus {
        Cpus { file: File::open("/proc/loadavg").ok(), count: online(), sum: 0 }
    }

    /// Takes a sample. Returns whether the CPUs are busy.
    pub(super) fn sample(&mut self) -> bool {
        let mut text = [0; 64];
        let Some(Ok(len)) = self.file.as_ref().map(|file| file.read_at(&mut text, 0)) else { return false };
        // The calling thread is one of those that run.
        let others = runnable(&text[..len]).map_or(0, |running| running.saturating_sub(1));
        self.add(others >= self.count)
    }

    /// Adds a sample. Returns whether the CPUs are busy.
    fn add(&mut self, all_in_use: bool) -> bool {
        self.sum = if all_in_use { (self.sum + BUSY_WEIGHT).min(SUM_MAX) } else { self.sum.saturating_sub(1) };
        self.sum >= BUSY_FROM
    }
}

/// Returns the number of CPUs that are online.
#[allow(unsafe_code)]
fn online() -> u32 {
    // SAFETY: the call takes no pointer.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    u32::try_from(count).unwrap_or(0).max(1)
}

/// Returns the number of runnable threads in the text of /proc/loadavg.
fn runnable(text: &[u8]) -> Option<u32> {
    let field = str::from_utf8(text).ok()?.split(' ').nth(3)?;
    field.split_once('/')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runnable_threads_are_the_fourth_field() {
        assert_eq!(runnable(b"0.20 0.18 0.12 13/80 11206\n"), Some(13));
        for text in [&b""[..], b"0.20 0.18 0.12", b"a b c d/e", b"1 2 3 4", b"\xff 1 1 1/1"] {
            assert_eq!(runnable(text), None);
        }
        let mut cpus = Cpus::new();
        cpus.sample();
        assert!(cpus.count > 0 && cpus.sum <= BUSY_WEIGHT);
    }

    #[test]
    fn several_samples_decide() {
        let mut cpus = Cpus { file: None, count: 1, sum: 0 };
        assert!(!cpus.sample(), "no file");
        assert_eq!([true; 4].map(|all_in_use| cpus.add(all_in_use)), [false, false, true, true]);
        // One of four samples keeps them busy.
        assert!((0..100).all(|number| cpus.add(number % 4 == 3)));
        while cpus.add(false) {}
        assert_eq!(cpus.sum, BUSY_FROM - 1);
    }
}
