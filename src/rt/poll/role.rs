//! [`Role`]: the exclusive right to poll a shard. It also shows whether its holder sleeps, and
//! until when.
//!
//! The role is one word. A thread takes the role just before it polls and releases it as soon as it
//! has recorded the events, so no thread holds a role while it runs user code.
//!
//! # States
//! ```text
//! FREE ── try_take ──→ HELD ── sleep(until, by) ──→ ASLEEP ── rise ──→ HELD ── release ──→ FREE
//! ```
//! ASLEEP contains the end of the sleep, and the kind of the sleeping thread ([`By`]).
//!
//! # Memory ordering
//! The sleeping thread calls `sleep` and then checks the queues and timers. Other threads publish
//! their work and then check the role. All changes of the role and these checks are SeqCst, so at
//! least one of the two sees the other (model `sleep_against_inject`).

use crate::sync::{AtomicU64, Ordering, const_fn};

const FREE: u64 = 0;
const HELD: u64 = 1;
/// The lowest value of a word that announces a sleep.
const ASLEEP: u64 = 4;
/// Set if the sleeping thread is in `block_on` and owns no processor.
const BY_ROOT: u64 = 1;
/// The low bits of a time. The word does not store them, so a sleep may appear to end up to 3 ns
/// later than it does.
const BELOW: u64 = 3;

/// The kind of thread that sleeps in the poller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// A worker, or a thread in `block_on` that owns a processor. It runs the tasks that its events
    /// wake.
    Worker,
    /// A thread in `block_on` without a processor. The tasks that its events wake need a worker.
    Root,
}

/// The role of polling; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Role(AtomicU64);

impl Role {
    const_fn! {
        pub(crate) fn new() -> Role {
            Role(AtomicU64::new(FREE))
        }
    }

    /// Takes the role if no thread has it. Returns whether the caller now has it.
    #[inline]
    pub(crate) fn try_take(&self) -> bool {
        self.0.load(Ordering::Relaxed) == FREE
            && self.0.compare_exchange(FREE, HELD, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Releases the role.
    pub(crate) fn release(&self) {
        let held = self.0.swap(FREE, Ordering::SeqCst);
        debug_assert!(held == HELD, "the role was not held, or its holder was asleep");
    }

    /// Announces a sleep until `until`. The holder must then check the queues and timers again
    /// before it sleeps.
    pub(crate) fn sleep(&self, until: u64, by: By) {
        let by = if by == By::Root { BY_ROOT } else { 0 };
        // ORDERING: SeqCst; see the module documentation.
        self.0.store((until & !BELOW).max(ASLEEP) | by, Ordering::SeqCst);
    }

    /// Ends an announced sleep, whether or not the thread slept.
    pub(crate) fn rise(&self) {
        self.0.store(HELD, Ordering::SeqCst);
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.0.load(Ordering::SeqCst) != FREE
    }

    /// Returns the kind of thread that sleeps, if one does.
    pub(crate) fn asleep(&self) -> Option<By> {
        let word = self.0.load(Ordering::SeqCst);
        (word >= ASLEEP).then_some(if word & BY_ROOT == 0 { By::Worker } else { By::Root })
    }

    /// Returns whether a thread sleeps, and whether its sleep ends after `at`.
    pub(crate) fn asleep_beyond(&self, at: u64) -> (bool, bool) {
        // ORDERING: SeqCst; see the module documentation.
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
    fn announced_sleep_has_kind_and_end() {
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
