//! What each fuzz target does with its bytes, and what must hold. Used by the targets themselves and, with the kept
//! corpora, by `cargo test --test fuzz` in the main package, so that none of it can rot.

use std::sync::OnceLock;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Version};
use pingora_http::{RequestHeader, ResponseHeader};
use switchback::config::load::{Source, parse_with};
use switchback::config::model::{Config, HeaderEdits};
use switchback::config::render;
use switchback::engine::headers::{self, Client, Hop, Reply};
use switchback::routing::compile::compile;
use switchback::routing::matcher::RequestView;
use switchback::routing::{Table, host, path};
use switchback::wire::events::Events;
use switchback::wire::proxy_header::{self, Ends, Seen};
use switchback::wire::response::{Cut, ResponseTracker};
use switchback::wire::websocket::Frames;
use switchback::wire::{BodyTracker, Head, HeadLimits, Parsed, RequestBody, TargetForm, authority, origin_form, parse};

/// A target: its name, which is also that of its corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("config", config),
    ("route", route),
    ("head", head),
    ("body", body),
    ("response", response),
    ("streams", streams),
    ("authority", authority),
    ("request_fields", request_fields),
    ("answer_fields", answer_fields),
    ("proxy_header", proxy_header),
];

const LIMITS: HeadLimits = HeadLimits { bytes: 16 * 1024, fields: 64, target_bytes: 4 * 1024 };

/// Any text is a configuration or has problems with places. What is accepted can be compiled, and says the same when
/// it is written out and read again.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = |text: String| parse_with(vec![Source { path: "f.yaml".into(), text }], &|_| None);
    match read(text.to_string()) {
        Err(problems) => assert!(!problems.0.is_empty(), "refused without a reason"),
        Ok(loaded) => {
            // A check that lets through what cannot be compiled would be one that a reload has to catch.
            compile(loaded.config.clone()).expect("what is checked compiles");
            let written = render::to_yaml(&loaded.config);
            let again = read(written.clone()).unwrap_or_else(|why| panic!("not read again: {why}\n{written}"));
            assert_eq!(*loaded.config, without_places(&again.config, &loaded.config), "{written}");
        }
    }
}

/// Expectations know where they stand, which is elsewhere in another text.
fn without_places(config: &Config, like: &Config) -> Config {
    let mut config = config.clone();
    for (case, other) in config.expect.iter_mut().zip(&like.expect) {
        case.place = other.place.clone();
    }
    config
}

const ROUTES: &str = "
schema: 1
listeners: { web: { bind: '127.0.0.1:1' } }
admin: { bind: '127.0.0.1:2' }
routes:
  - { name: forbidden, match: { path_prefix: /forbidden }, respond: { status: 403 } }
  - { name: exact, match: { host: a.test, path: /exact }, respond: { status: 200 } }
  - { name: regex, match: { host: '*.test', path_regex: '^/r[0-9]+(/.*)?$' }, respond: { status: 200 } }
  - { name: post, match: { host: a.test, method: POST, path_prefix: /api }, respond: { status: 200 } }
  - { name: query, match: { path_prefix: /q, query: { v: '2' } }, respond: { status: 200 } }
  - { name: all, match: { path_prefix: / }, respond: { status: 200 } }
";

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let source = Source { path: "f.yaml".into(), text: ROUTES.into() };
        let loaded = parse_with(vec![source], &|_| None).unwrap_or_else(|why| panic!("{why}"));
        compile(loaded.config).expect("it compiles")
    })
}

