//! A waker that contains the panics of another one.
//!
//! `async-task` calls the waker of the future that awaits a task in a place where a panic ends the
//! process. That waker belongs to the caller, so it is foreign code, whose panic must end nothing
//! else (11).

use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use super::task::contain;
use crate::rt::context;

/// The waker is taken out when this is dropped, because its destructor may panic as well.
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

/// Calls `poll`, which gives the waker to `async-task`. The waker of a task of this crate, which is
/// the usual one, is passed on as it is.
pub(crate) fn poll_contained<T>(cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> T) -> T {
    if context::is_own(cx.waker()) {
        return poll(cx);
    }
    let waker = Waker::from(Arc::new(Contained(Some(cx.waker().clone()))));
    poll(&mut Context::from_waker(&waker))
}
