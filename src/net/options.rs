//! Socket options, and the sockets that `TcpListener::bind` and `TcpStream::connect` begin with.
//!
//! A listener's options are set before listen(2): accepted sockets inherit TCP_NODELAY and the keep-alive settings, so
//! that an accept costs one call. Options that a socket of ours should have but the kernel refuses are left out, as in
//! Go; what a user asks for is reported.
//!
//! # Compared with Go (net/sock_posix.go, sockopt_linux.go, tcpsockopt_unix.go)
//! Same defaults: no delay, keep-alive 15 s/15 s/9, SO_REUSEADDR on listeners, the host's backlog. A wildcard keeps its
//! family here: `0.0.0.0:80` is IPv4 only, as everywhere in Rust, `[::]:80` takes both families. No MPTCP. IPV6_V6ONLY
//! is cleared where it matters, which is on listeners and for mapped destinations.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, TcpKeepalive, Type};

use super::error::{Addr, Op};
use crate::sys::socket;

/// When TCP looks whether a silent peer is still there, and when it gives the connection up.
///
/// After `idle` without traffic the kernel sends a probe, then one every `interval`; after `count` probes without an
/// answer the connection ends with ETIMEDOUT. The default is Go's: 15 s, 15 s, 9. Every TCP socket that this crate
/// makes begins with it; sockets made elsewhere keep what they have.
///
/// Times are rounded up to seconds, at least one. (tcp(7): TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT.)
///
/// # Examples
/// ```
/// use netpoll::net::KeepAlive;
/// use std::time::Duration;
///
/// let patient = KeepAlive::new().with_idle(Duration::from_secs(600)).with_count(3);
/// assert_eq!((patient.idle().as_secs(), patient.interval().as_secs(), patient.count()), (600, 15, 3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    idle: Duration,
    interval: Duration,
    count: u32,
}

impl KeepAlive {
    /// 15 s, 15 s, 9.
    pub const fn new() -> KeepAlive {
        KeepAlive { idle: Duration::from_secs(15), interval: Duration::from_secs(15), count: 9 }
    }

    /// Silence before the first probe. The kernel takes up to 32,767 s.
    #[must_use]
    pub const fn with_idle(self, idle: Duration) -> KeepAlive {
        KeepAlive { idle, ..self }
    }

    /// Time between probes. The kernel takes up to 32,767 s.
    #[must_use]
    pub const fn with_interval(self, interval: Duration) -> KeepAlive {
        KeepAlive { interval, ..self }
    }

    /// Probes without an answer that end the connection. The kernel takes 1 to 127.
    #[must_use]
    pub const fn with_count(self, count: u32) -> KeepAlive {
        KeepAlive { count, ..self }
    }

    /// Silence before the first probe.
    pub const fn idle(&self) -> Duration {
        self.idle
    }

    /// Time between probes.
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// Probes without an answer that end the connection.
    pub const fn count(&self) -> u32 {
        self.count
    }
}

impl Default for KeepAlive {
    fn default() -> KeepAlive {
        KeepAlive::new()
    }
}

/// `duration` in whole seconds, rounded up, at least `min`.
fn seconds(duration: Duration, min: u64) -> Duration {
    let partial = u64::from(duration.subsec_nanos() != 0);
    Duration::from_secs(duration.as_secs().saturating_add(partial).max(min))
}

/// Sets keep-alive probes, or turns them off.
pub(crate) fn set_keepalive(fd: BorrowedFd<'_>, keepalive: Option<&KeepAlive>) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    let Some(KeepAlive { idle, interval, count }) = keepalive else { return socket.set_keepalive(false) };
    let parameters =
        TcpKeepalive::new().with_time(seconds(*idle, 1)).with_interval(seconds(*interval, 1)).with_retries(*count);
    socket.set_tcp_keepalive(&parameters)
}

/// The keep-alive settings; none where it is off.
pub(crate) fn keepalive(fd: BorrowedFd<'_>) -> io::Result<Option<KeepAlive>> {
    let socket = SockRef::from(&fd);
    if !socket.keepalive()? {
        return Ok(None);
    }
    Ok(Some(KeepAlive {
        idle: socket.tcp_keepalive_time()?,
        interval: socket.tcp_keepalive_interval()?,
        count: socket.tcp_keepalive_retries()?,
    }))
}

