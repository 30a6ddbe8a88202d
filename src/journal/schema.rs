//! The tables, their version, and what can be wrong with a file when it is opened.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::seal;

/// Kept in SQLite's `user_version`. Add one with every change of the tables, with the step from the one before.
const VERSION: i64 = 3;
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

/// A seal on each row, and `mark` in `meta`: see [`super::pair`]. Since version 3.
fn seals(connection: &Connection) -> rusqlite::Result<()> {
    for table in seal::ALL {
        connection.execute_batch(&format!("ALTER TABLE {} ADD COLUMN seal INTEGER NOT NULL DEFAULT 0", table.table))?;
        table.seal_all(connection)?;
    }
    super::pair::mark(connection)
}

type Step = fn(&Connection) -> rusqlite::Result<()>;

/// By version: the step from it to the next.
const STEPS: [(i64, Step); 2] = [(1, |connection| connection.execute_batch(STORIES)), (2, seals)];

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the state directory {} cannot be made or entered", dir.display())]
    Directory { dir: PathBuf, source: std::io::Error },
    #[error(
        "the journal {} is damaged ({reason}), and there is no whole second copy beside it\n  = note: it is not taken for an empty one: it holds the history and what operators changed\n  = help: restore a backup, or move it and its copy away to start without history: mv {0} {0}.bad; mv {0}.copy {0}.copy.bad", file.display()
    )]
    Damaged { file: PathBuf, reason: String },
    #[error(
        "the journal {} was written by a newer switchback (its format is {found}, this one knows up to {VERSION})\n  = help: start the newer switchback; or go back to what it kept of before: rm {0}.copy; mv {0} {0}.newer; mv {0}.format-{VERSION} {0}", file.display()
    )]
    Newer { file: PathBuf, found: i64 },
    #[error("the file {} is an SQLite database of something else\n  = help: give switchback a state_dir of its own", file.display())]
    Foreign { file: PathBuf },
    #[error("the journal {} is in use by another process{}\n  = help: two instances need two state_dir", file.display(), by.map_or(String::new(), |pid| format!(" ({pid})")))]
    InUse { file: PathBuf, by: Option<u32> },
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

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Write,
    /// It cannot be written now; what it holds is read all the same.
    Read,
}

/// Opens one file that is there, checks all of it, brings it to the present format, and takes it for this process alone.
pub(super) fn open(file: &Path, mode: Mode) -> Result<Connection, JournalError> {
    let classify = |error: rusqlite::Error| classified(file, error);
    let damaged = |reason: &str| Err(JournalError::Damaged { file: file.into(), reason: reason.into() });
    if mode == Mode::Write {
        // SQLite would quietly open it for reading.
        let opened = std::fs::OpenOptions::new().write(true).open(file);
        opened.map_err(|error| JournalError::Unwritable { file: file.into(), reason: error.to_string() })?;
    }
    let access = match mode {
        Mode::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Mode::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let connection = Connection::open_with_flags(file, access | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(classify)?;
    connection.busy_timeout(std::time::Duration::from_secs(2)).map_err(classify)?;
    let pragma = |name: &str, value: &str| connection.pragma_update(None, name, value).map_err(classify);
    pragma("locking_mode", "EXCLUSIVE")?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(classify)?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(classify)?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(classify)?;
    if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
        return damaged("it is empty");
    }
    if found == 0 && tables == 0 {
        return damaged("its tables are gone");
    }
    if application != APPLICATION {
        return Err(JournalError::Foreign { file: file.into() });
    }
    if found > VERSION {
        return Err(JournalError::Newer { file: file.into(), found });
    }
    // SQLite reads what is missing of the last page as zeroes.
    // It is ours and of a format that we know: a table that is not as it should be is damaged.
    let classify = |error: rusqlite::Error| match classified(file, error) {
        JournalError::Sql(error) => JournalError::Damaged { file: file.into(), reason: error.to_string() },
        other => other,
    };
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0)).map_err(classify);
    let whole = number("page_count")? * number("page_size")?;
    if file.metadata().is_ok_and(|metadata| metadata.len() < whole) {
        return damaged("it is cut short");
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(classify)?;
    if verdict != "ok" {
        return damaged(&verdict);
    }
    match mode {
        Mode::Read if found < VERSION => {
            let reason = format!("it is of format {found} and has to be brought to {VERSION}");
            return Err(JournalError::Unwritable { file: file.into(), reason });
        }
        Mode::Read => {}
        Mode::Write => {
            lasting(&connection).map_err(classify)?;
            // Fails now, with its reason, if the file cannot be written.
            connection.execute_batch("BEGIN EXCLUSIVE; COMMIT;").map_err(classify)?;
            if found < VERSION && file.file_name() == Some(super::FILE.as_ref()) {
                // The way back to the older switchback, and for an upgrade that comes to nothing.
                super::pair::replace(&connection, &kept_as(file, found))?;
            }
            for (from, step) in STEPS.iter().filter(|(from, _)| found <= *from) {
                let transaction = connection.unchecked_transaction().map_err(classify)?;
                step(&transaction).map_err(classify)?;
                transaction.pragma_update(None, "user_version", from + 1).map_err(classify)?;
                transaction.commit().map_err(classify)?;
            }
        }
    }
    match super::pair::flaw(&connection).map_err(classify)? {
        Some(flaw) => damaged(&flaw),
        None => Ok(connection),
    }
}

/// Where a newer program keeps what is of our format before it brings it to its own.
pub(super) fn way_back(file: &Path) -> PathBuf {
    kept_as(file, VERSION)
}

fn kept_as(file: &Path, format: i64) -> PathBuf {
    super::pair::suffixed(file, &format!(".format-{format}"))
}

/// Makes an empty journal. Only its owner may read it: the text of a configuration may hold secrets.
pub(super) fn create(file: &Path) -> Result<Connection, JournalError> {
    let classify = |error: rusqlite::Error| classified(file, error);
    private(file).map_err(|error| JournalError::Unwritable { file: file.into(), reason: error.to_string() })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(classify)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(classify)?;
    lasting(&connection).map_err(classify)?;
    let transaction = connection.unchecked_transaction().map_err(classify)?;
    let made = transaction
        .execute_batch(&format!("{TABLES} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"))
        .and_then(|()| STEPS.iter().try_for_each(|(_, step)| step(&transaction)))
        .and_then(|()| transaction.commit());
    made.map_err(classify)?;
    Ok(connection)
}

/// An empty file with mode 0600, whatever the umask.
pub(super) fn private(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file).map(|_| ())
}

fn lasting(connection: &Connection) -> rusqlite::Result<()> {
    // Everything acknowledged is in this one file, and a cut in it is seen.
    connection.pragma_update(None, "journal_mode", "TRUNCATE")?;
    // No file but those of the state directory: there may be no room for temporary ones.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // An acknowledged change survives a power cut, not only a crash.
    connection.pragma_update(None, "synchronous", "FULL")
}

pub(super) fn classified(file: &Path, error: rusqlite::Error) -> JournalError {
    let reason = error.to_string();
    let file = file.to_path_buf();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => JournalError::Damaged { file, reason },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::InUse { file, by: None },
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
#[path = "schema_tests.rs"]
mod tests;
