//! Sockets of the simulated kernel: what each kind keeps, and what poll(2) would say about it.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::options::Options;
use super::tcp::{Connection, State};

/// A host's number.
pub(crate) type HostId = u16;

/// A socket's number, with a generation that tells it from later sockets of the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SocketId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
    Unix,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Stream,
    Datagram,
    Packets,
}

/// Connections that wait to be accepted.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) backlog: usize,
    /// Connections whose handshake is under way.
    pub(crate) half_open: usize,
    pub(crate) queue: VecDeque<SocketId>,
}

impl Listener {
    /// Whether a further connection is turned away. As in Linux, there may be one more than the backlog says.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() + self.half_open > self.backlog
    }
}

/// A datagram and its sender.
pub(crate) type Datagram = (Option<SocketAddr>, Box<[u8]>);

/// Datagrams that wait to be received.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    pub(crate) queue: VecDeque<Datagram>,
    pub(crate) bytes: usize,
    pub(crate) read_shut: bool,
    pub(crate) write_shut: bool,
}

/// One end of a connected pair of Unix sockets, or an unconnected Unix socket.
#[derive(Debug, Default)]
pub(crate) struct UnixEnd {
    pub(crate) peer: Option<SocketId>,
    /// The peer was there and has closed.
    pub(crate) is_hung_up: bool,
    /// Messages; a stream's are one.
    pub(crate) queue: VecDeque<(Vec<u8>, VecDeque<u8>)>,
    pub(crate) bytes: usize,
    pub(crate) read_shut: bool,
    pub(crate) write_shut: bool,
    pub(crate) wants_room: bool,
}

#[derive(Debug)]
pub(crate) enum Role {
    /// A stream socket that neither listens nor connects.
    Fresh,
    Listener(Listener),
    Tcp(Box<Connection>),
    Udp(Datagrams),
    Unix(UnixEnd),
    /// The host has crashed: nothing is sent or received any more.
    Dead,
}

/// A socket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) host: HostId,
    pub(crate) family: Family,
    pub(crate) kind: Kind,
    /// Descriptors that refer to it.
    pub(crate) descriptors: u32,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) remote: Option<SocketAddr>,
    /// The name of a Unix socket, and of the one that it is connected to.
    pub(crate) name: Vec<u8>,
    pub(crate) peer_name: Vec<u8>,
    pub(crate) options: Options,
    pub(crate) error: Option<i32>,
    pub(crate) is_nonblocking: bool,
    pub(crate) role: Role,
    /// The listener that it was accepted by, until the handshake is over.
    pub(crate) parent: Option<SocketId>,
    /// What polls it: the descriptor and the poller's data.
    pub(crate) watchers: Vec<(i32, u64)>,
    pub(crate) is_edged: bool,
    /// When its timer event is due.
    pub(crate) timer_at: u64,
}

/// `::ffff:a.b.c.d` as the IPv4 address that it stands for.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => SocketAddr::new(IpAddr::V6(*v6.ip()), v6.port()),
        },
        v4 => v4,
    }
}

impl Socket {
    /// An address as the program sees it: an IPv6 socket has IPv4 peers by their mapped addresses.
    pub(crate) fn shown(&self, addr: SocketAddr) -> SocketAddr {
        match (self.family, addr.ip()) {
            (Family::V6, IpAddr::V4(v4)) => SocketAddr::new(IpAddr::V6(v4.to_ipv6_mapped()), addr.port()),
            _ => addr,
        }
    }

    /// The wildcard address of its family.
    pub(crate) fn wildcard(&self) -> IpAddr {
        match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// Whether packets to `ip` are for a socket that is bound as this one is.
    pub(crate) fn takes(&self, ip: IpAddr) -> bool {
        match self.local.map(|local| local.ip()) {
            Some(IpAddr::V6(own)) if own.is_unspecified() => ip.is_ipv6() || !self.options.only_v6,
            Some(own) if own.is_unspecified() => ip.is_ipv4(),
            own => own == Some(ip),
        }
    }

    /// Whether some packets could be for either of two sockets with the same port.
    pub(crate) fn overlaps(&self, other: &Socket) -> bool {
        let (Some(own), Some(others)) = (self.local, other.local) else { return false };
        match (own.ip().is_unspecified(), others.ip().is_unspecified()) {
            (true, true) => self.takes(other.wildcard()) || other.takes(self.wildcard()),
            (true, false) => self.takes(others.ip()),
            (false, _) => other.takes(own.ip()),
        }
    }

    /// The error that the next call reports (SO_ERROR), taken out.
    pub(crate) fn take_error(&mut self) -> Option<i32> {
        let of_connection = match &mut self.role {
            Role::Tcp(connection) => connection.error.take(),
            _ => None,
        };
        of_connection.or_else(|| self.error.take())
    }

    fn has_error(&self) -> bool {
        self.error.is_some() || matches!(&self.role, Role::Tcp(connection) if connection.error.is_some())
    }

    /// What poll(2) and epoll(7) say, as EPOLL bits. `peer_has_room`: a write to the connected Unix socket would be taken.
    pub(crate) fn readiness(&self, peer_has_room: bool) -> u32 {
        const IN: i32 = libc::EPOLLIN;
        const OUT: i32 = libc::EPOLLOUT;
        const END: i32 = libc::EPOLLHUP | libc::EPOLLRDHUP | IN;
        let when = |condition: bool, bits: i32| if condition { bits } else { 0 };
        let bits = match &self.role {
            Role::Fresh => libc::EPOLLHUP | OUT,
            Role::Dead => END | OUT | libc::EPOLLERR,
            Role::Listener(listener) => when(!listener.queue.is_empty(), IN),
            Role::Tcp(connection) => match connection.state {
                State::SynSent | State::SynReceived => 0,
                State::Closed => END | OUT,
                State::Established | State::TimeWait => {
                    let ends = connection.fin_received;
                    when(connection.readable() > 0 || ends, IN)
                        | when(ends, libc::EPOLLRDHUP)
                        | when(ends && connection.fin, libc::EPOLLHUP)
                        | when(connection.fin || has_room(connection), OUT)
                }
            },
            Role::Udp(datagrams) => {
                let ends = when(datagrams.read_shut, IN | libc::EPOLLRDHUP)
                    | when(datagrams.read_shut && datagrams.write_shut, libc::EPOLLHUP);
                when(!datagrams.queue.is_empty(), IN) | ends | OUT
            }
            Role::Unix(end) => {
                let is_stream = self.kind != Kind::Datagram;
                let ends = end.read_shut || (is_stream && end.is_hung_up);
                let both = (end.read_shut && end.write_shut) || (is_stream && end.is_hung_up);
                when(!end.queue.is_empty() || ends, IN)
                    | when(ends, libc::EPOLLRDHUP)
                    | when(both, libc::EPOLLHUP)
                    | when(is_stream && end.peer.is_none() && !end.is_hung_up, libc::EPOLLHUP)
                    | when(end.is_hung_up || peer_has_room, OUT)
            }
        };
        (bits | when(self.has_error(), libc::EPOLLERR)) as u32
    }
}

/// Linux reports room when a third of the buffer is free.
fn has_room(connection: &Connection) -> bool {
    connection.room() * 3 >= connection.settings.send_buffer as usize
}
