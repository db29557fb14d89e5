//! Tasks: spawning, joining, cancelling, sleeping, names and task-local values.
//!
//! This is async-std's module of the same name, with additions. A task is a future that the
//! runtime's workers run. Its handle is a future of its result.

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

/// Spawns `future` as a task on the workers.
///
/// The task runs whether or not the handle is awaited, and goes on if the handle is dropped. A
/// panic ends the task and is resumed where the handle is awaited.
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
/// The task runs while the thread is inside [`block_on`], the current call or the next one.
/// Otherwise it is like a task of [`spawn`]. Tasks that have not ended when the thread ends are
/// dropped.
///
/// # Panics
/// Panics inside a task made by [`spawn`] or [`spawn_blocking`], because its thread may have no
/// `block_on` to run it in, and in a child of fork(2) that did not call exec(2). [`Builder::local`]
/// returns an error instead.
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
/// The number of threads is limited
/// ([`rt::Builder::blocking_threads`](crate::rt::Builder::blocking_threads)); further calls wait in
/// a queue. A call that has begun cannot be cancelled.
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
#[track_caller]
pub fn spawn_blocking<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    JoinHandle::new(sched::task::spawn_blocking(None, Location::caller(), f))
}

/// Runs `f`, a name look-up, on a thread of the look-up pool.
/// Runs `f`, which looks up a name, on a thread kept for such calls.
#[track_caller]
pub(crate) fn spawn_lookup<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    JoinHandle::new(sched::task::spawn_lookup(f))
}

/// Runs `future` on the calling thread to completion and returns its result.
///
/// Spawned tasks run on the workers and do not delay `future`. While it waits, the thread polls the
/// network and the timers if no worker does. Calls can be nested, also inside tasks: another thread
/// takes over the tasks of this one. A waker may call `block_on` too, but must not wait for a task
/// that the same close wakes, since it delays the other wakers of that socket until it returns. With
/// [`rt::Builder::block_on_runs_tasks`](crate::rt::Builder::block_on_runs_tasks) the thread also
/// runs tasks.
///
/// # Panics
/// Panics in a child of fork(2) that did not call exec(2), because the runtime's threads stayed in
/// the parent.
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
    // By reference: the future may be large, and each move would copy it on the stack.
    sched::block_on::block_on(local_tasks::WithLocal::new(pin!(future)))
}

/// Returns `future` together with the local tasks of this thread, as `block_on` polls it.
#[cfg(feature = "sim")]
pub(crate) fn with_local<F: Future>(future: std::pin::Pin<&mut F>) -> impl Future<Output = F::Output> + Unpin {
    local_tasks::WithLocal::new(future)
}

/// Waits for at least `duration`, counted from the first poll. [`Duration::MAX`] never ends.
/// [`Sleep`] is a sleep that can be stored and reset.
///
/// It may be late by the kernel's timer slack (50 µs by default) and by the time that the workers
/// are busy.
///
/// # Cancel safety
/// Dropping the future removes the timer.
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

/// Returns the current task; `None` outside any task and [`block_on`].
///
/// # Examples
/// ```
/// assert!(netpoll::task::try_current().is_none());
/// ```
pub fn try_current() -> Option<Task> {
    context::with_task(|data| data.map(|data| data.task()))
}
