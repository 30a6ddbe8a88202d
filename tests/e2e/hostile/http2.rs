//! Clients that break HTTP/2, frame by frame, and clients that flood: what they see, what the endpoint receives, and that
//! others are served meanwhile.

use crate::harness::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, H2Client, H2Raw, HEADERS, PING, PRIORITY, RESET, RawFrame,
    SETTINGS, WINDOW_UPDATE, block, frame, head, status,
};
use crate::harness::*;
use crate::http2_hostile::proxied;
use crate::i12_bounded::resident_kib;

const PUSH_PROMISE: u8 = 5;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;
const REQUEST: u8 = END_HEADERS | END_STREAM;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const CALM: u32 = 11;

/// What the client sees of its stream, or of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    Answered(u16),
    Reset(u32),
    SentAway(u32),
    /// One of the two, with this reason: its window and the connection's are both full.
    Either(u32),
    /// Not even that.
    Closed,
}

impl Sees {
    pub fn in_words(self) -> String {
        let reason = |code: u32| {
            let reason = h2::Reason::from(code);
            format!("{reason:?}")
        };
        match self {
            Sees::Answered(status) => format!("{status}"),
            Sees::Reset(code) => format!("RST_STREAM {}", reason(code)),
            Sees::SentAway(code) => format!("GOAWAY {}", reason(code)),
            Sees::Either(code) => format!("RST_STREAM or GOAWAY {}", reason(code)),
            Sees::Closed => "closed".into(),
        }
    }

    fn admits(self, seen: Sees) -> bool {
        match (self, seen) {
            (Sees::Either(wanted), Sees::Reset(code) | Sees::SentAway(code)) => code == wanted,
            (wanted, seen) => wanted == seen,
        }
    }

    fn of(frame: Option<RawFrame>) -> Sees {
        match frame {
            None => Sees::Closed,
            Some(frame) if frame.kind == GOAWAY => Sees::SentAway(frame.reason()),
            Some(frame) if frame.kind == RESET => Sees::Reset(frame.reason()),
            Some(frame) => Sees::Answered(status(&frame.payload).unwrap_or_default()),
        }
    }
}

/// What the endpoint receives of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaches {
    Nothing,
    /// The beginning of a request, perhaps.
    Unfinished,
    /// One request, whole.
    One,
}

impl Reaches {
    pub fn in_words(self) -> &'static str {
        match self {
            Reaches::Nothing => "nothing",
            Reaches::Unfinished => "no whole request",
            Reaches::One => "one request",
        }
    }
}

pub struct Case {
    pub name: &'static str,
    frames: Vec<u8>,
    pub sees: Sees,
    pub reaches: Reaches,
}

pub struct Group {
    pub title: &'static str,
    pub cases: Vec<Case>,
}

fn case(name: &'static str, frames: Vec<u8>, sees: Sees) -> Case {
    let reaches = if sees == Sees::Answered(200) { Reaches::One } else { Reaches::Nothing };
    Case { name, frames, sees, reaches }
}

fn asking(name: &'static str, block: Vec<u8>, sees: Sees) -> Case {
    case(name, frame(HEADERS, REQUEST, 1, &block), sees)
}

/// A GET with one more field.
fn with(what: &'static str, name: &str, value: &str, sees: Sees) -> Case {
    asking(what, head("GET", "/attack", &[(name, value)]), sees)
}

fn pseudo(what: &'static str, fields: &[(&str, &str)], sees: Sees) -> Case {
    asking(what, block(fields), sees)
}

fn posting(what: &'static str, fields: &[(&str, &str)], data: &[u8], sees: Sees) -> Case {
    let mut case = case(what, [open(1, fields), frame(DATA, END_STREAM, 1, data)].concat(), sees);
    case.reaches = Reaches::Unfinished;
    case
}

/// A POST whose body is still to come.
fn open(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head("POST", "/attack", fields))
}

/// A GET without a fault.
fn good(stream: u32) -> Vec<u8> {
    frame(HEADERS, REQUEST, stream, &head("GET", "/attack", &[]))
}

