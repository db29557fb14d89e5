//! [`Cork`]: the buffer that gathers the writes of a turn. [`net::fd`](super) defines the terms.
//!
//! If the option is on (`set_auto_cork`), a write appends to this buffer and returns. The end of
//! the turn sends the buffer with one system call ([`unsent`](crate::rt::unsent)).
//! [`gather`](super::gather) decides which writes append, and has the operations that wait.
//!
//! # States
//! ```text
//! empty ── append ──→ gathering ── everything sent ──→ empty
//!                         │ the socket is full
//!                         ↓
//!                      blocked ── room, everything sent ──→ empty
//!                         │
//!   any ── a send fails ──┴→ failed: nothing is gathered any more
//! ```
//! *gathering*: the socket is in the list of a thread, whose next flush sends the bytes. *blocked*:
//! the socket did not accept all bytes. A task, the [`Flusher`](super::flusher), waits for room.
//! Writes no longer append: they wait like writes without the option, and send the gathered bytes
//! before their own. At most [`GATHERED_MAX`] bytes are gathered.
//!
//! Two flags do not depend on these states. *shut*: the sending side is shut down, or will be after
//! the last gathered byte, and writes fail. If bytes are left at the shutdown, the thread that
//! sends the last of them calls shutdown(2). By then the connection is established, because a
//! socket in SYN-SENT accepts no bytes after those of its SYN. (In SYN-SENT, shutdown(2) would
//! abort the connection and lose these bytes; see [`fast_open`](super::fast_open).) *gone*: the
//! number of the descriptor must not be used; see "Ownership".
//!
//! # Order
//! * Gathered bytes are sent before all bytes that are written later. Only an operation that holds
//!   the write lock of the descriptor makes a call that sends other bytes, and the operation sends
//!   the gathered bytes before or in this call.
//! * A write appends only while no operation has the write lock: it checks the write lock while it
//!   holds the state's lock
//!   ([`FdMutex::lock_while_free`](super::fd_mutex::FdMutex::lock_while_free)) or owns the state.
//!   So the write either finds the write lock taken, or precedes the first call of the write lock's
//!   next owner, because each owner locks the state before it makes a call.
//! * Therefore any thread may send gathered bytes at any time with the state locked, without the
//!   write lock: they never appear between the pieces of a `write_all`.
//!
//! # Errors
//! If the kernel has no memory (ENOBUFS, ENOMEM), the gathered bytes stay, and the flusher sends
//! them later, because a stream must not continue behind a gap.
//!
//! If gathered bytes cannot be sent, their writes have already returned `Ok`. If a write makes the
//! call that fails, it returns the error. Otherwise the error is kept and returned at most once: by
//! the next write, flush or shutdown of the sending side, or by a read that finds the end of the
//! stream. After a failure no write is gathered, so each further write returns its own result.
//!
//! # Deadlines
//! Gathered bytes count as accepted, like bytes in the send buffer of the kernel: a deadline that
//! passes ends writes and flushes that wait, but does not discard these bytes.
//!
//! # Locks
//! The state's lock is held during send(2), which does not wait, and never while wakers run. A
//! thread that holds it may take the locks of [`unsent`](crate::rt::unsent). A thread that appends
//! becomes the *owner* of the state, if [`BiasedMutex`] permits this, until any thread locks the
//! state, at the latest at the end of the turn. Further writes of the owner append without the lock
//! ([`State::append_more`]).
//!
//! # Ownership
//! The lists of threads, sysmon and snapshots use the [`Gathering`], which is not a handle of the
//! socket: it keeps no socket open, and its flush runs no user code. With the state locked, the
//! descriptor's number may be used until the state is *gone*. The close and the conversion of a
//! socket mark the state as gone, under its lock, before the number is closed or given away. Only
//! the flusher takes a handle, during each of its polls and during its drop, and the state counts
//! the handle ([`State::borrow`]).
//!
//! # Fork
//! A child of fork(2) does not use its copy of the state, because another thread may have held the
//! lock at the fork. The parent sends the bytes. The child gathers no writes.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, RawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::task::Waker;

use super::biased_mutex::{BiasedGuard, BiasedMutex};
use super::cork_buffer::{Buffer, GATHERED_MAX};
use super::cork_weight;
use crate::rt::context;
use crate::rt::fork;
use crate::rt::unsent::{self, Amount, Unsent};
use crate::sys::socket;