/// A path has one normal form, no way around a prefix leads through it, and what is asked about is found.
pub fn route(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let (target, host_field, method) =
        (parts.next().unwrap_or(b""), parts.next().unwrap_or(b""), parts.next().unwrap_or(b""));
    let Ok(target) = std::str::from_utf8(target) else { return };
    let (raw, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let Ok(normal) = path::normalise(raw) else { return };
    let again = path::normalise(&normal).expect("a normal form is normal");
    assert_eq!(again, normal, "the normal form of {raw:?} has another");
    assert!(normal.starts_with('/') && !normal.contains("//") && !normal.contains('\\'), "{raw:?}: {normal:?}");
    for segment in normal.split('/') {
        assert!(!matches!(segment, "." | ".."), "{raw:?}: {normal:?}");
    }
    assert!(normal.bytes().all(|byte| byte.is_ascii_graphic()), "{raw:?}: {normal:?}");
    let lower = normal.to_ascii_lowercase();
    for bad in ["%2f", "%5c", "%00", "%0d", "%0a", "%2e"] {
        assert!(!lower.contains(bad), "{raw:?}: {normal:?}");
    }
    let host = host::normalise(host_field).unwrap_or_default();
    let method = Method::from_bytes(method).unwrap_or(Method::GET);
    let headers = HeaderMap::new();
    let ask = |path: &str| {
        let view = RequestView { method: &method, host: &host, path, query, headers: &headers };
        table().route(&view).map(|route| table().route_at(route).route.name.to_string())
    };
    let found = ask(&normal).expect("one route takes everything");
    assert_eq!(Some(found.clone()), ask(&again));
    let inside = normal == "/forbidden" || normal.starts_with("/forbidden/");
    assert_eq!(inside, found == "forbidden", "{raw:?} is {normal:?}");
}

/// A head is the same however it arrives, lies where it says, and an absolute target becomes a path.
pub fn head(data: &[u8]) {
    let whole = parse(data, 0, &LIMITS);
    let (mut scanned, mut slow) = (0, parse(&[], 0, &LIMITS));
    for end in 1..=data.len() {
        slow = parse(&data[..end], scanned, &LIMITS);
        match slow {
            Parsed::Incomplete { scanned: so_far } => scanned = so_far,
            Parsed::Complete(_) | Parsed::Refused(_) => break,
        }
    }
    match (&whole, &slow) {
        // Where two things are wrong, what comes first is seen first.
        (Parsed::Refused(_), Parsed::Refused(_)) => {}
        (whole, slow) => assert_eq!(whole, slow, "at once and byte by byte"),
    }
    let Parsed::Complete(head) = whole else { return };
    let bytes = &data[head.skip..][..head.len];
    assert!(bytes.ends_with(b"\r\n\r\n"));
    assert!(!bytes.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r'), "a bare LF");
    if let Some(host) = head.host {
        assert!(authority::is_host(host.of(bytes)));
        assert!(!host.is_empty());
    }
    match head.target {
        TargetForm::Origin { path } => assert!(path.of(bytes).starts_with(b"/")),
        TargetForm::Asterisk => assert_eq!(head.method.of(bytes), b"OPTIONS"),
        TargetForm::Absolute { authority, .. } => {
            let rewritten = origin_form(&head, bytes).expect("an absolute target");
            // It may have grown beyond the limit by the length of its own Host line.
            let limits = HeadLimits { bytes: 2 * LIMITS.bytes, fields: LIMITS.fields + 1, ..LIMITS };
            let Parsed::Complete(again) = parse(&rewritten, 0, &limits) else {
                panic!("{:?}", String::from_utf8_lossy(&rewritten));
            };
            assert!(!matches!(again.target, TargetForm::Absolute { .. }));
            assert_eq!((again.body, again.len, again.upgrade), (head.body, rewritten.len(), head.upgrade));
            assert_eq!(again.host.map(|host| host.of(&rewritten)), Some(authority.of(bytes)));
        }
    }
}

/// Where a body ends does not depend on how it arrives, and nothing beyond its end is taken.
pub fn body(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let framing = match first % 3 {
        0 => RequestBody::Chunked,
        1 => RequestBody::Length(u64::from(*first)),
        _ => RequestBody::None,
    };
    let piece = usize::from(first / 3 % 16) + 1;
    let (mut whole, mut slow) = (BodyTracker::new(framing), BodyTracker::new(framing));
    let at_once = whole.admit(data);
    let mut by_piece = Ok(0);
    for part in data.chunks(piece) {
        match slow.admit(part) {
            Ok(taken) => {
                by_piece = by_piece.map(|sum| sum + taken);
                if taken < part.len() {
                    assert!(slow.is_done());
                    break;
                }
            }
            Err(why) => {
                by_piece = Err(why);
                break;
            }
        }
    }
    assert_eq!(at_once, by_piece, "at once and by {piece}");
    let Ok(taken) = at_once else { return };
    assert_eq!((whole.is_done(), whole.data_bytes()), (slow.is_done(), slow.data_bytes()));
    assert!(taken <= data.len() && whole.data_bytes() <= taken as u64);
    assert!(taken == data.len() || whole.is_done());
    if whole.is_done() {
        assert_eq!(whole.admit(b"GET / HTTP/1.1\r\n"), Ok(0), "the body is over");
        if matches!(framing, RequestBody::Chunked) {
            assert!(data[..taken].ends_with(b"\r\n"));
        }
    }
}

/// Where in an answer a client is does not depend on how it was written; a farewell ends it, or says that it cannot.
pub fn response(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let (mut whole, mut slow) = (ResponseTracker::new(first & 1 == 1), ResponseTracker::new(first & 1 == 1));
    let piece = usize::from(first / 2 % 16) + 1;
    let split = data.len() * usize::from(*first) / 256;
    let mut early = ResponseTracker::new(first & 1 == 1);
    early.wrote(&data[..split]);
    assert!(early.safe_split(&data[split..]) <= data.len() - split);
    whole.wrote(data);
    data.chunks(piece).for_each(|part| slow.wrote(part));
    assert_eq!(
        (whole.boundary(), whole.complete(), whole.is_stream()),
        (slow.boundary(), slow.complete(), slow.is_stream())
    );
    for cut in [Cut::Drain, Cut::Shutdown] {
        assert_eq!(whole.farewell(cut), slow.farewell(cut));
    }
}

/// Frames of a WebSocket and events end where they end at any split.
pub fn streams(data: &[u8]) {
    let (mut whole, mut slow) = (Frames::default(), Frames::default());
    let mut at = 0;
    while at < data.len() {
        let taken = whole.step(&data[at..]);
        assert!((1..=data.len() - at).contains(&taken));
        at += taken;
    }
    for byte in data {
        assert_eq!(slow.step(&[*byte]), 1);
    }
    assert_eq!((whole.is_between_frames(), whole.close_seen()), (slow.is_between_frames(), slow.close_seen()));
    let mut events = Events::default();
    data.iter().for_each(|byte| events.push(*byte));
    if data.ends_with(b"\n\n") {
        assert!(events.is_between_events());
    }
}

/// What is taken for a host is one to others too, and has one normal form.
pub fn authority(data: &[u8]) {
    if !authority::is_host(data) {
        return;
    }
    let text = std::str::from_utf8(data).expect("a host is ASCII");
    let parsed: http::uri::Authority = text.parse().unwrap_or_else(|why| panic!("{text:?}: {why}"));
    assert!(!text.contains(['@', '/', '?', '#', '\\', ' ', ',', '%']));
    if let Some(normal) = host::normalise(data) {
        assert_eq!(normal, normal.to_ascii_lowercase());
        assert_eq!(host::normalise(normal.as_bytes()).as_deref(), Some(&*normal), "{text:?}");
        let without_dot = parsed.host().trim_end_matches('.').to_ascii_lowercase();
        assert!(text.starts_with('[') || normal == without_dot, "{text:?}: {normal:?} or {without_dot:?}");
    }
}

fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| Client::new("192.0.2.7".parse().expect("an address"), 8080))
}

