//! The guard that [`readable`](AsyncFd::readable) and [`writable`](AsyncFd::writable) give.
//!
//! It holds a ticket, the direction's word from before the user's call: `clear_ready` takes *ready* away only if no edge came since,
//! so an event that the call missed is not wiped out.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use super::AsyncFd;
use super::wrapper::op;
use crate::net::fd::operation::Failure;
use crate::rt::poll::poller::{Direction, Ticket};

/// Says that a descriptor was ready a moment ago.
///
/// Dropping it changes nothing. Who finds by a call of their own that the descriptor is not ready says so
/// ([`clear_ready`](AsyncFdReadyGuard::clear_ready)).
///
/// Source: `tokio::io::unix::AsyncFdReadyGuard`.
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

    /// A call made since the guard was given answered `WouldBlock`: the next wait waits for an event. Has no effect if one came since,
    /// nor the second time.
    pub fn clear_ready(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.fd.fd.poll.clear_ready(self.direction, ticket);
        }
    }

    /// The descriptor is still ready. What dropping the guard says too; from here on
    /// [`clear_ready`](AsyncFdReadyGuard::clear_ready) has no effect.
    pub fn retain_ready(&mut self) {
        self.ticket = None;
    }

    /// Makes a call. If it answers `WouldBlock` the state is cleared and [`TryIoError`] returned: wait again.
    ///
    /// `call` runs with the `AsyncFd` pinned: a close waits for it.
    ///
    /// # Errors
    /// [`TryIoError`] for `WouldBlock`. The inner result is the call's; `TimedOut` past the deadline and
    /// [closed](crate::net::is_closed), without a call.
    pub fn try_io<R>(&mut self, call: impl FnOnce(&AsyncFd<T>) -> io::Result<R>) -> Result<io::Result<R>, TryIoError> {
        let fd = &self.fd.fd;
        // This moment's, not the guard's: edges that came in between are known to the call.
        let result = fd.poll.begin(self.direction).map_err(Failure::from).and_then(|ticket| {
            let call = |_: BorrowedFd<'_>| {
                fd.ensure_nonblocking();
                call(self.fd)
            };
            fd.pinned(call).inspect_err(|failure| {
                if matches!(failure, Failure::Io(error) if error.kind() == io::ErrorKind::WouldBlock) {
                    fd.poll.clear_ready(self.direction, ticket);
                }
            })
        });
        match result {
            Err(Failure::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Err(TryIoError(())),
            result => Ok(result.map_err(|failure| self.fd.error(op(self.direction), failure))),
        }
    }

    /// The `AsyncFd`.
    pub fn get_ref(&self) -> &'a AsyncFd<T> {
        self.fd
    }

    /// What the `AsyncFd` wraps.
    pub fn get_inner(&self) -> &'a T {
        self.fd.get_ref()
    }
}

impl<T: fmt::Debug> fmt::Debug for AsyncFdReadyGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncFdReadyGuard").field("fd", &self.fd).field("direction", &self.direction).finish()
    }
}

/// The call of [`try_io`](AsyncFdReadyGuard::try_io) answered `WouldBlock`.
pub struct TryIoError(());

impl fmt::Display for TryIoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the call would have blocked")
    }
}

/// The text of the error: `main` prints the error that it returns by `Debug`.
impl fmt::Debug for TryIoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for TryIoError {}
