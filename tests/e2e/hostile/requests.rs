//! Requests with two readings, or with one that must not be believed: what the client is told, and exactly what the
//! endpoint received. Every case is sent whole, and once more in pieces.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::expect::{Client, Client::*, Endpoint, Endpoint::*, Fact::*};
use super::tap::Tap;
use crate::harness::client::Raw;
use crate::harness::tls::{Authority, TlsKind};
use crate::harness::*;

/// `###` in what is sent is the number of the case, so that the endpoint's record can be told apart.
pub struct Case {
    pub name: &'static str,
    pub send: Vec<u8>,
    pub client: Client,
    pub endpoint: Endpoint,
}

pub struct Group {
    pub title: &'static str,
    pub cases: Vec<Case>,
}

const HIDDEN: &str = "GET /hidden### HTTP/1.1\r\nhost: shop.test\r\n\r\n";
const CHUNKED: &str = "transfer-encoding: chunked\r\n";

fn case(name: &'static str, send: impl Into<Vec<u8>>, client: Client, endpoint: Endpoint) -> Case {
    Case { name, send: send.into(), client, endpoint }
}

/// A POST with these fields, and this behind its head.
fn post(fields: &str, rest: &str) -> String {
    format!("POST /outer### HTTP/1.1\r\nhost: shop.test\r\n{fields}\r\n{rest}")
}

fn get(fields: &str) -> String {
    format!("GET /outer### HTTP/1.1\r\nhost: shop.test\r\n{fields}\r\n")
}

/// A POST with these fields, an empty chunked body, and a request hidden behind it.
fn coded(name: &'static str, fields: &str, client: Client) -> Case {
    case(name, post(fields, &format!("0\r\n\r\n{HIDDEN}")), client, Nothing)
}

/// A POST with these fields about its length, and a request hidden behind its head.
fn sized(name: &'static str, fields: &str) -> Case {
    case(name, post(fields, HIDDEN), Refused(400), Nothing)
}

/// A chunked POST whose body is this, with a request hidden behind it.
fn chunks(name: &'static str, body: &str) -> Case {
    case(name, post(CHUNKED, &format!("{body}{HIDDEN}")), Refused(400), Unfinished)
}

/// A GET with this field or these, refused.
fn bad_get(name: &'static str, fields: &str) -> Case {
    case(name, get(fields) + HIDDEN, Refused(400), Nothing)
}

/// A GET whose first line is this.
fn line(name: &'static str, line: &str, status: u16) -> Case {
    case(name, format!("{line}\r\nhost: shop.test\r\n\r\n{HIDDEN}"), Refused(status), Nothing)
}

/// A GET with this for its Host fields.
fn host(name: &'static str, fields: &str) -> Case {
    case(name, format!("GET /outer### HTTP/1.1\r\n{fields}\r\n{HIDDEN}"), Refused(400), Nothing)
}

