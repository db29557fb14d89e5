//! futures-io's traits for TCP and Unix streams and for references to them.
//!
//! A `poll_*` method has no future that could hold the waker from one call to the next, so the
//! socket keeps the waker until the next event, which wakes all tasks that wait this way. If more
//! than 4,096 tasks wait this way in one direction, they repeatedly wake each other
//! ([`POLLS_MAX`](crate::rt::waiters::POLLS_MAX)).

use super::TcpStream;

/// Implements `AsyncRead` and `AsyncWrite` for a type with a field `fd`, and for references to it.
macro_rules! stream_traits {
    ($type:ident) => {
        const _: () = {
            use std::io::{self, IoSlice, IoSliceMut};
            use std::pin::Pin;
            use std::task::{Context, Poll, ready};

            use futures_io::{AsyncRead, AsyncWrite};

            impl AsyncRead for &$type {
                fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
                    self.fd.poll_read($crate::rt::waiters::Waiter::Poll, cx, buf, 0)
                }

                fn poll_read_vectored(
                    self: Pin<&mut Self>,
                    cx: &mut Context<'_>,
                    bufs: &mut [IoSliceMut<'_>],
                ) -> Poll<io::Result<usize>> {
                    self.fd.poll_read_vectored($crate::rt::waiters::Waiter::Poll, cx, bufs)
                }
            }

            impl AsyncWrite for &$type {
                fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                    self.fd.poll_write($crate::rt::waiters::Waiter::Poll, cx, buf)
                }

                fn poll_write_vectored(
                    self: Pin<&mut Self>,
                    cx: &mut Context<'_>,
                    bufs: &[IoSlice<'_>],
                ) -> Poll<io::Result<usize>> {
                    self.fd.poll_write_vectored($crate::rt::waiters::Waiter::Poll, cx, bufs)
                }

                fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                    // Only gathered writes are buffered in user space.
                    self.fd.poll_flush($crate::rt::waiters::Waiter::Poll, cx)
                }

                fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                    ready!(self.fd.poll_close(cx))?;
                    Poll::Ready(self.fd.finish_writing())
                }
            }

            impl AsyncRead for $type {
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

            impl AsyncWrite for $type {
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
        };
    };
}

pub(in crate::net) use stream_traits;

stream_traits!(TcpStream);
