//! Gathering the writes of a turn: the operations of a descriptor with a [`Cork`].
//!
//! # Which writes are gathered
//! A write that finds the write lock free appends to the gathered bytes, if the thread is in a turn
//! that flushes at its end, the socket takes bytes, and they fit. Any other write goes the way of a
//! write without the option, with one difference: its call sends what is gathered first, in the same
//! sendmsg(2). That is a large write, one outside of a turn, one that continues a `write_all`, and
//! one to a socket that is full.
//!
//! # When gathered bytes are sent
//! * By the end of the turn, and before an operation of this crate returns `Pending`:
//!   [`unsent`](crate::rt::unsent).
//! * By a write that does not fit.
//! * Before every other call that writes, under the write lock: [`Fd::send_gathered`].
//! * By `flush`, which waits for it.
//! * By shutdown(2), by a close, and before the descriptor is handed out. These do not wait: a task
//!   sends what the socket does not take at once. The FIN follows the last byte.
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
//! The last reference sends, in [`Fd::destroy`]: no write can follow. With a linger time of zero it
//! discards, since the close is an abort.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::cork::{Appended, Gathering};
use super::failure::Failure;
use super::fd::Fd;
use super::flusher::{self, Finisher, Gathers};
use super::operation::{Caller, Gathered, LockScope, Remaining};
use crate::rt::context;
use crate::rt::fork;
use crate::rt::poll::poller::Direction;
use crate::rt::runtime::runtime;
use crate::rt::unsent;
use crate::sys::{option, socket};

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
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
            Gathering::new(weak.clone(), move || flusher::start(weak.clone()))
        });
        let mut state = gathering.cork.lock();
        state.set_on(gathers);
        if gathers {
            self.poll.set_corked(true);
            return Ok(());
        }
        drop(state);
        // While bytes are left, other writes must not overtake them: this clears the bit, or the call
        // that sends the last byte.
        self.flush_gathered();
        Ok(())
    }

    /// Makes `call` on a descriptor that gathers writes: lets it append, if the lock is free, or else
    /// send what is gathered first. An append is not charged to the budget.
    #[cold]
    #[inline(never)]
    pub(super) fn poll_call_corked<T>(
        &self,
        scope: LockScope,
        mut caller: Caller<'_>,
        cx: &mut Context<'_>,
        mut call: impl FnMut(BorrowedFd<'_>, Gathered) -> io::Result<(T, Remaining)>,
    ) -> Poll<Result<T, Failure>> {
        let direction = Direction::Write;
        if self.poll.begin(direction).is_ok() && self.try_hold(direction, scope, &caller) {
            let appended = call(self.borrow(), Gathered::Append);
            self.give_back(direction, scope, &mut caller, false);
            match appended {
                Ok((value, _)) => {
                    // If it has waited, it passes the wake-up that it did not need to the next waiter.
                    match caller {
                        Some(operation) => self.cancel(direction, operation),
                        None => _ = self.poll.end_operation_keyless(direction),
                    }
                    return Poll::Ready(Ok(value));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(self.fail(direction, caller, Failure::Io(error)))),
            }
        }
        let polled = self.poll_call_now(direction, scope, caller, cx, |fd| call(fd, Gathered::First));
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
        self.poll_call_slow(direction, scope, caller, cx, call, self.poll.begin(direction), None)
    }

    /// Makes the call of a write of `bufs`, with `bytes` bytes, on a descriptor that gathers: appends
    /// them, or sends them after what is gathered. The operation has the write lock. Returns how many
    /// were written.
    ///
    /// # Errors
    /// Returns `WouldBlock` if they do not fit, or none was sent; otherwise the error of the socket,
    /// or of earlier bytes.
    #[cold]
    pub(crate) fn gather(
        &self,
        fd: BorrowedFd<'_>,
        bufs: &[IoSlice<'_>],
        bytes: usize,
        gathered: Gathered,
    ) -> io::Result<usize> {
        let Some(gathering) = self.gathering() else { return Err(io::ErrorKind::WouldBlock.into()) };
        if gathered == Gathered::Append {
            let appended = gathering.cork.lock().append(bufs, bytes, || gathering.owner.clone())?;
            return match appended {
                Appended::Refused => Err(io::ErrorKind::WouldBlock.into()),
                Appended::All(is_first) => {
                    if is_first {
                        runtime().notice_activity();
                    }
                    Ok(bytes)
                }
            };
        }
        let (sent, done) = {
            let mut state = gathering.cork.lock();
            state.send_with(fd, bufs, |error| self.is_early(error))
        };
        wake(done);
        sent
    }

    /// Sends what is gathered, before another call of an operation that has the write lock.
    ///
    /// # Errors
    /// Returns `WouldBlock` if the socket does not take everything, or the error of the socket.
    #[cold]
    pub(super) fn send_gathered(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let Some(gathering) = self.gathering() else { return Ok(()) };
        let is_empty = self.send_to(gathering, fd);
        gathering.cork.lock().take_error()?;
        if is_empty { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Sends what is gathered. Returns whether nothing is left. An error is kept.
    fn send_to(&self, gathering: &Gathering, fd: BorrowedFd<'_>) -> bool {
        let (before, sent, left) = {
            let mut state = gathering.cork.lock();
            let before = state.unsent().len();
            let sent = state.send(fd, |error| self.is_early(error));
            (before, sent, state.unsent().len())
        };
        if before > left {
            // For a read that waits for the answer; and the writes were free.
            context::record_call(true, self.number());
            context::charge(before - left);
        }
        wake(sent.done);
        sent.is_empty
    }

    /// Sends what is gathered without waiting, and makes sure that the rest follows.
    pub(crate) fn flush_gathered(&self) {
        if let Some(gathering) = self.gathering() {
            // If it is closed, whoever has the last reference sends.
            let _ = self.with(|fd| Ok(self.send_to(gathering, fd)));
            self.follow_up();
        }
    }

    /// Called after a call that sent gathered bytes: makes sure that the rest is sent, and lets
    /// writes go the usual way again if the option is off and there is no rest.
    pub(super) fn follow_up(&self) {
        let Some(gathering) = self.gathering() else { return };
        let mut state = gathering.cork.lock();
        let wants_flusher = state.wants_flusher();
        if !state.is_on() && state.is_empty() && !state.is_shut() {
            self.poll.set_corked(false);
        }
        drop(state);
        if wants_flusher {
            unsent::enter_blocked(gathering.owner.clone());
            (gathering.start_flusher)();
        }
    }

    /// Waits until everything gathered is sent. Returns the error of bytes that could not be sent.
    pub(crate) fn poll_flush(&self, caller: Caller<'_>, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(gathering) = self.gathering() else { return Poll::Ready(Ok(())) };
        if gathering.cork.lock().is_empty() {
            match caller {
                Some(operation) => self.cancel(Direction::Write, operation),
                None => _ = self.poll.end_operation_keyless(Direction::Write),
            }
            return Poll::Ready(gathering.cork.lock().take_error().map_err(Failure::Io));
        }
        let polled = self.poll_drained(caller, cx);
        self.follow_up();
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(gathering.cork.lock().take_error().map_err(Failure::Io)),
            polled => polled,
        }
    }

    /// Waits until nothing is gathered. An error of the socket is kept.
    pub(super) fn poll_drained(&self, caller: Caller<'_>, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(gathering) = self.gathering() else { return Poll::Ready(Ok(())) };
        self.poll_call_now(Direction::Write, LockScope::None, caller, cx, |fd| {
            if self.send_to(gathering, fd) { Ok(((), Remaining::Maybe)) } else { Err(io::ErrorKind::WouldBlock.into()) }
        })
    }

    /// Ends the flusher if nothing is left to send; otherwise keeps its waker.
    pub(super) fn ends_flusher(&self, waker: &Waker) -> bool {
        let waker = waker.clone();
        let Some(gathering) = self.gathering() else { return true };
        let mut state = gathering.cork.lock();
        let ends = state.is_empty();
        // Dropped outside of the lock.
        let _old = state.flusher.replace(Some(waker)).flatten();
        if ends {
            let _new = state.flusher.take();
            drop(state);
            return true;
        }
        drop(state);
        false
    }

    /// Sends what the socket takes, for the flusher.
    pub(super) fn try_drain(&self) {
        if let Some(gathering) = self.gathering() {
            let _ = self.with(|fd| Ok(self.send_to(gathering, fd)));
        }
    }

    /// Called when the flusher ends.
    pub(super) fn forget_flusher(&self) {
        if let Some(gathering) = self.gathering() {
            let _old = gathering.cork.lock().flusher.take();
        }
    }

    /// Called by a read that found the end of the stream: returns the error of bytes that could not
    /// be sent, which the kernel reports only once.
    #[cold]
    pub(crate) fn end_of_stream(&self) -> io::Result<()> {
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
    pub(super) fn shut_gathered(&self, fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<Option<Shutdown>> {
        let Some(gathering) = self.gathering().filter(|_| how != Shutdown::Read) else { return Ok(Some(how)) };
        self.send_to(gathering, fd);
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
        if fork::is_child() {
            return None;
        }
        let is_abort = self.may_linger() && matches!(option::socket::linger(self.borrow()), Ok(Some(Duration::ZERO)));
        if is_abort {
            gathering.cork.lock().empty();
            return None;
        }
        if self.send_to(gathering, self.borrow()) {
            return None;
        }
        Some(gathering.cork.lock().take())
    }

    /// Sends the rest on a duplicate, which is closed then.
    pub(super) fn finish_gathered(fd: OwnedFd, rest: (Vec<u8>, usize)) -> io::Result<()> {
        Finisher::start(fd, rest)
    }

    /// Sends what is gathered before the descriptor is given away. What the socket does not take, a
    /// task sends on a duplicate.
    pub(crate) fn release_gathered(&self) -> Result<(), Failure> {
        if self.gathering().is_none() {
            return Ok(());
        }
        self.with(|fd| {
            if let Some(rest) = self.take_gathered() {
                Fd::finish_gathered(socket::dup_cloexec(fd)?, rest)?;
            }
            Ok(())
        })
    }

    /// Returns the number of gathered bytes.
    pub(crate) fn gathered(&self) -> usize {
        self.gathering().map_or(0, |gathering| gathering.cork.len())
    }
}
