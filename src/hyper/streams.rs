//! `hyper::rt::Read` and `hyper::rt::Write` for sockets.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::hyper::rt::{Read, ReadBufCursor, Write};

use crate::net::TcpStream;
use crate::net::net_fd::NetFd;
use crate::net::unix::UnixStream;

#[allow(unsafe_code)]
#[inline]
fn poll_read(fd: &NetFd, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
    // SAFETY: bytes are written to it, and none is made uninitialised.
    let buf = unsafe { cursor.as_mut() };
    let count = ready!(fd.poll_read_uninit(cx, buf))?;
    // SAFETY: this many bytes were initialised.
    unsafe { cursor.advance(count) };
    Poll::Ready(Ok(()))
}

/// Implements both traits for a handle with `as_net_fd()`.
macro_rules! hyper_stream {
    ($($type:ty),*) => {$(
        impl Read for $type {
            #[inline]
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
                poll_read(self.as_net_fd(), cx, buf)
            }
        }

        impl Write for $type {
            #[inline]
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                self.as_net_fd().poll_write(None, cx, buf)
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(self.as_net_fd().finish_writing())
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            #[inline]
            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.as_net_fd().poll_write_vectored(None, cx, bufs)
            }
        }
    )*};
}

hyper_stream!(TcpStream, &TcpStream, UnixStream, &UnixStream);
