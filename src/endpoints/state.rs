//! Runtime state of services, versions and endpoints: keyed by identity, kept over reloads.
//!
//! A [`Runtime`] belongs to one routing table and has the same indices. What it points to outlives the
//! table: an endpoint that a reload does not touch keeps its health, counters and connections because the
//! new `Runtime` holds the same `Arc`.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use tokio::sync::Notify;

use super::balance::Ewma;
use super::budget::Budget;
use super::flaps::Flaps;
use super::group::VersionRuntime;
use super::keeping::Keeping;
use super::life::Life;
use super::room::{Place, Places, Room};
use super::secure::SecureCell;
use super::share::Together;
use super::tally::Tally;
use super::warm::Warmth;
use crate::config::model::{EndpointAddress, Name, Upstream};
use crate::limits::{Limits, Refusals};
use crate::outcome::{Errors, GrpcCodes, Meter};
use crate::routing::table::CompiledService;
use crate::routing::{ServiceIdx, Table, Thread, VersionIdx};
use crate::sessions::InFlight;

/// All of an endpoint's weight, for [`EndpointRuntime::ramp`].
pub(super) const RAMP_WHOLE: u64 = 256;
/// A tenth: nothing at all would warm up nothing.
const RAMP_LEAST: u64 = 26;

/// Same indices as the table it was made for.
#[derive(Debug)]
pub struct Runtime {
    pub services: Box<[Arc<ServiceRuntime>]>,
    /// How much and how often single clients may ask.
    pub limits: Limits,
    /// Versions of earlier tables that something still holds: if one comes back, what still runs on it
    /// is its own again, and its drain is called off.
    gone: Box<[Weak<VersionCore>]>,
}

#[derive(Debug)]
pub struct ServiceRuntime {
    pub name: Name,
    /// Same indices as the compiled service.
    pub versions: Box<[Arc<VersionRuntime>]>,
    pub core: Arc<ServiceCore>,
    /// How its endpoints are connected to.
    pub upstream: Upstream,
    /// Of connections that are encrypted.
    pub secure: Option<Arc<SecureCell>>,
}

/// What a service keeps whatever its versions are.
#[derive(Debug, Default)]
pub struct ServiceCore {
    /// The operator said `hold`: new requests wait.
    pub held: AtomicBool,
    /// Requests waiting for a ready endpoint or for `release`.
    pub waiting: AtomicU64,
    /// Failures before a version was chosen.
    pub errors: Errors,
    /// Requests that a policy refused.
    pub refused: Refusals,
    /// Of the names among its endpoints: why the last look-up failed, if it did.
    pub names: Mutex<BTreeMap<String, Option<String>>>,
    /// Second chances.
    pub budget: Budget,
    /// Woken when an endpoint became ready, the hold ended, or a new generation went live.
    pub changed: Notify,
}

/// What a version keeps as long as some table names it or an exchange runs on it.
#[derive(Debug)]
pub struct VersionCore {
    /// Unique in this process, from 1.
    pub slot: u32,
    pub service: Name,
    pub name: Name,
    pub in_flight: InFlight,
    pub meter: Meter,
    pub grpc: GrpcCodes,
    /// Whose turn it is among the endpoints, per data thread: nothing is shared between threads.
    turns: Box<[CachePadded<AtomicU32>]>,
    /// Where requests wait while every endpoint has as much as it may.
    pub room: Arc<Room>,
    /// What its endpoints have in flight, all together.
    pub(super) together: Arc<Together>,
    /// The `drain.sessions` deadline has passed: pinned clients are no longer sent here. Unset when the
    /// version gets weight again.
    pub pins_ended: AtomicBool,
    /// So few endpoints are ready that all are asked.
    pub panic: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Health {
    /// Has a check that has not passed yet: no traffic.
    Unknown = 0,
    /// No check is configured: traffic at once.
    Unchecked = 1,
    Healthy = 2,
    /// Answers, but not as the check wants: used only when nothing better is left.
    Failing = 3,
    /// Does not answer at all.
    Down = 4,
}

/// Where connections to an endpoint go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    Ip(SocketAddr),
    Unix(Arc<Path>),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Ip(address) => address.fmt(f),
            At::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl serde::Serialize for At {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Debug)]
