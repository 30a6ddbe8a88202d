//! What was decided about each rollout and why, and the evidence on the way: for people, and for the journal.
//!
//! A decision is written down after it went live, and journaled by the journal's own thread: nothing waits for it.
//! Here is only the rollout of a service that runs or ended last; the journal has those before.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{AUTHOR, Rollouts, Running};
use crate::analysis::{Arm, Counts};
use crate::control::api::{
    FailedRequest, Receipt, RolloutArm, RolloutDecision, RolloutEvidence, RolloutReceipt, RolloutSample,
};
use crate::control::controller::Controller;
use crate::control::decide::part;
use crate::control::shared::Shared;
use crate::evidence::Failing;
use crate::rollout::{Decision, ERRORS_LIMIT, LATENCY_LIMIT, Meters, PROOF_LIMIT, Series};
use crate::telemetry::unix_ms;

/// The evidence over time.
pub type Samples = Series<RolloutSample>;

/// Decisions about one rollout that are remembered here; the journal keeps more.
const DECISIONS_KEPT: usize = 200;
/// Milliseconds between two samples, while a rollout is young.
const SAMPLE_EVERY: u64 = 1_000;
/// How often the journal learns of the samples when nothing is decided.
const KEEP_SAMPLES: Duration = Duration::from_secs(10);

/// One service's last rollout as it is told.
#[derive(Debug, Clone)]
pub(crate) struct Story {
    pub started: u64,
    /// Oldest first.
    pub decisions: Vec<RolloutDecision>,
    pub samples: Samples,
    /// The newest that is known.
    pub evidence: RolloutEvidence,
}

/// Written by the writer, read by whoever asks for a report.
#[derive(Debug)]
pub(crate) struct Stories(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    next_id: u64,
    by_service: BTreeMap<String, Story>,
}

impl Stories {
    /// As the journal remembers them. `last_id`: of the newest decision ever.
    pub fn of(last_id: u64, decisions: Vec<RolloutDecision>, mut samples: BTreeMap<String, (u64, Samples)>) -> Stories {
        let mut by_service: BTreeMap<String, Story> = BTreeMap::new();
        for decision in decisions {
            let (service, started) = (decision.service.clone(), decision.rollout);
            let story = by_service.entry(service).or_insert_with(|| Story::new(started));
            if story.started != started {
                *story = Story::new(started);
            }
            story.push(decision);
        }
        for (service, story) in &mut by_service {
            if let Some((_, samples)) = samples.remove(service).filter(|(started, _)| *started == story.started) {
                story.samples = samples;
            }
        }
        Stories(Mutex::new(Inner { next_id: last_id + 1, by_service }))
    }

    /// The last rollout of a service.
    pub fn last(&self, service: &str) -> Option<Story> {
        self.lock().by_service.get(service).cloned()
    }

    /// Numbers a decision and remembers it.
    fn tell(&self, mut decision: RolloutDecision) -> RolloutDecision {
        let mut inner = self.lock();
        decision.id = inner.next_id;
        inner.next_id += 1;
        let story = inner.by_service.entry(decision.service.clone()).or_insert_with(|| Story::new(decision.rollout));
        if story.started != decision.rollout {
            *story = Story::new(decision.rollout);
        }
        story.samples.push(decision.at, sample_of(decision.stage, decision.share, &decision.evidence));
        story.push(decision.clone());
        decision
    }

    /// Whether a sample of a service's rollout is to be taken now.
    fn is_due(&self, service: &str, started: u64, now: u64) -> bool {
        let mut inner = self.lock();
        // A rollout that an earlier version of the program began has no story yet.
        let story = inner.by_service.entry(service.into()).or_insert_with(|| Story::new(started));
        story.started == started && story.samples.is_due(now)
    }

    fn sample(&self, service: &str, now: u64, sample: RolloutSample, evidence: RolloutEvidence) {
        if let Some(story) = self.lock().by_service.get_mut(service) {
            story.samples.push(now, sample);
            story.evidence = evidence;
        }
    }

