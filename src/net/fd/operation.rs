//! [`Operation`]: the state of a named future between polls, and the loop that every call goes
//! through. [`net::fd`](super) defines the terms.
//!
//! # The loop
//! ```text
//! closed? expired? ─→ ready, or no call in this poll? ─yes→ lock and reference ─→ call
//!        ↑              │ no                                                       │
//!        │              │                      done: release, pass on if more is left
//!        │              ↓                      EINTR: again     EAGAIN: clear ready
//!        └─── edge ←── wait ←── release ←── register, the first time ←─────┘
//! ```
//! A lock and a reference are held around one call only, so an operation that waits holds neither.
//! Wakers run when neither is held, except that of the [`Flusher`](super::flusher), a task of this
//! crate. An operation that writes all of a buffer or a file, such as `write_all` or `send_file`,
//! keeps the write lock between its calls, also while it waits and while wakers run
//! ([`LockScope::WholeOperation`]), but takes a reference for each call. An operation that is woken
//! by an edge and finds the lock taken passes the edge on, because the lock's owner may be waiting
//! for this very edge.
//!
//! # Evidence
//! EAGAIN clears readiness. On Linux, so does a short count on a TCP socket that is neither
//! multipath nor exposed: no more data (or room) is available, and an edge follows when it becomes
//! available. If the next read of the turn is likely to wait, a short read leaves the clearing to
//! the next read; see [`short_wait`](super::short_wait). A short count does not clear readiness
//! after a hang-up, an error or urgent data, which can shorten a call although no other edge
//! follows. While writes are gathered, a short count of a write does not clear readiness, because
//! the call also sends the gathered bytes.
//!
//! Evidence is ignored if an edge has arrived since the call began, or may have been skipped; see
//! [`side`](crate::rt::poll::side).
//!
//! # The meaning of `Pending`
//! A caller may draw a conclusion from `Pending`: a connection pool polls a read once to learn
//! whether the peer has closed the connection. So the result must reflect the state of the socket
//! at the time of the poll. An idle direction only means that no event was recorded since readiness
//! was cleared; the kernel may have an event that no thread has fetched yet. Therefore a poll that
//! finds the direction idle makes its call once before it waits. (A read in a turn whose budget is
//! used up calls poll(2) instead. A poll that yields returns `Pending` too, but wakes its task.)
//!
//! [`short_wait`](super::short_wait) describes the exception, which saves a call per request.
//!
//! # Cancellation
//! Dropping the future of an [`Operation`] calls [`Fd::cancel`]: the operation leaves the queues
//! and releases a lock that it keeps, and a wake-up that it received but did not use goes to the
//! next waiter.
//!
//! # Compared with Go (internal/poll/fd_unix.go)
//! Go holds lock and reference while an operation is parked, so `Close` must evict it before the
//! descriptor can be closed. Here a close never waits for a future that is not polled.

use std::io;
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll, ready};

use super::fd::Fd;
use super::fd_mutex::LockError;
use crate::rt::context;
use crate::rt::poll::poller::{Direction, Failure, Hold, Stop, Ticket, WaitKey};
use crate::rt::unsent;
use crate::rt::waiters::{Key, Waiter};
use crate::sys::socket;

/// The state that a named future keeps between polls. Empty until the future has to wait or keeps a
/// lock.
#[derive(Debug, Default)]
pub(crate) struct Operation(Option<WaitState>);

/// The state of an operation that has waited, or that keeps a lock.
#[derive(Debug)]
pub(super) struct WaitState {
    /// The wait for an edge, or only for expiry and close.
    pub(super) wait: WaitKey,
    /// The key in the lock's queue, while another operation has the lock.
    pub(super) lock: Option<Key>,
    /// Whether the lock is kept between calls; see [`LockScope::WholeOperation`].
    holds: bool,
}

impl Operation {
    pub(crate) const fn new() -> Operation {
        Operation(None)
    }

    /// Returns whether the operation waits for an edge, or was woken from such a wait.
    pub(crate) fn has_waited(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.wait.has_waited())
    }

    /// Returns whether the operation has neither waited nor kept a lock.
    #[inline]
    pub(crate) fn is_new(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn wait_key(&mut self) -> &mut WaitKey {
        &mut self.wait_state().wait
    }

    /// Stores the state of the first wait of a new operation.
    #[inline]
    pub(super) fn begin_wait(&mut self, wait: WaitKey) -> &mut WaitKey {
        &mut self.0.insert(WaitState { wait, lock: None, holds: false }).wait
    }

    fn holds(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.holds)
    }

    fn queues(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.lock.is_some())
    }

    pub(super) fn wait_state(&mut self) -> &mut WaitState {
        match &mut self.0 {
            Some(state) => state,
            none => none.insert(WaitState { wait: WaitKey::new(), lock: None, holds: false }),
        }
    }
}

