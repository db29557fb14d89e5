//! The system calls kqueue(2) and kevent(2).

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use libc::c_int;
pub(crate) use libc::{
    EV_ADD, EV_CLEAR, EV_DELETE, EV_ENABLE, EV_EOF, EV_ERROR, EV_RECEIPT, EVFILT_READ, EVFILT_USER, EVFILT_WRITE,
    NOTE_TRIGGER, kevent as Kevent,
};

use crate::sys::socket::check;

/// The longest timeout, in seconds. Some kernels refuse longer timeouts.
const SECONDS_MAX: u64 = 100_000_000;

/// Opens a close-on-exec kqueue (kqueue(2)). A child of fork(2) does not inherit it.
pub(crate) fn kqueue() -> io::Result<OwnedFd> {
    // SAFETY: the call has no arguments.
    let number = check(unsafe { libc::kqueue() })?;
    // SAFETY: the kernel just returned this descriptor, and nothing else owns it.
    let queue = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: no pointer is passed.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(queue)
}

/// Returns false, because real system calls cannot be made to fail with EINTR.
#[cfg(test)]
pub(crate) fn interrupt_next_change() -> bool {
    false
}

/// Calls kevent(2): applies `changes`, then waits for events for up to `timeout` nanoseconds, or
/// without limit if `timeout` is `None`. Returns the number of events.
pub(crate) fn kevent(
    queue: BorrowedFd<'_>,
    changes: &[Kevent],
    events: &mut [Kevent],
    timeout: Option<u64>,
) -> io::Result<usize> {
    let limit = timeout.map(|nanos| libc::timespec {
        tv_sec: (nanos / 1_000_000_000).min(SECONDS_MAX) as libc::time_t,
        tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
    });
    let limit = limit.as_ref().map_or(ptr::null(), |limit| &raw const *limit);
    let (change_count, event_count) = (changes.len() as c_int, events.len() as c_int);
    let (changes, events) = (changes.as_ptr(), events.as_mut_ptr());
    // SAFETY: the changes are valid for reads and the events for writes, for the given counts; the
    // limit is null or valid.
    let count = unsafe { libc::kevent(queue.as_raw_fd(), changes, change_count, events, event_count, limit) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
