//! Where in a response a client is, told from the bytes written to it, so that a stream can be ended politely.
//!
//! A drain or a shutdown ends long-lived exchanges. An event stream is ended between two events, with a comment
//! that says why and a proper last chunk; a WebSocket between two frames, with a Close. Anything else cannot be
//! ended early in a way that does not look complete, so it is cut and the client sees that it is truncated.

use super::chunked::{Chunked, Step};
use super::events::{Events, is_event_stream};
use super::token::decimal;
use super::websocket::{self, Frames};

const HEAD_MAX: usize = 256 * 1024;
const FIELDS_MAX: usize = 256;
const EVENT_DRAINED: &[u8] = b": switchback: version drained, reconnect\n\n";
const EVENT_SHUTDOWN: &[u8] = b": switchback: shutting down, reconnect\n\n";
const CHUNK_DRAINED: &[u8] = b"2a\r\n: switchback: version drained, reconnect\n\n\r\n0\r\n\r\n";
const CHUNK_SHUTDOWN: &[u8] = b"28\r\n: switchback: shutting down, reconnect\n\n\r\n0\r\n\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Follows one response, interim responses included. Fed with every byte the engine writes to the client.
#[derive(Debug, Clone)]
pub struct ResponseTracker {
    to_head: bool,
    started: bool,
    at: At,
}

#[derive(Debug, Clone)]
enum At {
    /// Bytes of a head that is not complete.
    Head(Vec<u8>),
    Body(Body),
    Done,
    /// Not a response we can follow.
    Lost,
}

#[derive(Debug, Clone, Copy)]
enum Body {
    Length { left: u64 },
    Chunked(Chunked, Stream),
    UntilClose(Stream),
    WebSocket(Frames),
}

/// Whether a body is a stream of events, and where in it we are.
#[derive(Debug, Clone, Copy)]
enum Stream {
    No,
    Events(Events),
    /// An event stream whose events are hidden by a content coding.
    Coded,
}

/// What stands at the place reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// Nothing is half said: between events and chunks, or between frames. The full farewell fits here.
    Clean,
    /// In the middle of an event, which clients discard, but between chunks. Good enough when it must end now.
    BetweenChunks,
    Inside,
}

/// Why a stream is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Its version is being drained; a reconnect reaches another.
    Drain,
    /// The proxy goes away.
    Shutdown,
}

/// How to end it from here. The connection is closed after either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// Write these bytes (there may be none), then close.
    Say(&'static [u8]),
    /// No bytes can end it properly: close, and the client sees that something is missing.
    Abrupt,
}

impl ResponseTracker {
    /// `to_head`: the request was HEAD, so the response ends with its head.
    pub fn new(to_head: bool) -> ResponseTracker {
        ResponseTracker { to_head, started: false, at: At::Head(Vec::new()) }
    }

    /// Of an event stream's payload alone, for a client to whom heads and ends are told in another way. `coded`:
    /// its events are hidden by a content coding.
    pub fn of_events(coded: bool) -> ResponseTracker {
        let stream = if coded { Stream::Coded } else { Stream::Events(Events::default()) };
        ResponseTracker { to_head: false, started: false, at: At::Body(Body::UntilClose(stream)) }
    }

    /// These bytes have been written to the client.
    pub fn wrote(&mut self, bytes: &[u8]) {
        self.walk(bytes, |_| {});
    }

    /// At least one byte has been written, of an interim response perhaps.
    pub fn head_started(&self) -> bool {
        self.started
    }

    /// The final head has been written.
    pub fn head_written(&self) -> bool {
        match &self.at {
            At::Head(_) | At::Lost => false,
            At::Body(_) | At::Done => true,
        }
    }

    /// The response has ended by its own framing. Never true for what ends with the connection.
    pub fn complete(&self) -> bool {
        match &self.at {
            At::Done => true,
            At::Head(_) | At::Body(_) | At::Lost => false,
        }
    }

