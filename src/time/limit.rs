//! [`Limit`]: a time limit for an operation.
//!
//! The operation is polled before the clock is checked, so an available result is never discarded.
//! But an operation whose task has used up its turn returns `Pending` although it could complete.
//! If such a refusal coincides with the end of the time, the task is polled once more. By then the
//! operation is not refused again, whereas a future that uses up every turn still reaches its
//! limit.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::rt::refusals;
use crate::rt::time::sleep::Sleep;

/// The time limit of an operation.
#[derive(Debug)]
pub(crate) struct Limit {
    sleep: Sleep,
    /// Whether a poll after the end of the time was postponed, because an operation was refused.
    postponed: bool,
}

impl Limit {
    /// Creates a limit that ends `duration` from now, or never if that time is beyond the clock's
    /// range.
    pub(crate) fn new(duration: Duration) -> Limit {
        Limit { sleep: Sleep::new(duration), postponed: false }
    }

    /// Sets the end of the time to `end`, or to never.
    pub(crate) fn restart(&mut self, end: Option<Instant>) {
        self.postponed = false;
        match end {
            Some(end) => self.sleep.reset(end),
            None => self.sleep = Sleep::never(),
        }
    }

    /// Polls the operation, and the clock if the operation is pending. Returns `None` when the time
    /// is over.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        operation: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Option<T>> {
        let before = refusals::count();
        if let Poll::Ready(value) = operation(cx) {
            return Poll::Ready(Some(value));
        }
        let was_refused = refusals::count() != before;
        ready!(Pin::new(&mut self.sleep).poll(cx));
        if was_refused && !self.postponed {
            self.postponed = true;
            // The refusal may be that of an operation that does not wake this task.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(None)
    }
}
