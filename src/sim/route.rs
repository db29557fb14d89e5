//! Calls that the kernel did not know the descriptor of (EBADF): those of the hot path, which pay for a simulation only when they fail.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::abi;
use super::backend::is_simulated;

#[inline]
fn is_ours(result: &io::Result<usize>, fd: BorrowedFd<'_>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(libc::EBADF)) && is_simulated(fd.as_raw_fd())
}

/// The result of recv(2), or the simulation's if the descriptor is one of its own.
#[inline]
pub(crate) fn recv(
    result: io::Result<usize>,
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: libc::c_int,
) -> io::Result<usize> {
    if !is_ours(&result, fd) {
        return result;
    }
    abi::recv(fd.as_raw_fd(), buf, flags).map_err(io::Error::from_raw_os_error)
}

/// The result of send(2), or the simulation's if the descriptor is one of its own.
#[inline]
pub(crate) fn send(result: io::Result<usize>, fd: BorrowedFd<'_>, buf: &[u8], flags: libc::c_int) -> io::Result<usize> {
    if !is_ours(&result, fd) {
        return result;
    }
    abi::send(fd.as_raw_fd(), buf, flags).map_err(io::Error::from_raw_os_error)
}

/// [`recv`] into memory that need not be initialised.
#[cfg(any(feature = "hyper", feature = "tokio-io"))]
#[inline]
pub(crate) fn recv_uninit(
    result: io::Result<usize>,
    fd: BorrowedFd<'_>,
    buf: &mut [std::mem::MaybeUninit<u8>],
) -> io::Result<usize> {
    if !is_ours(&result, fd) {
        return result;
    }
    for byte in &mut *buf {
        byte.write(0);
    }
    // SAFETY: all of it was just initialised.
    #[allow(unsafe_code)]
    let buf = unsafe { std::slice::from_raw_parts_mut(buf.as_mut_ptr().cast::<u8>(), buf.len()) };
    abi::recv(fd.as_raw_fd(), buf, 0).map_err(io::Error::from_raw_os_error)
}
