//! [`PollDesc`]: the poller's state of one descriptor.
//!
//! A `PollDesc` is the counterpart of Go's `runtime.pollDesc` and occupies a slot of the
//! [`PollCache`]. Slots are reused but never unmapped, so a late event or timer may access one at
//! any time. The generation shows whether the slot still belongs to the descriptor of the event.
//! The methods of a `PollDesc` make no calls on the descriptor and do not use the runtime.
//!
//! Each of its two directions is a [`Side`](crate::rt::poll::side::Side), which records whether a
//! call may succeed and which operations wait. [`expiry`](crate::rt::poll::expiry) handles the
//! deadlines and timeouts of both directions, and their timer. This file defines the layout, the
//! identity of the descriptor, and its data for snapshots.
//!
//! # Compared with Go (runtime/netpoll.go)
//! Go's `rg` and `wg` hold one goroutine each, and a waiting goroutine consumes an edge. Here, an
//! edge remains until a call shows that it is used up, and many operations may wait. One timer
//! serves the deadlines and timeouts of both directions. It is armed for the earliest of them or
//! for an earlier time.

use std::mem::offset_of;

use crate::rt::poll::wait_slot::WaitSlot;
use crate::rt::slab::{Slab, Slot};
use crate::rt::time::clock::NONE;
use crate::rt::waiters::Waiters;
use crate::sync::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Mutex, Ordering, fence};

/// One of the two directions of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl Direction {
    /// Returns the name of an operation in this direction, for error texts.
    pub(crate) fn op(self) -> &'static str {
        match self {
            Direction::Read => "read",
            Direction::Write => "write",
        }
    }
}

/// The waiters of a direction other than the waiter in its slot. The first of them allocates the
/// list.
pub(super) type List = Mutex<Option<Box<Waiters>>>;

/// The position of the generation in the word of a direction.
pub(super) const GENERATION_SHIFT: u32 = 8;

/// Returns the generation in the word of a direction.
#[inline]
pub(super) fn generation_of(word: u64) -> u32 {
    (word >> GENERATION_SHIFT) as u32
}

/// The poller's state of one descriptor; see the [module documentation](self). Arrays with one
/// element per direction are in the order of [`Direction`].
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct PollDesc {
    // First cache line: the fields that a waiting read, its edge, and a write that does not wait
    // usually access on a TCP connection without timeouts, except the note of the wait and the
    // state of `poll_turn`. The slot of the write direction is in the second line.
    /// The words of the directions; see [`side`](crate::rt::poll::side).
    pub(super) words: [AtomicU64; 2],
    /// The deadline words; see [`expiry`](crate::rt::poll::expiry).
    pub(super) deadlines: [AtomicU64; 2],
    /// The runtime's epoch in the high half; one of the [`registration`] states and the shard in
    /// the low half.
    pub(crate) registration: AtomicU64,
    pub(super) slots: [WaitSlot; 2],
    // Second cache line: the timer, timeouts, and the state of `poll_*` operations.
    /// The time of the slot's valid timer entry, or [`NONE`]; see `expiry`.
    pub(super) armed: AtomicU64,
    /// The time at which the waiting `poll_*` operation times out, or [`NONE`].
    pub(super) poll_untils: [AtomicU64; 2],
    /// The epoch and the task in which the waiting `poll_*` operation began, or 0; see `poller`.
    pub(super) poll_epochs: [AtomicU32; 2],
    /// The time at which the earliest relative timeout of the waiting operations ends, or an
    /// earlier time, for example that of an operation that no longer waits. [`NONE`] if there is no
    /// such time.
    pub(super) wait_until: AtomicU64,
    // Third cache line: the lists, the states of `poll_turn`, and data for snapshots.
    pub(super) lists: [List; 2],
    /// The states for [`poll_turn`](crate::rt::context::poll_turn).
    pub(super) turns: [AtomicU8; 2],
    /// The number of failed operations, up to 255, in the high byte, and their last errno, or 0, in
    /// the low byte.
    failures: AtomicU16,
    pub(crate) index: u32,
    /// The link of the free list if the slot is free. Otherwise, if the descriptor was described,
    /// the rough time at which it was opened.
    link: AtomicU32,
    /// The number of the descriptor, with [`IS_TCP`] for a TCP socket without multipath, or
    /// [`NO_NUMBER`]. The descriptor is open while the generation is current.
    number: AtomicU32,
    /// The notes for the records of tasks that wait for an edge: the [`tag`](PollDesc::tag) in the
    /// low bits and the kind of wait above it. Before the descriptor is described, they have no
    /// kind.
    notes: [AtomicU32; 2],
    /// The number of operations in each direction that moved bytes or a message or accepted a
    /// connection, modulo 2³². The operations of TCP connections without multipath are not counted.
    operations: [AtomicU32; 2],
}

