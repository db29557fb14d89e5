//! tokio's `AsyncRead` and `AsyncWrite` for sockets (feature `tokio-io`). Only the traits are used:
//! tokio's runtime is neither needed nor compiled.
//!
//! Reads write directly to uninitialised memory. `shutdown` sends FIN, as `close` of futures-io's
//! traits does.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::TcpStream;
use crate::net::net_fd::NetFd;
use crate::net::unix::UnixStream;

#[allow(unsafe_code)]
#[inline]
fn poll_read(fd: &NetFd, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    // SAFETY: bytes are written to it, and none is made uninitialised.
    let unfilled = unsafe { buf.unfilled_mut() };
    let count = ready!(fd.poll_read_uninit(cx, unfilled))?;
    // SAFETY: this many bytes were initialised.
    unsafe { buf.assume_init(count) };
    buf.advance(count);
    Poll::Ready(Ok(()))
}

/// Implements both traits for a handle with `as_net_fd()`.
macro_rules! tokio_stream {
    ($($type:ty),*) => {$(
        impl AsyncRead for $type {
            #[inline]
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                poll_read(self.as_net_fd(), cx, buf)
            }
        }

        impl AsyncWrite for $type {
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

tokio_stream!(TcpStream, &TcpStream, UnixStream, &UnixStream);
