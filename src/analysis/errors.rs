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
    /// While clients of the canary are not drawn by lot: both tests over these clients alone.
    #[serde(default)]
    paired: Option<Paired>,
}

/// The tests while nobody knows which share of the requests is the canary's: each of its answers is compared with the
/// next one of stable (McNemar's test, one step at a time). Of pairs in which one failed, an incident of both hits
/// either side as often as the other, however many requests each of them gets and whenever they come. A canary whose
/// odds of failing are at most `rho` times stable's is the one that failed in `rho / (1 + rho)` of them at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Paired {
    absolute: EProc,
    relative: EProc,
    /// The canary's answer that waits for one of stable: whether it failed.
    waits: Option<bool>,
}

impl Paired {
    fn canary(&mut self, failed: bool) {
        self.waits.get_or_insert(failed);
    }

    fn stable(&mut self, failed: bool, rho: f64) {
        if let Some(canary_failed) = self.waits.take().filter(|canary_failed| *canary_failed != failed) {
            self.relative.update(canary_failed, theta0(0.5, rho));
        }
    }
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
            paired: None,
        }
    }

    /// Other limits from now on. What was seen was judged by those of its time, which stays valid.
    pub fn set_limits(&mut self, limits: ErrorLimits) {
        if limits != self.limits {
            self.limits = limits;
            self.bake_limit = self.bake_limit_now();
        }
    }

    pub fn limits(&self) -> ErrorLimits {
        self.limits
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

    /// Whether the canary's clients are chosen by who they are from now on, not by lot. Its answers must then be told
    /// one by one, in their order among stable's. What speaks against it there is kept apart: these clients are not
    /// like all others, so it says nothing in a later comparison by lot.
    pub fn set_paired(&mut self, paired: bool) {
        match (paired, &self.paired) {
            (true, None) => {
                let new = || EProc::new(Grid::Against);
                self.paired = Some(Paired { absolute: new(), relative: new(), waits: None });
            }
            (true, Some(_)) => {}
            (false, _) => self.paired = None,
        }
    }

    /// Whoever decides has seen the evidence and goes on: from here on only what comes is evidence. What was counted stays
    /// counted.
    pub fn begin_anew(&mut self) {
        let new = || EProc::new(Grid::Against);
        (self.absolute, self.relative) = (new(), new());
        self.bake = self.bake.take().map(|_| new());
        self.paired = self.paired.take().map(|_| Paired { absolute: new(), relative: new(), waits: None });
    }

    /// Requests that did not fail.
    pub fn succeeded(&mut self, arm: Arm, requests: u64) {
        match arm {
            Arm::Stable => {
                self.stable.total += requests;
                if let Some(paired) = self.paired.as_mut().filter(|_| requests > 0) {
                    paired.stable(false, self.limits.rho);
                }
            }
            Arm::Canary => {
                self.canary.total += requests;
                if let Some(paired) = self.paired.as_mut().filter(|_| requests > 0) {
                    paired.absolute.zeros(requests, self.limits.slo);
                    paired.canary(false);
                    return;
                }
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
        let is_judged = self.count_failure(arm);
        if !is_judged && pi > 0.0 && pi < 1.0 {
            self.relative.update(arm == Arm::Canary, theta0(pi, self.limits.rho));
        }
    }

    /// The first failure of a sticky client, while these many clients of each arm have not failed yet: clients are
    /// compared, not requests, so that one broken client is one failure.
    pub fn failed_bucket(&mut self, arm: Arm, canary_left: u64, stable_left: u64) {
        let is_judged = self.count_failure(arm);
        let canary = canary_left as f64 * self.limits.rho;
        if !is_judged && canary_left > 0 && stable_left > 0 {
            self.relative.update(arm == Arm::Canary, canary / (canary + stable_left as f64));
        }
    }

    /// A client failed that has failed before.
    pub fn failed_again(&mut self, arm: Arm) {
        self.count_failure(arm);
    }

    /// Whether it is judged already: the canary has everything, or its clients are not drawn by lot.
    fn count_failure(&mut self, arm: Arm) -> bool {
        let counts = match arm {
            Arm::Stable => &mut self.stable,
            Arm::Canary => &mut self.canary,
        };
        counts.total += 1;
        counts.failed += 1;
        if let Some(paired) = &mut self.paired {
            match arm {
                Arm::Canary => {
                    paired.absolute.update(true, self.limits.slo);
                    paired.canary(true);
                }
                Arm::Stable => paired.stable(true, self.limits.rho),
            }
            return true;
        }
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
        let (absolute, relative) = self.both();
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
            None => {
                let (absolute, relative) = self.both();
                absolute.min(relative)
            }
        }
    }

    fn both(&self) -> (f64, f64) {
        match &self.paired {
            Some(paired) => (paired.absolute.value(), paired.relative.value()),
            None => (self.absolute.value(), self.relative.value()),
        }
    }

    pub fn meters(&self) -> ErrorMeters {
        let (e_abs, e_rel) = self.both();
        ErrorMeters {
            e_abs,
            e_rel,
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

    /// A match stage with so many answers of stable for each of the canary, which may come in bursts; both fail at
    /// these rates, by a fixed sequence of random numbers. What is said at the end, and after how many requests of
    /// the canary it was to be rolled back.
    fn matched(canary: f64, stable: f64, per_request: usize, burst: usize, seed: u64) -> (Verdict, Option<u32>) {
        let mut judge = ErrorJudge::new(ErrorLimits::default());
        judge.set_paired(true);
        let mut state = seed;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut tell = |judge: &mut ErrorJudge, arm, rate| match random() < rate {
            true => judge.failed(arm, 0.0),
            false => judge.succeeded(arm, 1),
        };
        let mut requests = 0;
        for _ in 0..4_000 / burst {
            (0..burst).for_each(|_| tell(&mut judge, Arm::Canary, canary));
            (0..burst * per_request).for_each(|_| tell(&mut judge, Arm::Stable, stable));
            requests += burst as u32;
            if judge.verdict() == Verdict::RollBack {
                return (Verdict::RollBack, Some(requests));
            }
        }
        (judge.verdict(), None)
    }

    #[test]
    fn matched_clients_are_compared_without_knowing_their_share() {
        for (per_request, burst) in [(1, 1), (20, 1), (3, 50)] {
            for seed in 1..=40 {
                let rolled_back = |canary, stable| matched(canary, stable, per_request, burst, seed).1;
                for rate in [1.0, 0.5, 0.05, 0.0005] {
                    assert_eq!(
                        rolled_back(rate, rate),
                        None,
                        "an incident of both: {rate} {per_request} {burst} {seed}"
                    );
                }
                let after = rolled_back(1.0, 0.0005).expect("it fails every request");
                assert!(after as usize <= 14 * burst, "{after} {per_request} {burst} {seed}");
                if burst == 1 {
                    assert!(rolled_back(0.05, 0.0005).is_some_and(|after| after < 1_500), "{per_request} {seed}");
                }
            }
        }
        assert_eq!(matched(1.0, 1.0, 5, 1, 9).0, Verdict::Hold(HoldReason::Absolute));
    }

    #[test]
    fn without_answers_of_stable_nothing_is_rolled_back() {
        assert_eq!(matched(1.0, 0.0, 0, 1, 7), (Verdict::Hold(HoldReason::Absolute), None));
    }

    #[test]
    fn what_matched_clients_met_is_not_held_against_those_drawn_by_lot() {
        let mut judge = ErrorJudge::new(ErrorLimits::default());
        judge.set_paired(true);
        for _ in 0..100 {
            judge.failed(Arm::Canary, 0.0);
            judge.succeeded(Arm::Stable, 3);
        }
        assert_eq!(judge.verdict(), Verdict::RollBack);
        // An operator insists.
        judge.set_paired(false);
        judge.set_share(0.05);
        assert_eq!(judge.verdict(), Verdict::Continue);
        assert_eq!(judge.meters().canary, Counts { total: 100, failed: 100 }, "but it is counted");
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
