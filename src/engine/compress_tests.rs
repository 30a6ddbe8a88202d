use std::io::Read;

use proptest::prelude::*;

use super::*;
use crate::config::model::MediaType;

fn policy() -> Compression {
    Compression {
        codings: vec![Coding::Zstd, Coding::Brotli, Coding::Gzip],
        level: 4,
        min_size: 100,
        types: ["text/html", "application/json", "font/*"].map(|text| MediaType::new(text).expect("a type")).into(),
    }
}

fn response(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
    let mut response = ResponseHeader::build(status, None).expect("a status");
    for (name, value) in fields {
        response.append_header(*name, *value).expect("a field");
    }
    response
}

fn verdict(accept: Option<&str>, version: Version, response: &ResponseHeader) -> Verdict {
    let mut headers = HeaderMap::new();
    if let Some(accept) = accept {
        headers.insert(ACCEPT_ENCODING, accept.parse().expect("a value"));
    }
    decide(&policy(), Asked { version, headers: &headers }, response)
}

#[test]
fn the_client_chooses_and_ours_breaks_ties() {
    use Coding::*;
    let html = response(200, &[("content-type", "text/html; charset=utf-8")]);
    for (accept, coding) in [
        (None, None),
        (Some(""), None),
        (Some("gzip"), Some(Gzip)),
        (Some("GZIP"), Some(Gzip)),
        (Some("br, gzip"), Some(Brotli)),
        (Some("gzip, deflate, br, zstd"), Some(Zstd)),
        (Some("gzip;q=1.0, br;q=0.5"), Some(Gzip)),
        (Some("gzip;q=0.001"), Some(Gzip)),
        (Some("br;q=0, gzip;q=0"), None),
        (Some("*"), Some(Zstd)),
        (Some("*;q=0"), None),
        (Some("zstd;q=0, *"), Some(Brotli)),
        (Some("identity, gzip;q=0.5"), None),
        (Some("identity;q=0.5, gzip"), Some(Gzip)),
        (Some("gzip;q=2"), None),
        (Some("gzip;q=x"), None),
        (Some("deflate, compress"), None),
        (Some("gzip ; q=0.8 , br ; q=0.9"), Some(Brotli)),
    ] {
        let wanted = coding.map_or(Verdict::LeaveForThisClient, Verdict::Encode);
        assert_eq!(verdict(accept, Version::HTTP_11, &html), wanted, "{accept:?}");
    }
    assert_eq!(verdict(Some("gzip"), Version::HTTP_10, &html), Verdict::LeaveForThisClient);
}

#[test]
fn what_may_not_be_touched_is_left_alone() {
    for (status, fields) in [
        (200, &[("content-type", "image/png")][..]),
        (200, &[]),
        (200, &[("content-type", "text/event-stream")]),
        (200, &[("content-type", "text/html"), ("content-encoding", "br")]),
        (200, &[("content-type", "text/html"), ("content-length", "99")]),
        (200, &[("content-type", "text/html"), ("cache-control", "public, No-Transform")]),
        (200, &[("content-type", "text/html"), ("content-digest", "sha-256=:x:")]),
        (200, &[("content-type", "text/html"), ("content-md5", "x")]),
        (206, &[("content-type", "text/html"), ("content-range", "bytes 0-1/2")]),
        (204, &[("content-type", "text/html")]),
        (304, &[("content-type", "text/html")]),
        (101, &[("content-type", "text/html")]),
    ] {
        assert_eq!(
            verdict(Some("gzip"), Version::HTTP_11, &response(status, fields)),
            Verdict::Leave,
            "{status} {fields:?}"
        );
    }
    for (status, fields) in [
        (200, &[("content-type", "TEXT/HTML")][..]),
        (200, &[("content-type", "font/woff")]),
        (200, &[("content-type", "application/json;x=y"), ("content-length", "100")]),
        (404, &[("content-type", "text/html")]),
        (500, &[("content-type", "text/html"), ("content-encoding", "identity")]),
    ] {
        let seen = verdict(Some("gzip"), Version::HTTP_11, &response(status, fields));
        assert_eq!(seen, Verdict::Encode(Coding::Gzip), "{status} {fields:?}");
    }
}

