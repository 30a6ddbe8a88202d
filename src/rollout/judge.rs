//! The evidence of one rollout, summed up: both error tests, latency, and the proof that a stage is good.
//!
//! Failures come one by one, as they happen; successes as counts; latencies as histogram counts on a tick.
//! Notes on the statistics are in [`crate::analysis`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::ERRORS_LIMIT;
use super::custom::{Bad, Customs};
use super::phase::{Breach, Waits};
use super::seen::{Around, Meters, Seen, Thresholds};
use crate::analysis::{
    Arm, Counts, ErrorJudge, ErrorLimits, HoldReason, LEVELS, LatencyJudge, MARGIN, PromoteGate, QuickEnough, Sketch,
    Verdict, value_of,
};
use crate::config::model::{Guardrails, LatencyRule, PromoteWhen, Rollout as Plan, StageTraffic, Then};

/// How many times stable's rate a promoted canary may certainly not have.
const RATIO_PROVEN: f64 = 1.5;
/// How many times the requests of one of stable's endpoints one of the canary's may have.
const LOAD_RATIO: f64 = 1.5;
/// Statuses and requests that a report names.
const STATUSES_KEPT: usize = 8;
/// Fewer failed copies than this are luck.
const COPIES_FAILED: u64 = 5;

/// One attempt that broke a rule, as it was stamped when it was routed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Failure {
    pub arm: Arm,
    /// The canary's share of new requests at that time.
    pub pi: f64,
    /// Of a sticky client.
    pub bucket: Option<u16>,
    /// What the endpoint answered; 0 if it did not.
    pub status: u16,
    pub bad: Bad,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    errors: ErrorJudge,
    /// Whether too many errors roll back (or pause); `None`: the rule is off.
    errors_then: Option<bool>,
    #[serde(default)]
    customs: Customs,
    latency: LatencyJudge,
    /// An endpoint of the canary has so much more to do that its speed says nothing.
    #[serde(default)]
    unequal: bool,
    promote: PromoteGate,
    errors_below: f64,
    quick: Option<(f64, f64, QuickEnough)>,
    latency_quantile: f64,
    share: f64,
    /// The canary's clients are not drawn by lot in this stage.
    #[serde(default)]
    matched: bool,
    /// It gets copies in this stage, and nothing else.
    #[serde(default)]
    mirrors: bool,
    #[serde(default)]
    copies: Counts,
    stage: Counts,
    canary: Sketch,
    stable: Sketch,
    /// Stable's quantiles before the present tick; a latency is compared with what was known before it.
    thresholds: Option<[f64; 3]>,
    /// Buckets of sticky clients that have failed: each counts once in the relative test.
    failed_canary: BTreeSet<u16>,
    failed_stable: BTreeSet<u16>,
    canary_buckets: u64,
    /// Canary failures by status, the first few kinds.
    statuses: Vec<(u16, u64)>,
}

/// All buckets of sticky clients.
const BUCKETS: u64 = crate::routing::Bucket::COUNT as u64;

impl Judge {
    pub fn new(plan: &Plan) -> Judge {
        let mut judge = Judge {
            errors: ErrorJudge::new(ErrorLimits::default()),
            errors_then: None,
            customs: Customs::default(),
            latency: LatencyJudge::new(),
            unequal: false,
            promote: PromoteGate::new(plan.promote_when.errors_below, RATIO_PROVEN),
            errors_below: plan.promote_when.errors_below,
            quick: None,
            latency_quantile: plan.guardrails.latency.map_or(0.95, |rule| rule.quantile),
            share: 0.0,
            matched: false,
            mirrors: false,
            copies: Counts::default(),
            stage: Counts::default(),
            canary: Sketch::default(),
            stable: Sketch::default(),
            thresholds: None,
            failed_canary: BTreeSet::new(),
            failed_stable: BTreeSet::new(),
            canary_buckets: 0,
            statuses: Vec::new(),
        };
        judge.follow(plan, &plan.guardrails);
        judge
    }

