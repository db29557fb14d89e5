//! `Dialer`: a connect with more to say than where to.
//!
//! What is done to each socket is the [`Recipe`]; which addresses, in which order and until when is decided here. One
//! address is dialled as `TcpStream::connect` does. Several are raced ([`happy_eyeballs`](super::happy_eyeballs)), as
//! they come in if a name is looked up, or tried one after the other.
//!
//! # Cancellation
//! Dropping the future closes every socket that it has begun to connect and abandons its look-ups.
//!
//! # Compared with Go (net/dial.go)
//! `net.Dialer`, with RFC 8305 where Go follows RFC 6555. The timeout covers the look-up there too. A dial that has
//! ended well is not undone: neither deadline nor cancellation reach the connection.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;
use futures_lite::StreamExt;
use socket2::{Domain, Protocol, SockAddr, SockRef, Type};

use super::error::{Addr, Op};
use super::fd::dial::dial_tcp;
use super::fd::fd;
use super::fd::net_fd::NetFd;
use super::happy_eyeballs::{Race, STAGGER};
use super::resolve::LookupError;
use super::resolve::families::{HostAddrs, Oracle};
use super::{AddrError, KeepAlive, TcpStream, ToSocketAddrs, ToSocketAddrsFuture, options};
use crate::sys::{option, socket};
use crate::time::Sleep;

/// Connects to TCP addresses, with a time for all of it, a local address, options before the connect, and several
/// addresses raced.
///
/// ```text
/// option           default              says
/// timeout          none                 how long a dial may take, look-up and all addresses together
/// deadline         none                 until when; the earlier of the two counts
/// local_addr       the kernel's choice  where connections come from; addresses of the other family are passed over
/// stagger          250 ms               how long to wait for one address before the next is tried too; None: one after the other
/// defaults         true                 Go's options for a socket: no delay, keep-alive
/// keepalive        15 s, 15 s, 9        when a silent peer is asked whether it is there, and given up
/// multipath        false                MPTCP where both sides can
/// fast_open        false                data with the first packet (RFC 7413)
/// control          none                 a function that is called with each socket before it connects
/// ```
///
/// A `Dialer` is a value: cheap to clone, and one serves any number of dials at the same time.
///
/// # Several addresses
/// A name that has several is dialled by Happy Eyeballs, version 2 (RFC 8305): the addresses in the host's order, with the
/// families alternating; the next begins when one has failed or after the stagger, without giving up those under
/// way; the first connection wins and the others are closed. The addresses are taken as they come in, so that a DNS
/// server which is silent about one family delays nobody by more than 50 ms. (`TcpStream::connect` tries one after the
/// other, as std does.)
///
/// With [`stagger(None)`](Dialer::stagger) one is tried after the other, and each gets its share of what is left of
/// the time, 2 s at least while there are so many.
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
#[derive(Clone, Debug)]
#[must_use = "a dialer does nothing until `dial` is called"]
pub struct Dialer {
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    stagger: Option<Duration>,
    oracle: Oracle,
    recipe: Recipe,
}

impl Dialer {
    /// With the defaults: no timeout but the kernel's (about two minutes an address), Go's options, a stagger of 250 ms.
    pub const fn new() -> Dialer {
        Dialer { timeout: None, deadline: None, stagger: Some(STAGGER), oracle: Oracle::Host, recipe: Recipe::new() }
    }

