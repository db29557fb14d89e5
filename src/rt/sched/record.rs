//! [`Record`]: the state of one live task, which any thread can read at any time.
//!
//! A record is a slot of a slab or, if the slab is full, of a block outside the slab. A free record
//! of the slab is in the slab's free list or vector of free slots, or in the [`Pool`] of a
//! processor. Records stay readable until the process ends, so [`inspect`](crate::rt::inspect())
//! reads them while tasks start and end, without a lock and without accessing a task. The threads
//! that spawn, wake, poll and free a task write its record. After the spawn, only sysmon writes
//! `cpu`.
//!
//! # States
//! *free* (id 0) → *in use* (the task's id) → *ended* (the same id; `waits` is [`ENDED`]) → *free*.
//! A task ends when its future is dropped. The record of a task on the workers, or of a blocking
//! call, is then freed at once, unless the task has a [`Rare`]. The record of a root future is
//! freed when its `block_on` or simulation ends. Any other record is *ended* until the handle and
//! the wakers of the task are dropped too. Ids are never reused, so a reader that finds the same id
//! before and after it reads the other fields has read the fields of one task. Snapshots omit ended
//! tasks.
//!
//! # Memory ordering
//! `id` protects the other fields, like the sequence number of a seqlock. The owner clears it,
//! issues a release fence, writes the fields of the next task, and stores the new id with Release.
//! A reader loads the id with Acquire, reads the fields, issues an acquire fence, and loads the id
//! again.

use std::cell::Cell;
use std::panic::Location;
use std::task::Waker;
use std::time::Duration;

use super::cpu_time::CpuTime;
use super::identity::{self, Reserved};
use super::keeper::Keeper;
use super::lanes::{CONTROL, Lane};
use super::place;
use super::rare::Rare;
use super::waits::{self, ENDED, RUNNING, Waits};
use crate::rt::lazy_box::LazyBox;
use crate::rt::slab::{self, BLOCK_SLOTS, First, Slab, Slot, Stash, place_in_block};
use crate::rt::time::ticks;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, fence};

/// The recorded state of one task; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Record {
    id: AtomicU64,
    /// The epoch and the lane, packed by [`Lane::word`].
    epoch: AtomicU32,
    /// The cause of the last wake-up: the value of `waits` before the last poll.
    woken: AtomicU32,
    /// In the free list of the slab, the link. In any other free record, an old value. In a record
    /// in use, a packed [`Waits`] or [`RUNNING`]. In an ended record, [`ENDED`].
    waits: AtomicU32,
    polls: AtomicU32,
    /// The rough time at which the last poll began or, before the first poll, the task was spawned.
    polled: AtomicU32,
    /// A [`CpuTime`], written by sysmon.
    cpu: AtomicU32,
    /// The rough time at which the task was spawned. The lowest two bits are the [`Kind`].
    born: AtomicU32,
    /// The location of the call that spawned the task, as an offset; see [`place`]. The lowest
    /// [`SLOT_BITS`] bits are the slot's number within its block, [`UNLISTED`] and [`HAS_RARE`].
    place: AtomicU32,
}

// Every task has a record, so the size matters.
const _: () = assert!(crate::sync::MODEL || size_of::<Record>() <= 40);

/// Whether waits for edges, causes of wake-ups and beginnings of polls are not recorded, because of
/// `--cfg netpoll_no_records`. `ci/regression.sh` uses this flag to measure the cost of recording
/// them.
const NO_RECORDS: bool = cfg!(netpoll_no_records);

const SLOT_BITS: u32 = u32::BITS - place::BITS;
/// The bits of `place` that never change.
const SLOT_MASK: u32 = HAS_RARE - 1;
/// The bit of `place` of a task that has a [`Rare`]. It is set before the task is queued for the
/// first time, or by the thread that polls or drops the task. Other threads read it after they have
/// taken the task out of a queue or have dropped the last reference to it.
const HAS_RARE: u32 = 1 << (SLOT_BITS - 1);
/// The bit of `place` of a record outside the slab. Such records are used when the slab is full.
/// Snapshots do not include them.
const UNLISTED: u32 = HAS_RARE >> 1;
const _: () = assert!(BLOCK_SLOTS <= UNLISTED as usize);

