//! The parts of [`Async`] that only version 2 has: constructors for types that implement `AsFd`,
//! and unsafe mutable access.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use netpoll::io::AsyncFd;
use socket2::SockRef;

use crate::Async;

impl<T: AsFd> Async<T> {
    /// Puts `io` into non-blocking mode and registers it with the poller.
    ///
    /// # Errors
    /// Returns the OS error of fcntl(2), or an error of `AsyncFd::new`, such as `InvalidInput` for
    /// a file that epoll(7) does not support.
    pub fn new(io: T) -> io::Result<Async<T>> {
        // `SockRef` is for sockets, but this method calls fcntl(2), which accepts any descriptor.
        SockRef::from(&io).set_nonblocking(true)?;
        Async::new_nonblocking(io)
    }

    /// Registers `io`, which must be in non-blocking mode, with the poller.
    ///
    /// # Errors
    /// Returns an error of `AsyncFd::new`, such as `InvalidInput` for a file that epoll(7) does not
    /// support.
    #[allow(unsafe_code)]
    pub fn new_nonblocking(io: T) -> io::Result<Async<T>> {
        let number = io.as_fd().as_raw_fd();
        // SAFETY: `io` keeps the descriptor open, stays in the same `Async`, and is dropped or
        // returned to the caller only after `fd` is dropped. Mutable access is unsafe or requires
        // `IoSafe`, so it keeps the descriptor open.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        Ok(Async { fd: AsyncFd::new(borrowed)?, io })
    }
}

impl<T> Async<T> {
    /// Returns a mutable reference to the I/O handle.
    ///
    /// # Safety
    /// The descriptor must not be closed or replaced through the reference.
    #[allow(unsafe_code)]
    pub unsafe fn get_mut(&mut self) -> &mut T {
        &mut self.io
    }

    /// Works like [`read_with`](Async::read_with), but passes `op` a mutable reference.
    ///
    /// # Safety
    /// `op` must not close or replace the descriptor.
    #[allow(unsafe_code)]
    pub async unsafe fn read_with_mut<R>(&mut self, op: impl FnMut(&mut T) -> io::Result<R>) -> io::Result<R> {
        let (Async { fd, io }, mut op) = (self, op);
        std::future::poll_fn(|cx| fd.poll_read_with(cx, |_| op(io))).await
    }

    /// Works like [`write_with`](Async::write_with), but passes `op` a mutable reference.
    ///
    /// # Safety
    /// `op` must not close or replace the descriptor.
    #[allow(unsafe_code)]
    pub async unsafe fn write_with_mut<R>(&mut self, op: impl FnMut(&mut T) -> io::Result<R>) -> io::Result<R> {
        let (Async { fd, io }, mut op) = (self, op);
        std::future::poll_fn(|cx| fd.poll_write_with(cx, |_| op(io))).await
    }
}

impl<T: AsFd + From<OwnedFd>> TryFrom<OwnedFd> for Async<T> {
    type Error = io::Error;

    fn try_from(fd: OwnedFd) -> io::Result<Async<T>> {
        Async::new(fd.into())
    }
}
