//! HTTP/1.1 done right, judged from both ends.

use std::time::Duration;

use super::i12_bounded::resident_kib;
use crate::harness::*;

async fn proxied(more: &str) -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], &format!("active: v1\n{more}"))).await;
    (world, v1)
}

#[tokio::test]
async fn bodies_pass_both_ways_in_every_framing() {
    let (world, v1) = proxied("").await;
    let mut client = world.client();
    for path in ["/bytes/0", "/bytes/1", "/bytes/100000", "/chunked/1", "/chunked/100000"] {
        let seen = client.get(path).await;
        let bytes: u64 = path.rsplit('/').next().unwrap().parse().unwrap();
        assert_eq!((&seen.outcome, seen.status, seen.body_bytes), (&Outcome::Ok, 200, bytes), "{path}");
    }
    let body = vec![b'p'; 50_000];
    assert_eq!(client.post("/echo", &body).await.body, body);
    assert!(v1.last().complete);
    // A chunked request stays one message and is whole at the other end.
    let mut raw = world.raw().await;
    raw.write(b"POST /echo HTTP/1.1\r\nhost: shop.test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n").await.unwrap();
    let seen = raw.answer().await;
    assert_eq!((seen.status, seen.text()), (200, "hello world".into()));
    for (method, path, status) in
        [("HEAD", "/bytes/1000", 200), ("GET", "/status/204", 204), ("GET", "/status/304", 304)]
    {
        let seen = client.send(method, path, &[], b"").await;
        assert_eq!((&seen.outcome, seen.status, seen.body_bytes), (&Outcome::Ok, status, 0), "{method} {path}");
    }
    assert_eq!(client.send("HEAD", "/bytes/1000", &[], b"").await.field("content-length"), Some("1000"));
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"] {
        assert_eq!(client.send(method, "/x", &[], b"").await.status, 200, "{method}");
        assert_eq!(v1.last().method(), method);
    }
    assert_eq!(client.opened, 1, "one connection carried all of it");
}

