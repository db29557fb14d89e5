//! recv(2) and send(2) without glibc's wrappers, on x86-64 and AArch64 Linux with a dynamic glibc.
//!
//! In glibc `recv` and `send` are cancellation points of pthread_cancel(3). In a multi-threaded
//! process a cancellation point costs at least two function calls and, before glibc 2.41, two
//! atomic read-modify-writes per system call. Cancelling a thread is undefined behaviour in Rust,
//! so cancellation points are not needed. Therefore [`kernel`](super::kernel) makes the calls. In a
//! build in which the simulator defines `syscall`, the C library's own `syscall` makes them
//! instead.
//!
//! Sanitizers, preloaded libraries (LD_PRELOAD) and programs may define functions of these names or
//! `syscall`, and those functions must get the calls. Before the first call, [`choose`] checks
//! whether the dynamic linker has found `recv`, `send` and `syscall` in glibc. If one of them is in
//! another object, every call goes to `recv` and `send`.
//!
//! System call tracers (strace, seccomp, perf) see recvfrom(2) and sendto(2), as with glibc's
//! functions. A breakpoint or a uprobe on glibc's `recv` or `send` does not see the calls.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_long, c_void};
use std::mem::MaybeUninit;
#[cfg(any(test, all(feature = "sim", not(netpoll_no_interpose))))]
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};

use libc::{size_t, ssize_t};

const UNKNOWN: u8 = 0;
const BY_SYSCALL: u8 = 1;
const BY_FUNCTION: u8 = 2;

/// The choice: one of the three constants above. Every thread makes the same choice, so no ordering
/// is needed.
static CHOICE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Calls recv(2).
///
/// # Safety
/// `buf` must be valid for writes of `len` bytes during the call.
#[inline]
pub(in crate::sys) unsafe fn recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    if CHOICE.load(Ordering::Relaxed) == BY_SYSCALL {
        // SAFETY: the caller's promise; no address is requested.
        return unsafe { call(libc::SYS_recvfrom, fd, buf, len, flags) };
    }
    // SAFETY: the caller's promise.
    unsafe { recv_by_function(fd, buf, len, flags) }
}

/// Calls send(2).
///
/// # Safety
/// `buf` must be valid for reads of `len` bytes during the call.
#[inline]
pub(in crate::sys) unsafe fn send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    if CHOICE.load(Ordering::Relaxed) == BY_SYSCALL {
        // SAFETY: the caller's promise; no address is passed.
        return unsafe { call(libc::SYS_sendto, fd, buf.cast_mut(), len, flags) };
    }
    // SAFETY: the caller's promise.
    unsafe { send_by_function(fd, buf, len, flags) }
}

/// Makes the system call `number`, recvfrom(2) or sendto(2), without an address. The result fits
/// into `ssize_t`, like that of recv(2).
///
/// # Safety
/// `buf` must be valid during the call for the `len` bytes that the call reads or writes.
#[inline]
unsafe fn call(number: c_long, fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    #[cfg(all(feature = "sim", not(netpoll_no_interpose)))]
    // SAFETY: the caller's promise.
    return unsafe { crate::sim::system_call()(number, fd, buf, len, flags, ptr::null_mut(), 0) } as ssize_t;
    #[cfg(not(all(feature = "sim", not(netpoll_no_interpose))))]
    // SAFETY: the caller's promise.
    return unsafe { super::kernel::call(number, fd, buf, len, flags) };
}

/// Returns the address of the `syscall` that [`call`] calls or replaces. If the simulator defines
/// `syscall`, this is the next definition after that of the simulator.
fn syscall() -> *const c_void {
    #[cfg(all(feature = "sim", not(netpoll_no_interpose)))]
    return crate::sim::find_system_call();
    #[cfg(not(all(feature = "sim", not(netpoll_no_interpose))))]
    return libc::syscall as *const c_void;
}

/// Calls libc's `recv`. If the choice has not been made yet, makes it first.
///
/// # Safety
/// Same as [`recv`].
#[cold]
unsafe fn recv_by_function(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    choose();
    // SAFETY: the caller's promise.
    unsafe { libc::recv(fd, buf, len, flags) }
}

/// Calls libc's `send`. If the choice has not been made yet, makes it first.
///
/// # Safety
/// Same as [`send`].
#[cold]
unsafe fn send_by_function(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    choose();
    // SAFETY: the caller's promise.
    unsafe { libc::send(fd, buf, len, flags) }
}

/// Makes the choice if it has not been made yet.
fn choose() {
    if CHOICE.load(Ordering::Relaxed) == UNKNOWN {
        let library = object(libc::gnu_get_libc_version as *const c_void);
        let functions = [libc::recv as *const c_void, libc::send as *const c_void, syscall()];
        let is_own = library.is_some() && functions.into_iter().all(|function| object(function) == library);
        CHOICE.store(if is_own { BY_SYSCALL } else { BY_FUNCTION }, Ordering::Relaxed);
    }
}

/// Returns the base address of the object file that contains `address`, or `None` if there is none
/// (dladdr(3)).
fn object(address: *const c_void) -> Option<*mut c_void> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `info` is valid for writes during the call, which only compares `address`.
    let is_found = unsafe { libc::dladdr(address, info.as_mut_ptr()) } != 0;
    // SAFETY: all zeroes is a valid value, and the call has filled it in.
    is_found.then(|| unsafe { info.assume_init() }.dli_fbase)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read as _, Write as _};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A sanitizer defines its own functions in the executable.
    #[test]
    fn own_functions_of_glibc_are_replaced() {
        choose();
        let has_own = object(libc::recv as *const c_void) != object(libc::gnu_get_libc_version as *const c_void);
        assert_eq!(CHOICE.load(Ordering::Relaxed), if has_own { BY_FUNCTION } else { BY_SYSCALL });
        let library = object(libc::gnu_get_libc_version as *const c_void);
        assert_ne!(object(own_functions_of_glibc_are_replaced as *const c_void), library);
        assert_eq!(object(ptr::null()), None);
    }

    #[test]
    fn results_and_errors_are_those_of_the_functions() {
        choose();
        let (mut one, mut other) = UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let fd = one.as_raw_fd();
        let receive = |buf: &mut [u8]| {
            // SAFETY: the memory is valid.
            let count = unsafe { recv(fd, buf.as_mut_ptr().cast(), buf.len(), 0) };
            usize::try_from(count).map_err(|_| io::Error::last_os_error())
        };
        let transmit = |buf: &[u8]| {
            // SAFETY: the memory is valid.
            let count = unsafe { send(fd, buf.as_ptr().cast(), buf.len(), libc::MSG_NOSIGNAL) };
            usize::try_from(count).map_err(|_| io::Error::last_os_error())
        };
        let mut buf = [0; 8];
        assert_eq!(receive(&mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        other.write_all(b"abc").unwrap();
        assert_eq!((receive(&mut buf).unwrap(), &buf[..3]), (3, &b"abc"[..]));
        assert_eq!(transmit(b"defg").unwrap(), 4);
        assert_eq!((other.read(&mut buf).unwrap(), &buf[..4]), (4, &b"defg"[..]));
        drop(other);
        assert_eq!(receive(&mut buf).unwrap(), 0);
        assert_eq!(transmit(b"h").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        one.flush().unwrap();
    }
}
