//! Runtime state of services, versions and endpoints: keyed by identity, kept over reloads.
//!
//! A [`Runtime`] belongs to one routing table and has the same indices. What it points to outlives the
//! table: an endpoint that a reload does not touch keeps its health, counters and connections because the
//! new `Runtime` holds the same `Arc`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use tokio::sync::Notify;

use crate::config::model::{EndpointAddress, Name};
use crate::outcome::Meter;
use crate::routing::table::CompiledService;
use crate::routing::{ServiceIdx, Table, Thread, VersionIdx};
use crate::sessions::InFlight;

/// Same indices as the table it was made for.
#[derive(Debug)]
pub struct Runtime {
    pub services: Box<[Arc<ServiceRuntime>]>,
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
    health: AtomicU8,
    ejected: AtomicBool,
    /// Failures in a row, for ejection.
    pub failures_in_row: AtomicU32,
    in_flight: Box<[CachePadded<AtomicU64>]>,
    /// Why the health is what it is: the last change, for `status` and events.
    pub last_change: ArcSwap<String>,
}

impl Runtime {
    /// The runtime of `table`, taking over from `previous` whatever has the same identity: services by
    /// name, versions by service and name, endpoints by service, version and address. An endpoint whose
    /// check changed keeps its verdict until the new check speaks.
    pub fn build(table: &Table, previous: Option<&Runtime>, threads: usize) -> Runtime {
        let services = table
            .services
            .iter()
            .map(|compiled| {
                let before = previous.and_then(|previous| previous.named(&compiled.name));
                Arc::new(ServiceRuntime::build(compiled, before, threads))
            })
            .collect();
        Runtime { services }
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
    fn build(compiled: &CompiledService, before: Option<&Arc<ServiceRuntime>>, threads: usize) -> ServiceRuntime {
        let checked = compiled.service.health.is_some();
        let versions = compiled
            .service
            .versions
            .iter()
            .map(|(name, version)| {
                let before = before.and_then(|before| before.version_named(name));
                let core = match before {
                    Some(before) => before.core.clone(),
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
            None => Arc::default(),
        };
        ServiceRuntime { name: compiled.name.clone(), versions, core }
    }

    pub fn version_named(&self, name: &str) -> Option<&Arc<VersionRuntime>> {
        let at = self.versions.binary_search_by(|version| (*version.core.name).cmp(name)).ok()?;
        Some(&self.versions[at])
    }

    pub fn version(&self, idx: VersionIdx) -> &Arc<VersionRuntime> {
        &self.versions[idx.0 as usize]
    }
}

impl VersionCore {
    fn new(service: Name, name: Name, threads: usize) -> VersionCore {
        static NEXT_SLOT: AtomicU32 = AtomicU32::new(1);
        VersionCore {
            slot: NEXT_SLOT.fetch_add(1, Ordering::Relaxed),
            service,
            name,
            in_flight: InFlight::new(threads),
            meter: Meter::new(threads),
            pins_ended: AtomicBool::new(false),
        }
    }
}

impl VersionRuntime {
    pub fn endpoint_at(&self, address: &EndpointAddress) -> Option<&Arc<EndpointRuntime>> {
        self.endpoints.iter().find(|endpoint| endpoint.address == *address)
    }

    pub fn has_ready(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.is_ready())
    }
}

impl EndpointRuntime {
    fn new(version: &VersionCore, address: EndpointAddress, checked: bool, threads: usize) -> EndpointRuntime {
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
            resolved: ArcSwap::from_pointee(resolved),
            health: AtomicU8::new(health as u8),
            ejected: AtomicBool::new(false),
            failures_in_row: AtomicU32::new(0),
            in_flight: (0..threads).map(|_| CachePadded::new(AtomicU64::new(0))).collect(),
            last_change: ArcSwap::from_pointee(String::new()),
        }
    }

    /// A check was added or taken away: an unchecked endpoint becomes unknown only if it never had a
    /// verdict, so that adding a check to a running service does not take its traffic away.
    fn check_is(&self, configured: bool) {
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

    pub fn is_resolved(&self) -> bool {
        !self.resolved.load().is_empty()
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
