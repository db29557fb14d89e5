//! Options of IPv4 and IPv6: hop limit, traffic class, IPV6_V6ONLY, multicast.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use socket2::{InterfaceIndexOrAddress, SockRef};

/// Returns `value` if the kernel accepts it as the hop limit of multicasts. socket2 would pass
/// [`u32::MAX`] as -1, which requests the kernel's default.
fn hop_limit(value: u32) -> io::Result<u32> {
    if value <= 255 { Ok(value) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
}

/// Returns IP_TTL.
pub(crate) fn ttl_v4(fd: BorrowedFd<'_>) -> io::Result<u32> {
    SockRef::from(&fd).ttl_v4()
}

/// Sets IP_TTL.
pub(crate) fn set_ttl_v4(fd: BorrowedFd<'_>, ttl: u32) -> io::Result<()> {
    SockRef::from(&fd).set_ttl_v4(ttl)
}

/// Returns IPV6_UNICAST_HOPS.
pub(crate) fn unicast_hops_v6(fd: BorrowedFd<'_>) -> io::Result<u32> {
    SockRef::from(&fd).unicast_hops_v6()
}

/// Sets IPV6_UNICAST_HOPS.
pub(crate) fn set_unicast_hops_v6(fd: BorrowedFd<'_>, hops: u32) -> io::Result<()> {
    SockRef::from(&fd).set_unicast_hops_v6(hops)
}

/// Returns IP_TOS.
pub(crate) fn tos_v4(fd: BorrowedFd<'_>) -> io::Result<u32> {
    SockRef::from(&fd).tos_v4()
}

/// Sets IP_TOS.
pub(crate) fn set_tos_v4(fd: BorrowedFd<'_>, tos: u32) -> io::Result<()> {
    SockRef::from(&fd).set_tos_v4(tos)
}

/// Returns IPV6_TCLASS.
pub(crate) fn tclass_v6(fd: BorrowedFd<'_>) -> io::Result<u32> {
    SockRef::from(&fd).tclass_v6()
}

/// Sets IPV6_TCLASS.
pub(crate) fn set_tclass_v6(fd: BorrowedFd<'_>, tclass: u32) -> io::Result<()> {
    SockRef::from(&fd).set_tclass_v6(tclass)
}

/// Returns IPV6_V6ONLY.
pub(crate) fn only_v6(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).only_v6()
}

/// Sets IPV6_V6ONLY.
pub(crate) fn set_only_v6(fd: BorrowedFd<'_>, only_v6: bool) -> io::Result<()> {
    SockRef::from(&fd).set_only_v6(only_v6)
}

/// Returns IP_MULTICAST_LOOP.
pub(crate) fn multicast_loop_v4(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).multicast_loop_v4()
}

/// Sets IP_MULTICAST_LOOP.
pub(crate) fn set_multicast_loop_v4(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    SockRef::from(&fd).set_multicast_loop_v4(on)
}

/// Returns IP_MULTICAST_TTL.
pub(crate) fn multicast_ttl_v4(fd: BorrowedFd<'_>) -> io::Result<u32> {
    SockRef::from(&fd).multicast_ttl_v4()
}

/// Sets IP_MULTICAST_TTL.
pub(crate) fn set_multicast_ttl_v4(fd: BorrowedFd<'_>, ttl: u32) -> io::Result<()> {
    SockRef::from(&fd).set_multicast_ttl_v4(hop_limit(ttl)?)
}

/// Returns IP_MULTICAST_IF, as an address.
pub(crate) fn multicast_interface_v4(fd: BorrowedFd<'_>) -> io::Result<Ipv4Addr> {
    SockRef::from(&fd).multicast_if_v4()
}

/// Sets IP_MULTICAST_IF to the interface with the given address.
pub(crate) fn set_multicast_interface_v4(fd: BorrowedFd<'_>, address: Ipv4Addr) -> io::Result<()> {
    SockRef::from(&fd).set_multicast_if_v4(&address)
}

/// Sets IP_MULTICAST_IF to the interface with the given index.
pub(crate) fn set_multicast_interface_v4_index(fd: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let any = libc::in_addr { s_addr: 0 };
    let request = libc::ip_mreqn { imr_multiaddr: any, imr_address: any, imr_ifindex: index as libc::c_int };
    super::set(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, request)
}

/// Returns IPV6_MULTICAST_LOOP.
pub(crate) fn multicast_loop_v6(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).multicast_loop_v6()
}

/// Sets IPV6_MULTICAST_LOOP.
pub(crate) fn set_multicast_loop_v6(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    SockRef::from(&fd).set_multicast_loop_v6(on)
}

/// Returns IPV6_MULTICAST_HOPS.
pub(crate) fn multicast_hops_v6(fd: BorrowedFd<'_>) -> io::Result<u32> {
    SockRef::from(&fd).multicast_hops_v6()
}

/// Sets IPV6_MULTICAST_HOPS.
pub(crate) fn set_multicast_hops_v6(fd: BorrowedFd<'_>, hops: u32) -> io::Result<()> {
    SockRef::from(&fd).set_multicast_hops_v6(hop_limit(hops)?)
}

/// Returns IPV6_MULTICAST_IF.
pub(crate) fn multicast_interface_v6(fd: BorrowedFd<'_>) -> io::Result<u32> {
    SockRef::from(&fd).multicast_if_v6()
}

/// Sets IPV6_MULTICAST_IF.
pub(crate) fn set_multicast_interface_v6(fd: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    SockRef::from(&fd).set_multicast_if_v6(index)
}

/// Sets IP_ADD_MEMBERSHIP for the interface with the given address.
pub(crate) fn join_multicast_v4(fd: BorrowedFd<'_>, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
    SockRef::from(&fd).join_multicast_v4(&group, &interface)
}

/// Sets IP_DROP_MEMBERSHIP for the interface with the given address.
pub(crate) fn leave_multicast_v4(fd: BorrowedFd<'_>, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
    SockRef::from(&fd).leave_multicast_v4(&group, &interface)
}

/// Sets IP_ADD_MEMBERSHIP for the interface with the given index.
pub(crate) fn join_multicast_v4_by_index(fd: BorrowedFd<'_>, group: Ipv4Addr, interface: u32) -> io::Result<()> {
    SockRef::from(&fd).join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface))
}

/// Sets IP_DROP_MEMBERSHIP for the interface with the given index.
pub(crate) fn leave_multicast_v4_by_index(fd: BorrowedFd<'_>, group: Ipv4Addr, interface: u32) -> io::Result<()> {
    SockRef::from(&fd).leave_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface))
}

/// Sets IPV6_ADD_MEMBERSHIP for the interface with the given index.
pub(crate) fn join_multicast_v6(fd: BorrowedFd<'_>, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
    SockRef::from(&fd).join_multicast_v6(group, interface)
}

/// Sets IPV6_DROP_MEMBERSHIP for the interface with the given index.
pub(crate) fn leave_multicast_v6(fd: BorrowedFd<'_>, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
    SockRef::from(&fd).leave_multicast_v6(group, interface)
}