fn lengths() -> Vec<Case> {
    vec![
        sized("two different Content-Length fields", "content-length: 0\r\ncontent-length: 5\r\n"),
        sized("two equal Content-Length fields", "content-length: 0\r\ncontent-length: 0\r\n"),
        sized("Content-Length: a list, different", "content-length: 0, 5\r\n"),
        sized("Content-Length: a list, equal", "content-length: 0, 0\r\n"),
        sized("Content-Length: with a plus", "content-length: +0\r\n"),
        sized("Content-Length: negative", "content-length: -1\r\n"),
        sized("Content-Length: hexadecimal", "content-length: 0x0\r\n"),
        sized("Content-Length: empty", "content-length:\r\n"),
        sized("Content-Length: spaces inside", "content-length: 0 0\r\n"),
        sized("Content-Length: a fraction", "content-length: 0.0\r\n"),
        sized("Content-Length: an exponent", "content-length: 0e1\r\n"),
        sized("Content-Length: quoted", "content-length: \"0\"\r\n"),
        sized("Content-Length: with an underscore", "content-length: 0_0\r\n"),
        sized("Content-Length: other digits than ASCII", "content-length: \u{0660}\r\n"),
        sized("Content-Length: 2^63", "content-length: 9223372036854775808\r\n"),
        sized("Content-Length: 2^64, which is 0 to some", "content-length: 18446744073709551616\r\n"),
        sized("Content-Length: a space before the colon", "content-length : 0\r\n"),
        sized("Content-Length: a tab before the colon", "content-length\t: 0\r\n"),
        sized("Content-Length: folded", "content-length:\r\n 0\r\n"),
        sized("Content-Length: behind a bare CR", "x: a\rcontent-length: 0\r\n"),
        sized("Content-Length: behind a bare LF", "x: a\ncontent-length: 0\r\n"),
        sized("Content-Length: behind a NUL", "x: a\0\r\ncontent-length: 0\r\n"),
        sized("Content-Length: with a vertical tab", "content-length: \x0b0\r\n"),
        case(
            "Content-Length: leading zeros",
            post("content-length: 0005\r\n", "hello"),
            Answered(200),
            One(&[Body("hello")]),
        ),
        case(
            "content_length, as CGI reads it",
            post("content-length: 5\r\ncontent_length: 0\r\n", "hello"),
            Answered(200),
            One(&[Field("content-length", "5"), Without("content_length"), Body("hello")]),
        ),
        case("GET with a body", get("content-length: 5\r\n") + "hello", Answered(200), One(&[Body("hello")])),
        case(
            "a body that is itself a request",
            post(&format!("content-length: {}\r\n", HIDDEN.len()), HIDDEN),
            Answered(200),
            One(&[Body(HIDDEN)]),
        ),
    ]
}

