//! What macOS and FreeBSD have in common.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::SocketAddr;
use std::os::unix::thread::JoinHandleExt;
use std::ptr;
use std::thread::JoinHandle;

use libc::c_int;

/// Whether TCP's short count says that nothing is left. kqueue(2) does not report urgent data, which cuts a read short.
pub(crate) const SHORT_COUNTS_ARE_EVIDENCE: bool = false;

/// What getaddrinfo(3) says of a name that has no address, or none of the family: EAI_NODATA and EAI_ADDRFAMILY.
pub(crate) const NO_ADDRESS_CODES: [c_int; 2] = [7, 1];

/// An errno that Linux alone has.
pub(crate) const ENONET: c_int = -1;

/// An option that Linux alone has.
pub(crate) const SEGMENT_OPTION: c_int = -1;

/// A kind of control message that Linux alone has.
pub(crate) const SEGMENTS_KIND: c_int = -1;

/// The kind of the control message with the TTL of a received datagram.
pub(crate) const TTL_KIND: c_int = libc::IP_RECVTTL;

/// The kind of the control message with the TOS of a received datagram.
pub(crate) const TOS_KIND: c_int = libc::IP_RECVTOS;

/// The option that asks for the time of arrival.
pub(crate) const RECV_TIMESTAMP: c_int = libc::SO_TIMESTAMP;

/// The kind of its control message.
pub(crate) const TIMESTAMP_KIND: c_int = libc::SCM_TIMESTAMP;

/// What a fraction of a second of that message is, in nanoseconds.
pub(crate) const TIMESTAMP_UNIT: u32 = 1000;

/// A message of a batch, as Linux's.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub(crate) struct mmsghdr {
    pub(crate) msg_hdr: libc::msghdr,
    pub(crate) msg_len: libc::c_uint,
}

/// recvmsg(2), once for each header until one fails.
///
/// # Safety
/// The `count` headers, and what they point to, are valid for writes during the call.
pub(crate) unsafe fn recvmmsg(fd: RawFd, headers: *mut mmsghdr, count: u32, flags: c_int) -> c_int {
    for index in 0..count {
        // SAFETY: the caller's promise.
        let header = unsafe { headers.add(index as usize) };
        // SAFETY: the caller's promise.
        let header = unsafe { &mut *header };
        // SAFETY: the caller's promise.
        let received = unsafe { libc::recvmsg(fd, &raw mut header.msg_hdr, flags) };
        if received < 0 {
            return if index > 0 { index as c_int } else { -1 };
        }
        header.msg_len = received as libc::c_uint;
    }
    count as c_int
}

/// sendmsg(2), once for each header until one fails.
///
/// # Safety
/// The `count` headers are valid for writes, and what they point to for reads, during the call.
pub(crate) unsafe fn sendmmsg(fd: RawFd, headers: *mut mmsghdr, count: u32, flags: c_int) -> c_int {
    for index in 0..count {
        // SAFETY: the caller's promise.
        let header = unsafe { headers.add(index as usize) };
        // SAFETY: the caller's promise.
        let header = unsafe { &mut *header };
        // SAFETY: the caller's promise.
        let sent = unsafe { libc::sendmsg(fd, &raw const header.msg_hdr, flags) };
        if sent < 0 {
            return if index > 0 { index as c_int } else { -1 };
        }
        header.msg_len = sent as libc::c_uint;
    }
    count as c_int
}

/// The address family of a socket, by its own address. Safe to call after fork(2).
pub(crate) fn domain(number: RawFd) -> io::Result<c_int> {
    // SAFETY: plain data for which all zeroes is a value.
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: address and length are valid for writes during the call.
    let result = unsafe { libc::getsockname(number, (&raw mut address).cast(), &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(c_int::from(address.ss_family)) }
}

/// The user and group of a Unix socket's peer (getpeereid(3)).
pub(super) fn peer_ids(fd: BorrowedFd<'_>) -> io::Result<(libc::uid_t, libc::gid_t)> {
    let (mut uid, mut gid) = (0, 0);
    // SAFETY: both are valid for writes during the call.
    let result = unsafe { libc::getpeereid(fd.as_raw_fd(), &raw mut uid, &raw mut gid) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok((uid, gid)) }
}

/// There are no abstract names.
pub(crate) fn abstract_name(_: &SocketAddr) -> Option<&[u8]> {
    None
}

/// There are no abstract names.
pub(crate) fn from_abstract_name(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Joins a thread that has ended. Returns whether it was; its handle must then be neither joined nor dropped. Thread-local destructors
/// that still run are waited for: these systems cannot tell.
pub(crate) fn try_join(thread: &JoinHandle<()>) -> bool {
    if !thread.is_finished() {
        return false;
    }
    // SAFETY: the handle owns the thread, which was neither joined nor detached; it is not the calling thread's, which is running.
    unsafe { libc::pthread_join(thread.as_pthread_t(), ptr::null_mut()) == 0 }
}
