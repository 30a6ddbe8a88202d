//! What is told of rollouts, and to whom an alarm means what.
//!
//! An alarm is opened when somebody must look: a pause or a rollback that no operator asked for. It is closed by
//! what shows that somebody did, or that nobody has to: the rollout goes on, ends well, is ended by an operator,
//! the next one begins, or it goes out of the configuration. Whether one is open is journaled, so that a restart neither forgets to close it nor
//! closes what was never opened.

use std::time::Duration;

use serde_json::{Value, json};

use super::alarm::Told;
use super::tick::Step;
use super::{AUTHOR, Running, outside, show};
use crate::alerts::{Alarm, Happened, Notice, Severity};
use crate::config::model::{HookPoint, Rollout as Plan};
use crate::control::controller::Controller;
use crate::rollout::{Breach, Decision, Judge, Phase, Rollout, Seen, Waits};
use crate::telemetry::unix_ms;

/// A hold that is over sooner is not worth a message.
const HELD_AFTER: Duration = Duration::from_secs(5);

/// What became of a rollout while it was not this task's turn to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Untold {
    /// With the canary of the rollout before, if its alarm is still open.
    Begun {
        before: Option<String>,
    },
    /// Its evidence could not be read back.
    Unread,
    Overruled,
}

/// Whether nothing moves on, and since when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Held {
    #[default]
    No,
    Since(crate::rollout::Moment),
    Told,
}

impl Controller {
    /// What a step comes to for people and alarm systems. The generation it made is live already.
    pub(super) fn tell_step(&mut self, step: &Step, reason: &str) {
        self.tell_untold(&step.service);
        let (happened, opens) = match &step.decision {
            Decision::Stay | Decision::Ask(_) => return,
            Decision::Advance { .. } => (Happened::Advanced, None),
            Decision::Wait { .. } => (Happened::Approval, None),
            Decision::Promote => (Happened::Promoted, None),
            Decision::Pause(Waits::StableBroken(_)) => (Happened::Failed, Some(Severity::Critical)),
            Decision::Pause(Waits::Refused { .. }) => (Happened::Failed, Some(Severity::Warning)),
            Decision::Pause(Waits::Operator { .. }) => (Happened::Paused, None),
            Decision::Pause(
                Waits::Breach(_) | Waits::SharedIncident | Waits::Latency { .. } | Waits::Inconclusive | Waits::Unknown,
            ) => (Happened::Paused, Some(Severity::Warning)),
            Decision::RollBack(Breach::Operator { .. }) => (Happened::RolledBack, None),
            // What an operator did to another service of the group.
            Decision::RollBack(Breach::Group { .. }) if step.author != AUTHOR => (Happened::RolledBack, None),
            Decision::RollBack(
                Breach::Errors
                | Breach::ErrorWindow
                | Breach::Custom { .. }
                | Breach::Latency { .. }
                | Breach::Crashes { .. }
                | Breach::Unhealthy
                | Breach::Group { .. },
            ) => (Happened::RolledBack, Some(Severity::Error)),
        };
        // A gate that waits, or an operator's pause, says nothing about an alarm.
        let closes = !matches!(step.decision, Decision::Wait { .. } | Decision::Pause(_));
        self.tell_of(&step.service, happened, (opens, closes), step.cause.clone(), reason);
        if let Decision::RollBack(_) = step.decision {
            self.inform_of_rollback(step, reason);
        }
    }

    /// An operator let a paused rollout go on.
    pub(super) fn tell_resumed(&mut self, service: &str, who: &str) {
        let Some(running) = self.rollouts.by_service.get(service) else { return };
        let message = format!("rollout {} goes on: resumed by {who}", running.rollout.canary);
        self.tell_of(service, Happened::Resumed, (None, true), message, "operator");
    }

    /// Tells what happened while a configuration or a journal was read.
    pub(crate) fn tell_all_untold(&mut self) {
        let has_news = |(service, running): &(&String, &Running)| {
            !running.untold.is_empty() || (running.alarmed && self.plan_of(service).is_none())
        };
        let news = self.rollouts.by_service.iter().filter(has_news);
        let services: Vec<String> = news.map(|(service, _)| service.clone()).collect();
        if services.is_empty() && self.rollouts.gone.is_empty() {
            return;
        }
        self.tell_gone();
        for service in services {
            self.tell_untold(&service);
            self.tell_unplanned(&service);
        }
        // Which alarms are open.
        self.stand();
    }

    /// An alarm about a rollout that has ended, of a service that has no `rollout:` any more.
    fn tell_unplanned(&mut self, service: &str) {
        let Some(running) = self.rollouts.by_service.get(service).filter(|running| running.alarmed) else { return };
        if self.plan_of(service).is_none() {
            let canary = &running.rollout.canary;
            let message = format!("rollout {canary}: service `{service}` has no `rollout:` any more");
            self.tell_of(service, Happened::Ended, (None, true), message, "file");
        }
    }

    fn tell_untold(&mut self, service: &str) {
        let Some(running) = self.rollouts.by_service.get_mut(service) else { return };
        let untold = std::mem::take(&mut running.untold);
        let (canary, stable) = (running.rollout.canary.clone(), running.rollout.stable.clone());
        let phase = running.rollout.phase.clone();
        for untold in untold {
            match untold {
                Untold::Begun { before } => {
                    let message = format!("rollout of {canary} begins; {stable} is stable");
                    self.tell_begun(service, before, message);
                }
                Untold::Unread => {
                    let message = format!("rollout {canary} paused: {}", show::why_waits(&Waits::Unknown));
                    self.tell_of(service, Happened::Paused, (Some(Severity::Error), false), message, "unknown_state");
                }
                Untold::Overruled => {
                    let by = match &phase {
                        Phase::Superseded { by } => by.clone(),
                        Phase::Staged
                        | Phase::Waiting { .. }
                        | Phase::Paused(_)
                        | Phase::RolledBack(_)
                        | Phase::Promoted => String::from("somebody else"),
                    };
                    let message = format!("rollout {canary} ended: {by} decides now");
                    self.tell_of(service, Happened::Ended, (None, true), message, "superseded");
                }
            }
        }
    }

