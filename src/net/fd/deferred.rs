//! A descriptor whose connection is deferred or in progress ([`FastOpen`]): its first wait, its
//! shutdown and its close.

use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use super::connect::established;
use super::failure::Failure;
use super::fast_open::{FastOpen, WAITED, connecting};
use super::fd::Fd;
use crate::rt::fork;
use crate::rt::poll::poller::WaitError;
use crate::sys::{option, socket};
use crate::task;

/// Performs the operations on `fd` that had to wait for its connection: shuts it down if `how` says
/// so, and closes it.
fn finish_later(fd: OwnedFd, how: Option<Shutdown>) -> io::Result<()> {
    let fd = Fd::new(fd, false)?;
    // SO_LINGER is set on the socket.
    fd.set_may_linger();
    drop(task::spawn(async move {
        if established(&fd, false).await.is_ok()
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
        self.fast_open_or_default().defer();
    }

    /// Records the same for a socket that comes from elsewhere, if its connect is in progress.
    pub(crate) fn find_fast_open(&self) {
        if connecting(self.borrow()).is_some() {
            self.set_fast_open();
        }
    }

    /// Returns whether connect(2) may have been deferred.
    pub(crate) fn uses_fast_open(&self) -> bool {
        self.used_fast_open().is_some()
    }

    pub(super) fn used_fast_open(&self) -> Option<&FastOpen> {
        self.fast_open().filter(|fast_open| fast_open.is_used())
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
        let registered = self.poll.register(self.borrow());
        if registered.is_ok() {
            self.send_rest_soon();
        }
        registered
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
            let now = self.shut_gathered(how);
            let shut = match now.as_ref().map_or(Some(how), |now| *now) {
                Some(how) => self.shut_now(fd, how),
                None => Ok(()),
            };
            now?;
            shut
        })
    }

    fn shut_now(&self, fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
        if let Some(fast_open) = self.used_fast_open() {
            fast_open.begin(fd)?;
            if connecting(fd).is_some() {
                self.expose();
                return finish_later(socket::dup_cloexec(fd)?, Some(how));
            }
        }
        socket::shutdown(fd, how)?;
        if how != Shutdown::Write {
            self.set_receiving_shut();
        }
        Ok(())
    }

    /// Returns a duplicate that keeps the close from aborting a connection in progress whose SYN
    /// carried data.
    pub(super) fn unfinished(&self) -> Option<OwnedFd> {
        let fast_open = self.used_fast_open()?;
        let fd = self.borrow();
        let is_at_risk = fast_open.state() != WAITED
            && connecting(fd).is_some_and(|segments| segments > 1)
            && !fork::is_child()
            && !matches!(option::socket::linger(fd), Ok(Some(Duration::ZERO)));
        // If no descriptor is available, the close is an abort.
        if is_at_risk { socket::dup_cloexec(fd).ok() } else { None }
    }

    /// Closes the result of [`unfinished`](Fd::unfinished) when the connection is established.
    pub(super) fn close_later(unfinished: OwnedFd) {
        // On an error it is closed now.
        let _ = finish_later(unfinished, None);
    }
}
