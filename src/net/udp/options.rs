//! UDP socket options.
//!
//! An IPv6 socket may carry both families. If an option exists for both, a setter without `_v4` or
//! `_v6` in its name sets it for both on such a socket. The getter reads it from the socket's own
//! family. An error from setting the IPv4 option on an IPv6 socket is ignored, because some systems
//! refuse IPv4 options on IPv6 sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use libc::c_int;

use super::UdpSocket;
use crate::net::options;
use crate::sys::{option, os, socket};

/// An option that exists for both families, with its number in each.
#[derive(Clone, Copy)]
struct Both {
    v4: c_int,
    v6: c_int,
}

const PACKET_INFO: Both = Both { v4: os::RECV_PACKET_INFO_V4, v6: libc::IPV6_RECVPKTINFO };
const HOP_LIMIT: Both = Both { v4: libc::IP_RECVTTL, v6: libc::IPV6_RECVHOPLIMIT };
const TOS: Both = Both { v4: libc::IP_RECVTOS, v6: libc::IPV6_RECVTCLASS };

impl Both {
    fn get(self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        if option::is_v6(fd)? {
            option::is_on(fd, libc::IPPROTO_IPV6, self.v6)
        } else {
            option::is_on(fd, libc::IPPROTO_IP, self.v4)
        }
    }

    fn set(self, fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
        let set_v4 = || option::switch(fd, libc::IPPROTO_IP, self.v4, on);
        if !option::is_v6(fd)? {
            return set_v4();
        }
        option::switch(fd, libc::IPPROTO_IPV6, self.v6, on)?;
        let _ = set_v4();
        Ok(())
    }
}

/// Declares the getter and the setter of socket options, with their documentation.
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
            /// Returns the OS error, or a [closed](crate::net::is_closed) error after `close`.
            pub fn $get(&self) -> io::Result<$type> {
                self.net_fd().with("get", |$get_fd| $getter)
            }

            $(#[$set_doc])*
            ///
            /// # Errors
            /// Returns `InvalidInput` if the value is out of range, the OS error if the system
            /// refuses it, or a [closed](crate::net::is_closed) error after `close`.
            pub fn $set(&self, $value: $type) -> io::Result<()> {
                self.net_fd().with("set", |$set_fd| $setter)
            }
        )*}
    };
}

