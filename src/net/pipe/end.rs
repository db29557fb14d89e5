//! One end of a pipe and the lanes between both: how bytes cross, and who waits.
//!
//! # How bytes cross
//! Nothing is buffered ahead of a reader. One *lane* a direction holds the bytes of one write at a time; reads take from it, and what
//! a read leaves is for the next. A [`PipeWrite`](super::PipeWrite) lends its bytes to the lane (as a copy: safe code cannot lend a future's
//! buffer) and ends when reads have taken them all. A `poll_write` of the traits has no object that could wait for that, so it
//! hands over to reads that wait, no more than they asked for, and its bytes stay: `poll_flush` waits until they are taken.
//!
//! # Invariants
//! * A lane is *free* or holds one write's bytes; `writer` says whose: a number for a future that waits, 0 for a write that has ended.
//! * Who makes something possible wakes one who waits for it: filling a lane a reader, freeing it a writer; a reader that leaves a rest,
//!   and a future that was woken and is dropped, pass on. Closing and expiry wake all.
//! * Wakers are cloned, woken and dropped outside the state's mutex (12).
//!
//! # Waiting
//! For data in the lane's lists; for close, deadline and timeout in the end's [`PollHandle`], which never has a descriptor.
//!
//! # Cancellation
//! A dropped read took nothing. A dropped write withdraws what was not taken; how much was is lost.
//!
//! # Compared with Go (net/pipe.go)
//! An end closes when its last clone is dropped. A write after the *peer's* close is EPIPE, as on a socket, and setting a deadline then is
//! no error (Go: `io.ErrClosedPipe` for both), so that a loop that sets a deadline before each read sees the end of the stream. An
//! empty write ends at once instead of waking a reader with nothing, which in Rust would mean the end.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use crate::net::error::Op;
use crate::net::fd::operation::Failure;
use crate::rt::poll::poller::{Direction, PollHandle, WaitKey};
use crate::rt::waiters::{Interest, Key, Waiters, Wakers};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// An allocation for bytes beyond this is not kept.
const KEPT_MAX: usize = 64 << 10;

/// See the module's header.
pub(super) struct End {
    state: Arc<Mutex<State>>,
    /// 0 or 1: which lane it writes.
    pub(super) side: usize,
    pub(super) poll: PollHandle,
    /// Relative timeouts in nanoseconds, by direction; 0 for none.
    pub(super) timeouts: [AtomicU64; 2],
}

struct State {
    /// By the side that writes.
    lanes: [Lane; 2],
    closed: [bool; 2],
}

struct Lane {
    bytes: Vec<u8>,
    /// How many of them reads have taken.
    taken: usize,
    /// Whose they are.
    writer: u64,
    /// Wakes that future.
    owner: Option<Waker>,
    last_writer: u64,
    /// The most that a read asks for which waits; 0 when none does.
    wanted: usize,
    /// Nothing more is written.
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

    /// Puts a write's bytes into the free lane.
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

    /// After a read that has left the list: for the next reader, or the next write.
    fn pass_on(&mut self, wakers: &mut Wakers) {
        if !self.is_free() {
            self.wake_reader(wakers);
        } else if !self.bytes.is_empty() {
            self.release(wakers);
        }
    }

    /// Makes the lane free, whatever is in it.
    fn release(&mut self, wakers: &mut Wakers) {
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_MAX {
            self.bytes = Vec::new();
        }
        (self.taken, self.writer) = (0, 0);
        wakers.extend(self.owner.take());
        self.writers.take_event(wakers);
    }

    /// Takes out of the lane what a future lent it: what has become of its `len` bytes, should it end by `failure` otherwise.
    fn withdraw(&mut self, writer: u64, len: usize, failure: Failure, wakers: &mut Wakers) -> Result<usize, Failure> {
        if self.writer != writer {
            return Ok(len);
        }
        let taken = self.taken;
        self.release(wakers);
        if taken > 0 { Ok(taken) } else { Err(failure) }
    }

    fn interrupt(&mut self, wakers: &mut Wakers) {
        self.readers.take_all(wakers);
        self.writers.take_all(wakers);
        wakers.extend(self.owner.take());
        self.wanted = 0;
    }
}

/// What a future keeps while it waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Its place in a list of the lane, and in the end's.
    pub(super) key: Option<Key>,
    pub(super) interrupt: Option<Key>,
    /// Its own timeout.
    limit: WaitKey,
}

