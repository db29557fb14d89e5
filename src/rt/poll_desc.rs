//! `PollDesc`: what the poller knows of one descriptor, direction by direction.
//!
//! The counterpart of Go's `runtime.pollDesc`. It lives in a [`PollCache`](super::poll_cache::PollCache) slot that is reused
//! but never unmapped, so a late event or timer may touch it at any time; the generation says whether it still means the
//! descriptor it was sent for. A `PollDesc` makes no system call and knows no runtime: the poller and the timers call it.
//!
//! # States
//! One word a direction, changed by read-modify-write only:
//!
//! | bits | name | meaning | set by | cleared by |
//! |---|---|---|---|---|
//! | 40–63 | tick | edges seen, modulo 2²⁴ (the overflow falls out at the top) | +1 by `set_ready` | `open`, `retire` |
//! | 8–39 | generation | which descriptor this is | — | +1 by `retire` |
//! | 0 | READY | a call may succeed | `open`, `set_ready` | `clear_ready`, only with a ticket of the same tick |
//! | 1 | WAITERS | the list may hold somebody | `wait`, under the list's lock | under the list's lock, when it is empty |
//! | 2 | CLOSING | the socket is being closed | `evict` | `open` |
//! | 3–5 | HANG_UP, ERROR, PRIORITY | what an edge said; they stick | `set_ready` | `open` |
//!
//! *Ready* is READY; *idle* is its absence; *waiting* is WAITERS without READY. Waiting never consumes READY, so a dropped
//! future has no edge to give back. READY with WAITERS means that some waiters were not woken yet: whoever then succeeds
//! without clearing READY wakes the next (`pass_on`).
//!
//! The deadline word beside it is 0 (none), [`EXPIRED`] or a time. It alone says whether the deadline has passed: setting is a
//! swap and firing a compare-and-swap from the value that was seen, so a deadline moved at the last moment never fires.
//!
//! # Invariants (numbers of ARCHITECTURE.md)
//! * 2 — a waiter enters the list only if, under the list's lock, there is no READY, CLOSING or EXPIRED. Who sets READY does so
//!   in the word that carries WAITERS; who sets one of the others takes the list's lock afterwards. One side sees the other
//!   (models `edge_against_wait`, `edge_close_and_expiry` and others beside them).
//! * 3, 4 — every entry point compares the generation in the same step in which it changes the word (model
//!   `a_stale_event_harms_nobody`).
//! * 9 — `begin` looks at the deadline word before every call.
//!
//! # Memory ordering
//! Words are Acquire/Release. The timer handshake (`set_deadline` against `fire`) is a Dekker pair over `deadline` and
//! `armed` and is SeqCst on both sides: models `deadline_moves_against_fire`, `deadline_set_against_fire`,
//! `two_deadlines_move_against_fire`.
//!
//! # Cancellation
//! A future that waited calls `finish` when it completes or is dropped. If it was woken, or `wait` sent it back, and it did not
//! act, `finish` passes on (models `a_dropped_reader_passes_on`, `a_reader_dropped_while_polled_passes_on`).
//!
//! # Compared with Go (runtime/netpoll.go)
//! `rg`/`wg` hold one goroutine and an edge is consumed by who waits; here an edge stays until a call shows that it is used up,
//! and any number wait. One timer serves both directions and all deadlines; it is armed at or before the earliest.

use std::task::Waker;
use std::time::Instant;

use super::clock::{EXPIRED, NONE};
use super::waiters::{Interest, Key, Waiters, Wakers};
use crate::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, planted};

/// One of the two directions of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// Waiters in one direction: as many as queue for a lock of the socket (13).
const WAITERS_MAX: usize = 1 << 20;

