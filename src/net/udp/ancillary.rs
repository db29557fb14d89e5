//! [`Ancillary`]: the decoded ancillary data of a datagram.
//!
//! One type serves both directions: it holds the data of a received datagram, or the data for a
//! datagram to send. The kernel passes ancillary data as control messages
//! ([`control`](crate::sys::control)).
//!
//! # Compared with Go
//! `ReadMsgUDP` returns raw bytes; x/net decodes them, with a separate package per family.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use libc::c_int;
use socket2::SockAddr;

use crate::sys::control::{ControlWriter, Message, Messages};
use crate::sys::os;

/// Explicit congestion notification: the low two bits of the TOS byte (RFC 3168).
///
/// # Examples
/// ```
/// use netpoll::net::{Ancillary, Ecn};
///
/// let ancillary = Ancillary::new().with_tos(0b101110_00).with_ecn(Ecn::Capable0);
/// assert_eq!(ancillary.tos(), Some(0b101110_10));
/// assert_eq!(ancillary.ecn(), Some(Ecn::Capable0));
/// assert_eq!(Ecn::of(0b11), Ecn::CongestionExperienced);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// Not-ECT: the sender does not react to congestion marks.
    NotCapable,
    /// ECT(1), which L4S uses (RFC 9331).
    Capable1,
    /// ECT(0).
    Capable0,
    /// CE: a router marked the packet instead of dropping it.
    CongestionExperienced,
}

impl Ecn {
    /// Returns the ECN bits of a TOS or traffic class byte.
    pub const fn of(tos: u8) -> Ecn {
        match tos & 3 {
            0 => Ecn::NotCapable,
            1 => Ecn::Capable1,
            2 => Ecn::Capable0,
            _ => Ecn::CongestionExperienced,
        }
    }

    /// Returns the value as the low two bits of a TOS or traffic class byte.
    pub const fn bits(self) -> u8 {
        match self {
            Ecn::NotCapable => 0,
            Ecn::Capable1 => 1,
            Ecn::Capable0 => 2,
            Ecn::CongestionExperienced => 3,
        }
    }
}

/// Ancillary data of a datagram: local address, destination, interface, hop limit, TOS, timestamp
/// and segment size.
///
/// A received datagram carries the data that was enabled on the socket (see
/// [`set_recv_packet_info`](super::UdpSocket::set_recv_packet_info), the other `set_recv_*` methods
/// and, on Linux, `set_gro`). For a datagram to send, the `with_*` methods override the socket's
/// settings. A getter returns `None` for data that is absent. See ip(7), ipv6(7), udp(7) and
/// socket(7).
///
/// # Examples
/// A server that is bound to all addresses replies from the address that the request was sent to:
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::UdpSocket;
/// use std::io::{IoSlice, IoSliceMut};
///
/// let server = UdpSocket::bind("0.0.0.0:0").await?;
/// server.set_recv_packet_info(true)?;
/// # let client = UdpSocket::bind("127.0.0.1:0").await?;
/// # client.send_to(b"ping", ("127.0.0.1", server.local_addr()?.port())).await?;
///
/// let mut buf = [0; 1500];
/// let info = server.recv_msg(&mut [IoSliceMut::new(&mut buf)]).await?;
/// assert_eq!(info.ancillary.local(), Some("127.0.0.1".parse().unwrap()));
/// server.send_msg(&[IoSlice::new(b"pong")], info.from, &info.ancillary.reply()).await?;
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[doc(alias = "cmsg")]
#[doc(alias = "ControlMessage")]
pub struct Ancillary {
    local: Option<IpAddr>,
    destination: Option<IpAddr>,
    interface: Option<u32>,
    hop_limit: Option<u8>,
    tos: Option<u8>,
    timestamp: Option<SystemTime>,
    pub(super) segment_size: Option<u16>,
    is_truncated: bool,
}

impl Ancillary {
    /// Creates an empty value, with which the socket's settings apply.
    pub const fn new() -> Ancillary {
        Ancillary {
            local: None,
            destination: None,
            interface: None,
            hop_limit: None,
            tos: None,
            timestamp: None,
            segment_size: None,
            is_truncated: false,
        }
    }

    /// Sets the local address to send from (IP_PKTINFO, IPV6_PKTINFO).
    #[must_use]
    pub const fn with_local(self, local: IpAddr) -> Ancillary {
        Ancillary { local: Some(local), ..self }
    }