    /// From now on these guardrails and this promise apply. What speaks against the canary is kept; a promise that is
    /// another one now is proven anew.
    pub fn follow(&mut self, plan: &Plan, rules: &Guardrails) {
        self.promise(&plan.promote_when);
        let (slo, rho) = rules.errors.map_or((plan.promote_when.errors_below, 1.25), |rule| (rule.max, rule.ratio));
        self.errors.set_limits(ErrorLimits { slo, rho, ..ErrorLimits::default() });
        self.errors_then = rules.errors.map(|rule| rule.then == Then::RollBack);
        self.customs.follow(rules, self.share, self.matched);
        self.latency_quantile = rules.latency.map_or(0.95, |rule| rule.quantile);
    }

    fn promise(&mut self, promise: &PromoteWhen) {
        if promise.errors_below != self.errors_below {
            self.errors_below = promise.errors_below;
            self.promote = PromoteGate::new(self.errors_below, RATIO_PROVEN);
        }
        let wanted = promise.latency.map(|promise| (promise.quantile, promise.below.as_secs_f64() * 1e3));
        if wanted != self.quick.as_ref().map(|(quantile, limit, _)| (*quantile, *limit)) {
            self.quick = wanted.map(|(quantile, limit)| (quantile, limit, QuickEnough::new(quantile)));
        }
    }

    /// What the canary gets from now on: a share by lot, clients by who they are, or copies. After [`Judge::enter`], or
    /// when the plan may have changed.
    pub fn serves(&mut self, traffic: Option<&StageTraffic>) {
        (self.matched, self.mirrors) = match traffic {
            Some(StageTraffic::Match(_)) => (true, false),
            Some(StageTraffic::Mirror(_)) => (false, true),
            Some(StageTraffic::Share(_)) | None => (false, false),
        };
        self.errors.set_paired(self.matched);
        self.customs.set_paired(self.matched);
    }

    /// A stage begins: the proof starts anew, what speaks against the canary is kept. `is_canary` says which
    /// buckets of sticky clients are the canary's now; `canary_buckets` how many, 0 without stickiness.
    pub fn enter(
        &mut self,
        (plan, rules): (&Plan, &Guardrails),
        share: f64,
        canary_buckets: u64,
        is_canary: impl Fn(u16) -> bool,
    ) {
        self.share = share;
        self.follow(plan, rules);
        self.errors.set_share(share);
        self.promote = PromoteGate::new(self.errors_below, RATIO_PROVEN);
        if let Some((quantile, _, quick)) = &mut self.quick {
            *quick = QuickEnough::new(*quantile);
        }
        self.stage = Counts::default();
        self.canary = Sketch::default();
        self.stable.halve();
        self.canary_buckets = canary_buckets;
        let (canary, stable) =
            self.failed_canary.iter().chain(&self.failed_stable).partition(|bucket| is_canary(**bucket));
        (self.failed_canary, self.failed_stable) = (canary, stable);
    }

    pub fn succeeded(&mut self, arm: Arm, requests: u64) {
        if requests == 0 {
            return;
        }
        self.errors.succeeded(arm, requests);
        self.customs.succeeded(arm, requests);
        self.promote.succeeded(arm, requests);
        match arm {
            Arm::Canary => self.stage.total += requests,
            Arm::Stable => {}
        }
    }

    /// Says whether the canary is to be rolled back now.
    pub fn failed(&mut self, failure: &Failure) -> bool {
        let Failure { arm, pi, bucket, status, bad } = *failure;
        let has_failed = bad.has_failed();
        if arm == Arm::Canary && pi <= 0.0 && !self.matched {
            // It came by a match stage that is over: what testers met is not held against the canary now.
            self.note(status);
            return false;
        }
        match bucket.filter(|_| self.canary_buckets > 0 && pi < 1.0) {
            _ if !has_failed => self.errors.succeeded(arm, 1),
            Some(bucket) => self.failed_for(arm, pi, bucket),
            None => self.errors.failed(arm, pi),
        }
        self.customs.answered(arm, pi, bad);
        match has_failed {
            true => self.promote.failed(arm, pi),
            false => self.promote.succeeded(arm, 1),
        }
        match arm {
            Arm::Canary => {
                self.stage.total += 1;
                self.stage.failed += u64::from(has_failed);
                self.note(status);
            }
            Arm::Stable => {}
        }
        self.pressure() >= ERRORS_LIMIT
    }

