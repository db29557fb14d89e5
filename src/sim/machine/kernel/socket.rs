//! Sockets of the simulated kernel: the state of each kind, and its readiness for poll(2).

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::options::Options;
use super::packet::IpFields;
use super::tcp::{Connection, State};

/// The number of a host.
pub(crate) type HostId = u16;

/// The number of a socket, with a generation that distinguishes the socket from other sockets in
/// the same place.
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
    /// SOCK_SEQPACKET, which only Unix sockets have here.
    Packets,
}

/// The state of a listener: connections that wait to be accepted.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    pub(crate) backlog: usize,
    /// The number of connections whose handshake is in progress.
    pub(crate) half_open: usize,
    pub(crate) queue: VecDeque<SocketId>,
}

/// The directions in which a socket was shut down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shut {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Shut {
    pub(crate) fn add(&mut self, read: bool, write: bool) {
        self.read |= read;
        self.write |= write;
    }

    /// Returns the bits of poll(2).
    fn bits(self) -> i32 {
        let read = if self.read { libc::EPOLLIN | libc::EPOLLRDHUP } else { 0 };
        read | if self.read && self.write { libc::EPOLLHUP } else { 0 }
    }
}

impl Listener {
    /// Returns whether the queue is full. As on Linux, the queue may hold one connection more than
    /// the backlog. Connections whose handshake is in progress count as well.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() + self.half_open > self.backlog
    }
}

/// A datagram that has arrived.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    /// The destination address.
    pub(crate) to: IpAddr,
    pub(crate) ip_fields: IpFields,
    pub(crate) data: Box<[u8]>,
}

/// The state of a UDP socket: datagrams that wait to be received.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    pub(crate) queue: VecDeque<Datagram>,
    /// The length of the datagrams in the queue in bytes, with 512 bytes of metadata for each.
    pub(crate) bytes: usize,
    pub(crate) shut: Shut,
}

/// A message that waits in a Unix socket to be received.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) sender: SocketId,
    /// The sender's name.
    pub(crate) from: Vec<u8>,
    pub(crate) data: VecDeque<u8>,
}

/// One end of a connected pair of Unix sockets, or an unconnected Unix socket.
#[derive(Debug, Default)]
pub(crate) struct UnixEnd {
    pub(crate) peer: Option<SocketId>,
    /// Whether the peer has closed its socket, which was connected to this socket. For a datagram
    /// socket, a send that reports this sets the field to false, and so does a further connect(2).
    pub(crate) is_hung_up: bool,
    /// The messages that wait to be received. All bytes of a stream form one message.
    pub(crate) queue: VecDeque<Message>,
    /// The number of bytes in `queue`.
    pub(crate) bytes: usize,
    /// The room that messages of this socket take in the queues of other sockets. As on Linux, the
    /// sender's buffer limits it.
    pub(crate) unread: usize,
    pub(crate) read_shut: bool,
    pub(crate) write_shut: bool,
    /// Whether a send or a poll has found too little room, so that an edge must report when the
    /// socket becomes writable.
    pub(crate) wants_room: bool,
}

impl UnixEnd {
    /// Returns whether the socket is connected. A socket whose peer has closed counts as connected.
    pub(crate) fn is_joined(&self) -> bool {
        self.peer.is_some() || self.is_hung_up
    }
}

/// The state of a TCP socket's connection, as far as calls have reported it to the program; see
/// [`connect`](super::connect).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Connecting,
    /// accept(2) has returned the socket, or a call has reported that the handshake has succeeded.
    Connected,
    /// shutdown(2) has failed because the connection has ended.
    Disconnecting,
}

