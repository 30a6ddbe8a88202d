//! Names to addresses, in the background: a request never waits for a resolver.
//!
//! Each name is looked up by one task, whoever uses it: on its first use, and whenever its answer is no longer fresh.
//! A failed or empty answer keeps the last good one; an answer for one family of addresses keeps what was known of the
//! other.

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

/// Names that were learned together are not asked for together for ever: up to so much is added, in parts of the time.
const JITTER: f64 = 0.1;
const RETRY_MAX: Duration = Duration::from_secs(10);
/// After the first failure; doubled up to `RETRY_MAX` while it goes on. Never later than a good answer would be asked
/// for again.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// A lookup that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(10);
/// Of a longer answer, the first in order are used.
const ADDRESSES_MAX: usize = 64;

/// How a name is looked up: by DNS, or in a table of a test.
#[derive(Clone)]
pub(super) struct Lookup(Arc<Ask>);
type Ask = dyn Fn(String, u16) -> Pending + Send + Sync;
pub(super) type Pending = Pin<Box<dyn Future<Output = std::io::Result<Answer>> + Send>>;

/// What a name is, and how long it is worth nobody's while to ask again.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// At least one.
    pub addresses: Vec<SocketAddr>,
    pub fresh_for: Duration,
    /// Of this family nothing could be learned, and why.
    pub unknown: Option<(Family, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn has(self, address: &SocketAddr) -> bool {
        match self {
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        }
    }
}

impl Lookup {
    pub(super) fn new(ask: impl Fn(String, u16) -> Pending + Send + Sync + 'static) -> Lookup {
        Lookup(Arc::new(ask))
    }
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lookup")
    }
}

/// Who uses a name, and whom to wake.
pub(super) type Users = Vec<(Arc<VersionRuntime>, Arc<ServiceCore>)>;

#[derive(Debug, Default)]
struct Known {
    users: Users,
    /// The last good answer.
    answer: Option<Vec<SocketAddr>>,
    /// Why the last look-up failed.
    trouble: Option<String>,
}

impl Known {
    /// For status and metrics of who uses it.
    fn tell(&self, host: &str) {
        for (_, service) in &self.users {
            service.names.lock().expect("no holder panics").insert(host.into(), self.trouble.clone());
        }
    }

    /// Its users have this answer from now on. `Some`: what the name was before for one of them, if that was another.
    fn give(&self, name: &(String, u16), addresses: &[SocketAddr]) -> Option<Vec<SocketAddr>> {
        let mut changed = None;
        for (version, service) in &self.users {
            if let Some(before) = version.resolved(name, addresses) {
                service.changed.notify_waiters();
                changed = Some(before);
            }
        }
        changed
    }

    fn forget(&self, host: &str) {
        for (_, service) in &self.users {
            service.names.lock().expect("no holder panics").remove(host);
        }
    }
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
        let known = Known { users, ..Known::default() };
        known.tell(&name.0);
        let known = Arc::new(Mutex::new(known));
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
        known.forget(&self.name.0);
        known.users = users;
        known.tell(&self.name.0);
        if let Some(answer) = &known.answer {
            known.give(&self.name, answer);
        }
    }
}

