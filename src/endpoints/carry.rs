//! What a process knows of endpoints and its successor would have to find out again: how they are, and what their
//! names resolve to. Without it, a new process would hold requests until the first checks have passed.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::state::{EndpointRuntime, Health, Runtime};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    service: String,
    version: String,
    endpoint: String,
    health: Health,
    resolved: Vec<SocketAddr>,
    last_change: String,
}

impl Runtime {
    pub fn carried(&self) -> Vec<Carried> {
        let of = |endpoint: &EndpointRuntime| Carried {
            service: endpoint.service.to_string(),
            version: endpoint.version.to_string(),
            endpoint: endpoint.authority(),
            health: endpoint.health(),
            resolved: endpoint.resolved.load().to_vec(),
            last_change: endpoint.last_change.load().to_string(),
        };
        self.endpoints().map(|endpoint| of(endpoint)).collect()
    }

    /// Before anything watches the endpoints: what watches them goes on from there. What is known here already is
    /// not overruled.
    pub fn take_over(&self, carried: Vec<Carried>) {
        let mut known: std::collections::HashMap<_, _> = carried
            .into_iter()
            .map(|one| ((one.service.clone(), one.version.clone(), one.endpoint.clone()), one))
            .collect();
        for endpoint in self.endpoints() {
            let name = (endpoint.service.to_string(), endpoint.version.to_string(), endpoint.authority());
            let Some(one) = known.remove(&name) else { continue };
            if !endpoint.is_resolved() && !one.resolved.is_empty() {
                endpoint.set_resolved(one.resolved);
            }
            let is_verdict = matches!(one.health, Health::Healthy | Health::Failing | Health::Down);
            if endpoint.health() == Health::Unknown && is_verdict {
                endpoint.set_health(one.health);
                endpoint.last_change.store(std::sync::Arc::new(one.last_change));
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
        let all: Vec<_> = before.endpoints().cloned().collect();
        all[0].set_health(Health::Healthy);
        all[1].set_health(Health::Down);
        let text = serde_json::to_string(&before.carried()).expect("plain data");
        let after = runtime(&[1, 2, 3]);
        after.take_over(serde_json::from_str(&text).expect("as written"));
        let health: Vec<_> = after.endpoints().map(|endpoint| endpoint.health()).collect();
        assert_eq!(health, [Health::Healthy, Health::Down, Health::Unknown]);
    }
}