#[derive(Debug)]
pub(crate) enum Role {
    /// A TCP socket that is not a listener and has no connection: a new socket, a former listener
    /// whose reading was shut down, a socket in SYN-SENT after shutdown(2), a socket after
    /// connect(2) to AF_UNSPEC, or a socket whose connection has failed or ended, after a
    /// connect(2) has reported this.
    Unconnected,
    Listener(Listener),
    Tcp(Box<Connection>),
    Udp(Datagrams),
    Unix(UnixEnd),
    /// A socket whose host has crashed, or was down when the socket was opened. It does not send or
    /// receive.
    Dead,
}

/// A socket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) host: HostId,
    pub(crate) family: Family,
    pub(crate) kind: Kind,
    /// The number of descriptors that refer to the socket.
    pub(crate) descriptors: u32,
    /// The address that getsockname(2) returns. The socket may no longer hold its port; see
    /// `Kernel::port`.
    pub(crate) local: Option<SocketAddr>,
    /// The address passed to bind(2). Its port is 0 if the kernel chose the port.
    pub(crate) bound: Option<SocketAddr>,
    /// Whether bind(2) has set an IP address other than the wildcard address of the socket's
    /// family, even if the socket no longer has it.
    pub(crate) had_bound_ip: bool,
    /// The value of `Kernel::bindings` after the last binding of this socket. A socket that was
    /// bound later has a greater value.
    pub(crate) bound_order: u64,
    /// The stage of a TCP socket that has a connection.
    pub(crate) stage: Stage,
    /// Whether the TCP socket has or had a connection, even one whose handshake failed. It cannot
    /// become a listener, as on recent versions of Linux.
    pub(crate) had_connection: bool,
    /// Whether the TCP socket is or was a listener. It cannot connect, as on recent versions of
    /// Linux.
    pub(crate) was_listener: bool,
    pub(crate) remote: Option<SocketAddr>,
    /// The name of a Unix socket.
    pub(crate) name: Vec<u8>,
    /// The name of the Unix socket to which this socket is connected.
    pub(crate) peer_name: Vec<u8>,
    pub(crate) options: Options,
    pub(crate) error: Option<i32>,
    pub(crate) is_nonblocking: bool,
    pub(crate) role: Role,
    /// The directions in which shutdown(2) was called on a Unix listener or on a TCP socket without
    /// a connection. A Unix listener takes no new connections once reading is shut down. On the TCP
    /// socket, the call fails, but the socket's next connection begins shut down in these
    /// directions. If the socket becomes a listener, so do the connections that it accepts.
    pub(crate) shut: Shut,
    /// The listener that created the socket, until the handshake is complete or the listener is
    /// closed.
    pub(crate) parent: Option<SocketId>,
    /// The registrations with pollers: the descriptor and the poller's data of each.
    pub(crate) watchers: Vec<(i32, u64)>,
    /// Whether the socket is in `Kernel::edged`.
    pub(crate) is_edged: bool,
    /// Whether the next edge is a late or repeated one, so that no fault applies to it.
    pub(crate) is_second_edge: bool,
    /// The time at which the event of the socket's timer is due, or [`NEVER`](super::tcp::NEVER).
    pub(crate) timer_at: u64,
}

