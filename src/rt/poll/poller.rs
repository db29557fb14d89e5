//! The methods of [`PollHandle`] and [`Side`]: opening, registration, waits, and retirement.
//!
//! This is the interface between `net` and the runtime, like Go's `internal/poll.pollDesc`. With
//! the [`Side`] of its direction, an operation that makes calls runs this loop:
//!
//! ```text
//! loop { ticket = side.begin()?       fails if the socket is closed or the deadline has passed
//!        if ticket is ready, or this poll has made no call
//!                           { call; on EAGAIN clear_ready(ticket); on success end (after a short
//!                             count, clear_ready(ticket) first or at the next wait of the turn) }
//!        register()?                  once per epoch, before the first wait
//!        side.poll_wait()? }
//! side.end_operation()                if the future may be listed, and when it is dropped
//! ```
//!
//! [`side`](super::side) has the state of a direction, [`timeouts`](super::timeouts) the timeouts.
//!
//! # Registration
//! A registration goes from *none* to *adding*, and then to *added* or *armed*. It returns to
//! *none* if it fails or comes too late, or if the handle is retired. It is stored with the
//! runtime's epoch and the poller's shard. A registration of another epoch counts as *none*. If two
//! operations wait at the same time before the descriptor is registered, one of them adds it. The
//! other waits immediately, and the first edge after the registration wakes it. If the registration
//! fails, all waiters are woken and retry, so that each of them gets its own error.
//!
//! # Cancellation
//! A future keeps a [`WaitKey`] while it waits, and `end_operation` uses the key to undo the wait.
//! A `poll_*` operation (below: a poll) has no key. Its state is in the [`PollDesc`], and its waker
//! may be woken spuriously after the operation has ended.

use std::io;
use std::mem;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll, Waker};

use crate::rt::poll::backend::Token;
use crate::rt::poll::driver::Added;
pub(crate) use crate::rt::poll::poll_desc::Direction;
use crate::rt::poll::poll_desc::{PollDesc, registration};
pub(crate) use crate::rt::poll::side::{Hold, PollHandle, Stop, Ticket};
use crate::rt::poll::side::{Side, Wait};
use crate::rt::poll::usage;
use crate::rt::runtime::{Runtime, runtime};
use crate::rt::sched::task_data::TaskData;
use crate::rt::sched::waits::Waits;
use crate::rt::time::{clock, ticks};
use crate::rt::waiters::{Interest, Key, Waiter, Wakers, is_of_interrupt, wake_taken};
use crate::rt::{context, fork, unsent};
use crate::sync::Ordering;

/// The reason why an operation on a descriptor failed. `net` converts it to an `io::Error` that
/// names the operation and the addresses.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The error of the system call, or of the registration.
    Io(io::Error),
    /// The socket was closed.
    Closed,
    /// A deadline or timeout has passed.
    TimedOut,
    /// The runtime was shut down while the operation waited, or is being shut down.
    Stopped,
    /// Too many operations wait for the socket, or more operations use it than its lock can count.
    TooMany,
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Failure {
        match stop {
            Stop::Closed => Failure::Closed,
            Stop::Expired => Failure::TimedOut,
        }
    }
}

/// The state of a future whose operation waits for an edge, or only for expiry and close.
#[derive(Debug)]
pub(crate) struct WaitKey {
    /// The key of the slot or the list entry, if the operation has waited for an edge.
    edge: Option<Key>,
    /// The key of the list entry, if the operation has waited only for expiry and close.
    interrupt: Option<Key>,
    /// The epoch in which the wait began, plus one, or 0.
    epoch: u32,
    /// The end of the operation's own timeout, or [`clock::NONE`].
    pub(super) until: u64,
}

impl WaitKey {
    pub(crate) const fn new() -> WaitKey {
        WaitKey { edge: None, interrupt: None, epoch: 0, until: clock::NONE }
    }

    /// Returns whether the future is waiting for an edge or was woken from such a wait. Returns
    /// false for a future of [`poll_until`](Side::poll_until).
    #[inline]
    pub(crate) fn has_waited(&self) -> bool {
        self.edge.is_some_and(|key| !is_of_interrupt(key))
    }
}

