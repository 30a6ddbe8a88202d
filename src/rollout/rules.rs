//! What breaks a rollout, what stops it, and what a stage must have shown before it ends.

use std::time::Duration;

use super::outside::{FLAPPING_WITHIN, Signal, Tally};
use super::phase::{Breach, Phase, Waits};
use super::seen::Seen;
use super::state::Rollout;
use super::window::Window;
use super::{Moment, guardrails_of};
use crate::analysis::{Counts, HoldReason, Verdict};
use crate::config::model::{
    CustomEvent, CustomRule, Guardrails, Name, Proof, Rollout as Plan, Stage, StageTraffic, Then,
};

/// A canary without any usable endpoint for this long is rolled back; its requests go to stable meanwhile.
const UNHEALTHY: Duration = Duration::from_secs(1);
/// "Broken, but stable is no better" for this long is for people to look at.
const SHARED_INCIDENT: Duration = Duration::from_secs(10 * 60);
/// Without a failure of the canary for this long an incident is over.
const INCIDENT_OVER: Duration = Duration::from_secs(60);
/// The rate of a stage is looked at over its hold, but not over less than this.
const RECENT: Duration = Duration::from_secs(60);
const RECENT_PARTS: u32 = 20;
/// A latency hold for this long pauses whatever the ratio is.
const LATENCY_HOLD: Duration = Duration::from_secs(30 * 60);
/// A stage that is not proven after this many times its hold is inconclusive.
pub const STAGES_LONGEST: u32 = 4;
/// How long all endpoints must have been healthy, where a stage is not shorter than that.
const HEALTHY: Duration = Duration::from_secs(5 * 60);
/// Fewer than this part of the canary's endpoints is too few to go on with.
const ENDPOINTS_NEEDED: f64 = 0.7;
/// An outside signal that was not heard of for this many times its interval is unknown.
const INTERVALS_FRESH: u32 = 3;

impl Rollout {
    pub(super) fn remember(&mut self, plan: &Plan, seen: &Seen, now: Moment) {
        let since = |is: bool, since: Option<Moment>| is.then(|| since.unwrap_or(now));
        // What was never looked at is not away.
        let is_away = self.stage.is_some() && seen.around.canary_ready == 0 && seen.around.canary_unknown == 0;
        self.unhealthy_since = since(is_away, self.unhealthy_since);
        self.healthy_since = since(seen.around.canary_ready == seen.around.canary_endpoints, self.healthy_since);
        if seen.meters.canary.failed != self.failing.0 {
            self.failing = (seen.meters.canary.failed, now);
        }
        // The evidence of an incident outlasts it.
        let is_failing = now.since(self.failing.1) < INCIDENT_OVER;
        let is_shared = is_failing && seen.verdict == Verdict::Hold(HoldReason::Absolute);
        self.shared_since = since(is_shared, self.shared_since);
        if let Some(stage) = self.stage.and_then(|at| plan.stages.get(at)) {
            let period = hold_of(plan, stage).max(RECENT);
            self.recent.look((period, RECENT_PARTS), seen.meters.stage, Counts::default(), now);
        }
        self.slow_since = since(self.holds_slow(plan, seen), self.slow_since);
        if let Some(rule) = &self.rules(plan).error_window {
            self.window.look(rule, seen.meters.canary, seen.meters.stable, now);
        }
    }

    /// Rollback is looked for in all rules before a pause is.
    pub(super) fn breach(&self, plan: &Plan, seen: &Seen, now: Moment) -> Option<(Breach, Then)> {
        let breaches = self.breaches(plan, seen, now);
        breaches.iter().find(|(_, then)| *then == Then::RollBack).or(breaches.first()).cloned()
    }

    fn breaches(&self, plan: &Plan, seen: &Seen, now: Moment) -> Vec<(Breach, Then)> {
        let rules = self.rules(plan);
        let mut found = Vec::new();
        if let Some(rule) = rules.crashes {
            let restarts = self.restarts_within(rule.within, now);
            if restarts > rule.more_than as usize {
                found.push((Breach::Crashes { restarts }, rule.then));
            }
        }
        if lasts(self.unhealthy_since, UNHEALTHY, now) {
            found.push((Breach::Unhealthy, Then::RollBack));
        }
        found.extend(seen.broken.clone());
        if let Some(rule) = rules.error_window.filter(|rule| self.window.is_broken(rule, now)) {
            found.push((Breach::ErrorWindow, rule.then));
        }
        let outside = rules.custom.iter().filter(|(name, rule)| self.is_broken_outside(name, rule, now));
        found.extend(outside.map(|(name, rule)| (Breach::Custom { rule: name.to_string() }, rule.then)));
        if let Some(rule) = rules.latency.filter(|rule| rule.then == Then::RollBack)
            && self.is_slow(plan, seen, now)
        {
            found.push((Breach::Latency { ratio: seen.meters.latency_ratio }, rule.then));
        }
        found
    }

