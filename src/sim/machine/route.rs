//! recv(2) and send(2), which this crate calls on its hot path.
//!
//! This crate does not define `recv` and `send` in the program, unlike the functions for other
//! calls. Instead, the caller, `sys::socket`, compares the number of the descriptor, which costs
//! two instructions for a real socket. It calls the functions of this file only for a simulated
//! descriptor.

use std::ptr;

use libc::{c_int, c_void};

use super::abi;
use super::interpose::answer;

/// Calls recv(2) on a simulated descriptor. Like the C library's function, it returns -1 and sets
/// errno on failure. Unlike that function, it returns the number of bytes copied even with
/// `MSG_TRUNC`.
///
/// # Safety
/// `buf` must be valid for writes of `length` bytes. Nothing else may access these bytes during the
/// call.
#[cold]
#[inline(never)]
#[allow(unsafe_code)]
pub(crate) unsafe fn recv(fd: c_int, buf: *mut c_void, length: usize, flags: c_int) -> isize {
    // The buffer may be uninitialised, and the bytes behind those received must stay unchanged. So
    // the call receives into another buffer, which is not longer than what it can receive.
    let mut received = vec![0; length.min(abi::receivable(fd))];
    let result = abi::recv(fd, &mut received, flags);
    if let Ok(count) = result {
        // SAFETY: the caller guarantees that the buffer is valid for writes of `length` bytes, and
        // `count` is not greater.
        unsafe { ptr::copy_nonoverlapping(received.as_ptr(), buf.cast::<u8>(), count) };
    }
    answer(result.map(|count| count as isize))
}

/// Calls send(2) on a simulated descriptor. Like the C library's function, it returns -1 and sets
/// errno on failure.
#[cold]
#[inline(never)]
pub(crate) fn send(fd: c_int, buf: &[u8], flags: c_int) -> isize {
    answer(abi::send(fd, buf, flags).map(|count| count as isize))
}
