//! [`End`]: one end of a pipe, and the lanes between the two ends.
//!
//! # How bytes are transferred
//! Each direction has one *lane*, which holds the bytes of one write at a time. Reads take bytes
//! from the lane; bytes that a read leaves stay for the next read. A
//! [`PipeWrite`](super::PipeWrite) puts a copy of its bytes into the lane (safe code cannot lend a
//! future's buffer) and completes when reads have taken all of them. The `poll_write` of
//! [`AsyncWrite`](futures_io::AsyncWrite) has no future that could wait for the reads. It fills the
//! lane only while reads wait, with at most `Lane::wanted` bytes, which is usually the length of
//! the largest buffer of these reads. The bytes stay in the lane after the write; `poll_flush`
//! waits until they are taken.
//!
//! # Invariants
//! * A lane is *free* or holds the bytes of one write. `writer` identifies the write: it is a
//!   number for a future that waits, and 0 for a write that has completed.
//! * An operation that makes another operation possible wakes it. Filling a lane wakes a reader.
//!   Freeing a lane wakes a writer, and so does a read that begins to wait. A read that leaves
//!   bytes wakes the next reader. A future that was woken and is dropped wakes the next waiter.
//!   Each of these events wakes the oldest future and all polls of the list (see [`Waiters`]).
//!   Closing an end wakes all waiters. Shutting down the writing side wakes all waiters of its
//!   lane, and the expiry of a deadline all waiters of its direction.
//! * Wakers are cloned, woken and dropped outside the state's mutex (invariant 12 of
//!   ARCHITECTURE.md).
//!
//! # Waiting
//! Operations wait for the lane in its lists. A write whose bytes are in the lane waits as its
//! *owner*. All operations also wait for close, deadline and timeout in the end's [`PollHandle`],
//! which has no descriptor.
//!
//! # Cancellation
//! A dropped read has taken nothing. A dropped write withdraws the bytes that were not taken, and
//! the caller cannot learn how many were taken.
//!
//! # Compared with Go (net/pipe.go)
//! An end is closed when its last clone is dropped. After the *peer* was closed, a write returns
//! EPIPE, as on a socket, and setting a deadline is not an error, so a loop that sets a deadline
//! before each read sees the end of stream. (Go returns `io.ErrClosedPipe` in both cases.) An empty
//! write completes immediately. In Go an empty write wakes a reader, which reads 0 bytes; in Rust a
//! read of 0 bytes would mean end of stream.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use crate::net::error::Op;
use crate::rt::context;
use crate::rt::poll::poller::{Direction, Failure, PollHandle, WaitKey};
use crate::rt::poll::timeouts::Timeouts;
use crate::rt::waiters::{Interest, Key, Waiter, Waiters, Wakers};
use crate::sync::Mutex;

/// The maximum size of a buffer, in bytes, that a free lane keeps.
const KEPT_MAX: usize = 64 << 10;

/// One end of a pipe; see the [module documentation](self).
pub(super) struct End {
    state: Arc<Mutex<State>>,
    /// 0 or 1: the index of the lane that this end writes.
    pub(super) side: usize,
    pub(super) poll: PollHandle,
    pub(super) timeouts: Timeouts,
}

struct State {
    /// The lanes, indexed by the side that writes.
    lanes: [Lane; 2],
    closed: [bool; 2],
}

struct Lane {
    bytes: Vec<u8>,
    /// The number of bytes that reads have taken.
    taken: usize,
    /// The number of the write whose bytes are in the lane; 0 for a write that has completed, or if
    /// the lane is free.
    writer: u64,
    /// The waker of the future of the write whose number is `writer`.
    owner: Option<Waker>,
    /// The number of the most recent write by a future.
    last_writer: u64,
    /// The largest number of bytes that a read has asked for since the list of readers was last
    /// empty; 0 if the list is empty.
    wanted: usize,
    /// Whether the writing side was shut down.
    ended: bool,
    readers: Waiters,
    writers: Waiters,
}

