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
use std::time::Duration;

use crate::rt::refusals;
use crate::rt::time::clock;
use crate::rt::time::sleep::Sleep;

/// Restarts `sleep`, so that it ends `duration` from now, or never if that time is beyond the
/// clock's range.
pub(crate) fn restart(sleep: &mut Sleep, duration: Duration) {
    match clock::instant().checked_add(duration) {
        Some(deadline) => sleep.reset(deadline),
        None => *sleep = Sleep::never(),
    }
}

/// Whether the end of the time was postponed by one poll, because an operation was refused.
#[derive(Debug, Default)]
pub(crate) struct Grace(bool);

impl Grace {
    /// Postpones the end of the time if an operation `was_refused` and the end was not postponed
    /// before. If so, wakes the task and returns true.
    pub(crate) fn postpones(&mut self, was_refused: bool, cx: &Context<'_>) -> bool {
        let postpones = was_refused && !self.0;
        if postpones {
            self.0 = true;
            // The refusal may be that of an operation that does not wake this task.
            cx.waker().wake_by_ref();
        }
        postpones
    }
}

/// The time limit of an operation.
#[derive(Debug)]
pub(crate) struct Limit {
    sleep: Sleep,
    grace: Grace,
}

impl Limit {
    /// Creates a limit that ends `duration` from now, or never if that time is beyond the clock's
    /// range.
    pub(crate) fn new(duration: Duration) -> Limit {
        Limit { sleep: Sleep::new(duration), grace: Grace::default() }
    }

    /// Begins again with `duration`.
    pub(crate) fn restart(&mut self, duration: Duration) {
        self.grace = Grace::default();
        restart(&mut self.sleep, duration);
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
        if self.grace.postpones(was_refused, cx) {
            return Poll::Pending;
        }
        Poll::Ready(None)
    }
}