socket_options! {
    /// Returns whether broadcasts may be sent (SO_BROADCAST). The default is false.
    broadcast -> bool, |fd| option::socket::broadcast(fd);
    /// Sets whether broadcasts may be sent.
    set_broadcast, |fd, on| option::socket::set_broadcast(fd, on);

    /// Returns the time-to-live (IP_TTL) or hop limit (IPV6_UNICAST_HOPS) of sent datagrams.
    ttl -> u32, |fd| options::ttl(fd);
    /// Sets the time-to-live or hop limit of sent datagrams, 1 to 255.
    set_ttl, |fd, ttl| options::set_ttl(fd, ttl);

    /// Returns the TOS (IP_TOS) or traffic class (IPV6_TCLASS) byte of sent datagrams.
    tos -> u8, |fd| options::socket::tos(fd);
    /// Sets the TOS or traffic class byte of sent datagrams. Its low two bits are
    /// [`Ecn`](super::Ecn).
    set_tos, |fd, tos| options::socket::set_tos(fd, tos);

    /// Returns whether sent IPv4 multicasts loop back to this host (IP_MULTICAST_LOOP). The default
    /// is true.
    multicast_loop_v4 -> bool, |fd| option::ip::multicast_loop_v4(fd);
    /// Sets whether sent IPv4 multicasts loop back to this host.
    set_multicast_loop_v4, |fd, on| option::ip::set_multicast_loop_v4(fd, on);

    /// Returns the time-to-live of sent IPv4 multicasts (IP_MULTICAST_TTL). The default is 1.
    multicast_ttl_v4 -> u32, |fd| option::ip::multicast_ttl_v4(fd);
    /// Sets the time-to-live of sent IPv4 multicasts, 0 (this host) to 255.
    set_multicast_ttl_v4, |fd, ttl| option::ip::set_multicast_ttl_v4(fd, ttl);

    /// Returns the address of the interface for sent IPv4 multicasts (IP_MULTICAST_IF). Unspecified
    /// means that the routing table chooses.
    multicast_interface_v4 -> Ipv4Addr, |fd| option::ip::multicast_interface_v4(fd);
    /// Sets the interface for sent IPv4 multicasts by its address.
    set_multicast_interface_v4, |fd, address| option::ip::set_multicast_interface_v4(fd, address);

    /// Returns whether sent IPv6 multicasts loop back to this host (IPV6_MULTICAST_LOOP). The
    /// default is true.
    multicast_loop_v6 -> bool, |fd| option::ip::multicast_loop_v6(fd);
    /// Sets whether sent IPv6 multicasts loop back to this host.
    set_multicast_loop_v6, |fd, on| option::ip::set_multicast_loop_v6(fd, on);

    /// Returns the hop limit of sent IPv6 multicasts (IPV6_MULTICAST_HOPS). The default is 1.
    multicast_hops_v6 -> u32, |fd| option::ip::multicast_hops_v6(fd);
    /// Sets the hop limit of sent IPv6 multicasts, 0 (this host) to 255.
    set_multicast_hops_v6, |fd, hops| option::ip::set_multicast_hops_v6(fd, hops);

    /// Returns the index of the interface for sent IPv6 multicasts (IPV6_MULTICAST_IF). 0 means
    /// that the routing table chooses.
    multicast_interface_v6 -> u32, |fd| option::ip::multicast_interface_v6(fd);
    /// Sets the interface for sent IPv6 multicasts by its index.
    set_multicast_interface_v6, |fd, index| option::ip::set_multicast_interface_v6(fd, index);

    /// Returns the size of the receive buffer in bytes (SO_RCVBUF). On Linux, the size includes the
    /// kernel's overhead, so a size that was set reads back doubled, within the kernel's limits.
    recv_buffer_size -> usize, |fd| options::socket::recv_buffer_size(fd);
    /// Sets the size of the receive buffer in bytes. Linux limits it to `net.core.rmem_max` and
    /// doubles it. Datagrams that arrive while the buffer is full are dropped. A size of 0 or of
    /// 1 GiB or more is refused with `InvalidInput`.
    set_recv_buffer_size, |fd, bytes| options::socket::set_recv_buffer_size(fd, bytes);

    /// Returns the size of the send buffer in bytes (SO_SNDBUF). On Linux, the size includes the
    /// kernel's overhead, so a size that was set reads back doubled, within the kernel's limits.
    send_buffer_size -> usize, |fd| options::socket::send_buffer_size(fd);
    /// Sets the size of the send buffer in bytes. Linux limits it to `net.core.wmem_max` and
    /// doubles it. Sends wait while the buffer is full. A size of 0 or of 1 GiB or more is refused
    /// with `InvalidInput`.
    set_send_buffer_size, |fd, bytes| options::socket::set_send_buffer_size(fd, bytes);

    /// Returns whether received datagrams carry their destination and interface (IP_PKTINFO, on
    /// FreeBSD IP_RECVDSTADDR; IPV6_RECVPKTINFO). The default is false.
    recv_packet_info -> bool, |fd| PACKET_INFO.get(fd);
    /// Sets whether received datagrams carry their destination address, the local address from
    /// which to reply, and the interface on which they arrived (on FreeBSD, only for IPv6). See
    /// [`Ancillary::destination`](super::Ancillary::destination),
    /// [`Ancillary::local`](super::Ancillary::local) and
    /// [`Ancillary::interface`](super::Ancillary::interface).
    set_recv_packet_info, |fd, on| PACKET_INFO.set(fd, on);

    /// Returns whether received datagrams carry their time-to-live or hop limit (IP_RECVTTL,
    /// IPV6_RECVHOPLIMIT). The default is false.
    recv_hop_limit -> bool, |fd| HOP_LIMIT.get(fd);
    /// Sets whether received datagrams carry their time-to-live or hop limit. See
    /// [`Ancillary::hop_limit`](super::Ancillary::hop_limit).
    set_recv_hop_limit, |fd, on| HOP_LIMIT.set(fd, on);

    /// Returns whether received datagrams carry their TOS or traffic class (IP_RECVTOS,
    /// IPV6_RECVTCLASS). The default is false.
    recv_tos -> bool, |fd| TOS.get(fd);
    /// Sets whether received datagrams carry their TOS or traffic class, which includes ECN. See
    /// [`Ancillary::tos`](super::Ancillary::tos) and [`Ancillary::ecn`](super::Ancillary::ecn).
    set_recv_tos, |fd, on| TOS.set(fd, on);

    /// Returns whether received datagrams carry the time at which the kernel received them
    /// (SO_TIMESTAMPNS, on macOS and FreeBSD SO_TIMESTAMP). The default is false.
    recv_timestamp -> bool, |fd| option::is_on(fd, libc::SOL_SOCKET, os::RECV_TIMESTAMP);
    /// Sets whether received datagrams carry the time at which the kernel received them. See
    /// [`Ancillary::timestamp`](super::Ancillary::timestamp).
    set_recv_timestamp, |fd, on| option::switch(fd, libc::SOL_SOCKET, os::RECV_TIMESTAMP, on);
}

