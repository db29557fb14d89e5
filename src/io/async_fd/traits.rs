//! futures-io's traits for an `AsyncFd` whose wrapped type can be read or written through a shared
//! reference.
//!
//! The implementations use `&T` and not `T`, so any number of tasks can use one `AsyncFd`. A poll
//! transfers bytes with at most one `read` or `write` of `T`. Whether concurrent writes interleave
//! therefore depends on the kernel: on a pipe, writes of up to PIPE_BUF bytes (4 KiB on Linux) do
//! not. `poll_close` only flushes; the descriptor is closed when its owner `T` is dropped.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use super::AsyncFd;
use crate::rt::poll::poller::{Direction, Failure};
use crate::sys::socket::leading_empty;

impl<T> AsyncRead for &AsyncFd<T>
where
    for<'a> &'a T: Read,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_with(cx, |mut inner| inner.read(buf))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = leading_empty(bufs);
        let bufs = &mut bufs[first..];
        self.poll_read_with(cx, |mut inner| inner.read_vectored(bufs))
    }
}

impl<T> AsyncWrite for &AsyncFd<T>
where
    for<'a> &'a T: Write,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |mut inner| inner.write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bufs = &bufs[leading_empty(bufs)..];
        self.poll_write_with(cx, |mut inner| inner.write_vectored(bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The first attempt does not wait for writability, because most types have nothing to
        // flush. Like every operation, it fails after the deadline.
        let flush = |_: BorrowedFd<'_>| {
            self.fd.ensure_nonblocking();
            self.get_ref().flush()
        };
        let ready = self.fd.poll.side(Direction::Write).begin().map_err(Failure::from);
        match ready.and_then(|_| self.fd.pinned(flush)) {
            Err(Failure::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.poll_write_with(cx, |mut inner| inner.flush())
            }
            flushed => Poll::Ready(flushed.map_err(|failure| self.error("write", failure))),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl<T> AsyncRead for AsyncFd<T>
where
    T: Unpin,
    for<'a> &'a T: Read,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_read(cx, buf)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_read_vectored(cx, bufs)
    }
}

impl<T> AsyncWrite for AsyncFd<T>
where
    T: Unpin,
    for<'a> &'a T: Write,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_close(cx)
    }
}
