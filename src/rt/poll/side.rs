//! [`Side`]: one direction of a [`PollDesc`], with its readiness and its waiters. A socket gets it
//! from its [`PollHandle`]. It carries the generation of the descriptor for which the caller acts.
//!
//! # States
//! The state is one word, which is changed only by read-modify-writes:
//!
//! | bits | name | meaning | set by | cleared by |
//! |---|---|---|---|---|
//! | 40–63 | tick | edges seen, modulo 2²⁴ (the overflow is shifted out) | +1 by `set_ready` | `open`, `retire` |
//! | 8–39 | generation | the descriptor that this belongs to | — | +1 by `retire` |
//! | 0 | READY | a call may succeed | `open`, `set_ready` | `clear_ready`, only with a ticket of the same tick; `retire` |
//! | 1 | LISTED | the list may contain a waiter | a wait, under the list's lock | under the list's lock, when it is empty |
//! | 2 | CLOSING | the socket is being closed | `evict` | `open` |
//! | 3–5 | HANG_UP, ERROR, PRIORITY | reported by an edge; they persist | `set_ready` | `open`, `retire` |
//! | 5 | CORKED | writes are gathered; in the word of the write direction, in which PRIORITY has no meaning | `set_corked` | `set_corked`, `open`, `retire` |
//! | 6 | PLACED | the slot has a waiter, which may be taken out | the exclusive owner of the slot | the thread that thereby becomes its exclusive owner |
//! | 7 | COUNTED | every edge changes the word | `open`; the first `clear_ready` after `skip_edges` | `skip_edges`, `retire` |
//!
//! *Ready* means that READY is set, *idle* that it is clear, and *waiting* that LISTED or PLACED is
//! set and READY is clear. Waiting never consumes READY, so a dropped future has no edge to give
//! back. READY together with LISTED or PLACED means that some waiters were not woken yet: an
//! operation that then succeeds without clearing READY wakes the next one (`pass_on`).
//!
//! # Edges that are skipped
//! Each event of a socket reports the state of both directions, so an event for received data
//! usually reports also that the socket is writable. In a direction without COUNTED, an edge that
//! finds READY and no waiter leaves the word alone, which saves the poller one read-modify-write
//! per event. No evidence from such a direction is accepted: the first `clear_ready` sets COUNTED
//! and returns false, as if an edge had come, so the operation makes its call again. COUNTED is set
//! before that call, so every edge that the call may miss is recorded (model
//! `skipped_edges_lose_no_room`).
//!
//! The deadline word is 0 (none), [`EXPIRED`] or a time. It alone decides whether the deadline has
//! passed: setting it is a swap, and expiring it a compare-and-swap from the value that was seen,
//! so a deadline that is moved at the last moment never fires.
//!
//! [`waiting`](crate::rt::poll::waiting) describes how a waiter enters the slot or the list, and
//! leaves it.
//!
//! # Invariants (numbers of ARCHITECTURE.md)
//! * 2 — a waiter announces itself (PLACED or LISTED) by a read-modify-write of the word and checks
//!   READY, CLOSING and EXPIRED afterwards. READY and CLOSING are set in the same word, and after
//!   EXPIRED is set, the word is changed. So the waiter sees the event, or the event finds the
//!   waiter (models `edge_against_wait`, `expiry_against_wait`, `edge_close_and_expiry` and
//!   others).
//! * 3, 4 — every entry point compares the generation in the same step in which it changes the word
//!   (model `stale_event_has_no_effect`).
//! * 9 — `begin` checks the deadline word before every call.

#![allow(unsafe_code)]

use crate::rt::poll::poll_desc::{Direction, GENERATION_SHIFT, List, PollDesc, generation_of, registration};
use crate::rt::poll::wait_slot::WaitSlot;
use crate::rt::time::clock::{EXPIRED, NONE};
use crate::rt::waiters::{Waiters, Wakers};
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering, injected_bug};

