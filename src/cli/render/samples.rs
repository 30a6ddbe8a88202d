//! Made-up values that tests render.

use std::collections::BTreeMap;

use crate::control::api::*;
use crate::endpoints::Health;
use crate::sessions::Kind;

pub const NOW: u64 = 1_764_038_400_000;

fn weights(pairs: &[(&str, u32)]) -> BTreeMap<String, u32> {
    pairs.iter().map(|(version, weight)| (version.to_string(), *weight)).collect()
}

pub fn receipt() -> Receipt {
    Receipt {
        generation: 43,
        changed: true,
        from: BTreeMap::from([("shop".into(), weights(&[("v1", 90), ("v2", 10)]))]),
        to: BTreeMap::from([("shop".into(), weights(&[("v1", 0), ("v2", 100)]))]),
        cause: "switch shop v2".into(),
        author: "admin:alice@127.0.0.1".into(),
        triggered_at: NOW,
        published_at: NOW,
        flip_micros: 38,
        last_old_start_micros: 1210,
        in_flight_at_flip: 41,
        shielded: 0,
        warnings: vec!["v2 has one healthy endpoint of two".into()],
    }
}

fn endpoint(address: &str, health: Health) -> EndpointStatus {
    EndpointStatus {
        address: address.into(),
        resolved: vec![address.into()],
        health,
        ejected: false,
        in_flight: 0,
        last_change: if health == Health::Down { "connection refused".into() } else { String::new() },
    }
}

fn version(name: &str, state: &str, weight: u32, share: f64) -> VersionStatus {
    VersionStatus {
        name: name.into(),
        state: state.into(),
        weight,
        target_share: share,
        realised_requests: share,
        realised_clients: Some(share),
        requests: 1000,
        errors: BTreeMap::new(),
        in_flight: BTreeMap::from([(Kind::Http, 2), (Kind::Sse, 0), (Kind::WebSocket, 1)]),
        endpoints: vec![endpoint("10.0.0.1:3000", Health::Healthy), endpoint("10.0.0.2:3000", Health::Down)],
    }
}

pub fn status() -> Status {
    let mut v2 = version("v2", "live", 10, 0.1);
    v2.errors = BTreeMap::from([("connect".into(), 3), ("reset".into(), 0)]);
    let mut gone = endpoint("shop-v0.internal:3000", Health::Unchecked);
    gone.resolved.clear();
    let mut v0 = version("v0", "draining", 0, 0.0);
    v0.realised_clients = None;
    v0.endpoints = vec![gone];
    Status {
        version: "0.1.0".into(),
        pid: 4242,
        started_at: NOW - 7_500_000,
        uptime_ms: 7_500_000,
        state: "ready".into(),
        generation: history()[0].clone(),
        generations_live: 2,
        config: ConfigStatus {
            source: "switchback.yaml".into(),
            last_reload_successful: true,
            last_reload_at: Some(NOW - 65_000),
            degraded: false,
            problems: vec![],
            rendered: None,
            unwatchable: None,
        },
        listeners: vec![ListenerStatus {
            name: "web".into(),
            address: "0.0.0.0:8080".into(),
            connections: 64,
            draining: false,
        }],
        services: vec![ServiceStatus {
            name: "shop".into(),
            held: false,
            waiting: 0,
            sticky: "cookie".into(),
            intent: weights(&[("v1", 100)]),
            effective: weights(&[("v0", 0), ("v1", 90), ("v2", 10)]),
            owner: "admin:alice@127.0.0.1".into(),
            owner_cause: Some("weights shop v1=90 v2=10".into()),
            owner_since: Some(NOW - 65_000),
            rollout: None,
            versions: vec![version("v1", "live", 90, 0.9), v2, v0],
        }],
        draining: vec![DrainStatus {
            service: "shop".into(),
            version: "v0".into(),
            since: NOW - 12_000,
            remaining: BTreeMap::from([(Kind::Http, 2), (Kind::WebSocket, 1), (Kind::Sse, 0)]),
            deadline: BTreeMap::from([(Kind::Http, NOW + 18_000), (Kind::WebSocket, NOW + 588_000)]),
            sessions_until: Some(NOW + 588_000),
            cut: 1,
            finished: false,
        }],
        confirm_until: Some(NOW + 90_000),
        warnings: vec!["v2 has one healthy endpoint of two".into()],
    }
}

pub fn history() -> Vec<GenerationInfo> {
    let generation = |number, author: &str, cause: &str, before, splits: &[(&str, u32)]| GenerationInfo {
        number,
        hash: "9f86d081884c7d659a2feaa0c55ad015".into(),
        author: author.into(),
        cause: cause.into(),
        at: NOW - before,
        splits: BTreeMap::from([("shop".into(), weights(splits))]),
    };
    vec![
        generation(42, "admin:alice@127.0.0.1", "weights shop v1=90 v2=10", 65_000, &[("v1", 90), ("v2", 10)]),
        generation(41, "file", "first configuration", 7_500_000, &[("v1", 100)]),
    ]
}

pub fn audit() -> Vec<AuditRecord> {
    let record = |action: &str, result: &str, generation| AuditRecord {
        at: NOW - 65_000,
        author: "admin:alice@127.0.0.1".into(),
        from: "127.0.0.1:51234".into(),
        action: action.into(),
        result: result.into(),
        generation,
    };
    vec![
        record("POST /api/v1/services/shop/switch", "refused (401): the call brings no token, or more than one", None),
        record("weights shop v1=90 v2=10", "done", Some(42)),
    ]
}

pub fn explanation() -> Explanation {
    Explanation {
        generation: 42,
        method: "GET".into(),
        host: "shop.test".into(),
        path: "/cart".into(),
        route: Some("shop".into()),
        action: "forward".into(),
        service: Some("shop".into()),
        version: Some("v2".into()),
        reason: Some("sticky".into()),
        bucket: Some(9312),
        endpoints: vec![endpoint("10.0.0.1:3000", Health::Healthy)],
        forwarded_path: Some("/cart".into()),
        status: None,
        steps: vec!["host shop.test: exact".into(), "path / matches /cart".into(), "bucket 9312 is v2's".into()],
    }
}
