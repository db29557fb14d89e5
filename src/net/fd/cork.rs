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
//!   operation that has the write lock of the descriptor makes such a call. Only such an operation
//!   appends.
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
//! thread that has it may take the lock of its list of unsent sockets.
//!
//! # Fork
//! A child of fork(2) discards its copy of the bytes: the parent sends them.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Weak;
use std::task::Waker;

use crate::rt::context;
use crate::rt::fork;
use crate::rt::unsent::{self, Unsent};
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

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    /// The number of writes that this thread has gathered, for [`WRITES_A_UNIT`].
    static WRITES: Cell<u32> = const { Cell::new(0) };
}

/// The gathered bytes of a socket; see the [module documentation](self).
pub(crate) struct Cork {
    state: Mutex<State>,
}

/// A descriptor's cork, and its ways to the owner of the descriptor.
pub(crate) struct Gathering {
    pub(super) cork: Cork,
    /// For the lists of threads.
    pub(super) owner: Weak<dyn Unsent>,
    /// Starts the task that waits for room.
    pub(super) start_flusher: Box<dyn Fn() + Send + Sync + RefUnwindSafe + UnwindSafe>,
}

impl Gathering {
    pub(super) fn new(
        owner: Weak<dyn Unsent>,
        start_flusher: impl Fn() + Send + Sync + RefUnwindSafe + UnwindSafe + 'static,
    ) -> Gathering {
        Gathering { cork: Cork::new(), owner, start_flusher: Box::new(start_flusher) }
    }
}

impl fmt::Debug for Gathering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cork.fmt(f)
    }
}

#[derive(Default)]
pub(super) struct State {
    /// Whether writes are gathered.
    on: bool,
    bytes: Vec<u8>,
    /// The number of `bytes` that are sent.
    sent: usize,
    /// The thread list that the socket is in, or 0.
    list: usize,
    is_blocked: bool,
    has_failed: bool,
    /// The error that the next operation returns.
    error: Option<io::Error>,
    /// Whether the sending side was shut down, which happens once everything is sent.
    is_shut: bool,
    /// Whether a task waits for room, and its waker.
    pub(super) flusher: Option<Option<Waker>>,
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

    /// Returns the number of gathered bytes.
    pub(crate) fn len(&self) -> usize {
        self.lock().unsent().len()
    }
}

impl State {
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    pub(super) fn set_on(&mut self, on: bool) {
        self.on = on;
    }

    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Returns whether a task must be started that waits for room, and enters it.
    pub(super) fn wants_flusher(&mut self) -> bool {
        let wants = self.is_blocked && self.flusher.is_none() && !fork::is_child();
        if wants {
            self.flusher = Some(None);
        }
        wants
    }

    /// Returns whether the sending side is to be shut down, or is.
    pub(super) fn is_shut(&self) -> bool {
        self.is_shut
    }

    pub(super) fn set_shut(&mut self) {
        self.is_shut = true;
    }

    /// Returns the error of bytes that were gathered, once.
    pub(super) fn take_error(&mut self) -> io::Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }

    /// Appends a write of `len` bytes, for an operation that has the write lock.
    ///
    /// # Errors
    /// Returns the error of earlier bytes.
    #[inline]
    pub(super) fn append(
        &mut self,
        bufs: &[IoSlice<'_>],
        len: usize,
        socket: impl FnOnce() -> Weak<dyn Unsent>,
    ) -> io::Result<Appended> {
        self.take_error()?;
        let gathers = self.on && !self.is_blocked && !self.has_failed && !self.is_shut;
        if !gathers || len == 0 || len >= LARGE || self.unsent().len() + len > GATHERED_MAX {
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
    pub(super) fn send(&mut self, fd: BorrowedFd<'_>, is_early: impl Fn(&io::Error) -> bool) -> Sent {
        if fork::is_child() {
            self.empty();
        }
        while !self.is_empty() {
            match socket::send(fd, self.unsent(), 0) {
                Ok(count) if count > 0 => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_early(&error) => {
                    self.is_blocked = true;
                    self.list = 0;
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
    pub(super) fn send_with(
        &mut self,
        fd: BorrowedFd<'_>,
        bufs: &[IoSlice<'_>],
        is_early: impl Fn(&io::Error) -> bool,
    ) -> (io::Result<usize>, Option<Waker>) {
        let is_ready = self.take_error().and_then(|()| match self.is_shut {
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
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_early(&error) => {
                    if self.is_empty() {
                        return (Err(error), self.end(fd).done);
                    }
                    (self.is_blocked, self.list) = (true, 0);
                    return (Err(error), None);
                }
                Err(error) => {
                    self.has_failed = true;
                    self.empty();
                    return (Err(error), self.end(fd).done);
                }
            }
        }
    }

    fn fail(&mut self, error: io::Error) {
        self.has_failed = true;
        self.error = Some(error);
        self.empty();
    }

    /// Discards the gathered bytes.
    pub(super) fn empty(&mut self) {
        (self.sent, self.list, self.is_blocked) = (0, 0, false);
        give_back(std::mem::take(&mut self.bytes));
    }

    /// Takes the gathered bytes out.
    pub(super) fn take(&mut self) -> (Vec<u8>, usize) {
        let taken = (std::mem::take(&mut self.bytes), self.sent);
        self.empty();
        taken
    }

    /// Called when everything is sent.
    fn end(&mut self, fd: BorrowedFd<'_>) -> Sent {
        self.empty();
        if self.is_shut {
            // If the connection has failed in the meantime, there is nothing to shut down.
            let _ = socket::shutdown(fd, Shutdown::Write);
        }
        Sent { is_empty: true, done: self.flusher.as_mut().and_then(Option::take) }
    }
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
        f.debug_struct("Cork").field("on", &state.on).field("unsent", &state.unsent().len()).finish_non_exhaustive()
    }
}
