//! Made-up values that tests render.

use std::collections::BTreeMap;

use crate::control::api::*;
use crate::endpoints::Health;
use crate::sessions::Kind;

pub const NOW: u64 = 1_764_038_400_000;

fn weights(pairs: &[(&str, u32)]) -> BTreeMap<String, u32> {
    pairs.iter().map(|(version, weight)| (version.to_string(), *weight)).collect()
}

pub fn rollout() -> RolloutStatus {
    RolloutStatus {
        phase: "staged".into(),
        stable: "v1".into(),
        canary: "v2".into(),
        stage: 2,
        stages: vec![0.05, 0.25, 1.0],
        labels: ["5 %", "25 %", "100 %"].map(String::from).into(),
        since: NOW - 60_000,
        started: NOW - 360_000,
        hold_left_ms: Some(30_000),
        kept_until: None,
        why: Vec::new(),
        gate: None,
        missing: vec!["30 s of the stage's hold".into()],
        meters: Some(RolloutMeters {
            canary_requests: 250,
            canary_failures: 1,
            stable_requests: 750,
            stable_failures: 0,
            errors: 14.2,
            errors_limit: 200.0,
            errors_absolute: 14.2,
            errors_relative: 31.0,
            latency: 0.8,
            latency_limit: 100.0,
            proof: 20.0,
            proof_limit: 20.0,
            quick: None,
            canary_p50_ms: Some(3.04),
            canary_p95_ms: None,
            stable_p50_ms: Some(2.9),
            stable_p95_ms: Some(8.0),
            restarts: 0,
            copies: 0,
            copies_failed: 0,
        }),
    }
}

fn failed(id: &str, at: u64) -> FailedRequest {
    FailedRequest { id: id.into(), at, status: 500, endpoint: Some(([10, 0, 0, 2], 3000).into()) }
}

fn arm(requests: u64, failures: u64, p50: f64) -> RolloutArm {
    RolloutArm {
        requests,
        failures,
        p50_ms: Some(p50),
        p95_ms: Some(p50 * 2.5),
        p99_ms: None,
        first_failure: None,
        last_failure: None,
    }
}

/// A rollout that failed in its second stage.
pub fn report() -> RolloutReport {
    let start = NOW - 360_000;
    let evidence = |canary: (u64, u64), stable: (u64, u64), errors: f64| RolloutEvidence {
        canary: arm(canary.0, canary.1, 3.04),
        stable: arm(stable.0, stable.1, 2.9),
        stage_requests: canary.0,
        stage_failures: canary.1,
        errors_absolute: errors * 4.0,
        errors_relative: errors,
        errors_limit: 200.0,
        latency: 0.8,
        latency_limit: 100.0,
        proof: 0.9,
        proof_limit: 20.0,
        errors_max: 0.001,
        errors_ratio: 1.25,
        errors_max_at_100: 0.001,
        errors_below: 0.001,
        ..RolloutEvidence::default()
    };
    let mut broken = evidence((1_312, 9), (8_804, 1), 254.3);
    broken.canary.first_failure = Some(failed("7f3a-11", start + 241_000));
    broken.canary.last_failure = Some(failed("7f3a-98", start + 252_300));
    broken.shielded = 8;
    broken.restarts = 1;
    broken.statuses = vec![(500, 7), (0, 2)];
    let decision = |id, after, word: &str, reason: &str, stage, share, evidence: &RolloutEvidence| RolloutDecision {
        id,
        at: start + after,
        service: "shop".into(),
        rollout: start,
        stable: "v1".into(),
        canary: "v2".into(),
        stage,
        share,
        decision: word.into(),
        reason: reason.into(),
        why: "an endpoint of the canary is ready".into(),
        author: "rollout".into(),
        cause: format!("rollout v2 to {} %", share * 100.0),
        generation: Some(40 + id),
        evidence: evidence.clone(),
        receipt: None,
    };
    let mut decisions = vec![
        decision(1, 0, "start", "file", 0, 0.0, &evidence((0, 0), (0, 0), 0.0)),
        decision(2, 100, "advance", "evidence", 1, 0.05, &evidence((0, 0), (12, 0), 0.0)),
        decision(3, 180_100, "approve", "gate", 2, 0.25, &evidence((620, 0), (4_100, 1), 0.2)),
        decision(4, 252_300, "rollback", "errors", 2, 0.0, &broken),
    ];
    decisions[0].author = "file".into();
    decisions[0].cause = "edit of switchback.yaml".into();
    decisions[0].why = "v2 instead of v1".into();
    decisions[2].author = "admin:ada@127.0.0.1".into();
    decisions[2].why = "admin:ada@127.0.0.1 said so; 0 of 620 requests failed, 1 of 4100 on stable".into();
    decisions[3].why = "9 of 1312 requests failed, 1 of 8804 on stable".into();
    decisions[3].receipt = Some(RolloutReceipt {
        triggered_at: start + 252_300,
        published_at: start + 252_300,
        flip_micros: 61,
        last_old_start_micros: Some(38),
        in_flight_at_flip: 3,
        shielded: 8,
    });
    let samples = (0..=126_u64)
        .map(|nth| {
            let (after, failing) = (nth * 2_000, nth.saturating_sub(120));
            RolloutSample {
                at: start + after,
                stage: 1 + usize::from(after > 180_100),
                share: if after > 180_100 { 0.25 } else { 0.05 },
                canary_requests: nth * 10,
                canary_failures: failing * 9 / 6,
                stable_requests: nth * 70,
                stable_failures: u64::from(nth > 40),
                canary_p50_ms: Some(3.0 + (nth % 7) as f64 * 0.05),
                canary_p95_ms: (nth > 3).then_some(7.0 + (nth % 5) as f64 * 0.2),
                stable_p50_ms: Some(2.9 + (nth % 6) as f64 * 0.04),
                stable_p95_ms: Some(6.8 + (nth % 4) as f64 * 0.2),
                errors: 0.2 * 3.3_f64.powi(failing as i32),
                latency: 0.8 - nth as f64 * 0.004,
                proof: 1.003_f64.powi(nth as i32),
            }
        })
        .collect();
    let status = RolloutStatus {
        phase: "rolled_back".into(),
        since: start + 252_300,
        hold_left_ms: None,
        why: vec!["it failed more often than allowed and than stable".into()],
        missing: Vec::new(),
        ..rollout()
    };
    RolloutReport {
        service: "shop".into(),
        at: NOW,
        started: start,
        rollout: Some(status),
        evidence: broken,
        decisions,
        samples,
        earlier: Vec::new(),
    }
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
        in_flight_max: None,
        turned_away: 0,
        panic: false,
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
            refused: BTreeMap::new(),
            tls: None,
        }],
        services: vec![ServiceStatus {
            name: "shop".into(),
            held: false,
            maintenance: false,
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
        retired: vec![RetiredStatus {
            pid: 4711,
            in_flight: BTreeMap::from([(Kind::Sse, 1), (Kind::WebSocket, 2)]),
            connections: 3,
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
