//! The task that is the only writer of what is live.
//!
//! One event at a time, so that `If-Match` is exact and a generation is always made from the one before
//! it. Nothing here waits for a peer, a disk or a drain: what a receipt has to wait for is waited for in a
//! task of its own, while the next event is served.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

pub use super::Source;
use super::api::{Change, Receipt, Refused, RolloutAction};
pub use super::boot::{Options, StartError, start};
use super::controller::{By, Controller, Outcome};
use super::decide::{self, Decision, Facts, unknown};
use super::event::{Ask, Event, FileSeen, Reply, Trigger};
use super::frozen::{self, After};
use super::overlay::{self, Weights};
use super::publish;
use crate::config::model::Action;
use crate::routing::compile::split_from;
use crate::routing::table::CompiledService;
use crate::routing::{ServiceIdx, VersionIdx};

/// How often rollouts are looked at when nothing happens.
const LOOK: Duration = Duration::from_millis(100);

/// How long the last notices may take when the process ends.
const NOTICES: Duration = Duration::from_millis(500);

/// Serves events until `Stop`, or until nobody can ask any more.
pub(crate) async fn run(mut controller: Controller, mut events: mpsc::Receiver<Event>) {
    let mut proofs = JoinSet::new();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut kept = VecDeque::new();
    loop {
        controller.tell_all_untold();
        controller.keep_asking();
        let rolling = controller.rollouts.any_runs();
        let tripped = controller.rollouts.tripped.clone();
        let lapse = controller.unconfirmed.as_ref().map(|unconfirmed| unconfirmed.until);
        let event = tokio::select! {
            biased;
            // A guardrail is broken: before anything else that waits.
            () = tripped.notified() => {
                look(&mut controller, &mut proofs);
                continue;
            }
            () = at(lapse) => {
                controller.confirm_lapsed();
                controller.refresh();
                continue;
            }
            Some(_) = proofs.join_next() => continue,
            event = async { kept.pop_front() }, if !kept.is_empty() => event,
            event = events.recv() => event,
            _ = looks.tick(), if rolling => {
                look(&mut controller, &mut proofs);
                continue;
            }
        };
        match event {
            Some(Event::Asked { ask, author, if_match, trigger, reply }) => {
                let by = By { author: author.0, cause: cause(&ask), trigger };
                controller.stood = None;
                let outcome = controller.asked(ask, if_match, by);
                controller.refresh();
                answer(&mut controller, outcome, reply, &mut proofs);
            }
            Some(Event::File { seen, trigger }) => {
                controller.file_event(seen, trigger);
                controller.refresh();
            }
            Some(Event::Unwatchable(why)) => {
                controller.unwatchable(why);
                controller.refresh();
            }
            Some(Event::Freeze { done, urgent }) => {
                // What is to be decided now is decided here.
                look(&mut controller, &mut proofs);
                let frozen = controller.freeze().await;
                let is_frozen = frozen.is_ok();
                let unheard = done.send(frozen).is_err();
                if !is_frozen {
                    continue;
                }
                if unheard {
                    controller.thaw().await;
                    continue;
                }
                tracing::info!("frozen: another process is about to take over; serving goes on");
                match frozen::frozen(&mut controller, &mut events, &urgent).await {
                    After::Thawed(in_between) => {
                        tracing::info!("deciding again: the other process does not take over");
                        kept = in_between;
                        look(&mut controller, &mut proofs);
                        controller.refresh();
                    }
                    After::Retired => {
                        events.close();
                        return stop(controller, proofs).await;
                    }
                    After::Stopped(done) => {
                        controller.thaw().await;
                        events.close();
                        stop(controller, proofs).await;
                        let _ = done.send(());
                        return;
                    }
                }
            }
            Some(Event::Thaw { done } | Event::Retire { done }) => {
                // Not frozen: nothing to do.
                let _ = done.send(());
            }
            Some(Event::Stop { done }) => {
                events.close();
                stop(controller, proofs).await;
                // Who waited may have given up.
                let _ = done.send(());
                return;
            }
            None => return stop(controller, proofs).await,
        }
    }
}

