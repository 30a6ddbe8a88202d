use super::*;
use crate::journal::FILE;
use crate::journal::store::Store;

/// A journal that an earlier switchback left: four changes of an operator, a rollout that was aborted, one that runs.
fn left_by_an_earlier_one(dir: &Path, dump: &str) {
    let connection = Connection::open(dir.join(FILE)).expect("new");
    connection.execute_batch(dump).expect("the dump is SQL");
}

/// As `switchback` wrote them then, with `sqlite3 … .dump`, by format.
const DUMPS: [(i64, &str); 2] = [
    (1, include_str!("../../tests/fixtures/journal/format-1.sql")),
    (2, include_str!("../../tests/fixtures/journal/format-2.sql")),
];

#[test]
fn a_journal_of_every_earlier_format_goes_on_with_all_that_it_holds() {
    for (format, dump) in DUMPS {
        let dir = tempfile::tempdir().expect("a directory");
        left_by_an_earlier_one(dir.path(), dump);
        for time in ["first", "second"] {
            let store = Store::open(dir.path()).unwrap_or_else(|error| panic!("format {format}, {time}: {error}"));
            let remembered = store.remembered().expect("read back");
            let what = format!("format {format}, {time} start: {:?}", remembered.standing);
            assert_eq!(remembered.last_number, 9, "{what}");
            assert_eq!(remembered.generations.len(), 9, "{what}");
            assert_eq!(remembered.generations[1].info.cause, "weights cart a=60 b=40");
            assert!(remembered.generations[8].sources[0].text.contains("active: v3"), "{what}");
            assert_eq!(remembered.standing.overlay["cart"].author, "admin:ada@127.0.0.1", "{what}");
            assert_eq!(remembered.standing.ways_back["cart"]["a"], 90, "{what}");
            assert_eq!(remembered.standing.rollouts.by_service["shop"].rollout.canary, "v3", "{what}");
            assert!(remembered.standing.rollouts.rejected["shop"].contains_key("v2"), "{what}");
            assert!(remembered.standing.held.is_empty());
            let actions: Vec<&str> = remembered.audit.iter().map(|record| &*record.action).collect();
            assert_eq!(actions[0], "weights cart a=60 b=40");
            assert_eq!(actions.len(), 4, "{actions:?}");
            // Format 1 knew no decisions.
            assert_eq!(store.decisions("shop", None).expect("read").len(), if format == 1 { 0 } else { 5 });
            drop(store);
            let connection = Connection::open(dir.path().join(FILE)).expect("it is there");
            let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).expect(sql);
            assert_eq!(number("PRAGMA user_version"), VERSION);
        }
        // For the older switchback, if it has to be that again.
        let kept = Connection::open(dir.path().join(format!("{FILE}.format-{format}"))).expect("it is there");
        let number = |sql: &str| kept.query_row(sql, [], |row| row.get::<_, i64>(0)).expect(sql);
        assert_eq!((number("PRAGMA user_version"), number("SELECT count(*) FROM generations")), (format, 9));
    }
}

#[test]
fn every_format_before_has_its_step_and_its_dump() {
    let from: Vec<i64> = STEPS.iter().map(|(from, _)| *from).collect();
    assert_eq!(from, (1..VERSION).collect::<Vec<_>>());
    let dumped: Vec<i64> = DUMPS.iter().map(|(format, _)| *format).collect();
    assert_eq!(dumped, from);
}

#[test]
fn a_journal_of_an_earlier_format_that_cannot_be_written_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    left_by_an_earlier_one(dir.path(), DUMPS[1].1);
    let file = dir.path().join(FILE);
    let before = std::fs::read(&file).expect("readable");
    let error = open(&file, Mode::Read).expect_err("its format is an earlier one");
    assert!(matches!(error, JournalError::Unwritable { .. }), "{error:?}");
    assert!(error.to_string().contains("of format 2"), "{error}");
    assert_eq!(std::fs::read(&file).expect("readable"), before);
}

#[test]
fn a_file_that_lacks_its_last_byte_is_damaged() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join(FILE);
    drop(create(&file).expect("new"));
    drop(open(&file, Mode::Write).expect("whole"));
    let length = file.metadata().expect("it is there").len();
    let cut = std::fs::OpenOptions::new().write(true).open(&file).expect("it can be written");
    cut.set_len(length - 1).expect("it is cut");
    for mode in [Mode::Write, Mode::Read] {
        let opened = open(&file, mode);
        assert!(matches!(opened, Err(JournalError::Damaged { .. })), "{:?}", opened.err());
    }
}
