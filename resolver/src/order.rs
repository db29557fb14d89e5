//! The order in which addresses should be tried (RFC 6724, section 6, with the default policy
//! table).
//!
//! To find the source address for a destination, a datagram socket is connected to the destination.
//! This sends nothing. At most [`PROBES_MAX`] addresses per family are checked, because each check
//! takes five system calls, and the DNS server determines the number of addresses. The remaining
//! addresses of the family are ranked as if they had the source of the last address that was
//! checked.
//!
//! Rules 3, 4 and 7 (deprecated, home and encapsulated addresses) need information that only the
//! kernel has. They are omitted, as in Go (net/addrselect.go) and musl.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The policy table of RFC 6724, section 2.1: prefix, prefix length, precedence, label. The table
/// is sorted by the length of the prefix, longest first.
const POLICY: [(Ipv6Addr, u32, u8, u8); 9] = [
    (Ipv6Addr::LOCALHOST, 128, 50, 0),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, 35, 4),
    (Ipv6Addr::UNSPECIFIED, 96, 1, 3),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, 5, 5),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, 30, 2),
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16, 1, 12),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, 1, 11),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, 3, 13),
    (Ipv6Addr::UNSPECIFIED, 0, 40, 1),
];

// Scopes of addresses, with the values of multicast scopes (RFC 4291, section 2.7).
const LINK_LOCAL: u8 = 2;
const SITE_LOCAL: u8 = 5;
const GLOBAL: u8 = 14;

fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Returns the length of the common prefix of two addresses, in bits.
fn common_bits(a: Ipv6Addr, b: Ipv6Addr) -> u32 {
    (a.to_bits() ^ b.to_bits()).leading_zeros()
}

/// Returns the precedence and the label of an address in the policy table.
fn policy(ip: IpAddr) -> (u8, u8) {
    let ip = as_v6(ip);
    let fits = |&&(prefix, length, ..): &&(Ipv6Addr, u32, u8, u8)| common_bits(prefix, ip) >= length;
    POLICY.iter().find(fits).map_or((40, 1), |&(_, _, precedence, label)| (precedence, label))
}

/// Returns the scope of an address (RFC 6724, sections 3.1 and 3.2).
fn scope(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) if ip.is_loopback() || ip.is_link_local() => LINK_LOCAL,
        IpAddr::V4(_) => GLOBAL,
        IpAddr::V6(ip) if ip.is_multicast() => ip.octets()[1] & 0xf,
        IpAddr::V6(ip) if ip.is_loopback() || ip.is_unicast_link_local() => LINK_LOCAL,
        IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfec0 => SITE_LOCAL,
        IpAddr::V6(_) => GLOBAL,
    }
}

/// The maximum number of addresses per family whose source is determined.
const PROBES_MAX: usize = 16;

/// The source addresses of destinations.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Per family (IPv4, IPv6), the number of addresses checked so far and the result of the last
    /// check.
    families: [(usize, Option<IpAddr>); 2],
}

impl Sources {
    /// Returns the source address of packets to `addr`, or `None` if there is no route or the check
    /// fails. After [`PROBES_MAX`] checks of a family, returns the result of the last check
    /// instead.
    pub(super) fn of(&mut self, addr: SocketAddr) -> Option<IpAddr> {
        let (checked, last) = &mut self.families[usize::from(addr.is_ipv6())];
        if *checked < PROBES_MAX {
            *checked += 1;
            *last = source(addr);
        }
        *last
    }
}

/// Asks the kernel for the source address of packets to `addr`.
fn source(mut addr: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // The port is arbitrary.
    addr.set_port(9);
    socket.connect(addr).ok()?;
    socket.local_addr().ok().as_ref().map(SocketAddr::ip)
}

/// Returns `addrs` sorted, best first. The sort is stable.
pub(super) fn sorted(addrs: Vec<SocketAddr>, mut source: impl FnMut(SocketAddr) -> Option<IpAddr>) -> Vec<SocketAddr> {
    if addrs.len() < 2 {
        return addrs;
    }
    let mut ranked: Vec<_> = addrs.into_iter().map(|addr| (rank(addr.ip(), source(addr)), addr)).collect();
    ranked.sort_by_key(|&(rank, _)| rank);
    ranked.into_iter().map(|(_, addr)| addr).collect()
}

