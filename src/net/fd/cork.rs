//! [`Cork`]: the bytes that writes of a turn have gathered, until they leave as one send.
//!
//! With the option, a write appends to this buffer and returns. The turn's end sends the buffer
//! ([`unsent`](crate::rt::unsent)). [`gather`](super::gather) decides which writes append, and has
//! the operations that wait; this file has the state.
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
//! *gathering*: some thread has the socket in its list and flushes. *blocked*: the socket took less
//! than everything. A task of its own, the [`Flusher`](super::flusher), waits for room, and writes no
//! longer append: they wait like writes without the option, and the first call of each sends what is
//! gathered before its own bytes. So at most [`GATHERED_MAX`] bytes are gathered.
//!
//! # Order
//! * Gathered bytes precede everything that is written after them. A call that sends other bytes
//!   first sends what is gathered, in the same critical section of the state's lock, and only an
//!   operation that has the write lock of the descriptor makes such a call.
//! * A write appends only while no operation has the write lock: it looks at the lock with the state
//!   locked ([`FdMutex::lock_while_free`](super::fd_mutex::FdMutex::lock_while_free)). So it comes
//!   before the first call of the next owner, which locks the state after it, or finds the lock taken.
//! * So any thread may send gathered bytes at any time, with a reference to the descriptor and the
//!   state's lock, and without the write lock: they never come in between the pieces of a
//!   `write_all`.
//!
//! # Errors
//! If gathered bytes cannot be sent, their writes have returned `Ok` already. The error is kept, and
//! the next write, flush, shutdown or close of the writing side, or the read that finds the end of
//! the stream, returns it, once. Afterwards nothing is gathered, so that the kernel answers each
//! write itself.
//!
//! # Deadlines
//! Gathered bytes are accepted bytes, as those in the send buffer of the kernel: a deadline that
//! passes does not take them back. It ends writes and flushes that wait.
//!
//! # Locks
//! The state's lock is held during send(2), which does not wait, and never while wakers run. A
//! thread that has it may take the locks of [`unsent`](crate::rt::unsent).
//!
//! # Ownership
//! The lists of threads, sysmon and snapshots use the [`Gathering`], which is not a handle of the
//! socket: it keeps nothing open, and its flush runs no code of the user. The descriptor's number
//! may be used with the state locked until the state is *gone*, which the last reference and a
//! conversion set, under the lock, before the number is closed or given away. Only the flusher takes
//! a handle, for each of its polls, and the state counts it ([`State::borrow`]).
//!
//! # Fork
//! A child of fork(2) discards its copy of the bytes: the parent sends them.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, RawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::task::Waker;

use crate::rt::context;
use crate::rt::fork;
use crate::rt::unsent::{self, Amount, Unsent};
use crate::sync::{Mutex, MutexGuard};
use crate::sys::socket;

/// The maximum number of gathered bytes per socket.
pub(crate) const GATHERED_MAX: usize = 64 << 10;
/// A write of this size is sent at once, together with what is gathered: copying it costs more than
/// the call.
const LARGE: usize = 16 << 10;
/// After every this many writes, one takes a unit from the budget of the turn.
const WRITES_A_UNIT: u32 = 256;
/// The number of empty buffers that a thread keeps.
const SPARES: usize = 16;
/// The capacity of a new buffer.
const FIRST: usize = 1 << 10;

/// The option is set.
const ON: u8 = 1;
/// The socket took less than everything.
const BLOCKED: u8 = 1 << 1;
/// A send failed.
const FAILED: u8 = 1 << 2;
/// The sending side was shut down, which happens once everything is sent.
const SHUT: u8 = 1 << 3;
/// The number must not be used any more.
const GONE: u8 = 1 << 4;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    /// The number of writes that this thread has gathered, for [`WRITES_A_UNIT`].
    static WRITES: Cell<u32> = const { Cell::new(0) };
}

/// The gathered bytes of a socket; see the [module documentation](self).
pub(crate) struct Cork {
    state: Mutex<State>,
}

/// The cork of a descriptor, for threads that have no handle of it.
pub(crate) struct Gathering {
    pub(super) cork: Cork,
    pub(super) number: RawFd,
    /// The index and the generation of the slot.
    slot: (u32, u32),
    /// Whether a send may fail because the connection is not established yet.
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

    /// Sends what is gathered. Returns whether nothing is left. An error is kept. `is_listed` tells
    /// whether the thread has taken the socket out of its list.
    pub(super) fn send(&self, is_listed: bool) -> bool {
        self.sending(|state| {
            if is_listed {
                state.list = 0;
            }
            if state.has(GONE) {
                return (true, None);
            }
            // SAFETY: the number is open: it is closed or given away after the state is gone, and the
            // lock is held during the call.
            let fd = unsafe { BorrowedFd::borrow_raw(self.number) };
            let Sent { is_empty, done } = state.send(fd, self.may_be_early);
            (is_empty, done)
        })
    }

    /// Sends what is gathered and then `bufs`; see [`State::send_with`].
    pub(super) fn send_with(&self, fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.sending(|state| state.send_with(fd, bufs, self.may_be_early))
    }