fn codings() -> Vec<Case> {
    vec![
        coded(
            "Content-Length and chunked (CL.TE)",
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            Refused(400),
        ),
        coded(
            "chunked and Content-Length (TE.CL)",
            "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
            Refused(400),
        ),
        coded("chunked twice in one field", "transfer-encoding: chunked, chunked\r\n", Refused(400)),
        coded(
            "chunked twice in two fields",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            Refused(400),
        ),
        coded("chunked, then identity", "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", Refused(400)),
        coded("identity, then chunked", "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n", Refused(501)),
        coded("chunked, then gzip", "transfer-encoding: chunked, gzip\r\n", Refused(400)),
        coded("gzip, then chunked", "transfer-encoding: gzip, chunked\r\n", Refused(501)),
        coded("identity alone", "transfer-encoding: identity\r\n", Refused(501)),
        coded("xchunked", "transfer-encoding: xchunked\r\n", Refused(501)),
        coded("chunked with a parameter", "transfer-encoding: chunked;q=1\r\n", Refused(400)),
        coded("chunked in quotes", "transfer-encoding: \"chunked\"\r\n", Refused(400)),
        coded("chunked with a comma before it", "transfer-encoding: , chunked\r\n", Refused(400)),
        coded("chunked with a comma behind it", "transfer-encoding: chunked,\r\n", Refused(400)),
        coded("chunked behind a vertical tab", "transfer-encoding: \x0bchunked\r\n", Refused(400)),
        coded("chunked behind a form feed", "transfer-encoding: \x0cchunked\r\n", Refused(400)),
        coded("chunked behind a NUL", "transfer-encoding: \0chunked\r\n", Refused(400)),
        coded("chunked with a NUL behind it", "transfer-encoding: chunked\0\r\n", Refused(400)),
        coded("chunked behind a no-break space", "transfer-encoding: \u{a0}chunked\r\n", Refused(400)),
        coded("chunked, folded", "transfer-encoding:\r\n chunked\r\n", Refused(400)),
        coded("chunked, folded behind another field", "x: a\r\n transfer-encoding: chunked\r\n", Refused(400)),
        coded("chunked, the first field begins with a space", " transfer-encoding: chunked\r\n", Refused(400)),
        coded("a space before the colon", "transfer-encoding : chunked\r\n", Refused(400)),
        coded("a bare CR before the colon", "transfer-encoding\r: chunked\r\n", Refused(400)),
        coded("a field without a colon", "transfer-encoding chunked\r\n", Refused(400)),
        coded("an empty Transfer-Encoding", "transfer-encoding:\r\n", Refused(400)),
        coded("behind a bare CR", "x: a\rtransfer-encoding: chunked\r\n", Refused(400)),
        coded("behind a bare LF", "x: a\ntransfer-encoding: chunked\r\n", Refused(400)),
        coded("a name that is no token", "transfer(encoding: chunked\r\n", Refused(400)),
        coded("a name in another alphabet", "tran\u{17f}fer-encoding: chunked\r\n", Refused(400)),
        case(
            "chunked in HTTP/1.0",
            format!("POST /outer### HTTP/1.0\r\nhost: shop.test\r\n{CHUNKED}\r\n0\r\n\r\n{HIDDEN}"),
            Refused(400),
            Nothing,
        ),
        case(
            "ChUnKeD, which is chunked",
            post("transfer-encoding: ChUnKeD\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            Answered(200),
            One(&[Field("transfer-encoding", "chunked"), Without("content-length"), Body("hello")]),
        ),
        case(
            "spaces and tabs around chunked",
            post("transfer-encoding: \t chunked \t \r\n", "5\r\nhello\r\n0\r\n\r\n"),
            Answered(200),
            One(&[Field("transfer-encoding", "chunked"), Body("hello")]),
        ),
        case(
            "transfer_encoding, as CGI reads it",
            post("content-length: 5\r\ntransfer_encoding: chunked\r\n", "0\r\n\r\n"),
            Answered(200),
            One(&[Without("transfer_encoding"), Without("transfer-encoding"), Body("0\r\n\r\n")]),
        ),
        case("GET with a chunked body", get(CHUNKED) + "5\r\nhello\r\n0\r\n\r\n", Answered(200), One(&[Body("hello")])),
    ]
}

fn chunked_bodies() -> Vec<Case> {
    vec![
        chunks("an empty chunk size", "\r\n"),
        chunks("an empty chunk size behind a good chunk", "1\r\na\r\n\r\n"),
        chunks("a chunk extension alone", ";ext\r\n\r\n"),
        chunks("a chunk extension alone behind a good chunk", "1\r\na\r\n;ext\r\n\r\n"),
        chunks("a negative size", "-1\r\n\r\n"),
        chunks("a size with a plus", "+0\r\n\r\n"),
        chunks("a size with 0x", "0x0\r\n\r\n"),
        chunks("a size behind a space", " 0\r\n\r\n"),
        chunks("a size before a space", "0 \r\n\r\n"),
        chunks("a size before a tab", "0\t\r\n\r\n"),
        chunks("a size with an underscore", "0_0\r\n\r\n"),
        chunks("a size with a letter that is no digit", "0g\r\n\r\n"),
        chunks("a size of 2^63", "8000000000000000\r\n\r\n"),
        chunks("a size of 2^64, which is 0 to some", "10000000000000000\r\n\r\n"),
        chunks("a size with seventeen zeros", "00000000000000000\r\n\r\n"),
        chunks("a size ended by a bare LF", "0\n\r\n"),
        chunks("a size ended by a bare CR", "0\r\r\n\r\n"),
        chunks("a bare LF inside an extension", "0;a\nb\r\n\r\n"),
        chunks("a bare CR inside an extension", "0;a\rb\r\n\r\n"),
        chunks("a NUL inside an extension", "0;\0\r\n\r\n"),
        chunks("data without its CR LF", "1\r\naX0\r\n\r\n"),
        chunks("data with a bare LF behind it", "1\r\na\n0\r\n\r\n"),
        chunks("data longer than its size", "1\r\nab\r\n0\r\n\r\n"),
        chunks("a last chunk ended by bare LFs", "0\r\n\n"),
        chunks("a trailer Content-Length", "0\r\ncontent-length: 5\r\n\r\n"),
        chunks("a trailer Transfer-Encoding", "0\r\ntransfer-encoding: chunked\r\n\r\n"),
        chunks("a trailer Host", "0\r\nhost: other.test\r\n\r\n"),
        chunks("a folded trailer", "0\r\nx: a\r\n b\r\n\r\n"),
        chunks("a trailer with a space before its colon", "0\r\nx : a\r\n\r\n"),
        chunks("a trailer without a colon", "0\r\nx\r\n\r\n"),
        chunks("a trailer with a NUL", "0\r\nx: \0\r\n\r\n"),
        chunks("a trailer with a bare LF", "0\r\nx: a\n\r\n\r\n"),
        case(
            "chunk extensions, 5 KiB of them",
            post(CHUNKED, &format!("1;{}\r\na\r\n0\r\n\r\n{HIDDEN}", "e".repeat(5 * 1024))),
            Refused(400),
            Unfinished,
        ),
        case(
            "trailers, 65 of them",
            post(CHUNKED, &format!("0\r\n{}\r\n{HIDDEN}", "x: y\r\n".repeat(65))),
            Refused(400),
            Unfinished,
        ),
        case(
            "a chunk extension, which is dropped",
            post(CHUNKED, "5;name=\"value\"\r\nhello\r\n0;last\r\n\r\n"),
            Answered(200),
            One(&[Body("hello")]),
        ),
        case(
            "trailers, which are dropped",
            post(&format!("{CHUNKED}trailer: x-sum\r\n"), "5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"),
            Answered(200),
            One(&[Body("hello"), Without("x-sum"), Without("trailer")]),
        ),
        case(
            "a size with leading zeros",
            post(CHUNKED, "0000000000000005\r\nhello\r\n000\r\n\r\n"),
            Answered(200),
            One(&[Body("hello")]),
        ),
    ]
}

fn lines() -> Vec<Case> {
    let bytes = |text: &[u8]| [text, b"\r\nhost: shop.test\r\n\r\n", HIDDEN.as_bytes()].concat();
    vec![
        line("HTTP/0.9", "GET /outer###", 400),
        line("HTTP/0.9 with a version", "GET /outer### HTTP/0.9", 505),
        line("HTTP/2.0 in a request line", "GET /outer### HTTP/2.0", 505),
        line("HTTP/1.9", "GET /outer### HTTP/1.9", 505),
        line("HTTP/1.10", "GET /outer### HTTP/1.10", 400),
        line("HTTP/1", "GET /outer### HTTP/1", 400),
        line("http/1.1 in lower case", "GET /outer### http/1.1", 400),
        line("another protocol", "GET /outer### ICY/1.1", 400),
        line("a space behind the version", "GET /outer### HTTP/1.1 ", 400),
        line("two spaces before the target", "GET  /outer### HTTP/1.1", 400),
        line("a tab before the target", "GET\t/outer### HTTP/1.1", 400),
        line("a space in the target", "GET /outer### x HTTP/1.1", 400),
        line("a whole request line in the target", "GET /outer### HTTP/1.1 /hidden### HTTP/1.1", 400),
        line("a method that is no token", "G@T /outer### HTTP/1.1", 400),
        line("an empty method", " /outer### HTTP/1.1", 400),
        line("a method of 65 bytes", &format!("{} /outer### HTTP/1.1", "M".repeat(65)), 400),
        line("a fragment in the target", "GET /outer###?#x HTTP/1.1", 400),
        line("a target that is no path", "GET outer### HTTP/1.1", 400),
        line("authority form with GET", "GET shop.test:80 HTTP/1.1", 400),
        line("`*` with GET", "GET * HTTP/1.1", 400),
        line("CONNECT", "CONNECT shop.test:80 HTTP/1.1", 405),
        line("CONNECT with a path", "CONNECT /outer### HTTP/1.1", 405),
        line("an absolute target with userinfo", "GET http://user@shop.test/outer### HTTP/1.1", 400),
        line("an absolute target without a host", "GET http:///outer### HTTP/1.1", 400),
        line("an absolute target of another scheme", "GET gopher://shop.test/outer### HTTP/1.1", 400),
        line("a target of 9 KiB", &format!("GET /outer###{} HTTP/1.1", "a".repeat(9 * 1024)), 414),
        case("a bare CR in the line", bytes(b"GET /outer###\rx HTTP/1.1"), Refused(400), Nothing),
        case("a NUL in the target", bytes(b"GET /outer###\0 HTTP/1.1"), Refused(400), Nothing),
        case("DEL in the target", bytes(b"GET /outer###\x7f HTTP/1.1"), Refused(400), Nothing),
        case("a byte above 127 in the target", bytes(b"GET /outer###\xff HTTP/1.1"), Refused(400), Nothing),
        case("the preface of HTTP/2 with a head behind it", bytes(b"PRI * HTTP/2.0"), Refused(505), Nothing),
        case(
            "a TLS handshake in clear",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            Refused(400),
            Nothing,
        ),
        case(
            "lines ended by bare LF",
            "GET /outer### HTTP/1.1\nhost: shop.test\n\n".to_string() + HIDDEN,
            Refused(400),
            Nothing,
        ),
        case(
            "one line ended by a bare LF",
            "GET /outer### HTTP/1.1\r\nhost: shop.test\n\r\n".to_string() + HIDDEN,
            Refused(400),
            Nothing,
        ),
        case("a bare LF before the request", "\n".to_string() + &get(""), Refused(400), Nothing),
        case("ten empty lines before the request", "\r\n".repeat(10) + &get(""), Refused(400), Nothing),
        case("two empty lines before the request", "\r\n\r\n".to_string() + &get(""), Answered(200), One(&[])),
        case(
            "CR LF in percent-encoding in the path",
            "GET /outer###%0d%0ax:%20y HTTP/1.1\r\nhost: shop.test\r\n\r\n",
            Refused(400),
            Nothing,
        ),
        case(
            "CR LF in percent-encoding in the query",
            "GET /outer###?%0d%0ax:%20y HTTP/1.1\r\nhost: shop.test\r\n\r\n",
            Answered(200),
            One(&[Target("/outer###?%0d%0ax:%20y"), Without("x")]),
        ),
        case(
            "NUL in percent-encoding in the path",
            "GET /outer###%00 HTTP/1.1\r\nhost: shop.test\r\n\r\n",
            Refused(400),
            Nothing,
        ),
        case(
            "a method nobody knows",
            "PURGE /outer### HTTP/1.1\r\nhost: shop.test\r\n\r\n",
            Answered(200),
            One(&[Method("PURGE")]),
        ),
        case(
            "TRACE",
            "TRACE /outer### HTTP/1.1\r\nhost: shop.test\r\nauthorization: secret\r\n\r\n",
            Answered(200),
            One(&[Method("TRACE")]),
        ),
    ]
}

fn hosts() -> Vec<Case> {
    vec![
        host("no Host", ""),
        host("an empty Host", "host:\r\n"),
        host("two different Host fields", "host: shop.test\r\nhost: other.test\r\n"),
        host("two equal Host fields", "host: shop.test\r\nhost: shop.test\r\n"),
        host("Host: a list", "host: shop.test, other.test\r\n"),
        host("Host: with a space", "host: shop.test other.test\r\n"),
        host("Host: with a path", "host: shop.test/x\r\n"),
        host("Host: with userinfo", "host: user@shop.test\r\n"),
        host("Host: with a query", "host: shop.test?x\r\n"),
        host("Host: a quote", "host: shop\"test\r\n"),
        host("Host: a backslash", "host: shop.test\\other.test\r\n"),
        host("Host: percent-encoded", "host: shop%2etest\r\n"),
        host("Host: a port that is none", "host: shop.test:x\r\n"),
        host("Host: a port above 65535", "host: shop.test:65536\r\n"),
        host("Host: two ports", "host: shop.test:80:81\r\n"),
        host("Host: two dots", "host: shop..test\r\n"),
        host("Host: an IPv6 address without brackets", "host: ::1\r\n"),
        host("Host: a bracket that is not closed", "host: [::1\r\n"),
        host("Host: a zone", "host: [fe80::1%25eth0]\r\n"),
        host("Host: a NUL", "host: shop.test\0\r\n"),
        host("Host: 256 bytes", &format!("host: {}\r\n", "a".repeat(256))),
        host("Host: a space before the colon", "host : shop.test\r\n"),
        host("Host: folded", "host:\r\n shop.test\r\n"),
        host("Host: its line begins with a space", " host: other.test\r\nhost: shop.test\r\n"),
        case(
            "Host: disagrees with an absolute target",
            "GET http://shop.test/outer### HTTP/1.1\r\nhost: other.test\r\n\r\n",
            Answered(200),
            One(&[Field("host", "shop.test"), Field("x-forwarded-host", "shop.test"), Target("/outer###")]),
        ),
        case(
            "Host: missing beside an absolute target",
            "GET http://shop.test/outer### HTTP/1.1\r\n\r\n".to_string() + HIDDEN,
            Refused(400),
            Nothing,
        ),
        case(
            "HTTP/1.0 without Host",
            "GET /outer### HTTP/1.0\r\n\r\n",
            Last(200),
            One(&[Field("host", ""), Without("x-forwarded-host")]),
        ),
    ]
}

fn fields() -> Vec<Case> {
    let many = |count: usize| (0..count).map(|nth| format!("x-{nth}: 1\r\n")).collect::<String>();
    vec![
        bad_get("a folded field", "x: a\r\n b\r\n"),
        bad_get("a field folded with a tab", "x: a\r\n\tb\r\n"),
        bad_get("a field without a colon", "x\r\n"),
        bad_get("a field without a name", ": x\r\n"),
        bad_get("a name with a space", "x y: a\r\n"),
        bad_get("a name with a control character", "x\x01: a\r\n"),
        bad_get("a value with a NUL", "x: a\0b\r\n"),
        bad_get("a value with a bare CR", "x: a\rb\r\n"),
        bad_get("a value with an escape", "x: \x1b[2J\r\n"),
        bad_get("a value with DEL", "x: a\x7f\r\n"),
        bad_get("Connection: Host", "connection: host\r\n"),
        bad_get("Connection: Content-Length", "connection: close, content-length\r\n"),
        bad_get("Connection: Transfer-Encoding", "connection: transfer-encoding\r\n"),
        bad_get("Connection: Cookie", "connection: cookie\r\ncookie: a=b\r\n"),
        bad_get("Connection: Authorization", "connection: authorization\r\nauthorization: a\r\n"),
        bad_get("Connection: no token", "connection: a/b\r\n"),
        bad_get("Connection: 17 options", &format!("connection: {}\r\n", vec!["a"; 17].join(","))),
        case("257 fields", get(&many(257)) + HIDDEN, Refused(431), Nothing),
        case("a field of 100 KiB", get(&format!("x: {}\r\n", "a".repeat(100 * 1024))), Refused(431), Nothing),
        case(
            "a head of 200 KiB that never ends",
            get("")[..40].to_string() + &"a: b\r\n".repeat(34_000),
            Refused(431),
            Nothing,
        ),
        case(
            "Connection: X-Forwarded-For",
            get("connection: x-forwarded-for, x-real-ip, forwarded\r\nx-forwarded-for: 6.6.6.6\r\n"),
            Answered(200),
            One(&[Field("x-forwarded-for", "127.0.0.1"), Field("x-real-ip", "127.0.0.1"), Without("connection")]),
        ),
        case(
            "Connection: a field of the client",
            get("connection: x-mine, keep-alive\r\nx-mine: 1\r\nkeep-alive: 5\r\nproxy-connection: keep-alive\r\n"),
            Answered(200),
            One(&[Without("x-mine"), Without("keep-alive"), Without("proxy-connection"), Without("connection")]),
        ),
        case(
            "x_forwarded_for, as CGI reads it",
            get("x_forwarded_for: 6.6.6.6\r\nX-Forwarded_For: 6.6.6.6\r\n"),
            Answered(200),
            One(&[Without("x_forwarded_for"), Without("x-forwarded_for"), Field("x-forwarded-for", "127.0.0.1")]),
        ),
        case(
            "a field in our own name",
            get("x-switchback-version: v9\r\nx-switchback-mirrored: 1\r\n"),
            Answered(200),
            One(&[Without("x-switchback-version"), Without("x-switchback-mirrored")]),
        ),
        case("a value with bytes above 127", get("x: caf\u{e9}\r\n"), Answered(200), One(&[Field("x", "caf\u{e9}")])),
        case("Expect: something else", get("expect: 200-ok\r\n") + HIDDEN, Refused(417), Nothing),
        case(
            "Expect: 100-continue twice in a list",
            get("expect: 100-continue, 100-continue\r\n"),
            Refused(417),
            Nothing,
        ),
        case("Expect: 100-continue without a body", get("expect: 100-continue\r\n"), Answered(200), One(&[Body("")])),
        case(
            "Expect: 100-continue, the body sent at once",
            post("expect: 100-continue\r\ncontent-length: 5\r\n", "hello"),
            Answered(200),
            One(&[Body("hello")]),
        ),
        case(
            "Expect in HTTP/1.0",
            "POST /outer### HTTP/1.0\r\nhost: shop.test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhello",
            Last(200),
            One(&[Body("hello")]),
        ),
        case(
            "Upgrade: h2c",
            get("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"),
            Answered(200),
            One(&[Without("upgrade"), Without("http2-settings"), Without("connection")]),
        ),
        case(
            "Upgrade: websocket without Connection",
            get("upgrade: websocket\r\nsec-websocket-key: eA==\r\n"),
            Answered(200),
            One(&[Without("upgrade"), Without("connection")]),
        ),
        case(
            "Upgrade: websocket on a POST with a body",
            post("connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 5\r\n", "hello"),
            Answered(200),
            One(&[Without("upgrade"), Body("hello")]),
        ),
        case(
            "Upgrade: websocket, answered 200, with a request behind it",
            get("connection: upgrade\r\nupgrade: websocket\r\n") + "GET /second### HTTP/1.1\r\nhost: shop.test\r\n\r\n",
            Each(2, 200),
            Pipelined(2),
        ),
        case(
            "Upgrade in HTTP/1.0",
            "GET /outer### HTTP/1.0\r\nhost: shop.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            Last(200),
            One(&[Without("upgrade")]),
        ),
    ]
}

fn pipelines() -> Vec<Case> {
    let good = "GET /outer### HTTP/1.1\r\nhost: shop.test\r\n\r\n";
    let second = "GET /second### HTTP/1.1\r\nhost: shop.test\r\n\r\n";
    let last = "GET /second### HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n";
    vec![
        case("two requests in one packet", good.to_string() + second, Each(2, 200), Pipelined(2)),
        case("ten requests in one packet", good.to_string() + &second.repeat(9), Each(10, 200), Pipelined(10)),
        case("a request behind a body", post("content-length: 5\r\n", "hello") + second, Each(2, 200), Pipelined(2)),
        case(
            "a request behind a chunked body",
            post(CHUNKED, "5\r\nhello\r\n0\r\n\r\n") + second,
            Each(2, 200),
            Pipelined(2),
        ),
        case("a request behind `Connection: close`", get("connection: close\r\n") + HIDDEN, Last(200), One(&[])),
        case(
            "a request behind an HTTP/1.0 request",
            "GET /outer### HTTP/1.0\r\nhost: shop.test\r\n\r\n".to_string() + HIDDEN,
            Last(200),
            One(&[]),
        ),
        case(
            "a request behind one that is refused",
            "GET /outer### HTTP/1.1\r\nhost: a b\r\n\r\n".to_string() + HIDDEN,
            Refused(400),
            Nothing,
        ),
        case(
            "a good request, the last, and one behind it",
            good.to_string() + last + HIDDEN,
            Each(2, 200),
            Pipelined(2),
        ),
    ]
}

pub fn groups() -> Vec<Group> {
    let group = |title, cases| Group { title, cases };
    vec![
        group("Content-Length", lengths()),
        group("Transfer-Encoding", codings()),
        group("Chunked bodies", chunked_bodies()),
        group("Request lines", lines()),
        group("Host", hosts()),
        group("Other fields", fields()),
        group("Pipelining", pipelines()),
    ]
}

/// In how many pieces a case is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pieces {
    One,
    Three,
}

