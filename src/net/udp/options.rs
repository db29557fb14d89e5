//! The settings of UDP sockets, and the sockets that `UdpSocket::bind` begins with.
//!
//! An IPv6 socket may carry both families, so what both have is set for both; it is read of the socket's own. Where IPv4 is
//! missing, the failure of its half is left out.
//!
//! # Compared with Go (net/sock_posix.go, net/sockoptip_linux.go)
//! As there: no SO_REUSEADDR but for multicast, no SO_BROADCAST unless asked for. A multicast listener binds to the
//! wildcard, as there, but does not hear groups that others on the host have joined (IP_MULTICAST_ALL).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libc::c_int;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockRef, Type};

use super::UdpSocket;
use crate::net::error::{Addr, Op};
use crate::net::fd::fd;
use crate::net::options;
use crate::sys::{option, socket};

type CallResult<T> = Result<T, (&'static str, io::Error)>;

/// A UDP socket bound to `addr`. The error is an `OpError` `listen udp addr: call: reason`.
pub(super) fn bound_socket(addr: SocketAddr) -> io::Result<OwnedFd> {
    let bound = match try_bind(addr, |_| Ok(())) {
        // A host without IPv6 still has a wildcard.
        Err(("socket", error))
            if error.raw_os_error() == Some(libc::EAFNOSUPPORT) && addr.is_ipv6() && addr.ip().is_unspecified() =>
        {
            try_bind((Ipv4Addr::UNSPECIFIED, addr.port()).into(), |_| Ok(()))
        }
        result => result,
    };
    bound.map_err(|(call, error)| Op::at("listen", "udp", Some(Addr::Ip(addr))).call(call, error))
}

/// A UDP socket that has joined `group`. The error is as that of [`bound_socket`].
pub(super) fn multicast_socket(group: SocketAddr, interface: u32) -> io::Result<OwnedFd> {
    let op = || Op::at("listen", "udp", Some(Addr::Ip(group)));
    if !group.ip().is_multicast() {
        return Err(op().other(io::Error::new(io::ErrorKind::InvalidInput, "not a multicast address")));
    }
    let wildcard = match group.ip() {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let bound = try_bind((wildcard, group.port()).into(), |socket| {
        socket.set_reuse_address(true)?;
        match group.ip() {
            IpAddr::V4(group) => {
                if interface != 0 {
                    set_multicast_interface_v4(socket.as_fd(), interface)?;
                }
                // Of Linux 2.6.31.
                let _ = socket.set_multicast_all_v4(false);
                socket.set_multicast_loop_v4(false)?;
                socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface))
            }
            IpAddr::V6(group) => {
                if interface != 0 {
                    socket.set_multicast_if_v6(interface)?;
                }
                // Of Linux 4.20.
                let _ = socket.set_multicast_all_v6(false);
                socket.set_multicast_loop_v6(false)?;
                socket.join_multicast_v6(&group, interface)
            }
        }
    });
    bound.map_err(|(call, error)| op().call(call, error))
}

fn try_bind(addr: SocketAddr, prepare: impl FnOnce(SockRef<'_>) -> io::Result<()>) -> CallResult<OwnedFd> {
    let bound =
        fd::open(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP)).map_err(|error| ("socket", error))?;
    let fd = bound.as_fd();
    if addr.is_ipv6() {
        // Refused by a kernel without IPv4, which then has nothing to map.
        let _ = SockRef::from(&fd).set_only_v6(false);
    }
    prepare(SockRef::from(&fd)).map_err(|error| ("setsockopt", error))?;
    socket::bind(fd, &SockAddr::from(addr)).map_err(|error| ("bind", error))?;
    Ok(bound)
}

fn set_multicast_interface_v4(fd: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let any = libc::in_addr { s_addr: 0 };
    let request = libc::ip_mreqn { imr_multiaddr: any, imr_address: any, imr_ifindex: index as c_int };
    option::set(fd, libc::SOL_IP, libc::IP_MULTICAST_IF, request)
}

fn is_v6(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(SockRef::from(&fd).domain()? == Domain::IPV6)
}

/// An option that both families have, by the names that they have for it.
#[derive(Clone, Copy)]
struct Both {
    v4: c_int,
    v6: c_int,
}

const PACKET_INFO: Both = Both { v4: libc::IP_PKTINFO, v6: libc::IPV6_RECVPKTINFO };
const HOP_LIMIT: Both = Both { v4: libc::IP_RECVTTL, v6: libc::IPV6_RECVHOPLIMIT };
const TOS: Both = Both { v4: libc::IP_RECVTOS, v6: libc::IPV6_RECVTCLASS };

