//! HTTP/2 to endpoints: many requests on one connection, and second chances by its own rules.

use std::time::Duration;

use crate::harness::http2::{Broken, H2Answer, H2Client, request};
use crate::harness::http2_origin::{H2Fault, H2Origin};
use crate::harness::rollouts::rollout;
use crate::harness::*;

/// One service of two versions that speak h2c.
fn service(v1: &H2Origin, v2: &H2Origin, more: &str) -> String {
    let mut text = format!(
        "routes:\n  - {{ name: all, match: {{ path_prefix: / }}, service: shop }}\nservices:\n  shop:\n    versions:\n      v1: {{ endpoints: [\"{}\"] }}\n      v2: {{ endpoints: [\"{}\"] }}\n    upstream: {{ protocol: h2c }}\n",
        v1.address, v2.address
    );
    for line in more.lines() {
        text += &format!("    {line}\n");
    }
    text
}

async fn proxied(more: &str) -> (World, H2Origin, H2Origin) {
    let mut world = World::new();
    let (v1, v2) = (H2Origin::start("v1", world.unused()).await, H2Origin::start("v2", world.unused()).await);
    world.start(&service(&v1, &v2, more)).await;
    (world, v1, v2)
}

#[tokio::test]
async fn requests_share_connections_and_keep_their_meaning() {
    let (world, v1, _v2) = proxied("active: v1").await;
    let client = H2Client::connect(world.web()).await;
    let asked = (0..60).map(|nth| {
        let client = &client;
        async move { client.post(&format!("/{nth}"), format!("body {nth}").as_bytes()).await }
    });
    for (nth, seen) in futures_util::future::join_all(asked).await.into_iter().enumerate() {
        assert_eq!((seen.status, seen.text()), (200, format!("body {nth}")), "{seen:?}");
    }
    assert_eq!(v1.connections(), 1, "who comes while a connection is being made waits for it");
    // HTTP/1.1 clients are served by the same endpoint.
    let mut plain = world.client();
    let seen = plain
        .send("POST", "/a?b=c", &[("x-forwarded-for", "9.9.9.9"), ("connection", "x-a"), ("x-a", "1")], b"hello")
        .await;
    assert_eq!((seen.status, seen.text().as_str(), seen.origin()), (200, "hello", Some("v1")));
    let last = v1.last();
    assert_eq!((last.method.as_str(), v1.connections() <= 2), ("POST", true), "one for each data thread");
    assert_eq!((last.authority.as_str(), last.path.as_str(), last.complete), ("shop.test", "/a?b=c", true));
    assert_eq!(last.headers.get("x-forwarded-for").unwrap(), "127.0.0.1");
    for absent in ["host", "connection", "x-a", "transfer-encoding", "te"] {
        assert!(!last.headers.contains_key(absent), "{absent}");
    }
}

#[tokio::test]
async fn what_the_endpoint_refused_unread_is_asked_again_whatever_it_is() {
    let (world, v1, _v2) = proxied("active: v1").await;
    v1.set(H2Fault::RefuseFirst);
    let client = H2Client::connect(world.web()).await;
    let seen = client.post("/order", b"one book").await;
    // Each fresh connection refuses once more: two refusals are the endpoint's answer.
    assert_eq!(seen.status, 502, "{seen:?}");
    assert_eq!(v1.received().len(), 0, "never read, never run");
    v1.set(H2Fault::None);
    assert_eq!(client.post("/order", b"one book").await.status, 200);
    assert_eq!(v1.received().len(), 1);
    // One that says goodbye before it has read anything: each connection that is tried says so.
    v1.set(H2Fault::GoAwayBefore);
    let seen = client.post("/again", b"one book").await;
    assert_eq!(seen.status, 502, "{seen:?}");
    v1.set(H2Fault::None);
    // Those connections may still be on their way out.
    until("it is served", || async { client.post("/again", b"one book").await.status == 200 }).await;
    assert_eq!(v1.received().iter().filter(|it| it.path == "/again").count(), 1, "never twice");
}

pub const IMPATIENT: &str = "timeouts: { connect: 1s, request: 700ms, idle: 10s }";

