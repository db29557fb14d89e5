//! `Operation`: what a named future keeps between polls, and the loop that every call goes through.
//!
//! # The loop
//! ```text
//! lock and reference ─→ closed? expired? ─→ ready? ─yes→ call ─→ done: give back, pass on if more is left
//!        ↑                                    │ no          └→ EINTR: again; EAGAIN: clear ready
//!        │                                    ↓                      │
//!        └───── edge ←── wait ←── give back ←── register ←───────────┘
//! ```
//! A lock and a reference are held around one call only, so nothing is held while an operation waits, and wakers run when
//! nothing is held. `write_all` alone keeps the write lock ([`Hold::Across`]) and takes a reference for each call. A write that
//! an edge wakes and that finds the lock taken passes the edge on: its holder may wait for just that.
//!
//! # Evidence
//! EAGAIN clears *ready*. So does, on TCP, a count shorter than asked for: there is nothing more (or no more room), and an edge will
//! come when there is. Not after a hang-up, an error or urgent data, which cut a call short with no edge to follow.
//!
//! # Cancellation
//! Dropping an [`Operation`]'s future calls [`Fd::cancel`]: it leaves the queues, and a wake-up that it got and did not use
//! goes to the next.
//!
//! # Compared with Go (internal/poll/fd_unix.go)
//! Go holds lock and reference while it is parked, so `Close` has to evict it before the descriptor can go. Here close never waits
//! for somebody who is not polled.

use std::io;
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::fd::Fd;
use super::fd_mutex::LockError;
use crate::rt::context;
use crate::rt::poller::{Direction, WaitError, WaitKey};
use crate::rt::waiters::Key;

/// Why an operation failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The system call's error.
    Io(io::Error),
    Closed,
    TimedOut,
    /// The runtime was shut down while the operation waited.
    Stopped,
    /// More operations on one socket than the lock can count.
    TooMany,
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Failure {
        match error {
            LockError::Closed => Failure::Closed,
            LockError::TooMany => Failure::TooMany,
        }
    }
}

impl From<WaitError> for Failure {
    fn from(error: WaitError) -> Failure {
        match error {
            WaitError::Closed => Failure::Closed,
            WaitError::TimedOut => Failure::TimedOut,
            WaitError::Stopped => Failure::Stopped,
            WaitError::TooMany => Failure::TooMany,
            WaitError::Io(error) => Failure::Io(error),
        }
    }
}

/// What a named future keeps between polls.
#[derive(Debug, Default)]
pub(crate) struct Operation {
    /// Its place among those who wait for an edge.
    wait: WaitKey,
    /// Its places while another operation has the lock: in the lock's queue, and among those who hear of expiry only.
    lock: Option<Key>,
    interrupt: WaitKey,
    /// It holds the direction's lock between calls: [`Hold::Across`].
    holds: bool,
}

impl Operation {
    pub(crate) const fn new() -> Operation {
        Operation { wait: WaitKey::new(), lock: None, interrupt: WaitKey::new(), holds: false }
    }

    /// Whether it was or is in a list.
    pub(crate) fn has_waited(&self) -> bool {
        self.wait.has_waited()
    }
}

/// Who asks: a future with an [`Operation`], or a `poll_*` method, which has no object.
pub(crate) type Caller<'a> = Option<&'a mut Operation>;

/// How long the direction's lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// For each call.
    Call,
    /// From the first call of the [`Operation`] until one leaves nothing to do, fails, or the operation is dropped.
    Across,
    /// Not at all: calls that the kernel keeps apart by itself.
    Free,
}

/// What a call that succeeded says about the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It may succeed.
    Maybe,
    /// It may succeed, and the operation needs it: a lock held across calls is kept.
    More,
    /// It would find nothing.
    Nothing,
}

