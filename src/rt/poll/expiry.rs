//! Deadlines and timeouts of a descriptor, and the single timer entry that serves all of them.
//!
//! # The timer
//! `armed` belongs to the slot, not to the descriptor, and has no generation. It is [`NONE`] or the time of
//! an entry for this slot in a timer heap. Code that sets it to a time must add that entry. An entry is valid
//! while `armed` equals its time, and has no effect if no deadline has passed. Closing does not change
//! `armed`. The next descriptor of the slot uses the entry of the previous descriptor if the entry is not later than
//! the earliest deadline of the next one. When an entry fires, another one is added for the remaining deadlines (models
//! `a_timer_armed_during_close_serves_the_next_descriptor`,
//! `a_timer_that_fires_during_reuse_serves_the_next_descriptor`).
//!
//! # Memory ordering
//! `set_deadline` writes a direction's deadline and then reads `armed`; `fire` writes `armed` and then reads
//! the deadlines. All these accesses are SeqCst (a Dekker pair; models `deadline_moves_against_fire`,
//! `deadline_set_against_fire`, `two_deadlines_move_against_fire`).

use crate::rt::poll::poll_desc::PollDesc;
use crate::rt::poll::side::{Side, claim};
use crate::rt::time::clock::{EXPIRED, NONE};
use crate::rt::waiters::Wakers;
use crate::sync::{Ordering, injected_bug};

impl Side<'_> {
    /// Moves the deadline to a later time. Returns the time of the timer entry that the caller must add, or
    /// `None` if there is an entry at or before the deadline.
    #[inline]
    #[must_use = "a deadline without its timer entry never fires"]
    pub(crate) fn move_deadline(self, at: u64) -> Option<u64> {
        self.swap_deadline(at);
        self.desc.arm(at)
    }

    /// Sets the deadline to a future time, [`EXPIRED`] or [`NONE`]. Returns the time of the timer entry that
    /// the caller must add, or `None` if none is needed or there is an entry at or before the deadline.
    #[must_use = "a deadline without its timer entry never fires"]
    pub(crate) fn set_deadline(self, at: u64, wakers: &mut Wakers) -> Option<u64> {
        if injected_bug!("armed_before_deadline") && at > EXPIRED {
            let arm = self.desc.arm(at);
            self.swap_deadline(at);
            return arm;
        }
        self.swap_deadline(at);
        match at {
            EXPIRED => {
                self.expire(wakers);
                None
            }
            NONE => None,
            at => self.desc.arm(at),
        }
    }
}

impl PollDesc {
    /// Records that an operation waits until `at` at most, because of its own relative timeout. Returns the
    /// time of the timer entry that the caller must add, or `None` if there is an entry at or before `at`.
    #[must_use = "a timeout without its timer entry never fires"]
    pub(crate) fn wait_until(&self, at: u64) -> Option<u64> {
        let slot = &self.wait_until;
        let mut seen = slot.load(Ordering::SeqCst);
        while seen == NONE || seen > at {
            match slot.compare_exchange_weak(seen, at, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        self.arm(at)
    }

    /// Arms the timer for `at`, unless there is an entry at or before `at`. Returns the time of the entry that
    /// the caller must add.
    fn arm(&self, at: u64) -> Option<u64> {
        let mut armed = self.armed.load(Ordering::SeqCst);
        loop {
            if armed != NONE && armed <= at {
                return None;
            }
            match self.armed.compare_exchange_weak(armed, at, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Some(at),
                Err(now) => armed = now,
            }
        }
    }

    /// Handles the timer entry for `when`, unless it is no longer valid: expires the deadlines that have
    /// passed at `now`. Returns the time of the entry that the caller must add for the remaining deadlines.
    #[must_use = "remaining deadlines never fire without a timer entry"]
    pub(crate) fn fire(&self, when: u64, now: u64, wakers: &mut Wakers) -> Option<u64> {
        // ORDERING: SeqCst, before the loads of the deadlines; see `set_deadline`.
        if self.armed.compare_exchange(when, NONE, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return None;
        }
        let [read, write] = self.sides();
        let mut next = [read.fire(now, wakers), write.fire(now, wakers), claim(&self.wait_until, now, NONE)];
        if next[2] == Some(EXPIRED) {
            // Each waiter checks its own time. A waiter whose timeout has not passed arms the timer again.
            next[2] = None;
            self.sides().iter().for_each(|side| side.interrupt(wakers));
        }
        self.arm(next.into_iter().flatten().min()?)
    }

    /// Forgets the timer entry of the slot. Called when a simulation ends, because the time of the entry is
    /// that of the simulated clock.
    #[cfg(feature = "sim")]
    pub(crate) fn disarm(&self) {
        self.armed.store(NONE, Ordering::SeqCst);
    }

    /// Returns whether a timer entry for `when` is still valid.
    pub(crate) fn counts(&self, when: u64) -> bool {
        self.armed.load(Ordering::Acquire) == when
    }
}

#[cfg(test)]
#[path = "expiry_tests.rs"]
mod tests;
