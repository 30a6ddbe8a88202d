//! From evidence to a generation: every rollout is asked what is next, and all that moved goes live at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::story::{Said, why_of, word_of};
use super::{AUTHOR, Rejection, Running, mark_of, shares_for};
use crate::analysis::Arm;
use crate::config::model::{HookPoint, Rollout as Plan};
use crate::control::controller::{By, Controller, Outcome};
use crate::control::decide::{Decision as Shares, part};
use crate::control::event::Trigger;
use crate::control::publish::Published;
use crate::endpoints::EndpointRuntime;
use crate::evidence::Trial;
use crate::rollout::{
    Around, Breach, Decision, Judge, Meters, Rollout, Seen, Waits, guardrails_of, label_of, traffic_of,
};
use crate::routing::compile::split_from;
use crate::routing::table::CompiledService;
use crate::routing::{Bucket, ServiceIdx, Share};
use crate::telemetry::{Event, names, unix_ms};

/// How often the journal learns how far the evidence is.
const KEEP: Duration = Duration::from_secs(1);
/// How soon old latencies of stable fade to half.
const FADE: Duration = Duration::from_secs(60);

/// One service's next step, decided but not carried out.
pub(crate) struct Step {
    pub service: String,
    pub decision: Decision,
    pub cause: String,
    /// When what caused it happened, on the clock of `Live::nanos`; `None`: now.
    pub trigger_nanos: Option<u64>,
    /// [`AUTHOR`], or who said so.
    pub author: String,
    /// The rule that decided.
    pub rule: &'static str,
    /// The numbers it was decided on; `None`: what is known when it is carried out.
    pub meters: Option<Meters>,
}

impl Controller {
    /// Hands what the histograms saw since the last look to the judges.
    fn collect(&mut self) {
        let fades = self.rollouts.faded_at.elapsed() >= FADE;
        if fades {
            self.rollouts.faded_at = Instant::now();
        }
        for (service, running) in self.rollouts.by_service.iter().filter(|(_, running)| running.rollout.is_running()) {
            let endpoints = [&running.rollout.canary, &running.rollout.stable].map(|it| self.ready_of(service, it));
            let mut latencies = [Vec::new(), Vec::new()];
            for (arm, seen) in [Arm::Canary, Arm::Stable].into_iter().zip(&mut latencies) {
                running.trial.take_latencies(arm, &mut |bucket, count| seen.push((bucket, count)));
                self.take_late(service, running, arm, seen);
            }
            running.trial.judge(|judge| {
                judge.endpoints(endpoints[0], endpoints[1]);
                judge.latencies(&latencies[0], &latencies[1]);
                if fades {
                    judge.fade();
                }
            });
        }
    }

    /// Looks at every rollout. Returns the flip, if there was one.
    pub(crate) fn tick(&mut self) -> Option<Box<Published>> {
        self.collect();
        self.hear();
        let mut steps = Vec::new();
        let now = self.rollouts.now();
        let services: Vec<String> = self.rollouts.by_service.keys().cloned().collect();
        for service in services {
            let withdrawn = self.rollouts.by_service.get(&service).and_then(|running| running.trial.withdrawn_at());
            let Some(seen) = self.seen(&service) else { continue };
            let Some(plan) = self.plan_of(&service) else { continue };
            self.tell_held(&service, &plan, &seen);
            let endpoints = self.endpoints_of_canary(&service);
            let Some(running) = self.rollouts.by_service.get_mut(&service) else { continue };
            running
                .rollout
                .endpoints(endpoints.iter().map(|(endpoint, address)| (&**address, endpoint.is_ready())), now);
            running.count_restarts(endpoints.iter().map(|(endpoint, _)| &**endpoint), now);
            let decision = running.rollout.decide(&plan, &seen, now);
            if let Some(at) = withdrawn.filter(|_| !matches!(decision, Decision::RollBack(_))) {
                // A data thread judged by the failures alone; what is known here speaks against going back.
                running.trial.reinstate(at);
            }
            if decision == Decision::Stay {
                continue;
            }
            let mut cause = cause_of(&running.rollout, &decision, &plan, &seen);
            if decision == (Decision::Advance { to: 0 }) {
                let stable = running.rollout.stable.clone();
                cause.extend(self.caution(&service, &stable, &plan).map(|caution| format!("; beware: {caution}")));
            }
            let Some(running) = self.rollouts.by_service.get(&service) else { continue };
            let trigger_nanos = running.trial.withdrawn_at();
            let (author, rule) = (AUTHOR.to_string(), rule_of(&decision));
            let meters = Some(seen.meters);
            steps.push(Step { service, decision, cause, trigger_nanos, author, rule, meters });
        }
        self.with_group(&mut steps);
        let published = self.carry_out(steps, AUTHOR);
        self.sample();
        if self.rollouts.kept_at.elapsed() >= KEEP {
            self.rollouts.kept_at = Instant::now();
            self.stand();
            self.refresh();
        }
        published
    }