    /// An event stream or a WebSocket: what [`Self::farewell`] has words for.
    pub fn is_stream(&self) -> bool {
        match &self.at {
            At::Body(Body::Chunked(_, stream) | Body::UntilClose(stream)) => !matches!(stream, Stream::No),
            At::Body(Body::WebSocket(_)) => true,
            At::Body(Body::Length { .. }) | At::Head(_) | At::Done | At::Lost => false,
        }
    }

    pub fn boundary(&self) -> Boundary {
        match &self.at {
            At::Body(Body::Chunked(chunked, stream)) => match (chunked.is_between_chunks(), stream) {
                (true, Stream::Events(events)) if events.is_between_events() => Boundary::Clean,
                (true, Stream::Events(_) | Stream::Coded) => Boundary::BetweenChunks,
                (true, Stream::No) | (false, _) => Boundary::Inside,
            },
            At::Body(Body::UntilClose(stream)) => match stream {
                Stream::Events(events) if events.is_between_events() => Boundary::Clean,
                Stream::Events(_) | Stream::Coded => Boundary::BetweenChunks,
                Stream::No => Boundary::Inside,
            },
            At::Body(Body::WebSocket(frames)) if frames.is_between_frames() => Boundary::Clean,
            At::Done => Boundary::Clean,
            At::Body(Body::WebSocket(_) | Body::Length { .. }) | At::Head(_) | At::Lost => Boundary::Inside,
        }
    }

    /// The longest beginning of `bytes` after whose writing the place is [`Boundary::Clean`]; 0 if there is none.
    pub fn safe_split(&self, bytes: &[u8]) -> usize {
        let mut longest = 0;
        self.clone().walk(bytes, |at| longest = at);
        longest
    }

    /// How to end the exchange at the place reached.
    pub fn farewell(&self, cut: Cut) -> Farewell {
        match (&self.at, self.boundary(), cut) {
            (At::Done, _, _) => Farewell::Say(b""),
            (At::Body(Body::Chunked(..)), Boundary::Clean, Cut::Drain) => Farewell::Say(CHUNK_DRAINED),
            (At::Body(Body::Chunked(..)), Boundary::Clean, Cut::Shutdown) => Farewell::Say(CHUNK_SHUTDOWN),
            (At::Body(Body::Chunked(..)), Boundary::BetweenChunks, _) => Farewell::Say(LAST_CHUNK),
            (At::Body(Body::UntilClose(_)), Boundary::Clean, Cut::Drain) => Farewell::Say(EVENT_DRAINED),
            (At::Body(Body::UntilClose(_)), Boundary::Clean, Cut::Shutdown) => Farewell::Say(EVENT_SHUTDOWN),
            (At::Body(Body::UntilClose(_)), Boundary::BetweenChunks, _) => Farewell::Say(b""),
            (At::Body(Body::WebSocket(frames)), Boundary::Clean, _) if frames.close_seen() => Farewell::Say(b""),
            (At::Body(Body::WebSocket(_)), Boundary::Clean, Cut::Drain) => Farewell::Say(websocket::CLOSE_DRAINED),
            (At::Body(Body::WebSocket(_)), Boundary::Clean, Cut::Shutdown) => Farewell::Say(websocket::CLOSE_SHUTDOWN),
            (At::Head(_) | At::Body(_) | At::Lost, _, _) => Farewell::Abrupt,
        }
    }

