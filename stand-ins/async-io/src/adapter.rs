//! [`Async`]: an I/O handle that waits on netpoll's poller. The stand-ins for both versions of
//! async-io compile this file. The constructors and the methods with mutable access differ between
//! the versions, and are in handle.rs of each version.
//!
//! # Ownership
//! The field `io` keeps the descriptor open, unless the user closes or replaces it through a
//! mutable reference. The field `fd` borrows the descriptor and is declared before `io`. So `fd` is
//! dropped first, and the descriptor is removed from the poller while it is still open.

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
/// Operations return the errors of the calls on `T`, and the errors of `AsyncFd`, for example if
/// the runtime is shut down while they wait.
pub struct Async<T> {
    pub(crate) fd: AsyncFd<BorrowedFd<'static>>,
    pub(crate) io: T,
}

// `io` is never pinned, because the I/O traits access it through plain references.
impl<T> Unpin for Async<T> {}

impl<T> Async<T> {
    /// Returns a reference to the I/O handle.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// Removes the I/O handle from the poller and returns the handle, which stays in non-blocking
    /// mode.
    ///
    /// # Errors
    /// Never returns an error. The return type is that of async-io.
    pub fn into_inner(self) -> io::Result<T> {
        let Async { fd, io } = self;
        drop(fd);
        Ok(io)
    }

    /// Waits until the handle is readable: data is available, the end of the stream is reached, or
    /// a read would return an error.
    pub fn readable(&self) -> Readable<'_, T> {
        Readable::new(self)
    }

    /// Waits like [`readable`](Async::readable), with a future that shares ownership of the handle.
    pub fn readable_owned(self: Arc<Self>) -> ReadableOwned<T> {
        ReadableOwned::new(self)
    }

    /// Waits until the handle is writable: there is space for data, or a write would return an
    /// error.
    pub fn writable(&self) -> Writable<'_, T> {
        Writable::new(self)
    }

    /// Waits like [`writable`](Async::writable), with a future that shares ownership of the handle.
    pub fn writable_owned(self: Arc<Self>) -> WritableOwned<T> {
        WritableOwned::new(self)
    }

    /// Returns `Ready` if the handle is readable. If it is not, returns `Pending` and wakes the
    /// task when it becomes readable. Any number of tasks may wait this way.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_readable(cx).map_ok(drop)
    }

    /// Returns `Ready` if the handle is writable. If it is not, returns `Pending` and wakes the
    /// task when it becomes writable. Any number of tasks may wait this way.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_writable(cx).map_ok(drop)
    }

    /// Calls `op` until its result is not a `WouldBlock` error, and returns that result. Waits for
    /// readability between the calls.
    pub async fn read_with<R>(&self, op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        let mut op = op;
        self.fd.read_with(|_| op(&self.io)).await
    }

    /// Calls `op` until its result is not a `WouldBlock` error, and returns that result. Waits for
    /// writability between the calls.
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
