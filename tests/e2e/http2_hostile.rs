//! Clients that use HTTP/2 against us: what it costs, and that others are served meanwhile. What single requests and
//! frames come to is in `hostile/http2.rs`.

use crate::harness::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, H2Client, H2Raw, HEADERS, RESET, WINDOW_UPDATE, block, frame,
    head, status,
};
use crate::harness::*;
use crate::i12_bounded::resident_kib;

const CALM: u32 = 11;
const REQUEST: u8 = END_HEADERS | END_STREAM;

pub async fn proxied() -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], "active: v1")).await;
    // What a first request costs is not the attack's.
    assert_eq!(H2Client::connect(world.web()).await.get("/warm").await.status, 200);
    v1.forget();
    (world, v1)
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

/// RFC 9113 section 8.1: trailers with a pseudo-field make a request malformed, and so do fields of a connection, or
/// of the message's own framing. The stream is reset, no endpoint gets the request as whole, and its siblings go on.
#[tokio::test]
async fn malformed_trailers_end_their_stream_alone() {
    const PROTOCOL_ERROR: u32 = 1;
    let (world, v1) = proxied().await;
    let remembered = [&[0x41, 9][..], b"shop.test"].concat();
    let trailers: Vec<(&str, Vec<u8>, bool)> = vec![
        ("a path", block(&[(":path", "/other")]), true),
        ("a status", block(&[(":status", "200")]), true),
        ("a method, behind a good field", block(&[("x-sum", "1"), (":method", "GET")]), true),
        ("one by its index", vec![0x84], true),
        ("one that both sides remember", vec![0xbe], true),
        ("connection", block(&[("connection", "close")]), true),
        ("transfer-encoding", block(&[("transfer-encoding", "chunked")]), true),
        ("te", block(&[("te", "gzip")]), true),
        ("content-length", block(&[("content-length", "5")]), true),
        ("host", block(&[("host", "other.test")]), true),
        ("fields that may be there", block(&[("x-sum", "1"), ("server-timing", "a")]), false),
    ];
    for (nth, (what, trailers, is_malformed)) in trailers.into_iter().enumerate() {
        v1.forget();
        let mut raw = H2Raw::connect(world.web()).await;
        let path = format!("/attack/{nth}");
        // The authority goes into the table of both sides.
        let mut open = block(&[(":method", "POST"), (":scheme", "http"), (":path", &path)]);
        open.extend_from_slice(&remembered);
        let good = head("GET", "/sibling", &[]);
        let attack = [
            frame(HEADERS, END_HEADERS, 1, &open),
            frame(DATA, 0, 1, b"hello"),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
            frame(HEADERS, REQUEST, 3, &good),
        ];
        raw.write(&attack.concat()).await;
        let (mut verdict, mut sibling) = (None, None);
        while verdict.is_none() || sibling.is_none() {
            let wanted = |frame: &crate::harness::http2::RawFrame| matches!(frame.kind, GOAWAY | RESET | HEADERS);
            let frame = raw.until(wanted).await.unwrap_or_else(|| panic!("{what}: the connection has ended"));
            assert_ne!(frame.kind, GOAWAY, "{what}");
            match frame.stream {
                1 => verdict = Some(frame),
                _ => sibling = Some(frame),
            }
        }
        let verdict = verdict.unwrap();
        if is_malformed {
            assert_eq!((verdict.kind, verdict.reason()), (RESET, PROTOCOL_ERROR), "{what}");
            until("the endpoint has let go", || async {
                v1.received().iter().all(|it| it.target() != path || !it.complete)
            })
            .await;
        } else {
            assert_eq!(verdict.kind, HEADERS, "{what}");
        }
        assert_eq!(status(&sibling.unwrap().payload), Some(200), "{what}");
        let whole: Vec<String> = v1.received().into_iter().filter(|it| it.complete).map(|it| it.line).collect();
        let attacked = format!("POST {path} HTTP/1.1");
        assert_eq!(whole.contains(&attacked), !is_malformed, "{what}: {whole:?}");
    }
    until("they are counted", || async {
        world.metric("switchback_request_errors_total", &[("class", "downstream_abort")]).await == 10.0
    })
    .await;
    // A client that does nothing else is sent away.
    let mut raw = H2Raw::connect(world.web()).await;
    v1.set(Fault::EarlyAnswer(403));
    let mut attack = Vec::new();
    for nth in 0..200 {
        let id = nth * 2 + 1;
        attack.extend(frame(HEADERS, END_HEADERS, id, &head("POST", "/attack", &[])));
        attack.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, &[0x84]));
    }
    raw.write(&attack).await;
    let end = raw.until(|frame| frame.kind == GOAWAY).await.expect("it is sent away");
    assert_eq!(end.reason(), CALM);
}
