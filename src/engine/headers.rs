//! What may cross the proxy in a message's fields, in each direction. RFC 9110 sections 7.2, 7.6 and 7.8, RFC 7239.
//!
//! One place for both ways: fields that belong to one connection stay on it, what a client says about its own
//! address is not believed, the name under which we forward is added, and then come the user's edits. The
//! engine's own request policy is to be off (`HttpUpstreamRequestPolicy::preserve()`), or this is done twice.
//! The body's framing (`Content-Length`, `Transfer-Encoding: chunked`) is left to the engine; `wire` has made
//! sure that it can be read in one way only.
//!
//! Names are case-insensitive (RFC 9110 section 5.1) and pass without the letter case they came with: the engine would
//! keep it in a second map beside the values, which costs a request more than all that is decided here
//! (`docs/decisions/0030-letter-case.md`).

use std::mem;
use std::net::IpAddr;
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{Request, Response, StatusCode, Version, request, response};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};

use crate::config::model::HeaderEdits;
use crate::net::tls::secured::ClientCertificate;
use crate::wire::Upgrade;
use crate::wire::events;
use crate::wire::keep_alive::timeout_of;
use crate::wire::token::{decimal, list};

const VIA_10: HeaderValue = HeaderValue::from_static("1.0 switchback");
const VIA_11: HeaderValue = HeaderValue::from_static("1.1 switchback");
const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");
const VIA_20: HeaderValue = HeaderValue::from_static("2.0 switchback");
const UPGRADES: HeaderValue = HeaderValue::from_static("Upgrade");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// Fields that every request gets.
const ADDED: usize = 8;
const OURS: &str = "x-switchback-";
/// Who a client is, by its certificate: ours to say, whether or not the listener asks for one. The second is the
/// name that RFC 9440 gives it, which we never send.
const CERTIFICATE: [&str; 2] = ["x-client-cert-", "client-cert"];

/// What is the same for every request of one client connection, written once.
#[derive(Debug)]
pub struct Client {
    ip: IpAddr,
    address: HeaderValue,
    listener_port: HeaderValue,
    /// As the first request got it: nearly always, a connection asks for one host.
    forwarded: OnceLock<Forwarded>,
}

/// A `Forwarded` element, and the host that it names.
#[derive(Debug)]
struct Forwarded {
    host: Option<Box<str>>,
    value: HeaderValue,
}

impl Client {
    pub fn new(address: IpAddr, listener_port: u16) -> Client {
        let ip = address.to_canonical();
        Client {
            ip,
            address: visible(ip.to_string()),
            listener_port: HeaderValue::from(listener_port),
            forwarded: OnceLock::new(),
        }
    }
}

/// What a request needs to go on to an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    pub client: &'a Client,
    /// The client, if the peer is a proxy that is believed: what it says is passed on.
    pub proxied: Option<IpAddr>,
    /// `http` or `https`: how the client came.
    pub scheme: &'static str,
    /// The verified certificate of the client, if it has shown one.
    pub certificate: Option<&'a ClientCertificate>,
    /// The path and query to ask for, if not the client's.
    pub path_and_query: Option<&'a str>,
    pub upgrade: Option<Upgrade>,
    /// Trailers of the answer reach the client, if it takes them.
    pub trailers: bool,
    pub host_rewrite: Option<&'a HeaderValue>,
    /// What the request is called, if the endpoint is to know.
    pub name: Option<&'a (HeaderName, HeaderValue)>,
    pub edits: &'a HeaderEdits,
}

/// Gives up the letter case of names, for a request whose target is in origin form (`wire::origin_form`).
pub fn forget_letter_case(request: &mut RequestHeader) {
    if request.has_case() {
        edit_request(request, |_| {});
    }
}

fn edit_request<R>(request: &mut RequestHeader, edit: impl FnOnce(&mut HeaderMap) -> R) -> R {
    let nothing = Request::new(()).into_parts().0;
    let mut parts = request::Parts::from(mem::replace(request, RequestHeader::from(nothing)));
    let result = edit(&mut parts.headers);
    *request = RequestHeader::from(parts);
    result
}

/// Makes the client's request, in origin form (`wire::origin_form`), one to an endpoint. For `upstream_request_filter`; a retry starts from the client's
/// own fields again. `version` is the client's: the engine has already made the request HTTP/1.1. Fails only if
/// `path_and_query` is not a request target.
pub fn to_endpoint(request: &mut RequestHeader, version: Version, hop: &Hop<'_>) -> Result<()> {
    edit_request(request, |fields| fields_to_endpoint(fields, version, hop));
    match hop.path_and_query {
        Some(path) => request.set_raw_path(path.as_bytes()),
        None => Ok(()),
    }
}

