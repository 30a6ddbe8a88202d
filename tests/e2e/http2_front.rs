//! HTTP/2 from clients, without TLS: what works over HTTP/1.1 works the same.

use crate::harness::http2::{
    Broken, CONTINUATION, END_HEADERS, END_STREAM, GOAWAY, H2Client, H2Raw, HEADERS, block, frame, head, request,
};
use crate::harness::*;

#[tokio::test]
async fn many_requests_on_one_connection_with_prior_knowledge() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], "active: v1")).await;
    let client = H2Client::connect(world.web()).await;
    let asked = (0..50).map(|nth| {
        let client = &client;
        async move { client.get(&format!("/{nth}")).await }
    });
    for seen in futures_util::future::join_all(asked).await {
        assert_eq!((seen.status, seen.field("x-origin"), seen.is_whole()), (200, Some("v1"), true), "{seen:?}");
        assert_eq!(seen.field("x-switchback-version"), Some("v1"));
        assert_eq!(seen.field("via"), Some("1.1 switchback"));
        assert_eq!((seen.field("connection"), seen.trailer("grpc-status")), (None, None));
    }
    let body = vec![7; 300_000];
    let seen = client.post("/upload", &body).await;
    assert_eq!(seen.status, 200, "{seen:?}");
    let last = v1.last();
    assert_eq!((last.method(), last.body_bytes, last.complete), ("POST", 300_000, true));
    // The same port speaks HTTP/1.1.
    assert!(Client::new(world.web()).get("/").await.is_fine());
}

#[tokio::test]
async fn the_endpoint_gets_an_http1_request_like_any_other() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], "active: v1")).await;
    let client = H2Client::connect(world.web()).await;
    let fields = [
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-switchback-version", "v9"),
        ("x-real-ip", "1.2.3.4"),
    ];
    assert_eq!(client.get_with("/a//b?q=1", &fields).await.status, 200);
    let last = v1.last();
    assert_eq!(last.line, "GET /a/b?q=1 HTTP/1.1", "in normal form");
    assert_eq!(last.fields("host"), ["shop.test"]);
    assert_eq!(last.fields("cookie"), ["a=1; b=2"]);
    assert_eq!(last.fields("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(last.fields("via"), ["2.0 switchback"]);
    for absent in ["te", "x-switchback-version", "transfer-encoding", "content-length"] {
        assert_eq!(last.field(absent), None, "{absent}");
    }
    let head = client.send(request("HEAD", "/", &[]), b"").await;
    assert_eq!((head.status, head.body.len(), head.is_whole()), (200, 0, true), "{head:?}");
}

async fn two_versions(more: &str) -> (World, Origin, Origin) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], &format!("active: v1\n{more}"))).await;
    (world, v1, v2)
}

#[tokio::test]
async fn a_drain_ends_streams_and_never_the_connection_they_share() {
    let (world, v1, _v2) = two_versions("drain: { requests: 400ms, streams: 400ms, reconnect_spread: 0s }").await;
    let client = H2Client::connect(world.web()).await;
    let mut events = client.begin(request("GET", "/sse", &[]), true).await.unwrap().head().await;
    v1.tick();
    assert!(events.next().await.is_some());
    let slow = client.begin(request("GET", "/slow/10000", &[]), true).await.unwrap();
    until("both run", || async {
        let status = world.version_status("shop", "v1").await;
        (status["in_flight"]["http"].as_u64(), status["in_flight"]["sse"].as_u64()) == (Some(1), Some(1))
    })
    .await;
    world.switch("shop", "v2").await;
    let events = events.rest().await;
    assert!(events.is_whole(), "{events:?}");
    assert!(events.text().ends_with(": switchback: version drained, reconnect\n\n"), "{}", events.text());
    let slow = slow.answer().await;
    assert_eq!((slow.status, slow.is_whole()), (503, true), "{slow:?}");
    let next = client.get("/").await;
    assert_eq!((next.status, next.field("x-origin")), (200, Some("v2")), "the same connection: {next:?}");
    assert!(!client.is_closed());
    assert_eq!(world.status().await["connections"].as_u64().unwrap_or(1), 1, "streams are no connections");
}

