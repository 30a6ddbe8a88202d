//! The journal twice: a second file beside the first that holds the same.
//!
//! Every change is written to the first and then to the second, each in a transaction of its own that is flushed to
//! disk, so that at no moment both are being written. If the first is damaged or gone the second takes its place, with
//! everything that was ever acknowledged; if both are, nothing starts on them (I9).
//!
//! What a change leaves behind is sealed ([`super::seal`]), and a `mark` in `meta` says how many changes there were and
//! where each table ends: pages of two different moments do not fit together, and of two files the one that lost writes
//! is known.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::lock::{Lock, Taken};
use super::schema::{self, JournalError, Mode};
use super::seal;
use super::store::FILE;

/// The second file inside `state_dir`.
pub const COPY: &str = "switchback.db.copy";
/// The admin token, in `state_dir` from the first complete start on.
const LEFT_BY_A_START: &str = "admin.token";
/// How soon a copy that could not be written is made anew.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Pair {
    file: PathBuf,
    beside: PathBuf,
    main: Connection,
    copy: Option<Connection>,
    mode: Mode,
    /// Why there is no second copy now.
    alone: Option<(String, Instant)>,
    /// What the start had to repair, for people.
    restored: Option<String>,
    _lock: Lock,
}

/// One of the two files.
#[derive(Debug)]
enum Found {
    Missing,
    Whole(Connection, Mode),
    Damaged(String),
}

impl Pair {
    pub fn open(dir: &Path) -> Result<Pair, JournalError> {
        use std::os::unix::fs::DirBuilderExt;
        let trouble = |source| JournalError::Directory { dir: dir.into(), source };
        if !dir.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(trouble)?;
        }
        let (file, beside) = (dir.join(FILE), dir.join(COPY));
        let lock = Lock::take(dir).map_err(|Taken(by)| JournalError::InUse { file: file.clone(), by })?;
        let damaged = |reason: String| JournalError::Damaged { file: file.clone(), reason };
        let (main, copy) = (look(&file)?, look(&beside)?);
        let mut restored = None;
        let (main, mode, copy) = match (main, copy) {
            (Found::Missing, Found::Missing) => (schema::create(&file)?, Mode::Write, None),
            // A start that was cut off leaves an empty file; one that was complete leaves a token beside it.
            (Found::Damaged(_), Found::Missing) if is_empty(&file) && !dir.join(LEFT_BY_A_START).exists() => {
                (schema::create(&file)?, Mode::Write, None)
            }
            (Found::Missing, Found::Damaged(reason)) => {
                return Err(damaged(format!("it is missing, and of its copy {reason}")));
            }
            (Found::Damaged(reason), Found::Missing | Found::Damaged(_)) => return Err(damaged(reason)),
            (Found::Whole(main, mode), Found::Missing | Found::Damaged(_)) => (main, mode, None),
            (Found::Whole(main, mode), Found::Whole(copy, of_copy)) => {
                let (changes, in_copy) = (changes(&main)?, changes(&copy)?);
                if in_copy > changes {
                    let lost = format!("{} lost the newest {} changes", file.display(), in_copy - changes);
                    drop(main);
                    restore(&file, &beside, copy, of_copy, lost, &mut restored)?
                } else {
                    (main, mode, (in_copy == changes && of_copy == Mode::Write).then_some(copy))
                }
            }
            (Found::Damaged(reason), Found::Whole(copy, of_copy)) => {
                let lost = format!("{} is damaged ({reason})", file.display());
                restore(&file, &beside, copy, of_copy, lost, &mut restored)?
            }
            (Found::Missing, Found::Whole(copy, of_copy)) => {
                let lost = format!("{} is missing", file.display());
                restore(&file, &beside, copy, of_copy, lost, &mut restored)?
            }
        };
        let mut pair = Pair { file, beside, main, copy, mode, alone: None, restored, _lock: lock };
        if pair.copy.is_none() {
            pair.renew();
        }
        Ok(pair)
    }

    /// Puts back what `dir` held before a newer program brought it to its format, if that is still what it was after
    /// `changes` changes. For who had it before, and knows that the newer one decided nothing. Says what was done.
    pub fn go_back(dir: &Path, changes: u64) -> Result<String, JournalError> {
        let (file, beside) = (dir.join(FILE), dir.join(COPY));
        let _lock = Lock::take(dir).map_err(|Taken(by)| JournalError::InUse { file: file.clone(), by })?;
        let newer = match schema::open(&file, Mode::Read) {
            Err(newer @ JournalError::Newer { .. }) => Some(newer),
            Ok(_) | Err(_) => None,
        };
        // Of a first file that has not come as far as its copy, the copy alone is newer.
        let kept = [schema::way_back(&file), file.clone(), beside.clone()];
        let mut whole = kept.iter().filter_map(|kept| Some((kept, schema::open(kept, Mode::Read).ok()?)));
        let found = whole.find(|(_, connection)| self::changes(connection).is_ok_and(|found| found == changes));
        let Some((from, connection)) = found else {
            return Err(newer.unwrap_or(JournalError::Damaged {
                file,
                reason: "what stood before an upgrade that failed is not there any more".into(),
            }));
        };
        // A first file that is older than its copy is nothing to start from: the copy goes first.
        let trouble = |error: io::Error| JournalError::Unwritable { file: beside.clone(), reason: error.to_string() };
        if *from != beside {
            remove(&beside).map_err(trouble)?;
        }
        if *from != file {
            replace(&connection, &file)?;
        }
        Ok(format!(
            "the program of an upgrade that failed had brought the journal to a newer format: it was put back to what it was before, from {}",
            from.display()
        ))
    }

    /// How many there were since the journal was begun.
    pub fn changes(&self) -> Result<u64, JournalError> {
        changes(&self.main)
    }

    pub fn main(&self) -> &Connection {
        &self.main
    }

    /// Carries a change out in both files. An error means that it is not on disk.
    pub fn write(&mut self, change: impl Fn(&Transaction<'_>) -> rusqlite::Result<()>) -> Result<(), JournalError> {
        if self.mode == Mode::Read {
            self.reopen()?;
        }
        in_one(&mut self.main, &change)?;
        if let Some(copy) = &mut self.copy {
            if let Err(error) = in_one(copy, &change) {
                self.is_alone(&error.to_string());
            }
        } else {
            self.mend();
        }
        Ok(())
    }

    pub fn is_alone_now(&self) -> bool {
        self.alone.is_some() && self.mode == Mode::Write
    }

    /// Makes the copy anew if there is none, and that is due.
    pub fn mend(&mut self) {
        if self.copy.is_none() && self.alone.as_ref().is_none_or(|(_, since)| since.elapsed() >= AGAIN) {
            self.renew();
        }
    }

    /// What people should know about the files, if anything.
    pub fn notes(&self) -> Vec<String> {
        let alone = self.alone.as_ref().map(|(why, _)| {
            format!("the second copy of the journal, {}, cannot be written ({why})", self.beside.display())
        });
        let unwritable = (self.mode == Mode::Read).then(|| {
            format!(
                "the journal {} can be read but not written: traffic is served and changes go live, but a restart would not remember them",
                self.file.display()
            )
        });
        self.restored.clone().into_iter().chain(alone).chain(unwritable).collect()
    }

    /// It could only be read when it was opened; perhaps it can be written by now.
    fn reopen(&mut self) -> Result<(), JournalError> {
        // The files cannot be open twice: locks are the process's.
        self.main = Connection::open_in_memory()?;
        match schema::open(&self.file, Mode::Write) {
            Ok(main) => {
                self.main = main;
                self.mode = Mode::Write;
                Ok(())
            }
            Err(error) => {
                self.main = schema::open(&self.file, Mode::Read)?;
                Err(error)
            }
        }
    }

    fn is_alone(&mut self, why: &str) {
        if self.alone.is_none() {
            tracing::error!(why, copy = %self.beside.display(), "the second copy of the journal cannot be written");
        }
        self.copy = None;
        self.alone = Some((why.into(), Instant::now()));
    }

    /// Makes the second file anew from the first.
    fn renew(&mut self) {
        if self.mode == Mode::Read {
            return;
        }
        let made = replace(&self.main, &self.beside).and_then(|()| schema::open(&self.beside, Mode::Write));
        match made {
            Ok(copy) => {
                self.copy = Some(copy);
                if self.alone.take().is_some() {
                    tracing::info!(copy = %self.beside.display(), "the journal has its second copy again");
                }
            }
            Err(error) => self.is_alone(&error.to_string().replace('\n', " ")),
        }
    }
}