/// Sets TCP_NODELAY.
pub(crate) fn set_nodelay(fd: BorrowedFd<'_>, nodelay: bool) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_nodelay(nodelay)
}

/// TCP_NODELAY.
pub(crate) fn nodelay(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).tcp_nodelay()
}

/// Sets how many hops packets live: IP_TTL, and IPV6_UNICAST_HOPS of an IPv6 socket, which may carry both.
pub(crate) fn set_ttl(fd: BorrowedFd<'_>, ttl: u32) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    if socket.domain()? == Domain::IPV6 {
        socket.set_unicast_hops_v6(ttl)?;
    }
    socket.set_ttl_v4(ttl)
}

/// How many hops packets live: IPV6_UNICAST_HOPS of an IPv6 socket, otherwise IP_TTL.
pub(crate) fn ttl(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let socket = SockRef::from(&fd);
    if socket.domain()? == Domain::IPV6 { socket.unicast_hops_v6() } else { socket.ttl_v4() }
}

/// Sets what close(2) does with data not yet sent (SO_LINGER): none sends it behind the caller's back, zero throws it
/// away and resets the connection, more waits that long (rounded up to seconds: half a second must not become a reset).
pub(crate) fn set_linger(fd: BorrowedFd<'_>, linger: Option<Duration>) -> io::Result<()> {
    const SECONDS_MAX: Duration = Duration::from_secs(libc::c_int::MAX as u64);
    SockRef::from(&fd).set_linger(linger.map(|linger| seconds(linger, 0).min(SECONDS_MAX)))
}

/// SO_LINGER.
pub(crate) fn linger(fd: BorrowedFd<'_>) -> io::Result<Option<Duration>> {
    SockRef::from(&fd).linger()
}

/// Connections that the kernel completes ahead of accept: the host's bound, read once. The kernel would cut a greater
/// one down to it, and a smaller one refuses connections in a burst.
pub(crate) fn backlog() -> libc::c_int {
    static BACKLOG: OnceLock<libc::c_int> = OnceLock::new();
    *BACKLOG.get_or_init(|| parse_backlog(std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok().as_deref()))
}

fn parse_backlog(somaxconn: Option<&str>) -> libc::c_int {
    let first = somaxconn.and_then(|text| text.split_ascii_whitespace().next());
    match first.map(str::parse::<u64>) {
        Some(Ok(number @ 1..)) => libc::c_int::try_from(number).unwrap_or(libc::c_int::MAX),
        _ => libc::SOMAXCONN.min(128),
    }
}

/// What every TCP socket of ours begins with.
fn set_defaults(fd: BorrowedFd<'_>) {
    // A connection without these works; Go ignores their failure as well.
    let _ = set_nodelay(fd, true);
    let _ = set_keepalive(fd, Some(&KeepAlive::new()));
}

/// A TCP socket that listens on `addr`. The error is an `OpError` `listen tcp addr: call: reason`.
pub(crate) fn listen_socket(addr: SocketAddr) -> io::Result<OwnedFd> {
    match try_listen(addr) {
        // A host without IPv6 still has a wildcard.
        Err(("socket", error)) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) && is_wildcard_v6(addr) => {
            try_listen((Ipv4Addr::UNSPECIFIED, addr.port()).into())
        }
        result => result,
    }
    .map_err(|(call, error)| Op::at("listen", "tcp", Some(Addr::Ip(addr))).call(call, error))
}

fn is_wildcard_v6(addr: SocketAddr) -> bool {
    addr.is_ipv6() && addr.ip().is_unspecified()
}

fn try_listen(addr: SocketAddr) -> Result<OwnedFd, (&'static str, io::Error)> {
    let listener = socket::socket(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))
        .map_err(|error| ("socket", error))?;
    let fd = listener.as_fd();
    if addr.is_ipv6() {
        // Refused by a kernel without IPv4, which then has nothing to map.
        let _ = SockRef::from(&fd).set_only_v6(false);
    }
    SockRef::from(&fd).set_reuse_address(true).map_err(|error| ("setsockopt", error))?;
    set_defaults(fd);
    socket::bind(fd, &SockAddr::from(addr)).map_err(|error| ("bind", error))?;
    socket::listen(fd, backlog()).map_err(|error| ("listen", error))?;
    Ok(listener)
}

