//! `Random`: the seeded generator of a simulation.
//!
//! The generator is xoshiro256** (Blackman and Vigna, 2018), seeded with SplitMix64. Each user has
//! its own stream of numbers, derived from the seed and a tag, so that an additional draw for the
//! network does not change the draws for the order of tasks.

use std::ops::RangeInclusive;

/// A seeded random generator; see the [module documentation](self).
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: [u64; 4],
}

/// Advances `state` and returns the output of SplitMix64.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Random {
    /// Creates the generator of stream `tag` of `seed`.
    pub(crate) fn new(seed: u64, tag: u64) -> Random {
        let mut state = seed ^ tag.wrapping_mul(0xd134_2543_de82_ef95);
        Random { state: [(); 4].map(|()| split_mix(&mut state)) }
    }

    pub(crate) fn next(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.state;
        let result = s1.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= shifted;
        *s3 = s3.rotate_left(45);
        result
    }

    /// Returns a number below `bound`, or 0 if `bound` is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The relative bias of a single multiplication is below 2⁻³² for bounds below 2³².
        ((u128::from(self.next()) * u128::from(bound.max(1))) >> 64) as u64
    }

    /// Returns a number in `range`.
    pub(crate) fn within(&mut self, range: &RangeInclusive<u64>) -> u64 {
        let width = range.end().saturating_sub(*range.start());
        range.start() + self.below(width.saturating_add(1))
    }

    /// Returns a number x with 0 ≤ x < 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns true with probability `rate`. Draws nothing if the rate is 0 or 1.
    pub(crate) fn chance(&mut self, rate: f64) -> bool {
        rate > 0.0 && (rate >= 1.0 || self.unit() < rate)
    }

    /// Fills `bytes` with random data.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_and_tag_give_the_same_numbers() {
        let numbers = |seed, tag| {
            let mut random = Random::new(seed, tag);
            [(); 8].map(|()| random.next())
        };
        assert_eq!(numbers(1, 2), numbers(1, 2));
        assert_ne!(numbers(1, 2), numbers(1, 3));
        assert_ne!(numbers(1, 2), numbers(2, 2));
        assert_ne!(numbers(0, 0), [0; 8]);
    }

    #[test]
    fn draws_stay_within_their_bounds_and_reach_them() {
        let mut random = Random::new(7, 0);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[random.below(5) as usize] = true;
            assert!((10..=12).contains(&random.within(&(10..=12))));
            assert!((0.0..1.0).contains(&random.unit()));
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!((random.below(0), random.below(1), random.within(&(9..=9))), (0, 0, 9));
        assert!(random.within(&(0..=u64::MAX)) != random.within(&(0..=u64::MAX)));
    }

    #[test]
    fn chances_have_their_rate() {
        let mut random = Random::new(3, 1);
        let mut hits = |rate| (0..10_000).filter(|_| random.chance(rate)).count();
        assert_eq!((hits(0.0), hits(1.0)), (0, 10_000));
        assert!((900..1100).contains(&hits(0.1)));
    }

    #[test]
    fn fill_reaches_the_last_bytes() {
        let mut bytes = [0; 13];
        Random::new(3, 1).fill(&mut bytes);
        assert!(bytes.iter().any(|&byte| byte != 0) && bytes[8..].iter().any(|&byte| byte != 0));
    }
}
