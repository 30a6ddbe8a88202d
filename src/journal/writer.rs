//! The thread that writes. Its queue is bounded and nobody waits to put something in.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::schema::JournalError;
use super::store::{Record, Remembered, Standing, Store};
use crate::control::api::{AuditRecord, RolloutDecision};
use crate::control::rollouts::Samples;
use crate::telemetry::{Event, Events, names};

/// Records that may wait; when the disk is full the oldest are lost, loudly.
const QUEUE: usize = 1024;
/// How soon a failed write is tried again.
const RETRY: Duration = Duration::from_secs(5);

enum Message {
    Publish {
        record: Record,
        standing: Standing,
        done: oneshot::Sender<()>,
    },
    Stand {
        standing: Standing,
        done: oneshot::Sender<()>,
    },
    Audit {
        record: AuditRecord,
        done: oneshot::Sender<()>,
    },
    Decision(Box<RolloutDecision>),
    Samples {
        service: String,
        rollout: u64,
        samples: Box<Samples>,
    },
    Decisions {
        service: String,
        answer: oneshot::Sender<Vec<RolloutDecision>>,
    },
    Find {
        number: u64,
        answer: oneshot::Sender<Option<Record>>,
    },
    LetGo {
        done: oneshot::Sender<Result<(), String>>,
    },
    TakeBack {
        live: u64,
        done: oneshot::Sender<Result<(), JournalError>>,
    },
    Close,
    /// A bug in what writes.
    #[cfg(test)]
    Break,
}

/// The way to the journal. Dropping it writes what is queued and ends the thread.
#[derive(Debug)]
pub struct Journal {
    sender: SyncSender<Message>,
    trouble: Arc<Mutex<Trouble>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Cancelled when the thread ended without being told to.
    lost: CancellationToken,
}

/// What an operator should know.
#[derive(Debug, Default)]
struct Trouble {
    /// Why it cannot be written now.
    unwritten: Option<String>,
    /// About the files.
    files: Vec<String>,
}