pub struct EndpointRuntime {
    pub service: Name,
    pub version: Name,
    /// As in the configuration. The addresses of a name are an endpoint each.
    pub address: EndpointAddress,
    /// `None` for a name that has no address yet.
    pub at: Option<At>,
    /// Unique in this process: the key under which connections are pooled, so that a removed or replaced
    /// endpoint's connections are never used again.
    pub incarnation: u64,
    health: AtomicU8,
    ejected: AtomicBool,
    /// For how long still, and how often before.
    pub(super) ejection: Mutex<Ejection>,
    /// It could not be connected to, and its name has other addresses.
    resting: AtomicBool,
    /// Failures in a row, for ejection.
    pub failures_in_row: AtomicU32,
    /// Of what runs there now.
    pub warmth: Warmth,
    /// How often its checks have taken it out lately. Kept when the check changes.
    pub(super) flaps: Mutex<Flaps>,
    /// What it did with its requests; kept up only for services that compare endpoints.
    pub tally: Tally,
    /// Since when it is ready, in milliseconds of the data threads' clock; 0 until the next request looks.
    ready_ms: AtomicU64,
    /// Milliseconds before that, in an earlier process.
    ready_before_ms: AtomicU64,
    /// How fast it answers; kept up for `peak_ewma` only.
    pub latency: Ewma,
    /// How long it keeps idle connections, by its own word.
    pub keeping: Keeping,
    /// Of its process.
    life: Life,
    places: Arc<Places>,
    in_flight: Box<[CachePadded<AtomicU64>]>,
    together: Arc<Together>,
    /// Why the health is what it is: the last change, for `status` and events.
    pub last_change: ArcSwap<String>,
}

/// How often an endpoint was ejected lately, and until when it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ejection {
    pub times: u32,
    pub until: Option<tokio::time::Instant>,
    /// An earlier process has decided it: nobody here waits for its end yet.
    pub inherited: bool,
}

impl Runtime {
    /// The runtime of `table`, taking over from `previous` whatever has the same identity: services by
    /// name, versions by service and name (also one that was gone for a while, if something still runs
    /// on it), endpoints by service, version and address. An endpoint whose
    /// check changed keeps its verdict until the new check speaks.
    pub fn build(table: &Table, previous: Option<&Runtime>, threads: usize) -> Runtime {
        let limits = Limits::of(table, previous.map(|previous| &previous.limits));
        Runtime { limits, ..Runtime::of(&table.services, previous, threads) }
    }

    #[cfg(test)]
    pub(super) fn with(services: Box<[Arc<ServiceRuntime>]>) -> Runtime {
        Runtime { services, limits: Limits::default(), gone: Box::default() }
    }

    pub(super) fn of(services: &[CompiledService], previous: Option<&Runtime>, threads: usize) -> Runtime {
        let gone_before: Vec<Arc<VersionCore>> =
            previous.map_or(Vec::new(), |previous| previous.gone.iter().filter_map(Weak::upgrade).collect());
        let services: Box<[_]> = services
            .iter()
            .map(|compiled| {
                let before = previous.and_then(|previous| previous.named(&compiled.name));
                Arc::new(ServiceRuntime::build(compiled, before, &gone_before, threads))
            })
            .collect();
        let here: HashSet<u32> = services.iter().flat_map(|service| service.cores()).map(|core| core.slot).collect();
        let there = previous.into_iter().flat_map(|previous| &previous.services).flat_map(|service| service.cores());
        let gone = there.chain(&gone_before).filter(|core| !here.contains(&core.slot)).map(Arc::downgrade).collect();
        Runtime { services, limits: Limits::default(), gone }
    }

    pub fn named(&self, name: &str) -> Option<&Arc<ServiceRuntime>> {
        let at = self.services.binary_search_by(|service| (*service.name).cmp(name)).ok()?;
        Some(&self.services[at])
    }

