//! A request head that came as HTTP/2 fields: is it one that can be read in one way only, also by an endpoint that
//! gets it as HTTP/1.1? RFC 9113 sections 8.1 to 8.3.
//!
//! The HTTP/2 library has refused what breaks its own rules: upper case, pseudo-fields that are unknown, twice or
//! late, fields of a connection, a `te` other than `trailers`. What is left are the rules of [`super::head`], told of
//! other bytes: one host, one length, a target that is a path.

use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::authority::is_host;
use super::head::{HeadLimits, Refusal, RequestBody, refuse};
use super::request_line::{METHOD_MAX, is_target};
use super::token::decimal;

/// What a good head says about the message itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head2 {
    /// The one host, from `:authority` or Host.
    pub host: HeaderValue,
    pub body: RequestBody,
    pub expect_continue: bool,
    pub is_head: bool,
}

/// `ended`: the head is all of the request.
pub fn check(
    method: &Method,
    uri: &Uri,
    fields: &HeaderMap,
    ended: bool,
    limits: &HeadLimits,
) -> Result<Head2, Refusal> {
    if method.as_str().len() > METHOD_MAX {
        return refuse(400, "the method is too long");
    }
    if method == Method::CONNECT {
        return refuse(405, "CONNECT is not served");
    }
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > limits.target_bytes {
        return refuse(414, "the request target is too long");
    }
    let is_asterisk = target == "*" && method == Method::OPTIONS;
    if !(target.starts_with('/') || is_asterisk) || !is_target(target.as_bytes()) {
        return refuse(400, "the request target is not a path");
    }
    if uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
        return refuse(400, "the scheme is neither http nor https");
    }
    if fields.len() > limits.fields {
        return refuse(431, "too many request fields");
    }
    if fields.values().any(|value| is_padded(value.as_bytes())) {
        return refuse(400, "a field begins or ends with a space");
    }
    Ok(Head2 {
        host: host(uri.authority(), fields)?,
        body: body(fields, ended)?,
        expect_continue: expects_continue(fields)?,
        is_head: method == Method::HEAD,
    })
}

/// RFC 9113 section 8.3.1: a Host beside `:authority` must say the same.
fn host(authority: Option<&Authority>, fields: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let mut hosts = fields.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return refuse(400, "more than one Host field");
    }
    let named = match (authority, host) {
        (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            return refuse(400, "the Host field and :authority name two hosts");
        }
        (Some(authority), _) => HeaderValue::from_str(authority.as_str()).ok(),
        (None, Some(host)) => Some(host.clone()),
        (None, None) => return refuse(400, "the request names no host"),
    };
    match named.filter(|host| is_host(host.as_bytes())) {
        Some(host) => Ok(host),
        None => refuse(400, "the request names no valid host"),
    }
}

fn body(fields: &HeaderMap, ended: bool) -> Result<RequestBody, Refusal> {
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let length = match lengths.next() {
        None => None,
        Some(length) => match decimal(length.as_bytes()) {
            Some(length) => Some(length),
            None => return refuse(400, "the Content-Length is not one number"),
        },
    };
    if lengths.next().is_some() {
        return refuse(400, "more than one Content-Length");
    }
    match (length, ended) {
        (Some(1..), true) => refuse(400, "the body that Content-Length promises is not there"),
        (None | Some(0), true) => Ok(RequestBody::None),
        (Some(length), false) => Ok(RequestBody::Length(length)),
        (None, false) => Ok(RequestBody::Chunked),
    }
}

fn expects_continue(fields: &HeaderMap) -> Result<bool, Refusal> {
    let mut expects = false;
    for value in fields.get_all(EXPECT) {
        if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return refuse(417, "only the expectation 100-continue is known");
        }
        expects = true;
    }
    Ok(expects)
}

/// RFC 9113 section 8.2.1.
fn is_padded(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_space(value.first()) || is_space(value.last())
}

/// HTTP/2 clients send cookies in pieces; HTTP/1.1 knows one field (RFC 9113 section 8.2.3).
pub fn join_cookies(fields: &mut HeaderMap) {
    let mut cookies = fields.get_all(COOKIE).iter();
    let Some(first) = cookies.next() else { return };
    let mut joined = first.as_bytes().to_vec();
    for more in cookies {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(more.as_bytes());
    }
    if joined.len() > first.len() {
        let cookie = HeaderValue::from_bytes(&joined).expect("field values with a separator are a field value");
        fields.insert(COOKIE, cookie);
    }
}

#[cfg(test)]
#[path = "head2_tests.rs"]
mod tests;
