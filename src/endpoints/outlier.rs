//! Passive ejection: an endpoint that fails the traffic several times in a row rests for a while.
//!
//! Data threads only count and, at the threshold, say so over a bounded channel; whether the endpoint
//! may go is decided here. The last ready endpoint of a version is never ejected: its failures are
//! still better than nothing, and the health check is there to say when it is really down.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::checks::Services;
use super::group::VersionRuntime;
use super::state::EndpointRuntime;
use crate::config::model::Outlier;
use crate::telemetry::{Event, Events};

/// Reports that may wait; more are dropped, since an endpoint that goes on failing is reported again.
const REPORTS_MAX: usize = 256;

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

/// The deciding side.
pub(super) struct Ejections {
    reports: mpsc::Receiver<Report>,
    events: Events,
    services: Arc<Services>,
    /// One timer per ejected endpoint.
    resting: JoinSet<Arc<EndpointRuntime>>,
}

impl Ejections {
    pub(super) fn new(events: Events, services: Arc<Services>) -> (Passive, Ejections) {
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        (Passive { reports: sender }, Ejections { reports, events, services, resting: JoinSet::new() })
    }

    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                report = self.reports.recv() => match report {
                    Some(report) => self.consider(&report),
                    None => return,
                },
                Some(rested) = self.resting.join_next() => match rested {
                    Ok(endpoint) => self.back(&endpoint),
                    Err(error) => warn!(%error, "the timer of an ejected endpoint failed"),
                },
            }
        }
    }

    fn consider(&mut self, report: &Report) {
        let Report { endpoint, version, policy } = report;
        if endpoint.is_ejected() || !may_eject(endpoint, version, policy.max_ejected_bp) {
            return;
        }
        endpoint.set_ejected(true);
        let failures = endpoint.failures_in_row.load(Ordering::Relaxed);
        endpoint.last_change.store(Arc::new(format!("ejected: {failures} requests in a row failed")));
        self.rest(endpoint.clone(), policy.eject_for);
        let address = endpoint.label();
        warn!(service = %endpoint.service, version = %endpoint.version, endpoint = address, failures, "endpoint ejected");
        self.tell(endpoint, "ejected", format!("{failures} requests in a row failed"), policy.eject_for);
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
        let address = endpoint.label();
        info!(service = %endpoint.service, version = %endpoint.version, endpoint = address, "endpoint back after ejection");
        self.tell(endpoint, "back", "its time is over".into(), Duration::ZERO);
    }

    fn tell(&self, endpoint: &EndpointRuntime, to: &str, why: String, time: Duration) {
        let (address, service, version) = (endpoint.label(), &endpoint.service, &endpoint.version);
        self.events.emit(Event {
            kind: "ejected",
            service: Some(service.to_string()),
            version: Some(version.to_string()),
            message: format!("endpoint {address} of {service} {version} is {to}: {why}"),
            data: json!({ "endpoint": address, "to": to, "for_ms": time.as_millis() as u64 }),
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

#[cfg(test)]
mod tests {
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::endpoints::{Health, ServiceCore, testing};

    struct World {
        passive: Passive,
        events: Events,
        services: Arc<Services>,
        _task: AbortOnDropHandle<()>,
    }

    fn world() -> World {
        let (events, services) = (Events::default(), Arc::<Services>::default());
        let (passive, ejections) = Ejections::new(events.clone(), services.clone());
        World { passive, events, services, _task: AbortOnDropHandle::new(tokio::spawn(ejections.run())) }
    }

    fn policy(max_ejected_bp: u32) -> Outlier {
        Outlier { consecutive_failures: 3, eject_for: Duration::from_secs(30), max_ejected_bp }
    }

    /// Fails `times`, then lets the deciding side run.
    async fn fail(world: &World, version: &Arc<VersionRuntime>, endpoint: usize, times: u32, bp: u32) {
        for _ in 0..times {
            world.passive.failed(&version.endpoints()[endpoint], version, Some(&policy(bp)));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    fn ejected(version: &VersionRuntime) -> Vec<bool> {
        version.endpoints().iter().map(|endpoint| endpoint.is_ejected()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_eject_for_a_while() {
        let (world, version) = (world(), testing::version(&[1, 2], 1));
        let service = Arc::new(ServiceCore::default());
        world.services.lock().expect("no panic").insert(version.endpoints()[0].incarnation, service.clone());
        fail(&world, &version, 0, 2, 5000).await;
        world.passive.succeeded(&version.endpoints()[0]);
        fail(&world, &version, 0, 2, 5000).await;
        assert_eq!(ejected(&version), [false, false], "never three in a row");
        fail(&world, &version, 0, 1, 5000).await;
        assert_eq!(ejected(&version), [true, false]);

        let back = service.changed.notified();
        tokio::time::sleep(Duration::from_secs(29)).await;
        assert_eq!(ejected(&version), [true, false]);
        back.await;
        assert_eq!(ejected(&version), [false, false]);
        let (told, _) = world.events.subscribe(0);
        let told: Vec<_> = told.iter().map(|event| event.data["to"].as_str().expect("a word")).collect();
        assert_eq!(told, ["ejected", "back"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_holds_but_one_may_always_go() {
        let (world, version) = (world(), testing::version(&[1, 2, 3, 4], 1));
        for endpoint in 0..4 {
            fail(&world, &version, endpoint, 3, 5000).await;
        }
        assert_eq!(ejected(&version), [true, true, false, false], "half of them");
        let (world, version) = (self::world(), testing::version(&[1, 2, 3, 4], 1));
        for endpoint in 0..4 {
            fail(&world, &version, endpoint, 3, 100).await;
        }
        assert_eq!(ejected(&version), [true, false, false, false], "1 % of four is none, one goes all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_ready_one_stays() {
        let world = world();
        let alone = testing::version(&[1], 1);
        fail(&world, &alone, 0, 9, 10_000).await;
        assert_eq!(ejected(&alone), [false]);
        let version = testing::version(&[1, 2], 1);
        version.endpoints()[1].set_health(Health::Down);
        fail(&world, &version, 0, 9, 10_000).await;
        assert_eq!(ejected(&version), [false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_policy_nothing_is_ejected() {
        let (world, version) = (world(), testing::version(&[1, 2], 1));
        for _ in 0..100 {
            world.passive.failed(&version.endpoints()[0], &version, None);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(ejected(&version), [false, false]);
    }
}
