//! [`ListenConfig`]: options and limits of a listener.
//!
//! Options are set before bind(2) and listen(2). Accepted sockets inherit them, so an accept costs
//! one system call, and the TCP window scale, which depends on the receive buffer, is already
//! correct in the handshake. If the kernel refuses SO_REUSEADDR or an option that the user set, the
//! error is returned. If it refuses a default (TCP_NODELAY, keep-alive) or refuses to clear
//! IPV6_V6ONLY, the socket is used regardless, as in Go. If a multipath socket cannot be opened, a
//! TCP socket is used.
//!
//! # Compared with Go (net/dial.go `ListenConfig`, sock_posix.go, mptcpsock_linux.go)
//! The defaults are the same except for two. The address `0.0.0.0:80` is IPv4 only, as in std;
//! `[::]:80` accepts both families. Multipath TCP is off by default (in Go it is on). Go leaves all
//! options except keep-alive and multipath TCP to its `Control` hook; here the options that servers
//! use have methods.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use socket2::{Domain, Protocol, SockAddr, Type};

use super::error::{Addr, Op};
use super::fd::fd;
use super::limits::{Admission, Reserve};
use super::net_fd::NetFd;
use super::options;
use super::options::system::ListenExtras;
use super::options::tcp::{TcpOptions, tcp_option_methods};
use super::permits::Limit;
use super::{AddrError, ToSocketAddrs};
use crate::sys::{option, socket};

