//! Conversion of user-supplied addresses to socket addresses.
//!
//! [`ToSocketAddrs`] is async-std's trait: users can implement it, and its future is a named type.
//! Literal addresses need no look-up. Names go to `net::resolve`, which follows the host's
//! configuration (hosts file, search list, address order).
//!
//! # Cancellation
//! Dropping the future abandons the look-up. getaddrinfo(3) cannot be interrupted, so a thread that
//! has called it continues until it returns.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{option, slice, vec};

use super::host_port::{AddrError, Parsed, ResolveError};
use super::resolve::families::Addrs;
use super::resolve::flight::Lookup;
use super::resolve::query::{Query, Transport};
use crate::rt::context;
use crate::task::{JoinHandle, spawn_lookup};

/// Converts a value to socket addresses, with a name look-up if necessary. This trait is the
/// asynchronous counterpart of [`std::net::ToSocketAddrs`].
///
/// It is implemented for addresses, `(ip, port)`, `(host, port)`, `"host:port"`, slices of
/// addresses, and references to these. In a string, an IPv6 address before a port is in brackets:
/// `"[::1]:80"`. As in Go:
///
/// * A string without a host, such as `":7000"`, stands for every address of this machine:
///   `[::]:7000`, which also accepts IPv4, and then `0.0.0.0:7000`, for a machine without IPv6.
///   Connecting to these addresses reaches this machine.
/// * The port may be the name of a service in services(5): `"localhost:http"`.
///
/// # Errors
/// * Returns [`InvalidInput`](std::io::ErrorKind::InvalidInput) with an [`AddrError`] inside if the
///   string is malformed.
/// * Returns [`NotFound`](std::io::ErrorKind::NotFound) with a
///   [`LookupError`](crate::net::LookupError) inside if there is no such service.
/// * If the host cannot be resolved, returns an error whose text contains the value, such as
///   ``could not resolve address `"host:port"` ``. Its source is the error of the resolver, and it
///   has that error's kind.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::ToSocketAddrs;
///
/// let mut addrs = "localhost:8080".to_socket_addrs().await?;
/// assert!(addrs.all(|addr| addr.ip().is_loopback() && addr.port() == 8080));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
///
/// An implementation for your own type:
/// ```
/// use netpoll::net::{SocketAddr, ToSocketAddrs, ToSocketAddrsFuture};
///
/// struct Replicas(Vec<SocketAddr>);
///
/// impl ToSocketAddrs for Replicas {
///     type Iter = std::vec::IntoIter<SocketAddr>;
///
///     fn to_socket_addrs(&self) -> ToSocketAddrsFuture<Self::Iter> {
///         ToSocketAddrsFuture::ready(Ok(self.0.clone().into_iter()))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    note = "an address is a string such as \"127.0.0.1:80\" or \":80\", a `SocketAddr`, or a host and a port: `(\"localhost\", 80_u16)`"
)]
pub trait ToSocketAddrs {
    /// The iterator over the addresses.
    type Iter: Iterator<Item = SocketAddr>;

    /// Starts the conversion. The iterator may be empty.
    fn to_socket_addrs(&self) -> ToSocketAddrsFuture<Self::Iter>;

    /// Returns the name and the port if the value is a host name that must be looked up. A
    /// [`Dialer`](crate::net::Dialer) then looks the name up itself and, if it races addresses,
    /// starts with the first addresses that arrive. With `None`, the default, the dialer awaits
    /// [`to_socket_addrs`](ToSocketAddrs::to_socket_addrs).
    fn host_and_port(&self) -> Option<(&str, u16)> {
        None
    }

    /// Returns the host and the service if the value is a string such as `localhost:http`. The host
    /// may be empty or an address.
    #[doc(hidden)]
    fn host_and_service(&self) -> Option<(&str, &str)> {
        None
    }
}

/// The future returned by [`ToSocketAddrs::to_socket_addrs`].
///
/// # Cancel safety
/// Dropping the future abandons the look-up. A thread that has begun the look-up finishes it.
#[must_use = "the result is lost unless the future is awaited"]
pub struct ToSocketAddrsFuture<I> {
    state: State<I>,
    /// Whether an available answer was held back once, so that the task yields.
    refused: bool,
}

