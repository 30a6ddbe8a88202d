//! Clients that use HTTP/2 against us: what reaches the endpoint, what it costs, and that others are served meanwhile.

use crate::harness::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, H2Client, H2Raw, HEADERS, PING, PRIORITY, RESET, SETTINGS,
    WINDOW_UPDATE, block, frame, head,
};
use crate::harness::*;
use crate::i12_bounded::resident_kib;

const CALM: u32 = 11;
const REQUEST: u8 = END_HEADERS | END_STREAM;

async fn proxied() -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], "active: v1")).await;
    // What a first request costs is not the attack's.
    assert_eq!(H2Client::connect(world.web()).await.get("/warm").await.status, 200);
    v1.forget();
    (world, v1)
}

/// Sends `attack` while another client asks; gives the reason of the GOAWAY that ended it, and checks the price.
async fn flood(what: &str, world: &World, attack: Vec<u8>) -> Option<u32> {
    let before = resident_kib(world);
    let other = H2Client::connect(world.web()).await;
    let mut raw = H2Raw::connect(world.web()).await;
    let (_, seen) = tokio::join!(raw.write(&attack), other.get("/meanwhile"));
    assert_eq!((seen.status, seen.is_whole()), (200, true), "{what}");
    let goaway = raw.until(|frame| frame.kind == GOAWAY && frame.reason() != 0).await;
    assert_eq!(other.get("/after").await.status, 200, "{what}");
    let grown = resident_kib(world).saturating_sub(before);
    assert!(grown < 24 * 1024, "{what}: {grown} KiB more");
    goaway.map(|frame| frame.reason())
}

#[tokio::test]
async fn floods_end_the_connection_that_sends_them() {
    let (world, _v1) = proxied().await;
    let request = |stream| frame(HEADERS, REQUEST, stream, &head("GET", "/attack", &[]));
    let open = |stream| frame(HEADERS, END_HEADERS, stream, &head("POST", "/attack", &[]));
    let streams = (0..3000).map(|nth| nth * 2 + 1);
    let floods: Vec<(&str, Vec<u8>)> = vec![
        (
            "rapid reset",
            streams.clone().flat_map(|id| [request(id), frame(RESET, 0, id, &8u32.to_be_bytes())].concat()).collect(),
        ),
        (
            "made you reset",
            streams
                .flat_map(|id| [open(id), frame(WINDOW_UPDATE, 0, id, &0x7fff_ffffu32.to_be_bytes())].concat())
                .collect(),
        ),
        ("settings", frame(SETTINGS, 0, 0, b"").repeat(3000)),
        ("ping", frame(PING, 0, 0, b"12345678").repeat(3000)),
        ("priority", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]).repeat(3000)),
        ("window updates", frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()).repeat(3000)),
        ("empty data", [open(1), frame(DATA, 0, 1, b"").repeat(3000)].concat()),
        ("unknown frames", frame(0xbe, 0, 0, b"").repeat(3000)),
    ];
    for (what, attack) in floods {
        let reason = flood(what, &world, attack).await;
        assert_eq!(reason, Some(CALM), "{what}");
    }
}

#[tokio::test]
async fn rapid_reset_reaches_the_endpoint_a_bounded_number_of_times() {
    let (world, v1) = proxied().await;
    v1.set(Fault::Hang);
    let attack: Vec<u8> = (0..3000)
        .flat_map(|nth| {
            let id = nth * 2 + 1;
            [frame(HEADERS, REQUEST, id, &head("GET", "/attack", &[])), frame(RESET, 0, id, &8u32.to_be_bytes())]
                .concat()
        })
        .collect();
    let mut raw = H2Raw::connect(world.web()).await;
    raw.write(&attack).await;
    let goaway = raw.until(|frame| frame.kind == GOAWAY).await.expect("it is sent away");
    assert_eq!(goaway.reason(), CALM);
    assert!(v1.requests() <= 300, "{}", v1.requests());
    until("nothing is left of it", || async { v1.open() == 0 }).await;
}

