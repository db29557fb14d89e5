//! The handler of SIGUSR1, and a check of signal numbers. The handler only writes a byte to a pipe,
//! because few calls are safe in a signal handler (signal-safety(7)).

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use super::os;

/// The write end of the pipe, or -1.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// The argument `is_child` of [`write_on_sigusr1`].
static IS_CHILD: OnceLock<fn() -> bool> = OnceLock::new();

/// Installs a handler for SIGUSR1 that writes a byte to `pipe`, which stays open for the lifetime
/// of the process. The handler first calls `is_child`, which must be async-signal-safe. If
/// `is_child` returns true, the handler does nothing, because a child of fork(2) shares the pipe
/// with its parent.
///
/// # Errors
/// Returns `AlreadyExists` if the signal already has a handler or is ignored, or the error of a
/// system call.
#[allow(unsafe_code)]
pub(crate) fn write_on_sigusr1(pipe: OwnedFd, is_child: fn() -> bool) -> io::Result<()> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `action` is valid for writes during the call.
    if unsafe { libc::sigaction(libc::SIGUSR1, std::ptr::null(), action.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes is a valid value, and sigaction(2) has filled it in.
    let mut action = unsafe { action.assume_init() };
    if action.sa_sigaction != libc::SIG_DFL {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "SIGUSR1 already has a handler or is ignored"));
    }
    // If the pipe is full, the handler's write fails, which is harmless, because the bytes already
    // in the pipe cause a snapshot.
    super::socket::set_nonblocking(std::os::fd::AsFd::as_fd(&pipe), true)?;
    IS_CHILD.get_or_init(|| is_child);
    PIPE.store(pipe.as_raw_fd(), Ordering::Release);
    action.sa_sigaction = handle as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `handle` is async-signal-safe: it loads atomics, calls `is_child`, which is
    // async-signal-safe, calls write(2) at most once, and preserves errno.
    if unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let _ = pipe.into_raw_fd();
    Ok(())
}

/// Returns the error EINVAL if `signal` is not the number of a signal.
#[cfg(feature = "signal")]
#[allow(unsafe_code)]
pub(crate) fn check(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: both pointers may be null; the call then only checks the number.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), std::ptr::null_mut()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[allow(unsafe_code)]
extern "C" fn handle(_signal: libc::c_int) {
    // `OnceLock::get` only loads an atomic.
    if IS_CHILD.get().is_some_and(|is_child| is_child()) {
        return;
    }
    let place = os::errno_place();
    // SAFETY: the address of the thread's errno is valid for the lifetime of the thread.
    let errno = unsafe { place.read() };
    let pipe = PIPE.load(Ordering::Acquire);
    // SAFETY: the call reads one byte of a static, and write(2) is async-signal-safe. The pipe
    // stays open.
    let _ = unsafe { libc::write(pipe, c"!".as_ptr().cast(), 1) };
    // SAFETY: as above.
    unsafe { place.write(errno) };
}
