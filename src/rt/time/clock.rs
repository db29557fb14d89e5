//! Monotonic time as a `u64`, in nanoseconds since about one second before its first use or, in a
//! simulation, before the simulation's start.
//!
//! The runtime stores times in atomics, for which an [`Instant`] is too large. Two values are not
//! times: [`NONE`] and [`EXPIRED`]. Times beyond the range of a `u64` (584 years) saturate to
//! [`NEVER`].
//!
//! # Conversion of an `Instant`
//! std's subtraction of two [`Instant`]s is a call of 37 instructions on x86-64, and a program may
//! convert a deadline before each read. [`from_instant`] instead receives the seconds and
//! nanoseconds of the `Instant` as a [`Hasher`], and subtracts [`ZERO`]. The values that std passes
//! to a hasher are not documented. So the first conversion compares results for several instants
//! with std's subtraction, and if one differs, all conversions use the subtraction.

use std::hash::{Hash, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No time is set.
pub(crate) const NONE: u64 = 0;
/// The time that was set has passed.
pub(crate) const EXPIRED: u64 = 1;
/// A time that is later than the end of any wait.
pub(crate) const NEVER: u64 = u64::MAX;
/// The time at the first use of the clock or, in a simulation, at the start of the simulation. It
/// is greater than 0, so that moments up to a second earlier can be represented.
const ORIGIN: u64 = 1 << 30;
/// The earliest time.
const EARLIEST: u64 = EXPIRED + 1;

/// The reading of std's clock at the time [`EARLIEST`], in nanoseconds. It is `u64::MAX` before the
/// first conversion, and stays so if [`Fields`] cannot be used.
static ZERO: AtomicU64 = AtomicU64::new(u64::MAX);

/// Returns the [`Instant`] at which this clock shows [`ORIGIN`].
#[inline]
fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    #[cfg(feature = "sim")]
    if let Some(base) = crate::sim::clock_base() {
        return base;
    }
    *BASE.get_or_init(|| {
        let base = Instant::now();
        // ORDERING: Relaxed. The value is complete in itself: a conversion that uses it does not
        // read `BASE`.
        ZERO.store(checked_zero(base, Fields::of).unwrap_or(u64::MAX), Ordering::Relaxed);
        base
    })
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

/// Returns the time of the kernel's coarse clock, which is cheaper than the exact clock. The result
/// is never ahead of [`now`], and at most [`COARSE_BEHIND_NANOS`] behind it, unless the thread was
/// interrupted again and again in the first call.
#[allow(unsafe_code)]
pub(crate) fn coarse() -> u64 {
    static COARSE_ZERO: OnceLock<u64> = OnceLock::new();
    // A simulation has only one clock.
    #[cfg(feature = "sim")]
    if crate::sim::is_here() {
        return now();
    }
    fn read() -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is valid for the call. Every supported system has the clock, Linux since
        // 2.6.32. If the call fails, the time is 0.
        let _ = unsafe { libc::clock_gettime(crate::sys::os::COARSE_CLOCK, &raw mut time) };
        nanos(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
    let zero = *COARSE_ZERO.get_or_init(|| coarse_zero(read, now));
    // The coarse clock was up to one tick behind when `zero` was determined, so the difference may
    // be ahead by this tick. One tick is subtracted, so that the result is not in the future.
    read().wrapping_sub(zero).saturating_sub(COARSE_TICK_NANOS).max(EARLIEST)
}

/// The longest tick of the coarse clock (CONFIG_HZ=100).
const COARSE_TICK_NANOS: u64 = 10_000_000;

/// The maximum time between two readings of the exact clock that are compared with a reading of the
/// coarse clock in between. If more time passes, the thread was interrupted.
const COMPARED_NANOS: u64 = 100_000;

/// The number of times that the clocks are compared if the thread is interrupted each time.
const COMPARED_MAX: u32 = 100;

/// The maximum lag of [`coarse`], in nanoseconds: one tick of the kernel's clock, the tick that is
/// subtracted, and the time that a comparison of the clocks takes.
pub(crate) const COARSE_BEHIND_NANOS: u64 = 2 * COARSE_TICK_NANOS + COMPARED_NANOS;

/// Returns the time of the coarse clock at time 0 of the exact clock. It is too early by up to one
/// tick, and too late by up to [`COMPARED_NANOS`] or, if the thread is interrupted in every
/// comparison, by the time of the shortest one.
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

/// Converts `instant` to a time of this clock. Instants more than about a second before that of
/// [`ORIGIN`] are converted to the earliest time.
#[inline]
pub(crate) fn from_instant(instant: Instant) -> u64 {
    #[cfg(feature = "sim")]
    if let Some(base) = crate::sim::clock_base() {
        return subtract(base, instant);
    }
    // ORDERING: Relaxed, as for the store.
    Fields::of(instant).time(ZERO.load(Ordering::Relaxed)).unwrap_or_else(|| from_any_instant(instant))
}

/// Converts an `Instant` that [`Fields::time`] does not convert.
#[cold]
#[inline(never)]
fn from_any_instant(instant: Instant) -> u64 {
    subtract(base(), instant)
}

/// Converts `instant` to a time of a clock that shows [`ORIGIN`] at `base`.
fn subtract(base: Instant, instant: Instant) -> u64 {
    match instant.checked_duration_since(base) {
        Some(since) => add(ORIGIN, since),
        None => ORIGIN.saturating_sub(nanos(base.duration_since(instant))).max(EARLIEST),
    }
}

/// The fields of an [`Instant`] on Unix, as its implementation of `Hash` passes them to a hasher.
#[derive(Debug, Clone, Copy, Default)]
struct Fields {
    seconds: u64,
    nanos: u32,
}

impl Hasher for Fields {
    fn finish(&self) -> u64 {
        0
    }

    /// Ignores values of other types.
    fn write(&mut self, _: &[u8]) {}

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.nanos = value;
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.seconds = value;
    }

    #[inline]
    fn write_i64(&mut self, value: i64) {
        self.seconds = value.cast_unsigned();
    }
}

impl Fields {
    #[inline]
    fn of(instant: Instant) -> Fields {
        let mut fields = Fields::default();
        instant.hash(&mut fields);
        fields
    }

    /// Returns the reading of std's clock in nanoseconds, or `None` if it is negative or more than
    /// 136 years.
    #[inline]
    fn reading(self) -> Option<u64> {
        let seconds = u32::try_from(self.seconds).ok()?;
        // The product has 62 bits, so the sum does not overflow.
        Some(u64::from(seconds) * 1_000_000_000 + u64::from(self.nanos))
    }

    /// Returns the time of a clock that shows [`EARLIEST`] at the reading `zero` of std's clock, or
    /// `None` if the time is earlier or the [reading](Fields::reading) is `None`.
    #[inline]
    fn time(self, zero: u64) -> Option<u64> {
        Some(self.reading()?.checked_sub(zero)? + EARLIEST)
    }
}

/// Returns the value of [`ZERO`] for `base`. Returns `None` if the reading of `base` is not known,
/// or is less than about a second, or if the conversion of the result of `fields` differs from
/// [`subtract`] for one of several instants.
#[cold]
fn checked_zero(base: Instant, fields: impl Fn(Instant) -> Fields) -> Option<u64> {
    let zero = fields(base).reading()?.checked_sub(ORIGIN - EARLIEST)?;
    // For every `base`, 999,999,999 ns later or earlier, the nanoseconds carry into the seconds or
    // borrow from them.
    let distances = [0, 1, 999_999_999, 1_000_000_000, 30_000_000_007, 1 << 40, 1 << 62];
    let instants = distances.into_iter().map(Duration::from_nanos).flat_map(|distance| {
        let ends = [base.checked_add(distance), base.checked_sub(distance)];
        ends.into_iter().flatten()
    });
    let mut times = instants.map(|instant| (fields(instant).time(zero), subtract(base, instant)));
    times.all(|(time, right)| time.is_none_or(|time| time == right)).then_some(zero)
}

/// Converts `time` to an [`Instant`]. Returns `None` for [`NEVER`], and for a time after [`ORIGIN`]
/// that an `Instant` cannot represent. For a time before it that an `Instant` cannot represent,
/// returns the `Instant` of [`ORIGIN`].
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
    fn conversion_by_fields_agrees_with_the_subtraction() {
        let base = base();
        let zero = ZERO.load(Ordering::Relaxed);
        let offsets =
            (0..64).flat_map(|bit| [-1, 0, 1, 999_999_999].map(|more| (1_u64 << bit).saturating_add_signed(more)));
        let far = [32, 33, 62].map(|bit| Duration::from_secs(1 << bit));
        for offset in offsets.map(Duration::from_nanos).chain(far) {
            for instant in [base.checked_add(offset), base.checked_sub(offset)].into_iter().flatten() {
                assert_eq!(from_instant(instant), subtract(base, instant), "{offset:?}");
            }
        }
        // If the clock is first used within about a second after the machine's start, all
        // conversions use the subtraction.
        let later = base + Duration::from_secs(1_000_000);
        let reading = Fields::of(later).reading();
        assert!(
            reading > Some(1_000_000_000_000_000),
            "std does not pass an Instant's fields to a hasher: {reading:?}"
        );
        assert_eq!(Fields::of(later).time(zero).is_some(), Fields::of(base).reading() >= Some(ORIGIN));
    }

    #[test]
    fn no_instant_is_converted_by_fields_before_the_base_is_known() {
        let (end, seconds) = (u64::MAX / 1_000_000_000, u64::from(u32::MAX));
        for (seconds, nanos) in [(0, 0), (5, 7), (end, 709_551_615), (seconds, u32::MAX), (u64::MAX, 999_999_999)] {
            assert_eq!(Fields { seconds, nanos }.time(u64::MAX), None);
        }
    }

    #[test]
    fn fields_that_are_not_seconds_and_nanoseconds_are_refused() {
        let Some(base) = Instant::now().checked_add(Duration::new(100, 0)) else { return };
        assert!(checked_zero(base, Fields::of).is_some());
        let of = |instant| Fields::of(instant);
        let changed: [&dyn Fn(Instant) -> Fields; 7] = [
            &|_| Fields::default(),
            &|_| Fields { seconds: 1 << 32, nanos: 0 },
            &|instant| Fields { nanos: 0, ..of(instant) },
            &|instant| Fields { nanos: of(instant).nanos / 1000, ..of(instant) },
            &|instant| Fields { seconds: of(instant).seconds * 1000, ..of(instant) },
            &|instant| Fields { seconds: 1_000_000 - of(instant).seconds % 1_000_000, ..of(instant) },
            &|instant| Fields { seconds: of(instant).reading().unwrap_or(0), nanos: 0 },
        ];
        for (number, fields) in changed.iter().enumerate() {
            assert_eq!(checked_zero(base, fields), None, "{number}");
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
