//! [`WakeQueue`]: wakers that sysmon has collected or taken over, and that other threads call.
//!
//! A waker is user code and may block, so sysmon does not call wakers itself. A thread is started
//! for the first waker and ends when the queue is empty. If no waker is taken between two checks of
//! sysmon, a waker probably blocks the thread, and another thread is started, up to [`THREADS_MAX`]
//! per epoch. If the system refuses to create the first thread, or refuses further threads for
//! [`LASTS`](super::shortage::LASTS), sysmon calls the wakers itself.
//!
//! # Invariants
//! * V1 — each waker is called. Wakers are taken in the order in which they were queued. A shutdown
//!   calls the remaining wakers, because the futures of other executors outlive it.
//! * V2 — while a waker is queued and no thread of the queue is free, sysmon does not sleep.

use std::collections::VecDeque;
use std::task::Waker;

use crate::rt::waiters::Wakers;
use crate::sync::Mutex;

/// The maximum number of threads per epoch, and so the number of wakers that may block at the same
/// time.
const THREADS_MAX: usize = 64;

/// A queue of wakers; see the [module documentation](self).
#[derive(Debug)]
pub(super) struct WakeQueue(Mutex<State>);

#[derive(Debug)]
struct State {
    /// The epoch of the threads that are counted.
    epoch: u32,
    queue: VecDeque<Waker>,
    threads: usize,
    /// Whether a thread has asked for a waker since the last check.
    has_moved: bool,
}

impl State {
    /// Returns whether threads of `epoch` are counted. Threads of an earlier epoch are not. The
    /// first call for a later epoch resets the count.
    fn counts(&mut self, epoch: u32) -> bool {
        if epoch.wrapping_sub(self.epoch).cast_signed() > 0 {
            (self.epoch, self.threads) = (epoch, 0);
        }
        self.epoch == epoch
    }
}

impl WakeQueue {
    pub(super) const fn new() -> WakeQueue {
        WakeQueue(Mutex::new(State { epoch: 0, queue: VecDeque::new(), threads: 0, has_moved: false }))
    }

    /// Queues `wakers`. Returns whether the caller must start a thread, which is then counted
    /// unless `epoch` is an earlier one.
    pub(super) fn push(&self, epoch: u32, wakers: &mut Wakers) -> bool {
        let mut state = self.0.lock();
        state.queue.extend(wakers.drain());
        if !state.counts(epoch) {
            return true;
        }
        let starts = state.threads == 0;
        state.threads += usize::from(starts);
        starts
    }

    /// Takes the next waker. If there is none, the calling thread of `epoch` is no longer counted.
    pub(super) fn pop(&self, epoch: u32) -> Option<Waker> {
        let mut state = self.0.lock();
        let waker = state.queue.pop_front();
        state.has_moved = true;
        if waker.is_none() && state.counts(epoch) {
            state.threads -= 1;
        }
        waker
    }

    /// Returns whether wakers are queued, and whether sysmon must start a thread, which is then
    /// counted. Both are false if `epoch` is an earlier one. Called at each check of sysmon.
    pub(super) fn check(&self, epoch: u32) -> (bool, bool) {
        let mut state = self.0.lock();
        let moved = std::mem::replace(&mut state.has_moved, false);
        if state.queue.is_empty() || !state.counts(epoch) {
            return (false, false);
        }
        let starts = !moved && state.threads < THREADS_MAX;
        state.threads += usize::from(starts);
        (true, starts)
    }

    /// Takes all wakers.
    pub(super) fn take(&self, wakers: &mut Wakers) {
        wakers.extend(self.0.lock().queue.drain(..));
    }

    /// Removes a thread that `check` requested, and that could not be started, from the count of
    /// threads.
    pub(super) fn forget_thread(&self, epoch: u32) {
        let mut state = self.0.lock();
        if state.counts(epoch) {
            state.threads -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wakers(count: usize) -> Wakers {
        let mut wakers = Wakers::new();
        wakers.extend((0..count).map(|_| Waker::noop().clone()));
        wakers
    }

    #[test]
    fn another_thread_starts_if_no_waker_is_taken_between_two_checks() {
        let queue = WakeQueue::new();
        assert!(queue.push(1, &mut wakers(3)), "the first thread");
        assert!(!queue.push(1, &mut wakers(1)));
        assert!(queue.pop(1).is_some());
        assert_eq!(queue.check(1), (true, false), "a waker was taken");
        assert_eq!(queue.check(1), (true, true));
        queue.forget_thread(1);
        assert_eq!(queue.check(1), (true, true), "the start failed");
        for _ in 0..3 {
            assert!(queue.pop(1).is_some());
        }
        assert_eq!(queue.check(1), (false, false));
        // Both threads end, so the next waker needs a thread.
        assert!(queue.pop(1).is_none() && queue.pop(1).is_none());
        assert!(queue.push(1, &mut wakers(1)));
    }

    #[test]
    fn threads_are_bounded_per_epoch() {
        let queue = WakeQueue::new();
        assert!(queue.push(1, &mut wakers(2)));
        let started = (0..2 * THREADS_MAX).filter(|_| queue.check(1).1).count();
        assert_eq!(1 + started, THREADS_MAX);
        assert_eq!(queue.check(2), (true, true), "the wakers of one epoch are called in the next");
        assert!(queue.pop(1).is_some() && queue.pop(1).is_some(), "threads of any epoch take wakers");
        assert!((0..THREADS_MAX).all(|_| queue.pop(1).is_none()));
        assert!(!queue.push(2, &mut wakers(1)), "the thread of this epoch still counts");
        assert!(queue.push(1, &mut wakers(1)), "the sysmon of an earlier epoch starts its own thread");
        assert_eq!(queue.check(1), (false, false));
        assert!(queue.pop(2).is_some() && queue.pop(1).is_some() && queue.pop(1).is_none() && queue.pop(2).is_none());
        assert!(queue.push(2, &mut wakers(1)));
    }
}
