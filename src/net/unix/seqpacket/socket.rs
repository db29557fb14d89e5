//! [`UnixSeqpacket`]: connecting, sending and receiving messages.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockAddr, Type};

use crate::net::deadlines::dial_ends;
use crate::net::fd::fd;
use crate::net::fd::operation::LockScope;
use crate::net::futures::{Closed, PeerClosed};
use crate::net::net_fd::NetFd;
use crate::net::unix::address::Name;
use crate::net::unix::credentials::PeerCred;
use crate::net::unix::dial::{dial, network};
use crate::net::unix::futures::{Recv, RecvWithFds, Send, SendWithFds};
use crate::net::unix::methods::socket_methods;
use crate::rt::poll::poller::Direction;
use crate::sys::socket;
use crate::sys::unix::from_kernel;

/// A Unix-domain connection within one machine that preserves message boundaries.
///
/// Each `send` is received by one `recv`, in order, and no message is lost while the connection is
/// open. Clones share the connection, and every method takes `&self`, so any number of tasks can
/// send and receive concurrently. Socket names are described in
/// [`os::unix::net`](crate::os::unix::net). The type is not available on macOS.
///
/// Source: `net.UnixConn` of Go with network `unixpacket`, SOCK_SEQPACKET in unix(7).
///
/// # Examples
/// ```
/// use netpoll::os::unix::net::UnixSeqpacket;
///
/// # fn main() -> std::io::Result<()> {
/// netpoll::task::block_on(async {
///     // On Linux, with an empty name, the kernel chooses an abstract name.
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

    /// Creates a connection from an accepted socket, and converts the peer's address.
    pub(super) fn adopt(fd: NetFd, peer: SockAddr) -> io::Result<(UnixSeqpacket, SocketAddr)> {
        Ok((UnixSeqpacket::from_net_fd(fd), from_kernel(&peer)?))
    }

    /// Connects to the listener at `path`. If the listener's backlog is full, retries as
    /// [`UnixStream::connect`](crate::os::unix::net::UnixStream::connect) does.
    ///
    /// # Errors
    /// Returns the same errors as
    /// [`UnixStream::connect`](crate::os::unix::net::UnixStream::connect), with the network
    /// `unixpacket` in their texts.
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect<P: AsRef<Path>>(path: P) -> io::Result<UnixSeqpacket> {
        dial(Type::SEQPACKET, Name::Path(path.as_ref()), None).await.map(UnixSeqpacket::from_net_fd)
    }

    /// Connects to the listener at `path`, waiting at most `timeout`.
    ///
    /// # Errors
    /// Returns `TimedOut` after `timeout`, and `InvalidInput` if `timeout` is zero. Otherwise
    /// returns the same errors as [`connect`](UnixSeqpacket::connect).
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect_timeout<P: AsRef<Path>>(path: P, timeout: Duration) -> io::Result<UnixSeqpacket> {
        dial(Type::SEQPACKET, Name::Path(path.as_ref()), dial_ends(timeout).await?)
            .await
            .map(UnixSeqpacket::from_net_fd)
    }

    /// Connects to the listener at `path`, waiting until `deadline` at most.
    ///
    /// # Errors
    /// Returns `TimedOut` after `deadline`. Otherwise returns the same errors as
    /// [`connect`](UnixSeqpacket::connect).
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect_deadline<P: AsRef<Path>>(path: P, deadline: Instant) -> io::Result<UnixSeqpacket> {
        dial(Type::SEQPACKET, Name::Path(path.as_ref()), Some(deadline)).await.map(UnixSeqpacket::from_net_fd)
    }

    /// Connects to the listener at the address `addr`, which may be an abstract name.
    ///
    /// # Errors
    /// Returns the same errors as [`connect`](UnixSeqpacket::connect).
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect_addr(addr: &SocketAddr) -> io::Result<UnixSeqpacket> {
        dial(Type::SEQPACKET, Name::Addr(addr), None).await.map(UnixSeqpacket::from_net_fd)
    }

    /// Creates two unnamed sockets that are connected to each other.
    ///
    /// # Errors
    /// Returns the OS error, such as EMFILE.
    pub fn pair() -> io::Result<(UnixSeqpacket, UnixSeqpacket)> {
        let (one, other) = fd::open_pair(Type::SEQPACKET)?;
        let packets = |fd| UnixSeqpacket::net_fd(fd).map(UnixSeqpacket::from_net_fd);
        Ok((packets(one)?, packets(other)?))
    }

    /// Receives a message into `buf`. Returns the number of bytes. If `buf` is not empty, 0 means
    /// the end of the connection or an empty message. Bytes that do not fit into `buf` are lost.
    ///
    /// # Errors
    /// Returns `ConnectionReset` if the peer closed before it had received all messages; `TimedOut`
    /// after the read deadline or timeout; a [closed](crate::net::is_closed) error after
    /// `force_close`.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has received no message.
    pub fn recv<'a>(&'a self, buf: &'a mut [u8]) -> Recv<'a> {
        Recv::new(&self.fd, buf, 0)
    }

    /// Receives like [`recv`](UnixSeqpacket::recv) but leaves the message in the socket for the
    /// next call. Errors and cancel safety are those of [`recv`](UnixSeqpacket::recv).
    pub fn peek<'a>(&'a self, buf: &'a mut [u8]) -> Recv<'a> {
        Recv::new(&self.fd, buf, libc::MSG_PEEK)
    }

    /// Sends a message, waiting for room in the send buffer. Returns the number of bytes sent,
    /// which is always `buf.len()`.
    ///
    /// # Errors
    /// Returns `BrokenPipe` if the peer is gone or has shut down its reading side, or if the
    /// writing side of this socket was shut down (no SIGPIPE is raised); `ConnectionReset` as
    /// [`recv`](UnixSeqpacket::recv) does; EMSGSIZE if `buf`, with some overhead, does not fit into
    /// the send buffer; `TimedOut` after the write deadline or timeout; a
    /// [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has sent nothing.
    pub fn send<'a>(&'a self, buf: &'a [u8]) -> Send<'a> {
        Send::new(&self.fd, buf)
    }

    /// Sends a message, which may be empty, with descriptors. See
    /// [`UnixStream::send_with_fds`](crate::os::unix::net::UnixStream::send_with_fds).
    ///
    /// # Errors
    /// Returns `InvalidInput` for more than 253 descriptors, and ETOOMANYREFS if this user has more
    /// descriptors in flight than this process may have open, unless the process has
    /// CAP_SYS_RESOURCE or CAP_SYS_ADMIN. Otherwise returns the same errors as
    /// [`send`](UnixSeqpacket::send).
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has sent nothing.
    pub fn send_with_fds<'a>(&'a self, buf: &'a [u8], fds: &'a [BorrowedFd<'a>]) -> SendWithFds<'a> {
        SendWithFds::new(&self.fd, buf, fds, LockScope::None)
    }

    /// Receives a message and appends its descriptors to `fds`. See
    /// [`UnixStream::recv_with_fds`](crate::os::unix::net::UnixStream::recv_with_fds).
    ///
    /// # Errors
    /// Returns [`TruncatedFds`](crate::os::unix::net::TruncatedFds) if not all descriptors could
    /// be received. Otherwise returns the same errors as [`recv`](UnixSeqpacket::recv).
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has received no message.
    pub fn recv_with_fds<'a>(&'a self, buf: &'a mut [u8], fds: &'a mut Vec<OwnedFd>) -> RecvWithFds<'a> {
        RecvWithFds::new(&self.fd, buf, fds, LockScope::None)
    }

    /// Returns the credentials of the peer; see [`PeerCred`].
    ///
    /// # Errors
    /// Returns `NotConnected` if there is no connection, and a [closed](crate::net::is_closed)
    /// error after `force_close`.
    pub fn peer_cred(&self) -> io::Result<PeerCred> {
        self.fd.with("get", PeerCred::of)
    }

    /// Waits until the peer has closed its side of the connection, without receiving. Messages that
    /// arrived before the close can still be received. Shutting down the reading side also ends the
    /// wait.
    ///
    /// # Errors
    /// Returns `TimedOut` after the read deadline, and a [closed](crate::net::is_closed) error
    /// after `force_close`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn peer_closed(&self) -> PeerClosed<'_> {
        PeerClosed::new(&self.fd, "read")
    }

    /// Returns whether the peer has closed its side of the connection. Also returns true after the
    /// reading side was shut down. Asks the kernel (poll(2)) unless an event has already reported
    /// the close. Never waits.
    pub fn is_peer_closed(&self) -> bool {
        self.fd.is_peer_closed()
    }

    /// Closes the connection for all clones. Pending operations return a
    /// [closed](crate::net::is_closed) error. The close begins immediately; the future completes
    /// when the descriptor is closed. Closing twice is not an error.
    pub fn force_close(&self) -> Closed {
        self.fd.close()
    }
}

