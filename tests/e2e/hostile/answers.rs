//! Endpoints that misbehave: what the client is told, and whether their connection is ever used again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::tap::{Step, Step::*, Tap};
use crate::harness::client::{Outcome, Raw};
use crate::harness::origin::Received;
use crate::harness::*;
use crate::i12_bounded::resident_kib;

/// `###` in the body that is expected is the number of the case.
pub struct Case {
    pub name: &'static str,
    asks: Asks,
    script: Vec<Step>,
    pub sees: Sees,
    pub connection: Connection,
}

#[derive(Debug, Clone, Copy)]
enum Asks {
    Get,
    /// And nobody asks anything before the proxy has closed the connection.
    GetAndWait,
    Head,
    /// With a body of five bytes.
    Post,
    /// Only half of the body it announces.
    HalfPost,
    WebSocket,
}

/// What the client sees.
#[derive(Debug, Clone, Copy)]
pub enum Sees {
    /// An error of the proxy's own.
    Error(u16),
    /// A whole answer with this status and this body.
    Whole(u16, &'static str),
    /// A whole answer with status 200 and this field.
    WithField(&'static str, &'static str),
    /// An answer that is visibly not whole.
    Cut,
}

/// What becomes of the connection to the endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Connection {
    /// Nothing is ever sent on it again.
    Closed,
    /// It may serve others.
    MayServe,
}

impl Sees {
    pub fn in_words(self) -> String {
        match self {
            Sees::Error(status) => format!("{status}"),
            Sees::Whole(status, "") => format!("{status} without a body"),
            Sees::Whole(status, body) => format!("{status}, body `{}`", super::document::visible(body)),
            Sees::WithField(name, value) => format!("200, `{name}: {value}`"),
            Sees::Cut => "a visibly truncated answer".into(),
        }
    }
}

impl Connection {
    pub fn in_words(self) -> &'static str {
        match self {
            Connection::Closed => "closed",
            Connection::MayServe => "kept",
        }
    }
}

use Connection::{Closed, MayServe};
use Sees::{Cut, Error, Whole, WithField};

fn bytes(text: impl Into<Vec<u8>>) -> Step {
    Send(text.into())
}

/// Answers a GET with these bytes and keeps the connection open: only the proxy can close it.
fn says(name: &'static str, answer: impl Into<Vec<u8>>, sees: Sees, connection: Connection) -> Case {
    Case { name, asks: Asks::Get, script: vec![ReadBody, bytes(answer)], sees, connection }
}

/// As [`says`], but the endpoint closes behind the bytes.
fn closes(name: &'static str, answer: impl Into<Vec<u8>>, sees: Sees) -> Case {
    Case { name, asks: Asks::Get, script: vec![ReadBody, bytes(answer), Step::Close], sees, connection: Closed }
}

fn does(name: &'static str, asks: Asks, script: Vec<Step>, sees: Sees, connection: Connection) -> Case {
    Case { name, asks, script, sees, connection }
}

/// A head of fields that must not be passed on: 502.
fn bad_head(name: &'static str, fields: &str) -> Case {
    says(name, format!("HTTP/1.1 200 OK\r\n{fields}\r\nhello"), Error(502), Closed)
}

