//! What a worker gives to the one that takes over from it, and what becomes of it then.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::warn;

use super::above::Above;
use super::instance::Instance;
use crate::control::Handle;
use crate::control::api::{AuditRecord, RetiredStatus};
use crate::endpoints::Carried;
use crate::handover::{FromWorker, Left, Outcome, Tally, UpgradeResult, pack, unpack};
use crate::sessions::Kind;
use crate::sessions::connections::Connections;
use crate::telemetry::{Counts, Event, Telemetry, names, unix_ms};

/// How often a process that retires looks at what it has.
const LEFT_EVERY: Duration = Duration::from_millis(250);
/// Said again after so many looks although nothing has changed: whoever serves may be a new one.
const LEFT_AGAIN: u32 = 8;

/// What only the running process knows. Everything in it may be missing: it is read by a newer or an older program.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Parcel {
    endpoints: Vec<Carried>,
    counts: Counts,
}

/// Unpacks what the worker before gave. What cannot be read is done without.
pub fn handed(parcel: Option<OwnedFd>, telemetry: &Telemetry) -> Vec<Carried> {
    let Some(parcel) = parcel else { return Vec::new() };
    let read = unpack(parcel).and_then(|bytes| Ok(serde_json::from_slice::<Parcel>(&bytes)?));
    match read {
        Ok(parcel) => {
            telemetry.carry(parcel.counts);
            parcel.endpoints
        }
        Err(error) => {
            warn!(%error, "what the process before knew cannot be read: endpoints are checked anew, counters begin at 0");
            Vec::new()
        }
    }
}

/// What a retired worker has counted since it gave its parcel.
pub fn counted(counts: Option<OwnedFd>, telemetry: &Telemetry) {
    let Some(counts) = counts else { return };
    match unpack(counts).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
        Ok(counts) => telemetry.carry(counts),
        Err(error) => warn!(%error, "what a retired process has counted cannot be read"),
    }
}

impl Instance {
    /// Lets go of the state for a successor. `Some`: what was counted so far is the successor's.
    pub(super) async fn freeze(&self, above: &Above, urgent: mpsc::UnboundedSender<String>) -> Option<Counts> {
        if let Err(why) = self.handle.freeze(urgent).await {
            above.say(&FromWorker::NotNow { why });
            return None;
        }
        let counts = Counts::read(&self.telemetry.render());
        match self.parcel(&counts) {
            Ok(parcel) => above.say_with(&FromWorker::Frozen, Some(&parcel)),
            Err(error) => {
                warn!(%error, "the successor has to find out about endpoints by itself");
                above.say(&FromWorker::Frozen);
            }
        }
        Some(counts)
    }

    fn parcel(&self, counts: &Counts) -> io::Result<OwnedFd> {
        let live = self.handle.live();
        let endpoints = live.load().runtime.carried(live.nanos() / 1_000_000);
        pack(&serde_json::to_vec(&Parcel { endpoints, counts: counts.clone() })?)
    }

    /// The last word of a retired worker.
    pub(super) fn tell_counts(&self, before: &Counts) {
        let Some(above) = &self.above else { return };
        let counts = Counts::read(&self.telemetry.render()).since(before);
        let packed = serde_json::to_vec(&counts).map_err(io::Error::from).and_then(|bytes| pack(&bytes));
        match packed {
            Ok(counts) => above.say_with(&FromWorker::Counted, Some(&counts)),
            Err(error) => warn!(%error, "what was counted since the successor serves is lost"),
        }
    }

    /// For those that retire and have requests that wait for a release.
    pub(super) fn say_held(&self) {
        if let Some(above) = &self.above {
            above.say(&FromWorker::Held { services: self.handle.held() });
        }
    }

    /// What an earlier process still has; `None`: it has ended.
    pub(super) fn retired(&self, pid: u32, left: Option<Left>) {
        let left = left.map(|Left { in_flight, connections }| {
            let of = |kind: Kind| Some((kind, *in_flight.get(kind.as_str())?));
            RetiredStatus { pid, in_flight: Kind::ALL.into_iter().filter_map(of).collect(), connections }
        });
        let all = self.handle.retired(pid, left);
        metrics::gauge!(names::RETIRED_WORKERS).set(all.len() as f64);
        for kind in Kind::ALL {
            let count: u64 = all.iter().filter_map(|one| one.in_flight.get(&kind)).sum();
            metrics::gauge!(names::RETIRED_IN_FLIGHT, "kind" => kind.as_str()).set(count as f64);
        }
    }

    /// How an upgrade ended, for whoever looks.
    pub(super) fn upgraded(&self, outcome: &Outcome) {
        tally(&outcome.tally);
        if outcome.pid != std::process::id() {
            return;
        }
        let data = serde_json::to_value(outcome).unwrap_or_default();
        let message = format!("upgrade {}: {}", outcome.result.as_str(), outcome.why);
        self.handle.events().emit(Event { kind: "upgrade", message: message.clone(), data, ..Event::default() });
        let (author, from) = match &outcome.asked {
            Some(asked) => (asked.author.clone(), asked.from.clone()),
            None => ("signal:SIGUSR2".into(), "signal".into()),
        };
        let binary = outcome.asked.as_ref().and_then(|asked| asked.binary.as_ref());
        let action = match binary {
            Some(binary) => format!("upgrade --binary {}", binary.display()).replace(char::is_control, " "),
            None => "upgrade".into(),
        };
        let generation = Some(self.handle.live().load().generation.number());
        self.handle.record_audit(AuditRecord { at: unix_ms(), author, from, action, result: message, generation });
    }
}

/// Says again and again what this process still has, until it ends.
pub async fn say_what_is_left(above: Option<Arc<Above>>, handle: Handle, connections: Arc<Connections>) {
    let Some(above) = above else { return };
    let mut said = (None, 0);
    loop {
        let left = left(&handle, &connections);
        if said.0.as_ref() != Some(&left) || said.1 >= LEFT_AGAIN {
            above.say(&FromWorker::Left(left.clone()));
            said = (Some(left), 0);
        }
        said.1 += 1;
        tokio::time::sleep(LEFT_EVERY).await;
    }
}

fn left(handle: &Handle, connections: &Connections) -> Left {
    let mut left = Left { connections: connections.open() as u64, ..Left::default() };
    let live = handle.live().load();
    let waiting = live.runtime.services.iter().map(|service| service.core.waiting.load(Ordering::Relaxed));
    let running = connections.running().into_iter().map(|running| (running.exchange.kind(), 1));
    for (kind, count) in running.chain(waiting.map(|count| (Kind::Http, count))).filter(|(_, count)| *count > 0) {
        *left.in_flight.entry(kind.as_str().into()).or_default() += count;
    }
    left
}

/// The supervisor counts: what it counts outlives the workers.
pub fn tally(tally: &Tally) {
    metrics::counter!(names::WORKER_RESTARTS_TOTAL).absolute(tally.restarts);
    for result in UpgradeResult::ALL {
        let count = tally.upgrades.get(&result).copied().unwrap_or(0);
        metrics::counter!(names::UPGRADES_TOTAL, "result" => result.as_str()).absolute(count);
    }
}
