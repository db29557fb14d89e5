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

/// Returns the time of the kernel's coarse clock, which is cheaper than the exact clock. The result is at
/// most [`COARSE_BEHIND_NANOS`] behind [`now`], and ahead of it only if the thread was interrupted in the first call.
#[allow(unsafe_code)]
pub(crate) fn coarse() -> u64 {
    static LAG: OnceLock<u64> = OnceLock::new();
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
    // The time of the coarse clock at time 0 of this clock. It is too early by up to one tick, and by the time for which
    // the thread was interrupted between the two readings.
    let zero = *LAG.get_or_init(|| {
        let (coarse, exact) = (read(), now());
        coarse.wrapping_sub(exact)
    });
    // The coarse clock was up to one tick behind when `zero` was determined, so the difference may be ahead by
    // this tick. One tick is subtracted, so that the result is not in the future unless the thread was interrupted.
    read().wrapping_sub(zero).saturating_sub(COARSE_TICK_NANOS).max(EXPIRED + 1)
}

/// The longest tick of the coarse clock (CONFIG_HZ=100).
const COARSE_TICK_NANOS: u64 = 10_000_000;

/// The maximum lag of [`coarse`], in nanoseconds: one tick of the kernel's clock, and the tick that is
/// subtracted.
pub(crate) const COARSE_BEHIND_NANOS: u64 = 2 * COARSE_TICK_NANOS;

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

    #[test]
    fn durations_saturate() {
        assert_eq!(nanos(Duration::new(3, 7)), 3_000_000_007);
        assert_eq!(nanos(Duration::from_secs(u64::MAX / 1_000_000_000 + 1)), NEVER);
        assert_eq!((add(5, Duration::from_nanos(6)), add(NEVER - 1, Duration::from_nanos(6))), (11, NEVER));
    }
}
