//! Runtime state of services, versions and endpoints: keyed by identity, kept over reloads.
//!
//! A [`Runtime`] belongs to one routing table and has the same indices. What it points to outlives the
//! table: an endpoint that a reload does not touch keeps its health, counters and connections because the
//! new `Runtime` holds the same `Arc`.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use tokio::sync::Notify;

use super::budget::Budget;
use super::life::Life;
use super::warm::Warmth;
use crate::config::model::{EndpointAddress, Name};
use crate::limits::{Limits, Refusals};
use crate::outcome::{Errors, Meter};
use crate::routing::table::CompiledService;
use crate::routing::{ServiceIdx, Table, Thread, VersionIdx};
use crate::sessions::InFlight;

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
    /// Second chances.
    pub budget: Budget,
    /// Woken when an endpoint became ready, the hold ended, or a new generation went live.
    pub changed: Notify,
}

/// One version under one table: its present endpoints and what it keeps over reloads.
#[derive(Debug)]
pub struct VersionRuntime {
    pub endpoints: Box<[Arc<EndpointRuntime>]>,
    pub core: Arc<VersionCore>,
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
    /// Whose turn it is among the endpoints, per data thread: nothing is shared between threads.
    turns: Box<[CachePadded<AtomicU32>]>,
    /// The `drain.sessions` deadline has passed: pinned clients are no longer sent here. Unset when the
    /// version gets weight again.
    pub pins_ended: AtomicBool,
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

#[derive(Debug)]
pub struct EndpointRuntime {
    pub service: Name,
    pub version: Name,
    pub address: EndpointAddress,
    /// Unique in this process: the key under which connections are pooled, so that a removed or replaced
    /// endpoint's connections are never used again.
    pub incarnation: u64,
    /// Resolved addresses; the last good answer. Empty until a name is first resolved.
    pub resolved: ArcSwap<Vec<SocketAddr>>,
    /// Those of `resolved` that are used now: one that does not answer rests until the next resolution
    /// or until a check finds it well. Empty only if `resolved` is.
    serving: ArcSwap<Vec<SocketAddr>>,
    /// Whether `serving` has any, without loading it.
    has_address: AtomicBool,
    health: AtomicU8,
    ejected: AtomicBool,
    /// Failures in a row, for ejection.
    pub failures_in_row: AtomicU32,
    /// Of what runs there now.
    pub warmth: Warmth,
    /// Of its process. Several addresses are several processes, so only that of a single one is told.
    life: Life,
    in_flight: Box<[CachePadded<AtomicU64>]>,
    /// Why the health is what it is: the last change, for `status` and events.
    pub last_change: ArcSwap<String>,
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

    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<EndpointRuntime>> {
        self.services.iter().flat_map(|service| &service.versions).flat_map(|version| &version.endpoints)
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
                let endpoints = version
                    .endpoints
                    .iter()
                    .map(|address| {
                        let kept = before.and_then(|before| before.endpoint_at(address)).cloned();
                        match kept {
                            Some(kept) => {
                                kept.check_is(checked);
                                kept
                            }
                            None => Arc::new(EndpointRuntime::new(&core, address.clone(), checked, threads)),
                        }
                    })
                    .collect();
                Arc::new(VersionRuntime { endpoints, core })
            })
            .collect();
        let core = match before {
            Some(before) => before.core.clone(),
            None => Arc::new(ServiceCore { budget: Budget::new(threads), ..ServiceCore::default() }),
        };
        ServiceRuntime { name: compiled.name.clone(), versions, core }
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
            // Different beginnings, so that the first requests of all threads do not meet.
            turns: (0..threads).map(|thread| CachePadded::new(AtomicU32::new(thread as u32))).collect(),
            pins_ended: AtomicBool::new(false),
        }
    }
}

impl VersionCore {
    /// The next number of this data thread's own count.
    pub(super) fn turn(&self, thread: Thread) -> usize {
        let turn = &self.turns[thread.0 as usize];
        let now = turn.load(Ordering::Relaxed);
        turn.store(now.wrapping_add(1), Ordering::Relaxed);
        now as usize
    }
}

impl VersionRuntime {
    pub fn endpoint_at(&self, address: &EndpointAddress) -> Option<&Arc<EndpointRuntime>> {
        self.endpoints.iter().find(|endpoint| endpoint.address == *address)
    }

    /// How many addresses there are to try, all endpoints together.
    pub fn addresses(&self) -> usize {
        self.endpoints.iter().map(|endpoint| endpoint.addresses()).sum()
    }

