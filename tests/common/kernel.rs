//! Helpers that rely on Linux: a separate loopback address per call, the number of bytes in flight,
//! and signals that interrupt calls.
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

/// Sends SIGUSR2, with a handler that does nothing and has no SA_RESTART, to the thread of this
/// process with this name, so that the call in which the thread waits is interrupted. Call it in a
/// child process only, because the handler remains.
#[cfg(target_os = "linux")]
pub fn interrupt(thread_name: &str) {
    extern "C" fn ignore(_signal: libc::c_int) {}
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeroes are a valid value of this type.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = ignore as *const () as usize;
    // SAFETY: `action` is valid, and its handler does nothing.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR2, action, std::ptr::null_mut()) }, 0);
    // The kernel keeps 15 bytes of a name.
    let kept = &thread_name[..thread_name.len().min(15)];
    let is_named = |folder: &std::path::PathBuf| {
        std::fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.trim_end() == kept)
    };
    let mut found = None;
    // A new thread sets its name itself.
    super::eventually("a thread has the name", || {
        let mut folders = std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
        found = folders.find(is_named);
        found.is_some()
    });
    let folder = found.unwrap();
    let thread = folder.file_name().unwrap().to_str().unwrap().parse().unwrap();
    // SAFETY: the arguments are numbers that the kernel checks.
    assert_eq!(unsafe { libc::tgkill(std::process::id() as i32, thread, libc::SIGUSR2) }, 0);
}
