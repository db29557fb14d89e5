//! [`TaskSet`]: a group of tasks that are joined or cancelled together.
//!
//! A guard in each task's future adds the task to the set's queue of ended tasks when the future is
//! dropped. (For a blocking call, the guard is in the closure.) Polling a set therefore does not
//! poll the handles of tasks that have not ended.
//!
//! # States of a task
//! Running → announced → removed. A task is announced when its future is dropped: because the
//! future has returned or panicked, or because a shutdown or, in a simulation, the host has dropped
//! the task. An announced task is removed when its handle is ready. Cancelling or detaching all
//! tasks removes tasks in either state.
//!
//! # Cancellation
//! A task that has ended stays in the set until its result is returned, so a dropped
//! [`join_next`](TaskSet::join_next) loses no result.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::{fmt, io, thread};

use futures_core::Stream;
use pin_project_lite::pin_project;

use super::{Builder, JoinHandle, TaskId};
use crate::rt::fork;
use crate::rt::runtime::runtime;
use crate::rt::sched;
use crate::rt::waiters::wake;
use crate::sync::Mutex;

/// The numbers (within the set) of the tasks that have ended, in the order in which they ended, and
/// the waker of the task that polls the set.
#[derive(Debug, Default)]
struct Ended(Mutex<(VecDeque<u64>, Option<Waker>)>);

impl Ended {
    fn announce(&self, number: u64) {
        let waker = {
            let mut ended = self.0.lock();
            ended.0.push_back(number);
            ended.1.take()
        };
        if let Some(waker) = waker {
            // `wake` catches a panic of the waker, which would abort the process if the future's
            // destructor has panicked.
            wake(waker);
        }
    }

    /// Returns the number of the task that ended first, or stores the waker and returns `Pending`.
    fn poll_first(&self, cx: &mut Context<'_>) -> Poll<u64> {
        let waker = cx.waker().clone();
        let mut ended = self.0.lock();
        if let Some(&first) = ended.0.front() {
            return Poll::Ready(first);
        }
        let old = ended.1.replace(waker);
        drop(ended);
        drop(old);
        Poll::Pending
    }

    fn pop_first(&self) {
        self.0.lock().0.pop_front();
    }

    fn push_first(&self, number: u64) {
        self.0.lock().0.push_front(number);
    }
}

/// A guard that reports the end of a task to its set when it is dropped.
#[derive(Debug)]
struct Announce {
    ended: Arc<Ended>,
    number: u64,
}

impl Drop for Announce {
    fn drop(&mut self) {
        self.ended.announce(self.number);
    }
}

pin_project! {
    struct Member<F> {
        // The future is declared before the guard, so that it is dropped before the end is
        // announced.
        #[pin]
        future: F,
        announce: Announce,
    }
}

impl<F: Future> Future for Member<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().future.poll(cx)
    }
}

/// The error of a task that a shutdown or, in a simulation, the task's host dropped.
const DROPPED: &str = "the task was dropped by a shutdown of the runtime or, in a simulation, by its host";

/// A group of tasks. Dropping the set cancels the tasks that have not ended.
///
/// The type corresponds to tokio's `JoinSet`, and a set can be used as a nursery: tasks spawned
/// into the set end with it unless [`detach_all`](TaskSet::detach_all) is called. A task that is
/// being polled when the set is dropped ends when that poll returns, and a blocking call that has
/// started ends when its function returns. The set is also a [`Stream`] of results.
///
/// # Panics
/// [`join_next`](TaskSet::join_next) and the methods built on it resume the panic of a task, as
/// awaiting a [`JoinHandle`] does. The other tasks stay in the set, except with
/// [`join_all`](TaskSet::join_all) and [`try_join_all`](TaskSet::try_join_all), which cancel them.
/// [`join_next_with_id`](TaskSet::join_next_with_id) returns the panic instead. In a child of
/// fork(2) that did not call exec(2), a method that has to wait panics, because the tasks run in
/// the parent.
///
/// # Examples
/// ```
/// use netpoll::task::{self, TaskSet};
///
/// task::block_on(async {
///     let mut set = TaskSet::new();
///     for n in 1..=3_u64 {
///         set.spawn(async move { n * n });
///     }
///     let mut sum = 0;
///     while let Some(square) = set.join_next().await {
///         sum += square;
///     }
///     assert_eq!(sum, 14);
/// });
/// ```
#[doc(alias = "JoinSet")]
#[doc(alias = "nursery")]
#[doc(alias = "errgroup")]
pub struct TaskSet<T> {
    /// The handles by the number of the task within the set. The map is ordered, so that a
    /// simulation can repeat a cancellation of all tasks.
    tasks: BTreeMap<u64, JoinHandle<T>>,
    ended: Arc<Ended>,
    /// The number of the task that was spawned last, or 0.
    last: u64,
}

