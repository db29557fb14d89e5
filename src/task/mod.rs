//! Tasks: spawning, waiting, sleeping, names and locals.
//!
//! async-std's module of the same name. A task is a future that the runtime's workers run; its handle is a future of its result.

mod builder;
mod join_handle;
mod local;
mod local_tasks;
mod set;
mod yield_now;

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

#[doc(no_inline)]
pub use std::task::{Context, Poll, Waker, ready};

use crate::rt::context;
use crate::rt::sched;
pub use crate::rt::sched::task::{Task, TaskId};
pub use crate::task_local;
use crate::time::Sleep;
pub use builder::Builder;
pub use join_handle::JoinHandle;
pub use local::{AccessError, LocalKey};
pub use set::TaskSet;
pub use yield_now::yield_now;

/// Runs `future` as a task on the workers.
///
/// It runs whether or not the handle is awaited, and goes on when the handle is dropped. A panic in it ends the task and is
/// resumed in whoever awaits the handle.
///
/// # Panics
/// In a child of fork(2) that did not call exec(2).
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
pub fn spawn<F, T>(future: F) -> JoinHandle<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    JoinHandle::new(sched::task::spawn(None, future))
}

/// Runs `future`, which need not be `Send`, as a task on the calling thread.
///
/// It runs while the thread is inside [`block_on`]: the one that is running, or the thread's next. Otherwise it is as with [`spawn`]. What
/// has not ended when the thread ends is dropped then.
///
/// # Panics
/// Inside a task made by [`spawn`] or [`spawn_blocking`]: its thread may have no `block_on` to run it in. In a child of fork(2) that did
/// not call exec(2). See [`Builder::local`].
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

/// Runs `f`, which may block, on a thread kept for such calls.
///
/// The threads are bounded ([`rt::Builder::blocking_threads`](crate::rt::Builder::blocking_threads)); calls beyond that wait in a
/// queue. A call that has begun cannot be cancelled.
///
/// # Panics
/// In a child of fork(2) that did not call exec(2).
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
pub fn spawn_blocking<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    JoinHandle::new(sched::task::spawn_blocking(None, f))
}

/// Runs `f`, which looks up a name, on a thread kept for such calls.
pub(crate) fn spawn_lookup<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    JoinHandle::new(sched::task::spawn_lookup(f))
}

/// Runs `future` on the calling thread to its end.
///
/// Spawned tasks run on the workers, so `future` goes on whatever they do. While it waits, the thread polls the network and the timers
/// if no worker does. Calls may be nested, also inside tasks: another thread takes over the tasks of this one.
/// [`rt::Builder::block_on_runs_tasks`](crate::rt::Builder::block_on_runs_tasks) makes the thread run tasks as well.
///
/// # Panics
/// In a child of fork(2) that did not call exec(2): the runtime's threads stayed in the parent.
///
/// # Examples
/// ```
/// let nested = netpoll::task::block_on(async { netpoll::task::block_on(async { 7 }) });
/// assert_eq!(nested, 7);
/// ```
pub fn block_on<F, T>(future: F) -> T
where
    F: Future<Output = T>,
{
    // By reference: a future may be large, and every move of it takes its size of stack.
    sched::block_on::block_on(local_tasks::WithLocal::new(pin!(future)))
}

/// Waits for `duration`, counted from the first poll, and never less. [`Duration::MAX`] never ends. [`Sleep`] is one that can be kept and
/// moved.
///
/// Late by the kernel's timer slack (50 µs by default) and by what the workers are busy with.
///
/// # Cancel safety
/// Dropping the future takes the timer back.
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
pub async fn sleep(duration: Duration) {
    Sleep::new(duration).await;
}

/// The task that runs here.
///
/// # Panics
/// Outside any task and [`block_on`]; see [`try_current`].
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

/// The task that runs here, if one does.
///
/// # Examples
/// ```
/// assert!(netpoll::task::try_current().is_none());
/// ```
pub fn try_current() -> Option<Task> {
    context::with_task(|data| data.map(|data| data.task().clone()))
}
