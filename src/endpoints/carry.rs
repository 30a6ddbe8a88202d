//! What a process knows of endpoints and its successor would have to find out again: how they are, and what their
//! names resolve to. Without it, a new process would hold requests until the first checks have passed.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::state::{EndpointRuntime, Health, Runtime};
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
}

impl Carried {
    fn of(endpoint: &EndpointRuntime) -> Carried {
        Carried {
            service: endpoint.service.to_string(),
            version: endpoint.version.to_string(),
            endpoint: endpoint.authority(),
            address: endpoint.ip(),
            health: endpoint.health(),
            last_change: endpoint.last_change.load().to_string(),
        }
    }

    fn is_of(&self, endpoint: &EndpointRuntime) -> bool {
        *self.service == *endpoint.service
            && *self.version == *endpoint.version
            && self.address == endpoint.ip()
            && self.endpoint == endpoint.authority()
    }
}

impl Runtime {
    pub fn carried(&self) -> Vec<Carried> {
        self.endpoints().map(|endpoint| Carried::of(&endpoint)).collect()
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
                let Some(one) = carried.iter().find(|one| one.is_of(&endpoint)) else { continue };
                let is_verdict = matches!(one.health, Health::Healthy | Health::Failing | Health::Down);
                if endpoint.health() == Health::Unknown && is_verdict {
                    endpoint.set_health(one.health);
                    endpoint.last_change.store(std::sync::Arc::new(one.last_change.clone()));
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
        let text = serde_json::to_string(&before.carried()).expect("plain data");
        let after = runtime(&[1, 2, 3]);
        after.take_over(serde_json::from_str(&text).expect("as written"));
        let health: Vec<_> = after.endpoints().map(|endpoint| endpoint.health()).collect();
        assert_eq!(health, [Health::Healthy, Health::Down, Health::Unknown]);
    }
}
