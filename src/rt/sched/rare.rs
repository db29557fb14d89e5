//! [`Rare`]: the data of a task that only a few tasks have: the name and the task-local values.
//!
//! It is beside the task's [`Record`](super::record::Record), so that a task without such data
//! needs only one word for it.

use std::any::Any;

use super::identity::Name;
use crate::sync::Mutex;

/// The key of a task-local value, which is the address of its `LocalKey`, and the value. The entry
/// remains when the value is dropped, so that its destructor cannot create a new value for the same
/// key.
pub(super) type Local = (usize, Option<Box<dyn Any + Send>>);

/// Data that only a few tasks have.
#[derive(Debug, Default)]
pub(super) struct Rare {
    pub(super) name: Option<Name>,
    /// The task-local values. The lock exists only to make the type `Sync`, because only the thread
    /// that polls or drops the task accesses them. No user code runs under the lock.
    pub(super) locals: Mutex<Vec<Local>>,
}

impl Rare {
    /// Returns whether a local value was created and not yet dropped.
    #[cold]
    pub(super) fn has_locals(&self) -> bool {
        self.locals.lock().iter().any(|local| local.1.is_some())
    }

    /// Takes the local value that was created last.
    #[cold]
    pub(super) fn take_local(&self) -> Option<Box<dyn Any + Send>> {
        self.locals.lock().iter_mut().rev().find_map(|local| local.1.take())
    }
}