impl Lane {
    const fn new() -> Lane {
        Lane {
            bytes: Vec::new(),
            taken: 0,
            writer: 0,
            owner: None,
            last_writer: 0,
            wanted: 0,
            ended: false,
            readers: Waiters::new(),
            writers: Waiters::new(),
        }
    }

    fn is_free(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// Puts the bytes of a write into the free lane, and wakes a reader.
    fn fill(&mut self, bytes: &[u8], writer: u64, wakers: &mut Wakers) {
        self.bytes.extend_from_slice(bytes);
        self.writer = writer;
        self.wake_reader(wakers);
    }

    fn wake_reader(&mut self, wakers: &mut Wakers) {
        self.readers.take_event(wakers);
        self.forget_wanted();
    }

    fn forget_wanted(&mut self) {
        if self.readers.is_empty() {
            self.wanted = 0;
        }
    }

    fn take(&mut self, buf: &mut [u8]) -> usize {
        let rest = &self.bytes[self.taken..];
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        count
    }

    /// After a read, wakes the next reader if bytes are left, or frees the lane and wakes the next
    /// writer.
    fn pass_on(&mut self, wakers: &mut Wakers) {
        if !self.is_free() {
            self.wake_reader(wakers);
        } else if !self.bytes.is_empty() {
            self.release(wakers);
        }
    }

    /// Frees the lane, discarding its contents. Wakes the owner and the next writer.
    fn release(&mut self, wakers: &mut Wakers) {
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_MAX {
            self.bytes = Vec::new();
        }
        (self.taken, self.writer) = (0, 0);
        wakers.extend(self.owner.take());
        self.writers.take_event(wakers);
    }

    /// Removes the bytes of the write `writer` from the lane. Returns how many of its `len` bytes
    /// were taken. Returns `failure` instead if none were taken or, with `whole`, if not all were.
    fn withdraw(
        &mut self,
        writer: u64,
        len: usize,
        whole: bool,
        failure: Failure,
        wakers: &mut Wakers,
    ) -> Result<usize, Failure> {
        if self.writer != writer {
            return Ok(len);
        }
        let taken = self.taken;
        self.release(wakers);
        if taken > 0 && !whole { Ok(taken) } else { Err(failure) }
    }

    fn interrupt(&mut self, wakers: &mut Wakers) {
        self.readers.take_all(wakers);
        self.writers.take_all(wakers);
        wakers.extend(self.owner.take());
        self.wanted = 0;
    }
}

/// The state of a future that waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The future's place in a list of the lane.
    pub(super) key: Option<Key>,
    /// The future's wait for close, deadline and timeout.
    pub(super) wait: WaitKey,
}

/// Adds `waker` to `list`. The caller must drop the result, and wake `wakers`, after unlocking the
/// mutex.
#[must_use]
fn enlist(list: &mut Waiters, waiter: Waiter<'_, Waiting>, waker: Waker, wakers: &mut Wakers) -> Option<Waker> {
    match waiter {
        Waiter::Future(waiting) => {
            let (key, replaced) = list.insert(waiting.key, Interest::Event, waker);
            waiting.key = Some(key);
            replaced
        }
        Waiter::Poll => list.insert_poll(waker, wakers),
    }
}

impl End {
    /// Creates both ends of a pipe.
    ///
    /// # Errors
    /// Returns the error of [`PollHandle::open`].
    pub(super) fn pair() -> io::Result<[End; 2]> {
        let state = Arc::new(Mutex::new(State { lanes: [const { Lane::new() }; 2], closed: [false; 2] }));
        let end = |side| {
            let (state, poll) = (state.clone(), PollHandle::open()?);
            Ok(End { state, side, poll, timeouts: Timeouts::default() })
        };
        let first: io::Result<End> = end(0);
        Ok([first?, end(1)?])
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed[self.side]
    }

    #[cold]
    pub(super) fn error(&self, op: &'static str, failure: Failure) -> io::Error {
        match failure {
            // The only `Io` failure of a pipe is EPIPE.
            Failure::Io(error) => Op::at(op, "pipe", None).other(error),
            failure => failure.into_error(Op::at(op, "pipe", None)),
        }
    }

