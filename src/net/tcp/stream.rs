//! `TcpStream`.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::SockAddr;

use crate::net::deadlines::{deadline_methods, dial_ends};
use crate::net::dialer::Recipe;
use crate::net::error::Op;
use crate::net::fd::dial::dial_tcp;
use crate::net::fd::net_fd::NetFd;
use crate::net::futures::{
    Closed, Peek, PeerClosed, Read, ReadVectored, Readable, Writable, Write, WriteAll, WriteVectored,
};
use crate::net::raw::raw_access;
use crate::net::{AddrError, KeepAlive, ToSocketAddrs, options};
use crate::rt::poll::poller::Direction;
use crate::sys::socket;

/// A TCP connection.
///
/// A handle: clones share the connection, and every method takes `&self`, so any number of tasks read and write at once. Reads are
/// served one after the other, and so are writes; a read and a write run side by side. The connection is closed when the last clone
/// is dropped, or by [`force_close`](TcpStream::force_close).
///
/// Reading and writing go by the methods here or by futures-io's traits, which are implemented for `TcpStream` and `&TcpStream`.
/// Streams made here have TCP_NODELAY and keep-alive (15 s, every 15 s, nine times); ones converted from elsewhere are left
/// as they are.
///
/// # Deadlines
/// [`set_deadline`](TcpStream::set_deadline) and its like say at which moment operations fail, those that wait included, whoever
/// makes them: a deadline reaches through TLS, a buffer or an HTTP library that holds the stream. Moving one later costs an atomic
/// swap, so setting one before every read is the intended use.
///
/// # Closing
/// `close()` of the traits flushes and sends FIN; other clones can go on reading. [`force_close`](TcpStream::force_close) ends
/// everything at once.
///
/// Source: `net.TCPConn` of Go, `async_std::net::TcpStream`.
///
/// # Examples
/// ```
/// use netpoll::net::{TcpListener, TcpStream};
/// use std::time::{Duration, Instant};
///
/// # fn main() -> std::io::Result<()> {
/// netpoll::task::block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     let stream = TcpStream::connect(listener.local_addr()?).await?;
///     let (peer, _) = listener.accept().await?;
///
///     stream.write_all(b"hello").await?;
///     let mut buf = [0; 16];
///     peer.set_read_deadline(Instant::now() + Duration::from_secs(5))?;
///     let count = peer.read(&mut buf).await?;
///     assert_eq!(&buf[..count], b"hello");
///     Ok(())
/// })
/// # }
/// ```
#[derive(Clone)]
pub struct TcpStream {
    pub(in crate::net) fd: Arc<NetFd>,
}

/// Connecting, reading, writing, closing and addresses.
impl TcpStream {
    pub(in crate::net) fn from_net_fd(fd: NetFd) -> TcpStream {
        TcpStream { fd: Arc::new(fd) }
    }

