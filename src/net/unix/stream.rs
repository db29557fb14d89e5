//! [`UnixStream`]: connecting, reading, writing and passing descriptors.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockAddr, Type};

use super::address::Name;
use super::credentials::PeerCred;
use super::dial::{dial, network};
use super::futures::{RecvWithFds, SendWithFds};
use super::methods::socket_methods;
use crate::net::deadlines::dial_ends;
use crate::net::fd::fd;
use crate::net::fd::operation::LockScope;
use crate::net::futures::{Closed, Peek, PeerClosed, Read, ReadVectored, Write, WriteAll, WriteVectored};
use crate::net::net_fd::NetFd;
use crate::net::tcp::traits::stream_traits;
use crate::rt::poll::poller::Direction;
use crate::sys::socket;
use crate::sys::unix::from_kernel;

/// A Unix-domain byte stream: a connection within one machine.
///
/// Clones, concurrent reads and writes, deadlines and closing work as for
/// [`TcpStream`](crate::net::TcpStream). In addition, a Unix stream can pass
/// [descriptors](UnixStream::send_with_fds), and the kernel reports the
/// [peer's credentials](UnixStream::peer_cred). Socket names are described in
/// [`os::unix::net`](crate::os::unix::net).
///
/// Source: `net.UnixConn` of Go with network `unix`, `async_std::os::unix::net::UnixStream`,
/// unix(7).
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
#[doc(alias = "net.UnixConn")]
#[doc(alias = "into_split")]
#[derive(Clone)]
pub struct UnixStream {
    pub(in crate::net) fd: Arc<NetFd>,
}

/// Connecting, reading, writing and closing.
impl UnixStream {
    pub(super) fn from_net_fd(fd: NetFd) -> UnixStream {
        UnixStream { fd: fd.shared() }
    }

    pub(in crate::net) fn shared(&self) -> Arc<NetFd> {
        self.fd.clone()
    }

    pub(super) fn net_fd(fd: OwnedFd) -> io::Result<NetFd> {
        NetFd::new(fd, network(Type::STREAM))
    }

    /// Creates a stream from an accepted socket, and converts the peer's address.
    pub(super) fn adopt(fd: NetFd, peer: SockAddr) -> io::Result<(UnixStream, SocketAddr)> {
        Ok((UnixStream::from_net_fd(fd), from_kernel(&peer)?))
    }