    pub fn has_ready(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.is_ready())
    }
}

impl EndpointRuntime {
    pub(super) fn new(
        version: &VersionCore,
        address: EndpointAddress,
        checked: bool,
        threads: usize,
    ) -> EndpointRuntime {
        static NEXT_INCARNATION: AtomicU64 = AtomicU64::new(1);
        let resolved = match &address {
            EndpointAddress::Ip(at) => vec![*at],
            EndpointAddress::Name { .. } => Vec::new(),
        };
        let health = if checked { Health::Unknown } else { Health::Unchecked };
        EndpointRuntime {
            service: version.service.clone(),
            version: version.name.clone(),
            address,
            incarnation: NEXT_INCARNATION.fetch_add(1, Ordering::Relaxed),
            has_address: AtomicBool::new(!resolved.is_empty()),
            serving: ArcSwap::from_pointee(resolved.clone()),
            resolved: ArcSwap::from_pointee(resolved),
            health: AtomicU8::new(health as u8),
            ejected: AtomicBool::new(false),
            failures_in_row: AtomicU32::new(0),
            warmth: Warmth::default(),
            life: Life::default(),
            in_flight: (0..threads).map(|_| CachePadded::new(AtomicU64::new(0))).collect(),
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
        if health == Health::Down {
            self.warmth.cool();
        }
        self.health.store(health as u8, Ordering::Relaxed);
    }

    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    pub fn set_ejected(&self, ejected: bool) {
        self.ejected.store(ejected, Ordering::Relaxed);
    }

    /// May be given new requests: checked (or unchecked by configuration), not ejected, resolved.
    pub fn is_ready(&self) -> bool {
        matches!(self.health(), Health::Unchecked | Health::Healthy) && !self.is_ejected() && self.is_resolved()
    }

    /// A new connection was taken, or refused: traffic and checks tell alike.
    pub fn took_connection(&self, taken: bool) {
        match taken {
            _ if self.addresses() != 1 => {}
            true => self.life.connected(),
            false => self.life.refused(),
        }
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
        self.has_address.load(Ordering::Relaxed)
    }

    /// A new answer of the resolver. Every address is used again, rested or not.
    pub fn set_resolved(&self, addresses: Vec<SocketAddr>) {
        self.serving.store(Arc::new(addresses.clone()));
        self.has_address.store(!addresses.is_empty(), Ordering::Relaxed);
        self.resolved.store(Arc::new(addresses));
    }

    /// Of several addresses of a name, uses only those in `well`; all of them if none is.
    pub(super) fn set_serving(&self, well: Vec<SocketAddr>) {
        if well.is_empty() {
            self.serving.store(self.resolved.load_full());
        } else if **self.serving.load() != well {
            self.serving.store(Arc::new(well));
        }
    }

    /// A connection to `address` could not be made: if the name has others, it rests until the name is
    /// resolved again or a check finds it well.
    pub fn rest(&self, address: SocketAddr) {
        match &self.address {
            EndpointAddress::Ip(_) => {}
            EndpointAddress::Name { .. } => {
                let others: Vec<_> = self.serving.load().iter().copied().filter(|other| *other != address).collect();
                if !others.is_empty() {
                    self.serving.store(Arc::new(others));
                }
            }
        }
    }

    /// One of the addresses in use, the `turn`th of an endless round.
    pub(super) fn address_at(&self, turn: usize) -> Option<SocketAddr> {
        match &self.address {
            EndpointAddress::Ip(address) => Some(*address),
            EndpointAddress::Name { .. } => {
                let serving = self.serving.load();
                serving.get(turn.checked_rem(serving.len())?).copied()
            }
        }
    }

    /// How many addresses a request may try here.
    pub(super) fn addresses(&self) -> usize {
        match &self.address {
            EndpointAddress::Ip(_) => 1,
            EndpointAddress::Name { .. } => self.serving.load().len(),
        }
    }

    /// The address as written in the configuration, also the default Host of its checks.
    pub fn authority(&self) -> String {
        match &self.address {
            EndpointAddress::Ip(address) => address.to_string(),
            EndpointAddress::Name { host, port } => format!("{host}:{port}"),
        }
    }

    pub fn begin(&self, thread: Thread) {
        self.in_flight[thread.0 as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn end(&self, thread: Thread) {
        self.in_flight[thread.0 as usize].fetch_sub(1, Ordering::Release);
    }

    /// Exchanges on this endpoint now, all data threads together.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.iter().map(|line| line.load(Ordering::Acquire)).sum()
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
