//! [`Idle`]: the idle list (the resting workers), the lists of free processors, the threads that
//! are parked in `block_on`, and the wish of such a thread for the role of polling.
//!
//! [`resting`](super::resting) describes how threads go to rest and are woken.
//!
//! # Invariants
//! * I1 — while the runtime runs, each processor that its start has listed is in `free`, is in
//!   `spare`, is owned by one thread, or is assigned to one thread.

use super::processor::Processor;
use super::root::Root;
use crate::rt::parker::Parker;
use crate::sync::{Arc, Mutex};

/// A worker, as listed while it rests.
#[derive(Debug)]
pub(crate) struct Sleeper {
    pub(crate) parker: Parker,
    /// The processor that the thread that wakes the worker has assigned to it.
    pub(super) assigned: Mutex<Option<&'static Processor>>,
}

impl Sleeper {
    pub(crate) fn new() -> Sleeper {
        Sleeper { parker: Parker::new(), assigned: Mutex::new(None) }
    }
}

/// The wish of a thread in `block_on` to poll itself instead of being woken by a polling worker.
#[derive(Debug, Default)]
pub(super) enum Wish {
    #[default]
    None,
    Asked(Arc<Root>),
    Granted(Arc<Root>),
}

/// The lists of idle threads and processors; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Idle {
    /// The free ordinary processors. The last one is used first.
    pub(super) free: Vec<usize>,
    /// The free spare processors. The last one is used first.
    pub(super) spare: Vec<usize>,
    /// The idle list.
    pub(super) sleepers: Vec<Arc<Sleeper>>,
    /// The epoch to which the lists belong.
    pub(super) epoch: u32,
    /// The configured number of workers.
    pub(super) workers: usize,
    /// The processors from this number on are spare.
    pub(super) first_spare: usize,
    /// The number of worker threads.
    pub(super) threads: usize,
    pub(super) wish: Wish,
    /// The threads in `block_on` that are parked or about to park.
    pub(super) roots: Vec<Arc<Root>>,
}

impl Idle {
    pub(crate) const fn new() -> Idle {
        Idle {
            free: Vec::new(),
            spare: Vec::new(),
            sleepers: Vec::new(),
            epoch: 0,
            workers: 0,
            first_spare: 0,
            threads: 0,
            wish: Wish::None,
            roots: Vec::new(),
        }
    }

    /// Makes up to `workers` processors and `spares` spare processors available. Skips processors
    /// that a thread of an earlier epoch still owns. Called by a start of the runtime.
    pub(crate) fn fill(&mut self, epoch: u32, workers: usize, spares: usize, owned: impl Fn(usize) -> bool) {
        self.epoch = epoch;
        // Threads of the previous epoch are ending.
        self.sleepers.clear();
        let mut ids = (0..crate::rt::config::PROCESSORS_MAX).filter(|&id| !owned(id));
        self.free = ids.by_ref().take(workers).collect();
        self.first_spare = self.free.last().map_or(0, |last| last + 1);
        self.free.reverse();
        self.workers = workers;
        self.spare = ids.take(spares).collect();
        self.spare.reverse();
    }

    /// Removes a worker that no longer rests from the idle list.
    pub(super) fn forget(&mut self, sleeper: &Arc<Sleeper>) {
        self.sleepers.retain(|listed| !Arc::ptr_eq(listed, sleeper));
    }

    /// Empties the idle list and the lists of processors, and returns the workers that the caller
    /// must unpark. Called by a shutdown.
    pub(crate) fn empty(&mut self) -> Vec<Arc<Sleeper>> {
        self.free.clear();
        self.spare.clear();
        std::mem::take(&mut self.sleepers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_lists_processors_without_an_owner() {
        let mut idle = Idle::new();
        idle.sleepers.push(Arc::new(Sleeper::new()));
        idle.fill(7, 3, 2, |id| id == 1 || id == 4);
        assert_eq!((idle.epoch, idle.workers, idle.sleepers.len()), (7, 3, 0));
        assert_eq!((idle.free.clone(), idle.first_spare), (vec![3, 2, 0], 4), "the last one is used first");
        assert_eq!(idle.spare, [6, 5]);
        idle.fill(8, 1, 0, |_| false);
        assert_eq!((idle.free.clone(), idle.first_spare, idle.spare.len()), (vec![0], 1, 0));
        idle.fill(9, 1, 1, |_| true);
        assert!(idle.free.is_empty() && idle.spare.is_empty());
    }

    #[test]
    fn forget_removes_one_worker_and_empty_clears_workers_and_processors() {
        let [first, second] = [(); 2].map(|()| Arc::new(Sleeper::new()));
        let mut idle = Idle::new();
        idle.fill(1, 2, 1, |_| false);
        idle.sleepers.extend([first.clone(), second.clone()]);
        idle.forget(&first);
        assert!(idle.sleepers.len() == 1 && Arc::ptr_eq(&idle.sleepers[0], &second));
        idle.forget(&second);
        assert!(idle.sleepers.is_empty());
        idle.sleepers.extend([first.clone(), second.clone()]);
        let listed = idle.empty();
        assert!(listed.len() == 2 && Arc::ptr_eq(&listed[0], &first) && Arc::ptr_eq(&listed[1], &second));
        assert!(idle.sleepers.is_empty() && idle.free.is_empty() && idle.spare.is_empty());
    }
}