impl<T> TaskSet<T> {
    /// Creates an empty set.
    pub fn new() -> TaskSet<T> {
        TaskSet { tasks: BTreeMap::new(), ended: Arc::default(), last: 0 }
    }

    fn insert(&mut self, spawn: impl FnOnce(Announce) -> io::Result<JoinHandle<T>>) -> io::Result<TaskId> {
        self.last += 1;
        let number = self.last;
        let handle = spawn(Announce { ended: self.ended.clone(), number })?;
        let id = handle.id();
        self.tasks.insert(number, handle);
        Ok(id)
    }
}

/// Spawning.
impl<T: Send + 'static> TaskSet<T> {
    /// Spawns `future` on the workers, as [`task::spawn`](super::spawn) does, and adds the task to
    /// the set. Returns the id of the task.
    ///
    /// # Panics
    /// Panics in a child of fork(2) that did not call exec(2).
    #[track_caller]
    pub fn spawn<F>(&mut self, future: F) -> TaskId
    where
        F: Future<Output = T> + Send + 'static,
    {
        let place = Location::caller();
        let spawn = |announce| Ok(JoinHandle::new(sched::task::spawn(None, None, place, Member { future, announce })));
        self.insert(spawn).expect("`spawn` does not return errors")
    }

    /// Spawns `future` with the settings of `builder`, and adds the task to the set. Returns the id
    /// of the task.
    ///
    /// # Errors
    /// Returns the errors of [`Builder::spawn`].
    ///
    /// # Examples
    /// ```
    /// use netpoll::task::{self, TaskSet};
    ///
    /// let mut set = TaskSet::new();
    /// set.spawn_with(task::Builder::new().name("answer".into()), async { 42 })?;
    /// assert_eq!(task::block_on(set.join_next()), Some(42));
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn spawn_with<F>(&mut self, builder: Builder, future: F) -> io::Result<TaskId>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let place = Location::caller();
        self.insert(|announce| builder.spawn_at(place, Member { future, announce }))
    }

    /// Runs the blocking function `f`, as [`task::spawn_blocking`](super::spawn_blocking) does, and
    /// adds the call to the set. Returns the id of the call. A call that has started cannot be
    /// cancelled, and [`cancel_all`](TaskSet::cancel_all) waits until it returns.
    ///
    /// # Panics
    /// Panics in a child of fork(2) that did not call exec(2).
    ///
    /// # Examples
    /// ```
    /// use netpoll::task::{self, TaskSet};
    ///
    /// let mut set = TaskSet::new();
    /// set.spawn_blocking(|| (1..=100).sum::<u32>());
    /// assert_eq!(task::block_on(set.join_next()), Some(5050));
    /// ```
    #[track_caller]
    pub fn spawn_blocking<F>(&mut self, f: F) -> TaskId
    where
        F: FnOnce() -> T + Send + 'static,
    {
        let place = Location::caller();
        let spawn = |announce| {
            let call = move || {
                let _announce: Announce = announce;
                f()
            };
            Ok(JoinHandle::new(sched::task::spawn_blocking(None, place, call)))
        };
        self.insert(spawn).expect("`spawn` does not return errors")
    }
}