socket_methods!(UnixSeqpacket);
crate::net::raw::raw_access!(UnixSeqpacket, PerCall);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::IoSlice;
    use std::os::fd::AsFd;
    use std::task::{Context, Waker};
    use std::time::Instant;

    use futures_lite::future::block_on;
    use socket2::Type;

    use super::*;
    use crate::net::fd::operation::Operation;
    use crate::net::unix::fds;
    use crate::net::unix::futures::poll_message;
    use crate::sys::control::{ControlWriter, RIGHTS_WORDS};
    use crate::sys::message;
    use crate::sys::unix;

    /// The peer sends and closes between the receive that finds no message and the check for a
    /// hang-up.
    #[test]
    fn message_before_hang_up_is_received() {
        for with_fds in [false, true] {
            let (ours, theirs) = unix::pair(Type::SEQPACKET).unwrap();
            let ours = UnixSeqpacket::net_fd(ours).unwrap();
            let mut operation = Operation::new();
            let peer = socket::dup_cloexec(theirs.as_fd()).unwrap();
            let mut theirs = Some(theirs);
            let mut waited = false;
            let (mut buf, mut fds) = ([0; 16], Vec::new());
            let mut call = |fd: BorrowedFd<'_>| {
                // On the second poll a message has arrived, and another receiver takes it.
                if std::mem::replace(&mut waited, true)
                    && let Some(theirs) = theirs.take()
                {
                    assert_eq!(socket::recv(fd, &mut [0; 16], 0).unwrap(), 5);
                    let nothing = socket::recv(fd, &mut [0; 16], 0).unwrap_err();
                    let mut words = [0; RIGHTS_WORDS];
                    let mut control = ControlWriter::new(&mut words);
                    control.push_fds(&[theirs.as_fd()][..usize::from(with_fds)]).unwrap();
                    let control = with_fds.then_some(&control);
                    message::sendmsg(theirs.as_fd(), &[IoSlice::new(b"last words")], None, control, 0).unwrap();
                    socket::shutdown(theirs.as_fd(), std::net::Shutdown::Both).unwrap();
                    drop(theirs);
                    let start = Instant::now();
                    while !ours.fd.poll.is_hung_up() {
                        assert!(start.elapsed() < Duration::from_secs(120), "the hang-up was not reported");
                        std::thread::yield_now();
                    }
                    return Err(nothing);
                }
                match with_fds {
                    true => fds::recv(fd, &mut buf, &mut fds).map(|(count, _)| count),
                    false => socket::recv(fd, &mut buf, 0),
                }
            };
            let mut poll =
                |cx: &mut Context<'_>| poll_message(&ours, LockScope::None, &mut operation, cx, || Ok(0), &mut call);
            assert!(poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(socket::send(peer.as_fd(), b"first", 0).unwrap(), 5);
            drop(peer);
            let received = block_on(poll_fn(poll));
            ours.fd.cancel(Direction::Read, &mut operation);
            assert_eq!((received.unwrap(), fds.len()), (10, usize::from(with_fds)));
            drop(fds);
            let end = block_on(poll_fn(|cx| {
                poll_message(&ours, LockScope::None, &mut operation, cx, || Ok(99), |fd| socket::recv(fd, &mut buf, 0))
            }));
            assert!(matches!(end, Ok(0 | 99)), "{end:?}");
            ours.fd.cancel(Direction::Read, &mut operation);
        }
    }
}