/// The slots of all descriptors.
pub(crate) type PollCache = Slab<PollDesc>;

impl Slot for PollDesc {
    type Shared = ();

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

/// Data about the descriptor of a slot; returned by [`described`](PollDesc::described).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Description {
    pub(crate) generation: u32,
    /// The number of the descriptor, valid while the generation is current.
    pub(crate) number: u32,
    /// Whether the descriptor is known to be a TCP socket without multipath.
    pub(crate) is_tcp: bool,
    /// The rough time at which the descriptor was opened.
    pub(crate) opened: u32,
}

/// The bit of `number` that marks a TCP socket without multipath.
const IS_TCP: u32 = 1 << 31;

/// The number of bits of a tag that contain the index of the slot.
const TAG_INDEX_BITS: u32 = 20;
/// The tag of a handle without a descriptor, such as the end of an in-memory pipe, and of a
/// descriptor whose index does not fit in a tag.
pub(crate) const NO_TAG: u32 = TAG_MASK;
/// The bits of a [note](PollDesc::note) that contain the tag.
const TAG_MASK: u32 = (1 << 28) - 1;

/// Returns the slot index in a tag.
pub(crate) fn tag_index(tag: u32) -> usize {
    (tag & ((1 << TAG_INDEX_BITS) - 1)) as usize
}

/// Returns whether a tag may belong to the descriptor `generation`.
pub(crate) fn tag_is_of(tag: u32, generation: u32) -> bool {
    tag >> TAG_INDEX_BITS == generation & 0xff
}

/// The `number` of a slot without a descriptor, or with one that snapshots do not show.
const NO_NUMBER: u32 = u32::MAX;

/// The values of the low half of [`PollDesc::registration`]. The high half is the runtime's epoch.
/// For a registered descriptor, the lowest [`SHARD_BITS`](registration::SHARD_BITS) bits are its
/// shard.
pub(crate) mod registration {
    /// The number of bits that contain the shard.
    pub(crate) const SHARD_BITS: u32 = 6;
    /// The number of values per state, one per shard.
    pub(crate) const SHARDS: u64 = 1 << SHARD_BITS;
    /// The descriptor is not registered with any instance.
    pub(crate) const NONE: u64 = 0;
    /// An operation is adding the descriptor. Other operations wait for the edge that follows, or
    /// for the wake-up after a failure.
    pub(crate) const ADDING: u64 = SHARDS;
    /// The descriptor is registered with a back end that need not be armed.
    pub(crate) const ADDED: u64 = 2 * SHARDS;
    /// The descriptor is registered with a back end that must be armed before each wait. An earlier
    /// short count is then never a reason to wait without a call.
    pub(crate) const ARMED: u64 = 3 * SHARDS;

    /// Returns the state without the shard.
    pub(crate) fn state(word: u64) -> u64 {
        (word as u32 as u64) & !(SHARDS - 1)
    }

    /// Returns the shard of a registered descriptor.
    pub(crate) fn shard(word: u64) -> usize {
        (word & (SHARDS - 1)) as usize
    }
}

impl PollDesc {
    pub(crate) fn new(index: u32) -> PollDesc {
        PollDesc {
            words: [AtomicU64::new(0), AtomicU64::new(0)],
            deadlines: [AtomicU64::new(NONE), AtomicU64::new(NONE)],
            registration: AtomicU64::new(registration::NONE),
            slots: [WaitSlot::new(), WaitSlot::new()],
            armed: AtomicU64::new(NONE),
            poll_untils: [AtomicU64::new(NONE), AtomicU64::new(NONE)],
            poll_epochs: [AtomicU32::new(0), AtomicU32::new(0)],
            wait_until: AtomicU64::new(NONE),
            lists: [Mutex::new(None), Mutex::new(None)],
            turns: [AtomicU8::new(0), AtomicU8::new(0)],
            failures: AtomicU16::new(0),
            index,
            link: AtomicU32::new(0),
            number: AtomicU32::new(NO_NUMBER),
            notes: [AtomicU32::new(0), AtomicU32::new(0)],
            operations: [AtomicU32::new(0), AtomicU32::new(0)],
        }
    }

    /// Returns the current generation of the slot.
    pub(super) fn generation(&self) -> u32 {
        generation_of(self.words[Direction::Read as usize].load(Ordering::Acquire))
    }

    /// Resets the earliest timeout, the epochs of `poll_*` operations, the states of `poll_turn`,
    /// the tag and the counts, for a new descriptor.
    pub(super) fn reset(&self) {
        // ORDERING: Relaxed. This is a swap for the reason given in `Side::open`.
        self.wait_until.swap(NONE, Ordering::Relaxed);
        self.poll_epochs.iter().for_each(|epoch| epoch.store(0, Ordering::Relaxed));
        self.turns.iter().for_each(|state| state.store(0, Ordering::Relaxed));
        self.notes.iter().for_each(|note| note.store(NO_TAG, Ordering::Relaxed));
        self.operations.iter().for_each(|operations| operations.store(0, Ordering::Relaxed));
        self.failures.store(0, Ordering::Relaxed);
    }

