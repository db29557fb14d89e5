//! Waits that a short count permits without a call.
//!
//! A poll that finds its direction idle makes its call once before it waits (see
//! [`operation`](super::operation)). A task that reads a request, answers it and waits for the next one would
//! make such a call per request. A short count earlier in the same turn replaces the call if
//! * the task has written since,
//! * the operation waits with the task's own waker, and
//! * the last [`WAITS_MIN`](super::operation::WAITS_MIN) operations that had to wait in this direction waited to the end: none of them was
//!   dropped, an edge woke each of them, and no call in the idle direction succeeded.
//!
//! # Evidence
//! A short read of which the next read of the turn may make use does not clear READY itself. The turn's context keeps
//! the [ticket](Ticket) of the call, and the next read clears READY in the step in which it announces its waiter
//! ([`wait_after`](crate::rt::poll::side::Side::wait_after)), so both cost one read-modify-write. The step fails if the
//! state of the direction has changed since the ticket was taken. If the next operation of the turn cannot wait at once, it
//! first clears READY. If the turn has no further read, or has a short count in another direction first, READY stays
//! set, and the next read makes a call that fails with EAGAIN. In an idle direction it would make the same call.
//!
//! A short write clears READY itself, and so does a short read if other operations wait.
//!
//! # Cancellation
//! A wait that begins here is ended like any other wait of its operation.

use std::task::{Context, Poll};

use super::fd::Fd;
use super::operation::{Caller, LockScope, Operation, WAITS_MIN};
use crate::rt::context;
use crate::rt::poll::poller::{Direction, Failure, Ticket};
use crate::rt::waiters::Waiter;
use crate::sync::Ordering;

impl Fd {
    /// Records that a call that began at `ticket` had a short count.
    #[inline(always)]
    pub(super) fn note_short(&self, direction: Direction, scope: LockScope, ticket: Ticket) {
        let may_wait = self.waits[direction as usize].load(Ordering::Relaxed) >= WAITS_MIN;
        if direction == Direction::Read && may_wait && !ticket.has_waiters() {
            context::set_short(false, self.poll.side(direction).place(), ticket);
        } else {
            self.clear_short(direction, may_wait || scope == LockScope::WholeOperation, ticket);
        }
    }

    /// Clears READY, because a call that began at `ticket` had a short count. `may_wait` says whether the count may
    /// replace the next call: an operation that keeps its lock makes its next call in the same poll.
    #[inline(never)]
    fn clear_short(&self, direction: Direction, may_wait: bool, ticket: Ticket) {
        let side = self.poll.side(direction);
        side.clear_ready(ticket);
        if direction == Direction::Write && may_wait {
            context::set_short(true, side.place(), ticket);
        }
    }

    /// Returns whether a call of this turn that began at `ticket`, the present state of the direction, had a short count.
    #[inline]
    pub(super) fn is_used_up(&self, direction: Direction, ticket: Ticket) -> bool {
        direction == Direction::Read && context::is_short_since(self.poll.side(direction).place(), ticket)
    }

    /// Waits in an idle direction if a short count replaces the call, see the [module documentation](self), and the
    /// lock is free. `ticket` is the state of the direction, which is idle or [used up](Fd::is_used_up). After
    /// `Ready(Ok(()))`, the direction is idle or has changed, and the caller tries again.
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
        if context::take_short(side.place(), cx.waker()).is_some()
            && self.waits_freely(direction, scope, caller)
            && let Some(epoch) = self.poll.registered()
        {
            if ticket.is_ready() && caller.is_new() {
                return self.poll_edge_after(direction, ticket, epoch, caller, cx);
            }
            if !ticket.is_ready() {
                return self.poll_edge(direction, epoch, caller, cx);
            }
        }
        // No effect in an idle direction.
        side.clear_ready(ticket);
        Poll::Ready(Ok(()))
    }

    /// Waits for an edge after a call that began at `ticket` and had a short count.
    #[inline]
    fn poll_edge_after(
        &self,
        direction: Direction,
        ticket: Ticket,
        epoch: u32,
        caller: &mut Caller<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let waiter = caller.reborrow().map(Operation::wait_key);
        self.poll.side(direction).poll_wait(epoch, cx, waiter, self.timeout(direction), Some(ticket))
    }

    /// Returns whether the turn's last call with a short count was in this direction.
    #[inline]
    pub(crate) fn was_short(&self, direction: Direction) -> bool {
        context::is_short(self.poll.side(direction).place())
    }

    /// Waits if `operation` is new and a short read of this turn replaces its call. Returns whether it waits. If not, the
    /// caller must make its call.
    #[inline]
    pub(crate) fn waits_at_once(&self, operation: &mut Operation, cx: &mut Context<'_>) -> bool {
        let direction = Direction::Read;
        let side = self.poll.side(direction);
        if operation.is_new()
            && let Some(ticket) = context::take_short(side.place(), cx.waker())
            && !self.mutex.is_locked(direction)
            && let Some((wait, is_listed)) = self.poll.wait_anew_after(direction, ticket, cx)
        {
            let wait = operation.begin_wait(wait);
            // The timeout of a new operation begins now.
            return is_listed
                && self
                    .timeout(direction)
                    .is_none_or(|timeout| side.arm_timeout(Waiter::Future(wait), timeout).is_pending());
        }
        false
    }
}
