//! `UnixSeqpacket`.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockAddr, Type};

use super::address::{Name, from_kernel};
use super::credentials::PeerCred;
use super::dial::{dial, network};
use super::futures::{Recv, RecvWithFds, Send, SendWithFds};
use super::listener::UnixSeqpacketListener;
use super::methods::socket_methods;
use crate::net::deadlines::dial_ends;
use crate::net::fd::fd;
use crate::net::fd::net_fd::NetFd;
use crate::net::fd::operation::Hold;
use crate::net::futures::{Closed, PeerClosed};
use crate::rt::poll::poller::Direction;
use crate::sys::socket;

/// A connection between two processes of this machine that keeps the bounds of messages: each `send` is received by one `recv`, in
/// order, none is lost.
///
/// Clones share it, and every method takes `&self`: any number of tasks send and receive at once, and messages stay whole. Names are
/// described in [`os::unix::net`](crate::os::unix::net).
///
/// Source: `net.UnixConn` of Go with network `unixpacket`, SOCK_SEQPACKET in unix(7).
///
/// # Examples
/// ```
/// use netpoll::os::unix::net::UnixSeqpacket;
///
/// # fn main() -> std::io::Result<()> {
/// netpoll::task::block_on(async {
///     // An empty name: the kernel chooses one.
///     let listener = UnixSeqpacket::bind("").await?;
///     let client = UnixSeqpacket::connect_addr(&listener.local_addr()?).await?;
///     let (server, _) = listener.accept().await?;
///
///     client.send(b"one").await?;
///     client.send(b"two").await?;
///     let mut buf = [0; 16];
///     assert_eq!(server.recv(&mut buf).await?, 3);
///     assert_eq!(server.recv(&mut buf).await?, 3);
///     Ok(())
/// })
/// # }
/// ```
#[derive(Clone)]
pub struct UnixSeqpacket {
    pub(super) fd: Arc<NetFd>,
}

/// Connecting, receiving, sending and closing.
impl UnixSeqpacket {
    pub(super) fn from_net_fd(fd: NetFd) -> UnixSeqpacket {
        UnixSeqpacket { fd: Arc::new(fd) }
    }

    pub(super) fn net_fd(fd: OwnedFd) -> io::Result<NetFd> {
        NetFd::new(fd, network(Type::SEQPACKET))
    }

    /// Wraps an accepted socket, whose peer is `peer`.
    pub(super) fn adopt(fd: NetFd, peer: SockAddr) -> io::Result<(UnixSeqpacket, SocketAddr)> {
        Ok((UnixSeqpacket::from_net_fd(fd), from_kernel(&peer)?))
    }

    /// Listens at `path`: [`UnixSeqpacketListener::bind`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// Nothing listens if the future is dropped.
    pub async fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixSeqpacketListener> {
        UnixSeqpacketListener::bind(path).await
    }

    /// Connects to the listener at `path`. Where its backlog is full, this waits, as
    /// [`UnixStream::connect`](super::UnixStream::connect) does.
    ///
    /// # Errors
    /// As [`UnixStream::connect`](super::UnixStream::connect), with the network `unixpacket`.
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect<P: AsRef<Path>>(path: P) -> io::Result<UnixSeqpacket> {
        dial(Type::SEQPACKET, Name::Path(path.as_ref()), None).await.map(UnixSeqpacket::from_net_fd)
    }

    /// Connects to the listener at `path`, for `timeout` at most.
    ///
    /// # Errors
    /// `TimedOut` when the time is over; `InvalidInput` for a timeout of zero; else as [`connect`](UnixSeqpacket::connect).
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect_timeout<P: AsRef<Path>>(path: P, timeout: Duration) -> io::Result<UnixSeqpacket> {
        dial(Type::SEQPACKET, Name::Path(path.as_ref()), dial_ends(timeout)?).await.map(UnixSeqpacket::from_net_fd)
    }

    /// Connects to the listener at `path`, until `deadline` at most.
    ///
    /// # Errors
    /// As [`connect_timeout`](UnixSeqpacket::connect_timeout).
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect_deadline<P: AsRef<Path>>(path: P, deadline: Instant) -> io::Result<UnixSeqpacket> {
        dial(Type::SEQPACKET, Name::Path(path.as_ref()), Some(deadline)).await.map(UnixSeqpacket::from_net_fd)
    }

