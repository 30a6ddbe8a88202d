use proptest::prelude::*;

use super::*;

const SSE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const WEBSOCKET: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

fn after(text: &[u8]) -> ResponseTracker {
    let mut response = ResponseTracker::new(false);
    response.wrote(text);
    response
}

fn chunk(data: &str) -> String {
    format!("{:X}\r\n{data}\r\n", data.len())
}

#[test]
fn a_response_is_complete_by_its_own_framing() {
    let cases: &[(&str, bool)] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", false),
        ("HTTP/1.1 200 OK\r\n\r\nhello", false),
        ("HTTP/1.1 100 Continue\r\n\r\n", false),
        ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ("garbage\r\n\r\n", false),
    ];
    for (text, complete) in cases {
        assert_eq!(after(text.as_bytes()).complete(), *complete, "{text:?}");
        let mut slow = ResponseTracker::new(false);
        text.bytes().for_each(|byte| slow.wrote(&[byte]));
        assert_eq!(slow.complete(), *complete, "{text:?} byte by byte");
    }
    let mut to_head = ResponseTracker::new(true);
    assert!(!to_head.head_started() && !to_head.head_written());
    to_head.wrote(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n");
    assert!(to_head.head_started() && !to_head.head_written());
    to_head.wrote(b"\r\n");
    assert!(to_head.complete() && to_head.head_written());
}

#[test]
fn an_event_stream_is_ended_between_two_events() {
    let text = |rest: &str| format!("{SSE}{rest}");
    let cases = [
        (text(""), Boundary::Clean),
        (text(&chunk("data: a\n\n")), Boundary::Clean),
        (text(&chunk("data: a\n")), Boundary::BetweenChunks),
        (text(&(chunk("data: a\n") + &chunk("\n"))), Boundary::Clean),
        (text(&chunk(": ping\n")), Boundary::Clean),
        (text("9\r\ndata: a\n\n"), Boundary::Inside),
        (text("9\r\ndata: a\n\n\r"), Boundary::Inside),
        (text("9"), Boundary::Inside),
        (SSE[..40].to_string(), Boundary::Inside),
    ];
    for (text, boundary) in &cases {
        assert_eq!(after(text.as_bytes()).boundary(), *boundary, "{text:?}");
    }
    let clean = after(SSE.as_bytes());
    assert!(clean.is_stream());
    for (cut, words) in [(Cut::Drain, "version drained"), (Cut::Shutdown, "shutting down")] {
        let Farewell::Say(bytes) = clean.farewell(cut) else { panic!("{cut:?}") };
        assert!(std::str::from_utf8(bytes).unwrap().contains(words));
        let mut ended = clean.clone();
        ended.wrote(bytes);
        assert!(ended.complete(), "{words}: the chunk is well formed and the last follows");
    }
    let half = after(text(&chunk("data: a\n")).as_bytes());
    assert_eq!(half.farewell(Cut::Drain), Farewell::Say(b"0\r\n\r\n"));
    assert_eq!(after(text("9\r\ndata").as_bytes()).farewell(Cut::Drain), Farewell::Abrupt);
}