    pub fn endpoints(&self) -> impl Iterator<Item = Arc<EndpointRuntime>> {
        self.services.iter().flat_map(|service| &service.versions).flat_map(|version| version.endpoints())
    }

    pub fn service(&self, idx: ServiceIdx) -> &Arc<ServiceRuntime> {
        &self.services[idx.0 as usize]
    }
}

impl ServiceRuntime {
    fn build(
        compiled: &CompiledService,
        before: Option<&Arc<ServiceRuntime>>,
        gone: &[Arc<VersionCore>],
        threads: usize,
    ) -> ServiceRuntime {
        let checked = compiled.service.health.is_some();
        let versions = compiled
            .service
            .versions
            .iter()
            .map(|(name, version)| {
                let before = before.and_then(|before| before.version_named(name));
                // The youngest of those that are gone comes first.
                let came_back = || gone.iter().find(|core| core.service == compiled.name && core.name == *name);
                let core = match before.map(|before| &before.core).or_else(came_back) {
                    Some(core) => core.clone(),
                    None => Arc::new(VersionCore::new(compiled.name.clone(), name.clone(), threads)),
                };
                VersionRuntime::build(core, &version.endpoints, &compiled.service.balance, checked, before)
            })
            .collect();
        let core = match before {
            Some(before) => before.core.clone(),
            None => Arc::new(ServiceCore { budget: Budget::new(threads), ..ServiceCore::default() }),
        };
        let tls = compiled.service.upstream.tls.as_ref();
        let secure = tls.map(|tls| match before.and_then(|before| before.secure.as_ref()) {
            Some(cell) if cell.load().of == *tls => cell.clone(),
            Some(_) | None => Arc::new(SecureCell::new(tls.clone())),
        });
        let upstream = compiled.service.upstream.clone();
        ServiceRuntime { name: compiled.name.clone(), versions, core, upstream, secure }
    }

    pub fn version_named(&self, name: &str) -> Option<&Arc<VersionRuntime>> {
        let at = self.versions.binary_search_by(|version| (*version.core.name).cmp(name)).ok()?;
        Some(&self.versions[at])
    }

    fn cores(&self) -> impl Iterator<Item = &Arc<VersionCore>> {
        self.versions.iter().map(|version| &version.core)
    }

    pub fn version(&self, idx: VersionIdx) -> &Arc<VersionRuntime> {
        &self.versions[idx.0 as usize]
    }
}

impl VersionCore {
    pub(super) fn new(service: Name, name: Name, threads: usize) -> VersionCore {
        static NEXT_SLOT: AtomicU32 = AtomicU32::new(1);
        VersionCore {
            slot: NEXT_SLOT.fetch_add(1, Ordering::Relaxed),
            service,
            name,
            in_flight: InFlight::new(threads),
            meter: Meter::new(threads),
            grpc: GrpcCodes::new(threads),
            // Different beginnings, so that the first requests of all threads do not meet.
            turns: (0..threads).map(|thread| CachePadded::new(AtomicU32::new(thread as u32))).collect(),
            room: Arc::default(),
            together: Arc::new(Together::new(threads)),
            pins_ended: AtomicBool::new(false),
            panic: AtomicBool::new(false),
        }
    }
}

impl VersionCore {
    pub(super) fn threads(&self) -> usize {
        self.turns.len()
    }

    /// The next number of this data thread's own count.
    pub(super) fn turn(&self, thread: Thread) -> usize {
        let turn = &self.turns[thread.0 as usize];
        let now = turn.load(Ordering::Relaxed);
        turn.store(now.wrapping_add(1), Ordering::Relaxed);
        now as usize
    }
}

