//! [`Histogram`]: the number of measured values in each of a fixed series of ranges.
//!
//! Each upper bound is four times the previous one, and the last range has no upper bound. So 14
//! counters cover the times from one microsecond to 17 seconds. The bounds never change, as metrics
//! collectors require.

use std::fmt;

use crate::sync::{AtomicU64, Ordering};

/// The number of ranges.
pub(crate) const BUCKETS: usize = 14;

/// The unit of the recorded values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Values are recorded in nanoseconds and shown in seconds. The first upper bound is 1024 ns.
    Seconds,
    /// Values are counts. The first upper bound is 1.
    Count,
}

impl Unit {
    /// Returns the binary logarithm of the first upper bound.
    const fn shift(self) -> u32 {
        match self {
            Unit::Seconds => 10,
            Unit::Count => 0,
        }
    }

    fn scale(self) -> f64 {
        match self {
            Unit::Seconds => 1e-9,
            Unit::Count => 1.0,
        }
    }
}

/// Returns the index of the range of `value`. A range includes its upper bound.
#[inline]
fn bucket(value: u64, unit: Unit) -> usize {
    let above = value.saturating_sub(1) >> unit.shift();
    let bits = u64::BITS - above.leading_zeros();
    (bits.div_ceil(2) as usize).min(BUCKETS - 1)
}

/// The counters behind a [`Histogram`].
#[derive(Debug)]
pub(crate) struct Recorder {
    unit: Unit,
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Recorder {
    pub(crate) const fn new(unit: Unit) -> Recorder {
        Recorder { unit, counts: [const { AtomicU64::new(0) }; BUCKETS], sum: AtomicU64::new(0) }
    }

    /// Records a value. Only the thread that owns the recorder may call this.
    #[inline]
    pub(crate) fn record_owned(&self, value: u64) {
        let count = &self.counts[bucket(value, self.unit)];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.sum.store(self.sum.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
    }

    /// Records a value. Any thread may call this.
    pub(crate) fn record(&self, value: u64) {
        self.counts[bucket(value, self.unit)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Adds the recorded values to `histogram`, which must have the same unit.
    pub(crate) fn add_to(&self, histogram: &mut Histogram) {
        for (sum, count) in histogram.counts.iter_mut().zip(&self.counts) {
            *sum += count.load(Ordering::Relaxed);
        }
        histogram.sum = histogram.sum.wrapping_add(self.sum.load(Ordering::Relaxed));
    }
}

/// The number of measured values in each of a series of ranges. An example is
/// [`Metrics::poll_seconds`](super::Metrics::poll_seconds). Times are in seconds.
///
/// Each upper bound is four times the previous one, and the last range has no upper bound.
///
/// # Examples
/// ```
/// let polls = netpoll::rt::metrics().poll_seconds;
/// if polls.count() > 0 {
///     println!("mean {:.6} s, 99 of 100 up to {} s", polls.sum() / polls.count() as f64, polls.quantile(0.99));
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Histogram {
    unit: Unit,
    counts: [u64; BUCKETS],
    sum: u64,
}

impl Histogram {
    pub(crate) const fn new(unit: Unit) -> Histogram {
        Histogram { unit, counts: [0; BUCKETS], sum: 0 }
    }

    /// Returns the number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of all values.
    pub fn sum(&self) -> f64 {
        self.sum as f64 * self.unit.scale()
    }

    /// Returns the upper bound of each range, and the number of values that do not exceed it. The
    /// last bound is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + use<> {
        let (Histogram { unit, counts, .. }, mut total) = (*self, 0);
        (0..BUCKETS).map(move |at| {
            total += counts[at];
            let bound =
                if at == BUCKETS - 1 { f64::INFINITY } else { (1_u64 << (unit.shift() + 2 * at as u32)) as f64 };
            (bound * unit.scale(), total)
        })
    }

    /// Returns the upper bound of the range that contains the given quantile of the values, or 0 if
    /// there are no values. The result is infinite for the last range. `quantile` is clamped to the
    /// range from 0 to 1. NaN counts as 0.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let quantile = if quantile.is_nan() { 0.0 } else { quantile.clamp(0.0, 1.0) };
        let all = self.count();
        if all == 0 {
            return 0.0;
        }
        let found = self.buckets().find(|&(_, count)| count > 0 && count as f64 >= all as f64 * quantile);
        found.map_or(f64::INFINITY, |(bound, _)| bound)
    }
}

/// Serializes `count`, `sum`, and all `buckets` except the last bucket, whose bound is infinite.
#[cfg(feature = "serde")]
impl serde::Serialize for Histogram {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut fields = serializer.serialize_struct("Histogram", 3)?;
        fields.serialize_field("count", &self.count())?;
        fields.serialize_field("sum", &self.sum())?;
        fields.serialize_field("buckets", &self.buckets().take(BUCKETS - 1).collect::<Vec<_>>())?;
        fields.end()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.buckets()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_and_the_last_range_has_none() {
        for (value, at) in [(0, 0), (1, 0), (1024, 0), (1025, 1), (4096, 1), (4097, 2), (1 << 34, 12), (u64::MAX, 13)] {
            assert_eq!(bucket(value, Unit::Seconds), at, "{value}");
        }
        for (value, at) in [(0, 0), (1, 0), (2, 1), (4, 1), (5, 2), (16, 2), (17, 3), (1 << 24, 12), (1 << 25, 13)] {
            assert_eq!(bucket(value, Unit::Count), at, "{value}");
        }
        let bounds: Vec<f64> = Histogram::new(Unit::Count).buckets().map(|(bound, _)| bound).collect();
        assert_eq!(bounds[..4], [1.0, 4.0, 16.0, 64.0]);
        assert_eq!(bounds.last(), Some(&f64::INFINITY));
    }

    #[test]
    fn counts_are_cumulative_and_quantiles_are_bounds() {
        let (owned, shared) = (Recorder::new(Unit::Seconds), Recorder::new(Unit::Seconds));
        (0..98).for_each(|_| owned.record_owned(1000));
        owned.record_owned(3000);
        shared.record(1 << 20);
        let mut histogram = Histogram::new(Unit::Seconds);
        assert_eq!((histogram.count(), histogram.quantile(0.5)), (0, 0.0));
        owned.add_to(&mut histogram);
        shared.add_to(&mut histogram);
        assert_eq!(histogram.count(), 100);
        let counts: Vec<u64> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [98, 99, 99, 99, 99, 100, 100, 100, 100, 100, 100, 100, 100, 100]);
        assert!((histogram.sum() - (98.0 * 1000.0 + 3000.0 + 1_048_576.0) * 1e-9).abs() < 1e-12);
        assert!(
            (histogram.quantile(0.5) - 1.024e-6).abs() < 1e-12 && (histogram.quantile(0.0) - 1.024e-6).abs() < 1e-12
        );
        assert!((histogram.quantile(f64::NAN) - 1.024e-6).abs() < 1e-12);
        assert!((histogram.quantile(0.99) - 4.096e-6).abs() < 1e-12);
        assert!((histogram.quantile(1.0) - 1.048_576e-3).abs() < 1e-12);
    }
}
