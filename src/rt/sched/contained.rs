//! A waker that catches the panics of another waker.
//!
//! When a task ends, `async-task` calls the waker with which its handle was polled, at a point
//! where a panic would abort the process. That waker is user code, so its panic must not affect
//! anything else (invariant 11 of ARCHITECTURE.md).

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::own_waker;
use super::task::contain;
use crate::rt::fork;

/// A waker that catches the panics of the inner waker, including those of its destructor.
struct Contained(Option<Waker>);

impl Wake for Contained {
    fn wake(self: Arc<Contained>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Contained>) {
        if let Some(waker) = &self.0 {
            contain(|| waker.wake_by_ref());
        }
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        let waker = self.0.take();
        contain(|| drop(waker));
    }
}

/// Calls `poll`, which passes the waker of its context to `async-task`. The waker is [`Contained`],
/// except in the usual case that it is the own waker of the task whose turn this thread is in.
///
/// # Panics
/// Panics if the result is `Pending` in a child of fork(2) that did not call exec(2), because the
/// awaited task runs in the parent.
pub(crate) fn poll_contained<T>(cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    let polled = if own_waker::is_own(cx.waker()) {
        poll(cx)
    } else {
        let waker = Waker::from(Arc::new(Contained(Some(cx.waker().clone()))));
        poll(&mut Context::from_waker(&waker))
    };
    if polled.is_pending() {
        fork::assert_not_child();
    }
    polled
}
