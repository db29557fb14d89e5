//! `PollHandle`: a socket's hold on its [`PollDesc`], and the waiting that operations do through it.
//!
//! The seam between `net` and the runtime, as Go's `internal/poll.pollDesc` is. An operation runs
//!
//! ```text
//! loop { ticket = begin()?            closed? expired?
//!        if ticket is ready { call; on EAGAIN or a short count clear_ready(ticket); on success leave }
//!        register()?                  once, at the first evidence of idleness
//!        poll_wait()? }
//! finish()                            also when the future is dropped
//! ```
//!
//! # Registration
//! *None* → *adding* → *added*, with the runtime's epoch; of another epoch it counts as none. Two first waiters do not both add: the
//! second waits at once, where the edge that an ADD brings finds it. If the ADD fails everybody is woken and tries
//! for itself, which brings each its own error.
//!
//! # Cancellation
//! [`WaitKey`] is what a future keeps while it waits; `finish` with it undoes the wait. A `poll_*` caller has none: its waker may
//! be woken once for nothing.
//!
//! # Relative timeouts
//! An operation that has to wait notes when it gives up, in its key, and sees that a timer fires by then; the timer wakes everybody in
//! that direction and each looks at its own clock. For `poll_*` the time is kept in the direction. Such an operation begins
//! when a poll first returns Pending and ends when one returns Ready; one that was abandoned for longer than another timeout
//! (100 ms at least: a busy task is polled late) is taken for a new one.

use std::io;
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::rt::context;
use crate::rt::fork;
pub(crate) use crate::rt::poll::poll_desc::{Direction, Stop, Ticket};
use crate::rt::poll::poll_desc::{PollDesc, Wait, registration};
use crate::rt::runtime::{Runtime, runtime};
use crate::rt::time::clock;
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
    /// As many wait as may.
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

/// What an operation keeps while it waits.
#[derive(Debug, Default)]
pub(crate) struct WaitKey {
    key: Option<Key>,
    /// The epoch, plus one, in which the wait began.
    epoch: u32,
    /// When the operation's own timeout ends, or none.
    until: u64,
}

impl WaitKey {
    pub(crate) const fn new() -> WaitKey {
        WaitKey { key: None, epoch: 0, until: clock::NONE }
    }

    /// Whether the future is, or was until it was woken, in a slot or a list.
    #[inline]
    pub(crate) fn has_waited(&self) -> bool {
        self.key.is_some()
    }
}

/// How late a task that its timeout has woken may be polled, whatever the timeout. With less, a short timeout on a busy machine would
/// begin anew for ever.
const LATE_MAX: Duration = Duration::from_millis(100);

/// Whether a time is set and has come.
fn is_over(until: u64) -> bool {
    until != clock::NONE && until <= clock::now()
}

/// Descriptors of ours that were closed so far: to be read before a call that may fail for want of a free number.
#[inline]
pub(crate) fn descriptors_closed() -> u64 {
    runtime().closings.count()
}

/// Waits until more than `seen` were closed.
pub(crate) fn poll_descriptor_closed(cx: &mut Context<'_>, seen: u64) -> Poll<()> {
    runtime().closings.poll(cx, seen)
}

/// A descriptor was closed.
pub(crate) fn descriptor_closed() {
    runtime().closings.note();
}

