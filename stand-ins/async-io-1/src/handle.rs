//! The parts of [`Async`] that only version 1 has: constructors for types that implement `AsRawFd`,
//! and safe mutable access.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use netpoll::io::AsyncFd;
use socket2::SockRef;

use crate::Async;

impl<T: AsRawFd> Async<T> {
    /// Puts `io` into non-blocking mode and registers it with the poller.
    ///
    /// # Errors
    /// Returns the OS error of fcntl(2), or an error of `AsyncFd::new`, such as `InvalidInput` for
    /// a file that epoll(7) does not support.
    pub fn new(io: T) -> io::Result<Async<T>> {
        // `SockRef` is for sockets, but this method calls fcntl(2), which accepts any descriptor.
        SockRef::from(&borrow(&io)).set_nonblocking(true)?;
        Async::new_nonblocking(io)
    }

    /// Registers `io`, which must be in non-blocking mode, with the poller.
    pub(crate) fn new_nonblocking(io: T) -> io::Result<Async<T>> {
        Ok(Async { fd: AsyncFd::new(borrow(&io))?, io })
    }
}

/// Borrows the descriptor of `io` without tying the result to the lifetime of `io`.
#[allow(unsafe_code)]
fn borrow(io: &impl AsRawFd) -> BorrowedFd<'static> {
    // SAFETY: the number is passed only to system calls such as fcntl(2), epoll_ctl(2) and poll(2),
    // in `new` and while `io` is in the same `Async`. `io` keeps the descriptor open, unless safe
    // code closes or replaces it through `get_mut`, which async-io 1 permits but warns against.
    // Then these calls fail or affect another open file, but no memory depends on the number.
    // `borrow_raw` panics for -1.
    unsafe { BorrowedFd::borrow_raw(io.as_raw_fd()) }
}

impl<T> Async<T> {
    /// Returns a mutable reference to the I/O handle. The caller should not close or replace the
    /// descriptor of the handle, because later waits would fail or wait for another file.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.io
    }

    /// Works like [`read_with`](Async::read_with), but passes `op` a mutable reference.
    pub async fn read_with_mut<R>(&mut self, op: impl FnMut(&mut T) -> io::Result<R>) -> io::Result<R> {
        let (Async { fd, io }, mut op) = (self, op);
        std::future::poll_fn(|cx| fd.poll_read_with(cx, |_| op(io))).await
    }

    /// Works like [`write_with`](Async::write_with), but passes `op` a mutable reference.
    pub async fn write_with_mut<R>(&mut self, op: impl FnMut(&mut T) -> io::Result<R>) -> io::Result<R> {
        let (Async { fd, io }, mut op) = (self, op);
        std::future::poll_fn(|cx| fd.poll_write_with(cx, |_| op(io))).await
    }
}

impl<T> AsMut<T> for Async<T> {
    fn as_mut(&mut self) -> &mut T {
        self.get_mut()
    }
}

impl<T: AsRawFd + From<OwnedFd>> TryFrom<OwnedFd> for Async<T> {
    type Error = io::Error;

    fn try_from(fd: OwnedFd) -> io::Result<Async<T>> {
        Async::new(fd.into())
    }
}