    /// How many endpoints of a version may be used.
    fn ready_of(&self, service: &str, version: &str) -> usize {
        let live = self.live();
        let found = live.version_named(service, version);
        found.map_or(0, |version| version.now().endpoints.iter().filter(|endpoint| endpoint.is_ready()).count())
    }

    fn endpoints_of_canary(&self, service: &str) -> Vec<(Arc<EndpointRuntime>, String)> {
        let live = self.live();
        let running = self.rollouts.by_service.get(service);
        let canary = running.and_then(|running| live.version_named(service, &running.rollout.canary));
        let endpoints = canary.map(|version| version.endpoints()).unwrap_or_default();
        endpoints.into_iter().map(|endpoint| (endpoint.clone(), endpoint.label())).collect()
    }

    /// Promoted, with everything still on it, and the version before still there for a way back.
    fn is_kept(&self, service: &str, running: &Running) -> bool {
        let until = self.plan_of(service).and_then(|plan| running.rollout.kept_until(&plan));
        until.is_some_and(|until| unix_ms() < until) && self.share_of_canary(service, &running.rollout.canary) >= 1.0
    }

    /// A rollback takes the rollouts of the same group with it: those that run, and those that were promoted while the
    /// version before is kept (`keep_idle`).
    pub(super) fn with_group(&self, steps: &mut Vec<Step>) {
        let mut more = Vec::new();
        for step in steps.iter().filter(|step| matches!(step.decision, Decision::RollBack(_))) {
            let Some(group) = self.plan_of(&step.service).and_then(|plan| plan.group) else { continue };
            for (other, running) in &self.rollouts.by_service {
                let same = self.plan_of(other).and_then(|plan| plan.group).as_ref() == Some(&group);
                let is_kept = self.is_kept(other, running);
                if same && *other != step.service && (running.rollout.is_running() || is_kept) {
                    let can_go_back = self.ready_of(other, &running.rollout.stable) > 0;
                    if is_kept && !can_go_back {
                        continue;
                    }
                    let by_hand = matches!(step.decision, Decision::RollBack(Breach::Operator { .. }));
                    let breach = Breach::Group { with: step.service.clone() };
                    let decision = match can_go_back || by_hand {
                        true => Decision::RollBack(breach),
                        // A broken stable is never the target of a rollback that nobody asked for.
                        false => Decision::Pause(Waits::StableBroken(breach)),
                    };
                    let what = if matches!(decision, Decision::Pause(_)) { "cannot go back" } else { "goes back" };
                    more.push(Step {
                        service: other.clone(),
                        decision,
                        cause: format!("rollback {other} {what} with {} of group {group}", step.service),
                        trigger_nanos: step.trigger_nanos,
                        author: step.author.clone(),
                        rule: "group",
                        meters: None,
                    });
                }
            }
        }
        for step in more {
            steps.retain(|known| known.service != step.service || matches!(known.decision, Decision::RollBack(_)));
            if !steps.iter().any(|known| known.service == step.service) {
                steps.push(step);
            }
        }
    }

    /// Everything that is known of both arms of a service's running rollout.
    pub(crate) fn seen(&self, service: &str) -> Option<Seen> {
        let live = self.live();
        let table = &live.generation.table;
        let at = table.service_named(service)?;
        let compiled = table.service(at);
        let running = self.rollouts.by_service.get(service).filter(|running| running.rollout.is_running())?;
        let runtime = live.runtime.service(at);
        let endpoints =
            |version: &str| compiled.version_named(version).map(|version| runtime.version(version).endpoints());
        let canary = endpoints(&running.rollout.canary)?;
        let stable = endpoints(&running.rollout.stable)?;
        let freeze = compiled.service.rollout.as_ref().map(|plan| &plan.freeze);
        let around = Around {
            canary_ready: canary.iter().filter(|endpoint| endpoint.is_ready()).count(),
            canary_endpoints: canary.len(),
            canary_unknown: canary.iter().filter(|endpoint| endpoint.is_unknown()).count(),
            stable_ready: stable.iter().any(|endpoint| endpoint.is_ready()),
            frozen: freeze.is_some_and(|freeze| crate::rollout::is_frozen(freeze, unix_ms())),
        };
        Some(running.trial.judge(|judge| judge.seen(around)))
    }

