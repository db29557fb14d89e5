//! When an operation gives up: relative timeouts and deadlines of a [`PollHandle`].
//!
//! # Relative timeouts
//! An operation that has to wait stores the time at which it gives up in its key, and makes sure
//! that a timer fires by then. The timer wakes all waiters of the direction, and each checks its
//! own time. For `poll_*` the time is stored in the direction. Such an operation begins when a poll
//! first returns Pending and ends when one returns Ready. One that was not polled for longer than
//! another timeout after its end (at least 100 ms, because a busy task is polled late) counts as
//! abandoned, and the next poll begins a new one.
//!
//! # Deadlines
//! A deadline belongs to a direction, and [`expiry`](super::expiry) keeps it. This file sets it and
//! makes sure that a timer fires and that a thread waits for the timer.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::rt::poll::poll_desc::Direction;
use crate::rt::poll::poller::{PollHandle, WaitError, is_over};
use crate::rt::poll::side::{Hold, Stop};
use crate::rt::runtime::runtime;
use crate::rt::time::clock;
use crate::rt::unsent;
use crate::rt::waiters::Wakers;
use crate::sync::Ordering;

/// How late a task may be polled after its timeout has woken it, whatever the timeout is. With
/// less, a short timeout on a busy machine would start over forever.
const LATE_MAX: Duration = Duration::from_millis(100);

impl PollHandle {
    /// Makes sure that a timer fires at the end of the operation's own timeout, which begins now
    /// unless it has begun. The operation is already waiting, so a timer that fires at once finds
    /// it.
    #[cold]
    pub(super) fn arm_timeout(&self, until: &mut u64, timeout: Option<Duration>) -> Poll<Result<(), WaitError>> {
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

    /// Arms the timeout of the `poll_*` operation of a direction.
    pub(super) fn arm_timeout_keyless(
        &self,
        direction: Direction,
        timeout: Option<Duration>,
    ) -> Poll<Result<(), WaitError>> {
        if timeout.is_none() {
            return Poll::Pending;
        }
        let kept = self.desc.side(direction).keyless_until();
        let mut until = kept.load(Ordering::Relaxed);
        let polled = self.arm_timeout(&mut until, timeout);
        kept.store(if polled.is_ready() { clock::NONE } else { until }, Ordering::Relaxed);
        polled
    }

    /// Returns whether the timeout of the `poll_*` operation of a direction has passed; it is then
    /// used up. If it passed longer ago than another such timeout and [`LATE_MAX`], it belonged to
    /// an abandoned operation.
    pub(super) fn is_over_keyless(&self, direction: Direction, timeout: Duration) -> bool {
        let kept = self.desc.side(direction).keyless_until();
        let until = kept.load(Ordering::Relaxed);
        let over = is_over(until);
        if over {
            kept.store(clock::NONE, Ordering::Relaxed);
        }
        over && clock::now() <= clock::add(until, timeout.max(LATE_MAX))
    }

    /// Sets or clears a deadline. A deadline in the past ends waiting operations at once; a future
    /// one does so when it passes.
    pub(crate) fn set_deadline(&self, direction: Direction, deadline: Option<Instant>) -> Result<(), WaitError> {
        match self.desc.side(direction).begin_call(self.generation) {
            Err(Hold::Stop(Stop::Closed)) => return Err(WaitError::Closed),
            // Bytes that were written under the old deadline.
            Err(Hold::Corked) => unsent::flush(),
            _ => {}
        }
        let mut at = deadline.map_or(clock::NONE, clock::from_instant);
        if at == clock::NEVER {
            at = clock::NONE;
        }
        let old = self.desc.deadline(direction);
        if old > clock::EXPIRED && at >= old && !clock::has_come(at) {
            // Moved later: the timer entry is at or before the old time, and is checked again when
            // it fires.
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
            // It is armed first, so that a start sees the timer.
            runtime().arm_poll(self.desc, at);
            runtime().ensure_running();
        }
        wakers.wake_all();
    }

    /// Makes sure that timers run, for an operation that waits without a registration. It must be
    /// called when the operation is listed: a shutdown that keeps this call from starting the
    /// runtime interrupts the operation when it ends.
    pub(crate) fn ensure_timers(&self, direction: Direction, timeout: Option<Duration>, cx: &mut Context<'_>) {
        if timeout.is_some() || self.desc.deadline(direction) > clock::EXPIRED {
            runtime().ensure_running();
            runtime().stand_in(cx);
        }
    }
}
