use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 16, target_bytes: 1024 };

fn whole(text: &str) -> Parsed {
    parse(text.as_bytes(), 0, &LIMITS)
}

fn good(text: &str) -> Head {
    match whole(text) {
        Parsed::Complete(head) => head,
        other => panic!("{text:?}: {other:?}"),
    }
}

fn refused(text: &str) -> u16 {
    match whole(text) {
        Parsed::Refused(refusal) => refusal.status,
        other => panic!("{text:?}: {other:?}"),
    }
}

/// A GET with these further fields, each ended by CR LF.
fn with(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n")
}

#[test]
fn a_plain_request() {
    let text = "GET /a?b=c HTTP/1.1\r\nHost: shop.test:8080\r\nAccept: */*\r\n\r\nbody";
    let head = good(text);
    assert_eq!(head.len, text.len() - 4);
    assert_eq!((head.skip, head.version, head.body), (0, Version::Http11, RequestBody::None));
    assert!(head.keep_alive && !head.is_head && !head.expect_continue && head.upgrade.is_none());
    assert_eq!(head.method.of(text.as_bytes()), b"GET");
    assert_eq!(head.host.unwrap().of(text.as_bytes()), b"shop.test:8080");
    let TargetForm::Origin { path } = head.target else { panic!("{head:?}") };
    assert_eq!(path.of(text.as_bytes()), b"/a?b=c");
}

