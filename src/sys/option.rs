//! Socket options that socket2 has no function for.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, socklen_t};

/// Level and name of what is read to tell a multipath connection from one that fell back (linux/mptcp.h).
const SOL_MPTCP: c_int = 284;
const MPTCP_INFO: c_int = 1;

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// setsockopt(2) of an option that is a number.
pub(crate) fn set_int(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as socklen_t;
    // SAFETY: the value is valid for reads of its length during the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), length) })
}

/// getsockopt(2) of an option that is a number, or of the first four bytes of one that is more.
pub(crate) fn int(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as socklen_t;
    // SAFETY: the value is valid for writes of its length during the call, whatever bytes come.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) })?;
    Ok(value)
}

/// TCP_INFO; what the kernel does not know is zero.
pub(crate) fn tcp_info(fd: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as socklen_t;
    let raw = fd.as_raw_fd();
    // SAFETY: the structure is valid for writes of its length during the call.
    check(unsafe {
        libc::getsockopt(raw, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    })?;
    // SAFETY: numbers only, for which zeroes and whatever the kernel wrote are values.
    Ok(unsafe { info.assume_init() })
}

/// Whether a connection is a multipath one. One that fell back to TCP, as one that never was, has no MPTCP_INFO.
pub(crate) fn is_multipath(fd: BorrowedFd<'_>) -> io::Result<bool> {
    match int(fd, SOL_MPTCP, MPTCP_INFO) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOPROTOOPT)) => Ok(false),
        Err(error) => Err(error),
    }
}
