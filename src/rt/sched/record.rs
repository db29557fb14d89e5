//! `Record`: what is known of a living task, readable at any time by any thread.
//!
//! Records live in a slab and stay readable for ever, so [`inspect`](crate::rt::inspect()) reads them while tasks come and go,
//! without a lock and without touching a task. The thread that polls a task writes its record, after the spawn and before the end;
//! sysmon writes `cpu`.
//!
//! # States
//! *free* (id 0) → *in use* (the task's id) → *free*. Ids are never reused, so a reader that finds the same id before and after it has
//! read the other fields has read one task's.
//!
//! # Memory ordering
//! `id` guards the other fields as the sequence number of a seqlock does. The owner clears it, issues a release fence, writes the fields of
//! the next task, and stores the new id with Release. A reader loads it with Acquire, reads the fields, issues an acquire fence, and loads
//! it again.
//!
//! # What a task waits for
//! An operation that returns Pending notes in the record of the current task what it waits for, as one word. A poll begins by
//! clearing it. A socket operation has precedence over a timer beside it; the word says that there are several. A task whose word is
//! clear waits for something that is not ours, or is about to run.

use std::panic::Location;

use super::task::TaskId;
use crate::rt::context;
use crate::rt::slab::{Slab, Slot};
use crate::rt::time::ticks;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, fence};

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Record {
    id: AtomicU64,
    epoch: AtomicU32,
    /// The slot's number, or [`UNLISTED`].
    index: u32,
    /// Of a free record, the link of the free list. Of one in use, a [`WaitWord`].
    waits: AtomicU32,
    polls: AtomicU32,
    /// When the last poll began, as rough time.
    polled: AtomicU32,
    /// Time in polls, in units of [`CPU_SHIFT`], estimated from samples. The sampling thread's.
    cpu: AtomicU32,
    /// When the task was spawned, as rough time, and the kind of task in the lowest two bits.
    born: AtomicU32,
    /// Where it was spawned, as an offset; see [`pack_place`].
    place: AtomicU32,
}

// Every task pays for it.
const _: () = assert!(crate::sync::MODEL || size_of::<Record>() <= 40);

/// The index of a record that is in no slab: more tasks are alive than a slab has slots. It is not shown.
const UNLISTED: u32 = u32::MAX;

/// The unit of `cpu`: 2¹⁴ ns.
const CPU_SHIFT: u32 = 14;

/// What kind of future a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A task of the workers.
    Task = 0,
    /// A task that stays on its thread.
    Local = 1,
    /// The future of a `block_on`.
    Root = 2,
    /// A call on the blocking pool.
    Call = 3,
}

/// What an operation that has returned Pending waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    Nothing,
    /// An edge of the socket with this tag.
    Readable(u32),
    Writable(u32),
    /// The lock of a direction.
    ReadLock(u32),
    WriteLock(u32),
    /// The peer's hang-up.
    HangUp(u32),
    /// A time, as [`clock`](crate::rt::time::clock) has it.
    Time(u64),
    /// The end of the task with this id, of which the lowest 28 bits are kept.
    Task(u64),
}

// The word: the argument in the lowest bits, the kind, and whether the task waits for something else as well.
const ARGUMENT_BITS: u32 = 28;
const ARGUMENT_MAX: u32 = (1 << ARGUMENT_BITS) - 1;
const KIND_MASK: u32 = 7 << ARGUMENT_BITS;
const SEVERAL: u32 = 1 << 31;
/// Of a future that is being polled elsewhere than on a worker. (What a worker polls, its processor tells.)
const RUNNING: u32 = SEVERAL;
/// A time stands in units of 2²⁰ ns, modulo 2²⁸: 78 hours.
const TIME_SHIFT: u32 = 20;

impl Waits {
    /// Whether `id` is that of a [`Waits::Task`] with these bits.
    pub(crate) fn is_task(id: u64, bits: u64) -> bool {
        id & u64::from(ARGUMENT_MAX) == bits
    }

    #[inline]
    fn pack(self) -> u32 {
        let (kind, argument) = match self {
            Waits::Nothing => (0, 0),
            Waits::Readable(index) => (1, index),
            Waits::Writable(index) => (2, index),
            Waits::ReadLock(index) => (3, index),
            Waits::WriteLock(index) => (4, index),
            Waits::HangUp(index) => (5, index),
            Waits::Time(time) => (6, (time >> TIME_SHIFT) as u32),
            Waits::Task(id) => (7, id as u32),
        };
        argument & ARGUMENT_MAX | kind << ARGUMENT_BITS
    }

