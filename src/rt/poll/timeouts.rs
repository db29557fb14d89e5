//! Relative timeouts of operations, and deadlines of directions.
//!
//! # Relative timeouts
//! An operation that has a timeout and has to wait stores the end of the timeout in its
//! [`WaitKey`], and makes sure that a timer fires at that time or earlier. The timer wakes all
//! waiters of both directions, and each of them checks its own time.
//!
//! A `poll_*` operation has no key, so its time is stored in the direction. The operation begins
//! when a poll first returns `Pending` and ends when a poll returns `Ready`. If the next poll comes
//! too late, the operation counts as abandoned, and the poll begins a new one. A poll is too late
//! if, since the timeout ended, both the length of the timeout and 100 ms have passed. The 100 ms
//! allow for a busy task that is polled late.
//!
//! # Deadlines
//! A deadline belongs to a direction and is stored by [`expiry`](super::expiry). This file sets it,
//! and makes sure that a timer fires and that a thread waits for the timer.

use std::io;
use std::num::NonZeroU64;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::rt::fork;
use crate::rt::poll::poll_desc::Direction;
use crate::rt::poll::poller::{Failure, PollHandle, WaitKey};
use crate::rt::poll::side::{Hold, Side, Stop};
use crate::rt::runtime::runtime;
use crate::rt::time::{clock, horizon};
use crate::rt::unsent;
use crate::rt::waiters::{Waiter, Wakers};
use crate::sync::{AtomicU64, Ordering};

/// The minimum time, in nanoseconds, from the end of a timeout until a `poll_*` operation counts as
/// abandoned. With a smaller value, an operation with a short timeout could begin again and again
/// on a busy machine, and never time out.
const ABANDONED_NANOS: u64 = 100_000_000;

/// The relative timeouts of the two directions, in nanoseconds, or 0 for none.
#[derive(Debug, Default)]
pub(crate) struct Timeouts([AtomicU64; 2]);

impl Timeouts {
    /// Returns the timeout of operations in a direction in nanoseconds, if there is one.
    #[inline]
    pub(crate) fn nanos(&self, direction: Direction) -> Option<NonZeroU64> {
        NonZeroU64::new(self.0[direction as usize].load(Ordering::Relaxed))
    }

    /// Returns the timeout of operations in a direction, if there is one.
    pub(crate) fn get(&self, direction: Direction) -> Option<Duration> {
        self.nanos(direction).map(|nanos| Duration::from_nanos(nanos.get()))
    }

    /// Sets the timeout of operations in a direction; `None` means no timeout.
    ///
    /// # Errors
    /// Returns `InvalidInput` if `timeout` is zero, as in std.
    pub(crate) fn set(&self, direction: Direction, timeout: Option<Duration>) -> io::Result<()> {
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "timeout must not be zero; use None for no timeout, or a deadline in the past to fail at once",
            ));
        }
        self.0[direction as usize].store(timeout.map_or(0, clock::nanos), Ordering::Relaxed);
        Ok(())
    }
}

impl Side<'static> {
    /// Makes sure that a timer fires at the end of the operation's own timeout or earlier. The
    /// timeout begins now if it has not begun yet. Returns an error if the timeout has already
    /// ended. The operation must already be listed, so that a timer that fires immediately finds
    /// it.
    #[cold]
    pub(crate) fn arm_timeout(self, waiter: Waiter<'_, WaitKey>, timeout: NonZeroU64) -> Poll<Result<(), Failure>> {
        let now = clock::now();
        let mut until = match &waiter {
            Waiter::Future(wait) => wait.until,
            Waiter::Poll => self.until_of_poll().load(Ordering::Relaxed),
        };
        if until == clock::NONE {
            until = now.saturating_add(timeout.get());
        }
        let is_over = until <= now;
        match waiter {
            Waiter::Future(wait) => wait.until = until,
            Waiter::Poll => self.until_of_poll().store(if is_over { clock::NONE } else { until }, Ordering::Relaxed),
        }
        if is_over {
            return Poll::Ready(Err(Failure::TimedOut));
        }
        if until != clock::NEVER
            && let Some(at) = self.desc.wait_until(until)
        {
            runtime().arm_poll(self.desc, at);
        }
        Poll::Pending
    }

    /// Returns whether the operation's own timeout has passed. Clears the stored time of a `poll_*`
    /// operation if it has passed. If this time belongs to an abandoned operation, because both
    /// `timeout` and [`ABANDONED_NANOS`] have passed since, returns false.
    pub(super) fn has_timed_out(self, waiter: &Waiter<'_, WaitKey>, timeout: NonZeroU64) -> bool {
        let until = match waiter {
            Waiter::Future(wait) => wait.until,
            Waiter::Poll => self.until_of_poll().load(Ordering::Relaxed),
        };
        if until == clock::NONE || until > clock::now() {
            return false;
        }
        if waiter.future().is_some() {
            return true;
        }
        self.until_of_poll().store(clock::NONE, Ordering::Relaxed);
        clock::now() <= until.saturating_add(timeout.get().max(ABANDONED_NANOS))
    }
}

impl PollHandle {
    /// Sets or clears the deadline of a direction. A deadline in the past ends waiting operations
    /// immediately. A deadline in the future ends the operations that are waiting when it passes.
    /// Operations that begin after the deadline fail.
    ///
    /// # Errors
    /// Returns [`Failure::Closed`] if the socket is closed.
    pub(crate) fn set_deadline(&self, direction: Direction, deadline: Option<Instant>) -> Result<(), Failure> {
        let side = self.side(direction);
        match side.begin_call() {
            Err(Hold::Stop(Stop::Closed)) => return Err(Failure::Closed),
            // Gathered bytes were written under the old deadline, so those of this thread are sent
            // first.
            Err(Hold::Corked) => unsent::flush(),
            _ => {}
        }
        let mut at = deadline.map_or(clock::NONE, clock::from_instant);
        if at == clock::NEVER {
            at = clock::NONE;
        }
        let old = side.deadline();
        if old > clock::EXPIRED && at >= old && !horizon::has_come(at) {
            // The deadline does not move to an earlier time. The timer entry is at or before the
            // old time. When the entry fires, the deadline is checked and another entry is added.
            if let Some(at) = side.move_deadline(at) {
                runtime().arm_poll(self.desc, at);
            }
            return Ok(());
        }
        self.set_deadline_anew(direction, at);
        Ok(())
    }

    /// Sets the deadline of a direction to `at`, which may have passed or be earlier than the
    /// current deadline.
    fn set_deadline_anew(&self, direction: Direction, mut at: u64) {
        if at != clock::NONE && at <= clock::now() {
            at = clock::EXPIRED;
        }
        let mut wakers = Wakers::new();
        if let Some(at) = self.side(direction).set_deadline(at, &mut wakers) {
            // Armed before the runtime starts, so that the start sees the timer.
            runtime().arm_poll(self.desc, at);
            runtime().ensure_running();
        }
        wakers.wake_all();
    }

    /// Makes sure that timers run, for an operation that waits without a registration and has a
    /// timeout or a deadline. The operation must already be listed, because this call cannot start
    /// the runtime while a shutdown is in progress: at its end, the shutdown interrupts all listed
    /// operations. Has no effect in a child of fork(2), which has no runtime.
    pub(crate) fn ensure_timers(&self, direction: Direction, timeout: Option<NonZeroU64>, cx: &mut Context<'_>) {
        let has_end = timeout.is_some() || self.side(direction).deadline() > clock::EXPIRED;
        if has_end && !fork::is_child() {
            runtime().ensure_running();
            runtime().stand_in(cx);
        }
    }
}
