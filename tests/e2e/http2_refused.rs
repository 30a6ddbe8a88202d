//! What an endpoint that speaks HTTP/2 says it has not begun with may be asked again, whatever it is, and nothing else
//! may. RFC 9113 sections 6.8 and 8.7.

use crate::harness::http2::{END_HEADERS, END_STREAM, H2Client, HEADERS, RESET, frame, request};
use crate::harness::http2_tap::{Act, H2Tap, goaway, ok};
use crate::harness::*;

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CALM: u32 = 11;

/// One version with these endpoints.
async fn proxied(endpoints: &[&H2Tap], more: &str) -> World {
    let mut world = World::new();
    let addresses: Vec<String> = endpoints.iter().map(|tap| format!("\"{}\"", tap.address)).collect();
    let mut text = format!(
        "routes:\n  - {{ name: all, match: {{ path_prefix: / }}, service: shop }}\nservices:\n  shop:\n    versions:\n      v1: {{ endpoints: [{}] }}\n    upstream: {{ protocol: h2c }}\n    active: v1\n",
        addresses.join(", ")
    );
    for line in more.lines() {
        text += &format!("    {line}\n");
    }
    world.start(&text).await;
    world
}

fn reset(stream: u32, reason: u32) -> Vec<u8> {
    frame(RESET, 0, stream, &reason.to_be_bytes())
}

async fn retries(world: &World, reason: &str) -> f64 {
    world.metric("switchback_retries_total", &[("service", "shop"), ("reason", reason)]).await
}

#[tokio::test]
async fn a_goaway_excludes_later_streams_only_whatever_its_reason() {
    for reason in [NO_ERROR, INTERNAL_ERROR, CALM] {
        let address = World::new();
        let tap = H2Tap::start(address.unused()).await;
        let world = proxied(&[&tap], "").await;
        // The first request is never answered; with the second the endpoint goes away, and says that it began the first.
        tap.script(move |asked| match (asked.connection, asked.stream) {
            (1, 1) => vec![],
            (1, _) => vec![Act::Send(goaway(1, reason)), Act::Close],
            (_, stream) => vec![Act::Send(ok(stream))],
        });
        let client = H2Client::connect(world.web()).await;
        let mut first = client.begin(request("POST", "/first", &[]), false).await.unwrap();
        first.body.send_data(bytes::Bytes::from_static(b"book"), true).unwrap();
        until("the endpoint has the first", || async { tap.asked().len() == 1 }).await;
        let second = client.post("/second", b"book").await;
        assert_eq!((second.status, second.text().as_str()), (200, "ok"), "reason {reason}: {second:?}");
        // It may have run: a POST is not sent again.
        assert_eq!(first.answer().await.status, 502, "reason {reason}");
        let asked: Vec<(u64, u32)> = tap.asked().iter().map(|asked| (asked.connection, asked.stream)).collect();
        assert_eq!(asked, [(1, 1), (1, 3), (2, 1)], "reason {reason}");
    }
}

#[tokio::test]
async fn what_is_refused_twice_goes_to_another_endpoint_even_if_it_may_not_run_twice() {
    for reason in [NO_ERROR, INTERNAL_ERROR, CALM] {
        let address = World::new();
        let good = H2Tap::start(address.unused()).await;
        let bad = [H2Tap::start(address.unused()).await, H2Tap::start(address.unused()).await];
        let world = proxied(&[&bad[0], &bad[1], &good], "retry: { on: [refused] }").await;
        for bad in &bad {
            bad.script(move |_| vec![Act::Send(goaway(0, reason)), Act::Close]);
        }
        let client = H2Client::connect(world.web()).await;
        // Whose turn it is depends on the data thread.
        until("one was refused twice", || async {
            let seen = client.post("/order", b"one").await;
            assert_eq!((seen.status, seen.text().as_str()), (200, "ok"), "reason {reason}: {seen:?}");
            retries(&world, "refused").await >= 1.0
        })
        .await;
        assert!(bad.iter().all(|bad| !bad.asked().is_empty()), "each was asked");
        assert_eq!(retries(&world, "reset").await, 0.0);
    }
}

#[tokio::test]
async fn only_refused_stream_is_a_refusal_among_resets() {
    let address = World::new();
    let (bad, good) = (H2Tap::start(address.unused()).await, H2Tap::start(address.unused()).await);
    let world = proxied(&[&bad, &good], "retry: { on: [refused, reset] }").await;
    let client = H2Client::connect(world.web()).await;
    for (reason, may_run) in [(REFUSED_STREAM, false), (INTERNAL_ERROR, true), (PROTOCOL_ERROR, true), (CALM, true)] {
        bad.script(move |asked| vec![Act::Send(reset(asked.stream, reason))]);
        let (asked_bad, asked_good) = (bad.asked().len(), good.asked().len());
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(client.post("/order", b"one").await.status);
        }
        let (at_bad, at_good) = (bad.asked().len() - asked_bad, good.asked().len() - asked_good);
        assert!(at_bad > 0, "reason {reason}: it was asked");
        match may_run {
            false => assert_eq!((statuses.iter().filter(|it| **it == 200).count(), at_good), (4, 4), "{statuses:?}"),
            true => {
                let failed = statuses.iter().filter(|it| **it == 502).count();
                assert_eq!((failed, at_bad + at_good), (at_bad, 4), "reason {reason}: none twice, {statuses:?}");
            }
        }
        // What may run twice does.
        for _ in 0..4 {
            assert_eq!(client.get("/page").await.status, 200, "reason {reason}");
        }
    }
}

/// Whether the endpoint has begun with it, nobody knows.
#[tokio::test]
async fn what_may_run_twice_is_asked_again_when_the_connection_it_joined_turns_out_to_be_broken() {
    for method in ["GET", "POST"] {
        let address = World::new();
        let tap = H2Tap::start(address.unused()).await;
        let world = proxied(&[&tap], "").await;
        // HEADERS on stream 0: only who is broken sends that.
        tap.script(|asked| match (asked.connection, asked.stream) {
            (1, 3..) => vec![Act::Send(frame(HEADERS, END_HEADERS | END_STREAM, 0, b""))],
            (_, stream) => vec![Act::Send(ok(stream))],
        });
        let client = H2Client::connect(world.web()).await;
        assert_eq!(client.get("/first").await.status, 200);
        let seen = client.begin(request(method, "/joins", &[]), true).await.unwrap().answer().await;
        let (status, again) = if method == "GET" { (200, 1.0) } else { (502, 0.0) };
        assert_eq!((seen.status, retries(&world, "reused_stale").await), (status, again), "{method}: {seen:?}");
        assert_eq!(client.get("/next").await.status, 200, "{method}");
    }
}