/// For writing if possible. What is neither whole nor damaged (newer, foreign, in use) is nobody's to replace.
fn look(file: &Path) -> Result<Found, JournalError> {
    if !file.exists() {
        return Ok(Found::Missing);
    }
    let read = |unwritable| match schema::open(file, Mode::Read) {
        Ok(connection) => Ok(Found::Whole(connection, Mode::Read)),
        Err(JournalError::Damaged { reason, .. }) => Ok(Found::Damaged(reason)),
        Err(_) => Err(unwritable),
    };
    match schema::open(file, Mode::Write) {
        Ok(connection) => Ok(Found::Whole(connection, Mode::Write)),
        Err(JournalError::Damaged { reason, .. }) => Ok(Found::Damaged(reason)),
        Err(unwritable @ JournalError::Unwritable { .. }) => read(unwritable),
        Err(other) => Err(other),
    }
}

type Restored = (Connection, Mode, Option<Connection>);

/// The second file takes the place of the first, which is kept aside.
fn restore(
    file: &Path,
    beside: &Path,
    copy: Connection,
    of_copy: Mode,
    lost: String,
    restored: &mut Option<String>,
) -> Result<Restored, JournalError> {
    tracing::error!("the journal is restored from its second copy: {lost}");
    metrics::gauge!(crate::telemetry::names::JOURNAL_RESTORED).set(1.0);
    if of_copy == Mode::Read {
        // Nothing can be put right now; what there is is read.
        *restored =
            Some(format!("the journal's second copy, {}, is read instead of the first: {lost}", beside.display()));
        return Ok((copy, Mode::Read, None));
    }
    let aside = set_aside(file).map_err(|error| JournalError::Unwritable {
        file: file.into(),
        reason: format!("it cannot be moved away: {error}"),
    })?;
    replace(&copy, file)?;
    let kept = aside.map_or(String::new(), |aside| format!("; what was there is kept as {}", aside.display()));
    *restored = Some(format!("the journal was restored from its second copy at the start: {lost}{kept}"));
    Ok((schema::open(file, Mode::Write)?, Mode::Write, Some(copy)))
}