    /// Polls for close, deadline and the operation's timeout, in addition to the wait in the lane's
    /// list. Returns the failure that ends the operation.
    fn poll_stop(&self, direction: Direction, waiter: Waiter<'_, Waiting>, cx: &mut Context<'_>) -> Poll<Failure> {
        let timeout = self.timeouts.nanos(direction);
        let wait = waiter.map(|waiting| &mut waiting.wait);
        match self.poll.side(direction).poll_interrupt(cx, wait, timeout) {
            Poll::Ready(Err(failure)) => Poll::Ready(failure),
            Poll::Ready(Ok(())) | Poll::Pending => {
                self.poll.ensure_timers(direction, timeout, cx);
                Poll::Pending
            }
        }
    }

    /// Ends the timeout of an operation, which has completed or starts the timeout anew. For a
    /// future, also ends its wait for close and deadline.
    fn finish(&self, direction: Direction, waiter: Waiter<'_, Waiting>) {
        let side = self.poll.side(direction);
        match waiter {
            Waiter::Future(waiting) => side.end_operation(&mut waiting.wait, true),
            Waiter::Poll => _ = side.end_poll(),
        }
    }

    // ---- reading ----

    pub(super) fn poll_read(
        &self,
        mut waiter: Waiter<'_, Waiting>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        ready!(context::poll_turn(cx, self.poll.side(Direction::Read).turns()));
        let (waker, mut wakers) = (cx.waker().clone(), Wakers::new());
        let (attempt, unused);
        {
            let mut state = self.state.lock();
            attempt = self.try_read(&mut state, buf);
            let lane = &mut state.lanes[1 - self.side];
            if attempt.is_some() {
                let key = if let Waiter::Future(waiting) = &mut waiter { waiting.key.take() } else { None };
                let listed = key.and_then(|key| lane.readers.remove(key));
                unused = (listed, Some(waker));
                lane.pass_on(&mut wakers);
                lane.forget_wanted();
            } else {
                unused = (enlist(&mut lane.readers, waiter.reborrow(), waker, &mut wakers), None);
                lane.wanted = lane.wanted.max(buf.len());
                if lane.is_free() {
                    // A `poll_write` of `AsyncWrite` may be waiting for a read.
                    lane.writers.take_event(&mut wakers);
                }
            }
        }
        drop(unused);
        wakers.wake_all();
        let result = match attempt {
            Some(result) => result,
            None => {
                let failure = ready!(self.poll_stop(Direction::Read, waiter.reborrow(), cx));
                if let Waiter::Future(waiting) = &mut waiter {
                    self.leave_readers(waiting);
                }
                Err(failure)
            }
        };
        self.finish(Direction::Read, waiter);
        Poll::Ready(result.map_err(|failure| self.error("read", failure)))
    }

    /// Tries to read. Returns `None` if the read must wait. A close of this end takes precedence
    /// over the end of the stream, which takes precedence over an expired deadline, which takes
    /// precedence over data.
    fn try_read(&self, state: &mut State, buf: &mut [u8]) -> Option<Result<usize, Failure>> {
        let (ours, peers) = (state.closed[self.side], state.closed[1 - self.side]);
        let lane = &mut state.lanes[1 - self.side];
        // The bytes of a waiting write disappear when its end is closed. The bytes of a completed
        // write stay.
        let has_bytes = !lane.is_free() && (!peers || lane.writer == 0);
        if ours {
            Some(Err(Failure::Closed))
        } else if !has_bytes && (peers || lane.ended) {
            Some(Ok(0))
        } else if let Err(stop) = self.poll.side(Direction::Read).begin() {
            Some(Err(stop.into()))
        } else if buf.is_empty() {
            Some(Ok(0))
        } else {
            has_bytes.then(|| Ok(lane.take(buf)))
        }
    }

    /// Removes a read that ends early from the list. If it was woken for bytes, wakes the next
    /// reader.
    pub(super) fn leave_readers(&self, waiting: &mut Waiting) {
        let Some(key) = waiting.key.take() else { return };
        let mut wakers = Wakers::new();
        let mut state = self.state.lock();
        let lane = &mut state.lanes[1 - self.side];
        let listed = lane.readers.remove(key);
        if listed.is_none() && !lane.is_free() {
            lane.readers.take_event(&mut wakers);
        }
        lane.forget_wanted();
        drop(state);
        drop(listed);
        wakers.wake_all();
    }

