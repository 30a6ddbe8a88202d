//! The tasks that watch endpoints: one per endpoint and check definition, one per name to resolve, one
//! for ejections. After every publish they are brought in line with what is live; a task whose endpoint
//! and definition did not change is not touched, so its counts in a row go on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::health::{Rules, Seen, Verdict, until_next};
use super::outlier::{Ejections, Fleet, Passive, Watched};
use super::probe::{Asked, probe};
use super::resolve::{Lookup, NameWatch, Users, system_lookup};
use super::state::{EndpointRuntime, Health, Runtime, ServiceCore};
use crate::config::model;
use crate::control::Snapshot;
use crate::control::ports::Endpoints;
use crate::telemetry::{Event, Events};

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
    /// A name has other addresses: there are other endpoints.
    resolved: Arc<Notify>,
    _ejections: AbortOnDropHandle<()>,
}

pub(super) type Services = Mutex<HashMap<u64, Arc<ServiceCore>>>;

#[derive(Debug, Default)]
struct State {
    /// What the tasks were last brought in line with.
    current: Weak<Runtime>,
    /// The check of each of its services.
    definitions: Box<[Option<model::Health>]>,
    checks: HashMap<u64, Running>,
    names: BTreeMap<(String, u16), NameWatch>,
    follows_names: Option<AbortOnDropHandle<()>>,
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
        let resolved = Arc::<Notify>::default();
        let state = Mutex::default();
        let checks = Arc::new(Checks {
            runtime,
            events,
            lookup,
            passive,
            state,
            services,
            fleet,
            resolved: resolved.clone(),
            _ejections: ejections,
        });
        let follower = checks.runtime.spawn(follow_names(Arc::downgrade(&checks), resolved));
        checks.state.lock().expect("nobody else has it").follows_names = Some(AbortOnDropHandle::new(follower));
        checks
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
        state.definitions = (0..live.services.len()).map(check_of).collect();
        self.watch(&mut state, live);
    }

    /// The endpoints are others than they were, under the same table.
    fn follow(&self) {
        let mut state = self.state.lock().expect("no holder panics");
        if let Some(live) = state.current.upgrade() {
            self.watch(&mut state, &live);
        }
    }

    fn watch(&self, state: &mut State, live: &Arc<Runtime>) {
        // Names first: what is known of them already makes endpoints.
        let mut named: BTreeMap<(String, u16), Users> = BTreeMap::new();
        for service in &live.services {
            for version in &service.versions {
                for name in version.names() {
                    named.entry(name).or_default().push((version.clone(), service.core.clone()));
                }
            }
        }
        state.names.retain(|name, _| named.contains_key(name));
        for (name, users) in named {
            match state.names.get(&name) {
                Some(watch) => watch.serve(users),
                None => {
                    let (lookup, resolved) = (&self.lookup, &self.resolved);
                    let watch = NameWatch::start(&self.runtime, name.clone(), users, lookup, &self.events, resolved);
                    state.names.insert(name, watch);
                }
            }
        }
        let mut before = std::mem::take(&mut state.checks);
        let mut services = HashMap::new();
        for (service, definition) in live.services.iter().zip(&state.definitions) {
            for endpoint in service.versions.iter().flat_map(|version| version.endpoints()) {
                services.insert(endpoint.incarnation, service.core.clone());
                let running = before.remove(&endpoint.incarnation);
                match (definition, running) {
                    (Some(definition), Some(running)) if running.definition == *definition => {
                        state.checks.insert(endpoint.incarnation, running);
                    }
                    (Some(definition), running) => {
                        drop(running);
                        endpoint.check_is(true);
                        state.checks.insert(endpoint.incarnation, self.check(&endpoint, &service.core, definition));
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

async fn follow_names(checks: Weak<Checks>, resolved: Arc<Notify>) {
    loop {
        resolved.notified().await;
        match checks.upgrade() {
            Some(checks) => checks.follow(),
            None => return,
        }
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
        let Some(at) = &self.endpoint.at else {
            // A name without an address: told by the resolver, and each address will be another endpoint.
            return;
        };
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
            let Asked { seen, instance } = probe(&self.definition.check, at, &authority, self.definition.timeout).await;
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
            // Why it gets no traffic is told as it is now, not as it was when the traffic was taken from it.
            let told = match (before, seen) {
                (Health::Unknown, Seen::Pass) => format!("not trusted yet: {why}"),
                (Health::Unknown, _) => format!("no pass yet: {why}"),
                (Health::Failing | Health::Down, Seen::Pass) if still.is_zero() => return,
                (Health::Failing | Health::Down, _) => format!("{}: {why}", word(before)),
                (Health::Unchecked | Health::Healthy, _) => return,
            };
            self.endpoint.last_change.store(Arc::new(told));
            return;
        };
        self.endpoint.set_health(health);
        self.endpoint.last_change.store(Arc::new(format!("{}: {why}", word(health))));
        let was_out = matches!(before, Health::Failing | Health::Down);
        let is_out = matches!(health, Health::Failing | Health::Down | Health::Unknown);
        if was_out && is_out {
            return; // It only fails in another way.
        }
        let (service, version, endpoint) = (&self.endpoint.service, &self.endpoint.version, self.endpoint.label());
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
