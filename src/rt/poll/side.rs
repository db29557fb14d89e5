//! [`Side`]: one direction of a [`PollDesc`], with its readiness and its waiters. An operation gets
//! a `Side` from the [`PollHandle`] of its descriptor. A `Side` contains the generation of the
//! descriptor for which the caller acts.
//!
//! # States
//! The state is one word, which is changed only by read-modify-writes:
//!
//! | bits | name | meaning | set by | cleared by |
//! |---|---|---|---|---|
//! | 40–63 | tick | the number of recorded edges, modulo 2²⁴ (the overflow is shifted out) | +1 by `set_ready` | `open`, `retire` |
//! | 8–39 | generation | the descriptor to which the word belongs | +1 by `retire` | — |
//! | 0 | READY | a call may succeed | `open`, `set_ready` | `clear_ready` and `publish_after`, only with a ticket of the same tick; `retire` |
//! | 1 | LISTED | the list may contain a waiter | a wait, under the list's lock | under the list's lock, when it is empty |
//! | 2 | CLOSING | the socket is being closed | `evict` | `open` |
//! | 3–5 | HANG_UP, ERROR, PRIORITY | reported by an edge; they persist | `set_ready` | `open`, `retire` |
//! | 5 | CORKED | writes are gathered; only in the word of the write direction, which does not use PRIORITY | `set_corked` | `set_corked`, `open`, `retire` |
//! | 6 | PLACED | the slot has a waiter, which may be taken out | the exclusive owner of the slot | a thread, which thereby becomes the exclusive owner |
//! | 7 | COUNTED | every edge changes the word | `open`; the first `clear_ready` after `skip_edges` | `skip_edges`, `retire` |
//!
//! A direction is *ready* if READY is set, and *idle* otherwise. Operations may be *waiting* if
//! LISTED or PLACED is set. As in `rt/waiters.rs`, a waiter is a *future* or a *poll* (a task that
//! has called a `poll_*` method). A wait never consumes READY, so a dropped future has no edge to
//! give back. (`publish_after` clears READY because of an earlier call.) READY together with LISTED
//! or PLACED means that some waiters may not have been woken yet. So an operation that succeeds
//! without clearing READY wakes the next waiter (`pass_on`).
//!
//! # Edges that are skipped
//! Each event of epoll(7) reports the state of both directions, so an event for received data
//! usually also reports that the socket is writable. While COUNTED is clear in the write direction,
//! an edge without a hang-up or an error that finds READY and no waiter does not change the word,
//! which saves the poller one read-modify-write per event. The result of a call is then no evidence
//! that the direction is idle: the first `clear_ready` sets COUNTED and returns false, as if an
//! edge had arrived. So an operation that got EAGAIN makes its call again, and a short count is
//! ignored. COUNTED is set before the next call, so every edge that this call may miss is recorded
//! (model `skipped_edges_lose_no_room`).
//!
//! [`expiry`](crate::rt::poll::expiry) describes the deadline, and
//! [`waiting`](crate::rt::poll::waiting) how a waiter enters and leaves the slot or the list.
//!
//! # Invariants (numbers of ARCHITECTURE.md)
//! * 2 — a waiter announces itself (PLACED or LISTED) by a read-modify-write of the word, and
//!   afterwards checks READY, CLOSING and EXPIRED. READY and CLOSING are in the same word, and the
//!   word is changed after EXPIRED is set. So the waiter sees the event, or the event finds the
//!   waiter (models `edge_against_wait`, `expiry_against_wait`, `edge_close_and_expiry` and
//!   others).
//! * 3 — a late event, or the result of a late call, compares the generation in the step in which
//!   it changes the word (model `stale_event_has_no_effect`). A late waiter finds another
//!   generation in the step in which it announces itself, and leaves.
//! * 9 — an operation checks the deadline word (`begin`, `begin_call`, `is_expired`) before each of
//!   its calls, except when it repeats a call after EINTR.