/// `frames`, and a good request behind them: who sees the answer to that has been forgiven.
fn before_a_good_one(name: &'static str, frames: &[Vec<u8>], sees: Sees) -> Case {
    case(name, [&frames.concat()[..], &good(1)].concat(), sees)
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

pub fn groups() -> Vec<Group> {
    use Sees::{Answered, Reset, SentAway};
    let (method, scheme, host) = ((":method", "GET"), (":scheme", "http"), (":authority", "shop.test"));
    let path = (":path", "/attack");
    let inject = "x\r\n\r\nGET /hidden HTTP/1.1\r\nhost: shop.test\r\n\r\n";
    let malformed = Reset(PROTOCOL_ERROR);
    // The library calls a block of fields that it cannot read an error of the protocol.
    let no_name = SentAway(PROTOCOL_ERROR);
    vec![
        Group {
            title: "Through the downgrade",
            cases: vec![
                with("CR LF in a value", "x-a", inject, no_name),
                with("LF in a value", "x-a", "x\nevil: 1", no_name),
                with("CR in a value", "x-a", "x\revil: 1", no_name),
                with("NUL in a value", "x-a", "x\0y", no_name),
                with("CR LF in a name", "x-a: 1\r\nevil", "1", no_name),
                with("a colon in a name", "x-a:evil", "1", no_name),
                with("a space in a name", "x a", "1", no_name),
                with("an empty name", "", "1", no_name),
                with("a name in upper case", "X-A", "1", no_name),
                with("a space before a value", "x-a", " x", Answered(400)),
                with("a space after a value", "x-a", "x ", Answered(400)),
                pseudo(
                    "CR LF in the path",
                    &[method, scheme, host, (":path", "/attack HTTP/1.1\r\nevil: 1")],
                    malformed,
                ),
                pseudo("a space in the path", &[method, scheme, host, (":path", "/attack HTTP/1.1")], malformed),
                pseudo(
                    "CR LF in the authority",
                    &[method, scheme, (":authority", "shop.test\r\nevil: 1"), path],
                    malformed,
                ),
                pseudo("CR LF in the method", &[(":method", "GET / HTTP/1.1\r\nevil: 1"), scheme, host, path], no_name),
                pseudo("CR LF in the scheme", &[method, (":scheme", "http\r\nevil: 1"), host, path], malformed),
            ],
        },
        Group {
            title: "Framing of messages",
            cases: vec![
                with("Transfer-Encoding", "transfer-encoding", "chunked", malformed),
                posting(
                    "Transfer-Encoding and a body that hides a request",
                    &[("transfer-encoding", "chunked")],
                    b"0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n",
                    malformed,
                ),
                with("Connection", "connection", "close", malformed),
                with("Keep-Alive", "keep-alive", "1", malformed),
                with("Proxy-Connection", "proxy-connection", "close", malformed),
                with("Upgrade", "upgrade", "websocket", malformed),
                with("TE other than trailers", "te", "gzip", malformed),
                with("Content-Length without a body", "content-length", "5", malformed),
                posting("a body that is shorter than Content-Length", &[("content-length", "50")], b"short", malformed),
                posting(
                    "a body that is longer than Content-Length",
                    &[("content-length", "2")],
                    b"GET /hidden",
                    malformed,
                ),
                posting(
                    "two different Content-Length",
                    &[("content-length", "5"), ("content-length", "6")],
                    b"hello",
                    malformed,
                ),
                posting(
                    "two equal Content-Length",
                    &[("content-length", "5"), ("content-length", "5")],
                    b"hello",
                    Answered(400),
                ),
                posting("Content-Length: a list", &[("content-length", "5, 5")], b"hello", malformed),
                posting("Content-Length: with a plus", &[("content-length", "+5")], b"hello", malformed),
            ],
        },
        Group {
            title: "Pseudo-fields and hosts",
            cases: vec![
                pseudo("no method", &[scheme, host, path], malformed),
                pseudo("no scheme", &[method, host, path], malformed),
                pseudo("no path", &[method, scheme, host], malformed),
                pseudo("no host", &[method, scheme, path], Answered(400)),
                pseudo("two methods", &[method, (":method", "POST"), scheme, host, path], malformed),
                pseudo("two paths", &[method, scheme, host, path, (":path", "/other")], malformed),
                pseudo("two authorities", &[method, scheme, host, (":authority", "other.test"), path], malformed),
                pseudo("an unknown pseudo-field", &[method, scheme, host, path, (":evil", "1")], no_name),
                pseudo("a pseudo-field of answers", &[method, scheme, host, path, (":status", "200")], malformed),
                pseudo("a pseudo-field after a field", &[method, scheme, host, ("x-a", "1"), path], malformed),
                pseudo("a pseudo-field in upper case", &[(":METHOD", "GET"), scheme, host, path], no_name),
                pseudo("an empty path", &[method, scheme, host, (":path", "")], malformed),
                pseudo("a relative path", &[method, scheme, host, (":path", "attack")], malformed),
                pseudo(
                    "an absolute target for a path",
                    &[method, scheme, host, (":path", "http://other.test/attack")],
                    malformed,
                ),
                pseudo("`*` with GET", &[method, scheme, host, (":path", "*")], Answered(400)),
                pseudo("another scheme", &[method, (":scheme", "file"), host, path], Answered(400)),
                pseudo("CONNECT", &[(":method", "CONNECT"), host], Answered(405)),
                pseudo(
                    "extended CONNECT, which was not offered",
                    &[(":method", "CONNECT"), (":protocol", "websocket"), scheme, host, path],
                    malformed,
                ),
                pseudo("userinfo", &[method, scheme, (":authority", "user@shop.test"), path], Answered(400)),
                pseudo(
                    "two hosts in one",
                    &[method, scheme, (":authority", "shop.test,other.test"), path],
                    Answered(400),
                ),
                with("another Host than the authority", "host", "other.test", Answered(400)),
                pseudo(
                    "two Host fields",
                    &[method, scheme, path, ("host", "shop.test"), ("host", "shop.test")],
                    Answered(400),
                ),
                Case {
                    reaches: Reaches::One,
                    ..with("the same Host as the authority", "host", "SHOP.test", Answered(200))
                },
            ],
        },
        Group { title: "Trailers", cases: trailers() },
        Group { title: "Broken frames", cases: frames() },
        Group { title: "Broken blocks of fields", cases: blocks() },
    ]
}

fn trailers() -> Vec<Case> {
    let malformed = Sees::Reset(PROTOCOL_ERROR);
    let ending = |name, block: Vec<u8>, sees| {
        let frames = [open(1, &[]), frame(DATA, 0, 1, b"hello"), frame(HEADERS, REQUEST, 1, &block)].concat();
        let reaches = if sees == malformed { Reaches::Unfinished } else { Reaches::One };
        Case { name, frames, sees, reaches }
    };
    vec![
        ending("a pseudo-field", block(&[(":path", "/other")]), malformed),
        ending("a pseudo-field of answers", block(&[(":status", "200")]), malformed),
        ending("a pseudo-field behind a field", block(&[("x-sum", "1"), (":method", "GET")]), malformed),
        ending("a pseudo-field by its index", vec![0x84], malformed),
        ending("Connection", block(&[("connection", "close")]), malformed),
        ending("Transfer-Encoding", block(&[("transfer-encoding", "chunked")]), malformed),
        ending("Content-Length", block(&[("content-length", "5")]), malformed),
        ending("Host", block(&[("host", "other.test")]), malformed),
        Case {
            name: "trailers that do not end the stream",
            frames: [open(1, &[]), frame(HEADERS, END_HEADERS, 1, &block(&[("x-sum", "1")]))].concat(),
            sees: malformed,
            reaches: Reaches::Unfinished,
        },
        ending("fields that may be trailers, which are dropped", block(&[("x-sum", "1")]), Sees::Answered(200)),
    ]
}

fn frames() -> Vec<Case> {
    use Sees::{Answered, Reset, SentAway};
    let error = SentAway(PROTOCOL_ERROR);
    let size = SentAway(FRAME_SIZE_ERROR);
    let get = head("GET", "/attack", &[]);
    let priority = |on: u32| on.to_be_bytes().into_iter().chain([16]).collect::<Vec<u8>>();
    vec![
        before_a_good_one("a frame of 20 000 bytes", &[frame(0xbe, 0, 0, &[0; 20_000])], size),
        before_a_good_one("DATA on no stream", &[frame(DATA, 0, 0, b"x")], error),
        before_a_good_one("DATA on a stream that was never opened", &[frame(DATA, 0, 9, b"x")], error),
        case("HEADERS on no stream", frame(HEADERS, REQUEST, 0, &get), error),
        case("HEADERS on a stream of ours", frame(HEADERS, REQUEST, 2, &get), error),
        case(
            "a stream older than the last",
            [frame(HEADERS, REQUEST, 5, &head("GET", "/attack5", &[])), good(3)].concat(),
            error,
        ),
        before_a_good_one("CONTINUATION of nothing", &[frame(CONTINUATION, END_HEADERS, 1, b"")], error),
        case(
            "another frame inside a block of fields",
            [frame(HEADERS, END_STREAM, 1, &get), frame(PING, 0, 0, b"12345678")].concat(),
            error,
        ),
        case(
            "CONTINUATION of another stream",
            [frame(HEADERS, END_STREAM, 1, &get), frame(CONTINUATION, END_HEADERS, 3, b"")].concat(),
            error,
        ),
        case("padding longer than its frame", frame(HEADERS, REQUEST | PADDED, 1, &[&[200][..], &get].concat()), error),
        case(
            "a stream that depends on itself",
            frame(HEADERS, REQUEST | WITH_PRIORITY, 1, &[&priority(1)[..], &get].concat()),
            Reset(PROTOCOL_ERROR),
        ),
        before_a_good_one("RST_STREAM of a stream that was never opened", &[frame(RESET, 0, 9, &[0; 4])], error),
        before_a_good_one("RST_STREAM of no stream", &[frame(RESET, 0, 0, &[0; 4])], error),
        before_a_good_one("RST_STREAM of three bytes", &[frame(RESET, 0, 1, &[0; 3])], error),
        before_a_good_one("PING of seven bytes", &[frame(PING, 0, 0, &[0; 7])], error),
        before_a_good_one("PING on a stream", &[frame(PING, 0, 1, &[0; 8])], error),
        before_a_good_one("SETTINGS of seven bytes", &[frame(SETTINGS, 0, 0, &[0; 7])], error),
        before_a_good_one("SETTINGS on a stream", &[frame(SETTINGS, 0, 1, b"")], error),
        before_a_good_one("SETTINGS: acknowledged with a payload", &[frame(SETTINGS, 1, 0, &[0; 6])], error),
        before_a_good_one("SETTINGS: a window above 2^31 - 1", &[setting(4, 0x8000_0000)], error),
        before_a_good_one("SETTINGS: frames of 16 383 bytes", &[setting(5, 16_383)], error),
        before_a_good_one("SETTINGS: push is 2", &[setting(2, 2)], error),
        before_a_good_one("SETTINGS: one that nobody knows", &[setting(0xfe, 7)], Answered(200)),
        before_a_good_one("WINDOW_UPDATE of nothing", &[frame(WINDOW_UPDATE, 0, 0, &[0; 4])], error),
        before_a_good_one(
            "WINDOW_UPDATE of the connection above 2^31 - 1",
            &[frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes())],
            SentAway(FLOW_CONTROL_ERROR),
        ),
        Case {
            reaches: Reaches::Unfinished,
            ..case(
                "WINDOW_UPDATE of a stream above 2^31 - 1",
                [open(1, &[]), frame(WINDOW_UPDATE, 0, 1, &0x7fff_ffffu32.to_be_bytes())].concat(),
                Reset(FLOW_CONTROL_ERROR),
            )
        },
        Case {
            reaches: Reaches::Unfinished,
            ..case(
                "DATA beyond the windows",
                [open(1, &[]), frame(DATA, 0, 1, &[0; 16_384]).repeat(400)].concat(),
                Sees::Either(FLOW_CONTROL_ERROR),
            )
        },
        before_a_good_one("PUSH_PROMISE", &[frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])], error),
        before_a_good_one("a frame that nobody knows", &[frame(0xbe, 0xff, 0, b"anything")], Answered(200)),
        before_a_good_one(
            "PRIORITY of a stream that is not there",
            &[frame(PRIORITY, 0, 9, &priority(0))],
            Answered(200),
        ),
        before_a_good_one(
            "HTTP/1.1 behind the preface",
            &[b"GET /attack HTTP/1.1\r\nhost: shop.test\r\n\r\n".to_vec()],
            size,
        ),
    ]
}

