//! connect(2) on a descriptor, and the wait for its outcome; the parts of registration, shutdown
//! and close that concern a connection that is deferred or in progress ([`FastOpen`]).
//!
//! # Rules
//! * After EINPROGRESS, EALREADY or EINTR, the connect waits until the socket is writable. A
//!   wake-up alone does not mean that the outcome is known. If getpeername(2) succeeds, the socket
//!   is connected. Otherwise SO_ERROR returns the error; if there is none, the wait continues (Go
//!   issues 14548 and 19289).
//! * The handshake of a connection to the same host is usually complete when connect(2) returns. So
//!   the outcome for a loopback address is checked before the wait, which saves a registration.
//! * The descriptor is registered after connect(2), because epoll reports a hang-up for a socket on
//!   which connect(2) was not called.
//!
//! # Cancellation
//! Dropping the future ends its wait. The kernel continues to connect until the descriptor is
//! closed.

use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::fast_open::{FastOpen, WAITED, connecting};
use super::fd::Fd;
use super::operation::{LockScope, Operation, Remaining};
use crate::rt::fork;
use crate::rt::poll::poller::{Direction, Failure};
use crate::rt::waiters::{Waiter, wake_taken};
use crate::sys::{option, socket};
use crate::task;

/// Connects a new socket to `addr`, waiting until `deadline` at most.
pub(crate) async fn connect(fd: &Fd, addr: SocketAddr, deadline: Option<Instant>) -> Result<(), Failure> {
    if deadline.is_some() {
        fd.set_deadline(Direction::Write, deadline)?;
    }
    match fd.with(|fd| socket::connect(fd, &SockAddr::from(addr))) {
        // The socket is connected, or the connect is deferred until the first data, wait or
        // shutdown. connect(2) returns 0 in both cases.
        Ok(()) => fd.set_fast_open(),
        Err(Failure::Io(error)) => match error.raw_os_error() {
            Some(libc::EISCONN) => {}
            // A connect to an address that is not loopback is usually still in progress here, so
            // its outcome is checked only after the wait.
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

/// Waits until a connect in progress has succeeded or failed. If `look` is true, checks the outcome
/// before it first waits.
pub(super) async fn established(fd: &Fd, mut look: bool) -> Result<(), Failure> {
    let mut dial = Dial { fd, operation: Operation::new() };
    poll_fn(|cx| {
        fd.poll_call(Direction::Write, LockScope::None, Waiter::Future(&mut dial.operation), cx, |fd| {
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

/// The wait for the outcome of a connect. Dropping it cancels the wait, not the connect.
struct Dial<'a> {
    fd: &'a Fd,
    operation: Operation,
}

impl Drop for Dial<'_> {
    fn drop(&mut self) {
        self.fd.cancel(Direction::Write, &mut self.operation);
    }
}

/// Starts a task that waits until the connection of `fd` is established or has failed. If it is
/// established and `how` is `Some`, the task shuts it down. Then the task closes `fd`.
fn finish_later(fd: OwnedFd, how: Option<Shutdown>) -> io::Result<()> {
    let fd = Fd::new(fd, false)?;
    // SO_LINGER may be set on the socket.
    fd.set_may_linger();
    drop(task::spawn(async move {
        if established(&fd, false).await.is_ok()
            && let Some(how) = how
        {
            // If the connection has failed in the meantime, there is nothing to shut down.
            let _ = fd.with(|fd| socket::shutdown(fd, how));
        }
    }));
    Ok(())
}

impl Fd {
    /// Records that connect(2) may have been deferred.
    pub(crate) fn set_fast_open(&self) {
        self.fast_open_or_default().defer();
    }

    /// Records that connect(2) may have been deferred, if the connect of an adopted socket is in
    /// progress.
    pub(crate) fn find_fast_open(&self) {
        if connecting(self.borrow()).is_some() {
            self.set_fast_open();
        }
    }

    /// Returns whether connect(2) may have been deferred.
    pub(crate) fn uses_fast_open(&self) -> bool {
        self.used_fast_open().is_some()
    }

    pub(super) fn used_fast_open(&self) -> Option<&FastOpen> {
        self.fast_open().filter(|fast_open| fast_open.is_used())
    }

    /// Registers the descriptor with the poller. Begins a deferred connection first, because
    /// otherwise no event would follow. Afterwards makes sure that gathered bytes are sent. The
    /// caller must hold a reference.
    #[cold]
    pub(super) fn register_now(&self) -> Result<u32, Failure> {
        if let Some(fast_open) = self.used_fast_open() {
            fast_open.begin(self.borrow()).map_err(Failure::Io)?;
        }
        // Since the last runtime ended, another handle may have registered a lent descriptor. That
        // handle keeps its events: this registration then fails with EEXIST.
        let registered = self.poll.register(self.borrow(), self.may_be_shared());
        if registered.is_ok() {
            self.send_rest_soon();
        }
        registered
    }

    /// Returns whether `error` means that the connection is not established yet, so that the call
    /// must wait.
    #[cold]
    pub(super) fn is_early(&self, error: &io::Error) -> bool {
        error.raw_os_error() == Some(libc::EINPROGRESS) && self.used_fast_open().is_some()
    }

    /// Sends the gathered bytes, unless `how` is `Read`. Then calls shutdown(2). If the connection
    /// is in progress, a task calls shutdown(2) when the connection is established. If the socket
    /// does not accept all gathered bytes, the sending side is shut down after the last byte.
    ///
    /// Unless `how` is `Read`, wakes all operations that wait to write, so that they fail. If the
    /// connection is in progress, they wait again and fail when it is shut down.
    pub(crate) fn shutdown(&self, how: Shutdown) -> Result<(), Failure> {
        let shut = self.with(|fd| {
            let now = self.shut_gathered(how);
            let shut = match now.as_ref().map_or(Some(how), |now| *now) {
                Some(how) => self.shut_now(fd, how),
                None => Ok(()),
            };
            now?;
            shut
        });
        if how != Shutdown::Read {
            // For a Unix socket without room, epoll reports no event. Nor does it while gathered
            // bytes are left.
            wake_taken(|wakers| {
                let side = self.poll.side(Direction::Write);
                // An operation whose call was made before the shutdown, and that does not wait yet,
                // repeats the call.
                side.set_ready(0, wakers);
                // An edge would wake only the first future.
                side.interrupt(wakers);
            });
        }
        shut
    }

    fn shut_now(&self, fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
        if let Some(fast_open) = self.used_fast_open() {
            fast_open.begin(fd)?;
            if connecting(fd).is_some() {
                self.expose();
                return finish_later(socket::dup_cloexec(fd)?, Some(how));
            }
        }
        socket::shutdown(fd, how)?;
        if how != Shutdown::Write {
            self.set_receiving_shut();
        }
        if how != Shutdown::Read {
            self.set_sending_shut();
        }
        Ok(())
    }

    /// Returns a duplicate if the connection is in progress and its SYN carried data. The duplicate
    /// keeps the close from aborting the connection. Returns `None` in a child of fork(2), because
    /// the parent has the socket open. Also returns `None` if the linger time is 0, which requests
    /// the abort, or if no descriptor is available.
    pub(super) fn unfinished(&self) -> Option<OwnedFd> {
        let fast_open = self.used_fast_open()?;
        let fd = self.borrow();
        let is_at_risk = fast_open.state() != WAITED
            && connecting(fd).is_some_and(|segments| segments > 1)
            && !fork::is_child()
            && !matches!(option::socket::linger(fd), Ok(Some(Duration::ZERO)));
        // If no descriptor is available, the close aborts the connection.
        if is_at_risk { socket::dup_cloexec(fd).ok() } else { None }
    }

    /// Closes the result of [`unfinished`](Fd::unfinished) when the connection is established or
    /// has failed.
    pub(super) fn close_later(unfinished: OwnedFd) {
        // On an error, the duplicate is closed now.
        let _ = finish_later(unfinished, None);
    }
}
