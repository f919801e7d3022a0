//! Randomness: one stream for each purpose, so that drawing more for one leaves the others as they were.

use rand::{Rng, RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// A stream of randomness. The algorithm is fixed for ever: seeds outlive this crate's dependencies.
#[derive(Debug, Clone)]
pub struct Stream(Xoshiro256PlusPlus);

impl Stream {
    /// The stream of a purpose (`plan`, `links`, `node`…) and a number within it, for a seed.
    pub fn new(seed: u64, purpose: &str, number: u64) -> Self {
        // FNV-1a over the purpose: any fixed mixing will do, since the generator's own seeding mixes again.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in purpose.bytes().chain(number.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Stream(Xoshiro256PlusPlus::seed_from_u64(seed ^ hash))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from 0 up to below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.0.random_range(0..end) }
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high.max(low))
    }

    /// A number from `low` to `high`, evenly by order of magnitude.
    pub fn log_between(&mut self, low: u64, high: u64) -> u64 {
        let (low_ln, high_ln) = ((low.max(1) as f64).ln(), (high.max(1) as f64).ln());
        (low_ln + (high_ln - low_ln) * self.unit()).exp().round() as u64
    }

    /// A number from 0 up to below 1.
    pub fn unit(&mut self) -> f64 {
        self.0.random()
    }

    /// Whether something of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.unit() < probability
    }

    /// One of `items`, which is not empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// A wait of this mean, memoryless, of at most ten times the mean.
    pub fn wait(&mut self, mean: u64) -> u64 {
        let wait = -(1.0 - self.unit()).ln() * mean as f64;
        (wait as u64).min(mean.saturating_mul(10))
    }
}