/// A write of at least this many bytes is sent immediately, together with the gathered bytes,
/// because copying it costs more than the system call.
const LARGE: usize = 16 << 10;

/// The option is set.
const ON: u8 = 1;
/// The socket did not accept all bytes.
const BLOCKED: u8 = 1 << 1;
/// A send failed.
const FAILED: u8 = 1 << 2;
/// The sending side is shut down, or will be after the last gathered byte.
const SHUT: u8 = 1 << 3;
/// The descriptor's number must no longer be used.
const GONE: u8 = 1 << 4;
/// The sending side must be shut down when all gathered bytes are sent. Implies [`SHUT`].
const ENDS: u8 = 1 << 5;
/// The kernel had no memory for the last send. Implies [`BLOCKED`].
const STARVED: u8 = 1 << 6;

/// The gathered bytes of a socket; see the [module documentation](self).
pub(crate) struct Cork {
    state: BiasedMutex<State>,
}

/// The cork of a descriptor, for threads that have no handle of the socket.
pub(crate) struct Gathering {
    pub(super) cork: Cork,
    pub(super) number: RawFd,
    /// The index and the generation of the descriptor's slot in the poller.
    slot: (u32, u32),
    /// Whether a send may fail with EINPROGRESS because the connection is not established yet.
    may_be_early: bool,
    /// Starts the task that waits for room.
    start_flusher: Box<dyn Fn(Arc<Gathering>) + Send + Sync + RefUnwindSafe + UnwindSafe>,
}

#[allow(unsafe_code)]
impl Gathering {
    pub(super) fn new(
        number: RawFd,
        slot: (u32, u32),
        may_be_early: bool,
        start_flusher: impl Fn(Arc<Gathering>) + Send + Sync + RefUnwindSafe + UnwindSafe + 'static,
    ) -> Gathering {
        Gathering { cork: Cork::new(), number, slot, may_be_early, start_flusher: Box::new(start_flusher) }
    }

    /// Sends as many gathered bytes as the socket accepts. Returns whether none are left. After an
    /// error, which is kept, the bytes are discarded.
    pub(super) fn send(&self) -> bool {
        self.sending(|state| self.send_locked(state))
    }

    /// Sends as many bytes of `state`, which is locked, as the socket accepts. Returns the result
    /// of [`send`](Gathering::send), and the waker of [`Sent::done`].
    pub(super) fn send_locked(&self, state: &mut State) -> (bool, Option<Waker>) {
        if state.has(GONE) {
            return (true, None);
        }
        // SAFETY: the number is open: the lock is held during the call, and GONE is set under this
        // lock before the number is closed or given away.
        let fd = unsafe { BorrowedFd::borrow_raw(self.number) };
        let Sent { is_empty, done } = state.send(fd, self.may_be_early);
        (is_empty, done)
    }

    /// Sends the gathered bytes and then `bufs`; see [`State::send_with`].
    pub(super) fn send_with(&self, fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.sending(|state| state.send_with(fd, bufs, self.may_be_early))
    }

    /// Calls `send` with the state locked. Then counts the gathered bytes that it has sent or
    /// discarded, and wakes the flusher if `send` returns its waker.
    pub(super) fn sending<T>(&self, send: impl FnOnce(&mut State) -> (T, Option<Waker>)) -> T {
        let (before, (sent, done), left) = {
            let mut state = self.cork.lock();
            (state.unsent().len(), send(&mut state), state.unsent().len())
        };
        self.count(before.saturating_sub(left));
        wake(done);
        sent
    }

    /// Records the call that sent or discarded `bytes` gathered bytes, for a read that then waits
    /// for the answer, and charges the bytes to the budget, because each gathered write is too
    /// small to be charged.
    fn count(&self, bytes: usize) {
        if bytes > 0 {
            context::record_call(true, self.number);
            context::charge(bytes);
        }
    }

    /// Starts a flusher if the socket is blocked and has none, after a call that may have sent
    /// bytes.
    pub(super) fn follow_up(self: &Arc<Self>) {
        let wants_flusher = self.wants_flusher(&mut self.cork.lock());
        if wants_flusher {
            (self.start_flusher)(self.clone());
        }
    }

    /// Returns whether the caller must start a flusher when it has unlocked `state`.
    fn wants_flusher(self: &Arc<Self>, state: &mut State) -> bool {
        let wants_flusher = state.wants_flusher();
        if wants_flusher {
            unsent::enter_blocked(self.id(), || Arc::downgrade(self) as _);
            state.was_blocked = true;
        }
        wants_flusher
    }