/// The kind of future that a record describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A task that runs on the workers.
    Task = 0,
    /// A task that runs on the thread that spawned it.
    Local = 1,
    /// The root future of a `block_on` or of a simulation.
    Root = 2,
    /// A call on one of the blocking pools.
    Call = 3,
}

/// The records of tasks, except those outside the slab.
static RECORDS: Slab<Record> = Slab::new();

/// The records outside the slab.
static OUTSIDE: Mutex<Outside> = Mutex::new(Outside { blocks: Vec::new(), free: Vec::new() });

struct Outside {
    blocks: Vec<&'static [Record; BLOCK_SLOTS]>,
    free: Vec<&'static Record>,
}

/// Returns all records of the slab, including free records.
pub(crate) fn all() -> impl Iterator<Item = &'static Record> {
    RECORDS.iter()
}

/// Wakes each task that has a [kept](Record::keep) waker and belongs to another epoch than `epoch`.
/// The caller must [defer](crate::rt::context::defer_discards) the drops of tasks, so that no user
/// code runs here.
pub(crate) fn wake_others(epoch: u32) {
    // ORDERING: SeqCst: the epoch was advanced before; see `Keeper`.
    fence(Ordering::SeqCst);
    let is_other = |record: &&Record| record.id() != 0 && record.epoch_word() & !CONTROL != epoch;
    let outside = OUTSIDE.lock().blocks.clone();
    all().chain(outside.into_iter().flatten()).filter(is_other).for_each(|record| record.keeper().wake());
}

/// The fields of one task, read consistently. They are packed as in the record, because a snapshot
/// has one `Reading` per task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) id: u64,
    waits: u32,
    woken: u32,
    pub(crate) polls: u32,
    pub(crate) polled: u32,
    pub(crate) cpu: CpuTime,
    born: u32,
    place: u32,
    pub(crate) lane: Lane,
}

impl Reading {
    pub(crate) fn kind(&self) -> Kind {
        kind_of(self.born)
    }

    /// Returns the wait of the task at the time `now`, and whether the task also waits for
    /// something else.
    pub(crate) fn waits(&self, now: u64) -> (Waits, bool) {
        Waits::unpack(self.waits, now)
    }

    /// Returns the cause of the wake-up before the task's last poll. This is the task or thread
    /// that called the waker, if that was recorded, and otherwise the wait of the task.
    pub(crate) fn woken(&self, now: u64) -> Waits {
        Waits::unpack(self.woken, now).0
    }

    /// Returns whether the future is being polled outside a worker's turn and has not recorded a
    /// wait in this poll.
    pub(crate) fn is_running(&self) -> bool {
        self.waits == RUNNING
    }

    /// Returns the rough time at which the task was spawned.
    pub(crate) fn born(&self) -> u32 {
        self.born & !3
    }

    pub(crate) fn place(&self) -> Option<&'static Location<'static>> {
        place::unpack(self.place >> SLOT_BITS)
    }
}

/// The data of a block of records.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The index of the first record.
    first: u32,
    keepers: [Keeper; BLOCK_SLOTS],
    rares: [LazyBox<Rare>; BLOCK_SLOTS],
}

impl From<First> for Shared {
    fn from(First(first): First) -> Shared {
        Shared {
            first,
            keepers: std::array::from_fn(|_| Keeper::new()),
            rares: std::array::from_fn(|_| LazyBox::new()),
        }
    }
}

impl Slot for Record {
    type Shared = Shared;

