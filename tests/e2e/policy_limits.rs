//! How much one client may have and how often it may ask; every limit with what the endpoint received.

use std::time::{Duration, Instant};

use crate::harness::*;

const CLOSED: Duration = Duration::from_secs(8);

/// A world with these keys of the listener and of the service more.
async fn with(listener: &str, service: &str) -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let text = world.preamble().replace("8080\" }", &format!("8080\", {listener} }}"))
        + &one_service(&[&v1], &format!("active: v1\n{service}"));
    world.start_text(&text).await;
    (world, v1)
}

fn client_at(world: &World, last: u8) -> Client {
    let mut client = world.client();
    client.from = Some([127, 0, 1, last].into());
    client
}

async fn refused(world: &World, reason: &str) -> f64 {
    world.metric("switchback_refused_total", &[("service", "shop"), ("reason", reason)]).await
}

/// The statuses of so many requests.
async fn asked(client: &mut Client, times: usize, headers: &[(&str, &str)]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..times {
        statuses.push(client.get_with("/", headers).await.status);
    }
    statuses
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_when_to_come_back() {
    let (world, v1) = with("", "rate_limit: { rate: 6/h, burst: 3 }").await;
    let mut ada = client_at(&world, 1);
    assert_eq!(asked(&mut ada, 5, &[]).await, [200, 200, 200, 429, 429]);
    let seen = ada.get("/").await;
    let after: u64 = seen.field("retry-after").expect("it says when").parse().expect("seconds");
    assert!((1..=600).contains(&after), "{seen:?}");
    assert_eq!(ada.opened, 1, "the connection stays");
    assert_eq!(asked(&mut client_at(&world, 2), 2, &[]).await, [200, 200], "another client has its own");
    assert_eq!(v1.requests(), 5, "what is refused reaches nobody");
    assert_eq!(refused(&world, "rate_limit").await, 3.0);
    // A reload that does not touch the limit forgets nothing, on other connections neither.
    world.reload_with_route(1).await;
    assert_eq!(asked(&mut client_at(&world, 1), 1, &[]).await, [429]);
    // Another limit begins anew; without one there is none.
    world.edit_and_wait(|text| text.replace("burst: 3", "burst: 4")).await;
    assert_eq!(asked(&mut ada, 5, &[]).await, [200, 200, 200, 200, 429]);
    world.edit_and_wait(|text| text.replace("rate_limit: { rate: 6/h, burst: 4 }\n", "")).await;
    assert_eq!(asked(&mut ada, 6, &[]).await, [200; 6]);
}

#[tokio::test]
async fn clients_are_told_apart_by_a_header_and_routes_have_limits_of_their_own() {
    let (world, _v1) =
        with("trusted_proxies: [127.0.0.0/8]", "rate_limit: { key: { header: x-api-key }, rate: 1/h, burst: 2 }").await;
    let login = "routes:\n  - { name: login, match: { path: /login }, service: shop, rate_limit: { rate: 1/h } }\n  \
                 - { name: own, match: { path: /own }, respond: { body: own }, rate_limit: { rate: 1/h } }\n";
    world.edit_and_wait(|text| text.replace("routes:\n", login)).await;
    let mut client = world.client();
    assert_eq!(asked(&mut client, 3, &[("x-api-key", "a")]).await, [200, 200, 429]);
    assert_eq!(asked(&mut client, 3, &[("x-api-key", "b")]).await, [200, 200, 429]);
    assert_eq!(asked(&mut client, 3, &[]).await, [200, 200, 429], "without a key a client is its address");
    // The address is the true client's, and an IPv6 client has one /64.
    assert_eq!(asked(&mut client, 3, &[("x-forwarded-for", "192.0.2.1")]).await, [200, 200, 429]);
    for (from, status) in
        [("2001:db8::1", 200), ("2001:db8::2", 200), ("2001:db8::ffff:3", 429), ("2001:db8:0:1::1", 200)]
    {
        assert_eq!(client.get_with("/", &[("x-forwarded-for", from)]).await.status, status, "{from}");
    }
    for (path, status) in [("/login", 200), ("/login", 429), ("/own", 200), ("/own", 429)] {
        let fields = [("x-api-key", "c"), ("x-forwarded-for", "192.0.2.9")];
        assert_eq!(client.get_with(path, &fields).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn one_client_has_so_much_in_flight() {
    let (world, v1) = with("", "limits: { in_flight_per_client: 2 }").await;
    v1.set(Fault::Held);
    let ask = |last| {
        let mut client = client_at(&world, last);
        tokio::spawn(async move { client.get("/").await.status })
    };
    let held = [ask(1), ask(1)];
    until("both wait", || async { v1.requests() == 2 }).await;
    let mut third = client_at(&world, 1);
    let seen = third.get("/").await;
    assert_eq!((seen.status, seen.field("retry-after")), (429, Some("1")), "{seen:?}");
    let other = ask(2);
    until("another client is served", || async { v1.requests() == 3 }).await;
    v1.set(Fault::None);
    v1.tick();
    for task in held.into_iter().chain([other]) {
        assert_eq!(soon("it is answered", task).await.unwrap(), 200);
    }
    assert_eq!((third.get("/").await.status, third.opened), (200, 1), "its places are free again");
    assert_eq!(refused(&world, "in_flight_per_client").await, 1.0);
    // A client that leaves gives its place back, whatever it left behind.
    v1.set(Fault::Hang);
    for _ in 0..3 {
        let mut raw =
            crate::harness::client::Raw::connect_from(world.web(), Some([127, 0, 1, 7].into())).await.unwrap();
        let before = v1.requests();
        raw.write(b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
        until("it is asked", || async { v1.requests() > before }).await;
        drop(raw);
        until("it is gone", || async { v1.open() == 0 }).await;
    }
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up_however_steadily_it_comes() {
    let (world, v1) = with("timeouts: { body: 800ms }, limits: { min_body_rate: 1KiB }", "").await;
    for head in ["content-length: 5000", "transfer-encoding: chunked"] {
        let mut raw = world.raw().await;
        raw.write(format!("POST / HTTP/1.1\r\nhost: shop.test\r\n{head}\r\n\r\n").as_bytes()).await.unwrap();
        let began = Instant::now();
        let piece: &[u8] = if head.starts_with('c') { b"x" } else { b"1\r\nx\r\n" };
        // No single wait is long.
        let seen = loop {
            let _ = raw.write(piece).await;
            match tokio::time::timeout(Duration::from_millis(20), raw.reader.more()).await {
                Ok(_) => break raw.answer().await,
                Err(_) => assert!(began.elapsed() < CLOSED, "it goes on for ever"),
            }
        };
        assert_eq!(seen.status, 408, "{head}: {seen:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "{head}: {:?}", began.elapsed());
        assert!(raw.until_closed(CLOSED).await.is_some());
    }
    until("the endpoint's side is closed", || async { v1.open() == 0 }).await;
    assert!(!v1.received().iter().any(|one| one.complete), "nothing whole reached the endpoint");
    // One that keeps the pace may take longer than the grace.
    let mut raw = world.raw().await;
    raw.write(b"POST /echo HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 4000\r\n\r\n").await.unwrap();
    for _ in 0..9 {
        raw.write(&[b'y'; 400]).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(100), raw.reader.more()).await.is_err());
    }
    raw.write(&[b'y'; 400]).await.unwrap();
    assert_eq!(raw.answer().await.body_bytes, 4000);
}

#[tokio::test]
async fn a_client_that_sips_is_let_go() {
    let (world, v1) = with("timeouts: { write: 500ms }, limits: { min_send_rate: 64KiB }", "").await;
    v1.stop_recording();
    let mut raw = world.raw().await;
    raw.write(b"GET /bytes/200000000 HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
    let began = Instant::now();
    // 20 KiB a second: each write makes progress, the whole never comes to an end.
    until("it is on its way", || async { v1.requests() == 1 }).await;
    while world.version_status("shop", "v1").await["in_flight"]["http"].as_u64() == Some(1) {
        let _ = tokio::time::timeout(Duration::from_millis(40), raw.reader.sip(2 * 1024)).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(began.elapsed() < CLOSED, "it is served for ever");
    }
    until("the endpoint's side is closed", || async { v1.open() == 0 }).await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_nothing_whole_reaches_the_endpoint() {
    let (world, v1) =
        with("limits: { header_bytes: 2KiB, header_fields: 20, target_bytes: 512B }", "limits: { body: 1KiB }").await;
    let long = "x".repeat(3000);
    let fields: String = (0..30).map(|nth| format!("x-{nth}: y\r\n")).collect();
    let target = "a".repeat(600);
    let chunks: String = (0..3).map(|_| format!("258\r\n{}\r\n", "z".repeat(0x258))).collect();
    for (request, status) in [
        (format!("GET /{target} HTTP/1.1\r\nhost: shop.test\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nhost: shop.test\r\nx-long: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nhost: shop.test\r\n{fields}\r\n"), 431),
        ("POST / HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 1025\r\n\r\n".into(), 413),
        (format!("POST / HTTP/1.1\r\nhost: shop.test\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"), 413),
    ] {
        let before = v1.received().iter().filter(|one| one.complete).count();
        let mut raw = world.raw().await;
        let _ = raw.write(request.as_bytes()).await;
        let seen = raw.answer().await;
        assert_eq!(seen.status, status, "{}", &request[..60]);
        assert!(raw.until_closed(CLOSED).await.is_some(), "{status}: nothing more is read");
        assert_eq!(v1.received().iter().filter(|one| one.complete).count(), before, "{status}");
    }
    // Just at the limits.
    let mut client = world.client();
    assert_eq!(client.post("/echo", &[b'e'; 1024]).await.body_bytes, 1024);
    assert_eq!(client.get(&format!("/{}", "b".repeat(511))).await.status, 200);
    let mut raw = world.raw().await;
    raw.write(b"POST /echo HTTP/1.1\r\nhost: shop.test\r\ntransfer-encoding: chunked\r\n\r\n400\r\n").await.unwrap();
    raw.write(&[b'c'; 1024]).await.unwrap();
    raw.write(b"\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(raw.answer().await.body_bytes, 1024);
}
