//! The state that only the writer's task touches, and the steps that change it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::api::{ConfigStatus, Receipt, Refused};
use super::candidate::{Candidate, invalid, same_text};
use super::event::{FileSeen, Trigger};
use super::history::{History, splits_of};
use super::live::Snapshot;
use super::overlay::{self, Overlay, Weights};
use super::publish::{self, Published};
use super::rollouts::{AUTHOR, Outside, Rollouts};
use super::shared::{Shared, View};
use crate::config::load::Source;
use crate::config::{Problem, Problems};
use crate::journal::{Record, Standing, Whole};
use crate::outcome::CodesRegistry;
use crate::routing::compile::split_from;
use crate::routing::table::CompiledService;
use crate::routing::{ServiceIdx, Share, Split, Stamp, Table};
use crate::telemetry::{Event, names, unix_ms};

/// What a change came to: a flip whose proof is still to be waited for, or nothing to do.
#[derive(Debug)]
pub(crate) enum Outcome {
    Flipped(Box<Published>),
    Unchanged(Box<Receipt>),
}

/// Who wants a change and how it is called in the history.
#[derive(Debug, Clone)]
pub(crate) struct By {
    pub author: String,
    pub cause: String,
    pub trigger: Trigger,
}

/// The split that was live before the present one, ready to be stored (I5).
#[derive(Debug, Clone)]
pub(crate) struct WayBack {
    pub weights: Weights,
    /// `None` if none of its versions with weight exists in the live table.
    pub split: Option<Arc<Split>>,
    /// The present split came from a rollback, so going back undoes it.
    pub undoes_rollback: bool,
}

/// A whole configuration that is to run. Everything that can be refused by thinking has been.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub table: Arc<Table>,
    pub sources: Arc<Vec<Source>>,
    pub hash: String,
    pub warnings: Problems,
    /// By service index.
    pub shares: Vec<Vec<Share>>,
    pub overlay: Overlay,
    pub whole: Option<Whole>,
    pub notes: Vec<String>,
}

/// What an `apply --confirm` goes back to by itself.
#[derive(Debug)]
pub(crate) struct Unconfirmed {
    pub generation: u64,
    pub until: Instant,
    pub until_ms: u64,
    before: Wanted,
    before_number: u64,
}

impl Unconfirmed {
    /// An operator changed a split while the apply waits: going back undoes the apply, not the operator.
    pub fn follow(&mut self, name: &str, weights: &Weights, by: overlay::Asker<'_>) {
        let table = self.before.table.clone();
        let Some(at) = table.service_named(name) else { return };
        let service = table.service(at);
        // None of its versions with weight existed before.
        let Some((shares, _)) = overlay::shares_of(service, weights) else { return };
        match overlay::entry_for(service, &shares, by) {
            Some(entry) => self.before.overlay.insert(name.into(), entry),
            None => self.before.overlay.remove(name),
        };
        self.before.shares[usize::from(at.0)] = shares;
    }
}

/// The file as it was last accepted.
#[derive(Debug, Clone)]
pub(crate) struct FileKnown {
    pub hash: String,
    pub sources: Arc<Vec<Source>>,
}

pub(crate) struct Controller {
    pub shared: Arc<Shared>,
    pub registry: Arc<CodesRegistry>,
    pub overlay: Overlay,
    pub ways_back: BTreeMap<String, WayBack>,
    pub sources: Arc<Vec<Source>>,
    pub history: History,
    pub next_number: u64,
    pub whole: Option<Whole>,
    pub unconfirmed: Option<Unconfirmed>,
    pub config: ConfigStatus,
    pub warnings: Vec<Problem>,
    pub notes: Vec<String>,
    pub file: Option<FileKnown>,
    /// The newest reading of the file that was dealt with.
    pub reading: u64,
    /// What the last rejection was about, so that it is logged once.
    pub rejected: Option<String>,
    pub rollouts: Rollouts,
    pub outside: Outside,
    /// Resolves when what was journaled last without a generation is on disk.
    pub stood: Option<oneshot::Receiver<()>>,
    /// Directory of the journal; a change of it takes a restart.
    pub state_dir: Option<std::path::PathBuf>,
}

impl Controller {
    pub fn live(&self) -> Arc<Snapshot> {
        self.shared.live.load()
    }