impl Drop for NameWatch {
    fn drop(&mut self) {
        self.known.lock().expect("no holder panics").forget(&self.name.0);
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
        let mut fresh_for = RETRY_MAX;
        loop {
            let (host, port) = self.name.clone();
            let asked = tokio::time::timeout(DEADLINE, (self.lookup.0)(host, port)).await;
            let answer = match asked {
                Ok(Ok(answer)) if answer.addresses.is_empty() => Err("the answer has no address".to_string()),
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {DEADLINE:?}")),
            };
            let pause = match answer {
                Ok(answer) => {
                    failures = 0;
                    fresh_for = answer.fresh_for;
                    self.answered(answer);
                    fresh_for.mul_f64(1.0 + JITTER * random())
                }
                Err(why) => {
                    failures += 1;
                    self.failed(why, failures == 1);
                    (RETRY_MIN * (1 << failures.min(5)) / 2).min(RETRY_MAX).min(fresh_for.max(RETRY_MIN))
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn answered(&self, answer: Answer) {
        let Answer { mut addresses, unknown, .. } = answer;
        {
            let mut known = self.known.lock().expect("no holder panics");
            if let Some((family, _)) = &unknown {
                addresses.extend(known.answer.iter().flatten().filter(|address| family.has(address)));
            }
            let trouble = unknown.map(|(_, why)| why);
            if known.trouble != trouble {
                match &trouble {
                    Some(why) => warn!(host = self.name.0, why, "name is resolved in part"),
                    None => info!(host = self.name.0, "name is resolved again"),
                }
                known.trouble = trouble;
                known.tell(&self.name.0);
            }
        }
        // Resolvers shuffle: another order is not another answer.
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        let changed = {
            let mut known = self.known.lock().expect("no holder panics");
            known.answer = Some(addresses.clone());
            known.give(&self.name, &addresses)
        };
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

    /// An event and a warning at the first of several.
    fn failed(&self, why: String, is_first: bool) {
        let host = &self.name.0;
        let mut known = self.known.lock().expect("no holder panics");
        known.trouble = Some(why.clone());
        known.tell(host);
        if !is_first {
            return;
        }
        let mut kept = known.answer.is_some();
        let named = EndpointAddress::Name { host: host.clone(), port: self.name.1 };
        for endpoint in known.users.iter().flat_map(|(version, _)| version.endpoints_at(&named)) {
            kept |= endpoint.is_resolved();
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

    type Table = Result<Vec<&'static str>, &'static str>;

    /// A resolver that answers what `answer` holds at the time; counts its questions.
    fn table(answer: &Arc<Mutex<Table>>, asked: &Arc<Mutex<u32>>) -> Lookup {
        let (answer, asked) = (answer.clone(), asked.clone());
        Lookup::new(move |_, port| {
            *asked.lock().expect("no panic") += 1;
            let answer = answer.lock().expect("no panic").clone();
            Box::pin(async move {
                let ips = answer.map_err(std::io::Error::other)?;
                let address = |ip: &&str| SocketAddr::new(ip.parse().expect("an address"), port);
                let addresses = ips.iter().map(address).collect();
                // Nobody knows about IPv6.
                let unknown = Some((Family::V6, "timeout".to_string())).filter(|_| ips.contains(&"10.0.0.9"));
                Ok(Answer { addresses, fresh_for: Duration::from_secs(9), unknown })
            })
        })
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

        assert_eq!(service.names.lock().expect("no panic")["shop.internal"], None);

        *answer.lock().expect("no panic") = Err("SERVFAIL");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(addresses(&version), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(service.names.lock().expect("no panic")["shop.internal"].as_deref(), Some("SERVFAIL"));

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
        drop(watch);
        assert!(service.names.lock().expect("no panic").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_known_of_one_family_stays_as_it_was() {
        let answer = Arc::new(Mutex::new(Ok(vec!["10.0.0.1", "::1"])));
        let version = testing::named(&["shop.internal"], 1);
        let service = Arc::new(ServiceCore::default());
        let users = vec![(version.clone(), service.clone())];
        let (name, lookup) = (("shop.internal".to_string(), 80), table(&answer, &Arc::default()));
        let _watch = NameWatch::start(&Handle::current(), name, users, &lookup, &Events::default(), &Arc::default());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(addresses(&version), ["10.0.0.1:80", "[::1]:80"]);
        *answer.lock().expect("no panic") = Ok(vec!["10.0.0.9"]);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(addresses(&version), ["10.0.0.9:80", "[::1]:80"]);
        assert_eq!(service.names.lock().expect("no panic")["shop.internal"].as_deref(), Some("timeout"));
        *answer.lock().expect("no panic") = Ok(vec!["10.0.0.1"]);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(addresses(&version), ["10.0.0.1:80"], "now it is known that there is none");
    }
}
