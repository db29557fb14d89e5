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
//! # Cancellation
//! A wait that begins here is ended like any other wait of its operation.

use std::task::{Context, Poll};

use super::fd::Fd;
use super::operation::{Caller, LockScope, Operation};
use crate::rt::context;
use crate::rt::poll::poller::{Direction, Failure};
use crate::rt::waiters::Waiter;

impl Fd {
    /// Waits in an idle direction if a short count replaces the call, see the [module documentation](self), and the
    /// lock is free. After `Ready(Ok(()))`, the caller tries again.
    #[inline(always)]
    pub(super) fn poll_idle(
        &self,
        direction: Direction,
        scope: LockScope,
        caller: &mut Caller<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        if context::take_short(&self.waits[direction as usize], cx.waker())
            && self.waits_freely(direction, scope, caller)
            && let Some(epoch) = self.poll.registered()
        {
            return self.poll_edge(direction, epoch, caller, cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Returns whether the turn's last call with a short count was in this direction.
    #[inline]
    pub(crate) fn was_short(&self, direction: Direction) -> bool {
        context::is_short(&self.waits[direction as usize])
    }

    /// Waits if `operation` is new, its direction is idle, and a short count replaces the call. Returns whether it
    /// waits. If not, the caller must make its call.
    #[inline]
    pub(crate) fn waits_at_once(&self, direction: Direction, operation: &mut Operation, cx: &mut Context<'_>) -> bool {
        // A new operation has not timed out. If there are too many waiters, the next wait fails again.
        operation.is_new()
            && self.poll.side(direction).begin().is_ok_and(|ticket| !ticket.is_ready())
            && self.poll_idle(direction, LockScope::PerCall, &mut Waiter::Future(operation), cx).is_pending()
    }
}
