//! Tasks: spawning, joining, cancelling, sleeping, names and task-local values.
//!
//! The module corresponds to async-std's `task`, with additions. A task is a future that the
//! runtime runs. A call of [`spawn_blocking`] is a task too. The handle of a task is a future that
//! returns the task's result.

mod builder;
mod join_handle;
mod local;
mod local_tasks;
mod set;
mod yield_now;

use std::future::Future;
use std::panic::Location;
use std::pin::pin;
use std::time::Duration;

#[doc(no_inline)]
pub use std::task::{Context, Poll, Waker, ready};

use crate::rt::context;
use crate::rt::sched;
pub use crate::rt::sched::identity::{Task, TaskId};
pub use crate::task_local;
use crate::time::Sleep;
pub use builder::Builder;
pub use join_handle::JoinHandle;
pub use local::{AccessError, LocalKey};
pub use set::TaskSet;
pub use yield_now::yield_now;

// Items of tokio's `task` that this crate does not have, or has under another name.
#[cfg(false)]
pub struct AbortHandle {} // absent: use JoinHandle::cancel, or futures::future::abortable before spawn
#[cfg(false)]
pub fn block_in_place() {} // absent: call the function; the runtime adds a worker while a task blocks its thread
#[cfg(false)]
pub fn id() {} // absent: use task::current().id()
#[cfg(false)]
pub struct Id {} // absent: use task::TaskId
#[cfg(false)]
pub struct JoinError {} // absent: awaiting a handle returns the result or resumes the panic; see JoinHandle
#[cfg(false)]
pub struct JoinSet {} // absent: use task::TaskSet
#[cfg(false)]
pub struct LocalSet {} // absent: use task::spawn_local

/// Spawns `future` as a task on the workers.
///
/// The task runs whether or not the handle is awaited, and continues if the handle is dropped. A
/// task that nothing can wake lives until [`rt::shutdown`](crate::rt::shutdown()) drops it. A panic
/// ends the task and is resumed where the handle is awaited. A
/// [single-threaded](crate::rt::Builder::single_threaded) runtime, until it starts further threads,
/// runs the task only while a thread is in [`block_on`].
///
/// # Panics
/// Panics in a child of fork(2) that did not call exec(2).
///
/// # Examples
/// ```
/// use netpoll::task;
///
/// task::block_on(async {
///     let sum = task::spawn(async { 1 + 2 });
///     assert_eq!(sum.await, 3);
/// });
/// ```
#[doc(alias = "go")]
#[track_caller]
pub fn spawn<F, T>(future: F) -> JoinHandle<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    JoinHandle::new(sched::task::spawn(None, None, Location::caller(), future))
}

/// Spawns `future`, which need not be `Send`, as a task on the calling thread.
///
/// The task runs only while the thread is inside [`block_on`], in the current call or in a later
/// one. A task that has not ended when the thread exits is dropped. A
/// [shutdown](crate::rt::shutdown()) of the runtime does not drop local tasks, and
/// [lanes](Builder::lane) do not apply to them. In other respects they are like tasks of [`spawn`].
///
/// # Panics
/// Panics in a task of [`spawn`] and in a call of [`spawn_blocking`], except inside a nested
/// `block_on`, because the thread may have no `block_on` in which the local task could run. Panics
/// while the thread is exiting, and in a child of fork(2) that did not call exec(2).
/// [`Builder::local`] returns an error instead.
///
/// # Examples
/// ```
/// use netpoll::task;
/// use std::{cell::Cell, rc::Rc};
///
/// task::block_on(async {
///     let count = Rc::new(Cell::new(0));
///     let shared = count.clone();
///     task::spawn_local(async move { shared.set(shared.get() + 1) }).await;
///     assert_eq!(count.get(), 1);
/// });
/// ```
#[track_caller]
#[doc(alias = "LocalSet")]
pub fn spawn_local<F, T>(future: F) -> JoinHandle<T>
where
    F: Future<Output = T> + 'static,
    T: 'static,
{
    match Builder::new().local(future) {
        Ok(handle) => handle,
        Err(error) => panic!("cannot spawn a local task: {error}"),
    }
}