    /// Sets the interface to send through, by its index (IP_PKTINFO, IPV6_PKTINFO). FreeBSD ignores
    /// it for IPv4.
    #[must_use]
    pub const fn with_interface(self, index: u32) -> Ancillary {
        Ancillary { interface: Some(index), ..self }
    }

    /// Sets the time-to-live or hop limit (IP_TTL, IPV6_HOPLIMIT), 1 to 255 hops.
    #[must_use]
    pub const fn with_hop_limit(self, hops: u8) -> Ancillary {
        Ancillary { hop_limit: Some(hops), ..self }
    }

    /// Sets the TOS or traffic class byte (IP_TOS, IPV6_TCLASS). Its low two bits are [`Ecn`].
    #[must_use]
    pub const fn with_tos(self, tos: u8) -> Ancillary {
        Ancillary { tos: Some(tos), ..self }
    }

    /// Sets the ECN bits and keeps the other bits of the byte that
    /// [`with_tos`](Ancillary::with_tos) has set. Without that byte, the other bits are 0, whatever
    /// the TOS of the socket is.
    #[must_use]
    pub const fn with_ecn(self, ecn: Ecn) -> Ancillary {
        let tos = match self.tos {
            Some(tos) => tos,
            None => 0,
        };
        Ancillary { tos: Some(tos & !3 | ecn.bits()), ..self }
    }

    /// Returns the ancillary data for a reply to this datagram. The reply is sent from the address
    /// [`local`](Ancillary::local), in segments of the same size. From a link-local IPv6 address,
    /// it is sent through the interface on which this datagram arrived.
    #[must_use]
    pub const fn reply(&self) -> Ancillary {
        let interface = match self.local {
            // The kernel requires an interface, unless the destination has a zone.
            Some(IpAddr::V6(local)) if local.is_unicast_link_local() => self.interface,
            _ => None,
        };
        Ancillary { local: self.local, interface, segment_size: self.segment_size, ..Ancillary::new() }
    }

    /// Returns the local address from which a reply should be sent. Returns `None` for a datagram
    /// to an IPv6 multicast group, and if the socket does not report local addresses. On macOS and
    /// FreeBSD, also returns `None` for a datagram to an IPv4 multicast group or to
    /// 255.255.255.255, and returns the destination of a datagram to the broadcast address of a
    /// subnet.
    pub const fn local(&self) -> Option<IpAddr> {
        self.local
    }

    /// Returns the destination address of the datagram: an address of this host, a multicast group
    /// or a broadcast address.
    pub const fn destination(&self) -> Option<IpAddr> {
        self.destination
    }

    /// Returns the index of the interface on which the datagram arrived.
    pub const fn interface(&self) -> Option<u32> {
        self.interface
    }

    /// Returns the time-to-live or hop limit.
    pub const fn hop_limit(&self) -> Option<u8> {
        self.hop_limit
    }

    /// Returns the TOS or traffic class byte.
    pub const fn tos(&self) -> Option<u8> {
        self.tos
    }

    /// Returns the ECN bits of [`tos`](Ancillary::tos).
    pub fn ecn(&self) -> Option<Ecn> {
        self.tos.map(Ecn::of)
    }

    /// Returns the time at which the kernel received the datagram, by the host's clock. The
    /// resolution is a nanosecond on Linux and a microsecond on macOS and FreeBSD.
    pub const fn timestamp(&self) -> Option<SystemTime> {
        self.timestamp
    }

    /// Returns whether control data was truncated. This happens only if options that this crate
    /// does not know are set on the descriptor.
    pub const fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    pub(crate) fn decode(messages: Messages<'_>, flags: c_int) -> Ancillary {
        let mut found = Ancillary { is_truncated: flags & libc::MSG_CTRUNC != 0, ..Ancillary::new() };
        for message in messages {
            found.record(message);
        }
        found
    }

