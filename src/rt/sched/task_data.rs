//! [`TaskData`]: the scheduler's data about a task: its record, name and local values.
//!
//! For a spawned task, this is the metadata of `async-task`, in the same allocation as the future. For a root future, it
//! is on the stack of the thread.

use std::any::Any;
use std::panic::Location;

use super::identity::{self, Name, Task};
use super::lanes::{CONTROL, Lane};
use super::own_waker::Spare;
use super::record::{Kind, Record};
use crate::rt::lazy_box::LazyBox;
use crate::sync::Mutex;

/// The key of a task-local value, which is the address of its `LocalKey`, and the value. The entry remains
/// when the value is dropped, so that its destructor cannot create a new value for the same key.
type Local = (usize, Option<Box<dyn Any + Send>>);

/// The state of a task-local value.
pub(crate) enum LocalState {
    /// No value was created.
    Absent,
    /// The address of the value, which stays valid until the task ends.
    Value(*const (dyn Any + Send)),
    /// The value was dropped, or is being dropped.
    Dropped,
}

/// The epoch of a simulation's tasks. The runtime would reach it only after two billion starts, so the
/// comparison of epochs before each turn also detects the tasks of a simulation.
#[cfg(feature = "sim")]
const SIMULATED: u32 = CONTROL - 1;

/// The scheduler's data about a task.
#[derive(Debug)]
pub(crate) struct TaskData {
    /// The task's id and epoch, and the data that other threads may read.
    record: &'static Record,
    rare: LazyBox<Rare>,
    spare: Spare,
    #[cfg(feature = "sim")]
    tag: crate::sim::Tag,
}

/// Data that only a few tasks have.
#[derive(Debug, Default)]
struct Rare {
    name: Option<Name>,
    /// The task-local values. The lock exists only to make the type `Sync`, because only the thread that
    /// polls or drops the task accesses them. No user code runs under the lock.
    locals: Mutex<Vec<Local>>,
}

impl Rare {
    /// Returns the data of a task with a name, and adds the name to the table of names.
    #[cold]
    fn named(number: u64, name: Name) -> LazyBox<Rare> {
        identity::remember(number, name.clone());
        LazyBox::from(Rare { name: Some(name), ..Rare::default() })
    }

    #[cold]
    fn take_local(&self) -> Option<Box<dyn Any + Send>> {
        self.locals.lock().iter_mut().rev().find_map(|local| local.1.take())
    }
}

impl TaskData {
    /// Returns the data of a new task that is spawned at the rough time `now`.
    // Inlined, so that the fields go from registers into the allocation of the task.
    #[inline(always)]
    pub(crate) fn new(
        kind: Kind,
        name: Option<Name>,
        lane: Lane,
        epoch: u32,
        place: &'static Location<'static>,
        now: u32,
    ) -> TaskData {
        #[cfg(feature = "sim")]
        let (tag, epoch) = (crate::sim::tag(), if crate::sim::is_here() { SIMULATED } else { epoch });
        let record = Record::open(kind, lane, epoch, place, now);
        let rare = match name {
            None => LazyBox::new(),
            Some(name) => Rare::named(record.id(), name),
        };
        TaskData {
            record,
            rare,
            spare: Spare::new(),
            #[cfg(feature = "sim")]
            tag,
        }
    }

    /// Returns the tag of the simulation to which the task belongs.
    #[cfg(feature = "sim")]
    pub(crate) fn tag(&self) -> crate::sim::Tag {
        self.tag
    }

    /// Returns whether the task belongs to a simulation.
    pub(super) fn is_simulated(&self) -> bool {
        #[cfg(feature = "sim")]
        return self.tag.world != 0;
        #[cfg(not(feature = "sim"))]
        false
    }

    /// Returns whether the task is the root future of a `block_on` or of a simulation.
    pub(crate) fn is_root(&self) -> bool {
        self.record.is_root()
    }

    /// Returns whether the task must be polled on one thread only: a local task, or the root future of a
    /// `block_on` or of a simulation.
    pub(crate) fn stays(&self) -> bool {
        self.record.stays()
    }

    pub(crate) fn task(&self) -> Task {
        let name = self.rare.get().and_then(|rare| rare.name.clone());
        self.record.task(name)
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.rare.get()?.name.as_ref().map(|name| &***name)
    }

    #[inline]
    pub(crate) fn number(&self) -> u64 {
        self.record.id()
    }

    #[inline]
    pub(crate) fn record(&self) -> &'static Record {
        self.record
    }

    /// Returns the place of the reference that a wake-up leaves with the task.
    #[inline]
    pub(super) fn spare(&self) -> &Spare {
        &self.spare
    }

    /// Returns the epoch of the task.
    #[inline]
    pub(crate) fn epoch(&self) -> u32 {
        self.record.epoch_word() & !CONTROL
    }

    /// Returns the word with the task's epoch and lane, so that one comparison covers both.
    #[inline]
    pub(super) fn epoch_word(&self) -> u32 {
        self.record.epoch_word()
    }

    #[inline]
    pub(crate) fn lane(&self) -> Lane {
        Lane::of_word(self.record.epoch_word())
    }

    /// Returns the state of the local value of `key`.
    pub(crate) fn local(&self, key: usize) -> LocalState {
        let Some(rare) = self.rare.get() else { return LocalState::Absent };
        match rare.locals.lock().iter().find(|local| local.0 == key) {
            None => LocalState::Absent,
            Some((_, Some(value))) => LocalState::Value(&raw const **value),
            Some((_, None)) => LocalState::Dropped,
        }
    }

    /// Stores a local value. The caller must have checked that it is [`LocalState::Absent`].
    pub(crate) fn set_local(&self, key: usize, value: Box<dyn Any + Send>) {
        self.rare.get_or_default().locals.lock().push((key, Some(value)));
    }

    /// Takes the local value that was created last.
    #[inline]
    pub(super) fn take_local(&self) -> Option<Box<dyn Any + Send>> {
        self.rare.get()?.take_local()
    }

    /// Drops all local values, in reverse order of creation. A destructor may create values for other
    /// keys, which are dropped as well. This terminates, because each key has at most one value per
    /// task.
    #[inline]
    pub(crate) fn clear_locals(&self) {
        // The value is dropped outside the lock.
        while let Some(value) = self.take_local() {
            drop(value);
        }
    }
}

impl Drop for TaskData {
    #[inline]
    fn drop(&mut self) {
        if self.rare.get().is_some_and(|rare| rare.name.is_some()) {
            identity::forget(self.number());
        }
        self.record.close();
    }
}

// Every task contains a `TaskData`, so its size matters.
const _: () = assert!(size_of::<TaskData>() <= if cfg!(feature = "sim") { 32 } else { 24 });
