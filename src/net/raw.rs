//! Raw access to descriptors: `control`, `read_with` and `write_with`.
//!
//! The methods are for system calls that have no method in this crate. Each method runs a closure
//! with the descriptor. `control` is for calls that do not wait, such as a socket option or an
//! ioctl. `read_with` and `write_with` are for calls that may have to wait; they call the closure
//! again when the descriptor is ready. The closure runs with a reference to the [`Fd`] held. The
//! descriptor is closed only after the reference is dropped, so its number cannot refer to another
//! file while the closure runs. A socket type gets the methods with one line:
//! `raw_access!(TcpStream, PerCall);`.
//!
//! # Foreign code
//! The closures are user code. They run outside all mutexes. On a stream or a seqpacket socket, the
//! closures of `read_with` and `write_with` run under the lock of their direction. A panic
//! propagates to the caller after the lock and the reference are released.
//!
//! # Compared with Go (net/rawconn.go, internal/poll/fd_unix.go)
//! This is `SyscallConn` with `Control`, `Read` and `Write`. In Go the callback returns a bool that
//! says whether it is done; here the closure returns `WouldBlock` while it is not done. Go refuses
//! `Read` and `Write` on a listener at run time; here a listener does not have these methods.

use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::fd::fd::Fd;
use super::fd::operation::{Caller, LockScope, Operation, Remaining};
use super::net_fd::NetFd;
use crate::rt::poll::poller::{Direction, Failure};
use crate::rt::waiters::Waiter;

impl Fd {
    /// Makes a call as [`Fd::with`] does. `call` is foreign code: if it panics, the panic
    /// propagates after the reference is dropped.
    pub(crate) fn pinned<R>(&self, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>) -> Result<R, Failure> {
        let result = self.with(|fd| Ok(catch_unwind(AssertUnwindSafe(|| call(fd)))))?;
        result.unwrap_or_else(|panic| resume_unwind(panic)).map_err(Failure::Io)
    }

