//! Endpoints that break HTTP/2: what the client is told, and that the next request is served.

use std::time::Instant;

use crate::harness::client::{Outcome, Raw};
use crate::harness::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RESET, SETTINGS, WINDOW_UPDATE, block, frame,
};
use crate::harness::http2_tap::{Act, H2Tap, goaway, head_of_answer, ok};
use crate::harness::*;
use crate::i12_bounded::resident_kib;

const PUSH_PROMISE: u8 = 5;
const WHOLE: u8 = END_HEADERS | END_STREAM;

/// What the client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    /// An error of the proxy's own.
    Error(u16),
    /// A whole answer with this body.
    Whole(u16, &'static str),
    /// An answer that is visibly not whole.
    Cut,
}

impl Sees {
    pub fn in_words(self) -> String {
        match self {
            Sees::Error(status) => format!("{status}"),
            Sees::Whole(status, "") => format!("{status} without a body"),
            Sees::Whole(status, body) => format!("{status}, body `{body}`"),
            Sees::Cut => "a visibly truncated answer".into(),
        }
    }
}

pub struct Case {
    pub name: &'static str,
    /// What comes on the stream of the request.
    acts: Box<dyn Fn(u32) -> Vec<Act> + Send + Sync>,
    pub sees: Sees,
}

impl Case {
    fn host(&self) -> &'static str {
        if self.name.contains("silence") { super::HURRIED } else { "shop.test" }
    }
}

fn does(name: &'static str, sees: Sees, acts: impl Fn(u32) -> Vec<Act> + Send + Sync + 'static) -> Case {
    Case { name, acts: Box::new(acts), sees }
}

fn sends(name: &'static str, sees: Sees, frames: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Case {
    does(name, sees, move |stream| vec![Act::Send(frames(stream))])
}

/// A head of these fields, and `ok` behind it.
fn with_fields(name: &'static str, sees: Sees, fields: &'static [(&'static str, &'static str)]) -> Case {
    sends(name, sees, move |stream| {
        [frame(HEADERS, END_HEADERS, stream, &block(fields)), frame(DATA, END_STREAM, stream, b"ok")].concat()
    })
}

fn begun(stream: u32) -> Vec<u8> {
    [head_of_answer(stream, &[]), frame(DATA, 0, stream, b"half")].concat()
}

