//! [`JoinHandle`]: awaiting the result of a task, and cancelling the task.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use async_task::FallibleTask;

use super::{Task, TaskId};
use crate::rt::context;
use crate::rt::runtime::runtime;
use crate::rt::sched::contained::poll_contained;
use crate::rt::sched::task::{Output, Spawned};
use crate::rt::sched::task_data::TaskData;
use crate::rt::sched::waits::Waits;

/// The number of polls in one turn after which another executor is assumed to make them. A
/// combinator of tens of thousands of handles makes fewer.
const REPEATED_MAX: u32 = 1 << 17;

/// A handle to a task. It is a future that returns the task's result.
///
/// Dropping the handle detaches the task, which continues to run. If the task panics, awaiting the
/// handle resumes the panic. There are two ways to get the panic as a value, like tokio's
/// `JoinError`. One is to spawn the task into a [`TaskSet`](super::TaskSet) and call
/// [`join_next_with_id`](super::TaskSet::join_next_with_id). The other is to await the handle in
/// `catch_unwind` of the crate futures:
///
/// ```
/// use futures::FutureExt;
/// use netpoll::task;
/// use std::panic::AssertUnwindSafe;
///
/// task::block_on(async {
///     let handle = task::spawn(async { panic!("the job failed") });
///     let result: Result<(), _> = AssertUnwindSafe(handle).catch_unwind().await;
///     assert_eq!(result.unwrap_err().downcast_ref(), Some(&"the job failed"));
/// });
/// ```
///
/// # Panics
/// Awaiting the handle panics if a [shutdown](crate::rt::shutdown) of the runtime dropped the task
/// but not the caller (a `block_on`, a local task, a task of the next runtime, or a future under
/// another executor). If the caller is a task of the same runtime, the await never returns, because
/// the shutdown drops the caller as well, unless the task awaits the handle under another executor
/// that blocks the thread. In a simulation, awaiting the handle panics if the host of the task
/// dropped the task. In a child of fork(2) that did not call exec(2), awaiting the handle panics if
/// the task had not ended, because the task runs in the parent.
///
/// # Examples
/// ```
/// use netpoll::task;
///
/// task::block_on(async {
///     let handle = task::spawn(std::future::pending::<()>());
///     assert_eq!(handle.cancel().await, None);
///     assert_eq!(task::spawn(async { 5 }).await, 5);
/// });
/// ```
#[doc(alias = "AbortHandle")]
pub struct JoinHandle<T> {
    /// `Some` until the task is cancelled, the handle is dropped, or a poll finds that a shutdown
    /// has dropped the task and will drop the caller as well.
    task: Option<FallibleTask<Output<T>, TaskData>>,
    identity: Task,
}

// A program may keep a handle per task, so handles are small.
const _: () = assert!(size_of::<JoinHandle<()>>() <= 3 * size_of::<u64>());

impl<T> JoinHandle<T> {
    #[inline]
    pub(crate) fn new(spawned: Spawned<T>) -> JoinHandle<T> {
        JoinHandle { task: Some(spawned.task.fallible()), identity: spawned.identity }
    }

    /// Returns the task: its id, its name, its lane and the place where it was spawned.
    pub fn task(&self) -> &Task {
        &self.identity
    }

    /// Returns the task's id.
    #[inline]
    pub(super) fn id(&self) -> TaskId {
        self.identity.id()
    }

    /// Returns whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_none_or(FallibleTask::is_finished)
    }

    /// Requests cancellation. The returned future waits until the task's future is dropped.
    /// Dropping the returned future does not undo the request. The result of a task that had ended
    /// is dropped, even if it is a panic.
    pub(crate) fn begin_cancel(mut self) -> impl Future<Output = ()> + use<T> {
        let mut cancel = self.task.take().map(|task| Box::pin(task.cancel()));
        let mut poll = move |cx: &mut Context<'_>| {
            let Some(cancel) = cancel.as_mut() else { return Poll::Ready(()) };
            cancel.as_mut().poll(cx).map(drop)
        };
        // `async-task` requests the cancellation when the future of `cancel` is first polled, or
        // dropped.
        let has_ended = poll(&mut Context::from_waker(Waker::noop())).is_ready();
        async move {
            if !has_ended {
                poll_fn(|cx| poll_cancelled(cx, &mut poll)).await;
            }
        }
    }

    /// Cancels the task and waits until its future is dropped. Returns the result if the task had
    /// already completed, and otherwise `None`.
    ///
    /// A task that is being polled is cancelled when that poll returns.
    ///
    /// # Panics
    /// Resumes the panic of the task, if it had already panicked. In a child of fork(2) that did
    /// not call exec(2), panics if the task had not ended, because the task runs in the parent.
    ///
    /// # Cancel safety
    /// Dropping the future before its first poll detaches the task. Dropping the future later does
    /// not undo the cancellation.
    #[doc(alias = "abort")]
    pub async fn cancel(mut self) -> Option<T> {
        let mut cancel = pin!(self.task.take()?.cancel());
        poll_fn(|cx| poll_cancelled(cx, |cx| cancel.as_mut().poll(cx))).await.map(Output::take)
    }
}

