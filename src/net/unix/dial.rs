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
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Type};

use super::address::Name;
use crate::net::error::{Addr, Op};
use crate::net::fd::net_fd::NetFd;
use crate::net::fd::operation::Failure;
use crate::net::options;
use crate::rt::sleep::Sleep;
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

/// A name as a user gave it, or why it is none.
pub(super) type Named = Result<Name, (Addr, io::Error)>;

/// The network's name, as Go has it.
pub(super) fn network(ty: Type) -> &'static str {
    match ty {
        Type::STREAM => "unix",
        Type::DGRAM => "unixgram",
        _ => "unixpacket",
    }
}

/// A socket that is bound to `name`, and listens if its kind does. The error is an `OpError` `listen NETWORK name: call: reason`.
pub(super) fn bind(ty: Type, name: Named) -> io::Result<(NetFd, Name)> {
    let op = |addr| Op::at("listen", network(ty), Some(addr));
    let name = name.map_err(|(addr, error)| op(addr).other(error))?;
    let fail = |call| {
        let addr = name.addr();
        move |error| op(addr).call(call, error)
    };
    let fd = socket::socket(Domain::UNIX, ty, None).map_err(fail("socket"))?;
    socket::bind(fd.as_fd(), &name.raw).map_err(fail("bind"))?;
    if ty != Type::DGRAM {
        socket::listen(fd.as_fd(), options::backlog()).map_err(fail("listen"))?;
    }
    Ok((NetFd::new(fd, network(ty))?, name))
}

/// A socket that is connected to `name`, until `deadline` at most. The error is an `OpError` `dial NETWORK name: call: reason`.
pub(super) async fn dial(ty: Type, name: Named, deadline: Option<Instant>) -> io::Result<NetFd> {
    let op = |addr| Op::at("dial", network(ty), Some(addr));
    let name = name.map_err(|(addr, error)| op(addr).other(error))?;
    let fd: OwnedFd = socket::socket(Domain::UNIX, ty, None).map_err(|error| op(name.addr()).call("socket", error))?;
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
    loop {
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(op(name.addr()).timed_out());
        }
        match socket::connect(fd.as_fd(), &name.raw) {
            Ok(()) => return NetFd::new(fd, network(ty)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let pause = Instant::now() + backoff.next();
                Sleep::until(deadline.map_or(pause, |deadline| deadline.min(pause))).await;
            }
            Err(error) => return Err(op(name.addr()).call("connect", error)),
        }
    }
}

/// Connects a datagram socket: the peer that `send` sends to, and the only one that is heard.
pub(super) fn connect_datagram(fd: &NetFd, name: Named) -> io::Result<()> {
    let op = |addr| Op::at("dial", network(Type::DGRAM), Some(addr));
    let name = name.map_err(|(addr, error)| op(addr).other(error))?;
    fd.fd.with(|fd| socket::connect(fd, &name.raw)).map_err(|failure| match failure {
        Failure::Io(error) => op(name.addr()).call("connect", error),
        failure => fd.error("dial", failure),
    })
}
