//! The placeholder: a descriptor on which reads, writes and socket calls fail. A duplicate of it
//! takes the number of a closed socket while other code may still use the number.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use super::os;

/// A number that no descriptor has, because systems permit fewer. It is not negative, because
/// socket2 panics on a negative number.
const NEVER_OPEN: RawFd = RawFd::MAX;

/// Returns the placeholder of the process. The first call opens it, and it stays open.
///
/// # Errors
/// Returns the error of open(2), such as EMFILE, and EPERM in a simulation, unless the placeholder
/// is already open.
pub(crate) fn get() -> io::Result<BorrowedFd<'static>> {
    static PLACEHOLDER: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(fd) = PLACEHOLDER.get() {
        return Ok(fd.as_fd());
    }
    // A simulation must not open files.
    #[cfg(feature = "sim")]
    if crate::sim::simulates() {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    let fd = os::placeholder()?;
    Ok(PLACEHOLDER.get_or_init(|| fd).as_fd())
}

/// Returns a descriptor on which calls fail, to stand for one that is closed: the placeholder or,
/// while it cannot be opened, a number that no descriptor has.
pub(crate) fn closed() -> BorrowedFd<'static> {
    // SAFETY: no descriptor has this number, so it has no owner. It is not -1, which `BorrowedFd`
    // excludes.
    get().unwrap_or_else(|_| unsafe { BorrowedFd::borrow_raw(NEVER_OPEN) })
}
