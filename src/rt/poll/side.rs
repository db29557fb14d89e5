//! `Side`: one direction of a [`PollDesc`]: whether a call may succeed, and who waits until it may.
//!
//! # States
//! One word, changed by read-modify-write only:
//!
//! | bits | name | meaning | set by | cleared by |
//! |---|---|---|---|---|
//! | 40–63 | tick | edges seen, modulo 2²⁴ (the overflow falls out at the top) | +1 by `set_ready` | `open`, `retire` |
//! | 8–39 | generation | which descriptor this is | — | +1 by `retire` |
//! | 0 | READY | a call may succeed | `open`, `set_ready` | `clear_ready`, only with a ticket of the same tick |
//! | 1 | LISTED | the list may hold somebody | a wait, under the list's lock | under the list's lock, when it is empty |
//! | 2 | CLOSING | the socket is being closed | `evict` | `open` |
//! | 3–5 | HANG_UP, ERROR, PRIORITY | what an edge said; they stick | `set_ready` | `open`, `retire` |
//! | 6 | PLACED | somebody in the slot may be taken out | who has the slot to itself | whoever then has the slot to itself |
//!
//! *Ready* is READY; *idle* is its absence; *waiting* is LISTED or PLACED without READY. Waiting never consumes READY, so a dropped
//! future has no edge to give back. READY with one of them means that some waiters were not woken yet: whoever then succeeds
//! without clearing READY wakes the next (`pass_on`).
//!
//! The deadline word beside it is 0 (none), [`EXPIRED`] or a time. It alone says whether the deadline has passed: setting is a
//! swap and firing a compare-and-swap from the value that was seen, so a deadline moved at the last moment never fires.
//!
//! How a waiter gets into the slot or the list, and out again, is in [`waiting`](crate::rt::poll::waiting).
//!
//! # Invariants (numbers of ARCHITECTURE.md)
//! * 2 — a waiter announces itself (PLACED or LISTED) by a read-modify-write of the word and looks for READY, CLOSING and EXPIRED
//!   afterwards. Who sets READY or CLOSING does so in that word; who sets EXPIRED changes the word afterwards. One side sees
//!   the other (models `edge_against_wait`, `expiry_against_wait`, `edge_close_and_expiry` and others beside them).
//! * 3, 4 — every entry point compares the generation in the same step in which it changes the word (model
//!   `a_stale_event_harms_nobody`).
//! * 9 — `begin` looks at the deadline word before every call.

#![allow(unsafe_code)]

use crate::rt::poll::poll_desc::{Direction, PollDesc};
use crate::rt::poll::wait_slot::WaitSlot;
use crate::rt::time::clock::{EXPIRED, NONE};
use crate::rt::waiters::{Waiters, Wakers};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, planted};

/// Who does not get the slot; made by the first of them.
pub(super) type List = Mutex<Option<Box<Waiters>>>;

pub(super) const READY: u64 = 1 << 0;
pub(super) const LISTED: u64 = 1 << 1;
pub(super) const CLOSING: u64 = 1 << 2;
pub(crate) const HANG_UP: u64 = 1 << 3;
pub(crate) const ERROR: u64 = 1 << 4;
pub(crate) const PRIORITY: u64 = 1 << 5;
pub(super) const PLACED: u64 = 1 << 6;
const TICK_SHIFT: u32 = 40;
const TICK_ONE: u64 = 1 << TICK_SHIFT;
const TICK_MASK: u64 = !0 << TICK_SHIFT;
const GENERATION_SHIFT: u32 = 8;

pub(super) fn generation_of(word: u64) -> u32 {
    (word >> GENERATION_SHIFT) as u32
}

