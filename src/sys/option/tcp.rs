//! Options of TCP sockets that every system has.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Returns TCP_NODELAY.
pub(crate) fn nodelay(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).tcp_nodelay()
}

/// Sets TCP_NODELAY.
pub(crate) fn set_nodelay(fd: BorrowedFd<'_>, nodelay: bool) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_nodelay(nodelay)
}

/// Returns SO_KEEPALIVE.
pub(crate) fn keepalive(fd: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&fd).keepalive()
}

/// Clears SO_KEEPALIVE.
pub(crate) fn clear_keepalive(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_keepalive(false)
}

/// Sets SO_KEEPALIVE, and those of its three parameters that are `Some`. Durations are truncated to
/// whole seconds.
pub(crate) fn set_keepalive(
    fd: BorrowedFd<'_>,
    idle: Option<Duration>,
    interval: Option<Duration>,
    count: Option<u32>,
) -> io::Result<()> {
    let mut parameters = TcpKeepalive::new();
    if let Some(idle) = idle {
        parameters = parameters.with_time(idle);
    }
    if let Some(interval) = interval {
        parameters = parameters.with_interval(interval);
    }
    if let Some(count) = count {
        parameters = parameters.with_retries(count);
    }
    SockRef::from(&fd).set_tcp_keepalive(&parameters)
}

/// Returns TCP_KEEPIDLE, which is TCP_KEEPALIVE on macOS.
pub(crate) fn keepalive_idle(fd: BorrowedFd<'_>) -> io::Result<Duration> {
    SockRef::from(&fd).tcp_keepalive_time()
}

/// Returns TCP_KEEPINTVL.
pub(crate) fn keepalive_interval(fd: BorrowedFd<'_>) -> io::Result<Duration> {
    SockRef::from(&fd).tcp_keepalive_interval()
}

/// Returns TCP_KEEPCNT.
pub(crate) fn keepalive_count(fd: BorrowedFd<'_>) -> io::Result<u32> {
    SockRef::from(&fd).tcp_keepalive_retries()
}

/// Returns TCP_MAXSEG.
pub(crate) fn mss(fd: BorrowedFd<'_>) -> io::Result<u32> {
    SockRef::from(&fd).tcp_mss()
}