/// Spawning local tasks.
impl<T: 'static> TaskSet<T> {
    /// Spawns `future`, which need not be `Send`, on the calling thread, as
    /// [`task::spawn_local`](super::spawn_local) does, and adds the task to the set. Returns the id
    /// of the task.
    ///
    /// # Panics
    /// Panics in the same cases as [`task::spawn_local`](super::spawn_local).
    ///
    /// # Examples
    /// ```
    /// use netpoll::task::{self, TaskSet};
    /// use std::rc::Rc;
    ///
    /// task::block_on(async {
    ///     let shared = Rc::new(5);
    ///     let mut set = TaskSet::new();
    ///     let own = shared.clone();
    ///     set.spawn_local(async move { *own });
    ///     assert_eq!(set.join_next().await, Some(5));
    /// });
    /// ```
    #[track_caller]
    pub fn spawn_local<F>(&mut self, future: F) -> TaskId
    where
        F: Future<Output = T> + 'static,
    {
        let place = Location::caller();
        match self.insert(|announce| Builder::new().local_at(place, Member { future, announce })) {
            Ok(id) => id,
            Err(error) => panic!("cannot spawn a local task: {error}"),
        }
    }
}

/// Waiting for tasks, and cancelling them.
impl<T> TaskSet<T> {
    /// Waits for the next task to end and returns its result, or `None` if the set is empty.
    ///
    /// # Panics
    /// Resumes the panic of the task, if it panicked. Also panics in the other cases in which
    /// awaiting a [`JoinHandle`] panics, for example if a [shutdown](crate::rt::shutdown()) dropped
    /// the task but not the caller.
    ///
    /// # Cancel safety
    /// Dropping the future loses no result.
    pub async fn join_next(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_join_next(cx)).await
    }

    /// Waits for the next task to end and returns its id and its result, or `None` if the set is
    /// empty. If the task panicked, the result is an `Err` with the panic's payload. If a
    /// [shutdown](crate::rt::shutdown()) or, in a simulation, the task's host dropped the task, the
    /// result is an `Err` with a text (`&'static str`).
    ///
    /// # Cancel safety
    /// Dropping the future loses no result.
    ///
    /// # Examples
    /// ```
    /// use netpoll::task::{self, TaskSet};
    ///
    /// let mut set = TaskSet::new();
    /// let id = set.spawn(async { panic!("the job failed") });
    /// let (ended, result) = task::block_on(set.join_next_with_id()).unwrap();
    /// assert_eq!(ended, id);
    /// # let _: &std::thread::Result<()> = &result;
    /// assert_eq!(result.unwrap_err().downcast_ref(), Some(&"the job failed"));
    /// ```
    pub async fn join_next_with_id(&mut self) -> Option<(TaskId, thread::Result<T>)> {
        let poll = |handle: &mut JoinHandle<T>, cx: &mut Context<'_>| {
            let polled = catch_unwind(AssertUnwindSafe(|| handle.poll_end(cx)));
            let result = match polled {
                Ok(polled) => ready!(polled).ok_or_else(|| -> Box<dyn Any + Send> { Box::new(DROPPED) }),
                Err(payload) => Err(payload),
            };
            Poll::Ready((handle.id(), result))
        };
        poll_fn(|cx| self.poll_next(cx, poll)).await
    }

    /// Polls for the result of the next task that ends, as [`join_next`](TaskSet::join_next) does.
    /// If the set has tasks and none has ended, returns `Pending` and wakes the caller's task when
    /// one of them ends.
    ///
    /// # Panics
    /// Panics in the same cases as [`join_next`](TaskSet::join_next).
    pub fn poll_join_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll_next(cx, |handle, cx| Pin::new(handle).poll(cx))
    }

    /// Polls for the next task to end. Returns its id and its result, which is `None` if a shutdown
    /// or, in a simulation, the task's host dropped the task.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<(TaskId, Option<T>)>> {
        self.poll_next(cx, |handle, cx| handle.poll_end(cx).map(|result| (handle.id(), result)))
    }

    fn poll_next<R>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl Fn(&mut JoinHandle<T>, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<Option<R>> {
        loop {
            if self.tasks.is_empty() {
                return Poll::Ready(None);
            }
            let Poll::Ready(number) = self.ended.poll_first(cx) else {
                fork::assert_not_child();
                runtime().wait_begins(cx);
                return Poll::Pending;
            };
            self.ended.pop_first();
            // The task is removed before its panic is resumed. It is absent if spawning it failed.
            let Some(mut handle) = self.tasks.remove(&number) else { continue };
            let polled = poll(&mut handle, cx);
            if polled.is_pending() {
                // The future was dropped, and another thread is about to store the result, or a
                // shutdown that dropped the task is about to drop the caller.
                self.ended.push_first(number);
                self.tasks.insert(number, handle);
            }
            return polled.map(Some);
        }
    }

    /// Waits for all tasks and returns their results in the order in which they ended.
    ///
    /// # Panics
    /// Panics in the same cases as [`join_next`](TaskSet::join_next). The other tasks are then
    /// cancelled.
    ///
    /// # Cancel safety
    /// Dropping the future cancels all tasks and discards the results.
    ///
    /// # Examples
    /// ```
    /// use netpoll::task::{self, TaskSet};
    ///
    /// let mut set = TaskSet::new();
    /// for n in 0..3 {
    ///     set.spawn(async move { n });
    /// }
    /// let mut all = task::block_on(set.join_all());
    /// all.sort();
    /// assert_eq!(all, [0, 1, 2]);
    /// ```
    pub async fn join_all(mut self) -> Vec<T> {
        let mut results = Vec::with_capacity(self.len());
        while let Some(result) = self.join_next().await {
            results.push(result);
        }
        results
    }

    /// Cancels all tasks and waits until their futures are dropped. Results of tasks that had ended
    /// are discarded.
    ///
    /// # Cancel safety
    /// The first poll requests the cancellation of all tasks. Dropping the future later does not
    /// undo the request, but does not wait for the tasks.
    #[doc(alias = "abort_all")]
    pub async fn cancel_all(&mut self) {
        // The cancellation of all tasks is requested before any of them is awaited.
        let cancelled: Vec<_> = std::mem::take(&mut self.tasks).into_values().map(JoinHandle::begin_cancel).collect();
        // The queue is replaced, because no poll will remove the ended tasks from it.
        self.ended = Arc::default();
        for task in cancelled {
            task.await;
        }
    }

    /// Removes all tasks from the set without cancelling them.
    pub fn detach_all(&mut self) {
        self.tasks.clear();
        // The queue is replaced, because no poll will remove the ended tasks from it.
        self.ended = Arc::default();
    }

    /// Returns the number of tasks in the set, including tasks that have ended but whose results
    /// have not been returned yet.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Returns whether the set has no tasks.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

impl<T, E> TaskSet<Result<T, E>> {
    /// Waits for all tasks and returns their results in the order in which they ended, or the first
    /// error.
    ///
    /// # Errors
    /// Returns the first error that a task returns. Before that, the other tasks are cancelled and
    /// their futures dropped.
    ///
    /// # Panics
    /// Panics in the same cases as [`join_next`](TaskSet::join_next). The other tasks are then
    /// cancelled.
    ///
    /// # Cancel safety
    /// Dropping the future cancels all tasks and discards the results.
    ///
    /// # Examples
    /// ```
    /// use netpoll::task::{self, TaskSet};
    ///
    /// let mut set = TaskSet::new();
    /// set.spawn(async { Err("no route") });
    /// set.spawn(std::future::pending());
    /// assert_eq!(task::block_on(set.try_join_all()), Err::<Vec<()>, _>("no route"));
    /// ```
    pub async fn try_join_all(mut self) -> Result<Vec<T>, E> {
        let mut results = Vec::with_capacity(self.len());
        while let Some(result) = self.join_next().await {
            match result {
                Ok(result) => results.push(result),
                Err(error) => {
                    self.cancel_all().await;
                    return Err(error);
                }
            }
        }
        Ok(results)
    }
}

impl<T> Stream for TaskSet<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll_join_next(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl<T> Drop for TaskSet<T> {
    fn drop(&mut self) {
        std::mem::take(&mut self.tasks).into_values().for_each(|handle| drop(handle.begin_cancel()));
    }
}

impl<T> Default for TaskSet<T> {
    fn default() -> TaskSet<T> {
        TaskSet::new()
    }
}

impl<T> fmt::Debug for TaskSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskSet").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::block_on;

    #[test]
    fn detached_and_cancelled_tasks_leave_no_entries() {
        block_on(async {
            let mut set = TaskSet::new();
            for _ in 0..10 {
                set.spawn(async { 0 });
                set.cancel_all().await;
                set.spawn(async { 0 });
                set.detach_all();
            }
            assert!(set.ended.0.lock().0.is_empty());
            set.spawn(async { 7 });
            assert_eq!(set.join_next().await, Some(7));
        });
    }
}
