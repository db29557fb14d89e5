//! Systems without splice(2): every call is refused with ENOSYS, and the callers copy through a
//! buffer.

#![allow(unsafe_code)]

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A pipe, which cannot be opened on these systems.
#[derive(Debug)]
pub(crate) struct Pipe {
    never: Infallible,
    /// The number of slots.
    pub(crate) slots: usize,
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

impl Pipe {
    pub(crate) fn new(_bytes: usize) -> io::Result<Pipe> {
        refused()
    }

    pub(crate) fn fill(&self, _source: BorrowedFd<'_>, _most: usize) -> io::Result<usize> {
        match self.never {}
    }

    pub(crate) fn drain(&self, _target: BorrowedFd<'_>, _most: usize) -> io::Result<usize> {
        match self.never {}
    }

    pub(crate) fn read(&self, _buf: &mut [u8]) -> io::Result<usize> {
        match self.never {}
    }
}

/// Always refused. (macOS and FreeBSD have a call of this name, which reports the bytes sent
/// together with an error.)
pub(crate) fn sendfile(
    _to: BorrowedFd<'_>,
    _file: BorrowedFd<'_>,
    _offset: Option<&mut u64>,
    _most: usize,
) -> io::Result<usize> {
    refused()
}

/// Reads at an offset (pread(2)).
pub(crate) fn read_at(file: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let at = i64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: `buf` is valid for writes of its length during the call, and the kernel writes initialised bytes.
    let count = unsafe { libc::pread(file.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), at) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
