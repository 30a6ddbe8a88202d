//! What operators say about rollouts.

use std::collections::BTreeMap;

use super::story::Said;
use super::tick::Step;
use super::{AUTHOR, mark_of, shares_for};
use crate::config::model::{CustomEvent, Intent, Rollout as Plan};
use crate::control::api::{Refused, RolloutAction};
use crate::control::controller::{By, Controller, Outcome};
use crate::control::decide::{Decision as Shares, conflict, unknown};
use crate::rollout::{Command, Decision, Phase, Rollout, guardrails_of};
use crate::telemetry::unix_ms;

/// The kind of event that the guardrail `crashes` counts.
const RESTART: &str = "restart";

/// Kinds of events that guardrails of the user's own count, in any stage.
fn reportable(plan: &Plan) -> impl Iterator<Item = &str> {
    let stages = plan.stages.iter().filter_map(|stage| stage.guardrails.as_ref());
    let rules = std::iter::once(&plan.guardrails).chain(stages).flat_map(|rules| &rules.custom);
    rules.filter(|(_, rule)| matches!(rule.what, CustomEvent::Outside { .. })).map(|(name, _)| &**name)
}

/// How the history will call what an operator says about a rollout.
pub fn cause(service: &str, action: &RolloutAction) -> String {
    let because = |reason: &Option<String>| reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    match action {
        RolloutAction::Start { to, again } => {
            let to = to.as_ref().map_or(String::new(), |to| format!(" {to}"));
            let again = if *again { " --again" } else { "" };
            format!("rollout start {service}{to}{again}")
        }
        RolloutAction::Promote => format!("rollout promote {service}"),
        RolloutAction::Pause { reason } => format!("rollout pause {service}{}", because(reason)),
        RolloutAction::Resume => format!("rollout resume {service}"),
        RolloutAction::Abort { reason } => format!("rollout abort {service}{}", because(reason)),
        RolloutAction::Approve { gate, by, comment } => {
            let word = |text: &Option<String>| text.as_ref().map_or(String::new(), |text| format!(" {text}"));
            let by = by.as_ref().map_or(String::new(), |by| format!(" by {by}"));
            format!("rollout approve {service}{}{by}{}", word(gate), because(comment))
        }
    }
}

impl Controller {
    pub(crate) fn rollout_asked(&mut self, service: &str, action: RolloutAction, by: By) -> Result<Outcome, Refused> {
        let Some(plan) = self.plan_of(service) else {
            let live = self.live();
            let table = &live.generation.table;
            if table.service_named(service).is_none() {
                return Err(unknown("service", service, table.services.iter().map(|service| &*service.name)));
            }
            let what = format!("service `{service}` has no `rollout:` in its configuration");
            return Err(conflict(what, Some("add one, or use `switchback switch` or `switchback weights`".into())));
        };
        let command = match action {
            RolloutAction::Start { to, again } => return self.start(service, to, again, by),
            RolloutAction::Promote => Command::Promote,
            RolloutAction::Pause { reason } => Command::Pause { reason },
            RolloutAction::Resume => Command::Resume,
            RolloutAction::Abort { reason } => Command::Abort { reason },
            RolloutAction::Approve { gate, by: who, .. } => {
                let who = who.unwrap_or_else(|| by.author.clone());
                self.may_approve(service, gate.as_deref(), &who)?;
                Command::Approve { gate, by: who }
            }
        };
        let approves = matches!(command, Command::Approve { .. });
        let now = self.rollouts.now();
        let resumes = command == Command::Resume;
        let Some(running) = self.rollouts.by_service.get_mut(service) else {
            let hint = format!("it begins when `active` changes, or by: switchback rollout start {service} VERSION");
            return Err(conflict(format!("no rollout of service `{service}` runs"), Some(hint)));
        };
        // As they are in this stage.
        let meters = Some(running.trial.judge(|judge| judge.meters()));
        let before = running.rollout.phase.clone();
        let decision = running
            .rollout
            .command(&plan, command, &by.author, now)
            .map_err(|why| conflict(format!("service `{service}`: {why}"), None))?;
        if let Phase::Paused(waits) = before
            && resumes
        {
            let rules = guardrails_of(&plan, running.rollout.stage);
            running.trial.judge(|judge| judge.forgive(&waits, rules));
        }
        if decision == Decision::Stay {
            if approves {
                let (author, cause) = (&*by.author, &*by.cause);
                let why = format!("{author} said yes");
                self.rollouts.say(service, Said { decision: "approve", reason: "gate", why, author, cause, meters });
                self.tell_decisions(None);
                // It goes on at once, if nothing else speaks against it.
                self.rollouts.tripped.notify_one();
            }
            if resumes {
                let (author, cause) = (&*by.author, &*by.cause);
                let why = format!("{author} said so; the stage begins anew");
                let said = Said { decision: "resume", reason: "operator", why, author, cause, meters: None };
                self.rollouts.say(service, said);
                self.tell_decisions(None);
                self.tell_resumed(service, &by.author);
            }
            self.stand();
            return Ok(self.unchanged(&by, "done"));
        }
        let step = Step {
            service: service.into(),
            decision,
            cause: by.cause.clone(),
            trigger_nanos: Some(by.trigger.nanos),
            author: by.author.clone(),
            rule: "operator",
            meters,
        };
        let mut steps = vec![step];
        self.with_group(&mut steps);
        match self.carry_out(steps, AUTHOR) {
            Some(published) => Ok(Outcome::Flipped(published)),
            None => Ok(self.unchanged(&by, "done")),
        }
    }

