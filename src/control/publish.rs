//! The flip, and the proof of it.
//!
//! Everything that takes time is done before (compile, bind, splits) or after (journal, metrics, waiting
//! until the last data thread has let go). What is between is: fill in a few pointers, store one (I5).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::api::Receipt;
use super::event::Trigger;
use super::live::{Live, RouteCodes, Snapshot};
use super::overlay::{Weights, weights_of};
use crate::endpoints::Runtime;
use crate::evidence::{Stamped, Trial};
use crate::outcome::CodesRegistry;
use crate::rollout::Judge;
use crate::routing::{Generation, Share, Split, Stamp, Table, VersionIdx};

/// How long a receipt waits for the data threads. A thread that is longer at one thing is counted as
/// having let go of the old generation; it will take the new one with its next request all the same.
const QUIESCE: Duration = Duration::from_secs(1);
/// How long a receipt waits for the journal.
const JOURNAL: Duration = Duration::from_secs(1);

/// The first snapshot of a process.
pub(crate) fn first(
    stamp: Stamp,
    table: Arc<Table>,
    splits: Box<[Arc<Split>]>,
    stamps: Box<[Option<Stamped>]>,
    registry: &Arc<CodesRegistry>,
    threads: usize,
) -> Arc<Snapshot> {
    let runtime = Arc::new(Runtime::build(&table, None, threads));
    let generation = Generation { stamp, table, splits };
    let codes = Arc::new(RouteCodes::new(&generation, registry.clone()));
    Arc::new(Snapshot::new(generation, runtime, codes, threads).with_trials(stamps))
}

/// The snapshot that follows `before`; keeps of it whatever belongs to an unchanged table.
pub(crate) fn next(
    before: &Snapshot,
    stamp: Stamp,
    table: Arc<Table>,
    splits: Box<[Arc<Split>]>,
    stamps: Box<[Option<Stamped>]>,
    registry: &Arc<CodesRegistry>,
    threads: usize,
) -> Arc<Snapshot> {
    let generation = Generation { stamp, table, splits };
    let same_table = Arc::ptr_eq(&before.generation.table, &generation.table);
    let (runtime, codes) = match same_table {
        true => (before.runtime.clone(), before.codes.clone()),
        false => {
            let runtime = Runtime::build(&generation.table, Some(&before.runtime), threads);
            (Arc::new(runtime), Arc::new(RouteCodes::new(&generation, registry.clone())))
        }
    };
    Arc::new(Snapshot::new(generation, runtime, codes, threads).with_trials(stamps))
}

/// Splits by service, of the services whose split differs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub from: BTreeMap<String, Weights>,
    pub to: BTreeMap<String, Weights>,
}

/// What differs between two generations, by name. A split that is the very same object is not looked at,
/// so that a change of one service costs nothing for the thousand others.
pub(crate) fn moved(before: &Generation, now: &Generation) -> Moved {
    let mut moved = Moved::default();
    if Arc::ptr_eq(&before.table, &now.table) {
        for ((service, old), new) in now.table.services.iter().zip(&before.splits).zip(&now.splits) {
            if !Arc::ptr_eq(old, new) && old.shares() != new.shares() {
                moved.from.insert(service.name.to_string(), weights_of(&service.versions, old.shares()));
                moved.to.insert(service.name.to_string(), weights_of(&service.versions, new.shares()));
            }
        }
        return moved;
    }
    moved.from = super::history::splits_of(before);
    moved.to = super::history::splits_of(now);
    let same: Vec<String> =
        moved.to.iter().filter(|(name, to)| moved.from.get(*name) == Some(to)).map(|(name, _)| name.clone()).collect();
    for name in same {
        moved.from.remove(&name);
        moved.to.remove(&name);
    }
    moved
}

/// Exchanges that run on versions that had weight before and have none now.
pub(crate) fn in_flight_on_losers(before: &Snapshot, now: &Generation) -> u64 {
    let mut running = 0;
    let same_table = Arc::ptr_eq(&before.generation.table, &now.table);
    for (at, service) in before.generation.table.services.iter().enumerate() {
        let old = &before.generation.splits[at];
        if same_table && Arc::ptr_eq(old, &now.splits[at]) {
            continue;
        }
        let new_service = now.table.service_named(&service.name);
        for (version, share) in old.shares().iter().enumerate() {
            if !matches!(share, Share::Weight(_)) {
                continue;
            }
            let version = VersionIdx(version as u16);
            let keeps = new_service.is_some_and(|new| {
                let same = now.table.service(new).version_named(service.version_name(version));
                same.is_some_and(|same| matches!(now.split(new).share(same), Share::Weight(_)))
            });
            if !keeps {
                running += before.runtime.services[at].version(version).core.in_flight.total();
            }
        }
    }
    running
}

/// A publish whose receipt is not complete yet.
#[derive(Debug)]
pub(crate) struct Published {
    pub before: Arc<Snapshot>,
    pub receipt: Receipt,
    pub trigger: Trigger,
    /// Resolves when the generation is on disk; `None` without a journal.
    pub written: Option<oneshot::Receiver<()>>,
    /// The rollouts that it ended by going back.
    pub ended: Vec<Arc<Trial<Judge>>>,
}

impl Published {
    /// Waits until no data thread routes by the generation before any more (I4) and fills in the proof.
    pub async fn proven(mut self, live: &Live) -> Receipt {
        let number = self.receipt.generation;
        if tokio::time::timeout(QUIESCE, live.quiesced(number)).await.is_err() {
            let warning =
                "a data thread was busy for more than a second; the time of the last old request is a lower bound";
            self.receipt.warnings.push(warning.into());
        }
        let last = self.before.last_start();
        self.receipt.last_old_start_micros = last.saturating_sub(self.trigger.nanos) / 1_000;
        self.receipt.shielded = self.ended.iter().map(|trial| trial.replays()).sum();
        match self.written {
            Some(written) => kept(self.receipt, written).await,
            None => self.receipt,
        }
    }
}

/// The receipt once what it is about is on disk; if that takes too long it says so.
pub(crate) async fn kept(mut receipt: Receipt, written: oneshot::Receiver<()>) -> Receipt {
    match tokio::time::timeout(JOURNAL, written).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => {
            let warning =
                "live, but not yet in the journal: a restart now would not remember it (see `switchback status`)";
            receipt.warnings.push(warning.into());
        }
    }
    receipt
}
