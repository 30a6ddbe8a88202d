//! Details of HTTP, for clients of both versions and judged from both ends: the rows of `docs/protocols.md`.

use crate::harness::client::Raw;
use crate::harness::http2::{H2Client, H2Raw, SETTINGS, request};
use crate::harness::http2_origin::H2Origin;
use crate::harness::*;

/// One endpoint that speaks HTTP/1.1.
async fn proxied(more: &str) -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], &format!("active: v1\n{more}"))).await;
    (world, v1)
}

/// One endpoint that speaks HTTP/2.
async fn proxied_h2c() -> (World, H2Origin) {
    let mut world = World::new();
    let v1 = H2Origin::start("v1", world.unused()).await;
    let text = format!(
        "routes:\n  - {{ name: all, match: {{ path_prefix: / }}, service: shop }}\nservices:\n  shop:\n    versions:\n      v1: {{ endpoints: [\"{}\"] }}\n    upstream: {{ protocol: h2c }}\n    active: v1\n",
        v1.address
    );
    world.start(&text).await;
    (world, v1)
}

async fn sent(world: &World, request: &str) -> Raw {
    let mut raw = world.raw().await;
    raw.write(request.replace('\n', "\r\n").as_bytes()).await.expect("it listens");
    raw
}

/// An answer of these bytes on a connection that goes on.
fn answering(text: &str) -> Fault {
    Fault::BytesKeep(text.replace('\n', "\r\n").into_bytes())
}

#[tokio::test]
async fn the_endpoint_is_asked_whether_the_body_is_wanted() {
    let (world, v1) = proxied("").await;
    let mut raw =
        sent(&world, "POST /echo HTTP/1.1\nhost: shop.test\nexpect: 100-continue\ncontent-length: 5\n\n").await;
    assert_eq!(soon("100", raw.head()).await.unwrap().0, 100);
    // It came from the endpoint, which has the head and not a byte of the body.
    assert_eq!(v1.requests(), 1);
    raw.write(b"hello").await.unwrap();
    assert_eq!(raw.answer().await.text(), "hello");
    let client = H2Client::connect(world.web()).await;
    let mut posted = client.begin(request("POST", "/echo", &[("expect", "100-continue")]), false).await.unwrap();
    posted.until_interim(100).await;
    posted.body.send_data(bytes::Bytes::from_static(b"hello"), true).unwrap();
    let seen = posted.answer().await;
    assert_eq!((seen.status, seen.text().as_str()), (200, "hello"));
    for got in v1.received() {
        assert_eq!(
            (got.fields("expect"), got.body.as_slice(), got.complete),
            (vec!["100-continue"], &b"hello"[..], true)
        );
    }
    // Who is refused is never asked for the body.
    v1.set(Fault::EarlyAnswer(403));
    let posted = client.begin(request("POST", "/echo", &[("expect", "100-continue")]), false).await.unwrap();
    let seen = posted.answer().await;
    assert_eq!((seen.status, seen.interim.len(), seen.text().as_str()), (403, 0, "early\n"), "{seen:?}");
    let mut raw =
        sent(&world, "POST /echo HTTP/1.1\nhost: shop.test\nexpect: 100-continue\ncontent-length: 5\n\n").await;
    assert_eq!(soon("the answer", raw.head()).await.unwrap().0, 403);
    v1.set(Fault::None);
    v1.forget();
    // Other expectations are answered here.
    let seen = client.send(request("POST", "/echo", &[("expect", "200-ok")]), b"hello").await;
    assert_eq!((seen.status, seen.is_whole()), (417, true), "{seen:?}");
    let seen = world.client().send("POST", "/echo", &[("expect", "200-ok")], b"hello").await;
    assert_eq!(seen.status, 417);
    assert_eq!(v1.received().len(), 0);
}

/// The engine drops interim answers of endpoints that speak HTTP/2: who expects one is told here.
#[tokio::test]
async fn whoever_expects_100_of_an_endpoint_over_http2_is_told_here() {
    let (world, v1) = proxied_h2c().await;
    let mut raw = sent(&world, "POST /x HTTP/1.1\nhost: shop.test\nexpect: 100-continue\ncontent-length: 5\n\n").await;
    assert_eq!(soon("100", raw.head()).await.unwrap().0, 100);
    raw.write(b"hello").await.unwrap();
    assert_eq!(raw.answer().await.text(), "hello");
    let client = H2Client::connect(world.web()).await;
    let mut posted = client.begin(request("POST", "/x", &[("expect", "100-continue")]), false).await.unwrap();
    posted.until_interim(100).await;
    posted.body.send_data(bytes::Bytes::from_static(b"hello"), true).unwrap();
    let seen = posted.answer().await;
    assert_eq!((seen.status, seen.text().as_str()), (200, "hello"));
    for got in v1.received() {
        assert_eq!((got.headers.get("expect"), got.body.as_slice(), got.complete), (None, &b"hello"[..], true));
    }
    assert_eq!(v1.received().len(), 2);
}

