//! [`timeout()`]: a time limit for a future.
//!
//! The future is polled first, and the clock is checked only if the future is pending. An available
//! result is therefore never discarded, even with a duration of zero; see
//! [`Limit`](crate::time::limit::Limit).

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::time::limit::Limit;

/// Awaits `future` for at most `duration`.
///
/// The time is counted from the first poll of the returned future. With
/// [`FutureExt::timeout`](super::FutureExt::timeout) it is counted from the call. A duration beyond
/// the clock's range, such as [`Duration::MAX`], never expires.
///
/// # Errors
/// Returns [`TimeoutError`] if `future` is not ready in time.
///
/// # Cancel safety
/// `future` is dropped when the time is up, or with the returned future. So this function is cancel
/// safe if `future` is.
///
/// ```
/// use netpoll::future;
/// use std::time::Duration;
///
/// # netpoll::task::block_on(async {
/// assert_eq!(future::timeout(Duration::ZERO, async { 1 }).await, Ok(1));
/// assert!(future::timeout(Duration::from_millis(1), future::pending::<()>()).await.is_err());
/// # });
/// ```
#[doc(alias = "context.WithTimeout")]
pub async fn timeout<F, T>(duration: Duration, future: F) -> Result<T, TimeoutError>
where
    F: Future<Output = T>,
{
    TimeoutFuture::new(future, duration).await
}

pin_project! {
    /// Awaits a future for a limited time; returned by
    /// [`FutureExt::timeout`](super::FutureExt::timeout).
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct TimeoutFuture<F> {
        #[pin]
        future: F,
        limit: Limit,
    }
}

impl<F> TimeoutFuture<F> {
    pub(super) fn new(future: F, duration: Duration) -> TimeoutFuture<F> {
        TimeoutFuture { future, limit: Limit::new(duration) }
    }
}

impl<F: Future> Future for TimeoutFuture<F> {
    type Output = Result<F::Output, TimeoutError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.limit.poll(cx, |cx| this.future.poll(cx)).map(|output| output.ok_or_else(TimeoutError::new))
    }
}

/// The error of [`timeout()`] and [`FutureExt::timeout`](super::FutureExt::timeout). It converts to
/// an [`io::Error`] of kind [`TimedOut`](io::ErrorKind::TimedOut), so `?` works in functions that
/// return `io::Result`.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::future;
/// use std::io;
/// use std::time::Duration;
///
/// let error = future::timeout(Duration::ZERO, future::pending::<()>()).await.unwrap_err();
/// assert_eq!(io::Error::from(error).kind(), io::ErrorKind::TimedOut);
/// # });
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TimeoutError {
    _private: (),
}

impl TimeoutError {
    fn new() -> TimeoutError {
        TimeoutError { _private: () }
    }
}

impl fmt::Display for TimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("future has timed out")
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