impl EndpointRuntime {
    /// `at` is for a name: one of its addresses.
    pub(super) fn new(
        version: &VersionCore,
        address: EndpointAddress,
        at: Option<At>,
        checked: bool,
    ) -> EndpointRuntime {
        static NEXT_INCARNATION: AtomicU64 = AtomicU64::new(1);
        let at = match &address {
            EndpointAddress::Ip(address) => Some(At::Ip(*address)),
            EndpointAddress::Unix(path) => Some(At::Unix(path.as_path().into())),
            EndpointAddress::Name { .. } => at,
        };
        let health = if checked { Health::Unknown } else { Health::Unchecked };
        EndpointRuntime {
            service: version.service.clone(),
            version: version.name.clone(),
            address,
            at,
            incarnation: NEXT_INCARNATION.fetch_add(1, Ordering::Relaxed),
            health: AtomicU8::new(health as u8),
            ejected: AtomicBool::new(false),
            ejection: Mutex::default(),
            resting: AtomicBool::new(false),
            failures_in_row: AtomicU32::new(0),
            warmth: Warmth::default(),
            flaps: Mutex::default(),
            tally: Tally::new(version.threads()),
            ready_ms: AtomicU64::new(0),
            ready_before_ms: AtomicU64::new(0),
            latency: Ewma::default(),
            keeping: Keeping::default(),
            life: Life::default(),
            places: Arc::new(Places::new(version.room.clone())),
            in_flight: (0..version.threads()).map(|_| CachePadded::new(AtomicU64::new(0))).collect(),
            together: version.together.clone(),
            last_change: ArcSwap::from_pointee(String::new()),
        }
    }

    /// A check was added or taken away: an unchecked endpoint becomes unknown only if it never had a
    /// verdict, so that adding a check to a running service does not take its traffic away.
    pub(super) fn check_is(&self, configured: bool) {
        match (configured, self.health()) {
            (true, Health::Unchecked) => self.set_health(Health::Healthy),
            (false, Health::Unknown | Health::Healthy | Health::Failing | Health::Down) => {
                self.set_health(Health::Unchecked);
            }
            (true, Health::Unknown | Health::Healthy | Health::Failing | Health::Down) | (false, Health::Unchecked) => {
            }
        }
    }