#[tokio::test]
async fn interim_answers_pass_with_their_fields_up_to_a_bound() {
    let (world, v1) = proxied("").await;
    let hints = |count| {
        let hint = "HTTP/1.1 103 Early Hints\nlink: </a.css>; rel=preload\nconnection: x-hop\nx-hop: 1\n\n";
        answering(&(hint.repeat(count) + "HTTP/1.1 200 OK\ncontent-length: 2\n\nok"))
    };
    let client = H2Client::connect(world.web()).await;
    for (count, status) in [(1, 200), (32, 200), (33, 502)] {
        v1.set(hints(count));
        let mut raw = sent(&world, "GET / HTTP/1.1\nhost: shop.test\n\n").await;
        let mut seen = Vec::new();
        let last = loop {
            match soon("a head", raw.head()).await.unwrap() {
                (103, fields) => seen.push(fields),
                (last, _) => break last,
            }
        };
        assert_eq!((last, seen.len()), (status, count.min(32)));
        for fields in seen {
            assert_eq!(fields, [("link".to_string(), "</a.css>; rel=preload".to_string())], "and nothing of the hop");
        }
        let seen = client.get("/").await;
        assert_eq!((seen.status, seen.interim.len(), seen.is_whole()), (status, count.min(32), true), "{seen:?}");
        for fields in &seen.interim_fields {
            assert_eq!((fields.len(), fields["link"].as_bytes()), (1, &b"</a.css>; rel=preload"[..]), "{fields:?}");
        }
    }
    // HTTP/1.0 has no such thing.
    v1.set(hints(1));
    let mut raw = sent(&world, "GET / HTTP/1.0\nhost: shop.test\n\n").await;
    assert_eq!(soon("a head", raw.head()).await.unwrap().0, 200);
    assert_eq!(raw.until_closed(wait::PATIENCE).await.as_deref(), Some(&b"ok"[..]));
}

#[tokio::test]
async fn head_has_the_fields_of_the_answer_and_no_body() {
    let (world, v1) = proxied("").await;
    let client = H2Client::connect(world.web()).await;
    let mut plain = world.client();
    for path in ["/bytes/1000", "/chunked/1000", "/status/404"] {
        let (head, get) = (plain.send("HEAD", path, &[], b"").await, plain.get(path).await);
        assert_eq!((head.outcome.clone(), head.status, head.body_bytes), (Outcome::Ok, get.status, 0), "{path}");
        let framing = |seen: &crate::harness::client::Seen| {
            ["content-length", "transfer-encoding"].map(|name| seen.field(name).map(str::to_string))
        };
        assert_eq!(framing(&head), framing(&get), "{path}");
        assert!(!head.closes(), "{path}");
        let (head, get) = (client.send(request("HEAD", path, &[]), b"").await, client.get(path).await);
        assert_eq!((head.status, head.body.len(), head.is_whole()), (get.status, 0, true), "{path}: {head:?}");
        assert_eq!(head.field("content-length"), get.field("content-length"), "{path}");
        assert_eq!(head.field("transfer-encoding"), None);
    }
    assert_eq!((plain.opened, client.is_closed()), (1, false));
    let methods: Vec<String> = v1.received().iter().map(|got| got.method().to_string()).collect();
    assert_eq!(methods, ["HEAD", "GET", "HEAD", "GET"].repeat(3), "it is asked what the client asked");
}

#[tokio::test]
async fn options_of_the_whole_server_is_ours_and_of_a_path_the_endpoints() {
    let (world, v1) = proxied("").await;
    let mut raw = sent(&world, "OPTIONS * HTTP/1.1\nhost: shop.test\n\n").await;
    let seen = raw.answer().await;
    assert_eq!((seen.status, seen.body_bytes, seen.closes()), (204, 0, false), "{seen:?}");
    let mut h2 = H2Raw::connect(world.web()).await;
    h2.request(1, &[(":method", "OPTIONS"), (":scheme", "http"), (":authority", "shop.test"), (":path", "*")]).await;
    assert_eq!(h2.status_of(1).await, Some(204));
    assert_eq!(v1.requests(), 0);
    let client = H2Client::connect(world.web()).await;
    assert_eq!(client.send(request("OPTIONS", "/x", &[]), b"").await.status, 200);
    assert_eq!(world.client().send("OPTIONS", "/x", &[], b"").await.status, 200);
    let lines: Vec<String> = v1.received().into_iter().map(|got| got.line).collect();
    assert_eq!(lines, ["OPTIONS /x HTTP/1.1"; 2]);
}