    /// How long each dial may take, from the call of [`dial`](Dialer::dial): look-up and all addresses together. With
    /// zero every dial times out.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Dialer {
        self.timeout = timeout.into();
        self
    }

    /// Until when dials may take. The earlier of this and the timeout counts; in the past, every dial times out.
    pub fn deadline(mut self, deadline: impl Into<Option<Instant>>) -> Dialer {
        self.deadline = deadline.into();
        self
    }

    /// The address that connections come from; port 0 lets the kernel choose one.
    ///
    /// Remote addresses of the other family are passed over. With a port, each is tried once: what may be wrong with a
    /// port that the kernel chose (a connection to itself, EADDRNOTAVAIL) is not tried again. Sockets with a port have SO_REUSEADDR
    /// set, so that the attempts of one dial share it. Connections to different addresses may share it too; a socket that
    /// listens at the port, or has it without that option, is in the way (`AddrInUse`).
    pub fn local_addr(mut self, addr: impl Into<Option<SocketAddr>>) -> Dialer {
        self.recipe.local = addr.into();
        self
    }

    /// Keep-alive of the connections, or (`None`) that there is none.
    pub fn keepalive(mut self, keepalive: impl Into<Option<KeepAlive>>) -> Dialer {
        self.recipe.keepalive = Some(keepalive.into());
        self
    }

    /// Whether sockets begin with Go's options, TCP_NODELAY and keep-alive. Without them they are as the kernel makes
    /// them, but for what else is asked for here, and a dial costs five system calls less.
    pub fn defaults(mut self, defaults: bool) -> Dialer {
        self.recipe.defaults = defaults;
        self
    }

    /// How long one address may go without an answer before the next is tried beside it. `None` tries one after the
    /// other.
    ///
    /// Where a deadline would leave some address no turn, the stagger is shorter, 10 ms at least.
    pub fn stagger(mut self, stagger: impl Into<Option<Duration>>) -> Dialer {
        self.stagger = stagger.into();
        self
    }

    /// Asks for Multipath TCP (RFC 8684, Linux 5.6). Where this host has it not, the socket is a plain one; where the peer
    /// has it not, the connection is.
    pub fn multipath(mut self, multipath: bool) -> Dialer {
        self.recipe.multipath = multipath;
        self
    }

    /// Sends the first data with the first packet, to peers that have agreed to it in an earlier connection (TCP Fast
    /// Open: TCP_FASTOPEN_CONNECT, tcp(7), Linux 4.11).
    ///
    /// With such a peer a dial returns at once and proves nothing, and a race ends at its first address. The connection begins with the
    /// first write, which takes its data along, or with the first operation that has to wait, without data: so a server that speaks
    /// first is heard, and what is written after such a wait is not sent early. Whether there is anybody shows then; until then
    /// [`peer_addr`](TcpStream::peer_addr) is `NotConnected`. The data may arrive twice, so they should ask for nothing that must
    /// happen once.
    pub fn fast_open(mut self, fast_open: bool) -> Dialer {
        self.recipe.fast_open = fast_open;
        self
    }

    /// Calls `control` with each socket before it is bound and connected, after the other options were set: with the network
    /// (`tcp4` or `tcp6`), the address it is for, and the descriptor. An error ends the attempt and becomes the dial's.
    ///
    /// It runs on the thread that polls the dial and must not block. (Go: `Dialer.Control`.)
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
    pub fn control(
        mut self,
        control: impl Fn(&str, SocketAddr, BorrowedFd<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Dialer {
        self.recipe.control = Some(Control(Arc::new(control)));
        self
    }

    /// Looks names up with `resolver` instead of the host's name service.
    #[cfg(feature = "hickory")]
    pub fn resolver(mut self, resolver: super::Resolver) -> Dialer {
        self.oracle = Oracle::Native(resolver);
        self
    }

    /// Connects to one of `addrs`.
    ///
    /// # Errors
    /// An [`OpError`](crate::net::OpError) `dial tcp …`:
    /// * of the first attempt that failed where all did: `dial tcp ADDR: connect: connection refused`;
    /// * past the timeout or deadline, of kind `TimedOut`: `dial tcp ADDR: i/o timeout`, or
    ///   `dial tcp: lookup HOST: i/o timeout` if there was no address yet;
    /// * with a [`LookupError`] or an [`AddrError`] inside where there is no address: `dial tcp: lookup HOST: no such
    ///   host`, `dial tcp: missing address`, `dial tcp: address LOCAL: no suitable address found` when none is of the
    ///   local address' family.
    ///
    /// # Cancel safety
    /// Dropping the future closes its sockets and abandons its look-ups.
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
            // Whether none was left or there was none: the list alone does not say.
            Some(local) => AddrError::new(&local.to_string(), "no suitable address found").into(),
            None => AddrError::missing(),
        };
        let fd = dialled.unwrap_or_else(|| Err(failed(no_address())))?;
        Ok(TcpStream::from_net_fd(fd))
    }

    /// When a dial that begins now ends.
    fn ends(&self) -> Option<Instant> {
        // A timeout beyond the clock is none.
        let timeout = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        [timeout, self.deadline].into_iter().flatten().min()
    }

    /// One after the other. None where there is none.
    async fn dial_in_turn(&self, addrs: &[SocketAddr], deadline: Option<Instant>) -> Option<io::Result<NetFd>> {
        let mut first = None;
        for (addr, left) in addrs.iter().zip((1..=addrs.len()).rev()) {
            let share = deadline.map(|deadline| share(Instant::now(), deadline, left));
            match dial_tcp(*addr, share, &self.recipe).await {
                Ok(fd) => return Some(Ok(fd)),
                Err(error) => first = first.or(Some(Err(error))),
            }
        }
        first
    }
}

