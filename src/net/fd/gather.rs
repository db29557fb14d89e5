//! Gathered writes: the operations of a descriptor that has a [`Gathering`]. [`net::fd`](super)
//! defines the terms.
//!
//! # Which writes are gathered
//! A write that has not waited and finds the write lock free appends to the gathered bytes, if the
//! thread is in a turn that flushes at its end, the socket is not *blocked*
//! ([`cork`](super::cork)), and the bytes fit. It takes neither the write lock nor a reference. Of
//! the writes of a turn to one socket, usually only the first takes any lock ([`Fd::append_more`]).
//! Every other write makes a call like a write without the option, except that the gathered bytes
//! are sent first, if possible in the same sendmsg(2). This applies to
//! * a write that is empty or large, or whose bytes do not fit,
//! * a write outside of a turn or, except in a simulation, in the part of a turn that follows a
//!   nested turn,
//! * a write in a turn that may gather no more, because of its duration or the number of its
//!   sockets,
//! * a write that has waited, finds the write lock taken or continues a `write_all`,
//! * a write to a blocked socket,
//! * a write after a send has failed, the option was turned off or the sending side was shut down,
//! * a write in a child of fork(2), which leaves the gathered bytes to its parent.
//!
//! # When gathered bytes are sent
//! * When the thread flushes its list ([`unsent`](crate::rt::unsent)): at the end of the turn, and
//!   usually before an operation of this crate returns `Pending`. Sysmon, if it runs, flushes the
//!   list in a long turn.
//! * By a write that is not gathered: [`Fd::send_after_gathered`].
//! * Before every other call that writes, such as sendfile(2): [`Fd::send_gathered`].
//! * Before `writable` checks whether there is room: [`Fd::send_before_check`].
//! * By `flush`, which waits until all of them are sent.
//! * By a shutdown of the sending side, by a close, when the option is turned off, and before the
//!   descriptor is [exposed](Fd::expose). These do not wait: a task sends the bytes that the socket
//!   does not accept immediately. The FIN follows the last byte.
//! * By a conversion. The new owner of the descriptor may make the next write, so the conversion
//!   blocks until all of them are sent, but for at most [`RELEASE_MAX`].
//! * Before the write deadline of a socket with the option is set: the thread flushes all sockets
//!   of its list.
//!
//! # Cost without the option
//! The word of the write direction has a bit CORKED, which is tested together with CLOSING. In
//! addition, a write to a socket without the option checks a pointer, which is null for most
//! sockets ([`Fd::append_more`]).
//!
//! # Cancellation
//! A write that is dropped while it waits has written nothing, except that a `write_all` may have
//! written a part. Gathered bytes do not depend on the write: while the socket does not accept
//! them, the [`Flusher`](super::flusher) waits too.
//!
//! # Close
//! [`Fd::destroy`] sends the gathered bytes, because no write can follow. If the socket is full,
//! the send buffer is enlarged, so that the kernel accepts all bytes. If the kernel still does not
//! accept all of them, a [`Finisher`] sends the rest. If this would make a drop start the runtime
//! after its shutdown, a TCP connection is reset instead, and the peer of a Unix stream reads end
//! of stream. With a linger time of zero, the bytes are discarded, because the close aborts the
//! connection.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use super::closing::Closing;
use super::cork::{self, Appended, Gathering};
use super::cork_buffer::SHORT_MAX;
use super::fd::Fd;
use super::flusher::{self, Finisher, Gathers, Rest};
use super::operation::{Caller, Gathered, LockScope, Remaining};
use crate::rt::fork;
use crate::rt::poll::poller::{Direction, Failure};
use crate::rt::runtime::runtime;
use crate::rt::unsent;
use crate::rt::waiters::Waiter;
use crate::sys::{option, socket, zerocopy};

/// The maximum time that a conversion blocks: until the flusher has dropped its handle
/// ([`unwrap_owner`]), and then until the socket has accepted the gathered bytes
/// ([`Fd::drain_blocking`]).
pub(crate) const RELEASE_MAX: Duration = Duration::from_secs(5);