#[tokio::test]
async fn an_absolute_target_becomes_a_path_and_its_host_counts() {
    let (world, v1) = proxied("").await;
    let mut raw = sent(&world, "GET http://OTHER.test:8080/a?b HTTP/1.1\nhost: shop.test\n\n").await;
    assert_eq!(raw.answer().await.status, 200);
    let got = v1.last();
    assert_eq!((got.line.as_str(), got.fields("host")), ("GET /a?b HTTP/1.1", vec!["OTHER.test:8080"]));
    assert_eq!(got.fields("x-forwarded-host"), ["OTHER.test:8080"]);
    // The connection goes on, and HTTP/2 has no other form than the one.
    raw.write(b"GET http://shop.test HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
    assert_eq!(raw.answer().await.status, 200);
    assert_eq!(v1.last().line, "GET / HTTP/1.1");
    let client = H2Client::connect(world.web()).await;
    assert_eq!(client.get("/a?b").await.status, 200);
    assert_eq!((v1.last().line.as_str(), v1.last().fields("host")), ("GET /a?b HTTP/1.1", vec!["shop.test"]));
}

#[tokio::test]
async fn connect_is_not_served() {
    let (world, v1) = proxied("").await;
    let mut raw = sent(&world, "CONNECT shop.test:443 HTTP/1.1\nhost: shop.test:443\n\n").await;
    assert_eq!(raw.answer().await.status, 405);
    let mut h2 = H2Raw::connect(world.web()).await;
    h2.request(1, &[(":method", "CONNECT"), (":authority", "shop.test:443")]).await;
    assert_eq!(h2.status_of(1).await, Some(405));
    assert_eq!(v1.requests(), 0);
}

/// RFC 8441 is not announced, so no client tries; WebSockets come over HTTP/1.1 beside it.
#[tokio::test]
async fn websockets_are_for_http1_and_settings_do_not_say_otherwise() {
    let (world, _v1) = proxied("").await;
    let mut h2 = H2Raw::connect(world.web()).await;
    let settings = h2.until(|frame| frame.kind == SETTINGS && frame.flags == 0).await.expect("its SETTINGS");
    let ids: Vec<u16> = settings.payload.chunks(6).map(|one| u16::from_be_bytes([one[0], one[1]])).collect();
    assert!(!ids.contains(&8), "extended CONNECT is announced: {ids:?}");
    assert!(ids.contains(&3), "the number of streams is");
    let mut socket = WsClient::open(world.web(), "/ws").await;
    socket.ping_pong().await.unwrap();
}

/// HTTP/1.1 has no trailers here, in neither direction; between clients and endpoints that speak HTTP/2 those of answers
/// pass.
#[tokio::test]
async fn trailers_end_here_but_for_answers_over_http2_on_both_sides() {
    let (world, v1) = proxied("").await;
    // Of requests.
    let chunked =
        "POST /echo HTTP/1.1\nhost: shop.test\ntransfer-encoding: chunked\ntrailer: x-sum\n\n5\nhello\n0\nx-sum: 1\n\n";
    let mut raw = sent(&world, chunked).await;
    let seen = raw.answer().await;
    assert_eq!((seen.status, seen.text().as_str()), (200, "hello"));
    let client = H2Client::connect(world.web()).await;
    let mut posted = client.begin(request("POST", "/echo", &[("trailer", "x-sum")]), false).await.unwrap();
    posted.body.send_data(bytes::Bytes::from_static(b"hello"), false).unwrap();
    let sum = || http::HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), "1".parse().unwrap())]);
    posted.body.send_trailers(sum()).unwrap();
    let seen = posted.answer().await;
    assert_eq!((seen.status, seen.text().as_str()), (200, "hello"));
    for got in v1.received() {
        assert_eq!((got.body.as_slice(), got.complete), (&b"hello"[..], true));
        assert_eq!((got.field("x-sum"), got.field("trailer")), (None, None), "{got:?}");
    }
    assert_eq!(v1.received().len(), 2);
    // Of answers over HTTP/1.1.
    v1.set(answering("HTTP/1.1 200 OK\ntransfer-encoding: chunked\ntrailer: x-sum\n\n5\nhello\n0\nx-sum: 1\n\n"));
    let mut raw = sent(&world, "GET / HTTP/1.1\nhost: shop.test\nte: trailers\n\n").await;
    let (status, fields) = soon("a head", raw.head()).await.unwrap();
    assert!(status == 200 && !fields.iter().any(|(name, _)| name == "trailer"), "{fields:?}");
    assert_eq!(raw.reader.line().await.unwrap(), "5");
    assert_eq!(raw.reader.line().await.unwrap(), "hello");
    assert_eq!((raw.reader.line().await.unwrap(), raw.reader.line().await.unwrap()), ("0".into(), String::new()));
    let seen = client.get_with("/", &[("te", "trailers")]).await;
    assert_eq!(
        (seen.text().as_str(), seen.trailers.is_none(), seen.field("trailer")),
        ("hello", true, None),
        "{seen:?}"
    );
    // Of answers over HTTP/2.
    let (world, _v1) = proxied_h2c().await;
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let client = H2Client::connect(world.web()).await;
    let seen = client.send(request("POST", "/x", &grpc), b"hello").await;
    assert_eq!((seen.text().as_str(), seen.trailer("x-checksum")), ("hello", Some("ok")), "{seen:?}");
    let mut plain = world.client();
    let seen = plain.send("POST", "/x", &grpc, b"hello").await;
    assert_eq!((seen.status, seen.text().as_str(), seen.field("x-checksum")), (200, "hello", None));
    assert!(plain.get("/next").await.is_fine() && plain.opened == 1, "the end of the answer was one");
}