fn fields_to_endpoint(fields: &mut HeaderMap, version: Version, hop: &Hop<'_>) {
    let via = match version {
        Version::HTTP_10 => VIA_10,
        Version::HTTP_2 => VIA_20,
        _ => VIA_11,
    };
    let trailers = hop.trailers && fields.get(TE).is_some_and(|te| te.as_bytes() == b"trailers");
    // So that the map grows once.
    fields.reserve(ADDED + hop.edits.set.len() + hop.edits.add.len());
    let mut is_coded = false;
    strip(fields, |name| {
        is_coded |= name == "transfer-encoding";
        ends_at_hop(name) || name == "proxy-authorization" || is_impostor(name)
    });
    if trailers {
        fields.insert(TE, HeaderValue::from_static("trailers"));
    }
    if hop.upgrade == Some(Upgrade::WebSocket) {
        fields.insert(CONNECTION, UPGRADES);
        fields.insert(UPGRADE, WEBSOCKET);
    }
    if is_coded && fields.get(TRANSFER_ENCODING).is_some_and(|coding| coding != CHUNKED) {
        // An endpoint that does not know `Chunked` for what it is would find another end of the body.
        fields.insert(TRANSFER_ENCODING, CHUNKED);
    }
    let host = fields.get(HOST).cloned();
    let has_host = host.is_some();
    match hop.proxied {
        None => tell_of_client(fields, hop, host),
        Some(client) => tell_of_proxy(fields, hop, host, client),
    }
    fields.append(VIA, via);
    if let Some(host) = hop.host_rewrite {
        fields.insert(HOST, host.clone());
    } else if !has_host {
        // An HTTP/1.0 client may have no Host; the request that goes on is HTTP/1.1 and must.
        fields.insert(HOST, HeaderValue::from_static(""));
    }
    if let Some(certificate) = hop.certificate {
        tell_of_certificate(fields, certificate);
    }
    if let Some((header, name)) = hop.name {
        fields.insert(header, name.clone());
    }
    edit(fields, hop.edits);
}

/// The peer is the client: whatever it says of itself is replaced.
fn tell_of_client(fields: &mut HeaderMap, hop: &Hop<'_>, host: Option<HeaderValue>) {
    fields.insert(X_FORWARDED_FOR, hop.client.address.clone());
    fields.insert(X_REAL_IP, hop.client.address.clone());
    fields.insert(X_FORWARDED_PROTO, HeaderValue::from_static(hop.scheme));
    fields.insert(X_FORWARDED_PORT, hop.client.listener_port.clone());
    fields.insert(FORWARDED, forwarded(hop, host.as_ref()));
    match host {
        Some(host) => fields.insert(X_FORWARDED_HOST, host),
        None => fields.remove(X_FORWARDED_HOST),
    };
}

/// The peer is a proxy that is believed: the lists get one more element, and of the rest only what it does not say is
/// filled in.
fn tell_of_proxy(fields: &mut HeaderMap, hop: &Hop<'_>, host: Option<HeaderValue>, client: IpAddr) {
    let ours = forwarded(hop, host.as_ref());
    for (name, element) in [(X_FORWARDED_FOR, &hop.client.address), (FORWARDED, &ours)] {
        let mut list: Vec<u8> = Vec::new();
        for line in fields.get_all(&name).iter().chain([element]) {
            if !list.is_empty() && !line.is_empty() {
                list.extend_from_slice(b", ");
            }
            list.extend_from_slice(line.as_bytes());
        }
        let value = HeaderValue::from_maybe_shared(Bytes::from(list)).unwrap_or_else(|_| element.clone());
        fields.insert(name, value);
    }
    fields.insert(X_REAL_IP, visible(client.to_string()));
    let filled = [
        (X_FORWARDED_PROTO, Some(HeaderValue::from_static(hop.scheme))),
        (X_FORWARDED_PORT, Some(hop.client.listener_port.clone())),
        (X_FORWARDED_HOST, host),
    ];
    for (name, value) in filled {
        if let Some(value) = value {
            fields.entry(name).or_insert(value);
        }
    }
}

fn tell_of_certificate(fields: &mut HeaderMap, certificate: &ClientCertificate) {
    fields.insert(HeaderName::from_static("x-client-cert-subject"), certificate.subject.clone());
    fields.insert(HeaderName::from_static("x-client-cert-issuer"), certificate.issuer.clone());
    fields.insert(HeaderName::from_static("x-client-cert-fingerprint"), certificate.fingerprint.clone());
    if let Some(alternatives) = &certificate.alternatives {
        fields.insert(HeaderName::from_static("x-client-cert-san"), alternatives.clone());
    }
}

/// The answer of an endpoint cannot be passed on: 502.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct BadResponse {
    pub why: &'static str,
}

