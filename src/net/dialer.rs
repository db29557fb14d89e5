//! [`Dialer`]: connecting with a timeout, with socket options, and to several addresses
//! concurrently.
//!
//! A [`Recipe`] describes how each socket is set up. The dialer decides which addresses to dial, in
//! which order, and when to give up. It dials a single address as `TcpStream::connect` does.
//! Several addresses are raced ([`happy_eyeballs`](super::happy_eyeballs)) as they arrive from the
//! look-up, or tried one at a time.
//!
//! # Cancellation
//! Dropping the future closes every connecting socket and abandons the look-ups.
//!
//! # Compared with Go (net/dial.go)
//! This is `net.Dialer`, except that the race follows RFC 8305, while Go's follows RFC 6555. As in
//! Go, the timeout covers the look-up, and neither the deadline nor cancellation affects an
//! established connection.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;
use futures_lite::StreamExt;

use super::addr::everywhere;
use super::error::Op;
use super::happy_eyeballs::{Race, STAGGER};
use super::host_port::Parsed;
use super::net_fd::NetFd;
use super::options::tcp::tcp_option_methods;
use super::resolve::LookupError;
use super::resolve::families::{HostAddrs, Oracle};
use super::resolve::flight::Lookup;
use super::resolve::query::{Answer, Query, Transport};
use super::tcp::dial::{Control, Recipe, dial_tcp};
use super::{AddrError, Resolve, TcpStream, ToSocketAddrs, ToSocketAddrsFuture};
use crate::rt::time::clock;
use crate::time::Sleep;

/// Connects to TCP addresses with a timeout, a local address, socket options and racing of several
/// addresses.
///
/// ```text
/// option           default              meaning
/// timeout          none                 limit for the whole dial: look-up and all addresses
/// deadline         none                 end of the dial; the earlier of timeout and deadline applies
/// local_addr       the kernel's choice  source address; addresses of the other family are skipped
/// stagger          250 ms               delay before the next address is also tried; None: one at a time
/// defaults         true                 Go's options for new sockets: TCP_NODELAY and keep-alive
/// nodelay          true                 send small writes immediately
/// keepalive        15 s, 15 s, 9        idle time, interval and number of keep-alive probes
/// user_timeout     the kernel's         how long sent data may stay unacknowledged (Linux only)
/// recv_buffer_size the kernel's         receive buffer in bytes
/// send_buffer_size the kernel's         send buffer in bytes
/// multipath        false                multipath TCP, if both hosts support it (Linux only)
/// fast_open        false                send data with the SYN (RFC 7413; Linux only)
/// auto_cork        false                gather the writes of one turn of a task
/// resolver         the host's           how names are looked up
/// control          none                 function called with each socket before it connects
/// ```
///
/// A `Dialer` is cheap to clone and can be used for any number of concurrent dials.
///
/// # Several addresses
/// Several addresses, such as those of a name, are dialled with Happy Eyeballs version 2 (RFC
/// 8305). They are tried in their order, which for a name is that of the resolver, with the
/// families alternating. The next attempt begins when an attempt has failed or after the stagger,
/// while earlier attempts continue. At most 64 attempts are in progress at a time; a further
/// attempt replaces the oldest. The first connection wins, and the others are closed. Addresses are
/// used as they arrive, so a DNS server that does not answer for one family delays the first
/// attempt at an address of the other family by at most 50 ms. (`TcpStream::connect` tries
/// addresses one at a time, as std does.)
///
/// With [`stagger(None)`](Dialer::stagger), addresses are tried one at a time. If the dial has a
/// timeout or a deadline, each address gets an equal share of the remaining time, and at least 2 s
/// while that much remains.
///
/// Source: `net.Dialer` of Go.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::{Dialer, KeepAlive, TcpListener};
/// use std::time::Duration;
///
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let dialer = Dialer::new()
///     .timeout(Duration::from_secs(5))
///     .keepalive(KeepAlive::new().with_idle(Duration::from_secs(60)))
///     .local_addr("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap());
/// let stream = dialer.dial(("localhost", listener.local_addr()?.port())).await?;
/// assert_eq!(stream.peer_addr()?, listener.local_addr()?);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[doc(alias = "net.Dialer")]
#[doc(alias = "TcpSocket")]
#[derive(Clone, Debug)]
#[must_use = "a dialer does nothing until `dial` is called"]
pub struct Dialer {
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    stagger: Option<Duration>,
    oracle: Oracle,
    pub(in crate::net) recipe: Recipe,
}