#[tokio::test]
async fn fields_without_end_and_hpack_bombs_are_bounded() {
    let (world, v1) = proxied().await;
    let before = resident_kib(&world);
    // CONTINUATION: many small ones, many empty ones, and large ones.
    let begin = frame(HEADERS, END_STREAM, 1, &head("GET", "/attack", &[]));
    let small = frame(CONTINUATION, 0, 1, &block(&[("x", "y")])).repeat(20_000);
    let empty = frame(CONTINUATION, 0, 1, b"").repeat(20_000);
    let large = frame(CONTINUATION, 0, 1, &block(&[("x-large", &"v".repeat(16_000))])).repeat(300);
    // One entry of 4000 bytes in the table, then one byte for each time it is meant.
    let mut bomb = head("GET", "/attack", &[]);
    bomb.extend([&[0x40, 1, b'b', 0x7f, 0xa1, 0x1e][..], &[b'v'; 4000]].concat());
    bomb.extend([0xbe; 12_000]);
    let bomb = frame(HEADERS, REQUEST, 1, &bomb);
    for (what, attack) in [
        ("small continuations", [&begin[..], &small].concat()),
        ("empty continuations", [&begin[..], &empty].concat()),
        ("large continuations", [&begin[..], &large].concat()),
        ("hpack bomb", bomb),
    ] {
        let mut raw = H2Raw::connect(world.web()).await;
        raw.write(&attack).await;
        // 431 for what only is too large, or the end of the connection.
        let refused = raw.until(|frame| matches!(frame.kind, GOAWAY | RESET | HEADERS)).await;
        assert!(refused.is_none_or(|frame| frame.kind != HEADERS || frame.stream == 1), "{what}");
        assert_eq!(H2Client::connect(world.web()).await.get("/other").await.status, 200, "{what}");
    }
    assert!(v1.received().iter().all(|it| it.target() == "/other"), "{:?}", v1.received());
    let grown = resident_kib(&world).saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB more");
}

#[tokio::test]
async fn clients_that_take_nothing_cost_little() {
    let (world, _v1) = proxied().await;
    let before = resident_kib(&world);
    // Zero windows, and large windows that are never read.
    let mut closed = H2Raw::connect_with(world.web(), &[(4, 0)]).await;
    let mut wide = H2Raw::connect_with(world.web(), &[(4, 0x7fff_ffff)]).await;
    wide.send(WINDOW_UPDATE, 0, 0, &0x7fff_0000u32.to_be_bytes()).await;
    for nth in 0..100 {
        let request = frame(HEADERS, REQUEST, nth * 2 + 1, &head("GET", "/bytes/10000000", &[]));
        closed.write(&request).await;
        wide.write(&request).await;
    }
    until("all run", || async { world.version_status("shop", "v1").await["in_flight"]["http"] == 200 }).await;
    assert_eq!(H2Client::connect(world.web()).await.get("/other").await.status, 200);
    let grown = resident_kib(&world).saturating_sub(before);
    assert!(grown < 160 * 1024, "{grown} KiB for 200 answers of 10 MB");
}

/// A request head, and what follows it on the stream.
struct Trick {
    what: &'static str,
    head: Vec<u8>,
    flags: u8,
    then: Vec<u8>,
}

fn trick(what: &'static str, head: Vec<u8>) -> Trick {
    Trick { what, head, flags: REQUEST, then: Vec::new() }
}

fn with(what: &'static str, name: &str, value: &str) -> Trick {
    trick(what, head("GET", "/attack", &[(name, value)]))
}

fn posting(what: &'static str, fields: &[(&str, &str)], data: &[u8]) -> Trick {
    Trick { what, head: head("POST", "/attack", fields), flags: END_HEADERS, then: frame(DATA, END_STREAM, 1, data) }
}

fn pseudo(what: &'static str, fields: &[(&str, &str)]) -> Trick {
    trick(what, block(fields))
}