    /// Calls `send` with the state locked, and then counts what it has sent and wakes the task that it
    /// returns.
    fn sending<T>(&self, send: impl FnOnce(&mut State) -> (T, Option<Waker>)) -> T {
        let (before, (sent, done), left) = {
            let mut state = self.cork.lock();
            (state.unsent().len(), send(&mut state), state.unsent().len())
        };
        self.count(before.saturating_sub(left));
        wake(done);
        sent
    }

    /// Counts gathered bytes that were sent: for a read that waits for the answer, and because their
    /// writes were free.
    fn count(&self, bytes: usize) {
        if bytes > 0 {
            context::record_call(true, self.number);
            context::charge(bytes);
        }
    }

    /// Called after a call that sent gathered bytes: makes sure that the rest is sent.
    pub(super) fn follow_up(self: &Arc<Self>) {
        let wants_flusher = {
            let mut state = self.cork.lock();
            let wants_flusher = state.wants_flusher();
            if wants_flusher {
                unsent::enter_blocked(self.id(), || Arc::downgrade(self) as _);
                state.was_blocked = true;
            }
            wants_flusher
        };
        if wants_flusher {
            (self.start_flusher)(self.clone());
        }
    }

    /// Ends the flusher if nothing is left to send; otherwise keeps its waker.
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

    /// Called when the flusher ends.
    pub(super) fn forget_flusher(&self) {
        let _old = self.cork.lock().flusher.take();
    }

    /// Ends the use of the number: it is about to be closed or given away. Returns what is left.
    pub(super) fn retire(&self) -> (Vec<u8>, usize) {
        let (rest, flusher) = {
            let mut state = self.cork.lock();
            state.flags |= GONE;
            (state.take(), state.flusher.as_mut().and_then(Option::take))
        };
        wake(flusher);
        rest
    }

    /// Identifies it among those that live.
    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl Unsent for Gathering {
    fn flush(self: Arc<Self>) {
        self.send(true);
        self.follow_up();
    }

    fn amount(&self) -> Amount {
        Amount { index: self.slot.0, generation: self.slot.1, bytes: self.cork.len() }
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        if self.cork.lock().was_blocked {
            unsent::leave_blocked(self.id());
        }
    }
}

/// Wakes the task that waits for room. It is of this crate, so no code of the user runs.
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

#[derive(Default)]
pub(super) struct State {
    /// [`ON`], and what speaks against it. Writes are gathered while it is exactly `ON`.
    flags: u8,
    bytes: Vec<u8>,
    /// The number of `bytes` that are sent.
    sent: usize,
    /// The thread list that the socket is in, or 0. Set when it enters, and cleared by the thread
    /// that has taken it out and flushes: while it is set, a flush will follow.
    list: usize,
    /// Whether it was ever blocked.
    was_blocked: bool,
    /// The error that the next operation returns. [`FAILED`] is set.
    error: Option<io::Error>,
    /// Whether a task waits for room, and its waker.
    pub(super) flusher: Option<Option<Waker>>,
    /// The number of handles of the socket that the crate has for a moment.
    borrowed: usize,
}

/// What a call that writes does with the bytes that its descriptor has gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gathered {
    /// Nothing: there are none.
    Nothing,
    /// It sends them first.
    First,
}

/// What became of a write.
#[derive(Debug)]
pub(super) enum Appended {
    /// It is gathered. True for the first one of this thread's stretch.
    All(bool),
    /// It must be sent.
    Refused,
}

/// The outcome of sending the gathered bytes.
#[derive(Debug)]
#[must_use]
pub(super) struct Sent {
    /// Whether everything is sent, or discarded.
    pub(super) is_empty: bool,
    /// The task that waited for room, if there is nothing left to send.
    pub(super) done: Option<Waker>,
}