/// The word as it was before a system call: evidence that the call brings is good against this moment only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// Whether a call may succeed; if not, wait without trying.
    #[inline]
    pub(crate) fn is_ready(self) -> bool {
        self.0 & READY != 0
    }

    /// Whether somebody waits in this direction.
    #[inline]
    pub(crate) fn has_waiters(self) -> bool {
        self.0 & (PLACED | LISTED) != 0
    }

    /// Whether an edge said that the peer has hung up.
    pub(crate) fn is_hung_up(self) -> bool {
        self.0 & HANG_UP != 0
    }

    /// Whether a short count proves nothing: after a hang-up, an error or urgent data a call may stop early with no edge
    /// to follow.
    #[inline]
    pub(crate) fn distrusts_short_counts(self) -> bool {
        self.0 & (HANG_UP | ERROR | PRIORITY) != 0
    }
}

/// Why an operation must not go on. Closing beats expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Closed,
    Expired,
}

/// The outcome of an attempt to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Wait {
    /// The waker is in the slot or the list.
    Listed,
    /// Something happened in between: try again from the start.
    Retry,
    /// [`WAITERS_MAX`] wait already.
    Full,
}

/// See the module's header. What it is made of lies in the [`PollDesc`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side<'a> {
    pub(super) desc: &'a PollDesc,
    pub(super) direction: Direction,
}

