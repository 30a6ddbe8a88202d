//! Reading and writing the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::pair::Pair;
use super::schema::JournalError;
use super::seal::{AUDIT, CONFIGS, DECISIONS, GENERATIONS, META, SAMPLES, Sealed};
use crate::config::load::Source;
use crate::control::api::{AuditRecord, GenerationInfo, RolloutDecision};
use crate::control::overlay::{Overlay, Weights};
use crate::control::rollouts::{Kept, Samples};

/// Name of the journal inside `state_dir`.
pub const FILE: &str = "switchback.db";
const GENERATIONS_KEPT: i64 = 200;
const AUDIT_KEPT: i64 = 10_000;
/// Decisions about the rollouts of one service, and of all services that ever were.
const DECISIONS_KEPT: i64 = 1_000;
const DECISIONS_KEPT_OF_ALL: i64 = 20_000;
/// Generations read back into memory at the start.
const RECALLED: i64 = 50;
const AUDIT_RECALLED: i64 = 1_000;

/// One generation and the text it was made from.
#[derive(Debug, Clone)]
pub struct Record {
    pub info: GenerationInfo,
    pub sources: Arc<Vec<Source>>,
}

/// The whole configuration that runs was chosen by somebody and is not what the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole {
    /// The generation that brought it.
    pub generation: u64,
    pub author: String,
    pub cause: String,
    pub since: u64,
    /// Hash of the file at that time; `None` if it was missing.
    pub file: Option<String>,
}

/// What operators and rollouts changed, as it stood after the last publish.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    pub overlay: Overlay,
    /// By service: the split that was live before the present one.
    pub ways_back: BTreeMap<String, Weights>,
    pub whole: Option<Whole>,
    /// Generations from this one on wait for `confirm`; a restart does not bring them back.
    pub unconfirmed: Option<u64>,
    #[serde(default)]
    pub rollouts: Kept,
    /// Services whose new requests wait until `release`.
    #[serde(default)]
    pub held: BTreeSet<String>,
}

/// Everything that a start needs.
#[derive(Debug, Default)]
pub struct Remembered {
    pub last_number: u64,
    /// Oldest first.
    pub generations: Vec<Record>,
    pub standing: Standing,
    /// Oldest first.
    pub audit: Vec<AuditRecord>,
    /// About the rollouts that run or ended last, oldest first.
    pub decisions: Vec<RolloutDecision>,
    /// Id of the newest decision ever.
    pub last_decision: u64,
    /// By service: which rollout they are of, and the samples.
    pub samples: BTreeMap<String, (u64, Samples)>,
}

impl Remembered {
    /// The newest generation that nobody still has to confirm.
    pub fn last_good(&self) -> Option<&Record> {
        let confirmed = |record: &&Record| self.standing.unconfirmed.is_none_or(|from| record.info.number < from);
        self.generations.iter().rev().find(confirmed)
    }
}

#[derive(Debug)]
pub(super) struct Store {
    files: Pair,
}

impl Store {
    pub fn open(dir: &Path) -> Result<Store, JournalError> {
        Ok(Store { files: Pair::open(dir)? })
    }

    /// As [`Store::open`], for whoever had let go of it after `changes` changes and knows that nobody decided since. What
    /// a newer program made of it is put back; then the text says so.
    pub fn open_again(dir: &Path, changes: u64) -> Result<(Store, Option<String>), JournalError> {
        match Store::open(dir) {
            Err(JournalError::Newer { .. }) => {
                let done = Pair::go_back(dir, changes)?;
                Ok((Store::open(dir)?, Some(done)))
            }
            opened => Ok((opened?, None)),
        }
    }

    /// How many there were since the journal was begun.
    pub fn changes(&self) -> Result<u64, JournalError> {
        self.files.changes()
    }

    fn connection(&self) -> &Connection {
        self.files.main()
    }

    /// Only one of the two files is kept at present.
    pub fn misses_a_file(&self) -> bool {
        self.files.is_alone_now()
    }

    /// Makes the second file anew if it is missing, and that is due.
    pub fn mend(&mut self) {
        self.files.mend();
    }

    /// What people should know about the files, if anything.
    pub fn notes(&self) -> Vec<String> {
        self.files.notes()
    }

