//! Packets that travel on a link.

use std::fmt;
use std::net::SocketAddr;

use super::socket::Kind;

/// A TCP segment. Sequence numbers start at 0, the number of the SYN, and do not wrap. A capture
/// shows their low 32 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) seq: u64,
    pub(crate) ack: Option<u64>,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    /// The number of bytes that the sender of this segment can receive.
    pub(crate) window: u64,
    pub(crate) data: Box<[u8]>,
    /// The number of the connection to which the segment belongs. A reset that answers a segment of
    /// an unknown or older connection has the connection number of that segment. On a real network,
    /// random initial sequence numbers distinguish the connections between two addresses.
    pub(crate) connection: u64,
}

impl Segment {
    /// Returns the sequence number after the segment; SYN and FIN count as one byte each.
    pub(crate) fn end(&self) -> u64 {
        self.seq + self.data.len() as u64 + u64::from(self.syn) + u64::from(self.fin)
    }
}

/// The reason why a packet was not delivered (ICMP destination unreachable).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// No host has the address.
    Host,
    /// No UDP socket receives the datagram.
    Port,
}

impl Unreachable {
    pub(crate) fn errno(self) -> i32 {
        match self {
            Unreachable::Host => libc::EHOSTUNREACH,
            Unreachable::Port => libc::ECONNREFUSED,
        }
    }
}

/// The protocol of a packet, or of the packet that caused an ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(crate) fn of(kind: Kind) -> Protocol {
        if kind == Kind::Datagram { Protocol::Udp } else { Protocol::Tcp }
    }
}

/// Fields of the IP header that a receiver of datagrams can request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IpFields {
    /// The type of service or traffic class.
    pub(crate) tos: u8,
    /// The time-to-live or hop limit.
    pub(crate) hops: u8,
}

impl Default for IpFields {
    fn default() -> IpFields {
        IpFields { tos: 0, hops: 64 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Tcp(Segment),
    Udp(Box<[u8]>, IpFields),
    /// An ICMP message: a packet of this protocol from this packet's destination to its source was
    /// not delivered, for this reason.
    Unreachable(Protocol, Unreachable),
}

/// A packet; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) body: Body,
}

impl Packet {
    /// Returns the length of the IP packet in bytes, without TCP options.
    pub(crate) fn len(&self) -> u64 {
        let ip = if self.src.is_ipv4() { 20 } else { 40 };
        ip + match &self.body {
            Body::Tcp(segment) => 20 + segment.data.len() as u64,
            Body::Udp(data, _) => 8 + data.len() as u64,
            Body::Unreachable(..) => 8 + ip + 8,
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {} ", self.src, self.dst)?;
        match &self.body {
            Body::Tcp(segment) => {
                f.write_str("TCP ")?;
                let flags = [(segment.syn, "SYN "), (segment.fin, "FIN "), (segment.rst, "RST ")];
                flags.iter().filter(|(set, _)| *set).try_for_each(|(_, name)| f.write_str(name))?;
                write!(f, "seq {}", segment.seq)?;
                if let Some(ack) = segment.ack {
                    write!(f, " ack {ack}")?;
                }
                write!(f, " win {} len {}", segment.window, segment.data.len())
            }
            Body::Udp(data, _) => write!(f, "UDP len {}", data.len()),
            Body::Unreachable(protocol, Unreachable::Host) => write!(f, "ICMP host unreachable ({protocol:?})"),
            Body::Unreachable(protocol, Unreachable::Port) => write!(f, "ICMP port unreachable ({protocol:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_have_the_lengths_of_their_headers_and_data() {
        let (v4, v6): (SocketAddr, SocketAddr) = ("10.0.0.1:1".parse().unwrap(), "[fd00::1]:1".parse().unwrap());
        let segment = Segment {
            seq: 5,
            ack: None,
            syn: true,
            fin: true,
            rst: false,
            window: 9,
            data: Box::from(*b"abc"),
            connection: 0,
        };
        assert_eq!(segment.end(), 10);
        let length = |addr, body| Packet { src: addr, dst: addr, body }.len();
        assert_eq!((length(v4, Body::Tcp(segment.clone())), length(v6, Body::Tcp(segment))), (43, 63));
        assert_eq!(length(v4, Body::Udp(Box::from([0; 100]), IpFields::default())), 128);
        assert_eq!(length(v4, Body::Unreachable(Protocol::Udp, Unreachable::Port)), 56);
    }

    #[test]
    fn packet_text_has_addresses_flags_and_numbers() {
        let (src, dst) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let segment = Segment {
            seq: 0,
            ack: Some(7),
            syn: true,
            fin: false,
            rst: false,
            window: 9,
            data: Box::default(),
            connection: 0,
        };
        let packet = Packet { src, dst, body: Body::Tcp(segment) };
        assert_eq!(packet.to_string(), "10.0.0.1:1 > 10.0.0.2:80 TCP SYN seq 0 ack 7 win 9 len 0");
        let packet = Packet { src, dst, body: Body::Unreachable(Protocol::Udp, Unreachable::Port) };
        assert_eq!(packet.to_string(), "10.0.0.1:1 > 10.0.0.2:80 ICMP port unreachable (Udp)");
    }
}