/// A request that was let through goes on as one with the same end, for the same host, from the client it is from.
pub fn request_fields(data: &[u8]) {
    let Parsed::Complete(head) = parse(data, 0, &LIMITS) else { return };
    let bytes = &data[head.skip..][..head.len];
    if let Some(rewritten) = origin_form(&head, bytes) {
        return match parse(&rewritten, 0, &LIMITS) {
            Parsed::Complete(head) => forward(&head, &rewritten[..head.len]),
            Parsed::Incomplete { .. } | Parsed::Refused(_) => {}
        };
    }
    forward(&head, bytes);
}

fn forward(head: &Head, bytes: &[u8]) {
    let mut space = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut space);
    assert!(parsed.parse(bytes).is_ok_and(|done| done.is_complete()), "let through, but nobody else reads it");
    let target = parsed.path.expect("it is complete");
    let Ok(mut request) = RequestHeader::build(head.method.of(bytes), target.as_bytes(), None) else { return };
    for field in parsed.headers.iter() {
        request.append_header(field.name.to_string(), field.value).expect("it was let through");
    }
    let version = if head.is_http10() { Version::HTTP_10 } else { Version::HTTP_11 };
    request.set_version(Version::HTTP_11);
    let edits = HeaderEdits::default();
    let host = request.headers.get(HOST).cloned();
    let hop = Hop {
        client: client(),
        proxied: None,
        scheme: "http",
        certificate: None,
        path_and_query: None,
        upgrade: head.upgrade,
        host_rewrite: None,
        name: None,
        trailers: false,
        edits: &edits,
    };
    headers::to_endpoint(&mut request, version, &hop).expect("its target was let through");
    let all = &request.headers;
    assert_eq!(all.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), ["192.0.2.7"]);
    assert_eq!(all.get_all("x-real-ip").iter().count(), 1);
    assert_eq!(all.get_all(HOST).iter().count(), 1);
    assert!(host.is_none() || all.get(HOST) == host.as_ref());
    for gone in ["keep-alive", "proxy-connection", "te", "trailer", "http2-settings", "proxy-authorization"] {
        assert!(!all.contains_key(gone), "{gone}");
    }
    assert_eq!(all.contains_key(UPGRADE), all.contains_key(CONNECTION));
    for name in all.keys() {
        assert!(!name.as_str().starts_with("x-switchback-"), "{name}");
    }
    // And so reads who receives it.
    let mut sent = format!("{} {target} HTTP/1.1\r\n", request.method).into_bytes();
    request.header_to_h1_wire(&mut sent);
    sent.extend_from_slice(b"\r\n");
    let limits = HeadLimits { bytes: 64 * 1024, fields: 128, target_bytes: LIMITS.target_bytes };
    if head.host.is_none() {
        return; // HTTP/1.0 without Host goes on with an empty one, which we take from nobody.
    }
    let Parsed::Complete(received) = parse(&sent, 0, &limits) else {
        panic!("not what we would take: {:?} {:?}", parse(&sent, 0, &limits), String::from_utf8_lossy(&sent));
    };
    assert_eq!(received.body, head.body, "the end of the body is said otherwise");
    assert_eq!(received.host.map(|host| host.of(&sent)), head.host.map(|host| host.of(bytes)));
}

