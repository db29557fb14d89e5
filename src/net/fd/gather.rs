//! Gathering the writes of a turn: the operations of a descriptor with a [`Gathering`].
//!
//! # Which writes are gathered
//! A write that has not waited and finds the write lock free appends to the gathered bytes, if the
//! thread is in a turn that flushes at its end, the socket takes bytes, and they fit. It takes neither
//! the write lock nor a reference. Any other write goes the way of a write without the option, with
//! one difference: its call sends what is gathered first, in the same sendmsg(2). That is a large
//! write, one outside of a turn, one that has waited or continues a `write_all`, and one to a socket
//! that is full.
//!
//! # When gathered bytes are sent
//! * By the end of the turn, and before an operation of this crate returns `Pending`:
//!   [`unsent`](crate::rt::unsent).
//! * By a write that does not fit.
//! * Before every other call that writes, under the write lock: [`Fd::send_gathered`].
//! * By `flush`, which waits for it.
//! * By shutdown(2), by a close, and before the descriptor is handed out. These do not wait: a task
//!   sends what the socket does not take at once. The FIN follows the last byte.
//! * By a conversion, which waits for it, because the next write is that of the new owner.
//! * When the write deadline changes.
//!
//! # How the usual case stays as it is
//! The write direction's word has a bit CORKED, which is tested together with CLOSING. So a socket
//! without the option executes no instruction more.
//!
//! # Cancellation
//! A write that is dropped while it waits has written nothing. Gathered bytes do not depend on it:
//! whenever the socket does not take them, the [`Flusher`](super::flusher) waits too.
//!
//! # Close
//! The last reference sends, in [`Fd::destroy`]: no write can follow. If the socket is full, it makes
//! the send buffer larger, so that the bytes are in the kernel as they are without the option. If
//! that is not permitted, a [`Finisher`] sends them. With a linger time of
//! zero it discards, since the close is an abort.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use super::cork::{Appended, Gathered, Gathering};
use super::fd::Fd;
use super::flusher::{self, Finisher, Gathers};
use super::operation::{Caller, LockScope, Remaining};
use crate::rt::fork;
use crate::rt::poll::poller::{Direction, Failure};
use crate::rt::runtime::runtime;
use crate::rt::unsent;
use crate::sys::{option, socket, zerocopy};

/// How long a conversion waits until the socket has taken the gathered bytes.
const RELEASE_MAX: Duration = Duration::from_secs(5);
/// How long a conversion waits until the crate has given its handle back.
const BORROWED_MAX: Duration = Duration::from_secs(5);

/// Takes the owner of a descriptor out of its only handle. The flusher may have a handle during its
/// poll, which does not count. Otherwise returns the handle.
pub(crate) fn unwrap_owner<T: Gathers>(owner: Arc<T>) -> Result<T, Arc<T>> {
    let Some(gathering) = owner.fd().gathering().cloned() else { return Arc::try_unwrap(owner) };
    let begun = Instant::now();
    loop {
        let state = gathering.cork.lock();
        // Under the lock no handle is taken.
        if !state.is_borrowed() {
            return Arc::try_unwrap(owner);
        }
        drop(state);
        if begun.elapsed() > BORROWED_MAX {
            return Err(owner);
        }
        thread::sleep(Duration::from_micros(50));
    }
}

impl Fd {
    /// Returns whether writes are gathered.
    pub(crate) fn gathers(&self) -> bool {
        self.gathering().is_some_and(|gathering| gathering.cork.lock().is_on())
    }

