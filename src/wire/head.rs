//! A request head: complete yet, and is it one that can be read in one way only? RFC 9112 sections 2, 3 and 6.
//!
//! Asked each time bytes arrive, before the HTTP engine sees any of them. `httparse` reads the fields; on top of
//! it stand the rules that keep two programs from reading one request differently: exactly one valid Host, one
//! statement of the body's length, line endings of CR LF only. Nothing is repaired; what is doubtful is refused.

use std::mem::MaybeUninit;

use super::fields::Fields;
use super::request_line::{METHOD_MAX, check_request_line};
use super::token::is_tchar;

/// Most fields any limit can allow: the engine behind us stops at as many.
pub const FIELDS_MAX: usize = 256;
/// Empty lines tolerated in front of a request line (RFC 9112 section 2.2), in bytes.
const SKIP_MAX: usize = 8;

/// Upper bounds on a request head; see `config::model::ListenerLimits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the request line to the empty line, both included.
    pub bytes: usize,
    /// Fields; more than [`FIELDS_MAX`] is the same as that.
    pub fields: usize,
    pub target_bytes: usize,
}

/// What the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed. `scanned` goes into the next call for the same head, with the same bytes in front.
    Incomplete {
        scanned: usize,
    },
    Complete(Head),
    Refused(Refusal),
}

/// Why a request is not taken, and with which status it is answered before the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub why: &'static str,
}

/// A complete and acceptable request head. Spans count from its first byte, that is from `buffer[skip]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of empty lines in front of the head; drop them.
    pub skip: usize,
    /// Bytes of the head itself, its empty line included.
    pub len: usize,
    pub version: Version,
    pub body: RequestBody,
    /// The client wants to go on using the connection.
    pub keep_alive: bool,
    pub upgrade: Option<Upgrade>,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    pub method: Span,
    /// The request is HEAD: its response has no body whatever its fields say.
    pub is_head: bool,
    /// Host and port as received, from the target if that is absolute. `None` only for HTTP/1.0 without Host.
    pub host: Option<Span>,
    pub target: TargetForm,
}

impl Head {
    /// Chunked and 1xx responses are unknown to HTTP/1.0 clients.
    pub fn is_http10(&self) -> bool {
        match self.version {
            Version::Http10 => true,
            Version::Http11 => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
}

/// How the end of the request body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestBody {
    None,
    /// Exactly so many bytes, at most 2^63 - 1.
    Length(u64),
    Chunked,
}

/// A protocol the client asks to change to: `Upgrade`, nominated by `Connection`, on HTTP/1.1. An Upgrade field
/// that is not nominated counts for nothing here and is dropped by the header policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    WebSocket,
    /// Anything else, or a WebSocket handshake that is not a GET without body. Never forwarded.
    Other,
}

/// Part of a head, in bytes from its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub(super) fn between(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    /// The bytes meant, given the head.
    pub fn of(self, head: &[u8]) -> &[u8] {
        &head[self.start as usize..self.end as usize]
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`.
    Origin { path: Span },
    /// `http://authority/path?query`. `path` may be empty or begin with `?`. See [`origin_form`].
    Absolute { authority: Span, path: Span },
    /// `*`, for OPTIONS.
    Asterisk,
}

/// The same head in origin form, with the target's host for Host: what the engine is given instead, since it
/// refuses a target whose host differs from the field in a single letter. `None` if the target is no URL. Given
/// the head's own bytes; the result is parsed like any other head.
pub fn origin_form(head: &Head, bytes: &[u8]) -> Option<Vec<u8>> {
    let (authority, path) = match head.target {
        TargetForm::Absolute { authority, path } => (authority.of(bytes), path.of(bytes)),
        TargetForm::Origin { .. } | TargetForm::Asterisk => return None,
    };
    let method = head.method.of(bytes);
    let in_front: &[u8] = match path.first() {
        Some(b'/') => b"",
        Some(_) => b"/",
        None if method == b"OPTIONS" => b"*", // RFC 9112 section 3.2.4
        None => b"/",
    };
    let version: &[u8] = if head.is_http10() { b" HTTP/1.0\r\nHost: " } else { b" HTTP/1.1\r\nHost: " };
    let mut rewritten = [method, b" ", in_front, path, version, authority, b"\r\n"].concat();
    // Everything after the request line but Host. No line is folded, so each field is one line.
    for line in bytes[..head.len].split_inclusive(|byte| *byte == b'\n').skip(1) {
        if !line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"host:")) {
            rewritten.extend_from_slice(line);
        }
    }
    Some(rewritten)
}