    fn start(&mut self, service: &str, to: Option<String>, again: bool, by: By) -> Result<Outcome, Refused> {
        let live = self.live();
        let table = live.generation.table.clone();
        let at = table.service_named(service).expect("it has a plan, so it exists");
        let compiled = table.service(at);
        let plan = compiled.service.rollout.as_ref().expect("asked before");
        let to = match (to, &compiled.service.intent) {
            (Some(to), _) => to,
            (None, Intent::Active(active)) => active.to_string(),
            (None, Intent::Split(_)) => return Err(conflict("name the version to roll out".into(), None)),
        };
        if compiled.version_named(&to).is_none() {
            let what = format!("version of service `{service}` called");
            return Err(unknown(&what, &to, compiled.versions.iter().map(|version| &**version)));
        }
        if self.rollouts.by_service.get(service).is_some_and(|running| running.rollout.is_running()) {
            let hint = format!("end it first: switchback rollout abort {service}");
            return Err(conflict(format!("a rollout of service `{service}` runs already"), Some(hint)));
        }
        let mark = mark_of(compiled, &to);
        if let Some(rejection) = self.rollouts.rejection(service, &to, &mark).filter(|_| !again) {
            let hint = "change its definition (endpoints or `revision`), or insist: --again".to_string();
            return Err(conflict(format!("`{to}` was rejected: {}", rejection.why), Some(hint)));
        }
        let weights = crate::control::overlay::weights_of(&compiled.versions, live.generation.split(at).shares());
        let others = weights.iter().filter(|(version, weight)| **weight > 0 && **version != to);
        let Some((stable, _)) = others.max_by_key(|(_, weight)| **weight) else {
            return Err(conflict(format!("`{to}` has all the traffic of service `{service}` already"), None));
        };
        if let Some(rejected) = self.rollouts.rejected.get_mut(service) {
            rejected.remove(&to);
        }
        let now = self.rollouts.now();
        let mut rollout = Rollout::new(stable.clone(), to, mark, now, unix_ms());
        // Until the file names another, its word is older than this one.
        rollout.intent = match &compiled.service.intent {
            Intent::Active(active) => Some(active.to_string()),
            Intent::Split(_) => None,
        };
        let shares = shares_for(compiled, &rollout, 0).expect("both exist");
        self.rollouts.insert(service, rollout, plan, self.shared.live.threads(), Some((&by.author, &by.cause)));
        // From here on the rollout owns the split; its first stage follows with the next look at it.
        let ours = By { author: AUTHOR.into(), ..by };
        Ok(self.flip(BTreeMap::from([(at, Shares { shares, warnings: Vec::new() })]), ours))
    }

    fn may_approve(&self, service: &str, gate: Option<&str>, who: &str) -> Result<(), Refused> {
        let live = self.live();
        let gates = &live.generation.table.config.gates;
        let waits = self.rollouts.by_service.get(service).and_then(|running| match &running.rollout.phase {
            Phase::Waiting { gate } => Some(gate.clone()),
            Phase::Staged | Phase::Paused(_) | Phase::RolledBack(_) | Phase::Promoted | Phase::Superseded { .. } => {
                None
            }
        });
        let Some(name) = gate.map(str::to_string).or(waits) else { return Ok(()) };
        let Some(gate) = gates.get(name.as_str()) else {
            return Err(unknown("gate", &name, gates.keys().map(|gate| &**gate)));
        };
        if gate.approvers.is_empty() || gate.approvers.iter().any(|approver| approver == who) {
            return Ok(());
        }
        let hint = format!("its approvers are: {}; say who you are with --by", gate.approvers.join(", "));
        Err(conflict(format!("`{who}` may not approve at gate `{name}`"), Some(hint)))
    }

    /// Evidence from outside.
    pub(crate) fn reported(&mut self, service: &str, version: &str, kind: &str, by: &By) -> Result<Outcome, Refused> {
        let live = self.live();
        let table = &live.generation.table;
        let Some(at) = table.service_named(service) else {
            return Err(unknown("service", service, table.services.iter().map(|service| &*service.name)));
        };
        let compiled = table.service(at);
        if compiled.version_named(version).is_none() {
            let what = format!("version of service `{service}` called");
            return Err(unknown(&what, version, compiled.versions.iter().map(|version| &**version)));
        }
        let plan = compiled.service.rollout.as_ref();
        let kinds: Vec<&str> = std::iter::once(RESTART).chain(plan.into_iter().flat_map(reportable)).collect();
        if !kinds.contains(&kind) {
            return Err(unknown("kind of event", kind, kinds.into_iter()));
        }
        let now = self.rollouts.now();
        match self.rollouts.by_service.get_mut(service) {
            Some(running) if running.rollout.is_running() && running.rollout.canary == version => {
                let is_counted = match plan {
                    _ if kind == RESTART => {
                        running.rollout.restarted(now);
                        true
                    }
                    Some(plan) => running.rollout.reported(plan, kind, now),
                    None => false,
                };
                self.stand();
                // Whether it is one too many is looked at once more, and at once.
                self.rollouts.tripped.notify_one();
                Ok(self.unchanged(by, if is_counted { "counted" } else { "this stage does not count it" }))
            }
            // Stable's restarts, and those of versions that nothing is decided about, are only logged.
            Some(_) | None => Ok(self.unchanged(by, "no rollout of this version runs")),
        }
    }
}
