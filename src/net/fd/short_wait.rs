//! Waits that begin without a system call, because an earlier call of the turn had a short count.
//! [`net::fd`](super) defines the terms.
//!
//! A poll that finds its direction idle makes its call once before it waits (see
//! [`operation`](super::operation)). A task that reads a request, answers it and waits for the next
//! one would make such a call per request. A short count earlier in the same turn replaces the call
//! if
//! * the call with this count found its direction ready,
//! * the task has written since (a short write counts as well), or the read is that of an adapter
//!   ([`NetFd::poll_read_uninit`](crate::net::net_fd::NetFd::poll_read_uninit)), because hyper and
//!   code written for tokio only wait if a read returns `Pending`,
//! * no edge has been recorded since,
//! * the operation waits with the waker with which the runtime polls the task
//!   ([`own_waker`](crate::rt::sched::own_waker)), and
//! * the last [`WAITS_MIN`] operations that had to wait in this direction waited to the end: none
//!   of them was dropped, an edge woke each of them, and no call completed in the idle direction.
//!   An accepted TCP connection, except in a simulation, begins with the count of the last reads of
//!   its listener's connections ([`Fd::inherit_waits`]).
//!
//! The first and the last condition do not apply to an operation that writes all of a buffer or a
//! file. It keeps its lock and makes its next call in the same poll. In all cases, the operation
//! must be able to wait without taking the lock first ([`Fd::waits_freely`]), and the back end must
//! be one that need not be armed.
//!
//! If the descriptor is not registered, an operation that keeps its lock makes its call. Any other
//! operation registers the descriptor before it waits. If data has arrived since the short count,
//! an edge follows the registration.
//!
//! # Evidence
//! [`short_count`] keeps the direction of the turn's last short count, and the [ticket](Ticket) of
//! the call.
//!
//! A short read does not clear READY itself if its count may replace the next call and no other
//! operation waits. The next future of the turn that reads into one buffer clears READY in the step
//! in which it announces its waiter ([`wait_after`](crate::rt::poll::side::Side::wait_after)), so
//! both cost one read-modify-write. The step fails if the state of the direction has changed since
//! the ticket was taken. READY is also cleared if the next operation cannot wait in this way, if
//! another direction has a short count, at the end of the turn, and at the beginning of a nested
//! turn. Until READY is cleared, a task on another thread may make a call that fails with EAGAIN.
//!
//! # Cancellation
//! A wait that begins here is ended like any other wait of its operation.

use std::sync::atomic::AtomicU8;
use std::task::{Context, Poll};

use super::fd::Fd;
use super::operation::{Caller, LockScope, Operation};
use crate::rt::poll::poller::{Direction, Failure, Ticket};
use crate::rt::short_count;
use crate::rt::waiters::Waiter;
use crate::sync::Ordering;

/// The number of consecutive operations that must have waited to the end before a short count may
/// replace a call.
const WAITS_MIN: u8 = 4;

/// The number of listeners whose evidence is kept apart.
const LISTENERS: usize = 255;

/// The count of waits per listener, which is that of the listener's connection whose read was
/// counted last. Listeners with the same [`Fd::as_origin`] share an entry. The first entry stays 0.
static WAITS_OF_LISTENERS: [AtomicU8; LISTENERS + 1] = [const { AtomicU8::new(0) }; LISTENERS + 1];

/// The result of [`Fd::permit_short_wait`].
pub(crate) struct Permission {
    /// Whether a permission was given, which the drop withdraws.
    needs_no_write: bool,
}

impl Drop for Permission {
    #[inline]
    fn drop(&mut self) {
        if self.needs_no_write {
            short_count::need_write();
        }
    }
}

