//! Stream adapters with timers: [`Timeout`], [`Delay`], [`Throttle`].

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use pin_project_lite::pin_project;

use crate::time::Sleep;
use crate::time::limit::{Limit, restart};

pin_project! {
    /// The stream returned by [`StreamExt::timeout`](super::StreamExt::timeout).
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct Timeout<S> {
        #[pin]
        stream: S,
        duration: Duration,
        limit: Limit,
    }
}

impl<S> Timeout<S> {
    pub(super) fn new(stream: S, duration: Duration) -> Timeout<S> {
        Timeout { stream, duration, limit: Limit::new(duration) }
    }
}

impl<S: Stream> Stream for Timeout<S> {
    type Item = Result<S::Item, TimeoutError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        let item = match ready!(this.limit.poll(cx, |cx| this.stream.poll_next(cx))) {
            Some(Some(item)) => Ok(item),
            Some(None) => return Poll::Ready(None),
            None => Err(TimeoutError { _private: () }),
        };
        this.limit.restart(*this.duration);
        Poll::Ready(Some(item))
    }
}

/// The error that [`StreamExt::timeout`](super::StreamExt::timeout) yields if no item arrives in
/// time. It converts to an [`io::Error`] of kind [`TimedOut`](io::ErrorKind::TimedOut).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TimeoutError {
    _private: (),
}

impl fmt::Display for TimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stream has timed out")
    }
}

/// Prints the text of the error, because `main` prints a returned error with `Debug`.
impl fmt::Debug for TimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for TimeoutError {}

impl From<TimeoutError> for io::Error {
    fn from(error: TimeoutError) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, error)
    }
}

pin_project! {
    /// The stream returned by [`StreamExt::delay`](super::StreamExt::delay).
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct Delay<S> {
        #[pin]
        stream: S,
        // `None` after the delay.
        sleep: Option<Sleep>,
    }
}

impl<S> Delay<S> {
    pub(super) fn new(stream: S, duration: Duration) -> Delay<S> {
        Delay { stream, sleep: Some(Sleep::new(duration)) }
    }
}

impl<S: Stream> Stream for Delay<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.project();
        if let Some(sleep) = this.sleep {
            ready!(Pin::new(sleep).poll(cx));
            *this.sleep = None;
        }
        this.stream.poll_next(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}

pin_project! {
    /// The stream returned by [`StreamExt::throttle`](super::StreamExt::throttle).
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct Throttle<S> {
        #[pin]
        stream: S,
        duration: Duration,
        // Ends when the stream may be polled for the next item.
        sleep: Sleep,
        // Whether `sleep` must end before the stream is polled.
        blocked: bool,
    }
}

impl<S> Throttle<S> {
    pub(super) fn new(stream: S, duration: Duration) -> Throttle<S> {
        Throttle { stream, duration, sleep: Sleep::new(Duration::ZERO), blocked: false }
    }
}

impl<S: Stream> Stream for Throttle<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.project();
        if *this.blocked {
            ready!(Pin::new(&mut *this.sleep).poll(cx));
            *this.blocked = false;
        }
        let item = ready!(this.stream.poll_next(cx));
        if item.is_some() {
            restart(this.sleep, *this.duration);
            *this.blocked = true;
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}
