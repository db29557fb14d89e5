//! Raw access: closures that run with the descriptor pinned.
//!
//! For what this crate has no method for: `control` makes any call (an option, an ioctl), `read_with` and `write_with` make one that may
//! have to wait and is then repeated when the descriptor is ready. The reference that every operation takes around its system
//! call is taken around the closure: a close waits for it, so the number inside is never somebody else's. A socket type adopts them with
//! a line: `raw_access!(TcpStream, Call);`.
//!
//! # Foreign code
//! The closures are the user's. They run outside all mutexes; of a stream's direction they hold the lock that keeps calls apart,
//! as any read or write does. A panic in one goes on in the caller after lock and reference are back.
//!
//! # Compared with Go (net/rawconn.go, internal/poll/fd_unix.go)
//! `SyscallConn` with `Control`, `Read` and `Write`. There the callback says with a bool whether it is done; here EAGAIN
//! (`WouldBlock`) says that it is not. Go refuses `Read` and `Write` of a listener at run time; here it has none.

use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::fd::fd::Fd;
use super::fd::net_fd::NetFd;
use super::fd::operation::{Caller, Failure, Hold, Left, Operation};
use crate::rt::poll::poller::Direction;

impl Fd {
    /// [`Fd::with`] for foreign code, which may panic.
    pub(crate) fn pinned<R>(&self, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>) -> Result<R, Failure> {
        let result = self.with(|fd| Ok(catch_unwind(AssertUnwindSafe(|| call(fd)))))?;
        result.unwrap_or_else(|panic| resume_unwind(panic)).map_err(Failure::Io)
    }

    /// [`Fd::poll_call`] for foreign code, which may panic.
    pub(crate) fn poll_pinned<R>(
        &self,
        direction: Direction,
        hold: Hold,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<Result<R, Failure>> {
        let polled = self.poll_call(direction, hold, caller, cx, |fd| {
            self.ensure_nonblocking();
            match catch_unwind(AssertUnwindSafe(|| call(fd))) {
                Ok(result) => result.map(|value| (Ok(value), Left::Maybe)),
                Err(panic) => Ok((Err(panic), Left::Maybe)),
            }
        });
        polled.map_ok(|outcome| outcome.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

impl NetFd {
    pub(crate) fn control<R>(&self, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<R> {
        // The closure may duplicate it.
        self.expose();
        self.fd.pinned(call).map_err(|failure| self.error("raw-control", failure))
    }
}

/// Declares the future of one direction.
macro_rules! raw_future {
    ($name:ident, $method:literal, $direction:ident, $op:literal) => {
        #[doc = concat!("Repeats a closure until it need not wait; returned by `", $method, "` of the socket types.")]
        ///
        /// Dropping it leaves the socket as it was.
        #[must_use = "futures do nothing unless they are awaited"]
        pub struct $name<'a, F> {
            fd: &'a NetFd,
            operation: Operation,
            hold: Hold,
            call: F,
        }

        impl<'a, F> $name<'a, F> {
            pub(crate) fn new(fd: &'a NetFd, hold: Hold, call: F) -> $name<'a, F> {
                fd.expose();
                $name { fd, operation: Operation::new(), hold, call }
            }
        }

        // Nothing here is pinned.
        impl<F> Unpin for $name<'_, F> {}

        impl<F, R> Future for $name<'_, F>
        where
            F: FnMut(BorrowedFd<'_>) -> io::Result<R>,
        {
            type Output = io::Result<R>;

            fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
                let Self { fd, operation, hold, call } = &mut *self;
                let polled = fd.fd.poll_pinned(Direction::$direction, *hold, Some(operation), cx, call);
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

/// Gives a socket type, in its own module, whose field `fd` is a [`NetFd`] or derefs to one, the three methods; with a [`Hold`], or without one `control`
/// alone.
macro_rules! raw_access {
    ($type:ident) => {
        /// Access to the descriptor.
        impl $type {
            /// Calls `call` with the descriptor, which stays open meanwhile: a close waits for it. For options and ioctls that have no
            /// method here.
            ///
            /// `call` may duplicate the descriptor, and must not block: it runs on the caller's thread. What `as_fd` says of other users
            /// holds from here on.
            ///
            /// # Errors
            /// Those of `call`, as they are; [closed](crate::net::is_closed), without a call.
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
            pub fn control<R>(
                &self,
                call: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> std::io::Result<R>,
            ) -> std::io::Result<R> {
                self.fd.control(call)
            }
        }
    };
    ($type:ident, $hold:ident) => {
        $crate::net::raw::raw_access!($type);

        /// System calls of your own.
        impl $type {
            /// Calls `call` with the descriptor until it answers with anything but `WouldBlock`, and in between waits until the socket is
            /// readable. For ways of receiving that have no method here.
            ///
            /// The descriptor stays open during a call, and nothing is held while this waits. `call` must be non-blocking
            /// (`MSG_DONTWAIT`, or the descriptor's own O_NONBLOCK, which is set again before each call), and must use up what it was
            /// called for or answer `WouldBlock`; `Interrupted` calls it again at once.
            ///
            /// # Errors
            /// Those of `call`, as they are; `TimedOut` past the read deadline or timeout; [closed](crate::net::is_closed).
            ///
            /// # Cancel safety
            /// What a completed `call` did is in the result. One that answered `WouldBlock` is expected to have done nothing.
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
            pub fn read_with<R, F>(&self, call: F) -> $crate::net::raw::RawRead<'_, F>
            where
                F: FnMut(std::os::fd::BorrowedFd<'_>) -> std::io::Result<R>,
            {
                $crate::net::raw::RawRead::new(&self.fd, $crate::net::fd::operation::Hold::$hold, call)
            }

            #[doc = concat!("The same for writing; see [`read_with`](", stringify!($type), "::read_with).")]
            ///
            /// # Errors
            /// Those of `call`, as they are; `TimedOut` past the write deadline or timeout; [closed](crate::net::is_closed).
            pub fn write_with<R, F>(&self, call: F) -> $crate::net::raw::RawWrite<'_, F>
            where
                F: FnMut(std::os::fd::BorrowedFd<'_>) -> std::io::Result<R>,
            {
                $crate::net::raw::RawWrite::new(&self.fd, $crate::net::fd::operation::Hold::$hold, call)
            }
        }
    };
}
pub(crate) use raw_access;
