//! Systems without MSG_ZEROCOPY.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::Completion;

/// ENOPROTOOPT to switch it on; it is off.
pub(crate) fn set(_fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    if on { Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT)) } else { Ok(()) }
}

/// ENOBUFS: the caller sends a copy.
pub(crate) fn send(_fd: BorrowedFd<'_>, _buf: &[u8]) -> io::Result<usize> {
    Err(io::Error::from_raw_os_error(libc::ENOBUFS))
}

/// No send is in progress that a reset would stop.
pub(crate) fn disconnect(_fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(())
}

/// No completion comes.
pub(crate) fn wait_for_completion(_fd: BorrowedFd<'_>, _timeout: Duration) {}

/// No completion comes: EAGAIN.
pub(crate) fn completion(_fd: BorrowedFd<'_>) -> io::Result<Completion> {
    Err(io::ErrorKind::WouldBlock.into())
}
