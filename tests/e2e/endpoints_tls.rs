//! TLS to endpoints: who is spoken to, who we are to them, and that nothing unverified or plain is ever sent.

use std::net::SocketAddr;
use std::process::Command;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::harness::tls::{Authority, Pair, replace};
use crate::harness::tls_front::TlsFront;
use crate::harness::world::binary;
use crate::harness::*;

pub fn text(endpoint: &str, more: &str) -> String {
    let mut text = format!(
        "routes:\n  - {{ name: all, match: {{ path_prefix: / }}, service: shop }}\nservices:\n  shop:\n    versions: {{ v1: {{ \
         endpoints: [\"{endpoint}\"] }} }}\n    active: v1\n    hold: {{ max_wait: 0s }}\n"
    );
    for line in more.lines() {
        text += &format!("    {line}\n");
    }
    text
}

fn tls(at: SocketAddr, tls: &str) -> String {
    text(&at.to_string(), &format!("upstream: {{ tls: {tls}, keepalive: {{ idle: 1h }} }}"))
}

async fn becomes(world: &World, rest: &str) {
    world.edit_and_wait(|_| world.preamble() + rest).await;
}

async fn said(world: &World) -> String {
    world.version_status("shop", "v1").await["endpoints"][0]["last_change"].as_str().unwrap_or_default().into()
}

/// An origin behind TLS for `shop.test`, and its authority, which is in `ca.pem`.
async fn secured(world: &World) -> (Origin, TlsFront, Authority) {
    let (origin, authority) = (world.origin("v1").await, Authority::new("endpoints"));
    replace(&world.path("ca.pem"), &authority.pem);
    let front = TlsFront::start(world.unused(), origin.address, &authority.issue(&["shop.test"])).await;
    (origin, front, authority)
}

#[tokio::test]
async fn a_trusted_endpoint_is_spoken_to_securely_and_handshakes_are_rare() {
    let mut world = World::new();
    let (origin, front, _ca) = secured(&world).await;
    let checked =
        "upstream: { tls: { ca_file: ca.pem, sni: shop.test } }\nhealth: { path: /healthz, every: 200ms, pass: 1 }";
    world.start(&text(&front.address.to_string(), checked)).await;
    until("its check passes, over TLS", || async { world.health("shop", "v1").await == "healthy" }).await;
    let mut client = world.client();
    for nth in 0..20 {
        assert_eq!(client.get("/").await.status, 200, "GET {nth}");
    }
    let body = vec![b'x'; 60_000];
    let echoed = client.post("/echo", &body).await;
    assert_eq!((echoed.status, echoed.body.len()), (200, body.len()));
    let fresh = origin.received().iter().filter(|one| one.nth == 1 && one.target() != "/healthz").count();
    assert!(fresh <= 4, "connections are kept: {fresh} for 21 requests on as many data threads");
    let seen = front.handshakes();
    assert!(seen.iter().all(|one| one.name.as_deref() == Some("shop.test")), "{seen:?}");
    assert!(seen.iter().all(|one| one.alpn.as_deref() == Some("http/1.1")), "{seen:?}");
    // What a handshake needs was made once: whoever comes back is known.
    let resumed = || front.handshakes().iter().filter(|one| one.resumed).count();
    until("a session is resumed", || async { resumed() >= 2 }).await;
    assert_eq!(front.failed(), [""; 0]);
}