    /// A flip is proven. The decisions that led to it, with its times.
    fn complete(&self, receipt: &Receipt) -> Vec<RolloutDecision> {
        let mut inner = self.lock();
        let mut complete = Vec::new();
        for decision in inner.by_service.values_mut().flat_map(|story| &mut story.decisions) {
            let is_of = decision.generation == Some(receipt.generation);
            if let Some(times) = decision.receipt.as_mut().filter(|_| is_of) {
                times.last_old_start_micros = Some(receipt.last_old_start_micros);
                complete.push(decision.clone());
            }
        }
        complete
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Story {
    fn new(started: u64) -> Story {
        let (decisions, samples) = (Vec::new(), Samples::new(SAMPLE_EVERY));
        Story { started, decisions, samples, evidence: RolloutEvidence::default() }
    }

    /// How it began stays; of the rest the newest.
    fn push(&mut self, decision: RolloutDecision) {
        if self.decisions.len() == DECISIONS_KEPT {
            self.decisions.remove(1);
        }
        self.evidence = decision.evidence.clone();
        self.decisions.push(decision);
    }
}

impl Shared {
    /// The last data thread has let go of the generation before: the decisions that led here get its times.
    pub fn flip_is_proven(&self, receipt: &Receipt) {
        for decision in self.stories.complete(receipt) {
            if let Some(journal) = &self.journal {
                journal.decision(decision);
            }
        }
    }
}

/// A decision before it is told: who, what, why.
pub(super) struct Said<'a> {
    pub decision: &'static str,
    pub reason: &'static str,
    pub why: String,
    /// Empty: whoever made the generation that is live when it is told, and its cause.
    pub author: &'a str,
    pub cause: &'a str,
    /// The numbers it was decided on, if they are not those of now.
    pub meters: Option<Meters>,
}

impl Rollouts {
    /// To be told as soon as the change it belongs to is live.
    pub(super) fn say(&mut self, service: &str, said: Said<'_>) {
        let Some(running) = self.by_service.get(service) else { return };
        let rollout = &running.rollout;
        self.said.push(RolloutDecision {
            id: 0,
            at: unix_ms(),
            service: service.into(),
            rollout: running.started,
            stable: rollout.stable.clone(),
            canary: rollout.canary.clone(),
            stage: rollout.stage.map_or(0, |at| at + 1),
            share: 0.0,
            decision: said.decision.into(),
            reason: said.reason.into(),
            why: said.why,
            author: said.author.into(),
            cause: said.cause.into(),
            generation: None,
            evidence: evidence(running, said.meters),
            receipt: None,
        });
    }

    /// When a rollout of a service begins that begins now: no two of a service at once.
    pub(super) fn next_start(&self, service: &str, now_unix: u64) -> u64 {
        self.by_service.get(service).map_or(now_unix, |before| now_unix.max(before.started + 1))
    }
}

impl Controller {
    /// Tells what was decided, now that it is live. `flip`: the receipt of the generation that was made for it.
    pub(crate) fn tell_decisions(&mut self, flip: Option<&Receipt>) {
        if self.rollouts.said.is_empty() {
            return;
        }
        let live = self.live();
        let stamp = &live.generation.stamp;
        let mut services = Vec::new();
        for mut decision in std::mem::take(&mut self.rollouts.said) {
            decision.generation = Some(stamp.number);
            decision.share = self.share_of_canary(&decision.service, &decision.canary);
            if decision.author.is_empty() {
                decision.author = stamp.author.to_string();
            }
            if decision.cause.is_empty() {
                decision.cause = stamp.cause.to_string();
            }
            let is_moved = |receipt: &&Receipt| receipt.from.contains_key(&decision.service);
            decision.receipt = flip.filter(is_moved).map(|receipt| RolloutReceipt {
                triggered_at: receipt.triggered_at,
                published_at: receipt.published_at,
                flip_micros: receipt.flip_micros,
                last_old_start_micros: None,
                in_flight_at_flip: receipt.in_flight_at_flip,
                shielded: decision.evidence.shielded,
            });
            let decision = self.shared.stories.tell(decision);
            if !services.contains(&decision.service) {
                services.push(decision.service.clone());
            }
            if let Some(journal) = &self.shared.journal {
                journal.decision(decision);
            }
        }
        // Services that are gone are remembered by the journal alone.
        let table = &live.generation.table;
        self.shared.stories.lock().by_service.retain(|service, _| table.service_named(service).is_some());
        self.keep_samples(|service| services.iter().any(|told| told == service));
    }

