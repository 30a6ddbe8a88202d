//! What a process knows of endpoints and its successor would have to find out again: how they are, what their names
//! resolve to, which are ejected and for how long, whether they are warm, how fast they answer. Without it, a new process
//! would hold requests until the first checks have passed, and ask who failed a moment ago.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::state::{Ejection, EndpointRuntime, Health, Runtime};
use crate::config::model::EndpointAddress;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    service: String,
    version: String,
    endpoint: String,
    /// Of a name: one of its addresses.
    address: Option<SocketAddr>,
    health: Health,
    last_change: String,
    /// Milliseconds until it is back, and how often it was ejected lately. `None`: it is not out.
    #[serde(default)]
    ejected: Option<(u64, u32)>,
    /// Answers, and milliseconds since the first.
    #[serde(default)]
    warm: Option<(u32, u64)>,
    /// Milliseconds.
    #[serde(default)]
    ready_for: u64,
    /// Microseconds; 0: nothing is known.
    #[serde(default)]
    latency: f64,
}

impl Carried {
    fn of(endpoint: &EndpointRuntime, now_ms: u64) -> Carried {
        let ejection = *endpoint.ejection.lock().expect("no holder panics");
        let left = ejection.until.map_or(0, |until| until.saturating_duration_since(Instant::now()).as_millis() as u64);
        Carried {
            service: endpoint.service.to_string(),
            version: endpoint.version.to_string(),
            endpoint: endpoint.authority(),
            address: endpoint.ip(),
            health: endpoint.health(),
            last_change: endpoint.last_change.load().to_string(),
            ejected: endpoint.is_ejected().then_some((left, ejection.times)),
            warm: endpoint.warmth.carried(now_ms),
            ready_for: endpoint.ready_for_ms(now_ms),
            latency: endpoint.latency.carried(now_ms),
        }
    }

    fn take_over(&self, endpoint: &EndpointRuntime) {
        let is_verdict = matches!(self.health, Health::Healthy | Health::Failing | Health::Down);
        if endpoint.health() == Health::Unknown && is_verdict {
            endpoint.set_health(self.health);
            endpoint.last_change.store(std::sync::Arc::new(self.last_change.clone()));
        }
        if let Some((left, times)) = self.ejected {
            let until = Some(Instant::now() + Duration::from_millis(left));
            *endpoint.ejection.lock().expect("no holder panics") = Ejection { times, until, inherited: true };
            endpoint.set_ejected(true);
            endpoint.last_change.store(std::sync::Arc::new(self.last_change.clone()));
        }
        if let Some(warm) = self.warm {
            endpoint.warmth.take_over(warm);
        }
        endpoint.was_ready_for_ms(self.ready_for);
        endpoint.latency.take_over(self.latency);
    }

    fn is_of(&self, endpoint: &EndpointRuntime) -> bool {
        *self.service == *endpoint.service
            && *self.version == *endpoint.version
            && self.address == endpoint.ip()
            && self.endpoint == endpoint.authority()
    }
}

impl Runtime {
    /// `now_ms`: on the clock of the data threads.
    pub fn carried(&self, now_ms: u64) -> Vec<Carried> {
        self.endpoints().map(|endpoint| Carried::of(&endpoint, now_ms)).collect()
    }

    /// Before anything watches the endpoints: what watches them goes on from there. What is known here already is
    /// not overruled.
    pub fn take_over(&self, carried: Vec<Carried>) {
        for version in self.services.iter().flat_map(|service| &service.versions) {
            let names: Vec<_> = version.names().collect();
            for name in names {
                let written = EndpointAddress::Name { host: name.0.clone(), port: name.1 };
                let known = version.endpoints_at(&written);
                if known.iter().any(|endpoint| endpoint.is_resolved()) {
                    continue;
                }
                let Some(of) = known.first() else { continue };
                let same = |one: &&Carried| {
                    *one.service == *of.service && *one.version == *of.version && one.endpoint == of.authority()
                };
                let mut addresses: Vec<_> = carried.iter().filter(same).filter_map(|one| one.address).collect();
                addresses.sort_unstable();
                addresses.dedup();
                if !addresses.is_empty() {
                    version.resolved(&name, &addresses);
                }
            }
            for endpoint in version.endpoints() {
                if let Some(one) = carried.iter().find(|one| one.is_of(&endpoint)) {
                    one.take_over(&endpoint);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::outcome::CodesRegistry;

    const WARM: Duration = Duration::from_secs(30);

    #[test]
    fn a_successor_goes_on_with_the_same_verdicts_and_checks_what_is_new() {
        let codes = std::sync::Arc::new(CodesRegistry::new(1));
        let runtime = |endpoints: &[u16]| {
            let service = testing::compiled("shop", &[("v1", endpoints)], true);
            testing::snapshot(vec![service], None, &codes).runtime.clone()
        };
        let before = runtime(&[1, 2]);
        let all: Vec<_> = before.endpoints().collect();
        all[0].set_health(Health::Healthy);
        all[1].set_health(Health::Down);
        for at in 0..200 {
            all[0].warmth.answered(60_000 + at, WARM);
        }
        all[0].latency.answered(5_000, 90_000);
        all[0].set_ejected(true);
        let until = Some(Instant::now() + Duration::from_secs(600));
        *all[0].ejection.lock().unwrap() = Ejection { times: 3, until, inherited: false };
        let text = serde_json::to_string(&before.carried(90_000)).expect("plain data");
        let after = runtime(&[1, 2, 3]);
        after.take_over(serde_json::from_str(&text).expect("as written"));
        let health: Vec<_> = after.endpoints().map(|endpoint| endpoint.health()).collect();
        assert_eq!(health, [Health::Healthy, Health::Down, Health::Unknown]);
        let all: Vec<_> = after.endpoints().collect();
        assert!(all[0].warmth.is_warm(2, WARM) && !all[1].warmth.is_warm(2, WARM), "warm is what was warm");
        assert!(all[0].latency.carried(0) > 4_900.0);
        assert_eq!(all.iter().map(|one| one.is_ejected()).collect::<Vec<_>>(), [true, false, false]);
        let ejection = *all[0].ejection.lock().unwrap();
        let left = ejection.until.expect("it ends").saturating_duration_since(Instant::now());
        assert!(ejection.times == 3 && ejection.inherited && left > Duration::from_secs(590), "{ejection:?}");
    }
}