/// `FILE.damaged-N` of whatever is there, with its rollback journal.
fn set_aside(file: &Path) -> io::Result<Option<PathBuf>> {
    if !file.exists() {
        return Ok(None);
    }
    let free = (1..100).map(|nth| suffixed(file, &format!(".damaged-{nth}"))).find(|aside| !aside.exists());
    // A hundred of them are no history any more.
    let aside = free.unwrap_or_else(|| suffixed(file, ".damaged-100"));
    fs::rename(file, &aside)?;
    let (rollback, to) = (suffixed(file, "-journal"), suffixed(&aside, "-journal"));
    if rollback.exists() {
        fs::rename(rollback, to)?;
    }
    Ok(Some(aside))
}

pub(super) fn suffixed(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Puts what `from` holds in the place of `file`, whole or not at all.
pub(super) fn replace(from: &Connection, file: &Path) -> Result<(), JournalError> {
    let fresh = suffixed(file, ".new");
    let trouble = |error: io::Error| JournalError::Unwritable { file: fresh.clone(), reason: error.to_string() };
    remove(&fresh).and_then(|()| schema::private(&fresh)).map_err(trouble)?;
    from.execute("VACUUM INTO ?1", [fresh.to_string_lossy()]).map_err(|error| schema::classified(&fresh, error))?;
    let flushed = fs::File::open(&fresh).and_then(|fresh| fresh.sync_all());
    // A rollback journal of the file before would be taken for one of the new.
    let placed = flushed
        .and_then(|()| remove(file))
        .and_then(|()| remove(&suffixed(file, "-journal")))
        .and_then(|()| fs::rename(&fresh, file))
        .and_then(|()| fs::File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all());
    placed.map_err(trouble)
}

/// No error if it is not there.
fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn is_empty(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.len() == 0)
}

fn in_one(
    connection: &mut Connection,
    change: &impl Fn(&Transaction<'_>) -> rusqlite::Result<()>,
) -> Result<(), JournalError> {
    let transaction = connection.transaction()?;
    change(&transaction)?;
    mark(&transaction)?;
    transaction.commit()?;
    Ok(())
}

const HEADS: &str = "
    SELECT coalesce((SELECT max(number) FROM generations), 0) || ' ' || coalesce((SELECT max(id) FROM audit), 0)
    || ' ' || coalesce((SELECT max(id) FROM decisions), 0)
    || ' ' || coalesce((SELECT seal FROM meta WHERE key = 'standing'), 0)";

/// One more change: counts it and notes where each table ends.
pub(super) fn mark(connection: &Connection) -> rusqlite::Result<()> {
    let count = marked(connection)?.map_or(0, |(count, _)| count) + 1;
    let heads: String = connection.prepare_cached(HEADS)?.query_row([], |row| row.get(0))?;
    let value = format!("{count} {heads}");
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (key, value, seal) VALUES ('mark', ?1, 0)")?
        .execute(params![value])?;
    seal::META.seal(connection, &["mark".to_string().into()])
}

/// How many changes, and where each table ended after the last.
fn marked(connection: &Connection) -> rusqlite::Result<Option<(u64, String)>> {
    let mut query = connection.prepare_cached("SELECT value FROM meta WHERE key = 'mark'")?;
    let value: Option<String> = query.query_row([], |row| row.get(0)).optional()?;
    Ok(value.and_then(|value| {
        let (count, heads) = value.split_once(' ')?;
        Some((count.parse().ok()?, heads.to_string()))
    }))
}

fn changes(connection: &Connection) -> Result<u64, JournalError> {
    Ok(marked(connection)?.map_or(0, |(count, _)| count))
}

/// What of the rows is not as it was written. Texts of configurations are looked at when they are read.
pub(super) fn flaw(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let Some((_, heads)) = marked(connection)? else { return Ok(Some("its mark is gone".into())) };
    let now: String = connection.query_row(HEADS, [], |row| row.get(0))?;
    if now != heads {
        return Ok(Some("its tables are of different moments".into()));
    }
    for table in [seal::META, seal::GENERATIONS, seal::AUDIT, seal::DECISIONS, seal::SAMPLES] {
        if let Some(flaw) = table.broken(connection, "")? {
            return Ok(Some(flaw));
        }
    }
    let newest = "WHERE hash IN (SELECT hash FROM generations ORDER BY number DESC LIMIT 50)";
    seal::CONFIGS.broken(connection, newest)
}

#[cfg(test)]
#[path = "pair_tests.rs"]
mod tests;