#[test]
fn an_event_stream_without_chunks_ends_with_the_connection() {
    let open = after(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: a\n\n");
    assert_eq!(open.boundary(), Boundary::Clean);
    assert_eq!(open.farewell(Cut::Drain), Farewell::Say(b": switchback: version drained, reconnect\n\n"));
    let half = after(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: a\n");
    assert_eq!((half.boundary(), half.farewell(Cut::Shutdown)), (Boundary::BetweenChunks, Farewell::Say(b"")));
}

#[test]
fn coded_events_are_ended_between_chunks() {
    let head = SSE.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n");
    let coded = after((head + &chunk("xyz")).as_bytes());
    assert!(coded.is_stream());
    assert_eq!(coded.boundary(), Boundary::BetweenChunks);
    assert_eq!(coded.farewell(Cut::Drain), Farewell::Say(b"0\r\n\r\n"));
}

#[test]
fn what_is_no_stream_is_cut_so_that_it_shows() {
    for text in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        "HTTP/1.1 200 OK\r\n\r\nhel",
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 100\r\n\r\n",
    ] {
        let response = after(text.as_bytes());
        assert!(!response.is_stream(), "{text:?}");
        assert_eq!(
            (response.boundary(), response.farewell(Cut::Drain)),
            (Boundary::Inside, Farewell::Abrupt),
            "{text:?}"
        );
    }
    let done = after(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(done.farewell(Cut::Drain), Farewell::Say(b""));
}

#[test]
fn a_websocket_is_ended_between_two_frames() {
    let mut response = after(WEBSOCKET.as_bytes());
    assert!(response.is_stream());
    assert_eq!(response.boundary(), Boundary::Clean);
    response.wrote(b"\x01\x03he"); // the first fragment of a text
    assert_eq!((response.boundary(), response.farewell(Cut::Drain)), (Boundary::Inside, Farewell::Abrupt));
    response.wrote(b"l");
    let Farewell::Say(close) = response.farewell(Cut::Drain) else { panic!("between frames") };
    assert_eq!(close[..4], [0x88, 17, 0x03, 0xf4]);
    let Farewell::Say(close) = response.farewell(Cut::Shutdown) else { panic!("between frames") };
    assert_eq!(close[..4], [0x88, 15, 0x03, 0xe9]);
    response.wrote(b"\x88\x00");
    assert_eq!(response.farewell(Cut::Drain), Farewell::Say(b""), "the endpoint has said goodbye itself");
}

#[test]
fn a_big_write_is_split_at_its_last_clean_place() {
    let events = chunk("data: a\n\n") + &chunk("data: b\n\ndata: c") + &chunk("\n\n");
    let more = events.clone() + "9\r\ndata: d";
    assert_eq!(after(SSE.as_bytes()).safe_split(more.as_bytes()), events.len());
    assert_eq!(ResponseTracker::new(false).safe_split(format!("{SSE}{more}").as_bytes()), SSE.len() + events.len());
    assert_eq!(after(SSE.as_bytes()).safe_split(b"9\r\ndata"), 0);
    assert_eq!(after(WEBSOCKET.as_bytes()).safe_split(b"\x81\x01a\x81\x02b"), 3);
    let open = after(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
    assert_eq!(open.safe_split(b"data: a\n\ndata: b\n\nda"), 18);
}

fn written() -> impl Strategy<Value = Vec<u8>> {
    let body =
        prop::collection::vec(prop::sample::select(vec!["data: a\n\n", "data: a\n", "\n", ": c\n", "\r\n"]), 0..12);
    let frames = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..6);
    prop_oneof![
        body.prop_map(|parts| SSE
            .to_string()
            .into_bytes()
            .into_iter()
            .chain(parts.into_iter().flat_map(|part| chunk(part).into_bytes()))
            .collect()),
        frames.prop_map(|frames| {
            let mut bytes = WEBSOCKET.as_bytes().to_vec();
            for data in frames {
                match data.len() {
                    0..126 => bytes.extend([0x82, data.len() as u8]),
                    len => bytes.extend([0x82, 126, 0, len as u8]),
                }
                bytes.extend(data);
            }
            bytes
        }),
        prop::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #[test]
    fn splits_do_not_matter_and_safe_split_is_the_last_clean_place(bytes in written(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(bytes.len() + 1);
        let (mut slow, mut first) = (ResponseTracker::new(false), after(&bytes[..cut]));
        let mut last_clean = 0;
        for (at, byte) in bytes.iter().enumerate() {
            slow.wrote(&[*byte]);
            if at >= cut && slow.boundary() == Boundary::Clean && !slow.complete() {
                last_clean = at + 1 - cut;
            }
        }
        if !slow.complete() {
            prop_assert_eq!(first.safe_split(&bytes[cut..]), last_clean);
        }
        first.wrote(&bytes[cut..]);
        prop_assert_eq!((slow.boundary(), slow.complete(), slow.is_stream()), (first.boundary(), first.complete(), first.is_stream()));
        prop_assert_eq!(slow.farewell(Cut::Drain), first.farewell(Cut::Drain));
    }
}