impl Default for WaitKey {
    fn default() -> WaitKey {
        WaitKey::new()
    }
}

/// Returns the number of [closings](super::closings) so far. A caller reads it before a call that
/// may fail for lack of descriptors or memory, and passes it to [`poll_descriptor_closed`].
#[inline]
pub(crate) fn descriptors_closed() -> u64 {
    runtime().closings.count()
}

/// Waits until the number of closings differs from `seen`.
pub(crate) fn poll_descriptor_closed(cx: &mut Context<'_>, seen: u64) -> Poll<()> {
    runtime().closings.poll(cx, seen)
}

/// The number of bits of [`poll_of`] that identify the task.
const TASK_BITS: u32 = 16;
/// The bit that is set in each result of [`poll_of`].
const WAITS: u32 = 1 << 31;

/// Returns the value of [`epoch_of_poll`](Side::epoch_of_poll) for a poll of the current task that
/// waits in `epoch`. It contains 15 bits of the epoch, and a hash of 16 bits. The hash is that of
/// the task's number or, if this thread runs no task, of the waker's data pointer.
#[inline]
fn poll_of(epoch: u32, waker: &Waker) -> u32 {
    let number = context::with_task(|task| task.map(TaskData::number));
    let task = number.unwrap_or_else(|| waker.data().addr() as u64 >> 4);
    let hash = (task ^ task >> 16 ^ task >> 32 ^ task >> 48) as u16;
    WAITS | (epoch << TASK_BITS & !WAITS) | u32::from(hash)
}

/// Returns whether a slot belongs to the descriptor `generation`.
pub(super) fn is_open(index: u32, generation: u32) -> bool {
    runtime().cache.get(index).is_some_and(|desc| desc.is_current(generation))
}

/// Returns whether the runtime is running.
pub(crate) fn is_running() -> bool {
    runtime().is_running()
}

/// Returns whether the runtime was or is being shut down and has not been started again.
pub(crate) fn was_shut_down() -> bool {
    // A simulation runs without the runtime.
    !is_running() && runtime().epoch() > 0 && !unsent::is_simulating()
}

/// Counts a closing, and wakes the operations that wait for one.
pub(crate) fn descriptor_closed() {
    runtime().closings.note();
}

/// Opens the instance of shard 0 if the runtime is running. Called before a descriptor is opened,
/// because afterwards the process may have too few descriptors left for the poller. Opening a
/// socket does not start the runtime; under another executor, the first wait does.
///
/// # Errors
/// Returns the errors of [`Driver::ensure`](super::driver::Driver::ensure) and [`fork::check`].
pub(crate) fn prepare() -> io::Result<()> {
    // A forked child must not wait for a lock that a thread of its parent may have held.
    fork::check()?;
    if is_running() { runtime().driver.ensure() } else { Ok(()) }
}

impl PollHandle {
    /// Creates a handle for a new descriptor, which is not registered yet. The end of an in-memory
    /// pipe has a handle without a descriptor.
    ///
    /// # Errors
    /// Returns ENFILE if the process has 2²⁴ handles, and the error of [`fork::check`].
    pub(crate) fn open() -> io::Result<PollHandle> {
        fork::check()?;
        let desc = alloc().ok_or_else(|| io::Error::from_raw_os_error(libc::ENFILE))?;
        runtime().descriptors.fetch_add(1, Ordering::Relaxed);
        Ok(PollHandle { desc, generation: desc.open(), uncounted: 0 })
    }

    /// Returns the index and the generation of the slot.
    pub(crate) fn slot(&self) -> (u32, u32) {
        (self.desc.index, self.generation)
    }

