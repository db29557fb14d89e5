//! What Linux answers by options of its own, by other means.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::TcpState;
use crate::sys::os;

/// Whether the socket is an IPv6 one, by its own address.
pub(crate) fn is_v6(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(os::domain(fd.as_raw_fd())? == libc::AF_INET6)
}

/// Whether the socket is an IPv4 or IPv6 one, by its own address.
pub(crate) fn is_ip(fd: BorrowedFd<'_>) -> io::Result<bool> {
    os::domain(fd.as_raw_fd()).map(|domain| domain == libc::AF_INET || domain == libc::AF_INET6)
}

/// Whether the protocol is TCP: stream sockets of IP have no other.
pub(crate) fn is_plain_tcp(fd: BorrowedFd<'_>) -> io::Result<bool> {
    is_ip(fd)
}

/// Sockets hear the groups that they have joined, as IP_MULTICAST_ALL of Linux switched off.
pub(crate) fn set_multicast_all_v4(_fd: BorrowedFd<'_>, _all: bool) -> io::Result<()> {
    Ok(())
}

/// As [`set_multicast_all_v4`].
pub(crate) fn set_multicast_all_v6(_fd: BorrowedFd<'_>, _all: bool) -> io::Result<()> {
    Ok(())
}

/// `Unsupported`: only Linux's form of TCP_INFO is read.
pub(crate) fn tcp_state(_fd: BorrowedFd<'_>) -> io::Result<TcpState> {
    Err(io::ErrorKind::Unsupported.into())
}

/// None: no connection begins with its first data here.
pub(crate) fn syn_segments(_fd: BorrowedFd<'_>) -> Option<u32> {
    None
}
