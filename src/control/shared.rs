//! What everybody may read while the writer works: the live pointer and a picture of the rest.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::api::{AuditRecord, ConfigStatus, RetiredStatus, RolloutStatus};
use super::live::{Live, Snapshot};
use super::overlay::Overlay;
use super::ports::Ports;
use super::rollouts::Stories;
use super::watch::Known;
use super::{Phase, Source};
use crate::config::Problem;
use crate::config::certificate::Dates;
use crate::journal::{Journal, Record, Whole};
use crate::sessions::connections::Connections;
use crate::telemetry::Events;

/// Audit entries in memory; the journal keeps more.
const AUDIT_KEPT: usize = 1_000;

pub(crate) struct Shared {
    pub live: Arc<Live>,
    pub events: Events,
    pub ports: Ports,
    pub phase: watch::Receiver<Phase>,
    pub connections: Arc<Connections>,
    pub source: Source,
    pub started: Instant,
    pub started_at: u64,
    pub journal: Option<Journal>,
    /// What was decided about rollouts, and why.
    pub stories: Stories,
    /// Cancelled when the writer ended without being told to: nothing can be changed any more.
    pub writer_lost: CancellationToken,
    /// Replaced by the writer after everything it does.
    pub view: watch::Sender<Arc<View>>,
    audit: Mutex<VecDeque<AuditRecord>>,
    snapshots: Mutex<Vec<Weak<Snapshot>>>,
    readings: AtomicU64,
    /// By process id.
    pub retired: Mutex<BTreeMap<u32, RetiredStatus>>,
    /// What of the file was read last.
    pub read: Known,
}

/// The writer's knowledge as of its last event.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// Number of the generation that was live.
    pub generation: u64,
    pub overlay: Overlay,
    pub whole: Option<Whole>,
    pub config: ConfigStatus,
    pub confirm_until: Option<u64>,
    /// Newest first.
    pub history: Vec<Arc<Record>>,
    /// Of the live configuration.
    pub warnings: Vec<Problem>,
    /// What the last publish wanted an operator to know.
    pub notes: Vec<String>,
    /// By service.
    pub rollouts: BTreeMap<String, RolloutStatus>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("source", &self.source).finish_non_exhaustive()
    }
}

/// What [`Shared`] is made from.
pub(crate) struct Parts {
    pub live: Arc<Live>,
    pub events: Events,
    pub ports: Ports,
    pub phase: watch::Receiver<Phase>,
    pub connections: Arc<Connections>,
    pub source: Source,
    pub journal: Option<Journal>,
    pub audit: Vec<AuditRecord>,
    pub stories: Stories,
}

impl Shared {
    /// A certificate that is used already may expire without standing in the way of an edit.
    pub fn dates(&self) -> Dates {
        let mut used = self.ports.listeners.certificates();
        let services = &self.live.load().runtime.services;
        let secured = services.iter().filter_map(|service| service.secure.as_ref());
        used.extend(secured.filter_map(|cell| Some(cell.load().of.identity.as_ref()?.material.own.fingerprint)));
        Dates::Serving(used)
    }

    pub fn new(parts: Parts) -> Shared {
        let first = Arc::downgrade(&parts.live.load());
        Shared {
            live: parts.live,
            events: parts.events,
            ports: parts.ports,
            phase: parts.phase,
            connections: parts.connections,
            source: parts.source,
            started: Instant::now(),
            started_at: crate::telemetry::unix_ms(),
            journal: parts.journal,
            stories: parts.stories,
            writer_lost: CancellationToken::new(),
            view: watch::Sender::default(),
            audit: Mutex::new(parts.audit.into()),
            snapshots: Mutex::new(vec![first]),
            readings: AtomicU64::new(0),
            retired: Mutex::default(),
            read: Known::default(),
        }
    }

    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Taken before the file is read, so that readings can be put in order.
    pub fn next_reading(&self) -> u64 {
        self.readings.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Resolves when the record is on disk; `None` if that is not worth waiting for.
    pub fn record_audit(&self, record: AuditRecord) -> Option<oneshot::Receiver<()>> {
        let written = self.journal.as_ref().and_then(|journal| {
            let written = journal.audit(record.clone());
            (!journal.is_unwritten()).then_some(written)
        });
        let mut audit = self.audit.lock().expect("no holder panics");
        if audit.len() >= AUDIT_KEPT {
            audit.pop_front();
        }
        audit.push_back(record);
        written
    }

    /// Newest first.
    pub fn audit(&self, limit: usize) -> Vec<AuditRecord> {
        self.audit.lock().expect("no holder panics").iter().rev().take(limit).cloned().collect()
    }

    pub fn remember_snapshot(&self, snapshot: &Arc<Snapshot>) {
        let mut snapshots = self.snapshots.lock().expect("no holder panics");
        snapshots.retain(|snapshot| snapshot.strong_count() > 0);
        snapshots.push(Arc::downgrade(snapshot));
    }

    /// Generations that something still holds.
    pub fn generations_live(&self) -> u64 {
        let snapshots = self.snapshots.lock().expect("no holder panics");
        snapshots.iter().filter(|snapshot| snapshot.strong_count() > 0).count() as u64
    }
}