    /// Polls an operation as [`Fd::poll_call`] does. Sets O_NONBLOCK before each call, if a user of
    /// a duplicate may have cleared it. `call` is foreign code: if it panics, the panic propagates
    /// after the lock and the reference are released.
    pub(crate) fn poll_pinned<R>(
        &self,
        direction: Direction,
        scope: LockScope,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<Result<R, Failure>> {
        let polled = self.poll_call(direction, scope, caller, cx, |fd| {
            self.ensure_nonblocking();
            match catch_unwind(AssertUnwindSafe(|| call(fd))) {
                Ok(result) => result.map(|value| (Ok(value), Remaining::Maybe)),
                Err(panic) => Ok((Err(panic), Remaining::Maybe)),
            }
        });
        polled.map_ok(|outcome| outcome.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

impl NetFd {
    pub(crate) fn control<R>(&self, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<R> {
        // The closure may duplicate the descriptor.
        self.expose();
        self.fd.pinned(call).map_err(|failure| self.error("raw-control", failure))
    }
}

/// Declares the future for one direction.
macro_rules! raw_future {
    ($name:ident, $method:literal, $direction:ident, $op:literal) => {
        #[doc = concat!("Calls a closure until it returns a result other than `WouldBlock` and `Interrupted`; returned by the socket types' `", $method, "`.")]
        ///
        /// # Cancel safety
        /// Cancel safe, provided that a call of the closure that returns `WouldBlock` has no
        /// effect.
        #[must_use = "futures do nothing unless they are awaited"]
        pub struct $name<'a, F> {
            fd: &'a NetFd,
            operation: Operation,
            scope: LockScope,
            call: F,
        }

        impl<'a, F> $name<'a, F> {
            pub(crate) fn new(fd: &'a NetFd, scope: LockScope, call: F) -> $name<'a, F> {
                $name { fd, operation: Operation::new(), scope, call }
            }
        }

        // No field is pinned.
        impl<F> Unpin for $name<'_, F> {}

        impl<F, R> Future for $name<'_, F>
        where
            F: FnMut(BorrowedFd<'_>) -> io::Result<R>,
        {
            type Output = io::Result<R>;

            fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
                let Self { fd, operation, scope, call } = &mut *self;
                let polled = fd.fd.poll_pinned(Direction::$direction, *scope, Waiter::Future(operation), cx, call);
                polled.map_err(|failure| fd.error($op, failure))
            }
        }

        impl<F> Drop for $name<'_, F> {
            fn drop(&mut self) {
                self.fd.fd.cancel(Direction::$direction, &mut self.operation);
            }
        }

        impl<F> std::fmt::Debug for $name<'_, F> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).field("fd", &self.fd).finish_non_exhaustive()
            }
        }
    };
}

raw_future!(RawRead, "read_with", Read, "raw-read");
raw_future!(RawWrite, "write_with", Write, "raw-write");

/// Implements the three methods for a socket type whose field `fd` is a [`NetFd`] or derefs to one.
/// The macro must be invoked in the module of that type. Without a [`LockScope`], it implements
/// only `control`.
macro_rules! raw_access {
    ($type:ident) => {
        /// Access to the descriptor.
        impl $type {
            /// Calls `call` with the descriptor, which stays open during the call. Use this method
            /// for options and ioctls that have no method here.
            ///
            /// `call` must not block, because it runs on the calling thread. It may duplicate the
            /// descriptor, so from then on the socket assumes that the descriptor has other users;
            /// see `as_fd`.
            ///
            /// # Errors
            /// Returns the error of `call`, which is unchanged unless
            /// [`wrap_io_errors`](crate::rt::Builder::wrap_io_errors) is set. After an explicit
            /// close, returns a [closed](crate::net::is_closed) error without calling `call`.
            ///
            /// Source: `syscall.RawConn.Control` of Go.
            ///
            /// # Examples
            /// ```
            /// # netpoll::task::block_on(async {
            /// use netpoll::net::TcpListener;
            ///
            /// let listener = TcpListener::bind("127.0.0.1:0").await?;
            /// assert!(listener.control(|fd| socket2::SockRef::from(&fd).reuse_address())?);
            /// # std::io::Result::Ok(()) }).unwrap();
            /// ```
            #[doc(alias = "SyscallConn")]
            pub fn control<R>(
                &self,
                call: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> std::io::Result<R>,
            ) -> std::io::Result<R> {
                self.fd.control(call)
            }
        }
    };
    ($type:ident, $scope:ident) => {
        $crate::net::raw::raw_access!($type);

        /// System calls made by the caller.
        impl $type {
            /// Calls `call` with the descriptor and returns its result. If `call` returns
            /// `WouldBlock`, waits until the descriptor is readable and calls it again. Use this
            /// method for receiving system calls that have no method here.
            ///
            /// The descriptor stays open during each call. No lock is held while the future waits.
            /// `call` must not block; the descriptor is non-blocking. `call` must either complete
            /// or return `WouldBlock`. After `Interrupted`, it is called again immediately. As with
            /// `control`, the socket then assumes that the descriptor has other users.
            ///
            /// # Errors
            /// Returns the error of `call`, which is unchanged unless
            /// [`wrap_io_errors`](crate::rt::Builder::wrap_io_errors) is set; `TimedOut` after the
            /// read deadline or timeout; a [closed](crate::net::is_closed) error after an explicit
            /// close.
            ///
            /// # Cancel safety
            /// Cancel safe, provided that a `call` that returns `WouldBlock` has no effect. When
            /// `call` completes, the future completes too.
            ///
            /// Source: `syscall.RawConn.Read` of Go, `async_io::Async::read_with`.
            ///
            /// # Examples
            /// ```
            /// # netpoll::task::block_on(async {
            /// # use netpoll::net::{TcpListener, TcpStream};
            /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
            /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
            /// # let (peer, _) = listener.accept().await?;
            /// stream.write_with(|fd| socket2::SockRef::from(&fd).send(b"raw")).await?;
            /// let mut buf = [std::mem::MaybeUninit::uninit(); 8];
            /// assert_eq!(peer.read_with(|fd| socket2::SockRef::from(&fd).recv(&mut buf)).await?, 3);
            /// # std::io::Result::Ok(()) }).unwrap();
            /// ```
            #[doc(alias = "try_io")]
            pub fn read_with<R, F>(&self, call: F) -> $crate::net::raw::RawRead<'_, F>
            where
                F: FnMut(std::os::fd::BorrowedFd<'_>) -> std::io::Result<R>,
            {
                // The closure may duplicate the descriptor.
                self.fd.expose();
                $crate::net::raw::RawRead::new(&self.fd, $crate::net::fd::operation::LockScope::$scope, call)
            }

            #[doc = concat!("Calls `call` with the descriptor and returns its result. If `call` returns `WouldBlock`, waits until the descriptor is writable and calls it again. See [`read_with`](", stringify!($type), "::read_with).")]
            ///
            /// # Errors
            /// Returns the error of `call`, which is unchanged unless
            /// [`wrap_io_errors`](crate::rt::Builder::wrap_io_errors) is set; `TimedOut` after the
            /// write deadline or timeout; a [closed](crate::net::is_closed) error after an explicit
            /// close.
            ///
            /// # Cancel safety
            /// Cancel safe, provided that a `call` that returns `WouldBlock` has no effect.
            pub fn write_with<R, F>(&self, call: F) -> $crate::net::raw::RawWrite<'_, F>
            where
                F: FnMut(std::os::fd::BorrowedFd<'_>) -> std::io::Result<R>,
            {
                self.fd.expose();
                $crate::net::raw::RawWrite::new(&self.fd, $crate::net::fd::operation::LockScope::$scope, call)
            }
        }
    };
}
pub(crate) use raw_access;
