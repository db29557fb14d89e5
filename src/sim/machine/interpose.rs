//! C library functions that this crate defines in the program. They answer calls on simulated
//! descriptors. On the thread of a simulation, they also answer or refuse calls for sockets, names,
//! files, threads, the clock and random numbers. If only the clock is virtual, they answer only the
//! calls for the clock. All other calls go to the C library's own functions.
//!
//! A definition in the program takes precedence over a definition in a shared library. So this
//! crate, `socket2` and std call these functions without changes to their source. Outside
//! simulations, each call costs an additional comparison or two, and a jump. `recv` and `send`,
//! which are on the hot path, are not defined here: `sys::socket` itself compares the number of the
//! descriptor. Calls of `recv` and `send` by other code, such as std and `socket2`, fail with EBADF
//! on a simulated descriptor.
//!
//! # Requirements
//! The program must be linked dynamically with glibc, so that `dlsym(RTLD_NEXT)` finds the function
//! of the C library. The processor must have 64 bits, so that times have 64 bits. A program that
//! defines `clock_gettime`, `getrandom` or `syscall` itself must be built with
//! `--cfg netpoll_no_interpose`. In its simulations, std then uses the real clock and real random
//! numbers, unless the program's functions call [`sim::clock_gettime`](crate::sim::clock_gettime)
//! and [`sim::getrandom`](crate::sim::getrandom).
//!
//! # Signal safety
//! Outside simulations, the functions only compare a number or read a thread-local, and jump. The
//! first call of each function looks up the C library's function with dlsym(3), which is not
//! async-signal-safe. A call on a simulated descriptor is not async-signal-safe either: it may take
//! a lock.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};

#[cfg(not(netpoll_no_interpose))]
use libc::c_long;
use libc::{
    addrinfo, c_char, c_int, c_uint, c_ulong, c_void, clockid_t, iovec, mmsghdr, msghdr, off64_t, pollfd, size_t,
    sockaddr, socklen_t, ssize_t, timespec,
};

use super::abi;
use super::backend::is_simulated;
#[cfg(not(netpoll_no_interpose))]
use super::current::is_virtual;
use super::current::{now, simulates};
use super::{host, messages, names};

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
compile_error!("the feature `sim` needs 64-bit Linux with glibc, because it defines functions of the C library");

/// Returns the C library's function `name` and stores it in `place`. Aborts the process if there is
/// no such function.
#[cold]
fn find(place: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    // SAFETY: the name is a NUL-terminated string.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if found.is_null() {
        eprintln!("netpoll: the C library has no {name:?}: the feature `sim` needs glibc, dynamically linked");
        std::process::abort();
    }
    place.store(found, Ordering::Relaxed);
    found
}

/// Converts a result to the return value of a C function. On failure, sets errno and returns -1.
pub(super) fn answer<T: From<i8>>(result: Result<T, i32>) -> T {
    result.unwrap_or_else(|errno| {
        // SAFETY: the call has no preconditions. It returns the address of this thread's errno.
        let place = unsafe { libc::__errno_location() };
        // SAFETY: the address is valid for writes.
        unsafe { place.write(errno) };
        T::from(-1)
    })
}

/// Defines functions, each with the condition under which the simulation answers the call, and the
/// answer.
macro_rules! interpose {
    ($(
        $(#[doc = $doc:literal])+
        fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty, if $condition:expr => $answer:expr;
    )*) => {$(
        $(#[doc = $doc])+
        ///
        /// # Safety
        /// Same as for the C library's function.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $ty),*) -> $ret {
            /// The C library's function, or `look_up` before the first call.
            static REAL: AtomicPtr<c_void> = AtomicPtr::new(look_up as *mut c_void);

            /// # Safety
            /// Same as for the C library's function.
            #[cold]
            unsafe extern "C" fn look_up($($arg: $ty),*) -> $ret {
                let real = find(&REAL, const {
                    match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => panic!("a name with a zero byte"),
                    }
                });
                // SAFETY: the C library's function of this name can be called with this type, even
                // if it is variadic.
                let real = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($ty),*) -> $ret>(real) };
                // SAFETY: the caller keeps the function's contract.
                unsafe { real($($arg),*) }
            }

            /// Returns the simulation's answer. This is a separate function, so that other calls
            /// only compare and jump.
            #[cold]
            #[inline(never)]
            #[allow(unused_variables)]
            fn simulated($($arg: $ty),*) -> $ret {
                answer::<$ret>($answer)
            }

            if $condition {
                return simulated($($arg),*);
            }
            let real = REAL.load(Ordering::Relaxed);
            // SAFETY: the C library's function of this name can be called with this type, even if
            // it is variadic, and `look_up` has this type.
            let real = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($ty),*) -> $ret>(real) };
            // SAFETY: the caller keeps the function's contract.
            unsafe { real($($arg),*) }
        }
    )*};
}

