//! What a worker gives to the one that takes over from it, and what becomes of it then.

use std::io;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::warn;

use super::above::Above;
use super::instance::Instance;
use crate::control::api::AuditRecord;
use crate::endpoints::Carried;
use crate::handover::{FromWorker, Outcome, Tally, UpgradeResult, pack, unpack};
use crate::telemetry::{Counts, Event, Telemetry, names, unix_ms};

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
        let endpoints = self.handle.live().load().runtime.carried();
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

/// The supervisor counts: what it counts outlives the workers.
pub fn tally(tally: &Tally) {
    metrics::counter!(names::WORKER_RESTARTS_TOTAL).absolute(tally.restarts);
    for result in UpgradeResult::ALL {
        let count = tally.upgrades.get(&result).copied().unwrap_or(0);
        metrics::counter!(names::UPGRADES_TOTAL, "result" => result.as_str()).absolute(count);
    }
}
