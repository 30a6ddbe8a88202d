//! What a version loses its place keeps until it is done, or until its deadline, and then ends properly.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::streams::{Watched, most_within};
use crate::harness::*;

async fn draining(drain: &str) -> (World, Origin, Origin) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], &format!("active: v1\ndrain: {{ {drain} }}"))).await;
    (world, v1, v2)
}

#[tokio::test]
async fn at_the_deadline_streams_end_properly() {
    let (world, _v1, _v2) = draining("requests: 5s, streams: 800ms, reconnect_spread: 0s").await;
    let mut stream = SseClient::open(world.web(), "/sse").await;
    stream.next().await.unwrap();
    let mut socket = WsClient::open(world.web(), "/ws").await;
    socket.ping_pong().await.unwrap();
    let before = Instant::now();
    world.switch("shop", "v2").await;
    let flipped = Instant::now();
    let mut other = WsClient::open(world.web(), "/ws").await;
    let (sse, ws) = soon("both end", async { tokio::join!(stream.end(), socket.end()) }).await;
    let took = flipped.elapsed();
    assert_eq!(sse, SseEnd::Clean);
    assert!([WsEnd::Closed(1012), WsEnd::Closed(1001)].contains(&ws), "{ws:?}");
    assert!(before.elapsed() >= Duration::from_millis(800) && took < Duration::from_secs(5), "{took:?}");
    // What runs on the version that serves is not touched.
    other.ping_pong().await.unwrap();
    assert_eq!(other.who().await, "v2 1");
    let events = world.events().await;
    for kind in ["drain_started", "drain_finished"] {
        assert!(events.iter().any(|event| event["kind"] == kind && event["version"] == "v1"), "{kind}");
    }
}

#[tokio::test]
async fn the_ends_are_spread() {
    let (world, _v1, _v2) = draining("requests: 5s, streams: 300ms, reconnect_spread: 1500ms").await;
    let streams = Watched::open(world.web(), 20).await;
    world.switch("shop", "v2").await;
    let ends = streams.ends().await;
    assert!(ends[19] - ends[0] > Duration::from_millis(900), "{ends:?}");
    assert!(most_within(&ends, Duration::from_millis(300)) <= 9, "no burst: {ends:?}");
}

#[tokio::test]
async fn a_request_that_outlives_its_deadline_is_ended_and_counted() {
    let (world, _v1, _v2) = draining("requests: 500ms, streams: 5s").await;
    let mut slow = world.client();
    let slow = tokio::spawn(async move { slow.get("/slow/10000").await });
    until("it runs", || async { world.version_status("shop", "v1").await["in_flight"]["http"] == 1 }).await;
    world.switch("shop", "v2").await;
    let flipped = Instant::now();
    let seen = slow.await.unwrap();
    assert!(flipped.elapsed() < Duration::from_secs(6), "{:?}", flipped.elapsed());
    assert_eq!((&seen.outcome, seen.status), (&Outcome::Ok, 503), "one proper error: {seen:?}");
    until("it is counted", || async {
        world.metric("switchback_request_errors_total", &[("version", "v1"), ("class", "local")]).await == 1.0
    })
    .await;
}

#[tokio::test]
async fn drain_wait_says_how_it_went() {
    let (world, _v1, _v2) = draining("requests: 30s, streams: 30s, reconnect_spread: 0s").await;
    world.weights("shop", json!({ "v1": 50, "v2": 50 })).await;
    let mut socket = loop {
        let socket = WsClient::open(world.web(), "/ws").await;
        if socket.version() == Some("v1") {
            break socket;
        }
    };
    socket.ping_pong().await.unwrap();
    // Not over in time: 1 or 3 with the count; nothing is cut.
    let ran = world.cli(&["drain", "shop", "v1", "--wait", "--timeout", "300ms"]).await;
    assert!([Some(1), Some(3)].contains(&ran.code), "{ran:?}");
    assert!(format!("{}{}", ran.out, ran.err).contains('1'), "{ran:?}");
    socket.ping_pong().await.unwrap();
    // It ends: 0.
    let waiting = world.cli(&["drain", "shop", "v1", "--wait", "--timeout", "20s"]);
    let closing = async {
        until("the drain is known", || async { !world.status().await["draining"].as_array().unwrap().is_empty() })
            .await;
        socket.close().await;
    };
    let (ran, ()) = tokio::join!(waiting, closing);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[tokio::test]
async fn a_version_that_comes_back_cuts_nothing() {
    let (world, _v1, _v2) = draining("requests: 5s, streams: 600ms, reconnect_spread: 0s").await;
    let mut socket = WsClient::open(world.web(), "/ws").await;
    socket.ping_pong().await.unwrap();
    world.switch("shop", "v2").await;
    world.rollback("shop").await;
    let ended = tokio::time::timeout(Duration::from_millis(1500), socket.receive()).await;
    assert!(ended.is_err(), "the deadline went with the drain: {ended:?}");
    socket.ping_pong().await.unwrap();
}

#[tokio::test]
async fn reloads_touch_no_stream_of_an_unchanged_version() {
    let (world, v1, _v2) = draining("requests: 200ms, streams: 200ms, reconnect_spread: 0s").await;
    let mut socket = WsClient::open(world.web(), "/ws").await;
    let mut stream = SseClient::open(world.web(), "/sse").await;
    stream.next().await.unwrap();
    for nth in 0..5 {
        world.reload_with_route(nth).await;
        socket.ping_pong().await.unwrap();
        v1.tick();
        assert!(stream.next().await.is_ok());
    }
    assert!(world.status().await["draining"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_version_removed_from_the_file_drains_too() {
    let (world, v1, v2) = draining("requests: 5s, streams: 600ms, reconnect_spread: 0s").await;
    let mut socket = WsClient::open(world.web(), "/ws").await;
    socket.ping_pong().await.unwrap();
    let without = one_service(&[&v2], "active: v2\ndrain: { requests: 5s, streams: 600ms, reconnect_spread: 0s }");
    world.edit_and_wait(|_| world.preamble() + &without).await;
    socket.ping_pong().await.unwrap();
    let end = soon("it ends at its deadline", socket.end()).await;
    assert!(matches!(end, WsEnd::Closed(1001 | 1012)), "{end:?}");
    until("its connections are gone", || async { v1.open() == 0 }).await;
    until("and its gauge", || async {
        !world.admin_get("/metrics").await.text().contains("switchback_in_flight{service=\"shop\",version=\"v1\"")
    })
    .await;
}