impl Journal {
    /// Opens (or creates) the journal of `dir` and reads what a start needs.
    pub fn open(dir: &Path, events: Events) -> Result<(Journal, Remembered), JournalError> {
        let store = Store::open(dir)?;
        let remembered = store.remembered()?;
        let (sender, receiver) = sync_channel(QUEUE);
        let files = store.notes();
        for message in &files {
            events.emit(Event { kind: "warning", message: message.clone(), ..Event::default() });
        }
        metrics::gauge!(names::JOURNAL_WRITABLE).set(1.0);
        let trouble = Arc::new(Mutex::new(Trouble { unwritten: None, files }));
        let held = Held::Open(Box::new(store));
        let writer = Writer { dir: dir.into(), held, waiting: VecDeque::new(), trouble: trouble.clone(), events };
        let lost = CancellationToken::new();
        let guard = lost.clone().drop_guard();
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || {
            writer.run(receiver);
            // Not reached if it panics.
            guard.disarm();
        });
        let thread = thread.map_err(|source| JournalError::Directory { dir: dir.into(), source })?;
        Ok((Journal { sender, trouble, thread: Mutex::new(Some(thread)), lost }, remembered))
    }

    /// Cancelled when the thread has died of a bug: nothing is written down any more.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Resolves once the generation is safe on disk; an error means that it is not (yet).
    pub fn publish(&self, record: Record, standing: Standing) -> oneshot::Receiver<()> {
        let (done, wait) = oneshot::channel();
        self.send(Message::Publish { record, standing, done });
        wait
    }

    /// As [`Journal::publish`], without a generation.
    pub fn stand(&self, standing: Standing) -> oneshot::Receiver<()> {
        let (done, wait) = oneshot::channel();
        self.send(Message::Stand { standing, done });
        wait
    }

    /// As [`Journal::publish`].
    pub fn audit(&self, record: AuditRecord) -> oneshot::Receiver<()> {
        let (done, wait) = oneshot::channel();
        self.send(Message::Audit { record, done });
        wait
    }

    /// What was decided about a rollout; the same id again replaces it.
    pub fn decision(&self, decision: RolloutDecision) {
        self.send(Message::Decision(Box::new(decision)));
    }

    /// The evidence of a service's rollout over time.
    pub fn samples(&self, service: &str, rollout: u64, samples: Samples) {
        self.send(Message::Samples { service: service.into(), rollout, samples: Box::new(samples) });
    }

    /// All decisions about a service's rollouts that are kept, oldest first.
    pub async fn decisions(&self, service: &str) -> Vec<RolloutDecision> {
        let (answer, wait) = oneshot::channel();
        self.send(Message::Decisions { service: service.into(), answer });
        wait.await.unwrap_or_default()
    }

    /// A generation that is no longer in memory.
    pub async fn find(&self, number: u64) -> Option<Record> {
        let (answer, wait) = oneshot::channel();
        self.send(Message::Find { number, answer });
        wait.await.ok().flatten()
    }

    /// Writes what is queued and closes the files, so that another process may open them. What is recorded from
    /// then on waits. An error says why that cannot be now.
    pub async fn let_go(&self) -> Result<(), String> {
        let (done, wait) = oneshot::channel();
        self.send(Message::LetGo { done });
        wait.await.unwrap_or_else(|_| Err("the journal has no room for one more request".into()))
    }

    /// Opens the files again and forgets generations beyond `live`: they were another process's, and never served.
    pub async fn take_back(&self, live: u64) -> Result<(), JournalError> {
        let (done, wait) = oneshot::channel();
        self.send(Message::TakeBack { live, done });
        // Not answered: its thread is gone, and with it what it would have written.
        wait.await.unwrap_or(Ok(()))
    }

    /// Records wait for a disk that does not take them.
    pub fn is_unwritten(&self) -> bool {
        self.trouble.lock().expect("no holder panics").unwritten.is_some()
    }

    /// What keeps the journal from being written, and what is wrong with its files, for `status`.
    pub fn trouble(&self) -> Vec<String> {
        let trouble = self.trouble.lock().expect("no holder panics");
        trouble.unwritten.iter().chain(&trouble.files).cloned().collect()
    }

    /// Writes what is queued and ends the thread. Blocks for as long as that takes; later records are lost.
    pub fn close(&self) {
        let thread = self.thread.lock().expect("no holder panics").take();
        if let Some(thread) = thread {
            // Waits for room if need be: this is the last thing the process does with it.
            let _ = self.sender.send(Message::Close);
            let _ = thread.join();
        }
    }

    /// Has the thread die as a bug would.
    #[cfg(test)]
    pub(crate) fn break_down(&self) {
        self.send(Message::Break);
    }

    fn send(&self, message: Message) {
        if self.sender.try_send(message).is_err() {
            lost_one();
            let mut trouble = self.trouble.lock().expect("no holder panics");
            trouble.unwritten.get_or_insert_with(|| "the journal cannot keep up: a record was lost".into());
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

fn lost_one() {
    metrics::counter!(names::JOURNAL_LOST_TOTAL).increment(1);
}

/// Whether the files are this process's.
enum Held {
    Open(Box<Store>),
    /// Another process has them, after that many changes.
    LetGo(u64),
    /// They are ours again and cannot be opened; tried again like a write.
    Lost(u64),
}

struct Writer {
    dir: PathBuf,
    held: Held,
    waiting: VecDeque<Message>,
    trouble: Arc<Mutex<Trouble>>,
    events: Events,
}

impl Writer {
    fn run(mut self, receiver: Receiver<Message>) {
        loop {
            let is_whole = self.store().is_none_or(|store| !store.misses_a_file());
            let message = match self.waiting.is_empty() && is_whole {
                true => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => receiver.recv_timeout(RETRY),
            };
            match message {
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => {
                    self.write_waiting();
                    return;
                }
                #[cfg(test)]
                Ok(Message::Break) => panic!("a test breaks the journal"),
                Ok(Message::LetGo { done }) => {
                    self.write_waiting();
                    // Who asked may have gone: then it takes the files back.
                    if let (Err(Ok(())), Held::LetGo(changes)) = (done.send(self.let_go()), &self.held) {
                        self.held = Held::Lost(*changes);
                    }
                }
                Ok(Message::TakeBack { live, done }) => {
                    if let Held::LetGo(changes) = &self.held {
                        self.held = Held::Lost(*changes);
                    }
                    let result = self.open_again().and_then(|store| store.forget_after(live));
                    self.write_waiting();
                    let _ = done.send(result);
                }
                Ok(Message::Find { number, answer }) => {
                    let found = self.store().map_or(Ok(None), |store| store.find(number));
                    if let Err(error) = &found {
                        tracing::error!(%error, number, "a generation could not be read from the journal");
                    }
                    // Who asked may have gone.
                    let _ = answer.send(found.ok().flatten());
                }
                Ok(Message::Decisions { service, answer }) => {
                    let found = self.store().map_or(Ok(Vec::new()), |store| store.decisions(&service, None));
                    if let Err(error) = &found {
                        tracing::error!(%error, service, "decisions could not be read from the journal");
                    }
                    let _ = answer.send(found.unwrap_or_default());
                }
                Ok(
                    message @ (Message::Publish { .. }
                    | Message::Stand { .. }
                    | Message::Audit { .. }
                    | Message::Decision(_)
                    | Message::Samples { .. }),
                ) => {
                    if let Message::Samples { service, .. } = &message {
                        // Newer ones stand for all before: what waits for a disk does not grow by them.
                        let is_older =
                            |old: &Message| matches!(old, Message::Samples { service: of, .. } if of == service);
                        self.waiting.retain(|old| !is_older(old));
                    }
                    if self.waiting.len() == QUEUE {
                        lost_one();
                        self.waiting.pop_front();
                    }
                    self.waiting.push_back(message);
                    self.write_waiting();
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Held::Open(store) = &mut self.held {
                        store.mend();
                    }
                    self.write_waiting();
                }
            }
        }
    }

    fn store(&self) -> Option<&Store> {
        match &self.held {
            Held::Open(store) => Some(store),
            Held::LetGo(_) | Held::Lost(_) => None,
        }
    }

    /// An error says why it cannot be now.
    fn let_go(&mut self) -> Result<(), String> {
        if !self.waiting.is_empty() {
            return Err(self.trouble.lock().expect("no holder panics").unwritten.clone().unwrap_or_default());
        }
        let changes = match &self.held {
            Held::Open(store) => store.changes().map_err(|error| error.to_string())?,
            Held::LetGo(changes) | Held::Lost(changes) => *changes,
        };
        self.held = Held::LetGo(changes);
        Ok(())
    }

    fn open_again(&mut self) -> Result<&mut Store, JournalError> {
        if let Held::LetGo(changes) | Held::Lost(changes) = &self.held {
            let (store, done) = Store::open_again(&self.dir, *changes)?;
            if let Some(message) = done {
                tracing::warn!("{message}");
                self.events.emit(Event { kind: "warning", message, ..Event::default() });
            }
            self.held = Held::Open(Box::new(store));
        }
        match &mut self.held {
            Held::Open(store) => Ok(store),
            Held::LetGo(_) | Held::Lost(_) => unreachable!("just opened"),
        }
    }

    fn write_waiting(&mut self) {
        if matches!(self.held, Held::LetGo(_)) {
            return;
        }
        while let Some(message) = self.waiting.pop_front() {
            let written = self.open_again().and_then(|store| match &message {
                Message::Publish { record, standing, .. } => store.publish(record, standing),
                Message::Stand { standing, .. } => store.standing(standing),
                Message::Audit { record, .. } => store.record_audit(record),
                Message::Decision(decision) => store.decision(decision),
                Message::Samples { service, rollout, samples } => store.keep_samples(service, *rollout, samples),
                Message::Find { .. } | Message::Decisions { .. } | Message::Close => Ok(()),
                Message::LetGo { .. } | Message::TakeBack { .. } => Ok(()),
                #[cfg(test)]
                Message::Break => Ok(()),
            });
            match written {
                Ok(()) => {
                    if let Message::Publish { done, .. } | Message::Stand { done, .. } | Message::Audit { done, .. } =
                        message
                    {
                        // Who waited may have given up.
                        let _ = done.send(());
                    }
                }
                Err(error) => {
                    self.waiting.push_front(message);
                    self.is_in_trouble(&error);
                    return;
                }
            }
        }
        let files = self.store().map(|store| store.notes()).unwrap_or_default();
        let mut trouble = self.trouble.lock().expect("no holder panics");
        for news in files.iter().filter(|note| !trouble.files.contains(note)) {
            self.events.emit(Event { kind: "warning", message: news.clone(), ..Event::default() });
        }
        trouble.files = files;
        if trouble.unwritten.take().is_some() {
            metrics::gauge!(names::JOURNAL_WRITABLE).set(1.0);
            let message = "the journal can be written again";
            tracing::info!("{message}");
            self.events.emit(Event { kind: "warning", message: message.into(), ..Event::default() });
        }
    }

    fn is_in_trouble(&self, error: &JournalError) {
        let cause = std::error::Error::source(error).map(|cause| format!(" ({cause})")).unwrap_or_default();
        let message = format!(
            "{error}{cause}: traffic is served and changes go live, but a restart would not remember the newest of them"
        );
        let mut trouble = self.trouble.lock().expect("no holder panics");
        if trouble.unwritten.is_none() {
            metrics::gauge!(names::JOURNAL_WRITABLE).set(0.0);
            tracing::error!(%error, cause, "the journal cannot be written");
            self.events.emit(Event { kind: "warning", message: message.clone(), ..Event::default() });
        }
        trouble.unwritten = Some(message);
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
