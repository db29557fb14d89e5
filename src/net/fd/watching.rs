//! Waits of an operation that makes no call: for a hang-up, an error, expiry or close.

use std::task::{Context, Poll, ready};

use super::failure::Failure;
use super::fd::Fd;
use super::operation::{LockScope, Operation, WaitState};
use crate::rt::poll::poller::{Direction, WaitError, WaitKey};

impl Fd {
    /// Waits until the peer has hung up: its sending side, or (`Write`) both.
    pub(crate) fn poll_hang_up(
        &self,
        direction: Direction,
        operation: &mut Operation,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        self.poll_registered(direction, operation, |epoch, wait| {
            let polled = self.poll.poll_hang_up(direction, epoch, cx, wait);
            if polled.is_ready() {
                ready!(self.poll.poll_turn(direction, cx));
            }
            polled
        })
    }

    /// Waits for an edge with ERROR, or any edge after `seen`.
    pub(crate) fn poll_error_edge(
        &self,
        direction: Direction,
        operation: &mut Operation,
        cx: &mut Context<'_>,
        seen: u64,
    ) -> Poll<Result<(), Failure>> {
        self.poll_registered(direction, operation, |epoch, wait| {
            self.poll.poll_error_edge(direction, epoch, cx, wait, seen)
        })
    }

    /// Registers the descriptor, with a reference held meanwhile, and calls `poll`, which waits.
    fn poll_registered(
        &self,
        direction: Direction,
        operation: &mut Operation,
        poll: impl FnOnce(u32, &mut WaitKey) -> Poll<Result<(), WaitError>>,
    ) -> Poll<Result<(), Failure>> {
        self.mutex.incref()?;
        let registered = self.register();
        self.give_back(direction, LockScope::None, &mut None, false);
        let epoch = match registered {
            Ok(epoch) => epoch,
            Err(error) => return Poll::Ready(Err(self.fail_to_register(direction, Some(operation), error))),
        };
        let polled = poll(epoch, &mut operation.wait_state().wait);
        if polled.is_ready() {
            self.end_wait(direction, &mut Some(operation));
        }
        polled.map_err(Failure::from)
    }

    /// Waits only for expiry and close, in addition to a wait for something other than an edge.
    /// [`cancel`](Fd::cancel) ends it.
    #[cold]
    pub(crate) fn poll_interrupt(
        &self,
        direction: Direction,
        operation: &mut Operation,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let WaitState { wait, interrupt, .. } = operation.wait_state();
        let timeout = self.timeout(direction);
        self.poll.poll_interrupt(direction, cx, interrupt, wait, timeout).map_err(Failure::from)
    }

    /// Waits only for expiry and close, for an operation that waits for something that no edge
    /// reports and has timers of its own. Nothing is held.
    pub(crate) fn poll_end(
        &self,
        direction: Direction,
        operation: &mut Operation,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let WaitState { wait, interrupt, .. } = operation.wait_state();
        self.poll.pass_edge_on(direction, wait);
        let ended = ready!(self.poll.poll_interrupt(direction, cx, interrupt, wait, None));
        Poll::Ready(ended.map_err(|error| self.fail(direction, Some(operation), error.into())))
    }

    /// Prepares the operation to make its call again after its timer has fired.
    pub(crate) fn resume(&self, direction: Direction, operation: &mut Operation) {
        self.poll.end_wait(direction, &mut operation.wait_state().interrupt, true);
    }
}
