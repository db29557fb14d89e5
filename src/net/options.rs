//! TCP socket options, some of which UDP sockets also have.
//!
//! If the kernel refuses a default option, the socket is used without it, as in Go. If it refuses
//! an option that the user set, the error is returned.
//!
//! # Compared with Go (net/sock_posix.go, sockopt_linux.go, tcpsockopt_unix.go)
//! The defaults are the same: TCP_NODELAY, keep-alive with the values of [`KeepAlive::new`], and
//! the host's maximum backlog. On TCP sockets, IPV6_V6ONLY is changed only where it matters: on
//! listeners, and for IPv4-mapped destinations.

pub(crate) mod socket;
pub(crate) mod system;
pub(crate) mod tcp;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::sys::option;
use crate::sys::option::socket::seconds;

/// Keep-alive settings: when TCP probes a silent peer, and when it gives up on the connection.
///
/// After `idle` without traffic the kernel sends a probe, then one every `interval`. After `count`
/// unanswered probes the connection fails with ETIMEDOUT. The default is Go's: an idle time of 15 s
/// and an interval of 15 s, with 9 probes. TCP sockets opened by this crate start with the default,
/// unless `keepalive` was called on the [`ListenConfig`](crate::net::ListenConfig) or
/// [`Dialer`](crate::net::Dialer), or [`defaults(false)`](crate::net::Dialer::defaults) on the
/// `Dialer`. Sockets opened elsewhere keep their settings.
///
/// Times are rounded up to seconds. The limits are those of Linux: 1 to 32,767 s and 1 to 127
/// probes. If any value is out of range, nothing is set and the error is `InvalidInput`. (tcp(7):
/// TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT.)
///
/// # Examples
/// ```
/// use netpoll::net::KeepAlive;
/// use std::time::Duration;
///
/// let patient = KeepAlive::new().with_idle(Duration::from_secs(600)).with_count(3);
/// assert_eq!(patient.idle(), Some(Duration::from_secs(600)));
/// assert_eq!(patient.interval(), Some(Duration::from_secs(15)));
///
/// let only_count = KeepAlive::unchanged().with_count(3);
/// assert_eq!((only_count.idle(), only_count.count()), (None, Some(3)));
/// ```
#[doc(alias = "net.KeepAliveConfig")]
#[doc(alias = "TcpKeepalive")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    idle: Option<Duration>,
    interval: Option<Duration>,
    count: Option<u32>,
}

impl KeepAlive {
    /// Creates the default settings: an idle time of 15 s and an interval of 15 s, with 9 probes.
    pub const fn new() -> KeepAlive {
        let (idle, interval) = (Duration::from_secs(15), Duration::from_secs(15));
        KeepAlive { idle: Some(idle), interval: Some(interval), count: Some(9) }
    }

    /// Creates settings that turn keep-alive on without changing any of the three values, which are
    /// the host's defaults unless they were set earlier. (In Go: negative fields.)
    pub const fn unchanged() -> KeepAlive {
        KeepAlive { idle: None, interval: None, count: None }
    }

    /// Sets the time without traffic before the first probe.
    #[must_use]
    pub const fn with_idle(self, idle: Duration) -> KeepAlive {
        KeepAlive { idle: Some(idle), ..self }
    }

    /// Sets the time between probes.
    #[must_use]
    pub const fn with_interval(self, interval: Duration) -> KeepAlive {
        KeepAlive { interval: Some(interval), ..self }
    }

    /// Sets the number of unanswered probes that end the connection.
    #[must_use]
    pub const fn with_count(self, count: u32) -> KeepAlive {
        KeepAlive { count: Some(count), ..self }
    }

    /// Returns the time without traffic before the first probe; `None` leaves it unchanged.
    pub const fn idle(&self) -> Option<Duration> {
        self.idle
    }

    /// Returns the time between probes; `None` leaves it unchanged.
    pub const fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// Returns the number of unanswered probes that end the connection; `None` leaves it unchanged.
    pub const fn count(&self) -> Option<u32> {
        self.count
    }
}

impl Default for KeepAlive {
    fn default() -> KeepAlive {
        KeepAlive::new()
    }
}

/// Sets keep-alive, or turns it off. If one of the values is out of range, sets none of them.
pub(crate) fn set_keepalive(fd: BorrowedFd<'_>, keepalive: Option<&KeepAlive>) -> io::Result<()> {
    let Some(&KeepAlive { idle, interval, count }) = keepalive else { return option::tcp::clear_keepalive(fd) };
    // Linux's MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL and MAX_TCP_KEEPCNT.
    let is_time = |time: Duration| (1..=32_767).contains(&time.as_secs());
    let (idle, interval) = (idle.map(seconds), interval.map(seconds));
    if !idle.into_iter().chain(interval).all(is_time) || count.is_some_and(|count| !(1..=127).contains(&count)) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    option::tcp::set_keepalive(fd, idle, interval, count)
}

