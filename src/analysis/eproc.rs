//! The one-sided betting test that everything else is made of.

use serde::{Deserialize, Serialize};

/// Odds ratios that are bet on against a version, in equal parts.
const AGAINST: [f64; 8] = [1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0];
/// Odds ratios that are bet on for it.
const IN_FAVOUR: [f64; 5] = [1.5, 2.0, 4.0, 16.0, 1024.0];
/// What one bet may hold at most: bounds the memory of old evidence, and only ever lowers the value.
const CAP: f64 = 1e4;

/// What is bet on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grid {
    /// The event is more likely than it may be, from some unknown moment on: the stake is spread over all of them.
    Against,
    /// The event has been more likely from the first observation on.
    InFavour,
}

/// Tests "P(y = 1 | past) <= p0" for observations whose p0 is known before y. With odds ratios r:
///
/// ```text
/// L(1) = r / (1 - p0 + p0 r)    L(0) = 1 / (1 - p0 + p0 r)
/// S(t) = min(CAP, (S(t-1) + w(t)) L(y))    value = mean of S + stake not yet placed
/// ```
///
/// w(t) is the prior mass of "it begins with observation t": the dyadic epoch j = floor(log2 t) has 1/((j+1)(j+2)),
/// spread evenly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EProc {
    grid: Grid,
    held: Vec<f64>,
    observations: u64,
}

impl EProc {
    pub fn new(grid: Grid) -> EProc {
        let held = match grid {
            Grid::Against => vec![0.0; AGAINST.len()],
            Grid::InFavour => vec![1.0; IN_FAVOUR.len()],
        };
        EProc { grid, held, observations: 0 }
    }

    /// One observation.
    pub fn update(&mut self, happened: bool, p0: f64) {
        self.observations += 1;
        let stake = match self.grid {
            Grid::Against => stake(self.observations),
            Grid::InFavour => 0.0,
        };
        for (held, ratio) in self.held.iter_mut().zip(ratios(self.grid)) {
            let lost = 1.0 / (1.0 - p0 + p0 * ratio);
            *held = CAP.min((*held + stake) * if happened { lost * ratio } else { lost });
        }
    }

    /// `many` observations in which the event did not happen, as if they came one by one: a closed form for each
    /// dyadic epoch.
    pub fn zeros(&mut self, mut many: u64, p0: f64) {
        match self.grid {
            Grid::InFavour => {
                for (held, ratio) in self.held.iter_mut().zip(ratios(self.grid)) {
                    *held *= (-(many as f64) * (p0 * (ratio - 1.0)).ln_1p()).exp();
                }
                self.observations += many;
            }
            Grid::Against => {
                while many > 0 {
                    let epoch_end = (1_u64 << (epoch(self.observations + 1) + 1)) - 1;
                    let take = many.min(epoch_end - self.observations);
                    let stake = stake(self.observations + 1);
                    for (held, ratio) in self.held.iter_mut().zip(ratios(self.grid)) {
                        let log = -(p0 * (ratio - 1.0)).ln_1p();
                        let gone = -(take as f64 * log).exp_m1();
                        // The geometric sum of what is left of each stake; with p0 = 0 nothing is lost.
                        let kept = if log < 0.0 { log.exp() / -log.exp_m1() * gone } else { take as f64 };
                        *held = CAP.min(*held * (1.0 - gone) + stake * kept);
                    }
                    self.observations += take;
                    many -= take;
                }
            }
        }
    }

    /// `ones` of `all` observations whose order is not known, counted by a clock that does not depend on them.
    pub fn batch(&mut self, ones: u64, all: u64, p0: f64) {
        if all == 0 {
            return;
        }
        let stake = match self.grid {
            Grid::Against => left(self.observations) - left(self.observations + all),
            Grid::InFavour => 0.0,
        };
        for (held, ratio) in self.held.iter_mut().zip(ratios(self.grid)) {
            let log = -(p0 * (ratio - 1.0)).ln_1p();
            let placed = *held + stake;
            // A bet that has lost everything wins nothing, however large the odds.
            *held =
                if placed > 0.0 { CAP.min(placed * (ones as f64 * ratio.ln() + all as f64 * log).exp()) } else { 0.0 };
        }
        self.observations += all;
    }

    /// The capital: 1 at first. At least x only with probability 1/x, ever, if the hypothesis holds.
    pub fn value(&self) -> f64 {
        let mean = self.held.iter().sum::<f64>() / self.held.len() as f64;
        match self.grid {
            Grid::Against => mean + left(self.observations),
            Grid::InFavour => mean,
        }
    }

