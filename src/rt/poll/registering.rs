//! The registration of a descriptor with the poller: once, when its first operation has to wait.
//!
//! # States
//! *None* → *adding* → *added*, together with the runtime's epoch; a registration of another epoch
//! counts as none. If two operations are the first to wait, only one adds the descriptor. The other
//! one waits at once, and the edge that an ADD produces finds it. If the ADD fails, all waiters are
//! woken and try themselves, so that each gets its own error.

use std::os::fd::BorrowedFd;

use crate::rt::context;
use crate::rt::fork;
use crate::rt::poll::poll_desc::registration;
use crate::rt::poll::poller::{Direction, PollHandle, WaitError};
use crate::rt::runtime::{Runtime, runtime};
use crate::sync::Ordering;

impl PollHandle {
    #[inline]
    pub(super) fn is_registered(&self, epoch: u32) -> bool {
        let registered = self.desc.registration.load(Ordering::Acquire);
        // One comparison: the epoch's own states after NONE, which is 0, are 1 to ARMED.
        let first = u64::from(epoch) << 32 | 1;
        registered.wrapping_sub(first) < registration::ARMED && runtime().epoch() == epoch
    }

    /// Makes sure that the descriptor is registered, or being registered, with the runtime of the
    /// returned epoch. The caller must keep `fd` open during the call. After [`WaitError::Io`] it
    /// must call [`registration_failed`](PollHandle::registration_failed) once it holds no lock.
    #[inline]
    pub(crate) fn register(&self, fd: BorrowedFd<'_>) -> Result<u32, WaitError> {
        match self.registered() {
            Some(epoch) => Ok(epoch),
            None => self.register_now(fd, false),
        }
    }

    /// Registers a descriptor for the first time. If it is already registered by another handle,
    /// the call fails with EEXIST instead of taking it over.
    pub(crate) fn register_first(&self, fd: BorrowedFd<'_>) -> Result<u32, WaitError> {
        self.register_now(fd, true)
    }

    /// Returns the epoch, if the descriptor is registered with the current runtime.
    #[inline]
    pub(crate) fn registered(&self) -> Option<u32> {
        let epoch = runtime().epoch();
        let added = u64::from(epoch) << 32 | registration::ADDED;
        (self.desc.registration.load(Ordering::Acquire) == added).then_some(epoch)
    }

    #[cold]
    fn register_now(&self, fd: BorrowedFd<'_>, is_first: bool) -> Result<u32, WaitError> {
        fork::check().map_err(WaitError::Io)?;
        let runtime: &'static Runtime = runtime();
        let epoch = runtime.ensure_running();
        if epoch != runtime.epoch() {
            return Err(WaitError::Stopped);
        }
        if !context::is_inside() {
            runtime.find_sysmon().map_err(WaitError::Io)?;
        }
        let state = |state: u64| u64::from(epoch) << 32 | state;
        let mut seen = self.desc.registration.load(Ordering::Acquire);
        loop {
            if seen == state(registration::ADDED) {
                return Ok(epoch);
            }
            if seen == state(registration::ADDING) || seen == state(registration::ARMED) {
                return Ok(epoch);
            }
            let adding = state(registration::ADDING);
            match self.desc.registration.compare_exchange(seen, adding, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        match runtime.driver.add(fd, self.token(), is_first) {
            Ok(arms) => {
                let added = if arms { registration::ARMED } else { registration::ADDED };
                self.desc.registration.store(state(added), Ordering::Release);
                if !runtime.polls_here() {
                    runtime.ensure_poller();
                }
                Ok(epoch)
            }
            Err(error) => {
                // ORDERING: Release, followed by a change of the words in `registration_failed`: a
                // waiter sees that no registration is in progress, or is woken there.
                self.desc.registration.store(registration::NONE, Ordering::Release);
                Err(WaitError::Io(error))
            }
        }
    }

    /// Wakes all operations that relied on a registration that failed: each tries itself.
    #[cold]
    pub(crate) fn registration_failed(&self) {
        self.wake(|wakers| self.desc.sides().iter().for_each(|side| side.interrupt(wakers)));
    }

    /// Wakes all operations that wait in a direction, because something other than an edge may have
    /// ended their wait.
    #[cold]
    pub(crate) fn wake_waiters(&self, direction: Direction) {
        self.wake(|wakers| self.desc.side(direction).interrupt(wakers));
    }
}