/// Returns the keep-alive settings; `None` if keep-alive is off.
pub(crate) fn keepalive(fd: BorrowedFd<'_>) -> io::Result<Option<KeepAlive>> {
    if !option::tcp::keepalive(fd)? {
        return Ok(None);
    }
    Ok(Some(KeepAlive {
        idle: Some(option::tcp::keepalive_idle(fd)?),
        interval: Some(option::tcp::keepalive_interval(fd)?),
        count: Some(option::tcp::keepalive_count(fd)?),
    }))
}

/// Sets TCP_NODELAY.
pub(crate) fn set_nodelay(fd: BorrowedFd<'_>, nodelay: bool) -> io::Result<()> {
    option::tcp::set_nodelay(fd, nodelay)
}

/// Returns TCP_NODELAY.
pub(crate) fn nodelay(fd: BorrowedFd<'_>) -> io::Result<bool> {
    option::tcp::nodelay(fd)
}

/// Sets the hop limit of packets: IP_TTL on an IPv4 socket; IPV6_UNICAST_HOPS and, if possible,
/// IP_TTL on an IPv6 socket, which may carry both families. Values outside 1 to 255 are refused
/// with EINVAL before either option is changed. The kernel would accept 0 as an IPv6 hop limit, and
/// -1 as a request for the default.
pub(crate) fn set_ttl(fd: BorrowedFd<'_>, ttl: u32) -> io::Result<()> {
    if !(1..=255).contains(&ttl) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if !option::is_v6(fd)? {
        return option::ip::set_ttl_v4(fd, ttl);
    }
    option::ip::set_unicast_hops_v6(fd, ttl)?;
    // macOS and FreeBSD refuse this option on IPv6 sockets.
    let _ = option::ip::set_ttl_v4(fd, ttl);
    Ok(())
}

/// Returns the hop limit of packets: IPV6_UNICAST_HOPS of an IPv6 socket, otherwise IP_TTL.
pub(crate) fn ttl(fd: BorrowedFd<'_>) -> io::Result<u32> {
    if option::is_v6(fd)? { option::ip::unicast_hops_v6(fd) } else { option::ip::ttl_v4(fd) }
}

/// The default backlog of listen(2). The kernel reduces it to the host's maximum, which is
/// `net.core.somaxconn` on Linux. With a smaller backlog, the kernel would drop connection attempts
/// during a burst.
pub(crate) const BACKLOG: libc::c_int = libc::c_int::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;
    use crate::sys::option::socket::{linger, set_linger};
    use socket2::{Domain, Protocol, Type};
    use std::net::{Ipv6Addr, TcpListener};
    use std::os::fd::{AsFd, OwnedFd};

    fn has_ipv6() -> bool {
        TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
    }

    fn tcp_socket(domain: Domain) -> OwnedFd {
        sys::socket::socket(domain, Type::STREAM, Some(Protocol::TCP)).unwrap()
    }

    #[test]
    fn options_read_back_as_set() {
        let dialer = tcp_socket(Domain::IPV4);
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
        assert_eq!(got, wanted.with_idle(Duration::from_secs(1)).with_interval(Duration::from_secs(3)));
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
            let dialer = tcp_socket(Domain::IPV6);
            set_ttl(dialer.as_fd(), 7).unwrap();
            assert_eq!(ttl(dialer.as_fd()).unwrap(), 7);
            assert_eq!(option::ip::ttl_v4(dialer.as_fd()).unwrap(), 7);
        }
    }

    #[test]
    fn keep_alive_values_out_of_range_are_errors() {
        let dialer = tcp_socket(Domain::IPV4);
        let einval = Some(libc::EINVAL);
        let refused =
            |keepalive: KeepAlive| set_keepalive(dialer.as_fd(), Some(&keepalive)).unwrap_err().raw_os_error();
        assert_eq!(refused(KeepAlive::new().with_count(0)), einval);
        assert_eq!(refused(KeepAlive::new().with_count(128)), einval);
        assert_eq!(refused(KeepAlive::new().with_idle(Duration::MAX)), einval);
    }

    #[test]
    fn ttl_out_of_range_is_an_error() {
        let dialer = tcp_socket(Domain::IPV4);
        for ttl in [0, 256, u32::MAX] {
            assert_eq!(set_ttl(dialer.as_fd(), ttl).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
