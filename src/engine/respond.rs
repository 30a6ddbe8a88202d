//! Answers made here, not by an endpoint: small texts that say what went wrong and nothing about the inside.

use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_error::Result;
use pingora_http::ResponseHeader;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// What a client that asks for CONNECT may ask for instead (RFC 9110 section 15.5.6).
const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// A head and a body, for the engine to write. For HEAD the engine writes the head alone.
#[derive(Debug, Clone)]
pub struct Answer {
    pub head: ResponseHeader,
    pub body: Bytes,
}

/// `503 Service Unavailable: service shop has no ready endpoint`. `retry_after` in seconds.
pub fn local(status: u16, what: &str, retry_after: Option<u32>) -> Result<Answer> {
    let body = Bytes::from(text(status, what));
    let mut head = ResponseHeader::build(status, Some(4))?;
    head.insert_header(CONTENT_TYPE, TEXT)?;
    head.insert_header(CONTENT_LENGTH, HeaderValue::from(body.len()))?;
    head.insert_header(CACHE_CONTROL, NO_STORE)?;
    if let Some(seconds) = retry_after {
        head.insert_header("Retry-After", HeaderValue::from(seconds))?;
    }
    Ok(Answer { head, body })
}

/// A `redirect:` route.
pub fn redirect(status: u16, to: &str) -> Result<Answer> {
    let mut head = ResponseHeader::build(status, Some(2))?;
    head.insert_header(LOCATION, to)?;
    head.insert_header(CONTENT_LENGTH, HeaderValue::from(0))?;
    Ok(Answer { head, body: Bytes::new() })
}

/// A `respond:` route. Plain text unless its fields say otherwise.
pub fn fixed(status: u16, fields: &[(HeaderName, HeaderValue)], body: Bytes) -> Result<Answer> {
    let mut head = ResponseHeader::build(status, Some(fields.len() + 2))?;
    for (name, value) in fields.iter().filter(|(name, _)| !super::headers::is_protected(name)) {
        head.append_header(name, value.clone())?;
    }
    if !head.headers.contains_key(CONTENT_TYPE) && !body.is_empty() {
        head.insert_header(CONTENT_TYPE, TEXT)?;
    }
    if !head.status.is_informational() && head.status != StatusCode::NO_CONTENT {
        head.insert_header(CONTENT_LENGTH, HeaderValue::from(body.len()))?;
    }
    Ok(Answer { head, body })
}

/// A whole response, written to a client whose request the engine never saw.
pub fn raw(status: u16, what: &str, close: bool, head_only: bool) -> Vec<u8> {
    let body = text(status, what);
    let mut response = Vec::with_capacity(192 + body.len());
    let mut line = |parts: &[&str]| {
        parts.iter().for_each(|part| response.extend_from_slice(part.as_bytes()));
        response.extend_from_slice(b"\r\n");
    };
    line(&["HTTP/1.1 ", status_code(status).as_str(), " ", phrase(status)]);
    line(&["Date: ", get_cached_date().to_str().unwrap_or_default()]);
    line(&["Content-Type: text/plain; charset=utf-8"]);
    line(&["Content-Length: ", &body.len().to_string()]);
    line(&["Cache-Control: no-store"]);
    if status == 405 {
        line(&["Allow: ", ALLOW]);
    }
    if status == 503 {
        line(&[RETRY_AFTER.as_str(), ": 1"]);
    }
    if close {
        line(&["Connection: close"]);
    }
    line(&[]);
    if !head_only {
        response.extend_from_slice(body.as_bytes());
    }
    response
}

fn text(status: u16, what: &str) -> String {
    let separator = if what.is_empty() { "" } else { ": " };
    format!("{status} {}{separator}{what}\n", phrase(status))
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn phrase(status: u16) -> &'static str {
    status_code(status).canonical_reason().unwrap_or("Unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_answer_says_what_and_is_not_stored() {
        let answer = local(503, "service `shop` has no ready endpoint", Some(1)).unwrap();
        assert_eq!(answer.body, "503 Service Unavailable: service `shop` has no ready endpoint\n");
        let field = |name: &str| answer.head.headers.get(name).unwrap().to_str().unwrap();
        assert_eq!(field("content-length"), answer.body.len().to_string());
        assert_eq!((field("cache-control"), field("retry-after")), ("no-store", "1"));
    }

    #[test]
    fn raw_bytes_are_one_well_formed_response() {
        for (status, what) in
            [(400, "the Host field is missing"), (405, ""), (408, ""), (414, ""), (431, ""), (503, "x"), (505, "")]
        {
            for (close, head_only) in [(true, false), (false, false), (true, true)] {
                let bytes = raw(status, what, close, head_only);
                let mut fields = [httparse::EMPTY_HEADER; 8];
                let mut response = httparse::Response::new(&mut fields);
                let head = response.parse(&bytes).unwrap().unwrap();
                let field = |name: &str| {
                    let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
                    Some(std::str::from_utf8(found.value).unwrap())
                };
                assert_eq!(response.code, Some(status));
                assert_eq!(field("connection"), close.then_some("close"));
                assert_eq!(field("retry-after").is_some(), status == 503);
                assert_eq!(field("allow").is_some(), status == 405);
                let length: usize = field("content-length").unwrap().parse().unwrap();
                assert_eq!(bytes.len() - head, if head_only { 0 } else { length });
                let mut follow = crate::wire::ResponseTracker::new(head_only);
                follow.wrote(&bytes);
                assert!(follow.complete());
            }
        }
    }

    #[test]
    fn routes_that_answer_themselves() {
        let answer = redirect(308, "https://shop.test/new").unwrap();
        assert_eq!(answer.head.headers.get("location").unwrap(), "https://shop.test/new");
        let fields = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let answer = fixed(200, &fields, Bytes::from_static(b"{}")).unwrap();
        assert_eq!(answer.head.headers.get("content-type").unwrap(), "application/json");
        assert_eq!(answer.head.headers.get("content-length").unwrap(), "2");
        let plain = fixed(200, &[], Bytes::from_static(b"hello\n")).unwrap();
        assert_eq!(plain.head.headers.get("content-type").unwrap(), "text/plain; charset=utf-8");
        assert!(!fixed(204, &[], Bytes::new()).unwrap().head.headers.contains_key("content-length"));
        let framing = [(CONTENT_LENGTH, HeaderValue::from_static("99"))];
        assert_eq!(fixed(200, &framing, Bytes::new()).unwrap().head.headers.get("content-length").unwrap(), "0");
    }
}