/// The caller of an operation: a future with its [`Operation`], or a `poll_*` method.
pub(crate) type Caller<'a> = Waiter<'a, Operation>;

impl From<LockError> for Failure {
    fn from(error: LockError) -> Failure {
        match error {
            LockError::Closed => Failure::Closed,
            LockError::TooMany => Failure::TooMany,
        }
    }
}

/// How long the direction's lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockScope {
    /// The lock is held during each call.
    PerCall,
    /// The lock is held from the first call of the [`Operation`] until a call returns
    /// [`Remaining::Maybe`], the operation fails, or its future is dropped.
    WholeOperation,
    /// No lock is held. The kernel or another lock serialises the calls, or they transfer nothing.
    None,
}

/// Whether a call must send gathered bytes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gathered {
    /// The call need not send gathered bytes: it reads, or the socket gathers no writes.
    Nothing,
    /// The call must send the gathered bytes, if there are any, first.
    First,
}

/// Whether another call may succeed after a successful call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remaining {
    /// Another call may succeed.
    Maybe,
    /// Another call may succeed, and the operation must make it. A lock held across calls is kept.
    More,
    /// Another call would have to wait. A lock held across calls is kept.
    Nothing,
}

impl Fd {
    /// Makes `call`. After EAGAIN, waits for an edge and repeats the call; after EINTR, repeats it
    /// immediately.
    ///
    /// This function handles the uncontended cases: one call, or one wait. All other cases are in
    /// [`poll_call_slow`](Fd::poll_call_slow). Gathered writes are sent before a `call` that
    /// writes.
    #[inline]
    pub(crate) fn poll_call<T>(
        &self,
        direction: Direction,
        scope: LockScope,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<(T, Remaining)>,
    ) -> Poll<Result<T, Failure>> {
        self.poll_call_gathering(
            direction,
            scope,
            caller,
            cx,
            || None,
            move |fd, gathered| {
                if gathered == Gathered::First {
                    self.send_gathered()?;
                }
                call(fd)
            },
        )
    }

