//! Ticks: the CPU's time stamp counter, for estimates of times that are measured at every poll.
//!
//! On x86 and 64-bit ARM, reading the counter takes a few instructions. On other CPUs, the coarse
//! clock is used instead. The rate of the counter is measured by comparison with the monotonic
//! clock, from the first [`calibrate`] until the rate is needed. [`inspect`](crate::rt::inspect()),
//! the black box and the check of a turn's duration use ticks, and so does
//! [`horizon`](super::horizon), which saves readings of a clock. [`draws`] uses them as random
//! numbers. Deadlines, sleeps and the durations in the metrics use [`clock`](super::clock). The
//! counter of the CPU measures real time, even in a simulation.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The binary logarithm of the unit of a [`rough`] time, in ticks. At 3 GHz, the unit is 1.4 ms,
/// and 32 bits are enough for 70 days.
const ROUGH_SHIFT: u32 = 22;

/// Returns the current value of the counter.
#[inline]
pub(crate) fn ticks() -> u64 {
    read()
}

/// Returns the low and the high half of the counter, as the instruction RDTSC does.
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
#[inline]
#[allow(unsafe_code)]
fn halves() -> (u32, u32) {
    let (low, high): (u32, u32);
    // SAFETY: every x86 CPU that the supported targets require has the instruction, which has no
    // side effect.
    unsafe { std::arch::asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    (low, high)
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[allow(unsafe_code)]
fn read() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: as in `halves`. The instruction clears the high halves of both registers.
    unsafe { std::arch::asm!("rdtsc", out("rax") low, out("rdx") high, options(nomem, nostack, preserves_flags)) };
    high << 32 | low
}

#[cfg(target_arch = "x86")]
#[inline]
fn read() -> u64 {
    let (low, high) = halves();
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(target_arch = "aarch64")]
#[inline]
#[allow(unsafe_code)]
fn read() -> u64 {
    let (ticks, frequency): (u64, u64);
    // SAFETY: Linux, macOS and FreeBSD permit reading the virtual counter in user mode, which has
    // no side effect.
    unsafe { std::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags)) };
    // SAFETY: as above. The register with the frequency is readable whenever the counter is, and
    // does not change.
    unsafe {
        std::arch::asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(pure, nomem, nostack, preserves_flags))
    };
    ticks << counter_shift(frequency as u32)
}