fn blocks() -> Vec<Case> {
    use Sees::SentAway;
    let broken = SentAway(PROTOCOL_ERROR);
    let get = head("GET", "/attack", &[]);
    let behind = |bytes: &[u8]| [&get[..], bytes].concat();
    vec![
        asking("an index of nothing", behind(&[0x80]), broken),
        asking("an index beyond the table", behind(&[0xfe]), broken),
        asking("an index of 2^32", behind(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]), broken),
        asking("a text longer than its frame", behind(&[0, 3, b'x', b'-', b'a', 0x7f, 0xff, 0x7f]), broken),
        asking("a size of the table above what was agreed", [&[0x3f, 0xe2, 0x1f][..], &get].concat(), broken),
        asking("a size of the table behind a field", behind(&[0x20]), broken),
        asking("Huffman codes that end with EOS", behind(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]), broken),
        asking("Huffman padding of eight bits", behind(&[0, 1, b'x', 0x82, 0x1f, 0xff]), broken),
    ]
}

/// The verdict over stream 1, over the newest stream, or over the connection.
async fn verdict(raw: &mut H2Raw) -> Sees {
    let is_verdict = |frame: &RawFrame| match frame.kind {
        GOAWAY => true,
        HEADERS | RESET => matches!(frame.stream, 1 | 3),
        _ => false,
    };
    Sees::of(raw.until(is_verdict).await)
}