    /// Shows the world what the writer knows.
    pub fn refresh(&mut self) {
        self.tell_decisions(None);
        metrics::gauge!(names::CONFIG_LAST_RELOAD_SUCCESSFUL)
            .set(f64::from(u8::from(self.config.last_reload_successful)));
        metrics::gauge!(names::CONFIG_DEGRADED).set(f64::from(u8::from(self.config.degraded)));
        self.shared.view.send_replace(Arc::new(View {
            generation: self.live().generation.number(),
            overlay: self.overlay.clone(),
            whole: self.whole.clone(),
            config: self.config.clone(),
            confirm_until: self.unconfirmed.as_ref().map(|unconfirmed| unconfirmed.until_ms),
            history: self.history.newest_first(),
            warnings: self.warnings.clone(),
            notes: self.notes.clone(),
            rollouts: self.rollout_statuses(),
        }));
    }

    /// The file was read. `explicit`: because somebody asked, so the file wins over a configuration that
    /// was applied or brought back; otherwise only an edit does.
    pub fn file_seen(&mut self, seen: FileSeen, explicit: bool, by: By) -> Result<Outcome, Refused> {
        if seen.sequence < self.reading {
            return Ok(self.unchanged(&by, "a newer reading of the file was dealt with already"));
        }
        self.reading = seen.sequence;
        let candidate = match seen.candidate {
            Ok(candidate) => candidate,
            Err(problems) => return Err(self.reject(seen.hash, &problems)),
        };
        let edited = self.file.as_ref().is_none_or(|file| file.hash != candidate.hash);
        // Asked for, the file is always taken as it is now: a secret it names may have changed without it.
        if !(edited || explicit) {
            self.file_is_good(None);
            count_reload("unchanged");
            return Ok(self.unchanged(&by, "the file is what it was"));
        }
        let file = FileKnown { hash: candidate.hash.clone(), sources: candidate.sources.clone() };
        // Before the publish, because the publish is journaled with it.
        let pending = self.unconfirmed.take();
        match self.adopt_candidate(candidate, None, by) {
            Ok(outcome) => {
                if pending.is_some() {
                    let message = "the file was edited while an apply waited for its confirmation: the edit stays";
                    self.tell("confirm", message.into(), json!({}));
                }
                self.file_is_good(Some(file));
                count_reload(match &outcome {
                    Outcome::Flipped(_) => "ok",
                    Outcome::Unchanged(_) => "unchanged",
                });
                Ok(outcome)
            }
            Err(refused) => {
                self.unconfirmed = pending;
                let what = match &refused {
                    Refused::Failed { what, .. } | Refused::Conflict { what, .. } | Refused::NotFound { what, .. } => {
                        what.clone()
                    }
                    Refused::Invalid { rendered, .. } => rendered.clone(),
                    Refused::Stale { wanted, live } => format!("generation {wanted} is not live, {live} is"),
                };
                let problems = super::candidate::problem(what);
                self.note_broken(Some(file.hash), &problems, "refused");
                Err(refused)
            }
        }
    }

    fn file_is_good(&mut self, file: Option<FileKnown>) {
        if file.is_some() {
            self.file = file;
            self.config.degraded = false;
        }
        if !self.config.last_reload_successful {
            tracing::info!(source = %self.config.source, "the configuration file is good again");
        }
        self.rejected = None;
        self.config.last_reload_successful = true;
        self.config.last_reload_at = Some(unix_ms());
        self.config.problems.clear();
        self.config.rendered = None;
    }

    /// I3: nothing that serves changes; log, status, metric and event say so until it is fixed.
    fn reject(&mut self, hash: Option<String>, problems: &Problems) -> Refused {
        self.note_broken(hash, problems, "invalid");
        invalid(problems)
    }

    fn note_broken(&mut self, hash: Option<String>, problems: &Problems, result: &'static str) {
        let rendered = problems.to_string();
        let generation = self.live().generation.number();
        count_reload(result);
        self.config.last_reload_successful = false;
        self.config.last_reload_at = Some(unix_ms());
        self.config.problems = problems.0.clone();
        self.config.rendered = Some(rendered.clone());
        let about = hash.unwrap_or_else(|| rendered.clone());
        if self.rejected.as_ref() == Some(&about) {
            return;
        }
        self.rejected = Some(about);
        tracing::error!(generation, "the configuration was not taken over; the running one keeps serving\n{rendered}");
        let first = problems.0.first().map(|problem| problem.what.clone()).unwrap_or_default();
        let message = format!("not taken over, generation {generation} keeps serving: {first}");
        self.tell("reload_failed", message, json!({ "problems": problems.0, "generation": generation }));
    }

