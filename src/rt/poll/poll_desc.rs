//! [`PollDesc`]: the poller's state of one descriptor.
//!
//! This is the counterpart of Go's `runtime.pollDesc`. It is in a slot of a
//! [`PollCache`], which is reused but never unmapped, so a
//! late event or timer may access it at any time. The generation tells whether the slot still
//! belongs to the descriptor that the event was sent for. A `PollDesc` makes no system call and
//! does not know the runtime: the poller and the timers call it.
//!
//! Each of its two directions is a [`Side`], which knows whether a call may succeed and which
//! operations wait. This file has the state that concerns both: the generation, the registration
//! and the timer.
//!
//! # The timer
//! `armed` belongs to the slot, not to the descriptor, and has no generation. It is [`NONE`], or
//! the time of a heap entry for this slot. Code that changes it to a time must add that entry, and
//! an entry counts while `armed` equals its time. Closing does not change it: the next descriptor
//! of the slot relies on the entry of the previous one. That entry fires at or before the earliest
//! deadline of the slot's owner at that time, and is added again for remaining deadlines. An entry
//! that finds nothing due has no effect (models
//! `a_timer_armed_during_close_serves_the_next_descriptor`,
//! `a_timer_that_fires_during_reuse_serves_the_next_descriptor`).
//!
//! # Memory ordering
//! The timer handshake (`set_deadline` against `fire`) is a Dekker pair over a side's deadline and
//! `armed`, and is SeqCst on both sides: models `deadline_moves_against_fire`,
//! `deadline_set_against_fire`, `two_deadlines_move_against_fire`.
//!
//! # Compared with Go (runtime/netpoll.go)
//! `rg`/`wg` hold one goroutine, and a waiting goroutine consumes an edge. Here an edge stays until
//! a call shows that it is used up, and any number of operations wait. One timer serves both
//! directions and all deadlines; it is armed at or before the earliest.

use std::mem::offset_of;

pub(crate) use crate::rt::poll::side::{ERROR, HANG_UP, PRIORITY, Side, Stop, Ticket, Wait};
use crate::rt::poll::side::{List, claim};
use crate::rt::poll::wait_slot::WaitSlot;
use crate::rt::slab::{Slab, Slot};
use crate::rt::time::clock::{EXPIRED, NONE};
use crate::rt::waiters::Wakers;
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, Mutex, Ordering, injected_bug};

/// One of the two directions of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// The poller's state of one descriptor; see the [module documentation](self). Arrays with one
/// element per direction are in the order of [`Direction`].
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct PollDesc {
    // First cache line: everything accessed by a read that waits, by its edge and by a write that
    // does not wait.
    pub(super) words: [AtomicU64; 2],
    pub(super) deadlines: [AtomicU64; 2],
    /// The runtime's epoch above one of the [`registration`] states.
    pub(crate) registration: AtomicU64,
    pub(super) slots: [WaitSlot; 2],
    // Second cache line: deadlines, and `poll_*` callers.
    /// The time of the slot's timer entry that counts, or none.
    armed: AtomicU64,
    pub(super) keyless_untils: [AtomicU64; 2],
    pub(super) keyless_epochs: [AtomicU32; 2],
    /// The earliest relative timeout of an operation that waits, or none.
    wait_until: AtomicU64,
    // Third cache line.
    pub(super) lists: [List; 2],
    /// For [`poll_turn`](crate::rt::context::poll_turn).
    pub(super) turns: [AtomicU8; 2],
    pub(crate) index: u32,
    /// If the slot is free, the link of the free list; if it is in use, the rough time at which the
    /// descriptor was opened.
    link: AtomicU32,
    /// The number of the descriptor, which is open while the generation is current, or
    /// [`NO_NUMBER`].
    number: AtomicU32,
    /// The notes for the record of a task that waits for an edge of a direction: the
    /// [`tag`](PollDesc::tag), with the kind of wait above it.
    notes: [AtomicU32; 2],
}

/// The slots of descriptors.
pub(crate) type PollCache = Slab<PollDesc>;

impl Slot for PollDesc {
    fn vacant(index: u32) -> PollDesc {
        PollDesc::new(index)
    }

    fn index(&self) -> u32 {
        self.index
    }

    fn link(&self) -> &AtomicU32 {
        &self.link
    }
}

/// The descriptor of a slot; returned by [`described`](PollDesc::described).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Description {
    pub(crate) generation: u32,
    /// The number of the descriptor, valid while the generation is current.
    pub(crate) number: u32,
    /// Whether it is known to be a TCP socket.
    pub(crate) is_tcp: bool,
    /// The rough time at which it was opened.
    pub(crate) opened: u32,
}

/// The bit of `number` that marks a TCP socket.
const IS_TCP: u32 = 1 << 31;

