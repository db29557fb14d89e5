//! The methods of [`AsyncFd`] that wait for readiness, and those that repeat a call until it does
//! not return `WouldBlock`.

use std::io;
use std::task::{Context, Poll, ready};

use super::futures::{AsyncFdReadWith, AsyncFdReadable, AsyncFdWritable, AsyncFdWriteWith};
use super::guard::AsyncFdReadyGuard;
use super::wrapper::AsyncFd;
use crate::net::fd::operation::{Caller, LockScope, Operation, Remaining};
use crate::rt::poll::poller::{Direction, Failure, Ticket};
use crate::rt::waiters::Waiter;
use crate::sync::Ordering;
use crate::sys;

/// Waiting for readiness and making calls.
impl<T> AsyncFd<T> {
    // ---- readiness ----

    /// Waits until the descriptor is readable: data, end of file or an error is available.
    ///
    /// If your call then returns `WouldBlock`, clear readiness with the guard;
    /// [`try_io`](AsyncFdReadyGuard::try_io) does this by itself. If readiness is not cleared, the
    /// next `readable` checks it with poll(2), so a loop spins only if poll(2) reports readiness
    /// although the call would block.
    ///
    /// # Errors
    /// Returns `TimedOut` after the read deadline or timeout, and a [closed](crate::net::is_closed)
    /// error after `force_close`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::io::AsyncFd;
    /// use std::io::{Read, Write};
    ///
    /// let (reader, mut writer) = std::io::pipe()?;
    /// let reader = AsyncFd::new(reader)?;
    /// writer.write_all(b"x")?;
    /// let mut buf = [0; 8];
    /// let count = loop {
    ///     let mut guard = reader.readable().await?;
    ///     match guard.try_io(|fd| fd.get_ref().read(&mut buf)) {
    ///         Ok(result) => break result?,
    ///         Err(_would_block) => continue,
    ///     }
    /// };
    /// assert_eq!(&buf[..count], b"x");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn readable(&self) -> AsyncFdReadable<'_, T> {
        AsyncFdReadable::new(self)
    }

    /// Waits until the descriptor is writable: there is space for data, or a write would return an
    /// error. The guard works like that of [`readable`](AsyncFd::readable).
    ///
    /// # Errors
    /// Returns `TimedOut` after the write deadline or timeout, and a
    /// [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn writable(&self) -> AsyncFdWritable<'_, T> {
        AsyncFdWritable::new(self)
    }

    /// Polls for readability like [`readable`](AsyncFd::readable), for use in your own `poll_*`
    /// methods. If the descriptor is not readable, the waker is kept until the next event. Any
    /// number of tasks may wait this way, but if there are more than 4,096, they repeatedly wake
    /// each other. Those that wait in [`readable`](AsyncFd::readable) do not.
    ///
    /// # Errors
    /// Returns the errors of [`readable`](AsyncFd::readable).
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<AsyncFdReadyGuard<'_, T>>> {
        self.poll_ready(Direction::Read, Waiter::Poll, cx)
    }

    /// Polls for writability like [`writable`](AsyncFd::writable), for use in your own `poll_*`
    /// methods. The waker is kept like that of [`poll_readable`](AsyncFd::poll_readable).
    ///
    /// # Errors
    /// Returns the errors of [`writable`](AsyncFd::writable).
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<AsyncFdReadyGuard<'_, T>>> {
        self.poll_ready(Direction::Write, Waiter::Poll, cx)
    }

    /// Records that the user's call would have blocked. `ticket`, the state of the direction, was
    /// taken before the call.
    pub(super) fn clear_ready(&self, direction: Direction, ticket: Ticket) {
        if !ticket.is_ready() && self.fd.is_ready(direction) {
            // poll(2) reports readiness although the call would have blocked, so the result of
            // poll(2) is ignored until the next edge.
            self.refuted[direction as usize].store(ticket.edges(), Ordering::Relaxed);
        }
        let side = self.fd.poll.side(direction);
        side.clear_ready(ticket);
        side.arm_for_waiters();
    }

    pub(super) fn poll_ready(
        &self,
        direction: Direction,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<AsyncFdReadyGuard<'_, T>>> {
        // An edge that arrived while this operation waited is sufficient evidence of readiness.
        // Older readiness may have been consumed since, so it is checked with poll(2).
        let is_ready = self.fd.is_marked_ready(direction);
        let woken = is_ready && caller.future().is_some_and(Operation::has_waited);
        let refuted = &self.refuted[direction as usize];
        let polled = self.fd.poll_call(direction, LockScope::None, caller, cx, |fd| {
            let may_be = is_ready || refuted.load(Ordering::Relaxed) != self.fd.poll.side(direction).edges();
            if woken || (may_be && sys::socket::is_ready(fd, direction == Direction::Write)?) {
                return Ok(((), Remaining::Maybe));
            }
            Err(io::ErrorKind::WouldBlock.into())
        });
        // The ticket must be taken before the user's call, whose result refers to it.
        let ready = ready!(polled).and_then(|()| self.fd.poll.side(direction).begin().map_err(Failure::from));
        Poll::Ready(match ready {
            Ok(ticket) => Ok(AsyncFdReadyGuard::new(self, direction, ticket)),
            Err(failure) => Err(self.error(direction.op(), failure)),
        })
    }

    // ---- calls ----

    /// Calls `call` until it returns a result other than `WouldBlock`. Waits for readability
    /// between the calls.
    ///
    /// `call` must not block: it must complete immediately or return `WouldBlock`. After
    /// `Interrupted` it is called again immediately.
    ///
    /// # Errors
    /// Returns the error of `call` unchanged; `TimedOut` after the read deadline or timeout; a
    /// [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// # Cancel safety
    /// Cancel safe if a `call` that returns `WouldBlock` has no effect. The future is ready as soon
    /// as `call` completes, so no result is lost.
    ///
    /// Source: `async_io::Async::read_with`.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::io::AsyncFd;
    /// use std::io::{Read, Write};
    ///
    /// let (reader, writer) = std::io::pipe()?;
    /// let (reader, writer) = (AsyncFd::new(reader)?, AsyncFd::new(writer)?);
    /// writer.write_with(|mut pipe| pipe.write(b"hello")).await?;
    /// let mut buf = [0; 8];
    /// assert_eq!(reader.read_with(|mut pipe| pipe.read(&mut buf)).await?, 5);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "async_io")]
    pub fn read_with<R, F: FnMut(&T) -> io::Result<R>>(&self, call: F) -> AsyncFdReadWith<'_, T, F> {
        AsyncFdReadWith::new(self, call)
    }

    /// Calls `call` until it returns a result other than `WouldBlock`. Waits for writability
    /// between the calls. See [`read_with`](AsyncFd::read_with).
    ///
    /// # Errors
    /// Returns the error of `call` unchanged; `TimedOut` after the write deadline or timeout; a
    /// [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// # Cancel safety
    /// Same as [`read_with`](AsyncFd::read_with).
    pub fn write_with<R, F: FnMut(&T) -> io::Result<R>>(&self, call: F) -> AsyncFdWriteWith<'_, T, F> {
        AsyncFdWriteWith::new(self, call)
    }

    /// Calls `call` as [`read_with`](AsyncFd::read_with) does, for use in your own `poll_*`
    /// methods. If `call` returns `WouldBlock`, returns `Pending` and wakes the task when the
    /// descriptor is readable.
    ///
    /// # Errors
    /// Returns the errors of [`read_with`](AsyncFd::read_with).
    pub fn poll_read_with<R>(
        &self,
        cx: &mut Context<'_>,
        call: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_with(Direction::Read, Waiter::Poll, cx, call)
    }

    /// Calls `call` as [`write_with`](AsyncFd::write_with) does, for use in your own `poll_*`
    /// methods. If `call` returns `WouldBlock`, returns `Pending` and wakes the task when the
    /// descriptor is writable.
    ///
    /// # Errors
    /// Returns the errors of [`write_with`](AsyncFd::write_with).
    pub fn poll_write_with<R>(
        &self,
        cx: &mut Context<'_>,
        call: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_with(Direction::Write, Waiter::Poll, cx, call)
    }

    pub(super) fn poll_with<R>(
        &self,
        direction: Direction,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        mut call: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        let polled = self.fd.poll_pinned(direction, LockScope::None, caller, cx, |_| call(&self.inner));
        polled.map_err(|failure| self.error(direction.op(), failure))
    }
}
