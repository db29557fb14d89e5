//! `UnixDatagram`.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, Type};

use super::address::{Name, from_kernel};
use super::dial::{bind, connect_datagram, network};
use super::futures::{
    Destination, Recv, RecvFrom, RecvFromWithFds, RecvWithFds, Send, SendTo, SendToWithFds, SendWithFds,
};
use super::methods::socket_methods;
use crate::net::fd::fd;
use crate::net::fd::net_fd::NetFd;
use crate::net::fd::operation::Hold;
use crate::net::futures::Closed;
use crate::rt::poll::poller::Direction;
use crate::sys::socket;

/// Datagrams between processes of this machine: whole, in order, and none lost, since who sends waits for room.
///
/// Every method takes `&self`: any number of tasks send and receive at once, without a lock. Names are described in
/// [`os::unix::net`](crate::os::unix::net). The file of a path that was bound stays when the socket is closed: remove it when nobody needs
/// it, as for std's type.
///
/// Source: `net.UnixConn` of Go with network `unixgram`, `async_std::os::unix::net::UnixDatagram`, unix(7).
///
/// # Examples
/// ```
/// use netpoll::os::unix::net::UnixDatagram;
///
/// # fn main() -> std::io::Result<()> {
/// netpoll::task::block_on(async {
///     // An empty name: the kernel chooses one.
///     let (server, client) = (UnixDatagram::bind("").await?, UnixDatagram::bind("").await?);
///     client.send_to_addr(b"ping", &server.local_addr()?).await?;
///     let mut buf = [0; 16];
///     let (count, from) = server.recv_from(&mut buf).await?;
///     server.send_to_addr(&buf[..count], &from).await?;
///     assert_eq!(client.recv(&mut buf).await?, 4);
///     Ok(())
/// })
/// # }
/// ```
pub struct UnixDatagram {
    pub(super) fd: NetFd,
}

/// Binding, connecting, receiving, sending and closing.
impl UnixDatagram {
    pub(super) fn net_fd(fd: OwnedFd) -> io::Result<NetFd> {
        NetFd::new(fd, network(Type::DGRAM))
    }

    /// A socket with the name `path`; an empty one lets the kernel choose an abstract name.
    ///
    /// # Errors
    /// An [`OpError`](crate::net::OpError) `listen unixgram PATH: bind: …`: `AddrInUse` (a file of that name exists, whether somebody uses it
    /// or not), `NotFound`, `PermissionDenied`. `InvalidInput` for a path that is too long or has a NUL in it.
    ///
    /// # Cancel safety
    /// It waits for nothing: the first poll does it.
    pub async fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixDatagram> {
        bind(Type::DGRAM, Name::Path(path.as_ref())).map(|(fd, _)| UnixDatagram { fd })
    }

    /// A socket with the address `addr`, which may be an abstract name.
    ///
    /// # Errors
    /// As [`bind`](UnixDatagram::bind).
    ///
    /// # Cancel safety
    /// It waits for nothing: the first poll does it.
    pub async fn bind_addr(addr: &SocketAddr) -> io::Result<UnixDatagram> {
        bind(Type::DGRAM, Name::Addr(addr)).map(|(fd, _)| UnixDatagram { fd })
    }

    /// A socket without a name: it can send, and nobody can answer.
    ///
    /// # Errors
    /// The system call's: no descriptor left.
    pub fn unbound() -> io::Result<UnixDatagram> {
        let fd = UnixDatagram::net_fd(fd::open(Domain::UNIX, Type::DGRAM, None)?)?;
        Ok(UnixDatagram { fd })
    }

