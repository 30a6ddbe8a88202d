//! From nothing to the first generation.
//!
//! The file decides, with what operators changed on top of it as the journal remembers. If the file is
//! broken or gone, the last known good generation of the journal serves, marked degraded, until the file
//! is good again. Where the journal is, is written in that very file, so a broken one is read tolerantly:
//! a line `state_dir: …` at the left margin, else the directory `state` beside the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::api::ConfigStatus;
use super::candidate::Candidate;
use super::controller::{Controller, FileKnown, Settlement, WayBack, settle_all};
use super::event::{Event, FileSeen, Trigger};
use super::handle::Handle;
use super::history::History;
use super::live::Live;
use super::ports::Ports;
use super::publish;
use super::rollouts::{Outside, Rollouts, Stories};
use super::run;
use super::shared::{Parts, Shared};
use super::watch::{Seen, Settings, watch};
use super::{Phase, Source};
use crate::config::certificate::Dates;
use crate::config::load;
use crate::config::{Problem, Problems};
use crate::endpoints::Carried;
use crate::journal::{COPY, FILE, Journal, JournalError, Record, Remembered, Whole};
use crate::outcome::CodesRegistry;
use crate::routing::compile::split_from;
use crate::routing::{Split, Stamp};
use crate::sessions::connections::Connections;
use crate::telemetry::{Events, unix_ms};

/// Changes that may wait for the writer; who asks for more waits.
const QUEUE: usize = 64;

/// What control is started with.
pub struct Options {
    pub source: Source,
    /// Data threads.
    pub threads: usize,
    pub ports: Ports,
    pub events: Events,
    pub codes: Arc<CodesRegistry>,
    pub phase: watch::Receiver<Phase>,
    pub connections: Arc<Connections>,
    /// Waited for before the state is opened.
    pub turn: Option<Turn>,
}

/// When it is this process's turn to have the state, with what the one before it knew of endpoints.
pub type Turn = Pin<Box<dyn Future<Output = Vec<Carried>> + Send>>;

/// Why nothing serves. `Display` is the operator's message.
#[derive(Debug)]
pub enum StartError {
    /// The configuration is broken and there is no known good one.
    Broken { problems: Problems, why_no_fallback: String },
    /// The journal cannot be used.
    Journal(JournalError),
    /// A socket or file that the configuration names cannot be opened.
    Port(String),
}

impl std::error::Error for StartError {}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Broken { problems, why_no_fallback } => {
                writeln!(f, "{problems}")?;
                write!(f, "error: nothing is served: the configuration is broken and {why_no_fallback}")
            }
            StartError::Journal(error) => {
                write!(f, "error: {error}")?;
                match std::error::Error::source(error) {
                    Some(cause) => write!(f, "\n  = note: {cause}"),
                    None => Ok(()),
                }
            }
            StartError::Port(what) => write!(f, "error: {what}\n  = note: nothing is served"),
        }
    }
}

/// What the first generation is made from.
struct First {
    candidate: Candidate,
    settled: Settlement,
    whole: Option<Whole>,
    author: &'static str,
    cause: String,
    /// The file, if it is good (even if something else runs).
    file: Option<FileKnown>,
    problems: Option<Problems>,
}

/// Publishes the first generation and starts the writer and the watcher. Call it on the control runtime.
pub async fn start(options: Options) -> Result<Handle, StartError> {
    start_watching(options, Settings::default()).await
}