/// Asks every rollout what is next. The receipt of a flip is complete once the data threads have let go.
fn look(controller: &mut Controller, proofs: &mut JoinSet<()>) {
    let Some(published) = controller.tick() else { return };
    let shared = controller.shared.clone();
    proofs.spawn(async move {
        let receipt = published.proven(&shared.live).await;
        shared.flip_is_proven(&receipt);
        let message = format!(
            "generation {}: last old start {} us after the trigger",
            receipt.generation, receipt.last_old_start_micros
        );
        let data = serde_json::to_value(&receipt).expect("a receipt has string keys and no failing parts");
        shared.events.emit(crate::telemetry::Event { kind: "receipt", message, data, ..Default::default() });
    });
}

async fn at(until: Option<tokio::time::Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Answers what was asked, then writes the journal to its end.
async fn stop(controller: Controller, mut proofs: JoinSet<()>) {
    while proofs.join_next().await.is_some() {}
    controller.outside.desk.close(NOTICES).await;
    let shared = controller.shared.clone();
    let closed = tokio::task::spawn_blocking(move || {
        if let Some(journal) = &shared.journal {
            journal.close();
        }
    });
    if closed.await.is_err() {
        tracing::error!("the journal could not be closed");
    }
}

fn answer(controller: &mut Controller, outcome: Result<Outcome, Refused>, reply: Reply, proofs: &mut JoinSet<()>) {
    match outcome {
        Ok(Outcome::Flipped(published)) => {
            let shared = controller.shared.clone();
            proofs.spawn(async move {
                let receipt = published.proven(&shared.live).await;
                shared.flip_is_proven(&receipt);
                deliver(reply, Ok(receipt));
            });
        }
        Ok(Outcome::Unchanged(receipt)) => match controller.stood.take() {
            Some(stood) => {
                proofs.spawn(async move { deliver(reply, Ok(publish::kept(*receipt, stood).await)) });
            }
            None => deliver(reply, Ok(*receipt)),
        },
        Err(refused) => deliver(reply, Err(refused)),
    }
}

fn deliver(reply: oneshot::Sender<Result<Receipt, Refused>>, result: Result<Receipt, Refused>) {
    // Who asked may have gone; the change stands, and its receipt is in the events.
    let _ = reply.send(result);
}

/// How the history will call it.
fn cause(ask: &Ask) -> String {
    match ask {
        Ask::File(_) => "reload".into(),
        Ask::Apply { confirm_ms: None, .. } => "apply".into(),
        Ask::Apply { confirm_ms: Some(within), .. } => {
            format!("apply, to be confirmed within {:?}", Duration::from_millis(*within))
        }
        Ask::Revert { record, .. } => format!("revert to generation {}", record.info.number),
        Ask::Splits(change) => match change {
            Change::Switch { to, .. } => {
                let each: Vec<String> = to.iter().map(|(service, version)| format!("{service} to {version}")).collect();
                format!("switch {}", each.join(", "))
            }
            Change::Weights { to, .. } => {
                let each = to.iter().map(|(service, weights)| format!("{service} {}", overlay::weights_text(weights)));
                format!("weights {}", each.collect::<Vec<_>>().join(", "))
            }
            Change::Rollback { service, reason: Some(reason) } => format!("rollback {service}: {reason}"),
            Change::Rollback { service, reason: None } => format!("rollback {service}"),
            Change::Drain { service, version } => format!("drain {service} {version}"),
            Change::Hold { service } => format!("hold {service}"),
            Change::Release { service } => format!("release {service}"),
            Change::Clear { service } => format!("clear {service}: the file decides again"),
            Change::Confirm { generation: Some(generation) } => format!("confirm {generation}"),
            Change::Confirm { generation: None } => "confirm".into(),
            Change::Rollout { service, action } => super::rollouts::cause(service, action),
            Change::Report { service, version, kind } => format!("report {service} {version}: {kind}"),
            Change::Apply { .. } => "apply".into(),
            Change::Reload => "reload".into(),
            Change::Revert { generation } => format!("revert to generation {generation}"),
        },
    }
}

impl Controller {
    fn asked(&mut self, ask: Ask, if_match: Option<u64>, by: By) -> Result<Outcome, Refused> {
        let live = self.live().generation.number();
        if let Some(wanted) = if_match.filter(|wanted| *wanted != live) {
            return Err(Refused::Stale { wanted, live });
        }
        match ask {
            Ask::File(seen) => self.file_seen(seen, true, by),
            Ask::Apply { candidate, confirm_ms } => self.apply(candidate, confirm_ms.map(Duration::from_millis), by),
            Ask::Revert { record, candidate } => self.revert(&record, candidate, by),
            Ask::Splits(change) => match change {
                Change::Switch { to, force } => self.switch(&to, force, by),
                Change::Weights { to, force } => self.weights(&to, force, by),
                Change::Rollback { service, .. } => self.rollback(&service, by),
                Change::Drain { service, version } => {
                    let at = self.service(&service)?;
                    let decision = self.decide(at, |facts| decide::drain(facts, &version))?;
                    Ok(self.flip(BTreeMap::from([(at, decision)]), by))
                }
                Change::Clear { service } => {
                    let at = self.service(&service)?;
                    self.may_clear(&service)?;
                    let shares = overlay::settle(self.live().generation.table.service(at), None).shares;
                    let decision = Decision { shares, warnings: Vec::new() };
                    Ok(self.flip(BTreeMap::from([(at, decision)]), by))
                }
                Change::Hold { service } => self.hold(&service, true, &by),
                Change::Release { service } => self.hold(&service, false, &by),
                Change::Confirm { generation } => self.confirm(generation, &by),
                Change::Rollout { service, action } => self.rollout_asked(&service, action, by),
                Change::Report { service, version, kind } => self.reported(&service, &version, &kind, &by),
                Change::Apply { .. } | Change::Reload | Change::Revert { .. } => Err(Refused::Failed {
                    what: "a change of the whole configuration reached the writer without its text".into(),
                    hint: None,
                }),
            },
        }
    }

    fn file_event(&mut self, seen: FileSeen, trigger: Trigger) {
        let by = By { author: "file".into(), cause: format!("edit of {}", self.config.source), trigger };
        // What became of it is in the log, the status, the metrics and the events.
        let _ = self.file_seen(seen, false, by);
    }

    fn unwatchable(&mut self, why: Option<String>) {
        if self.config.unwatchable == why {
            return;
        }
        match &why {
            Some(why) => {
                tracing::warn!(source = %self.config.source, "{why}");
                self.tell("warning", why.clone(), json!({ "source": self.config.source }));
            }
            None => tracing::info!(source = %self.config.source, "the configuration can be seen to change again"),
        }
        self.config.unwatchable = why;
    }

    fn service(&self, name: &str) -> Result<ServiceIdx, Refused> {
        let live = self.live();
        let table = &live.generation.table;
        let known = || table.services.iter().map(|service| &*service.name);
        table.service_named(name).ok_or_else(|| unknown("service", name, known()))
    }

    fn decide<T>(&self, at: ServiceIdx, decide: impl FnOnce(&Facts<'_>) -> Result<T, Refused>) -> Result<T, Refused> {
        let live = self.live();
        let service = live.generation.table.service(at);
        let runtime = live.runtime.service(at);
        let ready = |version: VersionIdx| service.service.health.is_none() || runtime.version(version).has_ready();
        decide(&Facts { service, live: live.generation.split(at).shares(), ready: &ready })
    }

    /// What a rollout holds back is not given everything because its overlay is forgotten.
    fn may_clear(&self, service: &str) -> Result<(), Refused> {
        match self.rollouts.by_service.get(service) {
            Some(running) if running.rollout.is_running() => {
                let what = format!("a rollout of service `{service}` runs, and the split is its own");
                Err(decide::conflict(what, Some(format!("end it: switchback rollout abort {service}, or promote it"))))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn switch(&mut self, to: &BTreeMap<String, String>, force: bool, by: By) -> Result<Outcome, Refused> {
        let mut all = BTreeMap::new();
        for (service, version) in to {
            let at = self.service(service)?;
            all.insert(at, self.decide(at, |facts| decide::switch(facts, version, force))?);
        }
        Ok(self.flip(all, by))
    }

    fn weights(&mut self, to: &BTreeMap<String, Weights>, force: bool, by: By) -> Result<Outcome, Refused> {
        let mut all = BTreeMap::new();
        for (service, weights) in to {
            let at = self.service(service)?;
            all.insert(at, self.decide(at, |facts| decide::weights(facts, weights, force))?);
        }
        Ok(self.flip(all, by))
    }

    /// Back to the split that was live before the present one: a pointer to something built long ago.
    fn rollback(&mut self, service: &str, by: By) -> Result<Outcome, Refused> {
        let at = self.service(service)?;
        if self.rollouts.by_service.get(service).is_some_and(|running| running.rollout.is_running()) {
            return self.rollout_asked(service, RolloutAction::Abort { reason: Some("rollback".into()) }, by);
        }
        let back = self.ways_back.get(service);
        let mut decision = self.decide(at, |facts| decide::rollback(facts, back.map(|back| &back.weights)))?;
        if back.is_some_and(|back| back.undoes_rollback) {
            decision.warnings.push("this undid a rollback: what was rolled back before is live again".into());
        }
        Ok(self.flip(BTreeMap::from([(at, decision)]), by))
    }

    /// New splits on the same table. The overlay gets an entry for each, or loses it.
    pub(crate) fn flip(&mut self, decisions: BTreeMap<ServiceIdx, Decision>, by: By) -> Outcome {
        let live = self.live();
        let before = &live.generation;
        let table = before.table.clone();
        let threads = self.shared.live.threads();
        let mut splits = before.splits.clone();
        let mut warnings = Vec::new();
        let mut changed = false;
        for (at, decision) in decisions {
            let service = table.service(at);
            warnings.extend(decision.warnings);
            // Whoever decides on a split takes it from a rollout that gives the canary something beside it.
            let overruled = self.rollouts.overrule(service, &by.author);
            let same_shares = before.split(at).shares() == decision.shares;
            if same_shares && !overruled && self.rollouts.fares_the_same(&live, at) {
                continue;
            }
            changed = true;
            if same_shares && !overruled {
                // The split stays; who gets something beside it does not.
                continue;
            }
            if by.cause.starts_with("switch") || by.cause.starts_with("weights") {
                warnings.extend(without_routes(&table, service));
            }
            match overlay::entry_for(service, &decision.shares, by.asker()) {
                Some(entry) => self.overlay.insert(service.name.to_string(), entry),
                None => self.overlay.remove(&*service.name),
            };
            if let Some(unconfirmed) = &mut self.unconfirmed {
                let weights = overlay::weights_of(&service.versions, &decision.shares);
                unconfirmed.follow(&service.name, &weights, by.asker());
            }
            let back = self.ways_back.get(&*service.name).and_then(|back| back.split.clone());
            let built = back.filter(|split| split.shares() == decision.shares);
            splits[usize::from(at.0)] = built.unwrap_or_else(|| split_from(service, decision.shares, threads));
        }
        if !changed {
            let mut outcome = self.unchanged(&by, "this is what runs already");
            if let Outcome::Unchanged(receipt) = &mut outcome {
                receipt.warnings = warnings;
            }
            return outcome;
        }
        let hash = before.stamp.hash.clone();
        Outcome::Flipped(Box::new(self.publish(table, splits, &hash, by, warnings)))
    }

    fn hold(&mut self, service: &str, hold: bool, by: &By) -> Result<Outcome, Refused> {
        let at = self.service(service)?;
        let live = self.live();
        let was = live.runtime.service(at).core.hold(hold);
        let mut outcome = self.unchanged(by, if was == hold { "as it was" } else { "done" });
        if was != hold {
            self.stand();
            let (kind, what) = if hold { ("hold", "new requests wait") } else { ("release", "requests go on") };
            tracing::info!(service, author = by.author, kind, "{what}");
            self.shared.events.emit(crate::telemetry::Event {
                kind,
                service: Some(service.into()),
                message: format!("{what}, by {}", by.author),
                ..Default::default()
            });
            if let Outcome::Unchanged(receipt) = &mut outcome {
                receipt.changed = true;
            }
        }
        Ok(outcome)
    }
}

fn without_routes(table: &crate::routing::Table, service: &CompiledService) -> Option<String> {
    let routed = table.config.routes.iter().any(|route| match &route.action {
        Action::Forward { service: to, .. } => *to == service.name,
        Action::Redirect { .. } | Action::Respond { .. } => false,
    });
    (!routed).then(|| format!("no route leads to service `{}`", service.name))
}