    /// Wraps an accepted socket, whose peer is `peer`.
    pub(in crate::net) fn adopt(fd: NetFd, peer: SockAddr) -> io::Result<(TcpStream, SocketAddr)> {
        Ok((TcpStream::from_net_fd(fd), ip_of(&peer)?))
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

    /// Connects to the first of `addrs` that answers.
    ///
    /// # Errors
    /// An [`OpError`](crate::net::OpError) of the last address, `dial tcp ADDR: connect: …`: `ConnectionRefused`, `TimedOut` (the kernel's,
    /// after about two minutes), `NetworkUnreachable` …; or that there is none, `dial tcp: lookup HOST: no such host`, with a
    /// [`LookupError`](crate::net::LookupError) or an [`AddrError`] inside.
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub async fn connect<A: ToSocketAddrs>(addrs: A) -> io::Result<TcpStream> {
        let addrs = addrs.to_socket_addrs().answer().await.map_err(|error| Op::at("dial", "tcp", None).other(error))?;
        let mut last = None;
        for addr in addrs {
            match dial_tcp(addr, None, &Recipe::new()).await {
                Ok(fd) => return Ok(TcpStream::from_net_fd(fd)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Op::at("dial", "tcp", None).other(AddrError::missing())))
    }

    /// Connects to `addr`, for `timeout` at most.
    ///
    /// # Errors
    /// `TimedOut` when the time is over; `InvalidInput` for a timeout of zero, as in std; else as [`connect`](TcpStream::connect).
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::{TcpListener, TcpStream};
    /// use std::time::Duration;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// TcpStream::connect_timeout(&listener.local_addr()?, Duration::from_secs(1)).await?;
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub async fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        dial_tcp(*addr, dial_ends(timeout)?, &Recipe::new()).await.map(TcpStream::from_net_fd)
    }

    // ---- reading ----

    /// Reads what is there into `buf`, waiting for something: how many bytes. 0 is the end of the stream (or `buf` is empty).
    ///
    /// # Errors
    /// `ConnectionReset`, …: the system call's. `TimedOut` past the read deadline; [closed](crate::net::is_closed).
    ///
    /// # Cancel safety
    /// Nothing was read if the future is dropped.
    pub fn read<'a>(&'a self, buf: &'a mut [u8]) -> Read<'a> {
        Read::new(&self.fd, buf)
    }

    /// Reads into several buffers with one call (readv(2)), at most 1,024 of them; empty buffers at the front are skipped. Otherwise
    /// like [`read`](TcpStream::read).
    pub fn read_vectored<'a>(&'a self, bufs: &'a mut [IoSliceMut<'a>]) -> ReadVectored<'a> {
        ReadVectored::new(&self.fd, bufs)
    }

    /// Like [`read`](TcpStream::read), and leaves the bytes there for the next read.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::{TcpListener, TcpStream};
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (peer, _) = listener.accept().await?;
    /// peer.write_all(b"GET").await?;
    /// let mut buf = [0; 3];
    /// assert_eq!(stream.peek(&mut buf).await?, 3);
    /// assert_eq!(stream.read(&mut buf).await?, 3);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn peek<'a>(&'a self, buf: &'a mut [u8]) -> Peek<'a> {
        Peek::new(&self.fd, buf)
    }

    /// Waits until a read would not wait: data, end of stream, or an error that it would return. A server of many idle connections
    /// awaits this before it allocates a buffer.
    ///
    /// Another task may read first; then the next read waits.
    ///
    /// # Errors
    /// `TimedOut` past the read deadline; closed.
    pub fn readable(&self) -> Readable<'_> {
        Readable::new(&self.fd)
    }

    /// [`readable`](TcpStream::readable) for `poll_*` methods of your own. The waker is kept until the next event, and any number of tasks may
    /// wait this way.
    ///
    /// # Errors
    /// As [`readable`](TcpStream::readable).
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_ready(Direction::Read, None, cx)
    }

    /// Waits until the peer has closed its side of the connection, or the connection is gone, without reading: for who computes a long
    /// answer that nobody may want any more. What was sent before can still be read.
    ///
    /// # Errors
    /// `TimedOut` past the read deadline; closed.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::{TcpListener, TcpStream};
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (peer, _) = listener.accept().await?;
    /// drop(peer);
    /// stream.peer_closed().await?;
    /// assert!(stream.is_peer_closed());
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
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
    /// like [`write`](TcpStream::write).
    pub fn write_vectored<'a>(&'a self, bufs: &'a [IoSlice<'a>]) -> WriteVectored<'a> {
        WriteVectored::new(&self.fd, bufs)
    }

    /// Writes all of `buf`. No other write comes in between: tasks that share the stream may each write their messages whole.
    /// (Through the traits only a single `poll_write` is whole.)
    ///
    /// # Errors
    /// As [`write`](TcpStream::write); a part may have been written.
    ///
    /// # Cancel safety
    /// Not cancel safe: a part may have been written, and how much is lost. The stream itself stays usable.
    pub fn write_all<'a>(&'a self, buf: &'a [u8]) -> WriteAll<'a> {
        WriteAll::new(&self.fd, buf)
    }

    /// Waits until a write would not wait: room, or an error that it would return.
    ///
    /// # Errors
    /// `TimedOut` past the write deadline; closed.
    pub fn writable(&self) -> Writable<'_> {
        Writable::new(&self.fd)
    }

    /// [`writable`](TcpStream::writable) for `poll_*` methods of your own.
    ///
    /// # Errors
    /// As [`writable`](TcpStream::writable).
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_ready(Direction::Write, None, cx)
    }

    // ---- closing ----

    /// Shuts one or both sides down (shutdown(2)). What waits on that side ends: reads with 0, writes with `BrokenPipe`.
    ///
    /// # Errors
    /// `NotConnected` when the connection is gone; closed.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.fd.shutdown(how)
    }

    /// Shuts the reading side down: what is there can be read, then reads return 0. The kernel still takes and delivers what
    /// arrives later.
    ///
    /// # Errors
    /// As [`shutdown`](TcpStream::shutdown).
    pub fn close_read(&self) -> io::Result<()> {
        self.fd.shutdown(Shutdown::Read)
    }

    /// Shuts the writing side down: the peer reads what was sent, then the end of the stream.
    ///
    /// # Errors
    /// As [`shutdown`](TcpStream::shutdown).
    pub fn close_write(&self) -> io::Result<()> {
        self.fd.shutdown(Shutdown::Write)
    }

    /// Closes the connection for all clones: whoever waits gets the [closed](crate::net::is_closed) error. Begins at once; the future
    /// ends when the descriptor is gone. Closing twice is no error.
    ///
    /// This is Go's `Close`. Data that was written is still sent; see [`set_linger`](TcpStream::set_linger) for a reset instead. Dropping the
    /// future does not take the close back.
    ///
    /// # Errors
    /// None today: what close(2) says comes too late to do anything about.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::{net::{self, TcpListener, TcpStream}, task};
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// let reader = task::spawn({
    ///     let stream = stream.clone();
    ///     async move { stream.read(&mut [0; 1]).await }
    /// });
    /// stream.force_close().await?;
    /// assert!(net::is_closed(&reader.await.unwrap_err()));
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn force_close(&self) -> Closed {
        self.fd.close()
    }

    // ---- addresses ----

    /// The address of this side.
    ///
    /// # Errors
    /// Closed after [`force_close`](TcpStream::force_close).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.fd.local_addr()
    }

    /// The address of the peer.
    ///
    /// # Errors
    /// `NotConnected` when the connection is gone; closed.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.fd.peer_addr()
    }
}

