//! [`CpuTime`]: the time that the polls of a task have taken, and the longest of them, in 32 bits.
//!
//! Both are estimated from samples that sysmon, unless it is missing, takes every 10 ms. The low 24
//! bits have the total time in units of 4.2 ms, up to 19 hours. The high 8 bits have the duration
//! of the longest poll in milliseconds, rounded down by at most an eighth.

use std::time::Duration;

use crate::sync::{AtomicU32, Ordering};

/// The packed times of one task; see the [module documentation](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTime(pub(super) u32);

/// The binary logarithm of the unit of the total time, in nanoseconds.
const SHIFT: u32 = 22;
const BITS: u32 = 24;
const MASK: u32 = (1 << BITS) - 1;

/// The remainder, in nanoseconds, of rounding the samples of all tasks down to whole units. It is
/// added to the next sample, so that rounding errors do not accumulate.
static REST: AtomicU32 = AtomicU32::new(0);

impl CpuTime {
    /// Returns the time spent in polls.
    pub(crate) fn total(self) -> Duration {
        Duration::from_nanos(u64::from(self.0 & MASK) << SHIFT)
    }

    /// Returns the duration of the longest poll.
    pub(crate) fn longest_poll(self) -> Duration {
        unpack((self.0 >> BITS) as u8)
    }

    /// Adds `nanos` nanoseconds to the time. Only sysmon may call this.
    #[must_use]
    pub(super) fn plus(self, nanos: u64) -> CpuTime {
        // ORDERING: Relaxed: only sysmon uses the remainder.
        let nanos = nanos + u64::from(REST.load(Ordering::Relaxed));
        REST.store((nanos & ((1 << SHIFT) - 1)) as u32, Ordering::Relaxed);
        let units = u64::from(self.0 & MASK) + (nanos >> SHIFT);
        CpuTime(self.0 & !MASK | units.min(u64::from(MASK)) as u32)
    }

    /// Records a poll that has lasted for `duration`, which counts if it is the longest so far.
    #[must_use]
    pub(super) fn with_poll(self, duration: Duration) -> CpuTime {
        let longest = u32::from(pack(duration)).max(self.0 >> BITS);
        CpuTime(longest << BITS | self.0 & MASK)
    }
}

/// Packs a duration into 8 bits, as a floating-point number of milliseconds with a mantissa of
/// three bits. Durations above 2³¹ ms are packed as 2³¹ ms.
fn pack(duration: Duration) -> u8 {
    let millis = duration.as_millis().min(1 << 31) as u32;
    let exponent = millis.max(1).ilog2();
    if exponent < 3 { millis as u8 } else { ((exponent - 2) << 3 | (millis >> (exponent - 3)) & 7) as u8 }
}

/// Returns the shortest duration that is packed as `packed`.
fn unpack(packed: u8) -> Duration {
    let (exponent, low) = (u32::from(packed >> 3), u64::from(packed & 7));
    Duration::from_millis(if exponent == 0 { low } else { (8 + low) << (exponent - 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_durations_are_rounded_down_by_at_most_an_eighth() {
        for millis in (0..3000).chain([65_535, 1 << 20, (1 << 31) - 1, 1 << 31]) {
            let unpacked = unpack(pack(Duration::from_millis(millis))).as_millis() as u64;
            assert!(unpacked <= millis && unpacked >= millis - millis / 8, "{millis} ms as {unpacked} ms");
        }
        assert_eq!(unpack(pack(Duration::MAX)), Duration::from_millis(1 << 31));
        assert!((0..pack(Duration::MAX)).all(|packed| unpack(packed) < unpack(packed + 1)));
    }
}
