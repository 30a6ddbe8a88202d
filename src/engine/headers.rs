//! What may cross the proxy in a message's fields, in each direction. RFC 9110 sections 7.2, 7.6 and 7.8, RFC 7239.
//!
//! One place for both ways: fields that belong to one connection stay on it, what a client says about its own
//! address is not believed, the name under which we forward is added, and then come the user's edits. The
//! engine's own request policy is to be off (`HttpUpstreamRequestPolicy::preserve()`), or this is done twice.
//! The body's framing (`Content-Length`, `Transfer-Encoding: chunked`) is left to the engine; `wire` has made
//! sure that it can be read in one way only.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{StatusCode, Version};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};

use crate::config::model::HeaderEdits;
use crate::net::tls::secured::ClientCertificate;
use crate::wire::Upgrade;
use crate::wire::token::{decimal, list};

const VIA_10: HeaderValue = HeaderValue::from_static("1.0 switchback");
const VIA_11: HeaderValue = HeaderValue::from_static("1.1 switchback");
const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");
const VIA_20: HeaderValue = HeaderValue::from_static("2.0 switchback");
const OURS: &str = "x-switchback-";
/// Who a client is, by its certificate: ours to say, whether or not the listener asks for one. The second is the
/// name that RFC 9440 gives it, which we never send.
const CERTIFICATE: [&str; 2] = ["x-client-cert-", "client-cert"];

/// What is the same for every request of one client connection, written once.
#[derive(Debug, Clone)]
pub struct Client {
    address: HeaderValue,
    listener_port: HeaderValue,
    /// `for=192.0.2.1` or `for="[2001:db8::1]"`.
    forwarded: Box<str>,
}

