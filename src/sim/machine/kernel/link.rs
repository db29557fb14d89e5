//! `Link`: one direction of the path between two hosts.
//!
//! Unless a packet is held back or lost, it waits behind the packets being sent (bandwidth and
//! queue), travels for the latency, and arrives. Packets of a link arrive in the order in which
//! they were sent, as on a single path. There are two exceptions. A reordered packet may be
//! overtaken by later packets and, if the latency varies, may overtake earlier ones. A duplicate
//! has its own latency.

use std::ops::RangeInclusive;

use super::packet::Packet;
use super::random::Random;

/// The travel time of packets, in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Latency {
    /// Each value of the range has the same probability.
    Uniform(RangeInclusive<u64>),
    /// The sum of `min` and an exponentially distributed time with the mean `mean - min`. Most
    /// packets are fast, and a few are very late.
    Exponential { min: u64, mean: u64 },
}

impl Latency {
    fn draw(&self, random: &mut Random) -> u64 {
        match self {
            Latency::Uniform(range) if range.start() == range.end() => *range.start(),
            Latency::Uniform(range) => random.within(range),
            Latency::Exponential { min, mean } => {
                let tail = mean.saturating_sub(*min) as f64 * -(1.0 - random.unit()).ln();
                min.saturating_add(tail as u64)
            }
        }
    }
}

/// The properties of a link.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LinkConfig {
    pub(crate) latency: Latency,
    /// The probability that a packet is lost.
    pub(crate) loss: f64,
    /// The probability that a packet arrives twice.
    pub(crate) duplicate: f64,
    /// The probability that a packet is late by up to `reorder_by` nanoseconds, so that later
    /// packets may overtake it.
    pub(crate) reorder: f64,
    pub(crate) reorder_by: u64,
    /// The bandwidth in bits per second, or 0 for no limit.
    pub(crate) bandwidth: u64,
    /// The maximum number of bytes that wait to be sent. A packet that is longer than this is sent
    /// only if no bytes wait. Used only with a bandwidth.
    pub(crate) queue: u64,
    /// The maximum size of an IP packet in bytes. Larger TCP segments are lost. Larger datagrams
    /// travel as one packet.
    pub(crate) mtu: u64,
}

impl LinkConfig {
    /// Returns the properties of a healthy local network: a latency of 100 to 200 µs and no loss.
    pub(crate) const fn new() -> LinkConfig {
        LinkConfig {
            latency: Latency::Uniform(100_000..=200_000),
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: 10_000_000,
            bandwidth: 0,
            queue: 256 << 10,
            mtu: 1500,
        }
    }

    /// Returns the properties of the path within a host: a latency of 5 µs and packets of up to 64
    /// KiB.
    pub(crate) const fn loopback() -> LinkConfig {
        LinkConfig { latency: Latency::Uniform(5_000..=5_000), mtu: 65_536, ..LinkConfig::new() }
    }
}

/// The reason why a packet does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    Loss,
    Queue,
    Partition,
    /// The receiving host is down.
    Down,
    /// The packet is a TCP segment that is larger than the link's MTU.
    Size,
}

/// The fate of a packet when it is sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Dropped(Dropped),
    /// The packet is held back until the link is released.
    Held,
    /// The packet arrives at the first time, and its duplicate, if there is one, at the second.
    Arrives(u64, Option<u64>),
}

/// One direction of a path; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) config: LinkConfig,
    pub(crate) is_partitioned: bool,
    /// The packets that are held back, or `None` if the link is not held.
    pub(crate) held: Option<Vec<Packet>>,
    /// The time at which the last byte of the last packet leaves the sender. Used only with a
    /// bandwidth.
    busy_until: u64,
    /// The time at which the last packet that was not reordered arrives.
    last_arrival: u64,
}

impl Link {
    pub(crate) fn new(config: LinkConfig) -> Link {
        Link { config, is_partitioned: false, held: None, busy_until: 0, last_arrival: 0 }
    }

