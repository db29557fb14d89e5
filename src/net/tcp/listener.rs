//! `TcpListener`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::incoming::{Incoming, IntoIncoming};
use crate::net::fd::net_fd::NetFd;
use crate::net::futures::{Accept, Closed};
use crate::net::limits::Admission;
use crate::net::raw::raw_access;
use crate::net::{ListenConfig, ToSocketAddrs, options};
use crate::rt::poll::poller::Direction;

/// A socket that accepts TCP connections.
///
/// Every method takes `&self`: any number of tasks may accept from one listener; each connection wakes one of them. Accepted
/// streams have Go's defaults, inherited from the listener at no cost a connection: no delay (TCP_NODELAY), keep-alive after 15 s
/// of silence, every 15 s, nine times. The backlog is the host's bound (`net.core.somaxconn`). [`ListenConfig`] opens one with
/// other options and with limits.
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
pub struct TcpListener {
    pub(in crate::net) fd: NetFd,
    pub(in crate::net) admission: Option<Arc<Admission>>,
}

/// Binding, accepting, closing and addresses.
impl TcpListener {
    /// Listens on the first of `addrs` that can be bound. Port 0 asks the kernel for a free one; see
    /// [`local_addr`](TcpListener::local_addr).
    ///
    /// `[::]` accepts IPv4 as well, whatever the host's default.
    ///
    /// # Errors
    /// An [`OpError`](crate::net::OpError) of the last address, `listen tcp ADDR: bind: …`: `AddrInUse`, `AddrNotAvailable`,
    /// `PermissionDenied`; or that there is none, `listen tcp: address 80: missing port in address`, with an
    /// [`AddrError`](crate::net::AddrError) or a [`LookupError`](crate::net::LookupError) inside.
    ///
    /// # Cancel safety
    /// Nothing listens if the future is dropped.
    pub async fn bind<A: ToSocketAddrs>(addrs: A) -> io::Result<TcpListener> {
        ListenConfig::new().listen(addrs).await
    }

    pub(crate) fn from_net_fd(fd: NetFd, admission: Option<Arc<Admission>>) -> TcpListener {
        TcpListener { fd, admission }
    }

    /// The same listener with other limits.
    pub(crate) fn admitting(self, admission: Option<Arc<Admission>>) -> TcpListener {
        TcpListener { admission, ..self }
    }

    /// Accepts a connection: the stream and its peer's address.
    ///
    /// Connections that died in the queue are passed over (ECONNABORTED and the network errors that accept(2) lists).
    ///
    /// # Errors
    /// `TimedOut` past the deadline; [closed](crate::net::is_closed) after [`close`](TcpListener::close). With no
    /// descriptor left (EMFILE, ENFILE) or no memory (ENOBUFS, ENOMEM), that error: the connection stays in the queue, and a
    /// loop that tries again at once burns a CPU. [`incoming`](TcpListener::incoming) waits instead; with
    /// [reserved descriptors](ListenConfig::reserve_descriptors) the connection is turned away.
    ///
    /// # Cancel safety
    /// A connection is accepted or stays in the queue.
    pub fn accept(&self) -> Accept<'_> {
        Accept::new(self)
    }

    /// A stream of connections.
    ///
    /// Where [`accept`](TcpListener::accept) fails for want of descriptors or memory, this waits: 5 ms, doubling to 1 s, less when a
    /// socket of this process is closed. After [`close`](TcpListener::close) it yields one error, then `None`; otherwise it
    /// never ends.
    ///
    /// # Examples
    /// ```no_run
    /// use netpoll::{io, net::TcpListener, prelude::*, task};
    ///
    /// # async fn serve() -> std::io::Result<()> {
    /// let listener = TcpListener::bind("127.0.0.1:8080").await?;
    /// let mut incoming = listener.incoming();
    /// while let Some(stream) = incoming.next().await {
    ///     let stream = stream?;
    ///     task::spawn(async move { io::copy(&mut &stream, &mut &stream).await });
    /// }
    /// # Ok(()) }
    /// ```
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming::new(self)
    }

    /// The same, owning the listener.
    pub fn into_incoming(self) -> IntoIncoming {
        IntoIncoming::new(self)
    }

    /// Connections that hold a permit of this listener's [limit](ListenConfig::max_connections) now; 0 without one.
    pub fn connections(&self) -> usize {
        self.admission.as_ref().map_or(0, |admission| admission.connections())
    }

    /// Connections that were turned away so far for want of descriptors; see
    /// [`ListenConfig::reserve_descriptors`].
    pub fn turned_away(&self) -> u64 {
        self.admission.as_ref().map_or(0, |admission| admission.shed())
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// Closed after [`close`](TcpListener::close).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.fd.local_addr()
    }

    /// Sets when accepting times out, or (`None`) that it does not. It applies to what waits already, and stays until it is moved:
    /// after it has passed every accept fails, also with connections in the queue.
    ///
    /// # Errors
    /// Closed after [`close`](TcpListener::close).
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
    pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        self.fd.set_deadline(Direction::Read, deadline.into())
    }

    /// Closes the listener: who accepts gets the closed error, connections in the queue are reset. Begins at once; the future ends when
    /// the descriptor, and so the port, is free. Closing twice is no error.
    ///
    /// Dropping the listener closes it too.
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

    /// The socket, for traits that are implemented elsewhere.
    #[cfg(feature = "hyper")]
    pub(crate) fn as_net_fd(&self) -> &NetFd {
        &self.fd
    }
}

/// Socket options.
impl TcpListener {
    /// The IP time-to-live of accepted connections' packets.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn ttl(&self) -> io::Result<u32> {
        self.fd.with("get", options::ttl)
    }

    /// Sets it; accepted streams inherit it.
    ///
    /// # Errors
    /// `InvalidInput` for a value outside 1–255; closed.
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