    /// The word's meaning at the time `now`, and whether the task waits for something else as well.
    fn unpack(word: u32, now: u64) -> (Waits, bool) {
        let argument = word & ARGUMENT_MAX;
        let waits = match (word & KIND_MASK) >> ARGUMENT_BITS {
            1 => Waits::Readable(argument),
            2 => Waits::Writable(argument),
            3 => Waits::ReadLock(argument),
            4 => Waits::WriteLock(argument),
            5 => Waits::HangUp(argument),
            6 => {
                let units = argument.wrapping_sub((now >> TIME_SHIFT) as u32) & ARGUMENT_MAX;
                // The upper half of the range is the past.
                let units = if units > ARGUMENT_MAX / 2 { 0 } else { units };
                Waits::Time(now.saturating_add(u64::from(units) << TIME_SHIFT))
            }
            7 => Waits::Task(u64::from(argument)),
            _ => Waits::Nothing,
        };
        (waits, word & SEVERAL != 0)
    }

    fn is_of_socket(word: u32) -> bool {
        matches!((word & KIND_MASK) >> ARGUMENT_BITS, 1..=5)
    }
}

/// Notes in the record of the current task, if there is one, that an operation has returned Pending.
pub(crate) fn note(waits: Waits) {
    context::with_task(|task| {
        if let Some(task) = task {
            task.record().note(waits.pack());
        }
    });
}

/// The notes of operations that wait for an edge of the socket `tag`, by direction.
pub(crate) fn edge_notes(tag: u32) -> [u32; 2] {
    [Waits::Readable(tag).pack(), Waits::Writable(tag).pack()]
}

/// The same as [`note`] for one of the [`edge_notes`], which replaces what was noted before.
#[inline]
pub(crate) fn note_edge(note: u32) {
    context::with_task(|task| {
        if let Some(task) = task {
            task.record().waits.store(note, Ordering::Relaxed);
        }
    });
}

/// The records of all tasks.
static RECORDS: Slab<Record> = Slab::new();

/// The records outside the slab that no task has.
static UNLISTED_FREE: Mutex<Vec<&Record>> = Mutex::new(Vec::new());

/// All records, free ones included.
pub(crate) fn all() -> impl Iterator<Item = &'static Record> {
    RECORDS.iter()
}

/// One task's fields, read together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    pub(crate) waits: (Waits, bool),
    /// A future that no worker polls is being polled.
    pub(crate) is_running: bool,
    pub(crate) polls: u32,
    pub(crate) polled: u32,
    pub(crate) cpu_nanos: u64,
    pub(crate) born: u32,
    pub(crate) place: Option<&'static Location<'static>>,
}

impl Slot for Record {
    fn vacant(index: u32) -> Record {
        Record {
            id: AtomicU64::new(0),
            epoch: AtomicU32::new(0),
            index,
            waits: AtomicU32::new(0),
            polls: AtomicU32::new(0),
            polled: AtomicU32::new(0),
            cpu: AtomicU32::new(0),
            born: AtomicU32::new(0),
            place: AtomicU32::new(0),
        }
    }

    fn index(&self) -> u32 {
        self.index
    }

    fn link(&self) -> &AtomicU32 {
        &self.waits
    }
}