/// Dialling.
impl Dialer {
    /// Creates a dialer with the defaults: no timeout except the kernel's (on Linux, about two
    /// minutes per address), Go's socket options, and a stagger of 250 ms.
    pub const fn new() -> Dialer {
        Dialer { timeout: None, deadline: None, stagger: Some(STAGGER), oracle: Oracle::Host, recipe: Recipe::new() }
    }

    /// Connects to one of `addrs`.
    ///
    /// # Errors
    /// Returns an [`OpError`](crate::net::OpError) whose text begins with `dial tcp`:
    /// * If all attempts failed, returns the error of the first to fail:
    ///   `dial tcp ADDR: connect: connection refused`, or, if the timeout or deadline ended that
    ///   attempt, an error of kind `TimedOut`: `dial tcp ADDR: i/o timeout`. For an option value
    ///   that is out of range (a buffer of 1 GiB, for example), the kind is `InvalidInput`:
    ///   `dial tcp ADDR: setsockopt: …`.
    /// * If the timeout or deadline passed before an address arrived, returns an error of kind
    ///   `TimedOut`: `dial tcp: lookup HOST: i/o timeout`, or `dial tcp: i/o timeout` if the
    ///   look-up of the host had not begun or is made by your own [`ToSocketAddrs`].
    /// * If there is no address, returns an error that contains a [`LookupError`], an [`AddrError`]
    ///   or the error of your own [`ToSocketAddrs`]: `dial tcp: lookup HOST: no such host`,
    ///   `dial tcp: missing address`, or `dial tcp: address LOCAL: no suitable address found` if no
    ///   address belongs to the family of the local address.
    ///
    /// With a [local address](Dialer::local_addr), `LOCAL->ADDR` stands in place of `ADDR`.
    ///
    /// # Cancel safety
    /// Dropping the future closes its sockets and abandons its look-ups.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::{Dialer, TcpListener};
    /// use std::time::Duration;
    ///
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let addr = listener.local_addr()?;
    /// let stream = Dialer::new().timeout(Duration::from_secs(5)).dial(addr).await?;
    /// assert_eq!(stream.peer_addr()?, addr);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "DialContext")]
    pub async fn dial<A: ToSocketAddrs>(&self, addrs: A) -> io::Result<TcpStream> {
        let deadline = self.ends();
        let mut source = Source::new(&addrs, self, deadline);
        let dialled = match self.stagger {
            Some(stagger) => {
                let dial = |addr| dial_tcp(addr, deadline, &self.recipe);
                Race::new(source, stagger, deadline, dial).await
            }
            None => {
                let mut addrs = Vec::new();
                while let Some(some) = source.next().await {
                    addrs.extend(some?);
                }
                self.dial_in_turn(&addrs, deadline).await
            }
        };
        let no_address = || match self.recipe.local {
            // The result does not distinguish an empty list from a list whose addresses were all
            // filtered out.
            Some(local) => AddrError::new(&local.to_string(), "no suitable address found").into(),
            None => AddrError::missing(),
        };
        let fd = dialled.unwrap_or_else(|| Err(failed(no_address())))?;
        Ok(TcpStream::dialled(fd, &addrs))
    }

    /// Returns the time at which a dial that begins now times out.
    fn ends(&self) -> Option<Instant> {
        // A timeout beyond the clock's range counts as no timeout.
        let timeout = self.timeout.and_then(|timeout| clock::instant().checked_add(timeout));
        [timeout, self.deadline].into_iter().flatten().min()
    }

