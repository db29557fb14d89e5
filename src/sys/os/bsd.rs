//! Definitions shared by macOS and FreeBSD.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::SocketAddr;
use std::os::unix::thread::JoinHandleExt;
use std::ptr;
use std::thread::JoinHandle;

use libc::c_int;

/// The type of the control message with a pidfd of the sender, which only Linux has. On these
/// systems, Linux's number for it is that of a timestamp.
pub(crate) const PIDFD_KIND: Option<c_int> = None;

/// Whether a short read of a TCP socket means that no data is left. On these systems it does not,
/// because urgent data causes short reads, and the poller does not learn of urgent data from
/// kqueue(2).
pub(crate) const SHORT_COUNTS_ARE_EVIDENCE: bool = false;

/// The errors of getaddrinfo(3) that mean that the name has no address, or no address of the
/// family: EAI_NODATA and EAI_ADDRFAMILY.
pub(crate) const NO_ADDRESS_CODES: [c_int; 2] = [7, 1];

/// ENONET, an errno that only Linux has.
pub(crate) const ENONET: c_int = -1;

/// UDP_SEGMENT, a socket option that only Linux has.
pub(crate) const SEGMENT_OPTION: c_int = -1;

/// UDP_GRO, a type of control message that only Linux has.
pub(crate) const SEGMENTS_KIND: c_int = -1;

/// The type of the control message that selects the interface for an IPv6 destination, if the
/// family of the destination is not known.
pub(crate) const SKIPPED_PACKET_INFO_V6: c_int = libc::IPV6_PKTINFO;

/// The type of the control message that contains the TTL of a received datagram.
pub(crate) const TTL_KIND: c_int = libc::IP_RECVTTL;

/// The type of the control message that contains the TOS of a received datagram.
pub(crate) const TOS_KIND: c_int = libc::IP_RECVTOS;

/// The option that requests the time of arrival.
pub(crate) const RECV_TIMESTAMP: c_int = libc::SO_TIMESTAMP;

/// The type of the control message that contains the time of arrival.
pub(crate) const TIMESTAMP_KIND: c_int = libc::SCM_TIMESTAMP;

/// The unit of the fraction of a second in a [`TIMESTAMP_KIND`] message, in nanoseconds.
pub(crate) const TIMESTAMP_UNIT: u32 = 1000;

/// A message of a batch, with the same fields as on Linux.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub(crate) struct mmsghdr {
    pub(crate) msg_hdr: libc::msghdr,
    pub(crate) msg_len: libc::c_uint,
}

/// Calls recvmsg(2) for each header until a call fails. Returns the number of messages, or -1 if
/// the first call fails. The error of a later call is lost.
///
/// # Safety
/// The `count` headers, and the memory that they point to, must be valid for reads and writes
/// during the call.
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

/// Calls sendmsg(2) for each header until a call fails. Returns the number of messages, or -1 if
/// the first call fails. The error of a later call is lost.
///
/// # Safety
/// The `count` headers must be valid for reads and writes, and the memory that they point to for
/// reads, during the call.
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

/// Returns the address family of a socket, according to its local address. Safe to call after
/// fork(2).
pub(crate) fn domain(number: RawFd) -> io::Result<c_int> {
    // SAFETY: the address is plain data, for which all zeroes is a valid value.
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: address and length are valid for writes during the call.
    let result = unsafe { libc::getsockname(number, (&raw mut address).cast(), &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(c_int::from(address.ss_family)) }
}

/// Returns the user and group of the peer of a Unix socket (getpeereid(3)).
pub(super) fn peer_ids(fd: BorrowedFd<'_>) -> io::Result<(libc::uid_t, libc::gid_t)> {
    let (mut uid, mut gid) = (0, 0);
    // SAFETY: both are valid for writes during the call.
    let result = unsafe { libc::getpeereid(fd.as_raw_fd(), &raw mut uid, &raw mut gid) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok((uid, gid)) }
}

/// Whether Unix sockets can have abstract names.
pub(crate) const HAS_ABSTRACT_NAMES: bool = false;

/// Returns `None`, because these systems have no abstract names.
pub(crate) fn abstract_name(_: &SocketAddr) -> Option<&[u8]> {
    None
}

/// Fails with `Unsupported`, because these systems have no abstract names.
pub(crate) fn from_abstract_name(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Joins a thread if it has ended. Otherwise returns the handle. The call waits for thread-local
/// destructors that are still running, because macOS has no function that reports whether they have
/// ended.
pub(crate) fn try_join(thread: JoinHandle<()>) -> Result<(), JoinHandle<()>> {
    if !thread.is_finished() {
        return Err(thread);
    }
    // SAFETY: the handle owns the thread, which was neither joined nor detached; it is not the
    // calling thread, which is running.
    if unsafe { libc::pthread_join(thread.as_pthread_t(), ptr::null_mut()) } != 0 {
        return Err(thread);
    }
    // Dropping the handle would detach the thread, which no longer exists.
    let _ = thread.into_pthread_t();
    Ok(())
}

/// Returns the address of the calling thread's errno.
pub(crate) fn errno_place() -> *mut libc::c_int {
    // SAFETY: the function has no preconditions.
    unsafe { libc::__error() }
}

/// Returns `None`. The number of CPUs is needed only to interpret /proc/loadavg, which exists only
/// on Linux.
pub(crate) fn online_cpus() -> Option<usize> {
    None
}

/// Opens the root directory. Reads, writes and socket calls on it fail.
pub(crate) fn placeholder() -> io::Result<OwnedFd> {
    Ok(File::open("/")?.into())
}

/// Turns `fd` into a duplicate of `placeholder`, which closes the file that `fd` referred to
/// (dup2(2)). On error, `fd` is unchanged.
pub(crate) fn replace(fd: BorrowedFd<'_>, placeholder: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both descriptors are open. dup2(2) replaces the second one atomically, so its number
    // has no other owner in between. The caller owns `fd`.
    if unsafe { libc::dup2(placeholder.as_raw_fd(), fd.as_raw_fd()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open. The call cannot fail.
    let _ = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    Ok(())
}

/// Returns `None`, because /proc/loadavg, which contains the number of runnable threads, exists
/// only on Linux.
pub(crate) fn load_average() -> Option<File> {
    None
}

/// Does nothing. The first write to each page of the memory causes a page fault.
pub(crate) fn populate<T>(_memory: &mut [MaybeUninit<T>]) {}