    fn vacant(index: u32) -> Record {
        Record {
            id: AtomicU64::new(0),
            epoch: AtomicU32::new(0),
            woken: AtomicU32::new(0),
            waits: AtomicU32::new(0),
            polls: AtomicU32::new(0),
            polled: AtomicU32::new(0),
            cpu: AtomicU32::new(0),
            born: AtomicU32::new(0),
            place: AtomicU32::new(place_in_block(index)),
        }
    }

    fn index(&self) -> u32 {
        let (shared, place) = self.shared();
        shared.first + place as u32
    }

    fn link(&self) -> &AtomicU32 {
        &self.waits
    }
}

/// Free records and unused ids for the tasks that the owner of a processor spawns.
#[derive(Debug)]
pub(crate) struct Pool {
    records: Stash<Record>,
    ids: Reserved,
}

thread_local! {
    /// The pool of the processor that this thread owns.
    static POOL: Cell<Option<&'static Pool>> = const { Cell::new(None) };
}

impl Pool {
    pub(crate) fn new() -> Pool {
        Pool { records: Stash::new(), ids: Reserved::new() }
    }

    /// Sets the pool of the processor that this thread owns, or `None` if it owns none.
    pub(crate) fn set_of_thread(pool: Option<&'static Pool>) {
        POOL.set(pool);
    }
}

