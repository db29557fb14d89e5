//! Descriptors in messages (SCM_RIGHTS, unix(7)).
//!
//! # Rules
//! * The receiver gets duplicates, close-on-exec. The sender may close its own as soon as the message is sent.
//! * On a stream they travel with the first byte, and a read ends before the next bytes that carry some. A read that does not ask for
//!   them takes the bytes and closes the descriptors: the kernel does.
//! * Where not all of them can be given (the process has no number left), those that came are closed and the read says so with
//!   [`TruncatedFds`]: a part of a message's descriptors is of no use, and what stayed open would leak.

use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};

use socket2::SockAddr;

use crate::sys::control::{ControlWriter, RIGHTS_WORDS, Word};
use crate::sys::message;

/// Room for credentials and labels too, which come first where the host program asked for them: they must not take the descriptors' room.
const CONTROL_WORDS: usize = RIGHTS_WORDS + 64;

/// Descriptors came with a message and not all could be given to this process: all were closed. The message's bytes are in the buffer.
///
/// The usual cause is the limit of open files. It travels inside an [`io::Error`] of kind
/// [`InvalidData`](io::ErrorKind::InvalidData) and is found again by `downcast_ref`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TruncatedFds {
    bytes: usize,
}

impl TruncatedFds {
    /// How many bytes were read.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Display for TruncatedFds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not all descriptors of the message could be received, and those that were are closed")
    }
}

/// The text of the error: `main` prints the error that it returns by `Debug`.
impl fmt::Debug for TruncatedFds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for TruncatedFds {}

impl From<TruncatedFds> for io::Error {
    fn from(error: TruncatedFds) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// One message: bytes, descriptors, and where to. On a stream descriptors need a byte to travel with.
pub(super) fn send(fd: BorrowedFd<'_>, buf: &[u8], fds: &[BorrowedFd<'_>], to: Option<&SockAddr>) -> io::Result<usize> {
    let mut words: [Word; RIGHTS_WORDS] = [0; RIGHTS_WORDS];
    let mut control = ControlWriter::new(&mut words);
    control.push_fds(fds)?;
    let control = (!fds.is_empty()).then_some(&control);
    message::sendmsg(fd, &[IoSlice::new(buf)], to, control, 0)
}

/// One message: its bytes into `buf`, its descriptors behind those in `fds`. How many bytes, and whose.
pub(super) fn recv(fd: BorrowedFd<'_>, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<(usize, SockAddr)> {
    let mut words: [Word; CONTROL_WORDS] = [0; CONTROL_WORDS];
    let mut received = message::recvmsg(fd, &mut [IoSliceMut::new(buf)], &mut words, 0)?;
    if received.flags & libc::MSG_CTRUNC != 0 {
        return Err(TruncatedFds { bytes: received.bytes }.into());
    }
    received.control.take_fds(fds);
    Ok((received.bytes, received.address))
}

/// That descriptors cannot travel on a stream without a byte.
#[cold]
pub(super) fn need_a_byte() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "descriptors travel with at least one byte of a stream")
}
