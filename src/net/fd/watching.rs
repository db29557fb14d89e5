//! Waits of an operation for conditions other than readiness: a hang-up or another state that an
//! edge reports, the lock of its direction, expiry or close.

use std::task::{Context, Poll, ready};

use super::fd::Fd;
use super::operation::{Caller, LockScope, Operation};
use crate::rt::poll::poller::{Direction, Failure};
use crate::rt::poll::side::Side;
use crate::rt::waiters::Waiter;

impl Fd {
    /// Waits for a hang-up of the direction: until no more data will arrive (`Read`), or until no
    /// more data can be sent (`Write`). See HANG_UP in [`backend`](crate::rt::poll::backend).
    pub(crate) fn poll_hang_up(
        &self,
        direction: Direction,
        operation: &mut Operation,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let polled = self.poll_until(direction, operation, cx, |side| side.is_hung_up());
        if polled.is_ready() {
            ready!(self.poll_turn(direction, cx));
        }
        polled
    }

    /// Waits until `is_over`, which reads the word of the direction, returns true. Only an edge may
    /// change the result to true, and edges that report neither a hang-up nor an error do not wake
    /// the operation. Registers the descriptor first, under a reference.
    pub(crate) fn poll_until(
        &self,
        direction: Direction,
        operation: &mut Operation,
        cx: &mut Context<'_>,
        is_over: impl Fn(Side<'_>) -> bool,
    ) -> Poll<Result<(), Failure>> {
        self.mutex.incref()?;
        let registered = self.register();
        self.give_back(direction, LockScope::None, &mut Waiter::Poll, false);
        let epoch = match registered {
            Ok(epoch) => epoch,
            Err(failure) => {
                return Poll::Ready(Err(self.fail_to_register(direction, Waiter::Future(operation), failure)));
            }
        };
        let polled = self.poll.side(direction).poll_until(epoch, cx, operation.wait_key(), is_over);
        if polled.is_ready() {
            self.end_wait(direction, &mut Waiter::Future(operation));
        }
        polled
    }

    /// Waits for expiry and close only, for an operation that has its own timers and waits for a
    /// condition that no edge reports. The caller must hold no reference.
    pub(crate) fn poll_end(
        &self,
        direction: Direction,
        operation: &mut Operation,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let side = self.poll.side(direction);
        side.pass_edge_on(operation.wait_key());
        let ended = ready!(side.poll_interrupt(cx, Waiter::Future(operation.wait_key()), None));
        Poll::Ready(ended.map_err(|failure| self.fail(direction, Waiter::Future(operation), failure)))
    }

    /// Prepares the operation to make its call again after its timer has fired.
    pub(crate) fn resume(&self, direction: Direction, operation: &mut Operation) {
        self.poll.side(direction).end_interrupt(operation.wait_key());
    }

    /// Ends the operation because the descriptor cannot be registered. The caller must hold no
    /// reference.
    #[cold]
    pub(super) fn fail_to_register(&self, direction: Direction, caller: Caller<'_>, failure: Failure) -> Failure {
        if matches!(failure, Failure::Io(_)) {
            self.poll.registration_failed();
        }
        self.fail(direction, caller, failure)
    }

    /// Waits for the direction's lock, which another operation holds, and takes it with a
    /// reference. The wait also ends on expiry and close.
    #[cold]
    pub(super) fn poll_lock(
        &self,
        direction: Direction,
        caller: &mut Caller<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let lock = caller.reborrow().map(|operation| &mut operation.wait_state().lock);
        let locked = self.mutex.poll_lock(direction, cx, lock);
        let side = self.poll.side(direction);
        if let Waiter::Future(operation) = caller {
            let wait = operation.wait_key();
            if locked.is_ready() {
                side.end_interrupt(wait);
            } else {
                // The owner may be a `write_all` that waits for the very edge that woke this
                // operation (model `an_edge_reaches_the_owner`).
                side.pass_edge_on(wait);
            }
        }
        if let Poll::Ready(locked) = locked {
            return Poll::Ready(locked.map_err(Failure::from));
        }
        self.poll_interrupt(direction, caller.reborrow(), cx)
    }

    /// Waits for expiry and close only, in addition to a wait for a condition that no edge reports.
    /// [`cancel`](Fd::cancel) ends the wait.
    #[cold]
    pub(crate) fn poll_interrupt(
        &self,
        direction: Direction,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let timeout = self.timeouts.nanos(direction);
        let polled = self.poll.side(direction).poll_interrupt(cx, caller.map(Operation::wait_key), timeout);
        if polled.is_pending() {
            // The runtime may have been shut down. A registration would start it again, but this
            // wait makes none.
            self.poll.ensure_timers(direction, timeout, cx);
        }
        polled
    }
}