/// Unwraps the owner of a descriptor if `owner` is the only handle, otherwise returns `owner`
/// itself. A handle of the flusher ([`State::borrow`](super::cork::State::borrow)) does not count:
/// the function blocks until that handle is dropped, but not longer than until `end`.
pub(crate) fn unwrap_owner<T: Gathers>(owner: Arc<T>, end: Instant) -> Result<T, Arc<T>> {
    let Some(gathering) = owner.fd().gathering().cloned() else { return Arc::try_unwrap(owner) };
    loop {
        let state = gathering.cork.lock();
        // The flusher takes no handle while the lock is held.
        if !state.is_borrowed() {
            return Arc::try_unwrap(owner);
        }
        drop(state);
        if Instant::now() >= end {
            return Err(owner);
        }
        thread::sleep(Duration::from_micros(50));
    }
}

impl Caller<'_> {
    /// Returns whether the operation has neither waited nor kept a lock. Always true for a `poll_*`
    /// method.
    #[inline]
    pub(crate) fn is_new(&self) -> bool {
        match self {
            Waiter::Future(operation) => operation.is_new(),
            Waiter::Poll => true,
        }
    }
}

impl Fd {
    /// Returns whether writes are gathered (the *option*). After a failed send, the option stays
    /// set, although no write is gathered any more.
    pub(crate) fn gathers(&self) -> bool {
        self.gathering().is_some_and(|gathering| gathering.cork.lock().is_on())
    }

    /// Sets whether writes are gathered. `owner` contains this descriptor. If gathering is turned
    /// off, sends the gathered bytes without waiting.
    pub(crate) fn set_gathers<T: Gathers>(&self, owner: &Arc<T>, gathers: bool) -> Result<(), Failure> {
        self.with(|_| Ok(()))?;
        if (!gathers && self.gathering().is_none()) || fork::is_child() {
            return Ok(());
        }
        let gathering = self.gathering_or_init(|| {
            let weak = Arc::downgrade(owner);
            let start = move |gathering| flusher::start(weak.clone(), gathering);
            Gathering::new(self.number(), self.poll.slot(), self.used_fast_open().is_some(), start)
        });
        let mut state = gathering.cork.lock();
        state.set_on(gathers);
        if gathers {
            self.poll.side(Direction::Write).set_corked(true);
            return Ok(());
        }
        drop(state);
        // Other writes must not overtake the gathered bytes, so CORKED stays set until the last of
        // them is sent, and, if that fails, until an operation has returned the error. `follow_up`
        // then clears CORKED, in this call or in a later one.
        self.flush_gathered();
        Ok(())
    }

