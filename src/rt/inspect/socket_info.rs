//! [`SocketInfo`]: one socket of a snapshot.
//!
//! A snapshot has one row per socket, and the first snapshot of a process allocates memory for all
//! rows. So that a row takes only 120 bytes, durations are stored in nanoseconds, and the usual IP
//! addresses, which have no scope or flow information, are stored without room for it. Data that
//! most TCP connections do not have is in a separate allocation.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::row_data::{ListenerLimits, SocketAddress, SocketId, SocketState, SocketWait, TcpDetails};
use crate::task::TaskId;

/// A socket of a [`Snapshot`](super::Snapshot), or another descriptor in an
/// [`AsyncFd`](crate::io::AsyncFd).
///
/// # Examples
/// ```
/// for socket in &netpoll::rt::inspect().sockets {
///     println!("{}: {} {:?}, {} waiting", socket.fd(), socket.kind(), socket.state(), socket.waiting().len());
/// }
/// ```
#[derive(Clone, Debug)]
pub struct SocketInfo {
    pub(super) id: SocketId,
    pub(super) fd: i32,
    pub(super) state: SocketState,
    pub(super) kind: SocketKind,
    /// The shard of the poller, or [`NO_SHARD`].
    pub(super) poller_shard: u8,
    pub(super) errors: u8,
    pub(super) addresses: Addresses,
    pub(super) age_nanos: u64,
    pub(super) readers: u32,
    pub(super) writers: u32,
    pub(super) waiting: SocketWaits,
    /// The time until each deadline, or [`NO_DEADLINE`].
    pub(super) deadlines_nanos: [u64; 2],
    pub(super) tcp: Option<Box<TcpDetails>>,
    pub(super) extras: Option<Box<Extras>>,
}

// Keeps snapshots small; see the module documentation.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<SocketInfo>() <= 120);

pub(super) const NO_SHARD: u8 = u8::MAX;
pub(super) const NO_DEADLINE: u64 = u64::MAX;

/// The data of a socket that most TCP connections do not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extras {
    pub(super) host: Option<Arc<str>>,
    pub(super) limits: Option<ListenerLimits>,
    /// The numbers of receiving and of sending operations, unless the socket is a TCP connection
    /// without multipath that is not in an `AsyncFd`.
    pub(super) operations: Option<[u32; 2]>,
    /// The numbers of bytes received and sent. `None` for TCP without multipath, except in an
    /// `AsyncFd`.
    pub(super) bytes: Option<[u64; 2]>,
    pub(super) last_use: Option<Duration>,
    pub(super) gathered: usize,
    pub(super) last_errno: Option<i32>,
}

/// The kind of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketKind {
    Tcp,
    Udp,
    Unix,
    Unixgram,
    Unixpacket,
    /// A descriptor that is not a socket.
    Fd,
    /// A socket of another kind, or a descriptor whose kind was not queried.
    Socket,
}

impl SocketKind {
    const ALL: [SocketKind; 5] =
        [SocketKind::Tcp, SocketKind::Udp, SocketKind::Unix, SocketKind::Unixgram, SocketKind::Unixpacket];

    fn name(self) -> &'static str {
        match self {
            SocketKind::Tcp => "tcp",
            SocketKind::Udp => "udp",
            SocketKind::Unix => "unix",
            SocketKind::Unixgram => "unixgram",
            SocketKind::Unixpacket => "unixpacket",
            SocketKind::Fd => "fd",
            SocketKind::Socket => "socket",
        }
    }

    /// Returns the kind with this name, or `Socket`.
    pub(super) fn of(name: &str) -> SocketKind {
        SocketKind::ALL.into_iter().find(|kind| kind.name() == name).unwrap_or(SocketKind::Socket)
    }
}

/// The addresses of a socket: the local address and the peer's address.
#[derive(Clone, Debug)]
pub(super) enum Addresses {
    Ip([Option<PackedAddress>; 2]),
    /// The addresses of Unix sockets, and IPv6 addresses with a scope or flow information.
    Other(Box<[Option<SocketAddress>; 2]>),
}

/// An IP address and a port, without padding.
type PackedAddress = (IpAddr, [u8; 2]);

impl Addresses {
    pub(super) fn new(local: Option<SocketAddress>, peer: Option<SocketAddress>) -> Addresses {
        let both = [local, peer];
        let packed = both.each_ref().map(|address| address.as_ref().map(pack));
        match packed {
            [None | Some(Some(_)), None | Some(Some(_))] => Addresses::Ip(packed.map(Option::flatten)),
            _ => Addresses::Other(Box::new(both)),
        }
    }

    fn get(&self, index: usize) -> Option<SocketAddress> {
        match self {
            Addresses::Ip(both) => {
                both[index].map(|(ip, port)| SocketAddress::Ip(SocketAddr::new(ip, u16::from_ne_bytes(port))))
            }
            Addresses::Other(both) => both[index].clone(),
        }
    }
}