    /// Dials the addresses one at a time. Returns `None` if there is no address.
    async fn dial_in_turn(&self, addrs: &[SocketAddr], deadline: Option<Instant>) -> Option<io::Result<NetFd>> {
        let mut first = None;
        for (addr, left) in addrs.iter().zip((1..=addrs.len()).rev()) {
            let share = deadline.map(|deadline| share(clock::instant(), deadline, left));
            match dial_tcp(*addr, share, &self.recipe).await {
                Ok(fd) => return Some(Ok(fd)),
                Err(error) => first = first.or(Some(Err(error))),
            }
        }
        first
    }
}

/// Options.
impl Dialer {
    /// Sets the time limit of each dial. The time starts when the future of [`dial`](Dialer::dial)
    /// is first polled, and covers the look-up and all addresses. With zero, dials time out at
    /// once.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Dialer {
        self.timeout = timeout.into();
        self
    }

    /// Sets the time at which dials time out. If a timeout is also set, the earlier one applies.
    /// With a time in the past, dials time out at once.
    pub fn deadline(mut self, deadline: impl Into<Option<Instant>>) -> Dialer {
        self.deadline = deadline.into();
        self
    }

    /// Sets the local address of connections. With port 0 the kernel chooses a port. An IPv4-mapped
    /// IPv6 address counts as IPv4.
    ///
    /// Remote addresses of the other family are skipped. With a fixed port, each remote address is
    /// tried only once: errors that a port chosen by the kernel can cause (a connection to itself,
    /// EADDRNOTAVAIL) are not retried. Sockets with a fixed port have SO_REUSEADDR set, so that the
    /// attempts of one dial can share the port. Connections to different addresses can also share
    /// the port. If another socket listens on the port, or uses it without SO_REUSEADDR, the dial
    /// fails with `AddrInUse`.
    #[doc(alias = "bind")]
    pub fn local_addr(mut self, addr: impl Into<Option<SocketAddr>>) -> Dialer {
        self.recipe.local = addr.into().map(plain);
        self
    }

    /// Sets whether sockets start with Go's options, TCP_NODELAY and keep-alive. The default is
    /// true. With false, sockets have the kernel's defaults and the options set on the dialer, and
    /// a dial makes up to five fewer system calls.
    pub fn defaults(mut self, defaults: bool) -> Dialer {
        self.recipe.tcp.defaults = defaults;
        self
    }

    /// Sets whether the connection gathers the writes of one turn of a task; see
    /// [`TcpStream::set_auto_cork`]. The default is false.
    pub fn auto_cork(mut self, gather: bool) -> Dialer {
        self.recipe.auto_cork = gather;
        self
    }

    /// Sets how long an attempt may go unanswered before the next address is tried in parallel. The
    /// default is 250 ms. With `None`, addresses are tried one at a time.
    ///
    /// If the dial has a timeout or a deadline, the remaining time is divided equally among the
    /// untried addresses. A stagger that is longer than this share is reduced to it, but to no less
    /// than 10 ms.
    pub fn stagger(mut self, stagger: impl Into<Option<Duration>>) -> Dialer {
        self.stagger = stagger.into();
        self
    }

    /// Sets a function that is called with each socket, after all other options are set and before
    /// the socket is bound and connected. Its arguments are the network (`tcp4` or `tcp6`), the
    /// remote address and the descriptor. If the function returns an error, the attempt fails with
    /// that error.
    ///
    /// The function runs on the thread that polls the dial and must not block. (Go:
    /// `Dialer.Control`.)
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::{Dialer, TcpListener};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let dialer = Dialer::new().control(|network, _addr, fd| {
    ///     assert_eq!(network, "tcp4");
    ///     socket2::SockRef::from(&fd).set_recv_buffer_size(1 << 20)
    /// });
    /// dialer.dial(listener.local_addr()?).await?;
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "Dialer.Control")]
    pub fn control(
        mut self,
        control: impl Fn(&str, SocketAddr, BorrowedFd<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Dialer {
        self.recipe.control = Some(Control(Arc::new(control)));
        self
    }

    /// Sets the resolver that looks up names of hosts, instead of the host's name service.
    pub fn resolver(mut self, resolver: impl Resolve + 'static) -> Dialer {
        self.oracle = Oracle::Other(Arc::new(resolver));
        self
    }
}

tcp_option_methods!(Dialer, recipe.tcp);

impl Default for Dialer {
    fn default() -> Dialer {
        Dialer::new()
    }
}

/// Returns the error of a dial that fails before it has an address.
fn failed(error: io::Error) -> io::Error {
    Op::at("dial", "tcp", None).other(error)
}

/// Returns the deadline of the attempt at the first of `left` addresses, like Go's
/// `partialDeadline`. Each address gets an equal share of the remaining time, but at least 2 s, or
/// all of it if less remains.
fn share(now: Instant, deadline: Instant, left: usize) -> Instant {
    const LEAST: Duration = Duration::from_secs(2);
    let remaining = deadline.saturating_duration_since(now);
    let equal = remaining / u32::try_from(left).unwrap_or(u32::MAX).max(1);
    // After the deadline no time remains, and the result is the deadline itself.
    deadline.min(now + equal.max(LEAST.min(remaining)))
}

/// The addresses to dial, as they arrive.
struct Source<I> {
    origin: Origin<I>,
    oracle: Oracle,
    as_they_come: bool,
    local: Option<SocketAddr>,
    end: Option<Sleep>,
}

#[allow(clippy::large_enum_variant, reason = "there is one per dial")]
enum Origin<I> {
    Host(String, HostAddrs),
    /// The port is the name of a service, which is looked up before the host.
    Service(Lookup, String),
    Addrs(ToSocketAddrsFuture<I>),
    Over,
}

impl<I: Iterator<Item = SocketAddr>> Source<I> {
    fn new<A: ToSocketAddrs<Iter = I>>(addrs: &A, dialer: &Dialer, deadline: Option<Instant>) -> Source<I> {
        let (oracle, as_they_come) = (dialer.oracle.clone(), dialer.stagger.is_some());
        let origin = if let Some((host, port)) = addrs.host_and_port() {
            Origin::Host(host.to_owned(), oracle.addrs(host, port, as_they_come))
        } else if let Some((host, service)) = addrs.host_and_service() {
            Origin::Service(Lookup::new(Query::Port(service.to_owned(), Transport::Any)), host.to_owned())
        } else {
            Origin::Addrs(addrs.to_socket_addrs())
        };
        Source { origin, oracle, as_they_come, local: dialer.recipe.local, end: deadline.map(Sleep::until) }
    }

    /// Polls for the next addresses. An error is the error of the dial.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Vec<SocketAddr>>>> {
        match &mut self.origin {
            Origin::Host(_, addrs) => Pin::new(addrs).poll_next(cx).map_err(|error| failed(error.into())),
            Origin::Addrs(addrs) => {
                let addrs = ready!(Pin::new(addrs).poll(cx));
                self.origin = Origin::Over;
                Poll::Ready(Some(addrs.map(Iterator::collect).map_err(failed)))
            }
            Origin::Service(port, host) => {
                let port = ready!(Pin::new(port).poll(cx)).map(Answer::into_port);
                let host = std::mem::take(host);
                self.origin = Origin::Over;
                let port = match port {
                    Ok(port) => port,
                    Err(error) => return Poll::Ready(Some(Err(failed(error.into())))),
                };
                match Parsed::host(&host, port) {
                    Ok(Parsed::Name(..)) => {
                        let addrs = self.oracle.addrs(&host, port, self.as_they_come);
                        self.origin = Origin::Host(host, addrs);
                        self.poll_more(cx)
                    }
                    Ok(Parsed::Literal(addr)) => Poll::Ready(Some(Ok(vec![addr]))),
                    // `Parsed::host` does not return `Service`.
                    Ok(Parsed::Everywhere(_) | Parsed::Service(..)) => Poll::Ready(Some(Ok(everywhere(port).into()))),
                    Err(error) => Poll::Ready(Some(Err(failed(error.into())))),
                }
            }
            Origin::Over => Poll::Ready(None),
        }
    }

    /// Returns the error of a dial that times out before it has an address, and ends the stream.
    fn timed_out(&mut self) -> io::Error {
        let op = Op::at("dial", "tcp", None);
        match std::mem::replace(&mut self.origin, Origin::Over) {
            Origin::Host(host, _) => op.timed_out_in(LookupError::timed_out(host).into()),
            _ => op.timed_out(),
        }
    }
}

