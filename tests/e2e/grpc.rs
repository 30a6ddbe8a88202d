//! gRPC through the proxy: unary and streaming calls of a real client and server, and its status as the outcome.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;

use crate::harness::http2::{H2Client, request};
use crate::harness::http2_origin::H2Origin;
use crate::harness::rollouts::rollout;
use crate::harness::*;

fn service(v1: std::net::SocketAddr, v2: std::net::SocketAddr, more: &str) -> String {
    let mut text = format!(
        "routes:\n  - {{ name: all, match: {{ path_prefix: / }}, service: shop }}\nservices:\n  shop:\n    versions:\n      v1: {{ endpoints: [\"{v1}\"] }}\n      v2: {{ endpoints: [\"{v2}\"] }}\n    upstream: {{ protocol: h2c }}\n"
    );
    for line in more.lines() {
        text += &format!("    {line}\n");
    }
    text
}

/// A tonic server with the health service.
pub async fn health_server(world: &World) -> (std::net::SocketAddr, HealthReporter) {
    let address = world.unused();
    let (reporter, service) = tonic_health::server::health_reporter();
    let listener = tokio::net::TcpListener::bind(address).await.expect("the address is ours");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            let answer = hyper::service::service_fn(move |request| service.clone().call(request));
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
        }
    });
    (address, reporter)
}

pub async fn health_client(address: std::net::SocketAddr) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    HealthClient::new(endpoint.connect().await.expect("it listens"))
}

pub fn asking(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn a_tonic_client_gets_what_it_gets_without_the_proxy() {
    let mut world = World::new();
    let (v1, reporter) = health_server(&world).await;
    let (v2, _v2) = health_server(&world).await;
    world.start(&service(v1, v2, "active: v1\ndrain: { requests: 300ms, streams: 600ms, reconnect_spread: 0s }")).await;
    reporter.set_service_status("shop", ServingStatus::Serving).await;
    let mut direct = health_client(v1).await;
    let mut proxied = health_client(world.web()).await;
    // Unary, good and bad.
    let (one, other) = (proxied.check(asking("shop")).await.unwrap(), direct.check(asking("shop")).await.unwrap());
    assert_eq!(one.get_ref(), other.get_ref());
    assert_eq!(one.metadata().get("x-switchback-version").unwrap(), "v1");
    let (one, other) =
        (proxied.check(asking("nobody")).await.unwrap_err(), direct.check(asking("nobody")).await.unwrap_err());
    assert_eq!((one.code(), one.message()), (other.code(), other.message()));
    assert_eq!(one.code(), tonic::Code::NotFound);
    // Server streaming: each change is seen.
    let mut watch = proxied.watch(asking("shop")).await.unwrap().into_inner();
    let mut seen = vec![soon("the first status", watch.message()).await.unwrap().unwrap().status];
    reporter.set_service_status("shop", ServingStatus::NotServing).await;
    seen.push(soon("the second status", watch.message()).await.unwrap().unwrap().status);
    assert_eq!(seen, [1, 2]);
    until("it counts as a gRPC stream", || async {
        world.version_status("shop", "v1").await["in_flight"]["grpc"] == 1
    })
    .await;
    for (status, count) in [("OK", 1.0), ("NOT_FOUND", 1.0)] {
        let counted = world.metric("switchback_grpc_calls_total", &[("version", "v1"), ("status", status)]).await;
        assert_eq!(counted, count, "{status}");
    }
    // A drain ends the stream with a status, between two messages; the channel goes on.
    world.switch("shop", "v2").await;
    let end = soon("the stream is ended", watch.message()).await.unwrap_err();
    assert_eq!(end.code(), tonic::Code::Unavailable, "{end:?}");
    assert!(end.message().contains("taken out of service"), "{end:?}");
    let next = proxied.check(asking("")).await.unwrap();
    assert_eq!(next.metadata().get("x-switchback-version").unwrap(), "v2");
}

#[tokio::test]
async fn our_own_refusals_are_answered_as_grpc() {
    let mut world = World::new();
    let dead = world.unused();
    let v2 = H2Origin::start("v2", world.unused()).await;
    let text = service(dead, v2.address, "active: v1\nhold: { max_wait: 0s }\nlimits: { body: 1000B }")
        .replace("path_prefix: /", "path_prefix: /grpc");
    world.start(&text).await;
    let client = H2Client::connect(world.web()).await;
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    for (path, body, status) in [("/grpc/a", 0, "14"), ("/elsewhere", 0, "12"), ("/grpc/a", 2000, "8")] {
        let length = body.to_string();
        let fields = [&grpc[..], &[("content-length", length.as_str())]].concat();
        let seen = client.send(request("POST", path, &fields), &vec![0; body]).await;
        assert_eq!(
            (seen.status, seen.field("grpc-status"), seen.body.len()),
            (200, Some(status), 0),
            "{path} {seen:?}"
        );
        assert_eq!(seen.field("content-type"), Some("application/grpc"));
        assert!(seen.field("grpc-message").is_some_and(|why| !why.is_empty()) && seen.is_whole(), "{seen:?}");
    }
    let plain = client.get("/elsewhere").await;
    assert_eq!((plain.status, plain.field("grpc-status")), (404, None), "others are answered as ever");
}

#[tokio::test]
async fn trailers_of_answers_pass_and_those_of_requests_end_here() {
    let mut world = World::new();
    let v1 = H2Origin::start("v1", world.unused()).await;
    world.start(&service(v1.address, v1.address, "active: v1")).await;
    let client = H2Client::connect(world.web()).await;
    let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("trailer", "x-sum")];
    let mut call = client.begin(request("POST", "/call", &fields), false).await.unwrap();
    call.body.send_data(bytes::Bytes::from_static(b"\0\0\0\0\x01x"), false).unwrap();
    call.body
        .send_trailers(http::HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), "1".parse().unwrap())]))
        .unwrap();
    let seen = call.answer().await;
    assert_eq!((seen.status, seen.trailer("grpc-status"), seen.trailer("x-checksum")), (200, Some("0"), Some("ok")));
    let last = v1.last();
    assert_eq!((last.body.as_slice(), last.complete, last.trailers.is_none()), (&b"\0\0\0\0\x01x"[..], true, true));
    assert_eq!(last.headers.get("te").unwrap(), "trailers");
    // An HTTP/1.1 client gets the body; it has no place for trailers that nobody announced.
    let mut plain = world.client();
    let seen = plain.send("POST", "/call", &[("content-type", "application/grpc")], b"\0\0\0\0\x01x").await;
    assert_eq!((seen.status, seen.body.as_slice()), (200, &b"\0\0\0\0\x01x"[..]));
}

