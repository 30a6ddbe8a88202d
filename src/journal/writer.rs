//! The thread that writes. Its queue is bounded and nobody waits to put something in.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::schema::JournalError;
use super::store::{Record, Remembered, Standing, Store};
use crate::control::api::{AuditRecord, RolloutDecision};
use crate::control::rollouts::Samples;
use crate::telemetry::{Event, Events};

/// Records that may wait; when the disk is full the oldest are lost, loudly.
const QUEUE: usize = 1024;
/// How soon a failed write is tried again.
const RETRY: Duration = Duration::from_secs(5);

enum Message {
    Publish { record: Record, standing: Standing, done: oneshot::Sender<()> },
    Stand(Standing),
    Audit(AuditRecord),
    Decision(Box<RolloutDecision>),
    Samples { service: String, rollout: u64, samples: Box<Samples> },
    Decisions { service: String, answer: oneshot::Sender<Vec<RolloutDecision>> },
    Find { number: u64, answer: oneshot::Sender<Option<Record>> },
    LetGo { done: oneshot::Sender<Result<(), String>> },
    TakeBack { live: u64, done: oneshot::Sender<Result<(), JournalError>> },
    Close,
}

/// The way to the journal. Dropping it writes what is queued and ends the thread.
#[derive(Debug)]
pub struct Journal {
    sender: SyncSender<Message>,
    trouble: Arc<Mutex<Option<String>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Opens (or creates) the journal of `dir` and reads what a start needs.
    pub fn open(dir: &Path, events: Events) -> Result<(Journal, Remembered), JournalError> {
        let store = Store::open(dir)?;
        let remembered = store.remembered()?;
        let (sender, receiver) = sync_channel(QUEUE);
        let trouble = Arc::new(Mutex::new(None));
        let held = Held::Open(store);
        let writer = Writer { dir: dir.into(), held, waiting: VecDeque::new(), trouble: trouble.clone(), events };
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || writer.run(receiver));
        let thread = thread.map_err(|source| JournalError::Directory { dir: dir.into(), source })?;
        Ok((Journal { sender, trouble, thread: Mutex::new(Some(thread)) }, remembered))
    }

    /// Resolves once the generation is safe on disk; an error means that it is not (yet).
    pub fn publish(&self, record: Record, standing: Standing) -> oneshot::Receiver<()> {
        let (done, wait) = oneshot::channel();
        self.send(Message::Publish { record, standing, done });
        wait
    }

    pub fn stand(&self, standing: Standing) {
        self.send(Message::Stand(standing));
    }

    pub fn audit(&self, record: AuditRecord) {
        self.send(Message::Audit(record));
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

    /// Writes what is queued and closes the file, so that another process may open it. What is recorded from
    /// then on waits. An error says why that cannot be now.
    pub async fn let_go(&self) -> Result<(), String> {
        let (done, wait) = oneshot::channel();
        self.send(Message::LetGo { done });
        wait.await.unwrap_or_else(|_| Err("the journal has no room for one more request".into()))
    }

    /// Opens the file again and forgets generations beyond `live`: they were another process's, and never served.
    pub async fn take_back(&self, live: u64) -> Result<(), JournalError> {
        let (done, wait) = oneshot::channel();
        self.send(Message::TakeBack { live, done });
        // Not answered: its thread is gone, and with it what it would have written.
        wait.await.unwrap_or(Ok(()))
    }

    /// What keeps the journal from being written, for `status`.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().expect("no holder panics").clone()
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

    fn send(&self, message: Message) {
        if self.sender.try_send(message).is_err() {
            let mut trouble = self.trouble.lock().expect("no holder panics");
            trouble.get_or_insert_with(|| "the journal cannot keep up: a record was lost".into());
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// Whether the file is this process's.
enum Held {
    Open(Store),
    /// Another process has it.
    LetGo,
    /// It is ours again and cannot be opened; tried again like a write.
    Lost,
}

struct Writer {
    dir: PathBuf,
    held: Held,
    waiting: VecDeque<Message>,
    trouble: Arc<Mutex<Option<String>>>,
    events: Events,
}

impl Writer {
    fn run(mut self, receiver: Receiver<Message>) {
        loop {
            let message = match self.waiting.is_empty() {
                true => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => receiver.recv_timeout(RETRY),
            };
            match message {
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => {
                    self.write_waiting();
                    return;
                }
                Ok(Message::LetGo { done }) => {
                    self.write_waiting();
                    let result = match self.waiting.is_empty() {
                        true => {
                            self.held = Held::LetGo;
                            Ok(())
                        }
                        false => Err(self.trouble.lock().expect("no holder panics").clone().unwrap_or_default()),
                    };
                    // Who asked may have gone: then it takes the file back.
                    if let Err(Ok(())) = done.send(result) {
                        self.held = Held::Lost;
                    }
                }
                Ok(Message::TakeBack { live, done }) => {
                    self.held = Held::Lost;
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
                    | Message::Stand(_)
                    | Message::Audit(_)
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
                        self.waiting.pop_front();
                    }
                    self.waiting.push_back(message);
                    self.write_waiting();
                }
                Err(RecvTimeoutError::Timeout) => self.write_waiting(),
            }
        }
    }

    fn store(&self) -> Option<&Store> {
        match &self.held {
            Held::Open(store) => Some(store),
            Held::LetGo | Held::Lost => None,
        }
    }

    fn open_again(&mut self) -> Result<&mut Store, JournalError> {
        if !matches!(self.held, Held::Open(_)) {
            self.held = Held::Open(Store::open(&self.dir)?);
        }
        match &mut self.held {
            Held::Open(store) => Ok(store),
            Held::LetGo | Held::Lost => unreachable!("just opened"),
        }
    }

    fn write_waiting(&mut self) {
        if matches!(self.held, Held::LetGo) {
            return;
        }
        while let Some(message) = self.waiting.pop_front() {
            let written = self.open_again().and_then(|store| match &message {
                Message::Publish { record, standing, .. } => store.publish(record, standing),
                Message::Stand(standing) => store.standing(standing),
                Message::Audit(record) => store.record_audit(record),
                Message::Decision(decision) => store.decision(decision),
                Message::Samples { service, rollout, samples } => store.keep_samples(service, *rollout, samples),
                Message::Find { .. } | Message::Decisions { .. } | Message::Close => Ok(()),
                Message::LetGo { .. } | Message::TakeBack { .. } => Ok(()),
            });
            match written {
                Ok(()) => {
                    if let Message::Publish { done, .. } = message {
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
        if self.trouble.lock().expect("no holder panics").take().is_some() {
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
        if trouble.is_none() {
            tracing::error!(%error, cause, "the journal cannot be written");
            self.events.emit(Event { kind: "warning", message: message.clone(), ..Event::default() });
        }
        *trouble = Some(message);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::store::FILE;
    use super::*;
    use crate::config::load::Source;
    use crate::control::api::GenerationInfo;
    use crate::control::overlay::Weights;

    fn record(number: u64, text: &str) -> Record {
        let splits = BTreeMap::from([("shop".to_string(), Weights::from([("v1".to_string(), 90), ("v2".into(), 10)]))]);
        let info = GenerationInfo {
            number,
            hash: format!("hash of {text}"),
            author: "cli:ada".into(),
            cause: "weights shop v1=90 v2=10".into(),
            at: 1_700_000_000_000 + number,
            splits,
        };
        Record { info, sources: Arc::new(vec![Source { path: PathBuf::from("a.yaml"), text: text.into() }]) }
    }

    fn open(dir: &Path) -> Result<(Journal, Remembered), JournalError> {
        Journal::open(dir, Events::default())
    }

    #[test]
    fn i9_what_was_written_comes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let (journal, first) = open(dir.path()).expect("new");
        assert_eq!((first.last_number, first.generations.len()), (0, 0));
        let standing = Standing { ways_back: BTreeMap::from([("shop".into(), Weights::new())]), ..Standing::default() };
        journal.publish(record(1, "one"), Standing::default()).blocking_recv().expect("written");
        journal.publish(record(2, "one"), standing.clone()).blocking_recv().expect("written");
        let audit = AuditRecord {
            at: 5,
            author: "cli:ada".into(),
            from: "127.0.0.1".into(),
            action: "switch".into(),
            result: "ok".into(),
            generation: Some(2),
        };
        journal.audit(audit.clone());
        drop(journal);
        let (_journal, again) = open(dir.path()).expect("again");
        assert_eq!(again.last_number, 2);
        assert_eq!(again.standing, standing);
        assert_eq!(again.audit, [audit]);
        let last = again.last_good().expect("a generation");
        assert_eq!((&last.info, &last.sources), (&record(2, "one").info, &record(2, "one").sources));
    }

    #[test]
    fn an_unconfirmed_generation_is_not_the_last_good_one() {
        let remembered = Remembered {
            last_number: 3,
            generations: vec![record(1, "a"), record(2, "b"), record(3, "c")],
            standing: Standing { unconfirmed: Some(2), ..Standing::default() },
            ..Remembered::default()
        };
        assert_eq!(remembered.last_good().map(|record| record.info.number), Some(1));
    }

    #[test]
    fn the_journal_is_bounded_and_keeps_no_text_that_nothing_names() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = Store::open(dir.path()).expect("new");
        for number in 1..=230 {
            store.publish(&record(number, &format!("text {}", number / 50)), &Standing::default()).expect("written");
        }
        assert!(store.find(30).expect("read").is_none());
        assert_eq!(store.find(31).expect("read").expect("kept").sources[0].text, "text 0");
        let remembered = store.remembered().expect("read");
        assert_eq!((remembered.generations.len(), remembered.last_number), (50, 230));
    }

    #[test]
    fn a_damaged_journal_is_refused_and_never_read_as_empty() {
        let dir = tempfile::tempdir().expect("a directory");
        let (journal, _) = open(dir.path()).expect("new");
        for number in 1..40 {
            let text = format!("{number} {}", "x".repeat(4000));
            journal.publish(record(number, &text), Standing::default()).blocking_recv().expect("written");
        }
        drop(journal);
        let file = dir.path().join(FILE);
        let whole = std::fs::read(&file).expect("readable");
        let mut scribbled = whole.clone();
        scribbled[4096..20_000].fill(0xA5);
        for (how, bytes) in [
            ("noise", b"this is no database at all, only some text that is long enough".repeat(10)),
            ("cut", whole[..whole.len() / 2].to_vec()),
            ("scribbled", scribbled),
        ] {
            std::fs::write(&file, &bytes).expect("writable");
            for extra in ["-wal", "-shm"] {
                let _ = std::fs::remove_file(dir.path().join(format!("{FILE}{extra}")));
            }
            let error = open(dir.path()).map(|_| ()).expect_err(how);
            assert!(matches!(error, JournalError::Damaged { .. }), "{how}: {error:?}");
            assert!(error.to_string().contains("move it away"), "{error}");
            assert_eq!(std::fs::read(&file).expect("readable"), bytes, "{how}: left as it was");
        }
    }

    #[test]
    fn a_newer_or_foreign_file_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(open(dir.path()).expect("new"));
        let file = dir.path().join(FILE);
        let raise = |sql| rusqlite::Connection::open(&file).and_then(|it| it.execute_batch(sql)).expect("raised");
        raise("PRAGMA user_version = 99");
        assert!(matches!(open(dir.path()).map(|_| ()), Err(JournalError::Newer { found: 99, .. })));
        raise("PRAGMA application_id = 7");
        assert!(matches!(open(dir.path()).map(|_| ()), Err(JournalError::Foreign { .. })));
    }

    #[test]
    fn two_processes_cannot_share_a_journal() {
        let dir = tempfile::tempdir().expect("a directory");
        let _first = open(dir.path()).expect("new");
        assert!(matches!(open(dir.path()).map(|_| ()), Err(JournalError::InUse { .. })));
    }

    #[test]
    fn a_state_dir_that_cannot_be_made_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let occupied = dir.path().join("file");
        std::fs::write(&occupied, "x").expect("writable");
        let error = open(&occupied.join("state")).map(|_| ()).expect_err("a file is in the way");
        assert!(matches!(error, JournalError::Directory { .. }), "{error:?}");
    }

    #[test]
    fn a_failed_write_is_kept_shown_and_tried_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("new");
        let trouble = Arc::new(Mutex::new(None));
        let events = Events::default();
        let mut writer = Writer {
            dir: dir.path().into(),
            held: Held::Open(store),
            waiting: VecDeque::new(),
            trouble: trouble.clone(),
            events: events.clone(),
        };
        writer.store().expect("open").forbid_writes(true);
        let (done, _wait) = oneshot::channel();
        writer.waiting.push_back(Message::Publish { record: record(1, "a"), standing: Standing::default(), done });
        writer.write_waiting();
        writer.write_waiting();
        let said = trouble.lock().expect("not poisoned").clone().expect("in trouble");
        assert!(said.contains("traffic is served"), "{said}");
        assert_eq!(events.subscribe(0).0.len(), 1, "said once");
        writer.store().expect("open").forbid_writes(false);
        writer.write_waiting();
        assert_eq!(*trouble.lock().expect("not poisoned"), None);
        assert!(writer.store().expect("open").find(1).expect("read").is_some(), "nothing was lost");
    }

    #[tokio::test]
    async fn a_journal_that_was_let_go_is_another_ones_until_it_is_taken_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let (journal, _) = open(dir.path()).expect("new");
        journal.publish(record(1, "one"), Standing::default()).await.expect("written");
        journal.let_go().await.expect("nothing waits");
        // Meanwhile another process has it, and then it has not.
        let (other, remembered) = open(dir.path()).expect("it is free");
        assert_eq!(remembered.last_number, 1);
        other.publish(record(2, "never served"), Standing::default()).await.expect("written");
        let later = journal.publish(record(2, "two"), Standing::default());
        drop(other);
        journal.take_back(1).await.expect("free again");
        later.await.expect("what waited is written");
        assert_eq!(journal.find(2).await.expect("kept").sources[0].text, "two");
        drop(journal);
        let (_journal, again) = open(dir.path()).expect("again");
        assert_eq!((again.last_number, again.generations.len()), (2, 2));
    }
}
