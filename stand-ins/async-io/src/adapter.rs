//! [`Async`]: an I/O handle that is waited for by netpoll's poller.
//!
//! # Who owns what
//! The descriptor is `T`'s. `fd` has its number on loan, and is declared first, so that the number leaves the poller while it is open.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::task::{Context, Poll};

use netpoll::io::AsyncFd;
use socket2::SockRef;

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

impl<T: AsFd> Async<T> {
    /// Puts `io` into non-blocking mode and registers it.
    ///
    /// # Errors
    /// The system's: of fcntl(2), and for a file that epoll(7) does not take.
    pub fn new(io: T) -> io::Result<Async<T>> {
        // fcntl(2), which works for any descriptor.
        SockRef::from(&io).set_nonblocking(true)?;
        Async::new_nonblocking(io)
    }

    /// Registers `io`, which is in non-blocking mode.
    ///
    /// # Errors
    /// The system's, for a file that epoll(7) does not take.
    #[allow(unsafe_code)]
    pub fn new_nonblocking(io: T) -> io::Result<Async<T>> {
        let number = io.as_fd().as_raw_fd();
        // SAFETY: the descriptor is `io`'s, which stays in the same `Async` and is dropped, or given back, after `fd`. Mutable access is
        // unsafe, and its caller keeps the descriptor open.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        Ok(Async { fd: AsyncFd::new(borrowed)?, io })
    }
}

impl<T> Async<T> {
    /// The I/O handle.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// The I/O handle.
    ///
    /// # Safety
    /// The descriptor must not be closed or exchanged through the reference.
    #[allow(unsafe_code)]
    pub unsafe fn get_mut(&mut self) -> &mut T {
        &mut self.io
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

    /// As [`read_with`](Async::read_with), with mutable access.
    ///
    /// # Safety
    /// `op` must not close or exchange the descriptor.
    #[allow(unsafe_code)]
    pub async unsafe fn read_with_mut<R>(&mut self, op: impl FnMut(&mut T) -> io::Result<R>) -> io::Result<R> {
        let (Async { fd, io }, mut op) = (self, op);
        std::future::poll_fn(|cx| fd.poll_read_with(cx, |_| op(io))).await
    }

    /// Calls `op` until it returns anything but `WouldBlock`, and waits for writability in between.
    pub async fn write_with<R>(&self, op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        let mut op = op;
        self.fd.write_with(|_| op(&self.io)).await
    }

    /// As [`write_with`](Async::write_with), with mutable access.
    ///
    /// # Safety
    /// `op` must not close or exchange the descriptor.
    #[allow(unsafe_code)]
    pub async unsafe fn write_with_mut<R>(&mut self, op: impl FnMut(&mut T) -> io::Result<R>) -> io::Result<R> {
        let (Async { fd, io }, mut op) = (self, op);
        std::future::poll_fn(|cx| fd.poll_write_with(cx, |_| op(io))).await
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

impl<T: AsFd + From<OwnedFd>> TryFrom<OwnedFd> for Async<T> {
    type Error = io::Error;

    fn try_from(fd: OwnedFd) -> io::Result<Async<T>> {
        Async::new(fd.into())
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
