//! Ticks: the processor's own time stamp, for what is measured at every poll and needs no more than an estimate.
//!
//! Reading it takes one instruction and no call, on x86 and on 64-bit ARM; elsewhere it is the coarse clock. Its rate is found by
//! comparing it with the monotonic clock over the life of the process. Nothing but [`inspect`](crate::rt::inspect()) depends on it:
//! deadlines and sleeps use `clock`.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A [`rough`] time counts so many ticks: 1.4 ms at 3 GHz, so that 32 bits hold 70 days.
const ROUGH_SHIFT: u32 = 22;

/// The time stamp now.
#[inline]
pub(crate) fn ticks() -> u64 {
    read()
}

/// The two halves, as the instruction returns them.
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
#[inline]
#[allow(unsafe_code)]
fn halves() -> (u32, u32) {
    let (low, high): (u32, u32);
    // SAFETY: every x86 processor that Rust's Linux targets support has the instruction, which has no side effect.
    unsafe { std::arch::asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    (low, high)
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
#[inline]
fn read() -> u64 {
    let (low, high) = halves();
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(target_arch = "aarch64")]
#[inline]
#[allow(unsafe_code)]
fn read() -> u64 {
    let ticks: u64;
    // SAFETY: the virtual counter is readable in user mode on Linux; reading it has no side effect.
    unsafe { std::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags)) };
    // It counts at 1 GHz at most, often at 25 MHz: scaled up, so that a rough time has its resolution.
    ticks << 6
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
fn read() -> u64 {
    super::clock::coarse()
}

/// A time stamp in 32 bits. It wraps around after months.
#[inline]
pub(crate) fn rough(ticks: u64) -> u32 {
    (ticks >> ROUGH_SHIFT) as u32
}

/// The rough time now.
#[inline]
pub(crate) fn rough_now() -> u32 {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    {
        // One instruction for both halves.
        let (low, high) = halves();
        high << (32 - ROUGH_SHIFT) | low >> ROUGH_SHIFT
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86")))]
    rough(ticks())
}

/// Where the rate is measured from.
fn base() -> (u64, Instant) {
    static BASE: OnceLock<(u64, Instant)> = OnceLock::new();
    *BASE.get_or_init(|| (ticks(), Instant::now()))
}

/// Remembers a first pair of both clocks. The sooner, the better the rate.
pub(crate) fn calibrate() {
    base();
}

/// Converts ticks to time, at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    now: u64,
    nanos_per_tick: f64,
}

impl Scale {
    /// The scale as measured from the first [`calibrate`] until now. Waits for a millisecond if that was just now.
    pub(crate) fn new() -> Scale {
        let (first, began) = base();
        loop {
            let (now, elapsed) = (ticks(), began.elapsed());
            if elapsed >= Duration::from_millis(1) && now > first {
                return Scale { now, nanos_per_tick: elapsed.as_nanos() as f64 / (now - first) as f64 };
            }
            if elapsed > Duration::from_millis(100) {
                // A clock that stands still: all durations are 0.
                return Scale { now, nanos_per_tick: 0.0 };
            }
            std::hint::spin_loop();
        }
    }

    /// The time that `ticks` take.
    pub(crate) fn duration(&self, ticks: u64) -> Duration {
        Duration::from_nanos((ticks as f64 * self.nanos_per_tick) as u64)
    }

    /// How long ago the rough time `then` was.
    pub(crate) fn since(&self, then: u32) -> Duration {
        let rough_ticks = rough(self.now).wrapping_sub(then);
        // A time stamp of another core may be ahead by a little.
        let rough_ticks = if rough_ticks > u32::MAX - 16 { 0 } else { rough_ticks };
        self.duration(u64::from(rough_ticks) << ROUGH_SHIFT)
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
    fn rough_times_tell_how_long_ago_they_were() {
        calibrate();
        let (then, began) = (rough(ticks()), Instant::now());
        while began.elapsed() < Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        let since = Scale::new().since(then);
        assert!(since > Duration::from_millis(15) && since < began.elapsed() * 2, "{since:?}");
        let ahead = Scale::new();
        assert_eq!(ahead.since(rough(ahead.now) + 3), Duration::ZERO, "another core's time stamp is ahead");
    }
}
