//! Names to addresses, in the background: a request never waits for a resolver.
//!
//! Each name is looked up by one task, whoever uses it, on its first use and every 5 to 10 s after
//! that. A failed or empty answer keeps the last good one.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::checks::random;
use super::group::VersionRuntime;
use super::state::ServiceCore;
use crate::config::model::EndpointAddress;
use crate::telemetry::{Event, Events};

const EVERY_MIN: Duration = Duration::from_secs(5);
const EVERY_MAX: Duration = Duration::from_secs(10);
/// After the first failure; doubled up to `EVERY_MAX` while it goes on.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// A lookup that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(5);
/// Of a longer answer, the first in order are used.
const ADDRESSES_MAX: usize = 64;

/// How a name is looked up: the system's resolver, or a table in tests.
#[derive(Clone)]
pub(super) struct Lookup(Arc<dyn Fn(String, u16) -> Pending + Send + Sync>);
pub(super) type Pending = Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>>;

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lookup")
    }
}

pub(super) fn system_lookup() -> Lookup {
    Lookup(Arc::new(|host, port| {
        Box::pin(async move { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) })
    }))
}

/// Who uses a name, and whom to wake.
pub(super) type Users = Vec<(Arc<VersionRuntime>, Arc<ServiceCore>)>;

#[derive(Debug, Default)]
struct Known {
    users: Users,
    /// The last good answer.
    answer: Option<Vec<SocketAddr>>,
}

/// Keeps one name resolved until dropped.
#[derive(Debug)]
pub(super) struct NameWatch {
    name: (String, u16),
    known: Arc<Mutex<Known>>,
    _task: AbortOnDropHandle<()>,
}

impl NameWatch {
    pub(super) fn start(
        runtime: &Handle,
        name: (String, u16),
        users: Users,
        lookup: &Lookup,
        events: &Events,
        resolved: &Arc<Notify>,
    ) -> NameWatch {
        let known = Arc::new(Mutex::new(Known { users, answer: None }));
        let resolver = Resolver {
            name: name.clone(),
            known: known.clone(),
            resolved: resolved.clone(),
            lookup: lookup.clone(),
            events: events.clone(),
        };
        NameWatch { name, known, _task: AbortOnDropHandle::new(runtime.spawn(resolver.run())) }
    }

    /// From now on for these versions; a new one has what is known at once.
    pub(super) fn serve(&self, users: Users) {
        let mut known = self.known.lock().expect("no holder panics");
        known.users = users;
        if let Some(answer) = &known.answer {
            for (version, service) in &known.users {
                if version.resolved(&self.name, answer).is_some() {
                    service.changed.notify_waiters();
                }
            }
        }
    }
}

struct Resolver {
    name: (String, u16),
    known: Arc<Mutex<Known>>,
    /// Told when there are other endpoints.
    resolved: Arc<Notify>,
    lookup: Lookup,
    events: Events,
}