const READY: u64 = 1 << 0;
const WAITERS: u64 = 1 << 1;
const CLOSING: u64 = 1 << 2;
pub(crate) const HANG_UP: u64 = 1 << 3;
pub(crate) const ERROR: u64 = 1 << 4;
pub(crate) const PRIORITY: u64 = 1 << 5;
const TICK_SHIFT: u32 = 40;
const TICK_ONE: u64 = 1 << TICK_SHIFT;
const TICK_MASK: u64 = !0 << TICK_SHIFT;
const GENERATION_SHIFT: u32 = 8;

/// The word as it was before a system call: evidence that the call brings is good against this moment only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// Whether a call may succeed; if not, wait without trying.
    #[inline]
    pub(crate) fn is_ready(self) -> bool {
        self.0 & READY != 0
    }

    /// Whether others wait in this direction.
    #[inline]
    pub(crate) fn has_waiters(self) -> bool {
        self.0 & WAITERS != 0
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
    /// The waker is in the list.
    Listed,
    /// Something happened in between: try again from the start.
    Retry,
    /// [`WAITERS_MAX`] wait already.
    Full,
}

/// One direction's share.
#[derive(Debug)]
pub(crate) struct Side {
    word: AtomicU64,
    deadline: AtomicU64,
    /// When the `poll_*` operation that waits times out, or none.
    pub(crate) poll_until: AtomicU64,
    waiters: Mutex<Waiters>,
}

impl Side {
    fn new() -> Side {
        Side {
            word: AtomicU64::new(0),
            deadline: AtomicU64::new(NONE),
            poll_until: AtomicU64::new(NONE),
            waiters: Mutex::new(Waiters::new()),
        }
    }

    /// The state before a call, or why there must be none.
    #[inline]
    pub(crate) fn begin(&self, generation: u32) -> Result<Ticket, Stop> {
        // ORDERING: Acquire pairs with the AcqRel of `set_ready`: who sees the edge sees what the poller wrote before it.
        let word = self.word.load(Ordering::Acquire);
        if (word >> GENERATION_SHIFT) as u32 != generation || word & CLOSING != 0 {
            return Err(Stop::Closed);
        }
        // ORDERING: Acquire pairs with the SeqCst compare-and-swap in `fire`. A value that is a moment old is harmless: before
        // anybody sleeps it is read again under the list's lock.
        if self.deadline.load(Ordering::Acquire) == EXPIRED {
            return Err(Stop::Expired);
        }
        Ok(Ticket(word))
    }