/// One request hangs until its deadline, [`IMPATIENT`]; what shares its connection is still open, and is given.
pub async fn one_hangs(client: &H2Client, origin: &H2Origin) -> H2Answer {
    let mut open = client.begin(request("GET", "/open", &[]), true).await.unwrap().head().await;
    assert!(open.next().await.is_some());
    origin.set(H2Fault::Hang);
    let hanging = client.get("/hang").await;
    assert_eq!((hanging.status, hanging.is_whole()), (504, true), "{hanging:?}");
    until("the endpoint is told", || async { origin.cancelled() == 1 }).await;
    origin.tick();
    assert!(open.next().await.is_some(), "its sibling on the same connection goes on");
    open
}

/// After [`one_hangs`], a client leaves.
pub async fn one_leaves(client: &H2Client, origin: &H2Origin) {
    let gone = client.begin(request("GET", "/open", &[]), true).await.unwrap().head().await;
    drop(gone);
    until("a client that leaves cancels its stream", || async { origin.cancelled() == 2 }).await;
}

#[tokio::test]
async fn an_endpoint_that_hangs_loses_its_stream_and_no_sibling() {
    let (world, v1, _v2) = proxied(&format!("active: v1\n{IMPATIENT}")).await;
    let client = H2Client::connect(world.web()).await;
    let mut open = one_hangs(&client, &v1).await;
    v1.set(H2Fault::ResetAfterHead);
    let broken = client.get("/broken").await;
    assert_eq!(broken.broken, Some(Broken::Reset(h2::Reason::INTERNAL_ERROR)), "{broken:?}");
    v1.set(H2Fault::None);
    v1.tick();
    assert!(open.next().await.is_some());
    one_leaves(&client, &v1).await;
}

#[tokio::test]
async fn a_connection_that_is_gone_is_replaced() {
    let mut world = World::new();
    let address = world.unused();
    let v1 = H2Origin::start("v1", address).await;
    let v2 = H2Origin::start("v2", world.unused()).await;
    world.start(&service(&v1, &v2, "active: v1\nupstream_idle: x").replace("    upstream_idle: x\n", "")).await;
    let client = H2Client::connect(world.web()).await;
    assert_eq!(client.get("/").await.status, 200);
    drop(v1);
    // The same address, another process: its predecessor's connections are closed.
    let again = loop {
        match tokio::net::TcpListener::bind(address).await {
            Ok(free) => {
                drop(free);
                break H2Origin::start("v1", address).await;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    for _ in 0..5 {
        let seen = client.get("/").await;
        assert_eq!((seen.status, seen.is_whole()), (200, true), "{seen:?}");
    }
    assert!(again.connections() >= 1);
}

const WHOLE: &str = "rollout:\n  stages: [100%]\n  promote_when: { hold: 1h }\n  guardrails: { errors: off }";

/// v2 is the canary and gets everything.
async fn canary(more: &str) -> (World, H2Origin, H2Origin) {
    let (world, v1, v2) = proxied(&format!("active: v1\n{more}\n{WHOLE}")).await;
    world.edit_config(|text| text.replace("active: v1", "active: v2"));
    until("stage 1", || async { rollout(&world).await["stage"] == 1 }).await;
    (world, v1, v2)
}

#[tokio::test]
async fn a_late_canary_is_left_for_stable_without_hurting_its_siblings() {
    let (world, _v1, v2) = canary("timeouts: { connect: 1s, request: 800ms, idle: 20s }").await;
    // Over both kinds of client.
    let client = H2Client::connect(world.web()).await;
    let mut open = client.begin(request("GET", "/open", &[]), true).await.unwrap().head().await;
    assert!(open.next().await.is_some());
    assert_eq!(open.seen.field("x-origin"), Some("v2"));
    v2.set(H2Fault::Hang);
    let mut plain = world.client();
    let (streamed, plain) = tokio::join!(client.get("/late"), plain.get("/late"));
    assert_eq!((streamed.status, streamed.field("x-origin")), (200, Some("v1")), "{streamed:?}");
    assert_eq!((plain.status, plain.origin()), (200, Some("v1")), "{plain:?}");
    until("both attempts are cancelled", || async { v2.cancelled() == 2 }).await;
    v2.tick();
    assert!(open.next().await.is_some(), "who shares the connection is not touched");
    assert_eq!(world.metric("switchback_shielded_total", &[("service", "shop")]).await, 2.0);
}