interpose! {
    /// socket(2)
    fn socket(domain: c_int, ty: c_int, protocol: c_int) -> c_int,
        if simulates() => abi::socket(domain, ty, protocol);
    /// socketpair(2)
    fn socketpair(domain: c_int, ty: c_int, protocol: c_int, fds: *mut c_int) -> c_int,
        if simulates() => abi::socketpair(domain, ty, protocol, fds);
    /// bind(2)
    fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int,
        if is_simulated(fd) => abi::bind(fd, address, length);
    /// listen(2)
    fn listen(fd: c_int, backlog: c_int) -> c_int,
        if is_simulated(fd) => abi::listen(fd, backlog);
    /// connect(2)
    fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int,
        if is_simulated(fd) => abi::connect(fd, address, length);
    /// accept4(2)
    fn accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int,
        if is_simulated(fd) => abi::accept4(fd, address, length, flags);
    /// shutdown(2)
    fn shutdown(fd: c_int, how: c_int) -> c_int,
        if is_simulated(fd) => abi::shutdown(fd, how);
    /// getsockname(2)
    fn getsockname(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int,
        if is_simulated(fd) => abi::getsockname(fd, address, length);
    /// getpeername(2)
    fn getpeername(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int,
        if is_simulated(fd) => abi::getpeername(fd, address, length);
    /// getsockopt(2)
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t) -> c_int,
        if is_simulated(fd) => abi::getsockopt(fd, level, name, value, length);
    /// setsockopt(2)
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, length: socklen_t) -> c_int,
        if is_simulated(fd) => abi::setsockopt(fd, level, name, value, length);
    /// close(2)
    fn close(fd: c_int) -> c_int,
        if is_simulated(fd) => abi::close(fd);
    /// fcntl(2). Its third argument is passed like that of a function with three parameters.
    fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int,
        if is_simulated(fd) => abi::fcntl(fd, command, argument);
    /// ioctl(2)
    fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int,
        if is_simulated(fd) => abi::ioctl(fd, request, argument);
    /// poll(2)
    fn poll(entries: *mut pollfd, count: c_ulong, timeout: c_int) -> c_int,
        if simulates() && abi::has_simulated(entries, count) => abi::poll(entries, count, timeout);
    /// read(2)
    fn read(fd: c_int, buf: *mut c_void, count: size_t) -> ssize_t,
        if is_simulated(fd) => abi::read(fd, buf, count);
    /// write(2)
    fn write(fd: c_int, buf: *const c_void, count: size_t) -> ssize_t,
        if is_simulated(fd) => abi::write(fd, buf, count);
    /// readv(2)
    fn readv(fd: c_int, bufs: *const iovec, count: c_int) -> ssize_t,
        if is_simulated(fd) => abi::readv(fd, bufs, count);
    /// writev(2)
    fn writev(fd: c_int, bufs: *const iovec, count: c_int) -> ssize_t,
        if is_simulated(fd) => abi::writev(fd, bufs, count);
    /// recvfrom(2)
    fn recvfrom(
        fd: c_int, buf: *mut c_void, count: size_t, flags: c_int, address: *mut sockaddr,
        length: *mut socklen_t
    ) -> ssize_t,
        if is_simulated(fd) => abi::recvfrom(fd, buf, count, flags, address, length);
    /// sendto(2)
    fn sendto(
        fd: c_int, buf: *const c_void, count: size_t, flags: c_int, address: *const sockaddr,
        length: socklen_t
    ) -> ssize_t,
        if is_simulated(fd) => abi::sendto(fd, buf, count, flags, address, length);
    /// recvmsg(2)
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t,
        if is_simulated(fd) => messages::recvmsg(fd, message, flags);
    /// sendmsg(2)
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t,
        if is_simulated(fd) => messages::sendmsg(fd, message, flags);
    /// recvmmsg(2)
    fn recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int,
        if is_simulated(fd) => messages::recvmmsg(fd, messages, count, flags);
    /// sendmmsg(2)
    fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int,
        if is_simulated(fd) => messages::sendmmsg(fd, messages, count, flags);
    /// sendfile(2)
    fn sendfile64(out: c_int, file: c_int, offset: *mut off64_t, count: size_t) -> ssize_t,
        if is_simulated(out) => Err(libc::EINVAL);
    /// splice(2)
    fn splice(
        from: c_int, from_at: *mut off64_t, to: c_int, to_at: *mut off64_t, count: size_t, flags: c_uint
    ) -> ssize_t,
        if is_simulated(from) || is_simulated(to) => Err(libc::EINVAL);
    /// getaddrinfo(3)
    fn getaddrinfo(
        host: *const c_char, service: *const c_char, hints: *const addrinfo, list: *mut *mut addrinfo
    ) -> c_int,
        if simulates() => Ok(names::getaddrinfo(host, service, hints, list));
    /// getnameinfo(3)
    fn getnameinfo(
        address: *const sockaddr, length: socklen_t, host: *mut c_char, host_length: socklen_t,
        service: *mut c_char, service_length: socklen_t, flags: c_int
    ) -> c_int,
        if simulates() => Ok(names::getnameinfo(
            address, length, (host, host_length), (service, service_length), flags
        ));
    /// open(2). Its third argument is passed like that of a function with three parameters.
    fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int,
        if simulates() && !host::allows_file(path) => Err(libc::EPERM);
    /// open(2)
    fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int,
        if simulates() && !host::allows_file(path) => Err(libc::EPERM);
    /// openat(2). Its fourth argument is passed like that of a function with four parameters.
    fn openat(folder: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int,
        if simulates() && !host::allows_file(path) => Err(libc::EPERM);
    /// openat(2)
    fn openat64(folder: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int,
        if simulates() && !host::allows_file(path) => Err(libc::EPERM);
    /// nanosleep(2)
    fn nanosleep(time: *const timespec, left: *mut timespec) -> c_int,
        if now() != 0 => host::block_for(time);
    /// clock_nanosleep(2). It returns the number of an error instead of setting errno.
    fn clock_nanosleep(clock: clockid_t, flags: c_int, time: *const timespec, left: *mut timespec) -> c_int,
        if now() != 0 && is_virtual(clock) => host::clock_nanosleep(clock, flags, time);
    /// pthread_create(3). It returns the number of an error instead of setting errno.
    fn pthread_create(
        thread: *mut libc::pthread_t, attributes: *const libc::pthread_attr_t, start: *mut c_void,
        argument: *mut c_void
    ) -> c_int,
        if simulates() && !host::allows_threads() => Ok(libc::EPERM);
}

/// The type of the C library's own syscall(2), with the arguments of recvfrom(2) and sendto(2).
#[cfg(not(netpoll_no_interpose))]
pub(crate) type SystemCall =
    unsafe extern "C" fn(c_long, c_int, *mut c_void, size_t, c_int, *mut c_void, size_t) -> c_long;

/// The C library's own syscall(2), or the definition below until [`find_system_call`] is called.
#[cfg(not(netpoll_no_interpose))]
static SYSTEM_CALL: AtomicPtr<c_void> = AtomicPtr::new(syscall as *mut c_void);

/// Finds the C library's own syscall(2) for [`system_call`], and returns its address.
#[cfg(not(netpoll_no_interpose))]
pub(crate) fn find_system_call() -> *const c_void {
    find(&SYSTEM_CALL, c"syscall")
}

/// Returns the C library's own syscall(2), which the hot path calls instead of the definition
/// below.
#[cfg(not(netpoll_no_interpose))]
#[inline]
pub(crate) fn system_call() -> SystemCall {
    // SAFETY: both functions take these arguments.
    unsafe { std::mem::transmute::<*mut c_void, SystemCall>(SYSTEM_CALL.load(Ordering::Relaxed)) }
}

#[cfg(not(netpoll_no_interpose))]
interpose! {
    /// clock_gettime(2)
    fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int,
        if now() != 0 && is_virtual(clock) => host::clock_gettime(clock, time);
    /// getrandom(2)
    fn getrandom(buf: *mut c_void, count: size_t, flags: c_uint) -> ssize_t,
        if simulates() => host::getrandom(buf, count);
    /// syscall(2), by which crates call getrandom(2). Its arguments are passed like those of a
    /// function with seven parameters.
    fn syscall(
        number: c_long, first: c_long, second: c_long, third: c_long, fourth: c_long, fifth: c_long, sixth: c_long
    ) -> c_long,
        if number == libc::SYS_getrandom && simulates() =>
            host::getrandom(first as *mut c_void, second as size_t).map(|count| count as c_long);
}