impl Default for Dialer {
    fn default() -> Dialer {
        Dialer::new()
    }
}

/// The error of a dial that has no address.
fn failed(error: io::Error) -> io::Error {
    Op::at("dial", "tcp", None).other(error)
}

/// Until when to try the first of `left` addresses: Go's `partialDeadline`. Each gets an equal part of what is left,
/// but no less than 2 s, or all of it.
fn share(now: Instant, deadline: Instant, left: usize) -> Instant {
    const LEAST: Duration = Duration::from_secs(2);
    let remaining = deadline.saturating_duration_since(now);
    let equal = remaining / u32::try_from(left).unwrap_or(u32::MAX).max(1);
    // Past the deadline nothing is left, and the deadline itself says so.
    deadline.min(now + equal.max(LEAST.min(remaining)))
}

/// The addresses to dial, as they come in.
struct Source<I> {
    origin: Origin<I>,
    local: Option<SocketAddr>,
    end: Option<Sleep>,
}

enum Origin<I> {
    Host(String, HostAddrs),
    Addrs(ToSocketAddrsFuture<I>),
    Over,
}

impl<I: Iterator<Item = SocketAddr>> Source<I> {
    fn new<A: ToSocketAddrs<Iter = I>>(addrs: &A, dialer: &Dialer, deadline: Option<Instant>) -> Source<I> {
        let origin = match addrs.host_and_port() {
            Some((host, port)) => {
                Origin::Host(host.to_owned(), dialer.oracle.addrs(host, port, dialer.stagger.is_some()))
            }
            None => Origin::Addrs(addrs.to_socket_addrs()),
        };
        Source { origin, local: dialer.recipe.local, end: deadline.map(Sleep::until) }
    }

    /// The next addresses; the error is that of the dial.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Vec<SocketAddr>>>> {
        match &mut self.origin {
            Origin::Host(_, addrs) => Pin::new(addrs).poll_next(cx).map_err(|error| failed(error.into())),
            Origin::Addrs(addrs) => {
                let addrs = ready!(Pin::new(addrs).poll(cx));
                self.origin = Origin::Over;
                Poll::Ready(Some(addrs.map(Iterator::collect).map_err(failed)))
            }
            Origin::Over => Poll::Ready(None),
        }
    }

    /// What the deadline makes of it.
    fn timed_out(&mut self) -> io::Error {
        match std::mem::replace(&mut self.origin, Origin::Over) {
            Origin::Host(host, _) => failed(LookupError::timed_out(host).into()),
            _ => Op::at("dial", "tcp", None).timed_out(),
        }
    }
}

// Nothing is pinned.
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

/// `addr` for a socket bound to `local`, if it is one for it. An IPv4 address in IPv6 clothes is an IPv4 address.
fn of_family(local: SocketAddr, addr: SocketAddr) -> Option<SocketAddr> {
    let plain = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    if plain.is_ipv4() == local.is_ipv4() { Some(if plain.is_ipv4() { plain } else { addr }) } else { None }
}

type Hook = dyn Fn(&str, SocketAddr, BorrowedFd<'_>) -> io::Result<()> + Send + Sync;

#[derive(Clone)]
struct Control(Arc<Hook>);

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control")
    }
}

/// What is done to a socket before it connects.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    local: Option<SocketAddr>,
    defaults: bool,
    /// As the user wants it: on, off, or what `defaults` says.
    keepalive: Option<Option<KeepAlive>>,
    multipath: bool,
    fast_open: bool,
    control: Option<Control>,
}

impl Recipe {
    /// That of `TcpStream::connect`.
    pub(crate) const fn new() -> Recipe {
        Recipe { local: None, defaults: true, keepalive: None, multipath: false, fast_open: false, control: None }
    }

    /// The dial of `addr`, for its errors.
    pub(crate) fn op(&self, addr: SocketAddr) -> Op {
        Op::between("dial", "tcp", self.local.map(Addr::Ip), Some(Addr::Ip(addr)))
    }