    /// A copy was answered with this status, or not (0). No test learns of it: nobody saw the answer, the copies
    /// are not all kinds of requests, and the canary may know that it is one.
    pub fn copied(&mut self, status: u16) {
        // Late ones say nothing about the present stage.
        if !self.mirrors {
            return;
        }
        let failed = status == 0 || status >= 500;
        for counts in [&mut self.copies, &mut self.stage] {
            counts.total += 1;
            counts.failed += u64::from(failed);
        }
        if failed {
            self.note(status);
        }
    }

    /// The copies of this stage failed too often to let users in: more than luck, more than the limit, more than
    /// stable's answers in this rollout.
    pub fn copies_fail(&self) -> bool {
        let ErrorLimits { slo, rho, .. } = self.errors.limits();
        let rate = self.stage.rate();
        self.mirrors
            && self.stage.failed >= COPIES_FAILED
            && rate >= slo
            && rate > rho * self.errors.meters().stable.rate()
    }

    /// Somebody has looked at what it waited for and goes on: the evidence of the rules that asked for this pause
    /// begins anew. Rules that roll back forget nothing.
    pub fn forgive(&mut self, waits: &Waits, rules: &Guardrails) {
        let rolls_back = |rule: LatencyRule| rule.then == Then::RollBack;
        match waits {
            Waits::Breach(_) => {
                if self.errors_then == Some(false) && self.errors.verdict() == Verdict::RollBack {
                    self.errors.begin_anew();
                    self.failed_canary.clear();
                    self.failed_stable.clear();
                }
                self.customs.forgive();
            }
            Waits::Latency { .. } if !rules.latency.is_some_and(rolls_back) => self.latency = LatencyJudge::new(),
            Waits::Latency { .. }
            | Waits::Operator { .. }
            | Waits::SharedIncident
            | Waits::StableBroken(_)
            | Waits::Inconclusive
            | Waits::Refused { .. }
            | Waits::Unknown => {}
        }
        // Copies are no evidence of a rule.
        if self.mirrors {
            self.stage = Counts::default();
        }
    }

    /// One broken client is one failure: the relative test counts each bucket once.
    fn failed_for(&mut self, arm: Arm, pi: f64, bucket: u16) {
        let canary_left = self.canary_buckets.saturating_sub(self.failed_canary.len() as u64);
        let stable_left = (BUCKETS - self.canary_buckets.min(BUCKETS)).saturating_sub(self.failed_stable.len() as u64);
        let is_known = self.failed_canary.contains(&bucket) || self.failed_stable.contains(&bucket);
        if is_known {
            self.errors.failed_again(arm);
            return;
        }
        match canary_left + stable_left {
            0 => self.errors.failed(arm, pi),
            _ => self.errors.failed_bucket(arm, canary_left, stable_left),
        }
        match arm {
            Arm::Canary => self.failed_canary.insert(bucket),
            Arm::Stable => self.failed_stable.insert(bucket),
        };
    }

    fn note(&mut self, status: u16) {
        match self.statuses.iter().position(|(known, _)| *known == status) {
            Some(at) => self.statuses[at].1 += 1,
            None if self.statuses.len() < STATUSES_KEPT => self.statuses.push((status, 1)),
            None => {}
        }
    }

    /// How many endpoints each arm has to share its part of the requests between. One with much more to do is slower for
    /// that reason, so speeds are not compared then.
    pub fn endpoints(&mut self, canary: usize, stable: usize) {
        let load = |share: f64, endpoints: usize| share / endpoints.max(1) as f64;
        self.unequal = load(self.share, canary) > LOAD_RATIO * load(1.0 - self.share, stable);
    }

