//! Who the client is, and whether it may come in: PROXY protocol, trusted proxies, access lists, connections per client.

use std::time::Duration;

use crate::harness::*;

const CLOSED: Duration = Duration::from_secs(5);

/// A world whose listener has these keys more.
async fn with(listener: &str, rest: &str) -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let text = world.preamble().replace("8080\" }", &format!("8080\", {listener} }}"))
        + "access_log: { to: access.log }\n"
        + &one_service(&[&v1], &format!("active: v1\n{rest}"));
    world.start_text(&text).await;
    (world, v1)
}

/// The last line of the access log, once it has so many.
async fn logged(world: &World, lines: usize) -> serde_json::Value {
    let read = || std::fs::read_to_string(world.path("access.log")).unwrap_or_default();
    until("the line is written", || async { read().lines().count() >= lines }).await;
    serde_json::from_str(read().lines().last().expect("there is one")).expect("a line is JSON")
}

/// Sends the pieces one by one, then a GET; the status, or 0 when the connection is closed without a word.
async fn after(world: &World, pieces: &[&[u8]]) -> u16 {
    let mut raw = world.raw().await;
    for piece in pieces {
        if raw.write(piece).await.is_err() {
            return 0;
        }
        // Each piece is seen by itself: nothing is answered before the last.
        let early = tokio::time::timeout(Duration::from_millis(15), raw.reader.more()).await;
        if let Ok(ended) = early {
            assert!(matches!(ended, Ok(0) | Err(_)), "answered before it was asked");
            return 0;
        }
    }
    let _ = raw.write(b"GET /x HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
    raw.answer().await.status
}

fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend((payload.len() as u16).to_be_bytes());
    header.extend(payload);
    header
}

