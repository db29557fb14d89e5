//! Calls on the hot path that failed with EBADF: only a failed call checks for a simulated
//! descriptor.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::abi;
use super::backend::is_simulated;

/// Returns whether a call on this descriptor has failed because its number is a simulation's.
fn is_ours(error: &io::Error, fd: BorrowedFd<'_>) -> bool {
    error.raw_os_error() == Some(libc::EBADF) && is_simulated(fd.as_raw_fd())
}

/// Returns the result of recv(2), or the simulation's if the descriptor is simulated.
#[inline]
pub(crate) fn recv(
    result: io::Result<usize>,
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: libc::c_int,
) -> io::Result<usize> {
    match result {
        Ok(count) => Ok(count),
        Err(error) => recv_failed(error, fd, buf, flags),
    }
}

#[cold]
#[inline(never)]
fn recv_failed(error: io::Error, fd: BorrowedFd<'_>, buf: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    if !is_ours(&error, fd) {
        return Err(error);
    }
    abi::recv(fd.as_raw_fd(), buf, flags).map_err(io::Error::from_raw_os_error)
}

/// Returns the result of send(2), or the simulation's if the descriptor is simulated.
#[inline]
pub(crate) fn send(result: io::Result<usize>, fd: BorrowedFd<'_>, buf: &[u8], flags: libc::c_int) -> io::Result<usize> {
    match result {
        Ok(count) => Ok(count),
        Err(error) => send_failed(error, fd, buf, flags),
    }
}

#[cold]
#[inline(never)]
fn send_failed(error: io::Error, fd: BorrowedFd<'_>, buf: &[u8], flags: libc::c_int) -> io::Result<usize> {
    if !is_ours(&error, fd) {
        return Err(error);
    }
    abi::send(fd.as_raw_fd(), buf, flags).map_err(io::Error::from_raw_os_error)
}

/// Calls [`recv`] with memory that need not be initialised.
#[inline]
pub(crate) fn recv_uninit(
    result: io::Result<usize>,
    fd: BorrowedFd<'_>,
    buf: &mut [std::mem::MaybeUninit<u8>],
) -> io::Result<usize> {
    match result {
        Ok(count) => Ok(count),
        Err(error) => recv_uninit_failed(error, fd, buf),
    }
}

#[cold]
#[inline(never)]
fn recv_uninit_failed(
    error: io::Error,
    fd: BorrowedFd<'_>,
    buf: &mut [std::mem::MaybeUninit<u8>],
) -> io::Result<usize> {
    if !is_ours(&error, fd) {
        return Err(error);
    }
    for byte in &mut *buf {
        byte.write(0);
    }
    // SAFETY: all of it was just initialised.
    #[allow(unsafe_code)]
    let buf = unsafe { std::slice::from_raw_parts_mut(buf.as_mut_ptr().cast::<u8>(), buf.len()) };
    abi::recv(fd.as_raw_fd(), buf, 0).map_err(io::Error::from_raw_os_error)
}