    /// Stores the data of one control message. Ignores unknown kinds.
    fn record(&mut self, message: Message<'_>) {
        // The value is an int. On some systems the TTL is a byte.
        let byte = || match message.data {
            [byte] => Some(*byte),
            _ => message.value::<c_int>().and_then(|value| u8::try_from(value).ok()),
        };
        match (message.level, message.kind) {
            (libc::IPPROTO_IP, os::PACKET_INFO_V4) => {
                let Some(info) = message.value::<os::PacketInfoV4>() else { return };
                let (local, destination, interface) = os::read_packet_info_v4(info);
                self.destination = Some(destination.into());
                self.local = (!local.is_multicast() && !local.is_broadcast()).then_some(local.into());
                self.interface = interface;
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let Some(info) = message.value::<libc::in6_pktinfo>() else { return };
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                self.destination = Some(address.into());
                self.local = (!address.is_multicast()).then_some(address.into());
                self.interface = Some(info.ipi6_ifindex);
            }
            (libc::IPPROTO_IP, os::TTL_KIND) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => self.hop_limit = byte(),
            // IP_TOS is received as one byte and sent as an int.
            (libc::IPPROTO_IP, os::TOS_KIND) => self.tos = message.data.first().copied(),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => self.tos = byte(),
            (libc::SOL_SOCKET, os::TIMESTAMP_KIND) => self.timestamp = time(message.data),
            (libc::IPPROTO_UDP, os::SEGMENTS_KIND) => {
                self.segment_size = message.value::<c_int>().and_then(|size| u16::try_from(size).ok());
            }
            _ => {}
        }
    }

    /// Encodes the data for a datagram that is sent to `to`. If `to` is `None`, the family of the
    /// peer is not known. A local address and its interface are then written as a message of the
    /// address's family, and everything else as messages of both families. The kernel skips the
    /// messages of the other family.
    pub(crate) fn encode(&self, to: Option<&SockAddr>, control: &mut ControlWriter<'_>) -> io::Result<()> {
        let (v4, v6) = to.map_or((true, true), |to| (to.is_ipv4(), !to.is_ipv4()));
        let local = self.local.map(|local| local.to_canonical());
        let (info_v4, info_v6) = match local {
            Some(IpAddr::V4(_)) if !v4 => return Err(other_family()),
            Some(IpAddr::V6(_)) if !v6 => return Err(other_family()),
            Some(local) => (local.is_ipv4(), local.is_ipv6()),
            None => (v4 && self.interface.is_some(), v6 && self.interface.is_some()),
        };
        let index = self.interface.unwrap_or(0);
        if c_int::try_from(index).is_err() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "interface index must be less than 2^31"));
        }
        if info_v4 {
            let local = if let Some(IpAddr::V4(local)) = local { Some(local) } else { None };
            if let Some(info) = os::packet_info_v4(local, index) {
                control.push(libc::IPPROTO_IP, os::PACKET_INFO_V4, info)?;
            }
        }
        if info_v6 {
            let local = if let Some(IpAddr::V6(local)) = local { local } else { Ipv6Addr::UNSPECIFIED };
            let info =
                libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: local.octets() }, ipi6_ifindex: index as _ };
            let kind = if info_v4 { os::SKIPPED_PACKET_INFO_V6 } else { libc::IPV6_PKTINFO };
            control.push(libc::IPPROTO_IPV6, kind, info)?;
        }
        let kinds = [
            (v4, libc::IPPROTO_IP, libc::IP_TTL, libc::IP_TOS),
            (v6, libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, libc::IPV6_TCLASS),
        ];
        for (_, level, hop_limit, tos) in kinds.into_iter().filter(|kind| kind.0) {
            if let Some(hops) = self.hop_limit {
                control.push(level, hop_limit, c_int::from(hops))?;
            }
            if let Some(value) = self.tos {
                control.push(level, tos, c_int::from(value))?;
            }
        }
        if let Some(size) = self.segment_size {
            control.push(libc::IPPROTO_UDP, os::SEGMENT_OPTION, size)?;
        }
        Ok(())
    }
}

#[cold]
fn other_family() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "local address and destination must be of the same family")
}

