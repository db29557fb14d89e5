//! Options of the socket and of IP: buffers, traffic class, device, processor.
//!
//! A value that does not fit what the kernel takes is refused before the call: it would be cut, or taken for another.

use std::io;
use std::os::fd::BorrowedFd;

use libc::c_int;
use socket2::{Domain, SockRef};

/// The error of a value that no call is made for.
#[cold]
pub(super) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

fn buffer_size(size: usize) -> io::Result<usize> {
    // The kernel doubles it, as a signed number.
    if size == 0 || size > c_int::MAX as usize / 2 {
        return Err(invalid("a buffer of no bytes, or of 1 GiB or more"));
    }
    Ok(size)
}

/// Sets SO_RCVBUF.
pub(crate) fn set_recv_buffer_size(fd: BorrowedFd<'_>, size: usize) -> io::Result<()> {
    SockRef::from(&fd).set_recv_buffer_size(buffer_size(size)?)
}

/// SO_RCVBUF: what the kernel set aside, twice what was asked for.
pub(crate) fn recv_buffer_size(fd: BorrowedFd<'_>) -> io::Result<usize> {
    SockRef::from(&fd).recv_buffer_size()
}

/// Sets SO_SNDBUF.
pub(crate) fn set_send_buffer_size(fd: BorrowedFd<'_>, size: usize) -> io::Result<()> {
    SockRef::from(&fd).set_send_buffer_size(buffer_size(size)?)
}

/// SO_SNDBUF: what the kernel set aside, twice what was asked for.
pub(crate) fn send_buffer_size(fd: BorrowedFd<'_>) -> io::Result<usize> {
    SockRef::from(&fd).send_buffer_size()
}

/// Sets the traffic class: IP_TOS, and IPV6_TCLASS of an IPv6 socket, which may carry both.
pub(crate) fn set_tos(fd: BorrowedFd<'_>, tos: u8) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    if socket.domain()? == Domain::IPV6 {
        socket.set_tclass_v6(tos.into())?;
    }
    socket.set_tos_v4(tos.into())
}

/// The traffic class: IPV6_TCLASS of an IPv6 socket, otherwise IP_TOS.
pub(crate) fn tos(fd: BorrowedFd<'_>) -> io::Result<u8> {
    let socket = SockRef::from(&fd);
    let tos = if socket.domain()? == Domain::IPV6 { socket.tclass_v6()? } else { socket.tos_v4()? };
    // One byte in either header.
    Ok(tos as u8)
}

/// `name` as the kernel takes names of at most `most` bytes: longer ones and such with a NUL it would cut.
pub(super) fn short_name(name: &str, most: usize) -> Option<&[u8]> {
    let fits = !name.is_empty() && name.len() <= most && !name.bytes().any(|byte| byte == 0);
    fits.then_some(name.as_bytes())
}

/// A name that the kernel answered with, up to its NUL.
pub(super) fn name_from(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Sets SO_BINDTODEVICE, or takes it off.
pub(crate) fn set_device(fd: BorrowedFd<'_>, device: Option<&str>) -> io::Result<()> {
    let name = match device {
        None => None,
        Some(device) => Some(
            short_name(device, libc::IFNAMSIZ - 1)
                .ok_or_else(|| invalid("a device's name has 1 to 15 bytes, none of them NUL"))?,
        ),
    };
    SockRef::from(&fd).bind_device(name)
}

/// SO_BINDTODEVICE.
pub(crate) fn device(fd: BorrowedFd<'_>) -> io::Result<Option<String>> {
    Ok(SockRef::from(&fd).device()?.map(|name| name_from(&name)))
}

/// IPV6_V6ONLY; an IPv4 socket has none.
pub(crate) fn only_v6(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).only_v6()
}

/// Sets SO_INCOMING_CPU.
pub(crate) fn set_incoming_cpu(fd: BorrowedFd<'_>, cpu: usize) -> io::Result<()> {
    if cpu > c_int::MAX as usize {
        return Err(invalid("no machine has so many processors"));
    }
    SockRef::from(&fd).set_cpu_affinity(cpu)
}

/// SO_INCOMING_CPU; none before anything was received.
pub(crate) fn incoming_cpu(fd: BorrowedFd<'_>) -> io::Result<Option<usize>> {
    // -1 comes back as a number beyond all processors.
    let cpu = SockRef::from(&fd).cpu_affinity()?;
    Ok((cpu <= c_int::MAX as usize).then_some(cpu))
}
