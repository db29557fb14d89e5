//! `Builder`: a task with a name.

use std::future::Future;
use std::io;
use std::sync::Arc;

use super::JoinHandle;
use crate::rt::{fork, sched};

/// Settings for a task to be spawned.
///
/// # Examples
/// ```
/// use netpoll::task;
///
/// let handle = task::Builder::new().name("worker".into()).spawn(async { 1 })?;
/// assert_eq!(handle.task().name(), Some("worker"));
/// assert_eq!(task::block_on(handle), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "settings do nothing until `spawn`"]
pub struct Builder {
    name: Option<Arc<str>>,
}

impl Builder {
    /// A task without a name.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the task: shown by [`Task::name`](super::Task::name) and in reports of tasks that block their thread.
    pub fn name(mut self, name: String) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Spawns `future`; see [`spawn`](super::spawn).
    ///
    /// # Errors
    /// In a child of fork(2) that did not call exec(2).
    pub fn spawn<F, T>(self, future: F) -> io::Result<JoinHandle<T>>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        fork::check()?;
        Ok(JoinHandle::new(sched::task::spawn(self.name, future)))
    }

    /// Runs `future` on the calling thread; see [`block_on`](super::block_on).
    pub fn blocking<F, T>(self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        sched::block_on::block_on_named(self.name, future)
    }
}