    /// Connects to the listener that has the address `addr`, which may be an abstract name.
    ///
    /// # Errors
    /// As [`connect`](UnixSeqpacket::connect).
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect_addr(addr: &SocketAddr) -> io::Result<UnixSeqpacket> {
        dial(Type::SEQPACKET, Name::Addr(addr), None).await.map(UnixSeqpacket::from_net_fd)
    }

    /// Two sockets that are connected to each other and have no name.
    ///
    /// # Errors
    /// The system call's: no descriptor left.
    pub fn pair() -> io::Result<(UnixSeqpacket, UnixSeqpacket)> {
        let (one, other) = fd::open_pair(Type::SEQPACKET)?;
        let packets = |fd| UnixSeqpacket::net_fd(fd).map(UnixSeqpacket::from_net_fd);
        Ok((packets(one)?, packets(other)?))
    }

    /// Receives a message into `buf`: how many bytes. What does not fit is lost. 0 is the end, or an empty message.
    ///
    /// # Errors
    /// `ConnectionReset` when the peer closed with messages unread; `TimedOut` past the read deadline; closed.
    ///
    /// # Cancel safety
    /// No message was taken if the future is dropped.
    pub fn recv<'a>(&'a self, buf: &'a mut [u8]) -> Recv<'a> {
        Recv::new(&self.fd, buf, 0)
    }

    /// Like [`recv`](UnixSeqpacket::recv), and leaves the message there for the next.
    pub fn peek<'a>(&'a self, buf: &'a mut [u8]) -> Recv<'a> {
        Recv::new(&self.fd, buf, libc::MSG_PEEK)
    }

    /// Sends a message: how many bytes, which is all of them.
    ///
    /// # Errors
    /// `BrokenPipe` when the peer is gone or this side was shut down; EMSGSIZE for more than the send buffer holds; `TimedOut` past the
    /// write deadline; closed.
    ///
    /// # Cancel safety
    /// Nothing was sent if the future is dropped.
    pub fn send<'a>(&'a self, buf: &'a [u8]) -> Send<'a> {
        Send::new(&self.fd, buf)
    }

    /// Sends a message, which may be empty, with descriptors: see [`UnixStream::send_with_fds`](super::UnixStream::send_with_fds).
    ///
    /// # Errors
    /// `InvalidInput` for more than 253 descriptors; else as [`send`](UnixSeqpacket::send).
    pub fn send_with_fds<'a>(&'a self, buf: &'a [u8], fds: &'a [BorrowedFd<'a>]) -> SendWithFds<'a> {
        SendWithFds::new(&self.fd, buf, fds, Hold::Free)
    }

    /// Receives a message, and its descriptors at the end of `fds`: see [`UnixStream::recv_with_fds`](super::UnixStream::recv_with_fds).
    ///
    /// # Errors
    /// [`TruncatedFds`](super::TruncatedFds); else as [`recv`](UnixSeqpacket::recv).
    pub fn recv_with_fds<'a>(&'a self, buf: &'a mut [u8], fds: &'a mut Vec<OwnedFd>) -> RecvWithFds<'a> {
        RecvWithFds::new(&self.fd, buf, fds, Hold::Free)
    }

    /// Who the peer is: see [`PeerCred`].
    ///
    /// # Errors
    /// `NotConnected`; closed.
    pub fn peer_cred(&self) -> io::Result<PeerCred> {
        self.fd.with("get", PeerCred::of)
    }

    /// Waits until the peer has closed its side of the connection, without receiving. What was sent before can still be received.
    ///
    /// # Errors
    /// `TimedOut` past the read deadline; closed.
    pub fn peer_closed(&self) -> PeerClosed<'_> {
        PeerClosed::new(&self.fd)
    }

    /// Whether the peer is known to have closed its side, at the cost of a load: see
    /// [`UnixStream::is_peer_closed`](super::UnixStream::is_peer_closed).
    pub fn is_peer_closed(&self) -> bool {
        self.fd.fd.poll.is_hung_up()
    }

    /// Closes the connection for all clones: whoever waits gets the [closed](crate::net::is_closed) error. Begins at once; the future
    /// ends when the descriptor is gone. Closing twice is no error.
    pub fn force_close(&self) -> Closed {
        self.fd.close()
    }
}

socket_methods!(UnixSeqpacket);
crate::net::raw::raw_access!(UnixSeqpacket, Call);