/// A TCP socket for a connect to `addr`. The error is an `OpError` `dial tcp addr: socket: reason`.
pub(crate) fn dial_socket(addr: SocketAddr) -> io::Result<OwnedFd> {
    let dialer = socket::socket(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))
        .map_err(|error| Op::at("dial", "tcp", Some(Addr::Ip(addr))).call("socket", error))?;
    if let SocketAddr::V6(v6) = addr
        && v6.ip().to_ipv4_mapped().is_some()
    {
        let _ = SockRef::from(&dialer).set_only_v6(false);
    }
    set_defaults(dialer.as_fd());
    Ok(dialer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{OpError, raw_os_error};
    use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};

    fn v4(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    fn has_ipv6() -> bool {
        TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
    }

    fn assert_defaults(fd: BorrowedFd<'_>) {
        assert!(nodelay(fd).unwrap());
        assert_eq!(keepalive(fd).unwrap(), Some(KeepAlive::new()));
    }

    /// Rows 5.1 and 5.2 of GO.md.
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
    fn a_dialer_has_the_defaults_before_it_connects() {
        assert_defaults(dial_socket(v4(1)).unwrap().as_fd());
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
            let dialer = dial_socket((mapped, addr.port()).into()).unwrap();
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

    #[test]
    fn options_come_back_as_they_were_set() {
        let dialer = dial_socket(v4(1)).unwrap();
        let fd = dialer.as_fd();
        set_nodelay(fd, false).unwrap();
        assert!(!nodelay(fd).unwrap());
        set_keepalive(fd, None).unwrap();
        assert_eq!(keepalive(fd).unwrap(), None);
        let wanted = KeepAlive::new()
            .with_idle(Duration::from_millis(1))
            .with_interval(Duration::from_millis(2500))
            .with_count(4);
        set_keepalive(fd, Some(&wanted)).unwrap();
        let got = keepalive(fd).unwrap().unwrap();
        assert_eq!((got.idle().as_secs(), got.interval().as_secs(), got.count()), (1, 3, 4));
        set_ttl(fd, 42).unwrap();
        assert_eq!(ttl(fd).unwrap(), 42);
        assert_eq!(linger(fd).unwrap(), None);
        for (set, read) in [(0, 0), (500, 1), (3000, 3)] {
            set_linger(fd, Some(Duration::from_millis(set))).unwrap();
            assert_eq!(linger(fd).unwrap(), Some(Duration::from_secs(read)));
        }
        set_linger(fd, Some(Duration::MAX)).unwrap();
        assert!(linger(fd).unwrap() > Some(Duration::from_secs(1 << 20)));
        set_linger(fd, None).unwrap();
        assert_eq!(linger(fd).unwrap(), None);
        if has_ipv6() {
            let dialer = dial_socket((Ipv6Addr::LOCALHOST, 1).into()).unwrap();
            set_ttl(dialer.as_fd(), 7).unwrap();
            assert_eq!(ttl(dialer.as_fd()).unwrap(), 7);
            assert_eq!(SockRef::from(&dialer).ttl_v4().unwrap(), 7);
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_reported() {
        let dialer = dial_socket(v4(1)).unwrap();
        let einval = Some(libc::EINVAL);
        let refused =
            |keepalive: KeepAlive| set_keepalive(dialer.as_fd(), Some(&keepalive)).unwrap_err().raw_os_error();
        assert_eq!(refused(KeepAlive::new().with_count(0)), einval);
        assert_eq!(refused(KeepAlive::new().with_count(128)), einval);
        assert_eq!(refused(KeepAlive::new().with_idle(Duration::MAX)), einval);
        assert_eq!(set_ttl(dialer.as_fd(), 0).unwrap_err().raw_os_error(), einval);
        assert_eq!(set_ttl(dialer.as_fd(), 256).unwrap_err().raw_os_error(), einval);
    }

    #[test]
    fn the_backlog_is_the_host_s() {
        assert!(backlog() >= 1);
        assert_eq!(parse_backlog(Some("4096\n")), 4096);
        assert_eq!(parse_backlog(Some("70000 1")), 70000);
        assert_eq!(parse_backlog(Some("99999999999")), libc::c_int::MAX);
        for nonsense in [None, Some(""), Some("0"), Some("-1"), Some("many")] {
            assert_eq!(parse_backlog(nonsense), 128);
        }
    }
}
