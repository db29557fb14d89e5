//! What has to be asked of the kernel: an address that nobody else uses, and whether it is still moving bytes.
#![allow(dead_code, unreachable_pub)] // Each test binary uses a part.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A loopback address of this process and test alone, for who binds a port again that was free a moment ago, or sends where nobody
/// listens any more: on the common address somebody else may get it first.
pub fn own_address() -> SocketAddr {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let test = NEXT.fetch_add(1, Ordering::Relaxed) as u32 % 32;
    SocketAddr::from(((0x7f00_0001 + ((1 + test) << 18) + ((std::process::id() & 0x1_ffff) << 1)).to_be_bytes(), 0))
}

/// Bytes of a TCP socket that were sent and not yet acknowledged: while there are some, room may come in its send buffer without
/// anybody reading. On a busy machine the kernel's share of the work may be late as well.
pub fn in_flight(socket: BorrowedFd<'_>) -> usize {
    const SIOCOUTQNSD: libc::Ioctl = 0x894b;
    let mut counts = [0_i32; 2];
    for (request, count) in [libc::TIOCOUTQ as libc::Ioctl, SIOCOUTQNSD].into_iter().zip(&mut counts) {
        // SAFETY: `count` is valid for the call, which writes an int.
        assert_eq!(unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut *count) }, 0);
    }
    let [unacknowledged, unsent] = counts;
    unacknowledged.saturating_sub(unsent).max(0) as usize
}
