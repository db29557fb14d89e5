//! [`TcpListener`]: binding, accepting and closing, and the future [`Accept`].

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::TcpStream;
use crate::net::accept::Accepting;
use crate::net::futures::Closed;
use crate::net::limits::Admission;
use crate::net::listen_config::open_first;
use crate::net::net_fd::NetFd;
use crate::net::raw::raw_access;
use crate::net::{ListenConfig, ToSocketAddrs, options};
use crate::rt::poll::poller::Direction;

/// A TCP socket that listens for connections.
///
/// [`accept`](TcpListener::accept) takes `&self`, so any number of tasks may accept from one
/// listener. Each connection wakes one of them. Accepted streams inherit the options of the
/// listener. By default, these are Go's: TCP_NODELAY and keep-alive (first probe after 15 s of
/// silence, then one every 15 s, nine probes). The default backlog is the host's maximum (on Linux,
/// `net.core.somaxconn`). Use [`ListenConfig`] for other options and for limits. A listener
/// converted from another type keeps its options.
///
/// A listener is not `Clone`. Tasks share it through a reference or an `Arc`. Dropping the listener
/// closes the socket.
///
/// Source: `net.TCPListener` of Go, `async_std::net::TcpListener`.
///
/// # Examples
/// ```
/// use netpoll::{net::{TcpListener, TcpStream}, task};
///
/// # fn main() -> std::io::Result<()> {
/// task::block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     let addr = listener.local_addr()?;
///     let client = task::spawn(async move { TcpStream::connect(addr).await });
///     let (server, peer) = listener.accept().await?;
///     assert_eq!(client.await?.local_addr()?, peer);
///     assert_eq!(server.peer_addr()?, peer);
///     Ok(())
/// })
/// # }
/// ```
#[doc(alias = "net.TCPListener")]
pub struct TcpListener {
    pub(in crate::net) fd: NetFd,
    pub(in crate::net) admission: Option<Arc<Admission>>,
}

/// Binding, accepting, closing and addresses.
impl TcpListener {
    /// Listens on the first of `addrs` that can be bound. Port 0 asks the kernel for a free port;
    /// [`local_addr`](TcpListener::local_addr) returns it.
    ///
    /// A listener on `[::]` also accepts IPv4 connections, whatever the host's default is.
    ///
    /// # Errors
    /// If every address fails, returns the [`OpError`](crate::net::OpError) of the last address.
    /// Its text is `listen tcp ADDR: CALL: …`, where the call is usually `bind`. Its kind is, for
    /// example, `AddrInUse`, `AddrNotAvailable` or `PermissionDenied`. If there is no address,
    /// returns an `OpError` with the text `listen tcp: REASON`, such as
    /// `listen tcp: address 80: missing port in address`, which contains an
    /// [`AddrError`](crate::net::AddrError), a [`LookupError`](crate::net::LookupError) or the
    /// error of your own [`ToSocketAddrs`].
    ///
    /// # Cancel safety
    /// If the future is dropped before it completes, no listener stays open.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::TcpListener;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// println!("listening on {}", listener.local_addr()?);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "net.Listen")]
    #[doc(alias = "ListenTCP")]
    pub async fn bind<A: ToSocketAddrs>(addrs: A) -> io::Result<TcpListener> {
        let config = ListenConfig::new();
        open_first(addrs, |addr| config.open(addr).map(|fd| TcpListener::from_net_fd(fd, None))).await
    }

    pub(crate) fn from_net_fd(fd: NetFd, admission: Option<Arc<Admission>>) -> TcpListener {
        fd.fd.begin_listener();
        if let Some(admission) = &admission {
            admission.show(&fd);
        }
        TcpListener { fd, admission }
    }

    /// Returns the listener with its limits replaced.
    pub(crate) fn admitting(self, admission: Option<Arc<Admission>>) -> TcpListener {
        match &admission {
            Some(admission) => admission.show(&self.fd),
            None if self.admission.is_some() => Admission::hide(&self.fd),
            None => {}
        }
        TcpListener { admission, ..self }
    }

