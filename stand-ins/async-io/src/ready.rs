//! The futures returned by [`Async::readable`](crate::Async::readable), `readable_owned`,
//! `writable` and `writable_owned`. The stand-ins for both versions of async-io compile this file.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use netpoll::io::{AsyncFdReadable, AsyncFdWritable};

use crate::Async;

macro_rules! ready {
    ($Borrowed:ident $Owned:ident, $Inner:ident, $method:ident, $poll:ident) => {
        #[doc = concat!("The future returned by [`Async::", stringify!($method), "`].")]
        #[must_use = "futures do nothing unless you `.await` or poll them"]
        pub struct $Borrowed<'a, T> {
            inner: $Inner<'a, BorrowedFd<'static>>,
            handle: &'a Async<T>,
        }

        impl<'a, T> $Borrowed<'a, T> {
            pub(crate) fn new(handle: &'a Async<T>) -> $Borrowed<'a, T> {
                $Borrowed { inner: handle.fd.$method(), handle }
            }
        }

        impl<T> Future for $Borrowed<'_, T> {
            type Output = io::Result<()>;

            fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.inner).poll(cx).map_ok(drop)
            }
        }

        impl<T> fmt::Debug for $Borrowed<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Borrowed)).field("fd", &self.handle.fd).finish_non_exhaustive()
            }
        }

        #[doc = concat!("The future returned by [`Async::", stringify!($method), "_owned`].")]
        #[must_use = "futures do nothing unless you `.await` or poll them"]
        pub struct $Owned<T> {
            handle: Arc<Async<T>>,
        }

        impl<T> $Owned<T> {
            pub(crate) fn new(handle: Arc<Async<T>>) -> $Owned<T> {
                $Owned { handle }
            }
        }

        impl<T> Future for $Owned<T> {
            type Output = io::Result<()>;

            fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.handle.$poll(cx)
            }
        }

        impl<T> fmt::Debug for $Owned<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Owned)).field("fd", &self.handle.fd).finish_non_exhaustive()
            }
        }
    };
}

ready!(Readable ReadableOwned, AsyncFdReadable, readable, poll_readable);
ready!(Writable WritableOwned, AsyncFdWritable, writable, poll_writable);