    /// Takes READY away on the evidence of a call that began at `ticket`. False if an edge came since, which the call may
    /// have missed.
    #[inline]
    pub(crate) fn clear_ready(&self, ticket: Ticket) -> bool {
        let mut word = ticket.0;
        while word & READY != 0 {
            // ORDERING: AcqRel, one total order of changes to this word; an edge's increment of the tick makes this fail.
            match self.word.compare_exchange_weak(word, word & !READY, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) if !planted!("clear_ignores_tick") && (now ^ ticket.0) & !(WAITERS | READY) != 0 => {
                    return false;
                }
                Err(now) => word = now,
            }
        }
        true
    }

    /// An edge for the descriptor `generation`. False if that one is gone.
    pub(crate) fn set_ready(&self, generation: u32, reasons: u64, wakers: &mut Wakers) -> bool {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            if (word >> GENERATION_SHIFT) as u32 != generation && !planted!("stale_event_accepted") {
                return false;
            }
            let next = word.wrapping_add(TICK_ONE) | READY | reasons;
            // ORDERING: AcqRel. WAITERS is read in the very step that sets READY, and `wait` sets WAITERS in a step that reads READY.
            match self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if word & WAITERS != 0 {
            if reasons & (HANG_UP | ERROR) != 0 && !planted!("hang_up_wakes_one") {
                // The end concerns all who wait here, those who wait for just that too. An error may be a message in the error queue
                // only, which one that waits for data or room would not pass on.
                self.interrupt(wakers);
            } else {
                self.take_event(wakers);
            }
        }
        true
    }

    #[inline]
    fn take_event(&self, wakers: &mut Wakers) {
        let mut waiters = self.waiters.lock();
        if waiters.take_event(wakers) {
            self.settle_empty();
        }
    }

    /// Drops WAITERS when the list, which the caller has locked, is empty.
    fn settle(&self, waiters: &Waiters) {
        if waiters.is_empty() {
            self.settle_empty();
        }
    }

    fn settle_empty(&self) {
        // ORDERING: Relaxed: WAITERS changes under the list's lock only.
        self.word.fetch_and(!WAITERS, Ordering::Relaxed);
    }

    /// Wakes everybody for a reason that the caller has already made visible.
    pub(crate) fn interrupt(&self, wakers: &mut Wakers) {
        let mut waiters = self.waiters.lock();
        waiters.take_all(wakers);
        self.settle(&waiters);
    }

    /// After a success that left READY set: the next waiter has something to do as well.
    pub(crate) fn pass_on(&self, wakers: &mut Wakers) {
        // ORDERING: Acquire; WAITERS that is set later belongs to a waiter that looks at READY itself.
        let word = self.word.load(Ordering::Acquire);
        if word & WAITERS != 0 && word & READY != 0 && !planted!("success_keeps_the_rest") {
            self.take_event(wakers);
        }
    }

    /// Puts a future's waker into the list. `still` is asked under the list's lock whether the wait makes sense: whoever
    /// makes it answer no takes the lock afterwards to wake everybody.
    #[inline]
    pub(crate) fn wait(
        &self,
        generation: u32,
        key: &mut Option<Key>,
        interest: Interest,
        waker: &Waker,
        still: impl Fn() -> bool,
    ) -> Wait {
        let reasons = if interest == Interest::Event { READY } else { 0 };
        let interest = if planted!("interrupt_takes_events") { Interest::Event } else { interest };
        if key.is_some() {
            return self.wait_again(generation, key, (interest, reasons), waker, still);
        }
        // Foreign code, so before the lock (W1).
        let fresh = waker.clone();
        let mut waiters = self.waiters.lock();
        *key = Some(waiters.push(interest, fresh));
        self.look_again(generation, key, reasons, waiters, still)
    }

    /// [`wait`](Side::wait) of a future that has waited: it may be listed still, with this waker or another.
    #[cold]
    fn wait_again(
        &self,
        generation: u32,
        key: &mut Option<Key>,
        (interest, reasons): (Interest, u64),
        waker: &Waker,
        still: impl Fn() -> bool,
    ) -> Wait {
        // Declared before the guard, so dropped after it.
        let mut _replaced = None;
        let mut waiters = self.waiters.lock();
        if !key.is_some_and(|key| waiters.holds(key, waker)) {
            drop(waiters);
            let fresh = waker.clone();
            waiters = self.waiters.lock();
            let (new, old) = waiters.insert(*key, interest, fresh);
            (*key, _replaced) = (Some(new), old);
        }
        self.look_again(generation, key, reasons, waiters, still)
    }

    /// The second half of a wait: announced, with the list locked, it looks once more at what forbids it.
    #[inline(always)]
    fn look_again(
        &self,
        generation: u32,
        key: &mut Option<Key>,
        reasons: u64,
        mut waiters: MutexGuard<'_, Waiters>,
        still: impl Fn() -> bool,
    ) -> Wait {
        let full = waiters.is_beyond(WAITERS_MAX);
        if !full && !self.blocks(generation, reasons) && still() {
            return Wait::Listed;
        }
        // The key stays, out of the list like that of a future that was woken: should it not act, `finish` passes on.
        let listed = if full || planted!("retry_forgets_the_edge") { key.take() } else { *key };
        let removed = listed.and_then(|key| waiters.remove(key));
        self.settle(&waiters);
        drop(waiters);
        drop(removed);
        if full { Wait::Full } else { Wait::Retry }
    }

    /// The same for a `poll_*` caller, who has no key.
    pub(crate) fn wait_poll(&self, generation: u32, waker: &Waker, still: impl Fn() -> bool) -> Wait {
        let mut old = Wakers::new();
        let mut waiters = self.waiters.lock();
        if !waiters.holds_poll(waker) {
            drop(waiters);
            let spare = waker.clone();
            waiters = self.waiters.lock();
            waiters.take_old_polls(Instant::now, &mut old);
            if waiters.is_beyond(WAITERS_MAX - 1) {
                drop(waiters);
                old.wake_all();
                return Wait::Full;
            }
            waiters.insert_poll(spare);
        }
        // If not, the waker stays: it is woken once for nothing at the next edge, which polls must expect anyway.
        let waits = !self.blocks(generation, READY) && still();
        drop(waiters);
        old.wake_all();
        if waits { Wait::Listed } else { Wait::Retry }
    }

    /// Announces a waiter and tells whether something forbids the wait. The caller holds the list's lock.
    fn blocks(&self, generation: u32, reasons: u64) -> bool {
        // ORDERING: AcqRel: the step that announces the waiter reads READY and CLOSING (see `set_ready`, `evict`).
        let word = self.word.fetch_or(WAITERS, Ordering::AcqRel);
        if planted!("wait_without_recheck") {
            return false;
        }
        word & (reasons | CLOSING) != 0
            || (word >> GENERATION_SHIFT) as u32 != generation
            // ORDERING: Acquire under the list's lock: `fire` and `set_deadline` store EXPIRED and then take this lock.
            || self.deadline.load(Ordering::Acquire) == EXPIRED
    }

    /// A future that may have waited is done. If it was woken and has not `acted`, the wake-up goes to the next.
    pub(crate) fn finish(&self, key: &mut Option<Key>, acted: bool, wakers: &mut Wakers) {
        let Some(key) = key.take() else { return };
        if !self.has_waiters() {
            return;
        }
        let mut waiters = self.waiters.lock();
        let removed = waiters.remove(key);
        self.settle(&waiters);
        drop(waiters);
        if removed.is_none() && !acted && !planted!("drop_keeps_wakeup") {
            self.pass_on(wakers);
        }
    }

    /// Whether the list may hold somebody; if not, a future that waited was woken and taken out.
    #[inline]
    pub(crate) fn has_waiters(&self) -> bool {
        // ORDERING: Acquire; WAITERS that is set later belongs to a waiter that looks at READY itself.
        self.word.load(Ordering::Acquire) & WAITERS != 0
    }

    /// Takes out who is still listed when the last handle goes: wakers of `poll_*` calls that have ended. The list of a free
    /// slot is empty.
    pub(crate) fn take_leftovers(&self, wakers: &mut Wakers) {
        if self.has_waiters() {
            self.interrupt(wakers);
        }
    }

    /// Changes with every edge.
    pub(crate) fn edges(&self) -> u64 {
        self.word.load(Ordering::Acquire) & TICK_MASK
    }

    /// The bits that edges left behind.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.word.load(Ordering::Acquire) & HANG_UP != 0
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiters.lock().len()
    }

    /// Expires the deadline if it has come at `now`. Returns it if it is still to come.
    fn fire(&self, now: u64, wakers: &mut Wakers) -> Option<u64> {
        let next = claim(&self.deadline, now, EXPIRED);
        if next == Some(EXPIRED) {
            self.interrupt(wakers);
        }
        next.filter(|&at| at > EXPIRED)
    }
}