    /// Sets whether writes are gathered. `owner` has this descriptor. When it is turned off, what is
    /// gathered is sent.
    pub(crate) fn set_gathers<T: Gathers>(&self, owner: &Arc<T>, gathers: bool) -> Result<(), Failure> {
        self.with(|_| Ok(()))?;
        if !gathers && self.gathering().is_none() {
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
        // While bytes are left, other writes must not overtake them: this clears the bit, or the call
        // that sends the last byte.
        self.flush_gathered();
        Ok(())
    }

    /// Makes `call` on a descriptor that gathers writes: lets it send what is gathered first.
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

    /// Makes `call` as [`poll_call`](Fd::poll_call) does, without regard to gathered writes.
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

    /// Appends `bufs`, with `bytes` bytes, to what is gathered. An append uses neither the number
    /// nor the lock of the descriptor. Every 256th append of a thread takes a unit of the budget,
    /// and is refused if none is left. Returns `None` if the bytes must be sent, or else `bytes`.
    ///
    /// # Errors
    /// Returns the error of earlier bytes.
    #[inline(never)]
    pub(crate) fn append(&self, bufs: &[IoSlice<'_>], bytes: usize) -> Option<io::Result<usize>> {
        let gathering = self.gathering()?;
        let mut state = self.mutex.lock_while_free(Direction::Write, gathering.cork.mutex())?;
        let appended = state.append(bufs, bytes, || gathering.clone());
        drop(state);
        match appended {
            Ok(Appended::Refused) => return None,
            Ok(Appended::All(true)) => runtime().notice_activity(),
            Ok(Appended::All(false)) => {}
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(bytes))
    }

    /// Sends what is gathered and then `bufs`, for an operation that has the write lock. Returns how
    /// many bytes of `bufs` were sent.
    ///
    /// # Errors
    /// Returns `WouldBlock` if none was sent; otherwise the error of the socket, or of earlier bytes.
    #[cold]
    pub(crate) fn send_after_gathered(&self, fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.gathering() {
            Some(gathering) => gathering.send_with(fd, bufs),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Sends what is gathered, before another call of an operation that has the write lock.
    ///
    /// # Errors
    /// Returns `WouldBlock` if the socket does not take everything, or the error of the socket.
    #[cold]
    pub(super) fn send_gathered(&self) -> io::Result<()> {
        let Some(gathering) = self.gathering() else { return Ok(()) };
        let is_empty = gathering.send(false);
        gathering.cork.lock().take_error()?;
        if is_empty { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Sends what is gathered without waiting, and makes sure that the rest follows.
    pub(crate) fn flush_gathered(&self) {
        if let Some(gathering) = self.gathering() {
            gathering.send(false);
            self.follow_up();
        }
    }

    /// Called when the descriptor is registered anew, with a reference held: a shutdown of the runtime
    /// has dropped the task that sends the rest. The thread flushes before the operation waits.
    #[cold]
    pub(super) fn send_rest_soon(&self) {
        if let Some(gathering) = self.gathering()
            && gathering.cork.len() > 0
            && unsent::push(gathering.clone())
        {
            runtime().notice_activity();
        }
    }

    /// Called after a call that sent gathered bytes: makes sure that the rest is sent, and lets
    /// writes go the usual way again if the option is off and there is no rest.
    pub(super) fn follow_up(&self) {
        let Some(gathering) = self.gathering() else { return };
        {
            let state = gathering.cork.lock();
            if !state.is_on() && state.is_empty() && !state.is_shut() {
                self.poll.side(Direction::Write).set_corked(false);
            }
        }
        gathering.follow_up();
    }

    /// Waits until everything gathered is sent. Returns the error of bytes that could not be sent.
    pub(crate) fn poll_flush(&self, caller: Caller<'_>, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(gathering) = self.gathering() else { return Poll::Ready(Ok(())) };
        if gathering.cork.lock().is_empty() {
            self.abandon(Direction::Write, caller);
            return Poll::Ready(gathering.cork.lock().take_error().map_err(Failure::Io));
        }
        let polled = self.poll_drained(caller, cx);
        self.follow_up();
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(gathering.cork.lock().take_error().map_err(Failure::Io)),
            // The poll may have sent everything before it looked at the deadline.
            Poll::Ready(Err(Failure::TimedOut)) if gathering.cork.lock().is_empty() => {
                Poll::Ready(gathering.cork.lock().take_error().map_err(Failure::Io))
            }
            polled => polled,
        }
    }

    /// Waits until nothing is gathered. An error of the socket is kept.
    pub(super) fn poll_drained(&self, caller: Caller<'_>, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(gathering) = self.gathering() else { return Poll::Ready(Ok(())) };
        self.poll_call_now(Direction::Write, LockScope::None, caller, cx, |_| {
            if gathering.send(false) { Ok(((), Remaining::Maybe)) } else { Err(io::ErrorKind::WouldBlock.into()) }
        })
    }

    /// Returns the error of bytes that could not be sent, if no operation has returned it.
    pub(super) fn end_of_gathered(&self) -> io::Result<()> {
        match self.gathering() {
            Some(gathering) => gathering.cork.lock().take_error(),
            None => Ok(()),
        }
    }

    /// Sends what is gathered before shutdown(2), under a reference. Returns `how` to shut down now:
    /// the sending side is shut down when the rest is sent.
    ///
    /// # Errors
    /// Returns the error of bytes that could not be sent.
    pub(super) fn shut_gathered(&self, how: Shutdown) -> io::Result<Option<Shutdown>> {
        let Some(gathering) = self.gathering().filter(|_| how != Shutdown::Read) else { return Ok(Some(how)) };
        gathering.send(false);
        let mut state = gathering.cork.lock();
        let error = state.take_error();
        // From here on writes fail. A write may have added bytes since; the thread that sends them
        // shuts down afterwards. If there are none now, no thread does.
        state.set_shut();
        let is_empty = state.is_empty();
        drop(state);
        self.follow_up();
        error?;
        Ok(match how {
            _ if is_empty => Some(how),
            Shutdown::Both => Some(Shutdown::Read),
            _ => None,
        })
    }

    /// Called when the descriptor is about to be closed, after the last call. Sends what is
    /// gathered. Returns what the socket did not take.
    pub(super) fn take_gathered(&self) -> Option<(Vec<u8>, usize)> {
        let gathering = self.gathering()?;
        if !fork::is_child() && !self.aborts() && !gathering.send(false) {
            // The kernel then sends them as those of any closed socket, whatever becomes of this
            // process. Where it does not permit that, a task of this crate does.
            let _ = option::socket::make_room(self.borrow(), gathering.cork.len());
            gathering.send(false);
            let (bytes, sent) = gathering.retire();
            return (sent < bytes.len()).then_some((bytes, sent));
        }
        gathering.retire();
        None
    }

    /// Sends what [`take_gathered`](Fd::take_gathered) has returned on `fd`, and closes it then.
    pub(super) fn finish_gathered(fd: OwnedFd, rest: (Vec<u8>, usize)) {
        Finisher::start(fd, rest);
    }

    /// Returns whether a close discards unsent bytes.
    fn aborts(&self) -> bool {
        self.may_linger() && matches!(option::socket::linger(self.borrow()), Ok(Some(Duration::ZERO)))
    }

    /// Blocks until everything gathered is sent, for at most [`RELEASE_MAX`].
    ///
    /// # Errors
    /// Returns `WouldBlock` after this time, and at once in a simulation.
    pub(crate) fn drain_blocking(&self) -> Result<(), Failure> {
        let Some(gathering) = self.gathering() else { return Ok(()) };
        let end = Instant::now() + RELEASE_MAX;
        while !gathering.send(false) {
            let left = end.saturating_duration_since(Instant::now());
            // A simulation makes no progress while its thread waits.
            if left.is_zero() || unsent::is_simulating() {
                return Err(Failure::Io(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "the socket does not take the gathered bytes: flush the stream before it is converted",
                )));
            }
            self.with(|fd| socket::wait_ready(fd, true, Some(left)))?;
        }
        Ok(())
    }

    /// Ends gathering, because the descriptor is given away. If bytes are left, the connection is
    /// reset: the new owner must not write after a gap.
    pub(crate) fn retire_gathered(&self) {
        let Some(gathering) = self.gathering() else { return };
        let (bytes, sent) = gathering.retire();
        if sent < bytes.len() && !fork::is_child() {
            // Where the connection cannot be reset, it is shut down.
            let _ = self.with(zerocopy::disconnect);
            let _ = self.with(|fd| socket::shutdown(fd, Shutdown::Both));
        }
    }
}
