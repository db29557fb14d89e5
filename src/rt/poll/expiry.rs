//! Deadlines and timeouts of a descriptor, and the single timer entry that serves all of them.
//!
//! # The deadline
//! The deadline word of a direction is 0 (none), [`EXPIRED`] or a time. It alone decides whether
//! the deadline has passed. Setting the deadline is a swap, and expiring it is a compare-and-swap
//! from the time that was seen, so a deadline that is moved in the meantime does not expire.
//!
//! # The timer
//! `armed` belongs to the slot, not to the descriptor, and has no generation. It is [`NONE`] or the
//! time of an entry for this slot in a timer heap. Code that sets it to a time must add that entry.
//! An entry is valid while `armed` equals its time. When a valid entry fires, only the deadlines
//! that have passed expire, and another entry is added for the others. If the earliest timeout may
//! have passed, all waiters are woken, and each operation whose own timeout has not passed arms the
//! timer again.
//!
//! Closing does not change `armed`. The next descriptor of the slot uses the entry of the previous
//! descriptor if the entry is not later than the earliest deadline of the next descriptor (models
//! `a_timer_armed_during_close_serves_the_next_descriptor`,
//! `a_timer_that_fires_during_reuse_serves_the_next_descriptor`).
//!
//! # Memory ordering
//! `set_deadline` writes a direction's deadline and then reads `armed`; `fire` writes `armed` and
//! then reads the deadlines. All these accesses are SeqCst (a Dekker pair; models
//! `deadline_moves_against_fire`, `deadline_set_against_fire`, `two_deadlines_move_against_fire`).

use crate::rt::poll::poll_desc::PollDesc;
use crate::rt::poll::side::Side;
use crate::rt::time::clock::{EXPIRED, NONE};
use crate::rt::waiters::Wakers;
use crate::sync::{AtomicU64, Ordering, injected_bug};

impl Side<'_> {
    /// Sets the deadline to a future time, [`EXPIRED`] or [`NONE`]. After setting it to EXPIRED,
    /// the caller must wake the waiters.
    #[inline]
    fn swap_deadline(self, at: u64) {
        // ORDERING: SeqCst: the caller then loads `armed`. `PollDesc::fire` first takes `armed` and
        // then loads the deadline, so the two are a Dekker pair.
        self.deadline_word().swap(at, Ordering::SeqCst);
    }

    /// Returns the current deadline.
    pub(crate) fn deadline(self) -> u64 {
        self.deadline_word().load(Ordering::Acquire)
    }

    /// Takes the wakers of the waiters. Called after the deadline was set to [`EXPIRED`].
    fn expire(self, wakers: &mut Wakers) {
        if !injected_bug!("expiry_looks_at_the_bit") || self.has_waiters() {
            self.interrupt(wakers);
        }
    }

    /// If the deadline has passed at `now`, expires it and takes the wakers of the waiters.
    /// Otherwise returns the deadline, if there is one.
    fn fire(self, now: u64, wakers: &mut Wakers) -> Option<u64> {
        let next = claim(self.deadline_word(), now, EXPIRED);
        if next == Some(EXPIRED) {
            self.interrupt(wakers);
        }
        next.filter(|&at| at > EXPIRED)
    }

    /// Moves the deadline to the same or a later time. Returns the time of the timer entry that the
    /// caller must add, or `None` if there is an entry at or before the deadline.
    #[inline]
    #[must_use = "a deadline without its timer entry never fires"]
    pub(crate) fn move_deadline(self, at: u64) -> Option<u64> {
        self.swap_deadline(at);
        self.desc.arm(at)
    }

    /// Sets the deadline to a future time, [`EXPIRED`] or [`NONE`]. Returns the time of the timer
    /// entry that the caller must add, or `None` if none is needed or there is an entry at or
    /// before the deadline.
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
    /// Records that an operation waits until `at` at most, because of its own relative timeout.
    /// Returns the time of the timer entry that the caller must add, or `None` if there is an entry
    /// at or before `at`.
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

    /// Arms the timer for `at`. Returns the time of the entry that the caller must add, or `None`
    /// if there is an entry at or before `at`.
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

    /// Handles the timer entry for `when`, unless it is no longer valid: expires the deadlines that
    /// have passed at `now`, and takes the wakers of all waiters if `wait_until` has passed.
    /// Returns the time of the entry that the caller must add, or `None` if none is needed.
    #[must_use = "remaining deadlines never fire without a timer entry"]
    pub(crate) fn fire(&self, when: u64, now: u64, wakers: &mut Wakers) -> Option<u64> {
        // ORDERING: SeqCst, before the loads of the deadlines; see the module documentation.
        if self.armed.compare_exchange(when, NONE, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return None;
        }
        let [read, write] = self.sides();
        let mut next = [read.fire(now, wakers), write.fire(now, wakers), claim(&self.wait_until, now, NONE)];
        if next[2] == Some(EXPIRED) {
            // Each waiter checks its own time. A waiter whose timeout has not passed arms the timer
            // again.
            next[2] = None;
            self.sides().iter().for_each(|side| side.interrupt(wakers));
        }
        self.arm(next.into_iter().flatten().min()?)
    }

    /// Forgets the timer entry of the slot. Called when a simulation ends, because the time of the
    /// entry is that of the simulated clock.
    #[cfg(feature = "sim")]
    pub(crate) fn disarm(&self) {
        self.armed.store(NONE, Ordering::SeqCst);
    }

    /// Returns whether a timer entry for `when` is still valid.
    pub(crate) fn has_valid_entry(&self, when: u64) -> bool {
        self.armed.load(Ordering::Acquire) == when
    }
}

/// If the time in `slot` has passed at `now`, replaces it with `after` and returns [`EXPIRED`].
/// Otherwise returns the time, if there is one.
fn claim(slot: &AtomicU64, now: u64, after: u64) -> Option<u64> {
    // ORDERING: SeqCst; see the module documentation.
    let mut at = slot.load(Ordering::SeqCst);
    while at > EXPIRED {
        if at > now {
            return Some(at);
        }
        if injected_bug!("fire_stores_blindly") {
            slot.store(after, Ordering::SeqCst);
            return Some(EXPIRED);
        }
        // ORDERING: SeqCst. A compare-and-swap from the time that was seen, so that a deadline that
        // was moved in the meantime stays.
        match slot.compare_exchange(at, after, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return Some(EXPIRED),
            Err(moved) => at = moved,
        }
    }
    None
}

#[cfg(test)]
#[path = "expiry_tests.rs"]
mod tests;
