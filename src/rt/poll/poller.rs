//! [`PollHandle`]: a socket's reference to its [`PollDesc`], through which operations wait.
//!
//! This is the interface between `net` and the runtime, like Go's `internal/poll.pollDesc`. An
//! operation runs
//!
//! ```text
//! loop { ticket = begin()?            closed? expired?
//!        if ticket is ready { call; on EAGAIN or a short count clear_ready(ticket); on success leave }
//!        register()?                  once, at the first evidence of idleness
//!        poll_wait()? }
//! end_operation()                     also when the future is dropped
//! ```
//!
//! [`registering`](super::registering) describes the registration, [`timeouts`](super::timeouts)
//! how an operation gives up.
//!
//! # Cancellation
//! A future keeps a [`WaitKey`] while it waits; `end_operation` with the key undoes the wait. A
//! `poll_*` caller has no key: its waker may be woken once spuriously.

use std::io;
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::rt::context;
use crate::rt::fork;
use crate::rt::poll::backend::Token;
pub(crate) use crate::rt::poll::poll_desc::Direction;
use crate::rt::poll::poll_desc::{PollDesc, registration};
pub(crate) use crate::rt::poll::side::{Hold, Stop, Ticket};
use crate::rt::poll::side::{Side, Wait};
use crate::rt::poll::usage;
use crate::rt::runtime::runtime;
use crate::rt::sched::record::Waits;
use crate::rt::time::{clock, ticks};
use crate::rt::unsent;
use crate::rt::waiters::{Interest, Key, Wakers};
use crate::sync::Ordering;

/// Why an operation ends without its call.
#[derive(Debug)]
pub(crate) enum WaitError {
    /// The socket was closed.
    Closed,
    /// A deadline or timeout has passed.
    TimedOut,
    /// The runtime was shut down while the operation waited.
    Stopped,
    /// The maximum number of waiters is reached.
    TooMany,
    /// The descriptor cannot be registered.
    Io(io::Error),
}

impl From<Stop> for WaitError {
    fn from(stop: Stop) -> WaitError {
        match stop {
            Stop::Closed => WaitError::Closed,
            Stop::Expired => WaitError::TimedOut,
        }
    }
}

/// State that an operation keeps while it waits.
#[derive(Debug, Default)]
pub(crate) struct WaitKey {
    key: Option<Key>,
    /// The epoch, plus one, in which the wait began.
    epoch: u32,
    /// The end of the operation's own timeout, or none.
    until: u64,
}

impl WaitKey {
    pub(crate) const fn new() -> WaitKey {
        WaitKey { key: None, epoch: 0, until: clock::NONE }
    }

    /// Returns whether the future is, or was until it was woken, in a slot or a list.
    #[inline]
    pub(crate) fn has_waited(&self) -> bool {
        self.key.is_some()
    }
}

/// Returns whether a time is set and has passed.
pub(super) fn is_over(until: u64) -> bool {
    until != clock::NONE && until <= clock::now()
}

/// Returns the number of our descriptors that were closed so far. Read it before a call that may
/// fail for lack of a descriptor.
#[inline]
pub(crate) fn descriptors_closed() -> u64 {
    runtime().closings.count()
}

/// Waits until more than `seen` descriptors were closed.
pub(crate) fn poll_descriptor_closed(cx: &mut Context<'_>, seen: u64) -> Poll<()> {
    runtime().closings.poll(cx, seen)
}

/// Returns whether a slot belongs to the descriptor `generation`.
pub(super) fn is_open(index: u32, generation: u32) -> bool {
    runtime().cache.get(index).is_some_and(|desc| desc.is_current(generation))
}

/// Returns whether the runtime is running.
pub(crate) fn is_running() -> bool {
    runtime().is_running()
}

/// Returns whether the runtime was shut down and not started since.
pub(crate) fn was_shut_down() -> bool {
    // A simulation runs without it.
    !is_running() && runtime().epoch() > 0 && !unsent::is_simulating()
}

/// Counts a closed descriptor.
pub(crate) fn descriptor_closed() {
    runtime().closings.note();
}

/// Makes sure that the poller exists. Called before a descriptor is opened, because later the
/// process may not have two numbers left for the poller. It has no effect before the runtime runs,
/// which a socket does not start; under another executor the first wait does.
///
/// # Errors
/// Returns the error of epoll_create1(2), eventfd(2) or epoll_ctl(2).
pub(crate) fn prepare() -> io::Result<()> {
    let runtime = runtime();
    if runtime.is_running() { runtime.driver.ensure() } else { Ok(()) }
}

