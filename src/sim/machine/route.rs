//! recv(2) and send(2), which this crate calls on its hot path.
//!
//! Unlike the functions for other calls, they are not defined in the program. The caller itself compares the number of
//! the descriptor, which costs two instructions for a real socket, and then calls the C library directly.

use std::slice;

use libc::{c_int, c_void};

use super::abi;
use super::interpose::answer;

/// Calls recv(2) on a simulated descriptor. The result is that of the C library's function.
///
/// # Safety
/// `buf` must be valid for writes of `length` bytes.
#[cold]
#[inline(never)]
#[allow(unsafe_code)]
pub(crate) unsafe fn recv(fd: c_int, buf: *mut c_void, length: usize, flags: c_int) -> isize {
    // The buffer may be uninitialised.
    // SAFETY: the caller guarantees that the buffer is valid for writes.
    unsafe { buf.cast::<u8>().write_bytes(0, length) };
    // SAFETY: the buffer is valid, and all of it was just initialised.
    let buf = unsafe { slice::from_raw_parts_mut(buf.cast::<u8>(), length) };
    answer(abi::recv(fd, buf, flags).map(|count| count as isize))
}

/// Calls send(2) on a simulated descriptor. The result is that of the C library's function.
#[cold]
#[inline(never)]
pub(crate) fn send(fd: c_int, buf: &[u8], flags: c_int) -> isize {
    answer(abi::send(fd, buf, flags).map(|count| count as isize))
}
