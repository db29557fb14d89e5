//! [`yield_now`]: letting other tasks run.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::rt::context;
use crate::rt::sched::waits::Waits;

/// Yields once, so that other tasks that are ready can run before the calling task continues.
///
/// # Cancel safety
/// Dropping the future has no effect.
///
/// # Examples
/// ```
/// netpoll::task::block_on(async {
///     for chunk in 0..3 {
///         // … a piece of a long computation …
///         let _ = chunk;
///         netpoll::task::yield_now().await;
///     }
/// });
/// ```
#[doc(alias = "runtime.Gosched")]
pub async fn yield_now() {
    YieldNow(false).await;
}

struct YieldNow(bool);

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context::note(Waits::Turn, cx);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