/// Reads `buffer`, which begins with the first byte not yet consumed of the connection. `scanned` is 0, or what
/// the last `Incomplete` for this head said: each byte is looked at once however slowly they arrive.
pub fn parse(buffer: &[u8], scanned: usize, limits: &HeadLimits) -> Parsed {
    match find_end(buffer, scanned, limits) {
        Ok(Search::More { scanned }) => Parsed::Incomplete { scanned },
        Ok(Search::Ends { skip, end }) => match read(&buffer[skip..end], limits) {
            Ok(head) => Parsed::Complete(Head { skip, ..head }),
            Err(refusal) => Parsed::Refused(refusal),
        },
        Err(refusal) => Parsed::Refused(refusal),
    }
}

pub(super) fn refuse<T>(status: u16, why: &'static str) -> Result<T, Refusal> {
    Err(Refusal { status, why })
}

enum Search {
    More { scanned: usize },
    Ends { skip: usize, end: usize },
}

/// Finds the empty line, refusing on the way what cannot become a head any more.
fn find_end(buffer: &[u8], scanned: usize, limits: &HeadLimits) -> Result<Search, Refusal> {
    let skip = leading_empty_lines(buffer)?;
    let head = &buffer[skip..];
    match head.first() {
        None | Some(b'\r') => return Ok(Search::More { scanned: skip }),
        Some(first) if !is_tchar(*first) => return refuse(400, "the method is not a token"),
        Some(_) => {}
    }
    let from = scanned.saturating_sub(skip).min(head.len());
    let mut at = from;
    while let Some(found) = head[at..].iter().position(|byte| *byte == b'\n') {
        let feed = at + found;
        if feed == 0 || head[feed - 1] != b'\r' {
            return refuse(400, "a line ends without CR");
        }
        if head[..feed].ends_with(b"\r\n\r") {
            if feed >= limits.bytes {
                return Err(too_large(head, limits));
            }
            return Ok(Search::Ends { skip, end: skip + feed + 1 });
        }
        at = feed + 1;
    }
    // The longest request line that could still be good. Looked at once, when the bytes grow past it.
    let line_max = METHOD_MAX + limits.target_bytes + " HTTP/1.1 \r\n".len();
    if head.len() >= limits.bytes || (from <= line_max && head.len() > line_max && !head[..line_max].contains(&b'\n')) {
        return Err(too_large(head, limits));
    }
    Ok(Search::More { scanned: buffer.len() })
}

fn leading_empty_lines(buffer: &[u8]) -> Result<usize, Refusal> {
    let mut skip = 0;
    while buffer[skip..].starts_with(b"\r\n") {
        skip += 2;
        if skip > SKIP_MAX {
            return refuse(400, "too many empty lines before the request");
        }
    }
    match buffer[skip..] {
        [b'\n', ..] => refuse(400, "a line ends without CR"),
        [b'\r', next, ..] if next != b'\n' => refuse(400, "the method is not a token"),
        _ => Ok(skip),
    }
}

/// 414 if the request line alone is the reason.
fn too_large(head: &[u8], limits: &HeadLimits) -> Refusal {
    let line = head.iter().position(|byte| *byte == b'\n').unwrap_or(head.len());
    if line > limits.target_bytes.min(limits.bytes.saturating_sub(1)) {
        Refusal { status: 414, why: "the request target is too long" }
    } else {
        Refusal { status: 431, why: "the request head is too large" }
    }
}

/// Reads a complete head.
fn read(head: &[u8], limits: &HeadLimits) -> Result<Head, Refusal> {
    let line = check_request_line(head, limits)?;
    let mut space = [MaybeUninit::<httparse::Header<'_>>::uninit(); FIELDS_MAX];
    let space = &mut space[..limits.fields.min(FIELDS_MAX)];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, space) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return refuse(400, "the head ends where it should not"),
        Err(httparse::Error::TooManyHeaders) => return refuse(431, "too many request fields"),
        Err(httparse::Error::HeaderName) => return refuse(400, "malformed field name"),
        Err(httparse::Error::HeaderValue) => return refuse(400, "malformed field value"),
        Err(_) => return refuse(400, "malformed request head"),
    }
    let fields = Fields::collect(head, request.headers)?;
    let host = line.effective_host(fields.host)?;
    let body = fields.body(line.version)?;
    if line.is_connect {
        return refuse(405, "CONNECT is not served");
    }
    Ok(Head {
        skip: 0,
        len: head.len(),
        version: line.version,
        body,
        keep_alive: match line.version {
            Version::Http11 => !fields.close,
            Version::Http10 => fields.keep_alive && !fields.close,
        },
        upgrade: fields.upgrade(&line, body),
        expect_continue: match line.version {
            Version::Http11 => fields.expect_continue,
            Version::Http10 => false, // RFC 9110 section 10.1.1: ignored
        },
        method: line.method,
        is_head: line.method.of(head) == b"HEAD",
        host,
        target: line.target,
    })
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
