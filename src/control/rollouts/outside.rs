//! What rollouts want of the outside: the answers of webhooks that are gates, and values of Prometheus.
//!
//! The state machine says what is to be asked ([`Decision::Ask`](crate::rollout::Decision::Ask)); an answer wakes the
//! writer and is handed to the state machine at its next look. An answer that comes when its rollout has ended,
//! moved on, or asks somebody else is dropped: its number is not known any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::Running;
use crate::alerts::prometheus::{Asker, Polls, Query};
use crate::alerts::{self, Asking, Desk, HookCall};
use crate::config::model::{CustomEvent, HookPoint, Rollout as Plan, Webhook};
use crate::control::controller::Controller;
use crate::rollout::{Rollout, guardrails_of};
use crate::telemetry::{Event, Events, unix_ms};

/// Number of a question, and what the webhooks said.
type Answers = Arc<Mutex<Vec<(u64, Result<(), String>)>>>;

#[derive(Debug)]
pub(crate) struct Outside {
    pub desk: Desk,
    polls: Polls,
    /// By service; a rollout asks one thing at a time.
    asked: BTreeMap<String, Asked>,
    answers: Answers,
    numbers: u64,
    /// The last problem of each query that has one.
    problems: BTreeMap<Asker, String>,
}

#[derive(Debug)]
struct Asked {
    number: u64,
    point: HookPoint,
    /// Of which rollout, and where it stood.
    mark: String,
    canary: String,
    stage: Option<usize>,
    webhooks: Vec<Webhook>,
    /// Dropped, it ends the question.
    _asking: Asking,
}

impl Asked {
    /// The rollout still waits for this answer.
    fn is_wanted(&self, rollout: &Rollout, plan: &Plan) -> bool {
        rollout.asks_now() == Some(self.point)
            && (&rollout.mark, &rollout.canary, rollout.stage) == (&self.mark, &self.canary, self.stage)
            && alerts::at(&plan.webhooks, self.point) == self.webhooks
    }
}

impl Outside {
    pub fn new(runtime: tokio::runtime::Handle, events: Events) -> Outside {
        let desk = Desk::new(runtime.clone(), events);
        let polls = Polls::new(runtime, desk.client().clone());
        Outside {
            desk,
            polls,
            asked: BTreeMap::new(),
            answers: Answers::default(),
            numbers: 0,
            problems: BTreeMap::new(),
        }
    }

    /// Asks the webhooks of this point; the answer wakes the writer through `wake`.
    pub fn ask(&mut self, call: &HookCall, rollout: &Rollout, plan: &Plan, wake: Arc<Notify>) {
        self.numbers += 1;
        let number = self.numbers;
        let answers = self.answers.clone();
        let webhooks = alerts::at(&plan.webhooks, call.point);
        let asking = self.desk.ask(&webhooks, call, move |answer| {
            answers.lock().expect("no holder panics").push((number, answer));
            wake.notify_one();
        });
        let asked = Asked {
            number,
            point: call.point,
            mark: rollout.mark.clone(),
            canary: rollout.canary.clone(),
            stage: rollout.stage,
            webhooks,
            _asking: asking,
        };
        self.asked.insert(call.service.clone(), asked);
    }

    /// What is wrong with the queries of this rollout.
    pub fn problems_of<'a>(&'a self, service: &'a str, canary: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let of_it = move |(asker, _): &(&'a Asker, &'a String)| asker.service == service && asker.canary == canary;
        self.problems.iter().filter(of_it).map(|(asker, why)| (&*asker.rule, &**why))
    }
}

/// What the webhooks of a point are told of a rollout.
pub(super) fn call(
    service: &str,
    point: HookPoint,
    rollout: &Rollout,
    plan: &Plan,
    message: String,
    evidence: Value,
) -> HookCall {
    let stage = match point {
        HookPoint::BeforeStage => rollout.stage.map_or(1, |at| at + 2),
        HookPoint::AfterStage | HookPoint::BeforePromote | HookPoint::OnRollback => {
            rollout.stage.map_or(0, |at| at + 1)
        }
    };
    HookCall {
        point,
        service: service.into(),
        version: rollout.canary.clone(),
        stable: rollout.stable.clone(),
        stage,
        stages: plan.stages.len(),
        share: f64::from(rollout.share(plan)) / 1e4,
        message,
        evidence,
        at_unix_ms: unix_ms(),
    }
}