/// Decodes a timespec or timeval with fields of 32 or 64 bits.
fn time(data: &[u8]) -> Option<SystemTime> {
    let (seconds, nanos) = match data.len() {
        16 => (i64::from_ne_bytes(data[..8].try_into().ok()?), i64::from_ne_bytes(data[8..].try_into().ok()?)),
        8 => (
            i32::from_ne_bytes(data[..4].try_into().ok()?).into(),
            i32::from_ne_bytes(data[4..].try_into().ok()?).into(),
        ),
        _ => return None,
    };
    // A timeval's fraction may have only 32 bits, followed by undefined padding.
    let fraction: i64 = if os::TIMESTAMP_UNIT == 1 { nanos } else { nanos & 0xffff_ffff };
    let nanos = u32::try_from(fraction).ok()?.checked_mul(os::TIMESTAMP_UNIT)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::batch::CONTROL_WORDS;

    fn to(ip: &str) -> SockAddr {
        std::net::SocketAddr::new(ip.parse().unwrap(), 1).into()
    }

    fn there_and_back(ancillary: Ancillary, to: Option<&SockAddr>) -> io::Result<Ancillary> {
        let mut words = [0; CONTROL_WORDS];
        let mut control = ControlWriter::new(&mut words);
        ancillary.encode(to, &mut control)?;
        let len = control.bytes().len();
        Ok(Ancillary::decode(Messages::new(&words, len), 0))
    }

    #[test]
    fn encoding_and_decoding_preserve_the_data() {
        let (v4, v6) = (to("127.0.0.1"), to("::1"));
        let local = IpAddr::from(Ipv6Addr::LOCALHOST);
        let all = Ancillary::new().with_local(local).with_interface(3).with_hop_limit(9).with_tos(0xb8);
        for to in [Some(&v6), None] {
            assert_eq!(there_and_back(all, to).unwrap(), Ancillary { destination: Some(local), ..all });
        }
        assert_eq!(there_and_back(Ancillary::new(), None).unwrap(), Ancillary::new());
        let all = Ancillary::new().with_local(IpAddr::from([127, 0, 0, 1])).with_interface(1).with_hop_limit(255);
        let back = there_and_back(all, Some(&v4)).unwrap();
        assert_eq!((back.local(), back.interface(), back.hop_limit()), (all.local, Some(1), Some(255)));
        let mapped = Ancillary::new().with_local("::ffff:127.0.0.1".parse().unwrap());
        assert_eq!(there_and_back(mapped, Some(&v4)).unwrap().local(), all.local);
    }

    #[test]
    fn reply_keeps_only_the_local_address_and_the_segment_size() {
        let from = Ancillary::new().with_local(IpAddr::from([127, 0, 0, 1]));
        let received = from.with_interface(1).with_hop_limit(255).with_tos(1);
        let reply = Ancillary { segment_size: Some(1200), ..received }.reply();
        assert_eq!(reply, Ancillary { segment_size: Some(1200), ..from });
    }

    /// Regression test: without an interface, the kernel refused a reply from a link-local address
    /// to a global one.
    #[test]
    fn reply_from_link_local_address_keeps_the_interface() {
        for (local, interface) in [("fe80::1", Some(3)), ("2001:db8::1", None), ("169.254.0.1", None)] {
            let received = Ancillary::new().with_local(local.parse().unwrap()).with_interface(3).with_hop_limit(1);
            let expected = Ancillary { interface, ..Ancillary::new().with_local(local.parse().unwrap()) };
            assert_eq!(received.reply(), expected, "{local}");
        }
    }

    #[test]
    fn wrong_family_and_invalid_interface_are_refused() {
        let (v4, v6) = (to("127.0.0.1"), to("::1"));
        let from_v4 = Ancillary::new().with_local(IpAddr::from([127, 0, 0, 1]));
        let from_v6 = Ancillary::new().with_local(Ipv6Addr::LOCALHOST.into());
        let nowhere = Ancillary::new().with_interface(u32::MAX);
        for (ancillary, to) in [(from_v4, &v6), (from_v6, &v4), (nowhere, &v4)] {
            assert_eq!(there_and_back(ancillary, Some(to)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn all_kinds_fit_into_one_control_buffer() {
        let all = Ancillary::new().with_interface(1).with_hop_limit(1).with_tos(1);
        let all = Ancillary { segment_size: Some(1), ..all };
        assert_eq!(there_and_back(all, None).unwrap().interface(), Some(1));
    }

    #[test]
    fn ecn_is_the_low_two_bits() {
        for ecn in [Ecn::NotCapable, Ecn::Capable1, Ecn::Capable0, Ecn::CongestionExperienced] {
            assert_eq!(Ecn::of(0xb8 | ecn.bits()), ecn);
            let ancillary = Ancillary::new().with_tos(0xbb).with_ecn(ecn);
            assert_eq!((ancillary.ecn(), ancillary.tos()), (Some(ecn), Some(0xb8 | ecn.bits())));
        }
    }

    #[test]
    fn timestamps_of_both_widths_decode() {
        let wide = [5_i64.to_ne_bytes(), 7_i64.to_ne_bytes()].concat();
        let narrow = [5_i32.to_ne_bytes(), 7_i32.to_ne_bytes()].concat();
        let expected = SystemTime::UNIX_EPOCH + Duration::new(5, 7 * os::TIMESTAMP_UNIT);
        assert_eq!((time(&wide), time(&narrow)), (Some(expected), Some(expected)));
        let before = [(-1_i64).to_ne_bytes(), 0_i64.to_ne_bytes()].concat();
        assert_eq!((time(&before), time(&wide[1..])), (None, None));
    }
}