    /// The evidence of now, for charts.
    pub(super) fn sample(&mut self) {
        let now = unix_ms();
        for (service, running) in self.rollouts.by_service.iter().filter(|(_, it)| it.rollout.is_running()) {
            if !self.shared.stories.is_due(service, running.started, now) {
                continue;
            }
            let evidence = evidence(running, None);
            let stage = running.rollout.stage.map_or(0, |at| at + 1);
            let sample = sample_of(stage, self.share_of_canary(service, &running.rollout.canary), &evidence);
            self.shared.stories.sample(service, now, sample, evidence);
        }
        if self.rollouts.sampled_at.elapsed() >= KEEP_SAMPLES {
            self.rollouts.sampled_at = Instant::now();
            let rollouts = &self.rollouts;
            self.keep_samples(|service| rollouts.by_service.get(service).is_some_and(|it| it.rollout.is_running()));
        }
    }

    fn keep_samples(&self, wanted: impl Fn(&str) -> bool) {
        let Some(journal) = &self.shared.journal else { return };
        let inner = self.shared.stories.lock();
        for (service, story) in inner.by_service.iter().filter(|(service, _)| wanted(service)) {
            journal.samples(service, story.started, story.samples.clone());
        }
    }

    pub(super) fn share_of_canary(&self, service: &str, canary: &str) -> f64 {
        let live = self.live();
        let table = &live.generation.table;
        let Some(at) = table.service_named(service) else { return 0.0 };
        let version = table.service(at).version_named(canary);
        version.map_or(0.0, |version| part(live.generation.split(at).shares(), version))
    }
}

/// All that is known of a rollout. `meters`: as they were when it was decided.
fn evidence(running: &Running, meters: Option<Meters>) -> RolloutEvidence {
    let (known, thresholds, p99, statuses, custom) = running.trial.judge(|judge| {
        let p99 = [Arm::Stable, Arm::Canary].map(|arm| judge.p99(arm));
        (judge.meters(), judge.thresholds(), p99, judge.statuses(), judge.custom_evidence())
    });
    let meters = meters.unwrap_or(known);
    let failing = running.trial.failing();
    RolloutEvidence {
        canary: arm(meters.canary, [meters.canary_p50, meters.canary_p95, p99[1]], failing[1]),
        stable: arm(meters.stable, [meters.stable_p50, meters.stable_p95, p99[0]], failing[0]),
        stage_requests: meters.stage.total,
        stage_failures: meters.stage.failed,
        errors_absolute: meters.errors_absolute,
        errors_relative: meters.errors_relative,
        errors_bake: meters.errors_bake,
        errors_limit: ERRORS_LIMIT,
        latency: meters.latency,
        latency_limit: LATENCY_LIMIT,
        latency_ratio: meters.latency_ratio,
        proof: meters.proof,
        proof_limit: PROOF_LIMIT,
        quick: meters.quick,
        quick_ms: meters.promised_ms.map(rounded),
        quick_max_ms: thresholds.quick.map(|(_, below)| below),
        errors_max: thresholds.errors_max,
        errors_ratio: thresholds.errors_ratio,
        errors_max_at_100: thresholds.errors_max_at_100,
        errors_below: thresholds.errors_below,
        custom,
        restarts: running.rollout.restarts() as u64,
        copies: meters.copies.total,
        copies_failed: meters.copies.failed,
        shielded: running.shielded(),
        statuses,
    }
}

fn arm(counts: Counts, quantiles: [Option<f64>; 3], failing: Option<Failing>) -> RolloutArm {
    let [p50_ms, p95_ms, p99_ms] = quantiles.map(|quantile| quantile.map(rounded));
    let named = |request: &crate::evidence::FailedRequest| FailedRequest {
        id: request.id.as_str().into(),
        at: request.at,
        status: request.status,
        endpoint: request.endpoint,
    };
    RolloutArm {
        requests: counts.total,
        failures: counts.failed,
        p50_ms,
        p95_ms,
        p99_ms,
        first_failure: failing.as_ref().map(|failing| named(&failing.first)),
        last_failure: failing.as_ref().map(|failing| named(&failing.last)),
    }
}

fn sample_of(stage: usize, share: f64, evidence: &RolloutEvidence) -> RolloutSample {
    RolloutSample {
        at: 0,
        stage,
        share,
        canary_requests: evidence.canary.requests,
        canary_failures: evidence.canary.failures,
        stable_requests: evidence.stable.requests,
        stable_failures: evidence.stable.failures,
        canary_p50_ms: evidence.canary.p50_ms,
        canary_p95_ms: evidence.canary.p95_ms,
        stable_p50_ms: evidence.stable.p50_ms,
        stable_p95_ms: evidence.stable.p95_ms,
        errors: rounded(evidence.errors()),
        latency: rounded(evidence.latency),
        proof: rounded(evidence.proof),
    }
}

/// Four digits are enough for people, and short in the journal.
fn rounded(number: f64) -> f64 {
    format!("{number:.3e}").parse().unwrap_or(number)
}

/// What a decision is called, in records, metrics and events.
pub(super) fn word_of(decision: &Decision) -> &'static str {
    match decision {
        Decision::Stay => "stay",
        Decision::Advance { .. } => "advance",
        Decision::Wait { .. } => "wait",
        Decision::Ask(_) => "ask",
        Decision::Pause(_) => "pause",
        Decision::RollBack(_) => "rollback",
        Decision::Promote => "promote",
    }
}

