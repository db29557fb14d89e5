//! `JoinHandle`: a task's result.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Task;
use crate::rt::sched::task::{Output, RawTask};

/// A future of what a task returns.
///
/// Dropping it lets the task run on. Awaiting it resumes a panic of the task; awaiting one that a shutdown of the runtime has dropped
/// panics as well.
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
pub struct JoinHandle<T> {
    /// Some until it is cancelled or dropped.
    task: Option<RawTask<T>>,
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(task: RawTask<T>) -> JoinHandle<T> {
        JoinHandle { task: Some(task) }
    }

    fn inner(&self) -> &RawTask<T> {
        self.task.as_ref().expect("a handle that is neither cancelled nor dropped")
    }

    /// The task's number and name.
    pub fn task(&self) -> &Task {
        self.inner().metadata().task()
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.inner().is_finished()
    }

    /// Cancels the task and waits until its future is dropped. Its result, if it had ended before.
    ///
    /// A task that is being polled is cancelled when that poll returns.
    pub async fn cancel(mut self) -> Option<T> {
        self.task.take()?.cancel().await.map(Output::take)
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut self.task {
            Some(task) => Pin::new(task).poll(cx).map(Output::take),
            None => Poll::Pending,
        }
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