impl Controller {
    /// Hands what came in to the state machines.
    pub(super) fn hear(&mut self) {
        let now = self.rollouts.now();
        let answers = std::mem::take(&mut *self.outside.answers.lock().expect("no holder panics"));
        for (number, answer) in answers {
            let known = self.outside.asked.iter().find(|(_, asked)| asked.number == number);
            let Some(service) = known.map(|(service, _)| service.clone()) else { continue };
            let Some(asked) = self.outside.asked.remove(&service) else { continue };
            let Some(plan) = self.plan_of(&service) else { continue };
            let Some(running) = self.rollouts.by_service.get(&service) else { continue };
            if asked.is_wanted(&running.rollout, &plan) {
                let said = self.said(&service, &asked, &answer);
                self.shared.events.emit(said);
                let Some(running) = self.rollouts.by_service.get_mut(&service) else { continue };
                running.rollout.answered(asked.point, asked.stage, answer);
            }
        }
        for (asker, reading) in self.outside.polls.take() {
            self.note_problem(&asker, reading.as_ref().err());
            let Some(plan) = self.plan_of(&asker.service) else { continue };
            let running = self.rollouts.by_service.get_mut(&asker.service);
            let Some(Running { rollout, .. }) = running.filter(|it| it.rollout.canary == asker.canary) else {
                continue;
            };
            rollout.signal(&plan, &asker.rule, reading.unwrap_or_default(), now);
        }
    }

    /// For whoever wants to know later why it went on, or did not.
    fn said(&self, service: &str, asked: &Asked, answer: &Result<(), String>) -> Event {
        let point = asked.point.as_str();
        let (word, why) = match answer {
            Ok(()) => ("granted", String::new()),
            Err(why) => ("refused", format!(": {why}")),
        };
        tracing::info!(service, point, word, why, "webhooks have answered");
        Event {
            kind: "webhook",
            service: Some(service.into()),
            version: Some(asked.canary.clone()),
            message: format!("rollout {}: webhooks ({point}) {word}{why}", asked.canary),
            data: json!({ "point": point, "result": word, "stage": asked.stage.map_or(0, |at| at + 1) }),
        }
    }

    fn note_problem(&mut self, asker: &Asker, problem: Option<&String>) {
        let Asker { service, rule, .. } = asker;
        match problem {
            Some(why) if self.outside.problems.insert(asker.clone(), why.clone()).is_none() => {
                tracing::warn!(service, rule, why, "a guardrail's query has no answer; nothing is promoted meanwhile");
            }
            Some(_) => {}
            None if self.outside.problems.remove(asker).is_some() => {
                tracing::info!(service, rule, "a guardrail's query is answered again");
            }
            None => {}
        }
    }

    /// After everything that may have changed what runs: who is asked is whom a rollout wants to ask.
    pub(crate) fn keep_asking(&mut self) {
        let mut queries = BTreeMap::new();
        let mut wanted = Vec::new();
        let services: Vec<String> = self.rollouts.by_service.keys().cloned().collect();
        for service in services {
            let Some(plan) = self.plan_of(&service) else { continue };
            let Some(running) = self.rollouts.by_service.get_mut(&service) else { continue };
            if !running.rollout.is_running() {
                continue;
            }
            queries.extend(queries_of(&service, &running.rollout, &plan));
            match self.outside.asked.get(&service) {
                Some(asked) if asked.is_wanted(&running.rollout, &plan) => wanted.push(service),
                // Whoever it waits for is not asked: the configuration says something else now.
                Some(_) | None if running.rollout.asks_now().is_some() => running.rollout.forget_asked(),
                Some(_) | None => {}
            }
        }
        self.outside.asked.retain(|service, _| wanted.contains(service));
        self.outside.problems.retain(|asker, _| queries.contains_key(asker));
        self.outside.polls.want(queries);
    }
}

fn queries_of(service: &str, rollout: &Rollout, plan: &Plan) -> Vec<(Asker, Query)> {
    let rules = guardrails_of(plan, rollout.stage).custom.iter();
    let queries = rules.filter_map(|(rule, custom)| match &custom.what {
        CustomEvent::Prometheus { url, query, every, .. } => {
            let asker = Asker { service: service.into(), canary: rollout.canary.clone(), rule: rule.to_string() };
            Some((asker, Query { url: url.clone(), query: query.clone(), every: *every }))
        }
        CustomEvent::Header { .. }
        | CustomEvent::Status { .. }
        | CustomEvent::GrpcStatus { .. }
        | CustomEvent::Outside { .. } => None,
    });
    queries.collect()
}