    /// Steps of several services become one generation. What needs none is only remembered.
    pub(crate) fn carry_out(&mut self, steps: Vec<Step>, author: &str) -> Option<Box<Published>> {
        if steps.is_empty() {
            return None;
        }
        let live = self.live();
        let table = live.generation.table.clone();
        let now = self.rollouts.now();
        let mut flips: BTreeMap<ServiceIdx, Shares> = BTreeMap::new();
        let mut causes = Vec::new();
        let mut trigger_nanos = None;
        let mut ended = Vec::new();
        for step in &steps {
            let Some(at) = table.service_named(&step.service) else { continue };
            let service = table.service(at);
            let Some(plan) = service.service.rollout.as_ref() else { continue };
            let Some(running) = self.rollouts.by_service.get_mut(&step.service) else { continue };
            let bp = match &step.decision {
                Decision::Stay | Decision::Wait { .. } | Decision::Ask(_) | Decision::Pause(_) => None,
                // The split is what it was; from this generation on nobody judges the version any more.
                Decision::Promote => Some(10_000),
                Decision::Advance { to } => Some(crate::rollout::share_of(&plan.stages[*to])),
                Decision::RollBack(_) => Some(0),
            };
            if let Decision::RollBack(_) = step.decision {
                // At once, for the data threads; the generation follows.
                running.trial.withdraw(step.trigger_nanos.unwrap_or_else(|| self.shared.live.nanos()));
                ended.push(running.trial.clone());
            }
            running.rollout.apply(&step.decision, now, unix_ms());
            trigger_nanos = trigger_nanos.max(step.trigger_nanos);
            causes.push(step.cause.clone());
            if let Decision::RollBack(breach) = &step.decision {
                let rejection = Rejection {
                    mark: mark_of(service, &running.rollout.canary),
                    why: super::show::why_breach(breach),
                    at: unix_ms(),
                    stable: Some(running.rollout.stable.clone()),
                };
                let rejected = self.rollouts.rejected.entry(step.service.clone()).or_default();
                rejected.insert(running.rollout.canary.clone(), rejection);
            }
            if let Some(shares) = bp.and_then(|bp| shares_for(service, &running.rollout, bp)) {
                if let Decision::Advance { .. } = step.decision {
                    enter(&running.trial, service, &running.rollout, plan, &shares, self.shared.live.threads());
                }
                flips.insert(at, Shares { shares, warnings: Vec::new() });
            }
        }
        let by = By {
            author: author.into(),
            cause: causes.join("; "),
            trigger: Trigger { nanos: trigger_nanos.unwrap_or_else(|| self.shared.live.nanos()), unix_ms: unix_ms() },
        };
        let published = match flips.is_empty() {
            true => None,
            false => match self.flip(flips, by.clone()) {
                Outcome::Flipped(published) => Some(Box::new(Published { ended, ..*published })),
                Outcome::Unchanged(_) => None,
            },
        };
        for step in &steps {
            self.say_step(step);
        }
        self.tell_decisions(published.as_ref().map(|published| &published.receipt));
        // What is live is shown before it is told.
        self.refresh();
        for step in &steps {
            if let Decision::RollBack(_) = step.decision {
                self.recall(&step.service);
            }
            self.announce_step(step, &by.author);
            if let Decision::Ask(point) = step.decision {
                self.ask_webhooks(step, point);
            }
        }
        self.stand();
        published
    }

    /// Who, what, why and on which evidence.
    fn say_step(&mut self, step: &Step) {
        // A question is no decision; its answer leads to one.
        if matches!(step.decision, Decision::Stay | Decision::Ask(_)) {
            return;
        }
        let Some(running) = self.rollouts.by_service.get(&step.service) else { return };
        let meters = step.meters.unwrap_or_else(|| running.trial.judge(|judge| judge.meters()));
        let said = Said {
            decision: word_of(&step.decision),
            reason: step.rule,
            why: match step.rule {
                "group" => step.cause.clone(),
                _ => why_of(&step.decision, &meters, &step.author),
            },
            author: &step.author,
            cause: &step.cause,
            meters: Some(meters),
        };
        self.rollouts.say(&step.service, said);
    }

    fn ask_webhooks(&mut self, step: &Step, point: HookPoint) {
        let Some(plan) = self.plan_of(&step.service) else { return };
        let Some(running) = self.rollouts.by_service.get(&step.service) else { return };
        let evidence = super::tell::evidence(running, "evidence");
        let message = step.cause.clone();
        let call = super::outside::call(&step.service, point, &running.rollout, &plan, message, evidence);
        self.outside.ask(&call, &running.rollout, &plan, self.rollouts.tripped.clone());
    }