const TAG_INDEX_BITS: u32 = 20;
/// The tag of a descriptor whose index has more than 20 bits.
pub(crate) const NO_TAG: u32 = TAG_MASK;
const TAG_MASK: u32 = (1 << 28) - 1;

/// Returns the index of the slot that a tag names.
pub(crate) fn tag_index(tag: u32) -> usize {
    (tag & ((1 << TAG_INDEX_BITS) - 1)) as usize
}

/// Returns whether a tag may belong to the descriptor `generation`.
pub(crate) fn tag_is_of(tag: u32, generation: u32) -> bool {
    tag >> TAG_INDEX_BITS == generation & 0xff
}

/// The `number` of a slot without a descriptor, or with one that is not shown.
const NO_NUMBER: u32 = u32::MAX;

/// Values of the low half of [`PollDesc::registration`]; the high half is the runtime's epoch.
pub(crate) mod registration {
    /// Not registered with any instance.
    pub(crate) const NONE: u64 = 0;
    /// Being added by another operation: wait for the edge that follows, or for the wake-up after a
    /// failure.
    pub(crate) const ADDING: u64 = 1;
    /// Registered.
    pub(crate) const ADDED: u64 = 2;
    /// Registered with a back end that is armed before each wait, so no wait takes the short path.
    pub(crate) const ARMED: u64 = 3;
}

impl PollDesc {
    pub(crate) fn new(index: u32) -> PollDesc {
        PollDesc {
            words: [AtomicU64::new(0), AtomicU64::new(0)],
            deadlines: [AtomicU64::new(NONE), AtomicU64::new(NONE)],
            registration: AtomicU64::new(registration::NONE),
            slots: [WaitSlot::new(), WaitSlot::new()],
            armed: AtomicU64::new(NONE),
            keyless_untils: [AtomicU64::new(NONE), AtomicU64::new(NONE)],
            keyless_epochs: [AtomicU32::new(0), AtomicU32::new(0)],
            wait_until: AtomicU64::new(NONE),
            lists: [Mutex::new(None), Mutex::new(None)],
            turns: [AtomicU8::new(0), AtomicU8::new(0)],
            index,
            link: AtomicU32::new(0),
            number: AtomicU32::new(NO_NUMBER),
            notes: [AtomicU32::new(0), AtomicU32::new(0)],
        }
    }

