//! A rollout for `status`.

use std::collections::BTreeMap;

use super::Running;
use crate::config::model::Rollout as Plan;
use crate::control::api::{RolloutMeters, RolloutStatus};
use crate::control::controller::Controller;
use crate::rollout::{Breach, Meters, Moment, Phase, Seen, Waits};

impl Controller {
    pub(crate) fn rollout_statuses(&self) -> BTreeMap<String, RolloutStatus> {
        let of = |(service, running): (&String, &Running)| {
            let plan = self.plan_of(service)?;
            let mut status = status(running, &plan, self.seen(service).as_ref(), self.rollouts.now());
            let problems = self.outside.problems_of(service, &running.rollout.canary);
            status.why.extend(problems.map(|(rule, why)| format!("`{rule}` is not known: {why}")));
            Some((service.clone(), status))
        };
        self.rollouts.by_service.iter().filter_map(of).collect()
    }
}

fn status(running: &Running, plan: &Plan, seen: Option<&Seen>, now: Moment) -> RolloutStatus {
    let rollout = &running.rollout;
    let (phase, gate) = match &rollout.phase {
        Phase::Staged => ("staged", None),
        Phase::Waiting { gate } => ("waiting", Some(gate.clone())),
        Phase::Paused(_) => ("paused", None),
        Phase::RolledBack(_) => ("rolled_back", None),
        Phase::Promoted => ("promoted", None),
        Phase::Superseded { .. } => ("superseded", None),
    };
    let why = match &rollout.phase {
        Phase::Staged => {
            let asks = rollout.asks_now().map(|point| format!("its webhooks ({}) have not answered", point.as_str()));
            asks.into_iter().collect()
        }
        Phase::Promoted => Vec::new(),
        Phase::Waiting { gate } => vec![format!("gate {gate} has not said yes")],
        Phase::Paused(waits) => vec![why_waits(waits)],
        Phase::RolledBack(breach) => vec![why_breach(breach)],
        Phase::Superseded { by } => vec![format!("{by} decides now")],
    };
    let meters = running.trial.judge(|judge| judge.meters());
    RolloutStatus {
        phase: phase.into(),
        stable: rollout.stable.clone(),
        canary: rollout.canary.clone(),
        stage: rollout.stage.map_or(0, |at| at + 1),
        stages: plan.stages.iter().map(|stage| f64::from(crate::rollout::share_of(stage)) / 1e4).collect(),
        labels: plan.stages.iter().map(crate::rollout::label_of).collect(),
        since: rollout.since_unix,
        started: running.started,
        hold_left_ms: rollout.hold_left(plan, now).map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        kept_until: rollout.kept_until(plan),
        why,
        gate,
        missing: seen.map_or(Vec::new(), |seen| rollout.missing(plan, seen, now)),
        meters: Some(shown(&meters, rollout.restarts() as u64)),
    }
}

fn shown(meters: &Meters, restarts: u64) -> RolloutMeters {
    RolloutMeters {
        copies: meters.copies.total,
        copies_failed: meters.copies.failed,
        canary_requests: meters.canary.total,
        canary_failures: meters.canary.failed,
        stable_requests: meters.stable.total,
        stable_failures: meters.stable.failed,
        errors: meters.errors,
        errors_limit: crate::rollout::ERRORS_LIMIT,
        errors_absolute: meters.errors_absolute,
        errors_relative: meters.errors_relative,
        latency: meters.latency,
        latency_limit: crate::rollout::LATENCY_LIMIT,
        proof: meters.proof,
        proof_limit: crate::rollout::PROOF_LIMIT,
        quick: meters.quick,
        canary_p50_ms: meters.canary_p50,
        canary_p95_ms: meters.canary_p95,
        stable_p50_ms: meters.stable_p50,
        stable_p95_ms: meters.stable_p95,
        restarts,
    }
}

pub(super) fn why_waits(waits: &Waits) -> String {
    waits.to_string()
}

pub(super) fn why_breach(breach: &Breach) -> String {
    breach.to_string()
}
