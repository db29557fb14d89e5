//! `UnixStream`.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
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
use super::futures::{RecvWithFds, SendWithFds};
use super::methods::socket_methods;
use crate::net::deadlines::dial_ends;
use crate::net::fd::fd;
use crate::net::fd::net_fd::NetFd;
use crate::net::fd::operation::Hold;
use crate::net::futures::{Closed, Peek, PeerClosed, Read, ReadVectored, Write, WriteAll, WriteVectored};
use crate::net::tcp::traits::stream_traits;
use crate::rt::poll::poller::Direction;
use crate::sys::socket;

/// A stream of bytes between two processes of this machine.
///
/// What [`TcpStream`](crate::net::TcpStream) says of clones, of reading and writing side by side, of deadlines and of closing holds here
/// too. Beside bytes it carries [descriptors](UnixStream::send_with_fds), and the kernel knows [who the peer
/// is](UnixStream::peer_cred). Names are described in [`os::unix::net`](crate::os::unix::net).
///
/// Source: `net.UnixConn` of Go with network `unix`, `async_std::os::unix::net::UnixStream`, unix(7).
///
/// # Examples
/// ```
/// use netpoll::os::unix::net::{UnixListener, UnixStream};
///
/// # fn main() -> std::io::Result<()> {
/// # let path = std::env::temp_dir().join(format!("netpoll-doc-stream-{}", std::process::id()));
/// netpoll::task::block_on(async {
///     let listener = UnixListener::bind(&path).await?;
///     let stream = UnixStream::connect(&path).await?;
///     let (peer, _) = listener.accept().await?;
///
///     stream.write_all(b"hello").await?;
///     let mut buf = [0; 16];
///     let count = peer.read(&mut buf).await?;
///     assert_eq!(&buf[..count], b"hello");
///     Ok(())
/// })
/// # }
/// ```
#[derive(Clone)]
pub struct UnixStream {
    pub(super) fd: Arc<NetFd>,
}

/// Connecting, reading, writing and closing.
impl UnixStream {
    pub(super) fn from_net_fd(fd: NetFd) -> UnixStream {
        UnixStream { fd: Arc::new(fd) }
    }

    pub(in crate::net) fn shared(&self) -> Arc<NetFd> {
        self.fd.clone()
    }

    pub(super) fn net_fd(fd: OwnedFd) -> io::Result<NetFd> {
        NetFd::new(fd, network(Type::STREAM))
    }

    /// The socket, for traits that are implemented elsewhere.
    #[cfg(any(feature = "hyper", feature = "tokio-io"))]
    #[inline]
    pub(crate) fn as_net_fd(&self) -> &NetFd {
        &self.fd
    }

    /// The socket while a handle of it lives.
    #[cfg(feature = "hyper")]
    pub(crate) fn downgrade(&self) -> std::sync::Weak<NetFd> {
        Arc::downgrade(&self.fd)
    }

    /// Wraps an accepted socket, whose peer is `peer`.
    pub(super) fn adopt(fd: NetFd, peer: SockAddr) -> io::Result<(UnixStream, SocketAddr)> {
        Ok((UnixStream::from_net_fd(fd), from_kernel(&peer)?))
    }

    /// Connects to the listener at `path`.
    ///
    /// Where the listener's backlog is full, this waits and tries again, every 50 ms at last, until it succeeds: the kernel tells
    /// nobody when there is room. [`connect_timeout`](UnixStream::connect_timeout) sets a bound.
    ///
    /// # Errors
    /// An [`OpError`](crate::net::OpError) `dial unix PATH: connect: …`: `NotFound`, `ConnectionRefused` (the file is there and nobody
    /// listens), `PermissionDenied`; EPROTOTYPE where the listener is of another kind. `InvalidInput` for a path that is too long or
    /// has a NUL in it.
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect<P: AsRef<Path>>(path: P) -> io::Result<UnixStream> {
        dial(Type::STREAM, Name::Path(path.as_ref()), None).await.map(UnixStream::from_net_fd)
    }