/// Puts `waker` into a list. The caller drops what this returns, and wakes `wakers`, when it has let go of the mutex.
#[must_use]
fn enlist(list: &mut Waiters, waiting: Option<&mut Waiting>, waker: Waker, wakers: &mut Wakers) -> Option<Waker> {
    match waiting {
        Some(waiting) => {
            let (key, replaced) = list.insert(waiting.key, Interest::Event, waker);
            waiting.key = Some(key);
            replaced
        }
        None => list.insert_poll(waker, wakers),
    }
}

impl End {
    /// Both ends.
    pub(super) fn pair() -> io::Result<[End; 2]> {
        let state = Arc::new(Mutex::new(State { lanes: [const { Lane::new() }; 2], closed: [false; 2] }));
        let end = |side| {
            let (state, poll) = (state.clone(), PollHandle::open()?);
            Ok(End { state, side, poll, timeouts: [AtomicU64::new(0), AtomicU64::new(0)] })
        };
        let first: io::Result<End> = end(0);
        Ok([first?, end(1)?])
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed[self.side]
    }

    pub(super) fn timeout(&self, direction: Direction) -> Option<Duration> {
        match self.timeouts[direction as usize].load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    #[cold]
    pub(super) fn error(&self, op: &'static str, failure: Failure) -> io::Error {
        match failure {
            // Here only a broken pipe.
            Failure::Io(error) => Op::at(op, "pipe", None).other(error),
            failure => failure.into_error(Op::at(op, "pipe", None)),
        }
    }

    /// Waits for close, expiry and the operation's timeout, beside the lane's list. Ready: by which of them it has ended.
    fn poll_stop(&self, direction: Direction, waiting: Option<&mut Waiting>, cx: &mut Context<'_>) -> Poll<Failure> {
        let timeout = self.timeout(direction);
        let polled = match waiting {
            Some(Waiting { interrupt, limit, .. }) => {
                self.poll.poll_interrupt(direction, cx, interrupt, limit, timeout)
            }
            None => self.poll.poll_interrupt_keyless(direction, cx, timeout),
        };
        match polled {
            Poll::Ready(Err(stop)) => Poll::Ready(stop.into()),
            Poll::Ready(Ok(())) | Poll::Pending => {
                self.poll.ensure_timers(direction, timeout, cx);
                Poll::Pending
            }
        }
    }

    /// The operation has ended: nothing of it stays behind in the end's lists.
    fn finish(&self, direction: Direction, waiting: Option<&mut Waiting>) {
        match waiting {
            Some(waiting) => {
                self.poll.leave(direction, &mut waiting.interrupt, true);
                waiting.limit = WaitKey::new();
            }
            None => self.poll.finish_keyless(direction),
        }
    }

    // ---- reading ----

    pub(super) fn poll_read(
        &self,
        mut waiting: Option<&mut Waiting>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll.poll_turn(Direction::Read, cx));
        let (waker, mut wakers) = (cx.waker().clone(), Wakers::new());
        let (attempt, unused);
        {
            let mut state = self.state.lock();
            attempt = self.try_read(&mut state, buf);
            let lane = &mut state.lanes[1 - self.side];
            if attempt.is_some() {
                let listed = waiting.as_mut().and_then(|waiting| lane.readers.remove(waiting.key.take()?));
                unused = (listed, Some(waker));
                lane.pass_on(&mut wakers);
                lane.forget_wanted();
            } else {
                unused = (enlist(&mut lane.readers, waiting.as_deref_mut(), waker, &mut wakers), None);
                lane.wanted = lane.wanted.max(buf.len());
                if lane.is_free() {
                    // A write by the traits may wait for just this.
                    lane.writers.take_event(&mut wakers);
                }
            }
        }
        drop(unused);
        wakers.wake_all();
        let result = match attempt {
            Some(result) => result,
            None => {
                let failure = ready!(self.poll_stop(Direction::Read, waiting.as_deref_mut(), cx));
                if let Some(waiting) = waiting.as_deref_mut() {
                    self.leave_readers(waiting);
                }
                Err(failure)
            }
        };
        self.finish(Direction::Read, waiting);
        Poll::Ready(result.map_err(|failure| self.error("read", failure)))
    }

