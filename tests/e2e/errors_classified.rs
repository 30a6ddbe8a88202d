//! ZD-24: every failed exchange is counted in exactly one class.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::harness::*;

const CLASSES: [&str; 6] = ["downstream_abort", "connect", "reused_stale", "reset", "timeout", "local"];

async fn counts(world: &World) -> BTreeMap<&'static str, u64> {
    let text = world.admin_get("/metrics").await.text();
    CLASSES
        .into_iter()
        .map(|class| {
            (
                class,
                world::sum_of(&text, "switchback_request_errors_total", &[("service", "shop"), ("class", class)])
                    as u64,
            )
        })
        .collect()
}

/// Which classes moved between two readings, waiting for the first that does.
async fn moved(world: &World, before: &BTreeMap<&'static str, u64>, what: &str) -> Vec<(&'static str, u64)> {
    until(&format!("{what} is counted"), || async { counts(world).await != *before }).await;
    let after = counts(world).await;
    CLASSES
        .into_iter()
        .filter(|class| after[class] != before[class])
        .map(|class| (class, after[class] - before[class]))
        .collect()
}

async fn proxied(more: &str) -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], &format!("active: v1\nretry: {{ attempts: 0 }}\n{more}"))).await;
    (world, v1)
}

#[tokio::test]
async fn each_failure_of_the_endpoint_moves_one_counter() {
    let (world, v1) =
        proxied("timeouts: { connect: 500ms, request: 400ms, idle: 400ms }\nlimits: { body: 1KiB }").await;
    assert_eq!(world.get("/").await.status, 200);
    assert!(counts(&world).await.values().all(|count| *count == 0));
    for (fault, class) in [
        (Fault::Hang, "timeout"),
        (Fault::StallBody, "timeout"),
        (Fault::Reset, "reset"),
        (Fault::CloseUnanswered, "reset"),
        (Fault::CutBody, "reset"),
        (Fault::ResetBody, "reset"),
        (Fault::Bytes(b"garbage\r\n\r\n".to_vec()), "reset"),
    ] {
        // A new connection each time: reuse is a case of its own.
        v1.set(Fault::EarlyAnswer(200));
        world.get("/").await;
        until(&format!("the pool is empty before {fault:?}"), || async { v1.open() == 0 }).await;
        v1.set(fault.clone());
        let before = counts(&world).await;
        let seen = world.client().post("/", b"x").await;
        assert_eq!(moved(&world, &before, &format!("{fault:?}")).await, [(class, 1)], "{fault:?}: {seen:?}");
    }
    v1.set(Fault::None);
    let before = counts(&world).await;
    assert_eq!(world.client().post("/", &[b'x'; 5000]).await.status, 413);
    assert_eq!(moved(&world, &before, "a body over the limit").await, [("local", 1)]);
    v1.stop().await;
    let before = counts(&world).await;
    let seen = world.client().post("/", b"x").await;
    assert_eq!(seen.status, 502);
    assert_eq!(moved(&world, &before, "a refused connection").await, [("connect", 1)]);
}

#[tokio::test]
async fn a_client_that_goes_away_is_its_own_class() {
    let (world, _v1) = proxied("").await;
    let before = counts(&world).await;
    let mut raw = world.raw().await;
    raw.write(b"GET /slow/1000 HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
    until("it runs", || async { world.version_status("shop", "v1").await["in_flight"]["http"] == 1 }).await;
    drop(raw);
    assert_eq!(moved(&world, &before, "an abort while waiting").await, [("downstream_abort", 1)]);
    let before = counts(&world).await;
    let mut raw = world.raw().await;
    raw.write(b"GET /bytes/100000000 HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
    raw.head().await.unwrap();
    drop(raw);
    assert_eq!(moved(&world, &before, "an abort while reading").await, [("downstream_abort", 1)]);
    let before = counts(&world).await;
    let mut raw = world.raw().await;
    raw.write(b"POST /up HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 1000\r\n\r\npart").await.unwrap();
    until("it runs", || async { world.version_status("shop", "v1").await["in_flight"]["http"] == 1 }).await;
    drop(raw);
    assert_eq!(moved(&world, &before, "an abort while sending").await, [("downstream_abort", 1)]);
    until("nothing is left running", || async {
        let running = world.version_status("shop", "v1").await["in_flight"].clone();
        running["http"].as_u64().unwrap_or(0) == 0
    })
    .await;
}

#[tokio::test]
async fn a_stale_connection_under_a_post_is_its_own_class() {
    let (world, v1) = proxied("upstream: { keepalive: { idle: 60s } }").await;
    v1.set(Fault::CloseUnansweredAfter(1));
    // Both data threads may hold a connection: ask on one client connection, which stays on one thread.
    let mut client = world.client();
    assert_eq!(client.post("/first", b"x").await.status, 200);
    let before = counts(&world).await;
    let seen = client.post("/second", b"x").await;
    if seen.status == 502 {
        assert_eq!(moved(&world, &before, "a stale connection").await, [("reused_stale", 1)]);
    }
    assert_eq!(v1.executed("/second"), 1);
    assert!(seen.took < Duration::from_secs(5));
}

#[tokio::test]
async fn no_endpoint_and_too_many_at_once_are_local() {
    let (world, v1) = proxied("limits: { in_flight: 1 }\nhold: { max_wait: 100ms }").await;
    let mut slow = world.client();
    let slow = tokio::spawn(async move { slow.get("/slow/1500").await });
    until("it runs", || async { v1.requests() == 1 }).await;
    let before = counts(&world).await;
    let seen = world.get("/").await;
    assert_eq!(seen.status, 503);
    assert!(seen.field("retry-after").is_some());
    assert_eq!(moved(&world, &before, "one too many").await, [("local", 1)]);
    assert_eq!(slow.await.unwrap().status, 200);
    // A held request is of no version yet; it is counted where the code is.
    world.order("services/shop/hold", serde_json::json!({})).await;
    assert_eq!(world.get("/").await.status, 503);
    assert!(world.metric("switchback_requests_total", &[("route", "all"), ("code", "503")]).await >= 2.0);
}