#[tokio::test]
async fn nothing_with_two_readings_reaches_the_endpoint() {
    let (world, v1) = proxied().await;
    let (method, scheme, host) = ((":method", "GET"), (":scheme", "http"), (":authority", "shop.test"));
    let path = (":path", "/attack");
    let inject = "x\r\n\r\nGET /hidden HTTP/1.1\r\nhost: shop.test\r\n\r\n";
    let tricks = vec![
        // Through the downgrade.
        with("CR LF in a value", "x-a", inject),
        with("LF in a value", "x-a", "x\nevil: 1"),
        with("CR in a value", "x-a", "x\revil: 1"),
        with("NUL in a value", "x-a", "x\0y"),
        with("CR LF in a name", "x-a: 1\r\nevil", "1"),
        with("a colon in a name", "x-a:evil", "1"),
        with("a space in a name", "x a", "1"),
        with("an empty name", "", "1"),
        with("a space before a value", "x-a", " x"),
        with("a space after a value", "x-a", "x "),
        pseudo("CR LF in the path", &[method, scheme, host, (":path", "/attack HTTP/1.1\r\nevil: 1")]),
        pseudo("a space in the path", &[method, scheme, host, (":path", "/attack HTTP/1.1")]),
        pseudo("CR LF in the authority", &[method, scheme, (":authority", "shop.test\r\nevil: 1"), path]),
        pseudo("CR LF in the method", &[(":method", "GET / HTTP/1.1\r\nevil: 1"), scheme, host, path]),
        pseudo("CR LF in the scheme", &[method, (":scheme", "http\r\nevil: 1"), host, path]),
        // Framing.
        with("transfer-encoding", "transfer-encoding", "chunked"),
        posting(
            "transfer-encoding with a body",
            &[("transfer-encoding", "chunked")],
            b"0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n",
        ),
        with("connection", "connection", "close"),
        with("keep-alive", "keep-alive", "1"),
        with("proxy-connection", "proxy-connection", "close"),
        with("upgrade", "upgrade", "websocket"),
        with("te other than trailers", "te", "gzip"),
        with("a length without a body", "content-length", "5"),
        posting("a body that is too short", &[("content-length", "50")], b"short"),
        posting("a body that is too long", &[("content-length", "2")], b"GET /hidden"),
        posting("two lengths", &[("content-length", "5"), ("content-length", "6")], b"hello"),
        posting("equal lengths", &[("content-length", "5"), ("content-length", "5")], b"hello"),
        posting("a list of lengths", &[("content-length", "5, 5")], b"hello"),
        posting("a signed length", &[("content-length", "+5")], b"hello"),
        // Pseudo-fields and hosts.
        pseudo("no method", &[scheme, host, path]),
        pseudo("no scheme", &[method, host, path]),
        pseudo("no path", &[method, scheme, host]),
        pseudo("no host", &[method, scheme, path]),
        pseudo("two methods", &[method, (":method", "POST"), scheme, host, path]),
        pseudo("two paths", &[method, scheme, host, path, (":path", "/other")]),
        pseudo("two authorities", &[method, scheme, host, (":authority", "other.test"), path]),
        pseudo("an unknown pseudo-field", &[method, scheme, host, path, (":evil", "1")]),
        pseudo("a pseudo-field of answers", &[method, scheme, host, path, (":status", "200")]),
        pseudo("a pseudo-field after a field", &[method, scheme, host, ("x-a", "1"), path]),
        pseudo("an empty path", &[method, scheme, host, (":path", "")]),
        pseudo("a relative path", &[method, scheme, host, (":path", "attack")]),
        pseudo("an absolute path", &[method, scheme, host, (":path", "http://other.test/attack")]),
        pseudo("an asterisk", &[method, scheme, host, (":path", "*")]),
        pseudo("another scheme", &[method, (":scheme", "file"), host, path]),
        pseudo("CONNECT", &[(":method", "CONNECT"), host]),
        pseudo("extended CONNECT", &[(":method", "CONNECT"), (":protocol", "websocket"), scheme, host, path]),
        pseudo("userinfo", &[method, scheme, (":authority", "user@shop.test"), path]),
        pseudo("two hosts in one", &[method, scheme, (":authority", "shop.test,other.test"), path]),
        with("another host", "host", "other.test"),
        pseudo("two hosts", &[method, scheme, path, ("host", "shop.test"), ("host", "shop.test")]),
        with("upper case", "X-A", "1"),
        pseudo("upper-case pseudo-field", &[(":METHOD", "GET"), scheme, host, path]),
    ];
    for Trick { what, head, flags, then } in tricks {
        let mut raw = H2Raw::connect(world.web()).await;
        raw.write(&[frame(HEADERS, flags, 1, &head), then].concat()).await;
        let verdict =
            raw.until(|frame| frame.kind == GOAWAY || (frame.stream == 1 && matches!(frame.kind, HEADERS | RESET)));
        let verdict = verdict.await;
        if let Some(frame) = verdict.filter(|frame| frame.kind == HEADERS) {
            // `:status` 400 and 404 have an index of their own in HPACK; others begin with the name's.
            assert!(!matches!(frame.payload.first(), Some(0x88..=0x8b)), "{what} was answered with success");
        }
    }
    assert_eq!(H2Client::connect(world.web()).await.get("/good").await.status, 200);
    let reached: Vec<String> = v1.received().into_iter().filter(|it| it.complete).map(|it| it.line).collect();
    assert_eq!(reached, ["GET /good HTTP/1.1"], "the endpoint saw more than the one good request");
}