/// Converts `::ffff:a.b.c.d` to the IPv4 address that it stands for. Clears the scope and the flow
/// label of other IPv6 addresses.
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
    pub(crate) fn is_tcp(&self) -> bool {
        self.kind == Kind::Stream && self.family != Family::Unix
    }

    /// Returns an address as the program sees it. An IPv6 socket sees an IPv4 address as a mapped
    /// address.
    pub(crate) fn shown(&self, addr: SocketAddr) -> SocketAddr {
        match (self.family, addr.ip()) {
            (Family::V6, IpAddr::V4(v4)) => SocketAddr::new(IpAddr::V6(v4.to_ipv6_mapped()), addr.port()),
            _ => addr,
        }
    }

    /// Returns the wildcard address of the socket's family.
    pub(crate) fn wildcard(&self) -> IpAddr {
        match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// Returns whether packets to `ip` are for a socket with this binding.
    pub(crate) fn takes(&self, ip: IpAddr) -> bool {
        match self.local.map(|local| local.ip()) {
            Some(IpAddr::V6(own)) if own.is_unspecified() => ip.is_ipv6() || !self.options.only_v6,
            Some(own) if own.is_unspecified() => ip.is_ipv4(),
            own => own == Some(ip) && !(self.family == Family::V6 && ip.is_ipv4() && self.options.only_v6),
        }
    }

    /// Returns whether a packet could be for either of two sockets with the same port.
    pub(crate) fn overlaps(&self, other: &Socket) -> bool {
        let (Some(own), Some(others)) = (self.local, other.local) else { return false };
        match (own.ip().is_unspecified(), others.ip().is_unspecified()) {
            (true, true) => self.takes(others.ip()) || other.takes(own.ip()),
            // As on Linux, the wildcard address of an IPv4 socket overlaps an IPv6 address that
            // connect(2) has chosen.
            (true, false) if self.family == Family::V4 && others.is_ipv6() => !other.options.only_v6,
            (true, false) => self.takes(others.ip()),
            (false, _) => other.takes(own.ip()),
        }
    }

    /// Returns and clears the error that the next call would report (SO_ERROR), if there is one.
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

    /// Returns the readiness that poll(2) and epoll(7) report, as EPOLL bits. `unix_has_room` is
    /// the result of `Kernel::unix_has_room`, and is used only for a Unix socket.
    pub(crate) fn readiness(&self, unix_has_room: bool) -> u32 {
        const IN: i32 = libc::EPOLLIN;
        const OUT: i32 = libc::EPOLLOUT;
        const END: i32 = libc::EPOLLHUP | libc::EPOLLRDHUP | IN;
        let when = |condition: bool, bits: i32| if condition { bits } else { 0 };
        let bits = match &self.role {
            Role::Unconnected => libc::EPOLLHUP | OUT | self.shut.bits(),
            Role::Dead => END | OUT | libc::EPOLLERR,
            Role::Listener(listener) => {
                // As on Linux, the poll of a TCP listener reports no shutdown.
                let shut = if self.family == Family::Unix { self.shut.bits() } else { 0 };
                when(!listener.queue.is_empty(), IN) | shut
            }
            Role::Tcp(connection) => match connection.state {
                State::SynSent | State::SynReceived => {
                    Shut { read: connection.read_shut, write: connection.write_shut }.bits()
                }
                State::Closed | State::TimeWait => END | OUT,
                State::Established => {
                    let read = connection.fin_received || connection.read_shut;
                    Shut { read, write: connection.write_shut }.bits()
                        | when(connection.readable() > 0, IN)
                        | when(connection.write_shut || has_room(connection), OUT)
                }
            },
            Role::Udp(datagrams) => when(!datagrams.queue.is_empty(), IN) | datagrams.shut.bits() | OUT,
            Role::Unix(end) => {
                let is_stream = self.kind != Kind::Datagram;
                let ends = end.read_shut || (is_stream && end.is_hung_up);
                let both = (end.read_shut && end.write_shut) || (is_stream && end.is_hung_up);
                when(!end.queue.is_empty() || ends, IN)
                    | when(ends, libc::EPOLLRDHUP)
                    | when(both, libc::EPOLLHUP)
                    | when(is_stream && end.peer.is_none() && !end.is_hung_up, libc::EPOLLHUP)
                    | when(unix_has_room, OUT)
            }
        };
        // As on Linux, the poll of a TCP listener reports no error.
        let has_error = self.has_error() && !matches!(self.role, Role::Listener(_));
        (bits | when(has_error, libc::EPOLLERR)) as u32
    }
}

/// Returns whether the send buffer has enough room for poll(2) to report that the socket is
/// writable. As on Linux, a third of the buffer must be free.
fn has_room(connection: &Connection) -> bool {
    connection.room() * 3 >= connection.settings.send_buffer as usize
}