/// A chunked answer with this body; it must not look whole.
fn bad_chunks(name: &'static str, body: &str) -> Case {
    says(name, format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}"), Cut, Closed)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const POISON: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";

fn heads() -> Vec<Case> {
    let many = |count: usize| (0..count).map(|nth| format!("x-{nth}: 1\r\n")).collect::<String>();
    vec![
        says("another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n", Error(502), Closed),
        says("garbage", "\0\x01\x02\x03".repeat(100), Error(502), Closed),
        says("a body without a head (HTTP/0.9)", "<html>hello</html>\r\n", Error(502), Closed),
        says("a status that is no number", "HTTP/1.1 abc OK\r\n\r\n", Error(502), Closed),
        says("a status of two digits", "HTTP/1.1 99 OK\r\n\r\n", Error(502), Closed),
        says("a status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", Error(502), Closed),
        says("a status below 100", "HTTP/1.1 042 OK\r\n\r\n", Error(502), Closed),
        says("HTTP/2.0 in a status line", "HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n", Error(502), Closed),
        says("ICY 200 OK", "ICY 200 OK\r\ncontent-length: 0\r\n\r\n", Error(502), Closed),
        says("a frame of HTTP/2", b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0d\0\x04\0\x10\0\0".to_vec(), Error(502), Closed),
        says("no reason phrase", "HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", Whole(200, "ok"), MayServe),
        bad_head("a field with a NUL", "x: a\0b\r\ncontent-length: 5\r\n"),
        bad_head("a field with a bare CR", "x: a\rb\r\ncontent-length: 5\r\n"),
        says(
            "a folded field, which is unfolded",
            "HTTP/1.1 200 OK\r\nx: a\r\n\tb\r\ncontent-length: 0\r\n\r\n",
            WithField("x", "a b"),
            MayServe,
        ),
        says(
            "a folded Content-Length",
            "HTTP/1.1 200 OK\r\ncontent-length:\r\n 2\r\n\r\nok",
            WithField("content-length", "2"),
            MayServe,
        ),
        bad_head("a field without a colon", "x\r\ncontent-length: 5\r\n"),
        bad_head("a name with a space", "x y: a\r\ncontent-length: 5\r\n"),
        bad_head("a first line that begins with a space", " x: a\r\ncontent-length: 5\r\n"),
        says("257 fields", format!("HTTP/1.1 200 OK\r\n{}\r\n", many(257)), Error(502), Closed),
        does(
            "a head that never ends",
            Asks::Get,
            vec![bytes("HTTP/1.1 200 OK\r\n"), Repeat(2000, format!("x: {}\r\n", "y".repeat(1000)).into()), Hang],
            Error(502),
            Closed,
        ),
        does(
            "a field that never ends",
            Asks::Get,
            vec![bytes("HTTP/1.1 200 OK\r\nx: "), Repeat(2000, vec![b'y'; 1000]), Hang],
            Error(502),
            Closed,
        ),
        does(
            "100 Continue without end",
            Asks::Get,
            vec![Repeat(100_000, b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()), Hang],
            Error(502),
            Closed,
        ),
        does(
            "103 Early Hints without end",
            Asks::Get,
            vec![
                Repeat(20_000, format!("HTTP/1.1 103 Early Hints\r\nlink: <{}>\r\n\r\n", "y".repeat(200)).into()),
                Hang,
            ],
            Error(502),
            Closed,
        ),
        says(
            "eight interim answers before the final one",
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(8) + OK,
            Whole(200, "ok"),
            MayServe,
        ),
        says(
            "an interim answer with a length",
            format!("HTTP/1.1 103 Early Hints\r\ncontent-length: 5\r\n\r\n{OK}"),
            Whole(200, "ok"),
            MayServe,
        ),
    ]
}

fn framings() -> Vec<Case> {
    let answer = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
    let chunked = "transfer-encoding: chunked\r\n";
    vec![
        bad_head("two different Content-Length fields", "content-length: 1\r\ncontent-length: 5\r\n"),
        bad_head("Content-Length: a list, different", "content-length: 1, 5\r\n"),
        says(
            "two equal Content-Length fields",
            answer("content-length: 2\r\ncontent-length: 2\r\n", "ok"),
            Whole(200, "ok"),
            MayServe,
        ),
        says("Content-Length: a list, equal", answer("content-length: 2, 2\r\n", "ok"), Whole(200, "ok"), MayServe),
        bad_head("Content-Length: negative", "content-length: -5\r\n"),
        bad_head("Content-Length: with a plus", "content-length: +5\r\n"),
        bad_head("Content-Length: hexadecimal", "content-length: 0x5\r\n"),
        bad_head("Content-Length: empty", "content-length:\r\n"),
        bad_head("Content-Length: 2^64", "content-length: 18446744073709551616\r\n"),
        bad_head("Content-Length: spaces inside", "content-length: 5 5\r\n"),
        says(
            "Content-Length and chunked",
            answer(&format!("content-length: 3\r\n{chunked}"), &format!("0\r\n\r\n{POISON}")),
            Whole(200, ""),
            Closed,
        ),
        bad_head("gzip, then chunked", "transfer-encoding: gzip, chunked\r\n"),
        bad_head("chunked twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
        bad_head("chunked twice in one field", "transfer-encoding: chunked, chunked\r\n"),
        bad_head("xchunked", "transfer-encoding: xchunked\r\n"),
        bad_head("identity", "transfer-encoding: identity\r\ncontent-length: 5\r\n"),
        bad_head("chunked behind a vertical tab", "transfer-encoding: \x0bchunked\r\n"),
        says("chunked in HTTP/1.0", format!("HTTP/1.0 200 OK\r\n{chunked}\r\n0\r\n\r\n"), Error(502), Closed),
        says("bytes behind a length", format!("{OK}extra"), Whole(200, "ok"), Closed),
        says("a whole answer behind a length", format!("{OK}{POISON}"), Whole(200, "ok"), Closed),
        says(
            "a whole answer behind the last chunk",
            answer(chunked, &format!("2\r\nok\r\n0\r\n\r\n{POISON}")),
            Whole(200, "ok"),
            Closed,
        ),
        does(
            "an answer nobody asked for, later",
            Asks::GetAndWait,
            vec![bytes(OK), Pause(Duration::from_millis(30)), bytes(POISON), Hang],
            Whole(200, "ok"),
            Closed,
        ),
        says(
            "204 with a length and a body",
            format!("HTTP/1.1 204 No Content\r\ncontent-length: 6\r\n\r\n{POISON}"),
            Whole(204, ""),
            Closed,
        ),
        says(
            "304 with a body",
            format!("HTTP/1.1 304 Not Modified\r\ncontent-length: 40\r\n\r\n{POISON}"),
            Whole(304, ""),
            Closed,
        ),
        does("HEAD with a body", Asks::Head, vec![bytes(format!("{OK}{POISON}"))], Whole(200, ""), Closed),
        says(
            "101 that was not asked for",
            format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n{POISON}"),
            Error(502),
            Closed,
        ),
        says(
            "101 without saying to what",
            format!("HTTP/1.1 101 Switching Protocols\r\n\r\n{POISON}"),
            Error(502),
            Closed,
        ),
        does(
            "101 to another protocol than asked for",
            Asks::WebSocket,
            vec![bytes("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"), Hang],
            Error(502),
            Closed,
        ),
        does("an upgrade refused", Asks::WebSocket, vec![bytes(OK)], Whole(200, "ok"), MayServe),
    ]
}

fn bodies() -> Vec<Case> {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let long = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf";
    let get = |name, script: Vec<Step>, sees| does(name, Asks::Get, script, sees, Closed);
    vec![
        bad_chunks("a chunk size that is none", "zz\r\nhello\r\n0\r\n\r\n"),
        bad_chunks("a negative chunk size", "-1\r\n\r\n"),
        bad_chunks("a chunk size with a plus", "+2\r\nok\r\n0\r\n\r\n"),
        bad_chunks("a chunk size with 0x", "0x2\r\nok\r\n0\r\n\r\n"),
        bad_chunks("a chunk size of 2^64", "2\r\nok\r\n10000000000000000\r\n\r\n"),
        get(
            "a chunk size of 2^63, and silence",
            vec![bytes(format!("{chunked}2\r\nok\r\n8000000000000000\r\n\r\n")), Hang],
            Cut,
        ),
        bad_chunks("chunk data without its CR LF", "2\r\nokX0\r\n\r\n"),
        bad_chunks("chunk data longer than its size", "2\r\nokok\r\n0\r\n\r\n"),
        // Decision 0011: what cannot be seen through the engine.
        says(
            "an empty chunk size, which is taken for the last",
            format!("{chunked}1\r\na\r\n\r\n\r\n{POISON}"),
            Whole(200, "a"),
            Closed,
        ),
        says(
            "a chunk extension alone, which is taken for the last chunk",
            format!("{chunked}1\r\na\r\n;x\r\n\r\n{POISON}"),
            Whole(200, "a"),
            Closed,
        ),
        closes("cut in a chunk size", format!("{chunked}2\r\nok\r\n1"), Cut),
        closes("cut in chunk data", format!("{chunked}5\r\nhel"), Cut),
        closes("cut behind chunk data", format!("{chunked}2\r\nok"), Cut),
        closes("cut between two chunks", format!("{chunked}2\r\nok\r\n"), Cut),
        closes("cut inside the last chunk", format!("{chunked}2\r\nok\r\n0\r\n"), Cut),
        closes("cut in the trailers", format!("{chunked}2\r\nok\r\n0\r\nx-sum: 1\r\n"), Cut),
        closes("cut before the first chunk", chunked, Cut),
        says(
            "trailers, which are dropped",
            format!("{chunked}2\r\nok\r\n0\r\nx-sum: 1\r\ncontent-length: 7\r\n\r\n"),
            Whole(200, "ok"),
            MayServe,
        ),
        closes("a length that is too long", long, Cut),
        closes("a length and no body", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Cut),
        get("a length that is too long, reset", vec![bytes(long), Pause(Duration::from_millis(50)), Reset], Cut),
        get("a length that is too long, and silence", vec![bytes(long), Hang], Cut),
        get("chunks, and silence", vec![bytes(format!("{chunked}2\r\nok\r\n")), Hang], Cut),
        get(
            "no framing, closed: the end is the end",
            vec![bytes("HTTP/1.1 200 OK\r\n\r\nok"), Step::Close],
            Whole(200, "ok"),
        ),
        get(
            "no framing, reset",
            vec![bytes("HTTP/1.1 200 OK\r\n\r\nok"), Pause(Duration::from_millis(50)), Reset],
            Cut,
        ),
        get("no framing, and silence", vec![bytes("HTTP/1.1 200 OK\r\n\r\nok"), Hang], Cut),
        get(
            "HTTP/1.0 without a length, closed",
            vec![bytes("HTTP/1.0 200 OK\r\n\r\nok"), Step::Close],
            Whole(200, "ok"),
        ),
    ]
}

fn stages() -> Vec<Case> {
    let get = |name, script: Vec<Step>, sees| does(name, Asks::Get, script, sees, Closed);
    let head = "HTTP/1.1 200 OK\r\nx: y\r\n";
    let early =
        |status: u16, more: &str| bytes(format!("HTTP/1.1 {status} No\r\n{more}content-length: 5\r\n\r\nearly"));
    vec![
        get("closed before a byte", vec![Step::Close], Error(502)),
        get("reset before a byte", vec![Reset], Error(502)),
        get("closed in the status line", vec![bytes("HTTP/1.1 2"), Step::Close], Error(502)),
        get("closed in the head", vec![bytes(head), Step::Close], Error(502)),
        get("reset in the head", vec![bytes(head), Pause(Duration::from_millis(30)), Reset], Error(502)),
        get(
            "closed behind an interim answer",
            vec![bytes("HTTP/1.1 103 Early Hints\r\n\r\n"), Step::Close],
            Error(502),
        ),
        get("silence before a byte", vec![Hang], Error(504)),
        get("silence in the head", vec![bytes(head), Hang], Error(504)),
        get("silence behind an interim answer", vec![bytes("HTTP/1.1 103 Early Hints\r\n\r\n"), Hang], Error(504)),
        get(
            "a head byte by byte, too slow",
            vec![Trickle(format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(200)).into(), Duration::from_millis(20)), Hang],
            Error(504),
        ),
        does("POST: closed before a byte", Asks::Post, vec![ReadBody, Step::Close], Error(502), Closed),
        does(
            "POST: answered before its body was read",
            Asks::HalfPost,
            vec![early(403, "connection: close\r\n"), Step::Close],
            Whole(403, "early"),
            Closed,
        ),
        does(
            "POST: answered before its body was read, connection kept",
            Asks::HalfPost,
            vec![early(403, ""), Hang],
            Whole(403, "early"),
            Closed,
        ),
        does(
            "POST: answered early, then reset",
            Asks::HalfPost,
            vec![early(413, ""), Pause(Duration::from_millis(30)), Reset],
            Whole(413, "early"),
            Closed,
        ),
        does("POST: never read and never answered", Asks::Post, vec![Hang], Error(504), Closed),
        does("POST: 417 instead of 100", Asks::Post, vec![ReadBody, early(417, "")], Whole(417, "early"), MayServe),
    ]
}

pub fn groups() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        ("Heads of answers", heads()),
        ("Framing of answers", framings()),
        ("Bodies of answers", bodies()),
        ("Early, late and never", stages()),
    ]
}

