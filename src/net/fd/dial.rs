//! Connecting TCP sockets.
//!
//! # Rules
//! * EINPROGRESS, EALREADY and EINTR mean: wait for writability. A wake-up alone proves nothing. If
//!   getpeername(2) succeeds, the socket is connected; otherwise SO_ERROR says why not, and without
//!   an error the wait continues (Go issues 14548 and 19289).
//! * A handshake with this host is complete when connect(2) returns, so a loopback address is
//!   checked before waiting, which saves a registration.
//! * A socket with an ephemeral port may connect to itself if the destination is an unused port of
//!   this host. Such a connection is closed and the dial retried, at most twice; the same applies
//!   to EADDRNOTAVAIL (Go issue 2690). There is no retry if the user chose the port.
//! * The descriptor is registered after connect(2): before it, epoll reports a hang-up.
//!
//! A dial without retries makes socket(2), five setsockopt(2), connect(2), epoll_ctl(2) and the
//! wait, getpeername(2) and getsockname(2); on loopback two calls fewer.
//!
//! # Cancellation
//! Dropping the future closes the socket.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use socket2::SockAddr;

use super::fd::Fd;
use super::net_fd::NetFd;
use super::operation::{Failure, Hold, Left, Operation};
use crate::net::dialer::Recipe;
use crate::rt::context;
use crate::rt::poll::poller::Direction;
use crate::sys::socket;

/// The maximum number of retries after a connection to itself or a spurious EADDRNOTAVAIL.
const RETRIES_MAX: u32 = 2;

/// Connects to `addr`, until `deadline` at most, with a socket made by `recipe`.
pub(crate) async fn dial_tcp(addr: SocketAddr, deadline: Option<Instant>, recipe: &Recipe) -> io::Result<NetFd> {
    let op = || recipe.op(addr);
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(op().timed_out());
    }
    let retries_max = if recipe.has_port() { 0 } else { RETRIES_MAX };
    let mut retries = 0;
    loop {
        let stream = recipe.open(addr)?;
        let error = match connect(&stream, addr, deadline).await {
            Ok(()) if retries < retries_max && is_own_peer(&stream, addr) => None,
            Ok(()) => return Ok(stream),
            Err(Failure::Io(error)) => {
                // It may have failed at once; this makes a loop over it yield.
                context::take_turn().await;
                Some(error)
            }
            Err(Failure::TimedOut) => return Err(op().timed_out()),
            Err(Failure::Stopped) => return Err(op().shut_down()),
            Err(Failure::Closed | Failure::TooMany) => return Err(op().closed()),
        };
        match error {
            Some(error) if retries == retries_max || error.raw_os_error() != Some(libc::EADDRNOTAVAIL) => {
                return Err(op().call("connect", error));
            }
            _ => retries += 1,
        }
    }
}

async fn connect(stream: &NetFd, addr: SocketAddr, deadline: Option<Instant>) -> Result<(), Failure> {
    let fd = &stream.fd;
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

/// Waits until a connect in progress has succeeded or failed. `look` says that it may have done so
/// already.
pub(super) async fn established(fd: &Fd, mut look: bool) -> Result<(), Failure> {
    let mut dial = Dial { fd, operation: Operation::new() };
    poll_fn(|cx| {
        fd.poll_call(Direction::Write, Hold::Free, Some(&mut dial.operation), cx, |fd| {
            if std::mem::replace(&mut look, true) { outcome(fd) } else { Err(io::ErrorKind::WouldBlock.into()) }
        })
    })
    .await
}

/// Returns the outcome of a connect in progress; `WouldBlock` if it is still in progress.
fn outcome(fd: BorrowedFd<'_>) -> io::Result<((), Left)> {
    if socket::peer_addr_any(fd).is_ok() {
        return Ok(((), Left::Maybe));
    }
    match socket::take_error(fd)? {
        Some(error) => match error.raw_os_error() {
            Some(libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => Err(io::ErrorKind::WouldBlock.into()),
            Some(libc::EISCONN) => Ok(((), Left::Maybe)),
            _ => Err(error),
        },
        None => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn is_own_peer(stream: &NetFd, addr: SocketAddr) -> bool {
    let own = stream.fd.with(|fd| {
        let local = socket::local_addr(fd)?;
        // With another port it is another socket's, whatever the address is (a wildcard means this
        // host).
        Ok(local.port() == addr.port() && local == socket::peer_addr(fd)?)
    });
    own.unwrap_or(true)
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