    /// Registers the descriptor, unless it is registered or being registered. Starts the runtime if
    /// necessary. Returns the epoch of the registration. The caller must keep `fd` open during the
    /// call. After [`Failure::Io`], the caller must call
    /// [`registration_failed`](PollHandle::registration_failed) when it holds no lock. During a
    /// shutdown, and if the epoch ends in the meantime, fails with [`Failure::Stopped`].
    ///
    /// If another handle has registered the descriptor, the call fails with EEXIST if `is_first` is
    /// true. Otherwise it takes over a registration in the same shard.
    #[cold]
    pub(crate) fn register(&self, fd: BorrowedFd<'_>, is_first: bool) -> Result<u32, Failure> {
        fork::check().map_err(Failure::Io)?;
        let runtime: &'static Runtime = runtime();
        let epoch = runtime.ensure_running();
        if !context::is_inside() && epoch == runtime.epoch() {
            runtime.ensure_sysmon().map_err(Failure::Io)?;
        }
        let state = |state: u64| u64::from(epoch) << 32 | state;
        let adding = state(registration::ADDING);
        let mut seen = self.desc.registration.load(Ordering::Acquire);
        loop {
            // ORDERING: Acquire: a load that sees the word of a later epoch sees the epoch too.
            if epoch != runtime.epoch() {
                return Err(Failure::Stopped);
            }
            if seen.wrapping_sub(adding) < registration::ARMED {
                return Ok(epoch);
            }
            match self.desc.registration.compare_exchange(seen, adding, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        let token = Token { index: self.desc.index, generation: self.generation };
        let added = runtime.driver.add(runtime.own_shard(), fd, token, is_first, || runtime.epoch() == epoch);
        let after = match added {
            Ok(Added { shard, arms, stays: true }) => {
                state(if arms { registration::ARMED } else { registration::ADDED }) | shard as u64
            }
            Ok(Added { stays: false, .. }) | Err(_) => registration::NONE,
        };
        // If this fails, an operation of a later epoch has begun to add the descriptor. ORDERING:
        // AcqRel. After an error, `registration_failed` changes the words of the directions, so a
        // waiter sees that no registration is in progress, or is woken there.
        let _ = self.desc.registration.compare_exchange(adding, after, Ordering::AcqRel, Ordering::Relaxed);
        if !added.map_err(Failure::Io)?.stays {
            return Err(Failure::Stopped);
        }
        if !runtime.polls_here() {
            runtime.ensure_poller();
        }
        Ok(epoch)
    }

    /// Wakes all operations that rely on the failed registration, so that each of them retries.
    #[cold]
    pub(crate) fn registration_failed(&self) {
        wake_taken(|wakers| self.desc.sides().iter().for_each(|side| side.interrupt(wakers)));
    }

    /// Returns the current epoch if the descriptor is registered in it and need not be armed.
    #[inline]
    pub(crate) fn registered(&self) -> Option<u32> {
        let epoch = runtime().epoch();
        let added = u64::from(epoch) << 32 | registration::ADDED;
        let registered = self.desc.registration.load(Ordering::Acquire);
        (registered.wrapping_sub(added) < registration::SHARDS).then_some(epoch)
    }

    /// Starts the wait of a new future after a call that began at `ticket` and had a short count;
    /// see [`wait_after`](Side::wait_after). Returns the state of the wait, and whether the future
    /// waits. Returns `None` if the future was not announced, or if the descriptor is not
    /// [registered](PollHandle::registered). Unless the future waits, it must make its call.
    #[inline(always)]
    pub(crate) fn wait_anew_after(
        &self,
        direction: Direction,
        ticket: Ticket,
        cx: &Context<'_>,
    ) -> Option<(WaitKey, bool)> {
        let side = self.side(direction);
        let epoch = self.registered()?;
        let mut edge = None;
        // Within an epoch, a registration ends only after the waiters were evicted, and then
        // `wait_after` fails.
        let still = || runtime().epoch() == epoch;
        let is_listed = side.wait_after(ticket, &mut edge, cx.waker(), still) == Wait::Listed;
        if is_listed {
            context::note_edge(self.desc.note(direction), cx);
        }
        edge.map(|key| (WaitKey { edge: Some(key), epoch: epoch.wrapping_add(1), ..WaitKey::new() }, is_listed))
    }

    /// Charges the task's budget for a stream operation that moved more than `uncounted` bytes, and
    /// [counts](PollHandle::count) it.
    #[inline(never)]
    pub(crate) fn charge(&self, direction: Direction, bytes: usize) {
        context::charge(bytes);
        self.count(direction, bytes);
    }

    /// Counts an operation that moved `bytes` bytes, for [`inspect`](crate::rt::inspect()), unless
    /// the kernel counts the bytes of the socket.
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

    /// Counts a failed operation.
    #[cold]
    pub(crate) fn count_failure(&self, error: &io::Error) {
        self.desc.count_failure(error.raw_os_error());
    }

    /// Returns whether an edge has reported a hang-up of the read direction.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.side(Direction::Read).is_hung_up()
    }

    /// Ends all operations with [`Failure::Closed`]. The caller must wake `wakers`.
    pub(crate) fn evict(&self, wakers: &mut Wakers) {
        self.desc.evict(self.generation, wakers);
    }

    /// Makes later events stale, and ends the registration if a close of `fd` might not end it.
    /// Called before the descriptor is closed or leaves this crate. `exposed` says whether a
    /// duplicate may exist or the descriptor stays open.
    pub(crate) fn retire(&self, fd: BorrowedFd<'_>, exposed: bool) {
        if !self.desc.is_current(self.generation) {
            return;
        }
        let registered = self.desc.registration.load(Ordering::Acquire);
        let (state, shard) = (registration::state(registered), registration::shard(registered));
        let outlives = exposed || state == registration::ARMED || fork::has_forked();
        // A registration of an earlier epoch is in a closed instance. The current one may have the
        // registration of another handle.
        let is_current = || (registered >> 32) as u32 == runtime().epoch();
        // A forked child shares the instances, so it would remove its parent's registration.
        if outlives && state != registration::NONE && !fork::is_child() {
            runtime().driver.delete(shard, fd, is_current);
        }
        if state >= registration::ADDED && is_current() {
            runtime().driver.retired(shard);
        }
        self.retire_bare();
    }

    /// Makes later events of the descriptor stale, without ending its registration.
    pub(crate) fn retire_bare(&self) {
        self.desc.retire(self.generation);
        runtime().descriptors.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Side<'static> {
    #[inline]
    fn is_registered(self, epoch: u32) -> bool {
        let registered = self.desc.registration.load(Ordering::Acquire);
        // One comparison covers the states ADDING to ARMED of this epoch, with any shard.
        let first = u64::from(epoch) << 32 | registration::ADDING;
        registered.wrapping_sub(first) < registration::ARMED && runtime().epoch() == epoch
    }

    /// Records that the operation waits in `epoch`. Returns false if its wait began in another
    /// epoch. `waker` is that of the caller.
    #[inline]
    fn record_epoch(self, epoch: u32, waiter: &mut Waiter<'_, WaitKey>, waker: &Waker) -> bool {
        match waiter {
            Waiter::Future(wait) => {
                let now = epoch.wrapping_add(1);
                let began = mem::replace(&mut wait.epoch, now);
                began == 0 || began == now
            }
            Waiter::Poll => {
                let now = poll_of(epoch, waker);
                let began = self.epoch_of_poll().swap(now, Ordering::Relaxed);
                if began == 0 || (began ^ now) >> TASK_BITS == 0 {
                    return true;
                }
                // If another task polls now, the task of the earlier poll no longer waits.
                self.until_of_poll().store(clock::NONE, Ordering::Relaxed);
                (began ^ now) as u16 != 0
            }
        }
    }

    /// Waits for an edge. `epoch` is the epoch that [`register`](PollHandle::register) or
    /// [`registered`](PollHandle::registered) has just returned. If the result is `Ready(Ok)`, the
    /// operation must start again.
    #[inline(always)]
    pub(crate) fn poll_wait(
        self,
        epoch: u32,
        cx: &mut Context<'_>,
        mut waiter: Waiter<'_, WaitKey>,
        timeout: Option<NonZeroU64>,
    ) -> Poll<Result<(), Failure>> {
        if !self.record_epoch(epoch, &mut waiter, cx.waker()) {
            return Poll::Ready(Err(Failure::Stopped));
        }
        if timeout.is_some_and(|timeout| self.has_timed_out(&waiter, timeout)) {
            return Poll::Ready(Err(Failure::TimedOut));
        }
        let place = waiter.reborrow().map(|wait| &mut wait.edge);
        match self.wait(place, Interest::Event, cx.waker(), move || self.is_registered(epoch)) {
            Wait::Listed => {
                context::note_edge(self.desc.note(self.direction), cx);
                match timeout {
                    Some(timeout) => self.arm_timeout(waiter, timeout),
                    None => Poll::Pending,
                }
            }
            Wait::Retry => Poll::Ready(Ok(())),
            Wait::Full => Poll::Ready(Err(Failure::TooMany)),
        }
    }

    /// Waits until `is_over` returns true. Each poll calls `is_over`, unless the operation fails
    /// first. `is_over` must only read the word of the direction. An edge that reports a hang-up or
    /// an error wakes the future. The descriptor must be registered in `epoch`.
    pub(crate) fn poll_until(
        self,
        epoch: u32,
        cx: &mut Context<'_>,
        wait: &mut WaitKey,
        is_over: impl Fn(Side<'_>) -> bool,
    ) -> Poll<Result<(), Failure>> {
        loop {
            if wait.epoch != 0 && wait.epoch != epoch.wrapping_add(1) {
                return Poll::Ready(Err(Failure::Stopped));
            }
            self.begin()?;
            if is_over(self) {
                return Poll::Ready(Ok(()));
            }
            wait.epoch = epoch.wrapping_add(1);
            // ORDERING: `still` is called after LISTED is set in the word that an edge changes. So
            // either `is_over` sees an edge that reports a hang-up or an error, or the edge takes
            // the waiter out of the list.
            let still = || self.is_registered(epoch) && !is_over(self);
            match self.wait(Waiter::Future(&mut wait.edge), Interest::Interrupt, cx.waker(), still) {
                Wait::Listed => {
                    context::note(Waits::HangUp(self.desc.tag()), cx);
                    self.arm_for_waiters();
                    return Poll::Pending;
                }
                // A close, which `begin` finds, also ends the registration.
                Wait::Retry if !self.is_registered(epoch) => {
                    return Poll::Ready(self.begin().map_err(Failure::from).and(Err(Failure::Stopped)));
                }
                Wait::Retry => {}
                Wait::Full => return Poll::Ready(Err(Failure::TooMany)),
            }
        }
    }

    /// Waits only for expiry and close, for an operation that waits for the lock of this direction
    /// or for something else without an edge. The operation's own timeout also applies. Returns
    /// `Ready` with the error if the operation must end. Any edge may wake a poll spuriously, and a
    /// hang-up or an error may wake a future.
    pub(crate) fn poll_interrupt(
        self,
        cx: &mut Context<'_>,
        mut waiter: Waiter<'_, WaitKey>,
        timeout: Option<NonZeroU64>,
    ) -> Poll<Result<(), Failure>> {
        loop {
            self.begin()?;
            if timeout.is_some_and(|timeout| self.has_timed_out(&waiter, timeout)) {
                return Poll::Ready(Err(Failure::TimedOut));
            }
            let place = waiter.reborrow().map(|wait| &mut wait.interrupt);
            match self.wait(place, Interest::Interrupt, cx.waker(), || true) {
                Wait::Listed => {
                    let tag = self.desc.tag();
                    let is_read = self.direction == Direction::Read;
                    context::note(if is_read { Waits::ReadLock(tag) } else { Waits::WriteLock(tag) }, cx);
                    return match timeout {
                        Some(timeout) => self.arm_timeout(waiter, timeout),
                        None => Poll::Pending,
                    };
                }
                Wait::Retry => {}
                Wait::Full => return Poll::Ready(Err(Failure::TooMany)),
            }
        }
    }

    /// Ends the operation of a future that completes or is dropped. `acted` says whether it has
    /// made its call since it was woken; if not, the wake-up is passed on.
    #[inline]
    pub(crate) fn end_operation(self, wait: &mut WaitKey, acted: bool) {
        self.end_interrupt(wait);
        self.leave(&mut wait.edge, acted);
        *wait = WaitKey::new();
    }

    /// Ends the operation of a poll, so that its timeout does not apply to the next one. Returns
    /// whether the operation has waited for an edge.
    #[inline]
    pub(crate) fn end_poll(self) -> bool {
        let has_waited = self.epoch_of_poll().load(Ordering::Relaxed) != 0;
        if has_waited {
            self.epoch_of_poll().store(0, Ordering::Relaxed);
        }
        // Checked separately, because a poll that waits for a lock has a timeout but no epoch.
        if self.until_of_poll().load(Ordering::Relaxed) != clock::NONE {
            self.until_of_poll().store(clock::NONE, Ordering::Relaxed);
        }
        has_waited
    }

    /// Ends a wait for expiry and close. The operation's timeout remains. No wake-up is passed on,
    /// because expiry and close wake all waiters.
    #[inline]
    pub(crate) fn end_interrupt(self, wait: &mut WaitKey) {
        self.leave(&mut wait.interrupt, true);
    }

    /// Ends the wait of an operation for an edge, because the operation now waits for the lock or
    /// for something else without an edge. If an edge has woken the operation, wakes the next
    /// waiter, which may be the owner of the lock. The operation's timeout remains.
    #[inline]
    pub(crate) fn pass_edge_on(self, wait: &mut WaitKey) {
        self.leave(&mut wait.edge, false);
    }

    #[inline]
    fn leave(self, place: &mut Option<Key>, acted: bool) {
        if place.is_some() {
            self.end_listed(place, acted);
        }
    }

    #[cold]
    fn end_listed(self, place: &mut Option<Key>, acted: bool) {
        wake_taken(|wakers| self.end_wait(place, acted, wakers));
    }

    /// Wakes the next waiter, if there is one, after a call that may have left data or room.
    #[inline]
    pub(crate) fn wake_next(self, ticket: Ticket) {
        if ticket.has_waiters() {
            wake_taken(|wakers| self.pass_on(wakers));
            self.arm_for_waiters();
        }
    }

    /// Wakes all waiting operations, because their wait may have ended without an edge.
    #[cold]
    pub(crate) fn wake_waiters(self) {
        wake_taken(|wakers| self.interrupt(wakers));
    }

    /// Arms the idle directions of the descriptor if the back end must be armed. An operation calls
    /// this when it is listed as a waiter, because the back end is unarmed after an event, even if
    /// another call has used the event up. An operation that may have used an event up but does not
    /// wait calls this on behalf of those that wait.
    #[cold]
    pub(crate) fn arm_for_waiters(self) {
        // In the state ADDING, the back end may already have the descriptor. Otherwise it arms all
        // levels when it adds the descriptor.
        let registered = self.desc.registration.load(Ordering::Acquire);
        let state = registration::state(registered);
        if state == registration::ADDING || state == registration::ARMED {
            let [read, write] = self.desc.sides_of(self.generation).map(Side::is_idle);
            let token = Token { index: self.desc.index, generation: self.generation };
            // A back end that must be armed has only one shard.
            runtime().driver.arm(registration::shard(registered), token, read, write);
        }
    }
}

impl Drop for PollHandle {
    fn drop(&mut self) {
        debug_assert!(!self.desc.is_current(self.generation), "a poll handle was dropped without `retire`");
        wake_taken(|wakers| self.desc.sides().iter().for_each(|side| side.take_leftovers(wakers)));
        free(self.desc);
    }
}

/// Allocates a slot. Returns `None` if all slots are in use.
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
    // The slot's timer entry remains for the next descriptor. In a simulation, its time is that of
    // the simulated clock, so the simulation keeps the slot.
    #[cfg(feature = "sim")]
    if crate::sim::keep_slot(desc.index) {
        return;
    }
    runtime().cache.free(desc);
}

#[cfg(test)]
#[path = "poller_tests.rs"]
mod tests;
