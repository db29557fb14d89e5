//! Binding, listening on and connecting Unix sockets.
//!
//! # Full backlogs
//! On Linux, connect(2) to a stream or seqpacket socket whose backlog is full returns EAGAIN
//! immediately, and no event reports when there is room. The dial therefore retries after 1 ms,
//! then after twice as long each time, up to 50 ms, until it succeeds, fails with another error or
//! passes its deadline. (In Go, the dial fails.)
//!
//! # Cancellation
//! Dropping the future of a dial closes its socket.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Type};

use super::address::Name;
use super::file::SocketFile;
use crate::net::error::Op;
use crate::net::fd::backoff::Backoff;
use crate::net::fd::fd;
use crate::net::net_fd::{NetFd, Network};
use crate::net::options;
use crate::rt::context;
use crate::rt::poll::poller::Failure;
use crate::rt::time::clock;
use crate::rt::time::sleep::Sleep;
use crate::sys::socket;

/// Returns Go's name of the network.
pub(super) fn network(ty: Type) -> Network {
    match ty {
        Type::STREAM => &"unix",
        Type::DGRAM => &"unixgram",
        _ => &"unixpacket",
    }
}

/// Binds a socket to `name`, and listens unless it is a datagram socket. Also returns the file of a
/// listener.
///
/// # Errors
/// Returns an `OpError` with the text `listen NETWORK NAME: CALL: …`, or
/// `listen NETWORK NAME: REASON` for an invalid name or an error of [`NetFd::new`]. No file is left
/// behind.
pub(super) async fn bind(ty: Type, name: Name<'_>) -> io::Result<(NetFd, SocketFile)> {
    // The following calls do not wait, so a loop of binds yields here.
    context::take_turn().await;
    let op = || Op::at("listen", network(ty), Some(name.printed()));
    let raw = name.raw().map_err(|error| op().other(error))?;
    let fd = fd::open(Domain::UNIX, ty, None).map_err(|error| op().call("socket", error))?;
    socket::bind(fd.as_fd(), &raw).map_err(|error| op().call("bind", error))?;
    // If a later call fails, dropping `file` removes the file.
    let file = name.file().map(SocketFile::bound).unwrap_or_default();
    if ty != Type::DGRAM {
        socket::listen(fd.as_fd(), options::BACKLOG).map_err(|error| op().call("listen", error))?;
    }
    let fd = NetFd::new(fd, network(ty)).map_err(|error| op().other(error))?;
    if ty == Type::DGRAM {
        file.keep();
    }
    Ok((fd, file))
}

/// Connects a socket to `name`, waiting until `deadline` at most.
///
/// # Errors
/// Returns an `OpError` with the text `dial NETWORK NAME: CALL: …`,
/// `dial NETWORK NAME: i/o timeout` after `deadline`, or `dial NETWORK NAME: REASON` for an invalid
/// name or an error of [`NetFd::new`].
pub(super) async fn dial(ty: Type, name: Name<'_>, deadline: Option<Instant>) -> io::Result<NetFd> {
    // Most dials do not wait, so the budget is charged here.
    context::take_turn().await;
    let op = || Op::at("dial", network(ty), Some(name.printed()));
    let raw = name.raw().map_err(|error| op().other(error))?;
    let fd = fd::open(Domain::UNIX, ty, None).map_err(|error| op().call("socket", error))?;
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
    loop {
        if deadline.is_some_and(|deadline| deadline <= clock::instant()) {
            return Err(op().timed_out());
        }
        match socket::connect(fd.as_fd(), &raw) {
            Ok(()) => return NetFd::new(fd, network(ty)).map_err(|error| op().other(error)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let pause = clock::instant() + backoff.next();
                Sleep::until(deadline.map_or(pause, |deadline| deadline.min(pause))).await;
            }
            Err(error) => return Err(op().call("connect", error)),
        }
    }
}

/// Connects a datagram socket: `send` then sends to the peer, and only the peer's datagrams are
/// accepted.
pub(super) async fn connect_datagram(fd: &NetFd, name: Name<'_>) -> io::Result<()> {
    context::take_turn().await;
    let op = || Op::at("dial", network(Type::DGRAM), Some(name.printed()));
    let raw = name.raw().map_err(|error| op().other(error))?;
    fd.fd.with(|fd| socket::connect(fd, &raw)).map_err(|failure| match failure {
        Failure::Io(error) => op().call("connect", error),
        failure => fd.error("dial", failure),
    })
}
