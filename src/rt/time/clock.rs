//! Monotonic time as a `u64`, in nanoseconds since about one second before its first use or, in a simulation, before the
//! simulation's start.
//!
//! The runtime stores times in atomics, for which an [`Instant`] is too large. Two values are not
//! times: [`NONE`] and [`EXPIRED`]. Times beyond the range of a `u64` (584 years) saturate to
//! [`NEVER`].

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// No time is set.
pub(crate) const NONE: u64 = 0;
/// The time that was set has passed.
pub(crate) const EXPIRED: u64 = 1;
/// A time that is later than the end of any wait.
pub(crate) const NEVER: u64 = u64::MAX;
/// The time at the first use of the clock. It is greater than 0, so that moments up to a second earlier can be
/// represented.
const ORIGIN: u64 = 1 << 30;

#[inline]
fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    #[cfg(feature = "sim")]
    if let Some(base) = crate::sim::clock_base() {
        return base;
    }
    *BASE.get_or_init(Instant::now)
}

/// Returns the current time of the crate's timers and deadlines as an [`Instant`].
#[inline]
pub(crate) fn instant() -> Instant {
    // In a simulation, std's clock shows real time if the program defines `clock_gettime` itself.
    #[cfg(all(feature = "sim", netpoll_no_interpose))]
    if let Some(instant) = crate::sim::instant() {
        return instant;
    }
    Instant::now()
}

/// Returns the current time.
pub(crate) fn now() -> u64 {
    from_instant(instant())
}