impl Client {
    pub fn new(address: IpAddr, listener_port: u16) -> Client {
        let address = address.to_canonical();
        let forwarded = match address {
            IpAddr::V4(address) => format!("for={address}"),
            IpAddr::V6(address) => format!("for=\"[{address}]\""),
        };
        Client {
            address: visible(address.to_string()),
            listener_port: HeaderValue::from(listener_port),
            forwarded: forwarded.into(),
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
    pub host_rewrite: Option<&'a HeaderValue>,
    /// What the request is called, if the endpoint is to know.
    pub name: Option<&'a (HeaderName, HeaderValue)>,
    pub edits: &'a HeaderEdits,
}

/// Makes the client's request, in origin form (`wire::origin_form`), one to an endpoint. For `upstream_request_filter`; a retry starts from the client's
/// own fields again. `version` is the client's: the engine has already made the request HTTP/1.1. Fails only if
/// `path_and_query` is not a request target.
pub fn to_endpoint(request: &mut RequestHeader, version: Version, hop: &Hop<'_>) -> Result<()> {
    let via = match version {
        Version::HTTP_10 => VIA_10,
        Version::HTTP_2 => VIA_20,
        _ => VIA_11,
    };
    strip_nominated(request);
    strip_known(request);
    request.remove_header(&PROXY_AUTHORIZATION);
    strip_impostors(request);
    if hop.upgrade == Some(Upgrade::WebSocket) {
        request.insert_header(CONNECTION, HeaderValue::from_static("Upgrade"))?;
        request.insert_header("Upgrade", HeaderValue::from_static("websocket"))?;
    }
    if request.headers.get(TRANSFER_ENCODING).is_some_and(|coding| coding != CHUNKED) {
        // An endpoint that does not know `Chunked` for what it is would find another end of the body.
        request.insert_header(TRANSFER_ENCODING, CHUNKED)?;
    }
    if let Some(path) = hop.path_and_query {
        request.set_raw_path(path.as_bytes())?;
    }
    match hop.proxied {
        None => tell_of_client(request, hop)?,
        Some(client) => tell_of_proxy(request, hop, client)?,
    }
    if !request.headers.contains_key(HOST) {
        // An HTTP/1.0 client may have no Host; the request that goes on is HTTP/1.1 and must.
        request.insert_header(HOST, HeaderValue::from_static(""))?;
    }
    request.append_header("Via", via)?;
    if let Some(host) = hop.host_rewrite {
        request.insert_header(HOST, host.clone())?;
    }
    if let Some(certificate) = hop.certificate {
        request.insert_header("X-Client-Cert-Subject", certificate.subject.clone())?;
        request.insert_header("X-Client-Cert-Issuer", certificate.issuer.clone())?;
        request.insert_header("X-Client-Cert-Fingerprint", certificate.fingerprint.clone())?;
        if let Some(alternatives) = &certificate.alternatives {
            request.insert_header("X-Client-Cert-San", alternatives.clone())?;
        }
    }
    if let Some((header, name)) = hop.name {
        request.insert_header(header, name.clone())?;
    }
    edit(request, hop.edits)
}

/// The peer is the client: whatever it says of itself is replaced.
fn tell_of_client(request: &mut RequestHeader, hop: &Hop<'_>) -> Result<()> {
    request.insert_header("X-Forwarded-For", hop.client.address.clone())?;
    request.insert_header("X-Real-IP", hop.client.address.clone())?;
    request.insert_header("X-Forwarded-Proto", HeaderValue::from_static(hop.scheme))?;
    request.insert_header("X-Forwarded-Port", hop.client.listener_port.clone())?;
    match request.headers.get(HOST).cloned() {
        Some(host) => {
            request.insert_header("Forwarded", forwarded(hop, Some(&host)))?;
            request.insert_header("X-Forwarded-Host", host)?;
        }
        None => {
            request.insert_header("Forwarded", forwarded(hop, None))?;
            request.remove_header("x-forwarded-host");
        }
    }
    Ok(())
}

/// The peer is a proxy that is believed: the lists get one more element, and of the rest only what it does not say is
/// filled in.
fn tell_of_proxy(request: &mut RequestHeader, hop: &Hop<'_>, client: IpAddr) -> Result<()> {
    let host = request.headers.get(HOST).cloned();
    let ours = forwarded(hop, host.as_ref());
    for (name, element) in [("X-Forwarded-For", &hop.client.address), ("Forwarded", &ours)] {
        let mut list: Vec<u8> = Vec::new();
        for line in request.headers.get_all(name).iter().chain([element]) {
            if !list.is_empty() && !line.is_empty() {
                list.extend_from_slice(b", ");
            }
            list.extend_from_slice(line.as_bytes());
        }
        let value = HeaderValue::from_maybe_shared(Bytes::from(list)).unwrap_or_else(|_| element.clone());
        request.insert_header(name, value)?;
    }
    request.insert_header("X-Real-IP", visible(client.to_string()))?;
    let filled = [
        ("X-Forwarded-Proto", Some(HeaderValue::from_static(hop.scheme))),
        ("X-Forwarded-Port", Some(hop.client.listener_port.clone())),
        ("X-Forwarded-Host", host),
    ];
    for (name, value) in filled {
        if let Some(value) = value.filter(|_| !request.headers.contains_key(name)) {
            request.insert_header(name, value)?;
        }
    }
    Ok(())
}

/// The answer of an endpoint cannot be passed on: 502.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct BadResponse {
    pub why: &'static str,
}

/// Whether an endpoint's head, final or interim, says one thing only, and answers what was asked. For
/// `upstream_response_filter`, before anything of it is used. Equal lengths said twice are folded into one.
pub fn check_response(response: &mut ResponseHeader, asked: Option<Upgrade>) -> std::result::Result<(), BadResponse> {
    let bad = |why| Err(BadResponse { why });
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        let to_websocket =
            response.headers.get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
        if asked != Some(Upgrade::WebSocket) || !to_websocket || response.version != Version::HTTP_11 {
            return bad("it changes to a protocol that was not asked for");
        }
    }
    let mut codings = response.headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return bad("it has a transfer coding other than chunked");
        }
        if response.version != Version::HTTP_11 {
            return bad("it has a transfer coding in HTTP/1.0");
        }
        if response.headers.contains_key(CONTENT_LENGTH) {
            return bad("it has both a length and a transfer coding");
        }
    }
    let mut length = None;
    let mut said = 0;
    for value in response.headers.get_all(CONTENT_LENGTH) {
        for one in value.as_bytes().split(|byte| *byte == b',') {
            match (decimal(one.trim_ascii()), length) {
                (None, _) => return bad("its Content-Length is not a number"),
                (Some(new), Some(old)) if new != old => return bad("it has two lengths"),
                (Some(new), _) => length = Some(new),
            }
            said += 1;
        }
    }
    if let Some(length) = length.filter(|_| said > 1) {
        let inserted = response.insert_header(CONTENT_LENGTH, HeaderValue::from(length));
        inserted.expect("a number is a field value");
    }
    Ok(())
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
    let switches = response.status == StatusCode::SWITCHING_PROTOCOLS;
    strip_nominated(response);
    strip_known(response);
    if switches {
        response.insert_header(CONNECTION, HeaderValue::from_static("Upgrade"))?;
        response.insert_header("Upgrade", HeaderValue::from_static("websocket"))?;
    }
    if response.status.is_informational() || response.status == StatusCode::NO_CONTENT {
        response.remove_header(&CONTENT_LENGTH);
        response.remove_header(&TRANSFER_ENCODING);
    }
    if response.status.is_informational() && !switches {
        return Ok(Persistence::Keep);
    }
    let mut ends_with_connection = switches || reply.close;
    if reply.http10 && response.remove_header(&TRANSFER_ENCODING).is_some() {
        ends_with_connection = true;
    }
    // The version is the sender's own, and that is us (RFC 9110 section 2.5).
    response.set_version(Version::HTTP_11);
    response.append_header("Via", VIA_11)?;
    edit(response, reply.edits)?;
    if let Some(exposed) = &reply.exposed {
        response.insert_header("x-switchback-generation", exposed.generation.clone())?;
        response.insert_header("x-switchback-version", exposed.version.clone())?;
        response.insert_header("x-switchback-reason", HeaderValue::from_static(exposed.reason))?;
    }
    if let Some(cookie) = reply.cookie {
        response.append_header(SET_COOKIE, cookie.clone())?;
    }
    Ok(if ends_with_connection { Persistence::Close } else { Persistence::Keep })
}