/// What an endpoint's head says beside that: its fields are looked at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noticed {
    /// Seconds for which the endpoint keeps its connection while nothing passes.
    pub kept_for: Option<u32>,
    /// The answer is a stream of server-sent events.
    pub is_event_stream: bool,
}

/// Whether an endpoint's head, final or interim, says one thing only, and answers what was asked. For
/// `upstream_response_filter`, before anything of it is used. Equal lengths said twice are folded into one.
pub fn check_response(
    response: &mut ResponseHeader,
    asked: Option<Upgrade>,
) -> std::result::Result<Noticed, BadResponse> {
    let bad = |why| Err(BadResponse { why });
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        let to_websocket =
            response.headers.get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
        if asked != Some(Upgrade::WebSocket) || !to_websocket || response.version != Version::HTTP_11 {
            return bad("it changes to a protocol that was not asked for");
        }
    }
    let (mut codings, mut length, mut said) = (0, None, 0);
    let (mut keep_alive, mut content_type) = (None, None);
    for (name, value) in &response.headers {
        if name == TRANSFER_ENCODING {
            codings += 1;
            if codings > 1 || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return bad("it has a transfer coding other than chunked");
            }
        } else if name == CONTENT_LENGTH {
            for one in value.as_bytes().split(|byte| *byte == b',') {
                match (decimal(one.trim_ascii()), length) {
                    (None, _) => return bad("its Content-Length is not a number"),
                    (Some(new), Some(old)) if new != old => return bad("it has two lengths"),
                    (Some(new), _) => length = Some(new),
                }
                said += 1;
            }
        } else if name == CONTENT_TYPE {
            content_type = content_type.or(Some(value));
        } else if name == KEEP_ALIVE {
            keep_alive = keep_alive.or(Some(value));
        }
    }
    let noticed = Noticed {
        kept_for: keep_alive.and_then(|field| timeout_of(field.as_bytes())),
        is_event_stream: content_type.is_some_and(|field| events::is_event_stream(field.as_bytes())),
    };
    if codings > 0 && response.version != Version::HTTP_11 {
        return bad("it has a transfer coding in HTTP/1.0");
    }
    if codings > 0 && length.is_some() {
        return bad("it has both a length and a transfer coding");
    }
    if let Some(length) = length.filter(|_| said > 1) {
        let inserted = response.insert_header(CONTENT_LENGTH, HeaderValue::from(length));
        inserted.expect("a number is a field value");
    }
    Ok(noticed)
}

/// What is added for whoever debugs a deployment (`expose.response_headers`).
#[derive(Debug, Clone, Copy)]
pub struct Exposed<'a> {
    pub generation: &'a HeaderValue,
    pub version: &'a HeaderValue,
    pub reason: &'static str,
}

/// What a response needs to go on to the client.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// The client speaks HTTP/1.0: it knows no chunked coding.
    pub http10: bool,
    /// The connection is to end with this response.
    pub close: bool,
    pub edits: &'a HeaderEdits,
    pub exposed: Option<Exposed<'a>>,
    /// A whole Set-Cookie value that keeps the client on its version.
    pub cookie: Option<&'a HeaderValue>,
}

/// What becomes of the client connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    Keep,
    /// The engine must be told (`session.set_keepalive(None)`) before it writes the head: it writes `Connection`
    /// from its own state.
    Close,
}

/// Makes an endpoint's response one to the client. For `response_filter`, interim responses included; after
/// [`check_response`], and after the engine has added its own `Transfer-Encoding`.
pub fn to_client(response: &mut ResponseHeader, reply: &Reply<'_>) -> Result<Persistence> {
    let status = response.status;
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    let is_final = !status.is_informational() || switches;
    if is_final {
        // The version is the sender's own, and that is us (RFC 9110 section 2.5).
        response.set_version(Version::HTTP_11);
    }
    edit_response(response, |fields| fields_to_client(fields, status, is_final, reply))
}

fn edit_response<R>(response: &mut ResponseHeader, edit: impl FnOnce(&mut HeaderMap) -> R) -> Result<R> {
    let phrase = response.get_reason_phrase();
    let phrase = (phrase != response.status.canonical_reason()).then(|| phrase.map(str::to_owned));
    let nothing = Response::new(()).into_parts().0;
    let mut parts = response::Parts::from(mem::replace(response, ResponseHeader::from(nothing)));
    let result = edit(&mut parts.headers);
    *response = ResponseHeader::from(parts);
    if let Some(phrase) = phrase {
        response.set_reason_phrase(phrase.as_deref())?;
    }
    Ok(result)
}

