//! [`Condvar`]: waiting for a condition that others make true under a lock.

use std::time::{Duration, Instant};

use event_listener::Event;

use super::MutexGuard;
use crate::future::timeout;

/// Whether a wait ended because its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the wait ended because its time was over.
    pub fn timed_out(self) -> bool {
        self.0
    }
}

/// A condition variable for tasks, with an async [`Mutex`](super::Mutex): [`std::sync::Condvar`] that does not block.
///
/// # Cancel safety
/// A wait that is dropped has released the lock. A notification that it had got goes to another waiter.
#[derive(Debug, Default)]
pub struct Condvar {
    event: Event,
}

impl Condvar {
    /// A condition variable without waiters.
    pub const fn new() -> Condvar {
        Condvar { event: Event::new() }
    }

    /// Releases the lock of `guard`, waits for a notification and takes the lock again. May return without a notification.
    pub async fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let mutex = MutexGuard::source(&guard);
        // A notification counts from here on, while the lock is still held.
        let notified = self.event.listen();
        drop(guard);
        notified.await;
        mutex.lock().await
    }

    /// Waits until `condition` is true of the locked value.
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

    /// As [`wait`](Condvar::wait), for `duration` at most. Taking the lock again is not limited.
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

    /// As [`wait_until`](Condvar::wait_until), for `duration` at most.
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

    /// Wakes one waiter that no earlier call has woken.
    pub fn notify_one(&self) {
        self.event.notify_additional(1);
    }

    /// Wakes all waiters.
    pub fn notify_all(&self) {
        self.event.notify(usize::MAX);
    }
}
