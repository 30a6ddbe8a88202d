//! The tasks that watch endpoints: one per endpoint and check definition, one per name to resolve, one
//! for ejections. After every publish they are brought in line with what is live; a task whose endpoint
//! and definition did not change is not touched, so its counts in a row go on.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::json;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::health::{Rules, Seen, Verdict, until_next};
use super::outlier::{Ejections, Fleet, Passive, Watched};
use super::probe::{Asked, probe};
use super::resolve::{Lookup, NameWatch, Users, system_lookup};
use super::state::{EndpointRuntime, Health, Runtime, ServiceCore};
use crate::config::model::{self, EndpointAddress};
use crate::control::Snapshot;
use crate::control::ports::Endpoints;
use crate::telemetry::{Event, Events};

/// Of the addresses of one name, at most this many are checked.
const ADDRESSES_MAX: usize = 16;
/// An endpoint that waits for its first pass is asked at least this often.
const FIRST_PASS_EVERY: Duration = Duration::from_secs(1);

/// All health checks, resolutions and ejections of the process.
#[derive(Debug)]
pub struct Checks {
    runtime: Handle,
    events: Events,
    lookup: Lookup,
    passive: Passive,
    state: Mutex<State>,
    /// The service of each live endpoint, by incarnation: whom to wake.
    services: Arc<Services>,
    /// What is compared, and may panic.
    fleet: Arc<Fleet>,
    _ejections: AbortOnDropHandle<()>,
}

pub(super) type Services = Mutex<HashMap<u64, Arc<ServiceCore>>>;

#[derive(Debug, Default)]
struct State {
    /// What the tasks were last brought in line with.
    current: Weak<Runtime>,
    checks: HashMap<u64, Running>,
    names: BTreeMap<(String, u16), NameWatch>,
}

#[derive(Debug)]
struct Running {
    definition: model::Health,
    /// Set to false, under its lock, before the task is ended: it will not touch the endpoint again.
    on: Arc<Mutex<bool>>,
    _task: AbortOnDropHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.on.lock().expect("no holder panics") = false;
    }
}

impl Checks {
    /// Runs its tasks on `runtime`; they end when the last reference to the `Checks` is dropped.
    pub fn start(runtime: Handle, events: Events) -> Arc<Checks> {
        Checks::start_with(runtime, events, system_lookup())
    }

    pub(super) fn start_with(runtime: Handle, events: Events, lookup: Lookup) -> Arc<Checks> {
        let (services, fleet) = (Arc::<Services>::default(), Arc::<Fleet>::default());
        let (passive, ejections) = Ejections::new(events.clone(), services.clone(), fleet.clone());
        let ejections = AbortOnDropHandle::new(runtime.spawn(ejections.run()));
        Arc::new(Checks {
            runtime,
            events,
            lookup,
            passive,
            state: Mutex::default(),
            services,
            fleet,
            _ejections: ejections,
        })
    }

    /// For the data threads: how they tell what became of requests.
    pub fn passive(&self) -> Passive {
        self.passive.clone()
    }

    /// As [`Endpoints::reconcile`]; `services` gives each service's check by the index of `live`.
    pub(super) fn bring_in_line(&self, live: &Arc<Runtime>, check_of: impl Fn(usize) -> Option<model::Health>) {
        let mut state = self.state.lock().expect("no holder panics");
        if std::ptr::eq(state.current.as_ptr(), Arc::as_ptr(live)) {
            return;
        }
        state.current = Arc::downgrade(live);
        let mut before = std::mem::take(&mut state.checks);
        let mut services = HashMap::new();
        let mut named: BTreeMap<(String, u16), Users> = BTreeMap::new();
        for (at, service) in live.services.iter().enumerate() {
            let definition = check_of(at);
            for endpoint in service.versions.iter().flat_map(|version| &version.endpoints) {
                services.insert(endpoint.incarnation, service.core.clone());
                match &endpoint.address {
                    EndpointAddress::Ip(_) => {}
                    EndpointAddress::Name { host, port } => {
                        let users = named.entry((host.clone(), *port)).or_default();
                        users.push((endpoint.clone(), service.core.clone()));
                    }
                }
                let running = before.remove(&endpoint.incarnation);
                match (&definition, running) {
                    (Some(definition), Some(running)) if running.definition == *definition => {
                        state.checks.insert(endpoint.incarnation, running);
                    }
                    (Some(definition), running) => {
                        drop(running);
                        endpoint.check_is(true);
                        state.checks.insert(endpoint.incarnation, self.check(endpoint, &service.core, definition));
                    }
                    (None, running) => {
                        drop(running);
                        // Again, although the runtime was built with it: the check may have spoken since.
                        endpoint.check_is(false);
                    }
                }
            }
        }
        *self.services.lock().expect("no holder panics") = services;
        state.names.retain(|name, _| named.contains_key(name));
        for (name, users) in named {
            match state.names.get(&name) {
                Some(watch) => watch.serve(users),
                None => {
                    let watch = NameWatch::start(&self.runtime, name.clone(), users, &self.lookup, &self.events);
                    state.names.insert(name, watch);
                }
            }
        }
    }