    /// Waits for a connection and returns its stream and the peer's address.
    ///
    /// Connections that failed while they were queued are skipped (ECONNABORTED, EPERM and the
    /// network errors listed in accept(2)).
    ///
    /// # Errors
    /// Returns `TimedOut` after the deadline, a [closed](crate::net::is_closed) error after
    /// [`close`](TcpListener::close), and EINVAL if another user of the socket has shut it down.
    /// Returns the OS error if no descriptor (EMFILE, ENFILE), memory (ENOBUFS, ENOMEM) or epoll
    /// registration (ENOSPC) is available; connections stay in the queue, so a loop that retries
    /// immediately spins. [`incoming`](TcpListener::incoming) waits instead. A listener with
    /// [reserved descriptors](ListenConfig::reserve_descriptors) refuses the connection if no other
    /// descriptor is available.
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let client = TcpStream::connect(listener.local_addr()?).await?;
    ///
    /// let (stream, peer) = listener.accept().await?;
    /// assert_eq!(peer, client.local_addr()?);
    /// assert_eq!(stream.peer_addr()?, peer);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn accept(&self) -> Accept<'_> {
        Accept::new(&self.fd, self.admission.as_deref())
    }

    /// Returns the number of open connections that hold a permit of this listener's
    /// [limit](ListenConfig::max_connections), including those of listeners that share the limit; 0
    /// if there is no limit.
    pub fn connections(&self) -> usize {
        self.admission.as_ref().map_or(0, |admission| admission.connections())
    }

    /// Returns the number of connections refused so far because no descriptor was available, by
    /// this listener and those that share its reserve; see [`ListenConfig::reserve_descriptors`].
    /// Always 0 without reserved descriptors.
    pub fn turned_away(&self) -> u64 {
        self.admission.as_ref().map_or(0, |admission| admission.shed())
    }

    /// Returns the address that the listener is bound to.
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error after [`close`](TcpListener::close).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.fd.local_addr()
    }

    /// Sets the deadline of accepts; `None` removes it. The deadline also applies to calls that are
    /// already waiting. Once it has passed, every accept fails with `TimedOut`, even with
    /// connections in the queue, until the deadline is changed.
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error after [`close`](TcpListener::close).
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::{TcpListener, is_timeout};
    /// use std::time::{Duration, Instant};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// listener.set_deadline(Instant::now() + Duration::from_millis(10))?;
    /// assert!(is_timeout(&listener.accept().await.unwrap_err()));
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "SetDeadline")]
    pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        self.fd.set_deadline(Direction::Read, deadline.into())
    }

    /// Closes the listener. Pending accepts return a [closed](crate::net::is_closed) error, and
    /// connections in the queue are reset.
    ///
    /// The close begins immediately, even if the future is dropped. The future completes when the
    /// descriptor is closed and the port is free. Closing twice is not an error. If the descriptor
    /// has duplicates, the socket keeps listening until they are closed too.
    ///
    /// # Errors
    /// Never returns an error.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::TcpListener;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let addr = listener.local_addr()?;
    /// listener.close().await?;
    /// TcpListener::bind(addr).await?;
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn close(&self) -> Closed {
        self.fd.close()
    }
}

/// Socket options.
impl TcpListener {
    /// Returns the IP time-to-live of the packets of new connections.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `close`.
    pub fn ttl(&self) -> io::Result<u32> {
        self.fd.with("get", options::ttl)
    }

    /// Sets the IP time-to-live of the packets of new connections. Connections that are already in
    /// the queue are not affected.
    ///
    /// # Errors
    /// Returns `InvalidInput` if `ttl` is outside 1–255, and a [closed](crate::net::is_closed)
    /// error after `close`.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.fd.with("set", |fd| options::set_ttl(fd, ttl))
    }
}

raw_access!(TcpListener);

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TcpListener");
        if let Ok(addr) = self.local_addr() {
            debug.field("addr", &addr);
        }
        debug.field("fd", &self.fd.fd.number()).finish()
    }
}

/// Accepts a connection; returned by [`TcpListener::accept`](crate::net::TcpListener::accept).
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Accept<'a> {
    listener: &'a NetFd,
    admission: Option<&'a Admission>,
    accepting: Accepting,
}

impl<'a> Accept<'a> {
    fn new(listener: &'a NetFd, admission: Option<&'a Admission>) -> Accept<'a> {
        Accept { listener, admission, accepting: Accepting::default() }
    }
}

impl Future for Accept<'_> {
    type Output = io::Result<(TcpStream, SocketAddr)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Accept { listener, admission, accepting } = &mut *self;
        accepting.poll(listener, *admission, cx, TcpStream::adopt)
    }
}

impl Drop for Accept<'_> {
    fn drop(&mut self) {
        self.accepting.cancel(self.listener, self.admission);
    }
}
