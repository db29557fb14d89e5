//! Connecting to one TCP address: [`Recipe`] opens the socket, and [`dial_tcp`] connects it.
//!
//! # Rules
//! A socket with an ephemeral port may connect to itself if the destination is an unused port of
//! this host (Go issue 2690). Such a connection is closed, and the dial is retried at most twice.
//! EADDRNOTAVAIL, and a connection whose addresses the kernel no longer returns, are treated in the
//! same way. As in Go, the connection of the last attempt is not checked. There is no retry if the
//! user chose the local port.
//!
//! # Cost
//! With the default options and without retries, a dial takes these system calls: socket(2), five
//! setsockopt(2), connect(2), epoll_ctl(2), the wait, getpeername(2) and getsockname(2). A dial to
//! a loopback address usually needs neither epoll_ctl(2) nor the wait.
//!
//! # Cancellation
//! Dropping the future closes the socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use socket2::{Domain, Protocol, SockAddr, Type};

use crate::net::error::{Addr, Op};
use crate::net::fd::connect::connect;
use crate::net::fd::fd;
use crate::net::net_fd::NetFd;
use crate::net::options::system::DialExtras;
use crate::net::options::tcp::TcpOptions;
use crate::rt::context;
use crate::rt::poll::poller::Failure;
use crate::rt::time::clock;
use crate::sys::{option, socket};
use crate::trace;

/// The function set by [`Dialer::control`](crate::net::Dialer::control).
type ControlFn = dyn Fn(&str, SocketAddr, BorrowedFd<'_>) -> io::Result<()> + Send + Sync;

/// The control function of a [`Recipe`].
#[derive(Clone)]
pub(in crate::net) struct Control(pub(in crate::net) Arc<ControlFn>);

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control")
    }
}

/// The configuration of a socket before it connects.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(in crate::net) local: Option<SocketAddr>,
    pub(in crate::net) tcp: TcpOptions,
    /// Options that depend on the system.
    pub(in crate::net) extras: DialExtras,
    pub(in crate::net) control: Option<Control>,
    /// Whether the connection gathers writes.
    pub(in crate::net) auto_cork: bool,
}

impl Recipe {
    /// Creates the recipe that `TcpStream::connect` uses.
    pub(crate) const fn new() -> Recipe {
        Recipe { local: None, tcp: TcpOptions::new(), extras: DialExtras::new(), control: None, auto_cork: false }
    }

    /// Returns the operation "dial `addr`", for errors.
    pub(crate) fn op(&self, addr: SocketAddr) -> Op {
        Op::between("dial", "tcp", self.local.map(Addr::Ip), Some(Addr::Ip(addr)))
    }

    /// Returns whether the user chose the local port.
    pub(crate) fn has_port(&self) -> bool {
        self.local.is_some_and(|local| local.port() != 0)
    }

    /// Opens a socket that is ready to connect to `addr`. An error of a system call or of the
    /// control function is the `OpError` of a dial.
    pub(crate) fn open(&self, addr: SocketAddr) -> io::Result<NetFd> {
        let (socket, is_tcp) = self.socket(addr)?;
        let fd = socket.as_fd();
        let set = |error| self.op(addr).call("setsockopt", error);
        self.tcp.apply(fd).map_err(set)?;
        self.extras.apply(fd).map_err(set)?;
        if self.has_port() {
            // An unanswered attempt still holds the port when the next attempt begins.
            option::socket::set_reuse_address(fd, true).map_err(set)?;
        }
        if let Some(Control(control)) = &self.control {
            let network = if addr.is_ipv4() { "tcp4" } else { "tcp6" };
            control(network, addr, fd).map_err(|error| self.op(addr).other(error))?;
            // The function may have made the socket blocking. connect(2) would then block this
            // thread.
            socket::set_nonblocking(fd, true).map_err(|error| self.op(addr).call("fcntl", error))?;
        }
        if let Some(local) = self.local {
            socket::bind(fd, &SockAddr::from(local)).map_err(|error| self.op(addr).call("bind", error))?;
        }
        let make = if is_tcp { NetFd::tcp } else { NetFd::tcp_or_multipath };
        let stream = make(socket).map_err(|error| self.op(addr).other(error))?;
        if self.auto_cork {
            stream.fd.set_wants_gathering();
        }
        if self.control.is_some() {
            // The control function may have duplicated the descriptor.
            stream.expose();
        }
        Ok(stream)
    }

