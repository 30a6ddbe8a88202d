//! Luck with a seed, and many runs on all cores.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Poisson, StandardNormal};

pub struct Dice(SmallRng);

impl Dice {
    /// 0 to 1, without both.
    pub fn part(&mut self) -> f64 {
        self.0.random::<f64>().max(f64::MIN_POSITIVE)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0.random_range(0..limit)
    }

    pub fn hits(&mut self, probability: f64) -> bool {
        self.part() < probability
    }

    /// How many requests from now the next one with this probability is: 1 is the very next.
    pub fn gap(&mut self, probability: f64) -> u64 {
        if probability >= 1.0 {
            return 1;
        }
        if probability <= 0.0 {
            return u64::MAX / 4;
        }
        1 + (self.part().ln() / (-probability).ln_1p()) as u64
    }

    pub fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.0)
    }

    pub fn poisson(&mut self, mean: f64) -> usize {
        Poisson::new(mean).expect("the mean is a positive constant").sample(&mut self.0) as usize
    }

    /// How many of so many trials hit.
    pub fn binomial(&mut self, trials: u64, probability: f64) -> u64 {
        let (mut hits, mut at) = (0, self.gap(probability));
        while at <= trials {
            hits += 1;
            at += self.gap(probability);
        }
        hits
    }
}

/// Results of so many runs. Each has dice of its own, so they do not depend on the number of cores.
pub fn runs<T: Send>(number: usize, seed: u64, run: impl Fn(&mut Dice) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(number);
    let part = number.div_ceil(cores);
    let of = |core: usize| {
        let dice = |at| Dice(SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(at as u64)));
        (core * part..((core + 1) * part).min(number)).map(|at| run(&mut dice(at))).collect::<Vec<_>>()
    };
    let of = &of;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..cores).map(|core| scope.spawn(move || of(core))).collect();
        all.into_iter().flat_map(|one| one.join().expect("a run does not panic")).collect()
    })
}