    /// Returns whether the flusher must end because no bytes are left. Otherwise stores its waker.
    pub(super) fn ends_flusher(&self, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut state = self.cork.lock();
        let ends = state.is_empty();
        // Dropped outside of the lock.
        let _old = state.flusher.replace(Some(waker)).flatten();
        let _new = if ends { state.flusher.take() } else { None };
        if ends {
            unsent::leave_blocked(self.id());
        }
        drop(state);
        ends
    }

    /// Records that the flusher has ended.
    pub(super) fn forget_flusher(&self) {
        let _old = self.cork.lock().flusher.take();
    }

    /// Marks the state as gone, because the number is about to be closed or given away, and wakes
    /// the flusher. Returns the buffer and the number of its bytes that were sent.
    pub(super) fn retire(&self) -> (Vec<u8>, usize) {
        let (rest, flusher) = {
            let mut state = self.cork.lock();
            state.flags |= GONE;
            (state.take(), state.flusher.as_mut().and_then(Option::take))
        };
        wake(flusher);
        rest
    }

    /// Returns a number that is unique among live gatherings.
    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl Unsent for Gathering {
    fn flush(self: Arc<Self>) {
        let wants_flusher = self.sending(|state| {
            state.list = 0;
            let (_, done) = self.send_locked(state);
            (self.wants_flusher(state), done)
        });
        if wants_flusher {
            (self.start_flusher)(self.clone());
        }
    }

    fn amount(&self) -> Amount {
        Amount { index: self.slot.0, generation: self.slot.1, bytes: self.cork.len() }
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        // In a forked child, the list of blocked sockets may be locked.
        if !fork::is_child() && self.cork.lock().was_blocked {
            unsent::leave_blocked(self.id());
        }
    }
}

/// Wakes the flusher. Its task belongs to this crate, so no user code runs.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl fmt::Debug for Gathering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cork.fmt(f)
    }
}

/// The state of a [`Cork`].
#[derive(Default)]
pub(super) struct State {
    /// [`ON`] and the constants after it. Writes are gathered while this is exactly `ON`.
    flags: u8,
    buffer: Buffer,
    /// The list to which a write has added the socket since the last flush, or 0. A flush of any
    /// list that contains the socket clears the field, even if sysmon makes the flush and the
    /// socket stays in the list. While the field is set, a flush follows.
    list: usize,
    /// Whether the socket was ever added to the blocked sockets of [`unsent`].
    was_blocked: bool,
    /// The error that no operation has returned yet. If it is `Some`, [`FAILED`] is set.
    pub(super) error: Option<io::Error>,
    /// `Some` if there is a flusher; contains its waker if it waits.
    pub(super) flusher: Option<Option<Waker>>,
    /// The number of handles that the flusher currently has.
    borrowed: usize,
}

/// The outcome of an attempt to append a write.
#[derive(Debug)]
pub(super) enum Appended {
    /// The write is gathered. True if this added the first socket to this thread's list.
    All(bool),
    /// The write is not gathered and must be sent.
    Refused,
}

/// The outcome of sending the gathered bytes.
#[derive(Debug)]
#[must_use]
pub(super) struct Sent {
    /// Whether all bytes are sent or discarded.
    pub(super) is_empty: bool,
    /// The waker of the flusher, if nothing is left to send.
    pub(super) done: Option<Waker>,
}

#[allow(unsafe_code)]
impl Cork {
    pub(crate) fn new() -> Cork {
        Cork { state: BiasedMutex::new(State::default()) }
    }

    #[inline]
    pub(super) fn lock(&self) -> BiasedGuard<'_, State> {
        self.state.lock()
    }

    /// Appends `buf` without a lock, if this thread owns the state, `is_free` returns true and
    /// [`State::append_more`] accepts `buf`. Returns whether `buf` was appended. `is_free` must not
    /// panic or use this cork.
    #[inline]
    pub(super) fn append_owned(&self, buf: &[u8], is_free: impl FnOnce() -> bool) -> bool {
        // SAFETY: `is_free` (by this function's contract) and `append_more` neither panic nor use
        // the mutex.
        unsafe { self.state.with_owned(|state| is_free() && state.append_more(buf)) }
    }

    /// Returns the number of gathered bytes.
    pub(crate) fn len(&self) -> usize {
        self.lock().unsent().len()
    }
}

