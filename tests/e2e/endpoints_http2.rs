//! HTTP/2 over TLS to endpoints: negotiated, shared, and with everything that h2c has.

use std::net::SocketAddr;
use std::time::Duration;

use super::endpoints_tls::text;
use super::grpc::{asking, health_client, health_server};
use super::http2_endpoints::{IMPATIENT, one_hangs, one_leaves};
use crate::harness::http2::{H2Client, request};
use crate::harness::http2_origin::{H2Fault, H2Origin};
use crate::harness::tls::{Authority, replace};
use crate::harness::tls_front::TlsFront;
use crate::harness::*;

/// TLS that agrees to `alpn`, in front of `origin`.
async fn front(world: &World, origin: SocketAddr, alpn: &[&str]) -> TlsFront {
    let authority = Authority::new("endpoints");
    replace(&world.path("ca.pem"), &authority.pem);
    TlsFront::with(world.unused(), origin, &authority.issue(&["shop.test"]), None, alpn).await
}

fn spoken(at: SocketAddr, more: &str) -> String {
    let upstream = "upstream: { protocol: h2, tls: { ca_file: ca.pem, sni: shop.test }, keepalive: { idle: 1s } }\n";
    text(&at.to_string(), &format!("{upstream}{more}"))
}

async fn proxied(more: &str) -> (World, H2Origin, TlsFront) {
    let mut world = World::new();
    let origin = H2Origin::start("v1", world.unused()).await;
    let front = front(&world, origin.address, &["h2"]).await;
    world.start(&spoken(front.address, more)).await;
    (world, origin, front)
}

#[tokio::test]
async fn requests_share_a_connection_that_agreed_to_http2_until_nobody_needs_it() {
    let (world, origin, front) = proxied("health: { path: /healthz, every: 1h, pass: 1 }").await;
    until("its check passes, over HTTP/2", || async { world.health("shop", "v1").await == "healthy" }).await;
    assert_eq!((origin.last().path.as_str(), origin.connections()), ("/healthz", 1));
    let client = H2Client::connect(world.web()).await;
    let asked = (0..60).map(|nth| {
        let client = &client;
        async move { client.post(&format!("/{nth}"), format!("body {nth}").as_bytes()).await }
    });
    for (nth, seen) in futures_util::future::join_all(asked).await.into_iter().enumerate() {
        assert_eq!((seen.status, seen.text()), (200, format!("body {nth}")), "{seen:?}");
    }
    assert_eq!(origin.connections(), 2, "one for the check, one for all of them");
    // Whatever the client speaks.
    let mut plain = world.client();
    let body = vec![b'x'; 60_000];
    let seen = plain.post("/a?b=c", &body).await;
    assert_eq!((seen.status, seen.body.len(), seen.origin()), (200, body.len(), Some("v1")));
    let last = origin.last();
    assert_eq!((last.method.as_str(), last.path.as_str(), last.authority.as_str()), ("POST", "/a?b=c", "shop.test"));
    let seen = front.handshakes();
    assert!(seen.iter().all(|one| one.alpn.as_deref() == Some("h2")), "{seen:?}");
    until("they are closed when idle", || async { front.open() == 0 }).await;
    assert_eq!(client.get("/again").await.status, 200);
}

#[tokio::test]
async fn an_endpoint_that_does_not_agree_gets_nothing() {
    let mut world = World::new();
    let origin = world.origin("v1").await;
    let strict = front(&world, origin.address, &["http/1.1"]).await;
    world.start(&spoken(strict.address, "")).await;
    assert_eq!(world.get("/").await.status, 502);
    let said = world.version_status("shop", "v1").await["endpoints"][0]["last_change"].to_string();
    assert!(said.contains("does not speak"), "{said}");
    // It knows of no ALPN at all.
    let silent = front(&world, origin.address, &[]).await;
    world.edit_and_wait(|_| world.preamble() + &spoken(silent.address, "")).await;
    assert_eq!(world.get("/").await.status, 502);
    let said = world.version_status("shop", "v1").await["endpoints"][0]["last_change"].to_string();
    assert!(said.contains("does not speak HTTP/2 over TLS"), "{said}");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn an_endpoint_that_hangs_or_breaks_off_loses_its_stream_and_no_sibling() {
    let (world, origin, _front) = proxied(IMPATIENT).await;
    let client = H2Client::connect(world.web()).await;
    let mut open = one_hangs(&client, &origin).await;
    origin.set(H2Fault::RefuseFirst);
    origin.tick();
    assert!(open.next().await.is_some());
    origin.set(H2Fault::None);
    one_leaves(&client, &origin).await;
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_is_an_answer() {
    let (world, origin, _front) = proxied("").await;
    origin.set(H2Fault::AnswerEarly);
    let client = H2Client::connect(world.web()).await;
    let mut asked = client.begin(request("POST", "/upload", &[]), false).await.unwrap();
    asked.body.send_data(vec![b'x'; 10_000].into(), false).unwrap();
    let seen = asked.answer().await;
    assert_eq!((seen.status, seen.is_whole(), seen.text().as_str()), (413, true, "too much"), "{seen:?}");
    until("it is over", || async {
        world.metric("switchback_requests_total", &[("service", "shop"), ("code", "413")]).await == 1.0
    })
    .await;
    // The client may be said to have left: it has dropped its half of the stream.
    for class in ["connect", "reset", "timeout", "local"] {
        let errors = world.metric("switchback_request_errors_total", &[("service", "shop"), ("class", class)]).await;
        assert_eq!(errors, 0.0, "{class}");
    }
}

#[tokio::test]
async fn grpc_goes_over_it() {
    let mut world = World::new();
    let (at, reporter) = health_server(&world).await;
    let front = front(&world, at, &["h2"]).await;
    let checked = "health: { grpc: {}, every: 100ms, pass: 1 }";
    world.start(&spoken(front.address, checked)).await;
    until("its gRPC check passes", || async { world.health("shop", "v1").await == "healthy" }).await;
    reporter.set_service_status("shop", tonic_health::ServingStatus::Serving).await;
    let mut proxied = health_client(world.web()).await;
    let mut direct = health_client(at).await;
    let (one, other) = (proxied.check(asking("shop")).await.unwrap(), direct.check(asking("shop")).await.unwrap());
    assert_eq!(one.get_ref(), other.get_ref());
    let refused = proxied.check(asking("nobody")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound, "in the trailers: {refused:?}");
    let mut watch = proxied.watch(asking("shop")).await.unwrap().into_inner();
    let mut seen = vec![soon("the first status", watch.message()).await.unwrap().unwrap().status];
    reporter.set_service_status("shop", tonic_health::ServingStatus::NotServing).await;
    seen.push(soon("the second status", watch.message()).await.unwrap().unwrap().status);
    assert_eq!(seen, [1, 2]);
    drop(watch);
    let counted = || world.metric("switchback_grpc_calls_total", &[("version", "v1"), ("status", "NOT_FOUND")]);
    within(Duration::from_secs(5), "it is counted", || async { counted().await == 1.0 }).await;
}

#[tokio::test]
async fn a_check_by_path_is_http2_without_tls_too() {
    let mut world = World::new();
    let origin = H2Origin::start("v1", world.unused()).await;
    let h2c = "upstream: { protocol: h2c }\nhealth: { path: \"/healthz?deep=1\", every: 100ms, pass: 1 }";
    world.start(&text(&origin.address.to_string(), h2c)).await;
    until("it passes", || async { world.health("shop", "v1").await == "healthy" }).await;
    let last = origin.last();
    assert_eq!((last.method.as_str(), last.path.as_str()), ("GET", "/healthz?deep=1"));
}
