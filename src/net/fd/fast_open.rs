//! TCP Fast Open: the kernel begins a connection with the first data (TCP_FASTOPEN_CONNECT,
//! tcp(7)).
//!
//! # States
//! *deferred* (connect(2) returned 0 and sent nothing; the socket is in SYN-SENT) → *begun* (the
//! SYN is sent, with the first data, or without data because a wait came first) → *established*.
//!
//! # Rules
//! * The first wait begins the connection. Nothing else would: a read of a deferred socket returns
//!   EAGAIN, and no event follows. A descriptor is registered with the poller before its first
//!   wait, so this is done there ([`Fd::register`]), by a send of no bytes, which makes the kernel
//!   send the SYN.
//! * A send whose data does not fit into the SYN returns EINPROGRESS. It waits, as after EAGAIN
//!   ([`Fd::is_early`]).
//! * In SYN-SENT the kernel treats shutdown(2), and the close of the last descriptor, as an abort.
//!   A task performs them when the connection is established, on a duplicate, so the FIN is sent
//!   and data that was sent with the SYN is not lost. If the connection was begun without data,
//!   nothing can be lost, and the close is immediate.
//!
//! # Cancellation
//! The task ends when the connection is established or has failed, at the latest when the kernel
//! gives up.

use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use super::dial;
use super::fd::Fd;
use super::operation::Failure;
use crate::net::options;
use crate::rt::fork;
use crate::rt::poll::poller::WaitError;
use crate::sync::{AtomicU32, Ordering};
use crate::sys::{option, socket};
use crate::task;

/// How a socket's connection is begun: one of the constants below.
///
/// ORDERING: the kernel has the truth and is asked under its own lock; the value guards nothing. A
/// stale value leads to another query.
#[derive(Debug, Default)]
pub(super) struct FastOpen(AtomicU32);

/// With connect(2).
const NEVER: u32 = 0;
/// With the first data or the first wait, neither of which has happened as far as is known.
const DEFERRED: u32 = 1;
/// With a wait, without data.
const WAITED: u32 = 2;
/// With the first data.
const SENT: u32 = 3;

/// Returns `None` unless the socket is in SYN-SENT; otherwise the number of segments that it has
/// sent: 0 if the connect is deferred, 1 for the SYN, 2 for the SYN and data.
fn connecting(fd: BorrowedFd<'_>) -> Option<u32> {
    /// TCP_SYN_SENT of netinet/tcp.h.
    const SYN_SENT: u8 = 2;
    // A socket that is not TCP is not in this state.
    let info = option::tcp_info(fd).ok().filter(|info| info.tcpi_state == SYN_SENT)?;
    Some(info.tcpi_unacked)
}

impl FastOpen {
    fn state(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Records how the connection was begun.
    fn set_begun(&self, state: u32) {
        let _ = self.0.compare_exchange(DEFERRED, state, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Begins the connection without data, unless it has begun.
    fn begin(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.state() != DEFERRED {
            return Ok(());
        }
        if connecting(fd) != Some(0) {
            self.set_begun(SENT);
            return Ok(());
        }
        match socket::send(fd, &[], 0) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => self.set_begun(WAITED),
            // Another thread began it first.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => self.set_begun(SENT),
        }
        Ok(())
    }
}

/// Performs the operations on `fd` that had to wait for its connection: shuts it down if `how` says
/// so, and closes it.
fn finish_later(fd: OwnedFd, how: Option<Shutdown>) -> io::Result<()> {
    let fd = Fd::new(fd, false)?;
    // SO_LINGER is set on the socket.
    fd.set_may_linger();
    drop(task::spawn(async move {
        if dial::established(&fd, false).await.is_ok()
            && let Some(how) = how
        {
            // If the connection has failed in the meantime, there is nothing to shut down.
            let _ = fd.with(|fd| socket::shutdown(fd, how));
        }
    }));
    Ok(())
}

impl Fd {
    /// Records that connect(2) may have been deferred.
    pub(crate) fn set_fast_open(&self) {
        self.fast_open_or_default().0.store(DEFERRED, Ordering::Relaxed);
    }

    /// Records the same for a socket that comes from elsewhere, if its connect is in progress.
    pub(crate) fn find_fast_open(&self) {
        if connecting(self.borrow()).is_some() {
            self.set_fast_open();
        }
    }

    fn used_fast_open(&self) -> Option<&FastOpen> {
        self.fast_open().filter(|fast_open| fast_open.state() != NEVER)
    }

    /// Registers the descriptor with the poller, and begins a deferred connection so that there is
    /// something to wait for. The caller must hold a reference.
    #[inline]
    pub(super) fn register(&self) -> Result<u32, WaitError> {
        match self.poll.registered() {
            Some(epoch) => Ok(epoch),
            None => self.register_now(),
        }
    }

    #[cold]
    fn register_now(&self) -> Result<u32, WaitError> {
        if let Some(fast_open) = self.used_fast_open() {
            fast_open.begin(self.borrow()).map_err(WaitError::Io)?;
        }
        self.poll.register(self.borrow())
    }

    /// Returns whether a call failed because the connection is not established yet, so that it has
    /// to wait.
    #[cold]
    pub(super) fn is_early(&self, error: &io::Error) -> bool {
        error.raw_os_error() == Some(libc::EINPROGRESS) && self.used_fast_open().is_some()
    }

    /// Calls shutdown(2); if the connection is in progress, when it is established.
    pub(crate) fn shutdown(&self, how: Shutdown) -> Result<(), Failure> {
        self.with(|fd| {
            if let Some(fast_open) = self.used_fast_open() {
                fast_open.begin(fd)?;
                if connecting(fd).is_some() {
                    self.expose();
                    return finish_later(socket::dup_cloexec(fd)?, Some(how));
                }
            }
            socket::shutdown(fd, how)
        })
    }

    /// Returns a duplicate that keeps the close from aborting a connection in progress whose SYN
    /// carried data.
    pub(super) fn unfinished(&self) -> Option<OwnedFd> {
        let fast_open = self.used_fast_open()?;
        let fd = self.borrow();
        let is_at_risk = fast_open.state() != WAITED
            && connecting(fd).is_some_and(|segments| segments > 1)
            && !fork::is_child()
            && !matches!(options::linger(fd), Ok(Some(Duration::ZERO)));
        // If no descriptor is available, the close is an abort.
        if is_at_risk { socket::dup_cloexec(fd).ok() } else { None }
    }

    /// Closes the result of [`unfinished`](Fd::unfinished) when the connection is established.
    pub(super) fn close_later(unfinished: OwnedFd) {
        // On an error it is closed now.
        let _ = finish_later(unfinished, None);
    }
}