    pub fn observations(&self) -> u64 {
        self.observations
    }
}

/// The probability that an event is the canary's if its rate is exactly `ratio` times stable's and it has the
/// share `pi` of the traffic.
pub fn theta0(pi: f64, ratio: f64) -> f64 {
    pi * ratio / (pi * ratio + 1.0 - pi)
}

fn ratios(grid: Grid) -> &'static [f64] {
    match grid {
        Grid::Against => &AGAINST,
        Grid::InFavour => &IN_FAVOUR,
    }
}

fn epoch(observation: u64) -> u32 {
    observation.ilog2()
}

fn stake(observation: u64) -> f64 {
    let epoch = epoch(observation);
    let j = f64::from(epoch);
    1.0 / ((j + 1.0) * (j + 2.0) * (1_u64 << epoch) as f64)
}

/// The stake that is not placed yet.
fn left(observations: u64) -> f64 {
    if observations == 0 {
        return 1.0;
    }
    let epoch = epoch(observations);
    1.0 / (f64::from(epoch) + 1.0) - (observations - (1 << epoch) + 1) as f64 * stake(observations)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(one: f64, other: f64) -> bool {
        (one - other).abs() <= 1e-9 * one.abs().max(other.abs()).max(1e-300)
    }

    #[test]
    fn under_the_hypothesis_the_value_is_one_on_average() {
        for grid in [Grid::Against, Grid::InFavour] {
            for p0 in [0.001, 0.05, 0.5] {
                let mut mean = 0.0;
                for outcomes in 0..1_u32 << 12 {
                    let mut test = EProc::new(grid);
                    let mut probability = 1.0;
                    for at in 0..12 {
                        let happened = outcomes >> at & 1 == 1;
                        probability *= if happened { p0 } else { 1.0 - p0 };
                        test.update(happened, p0);
                    }
                    mean += probability * test.value();
                }
                // Clipping only lowers it, and does not happen where a bet can at most double.
                assert!(mean <= 1.0 + 1e-9, "{grid:?} {p0}: {mean}");
                assert!(p0 < 0.5 || mean > 1.0 - 1e-9, "{grid:?} {p0}: {mean}");
            }
        }
    }

    proptest! {
        #[test]
        fn many_zeros_at_once_are_those_one_by_one(
            before in prop::collection::vec(any::<bool>(), 0..40), many in 0_u64..3000, p0 in 0.0001_f64..0.6,
        ) {
            for grid in [Grid::Against, Grid::InFavour] {
                let mut one = EProc::new(grid);
                before.iter().for_each(|happened| one.update(*happened, p0));
                let mut all = one.clone();
                (0..many).for_each(|_| one.update(false, p0));
                all.zeros(many, p0);
                prop_assert!(close(one.value(), all.value()), "{} {}", one.value(), all.value());
                prop_assert_eq!(one.observations(), all.observations());
            }
        }

        #[test]
        fn what_was_kept_goes_on_to_the_bit(seen in prop::collection::vec(any::<bool>(), 0..60), p0 in 0.001_f64..0.9) {
            let mut test = EProc::new(Grid::Against);
            seen.iter().for_each(|happened| test.update(*happened, p0));
            let text = serde_json::to_string(&test).expect("numbers");
            let mut again: EProc = serde_json::from_str(&text).expect("what was written");
            again.update(true, p0);
            test.update(true, p0);
            prop_assert_eq!(test, again);
        }
    }

    #[test]
    fn a_bet_that_has_lost_everything_stays_lost() {
        let mut test = EProc::new(Grid::InFavour);
        test.zeros(700, 0.9);
        test.batch(6_800, 6_800, 0.9);
        assert!(test.value() < 1.0, "{}", test.value());
    }

    #[test]
    fn what_cannot_happen_and_does_not_says_nothing() {
        let mut test = EProc::new(Grid::Against);
        test.zeros(5_000, 0.0);
        assert!((test.value() - 1.0).abs() < 1e-9, "{}", test.value());
    }

    #[test]
    fn nothing_makes_it_anything_but_a_number() {
        let mut test = EProc::new(Grid::Against);
        test.zeros(u64::from(u32::MAX), 0.001);
        test.batch(1_000_000, 1_000_000, 0.05);
        (0..10_000).for_each(|_| test.update(true, 1e-6));
        assert!(test.value().is_finite() && test.value() > 0.0, "{}", test.value());
    }
}
