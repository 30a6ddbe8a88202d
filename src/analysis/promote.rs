//! Evidence that the canary is good, which is more than no evidence that it is bad.

use serde::{Deserialize, Serialize};

use super::{Arm, EProc, Grid, theta0};

/// At most 1 in 20 unacceptable canaries passes a stage.
const PROVEN_AT: f64 = 20.0;

/// Rejects both "its rate is at least the limit" and "its rate is at least `rho` times stable's". One per stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromoteGate {
    slo: f64,
    rho: f64,
    absolute: EProc,
    relative: EProc,
}

impl PromoteGate {
    pub fn new(slo: f64, rho: f64) -> PromoteGate {
        PromoteGate { slo, rho, absolute: EProc::new(Grid::InFavour), relative: EProc::new(Grid::InFavour) }
    }

    pub fn succeeded(&mut self, arm: Arm, requests: u64) {
        match arm {
            // A success is what is bet on, so many of them are a batch of ones.
            Arm::Canary => self.absolute.batch(requests, requests, 1.0 - self.slo),
            Arm::Stable => {}
        }
    }

    pub fn failed(&mut self, arm: Arm, pi: f64) {
        if arm == Arm::Canary {
            self.absolute.update(false, 1.0 - self.slo);
        }
        if pi > 0.0 && pi < 1.0 {
            self.relative.update(arm == Arm::Stable, 1.0 - theta0(pi, self.rho));
        }
    }

    pub fn value(&self) -> f64 {
        let (absolute, relative) = self.values();
        (absolute + relative) / 2.0
    }

    /// Of both tests: inside the limit, and no worse than stable.
    pub fn values(&self) -> (f64, f64) {
        (self.absolute.value(), self.relative.value())
    }

    pub fn proven(&self) -> bool {
        self.value() >= PROVEN_AT
    }
}

/// Rejects "less than the share `quantile` of its requests is inside the time limit".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuickEnough {
    quantile: f64,
    test: EProc,
}

impl QuickEnough {
    pub fn new(quantile: f64) -> QuickEnough {
        QuickEnough { quantile, test: EProc::new(Grid::InFavour) }
    }

    pub fn batch(&mut self, within: u64, all: u64) {
        self.test.batch(within, all, self.quantile);
    }

    pub fn value(&self) -> f64 {
        self.test.value()
    }

    pub fn proven(&self) -> bool {
        self.value() >= PROVEN_AT
    }
}

/// How many requests without a failure prove that fewer than the part `errors_below` fail.
pub fn requests_needed(errors_below: f64) -> u64 {
    fewest(|clean| {
        let mut gate = PromoteGate::new(errors_below, 1.0);
        gate.succeeded(Arm::Canary, clean);
        gate.proven()
    })
}

/// How many requests, all of them inside the time limit, prove that at least the part `quantile` of all is.
pub fn fast_requests_needed(quantile: f64) -> u64 {
    fewest(|fast| {
        let mut test = QuickEnough::new(quantile);
        test.batch(fast, fast);
        test.proven()
    })
}

/// The least number that is enough, where more is never less.
fn fewest(is_enough: impl Fn(u64) -> bool) -> u64 {
    let (mut little, mut enough) = (0, 1);
    // Beyond that nothing is ever proven: such a promise is no rate.
    while !is_enough(enough) && enough < 1 << 50 {
        (little, enough) = (enough, enough * 2);
    }
    while enough - little > 1 {
        let middle = little + (enough - little) / 2;
        if is_enough(middle) { enough = middle } else { little = middle }
    }
    enough
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_of_one_in_a_thousand_takes_4466_clean_requests() {
        let mut gate = PromoteGate::new(0.001, 1.5);
        gate.succeeded(Arm::Canary, 4465);
        assert!(!gate.proven(), "{}", gate.value());
        gate.succeeded(Arm::Canary, 1);
        assert!(gate.proven(), "{}", gate.value());
    }

    #[test]
    fn a_promise_says_how_many_requests_it_takes() {
        assert_eq!(requests_needed(0.001), 4_466);
        for rate in [0.00001, 0.0005, 0.01, 0.5] {
            let needed = requests_needed(rate);
            assert!(needed as f64 * rate > 1.0 && needed as f64 * rate < 20.0, "{rate}: {needed}");
        }
        let fast = [0.5, 0.95, 0.99].map(fast_requests_needed);
        assert!(fast.is_sorted() && fast[0] > 2 && fast[2] < 1_000, "{fast:?}");
        let mut test = QuickEnough::new(0.95);
        test.batch(fast[1] - 1, fast[1] - 1);
        assert!(!test.proven(), "one fewer is not enough");
    }

    #[test]
    fn failures_of_the_canary_take_the_proof_away() {
        let mut gate = PromoteGate::new(0.001, 1.5);
        gate.succeeded(Arm::Canary, 5_000);
        (0..5).for_each(|_| gate.failed(Arm::Canary, 0.05));
        assert!(!gate.proven(), "{}", gate.value());
    }

    #[test]
    fn fast_requests_prove_that_it_is_fast_and_slow_ones_do_not() {
        let mut quick = QuickEnough::new(0.95);
        quick.batch(1_000, 1_000);
        assert!(quick.proven());
        let mut slow = QuickEnough::new(0.95);
        slow.batch(930, 1_000);
        assert!(!slow.proven());
    }
}
