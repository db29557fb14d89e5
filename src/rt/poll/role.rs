//! `Role`: which thread polls, and until when it sleeps.
//!
//! One word. A thread takes the role right before it polls and releases it right after it has recorded the events, so no thread
//! holds the role while it runs user code.
//!
//! # States
//! ```text
//! FREE ── try_take ──→ HELD ── sleep(until, by) ──→ ASLEEP ── rise ──→ HELD ── release ──→ FREE
//! ```
//! ASLEEP holds the end of the sleep and whether the sleeper is a worker, which runs the tasks that its events wake, or a thread in
//! `block_on`, which does not.
//!
//! # Memory ordering
//! Sleeper: `sleep`, then look at the queues and timers. Everybody else: store the work, then look at the role. All SeqCst, so one
//! of the two sees the other (model `sleep_against_inject`).

use crate::sync::{AtomicU64, Ordering, const_fn};

const FREE: u64 = 0;
const HELD: u64 = 1;
/// Smaller values are [`FREE`] and [`HELD`].
const ASLEEP: u64 = 4;
const BY_ROOT: u64 = 1;
/// The bits of a time that the word has no room for: a sleep may seem to end up to 3 ns later than it does.
const BELOW: u64 = 3;

/// The kind of thread that sleeps in the poller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// A worker: it runs what its events wake.
    Worker,
    /// A thread in `block_on`: tasks that its events wake need a worker.
    Root,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Role(AtomicU64);

impl Role {
    const_fn! {
        pub(crate) fn new() -> Role {
            Role(AtomicU64::new(FREE))
        }
    }

    /// Takes the role if no thread has it.
    #[inline]
    pub(crate) fn try_take(&self) -> bool {
        self.0.load(Ordering::Relaxed) == FREE
            && self.0.compare_exchange(FREE, HELD, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Gives the role up.
    pub(crate) fn release(&self) {
        let held = self.0.swap(FREE, Ordering::SeqCst);
        debug_assert!(held == HELD, "the role is released by its holder, awake");
    }

    /// Announces a sleep until `until`. The holder then looks at the queues and timers once more before it sleeps.
    pub(crate) fn sleep(&self, until: u64, by: By) {
        let by = if by == By::Root { BY_ROOT } else { 0 };
        // ORDERING: SeqCst, see the header.
        self.0.store((until & !BELOW).max(ASLEEP) | by, Ordering::SeqCst);
    }

    /// The announced sleep is over, or was not slept.
    pub(crate) fn rise(&self) {
        self.0.store(HELD, Ordering::SeqCst);
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.0.load(Ordering::SeqCst) != FREE
    }

    /// Which kind of thread sleeps, if one does.
    pub(crate) fn asleep(&self) -> Option<By> {
        let word = self.0.load(Ordering::SeqCst);
        (word >= ASLEEP).then_some(if word & BY_ROOT == 0 { By::Worker } else { By::Root })
    }

    /// Whether a thread sleeps, and whether it sleeps beyond `at`.
    pub(crate) fn asleep_beyond(&self, at: u64) -> (bool, bool) {
        // ORDERING: SeqCst, see the header.
        let word = self.0.load(Ordering::SeqCst);
        (word >= ASLEEP, word >= ASLEEP && (word | BELOW) > at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_has_the_role() {
        let role = Role::new();
        assert!(!role.is_taken() && role.try_take() && role.is_taken() && !role.try_take());
        role.release();
        assert!(!role.is_taken() && role.try_take());
    }

    #[test]
    fn a_sleep_says_who_and_until_when() {
        let role = Role::new();
        assert!(role.try_take());
        assert_eq!((role.asleep(), role.asleep_beyond(0)), (None, (false, false)));
        for (by, until) in [(By::Worker, 1 << 30), (By::Root, u64::MAX), (By::Root, 0)] {
            role.sleep(until, by);
            assert_eq!(role.asleep(), Some(by));
            assert!(role.is_taken() && !role.try_take());
            let ends = until.max(ASLEEP);
            assert_eq!(role.asleep_beyond(ends.saturating_add(4)), (true, false));
            assert_eq!(role.asleep_beyond(ends - 1), (true, true));
            role.rise();
            assert_eq!(role.asleep(), None);
            assert!(role.is_taken());
        }
        role.release();
    }
}
