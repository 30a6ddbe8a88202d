//! gRPC as this proxy sees it: HTTP/2 requests of one content type, whose outcome is `grpc-status`, in the head of an
//! answer that has nothing else or in its trailers. (grpc/doc/PROTOCOL-HTTP2.md and statuscodes.md.)
//!
//! A call looks the same at its beginning whether one message comes back or thousands. It counts as a request until
//! its answer has been open for a second, and as a stream from then on: its length says nothing about speed any more,
//! silence is allowed, and a drain gives it `drain.streams`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use pingora_error::Result;
use pingora_http::ResponseHeader;

use crate::endpoints::VersionCore;
use crate::net::Link;
use crate::routing::Thread;
use crate::sessions::Kind;

pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
/// An answer that has been open for so long is a stream.
pub const STREAM_AFTER: Duration = Duration::from_secs(1);

pub const CANCELLED: u8 = 1;
pub const UNKNOWN: u8 = 2;
const DEADLINE_EXCEEDED: u8 = 4;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
pub const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;

/// One call, as its stream's task and the engine's phases both know it.
#[derive(Debug, Default)]
pub struct Call {
    /// The version that works on it.
    core: Mutex<Option<Arc<VersionCore>>>,
    is_stream: AtomicBool,
}

impl Call {
    /// If the request is one.
    pub fn of(fields: &HeaderMap) -> Option<Arc<Call>> {
        is_grpc(fields).then(Arc::default)
    }

    /// It runs on this version now, or on none.
    pub fn on(&self, core: Option<&Arc<VersionCore>>) {
        *self.core.lock().unwrap_or_else(PoisonError::into_inner) = core.cloned();
    }

    pub fn is_stream(&self) -> bool {
        self.is_stream.load(Ordering::Relaxed)
    }

    /// Its answer stays open.
    pub fn becomes_stream(&self, link: &Link, thread: Thread) {
        if self.is_stream.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(core) = &*self.core.lock().unwrap_or_else(PoisonError::into_inner) {
            core.in_flight.becomes(thread, Kind::Http, Kind::Grpc);
            link.connection.becomes(Kind::Grpc);
        }
        link.is_stream_of_messages();
    }
}

/// `application/grpc`, with or without the name of a message format.
pub fn is_grpc(fields: &HeaderMap) -> bool {
    let Some(value) = fields.get(CONTENT_TYPE) else { return false };
    let Some(rest) = value.as_bytes().strip_prefix(b"application/grpc") else { return false };
    matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// The outcome, if these fields have it.
pub fn status(fields: &HeaderMap) -> Option<u8> {
    fields.get(STATUS)?.to_str().ok()?.parse().ok()
}

/// What an answer with this HTTP status means to a gRPC client (grpc/doc/http-grpc-status-mapping.md), and more
/// exactly where this proxy knows more.
pub fn status_for(http: u16) -> u8 {
    match http {
        400 | 405 | 417 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        408 | 504 => DEADLINE_EXCEEDED,
        413 | 414 | 431 => RESOURCE_EXHAUSTED,
        429 | 502 | 503 => UNAVAILABLE,
        499 => CANCELLED,
        _ => UNKNOWN,
    }
}

/// The answer of this proxy to a call it cannot carry out: a head with everything in it ("Trailers-Only").
pub fn refusal(http: u16, why: &str) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(200, Some(3))?;
    head.insert_header(CONTENT_TYPE, TYPE)?;
    for (name, value) in end(status_for(http), why) {
        head.insert_header(name, value)?;
    }
    Ok(head)
}

/// Trailers that end a stream which had begun.
pub fn farewell(why: &'static str) -> HeaderMap {
    end(UNAVAILABLE, why).into_iter().collect()
}

fn end(status: u8, why: &str) -> [(HeaderName, HeaderValue); 2] {
    // Percent-encoded by the protocol; our own texts are ASCII without `%`.
    let message = HeaderValue::from_str(why).unwrap_or(HeaderValue::from_static(""));
    [(STATUS, HeaderValue::from(u16::from(status))), (MESSAGE, message)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_known_by_its_content_type() {
        for (value, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let fields = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            assert_eq!(is_grpc(&fields), is, "{value}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn our_own_answers_say_the_status_in_the_head() {
        for (http, grpc) in [(503, "14"), (502, "14"), (504, "4"), (404, "12"), (413, "8"), (400, "13"), (500, "2")] {
            let head = refusal(http, "no endpoint is ready").unwrap();
            assert_eq!(head.status.as_u16(), 200);
            assert_eq!(head.headers.get(STATUS).unwrap(), grpc, "{http}");
            assert_eq!(head.headers.get(MESSAGE).unwrap(), "no endpoint is ready");
        }
        assert_eq!(status(&farewell("the version is being taken out of service, try again")), Some(UNAVAILABLE));
    }
}