/// Packs an address, unless it has more than an IP address and a port.
fn pack(address: &SocketAddress) -> Option<PackedAddress> {
    match address {
        SocketAddress::Ip(SocketAddr::V6(address)) if address.flowinfo() != 0 || address.scope_id() != 0 => None,
        SocketAddress::Ip(address) => Some((address.ip(), address.port().to_ne_bytes())),
        SocketAddress::Unix(_) => None,
    }
}

impl SocketInfo {
    /// Returns the identity of the socket.
    pub fn id(&self) -> SocketId {
        self.id
    }

    /// Returns the descriptor number.
    pub fn fd(&self) -> i32 {
        self.fd
    }

    /// Returns the kind of the descriptor: `tcp`, `udp`, `unix`, `unixgram` or `unixpacket`.
    /// Returns `fd` for a descriptor that is not a socket. Returns `socket` for another kind of
    /// socket, and if the kind is not known and the kernel was not queried.
    pub fn kind(&self) -> &'static str {
        self.kind.name()
    }

    /// Returns the local address, if it is known.
    pub fn local(&self) -> Option<SocketAddress> {
        self.addresses.get(0)
    }

    /// Returns the peer's address, if the socket is connected and the address is known.
    pub fn peer(&self) -> Option<SocketAddress> {
        self.addresses.get(1)
    }

    /// Returns the host name to which [`TcpStream::connect`](crate::net::TcpStream::connect) or a
    /// [`Dialer`](crate::net::Dialer) dialled the connection. `None` if it was dialled by address,
    /// and for a socket that was not dialled.
    pub fn host(&self) -> Option<&str> {
        self.extras.as_ref()?.host.as_deref()
    }

    /// Returns the state of the socket.
    pub fn state(&self) -> SocketState {
        self.state
    }

    /// Returns the index in [`Snapshot::shards`](super::Snapshot::shards) of the poller shard in
    /// which the socket is registered. `None` if it is not registered with the current runtime, or
    /// if there is only one shard.
    pub fn poller_shard(&self) -> Option<u8> {
        (self.poller_shard != NO_SHARD).then_some(self.poller_shard)
    }

    /// Returns the time since this crate opened, accepted or adopted the socket, with a precision
    /// of a few milliseconds.
    pub fn age(&self) -> Duration {
        Duration::from_nanos(self.age_nanos)
    }

    /// Returns the number of operations that wait in the reading direction, such as reads, accepts
    /// and waits for readability.
    pub fn readers(&self) -> usize {
        self.readers as usize
    }

    /// Returns the number of operations that wait in the writing direction.
    pub fn writers(&self) -> usize {
        self.writers as usize
    }

    /// Returns the tasks that are known to wait for the socket, each with the event or lock that it
    /// waits for.
    pub fn waiting(&self) -> &[(TaskId, SocketWait)] {
        &self.waiting
    }

    /// Returns the time until the read deadline. Zero if it has passed, `None` if none is set.
    pub fn read_deadline(&self) -> Option<Duration> {
        self.deadline(0)
    }

    /// Returns the time until the write deadline. Zero if it has passed, `None` if none is set.
    pub fn write_deadline(&self) -> Option<Duration> {
        self.deadline(1)
    }

    fn deadline(&self, direction: usize) -> Option<Duration> {
        let nanos = self.deadlines_nanos[direction];
        (nanos != NO_DEADLINE).then(|| Duration::from_nanos(nanos))
    }

    /// Returns the TCP_INFO of a connection, if the snapshot has it. `None` for a listener.
    fn connection(&self) -> Option<&TcpDetails> {
        self.tcp.as_deref().filter(|tcp| tcp.state != "LISTEN")
    }

    fn operations(&self) -> Option<[u32; 2]> {
        let counted = self.extras.as_ref().and_then(|extras| extras.operations);
        counted.or_else(|| self.connection().map(|tcp| [tcp.segments_received, tcp.segments_sent]))
    }

    /// Returns the number of operations that have received data or a connection, modulo 2³². A
    /// batch of datagrams counts as one operation. Calls made by a closure of the program, such as
    /// those of an `AsyncFd`, are not counted.
    ///
    /// The operations of a TCP connection are not counted, except those of multipath TCP. For TCP
    /// without multipath, except in an [`AsyncFd`](crate::io::AsyncFd) or a listener, this is the
    /// kernel's number of received segments with data, or `None` if the snapshot has no TCP_INFO
    /// ([`Inspect::tcp`](super::Inspect::tcp)).
    pub fn reads(&self) -> Option<u32> {
        self.operations().map(|operations| operations[0])
    }

    /// Returns the number of operations that have sent data, modulo 2³², counted as for
    /// [`reads`](SocketInfo::reads). The kernel's number is that of sent segments with data.
    pub fn writes(&self) -> Option<u32> {
        self.operations().map(|operations| operations[1])
    }

    fn bytes(&self) -> Option<[u64; 2]> {
        let counted = self.extras.as_ref().and_then(|extras| extras.bytes);
        counted.or_else(|| self.connection().map(|tcp| [tcp.bytes_received, tcp.bytes_sent]))
    }

    /// Returns the total number of bytes received. Calls made by a closure of the program, such as
    /// those of an [`AsyncFd`](crate::io::AsyncFd), are not counted. For TCP without multipath,
    /// except in an `AsyncFd`, this is the kernel's count of all bytes, or `None` for a listener
    /// and if the snapshot has no TCP_INFO ([`Inspect::tcp`](super::Inspect::tcp)).
    pub fn bytes_received(&self) -> Option<u64> {
        self.bytes().map(|bytes| bytes[0])
    }

    /// Returns the total number of bytes sent, counted as for
    /// [`bytes_received`](SocketInfo::bytes_received). The kernel's count is that of the bytes that
    /// the peer has acknowledged.
    pub fn bytes_sent(&self) -> Option<u64> {
        self.bytes().map(|bytes| bytes[1])
    }

    /// Returns the time since [`bytes_received`](SocketInfo::bytes_received) or
    /// [`bytes_sent`](SocketInfo::bytes_sent) last counted bytes, or since the socket was opened if
    /// this has not happened, with a precision of a few milliseconds. Returns `None` if these
    /// methods return `None`.
    pub fn last_use(&self) -> Option<Duration> {
        let counted = self.extras.as_ref().and_then(|extras| extras.last_use);
        counted.or_else(|| self.connection().map(|tcp| tcp.last_sent.min(tcp.last_received).min(self.age())))
    }

    /// Returns the number of gathered bytes that have not been sent yet; see
    /// [`TcpStream::set_auto_cork`](crate::net::TcpStream::set_auto_cork).
    pub fn gathered(&self) -> usize {
        self.extras.as_ref().map_or(0, |extras| extras.gathered)
    }

    /// Returns the number of operations whose call failed, up to 255. An operation that ends
    /// because of a close, a deadline or a shutdown does not count.
    pub fn errors(&self) -> u8 {
        self.errors
    }

    /// Returns the errno of the last OS error, if there was one.
    pub fn last_errno(&self) -> Option<i32> {
        self.extras.as_ref()?.last_errno
    }

    /// Returns the limits of a listener, if it has any.
    pub fn limits(&self) -> Option<&ListenerLimits> {
        self.extras.as_ref()?.limits.as_ref()
    }

    /// Returns the TCP_INFO of a TCP socket. `None` for other sockets, for simulated ones, without
    /// [`Inspect::tcp`](super::Inspect::tcp), and on systems other than Linux.
    pub fn tcp(&self) -> Option<&TcpDetails> {
        self.tcp.as_deref()
    }
}

