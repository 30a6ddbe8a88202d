//! A generation: the numbered, immutable answer to "where does this request go".
//!
//! It has two parts that change at different speeds. The [`Table`] is what one configuration text
//! compiles to: routes, services and versions with fixed indices. The splits say how the versions of
//! each service share its traffic; a switch, a weight change or a rollback makes a new generation with
//! the same `Arc<Table>` and one new split, which is why they are cheap.

use std::sync::Arc;

use super::split::Split;
use super::table::{ServiceIdx, Table};

/// Counts published states of this instance, from 1, never reused while `state_dir` lives.
pub type Number = u64;

/// Who and what made a generation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stamp {
    pub number: Number,
    /// SHA-256 of the merged configuration text, hex.
    pub hash: Arc<str>,
    /// `file`, `cli:alice@10.0.0.1`, `admin`, `rollout`, …
    pub author: Arc<str>,
    /// A short sentence: "weights shop v1=90 v2=10".
    pub cause: Arc<str>,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
}

#[derive(Debug, Clone)]
pub struct Generation {
    pub stamp: Stamp,
    pub table: Arc<Table>,
    /// One per service of the table, same index.
    pub splits: Box<[Arc<Split>]>,
}

impl Generation {
    pub fn number(&self) -> Number {
        self.stamp.number
    }

    /// A switch: the same table, the same splits but for those given.
    pub fn with_splits(&self, stamp: Stamp, changed: impl IntoIterator<Item = (ServiceIdx, Arc<Split>)>) -> Generation {
        let mut splits = self.splits.clone();
        for (service, split) in changed {
            splits[service.0 as usize] = split;
        }
        Generation { stamp, table: self.table.clone(), splits }
    }

    pub fn split(&self, service: ServiceIdx) -> &Split {
        &self.splits[service.0 as usize]
    }
}