    #[inline]
    pub(crate) fn side(&self, direction: Direction) -> Side<'_> {
        Side { desc: self, direction }
    }

    pub(crate) fn sides(&self) -> [Side<'_>; 2] {
        [self.side(Direction::Read), self.side(Direction::Write)]
    }

    /// Assigns a free slot to a new descriptor and returns its generation. Both directions begin
    /// ready: a call may succeed.
    pub(crate) fn open(&self) -> u32 {
        let generation = self.side(Direction::Read).generation();
        self.sides().iter().for_each(|side| side.open(generation));
        // ORDERING: Relaxed; a swap for the reason given in `Side::open`.
        self.wait_until.swap(NONE, Ordering::Relaxed);
        self.keyless_epochs.iter().for_each(|epoch| epoch.store(0, Ordering::Relaxed));
        self.turns.iter().for_each(|state| state.store(0, Ordering::Relaxed));
        generation
    }

    /// Returns the tag of the descriptor: the index of the slot in 20 bits, and the lowest eight
    /// bits of the generation above it. Returns [`NO_TAG`] if the index has more bits.
    pub(crate) fn tag(&self) -> u32 {
        self.note(Direction::Read) & TAG_MASK
    }

    /// Returns the note for the record of a task that waits for an edge of `direction`.
    #[inline]
    pub(crate) fn note(&self, direction: Direction) -> u32 {
        self.notes[direction as usize].load(Ordering::Relaxed)
    }

    /// Stores the number of the descriptor and the rough time at which it was opened. `notes`
    /// creates the notes from the tag.
    pub(crate) fn describe(&self, number: u32, is_tcp: bool, opened: u32, notes: impl Fn(u32) -> [u32; 2]) {
        self.link.store(opened, Ordering::Relaxed);
        let generation = self.side(Direction::Read).generation();
        let is_small = self.index < 1 << TAG_INDEX_BITS;
        let tag = if is_small { (generation & 0xff) << TAG_INDEX_BITS | self.index } else { NO_TAG };
        for (place, note) in self.notes.iter().zip(notes(tag)) {
            place.store(note, Ordering::Relaxed);
        }
        // ORDERING: Release pairs with the Acquire in `described`.
        self.number.store(number | if is_tcp { IS_TCP } else { 0 }, Ordering::Release);
    }

    /// Returns the descriptor of the slot, if it was described.
    pub(crate) fn described(&self) -> Option<Description> {
        let generation = self.side(Direction::Read).generation();
        let number = self.number.load(Ordering::Acquire);
        let opened = self.link.load(Ordering::Relaxed);
        (number != NO_NUMBER && self.is_current(generation)).then_some(Description {
            generation,
            number: number & !IS_TCP,
            is_tcp: number & IS_TCP != 0,
            opened,
        })
    }

    /// Ends all current and later operations with [`Stop::Closed`].
    pub(crate) fn evict(&self, generation: u32, wakers: &mut Wakers) {
        self.sides().iter().for_each(|side| side.evict(generation, wakers));
    }

    /// Called when the descriptor is gone: from here on its events are stale.
    pub(crate) fn retire(&self, generation: u32) {
        // ORDERING: before the generation changes with Release, so a reader that sees the new
        // generation does not see the old number (model
        // `a_snapshot_pairs_no_number_with_another_generation`).
        if !injected_bug!("number_outlives_generation") {
            self.number.store(NO_NUMBER, Ordering::Relaxed);
        }
        self.sides().iter().for_each(|side| side.retire(generation));
        self.registration.store(registration::NONE, Ordering::Release);
    }

    /// Returns whether the slot still belongs to the descriptor `generation`.
    pub(crate) fn is_current(&self, generation: u32) -> bool {
        self.side(Direction::Read).generation() == generation
    }

    /// Moves the deadline of one direction to a later time; see
    /// [`set_deadline`](PollDesc::set_deadline).
    #[inline]
    #[must_use = "a deadline without its timer entry never fires"]
    pub(crate) fn move_deadline(&self, direction: Direction, at: u64) -> Option<u64> {
        self.side(direction).set_deadline(at);
        self.arm(at)
    }

    /// Sets the deadline of one direction: a future time, [`EXPIRED`] or [`NONE`]. Returns the time
    /// of the timer entry that the caller must add, if there is none at or before the deadline.
    #[must_use = "a deadline without its timer entry never fires"]
    pub(crate) fn set_deadline(&self, direction: Direction, at: u64, wakers: &mut Wakers) -> Option<u64> {
        let side = self.side(direction);
        if injected_bug!("armed_before_deadline") && at > EXPIRED {
            let arm = self.arm(at);
            side.set_deadline(at);
            return arm;
        }
        side.set_deadline(at);
        match at {
            EXPIRED => {
                side.expire(wakers);
                None
            }
            NONE => None,
            at => self.arm(at),
        }
    }

    /// Returns the current deadline of one direction.
    pub(crate) fn deadline(&self, direction: Direction) -> u64 {
        self.side(direction).deadline()
    }

    /// Called when an operation is about to wait until `at` at most, by its own relative timeout.
    /// Returns the time of the timer entry that the caller must add, as
    /// [`set_deadline`](PollDesc::set_deadline) does.
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

    /// Makes sure that an entry is due at `at` or before. Returns the time of the entry that the
    /// caller must add, if any.
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

    /// Handles the timer entry for `when`. Ignores an entry that was superseded. Otherwise expires
    /// deadlines that have passed, and returns the time of the entry that the caller must add for
    /// remaining ones.
    #[must_use = "remaining deadlines never fire without a timer entry"]
    pub(crate) fn fire(&self, when: u64, now: u64, wakers: &mut Wakers) -> Option<u64> {
        // ORDERING: SeqCst, before the loads of the deadlines; see `set_deadline`.
        if self.armed.compare_exchange(when, NONE, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return None;
        }
        let [read, write] = self.sides();
        let mut next = [read.fire(now, wakers), write.fire(now, wakers), claim(&self.wait_until, now, NONE)];
        if next[2] == Some(EXPIRED) {
            // Each waiter checks its own time; those whose time has not come make sure that a timer
            // fires by then.
            next[2] = None;
            self.sides().iter().for_each(|side| side.interrupt(wakers));
        }
        self.arm(next.into_iter().flatten().min()?)
    }

    /// Forgets the timer entry of the slot. A simulation has ended, and its clock with it.
    #[cfg(feature = "sim")]
    pub(crate) fn disarm(&self) {
        self.armed.store(NONE, Ordering::SeqCst);
    }

    /// Returns whether a timer entry for `when` still counts.
    pub(crate) fn counts(&self, when: u64) -> bool {
        self.armed.load(Ordering::Acquire) == when
    }
}

// Where std makes a lock of a futex.
const _: () =
    assert!(crate::sync::MODEL || size_of::<Mutex<()>>() > 8 || size_of::<PollDesc>() <= 192, "three cache lines");
const _: () = assert!(crate::sync::MODEL || offset_of!(PollDesc, slots) + size_of::<WaitSlot>() <= 64, "the first");
const _: () = assert!(crate::sync::MODEL || offset_of!(PollDesc, lists) <= 128, "the second");

#[cfg(test)]
#[path = "poll_desc_tests.rs"]
mod tests;
