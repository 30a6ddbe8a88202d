//! How the rest of the program talks to control: a cheap, cloneable handle.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Source;
use super::api::{
    AuditRecord, Change, Explanation, GenerationInfo, Plan, Receipt, Refused, Request, RetiredStatus, RolloutReport,
    Status,
};
pub use super::ask::Question;
use super::candidate::{Candidate, invalid};
use super::decide::unknown;
use super::event::{Ask, Event, FileSeen, Trigger};
use super::live::Live;
use super::shared::Shared;
use super::{effective, explain, plan, report, status};
use crate::config::Problems;
use crate::config::load;
use crate::journal::Record;
use crate::telemetry::{Events, unix_ms};

/// Longer than this a writer is never busy.
const SETTLE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    writer: mpsc::Sender<Event>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>, writer: mpsc::Sender<Event>) -> Handle {
        Handle { shared, writer }
    }

    pub fn live(&self) -> &Arc<Live> {
        &self.shared.live
    }

    /// Waits until what can be read here is as new as what serves: the flip comes first, and the writer tells of it
    /// within milliseconds. A writer that does not is not waited for.
    pub async fn settled(&self) {
        let live = self.shared.live.load().generation.number();
        let mut view = self.shared.view.subscribe();
        let _ = tokio::time::timeout(SETTLE_MAX, view.wait_for(|view| view.generation >= live)).await;
    }

    pub fn events(&self) -> &Events {
        &self.shared.events
    }

    /// Carries one change out. Answers after the new generation is live and no request is routed by the
    /// one before any more. The time of the receipt starts here.
    pub async fn request(&self, request: Request) -> Result<Receipt, Refused> {
        let trigger = Trigger { nanos: self.shared.live.nanos(), unix_ms: unix_ms() };
        let Request { change, author, if_match } = request;
        let ask = match change {
            Change::Apply { text, name, confirm_ms } => {
                let sources = vec![load::Source { path: name.into(), text }];
                let candidate = Candidate::build_aside(sources, self.shared.dates()).await;
                let candidate = candidate.map_err(|problems| invalid(&problems))?;
                Ask::Apply { candidate, confirm_ms }
            }
            Change::Reload => Ask::File(self.read_file().await?),
            Change::Revert { generation } => {
                let record = self.record(generation).await?;
                let sources = record.sources.to_vec();
                let candidate = Candidate::build_aside(sources, self.shared.dates()).await;
                let candidate = candidate.map_err(|problems| invalid(&problems))?;
                Ask::Revert { record, candidate }
            }
            change @ (Change::Switch { .. }
            | Change::Weights { .. }
            | Change::Rollback { .. }
            | Change::Drain { .. }
            | Change::Hold { .. }
            | Change::Release { .. }
            | Change::Clear { .. }
            | Change::Confirm { .. }
            | Change::Rollout { .. }
            | Change::Report { .. }) => Ask::Splits(change),
        };
        let (reply, answer) = oneshot::channel();
        let event = Event::Asked { ask, author, if_match, trigger, reply };
        self.writer.send(event).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }

    /// What `text` (with its name; or, with `None`, the configuration on disk) would change. Changes nothing.
    pub async fn plan(&self, text: Option<(String, String)>) -> Result<Plan, Refused> {
        let candidate = match text {
            Some((text, name)) => {
                Candidate::build_aside(vec![load::Source { path: name.into(), text }], self.shared.dates()).await
            }
            None => self.read_file().await?.candidate,
        };
        let candidate = candidate.map_err(|problems| invalid(&problems))?;
        Ok(plan::plan(&self.shared, &candidate))
    }

    pub fn status(&self) -> Status {
        status::status(&self.shared)
    }

    /// An error says what of the description is no HTTP request.
    pub fn explain(&self, question: &Question) -> Result<Explanation, Refused> {
        let live = self.shared.live.load();
        explain::explain(&live, question).map_err(|what| Refused::Failed { what, hint: None })
    }

    /// The effective configuration as YAML, with intent, overlay and owner as comments.
    pub fn effective(&self) -> String {
        effective::effective(&self.shared)
    }

    /// Newest first.
    pub fn generations(&self) -> Vec<GenerationInfo> {
        self.shared.view().history.iter().map(|record| record.info.clone()).collect()
    }

    /// Newest first.
    pub fn audit(&self, limit: usize) -> Vec<AuditRecord> {
        self.shared.audit(limit)
    }

    /// The rollout of a service that runs or ended last, whole; `all`: and those before it.
    pub async fn rollout_report(&self, service: &str, all: bool) -> Result<RolloutReport, Refused> {
        report::report(&self.shared, service, all).await
    }

    /// For a call that was refused: nobody waits until it is on disk.
    pub fn record_audit(&self, record: AuditRecord) {
        drop(self.shared.record_audit(record));
    }

    /// For a call that was carried out: who is told of it finds it in the audit after a crash too, unless the disk
    /// takes longer than `within`.
    pub async fn keep_audit(&self, record: AuditRecord, within: Duration) {
        if let Some(written) = self.shared.record_audit(record) {
            // A journal in trouble says so itself.
            let _ = tokio::time::timeout(within, written).await;
        }
    }

    /// Generations that something still holds; more than one for as long as old requests run.
    pub fn generations_live(&self) -> u64 {
        self.shared.generations_live()
    }

    /// Resolves when the writer has died of a bug: what serves goes on, but nothing can be changed any more.
    pub async fn lost(&self) {
        self.shared.writer_lost.cancelled().await;
    }

    /// Answers what was asked, writes the journal to its end and stops the writer and the watcher. What
    /// is asked later is refused.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.writer.send(Event::Stop { done }).await.is_ok() {
            // An error means that it had stopped already.
            let _ = stopped.await;
        }
    }

    /// Another process is to take over: nothing is decided any more, and the state is let go of. What serves goes
    /// on. `urgent` hears of what cannot wait. An error says why not now.
    pub async fn freeze(&self, urgent: mpsc::UnboundedSender<String>) -> Result<(), String> {
        let (done, frozen) = oneshot::channel();
        let gone = || "control has ended".to_string();
        self.writer.send(Event::Freeze { done, urgent }).await.map_err(|_| gone())?;
        frozen.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The other process does not take over: everything is decided here again.
    pub async fn thaw(&self) {
        let (done, thawed) = oneshot::channel();
        if self.writer.send(Event::Thaw { done }).await.is_ok() {
            let _ = thawed.await;
        }
    }

    /// The other process has taken over: what is asked here from now on is refused.
    pub async fn retire(&self) {
        let (done, retired) = oneshot::channel();
        if self.writer.send(Event::Retire { done }).await.is_ok() {
            let _ = retired.await;
        }
    }

    /// What an earlier process still has; `None`: it has ended. Gives what all of them have.
    pub fn retired(&self, pid: u32, left: Option<RetiredStatus>) -> Vec<RetiredStatus> {
        let mut retired = self.shared.retired.lock().expect("no holder panics");
        match left {
            Some(left) => drop(retired.insert(pid, left)),
            None => drop(retired.remove(&pid)),
        }
        retired.values().cloned().collect()
    }

    /// The services whose requests wait for a release.
    pub fn held(&self) -> BTreeSet<String> {
        self.live().load().runtime.held()
    }

    /// For a process that only finishes: holds and releases as another one has decided.
    pub fn hold_only(&self, held: &BTreeSet<String>) {
        for service in self.live().load().runtime.services.iter() {
            service.core.hold(held.contains(&*service.name));
        }
    }

    #[cfg(test)]
    pub(crate) fn break_journal(&self) {
        self.shared.journal.as_ref().expect("the test has a state_dir").break_down();
    }

    async fn read_file(&self) -> Result<FileSeen, Refused> {
        let Source::File(path) = &self.shared.source else {
            let what = format!("{} is not a file, so it cannot be read again", self.shared.source);
            return Err(Refused::Failed { what, hint: None });
        };
        let sequence = self.shared.next_reading();
        let path = path.clone();
        let read = tokio::task::spawn_blocking(move || load::read(&path)).await;
        let sources = read.unwrap_or_else(|error| Err(super::candidate::problem(error.to_string())));
        Ok(match sources {
            Ok(sources) => {
                let hash = load::hash(&sources);
                self.shared.read.set(&hash);
                FileSeen {
                    sequence,
                    hash: Some(hash),
                    candidate: Candidate::build_aside(sources, self.shared.dates()).await,
                }
            }
            Err(problems) => FileSeen { sequence, hash: None, candidate: Err::<Candidate, Problems>(problems) },
        })
    }

    async fn record(&self, number: u64) -> Result<Record, Refused> {
        let history = self.shared.view();
        if let Some(record) = history.history.iter().find(|record| record.info.number == number) {
            return Ok(Record::clone(record));
        }
        let found = match &self.shared.journal {
            Some(journal) => journal.find(number).await,
            None => None,
        };
        found.ok_or_else(|| {
            let known: Vec<String> = history.history.iter().take(10).map(|kept| kept.info.number.to_string()).collect();
            unknown("generation", &number.to_string(), known.iter().map(String::as_str))
        })
    }
}

fn ending() -> Refused {
    Refused::Failed { what: "this process is ending and takes no more changes".into(), hint: None }
}