    /// What the histograms saw since the last tick: bucket and count, by arm. The thresholds are those that
    /// were known before.
    pub fn latencies(&mut self, canary: &[(i32, u64)], stable: &[(i32, u64)]) {
        if let Some(thresholds) = self.thresholds.filter(|_| self.compares_speeds()) {
            for (level, threshold) in thresholds.into_iter().enumerate() {
                let slow = above(canary, threshold * MARGIN);
                self.latency.batch(level, slow, slow + above(stable, threshold), self.share);
            }
        }
        if let Some((_, limit, quick)) = &mut self.quick {
            let total: u64 = canary.iter().map(|(_, count)| count).sum();
            quick.batch(total - above(canary, *limit), total);
        }
        for (sketch, seen) in [(&mut self.canary, canary), (&mut self.stable, stable)] {
            for (bucket, count) in seen {
                sketch.add_bucket(*bucket, *count);
            }
        }
        let quantiles = LEVELS.map(|(quantile, _)| self.stable.quantile(quantile));
        if let [Some(p50), Some(p95), Some(p99)] = quantiles {
            self.thresholds = Some([p50, p95, p99]);
        }
    }

    /// Both arms have clients drawn by lot, and endpoints with about the same load.
    fn compares_speeds(&self) -> bool {
        self.share > 0.0 && self.share < 1.0 && !self.unequal
    }

    /// Slower than this, in milliseconds, a request of each arm is an event at every level; `None`: speeds are not compared.
    pub fn slowest(&self, arm: Arm) -> Option<f64> {
        let slowest = self.thresholds.filter(|_| self.compares_speeds())?.into_iter().fold(0.0, f64::max);
        Some(if arm == Arm::Canary { slowest * MARGIN } else { slowest })
    }

    /// About once a minute: what stable did long ago fades.
    pub fn fade(&mut self) {
        self.stable.halve();
    }

    /// The evidence of all rules that roll back: they share one budget, so each has an equal part of it. An average of
    /// such evidence is evidence (Vovk and Wang 2021).
    fn pressure(&self) -> f64 {
        let (mut sum, mut rules) = (0.0, 0_u32);
        for (_, judge, _) in self.present().filter(|(_, _, rolls_back)| *rolls_back) {
            sum += judge.against();
            rules += 1;
        }
        if rules == 0 { 0.0 } else { sum / f64::from(rules) }
    }

    /// The rules about answers that the present stage has; `None` is the rule `errors`.
    fn present(&self) -> impl Iterator<Item = (Option<&str>, &ErrorJudge, bool)> {
        let errors = self.errors_then.map(|rolls_back| (None, &self.errors, rolls_back));
        errors.into_iter().chain(self.customs.present().map(|(name, judge, back)| (Some(name), judge, back)))
    }

    /// The rule that is broken: one that rolls back before one that pauses.
    pub fn broken(&self) -> Option<(Breach, Then)> {
        let (worst, then) = if self.pressure() >= ERRORS_LIMIT {
            let back = self.present().filter(|(_, _, rolls_back)| *rolls_back);
            (back.max_by(|one, other| one.1.against().total_cmp(&other.1.against()))?.0, Then::RollBack)
        } else {
            let broken = |judge: &ErrorJudge| judge.verdict() == Verdict::RollBack;
            (self.present().find(|(_, judge, rolls_back)| !rolls_back && broken(judge))?.0, Then::Pause)
        };
        Some((worst.map_or(Breach::Errors, |rule| Breach::Custom { rule: rule.into() }), then))
    }

    /// What the rules about answers say; a hold of `errors` before one of another rule.
    pub fn verdict(&self) -> Verdict {
        if self.pressure() >= ERRORS_LIMIT {
            return Verdict::RollBack;
        }
        let verdicts = self.present().map(|(_, judge, rolls_back)| match judge.verdict() {
            // Alone it would be enough; together with the others it is not yet.
            Verdict::RollBack if rolls_back => Verdict::Hold(HoldReason::Pending),
            verdict => verdict,
        });
        verdicts.into_iter().find(|verdict| *verdict != Verdict::Continue).unwrap_or(Verdict::Continue)
    }

