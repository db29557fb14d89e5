//! [`Pool`]: the queue and the thread counts of a thread pool.

use std::collections::VecDeque;

use async_task::Runnable;

use super::task_data::TaskData;
use crate::sync::{Condvar, Mutex};

/// The content of a [`Pool`], under its lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) queue: VecDeque<Runnable<TaskData>>,
    pub(super) threads: usize,
    /// The number of free threads, which rest or have just been started.
    pub(super) free: usize,
}

impl State {
    /// Removes a thread that begins to look for work, or could not be started, from the count of
    /// free threads. `is_current` says whether the thread belongs to the current epoch; other
    /// threads are no longer counted.
    pub(super) fn leave_free(&mut self, is_current: bool) {
        if is_current {
            self.free -= 1;
        }
    }

    /// Removes a thread that ends, or could not be started, from the count of threads. `is_current`
    /// has the same meaning as in [`leave_free`](State::leave_free).
    pub(super) fn forget_thread(&mut self, is_current: bool) {
        if is_current {
            self.threads -= 1;
        }
    }
}

/// The maximum capacity, in items, of a queue that [`pop_front`] leaves empty.
const ROOM_MAX: usize = 4096;

/// Takes the oldest item of `queue`, and frees the memory of a long backlog if none is left.
pub(crate) fn pop_front<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let item = queue.pop_front();
    if queue.is_empty() && queue.capacity() > ROOM_MAX {
        *queue = VecDeque::new();
    }
    item
}

/// A pool of threads; see [`blocking`](super::blocking).
#[derive(Debug)]
pub(crate) struct Pool {
    pub(super) state: Mutex<State>,
    pub(super) work: Condvar,
}

impl Pool {
    pub(crate) const fn new() -> Pool {
        Pool { state: Mutex::new(State { queue: VecDeque::new(), threads: 0, free: 0 }), work: Condvar::new() }
    }

    pub(crate) fn threads(&self) -> usize {
        self.state.lock().threads
    }

    /// Returns the number of calls that wait for a thread.
    pub(crate) fn queued(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Takes the queued calls, and makes resting threads check the epoch. Called by a shutdown that
    /// has advanced the epoch.
    pub(crate) fn stop(&self) -> VecDeque<Runnable<TaskData>> {
        let mut state = self.state.lock();
        // Resting threads end, and threads that are in a call end after it. The next epoch has its
        // own threads.
        (state.free, state.threads) = (0, 0);
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        self.work.notify_all();
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_without_items_keeps_little_memory() {
        let mut queue: VecDeque<_> = (0..100_000).collect();
        (0..100_000).for_each(|number| assert_eq!(pop_front(&mut queue), Some(number)));
        assert_eq!((pop_front(&mut queue), queue.capacity()), (None, 0));
    }
}
