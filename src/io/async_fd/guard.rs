//! The guard returned by [`readable`](AsyncFd::readable) and [`writable`](AsyncFd::writable).
//!
//! It holds a ticket, a copy of the direction's state from before the user's call. `clear_ready`
//! clears readiness only if no edge has come since, so an event that the call missed is not lost.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use super::AsyncFd;
use super::wrapper::op;
use crate::rt::poll::poller::{Direction, Failure, Ticket};

/// Proof that a descriptor was ready a moment ago.
///
/// Dropping it has no effect. If a call of yours finds that the descriptor is not ready, call
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
#[must_use = "the guard is for saying whether the descriptor is still ready"]
pub struct AsyncFdReadyGuard<'a, T> {
    fd: &'a AsyncFd<T>,
    direction: Direction,
    ticket: Option<Ticket>,
}

impl<'a, T> AsyncFdReadyGuard<'a, T> {
    pub(super) fn new(fd: &'a AsyncFd<T>, direction: Direction, ticket: Ticket) -> AsyncFdReadyGuard<'a, T> {
        AsyncFdReadyGuard { fd, direction, ticket: Some(ticket) }
    }

    /// Clears readiness, so that the next wait waits for an event. Call this after a call made
    /// since the guard was returned failed with `WouldBlock`. It has no effect if an event has come
    /// since, or the second time.
    pub fn clear_ready(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.fd.clear_ready(self.direction, ticket);
        }
    }

    /// Keeps the descriptor ready, as dropping the guard does. From here on
    /// [`clear_ready`](AsyncFdReadyGuard::clear_ready) has no effect.
    pub fn retain_ready(&mut self) {
        self.ticket = None;
    }

    /// Makes a call. If it returns `WouldBlock`, clears readiness and returns [`TryIoError`]: wait
    /// again.
    ///
    /// `call` runs with the `AsyncFd` pinned: a close waits for it.
    ///
    /// # Errors
    /// Returns [`TryIoError`] for `WouldBlock`. The inner result is that of the call; `TimedOut`
    /// after the deadline or a [closed](crate::net::is_closed) error after `force_close`, without
    /// making the call.
    pub fn try_io<R>(&mut self, call: impl FnOnce(&AsyncFd<T>) -> io::Result<R>) -> Result<io::Result<R>, TryIoError> {
        let fd = &self.fd.fd;
        // A new ticket, not the guard's: the call sees edges that came in between.
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
            result => Ok(result.map_err(|failure| self.fd.error(op(self.direction), failure))),
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