pub fn cases() -> Vec<Case> {
    use Sees::{Cut, Error, Whole};
    let ok_after = |before: Vec<u8>| move |stream| [&before[..], &ok(stream)].concat();
    let reset = |stream, reason: u32| frame(RESET, 0, stream, &reason.to_be_bytes());
    vec![
        with_fields("no `:status`", Error(502), &[("x-a", "1")]),
        with_fields("two `:status`", Error(502), &[(":status", "200"), (":status", "200")]),
        with_fields("a status that is no number", Error(502), &[(":status", "abc")]),
        with_fields("a status of two digits", Error(502), &[(":status", "20")]),
        with_fields("101", Error(502), &[(":status", "101")]),
        with_fields(
            "a pseudo-field of requests, which is dropped",
            Whole(200, "ok"),
            &[(":status", "200"), (":path", "/")],
        ),
        with_fields("a pseudo-field behind a field", Error(502), &[("x-a", "1"), (":status", "200")]),
        with_fields("Connection", Error(502), &[(":status", "200"), ("connection", "close")]),
        with_fields("Transfer-Encoding", Error(502), &[(":status", "200"), ("transfer-encoding", "chunked")]),
        with_fields("a name in upper case", Error(502), &[(":status", "200"), ("X-A", "1")]),
        with_fields("CR LF in a value", Error(502), &[(":status", "200"), ("x-a", "1\r\nevil: 1")]),
        with_fields("NUL in a value", Error(502), &[(":status", "200"), ("x-a", "1\0")]),
        with_fields(
            "two different Content-Length",
            Error(502),
            &[(":status", "200"), ("content-length", "2"), ("content-length", "3")],
        ),
        with_fields("a Content-Length that is no number", Error(502), &[(":status", "200"), ("content-length", "+2")]),
        with_fields("a body that is shorter than Content-Length", Cut, &[(":status", "200"), ("content-length", "5")]),
        with_fields("a body that is longer than Content-Length", Cut, &[(":status", "200"), ("content-length", "1")]),
        sends("257 fields", Error(502), |stream| {
            let names: Vec<String> = (0..257).map(|nth| format!("x-{nth}")).collect();
            let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
            [head_of_answer(stream, &fields), frame(DATA, END_STREAM, stream, b"ok")].concat()
        }),
        sends("DATA before a head", Error(502), |stream| [frame(DATA, 0, stream, b"ok"), ok(stream)].concat()),
        sends("40 interim answers, which are dropped", Whole(200, "ok"), |stream| {
            [frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "103")])).repeat(40), ok(stream)].concat()
        }),
        sends("an interim answer that ends the stream", Error(502), |stream| {
            frame(HEADERS, WHOLE, stream, &block(&[(":status", "103")]))
        }),
        sends("204 with a body", Whole(204, ""), |stream| {
            [
                frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "204")])),
                frame(DATA, END_STREAM, stream, b"poison"),
            ]
            .concat()
        }),
        sends("trailers with a pseudo-field, which are dropped", Whole(200, "ok"), |stream| {
            [
                head_of_answer(stream, &[]),
                frame(DATA, 0, stream, b"ok"),
                frame(HEADERS, WHOLE, stream, &block(&[(":status", "500")])),
            ]
            .concat()
        }),
        sends("DATA behind its end", Whole(200, "ok"), |stream| {
            [ok(stream), frame(DATA, END_STREAM, stream, b"poison")].concat()
        }),
        sends("PUSH_PROMISE, which was switched off", Error(502), |stream| {
            let promise = [&[0, 0, 0, 2][..], &block(&[(":method", "GET"), (":path", "/")])].concat();
            [frame(PUSH_PROMISE, END_HEADERS, stream, &promise), ok(stream)].concat()
        }),
        sends("a frame of 70 000 bytes behind a head", Cut, |stream| {
            [head_of_answer(stream, &[]), frame(0xbe, 0, 0, &[0; 70_000])].concat()
        }),
        sends("HTTP/1.1", Error(502), |_| b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()),
        sends("garbage", Error(502), |_| vec![0xee; 64]),
        sends("an index beyond the table", Error(502), |stream| frame(HEADERS, WHOLE, stream, &[0x88, 0xfe])),
        sends("WINDOW_UPDATE above 2^31 - 1, and silence", Error(504), |stream| {
            frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes())
        }),
        sends("RST_STREAM before a head", Error(502), move |stream| reset(stream, 2)),
        sends("RST_STREAM behind a head", Cut, move |stream| [begun(stream), reset(stream, 2)].concat()),
        sends("RST_STREAM without an error behind half of it", Cut, move |stream| {
            [begun(stream), reset(stream, 0)].concat()
        }),
        does("GOAWAY that excludes it, on every connection", Error(502), |_| vec![Act::Send(goaway(0, 0)), Act::Close]),
        does("closed before a head", Error(502), |_| vec![Act::Close]),
        does("closed behind half of it", Cut, |stream| vec![Act::Send(begun(stream)), Act::Close]),
        does("closed inside a frame", Cut, |stream| {
            let frame = frame(DATA, END_STREAM, stream, b"the other half");
            vec![Act::Send([&begun(stream)[..], &frame[..12]].concat()), Act::Close]
        }),
        does("silence before a head", Error(504), |_| vec![]),
        sends("silence behind half of it", Cut, begun),
        sends("fields without end, 3 MB of them, and silence", Error(504), |stream| {
            let begin = frame(HEADERS, 0, stream, &block(&[(":status", "200")]));
            let more = frame(CONTINUATION, 0, stream, &block(&[("x-large", &"v".repeat(16_000))]));
            [begin, more.repeat(200)].concat()
        }),
        sends("fields that are small until they are unpacked", Error(502), |stream| {
            // One entry of 4000 bytes in the table, then one byte for each time it is meant.
            let mut bomb = block(&[(":status", "200")]);
            bomb.extend([&[0x40, 1, b'b', 0x7f, 0xa1, 0x1e][..], &[b'v'; 4000]].concat());
            bomb.extend([0xbe; 12_000]);
            frame(HEADERS, WHOLE, stream, &bomb)
        }),
        sends("3000 PING, and an answer", Whole(200, "ok"), ok_after(frame(PING, 0, 0, b"12345678").repeat(3000))),
        sends("3000 SETTINGS, and an answer", Whole(200, "ok"), ok_after(frame(SETTINGS, 0, 0, b"").repeat(3000))),
        sends(
            "3000 frames that nobody knows, and an answer",
            Whole(200, "ok"),
            ok_after(frame(0xbe, 0, 0, b"").repeat(3000)),
        ),
        sends("3000 empty DATA", Cut, |stream| {
            let empty = frame(DATA, 0, stream, b"").repeat(3000);
            [head_of_answer(stream, &[]), empty, frame(DATA, END_STREAM, stream, b"")].concat()
        }),
    ]
}

async fn ask(world: &World, case: &Case) -> Result<(), String> {
    let mut raw = Raw::connect(world.web()).await.map_err(|why| why.to_string())?;
    let request = format!("GET /case HTTP/1.1\r\nhost: {}\r\n\r\n", case.host());
    raw.write(request.as_bytes()).await.map_err(|why| why.to_string())?;
    let seen = raw.answer_to("GET", Instant::now()).await;
    let text = seen.text();
    let is_right = match case.sees {
        Sees::Error(status) => seen.outcome == Outcome::Ok && seen.status == status,
        Sees::Whole(status, body) => seen.outcome == Outcome::Ok && seen.status == status && text == body,
        Sees::Cut => matches!(seen.outcome, Outcome::Truncated | Outcome::ClosedBeforeAnswer),
    };
    match is_right && !text.contains("poison") && seen.field("evil").is_none() {
        true => Ok(()),
        false => Err(format!("{:?} expected, got {:?} {} {text:?}", case.sees, seen.outcome, seen.status)),
    }
}

#[tokio::test]
async fn every_broken_answer_over_http2_ends_with_its_own_exchange() {
    let mut world = World::new();
    let tap = H2Tap::start(world.unused()).await;
    world.start(&super::services_at(tap.address, "    upstream: { protocol: h2c }\n")).await;
    assert_eq!(world.get("/warm").await.text(), "ok");
    let before = resident_kib(&world);
    let mut wrong = Vec::new();
    for case in cases() {
        let (name, host) = (case.name, case.host());
        let case = std::sync::Arc::new(case);
        let scripted = case.clone();
        tap.script(move |asked| (scripted.acts)(asked.stream));
        if let Err(why) = ask(&world, &case).await {
            wrong.push(format!("{name}: {why}"));
        }
        tap.script(|asked| vec![Act::Send(ok(asked.stream))]);
        let next = world.client().get_with("/next", &[("host", host)]).await;
        if (next.status, next.text().as_str()) != (200, "ok") {
            wrong.push(format!("{name}: the next client got {} {:?}", next.status, next.text()));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let grown = resident_kib(&world).saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more than before");
}