// No field is pinned.
impl<I> Unpin for Source<I> {}

impl<I: Iterator<Item = SocketAddr>> Stream for Source<I> {
    type Item = io::Result<Vec<SocketAddr>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let local = self.local;
        let polled = self.poll_more(cx).map_ok(|addrs| match local {
            Some(local) => addrs.into_iter().filter_map(|addr| of_family(local, addr)).collect(),
            None => addrs,
        });
        if polled.is_pending()
            && let Some(end) = &mut self.end
            && Pin::new(end).poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(self.timed_out())));
        }
        polled
    }
}

/// Returns `addr` in the form that a socket bound to `local` can use, or `None` if it is of the
/// other family. An IPv4-mapped IPv6 address counts as IPv4.
fn of_family(local: SocketAddr, addr: SocketAddr) -> Option<SocketAddr> {
    Some(plain(addr)).filter(|addr| addr.is_ipv4() == local.is_ipv4())
}

/// Returns an IPv4-mapped IPv6 address as an IPv4 address, and other addresses unchanged.
fn plain(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, addr.port()).into(),
        IpAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Go: TestDialerPartialDeadline.
    #[test]
    fn time_is_split_over_remaining_addresses() {
        let now = Instant::now();
        let after = |seconds: f64| now + Duration::from_secs_f64(seconds);
        // Remaining seconds, remaining addresses, seconds for the first.
        let cases = [
            (12.0, 1, 12.0),
            (12.0, 2, 6.0),
            (12.0, 3, 4.0),
            (12.0, 6, 2.0),
            (12.0, 1000, 2.0),
            (12.0, usize::MAX, 2.0),
            (3.0, 2, 2.0),
            (1.999, 3, 1.999),
            (0.001, 5, 0.001),
            (0.0, 3, 0.0),
        ];
        for (remaining, left, expected) in cases {
            assert_eq!(share(now, after(remaining), left), after(expected), "{remaining} s, {left} left");
        }
        let past = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        assert_eq!(share(now, past, 2), past, "a deadline in the past is returned unchanged");
        let far = now + Duration::from_secs(1 << 40);
        assert_eq!(share(now, far, 1), far);
    }

    #[test]
    fn earlier_of_timeout_and_deadline_applies() {
        let soon = Instant::now() + Duration::from_secs(5);
        assert_eq!(Dialer::new().ends(), None);
        assert_eq!(Dialer::new().timeout(Duration::MAX).ends(), None);
        assert_eq!(Dialer::new().timeout(Duration::MAX).deadline(soon).ends(), Some(soon));
        assert_eq!(Dialer::new().timeout(Duration::from_secs(60)).deadline(soon).ends(), Some(soon));
        assert!(Dialer::new().timeout(Duration::ZERO).deadline(soon).ends() <= Some(Instant::now()));
        assert_eq!(Dialer::new().timeout(Duration::ZERO).timeout(None).ends(), None);
    }

    #[test]
    fn local_address_selects_addresses_of_its_family() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (v4, v6) = (addr("192.0.2.1:0"), addr("[2001:db8::1]:0"));
        let fits = |local, text| of_family(local, addr(text)).map(|addr| addr.to_string());
        assert_eq!(fits(v4, "127.0.0.1:1").as_deref(), Some("127.0.0.1:1"));
        assert_eq!(fits(v4, "[::ffff:127.0.0.1]:1").as_deref(), Some("127.0.0.1:1"));
        assert_eq!(fits(v4, "[::1]:1"), None);
        assert_eq!(fits(v6, "[fe80::1%3]:1").as_deref(), Some("[fe80::1%3]:1"));
        assert_eq!(fits(v6, "127.0.0.1:1"), None);
        assert_eq!(fits(v6, "[::ffff:127.0.0.1]:1"), None);
    }
}