fn ip_of(peer: &SockAddr) -> io::Result<SocketAddr> {
    peer.as_socket().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

deadline_methods! {
    TcpStream;
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::{TcpListener, TcpStream, is_timeout};
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// use std::time::{Duration, Instant};
    ///
    /// stream.set_read_deadline(Instant::now() + Duration::from_millis(10))?;
    /// assert!(is_timeout(&stream.read(&mut [0; 1]).await.unwrap_err()));
    /// stream.set_read_deadline(None)?;
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
}

/// Socket options.
impl TcpStream {
    /// Whether small writes are sent at once (TCP_NODELAY): true unless it was set otherwise.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.fd.with("get", options::nodelay)
    }

    /// Sets whether small writes are sent at once.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.fd.with("set", |fd| options::set_nodelay(fd, nodelay))
    }

    /// The IP time-to-live of packets sent.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn ttl(&self) -> io::Result<u32> {
        self.fd.with("get", options::ttl)
    }

    /// Sets the IP time-to-live of packets sent.
    ///
    /// # Errors
    /// `InvalidInput` for a value outside 1–255; closed.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.fd.with("set", |fd| options::set_ttl(fd, ttl))
    }

    /// How the peer is probed on a silent connection; `None`: it is not.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn keepalive(&self) -> io::Result<Option<KeepAlive>> {
        self.fd.with("get", options::keepalive)
    }

    /// Sets how the peer is probed on a silent connection, or (`None`) that it is not.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn set_keepalive(&self, keepalive: impl Into<Option<KeepAlive>>) -> io::Result<()> {
        let keepalive = keepalive.into();
        self.fd.with("set", |fd| options::set_keepalive(fd, keepalive.as_ref()))
    }

    /// Returns what closing does with data that is not sent yet (SO_LINGER); `None`: the kernel sends it in the background.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.fd.with("get", options::linger)
    }

    /// Sets what closing does with data that is not sent yet. With `None` the kernel sends it in the background. Zero discards it and resets
    /// the connection. With any other time, rounded up to seconds, the close takes up to that long; it runs on a thread of the blocking
    /// pool. If [`rt::shutdown`](crate::rt::shutdown) comes first, the kernel sends the data in the background.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.fd.with("set", |fd| options::set_linger(fd, linger))?;
        self.fd.fd.set_may_linger();
        Ok(())
    }

    /// Takes the error that is pending on the socket (SO_ERROR), if there is one.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.fd.with("get", socket::take_error)
    }
}

raw_access!(TcpStream, Call);

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TcpStream");
        if let Ok(addr) = self.local_addr() {
            debug.field("addr", &addr);
        }
        if let Ok(peer) = self.peer_addr() {
            debug.field("peer", &peer);
        }
        debug.field("fd", &self.fd.fd.number()).finish()
    }
}
