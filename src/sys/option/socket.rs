//! Options of all sockets (SOL_SOCKET).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, SockRef, Type};

use crate::sys::socket;

/// Returns SO_TYPE.
pub(crate) fn kind(fd: BorrowedFd<'_>) -> io::Result<Type> {
    SockRef::from(&fd).r#type()
}

/// Returns SO_ACCEPTCONN: whether the socket listens.
pub(crate) fn is_listener(fd: BorrowedFd<'_>) -> io::Result<bool> {
    super::is_on(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)
}

/// Sets SO_REUSEADDR.
pub(crate) fn set_reuse_address(fd: BorrowedFd<'_>, reuse: bool) -> io::Result<()> {
    SockRef::from(&fd).set_reuse_address(reuse)
}

/// Sets SO_REUSEPORT.
pub(crate) fn set_reuse_port(fd: BorrowedFd<'_>, reuse: bool) -> io::Result<()> {
    SockRef::from(&fd).set_reuse_port(reuse)
}

/// Returns SO_RCVBUF in bytes.
pub(crate) fn recv_buffer_size(fd: BorrowedFd<'_>) -> io::Result<usize> {
    SockRef::from(&fd).recv_buffer_size()
}

/// Sets SO_RCVBUF.
pub(crate) fn set_recv_buffer_size(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    SockRef::from(&fd).set_recv_buffer_size(bytes)
}

/// Returns SO_SNDBUF in bytes.
pub(crate) fn send_buffer_size(fd: BorrowedFd<'_>) -> io::Result<usize> {
    SockRef::from(&fd).send_buffer_size()
}

/// Sets SO_SNDBUF.
pub(crate) fn set_send_buffer_size(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    SockRef::from(&fd).set_send_buffer_size(bytes)
}

/// Sets SO_SNDBUF so that the socket accepts at least `bytes` more bytes, if the system's limit
/// (net.core.wmem_max on Linux) allows it. Otherwise, Linux sets the limit, and other systems
/// return an error. On Linux, a size that is not below the limit, for example because the kernel
/// has enlarged the buffer itself, stays the same.
pub(crate) fn make_room(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let size = send_buffer_size(fd)?;
    // Other systems refuse a size beyond the limit, and so do not reduce the buffer.
    if cfg!(target_os = "linux") && size >= send_buffer_max().unwrap_or(2 * WMEM_MAX) {
        return Ok(());
    }
    // `bytes` is doubled, because the kernel also counts its own structures.
    set_send_buffer_size(fd, size.saturating_add(2 * bytes))
}

/// A usual default of net.core.wmem_max in bytes, for the case that the limit cannot be determined.
const WMEM_MAX: usize = 212_992;

/// Returns the largest size of a send buffer that SO_SNDBUF can set, as SO_SNDBUF returns it. Asks
/// the kernel with a new socket, because the request could reduce the buffer of an existing one.
///
/// # Errors
/// Returns an error if the probe cannot be opened, for example because no descriptor is free.
fn send_buffer_max() -> io::Result<usize> {
    let probe = socket::socket(Domain::UNIX, Type::DGRAM, None)?;
    set_send_buffer_size(probe.as_fd(), i32::MAX as usize)?;
    send_buffer_size(probe.as_fd())
}

/// Returns SO_LINGER, in whole seconds, or `None` if it is off.
pub(crate) fn linger(fd: BorrowedFd<'_>) -> io::Result<Option<Duration>> {
    SockRef::from(&fd).linger()
}

/// Rounds `duration` up to whole seconds.
pub(crate) fn seconds(duration: Duration) -> Duration {
    let partial = u64::from(duration.subsec_nanos() != 0);
    Duration::from_secs(duration.as_secs().saturating_add(partial))
}

/// Sets SO_LINGER, which determines how close(2) treats unsent data. With `None` the kernel sends
/// it in the background. With zero the kernel discards it and resets the connection. With another
/// duration close(2) waits up to that long, rounded up to seconds so that half a second does not
/// become a reset.
pub(crate) fn set_linger(fd: BorrowedFd<'_>, linger: Option<Duration>) -> io::Result<()> {
    const SECONDS_MAX: Duration = Duration::from_secs(libc::c_int::MAX as u64);
    SockRef::from(&fd).set_linger(linger.map(|linger| seconds(linger).min(SECONDS_MAX)))
}

/// Returns SO_OOBINLINE.
pub(crate) fn out_of_band_inline(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).out_of_band_inline()
}

/// Sets SO_OOBINLINE.
pub(crate) fn set_out_of_band_inline(fd: BorrowedFd<'_>, inline: bool) -> io::Result<()> {
    SockRef::from(&fd).set_out_of_band_inline(inline)
}

/// Returns SO_BROADCAST.
pub(crate) fn broadcast(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).broadcast()
}

/// Sets SO_BROADCAST.
pub(crate) fn set_broadcast(fd: BorrowedFd<'_>, broadcast: bool) -> io::Result<()> {
    SockRef::from(&fd).set_broadcast(broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn make_room_enlarges_the_buffer() {
        let socket = UnixDatagram::unbound().unwrap();
        set_send_buffer_size(socket.as_fd(), 5000).unwrap();
        let before = send_buffer_size(socket.as_fd()).unwrap();
        make_room(socket.as_fd(), 1000).unwrap();
        assert!(send_buffer_size(socket.as_fd()).unwrap() >= before + 1000);
    }

    /// The test needs a privilege (CAP_NET_ADMIN); without it, the test ends early.
    #[cfg(target_os = "linux")]
    #[test]
    fn make_room_leaves_a_buffer_beyond_the_limit() {
        let socket = UnixDatagram::unbound().unwrap();
        let limit = send_buffer_max().unwrap();
        if super::super::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, limit as i32).is_err() {
            return;
        }
        let before = send_buffer_size(socket.as_fd()).unwrap();
        assert!(before > limit);
        make_room(socket.as_fd(), 1000).unwrap();
        assert_eq!(send_buffer_size(socket.as_fd()).unwrap(), before);
    }
}