    /// Two sockets that are connected to each other and have no name.
    ///
    /// # Errors
    /// The system call's: no descriptor left.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (one, other) = fd::open_pair(Type::DGRAM)?;
        let datagram = |fd| UnixDatagram::net_fd(fd).map(|fd| UnixDatagram { fd });
        Ok((datagram(one)?, datagram(other)?))
    }

    /// Makes the socket at `path` the peer: where [`send`](UnixDatagram::send) sends to, and the only one that is heard. It may be moved
    /// by another call.
    ///
    /// # Errors
    /// An [`OpError`](crate::net::OpError) `dial unixgram PATH: connect: …`: `NotFound`, `ConnectionRefused` (the file is there and
    /// nobody has it open), `PermissionDenied`; EPROTOTYPE where it is no datagram socket's. `InvalidInput` as in
    /// [`bind`](UnixDatagram::bind).
    ///
    /// # Cancel safety
    /// It waits for nothing: the first poll does it.
    pub async fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        connect_datagram(&self.fd, Name::Path(path.as_ref()))
    }

    /// The same by address, which may be an abstract name.
    ///
    /// # Errors
    /// As [`connect`](UnixDatagram::connect).
    ///
    /// # Cancel safety
    /// It waits for nothing: the first poll does it.
    pub async fn connect_addr(&self, addr: &SocketAddr) -> io::Result<()> {
        connect_datagram(&self.fd, Name::Addr(addr))
    }

    // ---- receiving ----

    /// Receives a datagram into `buf`: how many bytes. What does not fit is lost; with an empty `buf` all of it. 0 is an empty
    /// datagram, or this side was shut down.
    ///
    /// # Errors
    /// `TimedOut` past the read deadline; [closed](crate::net::is_closed).
    ///
    /// # Cancel safety
    /// No datagram was taken if the future is dropped.
    pub fn recv<'a>(&'a self, buf: &'a mut [u8]) -> Recv<'a> {
        Recv::new(&self.fd, buf, 0)
    }

    /// The same, and whose it is: unnamed where the sender has no name.
    pub fn recv_from<'a>(&'a self, buf: &'a mut [u8]) -> RecvFrom<'a> {
        RecvFrom::new(&self.fd, buf, 0)
    }

    /// Like [`recv`](UnixDatagram::recv), and leaves the datagram there for the next.
    pub fn peek<'a>(&'a self, buf: &'a mut [u8]) -> Recv<'a> {
        Recv::new(&self.fd, buf, libc::MSG_PEEK)
    }

    /// Like [`recv_from`](UnixDatagram::recv_from), and leaves the datagram there for the next.
    pub fn peek_from<'a>(&'a self, buf: &'a mut [u8]) -> RecvFrom<'a> {
        RecvFrom::new(&self.fd, buf, libc::MSG_PEEK)
    }

    // ---- sending ----

    /// Sends a datagram to the peer that [`connect`](UnixDatagram::connect) named, waiting for room in its queue: how many bytes, which is
    /// all of them.
    ///
    /// # Errors
    /// `NotConnected`; `ConnectionRefused` when the peer is gone; EMSGSIZE for more than the send buffer holds; `BrokenPipe` when
    /// either side was shut down: no SIGPIPE is raised. `TimedOut` past the write deadline; closed.
    ///
    /// # Cancel safety
    /// Nothing was sent if the future is dropped.
    pub fn send<'a>(&'a self, buf: &'a [u8]) -> Send<'a> {
        Send::new(&self.fd, buf)
    }

    /// Sends a datagram to the socket at `path`, waiting for room in its queue. The kernel tells of room only who is connected, so this
    /// tries again by itself, every 20 ms at last.
    ///
    /// # Errors
    /// `NotFound`, `ConnectionRefused` (the file is there and nobody has it open), `PermissionDenied`; `InvalidInput` for a path that is too
    /// long or has a NUL in it; else as [`send`](UnixDatagram::send). A connected socket may send to others too.
    ///
    /// # Cancel safety
    /// Nothing was sent if the future is dropped.
    pub fn send_to<'a, P: AsRef<Path>>(&'a self, buf: &'a [u8], path: P) -> SendTo<'a> {
        SendTo::new(&self.fd, buf, Destination::new(Name::Path(path.as_ref())))
    }

    /// The same by address, which may be an abstract name: how to answer what [`recv_from`](UnixDatagram::recv_from) brought.
    pub fn send_to_addr<'a>(&'a self, buf: &'a [u8], addr: &SocketAddr) -> SendTo<'a> {
        SendTo::new(&self.fd, buf, Destination::new(Name::Addr(addr)))
    }

    // ---- descriptors ----

    /// Sends a datagram, which may be empty, with descriptors to the peer: see
    /// [`UnixStream::send_with_fds`](super::UnixStream::send_with_fds).
    ///
    /// # Errors
    /// `InvalidInput` for more than 253 descriptors; else as [`send`](UnixDatagram::send).
    pub fn send_with_fds<'a>(&'a self, buf: &'a [u8], fds: &'a [BorrowedFd<'a>]) -> SendWithFds<'a> {
        SendWithFds::new(&self.fd, buf, fds, Hold::Free)
    }

    /// The same to the socket at `path`.
    ///
    /// # Errors
    /// As [`send_with_fds`](UnixDatagram::send_with_fds) and [`send_to`](UnixDatagram::send_to).
    pub fn send_to_with_fds<'a, P: AsRef<Path>>(
        &'a self,
        buf: &'a [u8],
        fds: &'a [BorrowedFd<'a>],
        path: P,
    ) -> SendToWithFds<'a> {
        SendToWithFds::new(&self.fd, buf, fds, Destination::new(Name::Path(path.as_ref())))
    }

    /// Receives a datagram, and its descriptors at the end of `fds`: see [`UnixStream::recv_with_fds`](super::UnixStream::recv_with_fds).
    ///
    /// # Errors
    /// [`TruncatedFds`](super::TruncatedFds); else as [`recv`](UnixDatagram::recv).
    pub fn recv_with_fds<'a>(&'a self, buf: &'a mut [u8], fds: &'a mut Vec<OwnedFd>) -> RecvWithFds<'a> {
        RecvWithFds::new(&self.fd, buf, fds, Hold::Free)
    }

    /// The same, and whose it is.
    ///
    /// # Errors
    /// As [`recv_with_fds`](UnixDatagram::recv_with_fds).
    pub fn recv_from_with_fds<'a>(&'a self, buf: &'a mut [u8], fds: &'a mut Vec<OwnedFd>) -> RecvFromWithFds<'a> {
        RecvFromWithFds::new(&self.fd, buf, fds)
    }

    /// Closes the socket: whoever waits gets the [closed](crate::net::is_closed) error. Begins at once; the future ends when the
    /// descriptor is gone. Closing twice is no error.
    pub fn close(&self) -> Closed {
        self.fd.close()
    }
}

socket_methods!(UnixDatagram);
crate::net::raw::raw_access!(UnixDatagram, Free);
