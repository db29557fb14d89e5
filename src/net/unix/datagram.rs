//! [`UnixDatagram`]: binding, connecting, sending and receiving.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, Type};

use super::address::Name;
use super::dial::{bind, connect_datagram, network};
use super::futures::{
    Destination, Recv, RecvFrom, RecvFromWithFds, RecvWithFds, Send, SendTo, SendToWithFds, SendWithFds,
};
use super::methods::socket_methods;
use crate::net::fd::fd;
use crate::net::fd::operation::LockScope;
use crate::net::futures::Closed;
use crate::net::net_fd::NetFd;
use crate::rt::poll::poller::Direction;
use crate::sys::socket;
use crate::sys::unix::from_kernel;

/// A Unix-domain datagram socket.
///
/// The kernel delivers datagrams whole and in order. On Linux, it drops none for lack of room,
/// because a sender waits for room in the receiver's queue.
///
/// Every method takes `&self`, so any number of tasks can send and receive in parallel, without a
/// lock. Socket names are described in [`os::unix::net`](crate::os::unix::net). As with std's type,
/// the file of a bound path remains when the socket is closed; remove it when it is no longer
/// needed.
///
/// Source: `net.UnixConn` of Go with network `unixgram`, `async_std::os::unix::net::UnixDatagram`,
/// unix(7).
///
/// # Examples
/// ```
/// use netpoll::os::unix::net::UnixDatagram;
///
/// # fn main() -> std::io::Result<()> {
/// netpoll::task::block_on(async {
///     // On Linux, with an empty name, the kernel chooses an abstract name.
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

    /// Creates a socket that is bound to `path`. On Linux, with an empty path, the kernel chooses
    /// an abstract name.
    ///
    /// # Errors
    /// Returns an [`OpError`](crate::net::OpError) with the text `listen unixgram PATH: CALL: …`
    /// or, if no system call has failed, `listen unixgram PATH: REASON`. Its kind is, for example,
    /// `AddrInUse` if a file of that name exists, even if no socket is bound to it, or if the
    /// abstract name is in use; `NotFound` if the directory does not exist; or `PermissionDenied`.
    /// Its kind is `InvalidInput` if the path is too long, or contains a NUL byte but does not
    /// begin with one, and `Unsupported` for an abstract name on a system other than Linux.
    ///
    /// # Cancel safety
    /// If the future is dropped before it completes, the name is not bound.
    pub async fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixDatagram> {
        bind(Type::DGRAM, Name::Path(path.as_ref())).await.map(|(fd, _)| UnixDatagram { fd })
    }

    /// Creates a socket that is bound to `addr`, which may be an abstract name.
    ///
    /// # Errors
    /// Returns the same errors as [`bind`](UnixDatagram::bind).
    ///
    /// # Cancel safety
    /// If the future is dropped before it completes, the name is not bound.
    pub async fn bind_addr(addr: &SocketAddr) -> io::Result<UnixDatagram> {
        bind(Type::DGRAM, Name::Addr(addr)).await.map(|(fd, _)| UnixDatagram { fd })
    }

    /// Creates a socket without a name. It can send, but receivers cannot answer.
    ///
    /// # Errors
    /// Returns the OS error, such as EMFILE.
    pub fn unbound() -> io::Result<UnixDatagram> {
        let fd = UnixDatagram::net_fd(fd::open(Domain::UNIX, Type::DGRAM, None)?)?;
        Ok(UnixDatagram { fd })
    }

    /// Creates two unnamed sockets that are connected to each other.
    ///
    /// # Errors
    /// Returns the OS error, such as EMFILE.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (one, other) = fd::open_pair(Type::DGRAM)?;
        let datagram = |fd| UnixDatagram::net_fd(fd).map(|fd| UnixDatagram { fd });
        Ok((datagram(one)?, datagram(other)?))
    }

    /// Makes the socket at `path` the peer: [`send`](UnixDatagram::send) sends to it, and only its
    /// datagrams are accepted. Datagrams that are already in the queue stay there. Another call
    /// changes the peer; Linux then discards the queue.
    ///
    /// # Errors
    /// Returns an [`OpError`](crate::net::OpError) with the text `dial unixgram PATH: connect: …`
    /// or, for an invalid path, `dial unixgram PATH: REASON`. Its kind is, for example, `NotFound`
    /// if the file does not exist, `ConnectionRefused` if no socket is bound to the file (or, for
    /// an abstract name, no datagram socket), or `PermissionDenied`; the OS error is EPROTOTYPE if
    /// the socket that is bound to the file is not a datagram socket. Its kind is `InvalidInput`
    /// for an empty path, and that of [`bind`](UnixDatagram::bind) for an invalid path. Returns a
    /// [closed](crate::net::is_closed) error after `close`.
    ///
    /// # Cancel safety
    /// If the future is dropped before it completes, the peer is unchanged.
    pub async fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        connect_datagram(&self.fd, Name::Path(path.as_ref())).await
    }

    /// Makes the socket at the address `addr` the peer. The address may be an abstract name.
    ///
    /// # Errors
    /// Returns the same errors as [`connect`](UnixDatagram::connect).
    ///
    /// # Cancel safety
    /// If the future is dropped before it completes, the peer is unchanged.
    pub async fn connect_addr(&self, addr: &SocketAddr) -> io::Result<()> {
        connect_datagram(&self.fd, Name::Addr(addr)).await
    }

    // ---- receiving ----

    /// Receives a datagram into `buf`. Returns the number of bytes. If `buf` is not empty, 0 means
    /// an empty datagram, or that receiving was shut down. Bytes that do not fit into `buf` are
    /// lost.
    ///
    /// # Errors
    /// Returns `ConnectionReset` if the peer connected to another socket before it had received all
    /// datagrams; `TimedOut` after the read deadline or timeout; a [closed](crate::net::is_closed)
    /// error after `close`.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has received no datagram.
    pub fn recv<'a>(&'a self, buf: &'a mut [u8]) -> Recv<'a> {
        Recv::new(&self.fd, buf, 0)
    }

    /// Receives a datagram like [`recv`](UnixDatagram::recv) and also returns the sender's address,
    /// which may be unnamed. Errors and cancel safety are those of [`recv`](UnixDatagram::recv).
    pub fn recv_from<'a>(&'a self, buf: &'a mut [u8]) -> RecvFrom<'a> {
        RecvFrom::new(&self.fd, buf, 0)
    }

    /// Receives like [`recv`](UnixDatagram::recv) but leaves the datagram in the socket for the
    /// next call. Errors and cancel safety are those of [`recv`](UnixDatagram::recv).
    pub fn peek<'a>(&'a self, buf: &'a mut [u8]) -> Recv<'a> {
        Recv::new(&self.fd, buf, libc::MSG_PEEK)
    }

    /// Receives like [`recv_from`](UnixDatagram::recv_from) but leaves the datagram in the socket
    /// for the next call. Errors and cancel safety are those of [`recv`](UnixDatagram::recv).
    pub fn peek_from<'a>(&'a self, buf: &'a mut [u8]) -> RecvFrom<'a> {
        RecvFrom::new(&self.fd, buf, libc::MSG_PEEK)
    }

    // ---- sending ----

    /// Sends a datagram to the peer (see [`connect`](UnixDatagram::connect) and
    /// [`pair`](UnixDatagram::pair)), waiting for room in the send buffer and in the peer's queue.
    /// Returns the number of bytes sent, which is always `buf.len()`.
    ///
    /// # Errors
    /// Returns `NotConnected` if the socket has no peer; `ConnectionRefused` if the peer is gone,
    /// after which the socket has no peer; `PermissionDenied` if the peer is connected to another
    /// socket; `ConnectionReset` as [`recv`](UnixDatagram::recv) does; EMSGSIZE if `buf`, with some
    /// overhead, does not fit into the send buffer; `BrokenPipe` if this socket's sending or the
    /// peer's receiving was shut down (no SIGPIPE is raised); `TimedOut` after the write deadline
    /// or timeout; a [closed](crate::net::is_closed) error after `close`.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has sent nothing.
    pub fn send<'a>(&'a self, buf: &'a [u8]) -> Send<'a> {
        Send::new(&self.fd, buf)
    }

    /// Sends a datagram to the socket at `path`, waiting for room in the send buffer and in that
    /// socket's queue. Linux reports room in a queue only to connected senders, so while the queue
    /// is full, this method retries at intervals that grow to 20 ms. On Linux, a connected socket
    /// can also send to other sockets.
    ///
    /// # Errors
    /// Returns `NotFound` if the file does not exist; `ConnectionRefused` if no socket is bound to
    /// the file (or, for an abstract name, no datagram socket); EPROTOTYPE if the socket that is
    /// bound to the file is not a datagram socket; `PermissionDenied`; `InvalidInput` for an empty
    /// path; the kind that [`bind`](UnixDatagram::bind) returns for an invalid path. Otherwise
    /// returns the same errors as [`send`](UnixDatagram::send).
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has sent nothing.
    pub fn send_to<'a, P: AsRef<Path>>(&'a self, buf: &'a [u8], path: P) -> SendTo<'a> {
        SendTo::new(&self.fd, buf, Destination::new(Name::Path(path.as_ref())))
    }

    /// Sends a datagram like [`send_to`](UnixDatagram::send_to), to the address `addr`, which may
    /// be an abstract name. Use this method to answer a datagram from
    /// [`recv_from`](UnixDatagram::recv_from). Errors and cancel safety are those of
    /// [`send_to`](UnixDatagram::send_to).
    pub fn send_to_addr<'a>(&'a self, buf: &'a [u8], addr: &SocketAddr) -> SendTo<'a> {
        SendTo::new(&self.fd, buf, Destination::new(Name::Addr(addr)))
    }

    // ---- descriptors ----

    /// Sends a datagram, which may be empty, with descriptors to the peer. See
    /// [`UnixStream::send_with_fds`](super::UnixStream::send_with_fds).
    ///
    /// # Errors
    /// Returns `InvalidInput` for more than 253 descriptors, and ETOOMANYREFS if this user has more
    /// descriptors in flight than this process may have open, unless the process has
    /// CAP_SYS_RESOURCE or CAP_SYS_ADMIN. Otherwise returns the same errors as
    /// [`send`](UnixDatagram::send).
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has sent nothing.
    pub fn send_with_fds<'a>(&'a self, buf: &'a [u8], fds: &'a [BorrowedFd<'a>]) -> SendWithFds<'a> {
        SendWithFds::new(&self.fd, buf, fds, LockScope::None)
    }

    /// Sends a datagram with descriptors to the socket at `path`.
    ///
    /// # Errors
    /// Returns the same errors as [`send_with_fds`](UnixDatagram::send_with_fds) and
    /// [`send_to`](UnixDatagram::send_to).
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has sent nothing.
    pub fn send_to_with_fds<'a, P: AsRef<Path>>(
        &'a self,
        buf: &'a [u8],
        fds: &'a [BorrowedFd<'a>],
        path: P,
    ) -> SendToWithFds<'a> {
        SendToWithFds::new(&self.fd, buf, fds, Destination::new(Name::Path(path.as_ref())))
    }

    /// Receives a datagram and appends its descriptors to `fds`. See
    /// [`UnixStream::recv_with_fds`](super::UnixStream::recv_with_fds).
    ///
    /// # Errors
    /// Returns [`TruncatedFds`](super::TruncatedFds) if not all descriptors could be received.
    /// Otherwise returns the same errors as [`recv`](UnixDatagram::recv).
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has received no datagram.
    pub fn recv_with_fds<'a>(&'a self, buf: &'a mut [u8], fds: &'a mut Vec<OwnedFd>) -> RecvWithFds<'a> {
        RecvWithFds::new(&self.fd, buf, fds, LockScope::None)
    }

    /// Receives a datagram and its descriptors like [`recv_with_fds`](UnixDatagram::recv_with_fds),
    /// and also returns the sender's address.
    ///
    /// Errors and cancel safety are those of [`recv_with_fds`](UnixDatagram::recv_with_fds).
    pub fn recv_from_with_fds<'a>(&'a self, buf: &'a mut [u8], fds: &'a mut Vec<OwnedFd>) -> RecvFromWithFds<'a> {
        RecvFromWithFds::new(&self.fd, buf, fds)
    }

    /// Closes the socket. Pending operations return a [closed](crate::net::is_closed) error. The
    /// close begins immediately; the future completes when the descriptor is closed. Closing twice
    /// is not an error.
    pub fn close(&self) -> Closed {
        self.fd.close()
    }
}

socket_methods!(UnixDatagram);
crate::net::raw::raw_access!(UnixDatagram, None);