    // ---- writing ----

    /// Returns the reason if a write cannot continue: a close of either end, or an expired
    /// deadline.
    fn stopped(&self, state: &State) -> Option<Failure> {
        if state.closed[self.side] {
            Some(Failure::Closed)
        } else if state.closed[1 - self.side] {
            Some(Failure::Io(io::Error::from_raw_os_error(libc::EPIPE)))
        } else {
            self.poll.side(Direction::Write).begin().err().map(Failure::from)
        }
    }

    /// Returns the reason if a write cannot begin: one of [`stopped`](End::stopped), or a shutdown
    /// of the writing side.
    fn stopped_before(&self, state: &State) -> Option<Failure> {
        let has_ended = state.lanes[self.side].ended && !state.closed[self.side];
        if has_ended { Some(Failure::Io(io::Error::from_raw_os_error(libc::EPIPE))) } else { self.stopped(state) }
    }

    /// Polls the write of a future. If `number` is not 0, the bytes of the write were put into the
    /// lane under that number.
    ///
    /// With `seen`, the write succeeds only as a whole. `seen` is the number of bytes that were
    /// taken when the timeout last started. If the timeout passes and more bytes were taken since
    /// then, the timeout starts anew, and the bytes stay in the lane, so that no other write comes
    /// between them.
    pub(super) fn poll_write(
        &self,
        waiting: &mut Waiting,
        number: &mut u64,
        cx: &mut Context<'_>,
        buf: &[u8],
        mut seen: Option<&mut usize>,
    ) -> Poll<io::Result<usize>> {
        ready!(context::poll_turn(cx, self.poll.side(Direction::Write).turns()));
        let (waker, mut wakers, whole) = (cx.waker().clone(), Wakers::new(), seen.is_some());
        let (attempt, unused);
        {
            let mut state = self.state.lock();
            attempt = self.try_write(&mut state, number, buf, whole, &mut wakers);
            let lane = &mut state.lanes[self.side];
            if attempt.is_none() && *number == 0 {
                unused = (enlist(&mut lane.writers, Waiter::Future(waiting), waker, &mut wakers), None);
            } else {
                let listed = waiting.key.take().and_then(|key| lane.writers.remove(key));
                let other = if attempt.is_none() { lane.owner.replace(waker) } else { Some(waker) };
                unused = (listed, other);
            }
        }
        drop(unused);
        wakers.wake_all();
        let result = match attempt {
            Some(result) => result,
            None => loop {
                let failure = ready!(self.poll_stop(Direction::Write, Waiter::Future(waiting), cx));
                if let Some(seen) = &mut seen
                    && matches!(failure, Failure::TimedOut)
                    && self.has_progressed(*number, seen)
                {
                    self.finish(Direction::Write, Waiter::Future(waiting));
                } else {
                    break self.leave_writers(waiting, number, buf.len(), whole, failure);
                }
            },
        };
        *number = 0;
        self.finish(Direction::Write, Waiter::Future(waiting));
        Poll::Ready(result.map_err(|failure| self.error("write", failure)))
    }

    /// Returns whether more than `seen` bytes of the write `number` were taken, and the deadline
    /// has not passed. Sets `seen` to the number of bytes taken.
    fn has_progressed(&self, number: u64, seen: &mut usize) -> bool {
        let state = self.state.lock();
        let lane = &state.lanes[self.side];
        let before = std::mem::replace(seen, lane.taken);
        number != 0 && lane.writer == number && lane.taken > before && self.poll.side(Direction::Write).begin().is_ok()
    }