impl Record {
    /// A record for a new task of `epoch`, spawned at `place`.
    pub(crate) fn open(kind: Kind, epoch: u32, place: &'static Location<'static>) -> &'static Record {
        let record = RECORDS.alloc().unwrap_or_else(Record::unlisted);
        // ORDERING: Release, after `close` has cleared the id: see the header.
        fence(Ordering::Release);
        record.epoch.store(epoch, Ordering::Relaxed);
        record.waits.store(0, Ordering::Relaxed);
        record.polls.store(0, Ordering::Relaxed);
        let now = ticks::rough_now();
        record.polled.store(now, Ordering::Relaxed);
        record.cpu.store(0, Ordering::Relaxed);
        record.born.store(now & !3 | kind as u32, Ordering::Relaxed);
        record.place.store(pack_place(place), Ordering::Relaxed);
        // ORDERING: Release publishes the fields.
        record.id.store(TaskId::new().number(), Ordering::Release);
        record
    }

    /// A record outside the slab. It stays readable as well.
    #[cold]
    fn unlisted() -> &'static Record {
        let free = UNLISTED_FREE.lock().pop();
        free.unwrap_or_else(|| Box::leak(Box::new(Record::vacant(UNLISTED))))
    }

    /// The task is gone.
    pub(crate) fn close(&'static self) {
        self.id.store(0, Ordering::Relaxed);
        if self.index == UNLISTED {
            UNLISTED_FREE.lock().push(self);
        } else {
            RECORDS.free(self);
        }
    }

    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Whether the future stays on its thread.
    pub(crate) fn stays(&self) -> bool {
        matches!(kind_of(self.born.load(Ordering::Relaxed)), Kind::Local | Kind::Root)
    }

    fn note(&self, word: u32) {
        let seen = self.waits.load(Ordering::Relaxed);
        if matches!(seen, 0 | RUNNING) {
            self.waits.store(word, Ordering::Relaxed);
        } else if seen & !SEVERAL != word {
            let keeps = Waits::is_of_socket(seen) && !Waits::is_of_socket(word);
            self.waits.store(SEVERAL | if keeps { seen } else { word }, Ordering::Relaxed);
        }
    }

    /// A poll begins.
    #[inline]
    pub(crate) fn begin_poll(&self) {
        self.polls.store(self.polls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.waits.store(0, Ordering::Relaxed);
        self.polled.store(ticks::rough_now(), Ordering::Relaxed);
    }

    /// Calls `poll`, which polls the task that has this record elsewhere than on a worker.
    pub(crate) fn polling<T>(&self, poll: impl FnOnce() -> T) -> T {
        let id = self.id();
        self.begin_poll();
        self.waits.store(RUNNING, Ordering::Relaxed);
        let polled = poll();
        // The task may be gone, and the record another's.
        if self.id() == id && self.waits.load(Ordering::Relaxed) == RUNNING {
            self.waits.store(0, Ordering::Relaxed);
        }
        polled
    }

    /// A sample has found a poll of the task under way, and stands for so much time.
    pub(crate) fn add_cpu(&self, nanos: u64) {
        let units = u32::try_from(nanos >> CPU_SHIFT).unwrap_or(u32::MAX);
        self.cpu.store(self.cpu.load(Ordering::Relaxed).saturating_add(units), Ordering::Relaxed);
    }

    /// The task that has this record at the time `now`, if there is one.
    pub(crate) fn read(&self, now: u64) -> Option<Reading> {
        // ORDERING: Acquire pairs with the Release in `open`.
        let id = self.id.load(Ordering::Acquire);
        if id == 0 {
            return None;
        }
        let (born, waits) = (self.born.load(Ordering::Relaxed), self.waits.load(Ordering::Relaxed));
        let reading = Reading {
            id,
            kind: kind_of(born),
            waits: Waits::unpack(waits, now),
            is_running: waits == RUNNING,
            polls: self.polls.load(Ordering::Relaxed),
            polled: self.polled.load(Ordering::Relaxed),
            cpu_nanos: u64::from(self.cpu.load(Ordering::Relaxed)) << CPU_SHIFT,
            born: born & !3,
            place: unpack_place(self.place.load(Ordering::Relaxed)),
        };
        // ORDERING: Acquire: pairs with the fence in `open`. What was read is of this task if the id is still the same.
        fence(Ordering::Acquire);
        (self.id.load(Ordering::Relaxed) == id).then_some(reading)
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

/// Locations are constants of the program. Their addresses are stored as the distance from this one.
#[track_caller]
fn origin() -> &'static Location<'static> {
    Location::caller()
}

fn anchor() -> &'static Location<'static> {
    origin()
}

/// A location in 32 bits, or 0: a library that was loaded later may be too far away.
fn pack_place(place: &'static Location<'static>) -> u32 {
    let distance =
        std::ptr::from_ref(place).expose_provenance().wrapping_sub(std::ptr::from_ref(anchor()).addr()) as isize;
    // The anchor itself is no place of a spawn, so a distance is never 0.
    i32::try_from(distance).map_or(0, |distance| distance as u32)
}

#[allow(unsafe_code)]
fn unpack_place(packed: u32) -> Option<&'static Location<'static>> {
    if packed == 0 {
        return None;
    }
    let address = std::ptr::from_ref(anchor()).addr().wrapping_add_signed(packed as i32 as isize);
    // SAFETY: `pack_place` was given a reference with this address, which is valid for the life of the program.
    Some(unsafe { &*std::ptr::with_exposed_provenance(address) })
}