#![allow(unsafe_code)]

use crate::rt::poll::poll_desc::{Direction, GENERATION_SHIFT, List, PollDesc, generation_of, registration};
pub(super) use crate::rt::poll::ticket::{CLOSING, LISTED, PLACED, READY};
use crate::rt::poll::ticket::{CORKED, COUNTED, TICK_MASK, TICK_ONE, clear_ready};
pub(crate) use crate::rt::poll::ticket::{ERROR, HANG_UP, PRIORITY, Place, Ticket};
use crate::rt::poll::wait_slot::WaitSlot;
use crate::rt::time::clock::{EXPIRED, NONE};
use crate::rt::waiters::{Waiters, Wakers};
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering, injected_bug};

/// The reason why an operation must not continue. Closing takes precedence over expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Closed,
    Expired,
}

/// The reason why an operation must not make its call immediately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Stop(Stop),
    /// Writes are gathered, so earlier writes may have to be sent first.
    Corked,
}

/// The outcome of an attempt to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Wait {
    /// The waker is in the slot or the list.
    Listed,
    /// The operation must start again, because it must not wait any more, or because
    /// [`wait_after`](Side::wait_after) could not announce its waiter.
    Retry,
    /// There are already [`WAITERS_MAX`](crate::rt::poll::waiting::WAITERS_MAX) waiters in the
    /// list.
    Full,
}

/// One direction of a descriptor; see the [module documentation](self). Its state is in the
/// [`PollDesc`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side<'a> {
    pub(super) desc: &'a PollDesc,
    pub(super) direction: Direction,
    /// The generation of the descriptor for which the caller acts. If it is stale, calls are
    /// refused with [`Stop::Closed`], and events have no effect.
    pub(super) generation: u32,
}

/// The reference of a descriptor, or of an end of an in-memory pipe, to its [`PollDesc`]; see
/// [`poller`](crate::rt::poll::poller).
#[derive(Debug)]
pub(crate) struct PollHandle {
    pub(super) desc: &'static PollDesc,
    pub(super) generation: u32,
    /// The number of bytes above which an operation must call `charge`. It is 0 unless the
    /// descriptor is known to be a TCP socket without multipath, whose bytes the kernel counts.
    pub(crate) uncounted: u32,
}

impl PollHandle {
    /// Returns a direction of the descriptor.
    #[inline]
    pub(crate) fn side(&self, direction: Direction) -> Side<'static> {
        self.desc.side(direction, self.generation)
    }
}

