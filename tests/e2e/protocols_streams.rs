//! What takes its time, for clients of both versions and judged from both ends: event streams, long polls, and bodies that
//! were asked for.

use std::time::Duration;

use crate::harness::http2::{H2Client, request};
use crate::harness::*;

/// Every deadline that is not about the first byte is short.
const SHORT: &str = "timeouts: { connect: 1s, request: 20s, idle: 400ms }";

async fn proxied() -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let timeouts = "8080\", timeouts: { header: 400ms, idle: 400ms, body: 400ms, write: 400ms } }";
    let text = world.preamble().replace("8080\" }", timeouts) + &one_service(&[&v1], &format!("active: v1\n{SHORT}"));
    world.start_text(&text).await;
    (world, v1)
}

async fn in_flight(world: &World, kind: &str) -> u64 {
    world.version_status("shop", "v1").await["in_flight"][kind].as_u64().expect("it is counted")
}

#[tokio::test]
async fn events_pass_one_by_one_and_silence_between_them_is_allowed() {
    let (world, v1) = proxied().await;
    let mut plain = SseClient::open(world.web(), "/sse").await;
    let client = H2Client::connect(world.web()).await;
    let mut h2 = client.begin(request("GET", "/sse", &[]), true).await.unwrap().head().await;
    assert_eq!(h2.seen.field("content-type"), Some("text/event-stream"));
    assert!(soon("an event", plain.next()).await.unwrap().contains("id: 0"));
    assert!(String::from_utf8_lossy(&h2.next().await.unwrap()).contains("id: 0"));
    until("both count as event streams", || async { in_flight(&world, "sse").await == 2 }).await;
    // More than twice as long as anything else may be silent.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    v1.tick();
    assert!(soon("an event", plain.next()).await.unwrap().contains("id: 1"));
    assert!(String::from_utf8_lossy(&h2.next().await.unwrap()).contains("id: 1"));
    // Who leaves is gone at the endpoint too.
    drop((plain, h2));
    until("nothing is under way", || async { in_flight(&world, "sse").await == 0 }).await;
    until("the endpoint is let go", || async {
        // It notices when it has something to say.
        v1.tick();
        v1.open() == 0
    })
    .await;
    assert_eq!(client.get("/").await.status, 200, "the connection that carried one goes on");
    assert_eq!(world.metric("switchback_request_errors_total", &[]).await, 0.0, "leaving is how streams end");
}

#[tokio::test]
async fn a_long_poll_waits_for_as_long_as_the_service_lets_it() {
    let (world, v1) = proxied().await;
    v1.set(Fault::Held);
    let client = H2Client::connect(world.web()).await;
    let mut plain = world.client();
    let poll = client.begin(request("GET", "/poll", &[]), true).await.unwrap();
    let other = tokio::spawn(async move { (plain.get("/poll").await, plain) });
    until("both wait", || async { v1.requests() == 2 }).await;
    // Longer than clients may be idle: these are not.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(in_flight(&world, "http").await, 2);
    v1.tick();
    let seen = soon("an answer", poll.answer()).await;
    assert_eq!((seen.status, seen.is_whole(), seen.field("x-origin")), (200, true, Some("v1")));
    assert!(seen.took >= Duration::from_millis(1000));
    let (seen, plain) = soon("an answer", other).await.unwrap();
    assert_eq!((seen.status, seen.origin()), (200, Some("v1")));
    drop(plain);
    // Clients that give up are given up at the endpoint, which may be waiting for nothing else.
    let poll = client.begin(request("GET", "/poll", &[]), true).await.unwrap();
    let mut raw = world.raw().await;
    raw.write(b"GET /poll HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
    until("both wait", || async { v1.requests() == 4 }).await;
    poll.cancel();
    drop(raw);
    until("nobody waits any more", || async { in_flight(&world, "http").await == 0 }).await;
    let gone = world.metric("switchback_request_errors_total", &[("class", "downstream_abort")]).await;
    assert_eq!(gone, 2.0);
}

#[tokio::test]
async fn who_was_told_to_send_a_body_and_does_not_is_408() {
    let (world, v1) = proxied().await;
    let client = H2Client::connect(world.web()).await;
    let fields = [("expect", "100-continue"), ("content-length", "5")];
    let mut posted = client.begin(request("POST", "/x", &fields), false).await.unwrap();
    posted.until_interim(100).await;
    let seen = soon("an answer", posted.answer()).await;
    assert_eq!((seen.status, seen.is_whole()), (408, true), "{seen:?}");
    let mut raw = world.raw().await;
    raw.write(b"POST /x HTTP/1.1\r\nhost: shop.test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(soon("100", raw.head()).await.unwrap().0, 100);
    assert_eq!(soon("an answer", raw.head()).await.unwrap().0, 408);
    until("the endpoint is let go", || async { v1.open() == 0 }).await;
    assert!(v1.received().iter().all(|got| !got.complete), "{:?}", v1.received());
}