fn target(number: usize) -> String {
    format!("/answer{number:03}")
}

async fn ask(address: std::net::SocketAddr, tap: &Tap, case: &Case, number: usize) -> Result<(), String> {
    let mut raw = Raw::connect(address).await.map_err(|why| why.to_string())?;
    let target = target(number);
    let ends_by_deadline = matches!(case.sees, Error(504) | Cut) && case.script.iter().any(|step| matches!(step, Hang));
    let host = if ends_by_deadline { super::HURRIED } else { "shop.test" };
    let head = |method: &str, fields: &str| format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n");
    let (method, request) = match case.asks {
        Asks::Get | Asks::GetAndWait => ("GET", head("GET", "")),
        Asks::Head => ("HEAD", head("HEAD", "")),
        Asks::Post => ("POST", head("POST", "content-length: 5\r\n") + "hello"),
        Asks::HalfPost => ("POST", head("POST", "content-length: 100000\r\n") + "half"),
        Asks::WebSocket => (
            "GET",
            head(
                "GET",
                "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            ),
        ),
    };
    raw.write(request.as_bytes()).await.map_err(|why| why.to_string())?;
    let seen = raw.answer_to(method, Instant::now()).await;
    let text = seen.text();
    let is_right = match case.sees {
        Error(status) => seen.outcome == Outcome::Ok && seen.status == status && seen.field("x-origin").is_none(),
        Whole(status, body) => seen.outcome == Outcome::Ok && seen.status == status && text == body,
        WithField(name, value) => seen.outcome == Outcome::Ok && seen.status == 200 && seen.fields(name) == [value],
        Cut => matches!(seen.outcome, Outcome::Truncated | Outcome::ClosedBeforeAnswer),
    };
    if text.contains("poison") || !is_right {
        return Err(format!("{:?} expected, got {:?} {} {text:?}", case.sees, seen.outcome, seen.status));
    }
    if matches!(case.asks, Asks::GetAndWait) {
        until("the proxy has closed it", || async { tap.received().iter().any(|one| one.target() == target) }).await;
    }
    if seen.outcome == Outcome::Ok && !seen.closes() && !matches!(case.asks, Asks::HalfPost) {
        alive(&mut raw, host).await?;
    }
    // And another client, who may be given the same connection to the endpoint.
    alive(&mut Raw::connect(address).await.map_err(|why| why.to_string())?, host).await
}

/// The endpoint's answer to this, and not to anything before it.
async fn alive(raw: &mut Raw, host: &str) -> Result<(), String> {
    let request = format!("GET /alive HTTP/1.1\r\nhost: {host}\r\n\r\n");
    raw.write(request.as_bytes()).await.map_err(|why| why.to_string())?;
    let seen = raw.answer().await;
    if (seen.status, seen.text().as_str()) == (200, "/alive") {
        return Ok(());
    }
    Err(format!("the next client got {:?} {} {:?}", seen.outcome, seen.status, seen.text()))
}

#[tokio::test]
async fn every_bad_answer_ends_with_its_own_exchange() {
    let mut world = World::new();
    let tap = Arc::new(Tap::start(world.unused()).await);
    world.start(&super::services_at(tap.address, "")).await;
    let cases: Arc<Vec<Case>> = Arc::new(groups().into_iter().flat_map(|(_, cases)| cases).collect());
    for (number, case) in cases.iter().enumerate() {
        tap.script(&target(number), case.script.clone());
    }
    let before = resident_kib(&world);
    let (mut running, mut wrong) = (JoinSet::new(), Vec::new());
    let mut collect = |done: Result<(usize, Result<(), String>), tokio::task::JoinError>| {
        let (number, result) = done.expect("a client does not panic");
        if let Err(why) = result {
            wrong.push(format!("{}: {why}", cases[number].name));
        }
    };
    let address = world.web();
    // What comes unasked on a connection that already serves the next is that one's answer, to any proxy.
    let (alone, together): (Vec<_>, Vec<_>) =
        (0..cases.len()).partition(|nth| matches!(cases[*nth].asks, Asks::GetAndWait));
    for (number, most) in
        together.into_iter().map(|number| (number, 8)).chain(alone.into_iter().map(|number| (number, 1)))
    {
        while running.len() >= most {
            collect(running.join_next().await.expect("some run"));
        }
        let (cases, tap) = (cases.clone(), tap.clone());
        running.spawn(async move { (number, ask(address, &tap, &cases[number], number).await) });
    }
    while let Some(done) = running.join_next().await {
        collect(done);
    }
    let grown = resident_kib(&world).saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more than before");
    world.kill_9();
    tap.all_closed().await;
    let received = tap.received();
    for (number, case) in cases.iter().enumerate() {
        let asked: Vec<_> = received.iter().filter(|one| one.target() == target(number)).collect();
        // Once more at most, after a connection that was closed while it was idle.
        if asked.is_empty() || asked.len() > 2 {
            wrong.push(format!("{}: asked {} times", case.name, asked.len()));
        }
        let reused = |one| received.iter().any(|later: &Received| is_later(one, later));
        if case.connection == Closed && asked.iter().any(|one| reused(one)) {
            wrong.push(format!("{}: its connection was used again", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn is_later(one: &Received, other: &Received) -> bool {
    other.connection == one.connection && other.nth > one.nth
}
