//! A seal on every row: SQLite notices a page that makes no sense, not a digit that became another.
//!
//! It guards against bad disks and torn copies, not against people: FNV-1a over the other columns.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row, params_from_iter};

/// A table whose rows are sealed. The first `keys` columns name a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed {
    pub table: &'static str,
    pub keys: usize,
    pub columns: &'static [&'static str],
}

pub(super) const CONFIGS: Sealed = Sealed { table: "configs", keys: 1, columns: &["hash", "sources"] };
pub(super) const GENERATIONS: Sealed =
    Sealed { table: "generations", keys: 1, columns: &["number", "hash", "author", "cause", "at", "splits"] };
pub(super) const AUDIT: Sealed =
    Sealed { table: "audit", keys: 1, columns: &["id", "at", "author", "origin", "action", "result", "generation"] };
pub(super) const META: Sealed = Sealed { table: "meta", keys: 1, columns: &["key", "value"] };
pub(super) const DECISIONS: Sealed =
    Sealed { table: "decisions", keys: 1, columns: &["id", "service", "rollout", "record"] };
pub(super) const SAMPLES: Sealed = Sealed { table: "samples", keys: 1, columns: &["service", "rollout", "series"] };

pub(super) const ALL: [Sealed; 6] = [CONFIGS, GENERATIONS, AUDIT, META, DECISIONS, SAMPLES];

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

fn add(mut hash: u64, bytes: &[u8]) -> u64 {
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    hash
}

/// Of the first `count` columns of a row.
fn of(row: &Row<'_>, count: usize) -> rusqlite::Result<i64> {
    let mut hash = OFFSET;
    for column in 0..count {
        let (kind, number);
        let bytes: &[u8] = match row.get_ref(column)? {
            ValueRef::Null => {
                kind = 0;
                &[]
            }
            ValueRef::Integer(value) => {
                kind = 1;
                number = value.to_le_bytes();
                &number
            }
            ValueRef::Real(value) => {
                kind = 2;
                number = value.to_bits().to_le_bytes();
                &number
            }
            ValueRef::Text(bytes) => {
                kind = 3;
                bytes
            }
            ValueRef::Blob(bytes) => {
                kind = 4;
                bytes
            }
        };
        hash = add(hash, &[kind]);
        hash = add(hash, &(bytes.len() as u64).to_le_bytes());
        hash = add(hash, bytes);
    }
    Ok(i64::from_le_bytes(hash.to_le_bytes()))
}

impl Sealed {
    fn names(&self) -> String {
        self.columns.join(", ")
    }

    /// `key1 = ?2 AND …`, counted from the second parameter.
    fn named(&self, from: usize) -> String {
        let keys = self.columns[..self.keys].iter().enumerate();
        keys.map(|(nth, key)| format!("{key} = ?{}", nth + from)).collect::<Vec<_>>().join(" AND ")
    }

    /// Seals the row with this key.
    pub fn seal(&self, connection: &Connection, key: &[Value]) -> rusqlite::Result<()> {
        let read = format!("SELECT {} FROM {} WHERE {}", self.names(), self.table, self.named(1));
        let seal =
            connection.prepare_cached(&read)?.query_row(params_from_iter(key), |row| of(row, self.columns.len()))?;
        let write = format!("UPDATE {} SET seal = ?1 WHERE {}", self.table, self.named(2));
        let values = std::iter::once(Value::Integer(seal)).chain(key.iter().cloned());
        connection.prepare_cached(&write)?.execute(params_from_iter(values))?;
        Ok(())
    }

    /// Seals every row: what an earlier format did not do.
    pub fn seal_all(&self, connection: &Connection) -> rusqlite::Result<()> {
        let keys = self.columns[..self.keys].join(", ");
        let mut rows = connection.prepare(&format!("SELECT {keys} FROM {}", self.table))?;
        let read = |row: &Row<'_>| (0..self.keys).map(|at| row.get(at)).collect::<rusqlite::Result<Vec<Value>>>();
        let all = rows.query_map([], read)?.collect::<rusqlite::Result<Vec<_>>>()?;
        all.iter().try_for_each(|key| self.seal(connection, key))
    }

    /// Names the first row of those that `which` (a `WHERE …`, or nothing) picks whose seal is broken.
    pub fn broken(&self, connection: &Connection, which: &str) -> rusqlite::Result<Option<String>> {
        let count = self.columns.len();
        let mut rows = connection.prepare(&format!("SELECT {}, seal FROM {} {which}", self.names(), self.table))?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            if of(row, count)? != row.get::<_, i64>(count)? {
                let key: Value = row.get(0)?;
                let key = match key {
                    Value::Integer(number) => number.to_string(),
                    Value::Text(text) => text,
                    Value::Null | Value::Real(_) | Value::Blob(_) => "?".into(),
                };
                return Ok(Some(format!("row {key} of `{}` is not what was written", self.table)));
            }
        }
        Ok(None)
    }
}
