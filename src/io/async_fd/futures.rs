//! Futures returned by the methods of [`AsyncFd`]. Their types are named and `Unpin`. Dropping a
//! future does not affect the descriptor. If the dropped future was woken and has not been polled
//! since, its wake-up is passed to the next waiter.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{AsyncFd, AsyncFdReadyGuard};
use crate::net::fd::operation::Operation;
use crate::rt::poll::poller::Direction;
use crate::rt::waiters::Waiter;

/// Declares the two futures of a direction.
macro_rules! futures {
    ($direction:ident, $ready:ident, $ready_method:literal, $with:ident, $with_method:literal) => {
        #[doc = concat!("Waits until the descriptor is ready; returned by [`AsyncFd::", $ready_method, "`].")]
        #[must_use = "futures do nothing unless they are awaited"]
        pub struct $ready<'a, T> {
            fd: &'a AsyncFd<T>,
            operation: Operation,
        }

        impl<'a, T> $ready<'a, T> {
            pub(super) fn new(fd: &'a AsyncFd<T>) -> $ready<'a, T> {
                $ready { fd, operation: Operation::new() }
            }
        }

        impl<'a, T> Future for $ready<'a, T> {
            type Output = io::Result<AsyncFdReadyGuard<'a, T>>;

            fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
                let fd = self.fd;
                fd.poll_ready(Direction::$direction, Waiter::Future(&mut self.operation), cx)
            }
        }

        impl<T> Drop for $ready<'_, T> {
            fn drop(&mut self) {
                self.fd.fd.cancel(Direction::$direction, &mut self.operation);
            }
        }

        impl<T: fmt::Debug> fmt::Debug for $ready<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($ready)).field("fd", &self.fd).finish_non_exhaustive()
            }
        }

        #[doc = concat!("Calls a closure until it returns a result other than `WouldBlock`; returned by [`AsyncFd::", $with_method, "`].")]
        #[must_use = "futures do nothing unless they are awaited"]
        pub struct $with<'a, T, F> {
            fd: &'a AsyncFd<T>,
            operation: Operation,
            call: F,
        }

        impl<'a, T, F> $with<'a, T, F> {
            pub(super) fn new(fd: &'a AsyncFd<T>, call: F) -> $with<'a, T, F> {
                $with { fd, operation: Operation::new(), call }
            }
        }

        // No field is pinned.
        impl<T, F> Unpin for $with<'_, T, F> {}

        impl<T, R, F: FnMut(&T) -> io::Result<R>> Future for $with<'_, T, F> {
            type Output = io::Result<R>;

            fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
                let Self { fd, operation, call } = &mut *self;
                fd.poll_with(Direction::$direction, Waiter::Future(operation), cx, call)
            }
        }

        impl<T, F> Drop for $with<'_, T, F> {
            fn drop(&mut self) {
                self.fd.fd.cancel(Direction::$direction, &mut self.operation);
            }
        }

        impl<T: fmt::Debug, F> fmt::Debug for $with<'_, T, F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($with)).field("fd", &self.fd).finish_non_exhaustive()
            }
        }
    };
}

futures!(Read, AsyncFdReadable, "readable", AsyncFdReadWith, "read_with");
futures!(Write, AsyncFdWritable, "writable", AsyncFdWriteWith, "write_with");
