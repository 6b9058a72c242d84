//! Chance that comes out the same each time, and popularity.

/// `SplitMix64` (Steele, Lea and Flood 2014).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn seeded(seed: usize) -> Self {
        Self(seed as u64)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `sides`.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        usize::try_from(self.next() % sides as u64).expect("below a usize")
    }

    /// One of `from` to `to`, both included.
    pub(crate) fn between(&mut self, from: usize, to: usize) -> usize {
        from + self.roll(to - from + 1)
    }
}

/// Zipf's law: the second of a town writes half as much as the first, the third a third.
pub(crate) struct Popularity(Vec<u64>);

impl Popularity {
    pub(crate) fn among(people: usize) -> Self {
        let weights = (1..=people as u64).map(|rank| 1_000_000_000 / rank);
        Self(weights.scan(0, |sum, weight| Some(std::mem::replace(sum, *sum + weight) + weight)).collect())
    }

    /// Somebody, by how much they are heard of.
    pub(crate) fn draw(&self, dice: &mut Dice) -> usize {
        let all = *self.0.last().expect("a town has people");
        let drawn = dice.next() % all;
        self.0.partition_point(|sum| *sum <= drawn)
    }
}
