//! Names: looking them up.
//!
//! [`query`] is what can be asked of the host's name service and how it fails, [`flight`] lets identical questions that
//! are under way share one call, [`families`] asks for both address families apart when one of them is slow. The rest
//! is what a program calls by itself; `ToSocketAddrs` and `Dialer` come by the same ways. `native` (feature `hickory`)
//! asks DNS servers instead.
//!
//! # Compared with Go (net/lookup.go, cgo_unix.go)
//! As Go with its cgo resolver: getaddrinfo(3) on a bounded pool of threads, so that the hosts file, the search list,
//! time-outs, nsswitch and the address order are the host's. Concurrent identical look-ups are merged there too.

pub(crate) mod families;
pub(crate) mod flight;
pub(crate) mod host_name;
#[cfg(feature = "hickory")]
mod native;
pub(crate) mod query;

use std::io;
use std::net::{IpAddr, SocketAddr};

use self::flight::Lookup;
#[cfg(feature = "hickory")]
pub use self::native::{Mx, Resolver, ResolverBuilder, Srv};
pub use self::query::LookupError;
use self::query::{Query, Transport};
use super::addr::literal;
use super::{AddrError, ToSocketAddrs};
use crate::rt::context;
use crate::sys::names::Family;

/// The socket addresses that `addrs` stands for, in the order in which they should be tried.
///
/// # Errors
/// Those of [`ToSocketAddrs`].
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

/// The addresses of `host`, in the order in which they should be tried (RFC 6724, gai.conf(5)). A literal is its own.
///
/// The answer is the host's: hosts(5), the search list and time-outs of resolv.conf(5), whatever nsswitch.conf(5) says.
/// Look-ups of the same name that are under way at the same time share one query.
///
/// # Errors
/// A [`LookupError`]: `NotFound` where there is no such name, otherwise as the name service says.
///
/// # Cancel safety
/// Dropping the future abandons the look-up: a query that has begun ends by itself on its thread, one that nobody
/// waits for any more does not begin.
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
pub async fn lookup_host(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Some(addr) = literal(host, 0) {
        context::take_turn().await;
        return Ok(vec![addr.ip()]);
    }
    let addrs = Lookup::new(Query::Addrs(host.to_owned(), Family::Any)).await?.into_addrs();
    Ok(addrs.iter().map(SocketAddr::ip).collect())
}

/// The names of `ip`. The host's name service knows one at most.
///
/// # Errors
/// A [`LookupError`]: `NotFound` where the address has no name.
///
/// # Cancel safety
/// As [`lookup_host`].
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

/// The canonical name of `host`: where its aliases end.
///
/// # Errors
/// As [`lookup_host`].
///
/// # Cancel safety
/// As [`lookup_host`].
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

/// The port of `service` in `network`: `tcp`, `udp` (also with 4 or 6 behind), or `ip` or nothing for either. A number is
/// its own, the empty text is 0.
///
/// # Errors
/// * a [`LookupError`]: `NotFound` for a service that services(5) does not have (`lookup tcp/x: unknown port`),
///   `InvalidInput` for another network;
/// * an [`AddrError`] (`InvalidInput`) for a number that is no port: `address 65536: invalid port`.
///
/// # Cancel safety
/// As [`lookup_host`].
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
    // A sign is a number's, in Go too.
    let digits = service.strip_prefix(['+', '-']).unwrap_or(service);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let port = service.parse::<i64>().ok().and_then(|port| u16::try_from(port).ok());
        return port.ok_or_else(|| AddrError::new(service, "invalid port").into());
    }
    Ok(Lookup::new(Query::Port(service.to_owned(), transport)).await?.into_port())
}
