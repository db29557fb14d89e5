//! The order of servers in MX and SRV records.
//!
//! Servers of the same preference (MX) or priority (SRV) are in a random order, so that clients
//! share the load (RFC 5321, section 5.1; RFC 2782). With SRV records, the probability that a
//! server is first is proportional to its weight.
//!
//! The random numbers are seeded with the keys of a `HashMap`'s hasher. In a simulation, these
//! keys, and thus the random numbers, depend only on the seed of the simulation.
//!
//! # Compared with Go (net/dnsclient.go: `byPref`, `byPriorityWeight`)
//! Go chooses one server after the other, with a probability proportional to its weight. Here, each
//! server gets a random time, distributed exponentially with the weight as the rate, and the
//! servers are sorted by this time. The order has the same distribution. One sort is sufficient,
//! even if a server sends thousands of records.

use std::hash::{BuildHasher, RandomState};

use super::{Mx, Srv};

/// The weight that is used in place of 0. RFC 2782 gives servers of weight 0 a very small chance to
/// be chosen before others. Among themselves, they have equal chances.
const ZERO: f64 = 0.01;

/// A generator of random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn new() -> Random {
        Random(RandomState::new().hash_one(()))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number greater than 0 and less than 1.
    fn fraction(&mut self) -> f64 {
        ((self.next() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }
}

/// Orders mail servers by ascending preference, and randomly within a preference.
pub(super) fn order_mx(servers: &mut [Mx]) {
    let mut random = Random::new();
    servers.sort_by_cached_key(|mx| (mx.preference, random.next()));
}

/// Orders servers by ascending priority, and within a priority in a random order by weight.
pub(super) fn order_srv(servers: &mut [Srv]) {
    let mut random = Random::new();
    servers.sort_by_cached_key(|srv| {
        let weight = if srv.weight == 0 { ZERO } else { f64::from(srv.weight) };
        let time = -random.fraction().ln() / weight;
        // The bits of positive numbers have the order of the numbers.
        (srv.priority, time.to_bits())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDS: usize = 4000;

    /// Orders `servers` (name, priority, weight), and returns the names.
    fn srv(servers: &[(&str, u16, u16)]) -> Vec<String> {
        let srv = |&(target, priority, weight): &(&str, _, _)| Srv { priority, weight, port: 1, target: target.into() };
        let mut servers: Vec<_> = servers.iter().map(srv).collect();
        order_srv(&mut servers);
        servers.into_iter().map(|srv| srv.target).collect()
    }

    /// Returns in how many of `ROUNDS` orders each of two servers is first.
    fn firsts(round: impl Fn() -> Vec<String>) -> [usize; 2] {
        let orders: Vec<_> = (0..ROUNDS).map(|_| round()).collect();
        ["a", "b"].map(|name| orders.iter().filter(|order| order[0] == name).count())
    }

    /// The limits of this test and of the next one are more than ten standard deviations away from
    /// the expected values.
    #[test]
    fn servers_of_equal_preference_share_the_load() {
        let mx = || {
            let mx = |(preference, host): (u16, &str)| Mx { preference, host: host.to_owned() };
            let mut servers: Vec<_> = [(20, "last"), (10, "a"), (10, "b"), (5, "a"), (5, "b")].map(mx).into();
            order_mx(&mut servers);
            assert!(servers.is_sorted_by_key(|mx| mx.preference));
            servers.into_iter().map(|mx| mx.host).collect()
        };
        let [a, b] = firsts(mx);
        assert!(a + b == ROUNDS && a.abs_diff(b) < ROUNDS / 5, "{a} {b}");
    }

    #[test]
    fn weight_is_the_share_of_first_places() {
        let [a, b] = firsts(|| srv(&[("a", 1, 1), ("b", 1, 3)]));
        assert!(a + b == ROUNDS && a.abs_diff(ROUNDS / 4) < ROUNDS / 12, "{a} {b}");
        let [a, b] = firsts(|| srv(&[("a", 1, 0), ("b", 1, 0)]));
        assert!(a + b == ROUNDS && a.abs_diff(b) < ROUNDS / 5, "{a} {b}");
        let [a, b] = firsts(|| srv(&[("a", 1, 0), ("b", 1, 10)]));
        assert!(a + b == ROUNDS && a < ROUNDS / 20, "{a} {b}");
        let [a, b] = firsts(|| srv(&[("b", 2, u16::MAX), ("a", 1, 0)]));
        assert_eq!([a, b], [ROUNDS, 0], "the priority is decisive");
    }

    #[test]
    fn fractions_are_between_zero_and_one() {
        for state in [0, 1, u64::MAX, 0x9e37_79b9_7f4a_7c15_u64.wrapping_neg()] {
            let fraction = Random(state).fraction();
            assert!(0.0 < fraction && fraction < 1.0, "{fraction}");
        }
        for bits in [0, u64::MAX >> 12] {
            let fraction = (bits as f64 + 0.5) / (1u64 << 52) as f64;
            assert!(0.0 < fraction && fraction < 1.0 && -fraction.ln() > 0.0, "{fraction}");
        }
    }
}
