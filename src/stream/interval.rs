//! [`interval()`]: a stream of periodic ticks.
//!
//! # Invariants
//! If the period is not zero:
//! * Ticks lie on a grid: `start + n × period`. Receiving a tick late does not move later ticks.
//! * Ticks missed while the stream was not polled count as one, which is ready at the next poll.
//!   Later ticks stay on the grid. So there is never a burst, but two ticks may be closer than a
//!   period.
//!
//! # Compared with Go
//! `time.Ticker` has the same grid and drops ticks in the same way. async-std counts each period
//! from the time when the last tick was received, so its ticks drift.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;

use crate::rt::time::clock;
use crate::time::Sleep;

/// Returns a stream that yields `()` once per `period`, first after one period, and never ends.
///
/// Ticks missed while the stream was not polled count as one, and later ticks keep their times: the
/// stream has no bursts and does not drift. With a `period` of zero, a tick is always due. With a
/// `period` beyond the clock's range, such as [`Duration::MAX`], the stream never ticks.
///
/// # Cancel safety
/// Dropping the future of `next` loses no tick.
///
/// ```
/// use netpoll::{prelude::*, stream};
/// use std::time::{Duration, Instant};
///
/// # netpoll::task::block_on(async {
/// let begin = Instant::now();
/// let mut ticks = stream::interval(Duration::from_millis(2));
/// ticks.next().await;
/// ticks.next().await;
/// assert!(begin.elapsed() >= Duration::from_millis(4));
/// # });
/// ```
#[doc(alias = "time.Ticker")]
pub fn interval(period: Duration) -> Interval {
    let next = clock::instant().checked_add(period);
    let sleep = match next {
        Some(next) => Sleep::until(next),
        None => Sleep::new(Duration::MAX),
    };
    Interval { period, next, sleep }
}

/// A stream that yields `()` once per period; returned by [`interval()`].
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Interval {
    period: Duration,
    /// The time of the next tick; `None` means never.
    next: Option<Instant>,
    sleep: Sleep,
}

impl Stream for Interval {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<()>> {
        let this = &mut *self;
        let Some(due) = this.next else { return Poll::Pending };
        ready!(Pin::new(&mut this.sleep).poll(cx));
        this.next = following(due, this.period, clock::instant());
        if let Some(next) = this.next {
            this.sleep.reset(next);
        }
        Poll::Ready(Some(()))
    }
}

/// Returns the time of the first tick after both `now` and `due` on the grid that contains `due`,
/// or `None` if that time is beyond the clock's range. With a `period` of zero, returns the later
/// of `now` and `due`.
fn following(due: Instant, period: Duration, now: Instant) -> Option<Instant> {
    let late = now.saturating_duration_since(due);
    // The division fails only for a period of zero.
    let Some(missed) = late.as_nanos().checked_div(period.as_nanos()) else { return Some(now.max(due)) };
    // missed × period <= late, and `late` is a `Duration`, so the seconds fit into u64.
    let nanos = missed * period.as_nanos();
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let skipped = Duration::new(u64::try_from(seconds).ok()?, nanos as u32);
    due.checked_add(skipped)?.checked_add(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_ticks_stay_on_the_grid() {
        let due = Instant::now();
        let at = |millis| due + Duration::from_millis(millis);
        let period = Duration::from_millis(10);
        for (now, next) in [(0, 10), (1, 10), (9, 10), (10, 20), (11, 20), (95, 100), (100, 110)] {
            assert_eq!(following(due, period, at(now)), Some(at(next)), "taken at {now} ms");
        }
        assert_eq!(following(at(5), period, at(0)), Some(at(15)), "taken early");
    }

    #[test]
    fn extreme_periods_do_not_overflow() {
        let due = Instant::now();
        let later = due + Duration::from_secs(3600);
        assert_eq!(following(due, Duration::ZERO, later), Some(later), "a period of zero follows the clock");
        assert_eq!(following(due, Duration::MAX, later), None);
        let next = following(due, Duration::from_nanos(1), later);
        assert_eq!(next, Some(later + Duration::from_nanos(1)));
    }
}
