//! Passive ejection: an endpoint that fails the traffic rests for a while, because its requests failed several times
//! in a row, or because it does worse than the others of its version (see [`super::peers`]). Who is ejected again and
//! again rests for longer each time.
//!
//! Data threads only count and, at the threshold, say so over a bounded channel; whether the endpoint
//! may go is decided here. The last ready endpoint of a version is never ejected: its failures are
//! still better than nothing, and the health check is there to say when it is really down.
//!
//! The same task says when a version is in panic (see [`super::panic`]).

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::checks::Services;
use super::group::VersionRuntime;
use super::panic::is_panic;
use super::peers::{Odd, odd_ones};
use super::state::{Ejection, EndpointRuntime};
use super::tally::Sum;
use crate::config::model::Outlier;
use crate::telemetry::{Event, Events, names};

/// Reports that may wait; more are dropped, since an endpoint that goes on failing is reported again.
const REPORTS_MAX: usize = 256;
/// How often it is looked whether a version is in panic, or a comparison is due.
const LOOK: Duration = Duration::from_millis(250);

/// How data threads tell what became of requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Passive {
    reports: mpsc::Sender<Report>,
}

#[derive(Debug)]
struct Report {
    endpoint: Arc<EndpointRuntime>,
    version: Arc<VersionRuntime>,
    policy: Outlier,
}

impl Passive {
    /// The endpoint answered: it is not failing in a row. A load and, after a failure, a store.
    pub fn succeeded(&self, endpoint: &EndpointRuntime) {
        if endpoint.failures_in_row.load(Ordering::Relaxed) != 0 {
            endpoint.failures_in_row.store(0, Ordering::Relaxed);
        }
    }

    /// The endpoint failed the request: no connection, no answer in time, a broken one. Never blocks.
    pub fn failed(&self, endpoint: &Arc<EndpointRuntime>, version: &Arc<VersionRuntime>, policy: Option<&Outlier>) {
        let Some(policy) = policy else {
            return;
        };
        let failures = endpoint.failures_in_row.fetch_add(1, Ordering::Relaxed) + 1;
        if failures.is_multiple_of(policy.consecutive_failures.max(1)) && !endpoint.is_ejected() {
            let report = Report { endpoint: endpoint.clone(), version: version.clone(), policy: policy.clone() };
            // Full or closed: the next failures report again, or nobody is interested any more.
            let _ = self.reports.try_send(report);
        }
    }
}

/// A live version and what its service says about endpoints that do badly.
#[derive(Debug)]
pub(super) struct Watched {
    pub version: Arc<VersionRuntime>,
    pub outlier: Option<Outlier>,
    pub panic_below_bp: u32,
}

/// All live versions.
pub(super) type Fleet = Mutex<Vec<Watched>>;

/// The deciding side.
pub(super) struct Ejections {
    reports: mpsc::Receiver<Report>,
    events: Events,
    services: Arc<Services>,
    fleet: Arc<Fleet>,
    /// One timer per ejected endpoint.
    resting: JoinSet<Arc<EndpointRuntime>>,
    /// By incarnation.
    past: HashMap<u64, Past>,
    /// By slot of the version.
    compared: HashMap<u32, Compared>,
}

/// How often an endpoint was ejected, as far as that is not forgotten.
#[derive(Debug, Clone, Copy)]
struct Past {
    times: u32,
    back: Instant,
}

/// What was known when the endpoints of a version were compared last.
struct Compared {
    at: Instant,
    sums: HashMap<u64, Sum>,
}

impl Ejections {
    pub(super) fn new(events: Events, services: Arc<Services>, fleet: Arc<Fleet>) -> (Passive, Ejections) {
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let ejections = Ejections {
            reports,
            events,
            services,
            fleet,
            resting: JoinSet::new(),
            past: HashMap::new(),
            compared: HashMap::new(),
        };
        (Passive { reports: sender }, ejections)
    }

