//! Definitions for systems without MSG_ZEROCOPY.

use std::io;
use std::os::fd::BorrowedFd;

use super::Completion;

/// Fails with ENOPROTOOPT if `on` is true.
pub(crate) fn set(_fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    if on { Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT)) } else { Ok(()) }
}

/// Fails with ENOBUFS, so that the caller sends a copy.
pub(crate) fn send(_fd: BorrowedFd<'_>, _buf: &[u8]) -> io::Result<usize> {
    Err(io::Error::from_raw_os_error(libc::ENOBUFS))
}

/// Does nothing, because on these systems connect(2) does not reset a connection.
pub(crate) fn disconnect(_fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(())
}

/// Fails with `WouldBlock`, because there are no completions.
pub(crate) fn completion(_fd: BorrowedFd<'_>) -> io::Result<Completion> {
    Err(io::ErrorKind::WouldBlock.into())
}
