//! ZD-22: while a service has no ready endpoint its requests wait, in bounds, instead of failing.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::load::Plan;
use crate::harness::*;

async fn held(hold: &str) -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], &format!("active: v1\n{hold}"))).await;
    (world, v1)
}

#[tokio::test]
async fn requests_wait_for_release_and_all_succeed() {
    let (world, v1) = held("hold: { max_wait: 10s, max_requests: 100 }").await;
    world.order("services/shop/hold", json!({})).await;
    assert_eq!(world.service_status("shop").await["held"], true);
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let mut client = world.client();
            tokio::spawn(async move { client.get("/").await })
        })
        .collect();
    until("all wait", || async { world.service_status("shop").await["waiting"] == 50 }).await;
    assert_eq!(world.metric("switchback_hold_waiting", &[("service", "shop")]).await, 50.0);
    assert_eq!(v1.requests(), 0);
    let released = Instant::now();
    world.order("services/shop/release", json!({})).await;
    for one in waiting {
        assert_eq!(one.await.unwrap().status, 200);
    }
    assert!(released.elapsed() < Duration::from_secs(2));
    assert_eq!(world.service_status("shop").await["held"], false);
    assert_eq!(world.service_status("shop").await["waiting"], 0);
}

#[tokio::test]
async fn the_wait_and_the_queue_are_bounded() {
    let (world, _v1) = held("hold: { max_wait: 700ms, max_requests: 3 }").await;
    world.order("services/shop/hold", json!({})).await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut client = world.client();
            tokio::spawn(async move { client.get("/").await })
        })
        .collect();
    until("the queue is full", || async { world.service_status("shop").await["waiting"] == 3 }).await;
    let turned_away = world.get("/").await;
    assert_eq!(turned_away.status, 503);
    assert!(turned_away.took < Duration::from_millis(500), "{:?}", turned_away.took);
    assert!(turned_away.field("retry-after").is_some());
    for one in waiting {
        let seen = one.await.unwrap();
        assert_eq!(seen.status, 503);
        assert!(seen.took >= Duration::from_millis(600) && seen.took < Duration::from_secs(3), "{:?}", seen.took);
    }
}

#[tokio::test]
async fn a_gap_without_ready_endpoints_costs_time_not_errors() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    v1.set_health(500);
    v2.set_health(500);
    // Nothing has passed a check yet: unknown, not failing.
    v1.set(Fault::Hang);
    let more =
        "active: v1\nhealth: { path: /healthz, every: 100ms, timeout: 10s, pass: 1, fail: 1 }\nhold: { max_wait: 10s }";
    world.start(&one_service(&[&v1], more)).await;
    let mut client = world.client();
    let asked = tokio::spawn(async move { client.get("/").await });
    until("it waits", || async { world.service_status("shop").await["waiting"] == 1 }).await;
    // The service gets a version that works.
    let fixed = one_service(&[&v1, &v2], "active: v2\nhold: { max_wait: 10s }");
    world.edit_and_wait(|_| world.preamble() + &fixed).await;
    let seen = asked.await.unwrap();
    assert_eq!((seen.status, seen.origin()), (200, Some("v2")), "{seen:?}");
}

#[tokio::test]
async fn a_service_restarts_behind_a_hold_without_an_error() {
    let (world, v1) = held("hold: { max_wait: 10s, max_requests: 100 }").await;
    let load = Load::start(world.web(), &Plan { keep_alive: 16, fresh: 2, ..Plan::default() });
    load.more(50).await;
    world.order("services/shop/hold", json!({})).await;
    until("what ran has finished", || async { world.version_status("shop", "v1").await["in_flight"]["http"] == 0 })
        .await;
    v1.stop().await;
    until("clients wait", || async { world.service_status("shop").await["waiting"].as_u64().unwrap() >= 10 }).await;
    let again = Origin::instance("v1", "2", v1.address).await;
    world.order("services/shop/release", json!({})).await;
    load.more(50).await;
    load.stop().await.assert_unbroken();
    assert!(again.requests() >= 50);
}