    /// Follows `bytes` and reports each clean place, as the number of bytes before it.
    fn walk(&mut self, bytes: &[u8], mut clean: impl FnMut(usize)) {
        self.started |= !bytes.is_empty();
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            let before = taken;
            match &mut self.at {
                At::Head(head) => match end_of_head(head, rest) {
                    Some(end) if head.is_empty() => {
                        taken += end;
                        self.at = after_head(&rest[..end], self.to_head);
                    }
                    Some(end) => {
                        taken += end;
                        head.extend_from_slice(&rest[..end]);
                        self.at = after_head(head, self.to_head);
                    }
                    None => {
                        taken = bytes.len();
                        head.extend_from_slice(rest);
                        if head.len() > HEAD_MAX {
                            self.at = At::Lost;
                        }
                    }
                },
                At::Body(body) => {
                    taken += match body {
                        Body::Length { left } => {
                            let part = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                            *left -= part as u64;
                            part
                        }
                        Body::Chunked(chunked, stream) => match chunked.step(rest) {
                            Ok(Step::Data(len)) => {
                                stream.push(&rest[..len]);
                                len
                            }
                            Ok(Step::Framing(len)) => len,
                            Err(_) => {
                                self.at = At::Lost;
                                return;
                            }
                        },
                        Body::UntilClose(stream) => stream.push_to_boundary(rest),
                        Body::WebSocket(frames) => frames.step(rest),
                    };
                    self.finish();
                }
                At::Done | At::Lost => return,
            }
            if self.boundary() == Boundary::Clean {
                clean(taken);
            }
            debug_assert!(taken > before, "each round takes something");
        }
    }

    fn finish(&mut self) {
        let is_over = match &self.at {
            At::Body(Body::Length { left }) => *left == 0,
            At::Body(Body::Chunked(chunked, _)) => chunked.is_done(),
            At::Body(Body::UntilClose(_) | Body::WebSocket(_)) | At::Head(_) | At::Done | At::Lost => false,
        };
        if is_over {
            self.at = At::Done;
        }
    }
}

impl Stream {
    fn push(&mut self, bytes: &[u8]) {
        match self {
            Stream::Events(events) => bytes.iter().for_each(|byte| events.push(*byte)),
            Stream::No | Stream::Coded => {}
        }
    }

    /// Takes bytes up to the next end of an event.
    fn push_to_boundary(&mut self, bytes: &[u8]) -> usize {
        match self {
            Stream::Events(events) => {
                for (at, byte) in bytes.iter().enumerate() {
                    events.push(*byte);
                    if events.is_between_events() {
                        return at + 1;
                    }
                }
                bytes.len()
            }
            Stream::No | Stream::Coded => bytes.len(),
        }
    }
}

/// How many bytes of `more` end the head begun in `head`.
fn end_of_head(head: &[u8], more: &[u8]) -> Option<usize> {
    const END: &[u8] = b"\r\n\r\n";
    // The empty line may lie across the two.
    for kept in (1..END.len()).rev() {
        if head.ends_with(&END[..kept]) && more.starts_with(&END[kept..]) {
            return Some(END.len() - kept);
        }
    }
    let mut at = 0;
    while let Some(feed) = more[at..].iter().position(|byte| *byte == b'\n') {
        at += feed + 1;
        if more[..at].ends_with(END) {
            return Some(at);
        }
    }
    None
}

fn after_head(head: &[u8], to_head: bool) -> At {
    let mut space = [std::mem::MaybeUninit::uninit(); FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, head, &mut space);
    let (Ok(httparse::Status::Complete(_)), Some(status)) = (parsed, response.code) else {
        return At::Lost;
    };
    match status {
        101 => return At::Body(Body::WebSocket(Frames::default())),
        100..=199 => return At::Head(Vec::new()),
        204 | 304 => return At::Done,
        _ if to_head => return At::Done,
        _ => {}
    }
    let field = |name: &str| response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    let is_events = field("content-type").is_some_and(|field| is_event_stream(field.value));
    let is_coded = field("content-encoding").is_some_and(|field| !field.value.eq_ignore_ascii_case(b"identity"));
    let stream = match (is_events, is_coded) {
        (true, false) => Stream::Events(Events::default()),
        (true, true) => Stream::Coded,
        (false, _) => Stream::No,
    };
    if field("transfer-encoding").is_some() {
        return At::Body(Body::Chunked(Chunked::default(), stream));
    }
    match field("content-length").map(|field| decimal(field.value)) {
        Some(Some(0)) => At::Done,
        Some(Some(left)) => At::Body(Body::Length { left }),
        Some(None) => At::Lost,
        None => At::Body(Body::UntilClose(stream)),
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
