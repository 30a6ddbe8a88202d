//! Does the canary fail too often? Two tests must both say so: more than the limit, and more than stable.

use serde::{Deserialize, Serialize};

use super::{Arm, Counts, EProc, Grid, theta0};

/// The error rule in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ErrorLimits {
    /// The rate of failures that is too much, 0 to 1.
    pub slo: f64,
    /// How many times stable's rate is tolerated.
    pub rho: f64,
    /// Roll back when both tests hold this much. 200: in 1 of 100 healthy rollouts at most, half of that in the
    /// stages with a stable to compare with and half at 100 %.
    pub rollback_at: f64,
    /// Promote nothing from here on.
    pub hold_at: f64,
}

impl Default for ErrorLimits {
    fn default() -> ErrorLimits {
        ErrorLimits { slo: 0.001, rho: 1.25, rollback_at: 200.0, hold_at: 20.0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Continue,
    Hold(HoldReason),
    RollBack,
}

/// Why nothing is promoted although nothing is rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldReason {
    /// Both tests lean against the canary.
    Pending,
    /// The limit is broken, but stable is no better: a shared incident.
    Absolute,
    /// Worse than stable, yet inside the limit.
    Relative,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ErrorMeters {
    pub e_abs: f64,
    pub e_rel: f64,
    /// While the canary has everything: the only test then.
    pub e_bake: Option<f64>,
    pub bake_limit: f64,
    pub canary: Counts,
    pub stable: Counts,
}

/// The error rule of one rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorJudge {
    limits: ErrorLimits,
    absolute: EProc,
    relative: EProc,
    bake: Option<EProc>,
    bake_limit: f64,
    share: f64,
    canary: Counts,
    stable: Counts,
}

/// The limit while there is no stable traffic to compare with: `slo` if stable kept well inside it, else what
/// stable certainly did not exceed, times `rho` (Poisson upper bound at z = 3).
pub fn bake_limit(slo: f64, rho: f64, failed: u64, total: u64) -> f64 {
    let (failed, total) = (failed as f64, total as f64);
    if total == 0.0 || failed / total <= slo / 2.0 {
        return slo;
    }
    let bound = (failed + 4.5 + 3.0 * (failed + 2.25).sqrt()) / total;
    slo.max((rho * bound).min(0.5))
}

impl ErrorJudge {
    pub fn new(limits: ErrorLimits) -> ErrorJudge {
        ErrorJudge {
            limits,
            absolute: EProc::new(Grid::Against),
            relative: EProc::new(Grid::Against),
            bake: None,
            bake_limit: limits.slo,
            share: 0.0,
            canary: Counts::default(),
            stable: Counts::default(),
        }
    }

    /// Other limits from now on. What was seen was judged by those of its time, which stays valid.
    pub fn set_limits(&mut self, limits: ErrorLimits) {
        if limits != self.limits {
            self.limits = limits;
            self.bake_limit = self.bake_limit_now();
        }
    }

    fn bake_limit_now(&self) -> f64 {
        bake_limit(self.limits.slo, self.limits.rho, self.stable.failed, self.stable.total)
    }

    /// The canary's share of new requests from now on, 0 to 1. At 1 the bake begins, with a test of its own.
    pub fn set_share(&mut self, share: f64) {
        if share >= 1.0 && self.share < 1.0 {
            self.bake_limit = self.bake_limit_now();
            self.bake = Some(EProc::new(Grid::Against));
        }
        self.share = share;
    }

    /// Requests that did not fail.
    pub fn succeeded(&mut self, arm: Arm, requests: u64) {
        match arm {
            Arm::Stable => self.stable.total += requests,
            Arm::Canary => {
                self.canary.total += requests;
                let limit = self.bake_limit;
                match self.baking() {
                    Some(bake) => bake.zeros(requests, limit),
                    None => self.absolute.zeros(requests, self.limits.slo),
                }
            }
        }
    }

    /// One failure, judged with the share `pi` that the canary had when the request was routed.
    pub fn failed(&mut self, arm: Arm, pi: f64) {
        let is_baking = self.count_failure(arm);
        if !is_baking && pi > 0.0 && pi < 1.0 {
            self.relative.update(arm == Arm::Canary, theta0(pi, self.limits.rho));
        }
    }

