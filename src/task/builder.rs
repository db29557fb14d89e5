//! [`Builder`]: spawning tasks with a name or a lane.

use std::future::Future;
use std::io;
use std::panic::Location;
use std::pin::pin;

use super::{JoinHandle, local_tasks};
use crate::rt::fork;
use crate::rt::sched;
use crate::rt::sched::identity::Name;
use crate::rt::sched::lanes::Lane;

/// Settings for a new task: its name and its lane.
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
#[must_use = "settings do nothing until a task is spawned"]
pub struct Builder {
    name: Option<Name>,
    lane: Option<Lane>,
}

impl Builder {
    /// Creates settings for a task without a name, in the lane of the task that spawns it.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Sets the name of the task. [`Task::name`](super::Task::name) returns the name, and snapshots
    /// and reports of tasks that block their thread contain it.
    pub fn name(mut self, name: String) -> Builder {
        self.name = Some(Name::new(name.into_boxed_str()));
        self
    }

    /// Sets the lane, which determines whether the task's turns (its polls) come before those of
    /// other tasks. By default a task has the lane of the task that spawns it, or [`Lane::Normal`]
    /// if it is spawned outside any task. [`local`](Builder::local),
    /// [`blocking`](Builder::blocking) and [`spawn_blocking`](Builder::spawn_blocking) ignore the
    /// lane.
    ///
    /// # Examples
    /// ```
    /// use netpoll::{rt::Lane, task};
    ///
    /// let heartbeat = task::Builder::new().lane(Lane::Control).spawn(async {
    ///     let inherits = task::spawn(async { task::current().lane() }).await;
    ///     let ordinary = task::Builder::new().lane(Lane::Normal).spawn(async { task::current().lane() })?.await;
    ///     std::io::Result::Ok((inherits, ordinary))
    /// })?;
    /// assert_eq!(task::block_on(heartbeat)?, (Lane::Control, Lane::Normal));
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias = "priority")]
    pub fn lane(mut self, lane: Lane) -> Builder {
        self.lane = Some(lane);
        self
    }

    /// Spawns `future` on the workers; see [`spawn`](super::spawn).
    ///
    /// # Errors
    /// Returns an error of kind `Other` in a child of fork(2) that did not call exec(2).
    #[track_caller]
    pub fn spawn<F, T>(self, future: F) -> io::Result<JoinHandle<T>>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_at(Location::caller(), future)
    }

    /// Spawns `future` as [`spawn`](Builder::spawn) does. `place` appears in snapshots.
    pub(super) fn spawn_at<F, T>(self, place: &'static Location<'static>, future: F) -> io::Result<JoinHandle<T>>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        fork::check()?;
        Ok(JoinHandle::new(sched::task::spawn(self.name, self.lane, place, future)))
    }

    /// Runs `f` on a thread for blocking calls; see [`spawn_blocking`](super::spawn_blocking).
    ///
    /// # Errors
    /// Returns an error of kind `Other` in a child of fork(2) that did not call exec(2).
    ///
    /// # Examples
    /// ```
    /// use netpoll::task;
    ///
    /// let sum = task::Builder::new().name("sum".into()).spawn_blocking(|| (1..=100).sum::<u32>())?;
    /// assert_eq!(sum.task().name(), Some("sum"));
    /// assert_eq!(task::block_on(sum), 5050);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn spawn_blocking<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        fork::check()?;
        Ok(JoinHandle::new(sched::task::spawn_blocking(self.name, Location::caller(), f)))
    }

    /// Spawns `future` on the calling thread; see [`spawn_local`](super::spawn_local).
    ///
    /// # Errors
    /// Returns `Unsupported` in a task of [`spawn`](super::spawn) and in a call of
    /// [`spawn_blocking`](super::spawn_blocking), except inside a nested `block_on`, and while the
    /// thread is exiting. Returns an error of kind `Other` in a child of fork(2) that did not call
    /// exec(2).
    #[track_caller]
    pub fn local<F, T>(self, future: F) -> io::Result<JoinHandle<T>>
    where
        F: Future<Output = T> + 'static,
        T: 'static,
    {
        self.local_at(Location::caller(), future)
    }

    /// Spawns `future` as [`local`](Builder::local) does. `place` appears in snapshots.
    pub(super) fn local_at<F, T>(self, place: &'static Location<'static>, future: F) -> io::Result<JoinHandle<T>>
    where
        F: Future<Output = T> + 'static,
        T: 'static,
    {
        fork::check()?;
        if !local_tasks::is_possible() {
            let text = "neither a task of spawn, nor a call of spawn_blocking, nor a thread that is exiting can run \
                        a local task: spawn it in the future of block_on, or in another local task";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        Ok(JoinHandle::new(local_tasks::spawn(self.name, place, future)))
    }

    /// Runs `future` to completion on the calling thread; see [`block_on`](super::block_on).
    #[track_caller]
    pub fn blocking<F, T>(self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        sched::block_on::block_on_named(self.name, local_tasks::WithLocal::new(pin!(future)))
    }
}