    /// Where a custom rule has its place in [`Bad`].
    pub fn place_of(&self, rule: &str) -> Option<usize> {
        self.customs.place_of(rule)
    }

    /// Evidence against the canary by each custom rule of this stage about answers.
    pub fn custom_evidence(&self) -> Vec<(String, f64)> {
        self.customs.present().map(|(name, judge, _)| (name.to_string(), judge.against())).collect()
    }

    /// The input of a decision.
    pub fn seen(&self, around: Around) -> Seen {
        Seen {
            verdict: self.verdict(),
            broken: self.broken(),
            latency_holds: self.latency_holds(),
            proven: self.proven(),
            quick: self.quick(),
            quick_now: self.quick_now(),
            copies_fail: self.copies_fail(),
            meters: self.meters(),
            around,
        }
    }

    pub fn latency_holds(&self) -> bool {
        self.latency.is_holding()
    }

    /// No luck explains how seldom it fails.
    pub fn proven(&self) -> bool {
        self.promote.proven()
    }

    pub fn quick(&self) -> bool {
        let proven = |(_, _, quick): &(f64, f64, QuickEnough)| quick.proven();
        self.quick.as_ref().is_none_or(proven) && self.quick_now()
    }

    /// The literal part: the quantile of this stage.
    pub fn quick_now(&self) -> bool {
        let inside = |(quantile, limit, _): &(f64, f64, QuickEnough)| {
            self.canary.quantile(*quantile).is_some_and(|at| at < *limit)
        };
        self.quick.as_ref().is_none_or(inside)
    }

    /// What the promises and limits are, as far as they are this judge's.
    pub fn thresholds(&self) -> Thresholds {
        let limits = self.errors.limits();
        Thresholds {
            errors_max: limits.slo,
            errors_ratio: limits.rho,
            errors_max_at_100: self.errors.meters().bake_limit,
            errors_below: self.errors_below,
            quick: self.quick.as_ref().map(|(quantile, below_ms, _)| (*quantile, *below_ms)),
        }
    }

    /// The third quantile that is reported, in milliseconds of this stage.
    pub fn p99(&self, arm: Arm) -> Option<f64> {
        match arm {
            Arm::Canary => self.canary.quantile(0.99),
            Arm::Stable => self.stable.quantile(0.99),
        }
    }

    /// Canary failures by status, most frequent first; 0 is no answer.
    pub fn statuses(&self) -> Vec<(u16, u64)> {
        let mut statuses = self.statuses.clone();
        statuses.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        statuses
    }

    pub fn meters(&self) -> Meters {
        let errors = self.errors.meters();
        let ratio = self.canary.quantile(self.latency_quantile).zip(self.stable.quantile(self.latency_quantile));
        Meters {
            canary: errors.canary,
            stable: errors.stable,
            stage: self.stage,
            copies: self.copies,
            errors: self.errors.against(),
            errors_absolute: errors.e_abs,
            errors_relative: errors.e_rel,
            errors_bake: errors.e_bake,
            latency: self.latency.value(),
            proof: self.promote.value(),
            quick: self.quick.as_ref().map(|(_, _, quick)| quick.value()),
            canary_p50: self.canary.quantile(0.5),
            canary_p95: self.canary.quantile(0.95),
            stable_p50: self.stable.quantile(0.5),
            stable_p95: self.stable.quantile(0.95),
            latency_ratio: ratio.map(|(canary, stable)| canary / stable),
            speeds_compared: self.compares_speeds(),
            promised_ms: self.quick.as_ref().and_then(|(quantile, _, _)| self.canary.quantile(*quantile)),
        }
    }
}

fn above(seen: &[(i32, u64)], threshold: f64) -> u64 {
    seen.iter().filter(|(bucket, _)| value_of(*bucket) > threshold).map(|(_, count)| count).sum()
}