    /// Tries to complete a write. Returns `None` if the write must wait until the lane is free, or
    /// until reads have taken its bytes.
    fn try_write(
        &self,
        state: &mut State,
        number: &mut u64,
        buf: &[u8],
        whole: bool,
        wakers: &mut Wakers,
    ) -> Option<Result<usize, Failure>> {
        if *number != 0 {
            if state.lanes[self.side].writer != *number {
                return Some(Ok(buf.len()));
            }
            let failure = self.stopped(state)?;
            return Some(state.lanes[self.side].withdraw(*number, buf.len(), whole, failure, wakers));
        }
        if let Some(failure) = self.stopped_before(state) {
            return Some(Err(failure));
        }
        if buf.is_empty() {
            return Some(Ok(0));
        }
        let lane = &mut state.lanes[self.side];
        if lane.is_free() {
            lane.last_writer += 1;
            *number = lane.last_writer;
            lane.fill(buf, *number, wakers);
        }
        None
    }

    /// Removes a write that ends early from the list, and its bytes from the lane.
    pub(super) fn leave_writers(
        &self,
        waiting: &mut Waiting,
        number: &mut u64,
        len: usize,
        whole: bool,
        failure: Failure,
    ) -> Result<usize, Failure> {
        let mut wakers = Wakers::new();
        let mut state = self.state.lock();
        let lane = &mut state.lanes[self.side];
        let listed = waiting.key.take().map(|key| lane.writers.remove(key));
        if matches!(listed, Some(None)) && lane.is_free() {
            lane.writers.take_event(&mut wakers);
        }
        let result = match std::mem::take(number) {
            0 => Err(failure),
            number => lane.withdraw(number, len, whole, failure, &mut wakers),
        };
        drop(state);
        drop(listed);
        wakers.wake_all();
        result
    }

    /// Implements `poll_write` of `AsyncWrite`, or `poll_flush` if `buf` is `None`.
    pub(super) fn poll_hand_over(&self, cx: &mut Context<'_>, buf: Option<&[u8]>) -> Poll<io::Result<usize>> {
        ready!(context::poll_turn(cx, self.poll.side(Direction::Write).turns()));
        let (waker, mut wakers) = (cx.waker().clone(), Wakers::new());
        let (attempt, unused);
        {
            let mut state = self.state.lock();
            attempt = self.try_hand_over(&mut state, buf, &mut wakers);
            let lane = &mut state.lanes[self.side];
            unused = if attempt.is_none() {
                enlist(&mut lane.writers, Waiter::Poll, waker, &mut wakers)
            } else {
                Some(waker)
            };
        }
        drop(unused);
        wakers.wake_all();
        let result = match attempt {
            Some(result) => result,
            None => Err(ready!(self.poll_stop(Direction::Write, Waiter::Poll, cx))),
        };
        self.finish(Direction::Write, Waiter::Poll);
        Poll::Ready(result.map_err(|failure| self.error("write", failure)))
    }

    fn try_hand_over(
        &self,
        state: &mut State,
        buf: Option<&[u8]>,
        wakers: &mut Wakers,
    ) -> Option<Result<usize, Failure>> {
        let Some(buf) = buf else {
            let lane = &state.lanes[self.side];
            if lane.is_free() || lane.writer != 0 {
                return Some(Ok(0));
            }
            return self.stopped(state).map(Err);
        };
        if let Some(failure) = self.stopped_before(state) {
            return Some(Err(failure));
        }
        let lane = &mut state.lanes[self.side];
        let count = buf.len().min(lane.wanted);
        if buf.is_empty() {
            return Some(Ok(0));
        }
        if count == 0 || !lane.is_free() {
            return None;
        }
        lane.fill(&buf[..count], 0, wakers);
        Some(Ok(count))
    }

    // ---- closing ----

    pub(super) fn end_writing(&self) {
        let mut wakers = Wakers::new();
        {
            let mut state = self.state.lock();
            state.lanes[self.side].ended = true;
            state.lanes[self.side].interrupt(&mut wakers);
        }
        wakers.wake_all();
    }

    pub(super) fn close(&self) {
        let mut wakers = Wakers::new();
        {
            let mut state = self.state.lock();
            state.closed[self.side] = true;
            state.lanes.iter_mut().for_each(|lane| lane.interrupt(&mut wakers));
        }
        self.poll.evict(&mut wakers);
        wakers.wake_all();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close();
        self.poll.retire_bare();
    }
}