    /// Connects to the listener at `path`.
    ///
    /// On Linux, if the listener's backlog is full, retries at intervals that grow to 50 ms,
    /// because the kernel reports no event when there is room.
    /// [`connect_timeout`](UnixStream::connect_timeout) limits the time.
    ///
    /// # Errors
    /// Returns an [`OpError`](crate::net::OpError) with the text `dial unix PATH: CALL: …`, where
    /// the call is usually `connect`, or, if no system call has failed, `dial unix PATH: REASON`.
    /// Its kind is, for example, `NotFound` if the file does not exist, `ConnectionRefused` if no
    /// socket listens on the file (or, for an abstract name, no socket of this type), or
    /// `PermissionDenied`; the OS error is EPROTOTYPE if the socket that is bound to the file is of
    /// another type. Its kind is `InvalidInput` if the path is empty or too long, or contains a NUL
    /// byte but does not begin with one, and `Unsupported` for an abstract name on a system other
    /// than Linux.
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::os::unix::net::{UnixListener, UnixStream};
    ///
    /// # let path = std::env::temp_dir().join(format!("netpoll-doc-connect-{}", std::process::id()));
    /// let listener = UnixListener::bind(&path).await?;
    /// let stream = UnixStream::connect(&path).await?;
    /// let (peer, _) = listener.accept().await?;
    /// stream.write_all(b"hello").await?;
    /// assert_eq!(peer.read(&mut [0; 8]).await?, 5);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub async fn connect<P: AsRef<Path>>(path: P) -> io::Result<UnixStream> {
        dial(Type::STREAM, Name::Path(path.as_ref()), None).await.map(UnixStream::from_net_fd)
    }

    /// Connects to the listener at `path`, waiting at most `timeout`.
    ///
    /// # Errors
    /// Returns `TimedOut` (`dial unix PATH: i/o timeout`) after `timeout`, and `InvalidInput` if
    /// `timeout` is zero, as in std. Otherwise returns the same errors as
    /// [`connect`](UnixStream::connect).
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect_timeout<P: AsRef<Path>>(path: P, timeout: Duration) -> io::Result<UnixStream> {
        dial(Type::STREAM, Name::Path(path.as_ref()), dial_ends(timeout).await?).await.map(UnixStream::from_net_fd)
    }

    /// Connects to the listener at `path`, waiting until `deadline` at most.
    ///
    /// # Errors
    /// Returns `TimedOut` after `deadline`. Otherwise returns the same errors as
    /// [`connect`](UnixStream::connect).
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect_deadline<P: AsRef<Path>>(path: P, deadline: Instant) -> io::Result<UnixStream> {
        dial(Type::STREAM, Name::Path(path.as_ref()), Some(deadline)).await.map(UnixStream::from_net_fd)
    }

    /// Connects to the listener at the address `addr`, which may be an abstract name.
    ///
    /// # Errors
    /// Returns the same errors as [`connect`](UnixStream::connect).
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect_addr(addr: &SocketAddr) -> io::Result<UnixStream> {
        dial(Type::STREAM, Name::Addr(addr), None).await.map(UnixStream::from_net_fd)
    }

    /// Creates two unnamed streams that are connected to each other.
    ///
    /// # Errors
    /// Returns the OS error, such as EMFILE.
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
    #[doc(alias = "socketpair")]
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (one, other) = fd::open_pair(Type::STREAM)?;
        let stream = |fd| UnixStream::net_fd(fd).map(UnixStream::from_net_fd);
        Ok((stream(one)?, stream(other)?))
    }

    // ---- reading ----

    /// Reads up to `buf.len()` bytes, waiting until at least one is available. Returns the number
    /// of bytes read; 0 means end of stream (or that `buf` is empty).
    ///
    /// Descriptors that arrive with the bytes are closed; use
    /// [`recv_with_fds`](UnixStream::recv_with_fds) to receive them.
    ///
    /// # Errors
    /// Returns `ConnectionReset` if the peer closed before it had read all data; `TimedOut` after
    /// the read deadline or timeout; a [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has read nothing.
    pub fn read<'a>(&'a self, buf: &'a mut [u8]) -> Read<'a> {
        Read::new(&self.fd, buf)
    }

    /// Reads into several buffers, at most 1,024, with one readv(2). Empty buffers at the front are
    /// skipped. Errors and cancel safety are those of [`read`](UnixStream::read).
    pub fn read_vectored<'a>(&'a self, bufs: &'a mut [IoSliceMut<'a>]) -> ReadVectored<'a> {
        ReadVectored::new(&self.fd, bufs)
    }

    /// Reads like [`read`](UnixStream::read) but leaves the bytes, and any descriptors that arrived
    /// with them, in the socket for the next read. Errors and cancel safety are those of
    /// [`read`](UnixStream::read).
    pub fn peek<'a>(&'a self, buf: &'a mut [u8]) -> Peek<'a> {
        Peek::new(&self.fd, buf)
    }

    /// Waits until the peer has closed its side of the connection, without reading. Data received
    /// before the close can still be read. [`close_read`](UnixStream::close_read) also ends the
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

    /// Returns whether the peer has closed its side of the connection. Also returns true after
    /// [`close_read`](UnixStream::close_read). Asks the kernel (poll(2)) unless an event has
    /// already reported the close. Never waits. macOS's poll(2) does not report that the peer has
    /// closed only its sending side.
    pub fn is_peer_closed(&self) -> bool {
        self.fd.is_peer_closed()
    }

    // ---- writing ----

    /// Writes up to `buf.len()` bytes, waiting until there is room for at least one. Returns the
    /// number of bytes written.
    ///
    /// # Errors
    /// Returns `BrokenPipe` if the peer is gone or has shut down its reading side, or if this side
    /// was shut down (no SIGPIPE is raised); `TimedOut` after the write deadline or timeout; a
    /// [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has written nothing.
    pub fn write<'a>(&'a self, buf: &'a [u8]) -> Write<'a> {
        Write::new(&self.fd, buf)
    }

    /// Writes from several buffers, at most 1,024, with one sendmsg(2). Empty buffers at the front
    /// are skipped. Errors and cancel safety are those of [`write`](UnixStream::write).
    pub fn write_vectored<'a>(&'a self, bufs: &'a [IoSlice<'a>]) -> WriteVectored<'a> {
        WriteVectored::new(&self.fd, bufs)
    }

    /// Writes all of `buf`. Concurrent calls do not interleave.
    ///
    /// # Errors
    /// Returns the same errors as [`write`](UnixStream::write). Part of `buf` may have been
    /// written.
    ///
    /// # Cancel safety
    /// Not cancel safe: part of `buf` may have been written, and the amount is unknown. The stream
    /// stays usable.
    pub fn write_all<'a>(&'a self, buf: &'a [u8]) -> WriteAll<'a> {
        WriteAll::new(&self.fd, buf)
    }

    // ---- descriptors ----

    /// Writes up to `buf.len()` bytes and passes `fds` with the first of them. Returns the number
    /// of bytes written. The peer receives duplicates, so you can close your descriptors as soon as
    /// the future completes. Write the rest of `buf` with [`write_all`](UnixStream::write_all).
    ///
    /// # Errors
    /// Returns `InvalidInput` if `buf` is empty and `fds` is not (descriptors must accompany at
    /// least one byte), or if `fds` has more than 253 descriptors; ETOOMANYREFS if this user has
    /// more descriptors in flight than this process may have open, unless the process has
    /// CAP_SYS_RESOURCE or CAP_SYS_ADMIN. Otherwise returns the same errors as
    /// [`write`](UnixStream::write).
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has written and passed nothing.
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
    #[doc(alias = "SCM_RIGHTS")]
    #[doc(alias = "WriteMsgUnix")]
    pub fn send_with_fds<'a>(&'a self, buf: &'a [u8], fds: &'a [BorrowedFd<'a>]) -> SendWithFds<'a> {
        SendWithFds::new(&self.fd, buf, fds, LockScope::PerCall)
    }

    /// Reads like [`read`](UnixStream::read), and appends the descriptors that arrived with the
    /// bytes to `fds`. They are close-on-exec. One read never returns the descriptors of two sends.
    ///
    /// # Errors
    /// Returns [`TruncatedFds`](crate::os::unix::net::TruncatedFds) if not all descriptors could be
    /// received. The received descriptors are closed, and the bytes are in `buf`. Otherwise returns
    /// the same errors as [`read`](UnixStream::read).
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has read nothing.
    #[doc(alias = "ReadMsgUnix")]
    pub fn recv_with_fds<'a>(&'a self, buf: &'a mut [u8], fds: &'a mut Vec<OwnedFd>) -> RecvWithFds<'a> {
        RecvWithFds::new(&self.fd, buf, fds, LockScope::PerCall)
    }

    /// Returns the credentials of the peer; see [`PeerCred`].
    ///
    /// # Errors
    /// Returns `NotConnected` if there is no connection, and a [closed](crate::net::is_closed)
    /// error after `force_close`.
    #[doc(alias = "SO_PEERCRED")]
    pub fn peer_cred(&self) -> io::Result<PeerCred> {
        self.fd.with("get", PeerCred::of)
    }

    // ---- closing ----

    /// Shuts down the reading side. Data already received can still be read, then reads return 0.
    /// The peer's writes fail with `BrokenPipe`. On Linux, a write of the peer that already waits
    /// for room fails only when this side reads or closes.
    ///
    /// # Errors
    /// Returns the same errors as [`shutdown`](UnixStream::shutdown).
    pub fn close_read(&self) -> io::Result<()> {
        self.fd.shutdown(Shutdown::Read)
    }

    /// Shuts down the writing side. The peer reads the data written so far, then end of stream.
    ///
    /// # Errors
    /// Returns the same errors as [`shutdown`](UnixStream::shutdown).
    pub fn close_write(&self) -> io::Result<()> {
        self.fd.shutdown(Shutdown::Write)
    }

    /// Closes the connection for all clones. Pending operations return a
    /// [closed](crate::net::is_closed) error. The close begins immediately; the future completes
    /// when the descriptor is closed. Closing twice is not an error.
    #[doc(alias = "Close")]
    pub fn force_close(&self) -> Closed {
        self.fd.close()
    }
}

socket_methods!(UnixStream);
stream_traits!(UnixStream);
crate::net::raw::raw_access!(UnixStream, PerCall);
