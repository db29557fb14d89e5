//! [`timeout()`]: an end to waiting, as an I/O error.

use std::future::Future;
use std::io;
use std::time::Duration;

use crate::future;

/// Awaits `operation`, for at most `duration`.
///
/// The time begins when the result is first polled. `operation` is polled before the clock is looked at: with a `duration` of
/// zero, one that need not wait still succeeds. A duration too long for the clock, such as [`Duration::MAX`], never ends.
///
/// For sockets a deadline does the same without a timer for each operation, and the operation's own buffers live on;
/// see [`TcpStream::set_deadline`](crate::net::TcpStream::set_deadline).
///
/// # Errors
/// Those of `operation`; kind `TimedOut` with the text "future timed out".
///
/// # Cancellation
/// At the end of the time `operation` is dropped where it is, and what that loses is lost.
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