    /// Connects to the listener at `path`, for `timeout` at most.
    ///
    /// # Errors
    /// `TimedOut` (`dial unix PATH: i/o timeout`) when the time is over; `InvalidInput` for a timeout of zero, as in std; else as
    /// [`connect`](UnixStream::connect).
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect_timeout<P: AsRef<Path>>(path: P, timeout: Duration) -> io::Result<UnixStream> {
        dial(Type::STREAM, Name::Path(path.as_ref()), dial_ends(timeout)?).await.map(UnixStream::from_net_fd)
    }

    /// Connects to the listener at `path`, until `deadline` at most.
    ///
    /// # Errors
    /// As [`connect_timeout`](UnixStream::connect_timeout).
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect_deadline<P: AsRef<Path>>(path: P, deadline: Instant) -> io::Result<UnixStream> {
        dial(Type::STREAM, Name::Path(path.as_ref()), Some(deadline)).await.map(UnixStream::from_net_fd)
    }

    /// Connects to the listener that has the address `addr`, which may be an abstract name.
    ///
    /// # Errors
    /// As [`connect`](UnixStream::connect).
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect_addr(addr: &SocketAddr) -> io::Result<UnixStream> {
        dial(Type::STREAM, Name::Addr(addr), None).await.map(UnixStream::from_net_fd)
    }