    /// The first failure of a sticky client, while these many clients of each arm have not failed yet: clients are
    /// compared, not requests, so that one broken client is one failure.
    pub fn failed_bucket(&mut self, arm: Arm, canary_left: u64, stable_left: u64) {
        let is_baking = self.count_failure(arm);
        let canary = canary_left as f64 * self.limits.rho;
        if !is_baking && canary_left > 0 && stable_left > 0 {
            self.relative.update(arm == Arm::Canary, canary / (canary + stable_left as f64));
        }
    }

    /// A client failed that has failed before.
    pub fn failed_again(&mut self, arm: Arm) {
        self.count_failure(arm);
    }

    /// Whether the canary has everything.
    fn count_failure(&mut self, arm: Arm) -> bool {
        let counts = match arm {
            Arm::Stable => &mut self.stable,
            Arm::Canary => &mut self.canary,
        };
        counts.total += 1;
        counts.failed += 1;
        let limit = self.bake_limit;
        match (arm, self.baking()) {
            (Arm::Canary, Some(bake)) => bake.update(true, limit),
            (Arm::Canary, None) => self.absolute.update(true, self.limits.slo),
            (Arm::Stable, _) => {}
        }
        self.share >= 1.0
    }

    fn baking(&mut self) -> Option<&mut EProc> {
        self.bake.as_mut().filter(|_| self.share >= 1.0)
    }

    pub fn verdict(&self) -> Verdict {
        let ErrorLimits { rollback_at, hold_at, .. } = self.limits;
        if let Some(bake) = self.bake.as_ref().filter(|_| self.share >= 1.0) {
            return if bake.value() >= rollback_at { Verdict::RollBack } else { Verdict::Continue };
        }
        let (absolute, relative) = (self.absolute.value(), self.relative.value());
        let lesser = absolute.min(relative);
        if lesser >= rollback_at {
            Verdict::RollBack
        } else if lesser >= hold_at {
            Verdict::Hold(HoldReason::Pending)
        } else if absolute >= rollback_at {
            Verdict::Hold(HoldReason::Absolute)
        } else if relative >= rollback_at {
            Verdict::Hold(HoldReason::Relative)
        } else {
            Verdict::Continue
        }
    }

    /// Evidence against the canary: of both tests the lesser one; with everything on it, the only one left.
    pub fn against(&self) -> f64 {
        match self.bake.as_ref().filter(|_| self.share >= 1.0) {
            Some(bake) => bake.value(),
            None => self.absolute.value().min(self.relative.value()),
        }
    }

    pub fn meters(&self) -> ErrorMeters {
        ErrorMeters {
            e_abs: self.absolute.value(),
            e_rel: self.relative.value(),
            e_bake: self.bake.as_ref().filter(|_| self.share >= 1.0).map(EProc::value),
            bake_limit: self.bake_limit,
            canary: self.canary,
            stable: self.stable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bake_is_never_stricter_than_the_limit_and_knows_what_stable_did() {
        assert_eq!(bake_limit(0.001, 1.25, 0, 0), 0.001);
        assert_eq!(bake_limit(0.001, 1.25, 4, 10_000), 0.001, "stable kept well inside it");
        assert!(bake_limit(0.001, 1.25, 100, 10_000) > 0.0125, "stable did worse");
        assert_eq!(bake_limit(0.8, 1.25, 9_000, 10_000), 0.8);
    }

    #[test]
    fn an_outage_of_both_never_rolls_back_and_one_of_the_canary_does() {
        for (stable_fails, wanted) in [(true, Verdict::Hold(HoldReason::Absolute)), (false, Verdict::RollBack)] {
            let mut judge = ErrorJudge::new(ErrorLimits::default());
            judge.set_share(0.05);
            for at in 0..2_000 {
                let arm = if at % 20 == 0 { Arm::Canary } else { Arm::Stable };
                match arm == Arm::Canary || stable_fails {
                    true => judge.failed(arm, 0.05),
                    false => judge.succeeded(arm, 1),
                }
            }
            assert_eq!(judge.verdict(), wanted, "stable fails: {stable_fails}");
        }
    }

    #[test]
    fn one_broken_client_is_one_failure() {
        let mut judge = ErrorJudge::new(ErrorLimits::default());
        judge.set_share(0.05);
        judge.failed_bucket(Arm::Canary, 500, 9_500);
        (0..300).for_each(|_| judge.failed_again(Arm::Canary));
        assert_ne!(judge.verdict(), Verdict::RollBack);
    }
}
