//! What [`Async`] of version 2 has of its own: constructors for types with `AsFd`, and mutable access, which is unsafe.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use netpoll::io::AsyncFd;
use socket2::SockRef;

use crate::Async;

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
    ///
    /// # Safety
    /// The descriptor must not be closed or exchanged through the reference.
    #[allow(unsafe_code)]
    pub unsafe fn get_mut(&mut self) -> &mut T {
        &mut self.io
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

impl<T: AsFd + From<OwnedFd>> TryFrom<OwnedFd> for Async<T> {
    type Error = io::Error;

    fn try_from(fd: OwnedFd) -> io::Result<Async<T>> {
        Async::new(fd.into())
    }
}