/// [`start`] with another way to watch the file.
pub(crate) async fn start_watching(options: Options, how: Settings) -> Result<Handle, StartError> {
    let read = match &options.source {
        Source::File(path) => load::read(path),
        Source::Text { name, text } => Ok(vec![load::Source { path: PathBuf::from(name), text: text.clone() }]),
    };
    let text = read.clone().unwrap_or_default();
    let file = match read {
        Ok(sources) => Candidate::build_aside(sources, Dates::Starting).await,
        Err(problems) => Err(problems),
    };
    let state_dir = match &file {
        Ok(candidate) => candidate.table.config.state_dir.clone(),
        Err(_) => state_dir_of_broken(&options.source, &text),
    };
    let carried = match options.turn {
        Some(turn) => turn.await,
        None => Vec::new(),
    };
    let (journal, mut remembered) = match &state_dir {
        Some(dir) => {
            let (journal, remembered) = Journal::open(dir, options.events.clone()).map_err(StartError::Journal)?;
            (Some(journal), remembered)
        }
        None => (None, Remembered::default()),
    };
    let mut first = choose_first(file, &remembered, state_dir.as_deref()).await?;
    let kept = std::mem::take(&mut remembered.standing.rollouts);
    let plan_of = |service: &str| {
        let table = &first.candidate.table;
        table.service(table.service_named(service)?).service.rollout.clone()
    };
    let (mut rollouts, unread) = Rollouts::restore(kept, plan_of, options.threads);
    let ran = remembered.generations.last().map(|last| last.info.splits.clone()).unwrap_or_default();
    let before = |service: &str| ran.get(service).cloned();
    rollouts.place(&first.candidate.table, before, &mut first.settled, options.threads, unix_ms());
    first.settled.notes.extend(unread);
    let config = first.candidate.table.config.clone();
    let ports = options.ports;
    let listeners = ports.listeners.prepare(&config.listeners).map_err(StartError::Port)?;
    let admin = ports.admin.prepare(&config.admin).map_err(StartError::Port)?;
    let access_log = ports.access_log.prepare(&config.access_log).map_err(StartError::Port)?;

    let Candidate { table, sources, hash, warnings } = first.candidate;
    // What runs again is the generation it was; only what differs from the newest is a new one.
    let again = remembered.generations.last().filter(|last| {
        let shares = table.services.iter().zip(&first.settled.shares);
        let weights = shares
            .map(|(service, shares)| (service.name.to_string(), super::overlay::weights_of(&service.versions, shares)));
        last.info.hash == hash && last.info.splits == weights.collect()
    });
    let number = again.map_or(remembered.last_number + 1, |last| last.info.number);
    let stamp = Stamp {
        number,
        hash: hash.as_str().into(),
        author: again.map_or(first.author, |last| &last.info.author).into(),
        cause: again.map_or(&*first.cause, |last| &last.info.cause).into(),
        at_ms: again.map_or_else(unix_ms, |last| last.info.at),
    };
    let is_new = again.is_none();
    let services = table.services.iter().zip(first.settled.shares);
    let splits = services.map(|(service, shares)| split_from(service, shares, options.threads)).collect();
    let splits: Box<[Arc<Split>]> = splits;
    let stamps = rollouts.stamps(&table, &splits);
    let snapshot = publish::first(stamp, table.clone(), splits, stamps, &options.codes, options.threads);
    let live = Arc::new(Live::new(snapshot.clone(), options.threads));
    for service in snapshot.runtime.services.iter() {
        service.core.held.store(remembered.standing.held.contains(&*service.name), Ordering::SeqCst);
    }
    let status = config_status(&options.source, first.problems.as_ref(), first.file.is_some());
    let audit = std::mem::take(&mut remembered.audit);
    let told = std::mem::take(&mut remembered.decisions);
    let stories = Stories::of(remembered.last_decision, told, std::mem::take(&mut remembered.samples));
    let outside = Outside::new(tokio::runtime::Handle::current(), options.events.clone());
    let parts = Parts {
        live,
        events: options.events,
        ports: ports.clone(),
        phase: options.phase,
        connections: options.connections,
        source: options.source.clone(),
        journal,
        audit,
        stories,
    };
    let known = first.file.as_ref().map(|file| file.hash.clone());
    let rejected = first.problems.as_ref().map(Problems::to_string);
    let mut controller = Controller {
        shared: Arc::new(Shared::new(parts)),
        registry: options.codes,
        overlay: first.settled.overlay,
        ways_back: ways_back(&remembered),
        sources,
        history: History::of(remembered.generations),
        next_number: number + 1,
        whole: first.whole,
        unconfirmed: None,
        config: status,
        warnings: warnings.0,
        notes: first.settled.notes,
        file: first.file,
        reading: 0,
        rejected,
        rollouts,
        outside,
        stood: None,
        state_dir: config.state_dir.clone(),
    };
    controller.build_ways_back(&table, options.threads);
    if is_new {
        // On its way to disk; nobody waits for it.
        drop(controller.record(&snapshot));
    } else {
        controller.stand();
    }
    snapshot.runtime.take_over(carried);
    ports.endpoints.reconcile(&snapshot);
    ports.listeners.settle(&listeners);
    ports.listeners.commit(listeners);
    ports.admin.commit(admin);
    ports.access_log.commit(access_log);
    announce(&controller, number, &first.cause, first.problems.as_ref());
    controller.refresh();

    let (sender, receiver) = mpsc::channel(QUEUE);
    let shared = controller.shared.clone();
    let stop = CancellationToken::new();
    if let Source::File(path) = &options.source {
        let (seen, sightings) = mpsc::channel(1);
        if let Some(hash) = known {
            shared.read.set(&hash);
        }
        tokio::spawn(watch(path.clone(), how, shared.read.clone(), seen, stop.clone()));
        tokio::spawn(compile_what_is_seen(shared.clone(), sightings, sender.clone()));
    }
    if let Some(journal) = &shared.journal {
        let (gone, lost) = (journal.lost(), shared.writer_lost.clone());
        tokio::spawn(async move {
            gone.cancelled().await;
            tracing::error!("the journal's thread has ended unexpectedly: nothing is written down any more");
            lost.cancel();
        });
    }
    let lost = shared.writer_lost.clone().drop_guard();
    tokio::spawn(async move {
        // Ends the watcher with the writer, whatever ended that.
        let _stop = stop.drop_guard();
        run::run(controller, receiver).await;
        // Not reached if it panics; then whoever runs the process learns of it.
        lost.disarm();
    });
    Ok(Handle::new(shared, sender))
}

