//! Zero-copy transfers, in which the kernel moves the bytes.
//!
//! * [`endpoint`] determines whether a reader or writer is a socket or a file.
//! * [`splice`] moves bytes from one socket to another through a pipe; [`pipes`] keeps a pool of
//!   pipes.
//! * [`send_file`] sends from a file.
//! * [`send_zerocopy`] and [`sends`] send from this process's memory without a copy (MSG_ZEROCOPY).
//!
//! `io::copy` uses [`splice`] and [`send_file`] where it can, and otherwise a buffer.
//!
//! # Compared with Go (net/splice_linux.go, net/sendfile.go, internal/poll)
//! * A target that is closed or past its deadline is detected before anything is taken from the
//!   source. Go falls back to its buffer, reads from the source, and then fails.
//! * A copy holds no pipe while it waits for its source. Ten thousand idle proxied connections hold
//!   no pipes.
//! * In `io::copy`, the wait for an idle source ends if the target's peer is gone.

pub(crate) mod endpoint;
pub(crate) mod pipes;
pub(crate) mod send_file;
pub(crate) mod send_zerocopy;
pub(crate) mod sends;
pub(crate) mod splice;

use std::io;
use std::task::{Context, Poll, ready};

use crate::net::fd::operation::Operation;
use crate::net::net_fd::NetFd;
use crate::rt::poll::poller::Direction;

/// The maximum number of bytes moved per call. A larger call would occupy the thread for too long.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// Makes `call`, which moves bytes inside the kernel between two descriptors. Returns `None` if the
/// kernel cannot move bytes between them. The call has then moved nothing, and the caller continues
/// with a buffer. Sandboxes return ENOSYS and EPERM.
///
/// A call also fails with the error of the socket's connection, which can have the same number: an
/// ICMP message of a firewall becomes EACCES or EOPNOTSUPP. The kernel reports that error only
/// once, and afterwards the socket seems to be at end of stream. So a call that failed with such a
/// number is repeated, and only a second refusal counts. The error is returned unless the second
/// call moves bytes.
fn unless_refused(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    let result = call();
    let errno = match result.as_ref().err().and_then(io::Error::raw_os_error) {
        Some(libc::EINVAL | libc::ENOSYS) => return Ok(None),
        Some(errno @ (libc::EACCES | libc::EOPNOTSUPP | libc::EPERM)) => errno,
        _ => return result.map(Some),
    };
    loop {
        return match call() {
            Ok(count @ 1..) => Ok(Some(count)),
            Err(again) if again.kind() == io::ErrorKind::Interrupted => continue,
            Err(again) if again.raw_os_error() == Some(errno) => Ok(None),
            _ => result.map(Some),
        };
    }
}

impl NetFd {
    /// Returns an error if a write would fail without a system call: the socket is closed or its
    /// write deadline has passed. Called before bytes are taken from the source.
    pub(crate) fn check_write(&self) -> io::Result<()> {
        match self.fd.poll.side(Direction::Write).begin() {
            Ok(_) => Ok(()),
            Err(stop) => Err(self.error("write", stop.into())),
        }
    }

    /// Waits until no more data can be sent, which an edge reports as HANG_UP of the write
    /// direction (see [`backend`](crate::rt::poll::backend)). Returns the error if the connection
    /// has failed. Also returns an error if this socket is closed or its write deadline has passed.
    pub(crate) fn poll_gone(&self, operation: &mut Operation, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Err(failure) = ready!(self.fd.poll_hang_up(Direction::Write, operation, cx)) {
            return Poll::Ready(Err(self.error("write", failure)));
        }
        Poll::Ready(self.with("write", |fd| self.fd.take_error(fd)).and_then(|error| error.map_or(Ok(()), Err)))
    }
}
