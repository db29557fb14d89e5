//! [`Call`]: a call on the blocking pool whose future returns an error if the call does not
//! complete.
//!
//! Awaiting the handle of [`spawn_blocking`] panics if the call panics or a shutdown of the runtime
//! drops the call. An output stream must return an error instead.
//!
//! # States
//! Running (with the waker of the waiting task) → done (with the result, or with `None` if the call
//! was dropped or panicked) → taken. Wakers are cloned, woken and dropped outside the lock.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::rt::fork;
use crate::rt::waiters::wake;
use crate::sync::{Arc, Mutex};
use crate::task::spawn_blocking;

/// The text of the error of a call that returned no result.
const INCOMPLETE: &str = "the blocking call did not complete: it panicked, or the runtime was shut down";

#[derive(Debug)]
enum State<T> {
    Running(Option<Waker>),
    Done(Option<io::Result<T>>),
    Taken,
}

/// A future that returns the result of a blocking call. Dropping the future does not cancel the
/// call.
#[derive(Debug)]
pub(super) struct Call<T> {
    state: Arc<Mutex<State<T>>>,
}

impl<T: Send + 'static> Call<T> {
    pub(super) fn begin(call: impl FnOnce() -> io::Result<T> + Send + 'static) -> Call<T> {
        if let Err(error) = fork::check() {
            return Call { state: Arc::new(Mutex::new(State::Done(Some(Err(error))))) };
        }
        let state = Arc::new(Mutex::new(State::Running(None)));
        let completion = Completion { state: state.clone(), result: None };
        drop(spawn_blocking(move || completion.run(call)));
        Call { state }
    }
}

impl<T> Future for Call<T> {
    type Output = io::Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        // A call that is running at a fork ends only in the parent.
        if fork::is_child() && matches!(*self.state.lock(), State::Running(_)) {
            fork::check()?;
        }
        let mut waker = None;
        loop {
            let mut state = self.state.lock();
            match &mut *state {
                State::Running(Some(held)) if held.will_wake(cx.waker()) => return Poll::Pending,
                State::Running(held) => {
                    if let Some(waker) = waker.take() {
                        let replaced = held.replace(waker);
                        drop(state);
                        drop(replaced);
                        return Poll::Pending;
                    }
                }
                State::Done(result) => {
                    let result = result.take();
                    *state = State::Taken;
                    drop(state);
                    return Poll::Ready(result.unwrap_or_else(|| Err(io::Error::other(INCOMPLETE))));
                }
                State::Taken => return Poll::Pending,
            }
            drop(state);
            waker = Some(cx.waker().clone());
        }
    }
}

/// A guard owned by the blocking call. Dropping the guard reports the end of the call, whether or
/// not the call ran.
struct Completion<T> {
    state: Arc<Mutex<State<T>>>,
    result: Option<io::Result<T>>,
}

impl<T> Completion<T> {
    fn run(mut self, call: impl FnOnce() -> io::Result<T>) {
        self.result = Some(call());
    }
}

impl<T> Drop for Completion<T> {
    fn drop(&mut self) {
        let done = State::Done(self.result.take());
        let before = std::mem::replace(&mut *self.state.lock(), done);
        if let State::Running(Some(waker)) = before {
            // `wake` catches a panic of the waker, which would abort the process if the call has
            // panicked.
            wake(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::block_on;

    #[test]
    fn returns_the_result_or_the_error() {
        assert_eq!(block_on(Call::begin(|| Ok(1))).unwrap(), 1);
        let failed = Call::<()>::begin(|| Err(io::Error::from_raw_os_error(libc::EPIPE)));
        assert_eq!(block_on(failed).unwrap_err().raw_os_error(), Some(libc::EPIPE));
    }

    #[test]
    fn call_that_never_runs_is_an_error() {
        let state = Arc::new(Mutex::new(State::Running(None)));
        let mut call = Call::<()> { state: state.clone() };
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut call).poll(&mut cx).is_pending());
        drop(Completion { state, result: None });
        assert_eq!(block_on(call).unwrap_err().to_string(), INCOMPLETE);
    }

    #[test]
    fn waker_may_panic_after_the_call_has_panicked() {
        struct Panics;
        impl std::task::Wake for Panics {
            fn wake(self: Arc<Panics>) {
                panic!("intended");
            }
        }
        let (release, held) = std::sync::mpsc::channel::<()>();
        let mut call = Call::<()>::begin(move || panic!("intended: {:?}", held.recv()));
        let waker = Waker::from(Arc::new(Panics));
        assert!(Pin::new(&mut call).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(release);
        while !matches!(*call.state.lock(), State::Done(_)) {
            std::thread::yield_now();
        }
        assert_eq!(block_on(call).unwrap_err().to_string(), INCOMPLETE);
    }

    #[test]
    fn call_that_panics_is_an_error() {
        let call = Call::<()>::begin(|| panic!("intended"));
        assert_eq!(block_on(call).unwrap_err().to_string(), INCOMPLETE);
    }
}
