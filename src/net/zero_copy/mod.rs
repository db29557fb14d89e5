//! Zero-copy transfers: bytes that the kernel moves without a copy through this process.
//!
//! * [`endpoint`] determines whether a reader or writer is a socket or a file.
//! * [`splice`] moves bytes from one socket to another through a pipe; [`pipes`] keeps the pipes.
//! * [`send_file`] sends from a file.
//! * [`send_zerocopy`] and [`sends`] send from this process's memory without a copy (MSG_ZEROCOPY).
//!
//! `io::copy` chooses between these and its buffer.
//!
//! # Compared with Go (net/splice_linux.go, net/sendfile.go, internal/poll)
//! * A target that is closed or past its deadline is detected before anything is taken from the
//!   source. Go falls back to its buffer, reads from the source, and then fails.
//! * A pipe is held only while it has bytes in it, not while a copy waits: ten thousand idle
//!   proxied connections hold none.
//! * If the target's peer is gone, a wait for a silent source ends (in `io::copy`).

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

/// The maximum number of bytes moved per call, with a pipe of [`pipes::PIPE_BYTES`]. More would
/// occupy the thread for longer than one task should.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// Returns whether the kernel cannot move bytes between these two. Nothing was moved; use a buffer.
/// Sandboxes return ENOSYS and EPERM.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EPERM | libc::EOPNOTSUPP | libc::EACCES))
}

impl NetFd {
    /// Returns the error that a write would return without a system call, before its bytes are
    /// taken from elsewhere.
    pub(crate) fn check_write(&self) -> io::Result<()> {
        match self.fd.poll.side(Direction::Write).begin() {
            Ok(_) => Ok(()),
            Err(stop) => Err(self.error("write", stop.into())),
        }
    }

    /// Waits until the peer accepts no more data: it has closed both sides (`Ok`), or the
    /// connection is gone.
    pub(crate) fn poll_gone(&self, operation: &mut Operation, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Err(failure) = ready!(self.fd.poll_hang_up(Direction::Write, operation, cx)) {
            return Poll::Ready(Err(self.error("write", failure)));
        }
        Poll::Ready(self.with("write", |fd| self.fd.take_error(fd)).and_then(|error| error.map_or(Ok(()), Err)))
    }
}
