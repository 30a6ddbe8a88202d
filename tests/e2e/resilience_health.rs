//! Who is trusted: gRPC checks, processes that started again, endpoints that do worse than their peers, panic mode,
//! and circuits.

use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::codegen::Service;
use tonic_health::ServingStatus;

use crate::harness::load::Plan;
use crate::harness::*;

async fn endpoint(world: &World, nth: usize) -> serde_json::Value {
    world.version_status("shop", "v1").await["endpoints"][nth].clone()
}

async fn told(world: &World, kind: &str, words: &str) -> bool {
    world.events().await.iter().any(|event| event["kind"] == kind && event.to_string().contains(words))
}

#[tokio::test]
async fn a_grpc_check_asks_for_the_service() {
    let mut world = World::new();
    let listener = tokio::net::TcpListener::bind(world.unused()).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("shop.Cart", ServingStatus::Serving).await;
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepting");
            let health = health.clone();
            let service = service_fn(move |request| Service::call(&mut health.clone(), request));
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
        }
    });
    let text = format!(
        "routes:\n  - {{ name: all, match: {{ path_prefix: / }}, service: shop }}\nservices:\n  shop:\n    versions: {{ \
         v1: {{ endpoints: [\"{address}\"] }} }}\n    active: v1\n    health: {{ grpc: {{ service: shop.Cart }}, every: \
         100ms, timeout: 1s, pass: 1, fail: 1, damping: 0s }}\n"
    );
    world.start(&text).await;
    world.until_health("v1", "healthy").await;
    reporter.set_service_status("shop.Cart", ServingStatus::NotServing).await;
    world.until_health("v1", "failing").await;
    let why = endpoint(&world, 0).await["last_change"].to_string();
    assert!(why.contains("NOT_SERVING"), "{why}");
    assert!(told(&world, "health", "NOT_SERVING").await);
    reporter.set_service_status("shop.Cart", ServingStatus::Serving).await;
    world.until_health("v1", "healthy").await;
    serving.abort();
}

#[tokio::test]
async fn a_process_that_started_again_is_unknown_until_it_has_passed() {
    let mut world = World::new();
    let (one, two) = (world.origin("v1").await, world.origin("v1").await);
    let check = "health: { path: /healthz, every: 300ms, timeout: 1s, pass: 4, fail: 100, damping: 0s, instance_header: x-instance }";
    world.start(&one_service(&[&one, &two], &format!("active: v1\n{check}"))).await;
    let healthy = |nth: usize| {
        let world = &world;
        async move { endpoint(world, nth).await["health"] == "healthy" }
    };
    until("both are healthy", || async { healthy(0).await && healthy(1).await }).await;
    // Traffic sees the refusal, checks see who answers again.
    two.stop().await;
    let before = one.requests();
    for _ in 0..6 {
        assert_eq!(world.get("/").await.status, 200);
    }
    assert_eq!(one.requests() - before, 6);
    let address = two.address;
    drop(two);
    // The same by name, as far as one can see.
    let two = Origin::instance("v1", "1", address).await;
    until("it is unknown", || async { endpoint(&world, 1).await["health"] == "unknown" }).await;
    let why = endpoint(&world, 1).await["last_change"].to_string();
    assert!(why.contains("started again") || why.contains("not trusted yet"), "{why}");
    until("it has passed", || healthy(1)).await;
    assert!(told(&world, "health", "its process has started again").await);
    // Another instance that no refusal came before.
    two.stop().await;
    drop(two);
    let _three = Origin::instance("v1", "2", address).await;
    until("it is unknown", || async { endpoint(&world, 1).await["health"] == "unknown" }).await;
    until("it has passed", || healthy(1)).await;
}

