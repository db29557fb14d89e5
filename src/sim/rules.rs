//! Settings of links: units, latencies, and rules that also apply to the links of hosts that are
//! added later.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::machine::kernel::Kernel;
use super::machine::kernel::link::Latency as Travel;
use super::machine::kernel::socket::HostId;

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

/// The travel time of packets: a fixed duration, a range from which a duration is drawn for each
/// packet, or a distribution.
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

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

impl Latency {
    /// Returns an exponential distribution with the minimum `min` and the mean `mean`: most packets
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
    Partitioned(bool),
    Held(bool),
    Latency(Travel),
    Loss(f64),
    Duplicate(f64),
    Reorder(f64, u64),
    Bandwidth(u64),
    Queue(u64),
    Mtu(u64),
}

impl Change {
    fn apply(&self, kernel: &mut Kernel, from: HostId, to: HostId) {
        let link = kernel.link_mut(from, to);
        let config = &mut link.config;
        match self {
            Change::Partitioned(is_partitioned) => link.is_partitioned = *is_partitioned,
            Change::Held(true) => drop(link.held.get_or_insert_default()),
            Change::Held(false) => kernel.release(from, to),
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

/// A change to the links from one host to another. `None` stands for all hosts, including those
/// added later.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) from: Option<HostId>,
    pub(super) to: Option<HostId>,
    pub(super) change: Change,
}

impl Rule {
    fn concerns(&self, from: HostId, to: HostId) -> bool {
        from != to && self.from.is_none_or(|id| id == from) && self.to.is_none_or(|id| id == to)
    }
}

/// Adds a rule for hosts that are added later. Removes the rules that the new rule overrides
/// completely, so that their number stays bounded however many changes a test makes.
pub(super) fn add(rules: &mut Vec<Rule>, rule: Rule) {
    let covers = |of: Option<HostId>, other: Option<HostId>| of.is_none() || of == other;
    rules.retain(|old| {
        let is_same = std::mem::discriminant(&old.change) == std::mem::discriminant(&rule.change);
        !(is_same && covers(rule.from, old.from) && covers(rule.to, old.to))
    });
    // A rule that names two hosts does not apply to hosts added later, so it is not kept.
    if rule.from.is_none() || rule.to.is_none() {
        rules.push(rule);
    }
}

/// Applies a rule to the link from one host to another, if the rule concerns that link.
pub(super) fn apply(kernel: &mut Kernel, rule: &Rule, from: HostId, to: HostId) {
    if rule.concerns(from, to) {
        rule.change.apply(kernel, from, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_changes_keep_only_the_last_rule() {
        let rule = |from, to, change| Rule { from, to, change };
        let mut rules = Vec::new();
        for _ in 0..100 {
            add(&mut rules, rule(Some(1), None, Change::Partitioned(true)));
            add(&mut rules, rule(None, None, Change::Loss(0.5)));
            add(&mut rules, rule(None, None, Change::Partitioned(false)));
            add(&mut rules, rule(Some(1), Some(2), Change::Partitioned(true)));
        }
        assert_eq!(rules.len(), 2, "{rules:?}");
    }
}