    fn check(
        &self,
        endpoint: &Arc<EndpointRuntime>,
        service: &Arc<ServiceCore>,
        definition: &model::Health,
    ) -> Running {
        let on = Arc::new(Mutex::new(true));
        let watch = Watch {
            endpoint: endpoint.clone(),
            service: service.clone(),
            definition: definition.clone(),
            events: self.events.clone(),
            on: on.clone(),
        };
        let task = AbortOnDropHandle::new(self.runtime.spawn(watch.run()));
        Running { definition: definition.clone(), on, _task: task }
    }
}

impl Endpoints for Checks {
    fn reconcile(&self, live: &Arc<Snapshot>) {
        let table = &live.generation.table;
        let watched = live.runtime.services.iter().zip(&table.services).flat_map(|(runtime, compiled)| {
            runtime.versions.iter().map(|version| Watched {
                version: version.clone(),
                outlier: compiled.service.outlier.clone(),
                panic_below_bp: compiled.service.panic_below_bp,
            })
        });
        *self.fleet.lock().expect("no holder panics") = watched.collect();
        self.bring_in_line(&live.runtime, |service| table.services[service].service.health.clone());
    }
}

/// Watches one endpoint by one definition.
struct Watch {
    endpoint: Arc<EndpointRuntime>,
    service: Arc<ServiceCore>,
    definition: model::Health,
    events: Events,
    on: Arc<Mutex<bool>>,
}

impl Watch {
    async fn run(self) {
        let flaps = *self.endpoint.flaps.lock().expect("no holder panics");
        let mut verdict = Verdict::from(self.endpoint.health(), flaps);
        let mut restarts = self.endpoint.restarts();
        let authority = self.endpoint.authority();
        // Who waits for a first pass is asked at once; the others are spread over their interval.
        let spread = if verdict.health() == Health::Unknown {
            (self.definition.every / 20).min(Duration::from_millis(50))
        } else {
            self.definition.every
        };
        tokio::time::sleep(spread.mul_f64(random())).await;
        loop {
            if !self.endpoint.is_resolved() {
                // Not the endpoint's fault, and told by the resolver: nothing to count.
                tokio::time::sleep(self.definition.every.min(FIRST_PASS_EVERY)).await;
                continue;
            }
            let Asked { seen, instance } = self.ask(&authority).await;
            match &seen {
                Seen::Pass | Seen::Wrong(_) => self.endpoint.took_connection(true),
                Seen::Refused(_) => self.endpoint.took_connection(false),
                // It may have connected or not.
                Seen::Silent(_) => {}
            }
            if let Some(instance) = instance {
                self.endpoint.answered_as(instance);
            }
            let is_another = std::mem::replace(&mut restarts, self.endpoint.restarts()) != restarts;
            self.judge(&mut verdict, &seen, is_another);
            let every = match verdict.health() {
                Health::Unknown => self.definition.every.min(FIRST_PASS_EVERY),
                Health::Unchecked | Health::Healthy | Health::Failing | Health::Down => self.definition.every,
            };
            tokio::time::sleep(until_next(every, self.definition.jitter_bp, random())).await;
        }
    }

