//! [`Root`]: the state of a thread in `block_on`, which is also the waker of its root future.
//!
//! # States
//! ```text
//! WOKEN ── begin_turn ──→ RUNNING ──→ POLLING | PARKED ──→ RUNNING
//!   ↑                        │               │
//!   └──────── wake ──────────┴───────────────┘   (also interrupts the poll, or unparks)
//! ```
//!
//! # Memory ordering
//! The state is one word, which is changed only by read-modify-writes. The swap in `wake` is a
//! Release and the swap in `begin_turn` an Acquire, so the following poll sees the writes of the
//! waking thread. `wake` and the announcement of a sleep in the role are SeqCst: either the thread
//! finds that it was woken when it enters POLLING, or `wake` sees POLLING and interrupts the sleep
//! (model `root_waker_against_sleep`).

use std::time::Instant;

use crate::rt::parker::Parker;
use crate::sync::{AtomicU32, AtomicUsize, Ordering};

/// The root future was woken and must be polled.
const WOKEN: u32 = 0;
/// The thread is awake, and the root future was not woken since its last turn began.
const RUNNING: u32 = 1;
/// The thread sleeps in epoll or is about to sleep.
const POLLING: u32 = 2;
/// The thread is parked or is about to park.
const PARKED: u32 = 3;

/// The state of a thread in `block_on`; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Root {
    state: AtomicU32,
    /// A shard of the poller in which the thread sleeps while it is POLLING.
    shard: AtomicUsize,
    parker: Parker,
}

impl Root {
    pub(crate) fn new() -> Root {
        Root { state: AtomicU32::new(WOKEN), shard: AtomicUsize::new(0), parker: Parker::new() }
    }

    /// Wakes the root future, and unparks the thread if it is parked. If the thread sleeps in
    /// epoll, calls `break_poll` with the shard. `break_poll` must interrupt the sleep.
    #[inline]
    pub(crate) fn wake(&self, break_poll: impl FnOnce(usize)) {
        // ORDERING: SeqCst; see the module documentation.
        match self.state.swap(WOKEN, Ordering::SeqCst) {
            // ORDERING: Relaxed: published by the transition to POLLING.
            POLLING => break_poll(self.shard.load(Ordering::Relaxed)),
            PARKED => self.parker.unpark(),
            _ => {}
        }
    }

    /// Makes a parked thread check for work, without waking its root future. If the thread is not
    /// parked, its next wait in [`park`](Root::park) or [`park_until`](Root::park_until) ends
    /// immediately.
    pub(crate) fn nudge(&self) {
        self.parker.unpark();
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.state.load(Ordering::Acquire) == WOKEN
    }

    /// Begins a turn of the root future if it was woken. Returns whether it was.
    pub(crate) fn begin_turn(&self) -> bool {
        self.is_woken() && self.state.swap(RUNNING, Ordering::AcqRel) == WOKEN
    }

    /// Announces that the thread goes to sleep in `shard`, and perhaps also in others. Returns
    /// false, without a change, if the root future was woken.
    pub(crate) fn enter_poll(&self, shard: usize) -> bool {
        self.shard.store(shard, Ordering::Relaxed);
        self.change(RUNNING, POLLING)
    }

    pub(crate) fn leave_poll(&self) {
        self.change(POLLING, RUNNING);
    }

    /// Parks until the root future is woken or the thread is nudged.
    pub(crate) fn park(&self) {
        self.park_until(None);
    }

    /// Parks like [`park`](Root::park), until `deadline` at most.
    pub(crate) fn park_until(&self, deadline: Option<Instant>) {
        if self.change(RUNNING, PARKED) {
            self.parker.park_until(deadline);
            self.change(PARKED, RUNNING);
        }
    }

    /// Changes the state from `from` to `to`. Returns false, without a change, if the root future
    /// was woken in the meantime.
    fn change(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn wake_interrupts_only_a_polling_thread() {
        let (root, broken) = (Root::new(), Cell::new(0));
        let wake = || root.wake(|shard| broken.set(broken.get() + shard));
        assert!(root.is_woken() && root.begin_turn() && !root.begin_turn());
        wake();
        wake();
        assert!(!root.enter_poll(5) && root.begin_turn() && root.enter_poll(6));
        root.leave_poll();
        assert!(!root.is_woken() && root.enter_poll(7));
        wake();
        root.leave_poll();
        assert!(root.is_woken() && broken.get() == 7 && root.begin_turn());
    }

    #[test]
    fn parked_thread_is_woken_or_nudged() {
        let root = Root::new();
        root.park();
        assert!(root.begin_turn());
        root.nudge();
        root.park();
        assert!(!root.is_woken());
        std::thread::scope(|scope| {
            scope.spawn(|| root.wake(|_| ()));
            while !root.is_woken() {
                root.park();
            }
        });
        assert!(root.begin_turn());
    }
}