    /// Opens the socket. Also returns whether it is a plain TCP socket.
    fn socket(&self, addr: SocketAddr) -> io::Result<(OwnedFd, bool)> {
        let domain = Domain::for_address(addr);
        // If an MPTCP socket cannot be opened (no support, a sandbox, a policy), falls back to TCP.
        let multipath = self.extras.open(domain);
        let is_tcp = multipath.is_none();
        let socket = match multipath {
            Some(socket) => socket,
            None => fd::open(domain, Type::STREAM, Some(Protocol::TCP))
                .map_err(|error| self.op(addr).call("socket", error))?,
        };
        if let SocketAddr::V6(v6) = addr
            && v6.ip().to_ipv4_mapped().is_some()
        {
            let _ = option::ip::set_only_v6(socket.as_fd(), false);
        }
        Ok((socket, is_tcp))
    }
}

/// The maximum number of retries after a connection that [`OwnPeer`] describes, or after
/// EADDRNOTAVAIL.
const RETRIES_MAX: u32 = 2;

/// Connects to `addr` with a socket opened by `recipe`, waiting until `deadline` at most.
pub(crate) async fn dial_tcp(addr: SocketAddr, deadline: Option<Instant>, recipe: &Recipe) -> io::Result<NetFd> {
    let attempt = trace::Attempt::begin(addr);
    let dialled = dial(addr, deadline, recipe).await;
    attempt.end(&dialled);
    dialled
}

async fn dial(addr: SocketAddr, deadline: Option<Instant>, recipe: &Recipe) -> io::Result<NetFd> {
    let op = || recipe.op(addr);
    if deadline.is_some_and(|deadline| deadline <= clock::instant()) {
        context::take_turn().await;
        return Err(op().timed_out());
    }
    let retries_max = if recipe.has_port() { 0 } else { RETRIES_MAX };
    let mut retries = 0;
    loop {
        let stream = recipe.open(addr)?;
        let error = match connect(&stream.fd, addr, deadline).await {
            Ok(()) => match local_unless_own_peer(&stream, addr, retries < retries_max) {
                Ok(local) => {
                    if !stream.fd.uses_fast_open() {
                        stream.fd.poll.set_connection(local.or(recipe.local), addr);
                    }
                    stream.keep_names(Some(addr));
                    return Ok(stream);
                }
                Err(OwnPeer) => None,
            },
            Err(Failure::Io(error)) => {
                // The connect may have failed without waiting, so a loop of dials must yield here.
                context::take_turn().await;
                Some(error)
            }
            Err(failure) => return Err(failure.into_error(op())),
        };
        match error {
            Some(error) if retries == retries_max || error.raw_os_error() != Some(libc::EADDRNOTAVAIL) => {
                return Err(op().call("connect", error));
            }
            _ => retries += 1,
        }
    }
}

/// The error of a socket that is connected to itself, or whose addresses the kernel does not
/// return.
struct OwnPeer;

/// Returns the local address of the connection to `addr`. If `asks` is false, returns `None`
/// without asking the kernel.
///
/// # Errors
/// Returns an error if the socket is connected to itself, or if the kernel does not return its
/// addresses, for example because the connection has been reset.
fn local_unless_own_peer(stream: &NetFd, addr: SocketAddr, asks: bool) -> Result<Option<SocketAddr>, OwnPeer> {
    if !asks {
        return Ok(None);
    }
    let ask = |fd: BorrowedFd<'_>| {
        let local = socket::local_addr(fd)?;
        // If the ports differ, the peer is another socket. Otherwise the kernel is asked for the
        // peer's address, because `addr` may be a wildcard address, which means this host.
        Ok((local, local.port() == addr.port() && local == socket::peer_addr(fd)?))
    };
    match stream.fd.with(ask) {
        Ok((local, false)) => Ok(Some(local)),
        _ => Err(OwnPeer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::options::{self, KeepAlive};

    #[test]
    fn socket_has_the_defaults_before_connect() {
        let socket = Recipe::new().open((std::net::Ipv4Addr::LOCALHOST, 1).into()).unwrap();
        let fd = socket.fd.borrow();
        assert!(options::nodelay(fd).unwrap());
        assert_eq!(options::keepalive(fd).unwrap(), Some(KeepAlive::new()));
    }
}
