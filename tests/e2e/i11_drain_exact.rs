//! I11: a drain ends exactly when the last thing it waits for ends, or at its deadline, whichever is first.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::*;

fn drain_of(status: &Value, version: &str) -> Option<Value> {
    status["draining"].as_array()?.iter().find(|drain| drain["version"] == version).cloned()
}

async fn finished(world: &World, version: &str) -> bool {
    drain_of(&world.status().await, version).is_none_or(|drain| drain["finished"] == true)
}

#[tokio::test]
async fn i11_drain_ends_exactly() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world
        .start(&one_service(&[&v1, &v2], "active: v1\ndrain: { requests: 30s, streams: 30s, reconnect_spread: 0s }"))
        .await;
    // With nothing running it is over at once.
    world.switch("shop", "v2").await;
    let began = Instant::now();
    until("an empty drain is over", || finished(&world, "v1")).await;
    assert!(began.elapsed() < Duration::from_secs(2));
    world.switch("shop", "v1").await;

    // With a stream and a request it ends with the later of the two.
    let mut socket = WsClient::open(world.web(), "/ws").await;
    socket.ping_pong().await.unwrap();
    let mut slow = world.client();
    let slow = tokio::spawn(async move { slow.get("/slow/700").await });
    until("both run", || async {
        let running = world.version_status("shop", "v1").await["in_flight"].clone();
        running["websocket"] == 1 && running["http"] == 1
    })
    .await;
    let receipt = world.switch("shop", "v2").await;
    assert_eq!(receipt["in_flight_at_flip"], json!(2), "{receipt}");
    let drain = drain_of(&world.status().await, "v1").expect("it drains");
    assert_eq!((&drain["remaining"]["http"], &drain["remaining"]["websocket"]), (&json!(1), &json!(1)), "{drain}");
    assert_eq!(drain["finished"], false);
    assert_eq!(world.metric("switchback_drain_remaining", &[("version", "v1"), ("kind", "websocket")]).await, 1.0);
    let seen = slow.await.unwrap();
    assert_eq!((seen.status, seen.origin()), (200, Some("v1")));
    assert!(!finished(&world, "v1").await, "the WebSocket is still there");
    socket.ping_pong().await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(100), socket.receive()).await;
    assert!(waiting.is_err(), "nothing ends it early: {waiting:?}");
    socket.close().await;
    let closed = Instant::now();
    until("the drain is over", || finished(&world, "v1")).await;
    assert!(closed.elapsed() < Duration::from_secs(2), "{:?} after the last one ended", closed.elapsed());
}
