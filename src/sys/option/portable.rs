//! Versions for macOS and FreeBSD of functions that use options of Linux.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::TcpState;
use crate::sys::os;

/// Returns whether the socket is an IPv6 socket, according to its local address.
pub(crate) fn is_v6(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(os::domain(fd.as_raw_fd())? == libc::AF_INET6)
}

/// Returns whether the socket is an IPv4 or IPv6 socket, according to its local address.
pub(crate) fn is_ip(fd: BorrowedFd<'_>) -> io::Result<bool> {
    os::domain(fd.as_raw_fd()).map(|domain| domain == libc::AF_INET || domain == libc::AF_INET6)
}

/// Returns whether the socket is an IP socket. An IP stream socket is assumed to be a TCP socket.
pub(crate) fn is_plain_tcp(fd: BorrowedFd<'_>) -> io::Result<bool> {
    is_ip(fd)
}

/// Returns true. An IP stream or datagram socket is assumed to be a TCP or UDP socket.
pub(crate) fn is_tcp_or_udp(_fd: BorrowedFd<'_>) -> bool {
    true
}

/// Does nothing, because on these systems a socket receives only datagrams to the groups that it
/// has joined, as on Linux without IP_MULTICAST_ALL.
pub(crate) fn set_multicast_all_v4(_fd: BorrowedFd<'_>, _all: bool) -> io::Result<()> {
    Ok(())
}

/// Does nothing; see [`set_multicast_all_v4`].
pub(crate) fn set_multicast_all_v6(_fd: BorrowedFd<'_>, _all: bool) -> io::Result<()> {
    Ok(())
}

/// Fails with `Unsupported`, because this crate reads only the TCP_INFO of Linux.
pub(crate) fn tcp_state(_fd: BorrowedFd<'_>) -> io::Result<TcpState> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns `None`. Only TCP Fast Open needs the number, and this crate uses it only on Linux.
pub(crate) fn syn_segments(_fd: BorrowedFd<'_>) -> Option<u32> {
    None
}
