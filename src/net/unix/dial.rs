//! Binding, listening and connecting.
//!
//! # A listener that is busy
//! connect(2) to a stream or packet socket whose backlog is full answers EAGAIN at once, and no event tells when there is room. So
//! the dial tries again, after 1 ms, then after twice as long each time, 50 ms at most, until it succeeds or its deadline has passed. Go
//! fails instead.
//!
//! # Cancellation
//! Dropping the future closes the socket.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Type};

use super::address::Name;
use super::file::SocketFile;
use crate::net::error::Op;
use crate::net::fd::fd;
use crate::net::fd::net_fd::{NetFd, Network};
use crate::net::fd::operation::Failure;
use crate::net::options;
use crate::rt::context;
use crate::rt::time::sleep::Sleep;
use crate::sys::socket;

/// Pauses between tries where the kernel tells nobody when to try again: each twice as long as the last.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    pub(super) const fn new(first: Duration, most: Duration) -> Backoff {
        Backoff { next: first, most }
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.most);
        pause
    }
}

/// The network's name, as Go has it.
pub(super) fn network(ty: Type) -> Network {
    match ty {
        Type::STREAM => &"unix",
        Type::DGRAM => &"unixgram",
        _ => &"unixpacket",
    }
}

/// A socket that is bound to `name`, and listens if its kind does; its file, where it is a listener's. The error is an `OpError`
/// `listen NETWORK name: call: reason`, and leaves no file behind.
pub(super) fn bind(ty: Type, name: Name<'_>) -> io::Result<(NetFd, SocketFile)> {
    let op = || Op::at("listen", network(ty), Some(name.printed()));
    let raw = name.raw().map_err(|error| op().other(error))?;
    let fd = fd::open(Domain::UNIX, ty, None).map_err(|error| op().call("socket", error))?;
    socket::bind(fd.as_fd(), &raw).map_err(|error| op().call("bind", error))?;
    // Dropped by what fails from here on: after the last use of the descriptor, before its close.
    let file = name.file().map(SocketFile::bound).unwrap_or_default();
    if ty != Type::DGRAM {
        socket::listen(fd.as_fd(), options::BACKLOG).map_err(|error| op().call("listen", error))?;
    }
    let fd = NetFd::new(fd, network(ty))?;
    if ty == Type::DGRAM {
        file.keep();
    }
    Ok((fd, file))
}

/// A socket that is connected to `name`, until `deadline` at most. The error is an `OpError` `dial NETWORK name: call: reason`.
pub(super) async fn dial(ty: Type, name: Name<'_>, deadline: Option<Instant>) -> io::Result<NetFd> {
    // Most dials need not wait.
    context::take_turn().await;
    let op = || Op::at("dial", network(ty), Some(name.printed()));
    let raw = name.raw().map_err(|error| op().other(error))?;
    let fd = fd::open(Domain::UNIX, ty, None).map_err(|error| op().call("socket", error))?;
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
    loop {
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(op().timed_out());
        }
        match socket::connect(fd.as_fd(), &raw) {
            Ok(()) => return NetFd::new(fd, network(ty)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let pause = Instant::now() + backoff.next();
                Sleep::until(deadline.map_or(pause, |deadline| deadline.min(pause))).await;
            }
            Err(error) => return Err(op().call("connect", error)),
        }
    }
}

/// Connects a datagram socket: the peer that `send` sends to, and the only one that is heard.
pub(super) fn connect_datagram(fd: &NetFd, name: Name<'_>) -> io::Result<()> {
    let op = || Op::at("dial", network(Type::DGRAM), Some(name.printed()));
    let raw = name.raw().map_err(|error| op().other(error))?;
    fd.fd.with(|fd| socket::connect(fd, &raw)).map_err(|failure| match failure {
        Failure::Io(error) => op().call("connect", error),
        failure => fd.error("dial", failure),
    })
}
