//! Rollouts whose users come over HTTP/2: what is judged, copied, shielded and called back is a stream, whether it goes on
//! to an endpoint over HTTP/1.1 or over HTTP/2.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::http2::{H2Client, H2Exchange, H2Seen, request};
use crate::harness::http2_origin::{H2Fault, H2Origin};
use crate::harness::rollouts::*;
use crate::harness::*;

/// Everything goes to the canary, and only errors or an operator end that.
const WHOLE: &str = "rollout:\n  stages: [100%]\n  promote_when: { hold: 1h }";
const LONG: &str = "timeouts: { connect: 500ms, request: 60s }";

/// v2 is the canary, in the first stage of this rollout; endpoints speak HTTP/1.1.
async fn canary(more: &[&str]) -> (World, Origin, Origin) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], &format!("active: v1\n{}", more.join("\n")))).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    (world, v1, v2)
}

/// The same, with endpoints that speak HTTP/2.
async fn canary_h2c(more: &[&str]) -> (World, H2Origin, H2Origin) {
    let mut world = World::new();
    let (v1, v2) = (H2Origin::start("v1", world.unused()).await, H2Origin::start("v2", world.unused()).await);
    let mut text = format!(
        "routes:\n  - {{ name: all, match: {{ path_prefix: / }}, service: shop }}\nservices:\n  shop:\n    versions:\n      v1: {{ endpoints: [\"{}\"] }}\n      v2: {{ endpoints: [\"{}\"] }}\n    upstream: {{ protocol: h2c }}\n    active: v1\n",
        v1.address, v2.address
    );
    for line in more.join("\n").lines() {
        text += &format!("    {line}\n");
    }
    world.start(&text).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    (world, v1, v2)
}

/// Answers to so many requests, all at once on one connection.
async fn at_once(client: &H2Client, count: usize) -> Vec<H2Seen> {
    futures_util::future::join_all((0..count).map(|nth| async move { client.get(&format!("/{nth}")).await })).await
}

async fn asked(client: &H2Client, count: usize, method: &str, path: &str) -> Vec<H2Exchange> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(client.begin(request(method, path, &[]), true).await.expect("the connection is open"));
    }
    all
}

async fn meters(world: &World) -> serde_json::Value {
    rollout(world).await["meters"].clone()
}

async fn shielded(world: &World) -> f64 {
    world.metric("switchback_shielded_total", &[("service", "shop")]).await
}

#[tokio::test]
async fn each_stream_is_evidence_of_its_own() {
    let (world, _v1, _v2) = canary(&["rollout:\n  stages: [50%, 100%]\n  promote_when: { hold: 1h }"]).await;
    let client = H2Client::connect(world.web()).await;
    let mut seen = at_once(&client, 100).await;
    seen.extend(at_once(&client, 100).await);
    assert!(
        seen.iter().all(|seen| seen.status == 200 && seen.is_whole()),
        "{:?}",
        seen.iter().find(|it| it.status != 200)
    );
    let from = |version| seen.iter().filter(|seen| seen.field("x-origin") == Some(version)).count();
    assert_eq!((from("v1"), from("v2")), (100, 100), "a share is exact on one connection");
    until("every answer is evidence", || async {
        let meters = meters(&world).await;
        (meters["canary_requests"].as_u64(), meters["stable_requests"].as_u64()) == (Some(100), Some(100))
    })
    .await;
    assert_eq!(meters(&world).await["canary_failures"], 0);
}

#[tokio::test]
async fn a_canary_that_fails_streams_goes_back_and_their_clients_see_stable() {
    let (world, _v1, v2) = canary(&["rollout:\n  stages: [25%, 100%]\n  promote_when: { hold: 1h }"]).await;
    v2.set(Fault::Status(500));
    let client = H2Client::connect(world.web()).await;
    until("it is rolled back", || async {
        let seen = at_once(&client, 20).await;
        assert!(seen.iter().all(|seen| seen.status == 200 && seen.is_whole()), "no client sees a failure: {seen:?}");
        rollout(&world).await["phase"] == "rolled_back"
    })
    .await;
    all_fine(at_once(&client, 20).await);
    assert!(!client.is_closed(), "one connection saw all of it");
    assert!(shielded(&world).await >= 3.0);
    let ended = rollout(&world).await;
    assert!(ended["meters"]["canary_failures"].as_u64() >= Some(3), "{ended}");
}

fn all_fine(seen: Vec<H2Seen>) {
    for seen in seen {
        assert_eq!((seen.status, seen.is_whole(), seen.field("x-origin")), (200, true, Some("v1")), "{seen:?}");
    }
}

#[tokio::test]
async fn a_canary_that_resets_streams_goes_back_over_http2_on_both_sides() {
    let (world, _v1, v2) = canary_h2c(&["rollout:\n  stages: [25%, 100%]\n  promote_when: { hold: 1h }"]).await;
    v2.set(H2Fault::ResetUnanswered);
    let client = H2Client::connect(world.web()).await;
    until("it is rolled back", || async {
        all_fine(at_once(&client, 20).await);
        rollout(&world).await["phase"] == "rolled_back"
    })
    .await;
    assert!(shielded(&world).await >= 3.0);
    assert!(meters(&world).await["canary_failures"].as_u64() >= Some(3));
}