fn announce(controller: &Controller, number: u64, cause: &str, problems: Option<&Problems>) {
    tracing::info!(generation = number, cause, "published");
    controller.tell("publish", format!("generation {number}: {cause}"), json!({ "generation": number }));
    if let Some(problems) = problems {
        tracing::error!(generation = number, "the configuration file is broken; {cause}\n{problems}");
        let message = format!("the configuration file is broken; {cause}");
        controller.tell("reload_failed", message, json!({ "problems": problems.0, "generation": number }));
    }
}

fn config_status(source: &Source, problems: Option<&Problems>, good: bool) -> ConfigStatus {
    ConfigStatus {
        source: source.to_string(),
        last_reload_successful: good,
        last_reload_at: Some(unix_ms()),
        degraded: !good,
        problems: problems.map(|problems| problems.0.clone()).unwrap_or_default(),
        rendered: problems.map(Problems::to_string),
        unwatchable: None,
    }
}

fn ways_back(remembered: &Remembered) -> BTreeMap<String, WayBack> {
    let back = |weights| WayBack { weights, split: None, undoes_rollback: false };
    let known = remembered.standing.ways_back.iter();
    known.map(|(service, weights)| (service.clone(), back(weights.clone()))).collect()
}

async fn choose_first(
    file: Result<Candidate, Problems>,
    remembered: &Remembered,
    looked_in: Option<&Path>,
) -> Result<First, StartError> {
    let standing = &remembered.standing;
    match file {
        Ok(candidate) => {
            let file = FileKnown { hash: candidate.hash.clone(), sources: candidate.sources.clone() };
            let whole = standing.whole.as_ref().filter(|whole| whole.file.as_ref() == Some(&file.hash));
            if let (Some(whole), Some(record)) = (whole, remembered.last_good())
                && let Ok(kept) = Candidate::build_aside(record.sources.to_vec(), Dates::Starting).await
            {
                return Ok(First {
                    settled: settle_all(&kept.table, &standing.overlay),
                    candidate: kept,
                    whole: Some(whole.clone()),
                    author: "journal",
                    cause: format!("start with what {} chose: {}", whole.author, whole.cause),
                    file: Some(file),
                    problems: None,
                });
            }
            Ok(First {
                settled: settle_all(&candidate.table, &standing.overlay),
                candidate,
                whole: None,
                author: "file",
                cause: "start".into(),
                file: Some(file),
                problems: None,
            })
        }
        Err(problems) => last_known_good(problems, remembered, looked_in).await,
    }
}

