//! Which versions lost their place by a publish, and the drain of each.
//!
//! A version has its place while it has weight. When it loses it, what runs on it may finish within the
//! deadlines that its service has in the generation that took the place away; see [`super::draining`].
//! When it gets weight again its drain is called off. A version whose place did not change is never
//! looked at, whatever else a publish changed.
//!
//! When the process goes, every version is drained, see [`Drainer::leave`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::connections::Connections;
use super::draining::{Draining, Why};
use crate::config::model::{Drain, Sticky};
use crate::control::Snapshot;
use crate::control::api::DrainStatus;
use crate::control::ports::Drains;
use crate::endpoints::VersionCore;
use crate::routing::{ServiceIdx, Share, VersionIdx};
use crate::telemetry::{Events, unix_ms};

/// Finished drains are shown for this long.
const FINISHED_KEPT_MS: u64 = 10 * 60 * 1000;
/// And no more than this many.
const FINISHED_MAX: usize = 100;

/// Every drain of the process.
#[derive(Debug)]
pub struct Drainer {
    runtime: Handle,
    connections: Arc<Connections>,
    events: Events,
    entries: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    drain: Arc<Draining>,
    _task: AbortOnDropHandle<()>,
}

/// How a process goes.
#[derive(Debug, Clone, Copy)]
pub struct Going {
    /// Streams have the time that their service says. If not, all time there is, as requests have: none is dropped because
    /// a process goes.
    pub by_service: bool,
    /// For this long clients may ask on connections that they have.
    pub comers: Duration,
    /// Nothing is left then.
    pub by: Instant,
}

/// The drain of a whole process. Dropping it calls it off.
#[derive(Debug)]
pub struct Leaving(Vec<Entry>);

impl Leaving {
    /// How many exchanges were ended at their deadlines so far.
    pub fn cuts(&self) -> usize {
        self.0.iter().map(|entry| entry.drain.cuts() as usize).sum()
    }
}

/// What a version may get in one generation.
#[derive(Debug, Clone)]
struct Place {
    core: Arc<VersionCore>,
    share: Share,
    policy: Drain,
    /// Clients may be pinned to it by cookie.
    pinning: bool,
}

impl Drainer {
    /// Runs one task per drain on `runtime`.
    pub fn start(runtime: Handle, connections: Arc<Connections>, events: Events) -> Arc<Drainer> {
        Arc::new(Drainer { runtime, connections, events, entries: Mutex::default() })
    }

    /// Once, with the first generation: a version that starts as draining has its deadlines too.
    pub fn boot(&self, first: &Arc<Snapshot>) {
        self.moved(&[], &places(first, |_| true));
    }

    fn moved(&self, before: &[Place], now: &[Place]) {
        let mut entries = self.entries.lock().expect("no holder panics");
        for place in now {
            let was = before.iter().find(|was| was.core.slot == place.core.slot).map_or(Share::Off, |was| was.share);
            match (was, place.share) {
                (_, Share::Weight(_)) => {
                    place.core.pins_ended.store(false, std::sync::atomic::Ordering::Release);
                    entries.retain(|entry| entry.drain.slot() != place.core.slot);
                }
                (Share::Weight(_), Share::Draining | Share::Off) | (Share::Off, Share::Draining) => {
                    self.begin(&mut entries, place);
                }
                (Share::Draining, Share::Off) => self.pins_end(&mut entries, place),
                (Share::Draining, Share::Draining) | (Share::Off, Share::Off) => {}
            }
        }
        for was in before {
            if now.iter().any(|place| place.core.slot == was.core.slot) {
                continue;
            }
            let gone = Place { share: Share::Off, ..was.clone() };
            match was.share {
                Share::Weight(_) => self.begin(&mut entries, &gone),
                Share::Draining => self.pins_end(&mut entries, &gone),
                Share::Off => {}
            }
        }
        forget_old(&mut entries);
    }

    fn begin(&self, entries: &mut Vec<Entry>, place: &Place) {
        entries.retain(|entry| entry.drain.slot() != place.core.slot);
        place.core.pins_ended.store(false, std::sync::atomic::Ordering::Release);
        let pinned = matches!(place.share, Share::Draining) && place.pinning;
        let comers = pinned.then_some(place.policy.sessions);
        entries.push(self.spawn(Draining::new(place.core.clone(), place.policy.clone(), Why::LostPlace, comers)));
    }