/// Returns the rank of an address, where a lower rank is better. The rank follows rules 1
/// (reachable), 2 (matching scope), 5 (matching label), 6 (precedence), 8 (smaller scope) and 9
/// (longest prefix). Rule 9 is applied only to IPv6, because for IPv4 it defeats DNS round robin.
fn rank(ip: IpAddr, source: Option<IpAddr>) -> (bool, bool, bool, Reverse<u8>, u8, Reverse<u32>) {
    let (precedence, label) = policy(ip);
    let same_scope = source.is_some_and(|source| scope(source) == scope(ip));
    let same_label = source.is_some_and(|source| policy(source).1 == label);
    let prefix = match (ip, source) {
        // The interface identifier, the lower 64 bits, is not compared.
        (IpAddr::V6(ip), Some(IpAddr::V6(source))) => common_bits(ip, source).min(64),
        _ => 0,
    };
    (source.is_none(), !same_scope, !same_label, Reverse(precedence), scope(ip), Reverse(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The cases are the examples of RFC 6724, section 10.2, that do not need an omitted rule, and
    /// two others. Each case has addresses with their sources, in the expected order.
    #[test]
    fn examples_of_rfc_6724_are_in_order() {
        let cases: [&[(&str, Option<&str>)]; 9] = [
            &[("2001:db8:1::1", Some("2001:db8:1::2")), ("198.51.100.121", Some("169.254.13.78"))],
            &[("198.51.100.121", Some("198.51.100.117")), ("2001:db8:1::1", Some("fe80::1"))],
            &[("2001:db8:1::1", Some("2001:db8:1::2")), ("10.1.2.3", Some("10.1.2.4"))],
            &[("fe80::1", Some("fe80::2")), ("2001:db8:1::1", Some("2001:db8:1::2"))],
            &[("2001:db8:1::1", Some("2001:db8:1::2")), ("2002:c633:6401::1", Some("2001:db8:1::2"))],
            &[("2002:c633:6401::1", Some("2002:c633:6401::2")), ("2001:db8:1::1", Some("2002:c633:6401::2"))],
            &[("2001:db8:1::1", Some("2001:db8:1::2")), ("2001:db8:3ffe::1", Some("2001:db8:3f44::2"))],
            // The other two cases: an unreachable address is last, and the length of the common
            // prefix does not matter for IPv4.
            &[("192.0.2.1", Some("192.0.2.9")), ("2001:db8:1::1", None)],
            &[("203.0.113.1", Some("192.0.2.9")), ("192.0.2.8", Some("192.0.2.9"))],
        ];
        for case in cases {
            let expected: Vec<_> = case.iter().map(|(addr, _)| SocketAddr::new(ip(addr), 0)).collect();
            let source = |addr: SocketAddr| {
                let (_, source) = case.iter().find(|(text, _)| ip(text) == addr.ip())?;
                source.map(ip)
            };
            assert_eq!(sorted(expected.clone(), source), expected);
            let turned: Vec<_> = expected.iter().rev().copied().collect();
            let equal = case[0].0 == "203.0.113.1";
            assert_eq!(sorted(turned.clone(), source), if equal { turned } else { expected });
        }
    }

    #[test]
    fn longest_prefix_determines_the_policy() {
        for (addr, expected) in [
            ("::1", (50, 0)),
            ("2001:db8::1", (40, 1)),
            ("192.0.2.1", (35, 4)),
            ("::ffff:192.0.2.1", (35, 4)),
            ("2002::1", (30, 2)),
            ("2001::1", (5, 5)),
            ("fd00::1", (3, 13)),
            ("fec0::1", (1, 11)),
            ("::2", (1, 3)),
        ] {
            assert_eq!(policy(ip(addr)), expected, "{addr}");
        }
    }

    #[test]
    fn source_for_a_loopback_address_is_loopback() {
        assert_eq!(source((Ipv4Addr::LOCALHOST, 0).into()), Some(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn number_of_kernel_queries_is_bounded() {
        let mut sources = Sources::default();
        let all: Vec<SocketAddr> = (0..4000).map(|n: u32| (Ipv4Addr::from_bits(0x7f00_0001 + n), 0).into()).collect();
        let mut also: Vec<SocketAddr> = vec![(Ipv6Addr::LOCALHOST, 0).into()];
        also.extend(&all);
        let sorted = sorted(also.clone(), |addr| sources.of(addr));
        assert_eq!(sorted.len(), also.len());
        assert_eq!(sources.families[0], (PROBES_MAX, Some(Ipv4Addr::LOCALHOST.into())));
        assert_eq!(sources.families[1].0, 1, "each family has its own limit");
        let v4: Vec<_> = sorted.into_iter().filter(SocketAddr::is_ipv4).collect();
        assert_eq!(v4, all, "the sort is stable");
    }
}