#[tokio::test]
async fn nothing_is_held_back() {
    let (world, v1) = proxied("").await;
    // The head comes before the body does.
    let seen = world.get("/late-body/2500").await;
    assert_eq!(seen.text(), "late\n");
    assert!(seen.head_after < Duration::from_secs(2), "head after {:?}", seen.head_after);
    // An event comes when it is sent.
    let mut stream = SseClient::open(world.web(), "/sse").await;
    assert!(soon("the first event", stream.next()).await.unwrap().contains("id: 0"));
    v1.tick();
    assert!(soon("the second event", stream.next()).await.unwrap().contains("id: 1"));
    // What a client sends arrives before it has sent everything, and the other way round.
    let mut raw = world.raw().await;
    raw.write(b"POST /echo-chunked HTTP/1.1\r\nhost: shop.test\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let (status, _) = soon("the head", raw.head()).await.unwrap();
    assert_eq!(status, 200);
    for word in ["one", "two", "three"] {
        raw.write(format!("{:x}\r\n{word}\r\n", word.len()).as_bytes()).await.unwrap();
        assert_eq!(soon("the echo", raw.reader.chunk()).await.unwrap(), Some(word.as_bytes().to_vec()));
    }
    raw.write(b"0\r\n\r\n").await.unwrap();
    assert_eq!(soon("the end", raw.reader.chunk()).await.unwrap(), None);
    // WebSocket both ways.
    let mut socket = WsClient::open(world.web(), "/ws").await;
    for _ in 0..20 {
        socket.ping_pong().await.unwrap();
    }
    let in_flight = world.version_status("shop", "v1").await["in_flight"].clone();
    assert_eq!((&in_flight["websocket"], &in_flight["sse"]), (&1.into(), &1.into()), "{in_flight}");
}

#[tokio::test]
async fn a_hundred_megabytes_pass_in_little_memory() {
    const SIZE: u64 = 100 * 1024 * 1024;
    let (world, v1) = proxied("limits: { body: 200MiB }").await;
    let before = resident_kib(&world);
    let mut client = world.client();
    client.keep_bodies = false;
    let seen = client.get(&format!("/bytes/{SIZE}")).await;
    assert_eq!((&seen.outcome, seen.body_bytes), (&Outcome::Ok, SIZE));
    let mut raw = world.raw().await;
    raw.write(format!("POST /up HTTP/1.1\r\nhost: shop.test\r\ncontent-length: {SIZE}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let block = vec![b'u'; 1024 * 1024];
    for _ in 0..SIZE / block.len() as u64 {
        raw.write(&block).await.unwrap();
    }
    assert_eq!(raw.answer().await.status, 200);
    assert_eq!((v1.last().body_bytes, v1.last().complete), (SIZE, true));
    let grown = resident_kib(&world).saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB more than before");
}

#[tokio::test]
async fn a_slow_reader_is_not_buffered_for() {
    let (world, _v1) = proxied("").await;
    let before = resident_kib(&world);
    let mut raw = world.raw().await;
    raw.write(b"GET /bytes/200000000 HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
    assert_eq!(soon("the head", raw.head()).await.unwrap().0, 200);
    // The client stops reading; once both kernels' buffers are full nothing moves and nothing grows.
    let last = std::cell::Cell::new(0);
    until("back-pressure reaches the origin", || async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = resident_kib(&world);
        now == last.replace(now)
    })
    .await;
    let after = last.get();
    assert!(after.saturating_sub(before) < 16 * 1024, "{before} to {after} KiB");
}

#[tokio::test]
async fn expect_100_and_early_hints() {
    let (world, v1) = proxied("").await;
    let mut raw = world.raw().await;
    raw.write(b"POST /echo HTTP/1.1\r\nhost: shop.test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(soon("100 Continue", raw.head()).await.unwrap().0, 100);
    raw.write(b"hello").await.unwrap();
    let seen = raw.answer().await;
    assert_eq!((seen.status, seen.text()), (200, "hello".into()));
    // A refusal comes instead of 100, without the body being asked for.
    v1.set(Fault::EarlyAnswer(403));
    let mut raw = world.raw().await;
    raw.write(b"POST /echo HTTP/1.1\r\nhost: shop.test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        .await
        .unwrap();
    let seen = raw.answer().await;
    assert_eq!(seen.status, 403, "{seen:?}");
    v1.set(Fault::EarlyHints);
    let mut raw = world.raw().await;
    raw.write(b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
    let (first, _) = soon("a head", raw.head()).await.unwrap();
    if first == 103 {
        assert_eq!(soon("the final head", raw.head()).await.unwrap().0, 200);
    } else {
        assert_eq!(first, 200, "hints may be dropped, the answer not");
    }
    // HTTP/1.0 knows neither interim answers nor chunks.
    let mut raw = world.raw().await;
    raw.write(b"GET /chunked/10 HTTP/1.0\r\nhost: shop.test\r\n\r\n").await.unwrap();
    let (first, headers) = soon("a head", raw.head()).await.unwrap();
    assert_eq!(first, 200);
    assert!(!headers.iter().any(|(name, _)| name == "transfer-encoding"), "{headers:?}");
    assert_eq!(raw.until_closed(Duration::from_secs(5)).await.as_deref(), Some(&b"cccccccccc"[..]));
}

#[tokio::test]
async fn the_endpoint_learns_who_asked_and_nothing_made_up() {
    let (world, v1) = proxied("").await;
    let made_up = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.test"),
        ("x-real-ip", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("via", "1.1 somebody"),
    ];
    for headers in [&[][..], &made_up[..]] {
        assert_eq!(world.client().get_with("/who?x=1", headers).await.status, 200);
        let got = v1.last();
        assert_eq!(got.field("host"), Some("shop.test"));
        let address = got.field("x-forwarded-for").expect("it is set").to_string();
        assert!(address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()), "{address}");
        assert_eq!(got.fields("x-forwarded-for").len(), 1);
        assert_eq!(got.fields("x-forwarded-proto"), ["http"]);
        assert_eq!(got.fields("x-forwarded-host"), ["shop.test"]);
        for field in ["x-real-ip", "forwarded"] {
            assert!(
                !got.fields(field).iter().any(|value| value.contains("6.6.6.6")),
                "{field}: {:?}",
                got.fields(field)
            );
        }
        assert!(
            got.field("forwarded").is_some_and(|value| value.contains("for=") && value.contains("proto=http")),
            "{got:?}"
        );
        assert!(got.fields("via").last().is_some_and(|value| value.starts_with("1.1 ")), "{:?}", got.fields("via"));
        assert_eq!(got.target(), "/who?x=1");
    }
}

#[tokio::test]
async fn hop_by_hop_fields_end_here() {
    let (world, v1) = proxied("").await;
    v1.add_headers(
        "connection: x-secret, keep-alive\r\nx-secret: 1\r\nkeep-alive: timeout=5\r\nproxy-authenticate: Basic\r\nproxy-connection: \
         keep-alive\r\nx-kept: yes\r\nupgrade: h2c\r\n",
    );
    let mut raw = world.raw().await;
    let request = "GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: keep-alive, x-nominated\r\nx-nominated: 1\r\nkeep-alive: \
                   timeout=5\r\nproxy-connection: keep-alive\r\nproxy-authorization: Basic abc\r\nte: trailers, \
                   deflate\r\nupgrade: h2c\r\nx-kept: yes\r\n\r\n";
    raw.write(request.as_bytes()).await.unwrap();
    let seen = raw.answer().await;
    assert_eq!(seen.status, 200);
    let got = v1.last();
    for field in ["x-nominated", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade"] {
        assert_eq!(got.field(field), None, "{field} must not reach the endpoint");
    }
    assert_eq!(got.field("x-kept"), Some("yes"));
    assert!(!got.field("connection").is_some_and(|value| value.contains("x-nominated")));
    for field in ["x-secret", "keep-alive", "proxy-authenticate", "proxy-connection", "upgrade"] {
        assert_eq!(seen.field(field), None, "{field} must not reach the client");
    }
    assert_eq!(seen.field("x-kept"), Some("yes"));
    // Fields that must not be nominated away stay.
    let mut raw = world.raw().await;
    raw.write(b"GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: host, x-forwarded-for\r\n\r\n").await.unwrap();
    let seen = raw.answer().await;
    if seen.status == 200 {
        assert!(v1.last().field("host").is_some() && v1.last().field("x-forwarded-for").is_some(), "{:?}", v1.last());
    }
}

#[tokio::test]
async fn a_host_that_is_none_is_refused() {
    let (world, v1) = proxied("").await;
    let heads = [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nhost:\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n",
        "GET / HTTP/1.1\r\nhost: a/x\r\n",
        "GET / HTTP/1.1\r\nhost: a, b\r\n",
        "GET / HTTP/1.1\r\nhost: a\"b\r\n",
        "GET / HTTP/1.1\r\nhost: user@a\r\n",
        "GET / HTTP/1.1\r\nhost: a:port\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n",
        "GET shop.test:80 HTTP/1.1\r\nhost: shop.test\r\n",
        "GET x HTTP/1.1\r\nhost: shop.test\r\n",
    ];
    for head in heads {
        let mut raw = world.raw().await;
        raw.write(format!("{head}\r\n").as_bytes()).await.unwrap();
        let seen = raw.answer().await;
        assert_eq!((seen.outcome.clone(), seen.status), (Outcome::Ok, 400), "{head:?}");
    }
    assert_eq!(v1.requests(), 0, "none of them reached the endpoint");
    // The authority of an absolute target wins and becomes the Host.
    let mut raw = world.raw().await;
    raw.write(b"GET http://other.test/x?y HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
    assert_eq!(raw.answer().await.status, 200);
    assert_eq!((v1.last().field("host"), v1.last().target()), (Some("other.test"), "/x?y"));
    let mut raw = world.raw().await;
    raw.write(b"CONNECT shop.test:80 HTTP/1.1\r\nhost: shop.test:80\r\n\r\n").await.unwrap();
    assert!((400..=501).contains(&raw.answer().await.status), "CONNECT is not for a reverse proxy");
}

#[tokio::test]
async fn a_path_has_one_reading() {
    let mut world = World::new();
    let (v1, secret) = (world.origin("v1").await, world.origin("secret").await);
    let text = "routes:\n  - { name: no, match: { path_prefix: /forbidden }, respond: { status: 403, body: no } }\n  - { name: all, \
                match: { path_prefix: / }, service: shop }\nservices:\n"
        .to_string()
        + &service("shop", &[&v1], "active: v1")
        + &service("other", &[&secret], "active: secret");
    world.start(&text).await;
    let ways = [
        "/forbidden",
        "/forbidden/x",
        "/%66orbidden",
        "/x/../forbidden",
        "//forbidden",
        "/./forbidden",
        "/x/%2e%2e/forbidden",
        "/x/.%2E/forbidden",
        "/forbidden?x",
        "/forbidden/",
        "/%2fforbidden",
        "/x\\..\\forbidden",
        "/x%5c..%5cforbidden",
        "/../forbidden",
        "/x/../../forbidden",
        "/forbidden%00",
        "/%00/forbidden",
        "/forb%69dden/x",
    ];
    for path in ways {
        let mut raw = world.raw().await;
        raw.write(format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\n\r\n").as_bytes()).await.unwrap();
        let seen = raw.answer().await;
        assert!([400, 403].contains(&seen.status), "{path}: {} {}", seen.status, seen.text());
    }
    assert_eq!(v1.requests(), 0, "{:?}", v1.received());
    // What was matched is what is forwarded.
    for (asked, forwarded) in [
        ("/a/./b", "/a/b"),
        ("/a//b", "/a/b"),
        ("/a/%7Eb", "/a/~b"),
        ("/a/../b?q=%7e", "/b?q=%7e"),
        ("/%c3%a9", "/%C3%A9"),
    ] {
        assert_eq!(world.get(asked).await.status, 200, "{asked}");
        assert_eq!(v1.last().target(), forwarded, "{asked}");
    }
    for bad in ["/%", "/%zz", "/%4"] {
        assert_eq!(world.get(bad).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn limits_have_their_status() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let text = world
        .preamble()
        .replace("8080\" }", "8080\", limits: { header_bytes: 16KiB, header_fields: 50, target_bytes: 2KiB } }")
        + &one_service(&[&v1], "active: v1\nlimits: { body: 1KiB }");
    world.start_text(&text).await;
    let long = "a".repeat(3000);
    assert_eq!(world.get(&format!("/{long}")).await.status, 414);
    assert_eq!(world.client().get_with("/", &[("x-long", &"b".repeat(20_000))]).await.status, 431);
    let many: Vec<(String, String)> = (0..60).map(|nth| (format!("x-{nth}"), "1".into())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(world.client().get_with("/", &many).await.status, 431);
    assert_eq!(world.client().post("/", &[b'x'; 2000]).await.status, 413);
    assert_eq!(v1.requests(), 0, "refused before anything was sent");
    assert_eq!(world.client().post("/", &[b'x'; 1024]).await.status, 200);
    // Chunked, so that the size is known only on the way.
    let mut raw = world.raw().await;
    raw.write(b"POST /echo HTTP/1.1\r\nhost: shop.test\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    for _ in 0..4 {
        let _ = raw.write(format!("200\r\n{}\r\n", "z".repeat(512)).as_bytes()).await;
    }
    let _ = raw.write(b"0\r\n\r\n").await;
    assert_eq!(raw.answer().await.status, 413);
    until("the endpoint's side is closed", || async { v1.received().len() > 1 || v1.open() <= 1 }).await;
    assert!(!v1.received().iter().any(|one| one.target() == "/echo" && one.complete), "a cut body is not completed");
    assert_eq!(world.get("/").await.status, 200);
}

#[tokio::test]
async fn routes_redirect_respond_and_rewrite() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let routes = r#"routes:
  - { name: old, match: { path: /old }, redirect: { to: "https://shop.test/new", status: 308 } }
  - { name: hello, match: { path: /hello }, respond: { status: 200, body: "hello\n" } }
  - { name: post, match: { path_prefix: /by, method: [POST] }, respond: { status: 202, body: post } }
  - { name: tier, match: { path_prefix: /by, headers: { x-tier: gold } }, respond: { status: 200, body: gold } }
  - { name: beta, match: { path_prefix: /by, query: { beta: "1" } }, respond: { status: 200, body: beta } }
  - { name: wild, match: { host: "*.wild.test", path_regex: "^/v[0-9]+/" }, respond: { status: 200, body: wild } }
  - name: api
    match: { path_prefix: /api }
    service: shop
    rewrite:
      path_prefix: /internal
      request_headers: { remove: [x-drop], set: { x-set: "1" }, add: { x-add: "2" } }
      response_headers: { remove: [x-instance], set: { x-out: "3" } }
services:
"#;
    world.start(&(routes.to_string() + &service("shop", &[&v1], "active: v1"))).await;
    let mut client = world.client();
    let seen = client.get("/old").await;
    assert_eq!((seen.status, seen.field("location")), (308, Some("https://shop.test/new")));
    assert_eq!(client.get("/hello").await.text(), "hello\n");
    assert_eq!(client.send("HEAD", "/hello", &[], b"").await.body_bytes, 0);
    assert_eq!(client.get("/nowhere").await.status, 404);
    assert_eq!(client.post("/by", b"").await.text(), "post");
    assert_eq!(client.get_with("/by", &[("x-tier", "gold")]).await.text(), "gold");
    assert_eq!(client.get("/by?a=2&beta=1").await.text(), "beta");
    assert_eq!(client.get_with("/v12/x", &[("host", "a.wild.test:8080")]).await.text(), "wild");
    assert_eq!(client.get_with("/v12/x", &[("host", "wild.test")]).await.status, 404);
    let seen = client.get_with("/api/x?q=1", &[("x-drop", "1"), ("x-set", "0"), ("x-add", "1")]).await;
    assert_eq!((seen.status, seen.field("x-instance"), seen.field("x-out")), (200, None, Some("3")));
    let got = v1.last();
    assert_eq!(got.target(), "/internal/x?q=1");
    assert_eq!((got.field("x-drop"), got.fields("x-set"), got.fields("x-add")), (None, vec!["1"], vec!["1", "2"]));
    assert_eq!(client.get("/apiary").await.status, 404);
    assert_eq!(client.opened, 1);
}