impl Fd {
    /// Makes `call` as soon as the direction is ready, again and again until it neither has to wait nor is interrupted.
    #[inline]
    pub(crate) fn poll_call<T>(
        &self,
        direction: Direction,
        hold: Hold,
        mut caller: Caller<'_>,
        cx: &mut Context<'_>,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<(T, Left)>,
    ) -> Poll<Result<T, Failure>> {
        ready!(context::poll_budget(cx));
        loop {
            let ticket = match self.poll.begin(direction) {
                Ok(ticket) => ticket,
                Err(error) => return Poll::Ready(Err(self.fail(direction, caller, error.into()))),
            };
            let registered = if ticket.is_ready() { None } else { self.waits_freely(direction, hold, &caller) };
            if let Some(epoch) = registered {
                let timeout = self.timeout(direction);
                if let Err(failure) = ready!(self.poll_edge(direction, Ok(epoch), &mut caller, cx, timeout)) {
                    return Poll::Ready(Err(self.fail(direction, caller, failure)));
                }
                continue;
            }
            if let Err(failure) = ready!(self.poll_hold(direction, hold, &mut caller, cx)) {
                return Poll::Ready(Err(self.fail(direction, caller, failure)));
            }
            if ticket.is_ready() {
                let result = loop {
                    match call(self.borrow()) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        result => break result,
                    }
                };
                match result {
                    Ok((value, left)) => {
                        let spent =
                            left == Left::Nothing && self.trusts_short_counts && !ticket.distrusts_short_counts();
                        if spent {
                            self.poll.clear_ready(direction, ticket);
                        }
                        self.give_back(direction, hold, &mut caller, left == Left::Maybe);
                        if !spent {
                            self.poll.pass_on(direction, ticket);
                        }
                        self.finish(direction, caller, true);
                        return Poll::Ready(Ok(value));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.poll.clear_ready(direction, ticket),
                    Err(error) => {
                        self.give_back(direction, hold, &mut caller, true);
                        self.poll.pass_on(direction, ticket);
                        self.finish(direction, caller, true);
                        return Poll::Ready(Err(Failure::Io(error)));
                    }
                }
            }
            let registered = self.poll.register(self.borrow());
            self.give_back(direction, hold, &mut caller, registered.is_err());
            let timeout = self.timeout(direction);
            if let Err(failure) = ready!(self.poll_edge(direction, registered, &mut caller, cx, timeout)) {
                return Poll::Ready(Err(self.fail(direction, caller, failure)));
            }
        }
    }

    /// The operation ends without a call: what it has waited for is undone, a lock that it kept goes back.
    #[cold]
    fn fail(&self, direction: Direction, caller: Caller<'_>, failure: Failure) -> Failure {
        match caller {
            Some(operation) => self.cancel(direction, operation),
            None => self.poll.finish_keyless(direction),
        }
        failure
    }

    /// Whether an operation in an idle direction can wait without the lock: nobody has it, and the descriptor is registered, in
    /// the epoch returned. One that is in the lock's queue goes there first, to leave it.
    #[inline]
    fn waits_freely(&self, direction: Direction, hold: Hold, caller: &Caller<'_>) -> Option<u32> {
        let (queues, holds) =
            caller.as_ref().map_or((false, false), |operation| (operation.lock.is_some(), operation.holds));
        if queues || (hold != Hold::Free && !holds && self.mutex.is_locked(direction)) {
            return None;
        }
        if hold == Hold::Across && !holds {
            // Its turn comes when it has the lock, before it waits.
            return None;
        }
        self.poll.registered()
    }

    /// Waits for an edge after `registered`. Nothing is held.
    #[inline]
    pub(crate) fn poll_edge(
        &self,
        direction: Direction,
        registered: Result<u32, WaitError>,
        caller: &mut Caller<'_>,
        cx: &mut Context<'_>,
        timeout: Option<Duration>,
    ) -> Poll<Result<(), Failure>> {
        let epoch = match registered {
            Ok(epoch) => epoch,
            Err(error) => {
                if matches!(error, WaitError::Io(_)) {
                    self.poll.registration_failed();
                }
                self.finish(direction, caller.as_deref_mut(), true);
                return Poll::Ready(Err(error.into()));
            }
        };
        let polled = match caller.as_deref_mut() {
            Some(operation) => self.poll.poll_wait(direction, epoch, cx, &mut operation.wait, timeout),
            None => self.poll.poll_wait_keyless(direction, epoch, cx, timeout),
        };
        if let Poll::Ready(Err(_)) = &polled {
            self.finish(direction, caller.as_deref_mut(), false);
        }
        polled.map_err(Failure::from)
    }

    /// Waits until the peer has hung up.
    pub(crate) fn poll_hang_up(&self, operation: &mut Operation, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.mutex.incref()?;
        let registered = self.poll.register(self.borrow());
        self.give_back(Direction::Read, Hold::Free, &mut None, true);
        let epoch = match registered {
            Ok(epoch) => epoch,
            Err(error) => {
                self.poll.registration_failed();
                return Poll::Ready(Err(error.into()));
            }
        };
        let polled = self.poll.poll_hang_up(epoch, cx, &mut operation.wait);
        if polled.is_ready() {
            self.poll.finish(Direction::Read, &mut operation.wait, true);
        }
        polled.map_err(Failure::from)
    }

