//! TCP Fast Open: a connection that the kernel begins with the first data (TCP_FASTOPEN_CONNECT, tcp(7)).
//!
//! # States
//! *deferred* (connect(2) returned 0 and sent nothing; the socket is in SYN-SENT) → *begun* (the SYN is out, with the first data, or
//! without data because a wait came first) → *established*.
//!
//! # Rules
//! * The first wait begins the connection. Nothing else would: a read of a deferred socket answers EAGAIN, and no event follows. A descriptor
//!   is registered with the poller before it waits for the first time, so that is the place ([`Fd::register`]). A send of no bytes makes
//!   the kernel send the SYN.
//! * A send whose data the SYN does not take answers EINPROGRESS. It waits, as after EAGAIN ([`Fd::is_early`]).
//! * In SYN-SENT the kernel takes shutdown(2), and the close of the last descriptor, for an abort. A task makes them when the connection is
//!   established, with a duplicate: the FIN is sent, and data that went with the SYN are not lost. After a connection that was
//!   begun without data nothing can be lost, and the close is made at once.
//!
//! # Cancellation
//! The task ends when the connection is established or has failed, at the latest when the kernel gives up.

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

/// How a socket's connection is begun: one of the following.
///
/// ORDERING: the kernel has the truth and is asked under its own lock; the value guards nothing. Who reads an older one asks again.
#[derive(Debug, Default)]
pub(super) struct FastOpen(AtomicU32);

/// By connect(2).
const NEVER: u32 = 0;
/// By the first data or the first wait, which has not come as far as is known.
const DEFERRED: u32 = 1;
/// By a wait, without data.
const WAITED: u32 = 2;
/// By the first data.
const SENT: u32 = 3;

/// Whether a socket is in SYN-SENT, and then how many segments it has sent: none (the connect is deferred), the SYN, or the SYN and
/// data.
fn connecting(fd: BorrowedFd<'_>) -> Option<u32> {
    /// TCP_SYN_SENT of netinet/tcp.h.
    const SYN_SENT: u8 = 2;
    // What is no TCP socket is in no such state.
    let info = option::tcp_info(fd).ok().filter(|info| info.tcpi_state == SYN_SENT)?;
    Some(info.tcpi_unacked)
}

impl FastOpen {
    fn state(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// It is known how the connection was begun.
    fn set_begun(&self, state: u32) {
        let _ = self.0.compare_exchange(DEFERRED, state, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Begins the connection, without data, if it is not begun.
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
            // Another thread was quicker.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => self.set_begun(SENT),
        }
        Ok(())
    }
}

/// Does to the socket behind `fd` what had to wait for its connection: shuts it down, if `how` says so, and closes it.
fn finish_later(fd: OwnedFd, how: Option<Shutdown>) -> io::Result<()> {
    let fd = Fd::new(fd, false)?;
    // SO_LINGER is the socket's.
    fd.set_may_linger();
    drop(task::spawn(async move {
        if dial::established(&fd, false).await.is_ok()
            && let Some(how) = how
        {
            // A connection that has failed meanwhile has nothing to shut down.
            let _ = fd.with(|fd| socket::shutdown(fd, how));
        }
    }));
    Ok(())
}

impl Fd {
    /// The socket may be one whose connect(2) was deferred.
    pub(crate) fn set_fast_open(&self) {
        self.fast_open_or_default().0.store(DEFERRED, Ordering::Relaxed);
    }

    /// The same of a socket that comes from elsewhere, if it is under way.
    pub(crate) fn find_fast_open(&self) {
        if connecting(self.borrow()).is_some() {
            self.set_fast_open();
        }
    }

    fn used_fast_open(&self) -> Option<&FastOpen> {
        self.fast_open().filter(|fast_open| fast_open.state() != NEVER)
    }

    /// Sees that the descriptor is registered with the poller, and that there is something to wait for. The caller holds a reference.
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

    /// Whether a call failed because the connection is not there yet, so that it has to wait.
    #[cold]
    pub(super) fn is_early(&self, error: &io::Error) -> bool {
        error.raw_os_error() == Some(libc::EINPROGRESS) && self.used_fast_open().is_some()
    }

    /// shutdown(2), which a connection that is under way gets when it is established.
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

    /// A duplicate that keeps a connection which is under way, and has data that went with its SYN, from being aborted by the close.
    pub(super) fn unfinished(&self) -> Option<OwnedFd> {
        let fast_open = self.used_fast_open()?;
        let fd = self.borrow();
        let is_at_risk = fast_open.state() != WAITED
            && connecting(fd).is_some_and(|segments| segments > 1)
            && !fork::is_child()
            && !matches!(options::linger(fd), Ok(Some(Duration::ZERO)));
        // Without a number left the close is an abort.
        if is_at_risk { socket::dup_cloexec(fd).ok() } else { None }
    }

    /// Closes what [`unfinished`](Fd::unfinished) gave.
    pub(super) fn close_later(unfinished: OwnedFd) {
        // What cannot wait is closed.
        let _ = finish_later(unfinished, None);
    }
}