impl Resolver {
    async fn run(self) {
        let mut failures = 0u32;
        loop {
            let (host, port) = self.name.clone();
            let asked = tokio::time::timeout(DEADLINE, (self.lookup.0)(host, port)).await;
            let answer = match asked {
                Ok(Ok(addresses)) if addresses.is_empty() => Err("the answer has no address".to_string()),
                Ok(Ok(addresses)) => Ok(addresses),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {DEADLINE:?}")),
            };
            let pause = match answer {
                Ok(addresses) => {
                    failures = 0;
                    self.answered(addresses);
                    EVERY_MIN + (EVERY_MAX - EVERY_MIN).mul_f64(random())
                }
                Err(why) => {
                    failures += 1;
                    if failures == 1 {
                        self.failed(&why);
                    }
                    (RETRY_MIN * (1 << failures.min(5)) / 2).min(EVERY_MAX)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn answered(&self, mut addresses: Vec<SocketAddr>) {
        // Resolvers shuffle: another order is not another answer.
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        let mut changed = None;
        {
            let mut known = self.known.lock().expect("no holder panics");
            for (version, service) in &known.users {
                if let Some(before) = version.resolved(&self.name, &addresses) {
                    service.changed.notify_waiters();
                    changed = Some(before);
                }
            }
            known.answer = Some(addresses.clone());
        }
        if let Some(before) = changed {
            self.resolved.notify_one();
            let text = |addresses: &[SocketAddr]| addresses.iter().map(|at| at.ip().to_string()).collect::<Vec<_>>();
            let (host, to) = (&self.name.0, text(&addresses));
            info!(host, addresses = ?to, "name resolved");
            self.events.emit(Event {
                kind: "resolved",
                message: format!("{host} is {}", to.join(", ")),
                data: json!({ "host": host, "from": text(&before), "to": to }),
                ..Event::default()
            });
        }
    }

    /// Told once, until an answer comes again.
    fn failed(&self, why: &str) {
        let host = &self.name.0;
        let known = self.known.lock().expect("no holder panics");
        let kept = known.answer.is_some();
        let named = EndpointAddress::Name { host: host.clone(), port: self.name.1 };
        for endpoint in known.users.iter().flat_map(|(version, _)| version.endpoints_at(&named)) {
            if !endpoint.is_resolved() {
                endpoint.last_change.store(Arc::new(format!("{host} cannot be resolved: {why}")));
            }
        }
        warn!(host, why, kept, "name cannot be resolved");
        let rest = if kept { "the last good answer is kept" } else { "it gets no traffic" };
        self.events.emit(Event {
            kind: "warning",
            message: format!("{host} cannot be resolved: {why}; {rest}"),
            data: json!({ "host": host, "why": why, "kept": kept }),
            ..Event::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::testing;

    type Answer = Result<Vec<&'static str>, &'static str>;

    /// A resolver that answers what `answer` holds at the time; counts its questions.
    fn table(answer: &Arc<Mutex<Answer>>, asked: &Arc<Mutex<u32>>) -> Lookup {
        let (answer, asked) = (answer.clone(), asked.clone());
        Lookup(Arc::new(move |_, port| {
            *asked.lock().expect("no panic") += 1;
            let answer = answer.lock().expect("no panic").clone();
            Box::pin(async move {
                let ips = answer.map_err(std::io::Error::other)?;
                Ok(ips.iter().map(|ip| SocketAddr::new(ip.parse().expect("an address"), port)).collect())
            })
        }))
    }

    fn addresses(version: &VersionRuntime) -> Vec<String> {
        version.endpoints().iter().filter_map(|endpoint| endpoint.ip()).map(|at| at.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_again_and_a_failure_keeps_the_last_answer() {
        let answer = Arc::new(Mutex::new(Ok(vec!["10.0.0.2", "10.0.0.1"])));
        let asked = Arc::new(Mutex::new(0));
        let events = Events::default();
        let version = testing::named(&["shop.internal"], 1);
        let service = Arc::new(ServiceCore::default());
        let woken = service.changed.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let users = vec![(version.clone(), service.clone())];
        let (name, lookup) = (("shop.internal".to_string(), 80), table(&answer, &asked));
        let watch = NameWatch::start(&Handle::current(), name, users, &lookup, &events, &Arc::default());
        assert_eq!((addresses(&version), version.endpoints().len()), (vec![], 1), "there, without an address");
        woken.await;
        assert_eq!(addresses(&version), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert!(version.endpoints().iter().all(|endpoint| endpoint.is_ready()), "an endpoint each");

        *answer.lock().expect("no panic") = Err("SERVFAIL");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(addresses(&version), ["10.0.0.1:80", "10.0.0.2:80"]);

        let before = version.endpoints();
        *answer.lock().expect("no panic") = Ok(vec!["10.0.0.3", "10.0.0.2"]);
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(addresses(&version), ["10.0.0.2:80", "10.0.0.3:80"]);
        assert!(Arc::ptr_eq(&before[1], &version.endpoints()[0]), "who stays is who it was");
        let (told, _) = events.subscribe(0);
        let kinds: Vec<_> = told.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["resolved", "warning", "resolved"], "each told once");

        let before = *asked.lock().expect("no panic");
        let late = testing::named(&["shop.internal"], 1);
        watch.serve(vec![(version, service.clone()), (late.clone(), service.clone())]);
        assert_eq!(addresses(&late), ["10.0.0.2:80", "10.0.0.3:80"], "a newcomer is not kept waiting");
        assert_eq!(*asked.lock().expect("no panic"), before);
        assert!(late.has_ready());
    }
}