/// Runs the blocking function `f` on a thread of the blocking pool.
///
/// The number of threads is limited (see
/// [`rt::Builder::blocking_threads`](crate::rt::Builder::blocking_threads)); further calls wait in
/// a queue. If the system refuses to create threads for the pool, or in a simulation, a thread that
/// runs tasks may make the call. A call that has started cannot be cancelled, and
/// [`cancel`](JoinHandle::cancel) of a queued call waits until a thread takes the call from the
/// queue.
///
/// # Panics
/// Panics in a child of fork(2) that did not call exec(2).
///
/// # Examples
/// ```
/// use netpoll::task;
///
/// task::block_on(async {
///     let text = task::spawn_blocking(|| std::fs::read_to_string("Cargo.toml")).await?;
///     assert!(text.contains("netpoll"));
///     Ok::<_, std::io::Error>(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(alias = "unblock")]
#[track_caller]
pub fn spawn_blocking<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    JoinHandle::new(sched::task::spawn_blocking(None, Location::caller(), f))
}

/// Runs `f`, which looks up a name, on a thread of the look-up pool.
#[track_caller]
pub(crate) fn spawn_lookup<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    JoinHandle::new(sched::task::spawn_lookup(f))
}

/// Runs `future` to completion on the calling thread and returns its result.
///
/// Tasks of [`spawn`] run on the workers and do not delay `future`. [Local tasks](spawn_local) of
/// the thread run while `future` waits. If no worker polls the network and the timers, the thread
/// does so while `future` waits. With
/// [`rt::Builder::block_on_runs_tasks`](crate::rt::Builder::block_on_runs_tasks) or
/// [`rt::Builder::single_threaded`](crate::rt::Builder::single_threaded), or if the system refuses
/// to create the runtime's threads, the thread also runs tasks of `spawn`, except in a nested call.
///
/// Calls can be nested, even inside tasks: another thread takes over the tasks of a worker that
/// calls `block_on`. A waker may also call `block_on`. If the event or close that called the waker
/// also wakes other tasks, another thread wakes these tasks while the waker blocks its thread.
///
/// # Panics
/// Panics in a child of fork(2) that did not call exec(2), because the runtime's threads exist only
/// in the parent. Panics inside a simulation (feature `sim`).
///
/// # Examples
/// ```
/// let nested = netpoll::task::block_on(async { netpoll::task::block_on(async { 7 }) });
/// assert_eq!(nested, 7);
/// ```
#[track_caller]
pub fn block_on<F, T>(future: F) -> T
where
    F: Future<Output = T>,
{
    // The future is passed by reference, because it may be large and each move would copy it.
    sched::block_on::block_on(local_tasks::WithLocal::new(pin!(future)))
}

/// Returns a future that polls `future` and the local tasks of this thread, as `block_on` does.
#[cfg(feature = "sim")]
pub(crate) fn with_local<F: Future>(future: std::pin::Pin<&mut F>) -> impl Future<Output = F::Output> + Unpin {
    local_tasks::WithLocal::new(future)
}

/// Sleeps for at least `duration`, counted from the first poll. A sleep of [`Duration::MAX`] never
/// ends. [`Sleep`] is a sleep that can be stored and reset.
///
/// The sleep may end late, by the kernel's timer slack (50 µs by default) or, without
/// epoll_pwait2(2), by up to a millisecond, and by the time for which the threads that run tasks
/// are busy.
///
/// # Cancel safety
/// Dropping the future cancels the sleep.
///
/// # Panics
/// Panics if the sleep has to wait in a child of fork(2) that did not call exec(2).
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
///
/// netpoll::task::block_on(async {
///     let start = Instant::now();
///     netpoll::task::sleep(Duration::from_millis(3)).await;
///     assert!(start.elapsed() >= Duration::from_millis(3));
/// });
/// ```
#[doc(alias = "time.Sleep")]
pub async fn sleep(duration: Duration) {
    Sleep::new(duration).await;
}

/// Returns the current task.
///
/// # Panics
/// Panics outside any task and [`block_on`]; see [`try_current`].
///
/// # Examples
/// ```
/// netpoll::task::block_on(async {
///     println!("this is task {}", netpoll::task::current().id());
/// });
/// ```
#[track_caller]
pub fn current() -> Task {
    try_current().expect("`task::current()` called outside the context of a task")
}

/// Returns the current task, or `None` outside any task and [`block_on`].
///
/// # Examples
/// ```
/// assert!(netpoll::task::try_current().is_none());
/// ```
pub fn try_current() -> Option<Task> {
    context::with_task(|data| data.map(|data| data.task()))
}
