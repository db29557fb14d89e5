//! `Draw`: the random decisions of a program, which depend only on its seed.

/// A source of random numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// Returns source number `stream` of a seed. Sources with different numbers are independent.
    pub fn new(seed: u64, stream: u64) -> Draw {
        let mut draw = Draw(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        draw.next();
        draw
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number less than `bound`, or 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Returns a number from `low` to `high`, inclusive. All orders of magnitude are about equally
    /// likely.
    pub fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let bits = |value: u64| u64::from(64 - value.leading_zeros());
        let width = bits(low) + self.below(bits(high) - bits(low) + 1);
        let most = if width >= 64 { u64::MAX } else { (1 << width) - 1 };
        self.below(most.saturating_add(1)).clamp(low, high)
    }

    /// Returns true with a probability of 1 in `count`.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Returns one of the values, all of which are equally likely.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}