enum State<I> {
    Ready(io::Result<I>),
    Resolving(JoinHandle<io::Result<I>>),
    /// The port is the name of a service, which is looked up before the host.
    FindingPort {
        port: Lookup,
        host: String,
        quoted: String,
        iter: fn(vec::IntoIter<SocketAddr>) -> I,
    },
    LookingUp {
        addrs: Addrs,
        /// The address in the form that errors print.
        quoted: String,
        iter: fn(vec::IntoIter<SocketAddr>) -> I,
    },
    Done,
}

// No field is pinned, because a join handle is `Unpin`, and a result is moved out.
impl<I> Unpin for ToSocketAddrsFuture<I> {}

impl<I> ToSocketAddrsFuture<I> {
    /// Creates a future that is ready with `result`.
    pub fn ready(result: io::Result<I>) -> ToSocketAddrsFuture<I> {
        ToSocketAddrsFuture::new(State::Ready(result))
    }

    fn new(state: State<I>) -> ToSocketAddrsFuture<I> {
        ToSocketAddrsFuture { state, refused: false }
    }

    /// Starts `resolve` on one of the threads for name look-ups, and creates a future that returns
    /// its result.
    ///
    /// # Panics
    /// Awaiting the future panics if `resolve` panics, or if a [shutdown](crate::rt::shutdown) of
    /// the runtime drops the call but not the caller.
    pub fn blocking(resolve: impl FnOnce() -> io::Result<I> + Send + 'static) -> ToSocketAddrsFuture<I>
    where
        I: Send + 'static,
    {
        ToSocketAddrsFuture::new(State::Resolving(spawn_lookup(resolve)))
    }
}

impl<I: Iterator<Item = SocketAddr>> Future for ToSocketAddrsFuture<I> {
    type Output = io::Result<I>;

    /// # Panics
    /// Panics if the future is polled again after it has completed, and as
    /// [`blocking`](ToSocketAddrsFuture::blocking) describes.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<I>> {
        if matches!(self.state, State::Ready(_)) {
            ready!(context::poll_budget(cx, &mut self.refused));
        }
        self.poll_answer(cx)
    }
}

impl<I: Iterator<Item = SocketAddr>> ToSocketAddrsFuture<I> {
    /// Returns the answer without charging the task's budget, for an operation that charges it
    /// itself.
    pub(super) async fn answer(mut self) -> io::Result<I> {
        poll_fn(|cx| self.poll_answer(cx)).await
    }

    /// Polls for the answer without charging the task's budget.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<I>> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Ready(result) => Poll::Ready(result),
            State::Resolving(mut handle) => {
                let polled = Pin::new(&mut handle).poll(cx);
                if polled.is_pending() {
                    self.state = State::Resolving(handle);
                }
                polled
            }
            State::FindingPort { mut port, host, quoted, iter } => match Pin::new(&mut port).poll(cx) {
                Poll::Ready(Ok(answer)) => {
                    self.state = State::of(Parsed::host(&host, answer.into_port()), || quoted, iter);
                    self.poll_answer(cx)
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                Poll::Pending => {
                    self.state = State::FindingPort { port, host, quoted, iter };
                    Poll::Pending
                }
            },
            State::LookingUp { mut addrs, quoted, iter } => match Pin::new(&mut addrs).poll(cx) {
                Poll::Ready(Ok(addrs)) => Poll::Ready(Ok(iter(addrs.into_iter()))),
                Poll::Ready(Err(error)) => Poll::Ready(Err(ResolveError { quoted, error: error.into() }.into())),
                Poll::Pending => {
                    self.state = State::LookingUp { addrs, quoted, iter };
                    Poll::Pending
                }
            },
            State::Done => panic!("ToSocketAddrsFuture polled after it was ready"),
        }
    }
}

impl<I> fmt::Debug for ToSocketAddrsFuture<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Ready(Ok(_)) => "resolved",
            State::Ready(Err(_)) => "failed",
            State::Resolving(_) | State::FindingPort { .. } | State::LookingUp { .. } => "resolving",
            State::Done => "done",
        };
        f.debug_tuple("ToSocketAddrsFuture").field(&state).finish()
    }
}

