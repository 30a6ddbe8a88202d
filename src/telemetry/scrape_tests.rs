use std::time::Duration;

use super::super::exposition::strict;
use super::*;
use crate::endpoints::{Health, testing};
use crate::outcome::CodesRegistry;
use crate::routing::Thread;

const THREAD: Thread = Thread(0);

fn read(write: impl FnOnce(&mut Exposition)) -> BTreeMap<String, f64> {
    let mut out = Exposition::default();
    write(&mut out);
    strict::read(&out.finish())
}

#[test]
fn a_versions_cells_become_its_series() {
    let version = testing::version(&[], 1);
    for millis in [1, 4, 4, 90_000] {
        version.core.meter.answered(THREAD, Duration::from_millis(millis));
    }
    version.core.meter.failed(THREAD, ErrorClass::Reset);
    version.core.meter.retried_for(THREAD, RetryReason::Connect);
    version.core.in_flight.begin(THREAD, Kind::WebSocket);
    let mut series = Series::default();
    series.observe([&version.core].into_iter(), Instant::now());
    let seen = read(|out| {
        versions(&series.totals(), &[], out);
        retries(&series.retries(), out);
    });
    let at = |name: &str, more: &str| seen[&format!("switchback_{name}{{service=\"shop\",version=\"v1\"{more}}}")];
    assert_eq!(at("request_duration_seconds_bucket", ",le=\"0.0005\""), 0.0);
    assert_eq!(at("request_duration_seconds_bucket", ",le=\"0.001\""), 1.0);
    assert_eq!(at("request_duration_seconds_bucket", ",le=\"0.005\""), 3.0);
    assert_eq!(at("request_duration_seconds_bucket", ",le=\"60\""), 3.0);
    assert_eq!(at("request_duration_seconds_bucket", ",le=\"+Inf\""), 4.0);
    assert_eq!(at("request_duration_seconds_sum", ""), 90.009);
    assert_eq!(at("request_errors_total", ",class=\"reset\""), 1.0);
    assert_eq!(at("request_errors_total", ",class=\"timeout\""), 0.0, "there from the start");
    assert_eq!(at("in_flight", ",kind=\"websocket\""), 1.0);
    assert_eq!(seen["switchback_retries_total{service=\"shop\",reason=\"connect\"}"], 1.0);
}

#[test]
fn requests_are_by_service_version_route_and_code() {
    let registry = CodesRegistry::new(1);
    let key = |service: &str, version: &str| CodesKey {
        route: "web".into(),
        service: service.into(),
        version: version.into(),
    };
    registry.get(key("shop", "v1")).count(THREAD, 200);
    registry.get(key("shop", "v1")).count(THREAD, 502);
    registry.get(key("", "")).count(THREAD, 308);
    let seen = read(|out| requests(registry.snapshot(), out));
    let at = |labels: &str| seen[&format!("switchback_requests_total{{{labels}}}")];
    assert_eq!(at(r#"service="shop",version="v1",route="web",code="200""#), 1.0);
    assert_eq!(at(r#"service="shop",version="v1",route="web",code="502""#), 1.0);
    assert_eq!(at(r#"service="",version="",route="web",code="308""#), 1.0);
}

#[test]
fn endpoints_splits_drains_and_listeners_are_gauges() {
    let runtime = testing::runtime(&[("shop", testing::version(&[1, 2], 1))]);
    runtime.services[0].versions[0].endpoints()[1].set_health(Health::Down);
    let drain = |version: &str, finished| DrainStatus {
        service: "shop".into(),
        version: version.into(),
        since: 0,
        remaining: [(Kind::Http, 2), (Kind::Sse, 1)].into(),
        deadline: BTreeMap::new(),
        sessions_until: None,
        cut: 0,
        finished,
    };
    let listener = |address: &str, connections, draining| ListenerStatus {
        name: "web".into(),
        address: address.into(),
        connections,
        draining,
        refused: [("access".to_string(), connections)].into(),
        tls: None,
    };
    let row = |version, weight, requests| SplitRow {
        labels: [("service", "shop"), ("version", version)],
        weight,
        target: share_of(weight as u64, 4),
        requests,
        clients: None,
    };
    let seen = read(|out| {
        endpoints(&runtime, out);
        // The same version twice: it was removed, added and removed again while it drained.
        drains(&[drain("v1", false), drain("v1", false), drain("v0", true)], out);
        connections(&[listener("0.0.0.0:80", 3, true), listener("0.0.0.0:81", 4, false)], out);
        write_splits(&[row("v1", 1.0, Some(0.2)), row("v2", 3.0, None)], out);
    });
    let at = |series: &str| seen[&format!("switchback_{series}")];
    assert_eq!(at(r#"endpoint_healthy{service="shop",version="v1",endpoint="127.0.0.1:1"}"#), 1.0);
    assert_eq!(at(r#"endpoint_healthy{service="shop",version="v1",endpoint="127.0.0.1:2"}"#), 0.0);
    assert_eq!(at(r#"drain_remaining{service="shop",version="v1",kind="http"}"#), 4.0);
    assert!(!seen.keys().any(|series| series.contains("v0")), "a finished drain has no series");
    assert_eq!(at(r#"connections{listener="web"}"#), 7.0);
    assert_eq!(at(r#"hold_waiting{service="shop"}"#), 0.0);
    assert_eq!(at(r#"split_weight{service="shop",version="v2"}"#), 3.0);
    assert_eq!(at(r#"split_target_share{service="shop",version="v2"}"#), 0.75);
    assert_eq!(at(r#"split_realised_share{service="shop",version="v1",of="requests"}"#), 0.2);
    assert!(!seen.keys().any(|series| series.contains("of=\"clients\"")), "no clients, no share");
}
