use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::{COPY, FILE};
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
    journal.audit(audit.clone()).blocking_recv().expect("written");
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
        // Without its copy, that is; see pair_tests.rs.
        let _ = std::fs::remove_file(dir.path().join(COPY));
        let error = open(dir.path()).map(|_| ()).expect_err(how);
        assert!(matches!(error, JournalError::Damaged { .. }), "{how}: {error:?}");
        assert!(error.to_string().contains("away to start without history"), "{error}");
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
    let trouble = Arc::new(Mutex::new(Trouble::default()));
    let events = Events::default();
    let mut writer = Writer {
        dir: dir.path().into(),
        held: Held::Open(Box::new(store)),
        waiting: VecDeque::new(),
        trouble: trouble.clone(),
        events: events.clone(),
    };
    writer.store().expect("open").forbid_writes(true);
    let (done, _wait) = oneshot::channel();
    writer.waiting.push_back(Message::Publish { record: record(1, "a"), standing: Standing::default(), done });
    writer.write_waiting();
    writer.write_waiting();
    let said = trouble.lock().expect("not poisoned").unwritten.clone().expect("in trouble");
    assert!(said.contains("traffic is served"), "{said}");
    assert_eq!(events.subscribe(0).0.len(), 1, "said once");
    writer.store().expect("open").forbid_writes(false);
    writer.write_waiting();
    assert_eq!(trouble.lock().expect("not poisoned").unwritten, None);
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

/// The first file, its copy, and what a newer program keeps of the first.
fn files(dir: &Path) -> [std::path::PathBuf; 3] {
    let file = dir.join(FILE);
    [file.clone(), dir.join(COPY), super::super::schema::way_back(&file)]
}

fn make_newer(file: &Path) {
    let raised = rusqlite::Connection::open(file).and_then(|it| it.execute_batch("PRAGMA user_version = 99"));
    raised.expect("raised");
}

#[tokio::test]
async fn what_a_newer_program_made_of_a_journal_that_was_let_go_is_put_back() {
    for (how, with_copy) in [("it came as far as both files", true), ("it was ended between the two", false)] {
        let dir = tempfile::tempdir().expect("a directory");
        let events = Events::default();
        let (journal, _) = Journal::open(dir.path(), events.clone()).expect("new");
        journal.publish(record(1, "one"), Standing::default()).await.expect("written");
        journal.let_go().await.expect("nothing waits");
        let [file, copy, kept] = files(dir.path());
        if with_copy {
            std::fs::copy(&file, &kept).expect("readable");
            make_newer(&copy);
        }
        make_newer(&file);
        let later = journal.publish(record(2, "two"), Standing::default());
        journal.take_back(1).await.expect(how);
        later.await.expect("what waited is written");
        let told = events.subscribe(0).0;
        assert!(told.iter().any(|event| event.message.contains("put back")), "{how}: {told:?}");
        drop(journal);
        let (_journal, again) = open(dir.path()).expect(how);
        assert_eq!((again.last_number, again.generations.len()), (2, 2), "{how}");
    }
}

#[tokio::test]
async fn what_was_kept_of_another_time_is_not_put_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(dir.path()).expect("new");
    let [file, copy, kept] = files(dir.path());
    journal.let_go().await.expect("nothing waits");
    std::fs::copy(&file, &kept).expect("readable");
    journal.take_back(0).await.expect("free");
    journal.publish(record(1, "one"), Standing::default()).await.expect("written");
    journal.let_go().await.expect("nothing waits");
    make_newer(&file);
    make_newer(&copy);
    let error = journal.take_back(1).await.expect_err("the newest change is not in what was kept");
    assert!(matches!(error, JournalError::Newer { found: 99, .. }), "{error:?}");
    assert!(error.to_string().contains(&kept.display().to_string()), "{error}");
    journal.stand(Standing::default());
    journal.decisions("shop").await;
    assert!(journal.is_unwritten(), "and it is said");
}
