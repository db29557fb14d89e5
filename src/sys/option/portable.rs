//! Portable versions of what Linux answers by its own socket options.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::TcpState;
use crate::sys::os;

/// Reports whether the socket is an IPv6 one, from its local address.
pub(crate) fn is_v6(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(os::domain(fd.as_raw_fd())? == libc::AF_INET6)
}

/// Reports whether the socket is an IPv4 or IPv6 one, from its local address.
pub(crate) fn is_ip(fd: BorrowedFd<'_>) -> io::Result<bool> {
    os::domain(fd.as_raw_fd()).map(|domain| domain == libc::AF_INET || domain == libc::AF_INET6)
}

/// Reports whether the protocol is TCP: IP stream sockets have no other protocol.
pub(crate) fn is_plain_tcp(fd: BorrowedFd<'_>) -> io::Result<bool> {
    is_ip(fd)
}

/// Does nothing: sockets receive only the groups that they joined, as with IP_MULTICAST_ALL off on
/// Linux.
pub(crate) fn set_multicast_all_v4(_fd: BorrowedFd<'_>, _all: bool) -> io::Result<()> {
    Ok(())
}

/// Does nothing; see [`set_multicast_all_v4`].
pub(crate) fn set_multicast_all_v6(_fd: BorrowedFd<'_>, _all: bool) -> io::Result<()> {
    Ok(())
}

/// Fails with `Unsupported`: this crate reads only the TCP_INFO of Linux.
pub(crate) fn tcp_state(_fd: BorrowedFd<'_>) -> io::Result<TcpState> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns `None`: no connection begins with its first data on these systems.
pub(crate) fn syn_segments(_fd: BorrowedFd<'_>) -> Option<u32> {
    None
}