#[test]
fn empty_lines_in_front_are_skipped_but_not_for_ever() {
    let head = good("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((head.skip, head.len), (4, 27));
    assert_eq!(head.host.map(|host| (host.start, host.end)), Some((22, 23)));
    assert_eq!(refused(&("\r\n".repeat(5) + "GET / HTTP/1.1\r\nHost: a\r\n\r\n")), 400);
    assert_eq!(refused("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    assert_eq!(refused("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    assert_eq!(whole("\r\n\r"), Parsed::Incomplete { scanned: 2 });
    assert_eq!(whole(""), Parsed::Incomplete { scanned: 0 });
}

#[test]
fn the_host_must_be_one_valid_host() {
    for host in ["a b", "a/x", "a, b", "a\"b", "", "u@a", "a:b", "a:99999", "[::1", "a\tb", "é", "a,a"] {
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), 400, "{host}");
        assert_eq!(refused(&format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n")), 400, "{host}");
    }
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n"), 400);
    assert_eq!(good("GET / HTTP/1.0\r\n\r\n").host, None);
    for host in ["[::1]:80", "shop.test.", "127.0.0.1:1"] {
        let text = format!("GET / HTTP/1.1\r\nHost:\t {host} \r\n\r\n");
        assert_eq!(good(&text).host.unwrap().of(text.as_bytes()), host.as_bytes());
    }
}

#[test]
fn the_target_decides_the_host_when_it_is_absolute() {
    let text = "GET http://shop.test:81/a?b HTTP/1.1\r\nHost: other\r\n\r\n";
    let head = good(text);
    assert_eq!(head.host.unwrap().of(text.as_bytes()), b"shop.test:81");
    let TargetForm::Absolute { authority, path } = head.target else { panic!("{head:?}") };
    assert_eq!((authority.of(text.as_bytes()), path.of(text.as_bytes())), (&b"shop.test:81"[..], &b"/a?b"[..]));
    for (target, rest) in [("HTTPS://a", ""), ("http://a?q", "?q"), ("http://[::1]/", "/")] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let TargetForm::Absolute { path, .. } = good(&text).target else { panic!("{target}") };
        assert_eq!(path.of(text.as_bytes()), rest.as_bytes(), "{target}");
    }
    for target in ["ftp://a/", "http:///", "http://", "http://u@a/", "http://a b/", "http://a:x/", "http:/a", "urn:x"] {
        assert_eq!(refused(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")), 400, "{target}");
    }
    assert_eq!(refused("GET http://a/ HTTP/1.1\r\n\r\n"), 400, "Host is needed all the same");
}

#[test]
fn an_absolute_target_is_rewritten_for_the_engine() {
    for (line, target, host) in [
        ("GET http://shop.test:81/a?b", "GET /a?b", "shop.test:81"),
        ("GET http://shop.test", "GET /", "shop.test"),
        ("GET HTTP://Shop.Test?q=http://x/y", "GET /?q=http://x/y", "Shop.Test"),
        ("OPTIONS http://[::1]:80", "OPTIONS *", "[::1]:80"),
    ] {
        let text = format!("{line} HTTP/1.1\r\nA: 1\r\nHOST:other\r\nhostile: 2\r\n\r\n");
        let rewritten = origin_form(&good(&text), text.as_bytes()).unwrap();
        let rewritten = String::from_utf8(rewritten).unwrap();
        assert_eq!(rewritten, format!("{target} HTTP/1.1\r\nHost: {host}\r\nA: 1\r\nhostile: 2\r\n\r\n"));
        let head = good(&rewritten);
        assert_eq!(head.host.unwrap().of(rewritten.as_bytes()), host.as_bytes());
        assert_eq!(origin_form(&head, rewritten.as_bytes()), None);
    }
    let old = "GET http://a/ HTTP/1.0\r\n\r\n";
    assert_eq!(origin_form(&good(old), old.as_bytes()).unwrap(), b"GET / HTTP/1.0\r\nHost: a\r\n\r\n");
}

#[test]
fn other_target_forms() {
    assert_eq!(good("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target, TargetForm::Asterisk);
    for line in [
        "GET *",
        "GET a",
        "GET a:443",
        "GET shop.test/x",
        "GET ?q",
        "OPTIONS **",
        "GET /a#b",
        "GET /<",
        "GET /?>",
        "GET /\"",
        "GET /`",
        "GET ",
        "GET /é",
        "GET /\x7f",
    ] {
        assert_eq!(refused(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n")), 400, "{line}");
    }
    assert_eq!(refused("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"), 405);
    assert_eq!(refused("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"), 405);
    assert_eq!(refused("CONNECT a:443 HTTP/1.1\r\n\r\n"), 400);
}

#[test]
fn the_request_line_has_exactly_three_parts() {
    let lines = [
        "GET",
        "GET /",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / a HTTP/1.1",
        "G@T / HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1",
        "GET / HTTP/11",
        "GET / HTP/1.1",
        "GET / ",
        "GET HTTP/1.1",
        "GET / HTTP/1.1x",
        "(GET) / HTTP/1.1",
    ];
    for line in lines {
        assert_eq!(refused(&format!("{line}\r\nHost: a\r\n\r\n")), 400, "{line}");
    }
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/3.0", "HTTP/1.2"] {
        assert_eq!(refused(&format!("GET / {version}\r\nHost: a\r\n\r\n")), 505, "{version}");
    }
    assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
    assert_eq!(good("M-SEARCH!x / HTTP/1.1\r\nHost: a\r\n\r\n").method, Span { start: 0, end: 10 });
    assert_eq!(refused(&format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(65))), 400);
}

#[test]
fn field_syntax_has_no_leniency() {
    let fields = [
        "a : b\r\n",
        " a: b\r\n",
        "a: b\r\n c\r\n",
        "a: b\r\n\tc\r\n",
        "a\r\n",
        ": b\r\n",
        "a: b\0c\r\n",
        "a: b\x01\r\n",
        "a: b\x7f\r\n",
        "a: b\rc\r\n",
        "a: b\n",
        "a: b\nHost: x\r\n",
        "a b: c\r\n",
        "a\0: b\r\n",
        "a(b): c\r\n",
        "\x0b: a\r\n",
    ];
    for field in fields {
        assert_eq!(refused(&with(field)), 400, "{field:?}");
    }
    assert_eq!(refused("GET / HTTP/1.1\nHost: a\n\n"), 400);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\n\r\n"), 400);
    assert_eq!(refused("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), 400);
    good(&with("a: caf\u{e9}\tx\r\nb:\r\nc: \r\n"));
}

#[test]
fn the_length_of_the_body_is_said_once_and_clearly() {
    let cases: &[(&str, RequestBody)] = &[
        ("Content-Length: 5\r\n", RequestBody::Length(5)),
        ("Content-Length:\t 007 \r\n", RequestBody::Length(7)),
        ("Content-Length: 0\r\n", RequestBody::None),
        ("Transfer-Encoding: chunked\r\n", RequestBody::Chunked),
        ("Transfer-Encoding: Chunked \r\n", RequestBody::Chunked),
    ];
    for (field, body) in cases {
        assert_eq!(good(&with(field)).body, *body, "{field}");
    }
    let bad: &[(&str, u16)] = &[
        ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        ("Content-Length: 5, 5\r\n", 400),
        ("Content-Length: +5\r\n", 400),
        ("Content-Length: -5\r\n", 400),
        ("Content-Length: 0x5\r\n", 400),
        ("Content-Length: 5 5\r\n", 400),
        ("Content-Length: \r\n", 400),
        ("Content-Length: 18446744073709551616\r\n", 400),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 501),
        ("Transfer-Encoding: chunked, chunked\r\n", 400),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ("Transfer-Encoding: chunked,\r\n", 400),
        ("Transfer-Encoding: ,chunked\r\n", 400),
        ("Transfer-Encoding: \r\n", 400),
        ("Transfer-Encoding: \"chunked\"\r\n", 400),
        ("Transfer-Encoding: chunked;a=b\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: gzip\r\n", 501),
        ("Transfer-Encoding: identity\r\n", 501),
        ("Transfer-Encoding: xchunked\r\n", 501),
    ];
    for (fields, status) in bad {
        // A second Transfer-Encoding is refused whatever it says.
        let status = if fields.matches("Transfer-Encoding").count() > 1 { 400 } else { *status };
        assert_eq!(refused(&with(fields)), status, "{fields}");
    }
    assert_eq!(refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

#[test]
fn keep_alive_is_what_the_client_asks_for() {
    for (version, connection, keep) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Keep-Alive, x\r\nConnection: CLOSE\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
        assert_eq!(good(&text).keep_alive, keep, "{text}");
    }
    let many = (0..17).map(|option| format!("x{option},")).collect::<String>();
    let bad = [&many, "\"x\"", "host", "Content-Length", "transfer-encoding", "cookie", ":authority", "a b"];
    for options in bad {
        assert_eq!(refused(&with(&format!("Connection: {options}\r\n"))), 400, "{options}");
    }
}

#[test]
fn an_upgrade_counts_only_if_the_connection_names_it() {
    let cases = [
        ("Upgrade: websocket\r\nConnection: Upgrade\r\n", Some(Upgrade::WebSocket)),
        ("Upgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n", Some(Upgrade::WebSocket)),
        ("Upgrade: websocket\r\n", None),
        ("Connection: upgrade\r\n", None),
        ("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n", Some(Upgrade::Other)),
        ("Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n", Some(Upgrade::Other)),
        ("Upgrade: websocket\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", Some(Upgrade::Other)),
        ("Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 1\r\n", Some(Upgrade::Other)),
    ];
    for (fields, upgrade) in cases {
        assert_eq!(good(&with(fields)).upgrade, upgrade, "{fields}");
    }
    let post = "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    assert_eq!(good(post).upgrade, Some(Upgrade::Other));
    let old = "GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    assert_eq!(good(old).upgrade, None);
}

#[test]
fn only_one_expectation_is_known() {
    assert!(good(&with("Expect: 100-Continue\r\nContent-Length: 1\r\n")).expect_continue);
    assert!(!good("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expect_continue);
    for value in ["100-continue, x", "x", ""] {
        assert_eq!(refused(&with(&format!("Expect: {value}\r\n"))), 417, "{value}");
    }
}

#[test]
fn limits_have_their_own_statuses() {
    assert_eq!(refused(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(1024))), 414);
    good(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(1023)));
    assert_eq!(refused(&format!("GET /{}", "a".repeat(1200))), 414, "told before the line ends");
    assert_eq!(refused(&format!("GET /{}", "a".repeat(9000))), 414);
    assert_eq!(refused(&with(&format!("a: {}\r\n", "b".repeat(5000)))), 431);
    assert_eq!(refused(&format!("GET / HTTP/1.1\r\nHost: a\r\na: {}", "b".repeat(5000))), 431);
    assert_eq!(refused(&with(&"a: b\r\n".repeat(16))), 431);
    good(&with(&"a: b\r\n".repeat(15)));
    let exact = |len: usize| {
        let empty = with("a: \r\n").len();
        with(&format!("a: {}\r\n", "b".repeat(len - empty)))
    };
    assert_eq!(good(&exact(4096)).len, 4096);
    assert_eq!(refused(&exact(4097)), 431);
}

#[test]
fn garbage_is_refused_at_its_first_byte() {
    for garbage in ["\x16\x03\x01", " ", "\0", "{", "\u{7f}"] {
        assert_eq!(refused(garbage), 400, "{garbage:?}");
    }
}

/// As a connection does it: bytes arrive piece by piece and `scanned` goes round.
fn trickled(bytes: &[u8], piece: usize) -> Parsed {
    let mut scanned = 0;
    let mut have = 0;
    loop {
        have = (have + piece).min(bytes.len());
        match parse(&bytes[..have], scanned, &LIMITS) {
            Parsed::Incomplete { .. } if have == bytes.len() => return Parsed::Incomplete { scanned },
            Parsed::Incomplete { scanned: so_far } => scanned = so_far,
            verdict => return verdict,
        }
    }
}

#[test]
fn slow_bytes_give_the_same_verdict() {
    let texts = [
        with(""),
        "\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n".to_string(),
        with("Content-Length: 5\r\n") + "hello",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_string(),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(1024)),
        with("a: b\n"),
    ];
    for text in &texts {
        for piece in 1..9 {
            let (slow, fast) = (trickled(text.as_bytes(), piece), whole(text));
            assert_eq!(slow, fast, "{text:?} by {piece}");
        }
    }
}

/// Heads made of pieces that mean something, so that the interesting corners are met often.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "GET ",
        "POST ",
        "/",
        "*",
        "http://a/",
        " HTTP/1.1",
        " HTTP/1.0",
        "\r\n",
        "\n",
        "\r",
        "Host: a\r\n",
        "Host:",
        " ",
        "\t",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding",
        ": ",
        "chunked",
        ",",
        "Connection: ",
        "close",
        "upgrade",
        "Upgrade: websocket\r\n",
        "Expect: 100-continue\r\n",
        "\0",
        "é",
        "\r\n\r\n",
        "x",
        "\x7f",
        "[::1]",
    ]);
    prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn no_input_panics_and_slow_is_as_fast(bytes in hostile(), piece in 1usize..7) {
        let fast = parse(&bytes, 0, &LIMITS);
        match (trickled(&bytes, piece), fast) {
            // Fewer bytes may already show what is wrong, and then the first wrong thing is told.
            (Parsed::Refused(_), Parsed::Refused(_)) => {}
            (Parsed::Incomplete { .. }, Parsed::Incomplete { .. }) => {}
            (slow, fast) => prop_assert_eq!(slow, fast),
        }
        if let Parsed::Complete(head) = fast {
            let head_bytes = &bytes[head.skip..head.skip + head.len];
            prop_assert!(head_bytes.ends_with(b"\r\n\r\n"));
            prop_assert!(!head_bytes[..head.len - 1].windows(4).any(|window| window == b"\r\n\r\n"));
        }
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), scanned in 0usize..400) {
        parse(&bytes, scanned, &LIMITS);
    }
}
