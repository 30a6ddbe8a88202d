//! The one pointer. Everything a request needs hangs off one [`Snapshot`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;

use crate::endpoints::{Runtime, VersionRuntime};
use crate::evidence::Stamped;
use crate::outcome::{Codes, CodesRegistry};
use crate::routing::{Generation, RouteIdx, ServiceIdx, Thread, VersionIdx};

/// A generation with the runtime state it points to. Immutable but for counters.
#[derive(Debug)]
pub struct Snapshot {
    pub generation: Generation,
    /// Same indices as `generation.table`.
    pub runtime: Arc<Runtime>,
    /// Response counters by route and version; shared by all snapshots of one table.
    pub codes: Arc<RouteCodes>,
    /// Nanoseconds since [`Live::epoch`] at which each data thread last routed by this snapshot.
    last_start: Box<[CachePadded<AtomicU64>]>,
    /// By service; empty while no rollout runs.
    trials: Box<[Option<Stamped>]>,
}

impl Snapshot {
    /// What runs of a version, by names.
    pub fn version_named(&self, service: &str, version: &str) -> Option<&Arc<VersionRuntime>> {
        let at = self.generation.table.service_named(service)?;
        self.runtime.service(at).version_named(version)
    }

    pub fn new(generation: Generation, runtime: Arc<Runtime>, codes: Arc<RouteCodes>, threads: usize) -> Snapshot {
        let last_start = (0..threads).map(|_| CachePadded::new(AtomicU64::new(0))).collect();
        Snapshot { generation, runtime, codes, last_start, trials: Box::default() }
    }

    /// With the rollouts that run.
    pub(crate) fn with_trials(self, trials: Box<[Option<Stamped>]>) -> Snapshot {
        Snapshot { trials, ..self }
    }

    /// Whether any service is in a rollout.
    pub fn judges(&self) -> bool {
        !self.trials.is_empty()
    }

    /// The rollout that judges the requests of a service.
    pub fn trial(&self, service: ServiceIdx) -> Option<&Stamped> {
        self.trials.get(usize::from(service.0))?.as_ref()
    }

    /// The canary that has clients of its own beside the split.
    pub fn matched(&self, service: ServiceIdx) -> Option<VersionIdx> {
        self.trial(service)?.has_matched()
    }

    /// Called once per request, when it takes this snapshot.
    pub fn note_start(&self, thread: Thread, nanos_since_epoch: u64) {
        self.last_start[thread.0 as usize].store(nanos_since_epoch, Ordering::Release);
    }

    /// When the last request routed by this snapshot started, or 0.
    pub fn last_start(&self) -> u64 {
        self.last_start.iter().map(|at| at.load(Ordering::Acquire)).max().unwrap_or(0)
    }
}

/// Filled when its combination is first counted.
type Slot = std::sync::OnceLock<Arc<Codes>>;

/// Finds the [`Codes`] of a route and version without a lock once they exist.
#[derive(Debug)]
pub struct RouteCodes {
    /// By route, then by version; one more slot per route for answers without a version.
    slots: Box<[Box<[Slot]>]>,
    /// For requests that match no route.
    unrouted: Slot,
    registry: Arc<CodesRegistry>,
}

impl RouteCodes {
    pub fn new(generation: &Generation, registry: Arc<CodesRegistry>) -> RouteCodes {
        let table = &generation.table;
        let slots = table
            .routes
            .iter()
            .map(|route| {
                let versions = route.service.map_or(0, |service| table.service(service).versions.len());
                (0..=versions).map(|_| Slot::new()).collect()
            })
            .collect();
        RouteCodes { slots, unrouted: Slot::new(), registry }
    }

    pub fn codes(&self, generation: &Generation, route: Option<RouteIdx>, version: Option<VersionIdx>) -> &Codes {
        let Some(route) = route else {
            return self.unrouted.get_or_init(|| {
                self.registry.get(crate::outcome::CodesKey { route: "".into(), service: "".into(), version: "".into() })
            });
        };
        let slots = &self.slots[route.0 as usize];
        let slot = version.map_or(slots.len() - 1, |version| version.0 as usize);
        slots[slot].get_or_init(|| {
            let compiled = generation.table.route_at(route);
            let service = compiled.service.map(|service| generation.table.service(service));
            self.registry.get(crate::outcome::CodesKey {
                route: compiled.route.name.clone(),
                service: service.map_or("".into(), |service| service.name.clone()),
                version: match (service, version) {
                    (Some(service), Some(version)) => service.version_name(version).clone(),
                    _ => "".into(),
                },
            })
        })
    }
}

/// Holds the current snapshot. Only `control` stores; everybody loads.
#[derive(Debug)]
pub struct Live {
    current: ArcSwap<Snapshot>,
    /// Every snapshot that was ever live and is still held by something.
    alive: Mutex<Vec<Weak<Snapshot>>>,
    epoch: Instant,
    /// Bumped after each store; data threads wait on it to let go of the old snapshot.
    published: tokio::sync::watch::Sender<u64>,
    threads: usize,
    /// The generation each data thread has seen last: once all have seen `n`, no request will be
    /// routed by an older one.
    seen: Box<[CachePadded<AtomicU64>]>,
    seen_changed: tokio::sync::Notify,
}

impl Live {
    pub fn new(first: Arc<Snapshot>, threads: usize) -> Live {
        let number = first.generation.number();
        Live {
            alive: Mutex::new(vec![Arc::downgrade(&first)]),
            current: ArcSwap::new(first),
            epoch: Instant::now(),
            published: tokio::sync::watch::Sender::new(number),
            threads,
            seen: (0..threads).map(|_| CachePadded::new(AtomicU64::new(u64::MAX))).collect(),
            seen_changed: tokio::sync::Notify::new(),
        }
    }

    /// Number of data threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The clock of [`Snapshot::note_start`] and of receipts.
    pub fn nanos(&self) -> u64 {
        self.nanos_at(Instant::now())
    }

    /// As [`Live::nanos`], for a moment that was read already.
    pub fn nanos_at(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// For a data thread's own cache (see `arc_swap::Cache`).
    pub fn pointer(&self) -> &ArcSwap<Snapshot> {
        &self.current
    }

    /// The flip: one pointer store. Returns what was live before.
    pub(crate) fn store(&self, next: Arc<Snapshot>) -> Arc<Snapshot> {
        let number = next.generation.number();
        let weak = Arc::downgrade(&next);
        let before = self.current.swap(next);
        self.published.send_replace(number);
        let mut alive = self.alive.lock().expect("no holder panics");
        alive.retain(|snapshot| snapshot.strong_count() > 0);
        alive.push(weak);
        before
    }

    /// Generations that something still holds: the live one, and those of requests that run on.
    pub fn generations_live(&self) -> usize {
        self.alive.lock().expect("no holder panics").iter().filter(|snapshot| snapshot.strong_count() > 0).count()
    }

    /// For data threads: changes after each publish.
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// A data thread says that from now on it routes by generation `number` or later.
    pub fn saw(&self, thread: Thread, number: u64) {
        self.seen[thread.0 as usize].store(number, Ordering::Release);
        self.seen_changed.notify_waiters();
    }

    /// A data thread that has ended counts as having seen everything.
    pub fn left(&self, thread: Thread) {
        self.saw(thread, u64::MAX);
    }

    /// Resolves when no data thread can route by a generation older than `number` any more.
    pub async fn quiesced(&self, number: u64) {
        loop {
            let changed = self.seen_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.seen.iter().all(|seen| seen.load(Ordering::Acquire) >= number) {
                return;
            }
            changed.await;
        }
    }
}