impl Record {
    /// Takes a record for a new task of `epoch`, spawned at `place` at the rough time `now`.
    #[inline(never)]
    pub(crate) fn open(
        kind: Kind,
        lane: Lane,
        epoch: u32,
        place: &'static Location<'static>,
        now: u32,
    ) -> &'static Record {
        let (record, id) = match POOL.get() {
            Some(pool) => (pool.records.alloc(&RECORDS), pool.ids.take()),
            None => (RECORDS.alloc(), identity::reserve(1)),
        };
        let record = record.unwrap_or_else(Record::unlisted);
        // ORDERING: Release, after `close` has cleared the id; see the module documentation.
        fence(Ordering::Release);
        record.epoch.store(lane.word(epoch), Ordering::Relaxed);
        record.waits.store(0, Ordering::Relaxed);
        record.woken.store(0, Ordering::Relaxed);
        record.polls.store(0, Ordering::Relaxed);
        record.polled.store(now, Ordering::Relaxed);
        record.cpu.store(0, Ordering::Relaxed);
        record.born.store(now & !3 | kind as u32, Ordering::Relaxed);
        let slot = record.place.load(Ordering::Relaxed) & SLOT_MASK;
        record.place.store(place::pack(place) << SLOT_BITS | slot, Ordering::Relaxed);
        // ORDERING: Release publishes the fields.
        record.id.store(id, Ordering::Release);
        record
    }

    /// Returns a record outside the slab, which also stays readable until the process ends.
    #[cold]
    fn unlisted() -> &'static Record {
        let mut outside = OUTSIDE.lock();
        if outside.free.is_empty() {
            let block: &[Record; BLOCK_SLOTS] = slab::block_outside();
            for record in block {
                record.place.fetch_or(UNLISTED, Ordering::Relaxed);
            }
            outside.blocks.push(block);
            outside.free.extend(block);
        }
        outside.free.pop().expect("a block has slots")
    }

    /// Records that the task's future was dropped.
    pub(super) fn end(&self) {
        self.waits.store(ENDED, Ordering::Relaxed);
    }

    /// Returns the id of the task, or 0 if the record is free or the task has ended.
    pub(crate) fn live_id(&self) -> u64 {
        if self.waits.load(Ordering::Relaxed) == ENDED { 0 } else { self.id() }
    }

    /// Frees the record of a task that has ended.
    pub(crate) fn close(&'static self) {
        self.id.store(0, Ordering::Relaxed);
        // ORDERING: Release pairs with the Acquire fence of a reader: a reader that sees a link of
        // the free list in the record also sees that the id has changed.
        fence(Ordering::Release);
        if self.place.load(Ordering::Relaxed) & UNLISTED != 0 {
            return OUTSIDE.lock().free.push(self);
        }
        match POOL.get() {
            Some(pool) => pool.records.free(&RECORDS, self),
            None => RECORDS.free(self),
        }
    }

    /// Keeps `waker`, a waker of the task of this record, until [`release`](Record::release) is
    /// called; see [`Keeper`].
    pub(super) fn keep(&self, waker: Waker) {
        self.keeper().keep(waker);
    }

    /// Drops the waker that [`keep`](Record::keep) has stored.
    pub(super) fn release(&self) {
        self.keeper().release();
    }

    /// Returns the data of the record's block, and the number of the record within the block.
    #[allow(unsafe_code)]
    fn shared(&self) -> (&'static Shared, usize) {
        let place = self.place.load(Ordering::Relaxed) & (UNLISTED - 1);
        // SAFETY: the record belongs to a block, and `vacant` has stored its place.
        let shared = unsafe { slab::shared(self, place) };
        (shared, place as usize)
    }

    /// Returns the keeper, which is beside the records of the block, because it is accessed less
    /// often.
    pub(super) fn keeper(&self) -> &'static Keeper {
        let (shared, place) = self.shared();
        &shared.keepers[place]
    }

    /// Returns whether the task has a [`Rare`].
    #[inline]
    pub(super) fn has_rare(&self) -> bool {
        self.place.load(Ordering::Relaxed) & HAS_RARE != 0
    }

    /// Returns the [`Rare`] of the task, if it has one.
    #[inline]
    pub(super) fn rare(&self) -> Option<&Rare> {
        if self.has_rare() { self.rare_slot().get() } else { None }
    }

    /// Returns the [`Rare`] of the task, which becomes `rare` if it has none. Must be called before
    /// the task is queued for the first time, or by the thread that polls or drops the task.
    #[cold]
    pub(super) fn rare_or(&self, rare: Rare) -> &Rare {
        if let Some(rare) = self.rare() {
            return rare;
        }
        self.place.store(self.place.load(Ordering::Relaxed) | HAS_RARE, Ordering::Relaxed);
        self.rare_slot().offer(Box::new(rare))
    }

    /// Takes the [`Rare`] of a task that is freed.
    ///
    /// # Safety
    /// No reference to the [`Rare`] may be used any more, and no other thread may call this at the
    /// same time.
    #[allow(unsafe_code)]
    pub(super) unsafe fn take_rare(&self) -> Option<Box<Rare>> {
        if !self.has_rare() {
            return None;
        }
        // SAFETY: the caller guarantees both conditions.
        unsafe { self.rare_slot().take_unborrowed() }
    }

    #[cold]
    fn rare_slot(&self) -> &'static LazyBox<Rare> {
        let (shared, place) = self.shared();
        &shared.rares[place]
    }

    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// Returns the word of the task's epoch and lane, which is the epoch itself for a task of the
    /// lane `Normal`.
    #[inline]
    pub(crate) fn epoch_word(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn lane(&self) -> Lane {
        Lane::of_word(self.epoch_word())
    }

    /// Returns the place where the task was spawned. The record must be in use.
    pub(crate) fn place(&self) -> Option<&'static Location<'static>> {
        place::unpack(self.place.load(Ordering::Relaxed) >> SLOT_BITS)
    }

    /// Returns whether the record is that of the root future of a `block_on` or of a simulation.
    pub(crate) fn is_root(&self) -> bool {
        kind_of(self.born.load(Ordering::Relaxed)) == Kind::Root
    }

    /// Returns whether the record is that of a blocking call.
    pub(crate) fn is_call(&self) -> bool {
        kind_of(self.born.load(Ordering::Relaxed)) == Kind::Call
    }

    /// Returns whether the future must be polled on one thread only.
    pub(crate) fn stays(&self) -> bool {
        matches!(kind_of(self.born.load(Ordering::Relaxed)), Kind::Local | Kind::Root)
    }

    /// Adds a packed wait to the wait of the current task; see [`waits::join`].
    pub(crate) fn note(&self, word: u32) {
        let seen = self.waits.load(Ordering::Relaxed);
        let joined = waits::join(seen, word);
        if joined != seen {
            self.waits.store(joined, Ordering::Relaxed);
        }
    }

    /// Replaces the wait of the current task with a packed wait for an edge.
    #[inline]
    pub(crate) fn note_edge(&self, word: u32) {
        if NO_RECORDS {
            return;
        }
        self.waits.store(word, Ordering::Relaxed);
    }

    /// Records the cause of a wake-up of the task: a task, a thread, or its own turn. The task must
    /// not be in a poll. Not called if the event that the task waits for has woken it: `waits` then
    /// still contains the wait.
    #[inline]
    pub(crate) fn note_waker(&self, waker: Waits) {
        if NO_RECORDS {
            return;
        }
        self.waits.store(waker.pack(), Ordering::Relaxed);
    }

    /// Records that a poll begins.
    #[inline]
    pub(crate) fn begin_poll(&self, ticks: u64) {
        if NO_RECORDS {
            return;
        }
        self.woken.store(self.waits.load(Ordering::Relaxed), Ordering::Relaxed);
        self.polls.store(self.polls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.waits.store(0, Ordering::Relaxed);
        self.polled.store(ticks::rough(ticks), Ordering::Relaxed);
    }

    /// Calls `poll`, which polls the task of this record outside a worker's turn. Marks the record
    /// as running until `poll` returns or records a wait.
    pub(crate) fn polling<T>(&self, poll: impl FnOnce() -> T) -> T {
        let id = self.id();
        self.begin_poll(ticks::ticks());
        self.waits.store(RUNNING, Ordering::Relaxed);
        let polled = poll();
        // If the task has ended in the poll, or ends now, the record may belong to another task or
        // be free. A link of the free list is never RUNNING, and the word of any other free record
        // is not used. At worst, the mark of the other task is cleared.
        if self.id() == id {
            let _ = self.waits.compare_exchange(RUNNING, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        polled
    }

    /// Adds `nanos`, the period of a sample that found the task in a poll, to the CPU time of the
    /// task.
    pub(crate) fn add_cpu(&self, nanos: u64) {
        self.cpu.store(CpuTime(self.cpu.load(Ordering::Relaxed)).plus(nanos).0, Ordering::Relaxed);
    }

    /// Records that the current poll has lasted for `duration` so far.
    pub(crate) fn poll_lasts(&self, duration: Duration) {
        self.cpu.store(CpuTime(self.cpu.load(Ordering::Relaxed)).with_poll(duration).0, Ordering::Relaxed);
    }

    /// Reads the fields of the task that has this record. Returns `None` if the record is free, if
    /// the task has ended, or if the record is freed in the meantime.
    pub(crate) fn read(&self) -> Option<Reading> {
        // ORDERING: Acquire pairs with the Release in `open`.
        let id = self.id.load(Ordering::Acquire);
        if id == 0 {
            return None;
        }
        let reading = Reading {
            id,
            waits: self.waits.load(Ordering::Relaxed),
            woken: self.woken.load(Ordering::Relaxed),
            polls: self.polls.load(Ordering::Relaxed),
            polled: self.polled.load(Ordering::Relaxed),
            cpu: CpuTime(self.cpu.load(Ordering::Relaxed)),
            born: self.born.load(Ordering::Relaxed),
            place: self.place.load(Ordering::Relaxed),
            lane: self.lane(),
        };
        // ORDERING: Acquire pairs with the fences in `open` and `close`: if the id has not changed,
        // all fields belong to this task.
        fence(Ordering::Acquire);
        (self.id.load(Ordering::Relaxed) == id && reading.waits != ENDED).then_some(reading)
    }
}

fn kind_of(born: u32) -> Kind {
    match born & 3 {
        0 => Kind::Task,
        1 => Kind::Local,
        2 => Kind::Root,
        _ => Kind::Call,
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