/// Over what a case is sent.
#[derive(Clone)]
enum Way {
    Plain,
    Tls(TlsKind),
}

async fn send(address: SocketAddr, way: &Way, case: &Case, number: usize, pieces: Pieces) -> Result<(), String> {
    match way {
        Way::Plain => {
            let raw = Raw::connect_from(address, Some([127, 0, 0, 1].into())).await;
            exchange(raw.map_err(|why| why.to_string())?, case, number, pieces).await
        }
        Way::Tls(kind) => {
            let connected = kind.connect(address, "shop.test").await;
            exchange(connected.map_err(|why| why.to_string())?.raw, case, number, pieces).await
        }
    }
}

async fn exchange<R, W>(mut raw: Raw<R, W>, case: &Case, number: usize, pieces: Pieces) -> Result<(), String>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let bytes = numbered(&case.send, number);
    match pieces {
        // A proxy that has refused and closed reads no more: that is judged by what it answered.
        Pieces::One => drop(raw.write(&bytes).await),
        Pieces::Three => {
            for piece in bytes.chunks(bytes.len().div_ceil(3).max(1)) {
                let _ = raw.write(piece).await;
                // Long enough to be a read of its own, mostly; nothing depends on it.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
    case.client.check(&mut raw, "GET").await
}

/// `###` for the number, in bytes.
fn numbered(template: &[u8], number: usize) -> Vec<u8> {
    let id = format!("{number:03}");
    let mut bytes = template.to_vec();
    for at in 0..bytes.len().saturating_sub(2) {
        if bytes[at..].starts_with(b"###") {
            bytes[at..at + 3].copy_from_slice(id.as_bytes());
        }
    }
    bytes
}

#[tokio::test]
async fn every_request_with_two_readings_has_one_outcome() {
    let mut world = World::new();
    let tap = Tap::start(world.unused()).await;
    world.start(&super::service_at(tap.address)).await;
    all_cases(world, tap, &Way::Plain, &[Pieces::One, Pieces::Three]).await;
}

#[tokio::test]
async fn and_the_same_over_tls() {
    let mut world = World::new();
    Authority::new("ca").issue(&["shop.test"]).write(world.dir.path(), "shop");
    let tap = Tap::start(world.unused()).await;
    let tls = "8080\", tls: { certificates: [{ cert_file: shop.pem, key_file: shop.key }] } }";
    let text = world.preamble().replacen("8080\" }", tls, 1) + &super::service_at(tap.address);
    world.start_text(&text).await;
    all_cases(world, tap, &Way::Tls(TlsKind::new()), &[Pieces::One]).await;
}

/// Sends every case in each of these ways, and judges both ends.
async fn all_cases(mut world: World, tap: Tap, way: &Way, in_pieces: &'static [Pieces]) {
    let address = world.web();
    let cases: Arc<Vec<Case>> = Arc::new(groups().into_iter().flat_map(|group| group.cases).collect());
    let numbers = cases.len() * in_pieces.len();
    assert!(numbers < 1000, "the numbers have three digits");
    let (mut running, mut wrong) = (JoinSet::new(), Vec::new());
    let mut collect = |done: Result<(usize, Pieces, Result<(), String>), tokio::task::JoinError>| {
        let (nth, pieces, result) = done.expect("a client does not panic");
        if let Err(why) = result {
            wrong.push(format!("{} (pieces: {pieces:?}): {why}", cases[nth].name));
        }
    };
    for number in 0..numbers {
        if running.len() >= 16 {
            collect(running.join_next().await.expect("sixteen run"));
        }
        let (cases, way) = (cases.clone(), way.clone());
        running.spawn(async move {
            let (nth, pieces) = (number % cases.len(), in_pieces[number / cases.len()]);
            (nth, pieces, send(address, &way, &cases[nth], number, pieces).await)
        });
    }
    while let Some(done) = running.join_next().await {
        collect(done);
    }
    // What the endpoint has now it has for good.
    world.kill_9();
    tap.all_closed().await;
    let received = tap.received();
    for number in 0..numbers {
        let case = &cases[number % cases.len()];
        let id = format!("{number:03}");
        let of_case: Vec<_> = received.iter().filter(|one| one.target().contains(&id)).collect();
        if let Err(why) = case.endpoint.check(&of_case) {
            wrong.push(format!("{}: {why}", case.name));
        }
    }
    for scrap in tap.scraps() {
        let text = String::from_utf8_lossy(&scrap).into_owned();
        if text.contains("hidden") {
            wrong.push(format!("a hidden request was on its way: {text:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
