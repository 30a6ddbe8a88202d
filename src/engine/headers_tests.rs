use super::*;

fn request(target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
    let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
    for (name, value) in fields {
        request.append_header(*name, *value).unwrap();
    }
    request
}

fn response(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
    let mut response = ResponseHeader::build(status, None).unwrap();
    response.set_version(Version::HTTP_11);
    for (name, value) in fields {
        response.append_header(*name, *value).unwrap();
    }
    response
}

/// Every field as the other side gets it, sorted.
fn wire(write: impl FnOnce(&mut Vec<u8>)) -> Vec<String> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    let mut lines: Vec<_> = String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn value(name: &str) -> HeaderValue {
    HeaderValue::from_str(name).unwrap()
}

struct Case {
    client: Client,
    edits: HeaderEdits,
}

impl Case {
    fn new() -> Case {
        Case { client: Client::new("192.0.2.7".parse().unwrap(), 8080), edits: HeaderEdits::default() }
    }
    fn hop(&self) -> Hop<'_> {
        Hop {
            client: &self.client,
            proxied: None,
            scheme: "http",
            certificate: None,
            path_and_query: None,
            upgrade: None,
            trailers: false,
            host_rewrite: None,
            name: None,
            edits: &self.edits,
        }
    }
    fn reply(&self) -> Reply<'_> {
        Reply { http10: false, close: false, edits: &self.edits, exposed: None, cookie: None }
    }
}

#[test]
fn chunked_goes_on_as_every_endpoint_knows_it() {
    for coding in ["chunked", "Chunked", "CHUNKED"] {
        let sent = forwarded_with(&[("Transfer-Encoding", coding)], &Case::new().hop());
        assert!(sent.contains(&"Transfer-Encoding: chunked".to_string()), "{sent:?}");
        assert_eq!(sent.iter().filter(|line| line.to_ascii_lowercase().contains("chunked")).count(), 1, "{sent:?}");
    }
}