#[tokio::test]
async fn a_client_that_cancels_frees_the_endpoint_and_counts_as_gone() {
    let (world, v1, _v2) = two_versions("").await;
    v1.set(Fault::Hang);
    let client = H2Client::connect(world.web()).await;
    let hanging = client.begin(request("GET", "/hang", &[]), true).await.unwrap();
    until("it runs", || async { v1.open() == 1 }).await;
    hanging.cancel();
    until("the endpoint is let go", || async { v1.open() == 0 }).await;
    until("it is counted", || async {
        world.metric("switchback_request_errors_total", &[("class", "downstream_abort")]).await == 1.0
    })
    .await;
    v1.set(Fault::None);
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_broken_answer_resets_its_stream_alone() {
    let (world, v1, _v2) = two_versions("").await;
    let client = H2Client::connect(world.web()).await;
    for fault in [Fault::CutBody, Fault::ResetBody] {
        v1.set(fault.clone());
        let seen = client.get("/").await;
        // A reset may overtake the head.
        assert_eq!(seen.broken, Some(Broken::Reset(h2::Reason::INTERNAL_ERROR)), "{fault:?}");
    }
    v1.set(Fault::CloseUnanswered);
    assert_eq!(client.get("/").await.status, 502);
    v1.set(Fault::None);
    assert!(client.get("/").await.is_whole());
}

#[tokio::test]
async fn deadlines_hold_for_streams() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let text = world
        .preamble()
        .replace("8080\" }", "8080\", timeouts: { header: 600ms, idle: 600ms, body: 600ms, write: 600ms } }")
        + &one_service(&[&v1], "active: v1\ntimeouts: { connect: 500ms, request: 700ms, idle: 600ms }");
    world.start_text(&text).await;
    // A body that never comes: 408, and the connection goes on.
    let client = H2Client::connect(world.web()).await;
    let stalled = client.begin(request("POST", "/", &[("content-length", "5")]), false).await.unwrap();
    let seen = stalled.answer().await;
    assert_eq!((seen.status, seen.is_whole()), (408, true), "{seen:?}");
    // An endpoint that does not answer.
    v1.set(Fault::Hang);
    assert_eq!(client.get("/").await.status, 504);
    // One that falls silent in the middle.
    v1.set(Fault::StallBody);
    let seen = client.get("/").await;
    assert_eq!((seen.status, seen.broken), (200, Some(Broken::Reset(h2::Reason::CANCEL))), "{seen:?}");
    v1.set(Fault::None);
    // A client that takes nothing: its stream ends, others live.
    let mut narrow = h2::client::Builder::new();
    narrow.initial_window_size(0);
    let narrow = H2Client::connect_with(world.web(), &narrow).await;
    let stuck = narrow.begin(request("GET", "/bytes/100000", &[]), true).await.unwrap();
    let seen = stuck.answer().await;
    assert_eq!((seen.status, seen.broken), (200, Some(Broken::Reset(h2::Reason::CANCEL))), "{seen:?}");
    // An idle connection: a GOAWAY without an error.
    assert!(client.end().await.is_ok());
}

#[tokio::test]
async fn a_head_that_never_ends_closes_the_connection() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let text = world.preamble().replace("8080\" }", "8080\", timeouts: { header: 500ms, idle: 20s } }")
        + &one_service(&[&v1], "active: v1");
    world.start_text(&text).await;
    // Half a preface, a preface alone, half a frame, fields without an end, and dribbling CONTINUATIONs.
    let mut half = H2Raw::bare(world.web()).await;
    half.write(b"PRI * HTTP/2.0\r\n").await;
    let mut silent = H2Raw::bare(world.web()).await;
    silent.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let mut torn = H2Raw::connect(world.web()).await;
    torn.write(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET", "/", &[]))[..20]).await;
    let mut open = H2Raw::connect(world.web()).await;
    open.send(HEADERS, END_STREAM, 1, &head("GET", "/", &[])).await;
    let mut dribble = H2Raw::connect(world.web()).await;
    dribble.send(HEADERS, END_STREAM, 1, &head("GET", "/", &[])).await;
    let dribbles = async {
        while dribble.send(CONTINUATION, 0, 1, &block(&[("x", "y")])).await {
            if tokio::time::timeout(std::time::Duration::from_millis(60), dribble.next_raw()).await == Ok(false) {
                break;
            }
        }
    };
    soon("all are closed", async { tokio::join!(half.rest(), torn.rest(), open.rest(), dribbles) }).await;
    drop(silent);
    assert_eq!(v1.requests(), 0);
    assert!(H2Client::connect(world.web()).await.get("/").await.is_whole());
}

#[tokio::test]
async fn a_shutdown_says_goaway_twice_and_finishes_what_runs() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world
        .start(
            &("shutdown: { pre_drain: 100ms, linger: 300ms, timeout: 8s }\n".to_string()
                + &one_service(&[&v1], "active: v1")),
        )
        .await;
    let mut raw = H2Raw::connect(world.web()).await;
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET", "/slow/1500", &[])).await;
    until("it runs", || async { v1.requests() == 1 }).await;
    world.signal(libc::SIGTERM);
    let first = raw.until(|frame| frame.kind == GOAWAY).await.expect("a first GOAWAY");
    assert_eq!((&first.payload[..4], first.reason()), (&[0x7f, 0xff, 0xff, 0xff][..], 0));
    // It had not heard yet: this one is still taken.
    raw.send(HEADERS, END_HEADERS | END_STREAM, 3, &head("GET", "/late", &[])).await;
    let second = raw.until(|frame| frame.kind == GOAWAY).await.expect("a second GOAWAY");
    assert_eq!((&second.payload[..4], second.reason()), (&[0, 0, 0, 3][..], 0));
    let slow = raw.until(|frame| frame.stream == 1 && frame.flags & END_STREAM != 0).await;
    assert!(slow.is_some(), "what ran is finished");
    assert_eq!(world.exit(std::time::Duration::from_secs(10)).await.code(), Some(0));
    assert_eq!(v1.received().iter().filter(|it| it.complete).count(), 2);
}