    pub(super) async fn run(mut self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                report = self.reports.recv() => match report {
                    Some(Report { endpoint, version, policy }) => {
                        let failures = endpoint.failures_in_row.load(Ordering::Relaxed);
                        let why = format!("{failures} requests in a row failed");
                        self.consider(&endpoint, &version, &policy, "consecutive", why);
                    }
                    None => return,
                },
                Some(rested) = self.resting.join_next() => match rested {
                    Ok(endpoint) => self.back(&endpoint),
                    Err(error) => warn!(%error, "the timer of an ejected endpoint failed"),
                },
                _ = looks.tick() => self.look(Instant::now()),
            }
        }
    }

    fn look(&mut self, now: Instant) {
        let fleet = self.fleet.clone();
        let fleet = fleet.lock().expect("no holder panics");
        for watched in fleet.iter() {
            self.see_panic(watched);
            for endpoint in watched.version.endpoints().iter().filter(|endpoint| endpoint.is_ejected()) {
                self.inherit(endpoint, now);
            }
            if let Some(policy) = watched.outlier.as_ref().filter(|policy| policy.compares()) {
                self.compare(&watched.version, policy, now);
            }
        }
        if !self.past.is_empty() {
            let services = self.services.lock().expect("no holder panics");
            self.past.retain(|incarnation, _| services.contains_key(incarnation));
        }
        self.compared.retain(|slot, _| fleet.iter().any(|watched| watched.version.core.slot == *slot));
    }

    /// What an earlier process has ejected comes back when it would have there.
    fn inherit(&mut self, endpoint: &Arc<EndpointRuntime>, now: Instant) {
        let mut ejection = endpoint.ejection.lock().expect("no holder panics");
        if !std::mem::take(&mut ejection.inherited) {
            return;
        }
        let back = ejection.until.unwrap_or(now);
        self.past.insert(endpoint.incarnation, Past { times: ejection.times, back });
        self.rest(endpoint.clone(), back.saturating_duration_since(now));
    }

    fn see_panic(&self, watched: &Watched) {
        let core = &watched.version.core;
        let before = core.panic.load(Ordering::Relaxed);
        if watched.panic_below_bp == 0 && !before {
            return;
        }
        let group = watched.version.now();
        // What was never seen well or ill says nothing.
        let known = || group.endpoints.iter().filter(|endpoint| !endpoint.is_unknown());
        let (ready, all) = (known().filter(|endpoint| endpoint.is_ready()).count(), known().count());
        let panics = is_panic(ready, all, watched.panic_below_bp);
        if panics == before {
            return;
        }
        core.panic.store(panics, Ordering::Relaxed);
        let (service, version) = (&core.service, &core.name);
        let message = match panics {
            true => format!("{service} {version} is in panic: {ready} of {all} endpoints are ready, so all are asked"),
            false => format!("{service} {version} is out of panic: {ready} of {all} endpoints are ready"),
        };
        warn!(%service, %version, ready, all, panics, "panic mode");
        self.events.emit(Event {
            kind: "panic",
            service: Some(service.to_string()),
            version: Some(version.to_string()),
            message,
            data: json!({ "panic": panics, "ready": ready, "endpoints": all }),
        });
    }

    fn compare(&mut self, version: &Arc<VersionRuntime>, policy: &Outlier, now: Instant) {
        let endpoints = version.endpoints();
        let compared =
            self.compared.entry(version.core.slot).or_insert_with(|| Compared { at: now, sums: HashMap::new() });
        if compared.sums.len() == endpoints.len() && now.duration_since(compared.at) < policy.every {
            return;
        }
        let sums: HashMap<u64, Sum> =
            endpoints.iter().map(|endpoint| (endpoint.incarnation, endpoint.tally.sum())).collect();
        let before = std::mem::replace(&mut compared.sums, sums);
        let is_due = now.duration_since(std::mem::replace(&mut compared.at, now)) >= policy.every;
        if !is_due {
            return; // Endpoints came or went: what came since then is compared next time.
        }
        // Who rests is not compared, and what it did before is no measure for the others.
        let awake: Vec<&Arc<EndpointRuntime>> = endpoints.iter().filter(|endpoint| !endpoint.is_ejected()).collect();
        let since = |endpoint: &&Arc<EndpointRuntime>| {
            let before = before.get(&endpoint.incarnation).copied().unwrap_or_default();
            compared.sums.get(&endpoint.incarnation).copied().unwrap_or_default().since(&before)
        };
        let sums: Vec<Sum> = awake.iter().map(since).collect();
        for (at, odd) in odd_ones(&sums, policy.success_rate.as_ref(), policy.latency.as_ref()) {
            let reason = match odd {
                Odd::Failing { .. } => "success_rate",
                Odd::Slow { .. } => "latency",
            };
            self.consider(awake[at], version, policy, reason, odd.to_string());
        }
    }

    fn consider(
        &mut self,
        endpoint: &Arc<EndpointRuntime>,
        version: &VersionRuntime,
        policy: &Outlier,
        reason: &'static str,
        why: String,
    ) {
        if endpoint.is_ejected() || !may_eject(endpoint, version, policy.max_ejected_bp) {
            return;
        }
        let now = Instant::now();
        let past = self.past.get(&endpoint.incarnation);
        let times = past.map_or(0, |past| remembered(past.times, now.duration_since(past.back), policy.eject_for_max));
        let time = term(policy, times);
        self.past.insert(endpoint.incarnation, Past { times: times + 1, back: now + time });
        *endpoint.ejection.lock().expect("no holder panics") =
            Ejection { times: times + 1, until: Some(now + time), inherited: false };
        endpoint.set_ejected(true);
        endpoint.last_change.store(Arc::new(format!("ejected: {why}")));
        self.rest(endpoint.clone(), time);
        let (service, version) = (&endpoint.service, &endpoint.version);
        metrics::counter!(
            names::EJECTIONS_TOTAL,
            "service" => service.to_string(), "version" => version.to_string(), "reason" => reason
        )
        .increment(1);
        warn!(%service, %version, endpoint = endpoint.label(), reason, why, seconds = time.as_secs_f64(), "endpoint ejected");
        self.tell(endpoint, "ejected", why, time);
    }

    fn rest(&mut self, endpoint: Arc<EndpointRuntime>, time: Duration) {
        self.resting.spawn(async move {
            tokio::time::sleep(time).await;
            endpoint
        });
    }

    fn back(&self, endpoint: &Arc<EndpointRuntime>) {
        endpoint.failures_in_row.store(0, Ordering::Relaxed);
        endpoint.set_ejected(false);
        endpoint.last_change.store(Arc::new("back after ejection".into()));
        if let Some(service) = self.services.lock().expect("no holder panics").get(&endpoint.incarnation) {
            service.changed.notify_waiters();
        }
        let (service, version) = (&endpoint.service, &endpoint.version);
        info!(%service, %version, endpoint = endpoint.label(), "endpoint back after ejection");
        self.tell(endpoint, "back", "its time is over".into(), Duration::ZERO);
    }

    fn tell(&self, endpoint: &EndpointRuntime, to: &str, why: String, time: Duration) {
        let (address, service, version) = (endpoint.label(), &endpoint.service, &endpoint.version);
        self.events.emit(Event {
            kind: "ejected",
            service: Some(service.to_string()),
            version: Some(version.to_string()),
            message: format!("endpoint {address} of {service} {version} is {to}: {why}"),
            data: json!({ "endpoint": address, "to": to, "why": why, "for_ms": time.as_millis() as u64 }),
        });
    }
}

/// One may go if another is ready; more only up to the limit.
fn may_eject(endpoint: &EndpointRuntime, version: &VersionRuntime, max_ejected_bp: u32) -> bool {
    let endpoints = &version.now().endpoints;
    let others = || endpoints.iter().filter(|other| other.incarnation != endpoint.incarnation);
    if !others().any(|other| other.is_ready()) {
        return false;
    }
    let ejected = others().filter(|other| other.is_ejected()).count();
    let limit = endpoints.len() * max_ejected_bp as usize / 10_000;
    ejected < limit.max(1)
}

/// How long one rests that was ejected so many times before.
fn term(policy: &Outlier, times: u32) -> Duration {
    policy.eject_for.saturating_mul(1 << times.min(16)).min(policy.eject_for_max.max(policy.eject_for))
}

/// Of so many times, those that are not forgotten: one is for each `forget` since the last.
fn remembered(times: u32, since: Duration, forget: Duration) -> u32 {
    let forgotten = since.as_millis() / forget.as_millis().max(1);
    times.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
}

#[cfg(test)]
#[path = "outlier_tests.rs"]
mod tests;