fn forwarded_with(fields: &[(&'static str, &str)], hop: &Hop<'_>) -> Vec<String> {
    let mut all = vec![("Host", "shop.test")];
    all.extend_from_slice(fields);
    let mut request = request("/", &all);
    to_endpoint(&mut request, Version::HTTP_11, hop).unwrap();
    wire(|bytes| request.header_to_h1_wire(bytes))
}

const OURS_ON_EACH: [&str; 8] = [
    "Host: shop.test",
    "forwarded: for=192.0.2.7;host=\"shop.test\";proto=http",
    "via: 1.1 switchback",
    "x-forwarded-for: 192.0.2.7",
    "x-forwarded-host: shop.test",
    "x-forwarded-port: 8080",
    "x-forwarded-proto: http",
    "x-real-ip: 192.0.2.7",
];

#[test]
fn a_plain_request_gets_our_fields_and_nothing_else() {
    assert_eq!(forwarded_with(&[], &Case::new().hop()), OURS_ON_EACH);
}

#[test]
fn what_belongs_to_the_clients_connection_stays_there() {
    let fields = [
        ("Connection", "keep-alive, X-Private"),
        ("Connection", "close, te"),
        ("X-Private", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic x"),
        ("Proxy-Authenticate", "Basic"),
        ("TE", "trailers, gzip"),
        ("Trailer", "x-sum"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ("Upgrade", "h2c"),
    ];
    assert_eq!(forwarded_with(&fields, &Case::new().hop()), OURS_ON_EACH);
}

#[test]
fn what_a_client_says_about_its_own_address_is_not_believed() {
    let fields = [
        ("X-Forwarded-For", "10.0.0.1"),
        ("x-forwarded-for", "10.0.0.2"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "admin.test"),
        ("X-Forwarded-Port", "443"),
        ("X-Real-IP", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
        ("X-Switchback-Version", "v9"),
        ("X_Forwarded_For", "127.0.0.1"),
        ("X-Forwarded_Proto", "https"),
        ("Content_Length", "5"),
        ("Transfer_Encoding", "chunked"),
    ];
    assert_eq!(forwarded_with(&fields, &Case::new().hop()), OURS_ON_EACH);
}

#[test]
fn the_rest_passes_unchanged_but_for_the_case_of_its_names() {
    let fields =
        [("Cookie", "a=1"), ("Cookie", "b=2"), ("x-CASE_d", "y"), ("Via", "1.1 front"), ("Expect", "100-continue")];
    let seen = forwarded_with(&fields, &Case::new().hop());
    for line in
        ["cookie: a=1", "cookie: b=2", "x-case_d: y", "via: 1.1 front", "via: 1.1 switchback", "expect: 100-continue"]
    {
        assert!(seen.contains(&line.to_string()), "{line} in {seen:?}");
    }
    for framing in [("Content-Length", "5"), ("Transfer-Encoding", "chunked")] {
        let seen =
            forwarded_with(&[framing, ("Connection", "content-length, transfer-encoding, host")], &Case::new().hop());
        assert!(seen.contains(&format!("{}: {}", framing.0, framing.1)), "{seen:?}");
    }
}

#[test]
fn only_a_nominated_websocket_is_forwarded_as_an_upgrade() {
    let case = Case::new();
    let fields = [("Connection", "keep-alive, Upgrade"), ("Upgrade", "WebSocket"), ("Sec-WebSocket-Key", "k")];
    for upgrade in [None, Some(Upgrade::Other)] {
        let seen = forwarded_with(&fields, &Hop { upgrade, ..case.hop() });
        assert!(!seen.iter().any(|line| line.starts_with("upgrade") || line.starts_with("Connection")), "{seen:?}");
    }
    let seen = forwarded_with(&fields, &Hop { upgrade: Some(Upgrade::WebSocket), ..case.hop() });
    for line in ["Connection: Upgrade", "upgrade: websocket", "sec-websocket-key: k"] {
        assert!(seen.contains(&line.to_string()), "{line} in {seen:?}");
    }
}

#[test]
fn a_route_may_rewrite_path_host_and_fields() {
    let mut case = Case::new();
    case.edits.remove.push(HeaderName::from_static("x-remove"));
    case.edits.set.push((HeaderName::from_static("x-set"), value("new")));
    case.edits.add.push((HeaderName::from_static("x-add"), value("2")));
    case.edits.set.push((CONTENT_LENGTH, value("99")));
    case.edits.remove.push(HOST);
    let host = value("inner.test");
    let hop = Hop { path_and_query: Some("/v2/x?y"), host_rewrite: Some(&host), ..case.hop() };
    let mut request =
        request("/x?y", &[("Host", "shop.test"), ("x-remove", "1"), ("x-set", "a"), ("x-set", "b"), ("x-add", "1")]);
    to_endpoint(&mut request, Version::HTTP_11, &hop).unwrap();
    assert_eq!(request.raw_path(), b"/v2/x?y");
    let all =
        |name: &str| request.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!((all("host"), all("x-forwarded-host")), (vec!["inner.test"], vec!["shop.test"]));
    assert_eq!((all("x-remove"), all("x-set"), all("x-add")), (vec![], vec!["new"], vec!["1", "2"]));
    assert!(all("content-length").is_empty(), "framing is not the user's");
}

#[test]
fn old_clients_and_new_addresses() {
    let mut case = Case::new();
    case.client = Client::new("2001:db8::1".parse().unwrap(), 80);
    let mut bare = request("/", &[("X-Forwarded-Host", "evil.test")]);
    to_endpoint(&mut bare, Version::HTTP_10, &case.hop()).unwrap();
    assert_eq!(bare.headers.get("forwarded").unwrap(), "for=\"[2001:db8::1]\";proto=http");
    assert_eq!(bare.headers.get("via").unwrap(), "1.0 switchback");
    assert_eq!(bare.headers.get("host").unwrap(), "");
    assert!(!bare.headers.contains_key("x-forwarded-host"));
    let mapped = Client::new("::ffff:192.0.2.7".parse().unwrap(), 80);
    assert_eq!(mapped.address, "192.0.2.7");
}

#[test]
fn a_response_that_says_two_things_is_refused() {
    let bad: &[(u16, &[(&'static str, &str)])] = &[
        (200, &[("Content-Length", "5"), ("Content-Length", "6")]),
        (200, &[("Content-Length", "5, 6")]),
        (200, &[("Content-Length", "+5")]),
        (200, &[("Content-Length", "")]),
        (200, &[("Content-Length", "5,")]),
        (200, &[("Content-Length", "5"), ("Transfer-Encoding", "chunked")]),
        (200, &[("Transfer-Encoding", "gzip, chunked")]),
        (200, &[("Transfer-Encoding", "gzip")]),
        (200, &[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")]),
        (101, &[("Upgrade", "websocket")]),
    ];
    for (status, fields) in bad {
        assert!(check_response(&mut response(*status, fields), None).is_err(), "{status} {fields:?}");
    }
    let mut old = response(200, &[("Transfer-Encoding", "chunked")]);
    old.set_version(Version::HTTP_10);
    assert!(check_response(&mut old, None).is_err());
    for fields in [
        &[("Content-Length", "5"), ("Content-Length", "5")][..],
        &[("Content-Length", "5, 5")],
        &[("Content-Length", "5")],
    ] {
        let mut folded = response(200, fields);
        check_response(&mut folded, None).unwrap();
        assert_eq!(folded.headers.get_all("content-length").iter().collect::<Vec<_>>(), ["5"], "{fields:?}");
    }
    check_response(&mut response(200, &[("Transfer-Encoding", "Chunked"), ("Upgrade", "h2")]), None).unwrap();
}

#[test]
fn a_change_of_protocol_must_have_been_asked_for() {
    let switch = [("Upgrade", "websocket"), ("Connection", "Upgrade")];
    assert!(check_response(&mut response(101, &switch), Some(Upgrade::WebSocket)).is_ok());
    assert!(check_response(&mut response(101, &switch), Some(Upgrade::Other)).is_err());
    assert!(check_response(&mut response(101, &[("Upgrade", "h2c")]), Some(Upgrade::WebSocket)).is_err());
    assert!(check_response(&mut response(101, &[]), Some(Upgrade::WebSocket)).is_err());
    let mut old = response(101, &switch);
    old.set_version(Version::HTTP_10);
    assert!(check_response(&mut old, Some(Upgrade::WebSocket)).is_err());

    let case = Case::new();
    let mut switched =
        response(101, &[("Upgrade", "WebSocket"), ("Connection", "upgrade, x"), ("X", "1"), ("Content-Length", "0")]);
    assert_eq!(to_client(&mut switched, &case.reply()).unwrap(), Persistence::Close);
    let seen = wire(|bytes| switched.header_to_h1_wire(bytes));
    assert_eq!(seen, ["Connection: Upgrade", "upgrade: websocket", "via: 1.1 switchback"]);
}

#[test]
fn what_belongs_to_the_endpoints_connection_stays_there() {
    let fields = [
        ("Connection", "keep-alive, X-Private, content-length"),
        ("X-Private", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Connection", "close"),
        ("Trailer", "x"),
        ("Upgrade", "h2,h2c"),
        ("Content-Length", "5"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
    ];
    let mut passed = response(200, &fields);
    passed.set_version(Version::HTTP_10);
    assert_eq!(to_client(&mut passed, &Case::new().reply()).unwrap(), Persistence::Keep);
    assert_eq!(passed.version, Version::HTTP_11, "the version is ours");
    let seen = wire(|bytes| passed.header_to_h1_wire(bytes));
    assert_eq!(seen, ["Content-Length: 5", "Set-Cookie: a=1", "Set-Cookie: b=2", "via: 1.1 switchback"]);
}

#[test]
fn what_an_endpoint_calls_its_status_reaches_the_client() {
    for (status, phrase, seen) in
        [(200, None, Some("OK")), (200, Some("Fine"), Some("Fine")), (200, Some(""), Some("")), (299, None, None)]
    {
        let mut passed = response(status, &[]);
        if phrase.is_some() {
            passed.set_reason_phrase(phrase).unwrap();
        }
        to_client(&mut passed, &Case::new().reply()).unwrap();
        assert_eq!((passed.status.as_u16(), passed.get_reason_phrase()), (status, seen));
    }
}

#[test]
fn a_connection_may_ask_for_several_hosts() {
    let case = Case::new();
    for host in ["shop.test", "other.test", "shop.test"] {
        let mut asked = request("/", &[("Host", host)]);
        to_endpoint(&mut asked, Version::HTTP_11, &case.hop()).unwrap();
        let said = format!("for=192.0.2.7;host=\"{host}\";proto=http");
        assert_eq!(asked.headers.get("forwarded").unwrap(), &said);
    }
    let mut bare = request("/", &[]);
    to_endpoint(&mut bare, Version::HTTP_10, &case.hop()).unwrap();
    assert_eq!(bare.headers.get("forwarded").unwrap(), "for=192.0.2.7;proto=http");
}

#[test]
fn a_request_that_forgets_its_letter_case_stays_what_it_was() {
    for target in ["/", "/a?b=c", "/%C3%A9?x=`y`|z", "*", "//x", "/?"] {
        let mut plain = request(target, &[("Host", "shop.test"), ("X-A", "1"), ("x-a", "2")]);
        plain.set_method(http::Method::OPTIONS);
        forget_letter_case(&mut plain);
        assert_eq!(plain.raw_path(), target.as_bytes());
        assert_eq!(plain.method, http::Method::OPTIONS);
        let seen = wire(|bytes| plain.header_to_h1_wire(bytes));
        assert_eq!(seen, ["Host: shop.test", "x-a: 1", "x-a: 2"]);
    }
}

#[test]
fn an_old_client_gets_no_chunks_and_its_connection_ends() {
    let case = Case::new();
    let reply = Reply { http10: true, ..case.reply() };
    let mut chunked = response(200, &[("Transfer-Encoding", "chunked")]);
    assert_eq!(to_client(&mut chunked, &reply).unwrap(), Persistence::Close);
    assert!(!chunked.headers.contains_key("transfer-encoding"));
    assert_eq!(to_client(&mut response(200, &[("Content-Length", "5")]), &reply).unwrap(), Persistence::Keep);
    let mut chunked = response(200, &[("Transfer-Encoding", "chunked")]);
    assert_eq!(to_client(&mut chunked, &case.reply()).unwrap(), Persistence::Keep);
    assert!(chunked.headers.contains_key("transfer-encoding"));
    let reply = Reply { close: true, ..case.reply() };
    assert_eq!(to_client(&mut response(200, &[]), &reply).unwrap(), Persistence::Close);
}

#[test]
fn statuses_without_a_body_say_no_length() {
    for status in [103, 204] {
        let mut empty =
            response(status, &[("Content-Length", "0"), ("Transfer-Encoding", "chunked"), ("Link", "</a>")]);
        to_client(&mut empty, &Case::new().reply()).unwrap();
        let names: Vec<_> = empty.headers.keys().filter(|name| *name != "via").collect();
        assert_eq!(names, ["link"], "{status}");
    }
}

#[test]
fn what_we_add_for_clients() {
    let mut case = Case::new();
    case.edits.set.push((HeaderName::from_static("x-frame-options"), value("DENY")));
    case.edits.remove.push(HeaderName::from_static("server"));
    let (generation, version, cookie) = (value("42"), value("v2"), value("sb=abc; Path=/; HttpOnly"));
    let exposed = Exposed { generation: &generation, version: &version, reason: "split" };
    let reply = Reply { exposed: Some(exposed), cookie: Some(&cookie), ..case.reply() };
    let mut passed = response(200, &[("Server", "x"), ("Set-Cookie", "a=1"), ("X-Switchback-Version", "forged")]);
    to_client(&mut passed, &reply).unwrap();
    let seen = wire(|bytes| passed.header_to_h1_wire(bytes));
    let expected = [
        "Set-Cookie: a=1",
        "Set-Cookie: sb=abc; Path=/; HttpOnly",
        "via: 1.1 switchback",
        "x-frame-options: DENY",
        "x-switchback-generation: 42",
        "x-switchback-reason: split",
        "x-switchback-version: v2",
    ];
    assert_eq!(seen, expected);
}
