//! Passing descriptors in messages (SCM_RIGHTS, unix(7)).
//!
//! # Rules
//! * The receiver gets duplicates, which are close-on-exec. The sender may close its descriptors as
//!   soon as the message is sent.
//! * On a stream, descriptors travel with the first byte of their message, and a read that receives
//!   descriptors takes no bytes after that message. If a read does not ask for descriptors, it
//!   takes the bytes, and the kernel closes the descriptors.
//! * If the control data of a message is incomplete (MSG_CTRUNC), the descriptors that arrived are
//!   closed, and the read returns [`TruncatedFds`]. An incomplete set of descriptors is useless to
//!   the caller. Usually the descriptor limit of this process is reached, or a security module
//!   refuses a descriptor. The kernel also sets the flag if other control data exceeds the buffer,
//!   so the flag does not show whether the message had descriptors.

use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};

use socket2::SockAddr;

use crate::sys::control::{ControlWriter, RIGHTS_WORDS, Word};
use crate::sys::message;

/// The size of the control buffer in words. It includes room for credentials and security labels,
/// which come first if the program enabled them, and which must not displace the descriptors.
const CONTROL_WORDS: usize = RIGHTS_WORDS + 64;

/// The error of a message whose descriptors, or other control data, could not all be received. The
/// received descriptors were closed; the message's bytes are in the buffer.
///
/// The usual cause is the limit on open files. A security module may also refuse a descriptor. If
/// the program has enabled other control data, such as security labels, the error may mean that the
/// label was too long. The error is contained in an [`io::Error`] of kind
/// [`InvalidData`](io::ErrorKind::InvalidData); `downcast_ref` extracts it.
///
/// # Examples
/// ```no_run
/// # netpoll::task::block_on(async {
/// use netpoll::os::unix::net::{TruncatedFds, UnixStream};
///
/// # let stream = UnixStream::connect("/run/example").await?;
/// let (mut buf, mut fds) = ([0; 64], Vec::new());
/// match stream.recv_with_fds(&mut buf, &mut fds).await {
///     Ok(count) => println!("{count} bytes, {} descriptors", fds.len()),
///     Err(error) => match error.get_ref().and_then(|error| error.downcast_ref::<TruncatedFds>()) {
///         Some(truncated) => println!("{} bytes, no descriptors", truncated.bytes()),
///         None => return Err(error),
///     },
/// }
/// # Ok(()) }).unwrap();
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TruncatedFds {
    bytes: usize,
}

impl TruncatedFds {
    /// Returns the number of bytes that were read.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Display for TruncatedFds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not all control data of the message was received, so its descriptors were closed; \
             the usual cause is the limit of open files",
        )
    }
}

/// Prints the text of the error, because `main` prints a returned error with `Debug`.
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

/// Sends one message with bytes and descriptors. On a stream, `buf` must not be empty if there are
/// descriptors.
pub(super) fn send(fd: BorrowedFd<'_>, buf: &[u8], fds: &[BorrowedFd<'_>], to: Option<&SockAddr>) -> io::Result<usize> {
    let mut words: [Word; RIGHTS_WORDS] = [0; RIGHTS_WORDS];
    let mut control = ControlWriter::new(&mut words);
    control.push_fds(fds)?;
    let control = (!fds.is_empty()).then_some(&control);
    message::sendmsg(fd, &[IoSlice::new(buf)], to, control, 0)
}

/// Calls recvmsg(2): reads into `buf` and appends the received descriptors to `fds`. Returns the
/// number of bytes and the sender's address, or [`TruncatedFds`] if control data is missing.
pub(super) fn recv(fd: BorrowedFd<'_>, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<(usize, SockAddr)> {
    let mut words: [Word; CONTROL_WORDS] = [0; CONTROL_WORDS];
    let mut received = message::recvmsg(fd, &mut [IoSliceMut::new(buf)], &mut words, 0)?;
    if received.flags & libc::MSG_CTRUNC != 0 {
        return Err(TruncatedFds { bytes: received.bytes }.into());
    }
    received.control.take_fds(fds);
    Ok((received.bytes, received.address))
}

/// Returns the error for sending descriptors without any bytes on a stream.
#[cold]
pub(super) fn need_a_byte() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "descriptors must be sent with at least one byte")
}