/// A socket's reference to its poll descriptor; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct PollHandle {
    pub(super) desc: &'static PollDesc,
    pub(super) generation: u32,
    /// The maximum number of bytes per operation that need no counting: those of plain TCP are
    /// counted by the kernel, and the budget is charged for large ones.
    pub(super) uncounted: u32,
}

impl PollHandle {
    /// Creates a handle for a new descriptor, which is not registered yet.
    ///
    /// # Errors
    /// Returns `ENFILE` if there are 2²⁴ sockets already, and an error in a forked child.
    pub(crate) fn open() -> io::Result<PollHandle> {
        fork::check()?;
        let desc = alloc().ok_or_else(|| io::Error::from_raw_os_error(libc::ENFILE))?;
        runtime().descriptors.fetch_add(1, Ordering::Relaxed);
        Ok(PollHandle { desc, generation: desc.open(), uncounted: 0 })
    }

    /// Lets the poller skip edges for writing until a call gives evidence; see
    /// [`side`](crate::rt::poll::side). The descriptor is new.
    pub(crate) fn skip_write_edges(&self) {
        self.desc.side(Direction::Write).skip_edges();
    }

    /// Returns the state before a call: whether it may succeed, or why it must not be made.
    #[inline]
    pub(crate) fn begin(&self, direction: Direction) -> Result<Ticket, Stop> {
        self.desc.side(direction).begin(self.generation)
    }

    /// Returns [`begin`](PollHandle::begin), or that writes are gathered.
    #[inline]
    pub(crate) fn begin_call(&self, direction: Direction) -> Result<Ticket, Hold> {
        if direction == Direction::Read {
            return self.begin(direction).map_err(Hold::Stop);
        }
        self.desc.side(direction).begin_call(self.generation)
    }

    /// Sets whether [`begin_call`](PollHandle::begin_call) reports that writes are gathered.
    pub(crate) fn set_corked(&self, corked: bool) {
        self.desc.side(Direction::Write).set_corked(self.generation, corked);
    }

    /// Clears readiness, because a call that began at `ticket` has shown that nothing is left.
    #[inline]
    pub(crate) fn clear_ready(&self, direction: Direction, ticket: Ticket) -> bool {
        self.desc.side(direction).clear_ready(ticket)
    }

    /// Called after a success that may leave something to do: wakes the next waiter, if any.
    #[inline]
    pub(crate) fn pass_on(&self, direction: Direction, ticket: Ticket) {
        if ticket.has_waiters() {
            self.wake(|wakers| self.desc.side(direction).pass_on(wakers));
            self.arm_for_waiters();
        }
    }

    /// Arms the directions that are idle, if the back end needs it. Called by an operation that is
    /// listed: an event before that, and a call that used it up, would leave the back end unarmed.
    /// Also called by an operation that found its direction idle but does not wait itself, for those
    /// that do.
    #[cold]
    pub(crate) fn arm_for_waiters(&self) {
        // While it is being added, the back end may know the descriptor already. If it does not yet,
        // all levels are armed when it does.
        let state = self.desc.registration.load(Ordering::Acquire) as u32 as u64;
        if state == registration::ADDING || state == registration::ARMED {
            let is_idle = |direction| self.desc.side(direction).is_idle(self.generation);
            runtime().driver.arm(self.token(), is_idle(Direction::Read), is_idle(Direction::Write));
        }
    }

    /// Returns the index and the generation of the slot.
    pub(crate) fn slot(&self) -> (u32, u32) {
        (self.desc.index, self.generation)
    }

    pub(super) fn token(&self) -> Token {
        Token { index: self.desc.index, generation: self.generation }
    }

