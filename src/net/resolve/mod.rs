//! Name resolution.
//!
//! * [`query`]: queries to the host's name service, and their answers. [`lookup_error`]: their
//!   errors.
//! * [`flight`]: sharing one query among identical look-ups.
//! * [`families`]: querying each address family separately if the query for both is slow.
//! * [`host_name`]: validation of host names. [`source`]: the trait [`Resolve`] for other
//!   resolvers, such as the crate `netpoll-resolver`, which queries DNS servers.
//!
//! The functions here are for direct use; `ToSocketAddrs` and `Dialer` use the same modules.
//!
//! # Compared with Go (net/lookup.go, cgo_unix.go)
//! The module works like Go's cgo resolver. It calls getaddrinfo(3) and getnameinfo(3) on a bounded
//! pool of threads, so the hosts file, nsswitch.conf, search list, timeouts and address order are
//! the host's. Go also merges concurrent identical look-ups.

pub(crate) mod families;
pub(crate) mod flight;
pub(crate) mod host_name;
pub(crate) mod lookup_error;
pub(crate) mod query;
mod source;

use std::io;
use std::net::{IpAddr, SocketAddr};

use self::flight::Lookup;
pub use self::lookup_error::LookupError;
use self::query::{Query, Transport};
pub use self::source::Resolve;
use super::addr::ToSocketAddrs;
use super::host_port::{AddrError, literal};
use crate::rt::context;
pub use crate::sys::names::Family;

/// Resolves `addrs` to socket addresses, in the order in which they should be tried.
///
/// # Errors
/// Returns the same errors as [`ToSocketAddrs`].
///
/// # Cancel safety
/// Dropping the future abandons the look-up.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// let addrs = netpoll::net::resolve("localhost:8080").await?;
/// assert!(addrs.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 8080));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub async fn resolve<A: ToSocketAddrs>(addrs: A) -> io::Result<Vec<SocketAddr>> {
    Ok(addrs.to_socket_addrs().await?.collect())
}

/// Looks up the addresses of `host`, in the order in which they should be tried (RFC 6724,
/// gai.conf(5)). A literal address is returned unchanged, but without its zone.
///
/// The answer follows this machine's configuration: hosts(5), the search list and timeouts of
/// resolv.conf(5), and nsswitch.conf(5). Concurrent look-ups of the same name share one query.
///
/// # Errors
/// Returns a [`LookupError`], whose documentation lists the kinds. The kind is `NotFound` if the
/// name does not exist or has no address.
///
/// # Cancel safety
/// Dropping the future abandons the look-up. A query that has begun runs to completion on its
/// thread; a query that has not begun and that no look-up waits for is not run.
///
/// Source: getaddrinfo(3); Go's `net.LookupIP`.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::{self, LookupError};
///
/// assert!(net::lookup_host("localhost").await?.iter().all(|ip| ip.is_loopback()));
/// let error = net::lookup_host("not a name").await.unwrap_err();
/// assert_eq!(error.to_string(), "lookup not a name: no such host");
/// let lookup = error.get_ref().and_then(|inner| inner.downcast_ref::<LookupError>()).unwrap();
/// assert!(lookup.is_not_found());
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[doc(alias = "net.LookupHost")]
#[doc(alias = "getaddrinfo")]
pub async fn lookup_host(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Some(addr) = literal(host, 0) {
        context::take_turn().await;
        return Ok(vec![addr.ip()]);
    }
    let addrs = Lookup::new(Query::Addrs(host.to_owned(), Family::Any)).await?.into_addrs();
    Ok(addrs.iter().map(SocketAddr::ip).collect())
}

/// Looks up the names of `ip`. The host's name service returns at most one.
///
/// # Errors
/// Returns a [`LookupError`] of kind `NotFound` if the address has no name, or its name is not a
/// valid host name. Otherwise returns the same errors as [`lookup_host`].
///
/// # Cancel safety
/// Dropping the future abandons the look-up, as with [`lookup_host`].
///
/// Source: getnameinfo(3); Go's `net.LookupAddr`.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// let names = netpoll::net::lookup_addr([127, 0, 0, 1].into()).await?;
/// println!("127.0.0.1 is {}", names[0]);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub async fn lookup_addr(ip: IpAddr) -> io::Result<Vec<String>> {
    Ok(vec![Lookup::new(Query::Name(ip)).await?.into_name()])
}

/// Looks up the canonical name of `host`: the name at the end of its chain of aliases. A literal
/// address is returned unchanged.
///
/// # Errors
/// Returns the same errors as [`lookup_host`]. Also returns a [`LookupError`] of kind `NotFound` if
/// the canonical name is not a valid host name.
///
/// # Cancel safety
/// Dropping the future abandons the look-up, as with [`lookup_host`].
///
/// Source: getaddrinfo(3) with AI_CANONNAME; Go's `net.LookupCNAME`.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// println!("localhost is {}", netpoll::net::lookup_cname("localhost").await?);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub async fn lookup_cname(host: &str) -> io::Result<String> {
    Ok(Lookup::new(Query::CanonicalName(host.to_owned())).await?.into_name())
}

/// Looks up the port of `service` in `network`, which is `tcp` or `udp` (optionally followed by 4
/// or 6), or `ip` or empty for either. A number is returned unchanged. An empty `service` is
/// port 0.
///
/// # Errors
/// * Returns a [`LookupError`] of kind `NotFound` for a service that services(5) does not have for
///   this network (`lookup tcp/x: unknown port`), and of kind `InvalidInput` for another network.
/// * Returns an [`AddrError`] (`InvalidInput`) for a number that is not a port:
///   `address 65536: invalid port`.
/// * Otherwise returns the same errors as [`lookup_host`].
///
/// # Cancel safety
/// Dropping the future abandons the look-up, as with [`lookup_host`].
///
/// Source: services(5), getaddrinfo(3); Go's `net.LookupPort`.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::lookup_port;
///
/// assert_eq!(lookup_port("tcp", "8080").await?, 8080);
/// assert!(lookup_port("tcp", "no-such-service").await.is_err());
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub async fn lookup_port(network: &str, service: &str) -> io::Result<u16> {
    context::take_turn().await;
    let transport = match network {
        "tcp" | "tcp4" | "tcp6" => Transport::Tcp,
        "udp" | "udp4" | "udp6" => Transport::Udp,
        "" | "ip" => Transport::Any,
        _ => return Err(LookupError::unknown_network(network, service).into()),
    };
    if service.is_empty() {
        return Ok(0);
    }
    // A sign may precede the digits of a number, as in Go.
    let digits = service.strip_prefix(['+', '-']).unwrap_or(service);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let port = service.parse::<i64>().ok().and_then(|port| u16::try_from(port).ok());
        return port.ok_or_else(|| AddrError::new(service, "invalid port").into());
    }
    Ok(Lookup::new(Query::Port(service.to_owned(), transport)).await?.into_port())
}