/// Replaces a time that has come by `after`: then [`EXPIRED`]. Otherwise the time that is still to come, if there is one.
fn claim(slot: &AtomicU64, now: u64, after: u64) -> Option<u64> {
    // ORDERING: SeqCst, the Dekker pair with `set_deadline` (see the header).
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

/// See the module's header.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct PollDesc {
    read: Side,
    write: Side,
    /// When the one timer entry that counts is due, or none.
    armed: AtomicU64,
    /// The earliest relative timeout of an operation that waits, or none.
    wait_until: AtomicU64,
    /// By direction: the epoch, plus one, in which the `poll_*` operation that waits began to, or 0.
    poll_epochs: [AtomicU32; 2],
    /// The timer set that entry is in: a hint, for its count of dead entries.
    pub(crate) armed_in: AtomicU32,
    /// The runtime's epoch above [`registration`] states, see there.
    pub(crate) registration: AtomicU64,
    pub(crate) index: u32,
    pub(crate) next_free: AtomicU32,
}

/// Values of the low half of [`PollDesc::registration`]; the runtime's epoch stands in the high half.
pub(crate) mod registration {
    /// Not in any epoll instance.
    pub(crate) const NONE: u64 = 0;
    /// Somebody is adding it: wait for the edge that follows, or for the wake-up that says it failed.
    pub(crate) const ADDING: u64 = 1;
    /// Added.
    pub(crate) const ADDED: u64 = 2;
}

