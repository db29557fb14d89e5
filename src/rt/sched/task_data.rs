//! [`TaskData`]: the scheduler's data about a task: its record, name and local values.
//!
//! For a spawned task, this is the metadata of `async-task`, in the same allocation as the future.
//! For a root future, it is on the stack of the thread.

use std::any::Any;
use std::panic::Location;

use super::identity::{self, Name, Task, TaskId};
use super::lanes::{CONTROL, Lane};
use super::own_waker::Spare;
use super::rare::Rare;
use super::record::{Kind, Record};

/// The state of a task-local value.
pub(crate) enum LocalState {
    /// No value was created.
    Absent,
    /// The address of the value, which stays valid until the task ends.
    Value(*const (dyn Any + Send)),
    /// The value was dropped, or is being dropped.
    Dropped,
}

/// The epoch of a simulation's tasks. The runtime would reach it only after two billion starts, so
/// the comparison of epochs before each turn also detects the tasks of a simulation.
#[cfg(feature = "sim")]
const SIMULATED: u32 = CONTROL - 1;

/// The scheduler's data about a task.
#[derive(Debug)]
pub(crate) struct TaskData {
    /// The task's id and epoch, and the data that other threads may read. [`end`](TaskData::end)
    /// frees the record. If it was not called, or returned false, the drop of this value frees the
    /// record.
    record: &'static Record,
    spare: Spare,
    #[cfg(feature = "sim")]
    tag: crate::sim::Tag,
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
        if let Some(name) = name {
            set_name(record, name);
        }
        TaskData {
            record,
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

    /// Returns whether the task must be polled on one thread only: a local task, or the root future
    /// of a `block_on` or of a simulation.
    pub(crate) fn stays(&self) -> bool {
        self.record.stays()
    }

    /// Returns whether the task is a blocking call.
    pub(crate) fn is_call(&self) -> bool {
        self.record.is_call()
    }

    pub(crate) fn task(&self) -> Task {
        self.task_at(self.record.place())
    }

    /// Returns a handle to the task, which was spawned at `place`.
    #[inline]
    pub(super) fn task_at(&self, place: Option<&'static Location<'static>>) -> Task {
        let name = self.rare().and_then(|rare| rare.name.clone());
        Task::new(TaskId::from_number(self.number()), name, place, self.lane())
    }

    #[inline]
    pub(crate) fn name(&self) -> Option<&str> {
        self.rare()?.name.as_ref().map(|name| &***name)
    }

    /// Returns the data that only a few tasks have, if the task has any. The record must not have
    /// been freed by [`end`](TaskData::end).
    #[inline]
    fn rare(&self) -> Option<&Rare> {
        self.record.rare()
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
        let Some(rare) = self.rare() else { return LocalState::Absent };
        match rare.locals.lock().iter().find(|local| local.0 == key) {
            None => LocalState::Absent,
            Some((_, Some(value))) => LocalState::Value(&raw const **value),
            Some((_, None)) => LocalState::Dropped,
        }
    }

    /// Stores a local value. The caller must have checked that it is [`LocalState::Absent`].
    pub(crate) fn set_local(&self, key: usize, value: Box<dyn Any + Send>) {
        self.record.rare_or(Rare::default()).locals.lock().push((key, Some(value)));
    }

    /// Records that the task's future was dropped, calls `is_freed` with the record, frees it, and
    /// returns true. Returns false if the task has rare data: the caller must then drop the local
    /// values and call [`Record::end`].
    #[inline]
    pub(super) fn end(&self, is_freed: impl FnOnce(&Record)) -> bool {
        if self.record.has_rare() {
            return false;
        }
        // Nothing but the task's data needs the record now. It is freed here, because it is in the
        // cache now, and probably no longer when the task is freed.
        self.spare.end();
        is_freed(self.record);
        self.record.close();
        true
    }

    /// Returns whether the task has local values.
    #[inline]
    pub(super) fn has_locals(&self) -> bool {
        self.rare().is_some_and(Rare::has_locals)
    }

    /// Takes the local value that was created last.
    #[inline]
    pub(super) fn take_local(&self) -> Option<Box<dyn Any + Send>> {
        self.rare()?.take_local()
    }

    /// Drops all local values, in reverse order of creation. A destructor may create values for
    /// other keys, which are dropped as well. This terminates, because each key has at most one
    /// value per task.
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
        if !self.spare.has_ended() {
            free(self.record);
        }
    }
}

/// Gives the name `name` to the task of a new record, and adds it to the table of names.
#[cold]
fn set_name(record: &'static Record, name: Name) {
    identity::remember(record.id(), name.clone());
    record.rare_or(Rare { name: Some(name), ..Rare::default() });
}

/// Frees the record of a task that is freed, and its rare data.
#[cold]
fn free(record: &'static Record) {
    // SAFETY: the task is freed, so nothing borrows its data.
    #[allow(unsafe_code)]
    let rare = unsafe { record.take_rare() };
    if rare.as_ref().is_some_and(|rare| rare.name.is_some()) {
        identity::forget(record.id());
    }
    record.close();
    // The destructors of local values are user code.
    drop(rare);
}

// Every task contains a `TaskData`, so its size matters.
const _: () = assert!(size_of::<TaskData>() <= if cfg!(feature = "sim") { 24 } else { 16 });