    pub fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            0 => Health::Unknown,
            1 => Health::Unchecked,
            2 => Health::Healthy,
            3 => Health::Failing,
            _ => Health::Down,
        }
    }

    pub fn set_health(&self, health: Health) {
        // Whatever comes back is a fresh one.
        if matches!(health, Health::Down | Health::Unknown) {
            self.warmth.cool();
        }
        let comes_back = health == Health::Healthy && self.health() != Health::Healthy;
        self.change(|| self.health.store(health as u8, Ordering::Relaxed));
        if comes_back {
            self.starts_slowly();
        }
        if health == Health::Healthy {
            self.set_resting(false);
        }
    }

    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    pub fn set_ejected(&self, ejected: bool) {
        self.change(|| self.ejected.store(ejected, Ordering::Relaxed));
        if !ejected {
            self.starts_slowly();
        }
    }

    pub(super) fn set_resting(&self, resting: bool) {
        if self.resting.load(Ordering::Relaxed) != resting {
            self.change(|| self.resting.store(resting, Ordering::Relaxed));
        }
    }

    /// Something that it is ready by.
    fn change(&self, what: impl FnOnce()) {
        let was_ready = self.is_ready();
        what();
        if self.is_ready() != was_ready {
            self.together.ready_changed();
        }
    }

    fn starts_slowly(&self) {
        self.ready_ms.store(0, Ordering::Relaxed);
        self.ready_before_ms.store(0, Ordering::Relaxed);
    }

    /// For a successor: for how long it has been ready, as far as anybody looked.
    pub(super) fn ready_for_ms(&self, now_ms: u64) -> u64 {
        let before = self.ready_before_ms.load(Ordering::Relaxed);
        match self.ready_ms.load(Ordering::Relaxed) {
            0 => before,
            since => now_ms.saturating_sub(since).saturating_add(before),
        }
    }

    pub(super) fn was_ready_for_ms(&self, before: u64) {
        self.ready_before_ms.store(before, Ordering::Relaxed);
    }

    /// May be given new requests: checked (or unchecked by configuration), not ejected, resolved.
    pub fn is_ready(&self) -> bool {
        matches!(self.health(), Health::Unchecked | Health::Healthy)
            && !self.is_ejected()
            && !self.resting.load(Ordering::Relaxed)
            && self.is_resolved()
    }

    /// How much of its weight it gets, of 256: it grows for `slow_start` from the first request after it became ready.
    pub(super) fn ramp(&self, now_ms: u64, slow_start: Duration) -> u64 {
        if slow_start.is_zero() {
            return RAMP_WHOLE;
        }
        let since = match self.ready_ms.load(Ordering::Relaxed) {
            0 => {
                // Whoever is second sees the same time.
                let _ = self.ready_ms.compare_exchange(0, now_ms.max(1), Ordering::Relaxed, Ordering::Relaxed);
                now_ms
            }
            since => since,
        };
        let ready_ms = now_ms.saturating_sub(since).saturating_add(self.ready_before_ms.load(Ordering::Relaxed));
        let part = u128::from(ready_ms) * u128::from(RAMP_WHOLE) / slow_start.as_millis().max(1);
        (part as u64).clamp(RAMP_LEAST, RAMP_WHOLE)
    }

    /// Exchanges at once; `None` without a bound.
    pub fn max_connections(&self) -> Option<u32> {
        self.places.max()
    }

    pub(super) fn limit(&self, max: Option<u32>) {
        self.places.limit(max);
    }

    pub(super) fn has_place(&self, queued: bool) -> bool {
        self.places.has_free(queued)
    }

    pub(super) fn take_place(&self) -> Result<Option<Place>, ()> {
        self.places.take()
    }

    /// The last thing that happened to it, for `status`. Whether that is another than before.
    pub fn changes_to(&self, what: &str) -> bool {
        let changes = **self.last_change.load() != what;
        if changes {
            self.last_change.store(Arc::new(what.into()));
        }
        changes
    }

    /// A new connection was taken, or refused: traffic and checks tell alike.
    pub fn took_connection(&self, taken: bool) {
        match taken {
            true => self.life.connected(),
            false => self.life.refused(),
        }
    }

    /// Who answered a check, by a hash of its name.
    pub(super) fn answered_as(&self, instance: u64) {
        self.life.answered(instance);
    }

    /// How often its process has started again since it is known.
    pub fn restarts(&self) -> u32 {
        self.life.restarts()
    }

    /// Neither checked nor resolved since it is there.
    pub fn is_unknown(&self) -> bool {
        self.health() == Health::Unknown || !self.is_resolved()
    }

    pub fn is_resolved(&self) -> bool {
        self.at.is_some()
    }

    /// Its IP address and port, if that is what it has.
    pub fn ip(&self) -> Option<SocketAddr> {
        match &self.at {
            Some(At::Ip(address)) => Some(*address),
            Some(At::Unix(_)) | None => None,
        }
    }

    /// The address as written in the configuration, also the default Host of its checks.
    pub fn authority(&self) -> String {
        match &self.address {
            // There is no better name for what is on this machine.
            EndpointAddress::Unix(_) => "localhost".into(),
            EndpointAddress::Ip(_) | EndpointAddress::Name { .. } => self.address.to_string(),
        }
    }

    /// For people and metrics: as written, and which of its addresses if it is a name. Unique in its version.
    pub fn label(&self) -> String {
        match (&self.address, self.ip()) {
            (EndpointAddress::Name { .. }, Some(at)) => format!("{} ({})", self.address, at.ip()),
            (EndpointAddress::Name { .. } | EndpointAddress::Ip(_) | EndpointAddress::Unix(_), _) => {
                self.address.to_string()
            }
        }
    }

    /// Where it is, whatever it is called: the same in every process that sees the same addresses.
    pub(super) fn place(&self) -> String {
        self.at.as_ref().map_or_else(String::new, At::to_string)
    }

    pub fn begin(&self, thread: Thread) {
        self.in_flight[thread.0 as usize].fetch_add(1, Ordering::Relaxed);
        self.together.begin(thread);
    }

    pub fn end(&self, thread: Thread) {
        self.in_flight[thread.0 as usize].fetch_sub(1, Ordering::Release);
        self.together.end(thread);
    }

    /// Exchanges on this endpoint now, all data threads together.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.iter().map(|line| line.load(Ordering::Acquire)).sum()
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
