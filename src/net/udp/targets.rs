//! Destination addresses: their form, and the order in which they are tried.

use std::io;
use std::iter::Chain;
use std::net::{IpAddr, SocketAddr};
use std::vec;

use socket2::SockAddr;

use crate::net::raw_os_error;

/// Returns `addr` in the kernel's form. On Linux, an IPv4-mapped IPv6 address becomes an IPv4
/// address, which an IPv6 socket accepts too, unless it is restricted to IPv6. On other systems,
/// the address is passed unchanged, as std does.
pub(super) fn canonical(addr: SocketAddr) -> SockAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) if cfg!(target_os = "linux") => SocketAddr::from((ip, addr.port())).into(),
        _ => addr.into(),
    }
}

/// Returns whether a send failed because of its destination, so that another address may succeed.
pub(super) fn is_address_error(error: &io::Error) -> bool {
    matches!(
        raw_os_error(error),
        Some(
            libc::EAFNOSUPPORT
                | libc::EADDRNOTAVAIL
                | libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::EINVAL
        )
    )
}

/// Returns whether a socket with the address `local` can send to the family of `to`. `only_v6` says
/// whether an IPv6 socket is restricted to IPv6.
pub(super) fn sends_to(local: IpAddr, only_v6: bool, to: SocketAddr) -> bool {
    let to_v4 = to.ip().to_canonical().is_ipv4();
    match local {
        IpAddr::V6(ip) if ip.is_unspecified() => !(to_v4 && only_v6),
        local => local.to_canonical().is_ipv4() == to_v4,
    }
}

/// The addresses to try, in order.
pub(super) type Targets = Chain<std::option::IntoIter<SocketAddr>, vec::IntoIter<SocketAddr>>;
