//! What an earlier process still has: requests finish, and streams end by the `drain` of their service, each kind in its
//! own way.

use std::time::{Duration, Instant};

use serde_json::json;
use tonic_health::ServingStatus;

use crate::grpc::{asking, health_client, health_server};
use crate::harness::streams::{Watched, most_within};
use crate::harness::*;

const POLICY: &str = "upgrade: { ready_timeout: 20s, linger: 100ms, drain: 60s }\n";

/// Two services, of which `steady` has all the time that an upgrade gives.
const ROUTES: &str = "routes:
  - { name: steady, match: { path_prefix: /, headers: { x-to: steady } }, service: steady }
  - { name: all, match: { path_prefix: / }, service: shop }
services:
";
const STEADY: [(&str, &str); 1] = [("x-to", "steady")];

async fn running(drain: &str) -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    v1.stop_recording();
    let services = service("shop", &[&v1], &format!("active: v1\ndrain: {{ {drain} }}"))
        + &service("steady", &[&v1], "active: v1");
    world.start_supervised(&format!("{POLICY}{ROUTES}{services}")).await;
    (world, v1)
}

#[tokio::test]
async fn requests_finish_and_streams_have_the_time_of_their_service() {
    let (world, _v1) = running("requests: 300ms, streams: 900ms, reconnect_spread: 0s").await;
    let before = world.worker();
    let mut stream = SseClient::open(world.web(), "/sse").await;
    stream.next().await.unwrap();
    let mut socket = WsClient::open(world.web(), "/ws").await;
    socket.ping_pong().await.unwrap();
    let mut steady = WsClient::try_open(world.web(), "/ws", &STEADY).await.unwrap();
    steady.ping_pong().await.unwrap();
    let mut client = world.client();
    let request = tokio::spawn(async move { client.get("/slow/2500").await });
    until("it runs", || async { world.version_status("shop", "v1").await["in_flight"]["http"] == 1 }).await;
    let began = Instant::now();
    world.cli(&["upgrade"]).await.ok();
    let left = async || world.status().await["retired"][0]["in_flight"].clone();
    let (sse, ws) = soon("both streams end", async {
        tokio::join!(async { (stream.end().await, Instant::now()) }, async { (socket.end().await, Instant::now()) })
    })
    .await;
    assert_eq!((&sse.0, &ws.0), (&SseEnd::Clean, &WsEnd::Closed(1001)));
    assert!(stream.text.ends_with(": switchback: shutting down, reconnect\n\n"), "{}", stream.text);
    for at in [sse.1, ws.1] {
        assert!(at - began >= Duration::from_millis(900), "{:?}", at - began);
    }
    // `drain.requests` is for a version that goes.
    let request = soon("the request ends", request).await.unwrap();
    assert_eq!((request.status, request.origin()), (200, Some("v1")), "{request:?}");
    until("only one is left", || async { left().await == json!({ "websocket": 1 }) }).await;
    for (kind, count) in [("http", 0.0), ("sse", 0.0), ("websocket", 1.0)] {
        assert_eq!(world.metric("switchback_retired_in_flight", &[("kind", kind)]).await, count, "{kind}");
    }
    steady.ping_pong().await.unwrap();
    assert!(world.workers().contains(&before));
    steady.close().await;
    world.until_gone(before).await;
    until("the log says so", || async { world.log().contains("work was cut") }).await;
    until("nothing is left", || async { world.status().await["retired"] == json!([]) }).await;
}

#[tokio::test]
async fn streams_of_an_earlier_process_do_not_come_back_all_at_once() {
    let (world, _v1) = running("requests: 30s, streams: 200ms, reconnect_spread: 1200ms").await;
    let before = world.worker();
    let streams = Watched::open(world.web(), 12).await;
    world.cli(&["upgrade"]).await.ok();
    let ends = streams.ends().await;
    assert!(ends[11] - ends[0] >= Duration::from_millis(900), "{ends:?}");
    assert!(most_within(&ends, Duration::from_millis(200)) <= 6, "no burst: {ends:?}");
    world.until_gone(before).await;
}

#[tokio::test]
async fn a_call_of_an_earlier_process_ends_with_a_status() {
    let mut world = World::new();
    let (calls, reporter) = health_server(&world).await;
    let text = format!(
        "{POLICY}routes:
  - {{ name: all, match: {{ path_prefix: / }}, service: calls }}
services:
  calls:
    versions: {{ v1: {{ endpoints: [\"{calls}\"] }} }}
    active: v1
    upstream: {{ protocol: h2c }}
    drain: {{ requests: 20s, streams: 300ms, reconnect_spread: 0s }}
"
    );
    world.start_supervised(&text).await;
    reporter.set_service_status("shop", ServingStatus::Serving).await;
    let mut client = health_client(world.web()).await;
    let mut watch = client.watch(asking("shop")).await.unwrap().into_inner();
    soon("the first status", watch.message()).await.unwrap().unwrap();
    until("it counts as a gRPC stream", || async {
        world.version_status("calls", "v1").await["in_flight"]["grpc"] == 1
    })
    .await;
    let before = world.worker();
    world.cli(&["upgrade"]).await.ok();
    let end = soon("the stream is ended", watch.message()).await.unwrap_err();
    assert_eq!(end.code(), tonic::Code::Unavailable, "{end:?}");
    assert!(end.message().contains("shutting down"), "{end:?}");
    world.until_gone(before).await;
    let again = soon("the client comes back", client.check(asking("shop"))).await.unwrap();
    assert_eq!(again.metadata().get("x-switchback-version").unwrap(), "v1");
}