pub(super) const READY: u64 = 1 << 0;
pub(super) const LISTED: u64 = 1 << 1;
pub(super) const CLOSING: u64 = 1 << 2;
pub(crate) const HANG_UP: u64 = 1 << 3;
pub(crate) const ERROR: u64 = 1 << 4;
pub(crate) const PRIORITY: u64 = 1 << 5;
/// Writes are gathered. Used in the word of the write direction only.
const CORKED: u64 = PRIORITY;
pub(super) const PLACED: u64 = 1 << 6;
const COUNTED: u64 = 1 << 7;
const TICK_SHIFT: u32 = 40;
const TICK_ONE: u64 = 1 << TICK_SHIFT;
const TICK_MASK: u64 = !0 << TICK_SHIFT;

/// The word before a system call. The call is evidence about this state only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// Returns whether READY is set. If not, an operation makes its call at most once per poll
    /// before it waits.
    #[inline]
    pub(crate) fn is_ready(self) -> bool {
        self.0 & READY != 0
    }

    /// Returns whether an operation waits in this direction.
    #[inline]
    pub(crate) fn has_waiters(self) -> bool {
        self.0 & (PLACED | LISTED) != 0
    }

    /// Returns the count of edges; see [`Side::edges`].
    pub(crate) fn edges(self) -> u64 {
        self.0 & TICK_MASK
    }

    /// Returns whether a short count proves nothing: after a hang-up, an error or urgent data, a
    /// call may stop early without another edge to follow. With gathered writes, the count of a
    /// write is not that of its system call.
    #[inline]
    pub(crate) fn distrusts_short_counts(self) -> bool {
        self.0 & (HANG_UP | ERROR | PRIORITY) != 0
    }
}

/// Why an operation must not continue. Closing takes precedence over expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Closed,
    Expired,
}

/// Why an operation must not make its call right away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Stop(Stop),
    /// Writes are gathered, so earlier ones may have to be sent first.
    Corked,
}

/// The outcome of an attempt to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Wait {
    /// The waker is in the slot or the list.
    Listed,
    /// The reason for the wait no longer holds: the operation must try again from the start.
    Retry,
    /// There are [`WAITERS_MAX`] waiters already.
    Full,
}

/// One direction of a descriptor; see the [module documentation](self). Its state is in the
/// [`PollDesc`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side<'a> {
    pub(super) desc: &'a PollDesc,
    pub(super) direction: Direction,
    /// The generation of the descriptor for which the caller acts. If it is stale, no method
    /// changes anything.
    pub(super) generation: u32,
}

/// A socket's reference to its descriptor; see [`poller`](crate::rt::poll::poller).
#[derive(Debug)]
pub(crate) struct PollHandle {
    pub(super) desc: &'static PollDesc,
    pub(super) generation: u32,
    /// The maximum number of bytes of an operation that does not call `charge`. The kernel counts
    /// the bytes of plain TCP, so only large operations do.
    pub(crate) uncounted: u32,
}