    /// Makes `call`, which writes to a descriptor that gathers writes, as
    /// [`poll_call`](Fd::poll_call) does. The argument of `call` tells it to send the gathered
    /// bytes first.
    #[cold]
    #[inline(never)]
    pub(super) fn poll_call_corked<T>(
        &self,
        scope: LockScope,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        mut call: impl FnMut(BorrowedFd<'_>, Gathered) -> io::Result<(T, Remaining)>,
    ) -> Poll<Result<T, Failure>> {
        let polled = self.poll_call_now(Direction::Write, scope, caller, cx, |fd| call(fd, Gathered::First));
        self.follow_up();
        polled
    }

    /// Makes `call` as [`poll_call`](Fd::poll_call) does, but does not send gathered bytes first.
    fn poll_call_now<T>(
        &self,
        direction: Direction,
        scope: LockScope,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<(T, Remaining)>,
    ) -> Poll<Result<T, Failure>> {
        self.poll_call_slow(direction, scope, caller, cx, call, self.poll.side(direction).begin(), None)
    }

    /// Appends `bufs`, which have `bytes` bytes, to the gathered bytes. Takes neither a reference
    /// nor the write lock. After every 256 appends of a thread, or fewer if they have 256 bytes or
    /// more, checks the duration of the turn, and refuses the write if the turn may gather no more.
    /// Returns `bytes`, or `None` if the write must make its own call.
    ///
    /// # Errors
    /// Returns the error of earlier gathered bytes.
    #[inline(never)]
    pub(crate) fn append(&self, bufs: &[IoSlice<'_>], bytes: usize) -> Option<io::Result<usize>> {
        let gathering = self.gathering()?;
        let mut state = self.mutex.lock_while_free(Direction::Write, || gathering.cork.lock())?;
        let appended = state.append(bufs, bytes, || gathering.clone());
        match appended {
            Ok(Appended::Refused) => None,
            Ok(Appended::All(is_first)) => {
                state.own();
                if is_first {
                    runtime().notice_activity();
                }
                Some(Ok(bytes))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Appends `buf` as [`append`](Fd::append) does, for an operation that is
    /// [new](Caller::is_new), if this thread owns the gathered bytes and appending needs no memory
    /// and no check of the turn's duration. Returns whether `buf` was appended. If it was not, the
    /// operation must begin as usual, which also finds the reason.
    ///
    /// This checks everything that [`begin_call`](crate::rt::poll::side::Side::begin_call) checks:
    /// the lock's word also says whether the descriptor is closed.
    #[inline]
    pub(crate) fn append_more(&self, buf: &[u8]) -> bool {
        // Most descriptors have no rarely needed state, and so do not gather.
        self.rare.get().is_some() && self.append_more_of_any_length(buf)
    }

    /// Appends `buf` for [`append_more`](Fd::append_more). A short write calls no function, so this
    /// function needs no stack frame.
    #[inline(never)]
    fn append_more_of_any_length(&self, buf: &[u8]) -> bool {
        if buf.len() > SHORT_MAX { self.append_more_long(buf) } else { self.append_owned(buf) }
    }

    /// Appends `buf` for [`append_more`](Fd::append_more) if it is not short.
    #[inline(never)]
    fn append_more_long(&self, buf: &[u8]) -> bool {
        self.append_owned(buf)
    }

    /// Appends `buf` if the descriptor is open, the write lock is free, the write deadline has not
    /// passed, this thread owns the gathered bytes, and their state accepts `buf`
    /// (`State::append_more`). Returns whether `buf` was appended.
    #[inline(always)]
    fn append_owned(&self, buf: &[u8]) -> bool {
        let Some(gathering) = self.gathering() else { return false };
        let is_free = || self.mutex.is_free(Direction::Write) && !self.poll.side(Direction::Write).is_expired();
        gathering.cork.append_owned(buf, is_free)
            && (buf.len() as u32 <= self.poll.uncounted || self.charge_append(buf.len()))
    }

    /// Counts an appended write of a socket whose bytes the kernel does not count. Returns true.
    #[cold]
    #[inline(never)]
    fn charge_append(&self, bytes: usize) -> bool {
        self.poll.charge(Direction::Write, bytes);
        true
    }

    /// Sends the gathered bytes and then `bufs`, for an operation that has the write lock. Returns
    /// the number of bytes of `bufs` that were sent.
    ///
    /// # Errors
    /// Returns `WouldBlock` (or EINPROGRESS, if the connection is not established yet) if the
    /// socket accepted no byte of `bufs`, EPIPE if the sending side is shut down, another error of
    /// the call, or the error of earlier gathered bytes.
    #[cold]
    pub(crate) fn send_after_gathered(&self, fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.gathering() {
            Some(gathering) => gathering.send_with(fd, bufs),
            // A forked child.
            None if self.is_sending_shut() => Err(io::Error::from_raw_os_error(libc::EPIPE)),
            None => cork::send_bufs(fd, bufs),
        }
    }

    /// Sends the gathered bytes before the call of an operation that cannot send them in the same
    /// call.
    ///
    /// # Errors
    /// If the socket does not accept all of them, returns `WouldBlock`, or EPIPE if the sending
    /// side is shut down. Returns the error of bytes that could not be sent.
    #[cold]
    pub(super) fn send_gathered(&self) -> io::Result<()> {
        let Some(gathering) = self.gathering() else { return Ok(()) };
        let is_empty = gathering.send();
        gathering.cork.lock().take_error()?;
        match is_empty {
            true => Ok(()),
            false if self.is_sending_shut() => Err(io::Error::from_raw_os_error(libc::EPIPE)),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Sends the gathered bytes before a check for room in the send buffer. Returns whether sending
    /// them has failed; the next write then returns the error.
    ///
    /// # Errors
    /// Returns `WouldBlock` if the socket does not accept all of them.
    #[cold]
    pub(crate) fn send_before_check(&self) -> io::Result<bool> {
        let Some(gathering) = self.gathering() else { return Ok(false) };
        let is_empty = gathering.send();
        let has_failed = gathering.cork.lock().error.is_some();
        if is_empty || has_failed { Ok(has_failed) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Sends gathered bytes without waiting. If some are left, a task sends them.
    pub(crate) fn flush_gathered(&self) {
        if let Some(gathering) = self.gathering() {
            gathering.send();
            self.follow_up();
        }
    }

    /// Adds the socket to the list of sockets that this thread flushes, if the socket has gathered
    /// bytes. Called under a reference when the descriptor is registered, because a shutdown of the
    /// runtime may have dropped the flusher. The thread flushes before the operation waits.
    #[cold]
    pub(super) fn send_rest_soon(&self) {
        if let Some(gathering) = self.gathering()
            && gathering.cork.len() > 0
            && unsent::push(gathering.clone())
        {
            runtime().notice_activity();
        }
    }

    /// Makes sure that a task sends the bytes that are left. If none are left, no error is kept,
    /// the option is off and the sending side is open, clears CORKED. Called after a call that may
    /// have sent gathered bytes.
    pub(super) fn follow_up(&self) {
        let Some(gathering) = self.gathering() else { return };
        {
            let state = gathering.cork.lock();
            if state.is_over() {
                self.poll.side(Direction::Write).set_corked(false);
            }
        }
        gathering.follow_up();
    }

    /// Waits until all gathered bytes are sent.
    ///
    /// # Errors
    /// Returns the error of gathered bytes that could not be sent. If bytes are left, returns
    /// `TimedOut` after the write deadline or timeout, or another failure of the wait. Returns
    /// `Closed` after the close of a socket that has ever gathered.
    pub(crate) fn poll_flush(&self, caller: Caller<'_>, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(gathering) = self.gathering() else { return Poll::Ready(Ok(())) };
        if gathering.cork.lock().is_empty() {
            self.abandon(Direction::Write, caller);
            return Poll::Ready(self.flushed(gathering));
        }
        let polled = self.poll_drained(caller, cx);
        self.follow_up();
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(self.flushed(gathering)),
            // The poll may have sent all bytes before it checked the deadline.
            Poll::Ready(Err(Failure::TimedOut)) if gathering.cork.lock().is_empty() => {
                Poll::Ready(self.flushed(gathering))
            }
            // Another thread has sent the bytes after the attempt of this poll. There is no
            // flusher, so nothing else would wake this operation.
            Poll::Pending if gathering.cork.lock().flusher.is_none() => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }

    /// Returns the result of a flush that has found no gathered bytes, which is `Closed` after a
    /// close, because a [`Finisher`] may still have bytes that are not sent.
    fn flushed(&self, gathering: &Gathering) -> Result<(), Failure> {
        gathering.cork.lock().take_error().map_err(Failure::Io)?;
        if self.mutex.is_closed() { Err(Failure::Closed) } else { Ok(()) }
    }

    /// Waits until no gathered bytes are left. An error of the socket is kept.
    pub(super) fn poll_drained(&self, caller: Caller<'_>, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(gathering) = self.gathering() else { return Poll::Ready(Ok(())) };
        self.poll_call_now(Direction::Write, LockScope::None, caller, cx, |_| {
            if gathering.send() { Ok(((), Remaining::Maybe)) } else { Err(io::ErrorKind::WouldBlock.into()) }
        })
    }

    /// Returns the error of gathered bytes that could not be sent, unless an operation has returned
    /// it already.
    pub(super) fn end_of_gathered(&self) -> io::Result<()> {
        match self.gathering() {
            Some(gathering) => gathering.cork.lock().take_error(),
            None => Ok(()),
        }
    }

    /// Sends the gathered bytes before shutdown(2). Returns the sides to shut down now, or `None`
    /// if there is none. If bytes are left, the sending side is shut down after the last byte. The
    /// caller must hold a reference.
    ///
    /// # Errors
    /// Returns the error of bytes that could not be sent.
    pub(super) fn shut_gathered(&self, how: Shutdown) -> io::Result<Option<Shutdown>> {
        let Some(gathering) = self.gathering().filter(|_| how != Shutdown::Read) else { return Ok(Some(how)) };
        let sent = gathering.sending(|state| {
            let (is_empty, done) = gathering.send_locked(state);
            // From here on, writes fail. No write has appended bytes since the send, so bytes are
            // left only if the socket did not accept them. The thread that sends the last of them
            // then shuts down the sending side. Otherwise the caller does.
            state.set_shut();
            self.set_sending_shut();
            (state.take_error().map(|()| is_empty), done)
        });
        self.follow_up();
        let is_empty = sent?;
        Ok(match how {
            _ if is_empty => Some(how),
            Shutdown::Both => Some(Shutdown::Read),
            _ => None,
        })
    }

    /// Sends the gathered bytes and ends gathering, when the descriptor is about to be closed,
    /// after the last call. Discards the bytes if the close aborts the connection. Otherwise, if
    /// the socket does not accept all of them, returns the rest.
    pub(super) fn take_gathered(&self) -> Option<Rest> {
        let gathering = self.gathering()?;
        if !self.aborts() && !gathering.send() {
            // With a larger send buffer, the kernel sends the bytes even if this process exits. A
            // task of this crate sends those that the kernel still does not accept.
            let _ = option::socket::make_room(self.borrow(), gathering.cork.len());
            gathering.send();
            let (bytes, sent) = gathering.retire();
            return (sent < bytes.len()).then(|| Rest { bytes, sent, ends: self.is_sending_shut() });
        }
        gathering.retire();
        None
    }

    /// Starts a task that sends `rest`, the result of [`take_gathered`](Fd::take_gathered). Returns
    /// `closing`, which need not wait for the task, or `None` if there is no descriptor for a
    /// duplicate. In that case the number itself stays open until the task ends, and then `closing`
    /// ends.
    pub(super) fn finish_gathered(mut closing: Closing, rest: Rest) -> Option<Closing> {
        let own = closing.fd.take()?;
        match socket::dup_cloexec(own.as_fd()) {
            Ok(duplicate) => {
                Finisher::start(duplicate, rest, None);
                closing.fd = Some(own);
                Some(closing)
            }
            Err(_) => {
                Finisher::start(own, rest, Some(closing));
                None
            }
        }
    }

    /// Returns whether a close discards unsent bytes, because the linger time is zero.
    fn aborts(&self) -> bool {
        self.may_linger() && matches!(option::socket::linger(self.borrow()), Ok(Some(Duration::ZERO)))
    }

    /// Blocks until all gathered bytes are sent, but not longer than until `end`. An error of the
    /// socket is kept.
    ///
    /// # Errors
    /// Returns `WouldBlock` if bytes are left at `end` or, in a simulation, after the first
    /// attempt. Also returns the error of poll(2), and `Closed` if bytes are left and the close has
    /// begun.
    pub(crate) fn drain_blocking(&self, end: Instant) -> Result<(), Failure> {
        let Some(gathering) = self.gathering() else { return Ok(()) };
        while !gathering.send() {
            let left = end.saturating_duration_since(Instant::now());
            // A simulation makes no progress while its thread waits.
            if left.is_zero() || unsent::is_simulating() {
                return Err(Failure::Io(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "the socket does not accept the gathered bytes; flush the stream before you convert it",
                )));
            }
            if gathering.cork.lock().is_starved() {
                thread::sleep(Duration::from_millis(1));
            }
            self.with(|fd| socket::wait_ready(fd, true, Some(left)))?;
        }
        Ok(())
    }

    /// Simulates a flusher that never drops its handle, for tests. Returns the number of gathered
    /// bytes.
    #[cfg(test)]
    pub(crate) fn lend_forever(&self) -> usize {
        let mut state = self.gathering().expect("the test gathers writes").cork.lock();
        state.borrow(|| Some(()));
        state.unsent().len()
    }

    /// Ends gathering, because the descriptor is given away. If bytes are left, resets or shuts
    /// down the connection, because otherwise the new owner's bytes would follow a gap in the
    /// stream.
    pub(crate) fn retire_gathered(&self) {
        let Some(gathering) = self.gathering() else { return };
        let (bytes, sent) = gathering.retire();
        if sent < bytes.len() {
            // The shutdown is for a connection that was not reset: a Unix stream, or any connection
            // on a system other than Linux.
            let _ = self.with(zerocopy::disconnect);
            let _ = self.with(|fd| socket::shutdown(fd, Shutdown::Both));
        }
    }
}