/// The tasks that wait for a socket, each with the event or lock for which it waits. Most sockets
/// have at most one such task, which needs no allocation.
#[derive(Clone, Default)]
pub(super) enum SocketWaits {
    #[default]
    None,
    One((TaskId, SocketWait)),
    // The box takes one word, so that a row is small.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<(TaskId, SocketWait)>>),
}

impl SocketWaits {
    pub(super) fn push(&mut self, wait: (TaskId, SocketWait)) {
        match self {
            SocketWaits::None => *self = SocketWaits::One(wait),
            SocketWaits::One(first) => *self = SocketWaits::Many(Box::new(vec![*first, wait])),
            SocketWaits::Many(all) => all.push(wait),
        }
    }
}

impl Deref for SocketWaits {
    type Target = [(TaskId, SocketWait)];

    fn deref(&self) -> &[(TaskId, SocketWait)] {
        match self {
            SocketWaits::None => &[],
            SocketWaits::One(wait) => std::slice::from_ref(wait),
            SocketWaits::Many(all) => all,
        }
    }
}

impl fmt::Debug for SocketWaits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_packing() {
        let ip = |text: &str| Some(SocketAddress::Ip(text.parse().unwrap()));
        let unix = || Some(SocketAddress::Unix("@name".to_owned()));
        for (local, peer, is_packed) in [
            (None, None, true),
            (ip("127.0.0.1:80"), None, true),
            (None, ip("[2001:db8::1]:65535"), true),
            (ip("[::1]:1"), ip("[::ffff:10.0.0.1]:2"), true),
            (ip("[fe80::1%3]:1"), ip("[fe80::2%3]:2"), false),
            (unix(), None, false),
            (None, unix(), false),
        ] {
            let addresses = Addresses::new(local.clone(), peer.clone());
            assert_eq!(matches!(addresses, Addresses::Ip(_)), is_packed, "{addresses:?}");
            assert_eq!([addresses.get(0), addresses.get(1)], [local, peer]);
        }
    }

    #[test]
    fn kind_is_found_by_its_name() {
        for kind in SocketKind::ALL {
            assert_eq!(SocketKind::of(kind.name()), kind);
        }
        assert_eq!(SocketKind::of("raw"), SocketKind::Socket);
    }

    #[test]
    fn waits_are_kept_in_order() {
        let mut waits = SocketWaits::default();
        let all: Vec<_> = (1..4).map(|id| (TaskId::from_number(id), SocketWait::Readable)).collect();
        for (at, &wait) in all.iter().enumerate() {
            assert_eq!(*waits, all[..at]);
            waits.push(wait);
        }
        assert_eq!(*waits, all);
    }
}