    /// The text somebody sent instead of the file.
    pub fn apply(&mut self, candidate: Candidate, confirm: Option<Duration>, by: By) -> Result<Outcome, Refused> {
        if let Some(unconfirmed) = &self.unconfirmed {
            let number = unconfirmed.generation;
            return Err(super::decide::conflict(
                format!("generation {number} still waits for its confirmation"),
                Some(format!("confirm it, or go back: switchback revert {}", unconfirmed.before_number)),
            ));
        }
        let is_file = self.file.as_ref().is_some_and(|file| same_text(&file.sources, &candidate.sources));
        let whole = (!is_file).then(|| self.whole_by(&by));
        let before = confirm.map(|within| (self.as_wanted(), self.live().generation.number(), within));
        let until = before.as_ref().map(|(_, _, within)| {
            (Instant::now() + *within, unix_ms().saturating_add(u64::try_from(within.as_millis()).unwrap_or(u64::MAX)))
        });
        // Known before the publish, because the publish is journaled with it.
        if let (Some((before, before_number, _)), Some((until, until_ms))) = (before, until) {
            let generation = self.next_number;
            self.unconfirmed = Some(Unconfirmed { generation, until, until_ms, before, before_number });
        }
        let outcome = self.adopt_candidate(candidate, whole, by);
        match &outcome {
            Ok(Outcome::Flipped(published)) if self.unconfirmed.is_some() => {
                let message = format!("generation {} waits for its confirmation", published.receipt.generation);
                self.tell("confirm", message, json!({ "until": until.map(|(_, until_ms)| until_ms) }));
            }
            Ok(Outcome::Flipped(_)) => {}
            Ok(Outcome::Unchanged(_)) | Err(_) => self.unconfirmed = None,
        }
        outcome
    }

    /// Everything as it was in an earlier generation, splits included.
    pub fn revert(&mut self, record: &Record, candidate: Candidate, by: By) -> Result<Outcome, Refused> {
        let mut notes = Vec::new();
        let mut overlay = Overlay::new();
        let mut shares = Vec::new();
        for service in &candidate.table.services {
            let earlier = record.info.splits.get(&*service.name);
            let placed = earlier.and_then(|weights| overlay::shares_of(service, weights));
            match placed {
                Some((placed, _)) => {
                    if let Some(entry) = overlay::entry_for(service, &placed, by.asker()) {
                        overlay.insert(service.name.to_string(), entry);
                    }
                    shares.push(placed);
                }
                None => {
                    notes.push(format!("service `{}`: its split is not recorded, so the text decides", service.name));
                    shares.push(overlay::settle(service, None).shares);
                }
            }
        }
        let is_file = self.file.as_ref().is_some_and(|file| same_text(&file.sources, &candidate.sources));
        let whole = (!is_file).then(|| self.whole_by(&by));
        let Candidate { table, sources, hash, warnings } = candidate;
        let pending = self.unconfirmed.take();
        let wanted = Wanted { table, sources, hash, warnings, shares, overlay, whole, notes };
        let outcome = self.return_to(wanted, by);
        if outcome.is_err() {
            self.unconfirmed = pending;
        }
        outcome
    }

    /// `None`: whichever waits.
    pub fn confirm(&mut self, generation: Option<u64>, by: &By) -> Result<Outcome, Refused> {
        match &self.unconfirmed {
            Some(unconfirmed) if generation.is_none_or(|wanted| wanted == unconfirmed.generation) => {
                let generation = unconfirmed.generation;
                self.unconfirmed = None;
                self.stand();
                self.tell("confirm", format!("generation {generation} was confirmed by {}", by.author), json!({}));
                Ok(self.unchanged(by, "confirmed"))
            }
            Some(unconfirmed) => Err(super::decide::conflict(
                format!(
                    "generation {} does not wait for a confirmation, {} does",
                    generation.unwrap_or_default(),
                    unconfirmed.generation
                ),
                None,
            )),
            None => Err(super::decide::conflict("nothing waits for a confirmation".into(), None)),
        }
    }

    /// Nobody confirmed in time.
    pub fn confirm_lapsed(&mut self) {
        let Some(unconfirmed) = self.unconfirmed.take() else { return };
        let Unconfirmed { generation, before, before_number, .. } = unconfirmed;
        let cause = format!("generation {generation} was not confirmed in time: back to {before_number}");
        let trigger = Trigger { nanos: self.shared.live.nanos(), unix_ms: unix_ms() };
        self.tell("confirm", cause.clone(), json!({ "generation": generation, "back_to": before_number }));
        if let Err(refused) = self.return_to(before, By { author: "confirm".into(), cause, trigger }) {
            tracing::error!(?refused, generation, "an unconfirmed generation could not be taken back");
            let message = format!("generation {generation} was not confirmed but could not be taken back: {refused:?}");
            self.tell("warning", message, json!({ "generation": generation }));
        }
    }

