//! connect(2) on a descriptor, and its wait.
//!
//! # Rules
//! * EINPROGRESS, EALREADY and EINTR mean: wait for writability. A wake-up alone proves nothing. If
//!   getpeername(2) succeeds, the socket is connected; otherwise SO_ERROR says why not, and without
//!   an error the wait continues (Go issues 14548 and 19289).
//! * A handshake with this host is complete when connect(2) returns, so a loopback address is
//!   checked before waiting, which saves a registration.
//! * The descriptor is registered after connect(2): before it, epoll reports a hang-up.
//!
//! # Cancellation
//! Dropping the future leaves the list of waiters. The kernel goes on connecting until the
//! descriptor is closed.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use socket2::SockAddr;

use super::failure::Failure;
use super::fd::Fd;
use super::operation::{LockScope, Operation, Remaining};
use crate::rt::poll::poller::Direction;
use crate::sys::socket;

/// Connects a new socket to `addr`, until `deadline` at most.
pub(crate) async fn connect(fd: &Fd, addr: SocketAddr, deadline: Option<Instant>) -> Result<(), Failure> {
    if deadline.is_some() {
        fd.set_deadline(Direction::Write, deadline)?;
    }
    match fd.with(|fd| socket::connect(fd, &SockAddr::from(addr))) {
        // Connected, or deferred until the first data: the kernel does not say which.
        Ok(()) => fd.set_fast_open(),
        Err(Failure::Io(error)) => match error.raw_os_error() {
            Some(libc::EISCONN) => {}
            // For a non-loopback address the first check would find nothing.
            Some(libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => {
                established(fd, addr.ip().to_canonical().is_loopback()).await?;
            }
            _ => return Err(Failure::Io(error)),
        },
        Err(failure) => return Err(failure),
    }
    if deadline.is_some() {
        fd.set_deadline(Direction::Write, None)?;
    }
    Ok(())
}

/// Waits until a connect in progress has succeeded or failed. If `look` is true, the first poll
/// checks the outcome before it waits.
pub(super) async fn established(fd: &Fd, mut look: bool) -> Result<(), Failure> {
    let mut dial = Dial { fd, operation: Operation::new() };
    poll_fn(|cx| {
        fd.poll_call(Direction::Write, LockScope::None, Some(&mut dial.operation), cx, |fd| {
            if std::mem::replace(&mut look, true) { outcome(fd) } else { Err(io::ErrorKind::WouldBlock.into()) }
        })
    })
    .await
}

/// Returns the outcome of a connect in progress; `WouldBlock` if it is still in progress.
fn outcome(fd: BorrowedFd<'_>) -> io::Result<((), Remaining)> {
    if socket::peer_addr_any(fd).is_ok() {
        return Ok(((), Remaining::Maybe));
    }
    match socket::take_error(fd)? {
        Some(error) => match error.raw_os_error() {
            Some(libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => Err(io::ErrorKind::WouldBlock.into()),
            Some(libc::EISCONN) => Ok(((), Remaining::Maybe)),
            _ => Err(error),
        },
        None => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// The wait of a connect, which is cancelled on drop.
struct Dial<'a> {
    fd: &'a Fd,
    operation: Operation,
}

impl Drop for Dial<'_> {
    fn drop(&mut self) {
        self.fd.cancel(Direction::Write, &mut self.operation);
    }
}
