//! Definitions for systems without splice(2). Creating a pipe returns ENOSYS, and the caller copies
//! through a buffer. sendfile(2) has another form on these systems ([`send_file`]).

#![allow(unsafe_code)]

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::send_file;
use crate::sys::os;

/// A pipe, which cannot be created on these systems.
#[derive(Debug)]
pub(crate) struct Pipe {
    never: Infallible,
    /// The number of buffers.
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

/// Calls sendfile(2) for at most `most` bytes of `file`, from `offset` or, if it is `None`, from
/// the file's own position. Advances the offset or the position. Returns ENOSYS if the caller must
/// copy the bytes through a buffer.
pub(crate) fn sendfile(
    to: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: Option<&mut u64>,
    most: usize,
) -> io::Result<usize> {
    let call = |at, most| os::sendfile(to, file, at, most);
    match offset {
        Some(offset) => send_file::send(offset, most, call),
        None => send_file::send_from_position(file, most, call),
    }
}

/// Calls pread(2).
pub(crate) fn read_at(file: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let at = i64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: `buf` is valid for writes of its length during the call, and the kernel writes
    // initialised bytes.
    let count = unsafe { libc::pread(file.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), at) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
