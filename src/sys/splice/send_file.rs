//! sendfile(2) of macOS and FreeBSD.
//!
//! The call differs from that of Linux in three ways:
//! * The number of bytes sent is reported separately from the result, because a call that fails,
//!   for example with EAGAIN or EINTR, may have sent bytes. In that case [`send`] returns their
//!   number. If the error persists, the next call returns it.
//! * A length of zero means the rest of the file. [`send`] does not make the call for a length of
//!   zero.
//! * The call requires an offset and does not change the file's own position.
//!   [`send_from_position`] reads the position before the call and advances it afterwards.
//!
//! On Linux, unit tests compile this file with a substitute for the call.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, off_t};

fn refusal() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSYS)
}

/// Calls sendfile(2) once from `offset` and advances the offset. `call` makes the call for an
/// offset and a maximum number of bytes, and returns the result and the number of bytes sent.
/// Returns ENOSYS if the caller must copy the bytes through a buffer.
pub(super) fn send(
    offset: &mut u64,
    most: usize,
    call: impl FnOnce(off_t, usize) -> (io::Result<()>, u64),
) -> io::Result<usize> {
    if most == 0 {
        return Ok(0);
    }
    let at = off_t::try_from(*offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    let (result, sent) = call(at, most);
    match result {
        Err(error) if sent == 0 => Err(match error.raw_os_error() {
            // Reading the file failed, the file is not regular or its file system does not support
            // the call, or the target is not a socket. Copying through a buffer succeeds or returns
            // the actual error.
            Some(libc::EIO | libc::ENOTSUP | libc::ENOTSOCK) => refusal(),
            _ => error,
        }),
        _ => {
            *offset += sent;
            Ok(sent as usize)
        }
    }
}

/// Calls sendfile(2) like [`send`], but from the position of `file`, and advances the position.
/// Also returns ENOSYS if the file has no position.
pub(super) fn send_from_position(
    file: BorrowedFd<'_>,
    most: usize,
    call: impl FnOnce(off_t, usize) -> (io::Result<()>, u64),
) -> io::Result<usize> {
    let mut offset = seek(file, 0, libc::SEEK_CUR).map_err(|_| refusal())?;
    let sent = send(&mut offset, most, call)?;
    if sent > 0 {
        // The bytes are sent, so their number is returned in any case. lseek(2) does not fail for a
        // file that has a position.
        let _ = seek(file, sent as off_t, libc::SEEK_CUR);
    }
    Ok(sent)
}

fn seek(file: BorrowedFd<'_>, distance: off_t, from: c_int) -> io::Result<u64> {
    // SAFETY: the call takes no pointers.
    let position = unsafe { libc::lseek(file.as_raw_fd(), distance, from) };
    u64::try_from(position).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _};
    use std::os::fd::AsFd;

    use super::*;

    fn failed(errno: c_int) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn bytes_sent_before_an_error_are_reported() {
        for errno in [libc::EAGAIN, libc::EINTR, libc::EPIPE, libc::EIO] {
            let mut offset = 7;
            let sent = send(&mut offset, 100, |at, most| {
                assert_eq!((at, most), (7, 100));
                (failed(errno), 30)
            });
            assert_eq!((sent.unwrap(), offset), (30, 37));
        }
    }

    #[test]
    fn error_without_bytes_is_returned_and_a_refusal_is_enosys() {
        let errors = [
            (libc::EAGAIN, libc::EAGAIN),
            (libc::EINTR, libc::EINTR),
            (libc::EPIPE, libc::EPIPE),
            (libc::EINVAL, libc::EINVAL),
            (libc::EIO, libc::ENOSYS),
            (libc::ENOTSUP, libc::ENOSYS),
            (libc::ENOTSOCK, libc::ENOSYS),
        ];
        for (errno, expected) in errors {
            let mut offset = 7;
            let error = send(&mut offset, 100, |_, _| (failed(errno), 0)).unwrap_err();
            assert_eq!((error.raw_os_error(), offset), (Some(expected), 7));
        }
    }

    #[test]
    fn no_bytes_and_an_offset_beyond_any_file_make_no_call() {
        let mut offset = 7;
        assert_eq!(send(&mut offset, 0, |_, _| unreachable!()).unwrap(), 0);
        offset = u64::MAX;
        let error = send(&mut offset, 1, |_, _| unreachable!()).unwrap_err();
        assert_eq!((error.raw_os_error(), offset), (Some(libc::EOVERFLOW), u64::MAX));
    }

    #[test]
    fn end_of_the_file_is_zero_bytes() {
        let mut offset = 7;
        assert_eq!((send(&mut offset, 1, |_, _| (Ok(()), 0)).unwrap(), offset), (0, 7));
    }

    #[test]
    fn position_advances_by_the_bytes_sent() {
        let mut file = File::open("/proc/self/exe").unwrap();
        file.read_exact(&mut [0; 5]).unwrap();
        let sent = send_from_position(file.as_fd(), 100, |at, most| {
            assert_eq!((at, most), (5, 100));
            (failed(libc::EAGAIN), 11)
        });
        assert_eq!((sent.unwrap(), file.stream_position().unwrap()), (11, 16));
        let error = send_from_position(file.as_fd(), 100, |_, _| (failed(libc::EAGAIN), 0)).unwrap_err();
        assert_eq!((error.kind(), file.stream_position().unwrap()), (io::ErrorKind::WouldBlock, 16));
    }

    #[test]
    fn file_without_a_position_is_refused() {
        let (reader, _writer) = io::pipe().unwrap();
        let error = send_from_position(reader.as_fd(), 1, |_, _| unreachable!()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSYS));
    }
}