impl PollHandle {
    /// Returns a direction of the descriptor.
    #[inline]
    pub(crate) fn side(&self, direction: Direction) -> Side<'static> {
        self.desc.side(direction, self.generation)
    }
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

    /// Returns the time at which the waiting poll times out, or [`NONE`].
    #[inline]
    pub(crate) fn until_of_poll(self) -> &'a AtomicU64 {
        &self.desc.poll_untils[self.direction as usize]
    }

    /// Returns the epoch in which the waiting poll began, plus one, or 0.
    #[inline]
    pub(crate) fn epoch_of_poll(self) -> &'a AtomicU32 {
        &self.desc.poll_epochs[self.direction as usize]
    }

    /// Returns the state of the budget, for [`poll_turn`](crate::rt::context::poll_turn).
    #[inline]
    pub(crate) fn turns(self) -> &'a AtomicU8 {
        &self.desc.turns[self.direction as usize]
    }

    /// Assigns the direction to a new descriptor: a call may succeed, and no operation waits.
    fn open(self) {
        self.until_of_poll().store(NONE, Ordering::Relaxed);
        // ORDERING: Relaxed. A swap, although a store would suffice, because loom allows a
        // compare-and-swap of `fire` to come after a store that it did not see.
        self.deadline_word().swap(NONE, Ordering::Relaxed);
        // ORDERING: Release: a stale event that reads this word with its own old generation is
        // ignored; see `set_ready`.
        self.word().swap(u64::from(self.generation) << GENERATION_SHIFT | COUNTED | READY, Ordering::AcqRel);
    }

    /// Lets the poller skip edges until a call gives evidence. The descriptor must be new, so that
    /// no other thread knows it.
    pub(crate) fn skip_edges(self) {
        self.word().fetch_and(!COUNTED, Ordering::AcqRel);
    }

    /// Ends all current and later operations with [`Stop::Closed`].
    fn evict(self, wakers: &mut Wakers) {
        if generation_of(self.word().load(Ordering::Acquire)) == self.generation {
            // ORDERING: AcqRel: a waiter's own step in this word sees CLOSING, or `interrupt` sees
            // the waiter (invariant 2).
            self.word().fetch_or(CLOSING, Ordering::AcqRel);
            if injected_bug!("close_wakes_one") {
                self.take_event(wakers);
            } else {
                self.interrupt(wakers);
            }
        }
    }

    /// Makes all later events and timers of the descriptor stale. Called when the descriptor is
    /// gone.
    fn retire(self) {
        let mut word = self.word().load(Ordering::Acquire);
        while generation_of(word) == self.generation {
            let kept = word & (PLACED | LISTED | CLOSING);
            let next = u64::from(self.generation.wrapping_add(1)) << GENERATION_SHIFT | kept;
            match self.word().compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
    }

    /// Returns the state before a call, or the reason why the operation must not continue.
    #[inline]
    pub(crate) fn begin(self) -> Result<Ticket, Stop> {
        // ORDERING: Acquire pairs with the AcqRel of `set_ready`: a thread that sees the edge sees
        // what the poller wrote before it.
        let word = self.word().load(Ordering::Acquire);
        if generation_of(word) != self.generation || word & CLOSING != 0 {
            return Err(Stop::Closed);
        }
        // ORDERING: Acquire pairs with the SeqCst compare-and-swap in `fire`. An old value is
        // harmless, because it is read again before the operation waits.
        if self.deadline_word().load(Ordering::Acquire) == EXPIRED {
            return Err(Stop::Expired);
        }
        Ok(Ticket(word))
    }

    /// Returns the result of [`begin`](Side::begin), or [`Hold::Corked`] if writes are gathered.
    /// One test covers CLOSING and CORKED.
    #[inline]
    pub(crate) fn begin_call(self) -> Result<Ticket, Hold> {
        if self.direction == Direction::Read {
            return self.begin().map_err(Hold::Stop);
        }
        // ORDERING: as in `begin`.
        let word = self.word().load(Ordering::Acquire);
        if generation_of(word) != self.generation || word & (CLOSING | CORKED) != 0 {
            return Err(self.hold());
        }
        if self.deadline_word().load(Ordering::Acquire) == EXPIRED {
            return Err(Hold::Stop(Stop::Expired));
        }
        Ok(Ticket(word))
    }

    /// Returns why [`begin_call`](Side::begin_call) refuses.
    #[cold]
    fn hold(self) -> Hold {
        self.begin().map_or_else(Hold::Stop, |_| Hold::Corked)
    }

    /// Sets whether [`begin_call`](Side::begin_call) reports that writes are gathered. For the
    /// write direction only.
    pub(crate) fn set_corked(self, corked: bool) {
        let mut word = self.word().load(Ordering::Acquire);
        while generation_of(word) == self.generation {
            let next = if corked { word | CORKED } else { word & !CORKED };
            // ORDERING: AcqRel, as every change of the word. The state of the gathering has its own
            // lock, under which this is called.
            match self.word().compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Returns whether READY is clear: as far as is known, a call would have to wait.
    pub(crate) fn is_idle(self) -> bool {
        // ORDERING: Acquire: an operation that waits has cleared READY, or found it clear, before it
        // arms.
        let word = self.word().load(Ordering::Acquire);
        generation_of(word) == self.generation && word & READY == 0
    }

    /// Clears READY on the evidence of a call that began at `ticket`. Returns false if the call may
    /// have missed an edge: one that has arrived since, or one that was skipped. If `ticket` was
    /// not ready, returns true, because the wait checks READY again.
    #[inline]
    pub(crate) fn clear_ready(self, ticket: Ticket) -> bool {
        if self.may_skip(ticket.0) && !injected_bug!("evidence_despite_skipped_edges") {
            return self.count_edges();
        }
        let mut word = ticket.0;
        while word & READY != 0 {
            // ORDERING: AcqRel, one total order of changes to this word; an edge's increment of the
            // tick makes this fail.
            match self.word().compare_exchange_weak(word, word & !READY, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now)
                    if !injected_bug!("clear_ignores_tick") && (now ^ ticket.0) & !(PLACED | LISTED | READY) != 0 =>
                {
                    return false;
                }
                Err(now) => word = now,
            }
        }
        true
    }

    /// Returns whether edges may be skipped. They are never skipped in the read direction, where
    /// most edges mean new data.
    #[inline]
    fn may_skip(self, word: u64) -> bool {
        self.direction == Direction::Write && word & COUNTED == 0
    }

    /// Makes the poller record every edge from here on. Returns false, because it may have skipped
    /// one.
    #[cold]
    fn count_edges(self) -> bool {
        // ORDERING: AcqRel, before the next call of the operation; see the module documentation.
        self.word().fetch_or(COUNTED, Ordering::AcqRel);
        false
    }

    /// Records an edge. Returns false if the descriptor for which it was sent is gone.
    #[inline(always)]
    pub(crate) fn set_ready(self, reasons: u64, wakers: &mut Wakers) -> bool {
        let mut word = self.word().load(Ordering::Acquire);
        loop {
            if generation_of(word) != self.generation && !injected_bug!("stale_event_accepted") {
                return false;
            }
            if self.may_skip(word) && word & (READY | PLACED | LISTED) == READY && reasons == 0 {
                return true;
            }
            let next = (word.wrapping_add(TICK_ONE) | READY | reasons) & !PLACED;
            // ORDERING: AcqRel. The waiters are read in the step that sets READY, and a waiter
            // announces itself in a step that reads READY. Acquire, for the waker in the slot.
            match self.word().compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if word & (PLACED | LISTED) == PLACED {
            self.wake_placed(wakers);
        } else if word & LISTED != 0 {
            // A hang-up concerns all waiters, including those that wait only for it. An error may
            // only mean a message in the error queue. A waiter for data or room would not pass that
            // wake-up on, so an error also wakes all.
            self.wake(word, reasons & (HANG_UP | ERROR) != 0 && !injected_bug!("hang_up_wakes_one"), wakers);
        }
        true
    }

    /// Takes the waiter out of the slot, and returns whether it is a future. The caller has just
    /// cleared PLACED, which was set.
    #[inline]
    pub(super) fn wake_placed(self, wakers: &mut Wakers) -> bool {
        // SAFETY: PLACED means that the slot is taken, and the thread that clears it, which is the
        // caller, owns the slot exclusively.
        let (future, waker) = unsafe { self.slot().vacate() };
        wakers.push(waker);
        future.is_some()
    }

    /// Takes the waiters to be woken: all of them if `all`, or else those that an edge wakes, which
    /// are all polls and the oldest future. The caller has just cleared PLACED if it was set in
    /// `word`.
    #[cold]
    fn wake(self, word: u64, all: bool, wakers: &mut Wakers) {
        let has_future = word & PLACED != 0 && self.wake_placed(wakers);
        if word & LISTED == 0 {
            return;
        }
        let mut list = self.list().lock();
        let Some(waiters) = &mut *list else { return };
        if all {
            // The empty list is kept while futures may have keys of it, because a new list would
            // issue the same keys again.
            waiters.take_all(wakers);
            if injected_bug!("keys_start_over") {
                *list = None;
            }
        } else if has_future {
            waiters.take_polls(wakers);
        } else {
            waiters.take_event(wakers);
        }
        self.settle(list.as_deref());
    }

    /// Clears LISTED if the list, which the caller has locked, is empty.
    pub(super) fn settle(self, list: Option<&Waiters>) {
        if list.is_none_or(Waiters::is_empty) {
            // ORDERING: Relaxed: LISTED changes only under the list's lock.
            self.word().fetch_and(!LISTED, Ordering::Relaxed);
        }
    }

    /// Wakes all waiters for a reason that the caller has already stored.
    pub(crate) fn interrupt(self, wakers: &mut Wakers) {
        // ORDERING: AcqRel, and a change of the word even if no operation seems to wait: a waiter
        // that announces itself later sees the reason that was stored before this (invariant 2).
        let word = self.word().fetch_and(!PLACED, Ordering::AcqRel);
        self.wake(word, true, wakers);
    }

    /// Takes the wakers that an event would wake.
    fn take_event(self, wakers: &mut Wakers) {
        let word = self.word().fetch_and(!PLACED, Ordering::AcqRel);
        self.wake(word, false, wakers);
    }

    /// Wakes the next waiter, if READY is set, because it may succeed. Called after an operation
    /// that left READY set.
    pub(crate) fn pass_on(self, wakers: &mut Wakers) {
        // ORDERING: Acquire; an operation that announces itself later checks READY itself.
        let word = self.word().load(Ordering::Acquire);
        if word & (PLACED | LISTED) != 0 && word & READY != 0 && !injected_bug!("success_keeps_the_rest") {
            self.take_event(wakers);
        }
    }

    /// Returns whether an operation may be waiting; if not, a future that waited was woken and
    /// taken out.
    #[inline]
    pub(crate) fn has_waiters(self) -> bool {
        // ORDERING: Acquire; an operation that announces itself later checks READY itself.
        self.word().load(Ordering::Acquire) & (PLACED | LISTED) != 0
    }

    /// Takes the wakers that remain when the last handle is dropped: those of earlier `poll_*`
    /// calls. A free slot of the cache must have no waiters.
    pub(crate) fn take_leftovers(self, wakers: &mut Wakers) {
        if self.has_waiters() {
            self.interrupt(wakers);
        }
        // With the last handle the last key is gone. A separate variable, so that the list is freed
        // outside the lock.
        let list = self.list().lock().take();
        drop(list);
    }

    /// Returns a value that changes with every edge.
    pub(crate) fn edges(self) -> u64 {
        self.word().load(Ordering::Acquire) & TICK_MASK
    }

    /// Returns whether an edge reported a hang-up.
    pub(crate) fn is_hung_up(self) -> bool {
        self.word().load(Ordering::Acquire) & HANG_UP != 0
    }

    /// Returns whether the socket is being closed.
    pub(crate) fn is_closing(self) -> bool {
        self.word().load(Ordering::Acquire) & CLOSING != 0
    }

    /// Returns the number of operations that wait.
    pub(crate) fn waiting(self) -> usize {
        let word = self.word().load(Ordering::Relaxed);
        let listed = if word & LISTED == 0 { 0 } else { self.list().lock().as_ref().map_or(0, |list| list.len()) };
        usize::from(word & PLACED != 0) + listed
    }

    /// Sets the deadline to a future time, [`EXPIRED`] or [`NONE`]. After setting EXPIRED, the
    /// caller must wake the waiters.
    #[inline]
    pub(super) fn swap_deadline(self, at: u64) {
        // ORDERING: SeqCst swap, then the load of `armed`: a Dekker pair with `PollDesc::fire`,
        // which takes `armed` and then loads this.
        self.deadline_word().swap(at, Ordering::SeqCst);
    }

    /// Returns the current deadline.
    pub(crate) fn deadline(self) -> u64 {
        self.deadline_word().load(Ordering::Acquire)
    }

    /// Wakes the waiters. Called after the deadline was set to [`EXPIRED`].
    pub(super) fn expire(self, wakers: &mut Wakers) {
        if !injected_bug!("expiry_looks_at_the_bit") || self.has_waiters() {
            self.interrupt(wakers);
        }
    }

    /// Expires the deadline if it has passed at `now`; otherwise returns it.
    pub(super) fn fire(self, now: u64, wakers: &mut Wakers) -> Option<u64> {
        let next = claim(self.deadline_word(), now, EXPIRED);
        if next == Some(EXPIRED) {
            self.interrupt(wakers);
        }
        next.filter(|&at| at > EXPIRED)
    }
}

/// Both directions.
impl PollDesc {
    /// Returns a direction, for a caller that acts for the descriptor `generation`.
    #[inline]
    pub(crate) fn side(&self, direction: Direction, generation: u32) -> Side<'_> {
        Side { desc: self, direction, generation }
    }

    /// Returns the directions of the descriptor that has the slot at this moment.
    pub(crate) fn sides(&self) -> [Side<'_>; 2] {
        self.sides_of(self.generation())
    }

    /// Returns both directions, for a caller that acts for the descriptor `generation`.
    pub(crate) fn sides_of(&self, generation: u32) -> [Side<'_>; 2] {
        [Direction::Read, Direction::Write].map(|direction| self.side(direction, generation))
    }

    /// Assigns a free slot to a new descriptor and returns its generation. Both directions begin
    /// ready: a call may succeed.
    pub(crate) fn open(&self) -> u32 {
        let generation = self.generation();
        self.sides_of(generation).iter().for_each(|side| side.open());
        self.reset();
        generation
    }

    /// Ends all current and later operations with [`Stop::Closed`].
    pub(crate) fn evict(&self, generation: u32, wakers: &mut Wakers) {
        self.sides_of(generation).iter().for_each(|side| side.evict(wakers));
    }

    /// Makes all later events of the descriptor stale. Called when the descriptor is gone.
    pub(crate) fn retire(&self, generation: u32) {
        // ORDERING: before the generation changes with Release, so a reader that sees the new
        // generation does not see the old number (model
        // `a_snapshot_pairs_no_number_with_another_generation`).
        if !injected_bug!("number_outlives_generation") {
            self.forget_number();
        }
        self.sides_of(generation).iter().for_each(|side| side.retire());
        self.registration.store(registration::NONE, Ordering::Release);
    }
}

/// Replaces a time that has passed by `after` and returns [`EXPIRED`]. Otherwise returns the future
/// time, if there is one.
pub(super) fn claim(slot: &AtomicU64, now: u64, after: u64) -> Option<u64> {
    // ORDERING: SeqCst, the Dekker pair with `set_deadline` (see the documentation of `expiry`).
    let mut at = slot.load(Ordering::SeqCst);
    while at > EXPIRED {
        if at > now {
            return Some(at);
        }
        if injected_bug!("fire_stores_blindly") {
            slot.store(after, Ordering::SeqCst);
            return Some(EXPIRED);
        }
        // ORDERING: SeqCst; a compare-and-swap from the value seen, so that a deadline moved in the
        // meantime stays.
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