/// Returns the time of the kernel's coarse clock, which is cheaper than the exact clock. The result is never ahead of
/// [`now`], and at most [`COARSE_BEHIND_NANOS`] behind it, unless the thread was interrupted again and again in the first
/// call.
#[allow(unsafe_code)]
pub(crate) fn coarse() -> u64 {
    static ZERO: OnceLock<u64> = OnceLock::new();
    // A simulation has only one clock.
    #[cfg(feature = "sim")]
    if crate::sim::is_here() {
        return now();
    }
    fn read() -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is valid for the call. Every supported system has the clock, Linux since 2.6.32. If
        // the call fails, the time is 0.
        let _ = unsafe { libc::clock_gettime(crate::sys::os::COARSE_CLOCK, &raw mut time) };
        nanos(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
    let zero = *ZERO.get_or_init(|| coarse_zero(read, now));
    // The coarse clock was up to one tick behind when `zero` was determined, so the difference may be ahead by
    // this tick. One tick is subtracted, so that the result is not in the future.
    read().wrapping_sub(zero).saturating_sub(COARSE_TICK_NANOS).max(EXPIRED + 1)
}

/// The longest tick of the coarse clock (CONFIG_HZ=100).
const COARSE_TICK_NANOS: u64 = 10_000_000;

/// The time that may pass between two readings of the exact clock, if the coarse clock is read in between and compared
/// with them. The thread was interrupted if it takes longer.
const COMPARED_NANOS: u64 = 100_000;

/// The number of times that the clocks are compared if the thread is interrupted each time.
const COMPARED_MAX: u32 = 100;

/// The maximum lag of [`coarse`], in nanoseconds: one tick of the kernel's clock, the tick that is subtracted, and the
/// time that a comparison of the clocks takes.
pub(crate) const COARSE_BEHIND_NANOS: u64 = 2 * COARSE_TICK_NANOS + COMPARED_NANOS;

/// Returns the time of the coarse clock at time 0 of the exact clock. It is too early by up to one tick, and too late by
/// up to [`COMPARED_NANOS`] or, if the thread is interrupted in every comparison, by the time of the shortest one.
#[cold]
fn coarse_zero(coarse: impl Fn() -> u64, exact: impl Fn() -> u64) -> u64 {
    let compare = || {
        let (before, coarse, after) = (exact(), coarse(), exact());
        // With the earlier reading, an interruption makes the coarse clock lag and not lead.
        (after - before, coarse.wrapping_sub(before))
    };
    let mut best = compare();
    for _ in 1..COMPARED_MAX {
        if best.0 <= COMPARED_NANOS {
            break;
        }
        best = best.min(compare());
    }
    best.1
}

/// Converts `instant` to a time of this clock. Instants more than about a second before the first use
/// of the clock are converted to the earliest time.
pub(crate) fn from_instant(instant: Instant) -> u64 {
    let base = base();
    match instant.checked_duration_since(base) {
        Some(since) => add(ORIGIN, since),
        None => ORIGIN.saturating_sub(nanos(base.duration_since(instant))).max(EXPIRED + 1),
    }
}

/// Converts `time` to an [`Instant`]. Returns `None` for [`NEVER`].
pub(crate) fn to_instant(time: u64) -> Option<Instant> {
    match time.checked_sub(ORIGIN) {
        _ if time == NEVER => None,
        Some(since) => base().checked_add(Duration::from_nanos(since)),
        None => base().checked_sub(Duration::from_nanos(ORIGIN - time)).or(Some(base())),
    }
}

/// Returns `time + duration`, at most [`NEVER`].
pub(crate) fn add(time: u64, duration: Duration) -> u64 {
    time.saturating_add(nanos(duration))
}

/// Returns `duration` in nanoseconds, at most `u64::MAX`.
pub(crate) fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_round_trip_and_extremes_saturate() {
        let now = Instant::now();
        assert_eq!(to_instant(from_instant(now)), Some(now));
        let later = now + Duration::from_secs(5);
        assert_eq!(from_instant(later) - from_instant(now), 5_000_000_000);
        assert_eq!(add(from_instant(now), Duration::MAX), NEVER);
        assert_eq!(to_instant(NEVER), None);
        if let Some(early) = now.checked_sub(Duration::from_secs(3600)) {
            assert!(from_instant(early) < from_instant(now) && from_instant(early) > EXPIRED);
        }
        // Moments up to a second before the first use are exact; earlier moments are all equal.
        for (before, is_exact) in [(0, true), (1, true), (1 << 29, true), (1 << 31, false)] {
            let Some(instant) = base().checked_sub(Duration::from_nanos(before)) else { continue };
            assert_eq!(to_instant(from_instant(instant)) == Some(instant), is_exact, "{before}");
        }
    }

    #[test]
    fn coarse_clock_lag_is_bounded() {
        for _ in 0..100 {
            let (before, coarse, after) = (now(), coarse(), now());
            assert!(coarse <= after && before <= coarse + COARSE_BEHIND_NANOS, "{before} {coarse} {after}");
        }
    }

    /// The clocks are compared on a thread that is interrupted after some of the readings.
    #[test]
    fn interruption_does_not_make_the_coarse_clock_lead() {
        const INTERRUPTION: u64 = 1_000_000_000;
        // The ticks of the coarse clock are at multiples of `COARSE_TICK_NANOS` on its own scale.
        let offset = 5_000_000_000;
        for interrupted in [vec![], vec![0], vec![1], vec![2], vec![0, 3], vec![1, 4, 7], (0..1000).collect()] {
            let (time, readings) = (std::cell::Cell::new(777_777_777), std::cell::Cell::new(0));
            let at_reading = || {
                let at = time.get();
                let pause = if interrupted.contains(&readings.get()) { INTERRUPTION } else { 100 };
                time.set(at + pause);
                readings.set(readings.get() + 1);
                at
            };
            let coarse = |at: u64| (at + offset) / COARSE_TICK_NANOS * COARSE_TICK_NANOS;
            let zero = coarse_zero(|| coarse(at_reading()), at_reading);
            let ahead = zero.cast_signed() - offset.cast_signed();
            assert!(ahead > -COARSE_TICK_NANOS.cast_signed(), "{ahead} with {} interruptions", interrupted.len());
            let is_always = interrupted.len() > 100;
            let most = if is_always { INTERRUPTION } else { COMPARED_NANOS };
            assert!(ahead <= most.cast_signed(), "{ahead} with {} interruptions", interrupted.len());
        }
    }

    #[test]
    fn durations_saturate() {
        assert_eq!(nanos(Duration::new(3, 7)), 3_000_000_007);
        assert_eq!(nanos(Duration::from_secs(u64::MAX / 1_000_000_000 + 1)), NEVER);
        assert_eq!((add(5, Duration::from_nanos(6)), add(NEVER - 1, Duration::from_nanos(6))), (11, NEVER));
    }
}