/// The answer of an endpoint is refused or goes on as one whose end is said once.
pub fn answer_fields(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let mut space = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut space);
    let mut config = httparse::ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true).allow_obsolete_multiline_headers_in_responses(true);
    if !config.parse_response(&mut parsed, data).is_ok_and(|done| done.is_complete()) {
        return;
    }
    let Ok(mut response) = ResponseHeader::build(parsed.code.expect("it is complete"), None) else { return };
    response.set_version(if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 });
    for field in parsed.headers.iter() {
        let value = pingora_http::header_value_from_slice(field.value);
        if response.append_header(field.name.to_string(), value).is_err() {
            return;
        }
    }
    let asked = (first & 1 == 1).then_some(switchback::wire::Upgrade::WebSocket);
    if headers::check_response(&mut response, asked).is_err() {
        return;
    }
    let edits = HeaderEdits::default();
    let reply = Reply { http10: first & 2 == 2, close: first & 4 == 4, edits: &edits, exposed: None, cookie: None };
    headers::to_client(&mut response, &reply).expect("no edits");
    let all = &response.headers;
    assert!(all.get_all(CONTENT_LENGTH).iter().count() <= 1);
    assert!(!all.contains_key(CONTENT_LENGTH) || !all.contains_key(TRANSFER_ENCODING));
    assert!(!reply.http10 || !all.contains_key(TRANSFER_ENCODING));
    assert_eq!(response.status == 101, all.contains_key(UPGRADE));
    for gone in ["keep-alive", "proxy-connection", "te", "trailer", "proxy-authenticate"] {
        assert!(!all.contains_key(gone), "{gone}");
    }
    let mut written = b"HTTP/1.1 200 OK\r\n".to_vec();
    response.header_to_h1_wire(&mut written);
    written.extend_from_slice(b"\r\n");
    let mut space = [httparse::EMPTY_HEADER; 80];
    let again = httparse::Response::new(&mut space).parse(&written);
    assert!(
        again.is_ok_and(|done| done == httparse::Status::Complete(written.len())),
        "{:?}",
        String::from_utf8_lossy(&written)
    );
}

/// A header is the same however it arrives and whatever follows it, and who it announces can be announced again.
pub fn proxy_header(data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let seen = proxy_header::parse(data);
    let decided = (1..=data.len()).find(|end| proxy_header::parse(&data[..*end]) != Seen::Part);
    match decided {
        None => assert_eq!(seen, Seen::Part),
        Some(end) => assert_eq!(proxy_header::parse(&data[..end]), seen, "decided after {end} bytes, otherwise later"),
    }
    let Seen::Header { len, ends } = seen else { return };
    assert!(len <= proxy_header::BYTES_MAX && decided == Some(len), "{len} bytes, decided after {decided:?}");
    let header = &data[..len];
    match header.starts_with(b"PROXY ") {
        true => {
            assert!(len <= 107 && header.ends_with(b"\r\n"), "{header:?}");
            assert!(!header[..len - 2].windows(2).any(|pair| pair == b"\r\n"), "more than a line: {header:?}");
        }
        false => assert_eq!(len, 16 + usize::from(u16::from_be_bytes([header[14], header[15]]))),
    }
    if let Some(ends) = ends {
        for again in announcing(ends) {
            assert_eq!(proxy_header::parse(&again), Seen::Header { len: again.len(), ends: Some(ends) }, "{again:?}");
        }
    }
}

/// The header of version 1 and of version 2 that says so.
fn announcing(ends: Ends) -> [Vec<u8>; 2] {
    let Ends { client, local } = ends;
    let family = if client.is_ipv4() { '4' } else { '6' };
    let line = format!("PROXY TCP{family} {} {} {} {}\r\n", client.ip(), local.ip(), client.port(), local.port());
    let octets = |ip: std::net::IpAddr| match ip {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let ports = [client.port().to_be_bytes(), local.port().to_be_bytes()].concat();
    let payload = [octets(client.ip()), octets(local.ip()), ports].concat();
    let mut block = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    block.push(if client.is_ipv4() { 0x11 } else { 0x21 });
    block.extend((payload.len() as u16).to_be_bytes());
    block.extend(payload);
    [line.into_bytes(), block]
}