    /// Makes `call` as [`poll_call`](Fd::poll_call) does, but `call` itself must send gathered
    /// writes if it gets [`Gathered::First`]. If writes are gathered and the operation is
    /// [new](Caller::is_new), tries `append` first, which returns `None` if it did nothing.
    #[inline]
    pub(crate) fn poll_call_gathering<T>(
        &self,
        direction: Direction,
        scope: LockScope,
        mut caller: Caller<'_>,
        cx: &mut Context<'_>,
        append: impl FnOnce() -> Option<io::Result<T>>,
        mut call: impl FnMut(BorrowedFd<'_>, Gathered) -> io::Result<(T, Remaining)>,
    ) -> Poll<Result<T, Failure>> {
        let mut begun = match self.poll.side(direction).begin_call() {
            Ok(ticket) => Ok(ticket),
            Err(Hold::Stop(stop)) => Err(stop),
            Err(Hold::Corked) => {
                let Some(appended) = caller.is_new().then(append).flatten() else {
                    return self.poll_call_corked(scope, caller, cx, call);
                };
                self.abandon(direction, caller);
                return Poll::Ready(appended.map_err(Failure::Io));
            }
        };
        let mut called = None;
        if let Ok(ticket) = begun {
            if !ticket.is_ready() || self.is_used_up(direction, ticket) {
                let waited = self.poll_idle(direction, scope, ticket, &mut caller, cx);
                if waited.is_pending() {
                    return Poll::Pending;
                }
                if let Poll::Ready(Err(error)) = waited {
                    return Poll::Ready(Err(self.fail(direction, caller, error)));
                }
                begun = self.poll.side(direction).begin();
            } else if context::take_budget() && self.try_hold(direction, scope, &caller) {
                match call(self.borrow(), Gathered::Nothing) {
                    Ok((value, remaining)) => {
                        self.end(direction, scope, &mut caller, ticket, remaining);
                        return Poll::Ready(Ok(value));
                    }
                    Err(error) => called = Some(error),
                }
            }
        }
        self.poll_call_slow(direction, scope, caller, cx, move |fd| call(fd, Gathered::Nothing), begun, called)
    }

    /// Runs the loop of [`poll_call`](Fd::poll_call). `begun` is the state of the direction. If
    /// `called` has the error of a call that was made already, a reference and the lock (as `scope`
    /// says) are held.
    #[allow(clippy::too_many_arguments)]
    #[inline(never)]
    pub(super) fn poll_call_slow<T>(
        &self,
        direction: Direction,
        scope: LockScope,
        mut caller: Caller<'_>,
        cx: &mut Context<'_>,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<(T, Remaining)>,
        mut begun: Result<Ticket, Stop>,
        mut called: Option<io::Error>,
    ) -> Poll<Result<T, Failure>> {
        // The operation may have to wait for an event that depends on this thread's gathered bytes,
        // so they are sent first. They are not sent while the lock is held, because a flush may
        // wake a task, nor in a ready direction, whose call probably need not wait. The loop below
        // flushes again when the operation waits for an edge.
        if unsent::is_some() && called.is_none() && !begun.is_ok_and(Ticket::is_ready) {
            unsent::flush_some();
            if let Ok(ticket) = begun {
                // The flush may be the write after which a short count may replace the call.
                match self.poll_idle(direction, scope, ticket, &mut caller, cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(self.fail(direction, caller, error))),
                }
                begun = self.poll.side(direction).begin();
            }
        }
        // Whether a call was made in this poll.
        let mut asked = false;
        loop {
            let ticket = match begun {
                Ok(ticket) => ticket,
                Err(stop) => {
                    ready!(self.poll_turn(direction, cx));
                    return Poll::Ready(Err(self.fail(direction, caller, stop.into())));
                }
            };
            let mut asks = ticket.is_ready() || !asked;
            if asks && called.is_none() {
                asks = ready!(self.poll_ask(direction, ticket, cx));
            }
            let mut registered = None;
            if !asks && self.waits_freely(direction, scope, &caller) {
                registered = self.poll.registered();
            }
            if registered.is_none() {
                if called.is_none()
                    && let Err(failure) = ready!(self.poll_hold(direction, scope, &mut caller, cx))
                {
                    return Poll::Ready(Err(self.fail(direction, caller, failure)));
                }
                if asks {
                    asked = true;
                    let mut result = called.take().map_or_else(|| call(self.borrow()), Err);
                    while matches!(&result, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
                        result = call(self.borrow());
                    }
                    match result {
                        Ok((value, remaining)) => {
                            self.end_slow(direction, scope, &mut caller, ticket, remaining);
                            return Poll::Ready(Ok(value));
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock || self.is_early(&error) => {
                            let side = self.poll.side(direction);
                            let is_idle = side.clear_ready(ticket);
                            if is_idle || !ticket.is_ready() {
                                // In an idle direction, the call only asked the kernel whether it
                                // would have to wait.
                                context::end_run(side.turns(), !ticket.is_ready());
                            }
                            if !is_idle {
                                // An edge has arrived since, or was skipped, so the call is
                                // repeated.
                                self.give_back(direction, scope, &mut caller, true);
                                begun = self.poll.side(direction).begin();
                                continue;
                            }
                        }
                        Err(error) => {
                            self.poll.count_failure(&error);
                            self.end_slow(direction, scope, &mut caller, ticket, Remaining::Maybe);
                            return Poll::Ready(Err(Failure::Io(error)));
                        }
                    }
                }
                let added = self.register();
                self.give_back(direction, scope, &mut caller, added.is_ok());
                match added {
                    Ok(epoch) => registered = Some(epoch),
                    Err(error) => return Poll::Ready(Err(self.fail_to_register(direction, caller, error))),
                }
            }
            if let Some(epoch) = registered {
                match self.poll_edge(direction, epoch, &mut caller, cx) {
                    Poll::Pending => {
                        self.poll.side(direction).arm_for_waiters();
                        unsent::flush();
                        return Poll::Pending;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(self.fail(direction, caller, error))),
                    Poll::Ready(Ok(())) => {}
                }
            }
            begun = self.poll.side(direction).begin();
        }
    }

    /// Takes a unit of the budget for a call, and returns true. Returns false if the caller must
    /// wait without a call: the read direction is idle, the budget is used up, the waker may wake a
    /// task, and poll(2) finds nothing to read. (poll(2) does not report room until long after the
    /// kernel accepts bytes again, so a write without budget makes its call in the next turn.)
    #[inline]
    fn poll_ask(&self, direction: Direction, ticket: Ticket, cx: &mut Context<'_>) -> Poll<bool> {
        if !ticket.is_ready()
            && context::is_spent(self.poll.side(direction).turns())
            && direction == Direction::Read
            && context::can_yield(cx)
            && !self.is_ready(direction)
        {
            return Poll::Ready(false);
        }
        self.poll_turn(direction, cx).map(|()| true)
    }

    /// Takes a unit of the budget for an operation that need not wait. If none is left, may yield;
    /// see [`context::poll_turn`].
    pub(crate) fn poll_turn(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<()> {
        context::poll_turn(cx, self.poll.side(direction).turns())
    }

    /// Returns whether the direction is marked as ready. Makes no system call.
    pub(crate) fn is_marked_ready(&self, direction: Direction) -> bool {
        self.poll.side(direction).begin().is_ok_and(Ticket::is_ready)
    }

    /// Asks the kernel whether a call need not wait. Also returns true if poll(2) fails, or if no
    /// reference can be taken, for example because the descriptor is closed.
    #[cold]
    pub(crate) fn is_ready(&self, direction: Direction) -> bool {
        self.with(|fd| socket::is_ready(fd, direction == Direction::Write)).unwrap_or(true)
    }

    /// Registers the descriptor, unless it is registered. Returns the epoch of the registration.
    /// The caller must hold a reference.
    #[inline]
    pub(super) fn register(&self) -> Result<u32, Failure> {
        match self.poll.registered() {
            Some(epoch) => Ok(epoch),
            None => self.register_now(),
        }
    }

    /// Waits for an edge. The caller holds no reference, and only a lock that its operation keeps.
    /// After `Ready(Ok(()))`, the caller tries again.
    #[inline(never)]
    pub(super) fn poll_edge(
        &self,
        direction: Direction,
        epoch: u32,
        caller: &mut Caller<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        match caller {
            Waiter::Future(operation) => {
                let waiter = Waiter::Future(operation.wait_key());
                self.poll.side(direction).poll_wait(epoch, cx, waiter, self.timeouts.nanos(direction))
            }
            Waiter::Poll => self.poll_edge_of_poll(direction, epoch, cx),
        }
    }

    /// Waits as [`poll_edge`](Fd::poll_edge) does, for `poll_*` methods. A separate copy of
    /// `poll_wait` per kind of waiter takes fewer instructions.
    #[inline(never)]
    fn poll_edge_of_poll(&self, direction: Direction, epoch: u32, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.poll.side(direction).poll_wait(epoch, cx, Waiter::Poll, self.timeouts.nanos(direction))
    }

    /// Ends the operation, or one call of an operation that continues: records evidence, releases
    /// the reference and, unless the operation keeps it, the lock, and passes remaining readiness
    /// on.
    #[inline(always)]
    fn end(
        &self,
        direction: Direction,
        scope: LockScope,
        caller: &mut Caller<'_>,
        ticket: Ticket,
        remaining: Remaining,
    ) {
        // This call is made here because it takes more instructions elsewhere.
        context::record_call(direction == Direction::Write, self.number());
        if remaining == Remaining::Nothing && self.trusts_short_counts() && !ticket.distrusts_short_counts() {
            self.note_short(direction, scope, ticket);
        }
        self.give_back(direction, scope, caller, remaining != Remaining::Maybe);
        if ticket.has_waiters() {
            self.end_wait(direction, caller);
            // This does not depend on the evidence: an edge that has arrived since may have woken
            // this operation instead of one that needs it.
            self.poll.side(direction).wake_next(ticket);
        }
        let keeps = scope == LockScope::WholeOperation;
        let has_waited = match caller {
            Waiter::Future(Operation(None)) => false,
            Waiter::Future(Operation(Some(state))) if keeps && state.holds => {
                std::mem::take(&mut state.wait).has_waited()
            }
            Waiter::Future(operation) => {
                operation.0 = None;
                true
            }
            Waiter::Poll => self.poll.side(direction).end_poll(),
        };
        if has_waited || !ticket.is_ready() {
            self.count_wait(direction, ticket.is_ready());
        }
    }

    /// Calls [`end`](Fd::end) in the less common cases. Not inlined, so that the common cases stay
    /// small.
    #[inline(never)]
    fn end_slow(
        &self,
        direction: Direction,
        scope: LockScope,
        caller: &mut Caller<'_>,
        ticket: Ticket,
        remaining: Remaining,
    ) {
        self.end(direction, scope, caller, ticket, remaining);
    }

    /// Removes the operation, whose wait is over, from the slot or the list. Passes no wake-up on.
    /// The call is not necessary if the direction has no waiters.
    #[cold]
    pub(super) fn end_wait(&self, direction: Direction, caller: &mut Caller<'_>) {
        if let Waiter::Future(Operation(Some(state))) = caller {
            self.poll.side(direction).end_operation(&mut state.wait, true);
        }
    }

    /// Ends the operation without a call: undoes its wait and releases a lock that it keeps.
    #[cold]
    pub(super) fn fail(&self, direction: Direction, caller: Caller<'_>, failure: Failure) -> Failure {
        self.abandon(direction, caller);
        failure
    }

    /// Ends an operation that does not use the edge for which it may have waited.
    #[inline]
    pub(crate) fn abandon(&self, direction: Direction, caller: Caller<'_>) {
        match caller {
            Waiter::Future(operation) => self.cancel(direction, operation),
            Waiter::Poll => _ = self.poll.side(direction).end_poll(),
        }
    }

    /// Returns whether an operation in an idle direction may wait without taking the lock first. If
    /// `scope` is `PerCall`, the lock must be free and the operation not in the lock's queue. If it
    /// is `WholeOperation`, the operation must have the lock.
    #[inline]
    pub(super) fn waits_freely(&self, direction: Direction, scope: LockScope, caller: &Caller<'_>) -> bool {
        let holds = || caller.future().is_some_and(Operation::holds);
        match scope {
            LockScope::None => true,
            LockScope::WholeOperation => holds(),
            LockScope::PerCall => !self.mutex.is_locked(direction) && !caller.future().is_some_and(Operation::queues),
        }
    }

    /// Takes the lock and a reference as `scope` says, for one call, without waiting. Returns false
    /// if they cannot be taken now, and if the operation keeps a lock from an earlier call or is in
    /// the lock's queue.
    #[inline]
    fn try_hold(&self, direction: Direction, scope: LockScope, caller: &Caller<'_>) -> bool {
        let keeps = scope == LockScope::WholeOperation;
        match caller {
            _ if scope == LockScope::None => self.mutex.incref().is_ok(),
            Waiter::Future(Operation(Some(state))) if keeps && state.holds || state.lock.is_some() => false,
            _ => self.mutex.try_lock_ref(direction) == Ok(true),
        }
    }

    /// Takes the lock and a reference as `scope` says, for one call.
    #[inline]
    fn poll_hold(
        &self,
        direction: Direction,
        scope: LockScope,
        caller: &mut Caller<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let held = match caller {
            _ if scope == LockScope::None => self.mutex.incref().map(|()| true),
            Waiter::Future(operation) if operation.holds() => self.mutex.incref().map(|()| true),
            Waiter::Future(operation) if operation.queues() => Ok(false),
            _ => self.mutex.try_lock_ref(direction),
        };
        match held {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => self.poll_lock(direction, caller, cx),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Releases the reference, and the lock as `scope` says. `goes_on` says whether the operation
    /// continues.
    #[inline(always)]
    pub(super) fn give_back(&self, direction: Direction, scope: LockScope, caller: &mut Caller<'_>, goes_on: bool) {
        let last = match (scope, caller) {
            (LockScope::None, _) => self.mutex.decref(),
            (LockScope::WholeOperation, Waiter::Future(operation)) if goes_on => {
                operation.wait_state().holds = true;
                self.mutex.decref()
            }
            (_, caller) => {
                if scope == LockScope::WholeOperation
                    && let Waiter::Future(Operation(Some(state))) = caller
                {
                    state.holds = false;
                }
                self.mutex.unlock_ref(direction)
            }
        };
        if last {
            self.destroy();
        }
    }

    /// Cancels the operation, because its future is dropped or completes without having acted.
    #[inline]
    pub(crate) fn cancel(&self, direction: Direction, operation: &mut Operation) {
        if let Some(state) = operation.0.take() {
            self.cancel_wait(direction, state);
        }
    }

    #[cold]
    fn cancel_wait(&self, direction: Direction, mut state: WaitState) {
        if let Some(key) = state.lock.take() {
            self.mutex.cancel(direction, key);
        }
        if state.wait.has_waited() {
            self.count_wait(direction, false);
        }
        self.poll.side(direction).end_operation(&mut state.wait, false);
        if state.holds {
            self.mutex.unlock(direction);
        }
    }
}
