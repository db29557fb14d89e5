//! [`AsyncFdReadyGuard`]: the guard returned by [`readable`](AsyncFd::readable),
//! [`writable`](AsyncFd::writable) and their `poll_*` forms.
//!
//! The guard holds a ticket: a copy of the direction's state, taken before the user's call.
//! `clear_ready` clears readiness only if the poller has recorded no edge (an event of the
//! descriptor) since then, so an event after the call is not lost.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use super::AsyncFd;
use crate::rt::poll::poller::{Direction, Failure, Ticket};

/// The readiness that a wait has reported. The guard can clear it, so that the next wait does not
/// rely on it.
///
/// Dropping the guard has no effect. If your call returns `WouldBlock`, call
/// [`clear_ready`](AsyncFdReadyGuard::clear_ready), or make the call with
/// [`try_io`](AsyncFdReadyGuard::try_io).
///
/// Source: `tokio::io::unix::AsyncFdReadyGuard`.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::io::AsyncFd;
/// use std::io::{Read, Write};
///
/// let (reader, mut writer) = std::io::pipe()?;
/// let reader = AsyncFd::new(reader)?;
/// writer.write_all(b"hello")?;
///
/// let mut buf = [0; 16];
/// let count = loop {
///     let mut guard = reader.readable().await?;
///     match guard.try_io(|reader| reader.get_ref().read(&mut buf)) {
///         Ok(result) => break result?,
///         Err(_would_block) => continue,
///     }
/// };
/// assert_eq!(&buf[..count], b"hello");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[must_use = "clear readiness with the guard if a call returns `WouldBlock`"]
pub struct AsyncFdReadyGuard<'a, T> {
    fd: &'a AsyncFd<T>,
    direction: Direction,
    ticket: Option<Ticket>,
}

impl<'a, T> AsyncFdReadyGuard<'a, T> {
    pub(super) fn new(fd: &'a AsyncFd<T>, direction: Direction, ticket: Ticket) -> AsyncFdReadyGuard<'a, T> {
        AsyncFdReadyGuard { fd, direction, ticket: Some(ticket) }
    }

    /// Clears readiness, so that the next wait does not end before poll(2) or an event reports
    /// readiness. Use this method if a call made after the guard was returned failed with
    /// `WouldBlock`. The method has no effect if an event has arrived since the guard was returned,
    /// if it is called a second time, or after [`retain_ready`](AsyncFdReadyGuard::retain_ready).
    pub fn clear_ready(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.fd.clear_ready(self.direction, ticket);
        }
    }

    /// Leaves the descriptor ready, as dropping the guard does. Afterwards
    /// [`clear_ready`](AsyncFdReadyGuard::clear_ready) has no effect.
    pub fn retain_ready(&mut self) {
        self.ticket = None;
    }

    /// Calls `call`. If `call` returns `WouldBlock`, clears readiness and returns [`TryIoError`];
    /// the caller should then wait again.
    ///
    /// The future of `force_close` completes only after `call` has returned.
    ///
    /// # Errors
    /// Returns [`TryIoError`] if `call` returns `WouldBlock`. The inner result is that of `call`.
    /// After the deadline it is `TimedOut`, and after `force_close` it is a
    /// [closed](crate::net::is_closed) error; in both cases `call` is not called.
    pub fn try_io<R>(&mut self, call: impl FnOnce(&AsyncFd<T>) -> io::Result<R>) -> Result<io::Result<R>, TryIoError> {
        let fd = &self.fd.fd;
        // A new ticket is taken, because the guard's ticket may be older than the last edge, and
        // the call is made after that edge.
        let result = fd.poll.side(self.direction).begin().map_err(Failure::from).and_then(|ticket| {
            let call = |_: BorrowedFd<'_>| {
                fd.ensure_nonblocking();
                call(self.fd)
            };
            fd.pinned(call).inspect_err(|failure| {
                if matches!(failure, Failure::Io(error) if error.kind() == io::ErrorKind::WouldBlock) {
                    self.fd.clear_ready(self.direction, ticket);
                }
            })
        });
        match result {
            Err(Failure::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Err(TryIoError(())),
            result => Ok(result.map_err(|failure| self.fd.error(self.direction.op(), failure))),
        }
    }

    /// Returns the `AsyncFd`.
    pub fn get_ref(&self) -> &'a AsyncFd<T> {
        self.fd
    }

    /// Returns the wrapped object.
    pub fn get_inner(&self) -> &'a T {
        self.fd.get_ref()
    }
}

impl<T: fmt::Debug> fmt::Debug for AsyncFdReadyGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncFdReadyGuard").field("fd", &self.fd).field("direction", &self.direction).finish()
    }
}

/// The error of [`try_io`](AsyncFdReadyGuard::try_io): the call returned `WouldBlock`.
pub struct TryIoError(());

impl fmt::Display for TryIoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the call would have blocked")
    }
}

/// Prints the text of the error, because `main` prints a returned error with `Debug`.
impl fmt::Debug for TryIoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for TryIoError {}