/// Sees that the poller is there: asked by who opens a descriptor, since later the process may have no two numbers left for it. Not
/// before the runtime runs, which a socket does not start; under an executor of another make the first wait does.
///
/// # Errors
/// Those of epoll_create1(2), eventfd(2) and epoll_ctl(2).
pub(crate) fn prepare() -> io::Result<()> {
    let runtime = runtime();
    if runtime.is_running() { runtime.driver.ensure() } else { Ok(()) }
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct PollHandle {
    desc: &'static PollDesc,
    generation: u32,
}

impl PollHandle {
    /// A handle for a new descriptor, not registered yet.
    ///
    /// # Errors
    /// `ENFILE` when there are 2²⁴ sockets already; an error in a forked child.
    pub(crate) fn open() -> io::Result<PollHandle> {
        fork::check()?;
        let desc = runtime().cache.alloc().ok_or_else(|| io::Error::from_raw_os_error(libc::ENFILE))?;
        runtime().descriptors.fetch_add(1, Ordering::Relaxed);
        Ok(PollHandle { desc, generation: desc.open() })
    }

    /// What holds before a call: whether it may succeed, or why it must not be made.
    #[inline]
    pub(crate) fn begin(&self, direction: Direction) -> Result<Ticket, Stop> {
        self.desc.side(direction).begin(self.generation)
    }

    /// A call that began at `ticket` has shown that nothing is left to do.
    #[inline]
    pub(crate) fn clear_ready(&self, direction: Direction, ticket: Ticket) {
        self.desc.side(direction).clear_ready(ticket);
    }

    /// A call succeeded and something may be left to do: for the next that waits, if any.
    #[inline]
    pub(crate) fn pass_on(&self, direction: Direction, ticket: Ticket) {
        if ticket.has_waiters() {
            self.wake(|wakers| self.desc.side(direction).pass_on(wakers));
        }
    }

    /// Takes one from the task's budget for an operation that need not wait; see [`context::poll_turn`].
    pub(crate) fn poll_turn(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<()> {
        context::poll_turn(cx, &self.desc.turns[direction as usize])
    }

    fn wake(&self, collect: impl FnOnce(&mut Wakers)) {
        let mut wakers = Wakers::new();
        collect(&mut wakers);
        wakers.wake_all();
    }

    /// Waits for an edge with a descriptor that [`register`](PollHandle::register) has just registered, in `epoch`. Ready means:
    /// begin again.
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
            Wait::Listed if timeout.is_none() => Poll::Pending,
            Wait::Listed => self.arm_timeout(&mut wait.until, timeout),
            Wait::Retry => Poll::Ready(Ok(())),
            Wait::Full => Poll::Ready(Err(WaitError::TooMany)),
        }
    }

    /// The same for a `poll_*` caller.
    #[inline(never)]
    pub(crate) fn poll_wait_keyless(
        &self,
        direction: Direction,
        epoch: u32,
        cx: &mut Context<'_>,
        timeout: Option<Duration>,
    ) -> Poll<Result<(), WaitError>> {
        let side = self.desc.side(direction);
        let began = self.desc.side(direction).poll_epoch().swap(0, Ordering::Relaxed);
        if began != 0 && began != epoch.wrapping_add(1) {
            return Poll::Ready(Err(WaitError::Stopped));
        }
        if timeout.is_some_and(|timeout| self.is_over_keyless(direction, timeout)) {
            return Poll::Ready(Err(WaitError::TimedOut));
        }
        match side.wait_poll(self.generation, cx.waker(), || self.is_registered(epoch)) {
            Wait::Listed => {
                self.desc.side(direction).poll_epoch().store(epoch.wrapping_add(1), Ordering::Relaxed);
                self.arm_timeout_keyless(direction, timeout)
            }
            Wait::Retry => Poll::Ready(Ok(())),
            Wait::Full => Poll::Ready(Err(WaitError::TooMany)),
        }
    }

    /// Waits until an edge says that the peer has hung up, with a descriptor registered in `epoch`: reading, that it sends no
    /// more; writing, that it takes nothing more either.
    pub(crate) fn poll_hang_up(
        &self,
        direction: Direction,
        epoch: u32,
        cx: &mut Context<'_>,
        wait: &mut WaitKey,
    ) -> Poll<Result<(), WaitError>> {
        let side = self.desc.side(direction);
        loop {
            if wait.epoch != 0 && wait.epoch != epoch.wrapping_add(1) {
                return Poll::Ready(Err(WaitError::Stopped));
            }
            if side.begin(self.generation)?.is_hung_up() {
                return Poll::Ready(Ok(()));
            }
            wait.epoch = epoch.wrapping_add(1);
            let still = || self.is_registered(epoch) && !side.is_hung_up();
            match side.wait(self.generation, &mut wait.key, Interest::Interrupt, cx.waker(), still) {
                Wait::Listed => return Poll::Pending,
                Wait::Retry if !self.is_registered(epoch) => return Poll::Ready(Err(WaitError::Stopped)),
                Wait::Retry => {}
                Wait::Full => return Poll::Ready(Err(WaitError::TooMany)),
            }
        }
    }

    /// Changes with every edge in this direction.
    pub(crate) fn edges(&self, direction: Direction) -> u64 {
        self.desc.side(direction).edges()
    }

    /// Waits until an edge says ERROR, or any has come since `seen`, with a descriptor registered in `epoch`.
    pub(crate) fn poll_error_edge(
        &self,
        direction: Direction,
        epoch: u32,
        cx: &mut Context<'_>,
        wait: &mut WaitKey,
        seen: u64,
    ) -> Poll<Result<(), WaitError>> {
        let side = self.desc.side(direction);
        loop {
            if wait.epoch != 0 && wait.epoch != epoch.wrapping_add(1) {
                return Poll::Ready(Err(WaitError::Stopped));
            }
            side.begin(self.generation)?;
            if side.edges() != seen {
                return Poll::Ready(Ok(()));
            }
            wait.epoch = epoch.wrapping_add(1);
            // ORDERING: asked after LISTED is set in the word that an edge changes: it is seen here, or takes the
            // waiter out.
            let still = || self.is_registered(epoch) && side.edges() == seen;
            match side.wait(self.generation, &mut wait.key, Interest::Interrupt, cx.waker(), still) {
                Wait::Listed => return Poll::Pending,
                Wait::Retry if !self.is_registered(epoch) => return Poll::Ready(Err(WaitError::Stopped)),
                Wait::Retry => {}
                Wait::Full => return Poll::Ready(Err(WaitError::TooMany)),
            }
        }
    }

    /// A `poll_*` operation has ended: its timeout does not count for the next.
    #[inline]
    pub(crate) fn finish_keyless(&self, direction: Direction) {
        if self.desc.side(direction).poll_epoch().load(Ordering::Relaxed) != 0 {
            self.desc.side(direction).poll_epoch().store(0, Ordering::Relaxed);
        }
        // Asked apart: an edge that comes between the call and the wait leaves the time without the epoch.
        let until = self.desc.side(direction).poll_until();
        if until.load(Ordering::Relaxed) != clock::NONE {
            until.store(clock::NONE, Ordering::Relaxed);
        }
    }

    /// An operation that may have waited has ended or is dropped; see [`WaitKey`]. `acted`: it made its call after it was woken.
    #[inline]
    pub(crate) fn finish(&self, direction: Direction, wait: &mut WaitKey, acted: bool) {
        self.leave(direction, &mut wait.key, acted);
        *wait = WaitKey::new();
    }

    /// The same for a key by itself.
    #[inline]
    pub(crate) fn leave(&self, direction: Direction, key: &mut Option<Key>, acted: bool) {
        let side = self.desc.side(direction);
        if key.is_some() && side.has_waiters() {
            self.wake(|wakers| side.finish(key, acted, wakers));
        }
        *key = None;
    }

    /// An operation that waits for an edge, or got one, finds that another has the lock: the edge goes to whoever waits beside
    /// it, which may be the lock's owner. Its time limit stays.
    #[inline]
    pub(crate) fn let_go(&self, direction: Direction, wait: &mut WaitKey) {
        if wait.has_waited() {
            self.wake(|wakers| self.desc.side(direction).finish(&mut wait.key, false, wakers));
        }
    }

    /// Puts a waiter in that only expiry and close wake: for who queues behind a lock of this direction. The operation's own
    /// timeout, which `wait` keeps, counts here too. Ready: the operation has ended already.
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
                Wait::Listed => return self.arm_timeout(&mut wait.until, timeout),
                Wait::Retry => {}
                Wait::Full => return Poll::Ready(Err(WaitError::TooMany)),
            }
        }
    }

    /// The same for a `poll_*` caller: its waker may be woken by an edge as well, for nothing.
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
        let _ = side.wait_poll(self.generation, cx.waker(), || true);
        // Listed first, looked at second: what ends the wait from here on wakes it.
        side.begin(self.generation)?;
        self.arm_timeout_keyless(direction, timeout)
    }

    /// Sees that a timer fires when the operation's own timeout, which begins now if it has not, is over. The operation
    /// waits already: a timer that fires at once finds it.
    #[cold]
    fn arm_timeout(&self, until: &mut u64, timeout: Option<Duration>) -> Poll<Result<(), WaitError>> {
        let Some(timeout) = timeout else { return Poll::Pending };
        let now = clock::now();
        if *until == clock::NONE {
            *until = clock::add(now, timeout);
        }
        if *until <= now {
            return Poll::Ready(Err(WaitError::TimedOut));
        }
        if *until != clock::NEVER
            && let Some(at) = self.desc.wait_until(*until)
        {
            runtime().arm_poll(self.desc, at);
        }
        Poll::Pending
    }

    /// The same for the `poll_*` operation of a direction.
    fn arm_timeout_keyless(&self, direction: Direction, timeout: Option<Duration>) -> Poll<Result<(), WaitError>> {
        if timeout.is_none() {
            return Poll::Pending;
        }
        let kept = self.desc.side(direction).poll_until();
        let mut until = kept.load(Ordering::Relaxed);
        let polled = self.arm_timeout(&mut until, timeout);
        kept.store(if polled.is_ready() { clock::NONE } else { until }, Ordering::Relaxed);
        polled
    }

    /// Whether the timeout of the `poll_*` operation of a direction is over; it is used up then. One that was over for longer
    /// than another such timeout and [`LATE_MAX`] belonged to an operation that was abandoned.
    fn is_over_keyless(&self, direction: Direction, timeout: Duration) -> bool {
        let kept = self.desc.side(direction).poll_until();
        let until = kept.load(Ordering::Relaxed);
        let over = is_over(until);
        if over {
            kept.store(clock::NONE, Ordering::Relaxed);
        }
        over && clock::now() <= clock::add(until, timeout.max(LATE_MAX))
    }

    fn is_registered(&self, epoch: u32) -> bool {
        let registered = self.desc.registration.load(Ordering::Acquire);
        registered >> 32 == u64::from(epoch)
            && registered as u32 as u64 != registration::NONE
            && runtime().epoch() == epoch
    }

    /// Sees that the descriptor is registered, or being so, with the runtime of the epoch it returns. The caller holds `fd`
    /// open for the call. After [`WaitError::Io`] it calls [`registration_failed`](PollHandle::registration_failed) once it holds
    /// no lock.
    #[inline]
    pub(crate) fn register(&self, fd: BorrowedFd<'_>) -> Result<u32, WaitError> {
        match self.registered() {
            Some(epoch) => Ok(epoch),
            None => self.register_now(fd, false),
        }
    }

    /// The same for the first time: a descriptor that is in the poller already, on behalf of another handle, is refused
    /// (EEXIST) instead of taken over.
    pub(crate) fn register_first(&self, fd: BorrowedFd<'_>) -> Result<u32, WaitError> {
        self.register_now(fd, true)
    }

    /// The epoch, if the descriptor is registered with the runtime of now.
    #[inline]
    pub(crate) fn registered(&self) -> Option<u32> {
        let epoch = runtime().epoch();
        let added = u64::from(epoch) << 32 | registration::ADDED;
        (self.desc.registration.load(Ordering::Acquire) == added).then_some(epoch)
    }

    #[cold]
    fn register_now(&self, fd: BorrowedFd<'_>, is_first: bool) -> Result<u32, WaitError> {
        fork::check().map_err(WaitError::Io)?;
        let runtime: &'static Runtime = runtime();
        let epoch = runtime.ensure_running();
        if epoch != runtime.epoch() {
            return Err(WaitError::Stopped);
        }
        if !crate::rt::context::is_inside() {
            runtime.find_sysmon().map_err(WaitError::Io)?;
        }
        let state = |state: u64| u64::from(epoch) << 32 | state;
        let mut seen = self.desc.registration.load(Ordering::Acquire);
        loop {
            if seen == state(registration::ADDED) || seen == state(registration::ADDING) {
                return Ok(epoch);
            }
            let adding = state(registration::ADDING);
            match self.desc.registration.compare_exchange(seen, adding, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        match runtime.driver.add(fd, self.desc.index, self.generation, is_first) {
            Ok(()) => {
                self.desc.registration.store(state(registration::ADDED), Ordering::Release);
                if !runtime.polls_here() {
                    runtime.attend_poller();
                }
                Ok(epoch)
            }
            Err(error) => {
                // ORDERING: Release, then a change of the words in `registration_failed`: a waiter sees that nobody registers, or
                // is woken there.
                self.desc.registration.store(registration::NONE, Ordering::Release);
                Err(WaitError::Io(error))
            }
        }
    }

    /// Wakes everybody who relied on a registration that failed: each tries for itself.
    #[cold]
    pub(crate) fn registration_failed(&self) {
        self.wake(|wakers| self.desc.sides().iter().for_each(|side| side.interrupt(wakers)));
    }

    /// Whether an edge said that the peer hung up. Nothing is heard before the descriptor is registered.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.desc.side(Direction::Read).is_hung_up()
    }

    /// Sets or clears a deadline. One in the past ends what waits at once; so does, later, one to come.
    pub(crate) fn set_deadline(&self, direction: Direction, deadline: Option<Instant>) -> Result<(), WaitError> {
        if let Err(Stop::Closed) = self.desc.side(direction).begin(self.generation) {
            return Err(WaitError::Closed);
        }
        let mut at = deadline.map_or(clock::NONE, clock::from_instant);
        if at == clock::NEVER {
            at = clock::NONE;
        }
        let old = self.desc.deadline(direction);
        if old > clock::EXPIRED && at >= old && !clock::has_come(at) {
            // Moved later: the timer is in at or before the old time, and looks again when it fires.
            if let Some(at) = self.desc.move_deadline(direction, at) {
                runtime().arm_poll(self.desc, at);
            }
            return Ok(());
        }
        self.set_deadline_anew(direction, at);
        Ok(())
    }

    fn set_deadline_anew(&self, direction: Direction, mut at: u64) {
        if at != clock::NONE && at <= clock::now() {
            at = clock::EXPIRED;
        }
        let mut wakers = Wakers::new();
        if let Some(at) = self.desc.set_deadline(direction, at, &mut wakers) {
            // Armed first: a start sees the timer.
            runtime().arm_poll(self.desc, at);
            runtime().ensure_running();
        }
        wakers.wake_all();
    }

    /// Sees that timers run, for an operation that waits without being registered. Called when it is listed: a shutdown that keeps this
    /// call from starting the runtime interrupts the operation when it ends.
    pub(crate) fn ensure_timers(&self, direction: Direction, timeout: Option<Duration>, cx: &mut Context<'_>) {
        if timeout.is_some() || self.desc.deadline(direction) > clock::EXPIRED {
            runtime().ensure_running();
            runtime().stand_in(cx);
        }
    }

    /// Ends all operations, now and later, with [`WaitError::Closed`].
    pub(crate) fn evict(&self) {
        self.wake(|wakers| self.desc.evict(self.generation, wakers));
    }

    /// The descriptor is about to be closed or given away. `exposed`: a duplicate may be alive somewhere, so closing does not
    /// end the registration.
    pub(crate) fn retire(&self, fd: BorrowedFd<'_>, exposed: bool) {
        if !self.desc.is_current(self.generation) {
            return;
        }
        let is_registered = self.desc.registration.load(Ordering::Acquire) as u32 as u64 != registration::NONE;
        // A forked child shares the instance: it would take the parent's out.
        if (exposed || fork::has_forked()) && is_registered && !fork::is_child() {
            runtime().driver.delete(fd);
        }
        self.retire_bare();
    }

    /// The same for a handle that was never registered: what waits through it hears of expiry and close only.
    pub(crate) fn retire_bare(&self) {
        self.desc.retire(self.generation);
        runtime().descriptors.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for PollHandle {
    fn drop(&mut self) {
        debug_assert!(!self.desc.is_current(self.generation), "a poll handle outlived its use without `retire`");
        self.wake(|wakers| self.desc.sides().iter().for_each(|side| side.take_leftovers(wakers)));
        runtime().cache.free(self.desc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;
    use std::os::fd::AsFd;
    use std::task::Waker;

    /// The time of a poll that had to wait and then, because an edge came in between, had not, is not the next one's.
    #[test]
    fn a_poll_that_found_an_edge_leaves_no_timeout_behind() {
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let handle = PollHandle::open().unwrap();
        let epoch = handle.register(socket.as_fd()).unwrap();
        let side = handle.desc.side(Direction::Read);
        let mut cx = Context::from_waker(Waker::noop());
        let mut wait = || handle.poll_wait_keyless(Direction::Read, epoch, &mut cx, Some(Duration::from_secs(60)));
        assert!(side.clear_ready(handle.begin(Direction::Read).unwrap()));
        assert!(wait().is_pending());
        assert_ne!(side.poll_until().load(Ordering::Relaxed), clock::NONE);
        assert!(side.set_ready(handle.generation, 0, &mut Wakers::new()));
        let polled = wait();
        assert!(matches!(polled, Poll::Ready(Ok(()))), "{polled:?}");
        handle.finish_keyless(Direction::Read);
        assert_eq!(side.poll_until().load(Ordering::Relaxed), clock::NONE);
        handle.evict();
        handle.retire(socket.as_fd(), false);
        drop(socket::close(socket.into()));
    }

    /// Nor is the runtime that a poll waited in: the next may wait in another.
    #[test]
    fn a_poll_that_has_ended_leaves_no_runtime_behind() {
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let handle = PollHandle::open().unwrap();
        let epoch = handle.register(socket.as_fd()).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        handle.clear_ready(Direction::Read, handle.begin(Direction::Read).unwrap());
        assert!(handle.poll_wait_keyless(Direction::Read, epoch, &mut cx, None).is_pending());
        let began = || handle.desc.side(Direction::Read).poll_epoch().load(Ordering::Relaxed);
        assert_eq!(began(), epoch.wrapping_add(1));
        handle.finish_keyless(Direction::Write);
        assert_eq!(began(), epoch.wrapping_add(1), "the other direction's");
        handle.finish_keyless(Direction::Read);
        assert_eq!(began(), 0);
        handle.evict();
        handle.retire(socket.as_fd(), false);
        drop(socket::close(socket.into()));
    }
}
