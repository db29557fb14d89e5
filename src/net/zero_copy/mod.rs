//! Bytes that move inside the kernel.
//!
//! [`endpoint`] finds out whether a reader or writer is a socket or a file, [`pipes`] keeps the pipes that [`splice`] moves bytes
//! through from one socket to another, [`send_file`] sends from a file. `io::copy` decides between these and its buffer.
//! [`send_zerocopy`] and [`sends`] are MSG_ZEROCOPY: from this process's memory, without a copy.
//!
//! # Compared with Go (net/splice_linux.go, net/sendfile.go, internal/poll)
//! * A target that is closed or past its deadline is found so before anything is taken from the source; Go falls back to its
//!   buffer, reads from the source, and then fails.
//! * A pipe is held while there is something in it, not while a copy waits: ten thousand idle proxied connections hold none.
//! * A target whose peer is gone ends the wait for a silent source (`io::copy` sees to that).

pub(crate) mod endpoint;
pub(crate) mod pipes;
pub(crate) mod send_file;
pub(crate) mod send_zerocopy;
pub(crate) mod sends;
pub(crate) mod splice;

use std::io;
use std::task::{Context, Poll, ready};

use crate::net::fd::net_fd::NetFd;
use crate::net::fd::operation::{Failure, Operation};
use crate::rt::poll::poller::Direction;
use crate::sys::socket;

/// How much one call moves at most. With the pipe of that size: [`pipes::PIPE_BYTES`]. More would keep the thread for longer than
/// a task should have it.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// Whether the kernel says that it cannot move bytes between these two: nothing has been moved, use a buffer.
/// ENOSYS and EPERM are what sandboxes answer.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EPERM | libc::EOPNOTSUPP | libc::EACCES))
}

impl NetFd {
    /// Whether a write would be let through to the system call: before its bytes are taken from elsewhere.
    pub(crate) fn check_write(&self) -> io::Result<()> {
        self.fd
            .poll
            .begin(Direction::Write)
            .map_or_else(|error| Err(self.error("write", Failure::from(error))), |_| Ok(()))
    }

    /// Waits until the peer takes nothing more: it has closed both sides (`Ok`), or the connection is gone.
    pub(crate) fn poll_gone(&self, operation: &mut Operation, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Err(failure) = ready!(self.fd.poll_hang_up(Direction::Write, operation, cx)) {
            return Poll::Ready(Err(self.error("write", failure)));
        }
        Poll::Ready(self.with("write", socket::take_error).and_then(|error| error.map_or(Ok(()), Err)))
    }
}
