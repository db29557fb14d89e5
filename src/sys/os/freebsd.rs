//! Definitions for FreeBSD.

#![allow(unsafe_code)]

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_int, off_t};

/// A coarse clock that is cheap to read and comparable with `Instant`.
pub(crate) const COARSE_CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_FAST;

/// The option that requests [`PACKET_INFO_V4`] messages.
pub(crate) const RECV_PACKET_INFO_V4: c_int = libc::IP_RECVDSTADDR;

/// The type of the control message that contains the destination of a received datagram, or the
/// source of a sent one.
pub(crate) const PACKET_INFO_V4: c_int = libc::IP_RECVDSTADDR;

/// The data of a [`PACKET_INFO_V4`] message.
pub(crate) type PacketInfoV4 = libc::in_addr;

/// Returns the data that selects the source address of a datagram, if there is one. FreeBSD cannot
/// select the interface for IPv4.
pub(crate) fn packet_info_v4(local: Option<Ipv4Addr>, _interface: u32) -> Option<PacketInfoV4> {
    local.map(|local| libc::in_addr { s_addr: u32::from(local).to_be() })
}

/// Returns the local address, the destination and the interface of a received datagram. FreeBSD
/// reports only the destination, so the first two are equal and the interface is `None`.
pub(crate) fn read_packet_info_v4(info: PacketInfoV4) -> (Ipv4Addr, Ipv4Addr, Option<u32>) {
    let address = Ipv4Addr::from(u32::from_be(info.s_addr));
    (address, address, None)
}

/// Returns the process, user and group of the peer of a Unix socket (getpeereid(3)). The process is
/// always 0, which means unknown.
pub(crate) fn peer_cred(fd: BorrowedFd<'_>) -> io::Result<(libc::pid_t, libc::uid_t, libc::gid_t)> {
    let (uid, gid) = super::bsd::peer_ids(fd)?;
    Ok((0, uid, gid))
}

/// Calls FreeBSD's sendfile(2) for at most `most` bytes of `file` from `offset`. Returns the result
/// and the number of bytes sent, which may be more than zero even if the result is an error. `most`
/// must not be 0, which means the rest of the file.
pub(crate) fn sendfile(to: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: off_t, most: usize) -> (io::Result<()>, u64) {
    let mut sent: off_t = 0;
    // SAFETY: `sent` is valid for writes during the call; null means neither header nor trailer.
    let result =
        unsafe { libc::sendfile(file.as_raw_fd(), to.as_raw_fd(), offset, most, ptr::null_mut(), &raw mut sent, 0) };
    let result = if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    (result, u64::try_from(sent).unwrap_or(0))
}