    /// Whether the local port is the user's and not the kernel's.
    pub(crate) fn has_port(&self) -> bool {
        self.local.is_some_and(|local| local.port() != 0)
    }

    /// A socket that is ready to connect to `addr`. The error is a dial's.
    pub(crate) fn open(&self, addr: SocketAddr) -> io::Result<NetFd> {
        let (socket, is_tcp) = self.socket(addr)?;
        let fd = socket.as_fd();
        let set = |error| self.op(addr).call("setsockopt", error);
        // A new socket has none, so nothing turns it off.
        if let Some(Some(keepalive)) = &self.keepalive {
            options::set_keepalive(fd, Some(keepalive)).map_err(set)?;
        }
        if self.fast_open {
            option::switch(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, true).map_err(set)?;
        }
        if self.has_port() {
            // An attempt that has no answer yet holds the port beside the next one.
            SockRef::from(&fd).set_reuse_address(true).map_err(set)?;
        }
        if let Some(Control(control)) = &self.control {
            let network = if addr.is_ipv4() { "tcp4" } else { "tcp6" };
            control(network, addr, fd).map_err(|error| self.op(addr).other(error))?;
            // Without it connect(2) would block this thread.
            socket::set_nonblocking(fd, true).map_err(|error| self.op(addr).call("fcntl", error))?;
        }
        if let Some(local) = self.local {
            socket::bind(fd, &SockAddr::from(local)).map_err(|error| self.op(addr).call("bind", error))?;
        }
        let stream = if is_tcp { NetFd::tcp(socket)? } else { NetFd::tcp_or_multipath(socket)? };
        if self.control.is_some() {
            // Who has seen it may have duplicated it.
            stream.expose();
        }
        Ok(stream)
    }

    /// The socket, and whether it is a plain TCP socket.
    fn socket(&self, addr: SocketAddr) -> io::Result<(OwnedFd, bool)> {
        if self.defaults && self.keepalive.is_none() && !self.multipath {
            return options::dial_socket(addr).map(|socket| (socket, true));
        }
        let open = |protocol| fd::open(Domain::for_address(addr), Type::STREAM, Some(protocol));
        // Whatever is wrong with MPTCP (no support, a sandbox, a policy), there is TCP.
        let multipath = if self.multipath { open(Protocol::MPTCP).ok() } else { None };
        let is_tcp = multipath.is_none();
        let socket = match multipath {
            Some(socket) => socket,
            None => open(Protocol::TCP).map_err(|error| self.op(addr).call("socket", error))?,
        };
        if let SocketAddr::V6(v6) = addr
            && v6.ip().to_ipv4_mapped().is_some()
        {
            let _ = SockRef::from(&socket).set_only_v6(false);
        }
        if self.defaults {
            // As Go does, without complaint: a connection without them works.
            let _ = options::set_nodelay(socket.as_fd(), true);
            if self.keepalive.is_none() {
                let _ = options::set_keepalive(socket.as_fd(), Some(&KeepAlive::new()));
            }
        }
        Ok((socket, is_tcp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Go: TestDialerPartialDeadline.
    #[test]
    fn time_is_split_over_the_addresses_that_are_left() {
        let now = Instant::now();
        let after = |seconds: f64| now + Duration::from_secs_f64(seconds);
        // Seconds that remain, addresses left, seconds for the first.
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
        assert_eq!(share(now, past, 2), past, "what is over is over");
        let far = now + Duration::from_secs(1 << 40);
        assert_eq!(share(now, far, 1), far);
    }

    #[test]
    fn the_earlier_of_timeout_and_deadline_counts() {
        let soon = Instant::now() + Duration::from_secs(5);
        assert_eq!(Dialer::new().ends(), None);
        assert_eq!(Dialer::new().timeout(Duration::MAX).ends(), None);
        assert_eq!(Dialer::new().timeout(Duration::MAX).deadline(soon).ends(), Some(soon));
        assert_eq!(Dialer::new().timeout(Duration::from_secs(60)).deadline(soon).ends(), Some(soon));
        assert!(Dialer::new().timeout(Duration::ZERO).deadline(soon).ends() <= Some(Instant::now()));
        assert_eq!(Dialer::new().timeout(Duration::ZERO).timeout(None).ends(), None);
    }

    #[test]
    fn families_fit_or_do_not() {
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
