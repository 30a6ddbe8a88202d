//! Every wait has an end: slow clients and silent endpoints.

use std::time::{Duration, Instant};

use crate::harness::*;

const CLOSED: Duration = Duration::from_secs(8);

async fn proxied() -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let text =
        world.preamble().replace("8080\" }", "8080\", timeouts: { header: 700ms, idle: 1s, body: 700ms, write: 1s } }")
            + &one_service(
                &[&v1],
                "active: v1\ntimeouts: { connect: 500ms, request: 800ms, idle: 700ms, upgrade_idle: 5s }",
            );
    world.start_text(&text).await;
    (world, v1)
}

fn about(took: Duration, wanted: Duration) -> bool {
    took >= wanted.mul_f64(0.8) && took < wanted + Duration::from_secs(2)
}

#[tokio::test]
async fn a_head_that_dribbles_is_given_up() {
    let (world, v1) = proxied().await;
    let mut raw = world.raw().await;
    let began = Instant::now();
    let mut sent = 0;
    // Each byte comes in time; the whole does not.
    for byte in b"GET / HTTP/1.1\r\nhost: shop.test\r\nx-slow: ".iter().chain(std::iter::repeat_n(&b'x', 200)) {
        if raw.write(&[*byte]).await.is_err() || began.elapsed() > Duration::from_secs(4) {
            break;
        }
        sent += 1;
        let pause = tokio::time::timeout(Duration::from_millis(50), raw.reader.more()).await;
        if pause.is_ok() {
            break;
        }
    }
    assert!(about(began.elapsed(), Duration::from_millis(700)), "{sent} bytes in {:?}", began.elapsed());
    let text = String::from_utf8_lossy(raw.reader.buffered()).into_owned();
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{text}");
    assert!(raw.until_closed(CLOSED).await.is_some());
    assert_eq!(v1.requests(), 0);
}

#[tokio::test]
async fn idle_connections_are_closed_quietly() {
    let (world, _v1) = proxied().await;
    // Before the first request, and between two.
    let mut fresh = world.raw().await;
    let mut used = world.raw().await;
    used.write(b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
    assert_eq!(used.answer().await.status, 200);
    for (what, raw) in [("fresh", &mut fresh), ("used", &mut used)] {
        let began = Instant::now();
        assert_eq!(raw.until_closed(CLOSED).await.as_deref(), Some(&b""[..]), "{what}: no answer to no question");
        assert!(began.elapsed() < Duration::from_secs(4), "{what}");
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_408() {
    let (world, v1) = proxied().await;
    let mut raw = world.raw().await;
    raw.write(b"POST / HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 100\r\n\r\npart").await.unwrap();
    let began = Instant::now();
    let seen = raw.answer().await;
    assert_eq!(seen.status, 408, "{seen:?}");
    assert!(about(began.elapsed(), Duration::from_millis(700)), "{:?}", began.elapsed());
    assert!(raw.until_closed(CLOSED).await.is_some());
    until("the endpoint's side is closed too", || async { v1.open() == 0 }).await;
    assert!(!v1.received().iter().any(|one| one.complete));
}

#[tokio::test]
async fn an_endpoint_that_never_answers_is_504() {
    let (world, v1) = proxied().await;
    for fault in [Fault::Hang, Fault::DribbleHead(Duration::from_millis(100))] {
        v1.set(fault.clone());
        let mut client = world.client();
        let seen = client.get("/").await;
        assert_eq!((&seen.outcome, seen.status), (&Outcome::Ok, 504), "{fault:?}");
        assert!(about(seen.took, Duration::from_millis(800)), "{fault:?}: {:?}", seen.took);
        v1.set(Fault::None);
        assert_eq!(client.get("/").await.status, 200, "the next one is served");
        assert!(client.opened == 1 || seen.closes(), "{fault:?}: closed without a word");
    }
}

#[tokio::test]
async fn an_answer_that_stalls_is_cut_so_that_the_client_sees_it() {
    let (world, v1) = proxied().await;
    v1.set(Fault::StallBody);
    let seen = world.get("/").await;
    assert_eq!(seen.outcome, Outcome::Truncated);
    assert!(about(seen.took, Duration::from_millis(700)), "{:?}", seen.took);
    for fault in [Fault::CutBody, Fault::ResetBody] {
        v1.set(fault.clone());
        assert_eq!(world.get("/").await.outcome, Outcome::Truncated, "{fault:?}");
    }
}

#[tokio::test]
async fn streams_may_be_silent() {
    let (world, v1) = proxied().await;
    let mut stream = SseClient::open(world.web(), "/sse").await;
    stream.next().await.unwrap();
    let mut socket = WsClient::open(world.web(), "/ws").await;
    socket.ping_pong().await.unwrap();
    // Twice the longest of the deadlines that hold for ordinary answers and idle clients.
    let silence = tokio::time::timeout(Duration::from_millis(2500), async {
        tokio::select! { end = stream.next() => format!("{end:?}"), end = socket.receive() => format!("{end:?}") }
    })
    .await;
    assert!(silence.is_err(), "{silence:?}");
    v1.tick();
    assert!(stream.next().await.is_ok());
    socket.ping_pong().await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go() {
    let (world, v1) = proxied().await;
    let mut raw = world.raw().await;
    raw.write(b"GET /bytes/200000000 HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
    until("it is on its way", || async { v1.open() == 1 && v1.requests() == 1 }).await;
    until("the write deadline passes", || async {
        world.version_status("shop", "v1").await["in_flight"]["http"] == 0
            || world.version_status("shop", "v1").await["in_flight"]["http"].is_null()
    })
    .await;
    assert!(raw.until_closed(CLOSED).await.is_some());
}

#[tokio::test]
async fn a_refused_connection_is_502_at_once() {
    let (world, v1) = proxied().await;
    v1.stop().await;
    let seen = world.get("/").await;
    assert!([502, 503].contains(&seen.status), "{seen:?}");
    assert!(seen.took < Duration::from_secs(7));
    v1.reopen().await;
    until("it serves again", || async { world.get("/").await.status == 200 }).await;
}