    /// Asks every address: the endpoint is as well as the best of them, and only the well ones serve.
    async fn ask(&self, authority: &str) -> Asked {
        let addresses: Vec<SocketAddr> = self.endpoint.resolved.load().iter().copied().take(ADDRESSES_MAX).collect();
        match addresses.as_slice() {
            [one] => probe(&self.definition.check, *one, authority, self.definition.timeout).await,
            [..] => {
                let mut asked = JoinSet::new();
                for address in addresses {
                    let (definition, authority) = (self.definition.clone(), authority.to_string());
                    asked.spawn(async move {
                        (address, probe(&definition.check, address, &authority, definition.timeout).await.seen)
                    });
                }
                let mut well = Vec::new();
                let mut worst = Seen::Silent("no address answers".into());
                while let Some(asked) = asked.join_next().await {
                    match asked {
                        Ok((address, Seen::Pass)) => well.push(address),
                        Ok((_, seen @ Seen::Wrong(_))) => worst = seen,
                        Ok((_, seen @ (Seen::Silent(_) | Seen::Refused(_)))) => {
                            if !matches!(worst, Seen::Wrong(_)) {
                                worst = seen;
                            }
                        }
                        Err(error) => worst = Seen::Silent(format!("the check itself failed: {error}")),
                    }
                }
                well.sort_unstable();
                let seen = if well.is_empty() { worst } else { Seen::Pass };
                self.endpoint.set_serving(well);
                seen.into()
            }
        }
    }

    /// `is_another`: its process has started again since the check before.
    fn judge(&self, verdict: &mut Verdict, seen: &Seen, is_another: bool) {
        let on = self.on.lock().expect("no holder panics");
        if !*on {
            return;
        }
        let before = verdict.health();
        let (rules, now) = (Rules::of(&self.definition), tokio::time::Instant::now());
        let restarted = is_another.then(|| verdict.restart(&rules, now)).flatten();
        let changed = verdict.count(seen, &rules, now).or(restarted).filter(|health| *health != before);
        *self.endpoint.flaps.lock().expect("no holder panics") = verdict.flaps();
        let still = verdict.still_to_pass(&rules, now);
        let why = match seen {
            Seen::Pass if changed == Some(Health::Unknown) => {
                format!("its process has started again ({} of {} checks passed)", verdict.passes(), rules.pass)
            }
            Seen::Pass if changed.is_none() && before != Health::Healthy && !still.is_zero() => {
                format!("it came and went, and must pass for {:.1} s more", still.as_secs_f64())
            }
            Seen::Pass => "the check passes".to_string(),
            Seen::Wrong(why) | Seen::Silent(why) | Seen::Refused(why) => {
                format!("{why} ({} in a row)", verdict.failures())
            }
        };
        let Some(health) = changed else {
            match (before, seen) {
                (Health::Unknown, Seen::Pass) => {
                    self.endpoint.last_change.store(Arc::new(format!("not trusted yet: {why}")));
                }
                (Health::Unknown, _) => self.endpoint.last_change.store(Arc::new(format!("no pass yet: {why}"))),
                (Health::Failing | Health::Down, Seen::Pass) if !still.is_zero() => {
                    self.endpoint.last_change.store(Arc::new(format!("{}: {why}", word(before))));
                }
                (Health::Unchecked | Health::Healthy | Health::Failing | Health::Down, _) => {}
            }
            return;
        };
        self.endpoint.set_health(health);
        self.endpoint.last_change.store(Arc::new(format!("{}: {why}", word(health))));
        let was_out = matches!(before, Health::Failing | Health::Down);
        let is_out = matches!(health, Health::Failing | Health::Down | Health::Unknown);
        if was_out && is_out {
            return; // It only fails in another way.
        }
        let (service, version, endpoint) = (&self.endpoint.service, &self.endpoint.version, self.endpoint.authority());
        if is_out {
            warn!(%service, %version, endpoint, health = word(health), why, "endpoint is out");
        } else {
            info!(%service, %version, endpoint, health = word(health), "endpoint is ready");
            self.service.changed.notify_waiters();
        }
        self.events.emit(Event {
            kind: "health",
            service: Some(service.to_string()),
            version: Some(version.to_string()),
            message: format!("endpoint {endpoint} of {service} {version} is {}: {why}", word(health)),
            data: json!({ "endpoint": endpoint, "from": word(before), "to": word(health), "why": why }),
        });
    }
}

/// As in JSON.
pub(super) fn word(health: Health) -> &'static str {
    match health {
        Health::Unknown => "unknown",
        Health::Unchecked => "unchecked",
        Health::Healthy => "healthy",
        Health::Failing => "failing",
        Health::Down => "down",
    }
}

/// Between 0 and 1, to spread what would happen at once. A source without randomness spreads nothing.
pub(super) fn random() -> f64 {
    getrandom::u32().map_or(0.0, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