#[tokio::test]
async fn an_endpoint_that_does_worse_than_its_peers_is_ejected() {
    let mut world = World::new();
    let all = [world.origin("v1").await, world.origin("v1").await, world.origin("v1").await];
    all.iter().for_each(Origin::stop_recording);
    let more = "active: v1\noutlier: { consecutive_failures: 1000, every: 1s, eject_for: 1s, success_rate: { \
                min_requests: 20 }, latency: { max_ratio: 3, at_least: 50ms, min_requests: 10 } }\nretry: { attempts: 0 }";
    world.start(&one_service(&all.iter().collect::<Vec<_>>(), more)).await;
    let load = Load::start(world.web(), &Plan { keep_alive: 6, fresh: 0, ..Plan::default() });
    load.more(200).await;
    // Neither the same failure for all, nor nothing at all, is odd.
    assert!(world.metric("switchback_ejections_total", &[]).await == 0.0);
    let ejected = |reason: &'static str| {
        let world = &world;
        async move { world.metric("switchback_ejections_total", &[("service", "shop"), ("reason", reason)]).await >= 1.0 }
    };
    all[1].set(Fault::StatusEvery(2, 500));
    until("it is ejected for its failures", || ejected("success_rate")).await;
    all[1].set(Fault::None);
    all[2].set(Fault::Late(Duration::from_millis(400)));
    until("it is ejected for its slowness", || ejected("latency")).await;
    assert!(told(&world, "ejected", "of its requests failed").await);
    assert!(told(&world, "ejected", "half of its answers took longer").await);
    drop(load);
}

#[tokio::test]
async fn with_too_few_ready_all_are_asked() {
    let mut world = World::new();
    let (one, two) = (world.origin("v1").await, world.origin("v1").await);
    let check = "health: { path: /healthz, every: 100ms, timeout: 1s, pass: 1, fail: 1, damping: 0s }";
    let text = one_service(&[&one, &two], &format!("active: v1\n{check}\npanic_below: 60%"));
    world.start(&text).await;
    world.until_health("v1", "healthy").await;
    two.set_health(500);
    let panics = || world.metric("switchback_panic", &[("service", "shop"), ("version", "v1")]);
    until("it is panic", || async { panics().await == 1.0 }).await;
    assert_eq!(world.version_status("shop", "v1").await["panic"], true);
    let before = two.requests();
    for _ in 0..10 {
        assert_eq!(world.get("/").await.status, 200);
    }
    assert!(two.requests() - before >= 3, "the one that fails its checks takes its share");
    assert!(told(&world, "panic", "1 of 2 endpoints are ready").await);
    two.set_health(200);
    until("it is over", || async { panics().await == 0.0 }).await;
    // Without the threshold the one that is left serves alone.
    world.edit_and_wait(|text| text.replace("panic_below: 60%", "panic_below: 0%")).await;
    two.set_health(500);
    until("it is out", || async { endpoint(&world, 1).await["health"] == "failing" }).await;
    let before = two.requests();
    for _ in 0..10 {
        assert_eq!(world.get("/").await.status, 200);
    }
    assert_eq!(two.requests(), before);
}

#[tokio::test]
async fn a_version_that_works_on_enough_gets_no_more() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world
        .start(&one_service(&[&v1, &v2], "split: { v1: 1, v2: 1 }\ncircuit: { in_flight: 2 }\nforce: { header: x-v }"))
        .await;
    v1.set(Fault::Held);
    let to = |version: &'static str| {
        let mut client = world.client();
        async move { client.get_with("/", &[("x-v", version)]).await }
    };
    let held: Vec<_> = (0..2).map(|_| tokio::spawn(to("v1"))).collect();
    until("two are under way", || async { v1.requests() == 2 }).await;
    let refused = to("v1").await;
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")));
    assert!(refused.took < Duration::from_secs(1), "at once");
    assert_eq!(to("v2").await.status, 200, "the other version is not concerned");
    let status = world.version_status("shop", "v1").await;
    assert_eq!((status["in_flight_max"].as_u64(), status["turned_away"].as_u64()), (Some(2), Some(1)));
    assert_eq!(world.metric("switchback_circuit_refused_total", &[("version", "v1")]).await, 1.0);
    v1.tick();
    for one in held {
        assert_eq!(one.await.expect("no panic").status, 200);
    }
    v1.set(Fault::None);
    assert_eq!(to("v1").await.status, 200, "it takes requests again");
}
