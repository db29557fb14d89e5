//! [`Condvar`]: a condition variable for tasks.

use std::time::{Duration, Instant};

use event_listener::Event;

use super::MutexGuard;
use crate::future::timeout;

/// The result of a wait with a time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Returns whether the wait ended because the time limit passed.
    pub fn timed_out(self) -> bool {
        self.0
    }
}

/// A condition variable for tasks. It corresponds to [`std::sync::Condvar`], but its mutex is the
/// async [`Mutex`](super::Mutex), and its waits do not block the thread.
///
/// # Cancel safety
/// If the future of a wait is dropped, the lock is released. A notification that the wait has
/// received is passed to another waiter, unless the wait was already reacquiring the lock.
#[derive(Debug, Default)]
pub struct Condvar {
    event: Event,
}

impl Condvar {
    /// Creates a condition variable without waiters.
    pub const fn new() -> Condvar {
        Condvar { event: Event::new() }
    }

    /// Releases the lock of `guard`, waits for a notification and reacquires the lock. The wait may
    /// also end without a notification.
    pub async fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let mutex = MutexGuard::source(&guard);
        // The waiter is registered before the lock is released, so that no notification is lost.
        let notified = self.event.listen();
        drop(guard);
        notified.await;
        mutex.lock().await
    }

    /// Waits until `condition` returns true for the value that the lock protects. Returns the
    /// guard.
    pub async fn wait_until<'a, T, F>(&self, guard: MutexGuard<'a, T>, condition: F) -> MutexGuard<'a, T>
    where
        F: FnMut(&mut T) -> bool,
    {
        let (mut guard, mut condition) = (guard, condition);
        while !condition(&mut guard) {
            guard = self.wait(guard).await;
        }
        guard
    }

    /// Waits like [`wait`](Condvar::wait), but for at most `duration`. Reacquiring the lock is not
    /// limited in time.
    pub async fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        duration: Duration,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
        let mutex = MutexGuard::source(&guard);
        let notified = self.event.listen();
        drop(guard);
        let timed_out = timeout(duration, notified).await.is_err();
        (mutex.lock().await, WaitTimeoutResult(timed_out))
    }

    /// Waits like [`wait_until`](Condvar::wait_until), but for at most `duration`.
    pub async fn wait_timeout_until<'a, T, F>(
        &self,
        guard: MutexGuard<'a, T>,
        duration: Duration,
        condition: F,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult)
    where
        F: FnMut(&mut T) -> bool,
    {
        let (mut guard, mut condition) = (guard, condition);
        let start = Instant::now();
        loop {
            if condition(&mut guard) {
                return (guard, WaitTimeoutResult(false));
            }
            let left = duration.saturating_sub(start.elapsed());
            if left.is_zero() {
                return (guard, WaitTimeoutResult(true));
            }
            guard = self.wait_timeout(guard, left).await.0;
        }
    }

    /// Wakes one waiter, in addition to those woken by earlier calls.
    pub fn notify_one(&self) {
        self.event.notify_additional(1);
    }

    /// Wakes all waiters.
    pub fn notify_all(&self) {
        self.event.notify(usize::MAX);
    }
}