impl State {
    #[inline]
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn is_on(&self) -> bool {
        self.has(ON)
    }

    pub(super) fn set_on(&mut self, on: bool) {
        self.flags = self.flags & !ON | u8::from(on);
    }

    /// Calls `take`, which takes a handle for the flusher, with the lock held. Counts the handle if
    /// `take` returns one.
    pub(super) fn borrow<T>(&mut self, take: impl FnOnce() -> Option<T>) -> Option<T> {
        let taken = take()?;
        self.borrowed += 1;
        Some(taken)
    }

    /// Records that a handle counted by [`borrow`](State::borrow) was dropped.
    pub(super) fn give_back(&mut self) {
        self.borrowed -= 1;
    }

    /// Returns whether the flusher has a handle.
    pub(super) fn is_borrowed(&self) -> bool {
        self.borrowed > 0
    }

    pub(super) fn unsent(&self) -> &[u8] {
        self.buffer.unsent()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Returns whether a flusher must be started, and if so, records that there is one.
    pub(super) fn wants_flusher(&mut self) -> bool {
        let wants = self.has(BLOCKED) && self.flusher.is_none() && !self.has(GONE);
        if wants {
            self.flusher = Some(None);
        }
        wants
    }

    /// Makes writes fail. If bytes are left, the thread that sends the last of them shuts down the
    /// sending side; otherwise the caller must do so.
    pub(super) fn set_shut(&mut self) {
        self.flags |= if self.is_empty() { SHUT } else { SHUT | ENDS };
    }

    /// Returns whether the option is off, and there are no bytes, no error and no shutdown.
    pub(super) fn is_over(&self) -> bool {
        !self.is_on() && self.is_empty() && self.error.is_none() && !self.has(SHUT)
    }

    /// Returns the error of gathered bytes that could not be sent, and clears it.
    pub(super) fn take_error(&mut self) -> io::Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }

    /// Appends `bufs`, a write of `len` bytes. No operation may have the write lock. Calls `socket`
    /// if the socket must be added to the list of this thread.
    ///
    /// # Errors
    /// Returns the error of earlier gathered bytes.
    #[inline]
    pub(super) fn append(
        &mut self,
        bufs: &[IoSlice<'_>],
        len: usize,
        socket: impl FnOnce() -> Arc<dyn Unsent>,
    ) -> io::Result<Appended> {
        if self.flags != ON {
            self.take_error()?;
            return Ok(Appended::Refused);
        }
        let is_long = len >= LARGE || self.unsent().len() + len > GATHERED_MAX;
        if len == 0 || is_long {
            return Ok(Appended::Refused);
        }
        let list = unsent::list();
        // A socket in the list of this thread will be flushed. Otherwise, the thread must be in a
        // turn that flushes at its end.
        if self.list != list && !(context::gathers_writes() && unsent::has_room()) {
            return Ok(Appended::Refused);
        }
        let (weight, needs_check) = cork_weight::with(len);
        cork_weight::set(weight);
        if needs_check && !context::may_gather() {
            return Ok(Appended::Refused);
        }
        self.buffer.reserve(len);
        bufs.iter().for_each(|buf| self.buffer.extend(buf));
        let mut is_first = false;
        if self.list != list {
            self.list = list;
            is_first = unsent::push(socket());
        }
        Ok(Appended::All(is_first))
    }

    /// Appends `buf`, unless it is empty or large, or needs memory or a check of the turn's
    /// duration. Returns whether `buf` was appended. Does not panic. The owner of the state has
    /// appended before, and no thread has locked the state since. So `list` is set, a flush
    /// follows, and `flags` is exactly `ON`.
    #[inline]
    fn append_more(&mut self, buf: &[u8]) -> bool {
        let (weight, needs_check) = cork_weight::with(buf.len());
        let appends = buf.len() < LARGE && !needs_check && self.buffer.push(buf);
        if appends {
            cork_weight::set(weight);
        }
        appends
    }

    /// Sends as many bytes as the socket accepts, and keeps an error.
    fn send(&mut self, fd: BorrowedFd<'_>, may_be_early: bool) -> Sent {
        while !self.is_empty() {
            match socket::send(fd, self.unsent(), 0) {
                Ok(count) if count > 0 => self.buffer.advance(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.block(&error, may_be_early) => return Sent { is_empty: false, done: None },
                failed => self.fail(failed.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into())),
            }
        }
        self.end(fd)
    }

    /// Sends the gathered bytes and then `bufs`, for an operation that has the write lock. A call
    /// takes at most [`IOVECS_MAX`](socket::IOVECS_MAX) buffers, including the gathered bytes.
    /// Returns the number of bytes of `bufs` that were sent, and the waker of [`Sent::done`].
    ///
    /// # Errors
    /// Returns `WouldBlock` (or EINPROGRESS, if the connection is not established yet) if the
    /// socket accepted no byte of `bufs`, EPIPE if the sending side is shut down, another error of
    /// the system call, or the error of earlier gathered bytes. If the system call fails, and
    /// repeating it now or later would not help, the gathered bytes are discarded.
    fn send_with(
        &mut self,
        fd: BorrowedFd<'_>,
        bufs: &[IoSlice<'_>],
        may_be_early: bool,
    ) -> (io::Result<usize>, Option<Waker>) {
        let is_ready = self.take_error().and_then(|()| match self.has(SHUT) {
            true => Err(io::Error::from_raw_os_error(libc::EPIPE)),
            false => Ok(()),
        });
        if let Err(error) = is_ready {
            return (Err(error), None);
        }
        loop {
            let gathered = self.unsent().len();
            let result = match gathered {
                0 => send_bufs(fd, bufs),
                _ => {
                    let pieces = std::iter::once(IoSlice::new(self.unsent())).chain(bufs.iter().copied());
                    let pieces: Vec<_> = pieces.take(socket::IOVECS_MAX).collect();
                    socket::send_vectored(fd, &pieces)
                }
            };
            match result {
                Ok(sent) => {
                    self.buffer.advance(sent.min(gathered));
                    let own = sent.saturating_sub(gathered);
                    if own > 0 || sent == 0 || bufs.iter().all(|buf| buf.is_empty()) {
                        let done = if self.is_empty() { self.end(fd).done } else { None };
                        return (Ok(own), done);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return (Err(error), None),
                Err(error) if self.block(&error, may_be_early) => {
                    let done = if self.is_empty() { self.end(fd).done } else { None };
                    return (Err(error), done);
                }
                Err(error) => {
                    self.flags |= FAILED;
                    self.empty();
                    return (Err(error), self.end(fd).done);
                }
            }
        }
    }

    fn fail(&mut self, error: io::Error) {
        self.flags |= FAILED;
        self.error = Some(error);
        self.empty();
    }

    /// Returns whether a send that failed with `error` may succeed later. If so, marks the socket
    /// as blocked.
    fn block(&mut self, error: &io::Error, may_be_early: bool) -> bool {
        let flags = match error.raw_os_error() {
            Some(libc::ENOBUFS | libc::ENOMEM) => BLOCKED | STARVED,
            Some(libc::EINPROGRESS) if may_be_early => BLOCKED,
            _ if error.kind() == io::ErrorKind::WouldBlock => BLOCKED,
            _ => return false,
        };
        self.flags = self.flags & !STARVED | flags;
        true
    }

    /// Returns whether the bytes wait for memory of the kernel, which no event reports.
    pub(super) fn is_starved(&self) -> bool {
        self.has(STARVED)
    }

    /// Discards the gathered bytes, and clears [`BLOCKED`] and [`STARVED`].
    pub(super) fn empty(&mut self) {
        self.flags &= !(BLOCKED | STARVED);
        self.buffer.clear();
    }

    /// Takes the gathered bytes out. Returns the buffer and the number of its bytes that were sent.
    fn take(&mut self) -> (Vec<u8>, usize) {
        let taken = self.buffer.take();
        self.empty();
        taken
    }

    /// Frees the empty buffer, and shuts down the sending side if [`ENDS`] is set.
    fn end(&mut self, fd: BorrowedFd<'_>) -> Sent {
        self.empty();
        if self.has(ENDS) {
            self.flags &= !ENDS;
            // If the connection has failed in the meantime, there is nothing to shut down.
            let _ = socket::shutdown(fd, Shutdown::Write);
        }
        Sent { is_empty: true, done: self.flusher.as_mut().and_then(Option::take) }
    }
}

/// Sends `bufs` in one call, and returns the number of bytes that the socket accepted.
pub(super) fn send_bufs(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    match bufs {
        [buf] => socket::send(fd, buf, 0),
        _ => socket::send_vectored(fd, bufs),
    }
}

impl fmt::Debug for Cork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Cork")
            .field("on", &state.is_on())
            .field("unsent", &state.unsent().len())
            .finish_non_exhaustive()
    }
}