    /// None: it has to wait. Its own close comes before the peer's, that before expiry, and that before data.
    fn try_read(&self, state: &mut State, buf: &mut [u8]) -> Option<Result<usize, Failure>> {
        let (ours, peers) = (state.closed[self.side], state.closed[1 - self.side]);
        let lane = &mut state.lanes[1 - self.side];
        // What a write has lent is its own until it is taken, and goes with its end; what one has handed over does not.
        let has_bytes = !lane.is_free() && (!peers || lane.writer == 0);
        if ours {
            Some(Err(Failure::Closed))
        } else if !has_bytes && (peers || lane.ended) {
            Some(Ok(0))
        } else if let Err(stop) = self.poll.begin(Direction::Read) {
            Some(Err(stop.into()))
        } else if buf.is_empty() {
            Some(Ok(0))
        } else {
            has_bytes.then(|| Ok(lane.take(buf)))
        }
    }

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

    /// Why nothing may be written.
    fn stopped(&self, state: &State) -> Option<Failure> {
        if state.closed[self.side] {
            Some(Failure::Closed)
        } else if state.closed[1 - self.side] {
            Some(Failure::Io(io::Error::from_raw_os_error(libc::EPIPE)))
        } else {
            self.poll.begin(Direction::Write).err().map(Failure::from)
        }
    }

    fn stopped_before(&self, state: &State) -> Option<Failure> {
        let has_ended = state.lanes[self.side].ended && !state.closed[self.side];
        if has_ended { Some(Failure::Io(io::Error::from_raw_os_error(libc::EPIPE))) } else { self.stopped(state) }
    }

    /// A write by a future, whose bytes are in the lane as `number` unless that is 0.
    pub(super) fn poll_write(
        &self,
        waiting: &mut Waiting,
        number: &mut u64,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll.poll_turn(Direction::Write, cx));
        let (waker, mut wakers) = (cx.waker().clone(), Wakers::new());
        let (attempt, unused);
        {
            let mut state = self.state.lock();
            attempt = self.try_write(&mut state, number, buf, &mut wakers);
            let lane = &mut state.lanes[self.side];
            if attempt.is_none() && *number == 0 {
                unused = (enlist(&mut lane.writers, Some(waiting), waker, &mut wakers), None);
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
            None => {
                let failure = ready!(self.poll_stop(Direction::Write, Some(waiting), cx));
                self.leave_writers(waiting, number, buf.len(), failure)
            }
        };
        *number = 0;
        self.finish(Direction::Write, Some(waiting));
        Poll::Ready(result.map_err(|failure| self.error("write", failure)))
    }

    /// None: it has to wait, for the lane or for reads.
    fn try_write(
        &self,
        state: &mut State,
        number: &mut u64,
        buf: &[u8],
        wakers: &mut Wakers,
    ) -> Option<Result<usize, Failure>> {
        if *number != 0 {
            if state.lanes[self.side].writer != *number {
                return Some(Ok(buf.len()));
            }
            let failure = self.stopped(state)?;
            return Some(state.lanes[self.side].withdraw(*number, buf.len(), failure, wakers));
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

    /// A write ends before it is done: its place, or its bytes, go.
    pub(super) fn leave_writers(
        &self,
        waiting: &mut Waiting,
        number: &mut u64,
        len: usize,
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
            number => lane.withdraw(number, len, failure, &mut wakers),
        };
        drop(state);
        drop(listed);
        wakers.wake_all();
        result
    }

    /// A write by the traits, or (`None`) their flush.
    pub(super) fn poll_hand_over(&self, cx: &mut Context<'_>, buf: Option<&[u8]>) -> Poll<io::Result<usize>> {
        ready!(self.poll.poll_turn(Direction::Write, cx));
        let (waker, mut wakers) = (cx.waker().clone(), Wakers::new());
        let (attempt, unused);
        {
            let mut state = self.state.lock();
            attempt = self.try_hand_over(&mut state, buf, &mut wakers);
            let lane = &mut state.lanes[self.side];
            unused = if attempt.is_none() { enlist(&mut lane.writers, None, waker, &mut wakers) } else { Some(waker) };
        }
        drop(unused);
        wakers.wake_all();
        let result = match attempt {
            Some(result) => result,
            None => Err(ready!(self.poll_stop(Direction::Write, None, cx))),
        };
        self.finish(Direction::Write, None);
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
        wakers.wake_all();
        self.poll.evict();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close();
        self.poll.retire_bare();
    }
}
