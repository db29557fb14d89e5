//! [`TcpStream`]: connecting, reading, writing and closing.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::dial::{Recipe, dial_tcp};
use crate::net::deadlines::{deadline_methods, dial_ends};
use crate::net::error::Op;
use crate::net::futures::{
    Closed, Peek, PeerClosed, Read, ReadVectored, Readable, Writable, Write, WriteAll, WriteVectored,
};
use crate::net::host_port::is_name;
use crate::net::net_fd::NetFd;
use crate::net::raw::raw_access;
use crate::net::{AddrError, KeepAlive, ToSocketAddrs, options};
use crate::rt::poll::poller::Direction;
use crate::rt::waiters::Waiter;
use crate::sys::option;

/// A TCP connection.
///
/// `TcpStream` is a handle. Clones share the connection, and every method takes `&self`, so any
/// number of tasks can read and write concurrently. Reads run one at a time, and so do writes; a
/// read and a write run in parallel. The connection is closed when the last clone is dropped, or by
/// [`force_close`](TcpStream::force_close).
///
/// Use the inherent methods, or futures-io's traits, which are implemented for both `TcpStream` and
/// `&TcpStream`. By default, streams opened by this crate or accepted from its listeners have
/// TCP_NODELAY and keep-alive set (first probe after 15 s, then one every 15 s, nine probes).
/// Streams converted from other types keep their options, and streams accepted from a converted
/// listener inherit its options.
///
/// # Deadlines
/// [`set_deadline`](TcpStream::set_deadline), [`set_read_deadline`](TcpStream::set_read_deadline)
/// and [`set_write_deadline`](TcpStream::set_write_deadline) set the time after which operations
/// fail with `TimedOut`, including operations that are already waiting. A deadline therefore also
/// takes effect inside a TLS or HTTP library, or a buffer, that holds the stream. Moving a deadline
/// later costs one atomic swap, so setting one before every read is cheap.
///
/// # Closing
/// The traits' `close()` flushes and sends FIN; the stream and its clones can still read.
/// [`force_close`](TcpStream::force_close) closes the connection for all clones.
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
#[doc(alias = "net.TCPConn")]
#[doc(alias = "into_split")]
#[doc(alias = "split")]
#[derive(Clone)]
pub struct TcpStream {
    pub(in crate::net) fd: Arc<NetFd>,
}

/// Connecting, reading, writing, closing and addresses.
impl TcpStream {
    pub(in crate::net) fn from_net_fd(fd: NetFd) -> TcpStream {
        TcpStream { fd: fd.shared() }
    }

    /// Creates a stream from an accepted socket, and converts the peer's address.
    pub(in crate::net) fn adopt(fd: NetFd, peer: SockAddr) -> io::Result<(TcpStream, SocketAddr)> {
        Ok((TcpStream::from_net_fd(fd), ip_of(&peer)?))
    }

    /// Connects to the first of `addrs` that accepts the connection. Addresses are tried one at a
    /// time; a [`Dialer`](crate::net::Dialer) races them.
    ///
    /// # Errors
    /// If every address fails, returns the [`OpError`](crate::net::OpError) of the last address.
    /// Its text is `dial tcp ADDR: CALL: …`, where the call is usually `connect`. Its kind is, for
    /// example, `ConnectionRefused`, `NetworkUnreachable` or `TimedOut` (from the kernel, on Linux
    /// after about two minutes). If there is no address, returns an `OpError` with the text
    /// `dial tcp: REASON`, such as `dial tcp: lookup HOST: no such host`, which contains a
    /// [`LookupError`](crate::net::LookupError), an [`AddrError`] or the error of your own
    /// [`ToSocketAddrs`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the look-up or closes the socket.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::{TcpListener, TcpStream};
    /// use std::io::ErrorKind;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let addr = listener.local_addr()?;
    /// let stream = TcpStream::connect(addr).await?;
    /// assert_eq!(stream.peer_addr()?, addr);
    ///
    /// listener.close().await?;
    /// let refused = TcpStream::connect(addr).await.unwrap_err();
    /// assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "net.Dial")]
    pub async fn connect<A: ToSocketAddrs>(addrs: A) -> io::Result<TcpStream> {
        let answer = addrs.to_socket_addrs().answer().await;
        let mut last = None;
        for addr in answer.map_err(|error| Op::at("dial", "tcp", None).other(error))? {
            match dial_tcp(addr, None, &Recipe::new()).await {
                Ok(fd) => return Ok(TcpStream::dialled(fd, &addrs)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Op::at("dial", "tcp", None).other(AddrError::missing())))
    }

    /// Connects to `addr`, waiting at most `timeout`.
    ///
    /// # Errors
    /// Returns `TimedOut` after `timeout`, and `InvalidInput` if `timeout` is zero, as in std.
    /// Otherwise returns the same errors as [`connect`](TcpStream::connect).
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
    #[doc(alias = "net.DialTimeout")]
    pub async fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        dial_tcp(*addr, dial_ends(timeout).await?, &Recipe::new()).await.map(TcpStream::from_net_fd)
    }

