//! Definitions for macOS.

#![allow(unsafe_code)]

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use libc::{c_int, c_short, off_t};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// A coarse clock that is cheap to read and comparable with `Instant`.
pub(crate) const COARSE_CLOCK: libc::clockid_t = libc::CLOCK_UPTIME_RAW_APPROX;

/// The event of poll(2) that reports that the peer will send no more data. macOS has none.
pub(crate) const POLL_HALF_CLOSED: Option<c_short> = None;

/// The flag of recvmsg(2) that makes received descriptors close-on-exec. macOS has none, so they
/// are made close-on-exec after the call. If another thread calls fork(2) in between, a program
/// that the child executes inherits them.
pub(crate) const RECEIVE_CLOSE_ON_EXEC: c_int = 0;

/// The option that requests [`PACKET_INFO_V4`] messages.
pub(crate) const RECV_PACKET_INFO_V4: c_int = libc::IP_PKTINFO;

/// The type of the control message that contains the addresses and the interface of a datagram.
pub(crate) const PACKET_INFO_V4: c_int = libc::IP_PKTINFO;

/// The data of a [`PACKET_INFO_V4`] message.
pub(crate) type PacketInfoV4 = libc::in_pktinfo;

/// Returns the data that selects the source address, if there is one, and the interface of a
/// datagram.
pub(crate) fn packet_info_v4(local: Option<Ipv4Addr>, interface: u32) -> Option<PacketInfoV4> {
    let address = |address: Ipv4Addr| libc::in_addr { s_addr: u32::from(address).to_be() };
    Some(libc::in_pktinfo {
        ipi_ifindex: interface,
        ipi_spec_dst: address(local.unwrap_or(Ipv4Addr::UNSPECIFIED)),
        ipi_addr: address(Ipv4Addr::UNSPECIFIED),
    })
}

/// Returns the local address, the destination and the interface of a received datagram. macOS does
/// not set `ipi_spec_dst`, so the first two are equal.
pub(crate) fn read_packet_info_v4(info: PacketInfoV4) -> (Ipv4Addr, Ipv4Addr, Option<u32>) {
    let address = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
    (address, address, Some(info.ipi_ifindex))
}

/// Calls poll(2): waits for events for up to `timeout` nanoseconds, rounded up to milliseconds, or
/// without limit if `timeout` is `None`. Returns the number of entries that have events.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: Option<u64>) -> io::Result<usize> {
    let limit = timeout.map_or(-1, |nanos| nanos.div_ceil(1_000_000).min(i32::MAX as u64) as c_int);
    let count = entries.len() as libc::nfds_t;
    // SAFETY: the entries are valid for writes during the call.
    let ready = unsafe { libc::poll(entries.as_mut_ptr(), count, limit) };
    usize::try_from(ready).map_err(|_| io::Error::last_os_error())
}

/// Makes a socket non-blocking and close-on-exec, and disables SIGPIPE for it. If another thread
/// calls fork(2) before this call, a program that the child executes inherits the socket.
fn prepare(socket: Socket) -> io::Result<OwnedFd> {
    let reference = SockRef::from(&socket);
    reference.set_nonblocking(true)?;
    reference.set_cloexec(true)?;
    reference.set_nosigpipe(true)?;
    Ok(socket.into())
}

/// Opens a non-blocking, close-on-exec socket (socket(2)).
pub(crate) fn socket(domain: Domain, ty: Type, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    prepare(Socket::new_raw(domain, ty, protocol)?)
}

/// Opens a pair of non-blocking, close-on-exec Unix sockets (socketpair(2)).
pub(crate) fn pair(ty: Type) -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = Socket::pair_raw(Domain::UNIX, ty, None)?;
    Ok((prepare(one)?, prepare(other)?))
}

/// Accepts a connection (accept(2)). Returns a non-blocking, close-on-exec socket and the peer's
/// address.
pub(crate) fn accept(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, SockAddr)> {
    let (socket, address) = SockRef::from(&fd).accept_raw()?;
    Ok((prepare(socket)?, address))
}

/// Returns the process, user and group of the peer of a Unix socket (LOCAL_PEERPID, getpeereid(3)).
/// A process of 0 means that it is unknown.
pub(crate) fn peer_cred(fd: BorrowedFd<'_>) -> io::Result<(libc::pid_t, libc::uid_t, libc::gid_t)> {
    let (uid, gid) = super::bsd::peer_ids(fd)?;
    let mut pid: libc::pid_t = 0;
    let mut length = size_of::<libc::pid_t>() as libc::socklen_t;
    let (value, size) = ((&raw mut pid).cast(), &raw mut length);
    // SAFETY: value and length are valid for writes during the call. If the call fails, the process
    // is unknown.
    let _ = unsafe { libc::getsockopt(fd.as_fd().as_raw_fd(), libc::SOL_LOCAL, libc::LOCAL_PEERPID, value, size) };
    Ok((pid, uid, gid))
}

/// Calls macOS's sendfile(2) for at most `most` bytes of `file` from `offset`. Returns the result
/// and the number of bytes sent, which may be more than zero if the error is EAGAIN or EINTR. After
/// another error the number is 0, because the manual page promises the number only for these two
/// errors, and the kernel may leave the requested length in its place. `most` must not be 0, which
/// means the rest of the file.
pub(crate) fn sendfile(to: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: off_t, most: usize) -> (io::Result<()>, u64) {
    let (to, file) = (to.as_raw_fd(), file.as_raw_fd());
    let mut length = off_t::try_from(most).unwrap_or(off_t::MAX);
    // SAFETY: `length` is valid for reads and writes during the call; null means neither header nor
    // trailer.
    let result = unsafe { libc::sendfile(file, to, offset, &raw mut length, ptr::null_mut(), 0) };
    let sent = u64::try_from(length).unwrap_or(0);
    if result == 0 {
        return (Ok(()), sent);
    }
    let error = io::Error::last_os_error();
    let is_counted = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR));
    (Err(error), if is_counted { sent } else { 0 })
}