async fn last_known_good(
    problems: Problems,
    remembered: &Remembered,
    looked_in: Option<&Path>,
) -> Result<First, StartError> {
    let Some(record) = remembered.last_good() else {
        let why_no_fallback = match looked_in {
            Some(dir) => format!("no earlier generation is known in {}", dir.display()),
            None => "no journal of earlier generations was found (state_dir keeps it)".into(),
        };
        return Err(StartError::Broken { problems, why_no_fallback });
    };
    let number = record.info.number;
    let candidate = match Candidate::build_aside(record.sources.to_vec(), Dates::Starting).await {
        Ok(candidate) => candidate,
        Err(earlier) => {
            let first = earlier.0.first().map(|problem: &Problem| problem.what.clone()).unwrap_or_default();
            let why_no_fallback = format!("generation {number}, the last good one, cannot be used any more: {first}");
            return Err(StartError::Broken { problems, why_no_fallback });
        }
    };
    Ok(First {
        settled: as_it_ran(record, &candidate, remembered),
        candidate,
        whole: remembered.standing.whole.clone(),
        author: "journal",
        cause: format!("start with generation {number}, the last known good one"),
        file: None,
        problems: Some(problems),
    })
}

/// The overlay as it stands, and where it says nothing the recorded split.
fn as_it_ran(record: &Record, candidate: &Candidate, remembered: &Remembered) -> Settlement {
    let mut overlay = remembered.standing.overlay.clone();
    for service in &candidate.table.services {
        let recorded = record.info.splits.get(&*service.name);
        let shares = recorded.and_then(|weights| super::overlay::shares_of(service, weights));
        if let (Some((shares, _)), false) = (shares, overlay.contains_key(&*service.name)) {
            let by = super::overlay::Asker {
                author: &record.info.author,
                cause: &record.info.cause,
                now_ms: record.info.at,
            };
            if let Some(entry) = super::overlay::entry_for(service, &shares, by) {
                overlay.insert(service.name.to_string(), entry);
            }
        }
    }
    settle_all(&candidate.table, &overlay)
}

/// Compiles each sighting off the writer's task and hands it on, in order.
async fn compile_what_is_seen(shared: Arc<Shared>, mut sightings: mpsc::Receiver<Seen>, writer: mpsc::Sender<Event>) {
    while let Some(seen) = sightings.recv().await {
        let sequence = shared.next_reading();
        let trigger = Trigger { nanos: shared.live.nanos(), unix_ms: unix_ms() };
        let event = match seen {
            Seen::Settled { sources, hash } => {
                let candidate = Candidate::build_aside(sources, shared.dates()).await;
                Event::File { seen: FileSeen { sequence, hash: Some(hash), candidate }, trigger }
            }
            Seen::Unreadable(problems) => {
                Event::File { seen: FileSeen { sequence, hash: None, candidate: Err(problems) }, trigger }
            }
            Seen::Unwatchable(why) => Event::Unwatchable(why),
        };
        if writer.send(event).await.is_err() {
            return;
        }
    }
}

/// Where the journal of a file that cannot be parsed is, if it is anywhere.
fn state_dir_of_broken(source: &Source, text: &[load::Source]) -> Option<PathBuf> {
    let Source::File(path) = source else { return None };
    let named = text.iter().find_map(|source| {
        let value = source.text.lines().find_map(|line| line.strip_prefix("state_dir:"))?;
        let value = value.split(" #").next().unwrap_or(value).trim().trim_matches(['"', '\'']);
        let value = crate::config::expanded(value)?;
        let usable = !value.is_empty() && value != "null" && value != "~";
        usable.then(|| folder_of(&source.path).join(value))
    });
    let beside = || {
        let folder = if path.is_dir() { path.clone() } else { folder_of(path).to_path_buf() };
        folder.join("state")
    };
    let dir = named.unwrap_or_else(beside);
    (dir.join(FILE).is_file() || dir.join(COPY).is_file()).then_some(dir)
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_of_a_broken_file_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("switchback.yaml");
        let source = Source::File(config.clone());
        let found = |text: &str| {
            let text = [load::Source { path: config.clone(), text: text.into() }];
            state_dir_of_broken(&source, &text).map(|found| found.strip_prefix(dir.path()).expect("inside").to_owned())
        };
        assert_eq!(found("services: {"), None, "there is none yet");
        for state in ["state", "elsewhere"] {
            std::fs::create_dir(dir.path().join(state)).expect("writable");
            std::fs::write(dir.path().join(state).join(FILE), "").expect("writable");
        }
        assert_eq!(found("services: {"), Some("state".into()));
        assert_eq!(found("a: [\nstate_dir: \"elsewhere\"   # here\n"), Some("elsewhere".into()));
        assert_eq!(found("state_dir: nowhere"), None, "what is named counts");
    }
}