impl<'a> Side<'a> {
    #[inline]
    pub(super) fn word(self) -> &'a AtomicU64 {
        &self.desc.words[self.direction as usize]
    }

    #[inline]
    pub(super) fn deadline_word(self) -> &'a AtomicU64 {
        &self.desc.deadlines[self.direction as usize]
    }

    #[inline]
    pub(super) fn slot(self) -> &'a WaitSlot {
        &self.desc.slots[self.direction as usize]
    }

    #[inline]
    pub(super) fn list(self) -> &'a List {
        &self.desc.lists[self.direction as usize]
    }

    /// When the `poll_*` operation that waits times out, or none.
    #[inline]
    pub(crate) fn poll_until(self) -> &'a AtomicU64 {
        &self.desc.poll_untils[self.direction as usize]
    }

    /// The epoch, plus one, in which the `poll_*` operation that waits began to, or 0.
    #[inline]
    pub(crate) fn poll_epoch(self) -> &'a AtomicU32 {
        &self.desc.poll_epochs[self.direction as usize]
    }

    pub(super) fn generation(self) -> u32 {
        generation_of(self.word().load(Ordering::Acquire))
    }

    /// Stands for a new descriptor: a call may succeed. Nobody waits.
    pub(super) fn open(self, generation: u32) {
        self.poll_until().store(NONE, Ordering::Relaxed);
        // ORDERING: Relaxed. A swap, although a store will do, because loom lets a compare-and-swap of `fire` come after a store
        // that it did not see.
        self.deadline_word().swap(NONE, Ordering::Relaxed);
        // ORDERING: Release: a stale event that reads this word with its own old generation goes away; see `set_ready`.
        self.word().swap(u64::from(generation) << GENERATION_SHIFT | READY, Ordering::AcqRel);
    }

    /// Ends all operations, now and later, with [`Stop::Closed`].
    pub(super) fn evict(self, generation: u32, wakers: &mut Wakers) {
        if self.generation() == generation {
            // ORDERING: AcqRel: a waiter's own step in this word sees CLOSING, or `interrupt` sees the waiter (invariant 2).
            self.word().fetch_or(CLOSING, Ordering::AcqRel);
            if planted!("close_wakes_one") {
                self.take_event(wakers);
            } else {
                self.interrupt(wakers);
            }
        }
    }

    /// The descriptor is gone: from here on its events and timers are stale.
    pub(super) fn retire(self, generation: u32) {
        let mut word = self.word().load(Ordering::Acquire);
        while generation_of(word) == generation {
            let kept = word & (PLACED | LISTED | CLOSING);
            let next = u64::from(generation.wrapping_add(1)) << GENERATION_SHIFT | kept;
            match self.word().compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
    }

    /// The state before a call, or why there must be none.
    #[inline]
    pub(crate) fn begin(self, generation: u32) -> Result<Ticket, Stop> {
        // ORDERING: Acquire pairs with the AcqRel of `set_ready`: who sees the edge sees what the poller wrote before it.
        let word = self.word().load(Ordering::Acquire);
        if generation_of(word) != generation || word & CLOSING != 0 {
            return Err(Stop::Closed);
        }
        // ORDERING: Acquire pairs with the SeqCst compare-and-swap in `fire`. A value that is a moment old is harmless: before
        // anybody sleeps it is read again.
        if self.deadline_word().load(Ordering::Acquire) == EXPIRED {
            return Err(Stop::Expired);
        }
        Ok(Ticket(word))
    }

    /// Takes READY away on the evidence of a call that began at `ticket`. False if an edge came since, which the call may
    /// have missed.
    #[inline]
    pub(crate) fn clear_ready(self, ticket: Ticket) -> bool {
        let mut word = ticket.0;
        while word & READY != 0 {
            // ORDERING: AcqRel, one total order of changes to this word; an edge's increment of the tick makes this fail.
            match self.word().compare_exchange_weak(word, word & !READY, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) if !planted!("clear_ignores_tick") && (now ^ ticket.0) & !(PLACED | LISTED | READY) != 0 => {
                    return false;
                }
                Err(now) => word = now,
            }
        }
        true
    }

    /// An edge for the descriptor `generation`. False if that one is gone.
    #[inline]
    pub(crate) fn set_ready(self, generation: u32, reasons: u64, wakers: &mut Wakers) -> bool {
        let mut word = self.word().load(Ordering::Acquire);
        loop {
            if generation_of(word) != generation && !planted!("stale_event_accepted") {
                return false;
            }
            let next = (word.wrapping_add(TICK_ONE) | READY | reasons) & !PLACED;
            // ORDERING: AcqRel. Who waits is read in the very step that sets READY, and a waiter announces itself in a step that reads
            // READY. Acquire, for the waker in the slot.
            match self.word().compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if word & (PLACED | LISTED) == PLACED {
            self.wake_placed(wakers);
        } else if word & LISTED != 0 {
            // The end concerns all who wait here, those who wait for just that too. An error may be a message in the error queue
            // only, which one that waits for data or room would not pass on.
            self.wake(word, reasons & (HANG_UP | ERROR) != 0 && !planted!("hang_up_wakes_one"), wakers);
        }
        true
    }

    /// Takes out who is in the slot, and tells whether that is a future. The caller has just cleared PLACED, which was set.
    #[inline]
    pub(super) fn wake_placed(self, wakers: &mut Wakers) -> bool {
        // SAFETY: PLACED says that the slot is taken, and who clears it has the slot to itself: the caller.
        let (future, waker) = unsafe { self.slot().vacate() };
        wakers.push(waker);
        future.is_some()
    }

    /// Takes out who is to be woken: by an edge all polls and the oldest future, or `everybody`. The caller has just cleared
    /// PLACED, if it stood in `word`.
    #[cold]
    fn wake(self, word: u64, everybody: bool, wakers: &mut Wakers) {
        let has_future = word & PLACED != 0 && self.wake_placed(wakers);
        if word & LISTED == 0 {
            return;
        }
        let mut list = self.list().lock();
        let Some(waiters) = &mut *list else { return };
        if everybody {
            // The list stays, empty, while futures may keep its keys: a new one would give them out again.
            waiters.take_all(wakers);
            if planted!("keys_start_over") {
                *list = None;
            }
        } else if has_future {
            waiters.take_polls(wakers);
        } else {
            waiters.take_event(wakers);
        }
        self.settle(list.as_deref());
    }

    /// Drops LISTED when the list, which the caller has locked, is empty.
    pub(super) fn settle(self, list: Option<&Waiters>) {
        if list.is_none_or(Waiters::is_empty) {
            // ORDERING: Relaxed: LISTED changes under the list's lock only.
            self.word().fetch_and(!LISTED, Ordering::Relaxed);
        }
    }

    /// Wakes everybody for a reason that the caller has stored already.
    pub(crate) fn interrupt(self, wakers: &mut Wakers) {
        // ORDERING: AcqRel, and a change of the word even if nobody seems to wait: a waiter whose announcement comes later sees the
        // reason that was stored before this (invariant 2).
        let word = self.word().fetch_and(!PLACED, Ordering::AcqRel);
        self.wake(word, true, wakers);
    }

    /// What an event wakes, without an event.
    fn take_event(self, wakers: &mut Wakers) {
        let word = self.word().fetch_and(!PLACED, Ordering::AcqRel);
        self.wake(word, false, wakers);
    }

    /// After a success that left READY set: the next waiter has something to do as well.
    pub(crate) fn pass_on(self, wakers: &mut Wakers) {
        // ORDERING: Acquire; who announces itself later looks at READY itself.
        let word = self.word().load(Ordering::Acquire);
        if word & (PLACED | LISTED) != 0 && word & READY != 0 && !planted!("success_keeps_the_rest") {
            self.take_event(wakers);
        }
    }

    /// Whether anybody may be waiting; if not, a future that waited was woken and taken out.
    #[inline]
    pub(crate) fn has_waiters(self) -> bool {
        // ORDERING: Acquire; who announces itself later looks at READY itself.
        self.word().load(Ordering::Acquire) & (PLACED | LISTED) != 0
    }

    /// Takes out who is there still when the last handle goes: wakers of `poll_*` calls that have ended. Nobody waits in a free slot of
    /// the cache.
    pub(crate) fn take_leftovers(self, wakers: &mut Wakers) {
        if self.has_waiters() {
            self.interrupt(wakers);
        }
        // With the last handle the last key is gone. Declared apart: what it kept is freed outside the lock.
        let list = self.list().lock().take();
        drop(list);
    }

    /// Changes with every edge.
    pub(crate) fn edges(self) -> u64 {
        self.word().load(Ordering::Acquire) & TICK_MASK
    }

    /// The bits that edges left behind.
    pub(crate) fn is_hung_up(self) -> bool {
        self.word().load(Ordering::Acquire) & HANG_UP != 0
    }

    pub(crate) fn waiting(self) -> usize {
        let placed = self.word().load(Ordering::Relaxed) & PLACED != 0;
        usize::from(placed) + self.list().lock().as_ref().map_or(0, |waiters| waiters.len())
    }

    /// Sets the deadline to a time to come, [`EXPIRED`] or [`NONE`]. Who expires it wakes who waits afterwards.
    #[inline]
    pub(super) fn set_deadline(self, at: u64) {
        // ORDERING: SeqCst swap, then the load of `armed`: a Dekker pair with `PollDesc::fire`, which takes `armed` and then loads this.
        self.deadline_word().swap(at, Ordering::SeqCst);
    }

    pub(super) fn deadline(self) -> u64 {
        self.deadline_word().load(Ordering::Acquire)
    }

    /// The deadline was set to [`EXPIRED`].
    pub(super) fn expire(self, wakers: &mut Wakers) {
        if !planted!("expiry_looks_at_the_bit") || self.has_waiters() {
            self.interrupt(wakers);
        }
    }

    /// Expires the deadline if it has come at `now`. Returns it if it is still to come.
    pub(super) fn fire(self, now: u64, wakers: &mut Wakers) -> Option<u64> {
        let next = claim(self.deadline_word(), now, EXPIRED);
        if next == Some(EXPIRED) {
            self.interrupt(wakers);
        }
        next.filter(|&at| at > EXPIRED)
    }
}

/// Replaces a time that has come by `after`: then [`EXPIRED`]. Otherwise the time that is still to come, if there is one.
pub(super) fn claim(slot: &AtomicU64, now: u64, after: u64) -> Option<u64> {
    // ORDERING: SeqCst, the Dekker pair with `set_deadline` (see the header of `poll_desc`).
    let mut at = slot.load(Ordering::SeqCst);
    while at > EXPIRED {
        if at > now {
            return Some(at);
        }
        if planted!("fire_stores_blindly") {
            slot.store(after, Ordering::SeqCst);
            return Some(EXPIRED);
        }
        // ORDERING: SeqCst; from the value seen, so that a deadline that was moved meanwhile stays.
        match slot.compare_exchange(at, after, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return Some(EXPIRED),
            Err(moved) => at = moved,
        }
    }
    None
}

#[cfg(test)]
#[path = "side_tests.rs"]
pub(crate) mod tests;