/// Returns the wildcard addresses of both families, with `port`.
pub(super) fn everywhere(port: u16) -> [SocketAddr; 2] {
    [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
}

impl<I> State<I> {
    /// Starts to resolve a parsed address, which errors print as `quoted`.
    fn of(
        parsed: Result<Parsed<'_>, AddrError>,
        quoted: impl FnOnce() -> String,
        iter: fn(vec::IntoIter<SocketAddr>) -> I,
    ) -> State<I> {
        match parsed {
            Ok(Parsed::Literal(addr)) => State::Ready(Ok(iter(vec![addr].into_iter()))),
            Ok(Parsed::Everywhere(port)) => State::Ready(Ok(iter(Vec::from(everywhere(port)).into_iter()))),
            Ok(Parsed::Name(host, port)) => State::LookingUp { addrs: Addrs::new(host, port), quoted: quoted(), iter },
            Ok(Parsed::Service(host, service)) => {
                let port = Lookup::new(Query::Port(service.to_owned(), Transport::Any));
                State::FindingPort { port, host: host.to_owned(), quoted: quoted(), iter }
            }
            Err(error) => State::Ready(Err(error.into())),
        }
    }
}

impl ToSocketAddrs for SocketAddr {
    type Iter = option::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> ToSocketAddrsFuture<Self::Iter> {
        ToSocketAddrsFuture::ready(Ok(Some(*self).into_iter()))
    }
}

/// Implements the trait for types that convert to `SocketAddr`.
macro_rules! literal {
    ($($ty:ty),*) => {$(
        impl ToSocketAddrs for $ty {
            type Iter = option::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> ToSocketAddrsFuture<Self::Iter> {
                SocketAddr::from(*self).to_socket_addrs()
            }
        }
    )*};
}

literal!(SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

impl ToSocketAddrs for (&str, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> ToSocketAddrsFuture<Self::Iter> {
        let parsed = Parsed::parts(self.0, self.1);
        ToSocketAddrsFuture::new(State::of(parsed, || format!("{self:?}"), |addrs| addrs))
    }

    fn host_and_port(&self) -> Option<(&str, u16)> {
        Parsed::parts(self.0, self.1).ok()?.name()
    }
}

impl ToSocketAddrs for (String, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> ToSocketAddrsFuture<Self::Iter> {
        (self.0.as_str(), self.1).to_socket_addrs()
    }

    fn host_and_port(&self) -> Option<(&str, u16)> {
        Parsed::parts(&self.0, self.1).ok()?.name()
    }
}

impl ToSocketAddrs for str {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> ToSocketAddrsFuture<Self::Iter> {
        ToSocketAddrsFuture::new(State::of(Parsed::text(self), || format!("{self:?}"), |addrs| addrs))
    }

    fn host_and_port(&self) -> Option<(&str, u16)> {
        Parsed::text(self).ok()?.name()
    }

    fn host_and_service(&self) -> Option<(&str, &str)> {
        Parsed::text(self).ok()?.service()
    }
}

impl ToSocketAddrs for String {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> ToSocketAddrsFuture<Self::Iter> {
        self.as_str().to_socket_addrs()
    }

    fn host_and_port(&self) -> Option<(&str, u16)> {
        self.as_str().host_and_port()
    }

    fn host_and_service(&self) -> Option<(&str, &str)> {
        self.as_str().host_and_service()
    }
}

impl<'a> ToSocketAddrs for &'a [SocketAddr] {
    type Iter = std::iter::Cloned<slice::Iter<'a, SocketAddr>>;

    fn to_socket_addrs(&self) -> ToSocketAddrsFuture<Self::Iter> {
        ToSocketAddrsFuture::ready(Ok(self.iter().cloned()))
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    type Iter = T::Iter;

    fn to_socket_addrs(&self) -> ToSocketAddrsFuture<Self::Iter> {
        (**self).to_socket_addrs()
    }

    fn host_and_port(&self) -> Option<(&str, u16)> {
        (**self).host_and_port()
    }

    fn host_and_service(&self) -> Option<(&str, &str)> {
        (**self).host_and_service()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;
    use std::io::ErrorKind;

    fn addrs(addr: impl ToSocketAddrs) -> Result<Vec<SocketAddr>, String> {
        match block_on(addr.to_socket_addrs()) {
            Ok(addrs) => Ok(addrs.collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn is_immediate<A: ToSocketAddrs>(addr: A) -> bool {
        matches!(addr.to_socket_addrs().state, State::Ready(Ok(_)))
    }

    #[test]
    fn literals_resolve_without_a_thread() {
        let (v4, v6) = (Ipv4Addr::new(10, 0, 0, 1), Ipv6Addr::LOCALHOST);
        let (first, second) = (SocketAddr::from((v4, 80)), SocketAddr::from((v6, 81)));
        let reference: &&str = &"[::1]:81";
        assert!(is_immediate("10.0.0.1:80") && is_immediate("[::1]:81") && is_immediate(("::1", 81)));
        assert!(is_immediate(("10.0.0.1".to_owned(), 80)) && is_immediate("10.0.0.1:80".to_owned()));
        for literal in [addrs("10.0.0.1:80"), addrs((v4, 80)), addrs((IpAddr::V4(v4), 80)), addrs(("10.0.0.1", 80))] {
            assert_eq!(literal, Ok(vec![first]));
        }
        for literal in [addrs("[::1]:81".to_owned()), addrs((v6, 81)), addrs(reference), addrs(("::1".to_owned(), 81))]
        {
            assert_eq!(literal, Ok(vec![second]));
        }
        assert_eq!(addrs(SocketAddrV4::new(v4, 80)), Ok(vec![first]));
        assert_eq!(addrs(SocketAddrV6::new(v6, 81, 0, 0)), Ok(vec![second]));
        assert_eq!(addrs(&[first, second][..]), Ok(vec![first, second]));
        assert_eq!(addrs("[fe80::1%2]:80"), Ok(vec![SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, 2).into()]));
    }

    #[test]
    fn names_are_resolved() {
        let expected = SocketAddr::from((Ipv4Addr::LOCALHOST, 4242));
        for resolved in [addrs("localhost:4242"), addrs(("localhost", 4242)), addrs("[localhost]:4242")] {
            assert!(resolved.unwrap().contains(&expected));
        }
    }

    #[test]
    fn lookup_errors_name_the_host_and_keep_the_reason() {
        let name = "no-such-host.invalid";
        let error = block_on(format!("{name}:80").to_socket_addrs()).unwrap_err();
        assert_eq!(error.to_string(), format!("could not resolve address `\"{name}:80\"`"));
        assert!(error.get_ref().unwrap().source().unwrap().is::<io::Error>());
        let error = block_on((name, 80).to_socket_addrs()).unwrap_err();
        assert_eq!(error.to_string(), format!("could not resolve address `(\"{name}\", 80)`"));
    }

    /// Go's texts (net/ipsock.go, ip_test.go).
    #[test]
    fn invalid_addresses_are_addr_errors() {
        let texts = [
            ("", "missing address"),
            ("127.0.0.1", "address 127.0.0.1: missing port in address"),
            ("localhost:", "address localhost:: missing port in address"),
            ("[::1]", "address [::1]: missing port in address"),
            ("[::1]80", "address [::1]80: missing port in address"),
            ("[::1]]:80", "address [::1]]:80: missing port in address"),
            ("[::1]:80:1", "address [::1]:80:1: too many colons in address"),
            ("::1:80", "address ::1:80: too many colons in address"),
            ("[::1:80", "address [::1:80: missing ']' in address"),
            (
                "1200::AB00:1234::2552:7777:1313:34300",
                "address 1200::AB00:1234::2552:7777:1313:34300: too many colons in address",
            ),
            ("host[:80", "address host[:80: unexpected '[' in address"),
            ("host]:80", "address host]:80: unexpected ']' in address"),
            ("[a[b]:80", "address [a[b]:80: unexpected '[' in address"),
            ("host:99999", "address 99999: invalid port"),
            ("host:-1", "address -1: invalid port"),
            ("host:+", "address +: invalid port"),
            (":", "address :: missing port in address"),
        ];
        for (text, expected) in texts {
            let error = block_on(text.to_socket_addrs()).unwrap_err();
            assert_eq!(error.to_string(), expected, "{text:?}");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}");
            assert!(error.get_ref().unwrap().is::<AddrError>(), "{text:?}");
        }
        assert_eq!(addrs(("", 80)), Err("missing address".to_owned()));
        assert!(addrs("nul\0byte:80").is_err());
    }

    #[test]
    fn the_future_is_send_and_debug_prints_its_state() {
        fn assert_send<T: Send>(_: &T) {}
        let future = "localhost:1".to_socket_addrs();
        assert_send(&future);
        assert_eq!(format!("{future:?}"), "ToSocketAddrsFuture(\"resolving\")");
        assert_eq!(format!("{:?}", "127.0.0.1:1".to_socket_addrs()), "ToSocketAddrsFuture(\"resolved\")");
        assert_eq!(format!("{:?}", "127.0.0.1".to_socket_addrs()), "ToSocketAddrsFuture(\"failed\")");
    }
}
