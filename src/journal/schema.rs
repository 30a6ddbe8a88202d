//! The tables, their version, and what can be wrong with the file when it is opened.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Kept in SQLite's `user_version`. Add one with every change of [`TABLES`], with the step from the one before.
const VERSION: i64 = 2;
/// Marks the file as ours in its header: "swbk".
const APPLICATION: i64 = 0x7377_626b;

const TABLES: &str = "
    CREATE TABLE configs (hash TEXT PRIMARY KEY, sources TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE generations (
        number INTEGER PRIMARY KEY, hash TEXT NOT NULL, author TEXT NOT NULL, cause TEXT NOT NULL,
        at INTEGER NOT NULL, splits TEXT NOT NULL);
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, author TEXT NOT NULL, origin TEXT NOT NULL,
        action TEXT NOT NULL, result TEXT NOT NULL, generation INTEGER);
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";

/// What was decided about rollouts, and the evidence on the way. Since version 2.
const STORIES: &str = "
    CREATE TABLE decisions (
        id INTEGER PRIMARY KEY, service TEXT NOT NULL, rollout INTEGER NOT NULL, record TEXT NOT NULL);
    CREATE INDEX decisions_of_service ON decisions (service, id);
    CREATE TABLE samples (service TEXT PRIMARY KEY, rollout INTEGER NOT NULL, series TEXT NOT NULL) WITHOUT ROWID;
";

/// By version: the step from it to the next.
const STEPS: [(i64, &str); 1] = [(1, STORIES)];

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the state directory {} cannot be made or entered", dir.display())]
    Directory { dir: PathBuf, source: std::io::Error },
    #[error(
        "the journal {} is damaged ({reason})\n  = note: it is not taken for an empty one: it holds the history and what operators changed\n  = help: move it away to start without history, or restore a copy: mv {0} {0}.damaged", file.display()
    )]
    Damaged { file: PathBuf, reason: String },
    #[error(
        "the journal {} was written by a newer switchback (its format is {found}, this one knows up to {VERSION})\n  = help: start the newer switchback, or move the file away to start without history", file.display()
    )]
    Newer { file: PathBuf, found: i64 },
    #[error("the file {} is an SQLite database of something else\n  = help: give switchback a state_dir of its own", file.display())]
    Foreign { file: PathBuf },
    #[error("the journal {} is in use by another process\n  = help: two instances need two state_dir", file.display())]
    InUse { file: PathBuf },
    #[error("the journal {} cannot be opened for writing ({reason})\n  = help: state_dir must be writable for the user that runs switchback, and have space", file.display())]
    Unwritable { file: PathBuf, reason: String },
    #[error("the journal could not be read or written")]
    Sql(#[from] rusqlite::Error),
    #[error(
        "the journal ({}) holds something that cannot be read back: {what}\n  = help: move it away to start without history, or restore a copy",
        super::FILE
    )]
    Unreadable { what: String },
}

/// The admin token, in `state_dir` from the first complete start on.
const LEFT_BY_A_START: &str = "admin.token";

/// The file before it was opened.
enum Length {
    Missing,
    Bytes(u64),
}

