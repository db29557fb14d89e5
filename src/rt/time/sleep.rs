//! [`Sleep`]: a future that completes at a given time.
//!
//! The first poll that has to wait arms the sleep in the timer set of its thread. The sleep keeps
//! the number and the generation of its slot in that set, so it can be moved to another thread and
//! dropped anywhere.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::rt::context;
use crate::rt::fork;
use crate::rt::runtime::runtime;
use crate::rt::sched::waits::Waits;
use crate::rt::time::timer::{SleepKey, TimerSet};
use crate::rt::time::{clock, horizon};

/// A future that completes at a given time; [`sleep`](crate::task::sleep) is built on it.
///
/// A sleep never completes early. It may complete late, by the kernel's timer slack (50 µs by
/// default) or, without epoll_pwait2(2), by up to a millisecond, and by the time for which the
/// threads that run timers and its task are busy. It works under any executor, is `Send`, `Sync`
/// and `Unpin`, and allocates only if the set of timers has to grow or the runtime has to start.
///
/// If the time has already passed at the first poll, the sleep completes without waiting. After a
/// number of consecutive operations that need not wait, the task yields, so that a loop over them
/// does not occupy its thread.
///
/// # Cancel safety
/// Dropping a sleep cancels it.
///
/// # Panics
/// Panics if the sleep has to wait in a child of fork(2) that did not call exec(2).
///
/// Source: `time.Timer` of Go (time/sleep.go).
///
/// # Examples
/// ```
/// use netpoll::{task, time::Sleep};
/// use std::time::{Duration, Instant};
///
/// task::block_on(async {
///     let start = Instant::now();
///     let mut sleep = Sleep::new(Duration::from_secs(3600));
///     sleep.reset(start + Duration::from_millis(5));
///     sleep.await;
///     assert!(start.elapsed() >= Duration::from_millis(5));
/// });
/// ```
#[must_use = "a sleep does nothing unless it is awaited"]
#[doc(alias = "time.Timer")]
pub struct Sleep {
    when: u64,
    armed: Option<(&'static TimerSet, SleepKey)>,
    /// Whether the sleep has returned `Pending` since its time was set. If so, it completes even if
    /// the budget of the turn is used up.
    waited: bool,
}

impl Sleep {
    /// Creates a sleep that completes when `duration` has elapsed since this call. With a duration
    /// of more than 584 years, such as [`Duration::MAX`], it never completes.
    pub fn new(duration: Duration) -> Sleep {
        let when = if duration.is_zero() { clock::EXPIRED } else { clock::add(clock::now(), duration) };
        Sleep { when, armed: None, waited: false }
    }

    /// Creates a sleep that completes at `deadline`, or at its first poll if `deadline` is in the
    /// past.
    pub fn until(deadline: Instant) -> Sleep {
        Sleep { when: clock::from_instant(deadline), armed: None, waited: false }
    }

    /// Creates a sleep that never completes unless it is [`reset`](Sleep::reset).
    pub fn never() -> Sleep {
        Sleep { when: clock::NEVER, armed: None, waited: false }
    }

    /// Returns the time at which the sleep completes, or `None` if it never completes. If the sleep
    /// was created with a zero duration or a time in the past, returns a time in the past.
    pub fn deadline(&self) -> Option<Instant> {
        clock::to_instant(self.when)
    }

    /// Sets the time at which the sleep completes to `deadline`, even if it has already completed.
    /// The sleep must be polled again to wake the task.
    pub fn reset(&mut self, deadline: Instant) {
        self.disarm();
        self.waited = false;
        self.when = clock::from_instant(deadline);
    }

    fn disarm(&mut self) {
        // In a child of fork(2), the lock of the set may stay locked by a thread that exists only
        // in the parent.
        if let Some((set, key)) = self.armed.take()
            && !fork::is_child()
        {
            set.release(key);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let was_armed = self.armed.is_some();
        if let Some((set, key)) = self.armed {
            if !fork::is_child() && !set.poll_sleep(key, cx.waker()) {
                context::note(Waits::Time(self.when), cx);
                return Poll::Pending;
            }
            // The timer has fired, a shutdown has woken the sleep, or no timer fires in this child
            // of fork(2), so the clock decides.
            self.disarm();
        }
        if self.when == clock::NEVER {
            return Poll::Pending;
        }
        let has_come = if was_armed { horizon::has_come_by_clock } else { horizon::has_come };
        if has_come(self.when) {
            return context::poll_budget(cx, &mut self.waited);
        }
        fork::assert_not_child();
        let runtime = runtime();
        let set = runtime.timers();
        let (key, first) =
            set.arm_sleep(self.when, cx.waker().clone(), |target, when| runtime.entry_counts(target, when));
        (self.armed, self.waited) = (Some((set, key)), true);
        // The sleep is armed before this call, so that a start sees the timer. If a shutdown
        // prevents this call from starting the runtime, the end of the shutdown wakes the sleep.
        runtime.ensure_running();
        if first {
            runtime.timer_moved(self.when);
        }
        context::note(Waits::Time(self.when), cx);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline()).finish()
    }
}
