//! Drops a future after k polls, before or after the wake-up that follows, for every k until the
//! future completes.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::common::by_hand::Wakes;
use crate::common::{becomes, poll_with};
use netpoll::{rt, task};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Waits until no other test of this binary holds the guard, and returns the guard. Each test holds
/// it until its end.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The point at which a future is dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    /// The number of polls (calls of [`poll_with`]) before the drop.
    pub(crate) polls: usize,
    /// Whether the drop waits for the wake-up after the last poll.
    pub(crate) woken: bool,
}

/// The result of a future that was polled and perhaps dropped.
#[derive(Debug)]
pub(crate) struct Outcome<T> {
    /// The output, or `None` if the future was dropped before it completed.
    pub(crate) output: Option<T>,
    /// Whether `stir` was called.
    pub(crate) stirred: bool,
}

/// Polls `future` up to the point `at` or until it completes, and drops it. Calls `stir` before the
/// first wait for a wake-up. `stir` causes the event that the future waits for.
pub(crate) async fn drop_at<F: Future>(at: At, future: F, stir: impl AsyncFnOnce()) -> Outcome<F::Output> {
    let mut future = Box::pin(future);
    let mut stir = Some(stir);
    let (wakes, waker) = Wakes::new();
    for poll in 1..=at.polls {
        let seen = wakes.count();
        if let std::task::Poll::Ready(output) = poll_with(&mut future, &waker) {
            return Outcome { output: Some(output), stirred: stir.is_none() };
        }
        if poll == at.polls && !at.woken {
            break;
        }
        if let Some(stir) = stir.take() {
            stir().await;
        }
        becomes("the wake-up", || wakes.count() > seen).await;
        task::yield_now().await;
    }
    Outcome { output: None, stirred: stir.is_none() }
}

/// Calls `case` with every point at which to drop a future, until `case` reports that the future
/// completed. After each call, waits until the descriptors of the call are closed and no waiter is
/// left. Panics if the future does not complete within 49 polls.
pub(crate) async fn sweep(what: &str, mut case: impl AsyncFnMut(At) -> bool) {
    let baseline = rt::metrics().descriptors;
    for polls in 0..50 {
        for woken in [false, true] {
            if woken && polls == 0 {
                continue;
            }
            let completed = case(At { polls, woken }).await;
            becomes(&format!("{what}: the descriptors are closed"), || rt::metrics().descriptors == baseline).await;
            becomes(&format!("{what}: no waiter is left"), || rt::metrics().waiters == 0).await;
            if completed {
                return;
            }
        }
    }
    panic!("{what} never completed");
}

/// Waits until no waiter is left, while the sockets of the case are still open.
pub(crate) async fn no_operation_waits(what: &str, at: At) {
    becomes(&format!("no waiter of {what} is left, dropped {at:?}"), || rt::metrics().waiters == 0).await;
}