    /// Creates a stream from a dialled connection, and records the host name for snapshots.
    pub(in crate::net) fn dialled(fd: NetFd, addrs: &impl ToSocketAddrs) -> TcpStream {
        let host = addrs.host_and_port().map(|(host, _)| host);
        let of_service = || addrs.host_and_service().map(|(host, _)| host).filter(|host| is_name(host));
        if let Some(host) = host.or_else(of_service) {
            fd.fd.poll.set_host(host);
        }
        TcpStream::from_net_fd(fd)
    }

    // ---- reading ----

    /// Reads up to `buf.len()` bytes, waiting until at least one is available. Returns the number
    /// of bytes read; 0 means end of stream (or that `buf` is empty).
    ///
    /// # Errors
    /// Returns the OS error, such as `ConnectionReset`; `TimedOut` after the read deadline or
    /// timeout; a [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has read nothing.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::{TcpListener, TcpStream};
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (peer, _) = listener.accept().await?;
    /// peer.write_all(b"hello").await?;
    /// peer.close_write()?;
    ///
    /// let mut received = Vec::new();
    /// let mut buf = [0; 4096];
    /// loop {
    ///     match stream.read(&mut buf).await? {
    ///         0 => break, // end of stream
    ///         count => received.extend_from_slice(&buf[..count]),
    ///     }
    /// }
    /// assert_eq!(received, b"hello");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn read<'a>(&'a self, buf: &'a mut [u8]) -> Read<'a> {
        Read::new(&self.fd, buf)
    }

    /// Reads into several buffers, at most 1,024, with one readv(2). Empty buffers at the front are
    /// skipped. Errors and cancel safety are those of [`read`](TcpStream::read).
    pub fn read_vectored<'a>(&'a self, bufs: &'a mut [IoSliceMut<'a>]) -> ReadVectored<'a> {
        ReadVectored::new(&self.fd, bufs)
    }

    /// Reads like [`read`](TcpStream::read) but leaves the bytes in the socket for the next read.
    ///
    /// Errors and cancel safety are those of [`read`](TcpStream::read).
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
    #[doc(alias = "MSG_PEEK")]
    pub fn peek<'a>(&'a self, buf: &'a mut [u8]) -> Peek<'a> {
        Peek::new(&self.fd, buf)
    }

    /// Waits until the socket is readable: data, end of stream or an error is available. A server
    /// with many idle connections can await this before it allocates a buffer.
    ///
    /// Another task may read the data first; the next read then waits again.
    ///
    /// # Errors
    /// Returns `TimedOut` after the read deadline or timeout, and a [closed](crate::net::is_closed)
    /// error after `force_close`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn readable(&self) -> Readable<'_> {
        Readable::new(&self.fd)
    }

    /// Checks whether the socket is readable (see [`readable`](TcpStream::readable)). If it is not,
    /// returns `Pending` and wakes the task at the next read event. Up to 4,096 tasks may wait this
    /// way without waking each other. Use this method to implement your own `poll_*` methods.
    ///
    /// # Errors
    /// Returns the same errors as [`readable`](TcpStream::readable).
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_ready(Direction::Read, Waiter::Poll, cx)
    }

    /// Waits until the peer has closed its side of the connection or the connection has failed,
    /// without reading. A handler can use this to abandon expensive work when the client has gone
    /// away. Data received before the close can still be read.
    /// [`close_read`](TcpStream::close_read) also ends the wait.
    ///
    /// # Errors
    /// Returns `TimedOut` after the read deadline, and a [closed](crate::net::is_closed) error
    /// after `force_close`.
    ///
    /// # Cancel safety
    /// Cancel safe.
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
        PeerClosed::new(&self.fd, "read")
    }

    /// Returns whether the peer has closed its side of the connection, or the connection has
    /// failed. Also returns true after [`close_read`](TcpStream::close_read). Asks the kernel
    /// (poll(2)) unless an event has already reported it. Never waits. macOS's poll(2) does not
    /// report that the peer has closed only its sending side.
    pub fn is_peer_closed(&self) -> bool {
        self.fd.is_peer_closed()
    }

    // ---- writing ----

    /// Writes up to `buf.len()` bytes, waiting until there is room for at least one. Returns the
    /// number of bytes written.
    ///
    /// # Errors
    /// Returns `ConnectionReset` or `BrokenPipe` if the peer is gone, and `BrokenPipe` if this side
    /// was shut down (no SIGPIPE is raised); another OS error; `TimedOut` after the write deadline
    /// or timeout; a [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// # Cancel safety
    /// A future that is dropped before it completes has written nothing.
    pub fn write<'a>(&'a self, buf: &'a [u8]) -> Write<'a> {
        Write::new(&self.fd, buf)
    }

    /// Writes from several buffers, at most 1,024, with one sendmsg(2). Empty buffers at the front
    /// are skipped. Errors and cancel safety are those of [`write`](TcpStream::write).
    pub fn write_vectored<'a>(&'a self, bufs: &'a [IoSlice<'a>]) -> WriteVectored<'a> {
        WriteVectored::new(&self.fd, bufs)
    }

    /// Writes all of `buf`. Concurrent calls do not interleave, so tasks that share the stream can
    /// each write whole messages. (With the traits, only a single `poll_write` is atomic in this
    /// sense.)
    ///
    /// # Errors
    /// Returns the same errors as [`write`](TcpStream::write). Part of `buf` may have been written.
    ///
    /// # Cancel safety
    /// Not cancel safe: part of `buf` may have been written, and the amount is unknown. The stream
    /// stays usable.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::{TcpListener, TcpStream};
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (peer, _) = listener.accept().await?;
    /// use netpoll::prelude::*;
    ///
    /// stream.write_all(b"hello, ").await?;
    /// stream.write_all(b"world").await?;
    ///
    /// let mut buf = [0; 12];
    /// (&peer).read_exact(&mut buf).await?;
    /// assert_eq!(&buf, b"hello, world");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn write_all<'a>(&'a self, buf: &'a [u8]) -> WriteAll<'a> {
        WriteAll::new(&self.fd, buf)
    }

    /// Waits until the socket is writable: the send buffer has room, or a write would fail.
    ///
    /// # Errors
    /// Returns `TimedOut` after the write deadline or timeout, and a
    /// [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn writable(&self) -> Writable<'_> {
        Writable::new(&self.fd)
    }

    /// Checks whether the socket is writable (see [`writable`](TcpStream::writable)). If it is not,
    /// returns `Pending` and wakes the task at the next write event. Up to 4,096 tasks may wait
    /// this way without waking each other. Use this method to implement your own `poll_*` methods.
    ///
    /// # Errors
    /// Returns the same errors as [`writable`](TcpStream::writable).
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_ready(Direction::Write, Waiter::Poll, cx)
    }

    // ---- closing ----

    /// Shuts down reading, writing or both (shutdown(2)). Pending operations on a side that is shut
    /// down complete: reads with 0, writes with `BrokenPipe`.
    ///
    /// # Errors
    /// Returns `NotConnected` if the connection is gone; the error of a write that
    /// [`set_auto_cork`](TcpStream::set_auto_cork) has gathered; a [closed](crate::net::is_closed)
    /// error after `force_close`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.fd.shutdown(how)
    }

    /// Shuts down the reading side. On Linux, reads first return the data already received, then 0.
    /// The kernel still accepts and delivers data that arrives later.
    ///
    /// # Errors
    /// Returns the same errors as [`shutdown`](TcpStream::shutdown).
    #[doc(alias = "CloseRead")]
    pub fn close_read(&self) -> io::Result<()> {
        self.fd.shutdown(Shutdown::Read)
    }

    /// Shuts down the writing side. The peer reads the data written so far, then end of stream.
    ///
    /// # Errors
    /// Returns the same errors as [`shutdown`](TcpStream::shutdown).
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// # use netpoll::net::{TcpListener, TcpStream};
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (peer, _) = listener.accept().await?;
    /// // The end of the stream marks the end of the request. The answer can still be read.
    /// stream.write_all(b"request").await?;
    /// stream.close_write()?;
    ///
    /// let mut buf = [0; 16];
    /// assert_eq!(peer.read(&mut buf).await?, 7);
    /// assert_eq!(peer.read(&mut buf).await?, 0);
    /// peer.write_all(b"answer").await?;
    /// assert_eq!(stream.read(&mut buf).await?, 6);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "CloseWrite")]
    pub fn close_write(&self) -> io::Result<()> {
        self.fd.shutdown(Shutdown::Write)
    }

    /// Closes the connection for all clones. Pending operations return a
    /// [closed](crate::net::is_closed) error.
    ///
    /// The close begins immediately, even if the future is dropped. The future completes when the
    /// descriptor is closed. Closing twice is not an error. This is Go's `Close`.
    ///
    /// The kernel still sends the data written before the close, unless received data has not been
    /// read, in which case it resets the connection. To reset the connection in any case, first
    /// call [`set_linger`](TcpStream::set_linger) with zero.
    ///
    /// # Errors
    /// Never returns an error. An error from close(2) would come too late to act on.
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
    #[doc(alias = "Close")]
    pub fn force_close(&self) -> Closed {
        self.fd.close()
    }

    // ---- addresses ----

    /// Returns the local address.
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error after `force_close`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.fd.local_addr()
    }

    /// Returns the peer's address.
    ///
    /// # Errors
    /// Returns `NotConnected` if the connection is gone, and a [closed](crate::net::is_closed)
    /// error after `force_close`.
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
    /// Returns whether small writes are sent immediately (TCP_NODELAY).
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.fd.with("get", options::nodelay)
    }

    /// Sets whether small writes are sent immediately (TCP_NODELAY) instead of being combined
    /// (Nagle's algorithm).
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.fd.with("set", |fd| options::set_nodelay(fd, nodelay))
    }

    /// Returns the IP time-to-live of sent packets.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn ttl(&self) -> io::Result<u32> {
        self.fd.with("get", options::ttl)
    }

    /// Sets the IP time-to-live of sent packets.
    ///
    /// # Errors
    /// Returns `InvalidInput` if `ttl` is outside 1–255, and a [closed](crate::net::is_closed)
    /// error after `force_close`.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.fd.with("set", |fd| options::set_ttl(fd, ttl))
    }

    /// Returns the keep-alive settings; `None` if keep-alive is off.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn keepalive(&self) -> io::Result<Option<KeepAlive>> {
        self.fd.with("get", options::keepalive)
    }

    /// Sets keep-alive, which probes a silent connection. `None` turns it off. A value that is
    /// `None` in `keepalive` stays unchanged.
    ///
    /// # Errors
    /// Returns `InvalidInput` for a value that is out of range (see [`KeepAlive`]), and a
    /// [closed](crate::net::is_closed) error after `force_close`.
    pub fn set_keepalive(&self, keepalive: impl Into<Option<KeepAlive>>) -> io::Result<()> {
        let keepalive = keepalive.into();
        self.fd.with("set", |fd| options::set_keepalive(fd, keepalive.as_ref()))
    }

    /// Returns how a close treats unsent data (SO_LINGER). `None` means that the kernel sends it in
    /// the background.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.fd.with("get", option::socket::linger)
    }

    /// Sets how a close treats unsent data (SO_LINGER). With `None` the kernel sends it in the
    /// background. Zero discards it and resets the connection. With any other time, rounded up to
    /// seconds, the close waits up to that long for the data to be sent. The wait runs on a thread
    /// of a separate pool. If [`rt::shutdown`](crate::rt::shutdown) is called before the wait
    /// begins, or the stream is dropped while the runtime is not running, the kernel sends the data
    /// in the background.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.fd.with("set", |fd| {
            // Set first, because a close may follow as soon as the option is set.
            self.fd.fd.set_may_linger();
            option::socket::set_linger(fd, linger)
        })
    }

    /// Takes the pending error (SO_ERROR), or one that another operation, such as
    /// [`io::copy`](crate::io::copy()), has taken and no read has returned.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `force_close`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.fd.with("get", |fd| self.fd.fd.report_error(fd))
    }
}

raw_access!(TcpStream, PerCall);

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