    /// Takes an earlier generation over. Rollouts that do not lead there end, unless it is refused.
    fn return_to(&mut self, wanted: Wanted, by: By) -> Result<Outcome, Refused> {
        let rollouts = self.rollouts.by_service.clone();
        self.rollouts.return_to(&wanted.table, &wanted.overlay, &by.author);
        let outcome = self.adopt(wanted, by);
        if outcome.is_err() {
            let live = self.live();
            self.rollouts.go_back(rollouts, &live.generation.table);
        }
        outcome
    }

    /// Takes a candidate over. If it is refused, no rollout has heard of it.
    fn adopt_candidate(&mut self, candidate: Candidate, whole: Option<Whole>, by: By) -> Result<Outcome, Refused> {
        let rollouts = self.rollouts.by_service.clone();
        let wanted = self.with_overlay(candidate, whole);
        let outcome = self.adopt(wanted, by);
        if outcome.is_err() {
            let live = self.live();
            self.rollouts.go_back(rollouts, &live.generation.table);
        }
        outcome
    }

    /// The candidate with what operators changed on top of it.
    fn with_overlay(&mut self, candidate: Candidate, whole: Option<Whole>) -> Wanted {
        let mut settled = settle_all(&candidate.table, &self.overlay);
        let ran = splits_of(&self.live().generation);
        let before = |service: &str| ran.get(service).cloned();
        let threads = self.shared.live.threads();
        self.rollouts.place(&candidate.table, before, &mut settled, threads, unix_ms());
        let Candidate { table, sources, hash, warnings } = candidate;
        let Settlement { shares, overlay, notes } = settled;
        Wanted { table, sources, hash, warnings, shares, overlay, whole, notes }
    }

    /// What runs now, so that it can be brought back whole.
    fn as_wanted(&self) -> Wanted {
        let live = self.live();
        Wanted {
            table: live.generation.table.clone(),
            sources: self.sources.clone(),
            hash: live.generation.stamp.hash.to_string(),
            warnings: Problems(self.warnings.clone()),
            shares: live.generation.splits.iter().map(|split| split.shares().to_vec()).collect(),
            overlay: self.overlay.clone(),
            whole: self.whole.clone(),
            notes: Vec::new(),
        }
    }

    fn whole_by(&self, by: &By) -> Whole {
        Whole {
            generation: self.next_number,
            author: by.author.clone(),
            cause: by.cause.clone(),
            since: by.trigger.unix_ms,
            file: self.file.as_ref().map(|file| file.hash.clone()),
        }
    }

    /// Takes a whole configuration over: sockets first, then the flip.
    fn adopt(&mut self, wanted: Wanted, by: By) -> Result<Outcome, Refused> {
        let live = self.live();
        let before = &live.generation;
        let same_config = *before.table.config == *wanted.table.config;
        let same_splits = before.splits.iter().map(|split| split.shares()).eq(wanted.shares.iter().map(Vec::as_slice));
        let fares = |at| self.rollouts.fares_the_same(&live, ServiceIdx(at as u16));
        let same_fares = (0..before.table.services.len()).all(fares);
        if same_config && same_splits && same_fares {
            self.overlay = wanted.overlay;
            self.whole = wanted.whole;
            self.stand();
            return Ok(self.unchanged(&by, "the configuration is what runs already"));
        }
        let config = wanted.table.config.clone();
        let ports = self.shared.ports.clone();
        let failed = |what| Refused::Failed {
            what,
            hint: Some("nothing changed; free it, then send SIGHUP or run `switchback apply`".into()),
        };
        let listeners = ports.listeners.prepare(&config.listeners).map_err(failed)?;
        let admin = ports.admin.prepare(&config.admin).map_err(failed)?;
        let access_log = ports.access_log.prepare(&config.access_log).map_err(failed)?;

        let table = if same_config { before.table.clone() } else { wanted.table };
        let splits = splits_for(before, &table, wanted.shares, self.shared.live.threads());
        self.sources = wanted.sources;
        self.overlay = wanted.overlay;
        self.whole = wanted.whole;
        self.warnings = wanted.warnings.0;
        self.notes = wanted.notes;
        if config.state_dir != self.state_dir {
            self.notes.push("state_dir changed: the one in use stays until a restart".into());
        }
        let notes = self.notes.clone();
        ports.listeners.settle(&listeners);
        ports.admin.commit(admin);
        ports.access_log.commit(access_log);
        let published = self.publish(table, splits, &wanted.hash, by, notes);
        ports.listeners.commit(listeners);
        Ok(Outcome::Flipped(Box::new(published)))
    }

