//! Answers made smaller: what the client decodes is what the endpoint sent, and what may not be touched is not.

use std::io::Read;

use crate::harness::client::Seen;
use crate::harness::*;

async fn with(keys: &str) -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], &format!("active: v1\ncompression: {keys}"))).await;
    (world, v1)
}

/// The body as a browser sees it.
fn decoded(seen: &Seen) -> Vec<u8> {
    let mut out = Vec::new();
    match seen.field("content-encoding") {
        None => return seen.body.clone(),
        Some("gzip") => flate2::read::GzDecoder::new(&*seen.body).read_to_end(&mut out),
        Some("br") => brotli::Decompressor::new(&*seen.body, 4096).read_to_end(&mut out),
        Some("zstd") => zstd::stream::read::Decoder::new(&*seen.body).expect("a decoder").read_to_end(&mut out),
        Some(other) => panic!("{other}"),
    }
    .unwrap_or_else(|why| panic!("{why}: {seen:?}"));
    out
}

#[tokio::test]
async fn what_is_decoded_is_what_was_sent() {
    let (world, v1) = with("{}").await;
    v1.add_headers("content-type: text/html; charset=utf-8\r\netag: \"v1\"\r\naccept-ranges: bytes\r\n");
    let mut client = world.client();
    for accept in ["gzip", "br", "zstd", "gzip, deflate, br, zstd", "*"] {
        for (path, byte, length) in [
            ("/bytes/100000", b'x', 100_000),
            ("/chunked/100000", b'c', 100_000),
            ("/chunked/10", b'c', 10),
            ("/chunked/0", b'c', 0),
            ("/bytes/3000000", b'x', 3_000_000),
        ] {
            let seen = client.get_with(path, &[("accept-encoding", accept)]).await;
            assert_eq!((&seen.outcome, seen.status), (&Outcome::Ok, 200), "{accept} {path}");
            assert!(decoded(&seen) == vec![byte; length], "{accept} {path}");
            assert!(length < 1000 || seen.body.len() < length / 10, "{accept} {path}: {}", seen.body.len());
            let field = |name| seen.field(name);
            assert!(field("content-encoding").is_some(), "{accept} {path}");
            assert_eq!((field("content-length"), field("accept-ranges")), (None, None));
            assert_eq!((field("vary"), field("etag")), (Some("Accept-Encoding"), Some("W/\"v1\"")));
        }
        assert_eq!(v1.last().field("accept-encoding"), Some(accept), "the endpoint may do it itself");
    }
    assert_eq!(client.opened, 1, "every answer had its end");
    // HEAD says what GET would.
    let seen = client.send("HEAD", "/bytes/100000", &[("accept-encoding", "br")], b"").await;
    assert_eq!((seen.field("content-encoding"), seen.field("content-length"), seen.body.len()), (Some("br"), None, 0));
    // Who cannot read it gets it as it is, and caches are told.
    for accept in [&[][..], &[("accept-encoding", "identity")], &[("accept-encoding", "gzip;q=0")]] {
        let seen = client.get_with("/bytes/5000", accept).await;
        assert_eq!((seen.field("content-encoding"), seen.field("content-length")), (None, Some("5000")), "{accept:?}");
        assert_eq!(
            (seen.field("vary"), seen.field("etag"), seen.body.len()),
            (Some("Accept-Encoding"), Some("\"v1\""), 5000)
        );
    }
    assert_eq!(client.opened, 1);
    let mut raw = world.raw().await;
    raw.write(b"GET /bytes/5000 HTTP/1.0\r\nhost: shop.test\r\naccept-encoding: gzip\r\n\r\n").await.unwrap();
    let seen = raw.answer().await;
    assert_eq!((seen.field("content-encoding"), seen.body_bytes), (None, 5000));
}

#[tokio::test]
async fn what_may_not_be_touched_is_passed_on_byte_for_byte() {
    let (world, v1) = with("{ min_size: 1KiB, algorithms: gzip }").await;
    let mut client = world.client();
    let accept = [("accept-encoding", "gzip, br")];
    let body = "x".repeat(2000);
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-encoding: br\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncache-control: no-transform\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-digest: sha-256=:abc:\r\n",
        "HTTP/1.1 206 Partial Content\r\ncontent-type: text/html\r\ncontent-range: bytes 0-1999/5000\r\n",
        "HTTP/1.1 200 OK\r\n",
    ] {
        v1.set(Fault::BytesKeep(format!("{head}etag: \"s\"\r\ncontent-length: 2000\r\n\r\n{body}").into_bytes()));
        let seen = client.get_with("/", &accept).await;
        assert_eq!((seen.text() == body, seen.field("content-length")), (true, Some("2000")), "{head}");
        assert_eq!((seen.field("etag"), seen.field("vary")), (Some("\"s\""), None), "{head}");
    }
    v1.set(Fault::None);
    v1.add_headers("content-type: text/html\r\n");
    assert_eq!(client.get_with("/bytes/1000", &accept).await.field("content-encoding"), None, "too small");
    for status in [204, 304] {
        let seen = client.get_with(&format!("/status/{status}"), &accept).await;
        assert_eq!((seen.status, seen.field("content-encoding"), &seen.outcome), (status, None, &Outcome::Ok));
    }
    assert_eq!(client.opened, 1);
    // An event stream stays one.
    v1.add_headers("");
    let mut stream = SseClient::open_with(world.web(), "/sse", &accept).await;
    stream.next().await.unwrap();
    v1.tick();
    stream.next().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_cut_is_seen_to_be_cut_and_pieces_come_as_they_are_sent() {
    let (world, v1) = with("{}").await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    v1.set(Fault::Bytes(format!("{head}5\r\nhello\r\n").into_bytes()));
    let seen = world.client().get_with("/", &[("accept-encoding", "gzip")]).await;
    assert_eq!(seen.outcome, Outcome::Truncated);
    // The endpoint sends a piece and falls silent: the client has that piece.
    v1.set(Fault::StallBody);
    v1.set(Fault::None);
    let silent = std::net::TcpListener::bind(world.unused()).unwrap();
    let address = silent.local_addr().unwrap();
    let before = v1.address.to_string();
    world.edit_and_wait(|text| text.replace(&before, &address.to_string())).await;
    let server = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = silent.accept().expect("it is asked");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        stream.write_all(format!("{head}9\r\n{{\"a\": 1}}\n\r\n").as_bytes()).expect("it is read");
        stream
    });
    let mut raw = world.raw().await;
    raw.write(b"GET /live HTTP/1.1\r\nhost: shop.test\r\naccept-encoding: gzip\r\n\r\n").await.unwrap();
    let stream = server.join().expect("it answers");
    let (status, _) = soon("the head comes", raw.head()).await.expect("a head");
    assert_eq!(status, 200);
    let piece = soon("the piece comes", raw.reader.chunk()).await.expect("a chunk").expect("not the end");
    let mut seen = [0; 9];
    flate2::read::GzDecoder::new(&*piece).read_exact(&mut seen).expect("it was flushed");
    assert_eq!(&seen, b"{\"a\": 1}\n");
    drop(stream);
}