    /// Somebody has looked at a broken rule that pauses and goes on: what it counts begins anew. With all of them, as only
    /// one was told and all are likely to be about the same. Rules that roll back forget nothing.
    pub(super) fn forgive(&mut self, plan: &Plan, now: Moment) {
        let rules = self.rules(plan);
        let crashes = rules.crashes.filter(|rule| rule.then == Then::Pause);
        if crashes.is_some_and(|rule| self.restarts_within(rule.within, now) > rule.more_than as usize) {
            self.restarts = Tally::default();
            self.restarts_seen = Tally::default();
        }
        // What would break it by the passing of time alone is forgiven too.
        if rules.error_window.is_some_and(|rule| rule.then == Then::Pause) {
            self.window = Window::default();
        }
        for (name, rule) in rules.custom.iter().filter(|(_, rule)| rule.then == Then::Pause) {
            if self.is_broken_outside(name, rule, now) {
                self.events.remove(&**name);
            }
            // Unknown until the next answer, which is neither a breach nor good news.
            if self.signals.get(&**name).is_some_and(Signal::is_above) {
                self.signals.remove(&**name);
            }
        }
    }

    fn is_broken_outside(&self, name: &str, rule: &CustomRule, now: Moment) -> bool {
        match &rule.what {
            CustomEvent::Prometheus { every, period, .. } => {
                self.signals.get(name).is_some_and(|signal| signal.is_over(*period, *every * INTERVALS_FRESH, now))
            }
            CustomEvent::Outside { more_than, within } => {
                self.events.get(name).is_some_and(|tally| tally.within(*within, now) > *more_than as usize)
            }
            CustomEvent::Header { .. } | CustomEvent::Status { .. } | CustomEvent::GrpcStatus { .. } => false,
        }
    }

