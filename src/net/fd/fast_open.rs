//! TCP Fast Open: the kernel begins the connection when the first data is sent
//! (TCP_FASTOPEN_CONNECT, tcp(7)).
//!
//! # States
//! *deferred* (connect(2) returned 0 and sent nothing; the socket is in SYN-SENT) → *begun* (the
//! SYN is sent, with the first data, or without data because a wait or a shutdown came first) →
//! *established* or *failed*.
//!
//! # Rules
//! * The first wait begins the connection. Otherwise no event would follow, because a read of a
//!   deferred socket returns EAGAIN and does not begin the connection. A descriptor is registered
//!   with the poller before its first wait, so the registration (`Fd::register_now`) begins the
//!   connection, by a send of zero bytes, which makes the kernel send the SYN.
//! * A send returns EINPROGRESS if the SYN carries none of its data. The operation then waits, as
//!   after EAGAIN (`Fd::is_early`).
//! * In SYN-SENT, shutdown(2) and the close of the last descriptor abort the connection. So a task
//!   performs them on a duplicate descriptor when the connection is established: the FIN is sent,
//!   and data that was sent with the SYN is not lost. If the connection was begun without data,
//!   nothing can be lost, and the close is immediate.
//!
//! # Cancellation
//! The task ends when the connection is established or has failed, at the latest when the kernel
//! gives up. If a shutdown of the runtime drops the task, the duplicate is closed immediately, and
//! the task's shutdown(2) is omitted. If the duplicate was the last descriptor, its close aborts
//! the connection.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sync::{AtomicU32, Ordering};
use crate::sys::{option, socket};

/// How the connection of a socket was or will be begun: one of the constants below.
///
/// ORDERING: Relaxed: the value guards no other memory. The kernel knows the actual state, so a
/// stale value only leads to another query.
#[derive(Debug, Default)]
pub(super) struct FastOpen(AtomicU32);

/// Fast Open is not used: connect(2) begins the connection.
const NEVER: u32 = 0;
/// The first data, wait or shutdown begins the connection. As far as is known, none of them has
/// happened.
const DEFERRED: u32 = 1;
/// A wait or a shutdown began the connection, without data.
pub(super) const WAITED: u32 = 2;
/// The first data began the connection, or connect(2) was not deferred after all.
const SENT: u32 = 3;

/// Returns the number of segments that a TCP socket in SYN-SENT has sent: 0 if the connect is
/// deferred, 1 for the SYN, 2 for the SYN and data. Returns `None` in any other state, and for
/// other sockets.
pub(super) fn connecting(fd: BorrowedFd<'_>) -> Option<u32> {
    option::syn_segments(fd)
}

impl FastOpen {
    pub(super) fn state(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Records that connect(2) may have been deferred.
    pub(super) fn defer(&self) {
        self.0.store(DEFERRED, Ordering::Relaxed);
    }

    /// Returns whether connect(2) may have been deferred.
    pub(super) fn is_used(&self) -> bool {
        self.state() != NEVER
    }

    /// Records how the connection was begun.
    fn set_begun(&self, state: u32) {
        let _ = self.0.compare_exchange(DEFERRED, state, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Begins the connection without data, unless it has begun.
    pub(super) fn begin(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.state() != DEFERRED {
            return Ok(());
        }
        if connecting(fd) != Some(0) {
            self.set_begun(SENT);
            return Ok(());
        }
        match socket::send(fd, &[], 0) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => self.set_begun(WAITED),
            // `WouldBlock` means that another thread began the connection first.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => self.set_begun(SENT),
        }
        Ok(())
    }
}