/// Calls `poll`, which polls for the end of a cancelled task.
fn poll_cancelled<T>(cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    let polled = poll_contained(cx, poll);
    if polled.is_pending() {
        runtime().wait_begins(cx);
    }
    polled
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if self.task.is_some()
            && let Some(output) = ready!(self.poll_end(cx))
        {
            return Poll::Ready(output);
        }
        #[cfg(feature = "sim")]
        assert!(
            !crate::sim::is_here(),
            "awaited a task that its simulated host has dropped: the host crashed, was killed or restarted"
        );
        let epoch = runtime().epoch();
        // A blocking call that has started is not dropped. It polls with another executor.
        let is_dropped = |task: &TaskData| !task.stays() && !task.is_call() && task.epoch() != epoch;
        let dropped = context::with_task(|task| task.filter(|task| is_dropped(task)).map(TaskData::number));
        let ends_as_well = dropped.is_some_and(|caller| self.task.is_some() || !is_polled_outside(caller));
        assert!(ends_as_well, "awaited a task that a shutdown of the runtime has dropped");
        self.task = None;
        // A task of an earlier epoch is dropped when it is next scheduled.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Counts a further poll of a handle of a dropped task in the current turn of the task `caller`,
/// which will be dropped, too. Returns whether another executor makes these polls: it repeats them
/// without an end, because the turn of `caller` waits for it. In a turn that nothing blocks, only a
/// combinator such as `FuturesUnordered` repeats a poll, and only a few times.
#[cold]
fn is_polled_outside(caller: u64) -> bool {
    thread_local! {
        /// The last caller and the number of its polls.
        static POLLS: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
    }
    let (last, polls) = POLLS.get();
    let polls = if last == caller { polls + 1 } else { 1 };
    POLLS.set((caller, polls));
    polls > REPEATED_MAX
}

impl<T> JoinHandle<T> {
    /// Polls for the end of the task. Returns the task's result, or `None` if a shutdown or, in a
    /// simulation, the task's host dropped the task. Must not be called again after it has returned
    /// `Ready`.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let task = self.task.as_mut().expect("polled after the end of the task");
        let polled = poll_contained(cx, |cx| Pin::new(task).poll(cx));
        if polled.is_pending() {
            context::note(Waits::Task(self.id().number()), cx);
        }
        polled.map(|output| output.map(|output| output.take()))
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.detach();
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("task", self.task()).field("finished", &self.is_finished()).finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::task::{Builder, spawn};
    use std::ptr;

    #[test]
    fn identity_is_that_of_the_task_before_and_after_its_end() {
        crate::task::block_on(async {
            let current = || async { crate::task::current().id() };
            for name in [None, Some("named")] {
                for asks_early in [false, true] {
                    let mut builder = Builder::new();
                    if let Some(name) = name {
                        builder = builder.name(name.to_owned());
                    }
                    let (line, mut handle) = (line!(), builder.spawn(current()).unwrap());
                    let early = asks_early.then(|| ptr::from_ref(handle.task()));
                    let id = handle.id();
                    assert_eq!((&mut handle).await, id);
                    // Other tasks may use the records of tasks that were freed.
                    spawn(async {}).await;
                    assert_eq!((handle.id(), handle.task().id(), handle.task().name()), (id, id, name));
                    assert_eq!(handle.task().spawned_at().unwrap().line(), line);
                    assert!(early.is_none_or(|early| ptr::eq(early, handle.task())));
                }
            }
        });
    }
}