/// Multicast groups and pending errors.
impl UdpSocket {
    /// Joins an IPv4 multicast group on the interface with the address `interface`
    /// (IP_ADD_MEMBERSHIP). With the unspecified address the routing table chooses the interface.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `close`. On Linux,
    /// the OS error is EINVAL if `group` is not a multicast address, ENODEV if there is no such
    /// interface (or, if the routing table chooses the interface, no route to the group),
    /// EADDRINUSE if the socket has already joined the group on this interface, and ENOBUFS if the
    /// socket has joined too many groups (`net.ipv4.igmp_max_memberships`).
    pub fn join_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.net_fd().with("set", |fd| option::ip::join_multicast_v4(fd, group, interface))
    }

    /// Leaves an IPv4 multicast group that was joined with the same arguments (IP_DROP_MEMBERSHIP).
    ///
    /// # Errors
    /// Returns the OS error, such as EADDRNOTAVAIL if the socket has not joined the group, or a
    /// [closed](crate::net::is_closed) error after `close`.
    pub fn leave_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.net_fd().with("set", |fd| option::ip::leave_multicast_v4(fd, group, interface))
    }

    /// Joins an IPv4 multicast group on the interface with the index `interface`. With 0 the
    /// routing table chooses the interface.
    ///
    /// # Errors
    /// Returns the same errors as [`join_multicast_v4`](UdpSocket::join_multicast_v4).
    pub fn join_multicast_v4_by_index(&self, group: Ipv4Addr, interface: u32) -> io::Result<()> {
        self.net_fd().with("set", |fd| option::ip::join_multicast_v4_by_index(fd, group, interface))
    }

    /// Leaves an IPv4 multicast group that was joined by index with the same arguments.
    ///
    /// # Errors
    /// Returns the same errors as [`leave_multicast_v4`](UdpSocket::leave_multicast_v4).
    pub fn leave_multicast_v4_by_index(&self, group: Ipv4Addr, interface: u32) -> io::Result<()> {
        self.net_fd().with("set", |fd| option::ip::leave_multicast_v4_by_index(fd, group, interface))
    }

    /// Sets the interface for sent IPv4 multicasts by its index (IP_MULTICAST_IF). With 0 the
    /// routing table chooses. There is no getter, because the kernel does not report the index.
    ///
    /// # Errors
    /// Returns the OS error, such as EADDRNOTAVAIL if there is no such interface, or a
    /// [closed](crate::net::is_closed) error after `close`.
    pub fn set_multicast_interface_v4_by_index(&self, index: u32) -> io::Result<()> {
        self.net_fd().with("set", |fd| option::ip::set_multicast_interface_v4_index(fd, index))
    }

    /// Joins an IPv6 multicast group on the interface with the index `interface`
    /// (IPV6_ADD_MEMBERSHIP). With 0 the routing table chooses the interface.
    ///
    /// # Errors
    /// Returns the same errors as [`join_multicast_v4`](UdpSocket::join_multicast_v4), except
    /// ENOBUFS.
    pub fn join_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.net_fd().with("set", |fd| option::ip::join_multicast_v6(fd, group, interface))
    }

    /// Leaves an IPv6 multicast group that was joined with the same arguments
    /// (IPV6_DROP_MEMBERSHIP).
    ///
    /// # Errors
    /// Returns the same errors as [`leave_multicast_v4`](UdpSocket::leave_multicast_v4).
    pub fn leave_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.net_fd().with("set", |fd| option::ip::leave_multicast_v6(fd, group, interface))
    }

    /// Takes the pending error of the socket (SO_ERROR), if there is one.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `close`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.net_fd().with("get", socket::take_error)
    }
}