impl Cork {
    pub(crate) fn new() -> Cork {
        Cork { state: Mutex::new(State::default()) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn mutex(&self) -> &Mutex<State> {
        &self.state
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

    /// Counts a handle that the crate takes for a moment, with the lock held, if `take` returns one.
    pub(super) fn borrow<T>(&mut self, take: impl FnOnce() -> Option<T>) -> Option<T> {
        let taken = take()?;
        self.borrowed += 1;
        Some(taken)
    }

    /// Called when such a handle was dropped.
    pub(super) fn give_back(&mut self) {
        self.borrowed -= 1;
    }

    /// Returns whether the crate has a handle.
    pub(super) fn is_borrowed(&self) -> bool {
        self.borrowed > 0
    }

    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Returns whether a task must be started that waits for room, and enters it.
    pub(super) fn wants_flusher(&mut self) -> bool {
        let wants = self.has(BLOCKED) && self.flusher.is_none() && !self.has(GONE) && !fork::is_child();
        if wants {
            self.flusher = Some(None);
        }
        wants
    }

    /// Returns whether the sending side is to be shut down, or is.
    pub(super) fn is_shut(&self) -> bool {
        self.has(SHUT)
    }

    pub(super) fn set_shut(&mut self) {
        self.flags |= SHUT;
    }

    /// Returns the error of bytes that were gathered, once.
    pub(super) fn take_error(&mut self) -> io::Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }

    /// Appends a write of `len` bytes, while no operation has the write lock.
    ///
    /// # Errors
    /// Returns the error of earlier bytes.
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
        if len == 0 || len >= LARGE || self.bytes.len() - self.sent + len > GATHERED_MAX {
            return Ok(Appended::Refused);
        }
        let list = unsent::list();
        // A socket that is in the list of this thread is flushed.
        if self.list != list && !(context::gathers_writes() && unsent::has_list()) {
            return Ok(Appended::Refused);
        }
        let writes = WRITES.get().wrapping_add(1);
        WRITES.set(writes);
        if writes.is_multiple_of(WRITES_A_UNIT) && !context::take_budget() {
            return Ok(Appended::Refused);
        }
        if self.bytes.capacity() == 0 {
            self.bytes = spare();
        }
        bufs.iter().for_each(|buf| self.bytes.extend_from_slice(buf));
        let mut is_first = false;
        if self.list != list {
            self.list = list;
            is_first = unsent::push(socket());
        }
        Ok(Appended::All(is_first))
    }

    /// Sends the gathered bytes, as many as the socket takes. An error is kept.
    fn send(&mut self, fd: BorrowedFd<'_>, may_be_early: bool) -> Sent {
        if fork::is_child() {
            self.empty();
        }
        while !self.is_empty() {
            match socket::send(fd, self.unsent(), 0) {
                Ok(count) if count > 0 => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if waits_for_room(&error, may_be_early) => {
                    self.flags |= BLOCKED;
                    return Sent { is_empty: false, done: None };
                }
                failed => self.fail(failed.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into())),
            }
        }
        self.end(fd)
    }

    /// Sends the gathered bytes and then `bufs`, of which at most [`IOVECS_MAX`](socket::IOVECS_MAX)
    /// minus one are sent, for an operation that has the write lock. Returns the number of bytes of
    /// `bufs` that were sent, and the task of [`Sent::done`].
    ///
    /// # Errors
    /// Returns `WouldBlock` if none was. Otherwise the error of the socket, or of earlier bytes.
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
        if fork::is_child() {
            self.empty();
        }
        loop {
            let gathered = self.unsent().len();
            let result = match bufs {
                [buf] if gathered == 0 => socket::send(fd, buf, 0),
                _ if gathered == 0 => socket::send_vectored(fd, bufs),
                _ => {
                    let pieces = std::iter::once(IoSlice::new(self.unsent())).chain(bufs.iter().copied());
                    let pieces: Vec<_> = pieces.take(socket::IOVECS_MAX).collect();
                    socket::send_vectored(fd, &pieces)
                }
            };
            match result {
                Ok(sent) => {
                    self.sent += sent.min(gathered);
                    let own = sent.saturating_sub(gathered);
                    if own > 0 || sent == 0 || bufs.iter().all(|buf| buf.is_empty()) {
                        let done = if self.is_empty() { self.end(fd).done } else { None };
                        return (Ok(own), done);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return (Err(error), None),
                Err(error) if waits_for_room(&error, may_be_early) => {
                    if self.is_empty() {
                        return (Err(error), self.end(fd).done);
                    }
                    self.flags |= BLOCKED;
                    return (Err(error), None);
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

    /// Discards the gathered bytes.
    pub(super) fn empty(&mut self) {
        self.sent = 0;
        self.flags &= !BLOCKED;
        give_back(std::mem::take(&mut self.bytes));
    }

    /// Takes the gathered bytes out.
    fn take(&mut self) -> (Vec<u8>, usize) {
        let taken = (std::mem::take(&mut self.bytes), self.sent);
        self.empty();
        taken
    }

    /// Called when everything is sent.
    fn end(&mut self, fd: BorrowedFd<'_>) -> Sent {
        self.empty();
        // A child of fork(2) shares the socket with its parent, which may have bytes left.
        if self.has(SHUT) && !fork::is_child() {
            // If the connection has failed in the meantime, there is nothing to shut down.
            let _ = socket::shutdown(fd, Shutdown::Write);
        }
        Sent { is_empty: true, done: self.flusher.as_mut().and_then(Option::take) }
    }
}

/// Returns whether a send failed because it has to wait: for room, or for the connection.
fn waits_for_room(error: &io::Error, may_be_early: bool) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || (may_be_early && error.raw_os_error() == Some(libc::EINPROGRESS))
}

/// Returns an empty buffer.
fn spare() -> Vec<u8> {
    let spare = SPARE.try_with(|spares| spares.borrow_mut().pop()).ok().flatten();
    spare.unwrap_or_else(|| Vec::with_capacity(FIRST))
}

/// Keeps a buffer for the next socket that gathers. A socket without gathered bytes has none.
fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 {
        return;
    }
    buffer.clear();
    let _ = SPARE.try_with(|spares| {
        let mut spares = spares.borrow_mut();
        if spares.len() < SPARES {
            spares.push(buffer);
        }
    });
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
