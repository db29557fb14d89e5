//! Implements futures-io's traits for `Async<T>` if `T` implements [`IoSafe`] and std's `Read` or
//! `Write`, and for `&Async<T>` if `&T` does. The stand-ins for both versions of async-io compile
//! this file. In version 1, every type implements [`IoSafe`].

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use crate::Async;
use crate::io_safe::IoSafe;

impl<T: IoSafe + Read> AsyncRead for Async<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let Async { fd, io } = self.get_mut();
        fd.poll_read_with(cx, |_| io.read(buf))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let Async { fd, io } = self.get_mut();
        fd.poll_read_with(cx, |_| io.read_vectored(bufs))
    }
}

impl<T> AsyncRead for &Async<T>
where
    for<'a> &'a T: IoSafe + Read,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.fd.poll_read_with(cx, |_| (&self.io).read(buf))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.fd.poll_read_with(cx, |_| (&self.io).read_vectored(bufs))
    }
}

impl<T: IoSafe + Write> AsyncWrite for Async<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Async { fd, io } = self.get_mut();
        fd.poll_write_with(cx, |_| io.write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Async { fd, io } = self.get_mut();
        fd.poll_write_with(cx, |_| io.write_vectored(bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Async { fd, io } = self.get_mut();
        // Most handles have nothing to flush, so `flush` is called before a wait for writability.
        match io.flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => fd.poll_write_with(cx, |_| io.flush()),
            flushed => Poll::Ready(flushed),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl<T> AsyncWrite for &Async<T>
where
    for<'a> &'a T: IoSafe + Write,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.fd.poll_write_with(cx, |_| (&self.io).write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.fd.poll_write_with(cx, |_| (&self.io).write_vectored(bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Most handles have nothing to flush, so `flush` is called before a wait for writability.
        match (&self.io).flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.fd.poll_write_with(cx, |_| (&self.io).flush())
            }
            flushed => Poll::Ready(flushed),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
