//! Dropping a future at each of its awaits: after k polls, woken or not, for every k until it completes.
#![allow(dead_code, unreachable_pub)]

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netpoll::{rt, task};

use crate::support::{Wakes, eventually, poll_with};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a future is dropped.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// After so many polls,
    pub polls: usize,
    /// and after the wake-up that follows the last of them.
    pub woken: bool,
}

/// What became of a future.
#[derive(Debug)]
pub struct Outcome<T> {
    pub output: Option<T>,
    /// Whether what the future waits for was made to happen.
    pub stirred: bool,
}

/// Polls `future` as `at` says and drops it. After the first Pending `stir` makes happen what it waits for.
pub async fn drop_at<F: Future>(at: At, future: F, stir: impl AsyncFnOnce()) -> Outcome<F::Output> {
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
        eventually("the wake-up", || wakes.count() > seen).await;
        task::yield_now().await;
    }
    Outcome { output: None, stirred: stir.is_none() }
}

/// Calls `case` with every place to drop, until it says that the future completed.
pub async fn sweep(what: &str, mut case: impl AsyncFnMut(At) -> bool) {
    let baseline = rt::metrics().descriptors;
    for polls in 0..50 {
        for woken in [false, true] {
            if woken && polls == 0 {
                continue;
            }
            let completed = case(At { polls, woken }).await;
            eventually(what, || rt::metrics().descriptors == baseline).await;
            eventually(what, || rt::metrics().waiters == 0).await;
            if completed {
                return;
            }
        }
    }
    panic!("{what} never completed");
}

/// Nobody waits for anything, while sockets are open.
pub async fn nobody_waits(what: &str, at: At) {
    eventually(&format!("the waiters of {what} to be gone, dropped {at:?}"), || rt::metrics().waiters == 0).await;
}