    fn announce_step(&mut self, step: &Step, author: &str) {
        if step.decision == Decision::Stay {
            return;
        }
        let decision = word_of(&step.decision);
        let Some(running) = self.rollouts.by_service.get(&step.service) else { return };
        let (meters, statuses) = running.trial.judge(|judge: &mut Judge| (judge.meters(), judge.statuses()));
        let reason = step.rule;
        let labels =
            [("service", step.service.clone()), ("decision", decision.to_string()), ("reason", reason.to_string())];
        metrics::counter!(names::ROLLOUT_DECISIONS_TOTAL, &labels).increment(1);
        let stage = running.rollout.stage.map_or(0, |at| at + 1);
        metrics::gauge!(names::ROLLOUT_STAGE, "service" => step.service.clone()).set(stage as f64);
        tracing::info!(service = step.service, decision, reason, author, cause = step.cause, "rollout");
        self.shared.events.emit(Event {
            kind: "rollout",
            service: Some(step.service.clone()),
            version: Some(running.rollout.canary.clone()),
            message: step.cause.clone(),
            data: json!({
                "decision": decision, "reason": reason, "author": author, "stage": stage,
                "meters": meters, "statuses": statuses,
            }),
        });
        self.tell_step(step, reason);
    }
}

/// The judge learns of the stage before its first request.
pub(super) fn enter(
    trial: &Trial<Judge>,
    service: &CompiledService,
    rollout: &Rollout,
    plan: &Plan,
    shares: &[Share],
    threads: usize,
) {
    let Some(canary) = service.version_named(&rollout.canary) else { return };
    let split = split_from(service, shares.to_vec(), threads);
    let buckets = super::buckets_of(service, &split, canary);
    let share = part(shares, canary);
    let is_canary = |bucket| split.of_client(Bucket(bucket)) == canary;
    let rules = guardrails_of(plan, rollout.stage);
    trial.judge(|judge| {
        judge.enter((plan, rules), share, buckets, is_canary);
        judge.serves(traffic_of(plan, rollout.stage));
    });
}

/// The rule behind what was decided by itself.
fn rule_of(decision: &Decision) -> &'static str {
    match decision {
        Decision::RollBack(breach) | Decision::Pause(Waits::Breach(breach) | Waits::StableBroken(breach)) => {
            breach_name(breach)
        }
        Decision::Pause(Waits::SharedIncident) => "shared_incident",
        Decision::Pause(Waits::Latency { .. }) => "latency",
        Decision::Pause(Waits::Inconclusive) => "inconclusive",
        Decision::Pause(Waits::Refused { .. }) => "refused",
        Decision::Pause(Waits::Unknown) => "unknown_state",
        Decision::Pause(Waits::Operator { .. }) => "operator",
        Decision::Wait { .. } => "gate",
        Decision::Ask(_) => "webhook",
        Decision::Stay | Decision::Advance { .. } | Decision::Promote => "evidence",
    }
}

fn breach_name(breach: &Breach) -> &'static str {
    match breach {
        Breach::Errors => "errors",
        Breach::ErrorWindow => "error_window",
        Breach::Custom { .. } => "custom",
        Breach::Latency { .. } => "latency",
        Breach::Crashes { .. } => "crashes",
        Breach::Unhealthy => "unhealthy",
        Breach::Group { .. } => "group",
        Breach::Operator { .. } => "operator",
    }
}

/// One line for the history: what, and on which evidence.
fn cause_of(rollout: &Rollout, decision: &Decision, plan: &Plan, seen: &Seen) -> String {
    let canary = &rollout.canary;
    let meters = &seen.meters;
    let evidence = format!(
        "{} of {} requests failed ({} of {} on {}), evidence {:.1}",
        meters.canary.failed,
        meters.canary.total,
        meters.stable.failed,
        meters.stable.total,
        rollout.stable,
        meters.errors
    );
    match decision {
        Decision::Stay => String::new(),
        Decision::Advance { to } => format!("rollout {canary} to {} (stage {})", label_of(&plan.stages[*to]), to + 1),
        Decision::Wait { gate } => format!("rollout {canary} waits for gate {gate}"),
        Decision::Ask(point) => format!("rollout {canary} asks its webhooks ({})", point.as_str()),
        Decision::Pause(waits) => format!("rollout {canary} paused: {}", super::show::why_waits(waits)),
        Decision::RollBack(Breach::Errors) => format!("rollback {canary}: {evidence}"),
        Decision::RollBack(breach) => format!("rollback {canary}: {}", super::show::why_breach(breach)),
        Decision::Promote => format!("rollout {canary} promoted: {evidence}"),
    }
}