    /// Takes what `hold` says, for one call.
    #[inline]
    fn poll_hold(
        &self,
        direction: Direction,
        hold: Hold,
        caller: &mut Caller<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        match hold {
            Hold::Call => self.poll_lock(direction, caller, cx),
            Hold::Across if !caller.as_ref().is_some_and(|operation| operation.holds) => {
                let polled = self.poll_lock(direction, caller, cx);
                if let (Poll::Ready(Ok(())), Some(operation)) = (&polled, caller.as_deref_mut()) {
                    operation.holds = true;
                }
                polled
            }
            Hold::Across | Hold::Free => Poll::Ready(self.mutex.incref().map_err(Failure::from)),
        }
    }

    /// Takes the direction's lock and a reference. Who waits for it hears of expiry and close as well.
    #[inline]
    fn poll_lock(
        &self,
        direction: Direction,
        caller: &mut Caller<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let polled = match caller.as_deref_mut() {
            Some(operation) => self.mutex.poll_lock(direction, true, cx, &mut operation.lock),
            None => self.mutex.poll_lock_poll(direction, cx),
        };
        match polled {
            Poll::Ready(locked) => {
                if let Some(operation) = caller.as_deref_mut()
                    && operation.interrupt.has_waited()
                {
                    self.poll.finish(direction, &mut operation.interrupt, true);
                }
                Poll::Ready(locked.map_err(Failure::from))
            }
            Poll::Pending => {
                // The owner may be a `write_all` that waits for the very edge that woke this one (model
                // `an_edge_reaches_the_owner`).
                if let Some(operation) = caller.as_deref_mut() {
                    self.poll.let_go(direction, &mut operation.wait);
                }
                self.poll_interrupt(direction, caller, cx)
            }
        }
    }

    #[cold]
    fn poll_interrupt(
        &self,
        direction: Direction,
        caller: &mut Caller<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let timeout = self.timeout(direction);
        let interrupted = match caller.as_deref_mut() {
            Some(Operation { interrupt, wait, .. }) => {
                self.poll.poll_interrupt(direction, cx, interrupt, wait, timeout)
            }
            None => self.poll.poll_interrupt_keyless(direction, cx, timeout),
        };
        interrupted.map(|ended| {
            if let Some(operation) = caller.as_deref_mut() {
                self.cancel(direction, operation);
            }
            ended.map_err(Failure::from)
        })
    }

    /// Gives back the reference, and the lock as `hold` says; `ends`: the operation does.
    #[inline]
    fn give_back(&self, direction: Direction, hold: Hold, caller: &mut Caller<'_>, ends: bool) {
        let last = match hold {
            Hold::Call => self.mutex.unlock_ref(direction),
            Hold::Across if ends => {
                if let Some(operation) = caller.as_deref_mut() {
                    operation.holds = false;
                }
                self.mutex.unlock_ref(direction)
            }
            Hold::Across | Hold::Free => self.mutex.decref(),
        };
        if last {
            self.destroy();
        }
    }

    #[inline]
    fn finish(&self, direction: Direction, caller: Caller<'_>, acted: bool) {
        match caller {
            Some(operation) => self.poll.finish(direction, &mut operation.wait, acted),
            None => self.poll.finish_keyless(direction),
        }
    }

    /// The operation's future is dropped, or ends without having acted.
    #[inline]
    pub(crate) fn cancel(&self, direction: Direction, operation: &mut Operation) {
        let listed = operation.lock.is_some() || operation.interrupt.has_waited() || operation.wait.has_waited();
        if listed || operation.holds {
            self.cancel_listed(direction, operation);
        }
    }

    #[cold]
    fn cancel_listed(&self, direction: Direction, operation: &mut Operation) {
        if let Some(key) = operation.lock.take() {
            self.mutex.cancel(direction, key);
        }
        self.poll.finish(direction, &mut operation.interrupt, false);
        self.poll.finish(direction, &mut operation.wait, false);
        if std::mem::take(&mut operation.holds) {
            self.mutex.unlock(direction);
        }
    }
}