impl Fd {
    /// Records that a call that began at `ticket` had a short count.
    #[inline(always)]
    pub(super) fn note_short(&self, direction: Direction, scope: LockScope, ticket: Ticket) {
        if direction == Direction::Read
            && self.waits_often(direction)
            && ticket.is_only_ready()
            && short_count::is_possible()
        {
            short_count::set(false, self.poll.side(direction).place(), ticket);
        } else {
            self.clear_short(direction, scope, ticket);
        }
    }

    /// Clears READY, because a call that began at `ticket` had a short count. The count may replace
    /// the next call if the direction was ready and its operations usually wait to the end, or if
    /// the operation keeps its lock, because it then makes its next call in the same poll.
    #[inline(never)]
    fn clear_short(&self, direction: Direction, scope: LockScope, ticket: Ticket) {
        let side = self.poll.side(direction);
        side.clear_ready(ticket);
        if ticket.is_ready() && self.waits_often(direction) || scope == LockScope::WholeOperation {
            short_count::set(direction == Direction::Write, side.place(), ticket);
        } else {
            short_count::forget(side.place());
        }
    }

    /// Returns the index of this listener in [`WAITS_OF_LISTENERS`]. It is 0 in a simulation: the
    /// evidence may be that of an earlier run, and a simulation must be able to repeat a run
    /// exactly.
    fn as_origin(&self) -> u8 {
        #[cfg(feature = "sim")]
        if crate::sim::is_here() {
            return 0;
        }
        (self.poll.slot().0 as usize % LISTENERS + 1) as u8
    }

    /// Forgets the evidence of an earlier listener with the same [`as_origin`](Fd::as_origin).
    pub(crate) fn begin_listener(&self) {
        WAITS_OF_LISTENERS[usize::from(self.as_origin())].store(0, Ordering::Relaxed);
    }

    /// Gives this new connection the evidence of the connections of `listener`. From here on, the
    /// reads of this connection change that evidence. So a server that answers one request per
    /// connection saves a call for each.
    pub(crate) fn inherit_waits(&mut self, listener: &Fd) {
        self.origin = listener.as_origin();
        let waits = WAITS_OF_LISTENERS[usize::from(self.origin)].load(Ordering::Relaxed);
        self.waits[Direction::Read as usize].store(waits, Ordering::Relaxed);
    }

    /// Counts an operation that has waited, or whose call completed in an idle direction.
    /// `to_the_end` says whether an edge ended a wait before the call.
    #[inline]
    pub(super) fn count_wait(&self, direction: Direction, to_the_end: bool) {
        if !to_the_end || !self.waits_often(direction) {
            self.change_waits(direction, to_the_end);
        }
    }

    #[inline(never)]
    fn change_waits(&self, direction: Direction, to_the_end: bool) {
        // ORDERING: Relaxed: the count only decides whether one system call is saved, so it may
        // lose an update.
        let waits = &self.waits[direction as usize];
        let count = if to_the_end { WAITS_MIN.min(waits.load(Ordering::Relaxed) + 1) } else { 0 };
        waits.store(count, Ordering::Relaxed);
        let of_listener = &WAITS_OF_LISTENERS[usize::from(self.origin)];
        // Compared first, because all connections of the listener share the cache line.
        if direction == Direction::Read && self.origin != 0 && of_listener.load(Ordering::Relaxed) != count {
            of_listener.store(count, Ordering::Relaxed);
        }
    }

    /// Returns whether the last [`WAITS_MIN`] operations that had to wait in this direction waited
    /// to the end.
    #[inline]
    fn waits_often(&self, direction: Direction) -> bool {
        // ORDERING: Relaxed, as in `change_waits`.
        self.waits[direction as usize].load(Ordering::Relaxed) >= WAITS_MIN
    }

    /// Returns whether the last short count of this turn shows that the direction, whose present
    /// state is `ticket`, is no longer ready. Always false for writing, because a short write
    /// clears READY itself.
    #[inline]
    pub(super) fn is_used_up(&self, direction: Direction, ticket: Ticket) -> bool {
        direction == Direction::Read && short_count::uses_up(self.poll.side(direction).place(), ticket)
    }

