//! [`Timer`]: a timer that fires once or periodically. The stand-ins for both versions of async-io
//! compile this file.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;
use netpoll::time::Sleep;

/// A timer that fires once or periodically. As a future it completes when it fires. As a stream it
/// yields an item each time it fires. The output of the future and the items of the stream are the
/// instants for which the timer was set.
///
/// After a poll that returned `Pending`, the timer wakes the task when it fires, even if the timer
/// is reset in the meantime. After a poll in which a periodic timer fired, the timer wakes the task
/// in the same way when it fires next. A timer that has fired for the last time does not wake the
/// task when it is reset, so the task must poll the timer again.
#[derive(Debug)]
pub struct Timer {
    sleep: Sleep,
    /// The next instant for which the timer is set, or `None` if it will not fire.
    when: Option<Instant>,
    period: Duration,
    /// The waker of the last poll, if the poll returned `Pending` or the timer fires again.
    waker: Option<Waker>,
}

impl Timer {
    /// Creates a timer that never fires.
    pub fn never() -> Timer {
        Timer { sleep: Sleep::never(), when: None, period: Duration::MAX, waker: None }
    }

    /// Creates a timer that fires once, after `duration`, or never if that time cannot be
    /// represented.
    pub fn after(duration: Duration) -> Timer {
        Instant::now().checked_add(duration).map_or_else(Timer::never, Timer::at)
    }

    /// Creates a timer that fires once, at `instant`.
    pub fn at(instant: Instant) -> Timer {
        Timer::interval_at(instant, Duration::MAX)
    }

    /// Creates a timer that fires every `period`, for the first time after one period. The timer
    /// never fires if the first time cannot be represented.
    pub fn interval(period: Duration) -> Timer {
        let start = Instant::now().checked_add(period);
        start.map_or_else(Timer::never, |start| Timer::interval_at(start, period))
    }

    /// Creates a timer that fires at `start`, and then every `period`.
    pub fn interval_at(start: Instant, period: Duration) -> Timer {
        Timer { sleep: Sleep::until(start), when: Some(start), period, waker: None }
    }

    /// Returns whether the timer is set to fire. Returns false after `clear`, after the timer has
    /// fired for the last time, and for a timer that was created to never fire.
    pub fn will_fire(&self) -> bool {
        self.when.is_some()
    }

    /// Sets the timer to fire once, after `duration`, or clears it if that time cannot be
    /// represented.
    pub fn set_after(&mut self, duration: Duration) {
        match Instant::now().checked_add(duration) {
            Some(when) => self.set_at(when),
            None => self.clear(),
        }
    }

    /// Sets the timer to fire once, at `instant`.
    pub fn set_at(&mut self, instant: Instant) {
        self.set_interval_at(instant, Duration::MAX);
    }

    /// Sets the timer to fire every `period`, for the first time after one period. Clears the timer
    /// if the first time cannot be represented.
    pub fn set_interval(&mut self, period: Duration) {
        match Instant::now().checked_add(period) {
            Some(start) => self.set_interval_at(start, period),
            None => self.clear(),
        }
    }

    /// Sets the timer to fire at `start`, and then every `period`.
    pub fn set_interval_at(&mut self, start: Instant, period: Duration) {
        (self.when, self.period) = (Some(start), period);
        self.sleep.reset(start);
        self.rearm();
    }

    /// Clears the timer, which then does not fire unless it is set again.
    pub fn clear(&mut self) {
        self.when = None;
        self.sleep = Sleep::never();
    }

    /// Registers the waker of the last poll, if there is one, for the new time. Calls the waker if
    /// that time has come, and keeps it, because the timer may be set again before the next poll.
    fn rearm(&mut self) {
        let Some(waker) = &self.waker else { return };
        if Pin::new(&mut self.sleep).poll(&mut Context::from_waker(waker)).is_ready() {
            waker.wake_by_ref();
        }
    }

    fn poll_fire(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        let Some(when) = self.when else {
            self.remember(cx.waker());
            return Poll::Pending;
        };
        if Pin::new(&mut self.sleep).poll(cx).is_pending() {
            self.remember(cx.waker());
            return Poll::Pending;
        }
        self.when = when.checked_add(self.period);
        match self.when {
            // As in async-io, the task is woken at the next time even if it does not poll the timer
            // again.
            Some(next) => {
                self.sleep.reset(next);
                self.remember(cx.waker());
                self.rearm();
            }
            None => {
                self.waker = None;
                self.clear();
            }
        }
        Poll::Ready(when)
    }

    fn remember(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(kept) => kept.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

impl Future for Timer {
    type Output = Instant;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Instant> {
        self.poll_fire(cx)
    }
}

impl Stream for Timer {
    type Item = Instant;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Instant>> {
        Poll::Ready(Some(ready!(self.poll_fire(cx))))
    }
}