#[tokio::test]
async fn a_bidirectional_call_flows_both_ways_before_either_side_ends() {
    let mut world = World::new();
    let v1 = H2Origin::start("v1", world.unused()).await;
    world
        .start(&service(v1.address, v1.address, "active: v1\ntimeouts: { connect: 1s, request: 5s, idle: 1500ms }"))
        .await;
    let client = H2Client::connect(world.web()).await;
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    let call = client.begin(request("POST", "/open", &fields), true).await.unwrap();
    let mut answer = call.head().await;
    assert_eq!(answer.next().await.unwrap(), &b"\0\0\0\0\x02hi"[..]);
    until("it is a stream", || async { world.version_status("shop", "v1").await["in_flight"]["grpc"] == 1 }).await;
    // Longer than `timeouts.idle`: silence is a stream's nature.
    tokio::time::sleep(Duration::from_millis(1700)).await;
    v1.tick();
    assert_eq!(answer.next().await.unwrap(), &b"\0\0\0\0\x02hi"[..]);
}

#[tokio::test]
async fn a_status_in_the_trailers_is_what_a_rollout_judges() {
    let mut world = World::new();
    let (v1, v2) = (H2Origin::start("v1", world.unused()).await, H2Origin::start("v2", world.unused()).await);
    let more = "active: v1\nrollout:\n  stages: [50%, 100%]\n  promote_when: { hold: 1h }";
    world.start(&service(v1.address, v2.address, more)).await;
    world.edit_config(|text| text.replace("active: v1", "active: v2"));
    until("stage 1", || async { rollout(&world).await["stage"] == 1 }).await;
    let client = H2Client::connect(world.web()).await;
    // Every call of either version fails in its trailers, after a good head.
    let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("x-status", "13")];
    until("the judge has seen it", || async {
        let seen = client.send(request("POST", "/call", &fields), b"\0\0\0\0\x01x").await;
        assert_eq!((seen.status, seen.trailer("grpc-status")), (200, Some("13")));
        rollout(&world).await["meters"]["canary_failures"].as_u64() > Some(2)
    })
    .await;
    // And those that end well are no failures.
    let before = rollout(&world).await["meters"]["canary_failures"].clone();
    let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("x-status", "0")];
    for _ in 0..20 {
        client.send(request("POST", "/call", &fields), b"\0\0\0\0\x01x").await;
    }
    assert_eq!(rollout(&world).await["meters"]["canary_failures"], before);
    assert!(v2.received().len() > 2);
}