    /// Says once that nothing moves on although nothing is broken.
    pub(super) fn tell_held(&mut self, service: &str, plan: &Plan, seen: &Seen) {
        let now = self.rollouts.now();
        let Some(running) = self.rollouts.by_service.get_mut(service) else { return };
        let rollout = &running.rollout;
        let why = rollout.hold_reason(plan, seen).filter(|_| rollout.phase == Phase::Staged);
        let Some(why) = why else {
            running.held = Held::No;
            return;
        };
        match running.held {
            Held::No => running.held = Held::Since(now),
            Held::Since(since) if now.since(since) >= HELD_AFTER => {
                running.held = Held::Told;
                let message = format!("rollout {} is held: it waits for {why}", running.rollout.canary);
                self.tell_of(service, Happened::Held, (None, false), message, "evidence");
            }
            Held::Since(_) | Held::Told => {}
        }
    }

    fn tell_begun(&mut self, service: &str, before: Option<String>, message: String) {
        let Some(plan) = self.plan_of(service) else { return };
        let Some(running) = self.rollouts.by_service.get(service) else { return };
        let (alarm, told) = match before {
            Some(_) => (Alarm::Closes, Told::of(&plan).and(&running.told)),
            None => (Alarm::Quiet, Told::of(&plan)),
        };
        let evidence = evidence(running, "started");
        let notice = notice(service, &running.rollout, told.stages, Happened::Started, alarm, message, evidence);
        self.send(&told, &Notice { before, ..notice });
    }

    /// `(opens, closes)`: what an alarm would do.
    fn tell_of(
        &mut self,
        service: &str,
        happened: Happened,
        (opens, closes): (Option<Severity>, bool),
        message: String,
        reason: &str,
    ) {
        let plan = self.plan_of(service);
        let Some(running) = self.rollouts.by_service.get_mut(service) else { return };
        let alarm = match opens {
            Some(severity) => Alarm::Opens(severity),
            None if closes && running.alarmed => Alarm::Closes,
            None => Alarm::Quiet,
        };
        let told = match (plan.as_ref().map(Told::of), alarm) {
            (Some(told), Alarm::Quiet) => told,
            (Some(told), Alarm::Opens(_) | Alarm::Closes) if running.alarmed => told.and(&running.told),
            (Some(told), Alarm::Opens(_) | Alarm::Closes) => told,
            (None, Alarm::Closes) => running.told.clone(),
            // Nobody is named who wants to know.
            (None, Alarm::Opens(_) | Alarm::Quiet) => return,
        };
        match alarm {
            Alarm::Opens(_) => (running.alarmed, running.told) = (true, told.clone()),
            Alarm::Closes => running.alarmed = false,
            Alarm::Quiet => {}
        }
        let evidence = evidence(running, reason);
        let notice = notice(service, &running.rollout, told.stages, happened, alarm, message, evidence);
        self.send(&told, &notice);
    }

    pub(super) fn send(&self, told: &Told, notice: &Notice) {
        let live = self.live();
        self.outside.desk.tell(&live.generation.table.config.notifications, told.notify.as_deref(), notice);
    }

    /// Webhooks that want to know of a rollback, after the fact; that one cannot be told is told to people.
    fn inform_of_rollback(&self, step: &Step, reason: &str) {
        let Some(plan) = self.plan_of(&step.service) else { return };
        let Some(running) = self.rollouts.by_service.get(&step.service) else { return };
        let config = self.live().generation.table.config.clone();
        let evidence = evidence(running, reason);
        let point = HookPoint::OnRollback;
        let call = outside::call(&step.service, point, &running.rollout, &plan, step.cause.clone(), evidence.clone());
        let desk = &self.outside.desk;
        for webhook in crate::alerts::at(&plan.webhooks, point) {
            // Whoever looks at a rollback looks already.
            let alarm = Alarm::Quiet;
            let failed = notice(
                &step.service,
                &running.rollout,
                plan.stages.len(),
                Happened::Untold,
                alarm,
                String::new(),
                evidence.clone(),
            );
            let shown = crate::alerts::shown(&webhook.url);
            let (desk_too, config, named) = (desk.clone(), config.clone(), plan.notify.clone());
            desk.inform(&webhook, &call, move |why| {
                let message = format!("webhook {shown} was not told of the rollback of {}: {why}", failed.version);
                let notice = Notice { message, at_unix_ms: unix_ms(), ..failed };
                desk_too.tell(&config.notifications, named.as_deref(), &notice);
            });
        }
    }
}

/// The numbers behind a notice, as in the event `rollout`.
pub(super) fn evidence(running: &Running, reason: &str) -> Value {
    let (meters, statuses) = running.trial.judge(|judge: &mut Judge| (judge.meters(), judge.statuses()));
    json!({ "reason": reason, "meters": meters, "statuses": statuses })
}

pub(super) fn notice(
    service: &str,
    rollout: &Rollout,
    stages: usize,
    happened: Happened,
    alarm: Alarm,
    message: String,
    evidence: Value,
) -> Notice {
    Notice {
        happened,
        alarm,
        service: service.into(),
        version: rollout.canary.clone(),
        stable: rollout.stable.clone(),
        stage: rollout.stage.map_or(0, |at| at + 1),
        stages,
        message,
        evidence,
        at_unix_ms: unix_ms(),
        before: None,
    }
}