/// Why, with the numbers.
pub(super) fn why_of(decision: &Decision, meters: &Meters, author: &str) -> String {
    use crate::rollout::Breach;
    let failed = format!(
        "{} of {} requests failed, {} of {} on stable",
        meters.canary.failed, meters.canary.total, meters.stable.failed, meters.stable.total
    );
    let tests = match meters.errors_bake {
        Some(bake) => format!("the test at 100 % holds {bake:.1} of {ERRORS_LIMIT}"),
        None => format!(
            "\"too many\" holds {:.1}, \"more than stable\" {:.1}, each of {ERRORS_LIMIT}",
            meters.errors_absolute, meters.errors_relative
        ),
    };
    match decision {
        Decision::Stay | Decision::Ask(_) => String::new(),
        Decision::Advance { .. } | Decision::Promote if author != AUTHOR => format!("{author} said so; {failed}"),
        Decision::Advance { to: 0 } => "an endpoint of the canary is ready".into(),
        Decision::Advance { .. } | Decision::Promote => {
            format!("the stage has shown what it had to: {failed}; proof {:.1} of {PROOF_LIMIT}", meters.proof)
        }
        Decision::Wait { gate } => format!("gate {gate} has to say yes"),
        Decision::Pause(waits) => format!("{}; {failed}", super::show::why_waits(waits)),
        Decision::RollBack(Breach::Errors) => format!("{failed}; {tests}"),
        Decision::RollBack(breach) => format!("{}; {failed}", super::show::why_breach(breach)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(rollout: u64, word: &str) -> RolloutDecision {
        RolloutDecision {
            id: 0,
            at: rollout,
            service: "shop".into(),
            rollout,
            stable: "v1".into(),
            canary: "v2".into(),
            stage: 1,
            share: 0.05,
            decision: word.into(),
            reason: "evidence".into(),
            why: String::new(),
            author: "rollout".into(),
            cause: String::new(),
            generation: Some(7),
            evidence: RolloutEvidence::default(),
            receipt: None,
        }
    }

    #[test]
    fn a_story_is_bounded_and_keeps_how_it_began() {
        let stories = Stories::of(41, Vec::new(), BTreeMap::new());
        stories.tell(decision(1, "start"));
        for _ in 0..5_000 {
            stories.tell(decision(1, "pause"));
        }
        let story = stories.last("shop").expect("told");
        assert_eq!(story.decisions.len(), DECISIONS_KEPT);
        let ids = [&story.decisions[0], &story.decisions[DECISIONS_KEPT - 1]].map(|it| (it.id, it.decision.clone()));
        assert_eq!(ids, [(42, "start".into()), (5_042, "pause".into())]);
        assert!(story.samples.points().len() <= 720);
    }

    #[test]
    fn the_next_rollout_begins_a_story_of_its_own() {
        let stories = Stories::of(0, Vec::new(), BTreeMap::new());
        stories.tell(decision(1, "start"));
        stories.tell(decision(1, "superseded"));
        stories.tell(decision(2, "start"));
        let story = stories.last("shop").expect("told");
        assert_eq!((story.started, story.decisions.len()), (2, 1));
    }

    #[test]
    fn a_restart_goes_on_with_the_newest_story_and_its_samples() {
        let before = Stories::of(0, Vec::new(), BTreeMap::new());
        let told: Vec<RolloutDecision> =
            [(1, "start"), (2, "start"), (2, "advance")].map(|(at, word)| before.tell(decision(at, word))).to_vec();
        let samples = before.last("shop").expect("told").samples;
        for (of, kept) in [(2, 2), (1, 0)] {
            let after = Stories::of(3, told.clone(), BTreeMap::from([("shop".into(), (of, samples.clone()))]));
            let story = after.last("shop").expect("remembered");
            assert_eq!((story.decisions.len(), story.samples.points().len()), (2, kept), "samples of {of}");
            assert_eq!(after.tell(decision(2, "promote")).id, 4);
        }
    }

    #[test]
    fn the_times_of_a_flip_reach_the_decision_that_led_to_it() {
        let stories = Stories::of(0, Vec::new(), BTreeMap::new());
        let times = RolloutReceipt {
            triggered_at: 1,
            published_at: 1,
            flip_micros: 60,
            last_old_start_micros: None,
            in_flight_at_flip: 3,
            shielded: 2,
        };
        stories.tell(RolloutDecision { receipt: Some(times), ..decision(1, "rollback") });
        stories.tell(decision(1, "pause"));
        let receipt = Receipt {
            generation: 7,
            changed: true,
            from: BTreeMap::new(),
            to: BTreeMap::new(),
            cause: String::new(),
            author: String::new(),
            triggered_at: 1,
            published_at: 1,
            flip_micros: 60,
            last_old_start_micros: 38,
            in_flight_at_flip: 3,
            shielded: 0,
            warnings: Vec::new(),
        };
        assert_eq!(stories.complete(&Receipt { generation: 8, ..receipt.clone() }), []);
        let complete = stories.complete(&receipt);
        assert_eq!(complete.len(), 1, "the pause flipped nothing");
        assert_eq!(complete[0].receipt.as_ref().and_then(|it| it.last_old_start_micros), Some(38));
        assert_eq!(stories.last("shop").expect("told").decisions[0], complete[0]);
    }

    #[test]
    fn four_digits_are_kept() {
        assert_eq!([1234.5678, 0.000_123_456, 0.0].map(rounded), [1235.0, 0.000_123_5, 0.0]);
    }
}