/// Returns the binary logarithm of the factor by which the counter of 64-bit ARM is scaled up. The
/// counter often runs at 25 MHz, too slowly for precise rough times, but at 1 GHz on newer CPUs.
/// The scaled rate is at most 2³¹ Hz, unless the counter itself is faster, and more than 1 GHz if
/// the counter runs at 2²⁴ Hz (17 MHz) or more.
#[cfg(any(target_arch = "aarch64", test))]
#[inline]
fn counter_shift(frequency: u32) -> u32 {
    frequency.leading_zeros().saturating_sub(1).min(6)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
fn read() -> u64 {
    super::clock::coarse()
}

/// Converts ticks to a rough time of 32 bits. It wraps around after 70 days at 3 GHz, and after
/// more than 90 days on ARM.
#[inline]
pub(crate) fn rough(ticks: u64) -> u32 {
    (ticks >> ROUGH_SHIFT) as u32
}

/// Returns true for about one call in `one_of`. `one_of` must be a power of two.
#[inline]
pub(crate) fn draws(one_of: u64) -> bool {
    // On some CPUs the lowest bits never change, so all bits are mixed first (Fibonacci hashing).
    ticks().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & (one_of - 1) == 0
}

/// Returns the current rough time.
#[inline]
pub(crate) fn rough_now() -> u32 {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    {
        // This compiles to one instruction that combines both halves.
        let (low, high) = halves();
        high << (32 - ROUGH_SHIFT) | low >> ROUGH_SHIFT
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86")))]
    rough(ticks())
}

/// Returns the real time of the monotonic clock, even in a simulation, whose clock would stand
/// still.
fn monotonic() -> Instant {
    #[cfg(feature = "sim")]
    return crate::sim::in_real_time(Instant::now);
    #[cfg(not(feature = "sim"))]
    return Instant::now();
}

/// Returns the point from which the rate is measured.
fn base() -> (u64, Instant) {
    static BASE: OnceLock<(u64, Instant)> = OnceLock::new();
    *BASE.get_or_init(|| (ticks(), monotonic()))
}

/// Records the point from which the rate is measured, at the first call. The earlier this is, the
/// more accurate is the rate.
pub(crate) fn calibrate() {
    base();
}

/// The minimum time over which the rate of [`in_nanos`] is measured. If the thread is preempted
/// between the readings of the two clocks, the rate then changes little.
const MEASURED_FOR: Duration = Duration::from_millis(100);

/// Returns the number of ticks in `nanos` nanoseconds. Returns `None` in the first 100 ms after the
/// first [`calibrate`], and while the counter stands still.
pub(crate) fn in_nanos(nanos: u64) -> Option<u64> {
    let (first, began) = base();
    let (passed, elapsed) = (ticks().saturating_sub(first), monotonic().saturating_duration_since(began));
    let is_measured = elapsed >= MEASURED_FOR && passed > 0;
    is_measured.then(|| (u128::from(passed) * u128::from(nanos) / elapsed.as_nanos()) as u64)
}

/// The difference by which a rough time may be ahead of `now` and still count as `now`, in units of
/// rough times; at 2.4 GHz this is about two minutes. The counter of another CPU may be ahead, and
/// the thread that read `now` may have waited for a CPU since.
const AHEAD_MAX: u32 = 1 << 16;

/// Converts ticks to durations, and rough times to the time that has passed since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    now: u64,
    nanos_per_tick: f64,
}

impl Scale {
    /// Measures the scale from the first [`calibrate`] until now. If that was less than a
    /// millisecond ago, spins until a millisecond has passed. If the counter stands still, spins
    /// for up to 100 ms.
    pub(crate) fn new() -> Scale {
        let (first, began) = base();
        loop {
            let (now, elapsed) = (ticks(), monotonic().saturating_duration_since(began));
            if elapsed >= Duration::from_millis(1) && now > first {
                return Scale { now, nanos_per_tick: elapsed.as_nanos() as f64 / (now - first) as f64 };
            }
            if elapsed > Duration::from_millis(100) {
                // The counter stands still, so all durations are 0.
                return Scale { now, nanos_per_tick: 0.0 };
            }
            std::hint::spin_loop();
        }
    }

    /// Returns the duration of `ticks`.
    pub(crate) fn duration(&self, ticks: u64) -> Duration {
        Duration::from_nanos(self.nanos(ticks))
    }

    fn nanos(&self, ticks: u64) -> u64 {
        (ticks as f64 * self.nanos_per_tick) as u64
    }

    /// Returns the time since the rough time `then`.
    pub(crate) fn since(&self, then: u32) -> Duration {
        Duration::from_nanos(self.nanos_since(then))
    }

    /// Returns the time since the rough time `then` in nanoseconds.
    pub(crate) fn nanos_since(&self, then: u32) -> u64 {
        let rough_ticks = rough(self.now).wrapping_sub(then);
        let rough_ticks = if rough_ticks > u32::MAX - AHEAD_MAX { 0 } else { rough_ticks };
        self.nanos(u64::from(rough_ticks) << ROUGH_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_follow_the_monotonic_clock() {
        calibrate();
        let (begin, began) = (ticks(), Instant::now());
        while began.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let (ticks, elapsed) = (ticks() - begin, began.elapsed());
        let measured = Scale::new().duration(ticks);
        assert!(measured > elapsed / 2 && measured < elapsed * 2, "{measured:?} of {elapsed:?}");
    }

    #[test]
    fn counter_of_arm_is_precise_and_does_not_wrap_soon() {
        for (frequency, shift) in [(19_200_000, 6), (25_000_000, 6), (100_000_000, 4), (1_000_000_000, 1), (1 << 31, 0)]
        {
            assert_eq!(counter_shift(frequency), shift, "{frequency}");
        }
        for frequency in (0..=1_000_000_000).step_by(999_983) {
            let rate = u64::from(frequency) << counter_shift(frequency);
            assert!(rate < 1 << 31, "{frequency}");
            assert!(rate >= 1 << 30 || frequency < 1 << 24, "{frequency}");
            // A unit takes less than 5 ms, and 2³² of them take more than 90 days.
            let days = (1u64 << ROUGH_SHIFT << 32) / rate.max(1) / 86_400;
            assert!(days > 90, "{frequency}");
        }
    }

    #[test]
    fn draws_succeed_at_about_the_requested_rate() {
        const DRAWS: usize = 200_000;
        let successes = (0..DRAWS).filter(|_| draws(64)).count();
        assert!((DRAWS / 640..DRAWS / 6).contains(&successes), "{successes} of {DRAWS}");
        assert!(draws(1));
    }

    #[test]
    fn time_since_a_rough_time_is_measured() {
        calibrate();
        let (then, began) = (rough(ticks()), Instant::now());
        while began.elapsed() < Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        let since = Scale::new().since(then);
        assert!(since > Duration::from_millis(15) && since < began.elapsed() * 2, "{since:?}");
        let ahead = Scale::new();
        assert_eq!(ahead.since(rough(ahead.now).wrapping_add(3)), Duration::ZERO, "read on another CPU");
        assert_eq!(ahead.since(rough(ahead.now).wrapping_add(1 << 15)), Duration::ZERO, "read later");
    }
}