    /// Takes one unit of the task's budget for an operation that need not wait; see
    /// [`context::poll_turn`].
    pub(crate) fn poll_turn(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<()> {
        context::poll_turn(cx, &self.desc.turns[direction as usize])
    }

    /// Returns whether [`poll_turn`](PollHandle::poll_turn) may refuse the next operation.
    pub(crate) fn is_spent(&self, direction: Direction) -> bool {
        context::is_spent(&self.desc.turns[direction as usize])
    }

    /// Ends a run of operations that need not wait, because the kernel has answered that this one
    /// has to. If the direction was idle, the call only asked, and its unit is returned.
    pub(crate) fn end_run(&self, direction: Direction, ticket: Ticket) {
        context::end_run(&self.desc.turns[direction as usize], !ticket.is_ready());
    }

    pub(super) fn wake(&self, collect: impl FnOnce(&mut Wakers)) {
        let mut wakers = Wakers::new();
        collect(&mut wakers);
        wakers.wake_all();
    }

    /// Notes that the current task waits for the lock of a direction.
    fn note_lock(&self, direction: Direction) {
        context::note(match direction {
            Direction::Read => Waits::ReadLock(self.desc.tag()),
            Direction::Write => Waits::WriteLock(self.desc.tag()),
        });
    }

    /// Charges the task's budget for an operation of a stream that moved `bytes`, at most
    /// [`MAX_RW`](crate::sys::socket::MAX_RW), and [counts](PollHandle::count) it.
    #[inline]
    pub(crate) fn charge(&self, direction: Direction, bytes: usize) {
        if bytes as u32 > self.uncounted {
            self.charge_many(direction, bytes);
        }
    }

    #[inline(never)]
    fn charge_many(&self, direction: Direction, bytes: usize) {
        context::charge(bytes);
        self.count(direction, bytes);
    }

    /// Counts an operation that moved `bytes`, for [`inspect`](crate::rt::inspect()), unless the
    /// kernel counts them.
    pub(crate) fn count(&self, direction: Direction, bytes: usize) {
        if self.uncounted == 0 {
            self.desc.count(direction);
            usage::of(self.desc.index).add(direction as usize, bytes, ticks::rough_now());
        }
    }

    /// Counts an accepted connection.
    pub(crate) fn count_accept(&self) {
        self.desc.count(Direction::Read);
    }

    /// Counts an operation that failed.
    #[cold]
    pub(crate) fn count_failure(&self, error: &io::Error) {
        self.desc.count_failure(error.raw_os_error().unwrap_or(0));
    }

    /// Waits for an edge, with a descriptor that [`register`](PollHandle::register) has just
    /// registered in `epoch`. When it is ready, the operation must begin again.
    #[inline]
    pub(crate) fn poll_wait(
        &self,
        direction: Direction,
        epoch: u32,
        cx: &mut Context<'_>,
        wait: &mut WaitKey,
        timeout: Option<Duration>,
    ) -> Poll<Result<(), WaitError>> {
        if wait.epoch != epoch.wrapping_add(1) {
            if wait.epoch != 0 {
                return Poll::Ready(Err(WaitError::Stopped));
            }
            wait.epoch = epoch.wrapping_add(1);
        } else if timeout.is_some() && is_over(wait.until) {
            return Poll::Ready(Err(WaitError::TimedOut));
        }
        let side = self.desc.side(direction);
        match side.wait(self.generation, &mut wait.key, Interest::Event, cx.waker(), || self.is_registered(epoch)) {
            Wait::Listed => {
                context::note_edge(self.desc.note(direction));
                if timeout.is_none() { Poll::Pending } else { self.arm_timeout(&mut wait.until, timeout) }
            }
            Wait::Retry => Poll::Ready(Ok(())),
            Wait::Full => Poll::Ready(Err(WaitError::TooMany)),
        }
    }

    /// Waits for an edge on behalf of a `poll_*` caller.
    #[inline(never)]
    pub(crate) fn poll_wait_keyless(
        &self,
        direction: Direction,
        epoch: u32,
        cx: &mut Context<'_>,
        timeout: Option<Duration>,
    ) -> Poll<Result<(), WaitError>> {
        let side = self.desc.side(direction);
        let began = self.desc.side(direction).keyless_epoch().swap(0, Ordering::Relaxed);
        if began != 0 && began != epoch.wrapping_add(1) {
            return Poll::Ready(Err(WaitError::Stopped));
        }
        if timeout.is_some_and(|timeout| self.is_over_keyless(direction, timeout)) {
            return Poll::Ready(Err(WaitError::TimedOut));
        }
        match side.wait_keyless(self.generation, cx.waker(), || self.is_registered(epoch)) {
            Wait::Listed => {
                context::note_edge(self.desc.note(direction));
                self.desc.side(direction).keyless_epoch().store(epoch.wrapping_add(1), Ordering::Relaxed);
                self.arm_timeout_keyless(direction, timeout)
            }
            Wait::Retry => Poll::Ready(Ok(())),
            Wait::Full => Poll::Ready(Err(WaitError::TooMany)),
        }
    }

    /// Waits until an edge reports that the peer has hung up, with a descriptor registered in
    /// `epoch`: for reading, that it sends no more; for writing, that it also accepts no more.
    pub(crate) fn poll_hang_up(
        &self,
        direction: Direction,
        epoch: u32,
        cx: &mut Context<'_>,
        wait: &mut WaitKey,
    ) -> Poll<Result<(), WaitError>> {
        self.poll_edges_until(direction, epoch, cx, wait, |side| side.is_hung_up())
    }

    /// Returns a value that changes with every edge in this direction.
    pub(crate) fn edges(&self, direction: Direction) -> u64 {
        self.desc.side(direction).edges()
    }

    /// Waits for an edge with ERROR, or any edge after `seen`, with a descriptor registered in
    /// `epoch`.
    pub(crate) fn poll_error_edge(
        &self,
        direction: Direction,
        epoch: u32,
        cx: &mut Context<'_>,
        wait: &mut WaitKey,
        seen: u64,
    ) -> Poll<Result<(), WaitError>> {
        self.poll_edges_until(direction, epoch, cx, wait, |side| side.edges() != seen)
    }

    /// Waits until edges have made `is_over` true, which reads the word of the direction.
    fn poll_edges_until(
        &self,
        direction: Direction,
        epoch: u32,
        cx: &mut Context<'_>,
        wait: &mut WaitKey,
        is_over: impl Fn(Side<'_>) -> bool,
    ) -> Poll<Result<(), WaitError>> {
        let side = self.desc.side(direction);
        loop {
            if wait.epoch != 0 && wait.epoch != epoch.wrapping_add(1) {
                return Poll::Ready(Err(WaitError::Stopped));
            }
            side.begin(self.generation)?;
            if is_over(side) {
                return Poll::Ready(Ok(()));
            }
            wait.epoch = epoch.wrapping_add(1);
            // ORDERING: read after LISTED is set in the word that an edge changes, so either the
            // edge is seen here, or it takes the waiter out.
            let still = || self.is_registered(epoch) && !is_over(side);
            match side.wait(self.generation, &mut wait.key, Interest::Interrupt, cx.waker(), still) {
                Wait::Listed => {
                    context::note(Waits::HangUp(self.desc.tag()));
                    self.arm_for_waiters();
                    return Poll::Pending;
                }
                Wait::Retry if !self.is_registered(epoch) => return Poll::Ready(Err(WaitError::Stopped)),
                Wait::Retry => {}
                Wait::Full => return Poll::Ready(Err(WaitError::TooMany)),
            }
        }
    }

    /// Ends a `poll_*` operation, so that its timeout does not apply to the next one. Returns whether
    /// the operation waited.
    #[inline]
    pub(crate) fn end_operation_keyless(&self, direction: Direction) -> bool {
        let has_waited = self.desc.side(direction).keyless_epoch().load(Ordering::Relaxed) != 0;
        if has_waited {
            self.desc.side(direction).keyless_epoch().store(0, Ordering::Relaxed);
        }
        // Checked separately: an edge between the call and the wait leaves the time set without the
        // epoch.
        let until = self.desc.side(direction).keyless_until();
        if until.load(Ordering::Relaxed) != clock::NONE {
            until.store(clock::NONE, Ordering::Relaxed);
        }
        has_waited
    }

    /// Ends an operation that may have waited, or that is dropped; see [`WaitKey`]. `acted` tells
    /// whether it made its call after it was woken.
    #[inline]
    pub(crate) fn end_operation(&self, direction: Direction, wait: &mut WaitKey, acted: bool) {
        self.end_wait(direction, &mut wait.key, acted);
        *wait = WaitKey::new();
    }

    /// Ends the wait of a key without a timeout.
    #[inline]
    pub(crate) fn end_wait(&self, direction: Direction, key: &mut Option<Key>, acted: bool) {
        let side = self.desc.side(direction);
        if key.is_some() && side.has_waiters() {
            self.wake(|wakers| side.end_wait(key, acted, wakers));
        }
        *key = None;
    }

    /// Called when an operation that waits for an edge, or got one, finds that another operation
    /// has the lock: passes the edge to the next waiter, which may be the lock's owner. The
    /// operation's time limit remains.
    #[inline]
    pub(crate) fn pass_edge_on(&self, direction: Direction, wait: &mut WaitKey) {
        if wait.has_waited() {
            self.wake(|wakers| self.desc.side(direction).end_wait(&mut wait.key, false, wakers));
        }
    }

    /// Adds a waiter that only expiry and close wake, for an operation that queues for the lock of
    /// this direction. The operation's own timeout, which `wait` stores, also applies. Ready if the
    /// operation has already ended.
    pub(crate) fn poll_interrupt(
        &self,
        direction: Direction,
        cx: &mut Context<'_>,
        interrupt: &mut Option<Key>,
        wait: &mut WaitKey,
        timeout: Option<Duration>,
    ) -> Poll<Result<(), WaitError>> {
        let side = self.desc.side(direction);
        loop {
            side.begin(self.generation)?;
            if timeout.is_some() && is_over(wait.until) {
                return Poll::Ready(Err(WaitError::TimedOut));
            }
            match side.wait(self.generation, interrupt, Interest::Interrupt, cx.waker(), || true) {
                Wait::Listed => {
                    self.note_lock(direction);
                    return self.arm_timeout(&mut wait.until, timeout);
                }
                Wait::Retry => {}
                Wait::Full => return Poll::Ready(Err(WaitError::TooMany)),
            }
        }
    }

    /// Adds such a waiter for a `poll_*` caller. Its waker may also be woken spuriously by an edge.
    pub(crate) fn poll_interrupt_keyless(
        &self,
        direction: Direction,
        cx: &mut Context<'_>,
        timeout: Option<Duration>,
    ) -> Poll<Result<(), WaitError>> {
        let side = self.desc.side(direction);
        if timeout.is_some_and(|timeout| self.is_over_keyless(direction, timeout)) {
            return Poll::Ready(Err(WaitError::TimedOut));
        }
        let _ = side.wait_keyless(self.generation, cx.waker(), || true);
        self.note_lock(direction);
        // It is listed before the check, so that whatever ends the wait from here on wakes it.
        side.begin(self.generation)?;
        self.arm_timeout_keyless(direction, timeout)
    }

    /// Returns whether an edge reported that the peer hung up. Before the descriptor is registered
    /// there are no edges.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.desc.side(Direction::Read).is_hung_up()
    }

    /// Ends all current and later operations with [`WaitError::Closed`]. The caller wakes `wakers`.
    pub(crate) fn evict(&self, wakers: &mut Wakers) {
        self.desc.evict(self.generation, wakers);
    }

    /// Called before the descriptor is closed or given away. `exposed` means that a duplicate may
    /// exist, so that closing does not end the registration.
    pub(crate) fn retire(&self, fd: BorrowedFd<'_>, exposed: bool) {
        if !self.desc.is_current(self.generation) {
            return;
        }
        let state = self.desc.registration.load(Ordering::Acquire) as u32 as u64;
        let outlives = exposed || state == registration::ARMED || fork::has_forked();
        // A forked child shares the instance: it would take the parent's out.
        if outlives && state != registration::NONE && !fork::is_child() {
            runtime().driver.delete(fd);
        }
        self.retire_bare();
    }

    /// Retires a handle that was never registered, whose waiters wait only for expiry and close.
    pub(crate) fn retire_bare(&self) {
        self.desc.retire(self.generation);
        runtime().descriptors.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for PollHandle {
    fn drop(&mut self) {
        debug_assert!(!self.desc.is_current(self.generation), "a poll handle outlived its use without `retire`");
        self.wake(|wakers| self.desc.sides().iter().for_each(|side| side.take_leftovers(wakers)));
        free(self.desc);
    }
}

/// Allocates a slot.
fn alloc() -> Option<&'static PollDesc> {
    #[cfg(feature = "sim")]
    if let Some(index) = crate::sim::reuse_slot() {
        return runtime().cache.get(index);
    }
    let desc = runtime().cache.alloc()?;
    #[cfg(feature = "sim")]
    crate::sim::note_slot(desc.index);
    Some(desc)
}

/// Frees a slot.
fn free(desc: &PollDesc) {
    // Its timer entry stays for the next descriptor of the slot, and counts on the clock of its
    // simulation.
    #[cfg(feature = "sim")]
    if crate::sim::keep_slot(desc.index) {
        return;
    }
    runtime().cache.free(desc);
}

#[cfg(test)]
#[path = "poller_tests.rs"]
mod tests;
