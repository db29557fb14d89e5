//! Definitions for Linux and FreeBSD, which have ppoll(2), accept4(2), and flags that make a new
//! socket non-blocking and close-on-exec.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use libc::c_short;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// The event of poll(2) that reports that the peer will send no more data.
pub(crate) const POLL_HALF_CLOSED: Option<c_short> = Some(libc::POLLRDHUP);

/// The flag of recvmsg(2) that makes received descriptors close-on-exec.
pub(crate) const RECEIVE_CLOSE_ON_EXEC: libc::c_int = libc::MSG_CMSG_CLOEXEC;

/// Calls ppoll(2): waits for events for up to `timeout` nanoseconds, or without limit if `timeout`
/// is `None`. Returns the number of entries that have events.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: Option<u64>) -> io::Result<usize> {
    let limit = timeout.map(|nanos| libc::timespec {
        tv_sec: (nanos / 1_000_000_000).min(i32::MAX as u64) as libc::time_t,
        tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
    });
    let limit = limit.as_ref().map_or(ptr::null(), |limit| &raw const *limit);
    let count = entries.len() as libc::nfds_t;
    // SAFETY: the entries are valid for writes, the limit is null or valid, and a null mask means
    // that the signal mask stays unchanged.
    let ready = unsafe { libc::ppoll(entries.as_mut_ptr(), count, limit, ptr::null()) };
    usize::try_from(ready).map_err(|_| io::Error::last_os_error())
}

/// Opens a non-blocking, close-on-exec socket (socket(2)).
pub(crate) fn socket(domain: Domain, ty: Type, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    Socket::new_raw(domain, ty.nonblocking().cloexec(), protocol).map(OwnedFd::from)
}

/// Opens a pair of non-blocking, close-on-exec Unix sockets (socketpair(2)).
pub(crate) fn pair(ty: Type) -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = Socket::pair_raw(Domain::UNIX, ty.nonblocking().cloexec(), None)?;
    Ok((one.into(), other.into()))
}

/// Accepts a connection (accept4(2)). Returns a non-blocking, close-on-exec socket and the peer's
/// address.
#[inline]
pub(crate) fn accept(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, SockAddr)> {
    let accept = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: `try_init` passes storage and its length, which are valid for writes.
        let socket = unsafe { libc::accept4(fd.as_raw_fd(), storage.cast(), length, flags) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just returned this descriptor, and nothing else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(socket) })
    };
    // SAFETY: on success the kernel has written an address of the length that it stored.
    unsafe { SockAddr::try_init(accept) }
}