    /// Sends a packet of `length` bytes at the time `now` and returns its fate. `happens` decides
    /// whether a fault that was drawn takes place.
    pub(crate) fn send(
        &mut self,
        now: u64,
        length: u64,
        random: &mut Random,
        happens: &mut dyn FnMut(&str) -> bool,
    ) -> Sent {
        let config = &self.config;
        if self.is_partitioned {
            return Sent::Dropped(Dropped::Partition);
        }
        if self.held.is_some() {
            return Sent::Held;
        }
        if random.chance(config.loss) && happens("packet lost") {
            return Sent::Dropped(Dropped::Loss);
        }
        let mut leaves = now;
        if config.bandwidth > 0 {
            let begins = now.max(self.busy_until);
            let bits = u128::from(begins - now) * u128::from(config.bandwidth) / 1_000_000_000;
            if bits / 8 + u128::from(length) > u128::from(config.queue.max(length)) {
                return Sent::Dropped(Dropped::Queue);
            }
            leaves = begins.saturating_add((u128::from(length) * 8_000_000_000 / u128::from(config.bandwidth)) as u64);
            self.busy_until = leaves;
        }
        let arrival = leaves.saturating_add(config.latency.draw(random));
        let arrival = if random.chance(config.reorder) && happens("packet overtaken") {
            arrival.saturating_add(random.within(&(0..=config.reorder_by)))
        } else {
            self.last_arrival = self.last_arrival.max(arrival);
            self.last_arrival
        };
        let is_twice = random.chance(config.duplicate) && happens("packet duplicated");
        let twin = is_twice.then(|| leaves.saturating_add(config.latency.draw(random)));
        Sent::Arrives(arrival, twin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn link(change: impl FnOnce(&mut LinkConfig)) -> (Link, Random) {
        let mut config = LinkConfig { latency: Latency::Uniform(MS..=MS), ..LinkConfig::new() };
        change(&mut config);
        (Link::new(config), Random::new(1, 1))
    }

    #[test]
    fn packet_arrives_after_the_latency() {
        let (mut link, mut random) = link(|_| ());
        assert_eq!(link.send(5, 100, &mut random, &mut |_| true), Sent::Arrives(5 + MS, None));
    }

    #[test]
    fn jitter_does_not_reorder() {
        let (mut link, mut random) = link(|config| config.latency = Latency::Uniform(MS..=9 * MS));
        let mut last = 0;
        for now in 0..1000 {
            let Sent::Arrives(at, None) = link.send(now, 100, &mut random, &mut |_| true) else { panic!("lost") };
            assert!(at >= last && (now + MS..=now + 9 * MS + 1000).contains(&at));
            last = at;
        }
    }

    #[test]
    fn reordered_packets_are_overtaken() {
        let (mut link, mut random) = link(|config| config.reorder = 0.2);
        let mut last = 0;
        let overtaken = (0..1000).filter(|&now| {
            let Sent::Arrives(at, _) = link.send(now * 1000, 100, &mut random, &mut |_| true) else { panic!("lost") };
            let is_late = at < last;
            last = last.max(at);
            is_late
        });
        assert!(overtaken.count() > 100);
    }

    #[test]
    fn losses_and_duplicates_have_their_rates() {
        let (mut link, mut random) = link(|config| (config.loss, config.duplicate) = (0.1, 0.2));
        let (mut lost, mut twice) = (0, 0);
        for now in 0..10_000 {
            match link.send(now, 100, &mut random, &mut |_| true) {
                Sent::Dropped(Dropped::Loss) => lost += 1,
                Sent::Arrives(_, twin) => twice += u32::from(twin.is_some()),
                other => panic!("{other:?}"),
            }
        }
        assert!((900..1100).contains(&lost) && (1650..1950).contains(&twice), "{lost} {twice}");
    }

    #[test]
    fn bandwidth_delays_and_queue_drops() {
        // A packet of 1000 bytes takes 8 ms; the queue has room for two.
        let (mut link, mut random) = link(|config| (config.bandwidth, config.queue) = (1_000_000, 2000));
        let sent: Vec<_> = (0..4).map(|_| link.send(0, 1000, &mut random, &mut |_| true)).collect();
        assert_eq!(sent[..2], [Sent::Arrives(9 * MS, None), Sent::Arrives(17 * MS, None)]);
        assert_eq!(sent[2..], [Sent::Dropped(Dropped::Queue), Sent::Dropped(Dropped::Queue)]);
        assert_eq!(
            link.send(20 * MS, 1000, &mut random, &mut |_| true),
            Sent::Arrives(29 * MS, None),
            "the queue is empty again"
        );
    }

    #[test]
    fn partition_drops_and_hold_keeps() {
        let (mut link, mut random) = link(|_| ());
        link.held = Some(Vec::new());
        assert_eq!(link.send(0, 1, &mut random, &mut |_| true), Sent::Held);
        link.is_partitioned = true;
        assert_eq!(link.send(0, 1, &mut random, &mut |_| true), Sent::Dropped(Dropped::Partition));
    }

    #[test]
    fn exponential_latency_has_its_minimum_and_mean() {
        let (link, mut random) = link(|config| config.latency = Latency::Exponential { min: MS, mean: 3 * MS });
        let draws: Vec<_> = (0..10_000).map(|_| link.config.latency.draw(&mut random)).collect();
        let mean = draws.iter().sum::<u64>() / draws.len() as u64;
        assert!(draws.iter().all(|&draw| draw >= MS));
        assert!((28 * MS / 10..32 * MS / 10).contains(&mean), "{mean}");
    }
}