    /// The flip and all that follows from it at once.
    pub fn publish(
        &mut self,
        table: Arc<Table>,
        splits: Box<[Arc<Split>]>,
        hash: &str,
        by: By,
        warnings: Vec<String>,
    ) -> Published {
        let live = self.shared.live.clone();
        let before = live.load();
        let number = self.next_number;
        self.next_number += 1;
        let stamp = Stamp {
            number,
            hash: hash.into(),
            author: by.author.as_str().into(),
            cause: by.cause.as_str().into(),
            at_ms: unix_ms(),
        };
        // A rollout that this ends must not judge the requests that follow.
        self.end_overruled(&table, &splits, &by.author);
        let stamps = self.rollouts.stamps(&table, &splits);
        let now = publish::next(&before, stamp, table, splits, stamps, &self.registry, live.threads());
        // Health checks, drains and the journal learn of it after the store: the flip waits for nobody.
        live.store(now.clone());
        let flip_nanos = live.nanos().saturating_sub(by.trigger.nanos);

        let in_flight_at_flip = publish::in_flight_on_losers(&before, &now.generation);
        let moved = publish::moved(&before.generation, &now.generation);
        // Those of a service that is gone too: what waited for it is routed again.
        for service in before.runtime.services.iter().chain(&now.runtime.services) {
            service.core.changed.notify_waiters();
        }
        self.shared.remember_snapshot(&now);
        self.shared.ports.endpoints.reconcile(&now);
        self.shared.ports.drains.published(&before, &now);
        self.keep_ways_back(&before, &now, &moved);
        let receipt = Receipt {
            generation: number,
            changed: true,
            from: moved.from,
            to: moved.to,
            cause: by.cause,
            author: by.author,
            triggered_at: by.trigger.unix_ms,
            published_at: now.generation.stamp.at_ms,
            flip_micros: flip_nanos / 1_000,
            last_old_start_micros: 0,
            in_flight_at_flip,
            shielded: 0,
            warnings,
        };
        let written = self.record(&now);
        metrics::histogram!(names::FLIP_SECONDS).record(flip_nanos as f64 / 1e9);
        tracing::info!(
            generation = number,
            author = receipt.author,
            cause = receipt.cause,
            flip_micros = receipt.flip_micros,
            in_flight = in_flight_at_flip,
            "published"
        );
        let data = serde_json::to_value(&receipt).expect("a receipt has string keys and no failing parts");
        self.tell("publish", format!("generation {number}: {}", receipt.cause), data);
        Published { before, receipt, trigger: by.trigger, written, ended: Vec::new() }
    }

    /// History and journal; also for the first generation.
    pub fn record(&mut self, now: &Snapshot) -> Option<oneshot::Receiver<()>> {
        let stamp = &now.generation.stamp;
        let info = super::api::GenerationInfo {
            number: stamp.number,
            hash: stamp.hash.to_string(),
            author: stamp.author.to_string(),
            cause: stamp.cause.to_string(),
            at: stamp.at_ms,
            splits: splits_of(&now.generation),
        };
        let record = Record { info, sources: self.sources.clone() };
        self.history.push(Arc::new(record.clone()));
        self.shared.journal.as_ref().map(|journal| journal.publish(record, self.standing()))
    }

    /// While an apply waits for its confirmation, a crash must find what it would go back to.
    fn standing(&self) -> Standing {
        let (overlay, whole) = match &self.unconfirmed {
            Some(unconfirmed) => (&unconfirmed.before.overlay, &unconfirmed.before.whole),
            None => (&self.overlay, &self.whole),
        };
        Standing {
            overlay: overlay.clone(),
            ways_back: self.ways_back.iter().map(|(service, back)| (service.clone(), back.weights.clone())).collect(),
            whole: whole.clone(),
            unconfirmed: self.unconfirmed.as_ref().map(|unconfirmed| unconfirmed.generation),
            rollouts: self.rollouts.kept(),
            held: self.live().runtime.held(),
        }
    }