    pub fn remembered(&self) -> Result<Remembered, JournalError> {
        let standing = self.meta("standing")?.map_or(Ok(Standing::default()), |text| from_json("standing", &text))?;
        let last_number: Option<u64> =
            self.connection().query_row("SELECT max(number) FROM generations", [], |row| row.get(0))?;
        let mut texts: BTreeMap<String, Arc<Vec<Source>>> = BTreeMap::new();
        let mut generations = Vec::new();
        let mut rows = self
            .connection()
            .prepare("SELECT number, hash, author, cause, at, splits FROM generations ORDER BY number DESC LIMIT ?1")?;
        for row in rows.query_map([RECALLED], info_of)? {
            let (mut info, splits) = row?;
            info.splits = from_json("splits", &splits)?;
            let sources = match texts.get(&info.hash) {
                Some(sources) => sources.clone(),
                None => Arc::new(self.sources(&info.hash)?),
            };
            texts.insert(info.hash.clone(), sources.clone());
            generations.push(Record { info, sources });
        }
        generations.reverse();
        let last_decision: Option<u64> =
            self.connection().query_row("SELECT max(id) FROM decisions", [], |row| row.get(0))?;
        let mut decisions = Vec::new();
        for (service, saved) in &standing.rollouts.by_service {
            decisions.extend(self.decisions(service, Some(saved.started))?);
        }
        Ok(Remembered {
            last_number: last_number.unwrap_or(0),
            generations,
            audit: self.audit()?,
            decisions,
            last_decision: last_decision.unwrap_or(0),
            samples: self.samples()?,
            standing,
        })
    }

    pub fn find(&self, number: u64) -> Result<Option<Record>, JournalError> {
        let found = self.connection().query_row(
            "SELECT number, hash, author, cause, at, splits FROM generations WHERE number = ?1",
            [number],
            info_of,
        );
        let Some((mut info, splits)) = found.optional()? else { return Ok(None) };
        info.splits = from_json("splits", &splits)?;
        let sources = Arc::new(self.sources(&info.hash)?);
        Ok(Some(Record { info, sources }))
    }

    /// A generation and what stands from then on, in one transaction.
    pub fn publish(&mut self, record: &Record, standing: &Standing) -> Result<(), JournalError> {
        let info = &record.info;
        let (sources, splits, standing) = (sources_to_json(&record.sources), to_json(&info.splits), to_json(standing));
        self.files.write(|transaction| {
            let text = "INSERT OR IGNORE INTO configs (hash, sources) VALUES (?1, ?2)";
            if transaction.execute(text, params![info.hash, sources])? > 0 {
                CONFIGS.seal(transaction, &[info.hash.clone().into()])?;
            }
            transaction.execute(
                "INSERT OR REPLACE INTO generations (number, hash, author, cause, at, splits) VALUES (?1,?2,?3,?4,?5,?6)",
                params![info.number, info.hash, info.author, info.cause, info.at, splits],
            )?;
            GENERATIONS.seal(transaction, &[number(info.number)])?;
            transaction
                .execute("DELETE FROM generations WHERE number <= ?1 - ?2", params![info.number, GENERATIONS_KEPT])?;
            transaction.execute("DELETE FROM configs WHERE hash NOT IN (SELECT hash FROM generations)", [])?;
            stand(transaction, &standing)
        })
    }

    /// Generations beyond `live` never served.
    pub fn forget_after(&mut self, live: u64) -> Result<(), JournalError> {
        self.files.write(|transaction| {
            transaction.execute("DELETE FROM generations WHERE number > ?1", [live])?;
            transaction.execute("DELETE FROM configs WHERE hash NOT IN (SELECT hash FROM generations)", [])?;
            Ok(())
        })
    }

    pub fn standing(&mut self, standing: &Standing) -> Result<(), JournalError> {
        let standing = to_json(standing);
        self.files.write(|transaction| stand(transaction, &standing))
    }

    pub fn record_audit(&mut self, record: &AuditRecord) -> Result<(), JournalError> {
        self.files.write(|transaction| {
            transaction.execute(
                "INSERT INTO audit (at, author, origin, action, result, generation) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![record.at, record.author, record.from, record.action, record.result, record.generation],
            )?;
            let newest = transaction.last_insert_rowid();
            AUDIT.seal(transaction, &[newest.into()])?;
            transaction.execute("DELETE FROM audit WHERE id <= ?1", [newest - AUDIT_KEPT])?;
            Ok(())
        })
    }

