//! Two parsers read every request: `wire`, then the engine. What the first lets through, the second must read in
//! the same way, or one of them can be made to see a request that the other does not.

use pingora_core::protocols::http::v1::server::HttpSession;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use crate::wire::{self, BodyTracker, HeadLimits, Parsed};

const LIMITS: HeadLimits = HeadLimits { bytes: 8192, fields: 64, target_bytes: 2048 };

/// What one side made of a request.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    method: String,
    target: Vec<u8>,
    host: Option<Vec<u8>>,
    payload: u64,
}

/// What `wire` makes of the first request in `bytes`, and the bytes that it gives to the engine for it.
/// `None` if it is refused or not complete.
fn by_wire(bytes: &[u8]) -> Option<(Seen, Vec<u8>)> {
    let Parsed::Complete(head) = wire::parse(bytes, 0, &LIMITS) else { return None };
    let (own, rest) = bytes[head.skip..].split_at(head.len);
    let mut passed = wire::origin_form(&head, own).unwrap_or_else(|| own.to_vec());
    let Parsed::Complete(head) = wire::parse(&passed, 0, &LIMITS) else { panic!("a rewritten head is a head") };
    let mut body = BodyTracker::new(head.body);
    let admitted = body.admit(rest).ok()?;
    if !body.is_done() {
        return None;
    }
    let target = match head.target {
        wire::TargetForm::Origin { path } => path.of(&passed).to_vec(),
        wire::TargetForm::Asterisk => b"*".to_vec(),
        wire::TargetForm::Absolute { .. } => panic!("rewritten"),
    };
    let seen = Seen {
        method: String::from_utf8(head.method.of(&passed).to_vec()).unwrap(),
        target,
        host: head.host.map(|host| host.of(&passed).to_vec()),
        payload: body.data_bytes(),
    };
    passed.extend_from_slice(&rest[..admitted]);
    Some((seen, passed))
}

/// What the engine makes of these bytes, arriving in pieces; `None` if it refuses them or waits for more.
async fn by_engine(bytes: &[u8], piece: usize) -> Option<Seen> {
    let (mut client, stream) = tokio::io::duplex(piece);
    let mut session = HttpSession::new(Box::new(stream));
    let read = async {
        session.read_request().await.ok().flatten()?;
        let mut payload = 0;
        while let Some(part) = session.read_body_bytes().await.ok()? {
            payload += part.len() as u64;
        }
        let request = session.req_header();
        Some(Seen {
            method: request.method.to_string(),
            target: request.raw_path().to_vec(),
            host: request.headers.get("host").map(|host| host.as_bytes().to_vec()),
            payload,
        })
    };
    let write = async {
        client.write_all(bytes).await.expect("the session reads until it is dropped");
        // Left open: the request must end by its own framing.
        std::future::pending::<()>().await
    };
    tokio::select! {
        seen = read => seen,
        () = write => None,
        () = tokio::time::sleep(std::time::Duration::from_secs(5)) => None,
    }
}

fn agree(bytes: &[u8], piece: usize) -> bool {
    let Some((seen, passed)) = by_wire(bytes) else { return false };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(false).build().unwrap();
    let engine = runtime.block_on(by_engine(&passed, piece));
    assert_eq!(engine, Some(seen), "{:?}", String::from_utf8_lossy(&passed));
    true
}

#[test]
fn the_engine_reads_what_wire_lets_through_in_the_same_way() {
    let requests = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET /a|^{}\\[]~;?b=c|d^e`{}\\ HTTP/1.1\r\nHost: a:80\r\nX: \u{e9}\r\n\r\n",
        "GET /!$%&'()*+,-./:;=?@[]^_{|}~?/?@%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET //a@b/../c HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /http://u@x/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://Shop.test:80/x HTTP/1.1\r\nHost: other\r\n\r\n",
        "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: [::1]:1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "HEAD / HTTP/1.0\r\nHost: a:\r\nConnection: keep-alive\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0005\r\n\r\nhelloGET /x HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0;x\r\nT: 1\r\nu:\r\n\r\nGET /x",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0000000000000002\r\n\r\n\r\n00\r\n\r\n0\r\n\r\n",
    ];
    for request in requests {
        for piece in [1, 2, 3, 5, 64, 4096] {
            assert!(agree(request.as_bytes(), piece), "{request:?} is good");
        }
    }
    let limit = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\nx\r\n0\r\n{}\r\n",
        "e".repeat(4000),
        "x: y\r\n".repeat(64)
    );
    assert!(agree(limit.as_bytes(), 100), "the engine's own limits are wider");
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "GET / ",
        "POST /a?b ",
        "GET http://b:1/x ",
        "OPTIONS * ",
        "PUT //x@y ",
        "GET /\\..;a ",
    ]);
    let version = prop::sample::select(vec!["HTTP/1.1\r\n", "HTTP/1.1\r\n", "HTTP/1.0\r\n"]);
    let fields = prop::collection::vec(
        prop::sample::select(vec![
            "X: y\r\n",
            "Content-Length: 5\r\n",
            "Content-Length: 0\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Connection: close, x\r\n",
            "Upgrade: websocket\r\n",
            "Expect: 100-continue\r\n",
            "Transfer_Encoding: chunked\r\n",
            "content-length : 5\r\n",
            "X:\t\u{e9} \r\n",
            "Host: b\r\n",
            "Transfer-Encoding:\tchunked \r\n",
            "X: y\r\n z\r\n",
        ]),
        0..4,
    );
    let body = prop::collection::vec(
        prop::sample::select(vec![
            "5\r\nhello\r\n",
            "0\r\n\r\n",
            "hello",
            "5;a\r\nhello\r\n",
            "0\r\nT: 1\r\n\r\n",
            "\r\n",
            ";x\r\n",
            "0",
            "1\r\n",
            "\n",
            "2\r\n\r\n\r\n",
            "a",
            "00\r\n",
            "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
        ]),
        0..6,
    );
    (line, version, fields, body).prop_map(|(line, version, fields, body)| {
        format!("{line}{version}Host: a\r\n{}\r\n{}", fields.concat(), body.concat()).into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn no_request_has_two_readings(bytes in hostile(), piece in 1usize..60) {
        agree(&bytes, piece);
    }
}