    /// Journals what stands without a new generation.
    pub fn stand(&mut self) {
        self.stood = self.shared.journal.as_ref().map(|journal| journal.stand(self.standing()));
    }

    /// Builds the next rollback of every service whose split moved, so that it is only a store (I5).
    fn keep_ways_back(&mut self, before: &Snapshot, now: &Snapshot, moved: &publish::Moved) {
        let table = &now.generation.table;
        let threads = self.shared.live.threads();
        let is_rollback = now.generation.stamp.cause.starts_with("rollback ");
        let by_rollout = *now.generation.stamp.author == *AUTHOR;
        for (service, weights) in &moved.from {
            // The way back from any stage is stable, not the stage before.
            let stable = self.rollouts.by_service.get(service).filter(|_| by_rollout);
            let weights =
                stable.map_or(weights.clone(), |running| Weights::from([(running.rollout.stable.clone(), 1)]));
            let back = WayBack { weights, split: None, undoes_rollback: is_rollback };
            self.ways_back.insert(service.clone(), back);
        }
        if Arc::ptr_eq(&before.generation.table, table) {
            for service in moved.from.keys() {
                let (Some(at), Some(back)) = (table.service_named(service), self.ways_back.get_mut(service)) else {
                    continue;
                };
                back.split = prepared(table.service(at), &back.weights, threads);
            }
        } else {
            self.build_ways_back(table, threads);
        }
    }

    /// All of them anew, for a table with other indices. Services that are gone lose theirs.
    pub fn build_ways_back(&mut self, table: &Table, threads: usize) {
        self.ways_back.retain(|service, back| match table.service_named(service) {
            Some(at) => {
                back.split = prepared(table.service(at), &back.weights, threads);
                true
            }
            None => false,
        });
    }

    pub fn unchanged(&self, by: &By, why: &str) -> Outcome {
        let live = self.live();
        Outcome::Unchanged(Box::new(Receipt {
            generation: live.generation.number(),
            changed: false,
            from: BTreeMap::new(),
            to: BTreeMap::new(),
            cause: format!("{}: {why}", by.cause),
            author: by.author.clone(),
            triggered_at: by.trigger.unix_ms,
            published_at: live.generation.stamp.at_ms,
            flip_micros: 0,
            last_old_start_micros: 0,
            in_flight_at_flip: 0,
            shielded: 0,
            warnings: Vec::new(),
        }))
    }

    pub fn tell(&self, kind: &'static str, message: String, data: serde_json::Value) {
        self.shared.events.emit(Event { kind, message, data, ..Event::default() });
    }
}

impl By {
    pub fn asker(&self) -> overlay::Asker<'_> {
        overlay::Asker { author: &self.author, cause: &self.cause, now_ms: self.trigger.unix_ms }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Settlement {
    pub shares: Vec<Vec<Share>>,
    pub overlay: Overlay,
    pub notes: Vec<String>,
}

/// The overlay's rules for every service of a table.
pub(crate) fn settle_all(table: &Table, before: &Overlay) -> Settlement {
    let mut all = Settlement::default();
    for service in &table.services {
        let settled = overlay::settle(service, before.get(&*service.name));
        all.shares.push(settled.shares);
        all.notes.extend(settled.notes);
        if let Some(entry) = settled.entry {
            all.overlay.insert(service.name.to_string(), entry);
        }
    }
    all
}

/// Splits for `table`; an unchanged split of unchanged versions stays the same object with its tallies.
fn splits_for(
    before: &crate::routing::Generation,
    table: &Table,
    shares: Vec<Vec<Share>>,
    threads: usize,
) -> Box<[Arc<Split>]> {
    let kept = |service: &CompiledService, shares: &[Share]| {
        let ServiceIdx(at) = before.table.service_named(&service.name)?;
        let split = &before.splits[usize::from(at)];
        let same = before.table.services[usize::from(at)].versions == service.versions && split.shares() == shares;
        same.then(|| split.clone())
    };
    let services = table.services.iter().zip(shares);
    services
        .map(|(service, shares)| kept(service, &shares).unwrap_or_else(|| split_from(service, shares, threads)))
        .collect()
}

fn prepared(service: &CompiledService, weights: &Weights, threads: usize) -> Option<Arc<Split>> {
    let (shares, _) = overlay::shares_of(service, weights)?;
    Some(split_from(service, shares, threads))
}

pub(crate) fn count_reload(result: &'static str) {
    metrics::counter!(names::CONFIG_RELOADS_TOTAL, "result" => result).increment(1);
}
