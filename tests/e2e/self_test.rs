//! The harness against itself: a client and an origin without a proxy between them, so that a red test
//! elsewhere is about the proxy.

use std::time::Duration;

use crate::harness::client::Raw;
use crate::harness::load::Plan;
use crate::harness::origin::Abort;
use crate::harness::*;

#[tokio::test]
async fn a_client_reads_every_kind_of_answer() {
    let world = World::new();
    let origin = world.origin("v1").await;
    let mut client = Client::new(origin.address);
    for (path, bytes) in [("/", 7), ("/bytes/100000", 100_000), ("/chunked/100000", 100_000), ("/status/404", 17)] {
        let seen = client.get(path).await;
        assert_eq!(seen.outcome, Outcome::Ok, "{path}");
        assert_eq!(seen.body_bytes, bytes, "{path} {:?}", seen.text());
        assert_eq!(seen.origin(), Some("v1"), "{path}");
    }
    assert_eq!(client.send("HEAD", "/bytes/5", &[], b"").await.body_bytes, 0);
    assert_eq!(client.get("/status/204").await.status, 204);
    assert_eq!(client.post("/echo", b"hello").await.text(), "hello");
    assert_eq!(client.opened, 1, "all of it on one connection");
    assert_eq!(origin.executed("/echo"), 1);
    assert_eq!(origin.last().body, b"hello");
}

#[tokio::test]
async fn every_fault_is_told_apart() {
    let world = World::new();
    let origin = world.origin("v1").await;
    let cases = [
        (Fault::CloseUnanswered, Outcome::ClosedBeforeAnswer),
        (Fault::Reset, Outcome::ClosedBeforeAnswer),
        (Fault::CutBody, Outcome::Truncated),
        (Fault::ResetBody, Outcome::Truncated),
        (Fault::Bytes(b"garbage\r\n\r\n".to_vec()), Outcome::Malformed("garbage".into())),
        (Fault::EarlyHints, Outcome::Ok),
        (Fault::Status(503), Outcome::Ok),
        (Fault::EarlyAnswer(413), Outcome::Ok),
        (Fault::DribbleHead(Duration::from_micros(100)), Outcome::Ok),
    ];
    for (fault, outcome) in cases {
        origin.set(fault.clone());
        assert_eq!(Client::new(origin.address).get("/").await.outcome, outcome, "{fault:?}");
    }
    for silent in [Fault::Hang, Fault::StallBody] {
        origin.set(silent.clone());
        let asked =
            tokio::time::timeout(Duration::from_millis(200), Client::new(origin.address).get("/")).await.is_err();
        assert!(asked, "{silent:?}");
    }
    origin.set(Fault::None);
    origin.refuse().await;
    assert!(matches!(Client::new(origin.address).get("/").await.outcome, Outcome::NotConnected(_)));
    origin.reopen().await;
    assert_eq!(Client::new(origin.address).get("/").await.status, 200);
    origin.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_by_the_origin() {
    let world = World::new();
    let origin = world.origin("v1").await;
    for how in [Abort::Close, Abort::Reset] {
        origin.close_idle_after(Duration::from_millis(20), how);
        let mut raw = Raw::connect(origin.address).await.unwrap();
        raw.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert_eq!(raw.answer().await.outcome, Outcome::Ok);
        assert_eq!(raw.until_closed(Duration::from_secs(5)).await, Some(Vec::new()), "{how:?}");
    }
}

#[tokio::test]
async fn streams_tell_an_end_from_a_cut() {
    let world = World::new();
    let origin = world.origin("v1").await;
    let mut socket = WsClient::open(origin.address, "/ws").await;
    socket.ping_pong().await.unwrap();
    assert_eq!(socket.who().await, "v1 1");
    let mut stream = SseClient::open(origin.address, "/sse").await;
    assert!(stream.next().await.unwrap().contains("v1 0"));
    origin.tick();
    assert!(stream.next().await.unwrap().contains("v1 1"));
    origin.stop().await;
    assert!(matches!(stream.end().await, SseEnd::Cut(_)));
    assert!(matches!(socket.end().await, WsEnd::Cut(_)));
}

#[tokio::test]
async fn a_load_counts_failures_and_closed_connections() {
    let world = World::new();
    let origin = world.origin("v1").await;
    let load = Load::start(origin.address, &Plan { keep_alive: 4, fresh: 1, ..Plan::default() });
    load.more(50).await;
    let report = load.stop().await;
    report.assert_unbroken();
    let load = Load::start(origin.address, &Plan { keep_alive: 4, fresh: 0, ..Plan::default() });
    load.more(20).await;
    origin.set(Fault::CloseUnanswered);
    load.more(20).await;
    origin.set(Fault::None);
    load.more(20).await;
    let report = load.stop().await;
    assert!(!report.failures().is_empty());
    assert!(report.reopened > 0);
}

#[test]
fn metrics_are_summed_by_label() {
    let text = "# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\nab{x=\"1\"} 5\nc 6\n";
    assert_eq!(world::sum_of(text, "a", &[("x", "1")]), 7.0);
    assert_eq!(world::sum_of(text, "a", &[("y", "3")]), 4.0);
    assert_eq!(world::sum_of(text, "c", &[]), 6.0);
}
