//! Connecting.
//!
//! # Rules
//! * EINPROGRESS, EALREADY and EINTR mean: wait for writability, then ask SO_ERROR. A wake-up proves nothing by itself: without an error
//!   getpeername(2) must succeed, else the wait goes on (Go issues 14548 and 19289).
//! * A socket that was given an ephemeral port may connect to itself, when the destination is a port of this host that nobody
//!   listens on. That one is closed and tried again, twice at most; so is EADDRNOTAVAIL (Go issue 2690).
//! * The descriptor is registered after connect(2): before, epoll reports a hang-up.
//!
//! # Cancellation
//! Dropping the future closes the socket.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use socket2::SockAddr;

use super::net_fd::NetFd;
use super::operation::{Failure, Hold, Left, Operation};
use crate::net::error::{Addr, Op};
use crate::net::options;
use crate::rt::poller::Direction;
use crate::sys::socket;

/// Tries beyond the first after a connection to itself or a spurious EADDRNOTAVAIL.
const RETRIES_MAX: u32 = 2;

/// Connects to `addr`, until `deadline` at most.
pub(crate) async fn dial_tcp(addr: SocketAddr, deadline: Option<Instant>) -> io::Result<NetFd> {
    let op = || Op::at("dial", "tcp", Some(Addr::Ip(addr)));
    let mut retries = 0;
    loop {
        let stream = NetFd::tcp(options::dial_socket(addr)?)?;
        let error = match connect(&stream, addr, deadline).await {
            Ok(()) if retries < RETRIES_MAX && is_own_peer(&stream) => None,
            Ok(()) => return Ok(stream),
            Err(Failure::Io(error)) => Some(error),
            Err(Failure::TimedOut) => return Err(op().timed_out()),
            Err(Failure::Stopped) => return Err(op().shut_down()),
            Err(Failure::Closed | Failure::TooMany) => return Err(op().closed()),
        };
        match error {
            Some(error) if retries == RETRIES_MAX || error.raw_os_error() != Some(libc::EADDRNOTAVAIL) => {
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
    let mut connected = match fd.with(|fd| socket::connect(fd, &SockAddr::from(addr))) {
        Ok(()) => true,
        Err(Failure::Io(error)) => match error.raw_os_error() {
            Some(libc::EISCONN) => true,
            Some(libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => false,
            _ => return Err(Failure::Io(error)),
        },
        Err(failure) => return Err(failure),
    };
    if !connected {
        let mut dial = Dial { stream, operation: Operation::new() };
        poll_fn(|cx| {
            stream.fd.poll_call(Direction::Write, Hold::Free, Some(&mut dial.operation), cx, |fd| {
                // The first time round nothing has happened yet.
                if std::mem::replace(&mut connected, true) {
                    outcome(fd)
                } else {
                    Err(io::ErrorKind::WouldBlock.into())
                }
            })
        })
        .await?;
    }
    if deadline.is_some() {
        fd.set_deadline(Direction::Write, None)?;
    }
    Ok(())
}

/// How a connect that was under way stands. `WouldBlock`: it still is.
fn outcome(fd: BorrowedFd<'_>) -> io::Result<((), Left)> {
    if let Some(error) = socket::take_error(fd)? {
        return match error.raw_os_error() {
            Some(libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => Err(io::ErrorKind::WouldBlock.into()),
            Some(libc::EISCONN) => Ok(((), Left::Maybe)),
            _ => Err(error),
        };
    }
    match socket::peer_addr_any(fd) {
        Ok(_) => Ok(((), Left::Maybe)),
        Err(_) => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn is_own_peer(stream: &NetFd) -> bool {
    let names = stream.fd.with(|fd| Ok((socket::local_addr(fd.as_fd()), socket::peer_addr(fd))));
    matches!(names, Ok((local, peer)) if local.as_ref().ok() == peer.as_ref().ok() || local.is_err() || peer.is_err())
}

/// The wait of a connect; dropped with it.
struct Dial<'a> {
    stream: &'a NetFd,
    operation: Operation,
}

impl Drop for Dial<'_> {
    fn drop(&mut self) {
        self.stream.fd.cancel(Direction::Write, &mut self.operation);
    }
}