#[tokio::test]
async fn whoever_cannot_be_verified_gets_nothing() {
    let mut world = World::new();
    let (origin, front, ca) = secured(&world).await;
    replace(&world.path("other.pem"), &Authority::new("other").pem);
    let old: Pair = ca.issue_with(&["shop.test"], |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let expired = TlsFront::start(world.unused(), origin.address, &old).await;
    let plain = world.unused();
    let listener = TcpListener::bind(plain).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    world.start(&text(&front.address.to_string(), "")).await;
    let cases = [
        (front.address, "{ ca_file: other.pem, sni: shop.test }", "is not trusted: no authority that is trusted here"),
        (front.address, "{ ca_file: ca.pem, sni: wrong.test }", "wrong.test is not trusted: it is for shop.test"),
        // Its address is what it must prove if nothing else is said, and the certificate has none.
        (front.address, "{ ca_file: ca.pem }", "is not trusted: it is for shop.test"),
        (expired.address, "{ ca_file: ca.pem, sni: shop.test }", "shop.test is not trusted: it has expired"),
        // They speak no TLS at all: one says so, one waits for a request.
        (plain, "{ ca_file: ca.pem, sni: shop.test }", "does not speak TLS"),
        (origin.address, "{ ca_file: ca.pem, sni: shop.test }", "did not finish the TLS handshake within 500ms"),
    ];
    for (at, how, why) in cases {
        becomes(&world, &(tls(at, how) + "    timeouts: { connect: 500ms }\n")).await;
        let answer = world.get("/secret").await;
        let status = if at == origin.address { 504 } else { 502 };
        assert_eq!(answer.status, status, "{how}: {}", answer.text());
        assert!(!answer.text().contains("trusted"), "clients learn nothing: {}", answer.text());
        let said = said(&world).await;
        assert!(said.contains(why), "{how}: {said}");
    }
    assert!(world.log().contains("TLS to an endpoint failed"));
    let connect = world.metric("switchback_request_errors_total", &[("service", "shop"), ("class", "connect")]).await;
    assert_eq!(connect, cases.len() as f64);
    let asked: Vec<String> = origin.received().iter().map(|one| one.target().to_string()).collect();
    assert!(!asked.contains(&"/secret".to_string()), "nothing was asked in the clear or of a stranger: {asked:?}");
    assert!(front.handshakes().is_empty(), "no handshake was finished");
    becomes(&world, &tls(front.address, "{ ca_file: ca.pem, sni: shop.test }")).await;
    assert_eq!(world.get("/").await.status, 200, "well again once it is told whom to trust");
}

#[tokio::test]
async fn a_connection_of_one_definition_is_never_used_under_another() {
    let mut world = World::new();
    let (_origin, front, _ca) = secured(&world).await;
    replace(&world.path("other.pem"), &Authority::new("other").pem);
    world.start(&tls(front.address, "{ ca_file: ca.pem, sni: shop.test }")).await;
    let mut client = world.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let made = front.handshakes().len();
    // An edit of something else keeps them.
    becomes(&world, &tls(front.address, "{ ca_file: ca.pem, sni: shop.test }").replace("0s", "1s")).await;
    assert_eq!((client.get("/").await.status, front.handshakes().len()), (200, made));
    // They are open for an hour, and verified by somebody who is not believed any more.
    becomes(&world, &tls(front.address, "{ ca_file: other.pem, sni: shop.test }")).await;
    assert_eq!(client.get("/").await.status, 502);
    // The same with the content of a file.
    becomes(&world, &tls(front.address, "{ ca_file: ca.pem, sni: shop.test }")).await;
    assert_eq!(world.get("/").await.status, 200);
    replace(&world.path("ca.pem"), &Authority::new("another").pem);
    until("the changed file is used", || async { world.get("/").await.status == 502 }).await;
}

#[tokio::test]
async fn an_endpoint_that_asks_who_we_are_is_told_and_a_renewed_certificate_is_shown() {
    let mut world = World::new();
    let (origin, theirs, ours) = (world.origin("v1").await, Authority::new("theirs"), Authority::new("ours"));
    replace(&world.path("ca.pem"), &theirs.pem);
    let first = ours.issue_with(&[], |_| {});
    first.write(world.dir.path(), "proxy");
    let front = world.unused();
    let front = TlsFront::with(front, origin.address, &theirs.issue(&["shop.test"]), Some(&ours), &["http/1.1"]).await;
    world.start(&tls(front.address, "{ ca_file: ca.pem, sni: shop.test }")).await;
    assert_eq!(world.get("/").await.status, 502);
    assert_eq!(origin.requests(), 0);
    let said = said(&world).await;
    assert!(said.contains("asks for a client certificate"), "{said}");

    let known = "{ ca_file: ca.pem, sni: shop.test, cert_file: proxy.pem, key_file: proxy.key }";
    becomes(&world, &tls(front.address, known)).await;
    assert_eq!(world.get("/").await.status, 200);
    let shown = || front.handshakes().last().and_then(|one| one.client.clone());
    assert_eq!(shown(), Some(first.der.clone()));

    // A pair that does not fit is refused, and what serves goes on.
    ours.issue(&["other.test"]).write(world.dir.path(), "other");
    world.edit_config(|text| text.replace("key_file: proxy.key", "key_file: other.key"));
    until("it is refused", || async { world.status().await["config"].to_string().contains("does not belong") }).await;
    assert_eq!(world.get("/").await.status, 200);
    world.edit_config(|text| text.replace("key_file: other.key", "key_file: proxy.key"));

    // Renewed on disk: no edit, no signal.
    let second = ours.issue(&["proxy.test"]);
    second.write(world.dir.path(), "proxy");
    until("the new one is shown", || async {
        assert_eq!(world.get("/").await.status, 200);
        shown() == Some(second.der.clone())
    })
    .await;
    // What cannot be used is told, and the one before goes on.
    replace(&world.path("proxy.pem"), "rubbish");
    until("it is told", || async {
        world.metric("switchback_endpoint_tls_files_good", &[("service", "shop")]).await == 0.0
    })
    .await;
    let warnings = world.status().await["warnings"].to_string();
    assert!(warnings.contains("files for TLS to endpoints cannot be used"), "{warnings}");
    assert_eq!(world.get("/").await.status, 200);
    let left = world.metric("switchback_endpoint_tls_certificate_expiry_seconds", &[("service", "shop")]).await;
    assert!(left > 1e9, "{left}");
}

#[tokio::test]
async fn without_a_file_the_system_says_whom_to_trust() {
    let mut world = World::new();
    let (_origin, front, _ca) = secured(&world).await;
    world.write_config(&(world.preamble() + &tls(front.address, "{ sni: shop.test }")));
    let mut command = Command::new(binary());
    command
        .args(["run", "--no-supervisor", "--threads", "2", "-c", "switchback.yaml"])
        .env("SSL_CERT_FILE", world.path("ca.pem"));
    world.spawn_command(command);
    world.ready().await;
    assert_eq!(world.get("/").await.status, 200);
}

#[tokio::test]
async fn not_to_verify_is_possible_and_said() {
    let mut world = World::new();
    let (_origin, front, _ca) = secured(&world).await;
    world.start(&tls(front.address, "{ verify: off, insecure: true }")).await;
    assert_eq!(world.get("/").await.status, 200);
    let warnings = world.status().await["warnings"].to_string();
    assert!(warnings.contains("endpoints of this service are not verified"), "{warnings}");
    let checked = world.cli(&["check", "-c", world.config().to_str().unwrap()]).await;
    assert!(format!("{checked:?}").contains("endpoints of this service are not verified"), "{checked:?}");
    assert_eq!(front.handshakes()[0].name, None, "an address is not sent as a name");
}
