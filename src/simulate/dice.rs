//! Luck with a seed.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Binomial, Distribution, Poisson};

/// Longer than any simulation: "never".
const NEVER: u64 = u64::MAX / 4;

pub struct Dice(SmallRng);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(SmallRng::seed_from_u64(seed))
    }

    /// Above 0, below 1.
    pub fn part(&mut self) -> f64 {
        self.0.random::<f64>().max(f64::MIN_POSITIVE)
    }

    pub fn hits(&mut self, probability: f64) -> bool {
        self.part() < probability
    }

    pub fn below(&mut self, limit: u16) -> u16 {
        self.0.random_range(0..limit.max(1))
    }

    /// How many requests from here the next one that fails is: 1 is the very next.
    pub fn gap(&mut self, rate: f64) -> u64 {
        if rate >= 1.0 {
            return 1;
        }
        if rate <= 0.0 {
            return NEVER;
        }
        1 + (self.part().ln() / (-rate).ln_1p()).min(NEVER as f64) as u64
    }

    pub fn poisson(&mut self, mean: f64) -> u64 {
        match Poisson::new(mean) {
            Ok(poisson) => poisson.sample(&mut self.0) as u64,
            // None come, or more than can be counted: what is expected is near enough.
            Err(_) => mean.max(0.0) as u64,
        }
    }

    pub fn binomial(&mut self, trials: u64, probability: f64) -> u64 {
        match Binomial::new(trials, probability.clamp(0.0, 1.0)) {
            Ok(binomial) => binomial.sample(&mut self.0).min(trials),
            Err(_) => (trials as f64 * probability) as u64,
        }
    }
}