    /// Two streams that are connected to each other and have no name.
    ///
    /// # Errors
    /// The system call's: no descriptor left.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::os::unix::net::UnixStream;
    ///
    /// let (one, other) = UnixStream::pair()?;
    /// one.write_all(b"hi").await?;
    /// let mut buf = [0; 2];
    /// assert_eq!(other.read(&mut buf).await?, 2);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (one, other) = fd::open_pair(Type::STREAM)?;
        let stream = |fd| UnixStream::net_fd(fd).map(UnixStream::from_net_fd);
        Ok((stream(one)?, stream(other)?))
    }

    // ---- reading ----

    /// Reads what is there into `buf`, waiting for something: how many bytes. 0 is the end of the stream (or `buf` is empty).
    ///
    /// Descriptors that came with the bytes are closed; see [`recv_with_fds`](UnixStream::recv_with_fds).
    ///
    /// # Errors
    /// `ConnectionReset` when the peer closed with bytes unread; `TimedOut` past the read deadline;
    /// [closed](crate::net::is_closed).
    ///
    /// # Cancel safety
    /// Nothing was read if the future is dropped.
    pub fn read<'a>(&'a self, buf: &'a mut [u8]) -> Read<'a> {
        Read::new(&self.fd, buf)
    }

    /// Reads into several buffers with one call (readv(2)), at most 1,024 of them; empty buffers at the front are skipped. Otherwise
    /// like [`read`](UnixStream::read).
    pub fn read_vectored<'a>(&'a self, bufs: &'a mut [IoSliceMut<'a>]) -> ReadVectored<'a> {
        ReadVectored::new(&self.fd, bufs)
    }

    /// Like [`read`](UnixStream::read), and leaves the bytes there for the next read, and the descriptors with them.
    pub fn peek<'a>(&'a self, buf: &'a mut [u8]) -> Peek<'a> {
        Peek::new(&self.fd, buf)
    }

    /// Waits until the peer has closed its side of the connection, without reading. What was sent before can still be read.
    ///
    /// # Errors
    /// `TimedOut` past the read deadline; closed.
    pub fn peer_closed(&self) -> PeerClosed<'_> {
        PeerClosed::new(&self.fd)
    }

    /// Whether the peer is known to have closed its side, at the cost of a load. It is heard of from the first operation on that
    /// had to wait.
    pub fn is_peer_closed(&self) -> bool {
        self.fd.fd.poll.is_hung_up()
    }

    // ---- writing ----

    /// Writes from `buf`, waiting for room for something: how many bytes.
    ///
    /// # Errors
    /// `BrokenPipe` when the peer is gone or this side was shut down: no SIGPIPE is raised. `TimedOut` past the write deadline;
    /// closed.
    ///
    /// # Cancel safety
    /// Nothing was written if the future is dropped.
    pub fn write<'a>(&'a self, buf: &'a [u8]) -> Write<'a> {
        Write::new(&self.fd, buf)
    }

    /// Writes from several buffers with one call (sendmsg(2)), at most 1,024 of them; empty buffers at the front are skipped. Otherwise
    /// like [`write`](UnixStream::write).
    pub fn write_vectored<'a>(&'a self, bufs: &'a [IoSlice<'a>]) -> WriteVectored<'a> {
        WriteVectored::new(&self.fd, bufs)
    }

    /// Writes all of `buf`. No other write comes in between.
    ///
    /// # Errors
    /// As [`write`](UnixStream::write); a part may have been written.
    ///
    /// # Cancel safety
    /// Not cancel safe: a part may have been written, and how much is lost. The stream itself stays usable.
    pub fn write_all<'a>(&'a self, buf: &'a [u8]) -> WriteAll<'a> {
        WriteAll::new(&self.fd, buf)
    }

    // ---- descriptors ----

    /// Writes from `buf`, and passes `fds` with its first byte: how many bytes. The peer gets duplicates; these may be closed as soon
    /// as the future is done. What is left of `buf` is for [`write_all`](UnixStream::write_all), without descriptors.
    ///
    /// # Errors
    /// `InvalidInput` for an empty `buf` (descriptors need a byte to travel with) or more than 253 descriptors; ETOOMANYREFS when more are
    /// under way than this process may have open; else as [`write`](UnixStream::write).
    ///
    /// # Cancel safety
    /// Nothing was written or passed if the future is dropped.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::{net::{TcpListener, TcpStream}, os::unix::net::UnixStream};
    /// use std::os::fd::AsFd;
    ///
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// ours.send_with_fds(b"a listener", &[listener.as_fd()]).await?;
    ///
    /// let (mut buf, mut fds) = ([0; 16], Vec::new());
    /// assert_eq!(theirs.recv_with_fds(&mut buf, &mut fds).await?, 10);
    /// let same = TcpListener::from(fds.pop().unwrap());
    /// assert_eq!(same.local_addr()?, listener.local_addr()?);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn send_with_fds<'a>(&'a self, buf: &'a [u8], fds: &'a [BorrowedFd<'a>]) -> SendWithFds<'a> {
        SendWithFds::new(&self.fd, buf, fds, Hold::Call)
    }

    /// Reads what is there into `buf`, as [`read`](UnixStream::read) does, and moves the descriptors that came with it to the end
    /// of `fds`: close-on-exec, and owned. Bytes that carry descriptors are not read together with those before them that carry
    /// others.
    ///
    /// # Errors
    /// [`TruncatedFds`](crate::os::unix::net::TruncatedFds) where this process cannot have that many: all that came are closed, the bytes
    /// are in `buf`. Else as [`read`](UnixStream::read).
    ///
    /// # Cancel safety
    /// Nothing was read if the future is dropped.
    pub fn recv_with_fds<'a>(&'a self, buf: &'a mut [u8], fds: &'a mut Vec<OwnedFd>) -> RecvWithFds<'a> {
        RecvWithFds::new(&self.fd, buf, fds, Hold::Call)
    }

    /// Who the peer is: see [`PeerCred`].
    ///
    /// # Errors
    /// `NotConnected`; closed.
    pub fn peer_cred(&self) -> io::Result<PeerCred> {
        self.fd.with("get", PeerCred::of)
    }

    // ---- closing ----

    /// Shuts the reading side down: reads return 0, and the peer's writes fail with `BrokenPipe`.
    ///
    /// # Errors
    /// As [`shutdown`](UnixStream::shutdown).
    pub fn close_read(&self) -> io::Result<()> {
        self.fd.shutdown(Shutdown::Read)
    }

    /// Shuts the writing side down: the peer reads what was sent, then the end of the stream.
    ///
    /// # Errors
    /// As [`shutdown`](UnixStream::shutdown).
    pub fn close_write(&self) -> io::Result<()> {
        self.fd.shutdown(Shutdown::Write)
    }

    /// Closes the connection for all clones: whoever waits gets the [closed](crate::net::is_closed) error. Begins at once; the future
    /// ends when the descriptor is gone. Closing twice is no error.
    pub fn force_close(&self) -> Closed {
        self.fd.close()
    }
}

socket_methods!(UnixStream);
stream_traits!(UnixStream);
crate::net::raw::raw_access!(UnixStream, Call);