impl Side<'static> {
    /// Returns the place of the direction's word.
    #[inline]
    pub(crate) fn place(self) -> Place {
        Place(self.word())
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

    /// Returns the word with the time at which the waiting poll times out, or [`NONE`].
    #[inline]
    pub(crate) fn until_of_poll(self) -> &'a AtomicU64 {
        &self.desc.poll_untils[self.direction as usize]
    }

    /// Returns the word that identifies the epoch and the task in which the waiting poll began. The
    /// word is 0 if no poll waits.
    #[inline]
    pub(crate) fn epoch_of_poll(self) -> &'a AtomicU32 {
        &self.desc.poll_epochs[self.direction as usize]
    }

    /// Returns the state that [`poll_turn`](crate::rt::context::poll_turn) needs for the direction.
    #[inline]
    pub(crate) fn turns(self) -> &'a AtomicU8 {
        &self.desc.turns[self.direction as usize]
    }

    /// Initialises the direction for a new descriptor: it is ready, and no operation waits.
    fn open(self) {
        self.until_of_poll().store(NONE, Ordering::Relaxed);
        // ORDERING: Relaxed. A store would suffice, but loom would allow a compare-and-swap in
        // `fire` that follows the store without seeing it.
        self.deadline_word().swap(NONE, Ordering::Relaxed);
        // ORDERING: AcqRel, as for every change of the word except that in `settle`. A stale event
        // compares its generation with that of the word and is ignored; see `set_ready`.
        self.word().swap(u64::from(self.generation) << GENERATION_SHIFT | COUNTED | READY, Ordering::AcqRel);
    }

    /// Permits the poller to skip edges until the first `clear_ready`. The descriptor must be new,
    /// so that no other thread uses it yet.
    pub(crate) fn skip_edges(self) {
        self.word().fetch_and(!COUNTED, Ordering::AcqRel);
    }

    /// Makes all current and later operations end with [`Stop::Closed`]. Takes the wakers of the
    /// waiters.
    fn evict(self, wakers: &mut Wakers) {
        if generation_of(self.word().load(Ordering::Acquire)) == self.generation {
            // ORDERING: AcqRel: the step in which a waiter announces itself sees CLOSING, or
            // `interrupt` sees the waiter (invariant 2).
            self.word().fetch_or(CLOSING, Ordering::AcqRel);
            if injected_bug!("close_wakes_one") {
                self.take_event(wakers);
            } else {
                self.interrupt(wakers);
            }
        }
    }

    /// Makes all later events of the descriptor stale. Called before the descriptor is closed or
    /// leaves this crate.
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
        // ORDERING: Acquire pairs with the AcqRel of `set_ready`: a thread that sees the edge also
        // sees everything that the poller wrote before it.
        let word = self.word().load(Ordering::Acquire);
        if generation_of(word) != self.generation || word & CLOSING != 0 {
            return Err(Stop::Closed);
        }
        if self.is_expired() {
            return Err(Stop::Expired);
        }
        Ok(Ticket(word))
    }

    /// Returns whether the deadline has passed.
    #[inline]
    pub(crate) fn is_expired(self) -> bool {
        // ORDERING: Acquire pairs with the SeqCst changes in `fire` and `set_deadline`. An outdated
        // value does no harm, because the deadline word is read again before the operation waits.
        self.deadline_word().load(Ordering::Acquire) == EXPIRED
    }

    /// Returns the state before a call, as [`begin`](Side::begin) does, or [`Hold::Corked`] if
    /// writes are gathered. CLOSING and CORKED are checked together.
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
        if self.is_expired() {
            return Err(Hold::Stop(Stop::Expired));
        }
        Ok(Ticket(word))
    }

    /// Returns the reason why [`begin_call`](Side::begin_call) refuses the call.
    #[cold]
    fn hold(self) -> Hold {
        self.begin().map_or_else(Hold::Stop, |_| Hold::Corked)
    }

    /// Sets whether [`begin_call`](Side::begin_call) reports that writes are gathered. The
    /// direction must be the write direction.
    pub(crate) fn set_corked(self, corked: bool) {
        let mut word = self.word().load(Ordering::Acquire);
        while generation_of(word) == self.generation {
            let next = if corked { word | CORKED } else { word & !CORKED };
            // ORDERING: AcqRel, as in `open`. The gathered writes have their own lock, which the
            // caller holds.
            match self.word().compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Returns whether READY is clear, so that a call would probably have to wait. Returns false if
    /// the generation is stale.
    pub(crate) fn is_idle(self) -> bool {
        // ORDERING: Acquire: an operation clears READY, or finds it clear, before it arms the back
        // end.
        let word = self.word().load(Ordering::Acquire);
        generation_of(word) == self.generation && word & READY == 0
    }

    /// Clears READY, because a call that began at `ticket` has failed with EAGAIN or had a short
    /// count, and returns true. If `ticket` was not ready, only returns true, because the wait
    /// checks READY again. Does not clear READY and returns false in two cases:
    /// * Edges could be skipped at `ticket`.
    /// * `ticket` was ready and, since then, an edge was recorded, or a bit other than READY and
    ///   those of waiters has changed, for example because the socket is being closed.
    #[inline]
    pub(crate) fn clear_ready(self, ticket: Ticket) -> bool {
        if self.may_skip(ticket.0) && !injected_bug!("evidence_despite_skipped_edges") {
            return self.count_edges();
        }
        clear_ready(self.word(), ticket)
    }

    /// Announces the waiter in the slot, to which the caller has exclusive access, and clears READY
    /// in the same step, because a call that began at `ticket` had a short count. Returns false if
    /// the state has changed since `ticket`, so that an edge may have arrived.
    #[inline]
    pub(super) fn publish_after(self, ticket: Ticket) -> bool {
        debug_assert!(ticket.is_only_ready() && !self.may_skip(ticket.0));
        let next = ticket.0 & !READY | PLACED;
        if injected_bug!("wait_after_ignores_changes") {
            self.word().fetch_or(PLACED, Ordering::AcqRel);
            self.word().fetch_and(!READY, Ordering::AcqRel);
            return true;
        }
        // ORDERING: AcqRel, as in `publish`. If an edge has incremented the tick, or if the socket
        // is being closed, this fails (model `wait_after_a_short_read_against_edge`).
        self.word().compare_exchange(ticket.0, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Returns whether edges may be skipped in the state `word`. Edges are never skipped in the
    /// read direction, where most edges mean new data.
    #[inline]
    fn may_skip(self, word: u64) -> bool {
        self.direction == Direction::Write && word & COUNTED == 0
    }

    /// Makes the poller record every later edge. Returns false, because the poller may have skipped
    /// an edge.
    #[cold]
    fn count_edges(self) -> bool {
        // ORDERING: AcqRel, and before the next call of the operation; see the module
        // documentation.
        self.word().fetch_or(COUNTED, Ordering::AcqRel);
        false
    }

    /// Records an edge, unless it may be skipped, and takes the wakers of the operations that the
    /// edge wakes. Returns false if the edge is stale, because its descriptor has been retired.
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
            // ORDERING: AcqRel: the step that sets READY also reads whether there are waiters, and
            // a waiter announces itself in a step that reads READY. Acquire also covers the waker
            // in the slot.
            match self.word().compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if word & (PLACED | LISTED) == PLACED {
            // SAFETY: as in `wake_placed`.
            let found = unsafe { self.slot().vacate() };
            if found.is_own() {
                wakers.push_own(found.waker);
            } else {
                wakers.push(found.waker);
            }
        } else if word & LISTED != 0 {
            // A hang-up concerns all waiters, including those that wait only for a hang-up. An
            // error may only mean that a message is in the error queue. A waiter for data or room
            // would not pass the wake-up for such an error on, so an error also wakes all waiters.
            self.wake(word, reasons & (HANG_UP | ERROR) != 0 && !injected_bug!("hang_up_wakes_one"), wakers);
        }
        true
    }

    /// Takes the waiter out of the slot, and returns whether it is a future. The caller has just
    /// cleared PLACED, which was set.
    fn wake_placed(self, wakers: &mut Wakers) -> bool {
        // SAFETY: PLACED means that the slot is taken, and the thread that clears it, which is the
        // caller, owns the slot exclusively.
        let found = unsafe { self.slot().vacate() };
        let is_future = found.key().is_some();
        wakers.push(found.waker);
        is_future
    }

    /// Takes the waiters to be woken out of the slot and the list: all of them if `all` is true,
    /// and otherwise those that an edge wakes, which are all polls and the oldest future that waits
    /// for events. If PLACED is set in `word`, the caller has just cleared it.
    #[cold]
    fn wake(self, word: u64, all: bool, wakers: &mut Wakers) {
        let has_future = word & PLACED != 0 && self.wake_placed(wakers);
        if word & LISTED == 0 {
            return;
        }
        let mut list = self.list().lock();
        let Some(waiters) = &mut *list else { return };
        if all {
            // The empty list is kept, because futures may still have its keys, and a new list would
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

    /// Takes the wakers of all waiters. The caller must already have stored the reason.
    pub(crate) fn interrupt(self, wakers: &mut Wakers) {
        // ORDERING: AcqRel. The word is changed even if no operation seems to wait, so that a
        // waiter that announces itself later sees the reason (invariant 2).
        let word = self.word().fetch_and(!PLACED, Ordering::AcqRel);
        self.wake(word, true, wakers);
    }

    /// Takes the wakers of the operations that an edge would wake.
    fn take_event(self, wakers: &mut Wakers) {
        let word = self.word().fetch_and(!PLACED, Ordering::AcqRel);
        self.wake(word, false, wakers);
    }

    /// If READY is set, takes the wakers of the operations that an edge would wake, because their
    /// calls may succeed. Called after an operation that left READY set, and when a woken future
    /// ends without a call.
    pub(crate) fn pass_on(self, wakers: &mut Wakers) {
        // ORDERING: Acquire. An operation that announces itself later checks READY itself.
        let word = self.word().load(Ordering::Acquire);
        if word & (PLACED | LISTED) != 0 && word & READY != 0 && !injected_bug!("success_keeps_the_rest") {
            self.take_event(wakers);
        }
    }

    /// Returns whether an operation may be waiting. If the result is false, no future is in the
    /// slot or the list any more.
    #[inline]
    pub(crate) fn has_waiters(self) -> bool {
        // ORDERING: Acquire. An operation that announces itself later checks READY itself.
        self.word().load(Ordering::Acquire) & (PLACED | LISTED) != 0
    }

    /// Takes the remaining wakers, because a free slot of the cache must have no waiters. Called
    /// when the handle is dropped. Only `poll_*` calls leave wakers.
    pub(crate) fn take_leftovers(self, wakers: &mut Wakers) {
        if self.has_waiters() {
            self.interrupt(wakers);
        }
        // No future has a key of the list any more. The variable makes sure that the list is freed
        // outside the lock.
        let list = self.list().lock().take();
        drop(list);
    }

    /// Returns a value that changes with every recorded edge.
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
}

/// Access to both directions.
impl PollDesc {
    /// Returns a direction, for a caller that acts for the descriptor `generation`.
    #[inline]
    pub(crate) fn side(&self, direction: Direction, generation: u32) -> Side<'_> {
        Side { desc: self, direction, generation }
    }

    /// Returns the directions of the descriptor to which the slot currently belongs.
    pub(crate) fn sides(&self) -> [Side<'_>; 2] {
        self.sides_of(self.generation())
    }

    /// Returns both directions, for a caller that acts for the descriptor `generation`.
    pub(crate) fn sides_of(&self, generation: u32) -> [Side<'_>; 2] {
        [Direction::Read, Direction::Write].map(|direction| self.side(direction, generation))
    }

    /// Assigns a free slot to a new descriptor and returns its generation. Both directions are
    /// initially ready, because a call may succeed.
    pub(crate) fn open(&self) -> u32 {
        let generation = self.generation();
        self.sides_of(generation).iter().for_each(|side| side.open());
        self.reset();
        generation
    }

    /// Makes all current and later operations end with [`Stop::Closed`]. Takes the wakers of the
    /// waiters.
    pub(crate) fn evict(&self, generation: u32, wakers: &mut Wakers) {
        self.sides_of(generation).iter().for_each(|side| side.evict(wakers));
    }

    /// Makes all later events of the descriptor stale. Called before the descriptor is closed or
    /// leaves this crate.
    pub(crate) fn retire(&self, generation: u32) {
        // ORDERING: this precedes the change of the generation, which is a Release, so a reader
        // that sees the new generation does not see the old number (model
        // `a_snapshot_pairs_no_number_with_another_generation`).
        if !injected_bug!("number_outlives_generation") {
            self.forget_number();
        }
        self.sides_of(generation).iter().for_each(|side| side.retire());
        self.registration.store(registration::NONE, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "side_tests.rs"]
pub(crate) mod tests;