#[tokio::test]
async fn the_announced_client_is_the_client_everywhere() {
    let (world, v1) = with("proxy_protocol: { from: [127.0.0.0/8] }", "").await;
    let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 1, 0xbb];
    let mut v6 = [0; 36];
    v6[..2].copy_from_slice(&[0x20, 0x01]);
    v6[15] = 7;
    v6[32..].copy_from_slice(&[0, 80, 1, 0xbb]);
    let with_tlvs = [&v4[..], &[0x04, 0, 200], &[7; 200]].concat();
    let peer = world.ip.to_string();
    let mut lines = 0;
    for (header, client) in [
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 443\r\n".to_vec(), "192.0.2.1"),
        (b"PROXY TCP6 2001::7 2001::2 80 443\r\n".to_vec(), "2001::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), &peer),
        (v2(1, 0x11, &v4), "192.0.2.1"),
        (v2(1, 0x11, &with_tlvs), "192.0.2.1"),
        (v2(1, 0x21, &v6), "2001::7"),
        (v2(0, 0x00, &[]), &peer),
    ] {
        // At once, in two pieces, and byte by byte as far as that is quick.
        let halves = header.split_at(header.len() / 2);
        for pieces in [vec![&header[..]], vec![halves.0, halves.1]] {
            assert_eq!(after(&world, &pieces).await, 200, "{:?}", String::from_utf8_lossy(&header));
            lines += 1;
            let received = v1.last();
            // The kernel's own address stands for a client that nobody announced.
            let client = if client == peer { received.field("x-real-ip").unwrap().to_string() } else { client.into() };
            assert_eq!(received.fields("x-forwarded-for"), [client.as_str()]);
            assert_eq!(received.field("x-real-ip"), Some(client.as_str()));
            let line = logged(&world, lines).await;
            assert_eq!((&line["client"], line.get("peer")), (&client.as_str().into(), None), "{line}");
        }
    }
    // Where the client connected to is announced as well.
    assert_eq!(after(&world, &[b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 443\r\n"]).await, 200);
    assert_eq!(v1.last().field("x-forwarded-port"), Some("443"));
}

#[tokio::test]
async fn what_is_no_header_is_closed_and_reaches_nobody() {
    let (world, v1) = with("proxy_protocol: { from: [127.0.0.0/8] }, timeouts: { header: 300ms }", "").await;
    let long = v2(1, 0x11, &[0; 5000]);
    let bad_command = v2(7, 0x11, &[0; 12]);
    for bytes in [
        &b""[..],
        b"PROXY TCP4 192.0.2.1 10.0.0.1 12345\r\n",
        b"PROXY TCP4 localhost 10.0.0.1 1 2\r\n",
        b"PROXY UNKNOWN xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n",
        &long,
        &bad_command,
        // A header that never ends.
        b"PROXY TCP4 192.0",
    ] {
        let mut raw = world.raw().await;
        let _ = raw.write(bytes).await;
        if bytes.is_empty() {
            let _ = raw.write(b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
        }
        let seen = raw.until_closed(CLOSED).await;
        assert_eq!(seen.as_deref(), Some(&b""[..]), "{:?}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(v1.requests(), 0);
    let refused = [("listener", "web"), ("reason", "proxy_protocol")];
    assert_eq!(world.metric("switchback_connections_refused_total", &refused).await, 7.0);
    // A second header is HTTP by then, and bad.
    assert_eq!(after(&world, &[b"PROXY UNKNOWN\r\n", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n"]).await, 400);
}

#[tokio::test]
async fn a_stranger_cannot_announce_a_client() {
    let header = b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 443\r\n";
    // The peers of these worlds are in 127.0.0.0/8.
    let (world, v1) = with("proxy_protocol: { mode: optional, from: [10.0.0.0/8] }", "").await;
    assert_eq!(after(&world, &[header]).await, 400, "it is bad HTTP");
    assert_eq!(v1.requests(), 0);
    assert_eq!(after(&world, &[]).await, 200, "without one it is served");
    let (world, v1) = with("proxy_protocol: { mode: required, from: [10.0.0.0/8] }", "").await;
    for pieces in [&[&header[..]][..], &[]] {
        assert_eq!(after(&world, pieces).await, 0, "closed without a word");
    }
    assert_eq!(v1.requests(), 0);
}

#[tokio::test]
async fn optional_takes_both_and_loses_no_byte() {
    let (world, v1) = with("proxy_protocol: { mode: optional, from: [127.0.0.0/8] }", "").await;
    assert_eq!(after(&world, &[b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n"]).await, 200);
    assert_eq!(v1.last().field("x-real-ip"), Some("192.0.2.1"));
    // Requests that begin like a header, in pieces.
    for (head, method) in [("PROPFIND", "PROPFIND"), ("POST", "POST"), ("\r\n\r\nGET", "GET")] {
        let mut raw = world.raw().await;
        for byte in head.as_bytes() {
            raw.write(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        raw.write(b" /y HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        assert_eq!(raw.answer().await.status, 200, "{head:?}");
        assert_eq!((v1.last().method(), v1.last().target()), (method, "/y"));
    }
}

#[tokio::test]
async fn a_proxy_that_is_trusted_says_who_the_client_is() {
    let (world, v1) = with("trusted_proxies: [127.0.0.0/8]", "sticky: client_ip").await;
    let mut client = world.client();
    let fields = [
        ("x-forwarded-for", "1.1.1.1, 198.51.100.7"),
        ("x-forwarded-for", "127.0.0.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "front.test"),
        ("forwarded", "for=198.51.100.7"),
        ("x-real-ip", "6.6.6.6"),
    ];
    assert_eq!(client.get_with("/", &fields).await.status, 200);
    let received = v1.last();
    let line = logged(&world, 1).await;
    let peer = line["peer"].as_str().expect("it came through a proxy").to_string();
    assert_eq!(line["client"], "198.51.100.7");
    assert_eq!(received.fields("x-forwarded-for"), [format!("1.1.1.1, 198.51.100.7, 127.0.0.9, {peer}")]);
    assert_eq!(received.fields("x-real-ip"), ["198.51.100.7"]);
    assert_eq!(received.fields("x-forwarded-proto"), ["https"]);
    assert_eq!(received.fields("x-forwarded-host"), ["front.test"]);
    let forwarded = received.field("forwarded").unwrap().to_string();
    assert!(forwarded.starts_with("for=198.51.100.7, for=") && forwarded.contains(&peer), "{forwarded}");
    // It need not say anything.
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(v1.last().fields("x-forwarded-for"), [peer.as_str()]);
    assert_eq!(v1.last().field("x-forwarded-proto"), Some("http"));
    // Once it is not trusted any more, on the same connection, nothing it says is.
    world.edit_and_wait(|text| text.replace("trusted_proxies: [127.0.0.0/8]", "trusted_proxies: [10.0.0.0/8]")).await;
    // A listener's settings change right after the generation is shown.
    soon("it is believed no more", async {
        loop {
            assert_eq!(client.get_with("/", &fields).await.status, 200);
            if v1.last().fields("x-forwarded-for") == [peer.as_str()] {
                break;
            }
        }
    })
    .await;
    assert_eq!(client.opened, 1);
    for name in ["x-forwarded-for", "x-real-ip"] {
        assert_eq!(v1.last().fields(name), [peer.as_str()], "{name}");
    }
    assert_eq!(v1.last().field("x-forwarded-proto"), Some("http"));
    assert!(!v1.last().field("forwarded").unwrap().contains("198.51"));
}

#[tokio::test]
async fn access_is_decided_by_the_true_client() {
    let (world, v1) = with(
        "trusted_proxies: [127.0.0.0/8]",
        "access: { allow: [192.0.2.0/24, 127.0.0.0/8, \"2001:db8::/32\"], deny: [192.0.2.66] }",
    )
    .await;
    let guarded = "routes:\n  - { name: inner, match: { path_prefix: /inner }, service: shop, access: { allow: [192.0.2.9] } }\n  \
                   - { name: own, match: { path: /own }, respond: { body: own }, access: { deny: [192.0.2.9] } }\n";
    world.edit_and_wait(|text| text.replace("routes:\n", guarded)).await;
    let mut client = world.client();
    for (from, path, status) in [
        ("192.0.2.1", "/", 200),
        ("192.0.2.66", "/", 403),
        ("198.51.100.1", "/", 403),
        ("2001:db8::5", "/", 200),
        // What the client wrote before it counts for nothing.
        ("192.0.2.1, 198.51.100.1", "/", 403),
        ("192.0.2.1", "/inner", 403),
        ("192.0.2.9", "/inner/x", 200),
        ("192.0.2.9", "/own", 403),
        ("192.0.2.1", "/own", 200),
    ] {
        let before = v1.requests();
        let seen = client.get_with(path, &[("x-forwarded-for", from)]).await;
        assert_eq!((&seen.outcome, seen.status), (&Outcome::Ok, status), "{from} {path}");
        assert_eq!(v1.requests() - before, u64::from(status == 200 && path != "/own"), "{from} {path}");
    }
    assert_eq!(client.opened, 1, "a refusal keeps the connection");
    assert_eq!(world.metric("switchback_refused_total", &[("service", "shop"), ("reason", "access")]).await, 4.0);
}

#[tokio::test]
async fn who_may_not_connect_is_closed_before_a_word() {
    let (world, v1) = with("access: { deny: [127.0.0.77] }", "").await;
    let mut denied = world.client();
    denied.from = Some([127, 0, 0, 77].into());
    let mut allowed = world.client();
    allowed.from = Some([127, 0, 0, 78].into());
    assert_eq!(denied.get("/").await.outcome, Outcome::ClosedBeforeAnswer);
    assert_eq!(allowed.get("/").await.status, 200);
    assert_eq!(v1.requests(), 1);
    // A reload turns it round; what is open stays open.
    world.edit_and_wait(|text| text.replace("deny: [127.0.0.77]", "deny: [127.0.0.78]")).await;
    let refused = [("listener", "web"), ("reason", "access")];
    assert_eq!(world.metric("switchback_connections_refused_total", &refused).await, 1.0);
    let again = |last| {
        let mut client = world.client();
        client.from = Some([127, 0, 0, last].into());
        client
    };
    until("it is let in", || async { again(77).get("/").await.status == 200 }).await;
    assert_eq!(again(78).get("/").await.outcome, Outcome::ClosedBeforeAnswer);
    assert_eq!(allowed.get("/").await.status, 200);
    assert_eq!(allowed.opened, 1);
}

#[tokio::test]
async fn one_client_has_so_many_connections() {
    let (world, _v1) = with("limits: { connections_per_client: 3 }", "").await;
    let from = |last| {
        let mut client = world.client();
        client.from = Some([127, 0, 0, last].into());
        client
    };
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = from(91);
        assert_eq!(client.get("/").await.status, 200);
        held.push(client);
    }
    assert_eq!(from(91).get("/").await.outcome, Outcome::ClosedBeforeAnswer);
    assert_eq!(from(92).get("/").await.status, 200, "another client is not its neighbour's keeper");
    for client in &mut held {
        assert_eq!((client.get("/").await.status, client.opened), (200, 1), "those that are open stay");
    }
    held.pop();
    until("its place is free", || async { from(91).get("/").await.status == 200 }).await;
    let refused = [("listener", "web"), ("reason", "connections_per_client")];
    assert!(world.metric("switchback_connections_refused_total", &refused).await >= 1.0);
}