    /// A decision, or the same one with more known about it.
    pub fn decision(&mut self, decision: &RolloutDecision) -> Result<(), JournalError> {
        let service = &decision.service;
        let record = to_json(decision);
        self.files.write(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO decisions (id, service, rollout, record) VALUES (?1, ?2, ?3, ?4)",
                params![decision.id, service, decision.rollout, record],
            )?;
            DECISIONS.seal(transaction, &[number(decision.id)])?;
            transaction.execute(
                "DELETE FROM decisions WHERE service = ?1 AND id <= (SELECT id FROM decisions WHERE service = ?1 \
                 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                params![service, DECISIONS_KEPT],
            )?;
            let newest: i64 = transaction.query_row("SELECT max(id) FROM decisions", [], |row| row.get(0))?;
            transaction.execute("DELETE FROM decisions WHERE id <= ?1", [newest - DECISIONS_KEPT_OF_ALL])?;
            transaction.execute("DELETE FROM samples WHERE service NOT IN (SELECT service FROM decisions)", [])?;
            Ok(())
        })
    }

    /// Instead of those that were kept for this service before.
    pub fn keep_samples(&mut self, service: &str, rollout: u64, samples: &Samples) -> Result<(), JournalError> {
        let series = to_json(samples);
        self.files.write(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO samples (service, rollout, series) VALUES (?1, ?2, ?3)",
                params![service, rollout, series],
            )?;
            SAMPLES.seal(transaction, &[service.to_string().into()])
        })
    }

    /// What was decided about a service's rollouts (or about one of them), oldest first.
    pub fn decisions(&self, service: &str, rollout: Option<u64>) -> Result<Vec<RolloutDecision>, JournalError> {
        let mut rows = self.connection().prepare(
            "SELECT id, record FROM decisions WHERE service = ?1 AND (?2 IS NULL OR rollout = ?2) ORDER BY id",
        )?;
        let rows = rows.query_map(params![service, rollout], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let rows = rows.collect::<Result<Vec<(u64, String)>, _>>()?;
        // They explain and decide nothing: one that cannot be read must not keep a process from its work.
        Ok(rows.into_iter().filter_map(|(id, text)| told("decision", &id.to_string(), &text)).collect())
    }

    fn samples(&self) -> Result<BTreeMap<String, (u64, Samples)>, JournalError> {
        let mut rows = self.connection().prepare("SELECT service, rollout, series FROM samples")?;
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let rows = rows.collect::<Result<Vec<(String, u64, String)>, _>>()?;
        let read = |(service, rollout, text): (String, u64, String)| {
            let samples = told("samples", &service, &text)?;
            Some((service, (rollout, samples)))
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }

    fn audit(&self) -> Result<Vec<AuditRecord>, JournalError> {
        let mut rows = self
            .connection()
            .prepare("SELECT at, author, origin, action, result, generation FROM audit ORDER BY id DESC LIMIT ?1")?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(AuditRecord {
                at: row.get(0)?,
                author: row.get(1)?,
                from: row.get(2)?,
                action: row.get(3)?,
                result: row.get(4)?,
                generation: row.get(5)?,
            })
        };
        let mut audit = rows.query_map([AUDIT_RECALLED], read)?.collect::<Result<Vec<_>, _>>()?;
        audit.reverse();
        Ok(audit)
    }

    fn broken(&self, table: &Sealed, key: &str) -> Result<Option<String>, JournalError> {
        let which = format!("WHERE {} = '{}'", table.columns[0], key.replace('\'', "''"));
        Ok(table.broken(self.connection(), &which)?)
    }

    fn meta(&self, key: &str) -> Result<Option<String>, JournalError> {
        let value = self.connection().query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0));
        Ok(value.optional()?)
    }

    fn sources(&self, hash: &str) -> Result<Vec<Source>, JournalError> {
        let text: Option<String> = self
            .connection()
            .query_row("SELECT sources FROM configs WHERE hash = ?1", [hash], |row| row.get(0))
            .optional()?;
        let text = text.ok_or_else(|| JournalError::Unreadable { what: format!("the text with hash {hash}") })?;
        if let Some(what) = self.broken(&CONFIGS, hash)? {
            return Err(JournalError::Unreadable { what });
        }
        let pairs: Vec<(PathBuf, String)> = from_json("sources", &text)?;
        Ok(pairs.into_iter().map(|(path, text)| Source { path, text }).collect())
    }
}

fn stand(connection: &Connection, standing: &str) -> rusqlite::Result<()> {
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('standing', ?1)", params![standing])?;
    META.seal(connection, &["standing".to_string().into()])
}

/// Numbers that come from us fit; one that does not names no row.
fn number(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

fn info_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<(GenerationInfo, String)> {
    let info = GenerationInfo {
        number: row.get(0)?,
        hash: row.get(1)?,
        author: row.get(2)?,
        cause: row.get(3)?,
        at: row.get(4)?,
        splits: BTreeMap::new(),
    };
    Ok((info, row.get(5)?))
}

fn sources_to_json(sources: &[Source]) -> String {
    let pairs: Vec<_> = sources.iter().map(|source| (source.path.to_string_lossy(), &source.text)).collect();
    to_json(&pairs)
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our own types have string keys and no failing parts")
}

fn from_json<T: for<'a> Deserialize<'a>>(what: &str, text: &str) -> Result<T, JournalError> {
    serde_json::from_str(text).map_err(|error| JournalError::Unreadable { what: format!("{what}: {error}") })
}

/// A part of a story, or nothing and a word about it.
fn told<T: for<'a> Deserialize<'a>>(what: &str, which: &str, text: &str) -> Option<T> {
    serde_json::from_str(text)
        .inspect_err(|error| tracing::warn!(%error, which, "a rollout's {what} in the journal cannot be read back"))
        .ok()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

#[cfg(test)]
impl Store {
    pub fn files_mut(&mut self) -> &mut Pair {
        &mut self.files
    }

    /// As a full disk does: every write fails, reads work.
    pub fn forbid_writes(&self, forbid: bool) {
        self.connection().pragma_update(None, "query_only", forbid).expect("a pragma");
    }
}
