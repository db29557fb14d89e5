//! [`Async`]: an I/O handle that is waited for by netpoll's poller. Both versions of async-io compile this file; handle.rs of each has
//! the constructors and the mutable access, which differ.
//!
//! # Who owns what
//! The descriptor is `T`'s. `fd` has its number on loan, and is declared first, so that the number leaves the poller while it is open.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::task::{Context, Poll};

use netpoll::io::AsyncFd;

use crate::ready::{Readable, ReadableOwned, Writable, WritableOwned};

/// An I/O handle in non-blocking mode, registered with netpoll's poller.
///
/// # Errors
/// Operations return those of the calls on `T`.
pub struct Async<T> {
    pub(crate) fd: AsyncFd<BorrowedFd<'static>>,
    pub(crate) io: T,
}

// The handle is never pinned: the traits use it by reference.
impl<T> Unpin for Async<T> {}

impl<T> Async<T> {
    /// The I/O handle.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// Takes the handle out of the poller and returns it. It stays in non-blocking mode.
    ///
    /// # Errors
    /// None; the signature is async-io's.
    pub fn into_inner(self) -> io::Result<T> {
        let Async { fd, io } = self;
        drop(fd);
        Ok(io)
    }

    /// Waits until the handle is readable: data, end of file, or an error that a read would return.
    pub fn readable(&self) -> Readable<'_, T> {
        Readable::new(self)
    }

    /// As [`readable`](Async::readable), by a future that has a share of the handle.
    pub fn readable_owned(self: Arc<Self>) -> ReadableOwned<T> {
        ReadableOwned::new(self)
    }

    /// Waits until the handle is writable: room, or an error that a write would return.
    pub fn writable(&self) -> Writable<'_, T> {
        Writable::new(self)
    }

    /// As [`writable`](Async::writable), by a future that has a share of the handle.
    pub fn writable_owned(self: Arc<Self>) -> WritableOwned<T> {
        WritableOwned::new(self)
    }

    /// Polls for readability. Any number of tasks may wait this way.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_readable(cx).map_ok(drop)
    }

    /// Polls for writability. Any number of tasks may wait this way.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_writable(cx).map_ok(drop)
    }

    /// Calls `op` until it returns anything but `WouldBlock`, and waits for readability in between.
    pub async fn read_with<R>(&self, op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        let mut op = op;
        self.fd.read_with(|_| op(&self.io)).await
    }

    /// Calls `op` until it returns anything but `WouldBlock`, and waits for writability in between.
    pub async fn write_with<R>(&self, op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        let mut op = op;
        self.fd.write_with(|_| op(&self.io)).await
    }
}

impl<T: AsRawFd> AsRawFd for Async<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.io.as_raw_fd()
    }
}

impl<T: AsFd> AsFd for Async<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl<T: Into<OwnedFd>> TryFrom<Async<T>> for OwnedFd {
    type Error = io::Error;

    fn try_from(io: Async<T>) -> io::Result<OwnedFd> {
        io.into_inner().map(Into::into)
    }
}

impl<T> AsRef<T> for Async<T> {
    fn as_ref(&self) -> &T {
        &self.io
    }
}

impl<T: fmt::Debug> fmt::Debug for Async<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Async").field("io", &self.io).finish_non_exhaustive()
    }
}