fn fields_to_client(fields: &mut HeaderMap, status: StatusCode, is_final: bool, reply: &Reply<'_>) -> Persistence {
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    strip(fields, ends_at_hop);
    if switches {
        fields.insert(CONNECTION, UPGRADES);
        fields.insert(UPGRADE, WEBSOCKET);
    }
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        fields.remove(CONTENT_LENGTH);
        fields.remove(TRANSFER_ENCODING);
    }
    if !is_final {
        return Persistence::Keep;
    }
    let has_no_end = reply.http10 && fields.remove(TRANSFER_ENCODING).is_some();
    fields.append(VIA, VIA_11);
    edit(fields, reply.edits);
    if let Some(exposed) = &reply.exposed {
        fields.insert(HeaderName::from_static("x-switchback-generation"), exposed.generation.clone());
        fields.insert(HeaderName::from_static("x-switchback-version"), exposed.version.clone());
        fields.insert(HeaderName::from_static("x-switchback-reason"), HeaderValue::from_static(exposed.reason));
    }
    if let Some(cookie) = reply.cookie {
        fields.append(SET_COOKIE, cookie.clone());
    }
    if switches || reply.close || has_no_end { Persistence::Close } else { Persistence::Keep }
}

/// Fields that state where a message ends or belong to one connection. No edit of a user touches them.
pub fn is_protected(name: &HeaderName) -> bool {
    [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, UPGRADE, TE, TRAILER, HOST].contains(name)
}

/// As the client's own fields say it: the engine takes Connection out of a request to an HTTP/2 endpoint, but not what
/// it names.
pub fn strip_what_the_client_nominated(request: &mut RequestHeader, client: &HeaderMap) {
    for name in nominated(client) {
        request.remove_header(&name);
    }
}

/// What Connection names, but for what states the end of the message or whom it is for.
fn nominated(fields: &HeaderMap) -> Vec<HeaderName> {
    fields
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| list(value.as_bytes()))
        .filter(|option| !option.eq_ignore_ascii_case(b"close") && !option.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| ![CONTENT_LENGTH, TRANSFER_ENCODING, HOST].contains(name))
        .collect()
}

/// Removes what is unwanted, and what Connection names, which must be unwanted itself. A message has a handful of
/// fields: looking at each name once is cheaper than looking the unwanted ones up.
fn strip(fields: &mut HeaderMap, mut unwanted: impl FnMut(&str) -> bool) {
    let mut names: Vec<HeaderName> = fields.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    if names.contains(&CONNECTION) {
        names.extend(nominated(fields));
    }
    for name in names {
        fields.remove(name);
    }
}

/// What ends at the next hop whatever Connection says. The engine carries no trailers, so the two fields that announce
/// them go as well.
fn ends_at_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "te"
            | "trailer"
            | "upgrade"
            | "http2-settings"
    )
}

/// Fields in our own name, and those that a CGI-like endpoint could not tell from ours or from framing because it reads
/// `_` as `-`.
fn is_impostor(name: &str) -> bool {
    const IMITATED: [&str; 10] = [
        "content-length",
        "transfer-encoding",
        "host",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-real-ip",
        "connection",
    ];
    let begins = |of: &str| {
        let same = |(byte, of): (u8, u8)| byte == of || byte == b'_' && of == b'-';
        name.len() >= of.len() && name.bytes().zip(of.bytes()).all(same)
    };
    let imitates = || name.contains('_') && IMITATED.iter().any(|of| of.len() == name.len() && begins(of));
    name.starts_with(OURS) || CERTIFICATE.iter().any(|of| begins(of)) || imitates()
}

/// `for=192.0.2.1;host="shop.test";proto=http`, or with `for="[2001:db8::1]"`.
fn forwarded(hop: &Hop<'_>, host: Option<&HeaderValue>) -> HeaderValue {
    let host = host.and_then(|host| host.to_str().ok());
    let anew = || {
        let client = match hop.client.ip {
            IpAddr::V4(address) => format!("for={address}"),
            IpAddr::V6(address) => format!("for=\"[{address}]\""),
        };
        let value = match host {
            Some(host) => format!("{client};host=\"{host}\";proto={}", hop.scheme),
            None => format!("{client};proto={}", hop.scheme),
        };
        Forwarded { host: host.map(Box::from), value: visible(value) }
    };
    let first = hop.client.forwarded.get_or_init(anew);
    match first.host.as_deref() == host {
        true => first.value.clone(),
        false => anew().value,
    }
}

fn visible(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
}

fn edit(fields: &mut HeaderMap, edits: &HeaderEdits) {
    for name in edits.remove.iter().filter(|name| !is_protected(name)) {
        fields.remove(name);
    }
    for (name, value) in edits.set.iter().filter(|(name, _)| !is_protected(name)) {
        fields.insert(name, value.clone());
    }
    for (name, value) in edits.add.iter().filter(|(name, _)| !is_protected(name)) {
        fields.append(name, value.clone());
    }
}

/// A version as logs write it.
pub fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// The answer with this head is a stream of server-sent events.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| events::is_event_stream(value.as_bytes()))
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
