//! tokio's `AsyncRead` and `AsyncWrite` for `TcpStream` and `UnixStream`, and for references to
//! them (feature `tokio-io`). Only the traits are used: tokio's runtime is not needed, and this
//! crate does not enable tokio's feature `rt`.
//!
//! Reads fill uninitialised memory directly. `shutdown` shuts down the sending side, like `close`
//! of futures-io's `AsyncWrite`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::TcpStream;
use crate::net::unix::UnixStream;

/// Implements both traits for stream handles.
macro_rules! tokio_stream {
    ($($type:ty),*) => {$(
        impl AsyncRead for $type {
            #[allow(unsafe_code)]
            #[inline]
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                // SAFETY: `poll_read_uninit` only writes initialised bytes to the slice.
                let unfilled = unsafe { buf.unfilled_mut() };
                let count = ready!(self.poll_read_uninit(cx, unfilled))?;
                // SAFETY: the read initialised the first `count` bytes.
                unsafe { buf.assume_init(count) };
                buf.advance(count);
                Poll::Ready(Ok(()))
            }
        }

        impl AsyncWrite for $type {
            #[inline]
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                futures_io::AsyncWrite::poll_write(self, cx, buf)
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                futures_io::AsyncWrite::poll_flush(self, cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                futures_io::AsyncWrite::poll_close(self, cx)
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
                futures_io::AsyncWrite::poll_write_vectored(self, cx, bufs)
            }
        }
    )*};
}

tokio_stream!(TcpStream, &TcpStream, UnixStream, &UnixStream);