impl PollDesc {
    pub(crate) fn new(index: u32) -> PollDesc {
        PollDesc {
            read: Side::new(),
            write: Side::new(),
            armed: AtomicU64::new(NONE),
            wait_until: AtomicU64::new(NONE),
            poll_epochs: [AtomicU32::new(0), AtomicU32::new(0)],
            armed_in: AtomicU32::new(0),
            registration: AtomicU64::new(registration::NONE),
            index,
            next_free: AtomicU32::new(0),
        }
    }

    #[inline]
    pub(crate) fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Read => &self.read,
            Direction::Write => &self.write,
        }
    }

    #[inline]
    pub(crate) fn poll_epoch(&self, direction: Direction) -> &AtomicU32 {
        &self.poll_epochs[direction as usize]
    }

    pub(crate) fn sides(&self) -> [&Side; 2] {
        [&self.read, &self.write]
    }

    /// Makes a free slot stand for a new descriptor and returns its generation. Both directions begin ready: a call may
    /// succeed.
    pub(crate) fn open(&self) -> u32 {
        let generation = (self.read.word.load(Ordering::Acquire) >> GENERATION_SHIFT) as u32;
        for side in self.sides() {
            for slot in [&side.deadline, &side.poll_until] {
                slot.store(NONE, Ordering::Relaxed);
            }
            // ORDERING: Release: a stale event that reads this word with its own old generation goes away; see `set_ready`.
            side.word.store(u64::from(generation) << GENERATION_SHIFT | READY, Ordering::Release);
        }
        self.wait_until.store(NONE, Ordering::Relaxed);
        self.poll_epochs.iter().for_each(|epoch| epoch.store(0, Ordering::Relaxed));
        generation
    }

    /// Ends all operations, now and later, with [`Stop::Closed`].
    pub(crate) fn evict(&self, generation: u32, wakers: &mut Wakers) {
        for side in self.sides() {
            if (side.word.load(Ordering::Acquire) >> GENERATION_SHIFT) as u32 == generation {
                // ORDERING: AcqRel, then the list's lock in `interrupt`: a waiter sees CLOSING or is seen (invariant 2).
                side.word.fetch_or(CLOSING, Ordering::AcqRel);
                if planted!("close_wakes_one") {
                    side.take_event(wakers);
                    continue;
                }
                side.interrupt(wakers);
            }
        }
    }

    /// The descriptor is gone: from here on its events and timers are stale. Returns whether a timer entry died with it.
    pub(crate) fn retire(&self, generation: u32) -> bool {
        for side in self.sides() {
            let mut word = side.word.load(Ordering::Acquire);
            while (word >> GENERATION_SHIFT) as u32 == generation {
                let next = u64::from(generation.wrapping_add(1)) << GENERATION_SHIFT | (word & (WAITERS | CLOSING));
                match side.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => break,
                    Err(now) => word = now,
                }
            }
        }
        self.registration.store(registration::NONE, Ordering::Release);
        self.armed.swap(NONE, Ordering::SeqCst) != NONE
    }

    /// Whether the slot still stands for the descriptor `generation`.
    pub(crate) fn is_current(&self, generation: u32) -> bool {
        (self.read.word.load(Ordering::Acquire) >> GENERATION_SHIFT) as u32 == generation
    }

    /// Sets the deadline of one direction to a time later than the one it has; see [`set_deadline`](PollDesc::set_deadline).
    #[inline]
    pub(crate) fn move_deadline(&self, direction: Direction, at: u64) -> Option<Arm> {
        // ORDERING: SeqCst, as in `set_deadline`.
        self.side(direction).deadline.swap(at, Ordering::SeqCst);
        self.arm(at)
    }

    /// Sets the deadline of one direction: a time to come, [`EXPIRED`] or [`NONE`]. Returns when a timer entry must be put in,
    /// if none is there at or before it.
    pub(crate) fn set_deadline(&self, direction: Direction, at: u64, wakers: &mut Wakers) -> Option<Arm> {
        let side = self.side(direction);
        if planted!("armed_before_deadline") && at > EXPIRED {
            let arm = self.arm(at);
            side.deadline.swap(at, Ordering::SeqCst);
            return arm;
        }
        // ORDERING: SeqCst swap, then the load of `armed`: a Dekker pair with `fire`, which takes `armed` and then loads this.
        side.deadline.swap(at, Ordering::SeqCst);
        match at {
            EXPIRED if planted!("expiry_looks_at_the_bit") && side.word.load(Ordering::Acquire) & WAITERS == 0 => None,
            EXPIRED => {
                side.interrupt(wakers);
                None
            }
            NONE => None,
            at => self.arm(at),
        }
    }

    /// The deadline of one direction as it is now.
    pub(crate) fn deadline(&self, direction: Direction) -> u64 {
        self.side(direction).deadline.load(Ordering::Acquire)
    }

    /// An operation is about to wait until `at` at most, by its own relative timeout.
    pub(crate) fn wait_until(&self, at: u64) -> Option<Arm> {
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

    fn arm(&self, at: u64) -> Option<Arm> {
        let mut armed = self.armed.load(Ordering::SeqCst);
        loop {
            if armed != NONE && armed <= at {
                return None;
            }
            match self.armed.compare_exchange_weak(armed, at, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Some(Arm { at, superseded: armed != NONE }),
                Err(now) => armed = now,
            }
        }
    }

    /// The timer entry for `when` is due. Does nothing for an entry that was superseded or belongs to another descriptor;
    /// otherwise expires what has come and returns when the entry goes back in, if anything is still to come.
    pub(crate) fn fire(&self, generation: u32, when: u64, now: u64, wakers: &mut Wakers) -> Option<u64> {
        if !self.is_current(generation) {
            return None;
        }
        // ORDERING: SeqCst, before the loads of the deadlines: see `set_deadline`.
        if self.armed.compare_exchange(when, NONE, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return None;
        }
        let mut next = [self.read.fire(now, wakers), self.write.fire(now, wakers), claim(&self.wait_until, now, NONE)];
        if next[2] == Some(EXPIRED) {
            // Each waiter looks at its own time; those whose time is still to come see that a timer fires by then.
            next[2] = None;
            self.sides().iter().for_each(|side| side.interrupt(wakers));
        }
        let next = next.into_iter().flatten().min();
        next.and_then(|at| self.arm(at)).map(|arm| arm.at)
    }

    /// Whether a timer entry for `when` still counts.
    pub(crate) fn counts(&self, generation: u32, when: u64) -> bool {
        self.is_current(generation) && self.armed.load(Ordering::Acquire) == when
    }
}

/// A timer entry to be put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a deadline without its timer entry never fires"]
pub(crate) struct Arm {
    pub(crate) at: u64,
    /// An entry for a later time is in a heap already and is dead from now on.
    pub(crate) superseded: bool,
}

const _: () = assert!(crate::sync::MODEL || size_of::<PollDesc>() <= 192, "three cache lines");

#[cfg(test)]
#[path = "poll_desc_tests.rs"]
mod tests;