/// Opens or creates the journal, checks all of it, and takes it for this process alone.
pub(super) fn open(dir: &Path, file: &Path) -> Result<Connection, JournalError> {
    let length = make_private(dir, file)?;
    let classify = |error: rusqlite::Error| classified(file, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(classify)?;
    connection.busy_timeout(std::time::Duration::from_secs(2)).map_err(classify)?;
    let pragma = |name: &str, value: &str| connection.pragma_update(None, name, value).map_err(classify);
    pragma("locking_mode", "EXCLUSIVE")?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(classify)?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(classify)?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(classify)?;
    let new = found == 0 && tables == 0;
    // A new file is empty. One that is not, or that was emptied beside what an earlier start left, held something.
    let damaged = |reason: &str| Err(JournalError::Damaged { file: file.into(), reason: reason.into() });
    match length {
        Length::Missing => {}
        Length::Bytes(0) if dir.join(LEFT_BY_A_START).exists() => return damaged("it is empty"),
        Length::Bytes(1..) if new => return damaged("its tables are gone"),
        Length::Bytes(_) => {}
    }
    if !new && application != APPLICATION {
        return Err(JournalError::Foreign { file: file.into() });
    }
    if found > VERSION {
        return Err(JournalError::Newer { file: file.into(), found });
    }
    if !new {
        // SQLite reads what is missing of the last page as zeroes.
        let number =
            |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0)).map_err(classify);
        let whole = number("page_count")? * number("page_size")?;
        if file.metadata().is_ok_and(|metadata| metadata.len() < whole) {
            return damaged("it is cut short");
        }
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(classify)?;
        if verdict != "ok" {
            return Err(JournalError::Damaged { file: file.into(), reason: verdict });
        }
    }
    // Everything acknowledged is in this one file: a copy of it is whole, and a cut in it is seen.
    pragma("journal_mode", "TRUNCATE")?;
    // An acknowledged change survives a power cut, not only a crash.
    pragma("synchronous", "FULL")?;
    if new {
        let create = format!(
            "BEGIN EXCLUSIVE; {TABLES} {STORIES} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
        );
        connection.execute_batch(&create).map_err(classify)?;
    } else {
        // Fails now, with its reason, if the file cannot be written.
        connection.execute_batch("BEGIN EXCLUSIVE; COMMIT;").map_err(classify)?;
        for (from, step) in STEPS.iter().filter(|(from, _)| found <= *from) {
            let step = format!("BEGIN EXCLUSIVE; {step} PRAGMA user_version = {}; COMMIT;", from + 1);
            connection.execute_batch(&step).map_err(classify)?;
        }
    }
    Ok(connection)
}

/// The text of a configuration may hold secrets, so nobody else may read the journal.
fn make_private(dir: &Path, file: &Path) -> Result<Length, JournalError> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let trouble = |source| JournalError::Directory { dir: dir.into(), source };
    if !dir.is_dir() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(trouble)?;
    }
    let length = file.metadata().map_or(Length::Missing, |metadata| Length::Bytes(metadata.len()));
    match std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file) {
        Ok(_) => Ok(length),
        Err(error) => Err(JournalError::Unwritable { file: file.into(), reason: error.to_string() }),
    }
}

fn classified(file: &Path, error: rusqlite::Error) -> JournalError {
    let reason = error.to_string();
    let file = file.to_path_buf();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => JournalError::Damaged { file, reason },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::InUse { file },
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure,
        ) => JournalError::Unwritable { file, reason },
        _ => JournalError::Sql(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::FILE;

    /// A journal as version 1 of its format was, with what must still be there afterwards.
    fn first_version(dir: &Path) {
        let connection = Connection::open(dir.join(FILE)).expect("new");
        let made = format!(
            "{TABLES} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = 1;
             INSERT INTO meta (key, value) VALUES ('kept', 'yes');
             INSERT INTO audit (at, author, origin, action, result) VALUES (7, 'ada', 'here', 'switch', 'done');"
        );
        connection.execute_batch(&made).expect("made");
    }

    #[test]
    fn a_journal_of_the_version_before_goes_on_with_all_that_it_holds() {
        let dir = tempfile::tempdir().expect("a directory");
        first_version(dir.path());
        for time in ["first", "second"] {
            let connection = open(dir.path(), &dir.path().join(FILE)).expect(time);
            let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).expect(sql);
            assert_eq!(number("PRAGMA user_version"), VERSION);
            assert_eq!(number("SELECT count(*) FROM meta WHERE key = 'kept' AND value = 'yes'"), 1);
            assert_eq!(number("SELECT at FROM audit"), 7);
            assert_eq!(number("SELECT count(*) FROM decisions"), 0);
            assert_eq!(number("SELECT count(*) FROM samples"), 0);
        }
    }

    #[test]
    fn every_version_before_has_its_step() {
        let from: Vec<i64> = STEPS.iter().map(|(from, _)| *from).collect();
        assert_eq!(from, (1..VERSION).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_that_lacks_its_last_byte_is_damaged() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(FILE);
        drop(open(dir.path(), &file).expect("new"));
        drop(open(dir.path(), &file).expect("whole"));
        let length = file.metadata().expect("it is there").len();
        let cut = std::fs::OpenOptions::new().write(true).open(&file).expect("it can be written");
        cut.set_len(length - 1).expect("it is cut");
        let opened = open(dir.path(), &file);
        assert!(matches!(opened, Err(JournalError::Damaged { .. })), "{:?}", opened.err());
    }
}