impl Both {
    fn get(self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        if is_v6(fd)? { option::is_on(fd, libc::SOL_IPV6, self.v6) } else { option::is_on(fd, libc::SOL_IP, self.v4) }
    }

    fn set(self, fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
        let set_v4 = || option::switch(fd, libc::SOL_IP, self.v4, on);
        if !is_v6(fd)? {
            return set_v4();
        }
        option::switch(fd, libc::SOL_IPV6, self.v6, on)?;
        let _ = set_v4();
        Ok(())
    }
}

/// Declares an option of the socket: its name and documentation, how it is read, how it is set.
macro_rules! socket_options {
    ($(
        $(#[$get_doc:meta])* $get:ident -> $type:ty, |$get_fd:ident| $getter:expr;
        $(#[$set_doc:meta])* $set:ident, |$set_fd:ident, $value:ident| $setter:expr;
    )*) => {
        /// Socket options.
        impl UdpSocket {$(
            $(#[$get_doc])*
            ///
            /// # Errors
            /// The system call's; closed.
            pub fn $get(&self) -> io::Result<$type> {
                self.net_fd().with("get", |$get_fd| $getter)
            }

            $(#[$set_doc])*
            ///
            /// # Errors
            /// The system call's; closed.
            pub fn $set(&self, $value: $type) -> io::Result<()> {
                self.net_fd().with("set", |$set_fd| $setter)
            }
        )*}
    };
}

socket_options! {
    /// Whether broadcasts may be sent (SO_BROADCAST): not unless it was set.
    broadcast -> bool, |fd| SockRef::from(&fd).broadcast();
    /// Sets whether broadcasts may be sent.
    set_broadcast, |fd, on| SockRef::from(&fd).set_broadcast(on);

    /// The time-to-live (IP_TTL) or hop limit (IPV6_UNICAST_HOPS) of datagrams sent.
    ttl -> u32, |fd| options::ttl(fd);
    /// Sets the time-to-live or hop limit of datagrams sent: 1 to 255.
    set_ttl, |fd, ttl| options::set_ttl(fd, ttl);

    /// The TOS (IP_TOS) or traffic class (IPV6_TCLASS) byte of datagrams sent.
    tos -> u8, |fd| tos(fd);
    /// Sets the TOS or traffic class byte of datagrams sent, whose low two bits are [`Ecn`](super::Ecn).
    set_tos, |fd, tos| set_tos(fd, tos);

    /// Whether IPv4 multicasts that are sent come back to this host (IP_MULTICAST_LOOP): true unless it was set otherwise.
    multicast_loop_v4 -> bool, |fd| SockRef::from(&fd).multicast_loop_v4();
    /// Sets whether IPv4 multicasts that are sent come back to this host.
    set_multicast_loop_v4, |fd, on| SockRef::from(&fd).set_multicast_loop_v4(on);

    /// The time-to-live of IPv4 multicasts that are sent (IP_MULTICAST_TTL): 1 unless it was set otherwise.
    multicast_ttl_v4 -> u32, |fd| SockRef::from(&fd).multicast_ttl_v4();
    /// Sets the time-to-live of IPv4 multicasts that are sent: 0 (this host) to 255.
    set_multicast_ttl_v4, |fd, ttl| SockRef::from(&fd).set_multicast_ttl_v4(ttl);

    /// The address of the interface through which IPv4 multicasts are sent (IP_MULTICAST_IF); unspecified: the routes say.
    multicast_interface_v4 -> Ipv4Addr, |fd| SockRef::from(&fd).multicast_if_v4();
    /// Sets, by its address, the interface through which IPv4 multicasts are sent.
    set_multicast_interface_v4, |fd, address| SockRef::from(&fd).set_multicast_if_v4(&address);

    /// Whether IPv6 multicasts that are sent come back to this host (IPV6_MULTICAST_LOOP): true unless it was set otherwise.
    multicast_loop_v6 -> bool, |fd| SockRef::from(&fd).multicast_loop_v6();
    /// Sets whether IPv6 multicasts that are sent come back to this host.
    set_multicast_loop_v6, |fd, on| SockRef::from(&fd).set_multicast_loop_v6(on);

    /// The hop limit of IPv6 multicasts that are sent (IPV6_MULTICAST_HOPS): 1 unless it was set otherwise.
    multicast_hops_v6 -> u32, |fd| SockRef::from(&fd).multicast_hops_v6();
    /// Sets the hop limit of IPv6 multicasts that are sent: 0 (this host) to 255.
    set_multicast_hops_v6, |fd, hops| SockRef::from(&fd).set_multicast_hops_v6(hops);

    /// The index of the interface through which IPv6 multicasts are sent (IPV6_MULTICAST_IF); 0: the routes say.
    multicast_interface_v6 -> u32, |fd| SockRef::from(&fd).multicast_if_v6();
    /// Sets, by its index, the interface through which IPv6 multicasts are sent.
    set_multicast_interface_v6, |fd, index| SockRef::from(&fd).set_multicast_if_v6(index);

    /// Bytes of received datagrams that the kernel keeps (SO_RCVBUF), with its own overhead: twice what was set.
    recv_buffer_size -> usize, |fd| SockRef::from(&fd).recv_buffer_size();
    /// Sets how many bytes of received datagrams the kernel keeps, up to `net.core.rmem_max`. What comes beyond is dropped.
    set_recv_buffer_size, |fd, bytes| SockRef::from(&fd).set_recv_buffer_size(bytes);

    /// Bytes of datagrams under way that the kernel keeps (SO_SNDBUF), with its own overhead: twice what was set.
    send_buffer_size -> usize, |fd| SockRef::from(&fd).send_buffer_size();
    /// Sets how many bytes of datagrams under way the kernel keeps, up to `net.core.wmem_max`. Who sends beyond waits.
    set_send_buffer_size, |fd, bytes| SockRef::from(&fd).set_send_buffer_size(bytes);

    /// Whether datagrams bring addresses and interface (IP_PKTINFO, IPV6_RECVPKTINFO): not unless it was set.
    recv_packet_info -> bool, |fd| PACKET_INFO.get(fd);
    /// Sets whether datagrams bring their destination, the address to answer from, and the interface:
    /// [`Ancillary::local`](super::Ancillary::local) and its neighbours.
    set_recv_packet_info, |fd, on| PACKET_INFO.set(fd, on);

    /// Whether datagrams bring their time-to-live or hop limit (IP_RECVTTL, IPV6_RECVHOPLIMIT): not unless it was set.
    recv_hop_limit -> bool, |fd| HOP_LIMIT.get(fd);
    /// Sets whether datagrams bring their time-to-live or hop limit: [`Ancillary::hop_limit`](super::Ancillary::hop_limit).
    set_recv_hop_limit, |fd, on| HOP_LIMIT.set(fd, on);

    /// Whether datagrams bring their TOS or traffic class (IP_RECVTOS, IPV6_RECVTCLASS): not unless it was set.
    recv_tos -> bool, |fd| TOS.get(fd);
    /// Sets whether datagrams bring their TOS or traffic class, and with it ECN: [`Ancillary::tos`](super::Ancillary::tos),
    /// [`Ancillary::ecn`](super::Ancillary::ecn).
    set_recv_tos, |fd, on| TOS.set(fd, on);

    /// Whether datagrams bring the time at which the kernel got them (SO_TIMESTAMPNS): not unless it was set.
    recv_timestamp -> bool, |fd| option::is_on(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS);
    /// Sets whether datagrams bring the time at which the kernel got them: [`Ancillary::timestamp`](super::Ancillary::timestamp).
    set_recv_timestamp, |fd, on| option::switch(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, on);

    /// Whether receive offload is on (UDP_GRO).
    gro -> bool, |fd| option::is_on(fd, libc::SOL_UDP, libc::UDP_GRO);
    /// Switches receive offload on or off: datagrams of one sender and one size that come together are received as one, up to 65,535
    /// bytes, with their size in [`Ancillary::segment_size`](super::Ancillary::segment_size);
    /// [`Datagram::segments`](super::Datagram::segments) takes them apart. ENOPROTOOPT before Linux 5.0.
    set_gro, |fd, on| option::switch(fd, libc::SOL_UDP, libc::UDP_GRO, on);
}

fn tos(fd: BorrowedFd<'_>) -> io::Result<u8> {
    let tos = if is_v6(fd)? { SockRef::from(&fd).tclass_v6()? } else { SockRef::from(&fd).tos_v4()? };
    Ok(tos as u8)
}

fn set_tos(fd: BorrowedFd<'_>, tos: u8) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    if !is_v6(fd)? {
        return socket.set_tos_v4(tos.into());
    }
    socket.set_tclass_v6(tos.into())?;
    let _ = socket.set_tos_v4(tos.into());
    Ok(())
}

/// Multicast groups, segmentation, devices and pending errors.
impl UdpSocket {
    fn set_option(&self, set: impl FnOnce(SockRef<'_>) -> io::Result<()>) -> io::Result<()> {
        self.net_fd().with("set", |fd| set(SockRef::from(&fd)))
    }

    /// The size into which what is sent is cut (UDP_SEGMENT); none: it is not.
    ///
    /// # Errors
    /// ENOPROTOOPT before Linux 4.18; closed.
    pub fn segment_size(&self) -> io::Result<Option<u16>> {
        let size = self.net_fd().with("get", |fd| option::get::<c_int>(fd, libc::SOL_UDP, libc::UDP_SEGMENT))?;
        Ok(u16::try_from(size).ok().filter(|size| *size > 0))
    }

    /// Sets the size of the datagrams into which what is sent is cut, the last perhaps shorter, or (`None`) that it is not. One send
    /// has 64 of them at most. [`Ancillary::with_segment_size`](super::Ancillary::with_segment_size) says it for one send.
    ///
    /// # Errors
    /// ENOPROTOOPT before Linux 4.18; closed.
    pub fn set_segment_size(&self, bytes: Option<u16>) -> io::Result<()> {
        let size = c_int::from(bytes.unwrap_or(0));
        if size > 0 {
            self.segmentation().set_by_socket(true);
        }
        let set = self.net_fd().with("set", |fd| option::set(fd, libc::SOL_UDP, libc::UDP_SEGMENT, size));
        if size == 0 || set.is_err() {
            self.segmentation().set_by_socket(false);
        }
        set
    }

    /// Joins an IPv4 group through the interface with this address; unspecified: the one that the routes say (IP_ADD_MEMBERSHIP).
    ///
    /// # Errors
    /// EINVAL: not a multicast address. ENODEV: no such interface. EADDRINUSE: joined already. Closed.
    pub fn join_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.set_option(|socket| socket.join_multicast_v4(&group, &interface))
    }

    /// Leaves an IPv4 group that was joined with the same arguments (IP_DROP_MEMBERSHIP).
    ///
    /// # Errors
    /// EADDRNOTAVAIL: it was not joined. Closed.
    pub fn leave_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.set_option(|socket| socket.leave_multicast_v4(&group, &interface))
    }

    /// Joins an IPv4 group through the interface with this index; 0: the one that the routes say.
    ///
    /// # Errors
    /// As [`join_multicast_v4`](UdpSocket::join_multicast_v4).
    pub fn join_multicast_v4_by_index(&self, group: Ipv4Addr, interface: u32) -> io::Result<()> {
        self.set_option(|socket| socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface)))
    }

    /// Leaves an IPv4 group that was joined with the same arguments.
    ///
    /// # Errors
    /// As [`leave_multicast_v4`](UdpSocket::leave_multicast_v4).
    pub fn leave_multicast_v4_by_index(&self, group: Ipv4Addr, interface: u32) -> io::Result<()> {
        self.set_option(|socket| socket.leave_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface)))
    }

    /// Sets, by its index, the interface through which IPv4 multicasts are sent (IP_MULTICAST_IF); 0: the routes say. The kernel does not
    /// tell the index again.
    ///
    /// # Errors
    /// EADDRNOTAVAIL: no such interface. Closed.
    pub fn set_multicast_interface_v4_by_index(&self, index: u32) -> io::Result<()> {
        self.net_fd().with("set", |fd| set_multicast_interface_v4(fd, index))
    }

    /// Joins an IPv6 group through the interface with this index; 0: the one that the routes say (IPV6_ADD_MEMBERSHIP).
    ///
    /// # Errors
    /// As [`join_multicast_v4`](UdpSocket::join_multicast_v4).
    pub fn join_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.set_option(|socket| socket.join_multicast_v6(group, interface))
    }

    /// Leaves an IPv6 group that was joined with the same arguments (IPV6_DROP_MEMBERSHIP).
    ///
    /// # Errors
    /// As [`leave_multicast_v4`](UdpSocket::leave_multicast_v4).
    pub fn leave_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.set_option(|socket| socket.leave_multicast_v6(group, interface))
    }

    /// Binds the socket to a network device, or (`None`) to none (SO_BINDTODEVICE): it sends and receives there only.
    ///
    /// # Errors
    /// `InvalidInput` for what cannot be a name (1 to 15 bytes, no NUL); ENODEV when there is no such device; `PermissionDenied`: it is
    /// bound to another; closed.
    pub fn bind_device(&self, name: Option<&str>) -> io::Result<()> {
        self.net_fd().with("set", |fd| options::socket::set_device(fd, name))
    }

    /// The network device that the socket is bound to.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn device(&self) -> io::Result<Option<String>> {
        self.net_fd().with("get", options::socket::device)
    }

    /// Takes the error that is pending on the socket (SO_ERROR), if there is one.
    ///
    /// # Errors
    /// The system call's; closed.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.net_fd().with("get", socket::take_error)
    }
}
