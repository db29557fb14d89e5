//! Options of the socket layer and of IP: buffer sizes, traffic class and IPV6_V6ONLY.
//!
//! A value that does not fit the kernel's type is refused before the call, because the kernel would
//! truncate or misread it.

use std::io;
use std::os::fd::BorrowedFd;

use libc::c_int;

use crate::sys::option;

/// Returns the error for a value that is refused without a system call.
#[cold]
pub(in crate::net) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

fn buffer_size(size: usize) -> io::Result<usize> {
    // Linux doubles the size as a signed number, and replaces zero with its smallest size. macOS
    // and FreeBSD refuse zero.
    if size == 0 || size > c_int::MAX as usize / 2 {
        return Err(invalid("buffer size must be at least 1 byte and less than 1 GiB"));
    }
    Ok(size)
}

pub(in crate::net) fn number(value: u32) -> io::Result<c_int> {
    c_int::try_from(value).map_err(|_| invalid("number must be less than 2^31"))
}

/// Sets SO_RCVBUF.
pub(crate) fn set_recv_buffer_size(fd: BorrowedFd<'_>, size: usize) -> io::Result<()> {
    option::socket::set_recv_buffer_size(fd, buffer_size(size)?)
}

/// Returns SO_RCVBUF, the kernel's size of the buffer. On Linux, this is twice the size that was
/// set, within the host's limits.
pub(crate) fn recv_buffer_size(fd: BorrowedFd<'_>) -> io::Result<usize> {
    option::socket::recv_buffer_size(fd)
}

/// Sets SO_SNDBUF.
pub(crate) fn set_send_buffer_size(fd: BorrowedFd<'_>, size: usize) -> io::Result<()> {
    option::socket::set_send_buffer_size(fd, buffer_size(size)?)
}

/// Returns SO_SNDBUF, the kernel's size of the buffer. On Linux, this is twice the size that was
/// set, within the host's limits.
pub(crate) fn send_buffer_size(fd: BorrowedFd<'_>) -> io::Result<usize> {
    option::socket::send_buffer_size(fd)
}

/// Sets the traffic class: IP_TOS on an IPv4 socket; IPV6_TCLASS and, if possible, IP_TOS on an
/// IPv6 socket, which may carry both families.
pub(crate) fn set_tos(fd: BorrowedFd<'_>, tos: u8) -> io::Result<()> {
    if !option::is_v6(fd)? {
        return option::ip::set_tos_v4(fd, tos.into());
    }
    option::ip::set_tclass_v6(fd, tos.into())?;
    // macOS and FreeBSD refuse this option on IPv6 sockets.
    let _ = option::ip::set_tos_v4(fd, tos.into());
    Ok(())
}

/// Returns the traffic class: IPV6_TCLASS of an IPv6 socket, otherwise IP_TOS.
pub(crate) fn tos(fd: BorrowedFd<'_>) -> io::Result<u8> {
    let tos = if option::is_v6(fd)? { option::ip::tclass_v6(fd)? } else { option::ip::tos_v4(fd)? };
    // The field has one byte in both headers.
    Ok(tos as u8)
}

/// Returns IPV6_V6ONLY, which an IPv4 socket does not have.
pub(crate) fn only_v6(fd: BorrowedFd<'_>) -> io::Result<bool> {
    option::ip::only_v6(fd)
}
