//! `ListenConfig`: how a listener is opened.
//!
//! Options are set before bind(2) and listen(2): accepted sockets inherit them, so that an accept costs one call, and the window
//! scale, which follows from the receive buffer, is right from the first SYN. What a user asks for and the kernel refuses is
//! an error; the defaults that nobody asked for (no delay, keep-alive) are left out where they are refused, as in Go.
//!
//! # Compared with Go (net/dial.go `ListenConfig`, sock_posix.go, mptcpsock_linux.go)
//! Same defaults, but for the wildcard: `0.0.0.0:80` is IPv4 only, as everywhere in Rust, `[::]:80` takes both families. Multipath
//! TCP is off unless asked for (Go: on), and falls back to TCP wherever it cannot be had. Go leaves all but keep-alive to
//! its `Control` hook; here what servers use has a name.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Type};

use super::error::{Addr, Op};
use super::fd::fd;
use super::fd::net_fd::NetFd;
use super::limits::{Admission, Reserve};
use super::options::{self, KeepAlive};
use super::permits::Limit;
use super::{AddrError, TcpListener, ToSocketAddrs};
use crate::sys::socket;

type Control = dyn Fn(&str, SocketAddr, BorrowedFd<'_>) -> io::Result<()> + Send + Sync;

/// Options of a listener, and of the streams that it accepts.
///
/// A new one is what [`TcpListener::bind`] uses. Each method sets one thing and leaves the others alone; the same configuration opens any
/// number of listeners.
///
/// Source: `net.ListenConfig` of Go; socket(7), tcp(7), ipv6(7).
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::{KeepAlive, ListenConfig};
/// use std::time::Duration;
///
/// let listener = ListenConfig::new()
///     .backlog(64)
///     .keepalive(KeepAlive::new().with_idle(Duration::from_secs(60)))
///     .user_timeout(Duration::from_secs(90))
///     .max_connections(10_000)
///     .listen("127.0.0.1:0")
///     .await?;
/// assert_eq!(listener.user_timeout()?, Some(Duration::from_secs(90)));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[derive(Clone, Default)]
#[must_use = "a configuration opens nothing until it is told to listen"]
pub struct ListenConfig {
    backlog: Option<u32>,
    exclusive: bool,
    reuse_port: bool,
    only_v6: bool,
    nodelay: Option<bool>,
    keepalive: Option<Option<KeepAlive>>,
    user_timeout: Option<Duration>,
    recv_buffer_size: Option<usize>,
    send_buffer_size: Option<usize>,
    fast_open: Option<u32>,
    defer_accept: Option<Duration>,
    device: Option<String>,
    multipath: bool,
    control: Option<Arc<Control>>,
    max_connections: Option<usize>,
    reserve: usize,
    answer: Vec<u8>,
}

impl ListenConfig {
    /// Go's defaults: no delay, keep-alive (15 s, 15 s, 9), SO_REUSEADDR, the host's backlog, both families on `[::]`.
    pub fn new() -> ListenConfig {
        ListenConfig::default()
    }

    /// How many connections the kernel completes ahead of accept; the host's `net.core.somaxconn` is the upper bound, and what is
    /// used unless this is called.
    pub fn backlog(mut self, connections: u32) -> ListenConfig {
        self.backlog = Some(connections);
        self
    }

    /// Whether the port may be taken while connections of an earlier listener linger on it (SO_REUSEADDR); true unless this is called.
    pub fn reuse_address(mut self, reuse: bool) -> ListenConfig {
        self.exclusive = !reuse;
        self
    }

    /// Whether other listeners of this user may have the same port (SO_REUSEPORT): the kernel spreads connections over them. Closing one
    /// resets what waits in its queue.
    pub fn reuse_port(mut self, reuse: bool) -> ListenConfig {
        self.reuse_port = reuse;
        self
    }

    /// Whether a listener on an IPv6 wildcard refuses IPv4 (IPV6_V6ONLY); false unless this is called, whatever the host's default.
    pub fn only_v6(mut self, only: bool) -> ListenConfig {
        self.only_v6 = only;
        self
    }

    /// Whether accepted streams send small writes at once (TCP_NODELAY); true unless this is called.
    pub fn nodelay(mut self, nodelay: bool) -> ListenConfig {
        self.nodelay = Some(nodelay);
        self
    }

    /// How accepted streams probe a silent peer; `None`: not at all.
    pub fn keepalive(mut self, keepalive: impl Into<Option<KeepAlive>>) -> ListenConfig {
        self.keepalive = Some(keepalive.into());
        self
    }

    /// For how long what accepted streams send may stay without an acknowledgement before the connection ends with ETIMEDOUT
    /// (TCP_USER_TIMEOUT). Keep-alive probes a silent connection only; this finds the peer that died with data under way.
    pub fn user_timeout(mut self, timeout: Duration) -> ListenConfig {
        self.user_timeout = Some(timeout);
        self
    }

    /// The receive buffer of accepted streams in bytes (SO_RCVBUF); the kernel doubles it, up to `net.core.rmem_max`, and no longer
    /// adapts it.
    pub fn recv_buffer_size(mut self, bytes: usize) -> ListenConfig {
        self.recv_buffer_size = Some(bytes);
        self
    }

    /// The send buffer of accepted streams in bytes (SO_SNDBUF); the kernel doubles it, up to `net.core.wmem_max`, and no longer
    /// adapts it.
    pub fn send_buffer_size(mut self, bytes: usize) -> ListenConfig {
        self.send_buffer_size = Some(bytes);
        self
    }

    /// Takes data that comes with a SYN, from so many clients at a time that are not known to be where they say (TCP_FASTOPEN, RFC 7413).
    /// Such data may arrive twice. The host allows it by bit 1 of `net.ipv4.tcp_fastopen`; without, connections are made the usual way.
    pub fn fast_open(mut self, queue: u32) -> ListenConfig {
        self.fast_open = Some(queue);
        self
    }

    /// Accepts a connection when its first data is there (TCP_DEFER_ACCEPT), or after about this long without, in which time the kernel
    /// asks again at growing intervals. For protocols in which the client speaks first. Rounded up to seconds.
    pub fn defer_accept(mut self, most: Duration) -> ListenConfig {
        self.defer_accept = Some(most);
        self
    }

    /// Takes only what arrives through the network device of this name (SO_BINDTODEVICE), such as `eth0`.
    pub fn bind_device(mut self, name: impl Into<String>) -> ListenConfig {
        self.device = Some(name.into());
        self
    }

    /// Opens a multipath TCP socket (RFC 8684) where the kernel has them, otherwise a TCP one; clients that know only TCP are served
    /// either way. [`TcpStream::is_multipath`](crate::net::TcpStream::is_multipath) tells.
    pub fn multipath(mut self, multipath: bool) -> ListenConfig {
        self.multipath = multipath;
        self
    }

    /// Calls `control` with each socket before it is bound, after all other options: the network (`tcp4` or `tcp6`), the address, the
    /// descriptor. Its error ends the attempt at this address.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::ListenConfig;
    ///
    /// let config = ListenConfig::new().control(|network, addr, _fd| {
    ///     assert_eq!((network, addr.to_string()), ("tcp4", "127.0.0.1:0".to_owned()));
    ///     Ok(())
    /// });
    /// config.listen("127.0.0.1:0").await?;
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn control<F>(mut self, control: F) -> ListenConfig
    where
        F: Fn(&str, SocketAddr, BorrowedFd<'_>) -> io::Result<()> + Send + Sync + 'static,
    {
        self.control = Some(Arc::new(control));
        self
    }

    /// How many accepted connections may be open at a time. With so many, accepting waits, and new ones queue in the kernel, up to the
    /// [backlog](ListenConfig::backlog). The permit lives in the stream and goes back when its descriptor is closed (by the drop
    /// of the last clone, or by `force_close`), or converted into another type. A wait for a permit ends with the listener's deadline
    /// and with its close, as any accept.
    pub fn max_connections(mut self, connections: usize) -> ListenConfig {
        self.max_connections = Some(connections);
        self
    }

    /// Keeps so many descriptors in reserve: when the process has no other left (EMFILE, ENFILE), one is closed and the oldest connection
    /// accepted in its place, told [`refuse_with`](ListenConfig::refuse_with), and closed; then it is opened again. So clients learn
    /// at once that there is no room, and accepting never fails for want of descriptors while the reserve holds. One is enough unless
    /// other threads open files at the same time: they may be quicker to take the number. What they give back goes to the reserve first:
    /// nobody is let in before it is whole again.
    ///
    /// Without a reserve, [`accept`](TcpListener::accept) returns the error and [`incoming`](TcpListener::incoming) pauses: connections wait.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn open() -> std::io::Result<()> {
    /// use netpoll::net::ListenConfig;
    ///
    /// let listener = ListenConfig::new()
    ///     .reserve_descriptors(4)
    ///     .refuse_with("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    ///     .listen("[::]:8080")
    ///     .await?;
    /// # drop(listener); Ok(()) }
    /// ```
    pub fn reserve_descriptors(mut self, descriptors: usize) -> ListenConfig {
        self.reserve = descriptors;
        self
    }

    /// What connections that are turned away are told, as far as it fits into the socket's buffer; nothing unless this is called.
    pub fn refuse_with(mut self, answer: impl Into<Vec<u8>>) -> ListenConfig {
        self.answer = answer.into();
        self
    }

    /// Listens on the first of `addrs` that can be bound. Port 0 asks the kernel for a free one.
    ///
    /// # Errors
    /// An [`OpError`](crate::net::OpError) of the last address, `listen tcp ADDR: CALL: …`: `AddrInUse`, `AddrNotAvailable`,
    /// `PermissionDenied`; `InvalidInput` for an option's value that nobody takes, the kernel's error for one that it does not. Or that
    /// there is no address, as [`TcpListener::bind`] says it.
    ///
    /// # Cancel safety
    /// Nothing listens if the future is dropped.
    pub async fn listen<A: ToSocketAddrs>(&self, addrs: A) -> io::Result<TcpListener> {
        let addrs = addrs.to_socket_addrs().await.map_err(failed)?;
        let admission = self.admission()?;
        first_of(addrs, |addr| self.open(addr, admission.clone()))
    }

    /// Opens `count` listeners on one address, for as many workers: the kernel spreads connections over them (SO_REUSEPORT is set). They
    /// have the same port, also if `addrs` says 0, and share one limit and one reserve.
    ///
    /// # Errors
    /// As [`listen`](ListenConfig::listen); `InvalidInput` for none.
    ///
    /// # Cancel safety
    /// Nothing listens if the future is dropped.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::ListenConfig;
    ///
    /// let listeners = ListenConfig::new().listen_many("127.0.0.1:0", 4).await?;
    /// let addr = listeners[0].local_addr()?;
    /// assert!(listeners.iter().all(|listener| listener.local_addr().is_ok_and(|at| at == addr)));
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub async fn listen_many<A: ToSocketAddrs>(&self, addrs: A, count: usize) -> io::Result<Vec<TcpListener>> {
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a group has at least one listener"));
        }
        let addrs = addrs.to_socket_addrs().await.map_err(failed)?;
        let config = self.clone().reuse_port(true);
        let admission = config.admission()?;
        first_of(addrs, |mut addr| {
            let first = config.open(addr, admission.clone())?;
            addr.set_port(first.local_addr()?.port());
            let mut listeners = vec![first];
            while listeners.len() < count {
                listeners.push(config.open(addr, admission.clone())?);
            }
            Ok(listeners)
        })
    }

    /// The same listener with this configuration's limits ([`max_connections`](ListenConfig::max_connections),
    /// [`reserve_descriptors`](ListenConfig::reserve_descriptors)): for one that was opened elsewhere, such as by
    /// [socket activation](crate::net::activation). Permits of an earlier limit stay with that.
    ///
    /// # Errors
    /// When the reserve cannot be opened.
    pub fn limit(&self, listener: TcpListener) -> io::Result<TcpListener> {
        Ok(listener.admitting(self.admission()?))
    }

    fn admission(&self) -> io::Result<Option<Arc<Admission>>> {
        if self.max_connections.is_none() && self.reserve == 0 {
            return Ok(None);
        }
        let limit = self.max_connections.map(|most| Arc::new(Limit::new(most)));
        let reserve = match self.reserve {
            0 => None,
            most => {
                let answer = self.answer.clone().into_boxed_slice();
                Some(Reserve::new(most, answer).map_err(|error| Op::at("listen", "tcp", None).call("open", error))?)
            }
        };
        Ok(Some(Arc::new(Admission { limit, reserve })))
    }

    fn open(&self, addr: SocketAddr, admission: Option<Arc<Admission>>) -> io::Result<TcpListener> {
        let make = if self.multipath { NetFd::tcp_or_multipath } else { NetFd::tcp };
        let listener = make(self.socket(addr)?)?;
        if self.control.is_some() {
            // Who has seen it may have duplicated it.
            listener.expose();
        }
        Ok(TcpListener::from_net_fd(listener, admission))
    }

    /// A socket that listens on `addr`. The error is an `OpError` `listen tcp addr: call: reason`.
    fn socket(&self, addr: SocketAddr) -> io::Result<OwnedFd> {
        match self.try_socket(addr) {
            // A host without IPv6 still has a wildcard.
            Err(("socket", error))
                if error.raw_os_error() == Some(libc::EAFNOSUPPORT) && is_wildcard_v6(addr) && !self.only_v6 =>
            {
                self.try_socket((Ipv4Addr::UNSPECIFIED, addr.port()).into())
            }
            result => result,
        }
        .map_err(|(call, error)| {
            let op = Op::at("listen", "tcp", Some(Addr::Ip(addr)));
            if call.is_empty() { op.other(error) } else { op.call(call, error) }
        })
    }

    fn try_socket(&self, addr: SocketAddr) -> Result<OwnedFd, (&'static str, io::Error)> {
        let domain = Domain::for_address(addr);
        // No matter why there is no multipath TCP.
        let multipath = self.multipath.then(|| fd::open(domain, Type::STREAM, Some(Protocol::MPTCP)).ok());
        let listener = match multipath.flatten() {
            Some(listener) => listener,
            None => fd::open(domain, Type::STREAM, Some(Protocol::TCP)).map_err(|error| ("socket", error))?,
        };
        let fd = listener.as_fd();
        if addr.is_ipv6() {
            let set = SockRef::from(&fd).set_only_v6(self.only_v6);
            // A kernel without IPv4 refuses to clear it; there is nothing to map then.
            if self.only_v6 {
                set.map_err(|error| ("setsockopt", error))?;
            }
        }
        self.set_options(fd).map_err(|error| ("setsockopt", error))?;
        if let Some(control) = &self.control {
            control(if addr.is_ipv6() { "tcp6" } else { "tcp4" }, addr, fd).map_err(|error| ("", error))?;
        }
        socket::bind(fd, &SockAddr::from(addr)).map_err(|error| ("bind", error))?;
        let backlog = self.backlog.map_or(options::BACKLOG, |most| i32::try_from(most).unwrap_or(i32::MAX));
        socket::listen(fd, backlog).map_err(|error| ("listen", error))?;
        Ok(listener)
    }

    fn set_options(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if !self.exclusive {
            SockRef::from(&fd).set_reuse_address(true)?;
        }
        if self.reuse_port {
            SockRef::from(&fd).set_reuse_port(true)?;
        }
        // Defaults may fail, wishes may not.
        match self.nodelay {
            None => drop(options::set_nodelay(fd, true)),
            Some(nodelay) => options::set_nodelay(fd, nodelay)?,
        }
        match &self.keepalive {
            None => drop(options::set_keepalive(fd, Some(&KeepAlive::new()))),
            Some(keepalive) => options::set_keepalive(fd, keepalive.as_ref())?,
        }
        if let Some(timeout) = self.user_timeout {
            options::tcp::set_user_timeout(fd, Some(timeout))?;
        }
        if let Some(bytes) = self.recv_buffer_size {
            options::socket::set_recv_buffer_size(fd, bytes)?;
        }
        if let Some(bytes) = self.send_buffer_size {
            options::socket::set_send_buffer_size(fd, bytes)?;
        }
        if let Some(queue) = self.fast_open {
            options::tcp::set_fast_open(fd, queue)?;
        }
        if let Some(most) = self.defer_accept {
            options::tcp::set_defer_accept(fd, most)?;
        }
        if let Some(device) = &self.device {
            options::socket::set_device(fd, Some(device))?;
        }
        Ok(())
    }
}

/// What `open` makes of the first address of which it makes something.
fn first_of<T>(
    addrs: impl Iterator<Item = SocketAddr>,
    mut open: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for addr in addrs {
        match open(addr) {
            Ok(opened) => return Ok(opened),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| failed(AddrError::missing())))
}

/// The error of a listener that has no address.
fn failed(error: io::Error) -> io::Error {
    Op::at("listen", "tcp", None).other(error)
}

fn is_wildcard_v6(addr: SocketAddr) -> bool {
    addr.is_ipv6() && addr.ip().is_unspecified()
}

impl fmt::Debug for ListenConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenConfig")
            .field("backlog", &self.backlog)
            .field("reuse_address", &!self.exclusive)
            .field("reuse_port", &self.reuse_port)
            .field("only_v6", &self.only_v6)
            .field("nodelay", &self.nodelay)
            .field("keepalive", &self.keepalive)
            .field("user_timeout", &self.user_timeout)
            .field("recv_buffer_size", &self.recv_buffer_size)
            .field("send_buffer_size", &self.send_buffer_size)
            .field("fast_open", &self.fast_open)
            .field("defer_accept", &self.defer_accept)
            .field("device", &self.device)
            .field("multipath", &self.multipath)
            .field("control", &self.control.is_some())
            .field("max_connections", &self.max_connections)
            .field("reserve", &self.reserve)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{OpError, raw_os_error};
    use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};

    fn listen_socket(addr: SocketAddr) -> io::Result<OwnedFd> {
        ListenConfig::new().socket(addr)
    }

    fn v4(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    fn has_ipv6() -> bool {
        TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
    }

    fn assert_defaults(fd: BorrowedFd<'_>) {
        assert!(options::nodelay(fd).unwrap());
        assert_eq!(options::keepalive(fd).unwrap(), Some(KeepAlive::new()));
    }

    #[test]
    fn accepted_sockets_inherit_the_listener_s_options() {
        let listener = listen_socket(v4(0)).unwrap();
        assert!(SockRef::from(&listener).reuse_address().unwrap());
        assert_defaults(listener.as_fd());
        let addr = socket::local_addr(listener.as_fd()).unwrap();
        let _client = TcpStream::connect(addr).unwrap();
        let (server, _) = loop {
            match socket::accept4(listener.as_fd()) {
                Ok(accepted) => break accepted,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        assert_defaults(server.as_fd());
    }

    #[test]
    fn a_wildcard_keeps_its_family_and_ipv6_takes_both() {
        let listener = listen_socket((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        assert_eq!(socket::local_addr(listener.as_fd()).unwrap().ip(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let listener = listen_socket((Ipv6Addr::UNSPECIFIED, 0).into()).unwrap();
        let addr = socket::local_addr(listener.as_fd()).unwrap();
        if has_ipv6() {
            assert_eq!(addr.ip(), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
            TcpStream::connect((Ipv6Addr::LOCALHOST, addr.port())).unwrap();
            let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
            let dialer = options::dial_socket((mapped, addr.port()).into()).unwrap();
            assert!(!SockRef::from(&dialer).only_v6().unwrap());
        }
        TcpStream::connect((Ipv4Addr::LOCALHOST, addr.port())).unwrap();
    }

    #[test]
    fn listen_errors_say_what_and_where() {
        let taken = TcpListener::bind(v4(0)).unwrap();
        let addr = taken.local_addr().unwrap();
        let error = listen_socket(addr).unwrap_err();
        assert_eq!(error.to_string(), format!("listen tcp {addr}: bind: address already in use"));
        assert_eq!((error.kind(), raw_os_error(&error)), (io::ErrorKind::AddrInUse, Some(libc::EADDRINUSE)));
        let op = error.get_ref().unwrap().downcast_ref::<OpError>().unwrap();
        assert_eq!(op.addr(), Some(&Addr::Ip(addr)));
        // 192.0.2.0/24 is set aside for documentation (RFC 5737): nobody's address.
        let error = listen_socket(([192, 0, 2, 1], 0).into()).unwrap_err();
        assert_eq!(error.to_string(), "listen tcp 192.0.2.1:0: bind: cannot assign requested address");
    }

    #[test]
    fn an_address_is_free_again_when_its_listener_is_gone() {
        let addr = {
            // An address of this test's own, lest another test's listener takes the port in between.
            let listener = listen_socket(([127, 9, 8, 7], 0).into()).unwrap();
            let addr = socket::local_addr(listener.as_fd()).unwrap();
            let client = TcpStream::connect(addr).unwrap();
            // The side that closes first stays in TIME_WAIT on the listener's port.
            drop(loop {
                match socket::accept4(listener.as_fd()) {
                    Ok(accepted) => break accepted,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            });
            drop(client);
            addr
        };
        listen_socket(addr).unwrap();
    }

    /// What it accepted was taken for plain TCP, where a short count proves that there is no more.
    #[test]
    fn nothing_of_a_multipath_listener_trusts_a_short_count() {
        crate::task::block_on(async {
            let config = ListenConfig::new().multipath(true);
            for config in [config.clone(), config.max_connections(9)] {
                let listener = config.listen(v4(0)).await.unwrap();
                if SockRef::from(&listener).protocol().unwrap() != Some(Protocol::MPTCP) {
                    return eprintln!("skipped: this kernel has no multipath TCP");
                }
                let client =
                    crate::net::Dialer::new().multipath(true).dial(listener.local_addr().unwrap()).await.unwrap();
                let (server, _) = listener.accept().await.unwrap();
                assert!(server.is_multipath().unwrap());
                let plain = [&listener.fd, &*client.fd, &*server.fd].map(|fd| fd.fd.is_plain_tcp());
                assert_eq!(plain, [false; 3]);
                let back = crate::net::TcpStream::from(OwnedFd::from(server));
                assert!(!back.fd.fd.is_plain_tcp());
            }
            let plain = crate::net::TcpListener::bind(v4(0)).await.unwrap();
            let back = crate::net::TcpListener::from(OwnedFd::from(plain));
            assert!(back.fd.fd.is_plain_tcp());
        });
    }
}
