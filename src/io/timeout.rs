//! [`timeout()`]: a time limit for an I/O operation.

use std::future::Future;
use std::io;
use std::time::Duration;

use crate::future;

/// Awaits `operation` for at most `duration`.
///
/// The time is counted from the first poll of the returned future. `operation` is polled before the
/// clock is checked, so the result of an operation that is ready immediately is returned even with
/// a `duration` of zero. A duration beyond the clock's range, such as [`Duration::MAX`], never
/// expires.
///
/// For sockets, prefer a deadline, which needs no timer per operation and does not drop the
/// operation and its buffers; see [`TcpStream::set_deadline`](crate::net::TcpStream::set_deadline).
///
/// # Errors
/// Returns the error of `operation`. When the time is up, returns an error of kind `TimedOut` with
/// the text "future timed out".
///
/// # Cancel safety
/// `operation` is dropped when the time is up, or with the returned future. So this function is
/// cancel safe if `operation` is.
///
/// ```
/// use netpoll::{future, io};
/// use std::time::Duration;
///
/// # netpoll::task::block_on(async {
/// let error = io::timeout(Duration::from_millis(1), future::pending::<io::Result<()>>()).await.unwrap_err();
/// assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::TimedOut, "future timed out"));
/// # });
/// ```
pub async fn timeout<F, T>(duration: Duration, operation: F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    match future::timeout(duration, operation).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "future timed out")),
    }
}