/// Nothing ran, so whatever it is may be asked of stable: a call of gRPC is a POST.
#[tokio::test]
async fn what_a_canary_refuses_unread_is_answered_by_stable() {
    let unjudged = "rollout:\n  stages: [100%]\n  promote_when: { hold: 1h }\n  guardrails: { errors: off }";
    let (world, v1, v2) = canary_h2c(&[unjudged]).await;
    v2.set(H2Fault::RefuseFirst);
    let client = H2Client::connect(world.web()).await;
    let seen = client.post("/order", b"one book").await;
    assert_eq!((seen.status, seen.field("x-origin"), seen.text().as_str()), (200, Some("v1"), "one book"), "{seen:?}");
    assert_eq!((v1.received().len(), v2.received().len()), (1, 0));
    assert_eq!(shielded(&world).await, 1.0);
    // What it may have run is its own.
    v2.set(H2Fault::ResetUnanswered);
    assert_eq!(client.post("/order", b"one book").await.status, 502);
    assert_eq!((v1.received().len(), v2.received().len()), (1, 1));
}

#[tokio::test]
async fn streams_that_wait_for_a_withdrawn_canary_are_answered_by_stable() {
    let (world, v1, v2) = canary(&[WHOLE, LONG]).await;
    let client = H2Client::connect(world.web()).await;
    let mut events = client.begin(request("GET", "/sse", &[]), true).await.unwrap().head().await;
    assert!(events.next().await.is_some());
    v2.set(Fault::Hang);
    let order = asked(&client, 1, "POST", "/order").await.pop().unwrap();
    let pages = asked(&client, 8, "GET", "/page").await;
    until("they have arrived", || async { v2.executed("/page") == 8 && v2.executed("/order") == 1 }).await;
    let began = Instant::now();
    world.cli(&["rollout", "abort", "shop"]).await.ok();
    for page in pages {
        let seen = soon("an answer", page.answer()).await;
        assert_eq!((seen.status, seen.is_whole(), seen.field("x-origin")), (200, true, Some("v1")), "{seen:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "not when the deadline came: {:?}", began.elapsed());
    assert_eq!((v1.executed("/page"), v2.executed("/page"), v1.executed("/order")), (8, 8, 0));
    assert_eq!(shielded(&world).await, 8.0);
    // What may not run twice waits on, and what has begun to answer goes on.
    assert_eq!(v2.open(), 2, "of ten connections");
    order.cancel();
    until("only the events are left", || async { v2.open() == 1 }).await;
    assert!(!client.is_closed());
}

#[tokio::test]
async fn streams_are_called_back_from_a_connection_that_others_go_on_using() {
    let (world, v1, v2) = canary_h2c(&[WHOLE, LONG]).await;
    let client = H2Client::connect(world.web()).await;
    let mut open = client.begin(request("GET", "/open", &[]), true).await.unwrap().head().await;
    assert!(open.next().await.is_some());
    assert_eq!(open.seen.field("x-origin"), Some("v2"));
    v2.set(H2Fault::Hang);
    let order = asked(&client, 1, "POST", "/order").await.pop().unwrap();
    let pages = asked(&client, 8, "GET", "/page").await;
    until("they have arrived", || async { v2.received().len() == 10 }).await;
    world.cli(&["rollout", "abort", "shop"]).await.ok();
    for page in pages {
        let seen = soon("an answer", page.answer()).await;
        assert_eq!((seen.status, seen.is_whole(), seen.field("x-origin")), (200, true, Some("v1")), "{seen:?}");
    }
    until("those attempts are cancelled", || async { v2.cancelled() == 8 }).await;
    assert_eq!((v1.received().len(), v2.connections()), (8, 1));
    assert_eq!(shielded(&world).await, 8.0);
    v2.tick();
    assert!(open.next().await.is_some(), "who shares the connection is not touched");
    order.cancel();
    until("nor was the order, until its client left", || async { v2.cancelled() == 9 }).await;
}

#[tokio::test]
async fn streams_are_copied_to_a_mirrored_version_and_their_clients_do_not_notice() {
    let stages =
        "rollout:\n  stages: [{ mirror: 100% }, 50%, 100%]\n  promote_when: { hold: 1h }\ntimeouts: { request: 1s }";
    let (world, v1, v2) = canary(&[stages]).await;
    let client = H2Client::connect(world.web()).await;
    let fields = [("x-nth", "7"), ("cookie", "a=1"), ("cookie", "b=2"), ("x-switchback-mirror", "no")];
    let seen = client.get_with("/item?q=%20", &fields).await;
    assert_eq!((seen.status, seen.field("x-origin")), (200, Some("v1")));
    assert_eq!(client.post("/order", b"one").await.status, 200, "what may not run twice is not copied");
    let copies = |result: &'static str| {
        let world = &world;
        async move { world.metric("switchback_mirrored_total", &[("service", "shop"), ("result", result)]).await }
    };
    until("the copy is answered", || async { copies("answered").await == 1.0 }).await;
    let (original, copied) = (v1.received(), v2.received());
    assert_eq!((original.len(), copied.len()), (2, 1));
    assert_eq!(copied[0].line, original[0].line);
    assert_eq!((copied[0].field("cookie"), copied[0].field("x-nth")), (Some("a=1; b=2"), Some("7")));
    assert_eq!((copied[0].field("x-switchback-mirror"), original[0].field("x-switchback-mirror")), (Some("1"), None));
    // Whatever the copies do.
    v2.set(Fault::Hang);
    all_fine(at_once(&client, 100).await);
    v2.set(Fault::Reset);
    all_fine(at_once(&client, 100).await);
    until("every copy is accounted for", || async {
        copies("answered").await + copies("failed").await + copies("dropped").await == 201.0
    })
    .await;
    assert_eq!(rollout(&world).await["stage"], json!(1));
}
