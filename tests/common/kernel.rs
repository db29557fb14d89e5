//! Helpers that rely on Linux: a separate loopback address per call, and the number of bytes in
//! flight.
#![allow(dead_code, unreachable_pub)] // Each test binary uses a part.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Returns a loopback address with port 0. The next 253 calls in this process return other
/// addresses, and so do the calls in processes whose ids differ in the low 15 bits. Tests use these
/// addresses if they bind a port again after releasing it, or send to a closed port, because on
/// 127.0.0.1 another test or process may take the port first.
pub fn own_address() -> SocketAddr {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let test = NEXT.fetch_add(1, Ordering::Relaxed) as u32 % 254;
    SocketAddr::from(((0x7f00_0001 + ((1 + test) << 16) + ((std::process::id() & 0x7fff) << 1)).to_be_bytes(), 0))
}

/// Returns the number of bytes that a TCP socket has sent and the peer has not acknowledged. As
/// long as there are such bytes, room may appear in the send buffer without a read by the peer. On
/// a busy machine, the acknowledgement may take long.
pub fn in_flight(socket: BorrowedFd<'_>) -> usize {
    const SIOCOUTQNSD: libc::c_ulong = 0x894b;
    let mut counts = [0_i32; 2];
    for (request, count) in [libc::TIOCOUTQ as libc::c_ulong, SIOCOUTQNSD].into_iter().zip(&mut counts) {
        // SAFETY: `count` is valid for the call, which writes an int.
        assert_eq!(unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut *count) }, 0);
    }
    let [unacknowledged, unsent] = counts;
    unacknowledged.saturating_sub(unsent).max(0) as usize
}