#[test]
fn the_head_says_what_the_body_is() {
    let head = |verdict, chunked, fields: &[(&'static str, &str)]| {
        let mut response = response(200, fields);
        adjust(&mut response, verdict, chunked).expect("fields");
        let mut lines: Vec<String> =
            response.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        lines.sort();
        lines
    };
    let fields = [("content-length", "500"), ("etag", "\"x\""), ("accept-ranges", "bytes"), ("vary", "Cookie")];
    assert_eq!(
        head(Verdict::Encode(Coding::Brotli), true, &fields),
        [
            "content-encoding: br",
            "etag: W/\"x\"",
            "transfer-encoding: chunked",
            "vary: Accept-Encoding",
            "vary: Cookie"
        ]
    );
    assert_eq!(
        head(Verdict::Encode(Coding::Gzip), false, &[("etag", "W/\"x\""), ("vary", "accept-encoding")]),
        ["content-encoding: gzip", "etag: W/\"x\"", "vary: accept-encoding"]
    );
    assert_eq!(
        head(Verdict::LeaveForThisClient, true, &[("content-length", "5")]),
        ["content-length: 5", "vary: Accept-Encoding"]
    );
    assert_eq!(head(Verdict::LeaveForThisClient, true, &[("vary", "*")]), ["vary: *"]);
    assert_eq!(head(Verdict::Leave, true, &[("etag", "\"x\"")]), ["etag: \"x\""]);
}

fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out),
        Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out),
        Coding::Zstd => zstd::stream::read::Decoder::new(bytes).expect("a decoder").read_to_end(&mut out),
    }
    .expect("a whole stream");
    out
}

#[test]
fn a_small_piece_can_be_read_before_the_next_comes() {
    for coding in Coding::ALL {
        let mut encoder = Encoder::new(coding, 4).expect("room");
        let sent = encoder.encode(b"{\"event\": 1}\n", false).expect("memory");
        let mut seen = vec![0; 13];
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(&*sent).read_exact(&mut seen),
            Coding::Brotli => brotli::Decompressor::new(&*sent, 4096).read_exact(&mut seen),
            Coding::Zstd => zstd::stream::read::Decoder::new(&*sent).expect("a decoder").read_exact(&mut seen),
        }
        .unwrap_or_else(|why| panic!("{coding:?}: {why}"));
        assert_eq!(seen, b"{\"event\": 1}\n", "{coding:?}");
    }
}

#[test]
fn a_thread_has_so_many_encoders_and_gets_them_back() {
    let mut held: Vec<Encoder> = (0..ENCODERS_MAX).map(|_| Encoder::new(Coding::Gzip, 1).expect("room")).collect();
    assert!(Encoder::new(Coding::Zstd, 1).is_none());
    held.pop();
    assert!(Encoder::new(Coding::Brotli, 1).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn what_is_decoded_is_what_was_sent(
        pieces in prop::collection::vec(prop::collection::vec(0..8_u8, 0..20_000), 0..8), level in 1..10_u32, ends_empty in any::<bool>(),
    ) {
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding, level).expect("room");
            let mut sent = Vec::new();
            for (at, piece) in pieces.iter().enumerate() {
                let is_last = at + 1 == pieces.len() && !ends_empty;
                sent.extend(encoder.encode(piece, is_last).expect("memory"));
            }
            if ends_empty || pieces.is_empty() {
                sent.extend(encoder.encode(b"", true).expect("memory"));
            }
            prop_assert!(encoder.encode(b"", true).expect("memory").is_empty(), "it has ended");
            prop_assert_eq!(decoded(coding, &sent), pieces.concat(), "{:?}", coding);
        }
    }
}