#[tokio::test]
async fn a_listener_that_is_removed_sends_its_clients_away() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let extra = world.unused();
    let preamble = world.preamble();
    let with = preamble.replace("listeners:\n", &format!("listeners:\n  extra: {{ bind: \"{extra}\" }}\n"));
    world.start_text(&(with + &one_service(&[&v1], "active: v1"))).await;
    let client = H2Client::connect(extra).await;
    assert_eq!(client.get("/").await.status, 200);
    let slow = client.begin(request("GET", "/slow/300", &[]), true).await.unwrap();
    until("it runs", || async { v1.requests() == 2 }).await;
    world.edit_and_wait(|_| preamble + &one_service(&[&v1], "active: v1")).await;
    assert_eq!(slow.answer().await.status, 200, "what runs is finished");
    assert!(client.end().await.is_ok(), "and the connection ends without an error");
}

#[tokio::test]
async fn limits_answer_with_their_own_status() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let text = world
        .preamble()
        .replace("8080\" }", "8080\", limits: { header_bytes: 4KiB, header_fields: 20, target_bytes: 256B } }")
        + &one_service(&[&v1], "active: v1\nlimits: { body: 1000B }");
    world.start_text(&text).await;
    let client = H2Client::connect(world.web()).await;
    let long = format!("/{}", "x".repeat(300));
    assert_eq!(client.get(&long).await.status, 414);
    let big = "v".repeat(5000);
    assert_eq!(client.get_with("/", &[("x-big", &big)]).await.status, 431);
    let names: Vec<String> = (0..25).map(|nth| format!("x-{nth}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(client.get_with("/", &many).await.status, 431);
    let declared = client.send(request("POST", "/", &[("content-length", "1001")]), &[0; 1001]).await;
    assert_eq!(declared.status, 413, "{declared:?}");
    assert_eq!(v1.requests(), 0);
    let streamed = client.post("/", &[0; 1001]).await;
    assert_eq!(streamed.status, 413, "{streamed:?}");
    assert!(v1.received().iter().all(|it| !it.complete), "no whole request reached the endpoint");
    assert_eq!(client.post("/", &[0; 1000]).await.status, 200, "the connection goes on");
}

#[tokio::test]
async fn sticky_force_and_the_access_log_work_for_streams() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    let text = world.preamble()
        + "access_log: { to: access.log }\n"
        + &one_service(
            &[&v1, &v2],
            "split: { v1: 50, v2: 50 }\nsticky: { cookie: { name: sb } }\nforce: { header: x-version }",
        );
    world.start_text(&text).await;
    let client = H2Client::connect(world.web()).await;
    let first = client.get("/").await;
    let cookie = first.field("set-cookie").expect("a sticky cookie").split(';').next().unwrap().to_string();
    for _ in 0..10 {
        let again = client.get_with("/", &[("cookie", "other=1"), ("cookie", &cookie)]).await;
        assert_eq!(again.field("x-origin"), first.field("x-origin"));
    }
    for version in ["v1", "v2"] {
        assert_eq!(client.get_with("/", &[("x-version", version)]).await.field("x-origin"), Some(version));
    }
    let log = || std::fs::read_to_string(world.path("access.log")).unwrap_or_default();
    until("the log is written", || async { log().lines().count() == 13 }).await;
    let line: serde_json::Value = serde_json::from_str(log().lines().next().unwrap()).unwrap();
    assert_eq!((line["protocol"].as_str(), line["host"].as_str()), (Some("HTTP/2.0"), Some("shop.test")), "{line}");
    assert_eq!(line["status"], 200);
    assert!(line["response_bytes"].as_u64() > Some(0), "{line}");
}

#[tokio::test]
async fn interim_answers_reach_the_client() {
    let (world, v1, _v2) = two_versions("").await;
    v1.set(Fault::EarlyHints);
    let client = H2Client::connect(world.web()).await;
    let seen = client.get("/").await;
    assert_eq!((seen.status, seen.interim.as_slice()), (200, &[103][..]), "{seen:?}");
    v1.set(Fault::None);
    let mut posted = client.begin(request("POST", "/", &[("expect", "100-continue")]), false).await.unwrap();
    // The body is sent only after the endpoint has asked for it.
    posted.until_interim(100).await;
    posted.body.send_data(bytes::Bytes::from_static(b"hello"), true).unwrap();
    assert_eq!(posted.answer().await.status, 200);
    assert_eq!(v1.last().body, b"hello");
}

#[tokio::test]
async fn without_prior_knowledge_the_preface_is_refused() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let text = world.preamble().replace("8080\" }", "8080\", http2: { prior_knowledge: false } }")
        + &one_service(&[&v1], "active: v1");
    world.start_text(&text).await;
    let mut raw = world.raw().await;
    raw.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    assert_eq!(raw.answer().await.status, 505);
    assert_eq!(v1.requests(), 0);
}