#[tokio::test]
async fn broken_http2_does_not_reach_the_endpoint() {
    let (world, v1) = proxied().await;
    let before = resident_kib(&world);
    let other = H2Client::connect(world.web()).await;
    let mut wrong = Vec::new();
    for group in groups() {
        for case in group.cases {
            v1.forget();
            let mut raw = H2Raw::connect(world.web()).await;
            raw.write(&case.frames).await;
            let seen = verdict(&mut raw).await;
            if !case.sees.admits(seen) {
                wrong.push(format!("{}: {seen:?}, not {:?}", case.name, case.sees));
            }
            // Whoever asks meanwhile is served.
            assert_eq!(other.get("/other").await.status, 200, "{}", case.name);
            drop(raw);
            let received: Vec<_> = v1.received().into_iter().filter(|got| got.target() != "/other").collect();
            let whole = received.iter().filter(|got| got.complete && got.target() == "/attack").count();
            let holds = match case.reaches {
                Reaches::Nothing => received.iter().all(|got| got.target() != "/attack"),
                Reaches::Unfinished => whole == 0,
                Reaches::One => whole == 1,
            };
            if !holds || received.iter().any(|got| got.line.contains("hidden") || got.field("evil").is_some()) {
                wrong.push(format!("{}: the endpoint received {received:?}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    let grown = resident_kib(&world).saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB more");
}

pub struct Flood {
    pub name: &'static str,
    attack: Vec<u8>,
    pub sees: Sees,
    /// Requests that may reach the endpoint, of all that were sent.
    pub reach: usize,
}

/// So many of each.
pub const FLOOD: u32 = 3000;

pub fn floods() -> Vec<Flood> {
    let streams = || (0..FLOOD).map(|nth| nth * 2 + 1);
    let many = FLOOD as usize;
    let cancel = |id| frame(RESET, 0, id, &8u32.to_be_bytes());
    let each = |of: &dyn Fn(u32) -> Vec<u8>| streams().flat_map(of).collect::<Vec<u8>>();
    let flood = |name, attack, reach| Flood { name, attack, sees: Sees::SentAway(CALM), reach };
    // One of them is enough.
    let error = |name, attack| Flood { name, attack, sees: Sees::SentAway(PROTOCOL_ERROR), reach: 400 };
    // What `http2.resets` allows in ten seconds, and what is on its way when it is seen.
    let some = 400;
    vec![
        flood("requests that are cancelled at once (rapid reset)", each(&|id| [good(id), cancel(id)].concat()), some),
        flood(
            "streams whose window overflows (MadeYouReset)",
            each(&|id| [open(id, &[]), frame(WINDOW_UPDATE, 0, id, &0x7fff_ffffu32.to_be_bytes())].concat()),
            some,
        ),
        error(
            "streams with a WINDOW_UPDATE of nothing (MadeYouReset)",
            each(&|id| [open(id, &[]), frame(WINDOW_UPDATE, 0, id, &[0; 4])].concat()),
        ),
        error(
            "streams with DATA behind their end (MadeYouReset)",
            each(&|id| [good(id), frame(DATA, 0, id, b"x")].concat()),
        ),
        flood(
            "streams with malformed trailers",
            each(&|id| [open(id, &[]), frame(HEADERS, REQUEST, id, &[0x84])].concat()),
            some,
        ),
        flood("malformed requests", each(&|id| frame(HEADERS, REQUEST, id, &[0x82])), 0),
        flood("SETTINGS", setting(3, 100).repeat(many), 0),
        flood("SETTINGS that change the window", [setting(4, 1), setting(4, 65_535)].concat().repeat(many / 2), 0),
        flood("SETTINGS that change the table", [setting(1, 0), setting(1, 4096)].concat().repeat(many / 2), 0),
        flood("PING", frame(PING, 0, 0, b"12345678").repeat(many), 0),
        flood("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]).repeat(many), 0),
        flood("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()).repeat(many), 0),
        flood("empty DATA", [open(1, &[]), frame(DATA, 0, 1, b"").repeat(many)].concat(), 1),
        flood("padding without DATA", [open(1, &[]), frame(DATA, PADDED, 1, &[0]).repeat(many)].concat(), 1),
        flood("frames that nobody knows", frame(0xbe, 0, 0, b"").repeat(many), 0),
        flood(
            "a block of fields in empty pieces",
            [frame(HEADERS, END_STREAM, 1, &head("GET", "/attack", &[])), frame(CONTINUATION, 0, 1, b"").repeat(many)]
                .concat(),
            0,
        ),
        flood(
            "a block of fields in small pieces",
            [
                frame(HEADERS, END_STREAM, 1, &head("GET", "/attack", &[])),
                frame(CONTINUATION, 0, 1, &block(&[("x", "y")])).repeat(many),
            ]
            .concat(),
            0,
        ),
        flood(
            "a block of fields without end",
            [
                frame(HEADERS, END_STREAM, 1, &head("GET", "/attack", &[])),
                frame(CONTINUATION, 0, 1, &block(&[("x-large", &"v".repeat(16_000))])).repeat(100),
            ]
            .concat(),
            0,
        ),
    ]
}

/// While each goes on another client is served; afterwards the memory is what it was, and the endpoint has seen no more
/// than it may.
#[tokio::test]
async fn floods_end_the_connection_that_sends_them() {
    let (world, v1) = proxied().await;
    let mut wrong = Vec::new();
    for flood in floods() {
        v1.forget();
        let before = resident_kib(&world);
        let other = H2Client::connect(world.web()).await;
        let mut raw = H2Raw::connect(world.web()).await;
        let (_, seen) = tokio::join!(raw.write(&flood.attack), other.get("/meanwhile"));
        assert_eq!((seen.status, seen.is_whole()), (200, true), "{}", flood.name);
        let end = raw.until(|frame| frame.kind == GOAWAY && frame.reason() != 0).await;
        let sees = Sees::of(end);
        let grown = resident_kib(&world).saturating_sub(before);
        assert_eq!(other.get("/after").await.status, 200, "{}", flood.name);
        drop(raw);
        let attacked = || v1.received().iter().filter(|got| got.target() == "/attack").count();
        if sees != flood.sees || grown >= 24 * 1024 || attacked() > flood.reach {
            wrong.push(format!("{}: {sees:?}, {grown} KiB more, {} reached the endpoint", flood.name, attacked()));
        }
        until("nothing is left of it", || async { world.version_status("shop", "v1").await["in_flight"]["http"] == 0 })
            .await;
    }
    assert!(wrong.is_empty(), "{} floods:\n{}", wrong.len(), wrong.join("\n"));
}