    fn spawn(&self, drain: Draining) -> Entry {
        let drain = Arc::new(drain);
        let task = drain.clone().run(self.connections.clone(), self.events.clone());
        Entry { drain, _task: AbortOnDropHandle::new(self.runtime.spawn(task)) }
    }

    /// The process goes: every version of `live` is drained, and every one from before that is being drained. Whose
    /// deadline comes first ends what runs. Nobody is told of these drains, and no status shows them.
    pub fn leave(&self, live: &Snapshot, going: Going) -> Leaving {
        let mut versions: BTreeMap<u32, (Arc<VersionCore>, Drain)> = BTreeMap::new();
        for entry in self.entries.lock().expect("no holder panics").iter() {
            versions.insert(entry.drain.slot(), (entry.drain.core().clone(), entry.drain.policy().clone()));
        }
        for Place { core, policy, .. } in places(live, |_| true) {
            versions.insert(core.slot, (core, policy));
        }
        let why = Why::ProcessGoes { by: going.by };
        let drain = |(core, policy): (_, Drain)| {
            let streams = if going.by_service { policy.streams } else { Duration::MAX };
            let policy = Drain { requests: Duration::MAX, streams, ..policy };
            self.spawn(Draining::new(core, policy, why, Some(going.comers).filter(|time| !time.is_zero())))
        };
        Leaving(versions.into_values().map(drain).collect())
    }

    /// From draining to off: what runs keeps its deadlines, pinned clients come no more.
    fn pins_end(&self, entries: &mut Vec<Entry>, place: &Place) {
        match entries.iter().find(|entry| entry.drain.slot() == place.core.slot) {
            Some(entry) => entry.drain.end_comers(),
            None => self.begin(entries, place),
        }
    }
}

impl Drains for Drainer {
    fn published(&self, before: &Arc<Snapshot>, now: &Arc<Snapshot>) {
        if Arc::ptr_eq(before, now) {
            return;
        }
        let (before, now) = if Arc::ptr_eq(&before.generation.table, &now.generation.table) {
            // Only splits can differ, and most do not.
            let changed = |service: usize| {
                let at = ServiceIdx(service as u16);
                !Arc::ptr_eq(&before.generation.splits[service], &now.generation.splits[service])
                    || before.matched(at) != now.matched(at)
            };
            (places(before, changed), places(now, changed))
        } else {
            (places(before, |_| true), places(now, |_| true))
        };
        self.moved(&before, &now);
    }

    fn status(&self) -> Vec<DrainStatus> {
        let mut entries = self.entries.lock().expect("no holder panics");
        forget_old(&mut entries);
        entries.iter().map(|entry| entry.drain.status()).collect()
    }
}

/// Every version of the services that are `wanted`.
fn places(snapshot: &Snapshot, wanted: impl Fn(usize) -> bool) -> Vec<Place> {
    let generation = &snapshot.generation;
    let mut places = Vec::new();
    for (at, service) in snapshot.runtime.services.iter().enumerate().filter(|(at, _)| wanted(*at)) {
        let compiled = &generation.table.services[at];
        let pinning = matches!(compiled.service.sticky, Some(Sticky::Cookie { .. }));
        for (version, runtime) in service.versions.iter().enumerate() {
            places.push(Place {
                core: runtime.core.clone(),
                share: share(snapshot, at, VersionIdx(version as u16)),
                policy: compiled.service.drain.clone(),
                pinning,
            });
        }
    }
    places
}

/// A canary with clients of its own beside the split has its place like any other.
fn share(snapshot: &Snapshot, service: usize, version: VersionIdx) -> Share {
    match snapshot.matched(ServiceIdx(service as u16)) == Some(version) {
        true => Share::Weight(1),
        false => snapshot.generation.splits[service].share(version),
    }
}

fn forget_old(entries: &mut Vec<Entry>) {
    let now = unix_ms();
    entries.retain(|entry| entry.drain.finished_at().is_none_or(|at| now < at + FINISHED_KEPT_MS));
    let mut surplus = entries.iter().filter(|entry| entry.drain.finished_at().is_some()).count();
    // They are in the order in which they began: the oldest go.
    entries.retain(|entry| {
        let goes = surplus > FINISHED_MAX && entry.drain.finished_at().is_some();
        surplus -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
#[path = "drain_tests.rs"]
mod tests;
