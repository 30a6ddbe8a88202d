//! The first line of a request: method, target, version, and nothing else. RFC 9112 section 3.

use super::authority::is_host;
use super::head::{HeadLimits, Refusal, Span, TargetForm, Version, refuse};
use super::token::is_token;

pub(super) const METHOD_MAX: usize = 64;

pub(super) struct RequestLine {
    pub(super) version: Version,
    pub(super) method: Span,
    pub(super) is_get: bool,
    pub(super) is_connect: bool,
    pub(super) target: TargetForm,
}

impl RequestLine {
    /// An absolute target names the host itself; the Host field must be there all the same.
    pub(super) fn effective_host(&self, field: Option<Span>) -> Result<Option<Span>, Refusal> {
        match (self.version, field) {
            (Version::Http11, None) => return refuse(400, "the Host field is missing"),
            (Version::Http10 | Version::Http11, _) => {}
        }
        match self.target {
            TargetForm::Absolute { authority, .. } => Ok(Some(authority)),
            TargetForm::Origin { .. } | TargetForm::Asterisk => Ok(field),
        }
    }
}

pub(super) fn check_request_line(head: &[u8], limits: &HeadLimits) -> Result<RequestLine, Refusal> {
    let end = head.iter().position(|byte| *byte == b'\r').expect("a head that ends with an empty line has a CR");
    let line = &head[..end];
    let Some(first) = line.iter().position(|byte| *byte == b' ') else {
        return refuse(400, "malformed request line");
    };
    let Some(last) = line.iter().rposition(|byte| *byte == b' ').filter(|last| *last > first) else {
        return refuse(400, "malformed request line");
    };
    let (method, target) = (&line[..first], &line[first + 1..last]);
    let version = match &line[last + 1..] {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return refuse(505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
        }
        _ => return refuse(400, "malformed HTTP version"),
    };
    if !is_token(method) {
        return refuse(400, "the method is not a token");
    }
    if method.len() > METHOD_MAX {
        return refuse(400, "the method is too long");
    }
    if target.len() > limits.target_bytes {
        return refuse(414, "the request target is too long");
    }
    if !is_target(target) {
        return refuse(400, "the request target has a character that is not allowed");
    }
    let is_connect = method == b"CONNECT";
    let target = match is_connect {
        true => TargetForm::Origin { path: Span::between(first + 1, last) },
        false => target_form(method, target, first + 1)?,
    };
    Ok(RequestLine { version, method: Span::between(0, first), is_get: method == b"GET", is_connect, target })
}

/// Visible ASCII without what no URL has unescaped: fragments, quotes, angle brackets. The rest of what RFC 3986
/// excludes is sent by browsers and accepted by servers.
pub(super) fn is_target(target: &[u8]) -> bool {
    let mut in_query = false;
    target.iter().all(|byte| {
        in_query |= *byte == b'?';
        match byte {
            b'#' | b'"' | b'<' | b'>' => false,
            b'`' => in_query,
            byte => byte.is_ascii_graphic(),
        }
    }) && !target.is_empty()
}

fn target_form(method: &[u8], target: &[u8], at: usize) -> Result<TargetForm, Refusal> {
    if target[0] == b'/' {
        return Ok(TargetForm::Origin { path: Span::between(at, at + target.len()) });
    }
    if target == b"*" {
        return match method {
            b"OPTIONS" => Ok(TargetForm::Asterisk),
            _ => refuse(400, "the target `*` is for OPTIONS only"),
        };
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let Some(scheme) = scheme else {
        return refuse(400, "the request target is neither a path nor an http URL");
    };
    let rest = &target[scheme.len()..];
    let authority = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    if !is_host(&rest[..authority]) {
        return refuse(400, "the request target names no valid host");
    }
    let start = at + scheme.len();
    Ok(TargetForm::Absolute {
        authority: Span::between(start, start + authority),
        path: Span::between(start + authority, at + target.len()),
    })
}