    pub(super) fn rules<'a>(&self, plan: &'a Plan) -> &'a Guardrails {
        guardrails_of(plan, self.stage)
    }

    pub(super) fn customs<'a>(&self, plan: &'a Plan) -> impl Iterator<Item = (&'a str, &'a CustomEvent)> + use<'a> {
        self.rules(plan).custom.iter().map(|(name, rule): &(Name, CustomRule)| (&**name, &rule.what))
    }

    /// Slowness keeps it from going on, which it does only where there is a rule about it.
    fn holds_slow(&self, plan: &Plan, seen: &Seen) -> bool {
        seen.latency_holds && self.rules(plan).latency.is_some()
    }

    fn is_slow(&self, plan: &Plan, seen: &Seen, now: Moment) -> bool {
        let Some(rule) = self.rules(plan).latency else { return false };
        let worse = seen.meters.latency_ratio.is_some_and(|ratio| ratio > rule.max_ratio);
        (worse && lasts(self.slow_since, rule.period, now)) || lasts(self.slow_since, LATENCY_HOLD, now)
    }

    /// What is for people to look at.
    pub(super) fn stops(&self, plan: &Plan, seen: &Seen, now: Moment) -> Option<Waits> {
        if lasts(self.shared_since, SHARED_INCIDENT, now) {
            return Some(Waits::SharedIncident);
        }
        if self.is_slow(plan, seen, now) {
            return Some(Waits::Latency { ratio: seen.meters.latency_ratio });
        }
        let stage = self.stage.and_then(|at| plan.stages.get(at))?;
        let is_over = now.since(self.stage_since) >= hold_of(plan, stage);
        if seen.copies_fail && is_over {
            return Some(Waits::Breach(Breach::Errors));
        }
        // Who waits at a gate has shown what there was to show.
        let is_staged = self.phase == Phase::Staged && !seen.around.frozen;
        let longest = hold_of(plan, stage) * STAGES_LONGEST;
        let is_late = now.since(self.stage_since.max(self.since)) >= longest && !longest.is_zero();
        (is_staged && is_late && !self.is_done(plan, seen, now)).then_some(Waits::Inconclusive)
    }

    /// The stage has shown what it had to.
    pub(super) fn is_done(&self, plan: &Plan, seen: &Seen, now: Moment) -> bool {
        let is_staged = self.stage.is_some_and(|at| at < plan.stages.len());
        is_staged && self.missing(plan, seen, now).is_empty()
    }

    /// What is missing for the next step, for people too.
    pub fn missing(&self, plan: &Plan, seen: &Seen, now: Moment) -> Vec<String> {
        let mut missing = Vec::new();
        if !self.is_running() {
            return missing;
        }
        if self.stage.is_none() && seen.around.canary_ready == 0 {
            missing.push("an endpoint of the canary that passes its health check".into());
        }
        let Some(stage) = self.stage.and_then(|at| plan.stages.get(at)) else { return missing };
        let left = hold_of(plan, stage).saturating_sub(now.since(self.stage_since));
        if !left.is_zero() {
            missing.push(format!("{} s of the stage's hold", left.as_millis().div_ceil(1000)));
        }
        if seen.meters.stage.total < stage.min_requests {
            missing.push(format!("{} requests", stage.min_requests - seen.meters.stage.total));
        }
        missing.extend(self.hold_reason(plan, seen).map(String::from));
        match &stage.traffic {
            StageTraffic::Share(_) | StageTraffic::Match(_) => missing.extend(self.proof_missing(plan, seen)),
            // No client saw an answer, so nothing can be proven.
            StageTraffic::Mirror(_) if seen.copies_fail => {
                let Counts { total, failed } = seen.meters.stage;
                missing.push(format!("copies that do not fail: {failed} of {total} did"));
            }
            StageTraffic::Mirror(_) => {}
        }
        missing.extend(self.health_missing(plan, stage, seen, now));
        missing.extend(self.signals_missing(plan, now));
        if seen.around.frozen {
            missing.push("the end of the freeze window".into());
        }
        missing
    }

    /// Why nothing is promoted now although nothing is broken.
    pub fn hold_reason(&self, plan: &Plan, seen: &Seen) -> Option<&'static str> {
        match seen.verdict {
            Verdict::RollBack => Some("an end of its errors"),
            Verdict::Hold(HoldReason::Pending) => Some("an end of the doubt: it may fail more often than stable"),
            Verdict::Hold(HoldReason::Absolute) => {
                Some("an end of the incident: too many failures, but stable is no better")
            }
            Verdict::Hold(HoldReason::Relative) => {
                Some("an end of the doubt: worse than stable, though inside the limit")
            }
            Verdict::Continue if self.holds_slow(plan, seen) => Some("an end of its slowness"),
            Verdict::Continue => None,
        }
    }

    fn proof_missing(&self, plan: &Plan, seen: &Seen) -> Vec<String> {
        let promise = &plan.promote_when;
        let (good, quick) = match promise.proof {
            Proof::Evidence => (seen.proven && self.within(plan, seen), seen.quick),
            Proof::Time => (self.within(plan, seen), seen.quick_now),
        };
        let proof = match promise.proof {
            Proof::Evidence => "proof that",
            Proof::Time => "a time in which",
        };
        let mut missing = Vec::new();
        if !good {
            missing.push(format!("{proof} errors are below {} %", promise.errors_below * 100.0));
        }
        if !quick {
            missing.push(format!("{proof} it is fast enough"));
        }
        missing
    }

    /// The literal part of the promise: the rate of the last hold, or of the stage if that is younger. Not so without
    /// any request.
    fn within(&self, plan: &Plan, seen: &Seen) -> bool {
        let rate = self.recent.canary(seen.meters.stage).rate();
        seen.meters.stage.total > 0 && rate < plan.promote_when.errors_below
    }

    fn health_missing(&self, plan: &Plan, stage: &Stage, seen: &Seen, now: Moment) -> Option<String> {
        if let Some(address) = self.flaps.flapping(now) {
            let minutes = FLAPPING_WITHIN.as_secs() / 60;
            return Some(format!("{minutes} quiet minutes of endpoint {address}, which comes and goes"));
        }
        let unready = seen.around.canary_endpoints.saturating_sub(seen.around.canary_ready);
        let enough = seen.around.canary_ready as f64 >= seen.around.canary_endpoints as f64 * ENDPOINTS_NEEDED;
        if !enough || (plan.promote_when.healthy && unready > 0) {
            return Some(format!("{unready} healthy endpoints"));
        }
        let period = HEALTHY.min(hold_of(plan, stage));
        let is_new = plan.promote_when.healthy && !lasts(self.healthy_since, period, now);
        is_new.then(|| format!("{} s with all endpoints healthy", period.as_secs_f64()))
    }

    fn signals_missing(&self, plan: &Plan, now: Moment) -> Vec<String> {
        let unknown = self.customs(plan).filter_map(|(name, what)| {
            let CustomEvent::Prometheus { every, .. } = what else { return None };
            let fresh = *every * INTERVALS_FRESH;
            match self.signals.get(name) {
                Some(signal) if signal.is_good(fresh, now) => None,
                Some(signal) if signal.is_known(fresh, now) => Some(format!("`{name}` inside its limit")),
                Some(_) | None => Some(format!("an answer to the query of `{name}`")),
            }
        });
        unknown.collect()
    }
}

fn lasts(since: Option<Moment>, period: Duration, now: Moment) -> bool {
    since.is_some_and(|since| now.since(since) >= period)
}

/// The least time of a stage.
pub fn hold_of(plan: &Plan, stage: &Stage) -> Duration {
    stage.hold.unwrap_or(plan.promote_when.hold)
}