    /// Clears the number of the descriptor. Called when the descriptor is no longer used, before
    /// the generation changes.
    pub(super) fn forget_number(&self) {
        self.number.store(NO_NUMBER, Ordering::Relaxed);
    }

    /// Returns the tag of the descriptor: the index of the slot in the low 20 bits, and the low
    /// eight bits of the generation above them. Returns [`NO_TAG`] if the handle has no descriptor,
    /// or if the index is greater than 2²⁰ − 2.
    pub(crate) fn tag(&self) -> u32 {
        self.note(Direction::Read) & TAG_MASK
    }

    /// Returns the note for the record of a task that waits for an edge of `direction`.
    #[inline]
    pub(crate) fn note(&self, direction: Direction) -> u32 {
        self.notes[direction as usize].load(Ordering::Relaxed)
    }

    /// Stores the number of the descriptor, whether it is a TCP socket without multipath, the rough
    /// time at which it was opened, and the notes, which `notes` creates from the tag.
    pub(crate) fn describe(&self, number: u32, is_tcp: bool, opened: u32, notes: impl Fn(u32) -> [u32; 2]) {
        // ORDERING: Release, as in `Slab::free_all`.
        self.link.store(opened, Ordering::Release);
        let generation = self.generation();
        // The greatest index of 20 bits is that of `NO_TAG`.
        let is_small = self.index < (1 << TAG_INDEX_BITS) - 1;
        let tag = if is_small { (generation & 0xff) << TAG_INDEX_BITS | self.index } else { NO_TAG };
        for (place, note) in self.notes.iter().zip(notes(tag)) {
            place.store(note, Ordering::Relaxed);
        }
        // ORDERING: Release pairs with the Acquire in `described`.
        self.number.store(number | if is_tcp { IS_TCP } else { 0 }, Ordering::Release);
    }

    /// Returns the number of the descriptor of the slot, if it was described.
    pub(crate) fn number(&self) -> Option<u32> {
        let number = self.number.load(Ordering::Relaxed);
        (number != NO_NUMBER).then_some(number & !IS_TCP)
    }

    /// Returns the data about the descriptor of the slot, if it was described and is still open.
    pub(crate) fn described(&self) -> Option<Description> {
        let generation = self.generation();
        let number = self.number.load(Ordering::Acquire);
        let opened = self.link.load(Ordering::Relaxed);
        // ORDERING: Acquire pairs with the Release stores of the link: if `opened` was stored after
        // this descriptor was retired, the comparison below sees a later generation.
        fence(Ordering::Acquire);
        (number != NO_NUMBER && self.is_current(generation)).then_some(Description {
            generation,
            number: number & !IS_TCP,
            is_tcp: number & IS_TCP != 0,
            opened,
        })
    }

    /// Counts an operation.
    // ORDERING: Relaxed, here and below: no other memory depends on the counts.
    pub(crate) fn count(&self, direction: Direction) {
        self.operations[direction as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failed operation. `None` as the errno keeps that of an earlier failure.
    pub(crate) fn count_failure(&self, errno: Option<i32>) {
        let (count, last) = self.failures();
        let errno = errno.and_then(|errno| u8::try_from(errno).ok()).unwrap_or(last);
        self.failures.store(u16::from(count.saturating_add(1)) << 8 | u16::from(errno), Ordering::Relaxed);
    }

    /// Returns the number of operations of each direction, in the order of [`Direction`].
    pub(crate) fn operations(&self) -> [u32; 2] {
        self.operations.each_ref().map(|operations| operations.load(Ordering::Relaxed))
    }

    /// Returns the number of failed operations, up to 255, and their last errno, or 0.
    pub(crate) fn failures(&self) -> (u8, u8) {
        let failures = self.failures.load(Ordering::Relaxed);
        ((failures >> 8) as u8, failures as u8)
    }

    /// Returns whether the slot still belongs to the descriptor `generation`.
    pub(crate) fn is_current(&self, generation: u32) -> bool {
        self.generation() == generation
    }
}

// The size holds on systems where std's mutex is a futex.
const _: () = assert!(
    crate::sync::MODEL || size_of::<Mutex<()>>() > 8 || size_of::<PollDesc>() <= 192,
    "more than three cache lines"
);
const _: () =
    assert!(crate::sync::MODEL || offset_of!(PollDesc, slots) + size_of::<WaitSlot>() <= 64, "not in the first line");
const _: () = assert!(crate::sync::MODEL || offset_of!(PollDesc, lists) <= 128, "not in the second line");