/// Fields that state where a message ends or belong to one connection. No edit of a user touches them.
pub fn is_protected(name: &HeaderName) -> bool {
    [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, UPGRADE, TE, TRAILER, HOST].contains(name)
}

/// Both kinds of head, as far as field policy goes. The engine keeps the case of names beside the values, so
/// fields are changed through it only.
trait Fields {
    fn all(&self) -> &HeaderMap;
    fn drop_all(&mut self, name: &HeaderName) -> bool;
    fn set(&mut self, name: &HeaderName, value: HeaderValue) -> Result<()>;
    fn add(&mut self, name: &HeaderName, value: HeaderValue) -> Result<()>;
}

impl Fields for RequestHeader {
    fn all(&self) -> &HeaderMap {
        &self.headers
    }
    fn drop_all(&mut self, name: &HeaderName) -> bool {
        self.remove_header(name).is_some()
    }
    fn set(&mut self, name: &HeaderName, value: HeaderValue) -> Result<()> {
        self.insert_header(name, value)
    }
    fn add(&mut self, name: &HeaderName, value: HeaderValue) -> Result<()> {
        self.append_header(name, value).map(|_| ())
    }
}

impl Fields for ResponseHeader {
    fn all(&self) -> &HeaderMap {
        &self.headers
    }
    fn drop_all(&mut self, name: &HeaderName) -> bool {
        self.remove_header(name).is_some()
    }
    fn set(&mut self, name: &HeaderName, value: HeaderValue) -> Result<()> {
        self.insert_header(name, value)
    }
    fn add(&mut self, name: &HeaderName, value: HeaderValue) -> Result<()> {
        self.append_header(name, value).map(|_| ())
    }
}

/// Removes what Connection names, but for what states the end of the message or whom it is for.
fn strip_nominated(fields: &mut impl Fields) {
    if !fields.all().contains_key(CONNECTION) {
        return;
    }
    let named: Vec<HeaderName> = fields
        .all()
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| list(value.as_bytes()))
        .filter(|option| !option.eq_ignore_ascii_case(b"close") && !option.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| ![CONTENT_LENGTH, TRANSFER_ENCODING, HOST].contains(name))
        .collect();
    for name in &named {
        fields.drop_all(name);
    }
    fields.drop_all(&CONNECTION);
}

/// Removes what ends at the next hop whatever Connection says. The engine carries no trailers, so the two fields
/// that announce them go as well.
fn strip_known(fields: &mut impl Fields) {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
    const KNOWN: [HeaderName; 8] =
        [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, TE, TRAILER, UPGRADE, HTTP2_SETTINGS];
    // A message has a handful of fields: comparing them is cheaper than looking eight names up.
    let present: Vec<HeaderName> = fields.all().keys().filter(|name| KNOWN.contains(name)).cloned().collect();
    for name in &present {
        fields.drop_all(name);
    }
}

/// Removes fields in our own name, and those that a CGI-like endpoint could not tell from ours or from framing
/// because it reads `_` as `-`.
fn strip_impostors(request: &mut RequestHeader) {
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
    let same = |byte: u8, of: u8| byte == of || byte == b'_' && of == b'-';
    let begins =
        |name: &str, of: &str| name.len() >= of.len() && name.bytes().zip(of.bytes()).all(|(byte, of)| same(byte, of));
    let imitates = |name: &str| {
        name.contains('_')
            && IMITATED
                .iter()
                .any(|of| of.len() == name.len() && name.bytes().zip(of.bytes()).all(|(byte, of)| same(byte, of)))
    };
    let impostors: Vec<HeaderName> = request
        .headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name.starts_with(OURS) || imitates(name) || CERTIFICATE.iter().any(|of| begins(name, of))
        })
        .cloned()
        .collect();
    for name in &impostors {
        request.remove_header(name);
    }
}

fn forwarded(hop: &Hop<'_>, host: Option<&HeaderValue>) -> HeaderValue {
    let client = &hop.client.forwarded;
    visible(match host.and_then(|host| host.to_str().ok()) {
        Some(host) => format!("{client};host=\"{host}\";proto={}", hop.scheme),
        None => format!("{client};proto={}", hop.scheme),
    })
}

fn visible(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
}

fn edit(fields: &mut impl Fields, edits: &HeaderEdits) -> Result<()> {
    for name in edits.remove.iter().filter(|name| !is_protected(name)) {
        fields.drop_all(name);
    }
    for (name, value) in edits.set.iter().filter(|(name, _)| !is_protected(name)) {
        fields.set(name, value.clone())?;
    }
    for (name, value) in edits.add.iter().filter(|(name, _)| !is_protected(name)) {
        fields.add(name, value.clone())?;
    }
    Ok(())
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
    let content_type = headers.get(http::header::CONTENT_TYPE);
    content_type.is_some_and(|value| crate::wire::events::is_event_stream(value.as_bytes()))
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