type Control = dyn Fn(&str, SocketAddr, BorrowedFd<'_>) -> io::Result<()> + Send + Sync;

/// Options and limits of a TCP listener and of the streams that it accepts.
///
/// A new configuration has the defaults of [`TcpListener::bind`](crate::net::TcpListener::bind).
/// Each of the builder methods sets one option. A configuration can open any number of listeners.
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
#[doc(alias = "net.ListenConfig")]
#[doc(alias = "TcpSocket")]
#[derive(Clone, Default)]
#[must_use = "a configuration does nothing until `listen` is called"]
pub struct ListenConfig {
    backlog: Option<u32>,
    exclusive: bool,
    reuse_port: bool,
    only_v6: bool,
    pub(super) tcp: TcpOptions,
    /// Options that depend on the system.
    pub(super) extras: ListenExtras,
    control: Option<Arc<Control>>,
    auto_cork: bool,
    max_connections: Option<usize>,
    reserve: usize,
    answer: Vec<u8>,
}

impl ListenConfig {
    /// Creates a configuration with the defaults: TCP_NODELAY, keep-alive (first probe after 15 s,
    /// then every 15 s, 9 probes), SO_REUSEADDR, the host's maximum backlog, and both address
    /// families on `[::]`.
    pub fn new() -> ListenConfig {
        ListenConfig::default()
    }

    /// Sets how many established connections the kernel queues until they are accepted. The
    /// default is the host's maximum, which is `net.core.somaxconn` on Linux.
    pub fn backlog(mut self, connections: u32) -> ListenConfig {
        self.backlog = Some(connections);
        self
    }

    /// Sets whether the port can be bound while connections of an earlier listener still use it,
    /// for example in TIME_WAIT (SO_REUSEADDR). The default is true.
    pub fn reuse_address(mut self, reuse: bool) -> ListenConfig {
        self.exclusive = !reuse;
        self
    }

    /// Sets whether other listeners of the same user that also set this option can bind the same
    /// port (SO_REUSEPORT). Linux distributes connections among them. Closing one of them resets
    /// the connections in its queue. The default is false.
    pub fn reuse_port(mut self, reuse: bool) -> ListenConfig {
        self.reuse_port = reuse;
        self
    }

    /// Sets whether a listener on `[::]` refuses IPv4 connections (IPV6_V6ONLY). The default is
    /// false, whatever the host's default is.
    pub fn only_v6(mut self, only: bool) -> ListenConfig {
        self.only_v6 = only;
        self
    }

    /// Sets a function that is called with each socket, after all other options are set and before
    /// the socket is bound. Its arguments are the network (`tcp4` or `tcp6`), the address and the
    /// descriptor. If the function returns an error, the attempt at this address fails with that
    /// error.
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
    #[doc(alias = "ListenConfig.Control")]
    pub fn control<F>(mut self, control: F) -> ListenConfig
    where
        F: Fn(&str, SocketAddr, BorrowedFd<'_>) -> io::Result<()> + Send + Sync + 'static,
    {
        self.control = Some(Arc::new(control));
        self
    }

    /// Sets whether accepted connections gather the writes of one turn of a task; see
    /// [`TcpStream::set_auto_cork`](crate::net::TcpStream::set_auto_cork). The default is false.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::{ListenConfig, TcpStream};
    ///
    /// let listener = ListenConfig::new().auto_cork(true).listen("127.0.0.1:0").await?;
    /// let _client = TcpStream::connect(listener.local_addr()?).await?;
    /// assert!(listener.accept().await?.0.auto_cork());
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn auto_cork(mut self, gather: bool) -> ListenConfig {
        self.auto_cork = gather;
        self
    }

    /// Limits the number of accepted connections that are open at a time. At the limit, accepts
    /// wait, and the kernel queues new connections, up to the [backlog](ListenConfig::backlog). A
    /// waiting accept still ends at the listener's deadline or close, at a shutdown of the runtime,
    /// and with EINVAL if another user of the socket has shut it down. With 0, no connection is
    /// accepted.
    ///
    /// Each connection holds a permit. The permit is released when the stream's descriptor is
    /// closed (when the last clone is dropped, or by `force_close`), or when the last clone is
    /// converted into another type. When a server of [`serve`](crate::net::serve()) stops, it also
    /// accepts up to 4,096 connections from the queue, even beyond this limit. They hold no permit.
    pub fn max_connections(mut self, connections: usize) -> ListenConfig {
        self.max_connections = Some(connections);
        self
    }

    /// Reserves descriptors for refusing connections when no other descriptor is available
    /// (EMFILE, ENFILE). The listener then closes a reserved descriptor, accepts the oldest
    /// connection in its place, sends the [`refuse_with`](ListenConfig::refuse_with) response,
    /// closes the connection and refills the reserve. Clients learn immediately that the server is
    /// full, and accepts do not fail for lack of descriptors while a reserved one is left.
    ///
    /// One descriptor is enough unless other threads open files at the same time, because they may
    /// take the freed descriptor first. Descriptors that become free refill the reserve before
    /// another connection is accepted.
    ///
    /// Without a reserve, [`accept`](crate::net::TcpListener::accept) returns the error and
    /// [`incoming`](crate::net::TcpListener::incoming) pauses, while connections stay in the queue.
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

    /// Sets the response that is sent to connections refused for lack of descriptors, as far as it
    /// fits into the socket's send buffer. The default is no response. The method has no effect
    /// without [reserved descriptors](ListenConfig::reserve_descriptors).
    pub fn refuse_with(mut self, answer: impl Into<Vec<u8>>) -> ListenConfig {
        self.answer = answer.into();
        self
    }

    /// Creates the limits of a new listener, or of several listeners that share them. Returns
    /// `None` if there are no limits.
    ///
    /// # Errors
    /// Returns an `OpError` with the text `listen tcp: open: …` if the reserve cannot be opened.
    pub(super) fn admission(&self) -> io::Result<Option<Arc<Admission>>> {
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

    /// Opens a listener on `addr`.
    pub(super) fn open(&self, addr: SocketAddr) -> io::Result<NetFd> {
        let make = if self.extras.is_multipath() { NetFd::tcp_or_multipath } else { NetFd::tcp };
        let listener =
            make(self.socket(addr)?).map_err(|error| Op::at("listen", "tcp", Some(Addr::Ip(addr))).other(error))?;
        // On a host without IPv6, a listener for `[::]` is bound to `0.0.0.0`. So `[::]` is stored
        // with port 0, and the kernel is asked for the address when it is needed.
        let may_differ = is_wildcard_v6(addr) && !self.only_v6;
        listener.fd.poll.set_listener(if may_differ { SocketAddr::new(addr.ip(), 0) } else { addr });
        if self.auto_cork {
            listener.fd.set_wants_gathering();
        }
        if self.control.is_some() {
            // The control function may have duplicated the descriptor.
            listener.expose();
        }
        Ok(listener)
    }

    /// Opens a socket that listens on `addr`.
    ///
    /// # Errors
    /// Returns an `OpError` with the text `listen tcp ADDR: CALL: …`, or `listen tcp ADDR: …` if
    /// the control function returned the error.
    fn socket(&self, addr: SocketAddr) -> io::Result<OwnedFd> {
        match self.try_socket(addr) {
            // On a host without IPv6, falls back to the IPv4 wildcard.
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
        // Opens a TCP socket if MPTCP was not requested, or if the MPTCP socket could not be
        // opened, whatever the error.
        let listener = match self.extras.open(domain) {
            Some(listener) => listener,
            None => fd::open(domain, Type::STREAM, Some(Protocol::TCP)).map_err(|error| ("socket", error))?,
        };
        let fd = listener.as_fd();
        if addr.is_ipv6() {
            let set = option::ip::set_only_v6(fd, self.only_v6);
            // A kernel without IPv4 refuses to clear the option, and no IPv4 connection can arrive.
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
            option::socket::set_reuse_address(fd, true)?;
        }
        if self.reuse_port {
            option::socket::set_reuse_port(fd, true)?;
        }
        self.tcp.apply(fd)?;
        self.extras.apply(fd)
    }
}

/// Calls `open` with each of `addrs` until a call succeeds. If none succeeds, returns the error of
/// the last call. If there is no address, returns the error of the look-up, or `missing address`.
pub(super) async fn open_first<A: ToSocketAddrs, T>(
    addrs: A,
    mut open: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for addr in addrs.to_socket_addrs().await.map_err(failed)? {
        match open(addr) {
            Ok(opened) => return Ok(opened),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| failed(AddrError::missing())))
}

/// Returns the error of a listen operation that fails before it has an address.
fn failed(error: io::Error) -> io::Error {
    Op::at("listen", "tcp", None).other(error)
}

fn is_wildcard_v6(addr: SocketAddr) -> bool {
    addr.is_ipv6() && addr.ip().is_unspecified()
}

tcp_option_methods!(ListenConfig, tcp);

impl fmt::Debug for ListenConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenConfig")
            .field("backlog", &self.backlog)
            .field("reuse_address", &!self.exclusive)
            .field("reuse_port", &self.reuse_port)
            .field("only_v6", &self.only_v6)
            .field("tcp", &self.tcp)
            .field("extras", &self.extras)
            .field("control", &self.control.is_some())
            .field("auto_cork", &self.auto_cork)
            .field("max_connections", &self.max_connections)
            .field("reserve", &self.reserve)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::KeepAlive;
    use crate::net::tcp::dial::Recipe;
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
    fn accepted_sockets_inherit_listener_options() {
        let listener = listen_socket(v4(0)).unwrap();
        assert!(option::is_on(listener.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR).unwrap());
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
    fn ipv4_wildcard_is_ipv4_only_and_ipv6_wildcard_accepts_both() {
        let listener = listen_socket((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        assert_eq!(socket::local_addr(listener.as_fd()).unwrap().ip(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let listener = listen_socket((Ipv6Addr::UNSPECIFIED, 0).into()).unwrap();
        let addr = socket::local_addr(listener.as_fd()).unwrap();
        if has_ipv6() {
            assert_eq!(addr.ip(), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
            TcpStream::connect((Ipv6Addr::LOCALHOST, addr.port())).unwrap();
            let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
            let dialer = Recipe::new().open((mapped, addr.port()).into()).unwrap();
            assert!(!option::ip::only_v6(dialer.fd.borrow()).unwrap());
        }
        TcpStream::connect((Ipv4Addr::LOCALHOST, addr.port())).unwrap();
    }

    #[test]
    fn listen_errors_name_the_call_and_the_address() {
        let taken = TcpListener::bind(v4(0)).unwrap();
        let addr = taken.local_addr().unwrap();
        let error = listen_socket(addr).unwrap_err();
        assert_eq!(error.to_string(), format!("listen tcp {addr}: bind: address already in use"));
        assert_eq!((error.kind(), raw_os_error(&error)), (io::ErrorKind::AddrInUse, Some(libc::EADDRINUSE)));
        let op = error.get_ref().unwrap().downcast_ref::<OpError>().unwrap();
        assert_eq!(op.addr(), Some(&Addr::Ip(addr)));
        // 192.0.2.0/24 is reserved for documentation (RFC 5737), so no host has this address.
        let error = listen_socket(([192, 0, 2, 1], 0).into()).unwrap_err();
        assert_eq!(error.to_string(), "listen tcp 192.0.2.1:0: bind: cannot assign requested address");
    }

    #[test]
    fn address_is_free_after_its_listener_is_closed() {
        let addr = {
            // No other test binds this address, so another listener is unlikely to take the port
            // after the first one is closed.
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
}
