//! `Link`: the properties of the paths between hosts.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::api::Sim;
use super::kernel::link::{Latency as Travel, LinkConfig};

/// Returns a duration of `count` milliseconds.
///
/// # Examples
/// ```
/// assert_eq!(netpoll::sim::ms(5), std::time::Duration::from_millis(5));
/// ```
pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Returns a bandwidth of `count` kilobits per second, in bits per second.
///
/// # Examples
/// ```
/// assert_eq!(netpoll::sim::kbit(64), 64_000);
/// ```
pub const fn kbit(count: u64) -> u64 {
    count * 1_000
}

/// Returns a bandwidth of `count` megabits per second, in bits per second.
///
/// # Examples
/// ```
/// assert_eq!(netpoll::sim::mbit(10), 10_000_000);
/// ```
pub const fn mbit(count: u64) -> u64 {
    count * 1_000_000
}

/// Returns a bandwidth of `count` gigabits per second, in bits per second.
///
/// # Examples
/// ```
/// assert_eq!(netpoll::sim::gbit(1), 1_000_000_000);
/// ```
pub const fn gbit(count: u64) -> u64 {
    count * 1_000_000_000
}

/// The time that packets travel: a fixed duration, a range from which each packet draws a duration,
/// or a distribution.
///
/// # Panics
/// Converting an empty range panics.
///
/// # Examples
/// ```
/// use netpoll::sim::{Latency, ms};
///
/// let fixed = Latency::from(ms(10));
/// let drawn = Latency::from(ms(5)..ms(40));
/// let tailed = Latency::exponential(ms(5), ms(8));
/// # let _ = (fixed, drawn, tailed);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Latency(pub(super) Travel);

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

impl Latency {
    /// Returns an exponential distribution with the minimum `min` and the given mean: most packets
    /// are fast, and a few are very late.
    ///
    /// # Panics
    /// Panics if `mean` is less than `min`.
    pub fn exponential(min: Duration, mean: Duration) -> Latency {
        assert!(mean >= min, "the mean latency {mean:?} is less than the minimum {min:?}");
        Latency(Travel::Exponential { min: nanos(min), mean: nanos(mean) })
    }
}

impl From<Duration> for Latency {
    fn from(fixed: Duration) -> Latency {
        Latency(Travel::Uniform(nanos(fixed)..=nanos(fixed)))
    }
}

impl From<RangeInclusive<Duration>> for Latency {
    #[track_caller]
    fn from(range: RangeInclusive<Duration>) -> Latency {
        assert!(range.start() <= range.end(), "the range of latencies {range:?} is empty");
        Latency(Travel::Uniform(nanos(*range.start())..=nanos(*range.end())))
    }
}

impl From<Range<Duration>> for Latency {
    #[track_caller]
    fn from(range: Range<Duration>) -> Latency {
        assert!(range.start < range.end, "the range of latencies {range:?} is empty");
        Latency(Travel::Uniform(nanos(range.start)..=nanos(range.end) - 1))
    }
}

/// A change to one property of a link.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Latency(Travel),
    Loss(f64),
    Duplicate(f64),
    Reorder(f64, u64),
    Bandwidth(u64),
    Queue(u64),
    Mtu(u64),
}

impl Change {
    pub(super) fn apply(&self, config: &mut LinkConfig) {
        match self {
            Change::Latency(latency) => config.latency = latency.clone(),
            Change::Loss(rate) => config.loss = *rate,
            Change::Duplicate(rate) => config.duplicate = *rate,
            Change::Reorder(rate, by) => (config.reorder, config.reorder_by) = (*rate, *by),
            Change::Bandwidth(bits) => config.bandwidth = *bits,
            Change::Queue(bytes) => config.queue = *bytes,
            Change::Mtu(bytes) => config.mtu = *bytes,
        }
    }
}

/// The links between hosts, to change their properties; returned by [`Sim::link`] and
/// [`Sim::one_way`].
///
/// A change applies from the next packet on, and to hosts that are added later. It does not apply
/// to traffic within a host.
///
/// # Examples
/// ```
/// use netpoll::sim::{Sim, mbit, ms};
///
/// Sim::run(1, async |sim| {
///     sim.host("a");
///     sim.host("b");
///     sim.link("a", "b").latency(ms(5)..ms(40)).loss(0.01).bandwidth(mbit(10));
/// });
/// ```
#[derive(Clone, Debug)]
pub struct Link {
    pub(super) sim: Sim,
    pub(super) from: Option<u16>,
    pub(super) to: Option<u16>,
    pub(super) is_one_way: bool,
}

#[track_caller]
fn rate(what: &str, rate: f64) -> f64 {
    assert!((0.0..=1.0).contains(&rate), "{what} must be a probability from 0 to 1, not {rate}");
    rate
}

impl Link {
    fn change(self, change: Change) -> Link {
        self.sim.change_links(&self, change);
        self
    }

    /// Sets how long packets travel. Packets keep their order. The default is 100 to 200 µs.
    #[track_caller]
    pub fn latency(self, latency: impl Into<Latency>) -> Link {
        self.change(Change::Latency(latency.into().0))
    }

    /// Sets the probability that a packet is lost. The default is 0.
    ///
    /// # Panics
    /// Panics if the value is not between 0 and 1, as the other methods that take a probability do.
    #[track_caller]
    pub fn loss(self, probability: f64) -> Link {
        self.change(Change::Loss(rate("loss", probability)))
    }

    /// Sets the probability that a packet arrives twice. The default is 0.
    #[track_caller]
    pub fn duplicate(self, probability: f64) -> Link {
        self.change(Change::Duplicate(rate("duplication", probability)))
    }

    /// Sets the probability that a packet is delayed by up to `by`, so that later packets overtake
    /// it. The default is 0.
    #[track_caller]
    pub fn reorder(self, probability: f64, by: Duration) -> Link {
        self.change(Change::Reorder(rate("reordering", probability), nanos(by)))
    }

    /// Sets the bandwidth in bits per second. Packets wait for it in the [queue](Link::queue). By
    /// default it is unlimited.
    ///
    /// # Panics
    /// Panics if it is 0; use [`Sim::partition`] instead.
    #[track_caller]
    pub fn bandwidth(self, bits_per_second: u64) -> Link {
        assert!(bits_per_second > 0, "a bandwidth of 0 sends nothing: use Sim::partition");
        self.change(Change::Bandwidth(bits_per_second))
    }

    /// Sets how many bytes may wait for the bandwidth before packets are dropped. The default is
    /// 256 KiB.
    pub fn queue(self, bytes: u64) -> Link {
        self.change(Change::Queue(bytes))
    }

    /// Sets the size of the largest IP packet, which determines the segment size of new TCP
    /// connections. The default is 1500.
    ///
    /// # Panics
    /// Panics if it is below 576 or above 65535.
    #[track_caller]
    pub fn mtu(self, bytes: u64) -> Link {
        assert!((576..=65_535).contains(&bytes), "an MTU is between 576 and 65535 bytes, not {bytes}");
        self.change(Change::Mtu(bytes))
    }
}
