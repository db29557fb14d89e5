//! Opening the sockets for `UdpSocket::bind` and `bind_multicast`.
//!
//! # Compared with Go (net/sock_posix.go)
//! SO_REUSEADDR is set only for multicast, as in Go. SO_BROADCAST is set only on request; Go sets
//! it on every UDP socket. As in Go, a multicast listener binds to the wildcard address. Unlike in
//! Go, it does not receive datagrams to groups that only other sockets of the host have joined
//! (IP_MULTICAST_ALL; IPV6_MULTICAST_ALL since Linux 4.20).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::{Domain, Protocol, SockAddr, Type};

use crate::net::error::{Addr, Op};
use crate::net::fd::fd;
use crate::net::net_fd::NetFd;
use crate::sys::{option, socket};

type CallResult<T> = Result<T, (&'static str, io::Error)>;

/// Opens a UDP socket that is bound to `addr`.
///
/// # Errors
/// Returns an `OpError` with the text `listen udp ADDR: CALL: …`, or `listen udp ADDR: REASON` for
/// an error of [`NetFd::udp`].
pub(super) fn bound_socket(addr: SocketAddr) -> io::Result<NetFd> {
    let bound = match try_bind(addr, |_| Ok(())) {
        // On a host without IPv6, falls back to the IPv4 wildcard.
        Err(("socket", error))
            if error.raw_os_error() == Some(libc::EAFNOSUPPORT) && addr.is_ipv6() && addr.ip().is_unspecified() =>
        {
            try_bind((Ipv4Addr::UNSPECIFIED, addr.port()).into(), |_| Ok(()))
        }
        result => result,
    };
    adopt(bound, || Op::at("listen", "udp", Some(Addr::Ip(addr))))
}

fn adopt(bound: CallResult<OwnedFd>, op: impl Fn() -> Op) -> io::Result<NetFd> {
    let socket = bound.map_err(|(call, error)| op().call(call, error))?;
    NetFd::udp(socket).map_err(|error| op().other(error))
}

/// Opens a UDP socket that has joined `group` and is bound to the group's port. `interface` is the
/// index of the interface; 0 means the zone of `group` or, without a zone, that the routing table
/// chooses.
///
/// # Errors
/// Returns an `OpError` with the text `listen udp GROUP: CALL: …`,
/// `listen udp GROUP: not a multicast address`, or `listen udp GROUP: REASON` for an error of
/// [`NetFd::udp`].
pub(super) fn multicast_socket(group: SocketAddr, interface: u32) -> io::Result<NetFd> {
    let op = || Op::at("listen", "udp", Some(Addr::Ip(group)));
    if !group.ip().is_multicast() {
        return Err(op().other(io::Error::new(io::ErrorKind::InvalidInput, "not a multicast address")));
    }
    let interface = match group {
        SocketAddr::V6(v6) if interface == 0 => v6.scope_id(),
        _ => interface,
    };
    let wildcard = match group.ip() {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let bound = try_bind((wildcard, group.port()).into(), |fd| {
        option::socket::set_reuse_address(fd, true)?;
        match group.ip() {
            IpAddr::V4(group) => {
                if interface != 0 {
                    option::ip::set_multicast_interface_v4_index(fd, interface)?;
                }
                // The error is ignored, because the option exists only since Linux 2.6.31.
                let _ = option::set_multicast_all_v4(fd, false);
                option::ip::set_multicast_loop_v4(fd, false)?;
                option::ip::join_multicast_v4_by_index(fd, group, interface)
            }
            IpAddr::V6(group) => {
                if interface != 0 {
                    option::ip::set_multicast_interface_v6(fd, interface)?;
                }
                // The error is ignored, because the option exists only since Linux 4.20.
                let _ = option::set_multicast_all_v6(fd, false);
                option::ip::set_multicast_loop_v6(fd, false)?;
                option::ip::join_multicast_v6(fd, &group, interface)
            }
        }
    });
    adopt(bound, op)
}

fn try_bind(addr: SocketAddr, prepare: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>) -> CallResult<OwnedFd> {
    let bound =
        fd::open(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP)).map_err(|error| ("socket", error))?;
    let fd = bound.as_fd();
    if addr.is_ipv6() {
        // The error is ignored: on a kernel without IPv4 the call fails, but no IPv4 datagram can
        // arrive.
        let _ = option::ip::set_only_v6(fd, false);
    }
    prepare(fd).map_err(|error| ("setsockopt", error))?;
    socket::bind(fd, &SockAddr::from(addr)).map_err(|error| ("bind", error))?;
    Ok(bound)
}