    /// Waits in a direction that is idle or [used up](Fd::is_used_up), if a short count replaces
    /// the call (see the [module documentation](self)). `ticket` is the state of the direction.
    /// After `Ready(Ok(()))`, the direction is idle or has changed, and the caller tries again.
    #[inline(always)]
    pub(super) fn poll_idle(
        &self,
        direction: Direction,
        scope: LockScope,
        ticket: Ticket,
        caller: &mut Caller<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let side = self.poll.side(direction);
        // No effect in an idle direction.
        if side.clear_ready(ticket)
            && short_count::take(side.place(), ticket, cx.waker())
            && (self.waits_often(direction) || scope == LockScope::WholeOperation)
            && self.waits_freely(direction, scope, caller)
            && let Some(epoch) = self.poll.registered().or_else(|| match scope {
                LockScope::WholeOperation => None,
                LockScope::PerCall | LockScope::None => self.register_to_wait(),
            })
        {
            return self.poll_edge(direction, epoch, caller, cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Registers the descriptor for a wait without a call. Returns `None` if it was registered
    /// already, if the registration fails, or if the back end must be armed. The operation then
    /// makes its call. The caller must hold no lock.
    #[cold]
    fn register_to_wait(&self) -> Option<u32> {
        if self.poll.registered().is_some() {
            return None;
        }
        if let Err(Failure::Io(_)) = self.with(|_| Ok(self.register_now())).ok()? {
            // Other operations may wait for the edge that follows this registration.
            self.poll.registration_failed();
        }
        self.poll.registered()
    }

    /// Returns whether the turn's last call with a short count was in this direction.
    #[inline]
    pub(crate) fn was_short(&self, direction: Direction) -> bool {
        short_count::is_of(self.poll.side(direction).place())
    }

    /// Permits a short read of this turn to replace the next read although the turn has not written
    /// since, until the result is dropped.
    #[inline]
    pub(crate) fn permit_short_wait(&self) -> Permission {
        Permission { needs_no_write: self.was_short(Direction::Read) && short_count::need_no_write() }
    }

    /// Waits if `operation` is a new read and a short read of this turn replaces its call. Returns
    /// whether `operation` waits. If it does not wait, the caller must make the call.
    #[inline]
    pub(crate) fn waits_at_once(&self, operation: &mut Operation, cx: &mut Context<'_>) -> bool {
        let direction = Direction::Read;
        let side = self.poll.side(direction);
        if operation.is_new()
            && let Some(ticket) = short_count::ticket(side.place(), cx.waker())
            && ticket.is_only_ready()
            && self.waits_often(direction)
            && !self.mutex.is_locked(direction)
        {
            if let Some((wait, is_listed)) = self.poll.wait_anew_after(direction, ticket, cx) {
                short_count::forget(side.place());
                let wait = operation.begin_wait(wait);
                // The timeout of a new operation begins now.
                return is_listed
                    && self
                        .timeouts
                        .nanos(direction)
                        .is_none_or(|timeout| side.arm_timeout(Waiter::Future(wait), timeout).is_pending());
            }
            return self.register_to_wait().is_some() && self.waits_at_once(operation, cx);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use super::*;
    use crate::counting_waker::CountingWaker;

    /// An operation may wait for the edge that follows the registration by another operation.
    #[test]
    fn registration_that_fails_wakes_other_operations() {
        // No back end registers a regular file.
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let fd = Fd::new(file.into(), false).unwrap();
        let wakes = Arc::<CountingWaker>::default();
        let waker = Waker::from(wakes.clone());
        let side = fd.poll.side(Direction::Write);
        assert!(side.poll_interrupt(&mut Context::from_waker(&waker), Waiter::Poll, None).is_pending());
        assert!(fd.register_to_wait().is_none());
        assert_eq!(wakes.wakeups(), 1);
    }
}
