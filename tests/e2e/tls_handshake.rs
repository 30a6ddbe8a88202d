//! Handshakes that go wrong, and clients that never finish one: cheap, counted, and in nobody's way.

use std::time::{Duration, Instant};

use crate::harness::tls::{Authority, TlsKind};
use crate::harness::*;
use crate::tls_certificates::serving;

async fn shop(world: &mut World, more: &str) -> Origin {
    Authority::new("ca").issue(&["shop.test"]).write(world.dir.path(), "shop");
    let list = "{ cert_file: shop.pem, key_file: shop.key }";
    let v1 = serving(world, list, "").await;
    if !more.is_empty() {
        world.edit_and_wait(|text| text.replacen("\", tls:", &format!("\", {more}, tls:"), 1)).await;
    }
    v1
}

async fn ended(world: &World, result: &str) -> f64 {
    world.metric("switchback_tls_handshakes_total", &[("result", result)]).await
}

#[tokio::test]
async fn plain_http_is_told_so_and_garbage_is_closed() {
    let mut world = World::new();
    let v1 = shop(&mut world, "").await;
    let mut plain = world.raw().await;
    plain.write(b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
    let seen = plain.answer().await;
    assert_eq!((seen.status, seen.closes()), (400, true));
    assert!(seen.text().contains("https"), "{}", seen.text());
    let mut http2 = world.raw().await;
    http2.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    assert_eq!(http2.answer().await.status, 400);
    drop((plain, http2));
    for garbage in [&b"\x00\x01\x02"[..], b"\xff\xff\xff\xff", b"\x80\x2e\x01\x00\x02", b"ssh-2.0"] {
        let mut raw = world.raw().await;
        raw.write(garbage).await.unwrap();
        assert_eq!(raw.until_closed(Duration::from_secs(5)).await.as_deref(), Some(&b""[..]), "{garbage:?}");
    }
    // Records that are no handshake get an alert and an end.
    let mut raw = world.raw().await;
    raw.write(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00").await.unwrap();
    let alert = raw.until_closed(Duration::from_secs(5)).await.expect("it is closed");
    assert_eq!(alert.first(), Some(&0x15), "{alert:?}");
    assert_eq!(v1.received().len(), 0);
    until("they are counted", || async {
        (ended(&world, "failed").await, ended(&world, "plain_http").await) == (5.0, 2.0)
    })
    .await;
}

#[tokio::test]
async fn old_versions_and_unknown_protocols_are_refused() {
    let mut world = World::new();
    let _v1 = shop(&mut world, "").await;
    world.edit_and_wait(|text| text.replacen("shop.key }]", "shop.key }], min_version: 1.3", 1)).await;
    let (old, new) = (TlsKind::only(&rustls::version::TLS12), TlsKind::only(&rustls::version::TLS13));
    assert!(old.get(world.web(), "shop.test", "/").await.is_err());
    let (tls, seen) = new.clone().offering(&["http/1.1"]).get(world.web(), "shop.test", "/").await.unwrap();
    assert_eq!((tls.alpn.as_deref(), seen.status), (Some("http/1.1"), 200));
    assert!(new.clone().offering(&["spdy/3"]).get(world.web(), "shop.test", "/").await.is_err());
    // Who offers nothing speaks HTTP/1.1.
    assert_eq!(new.get(world.web(), "shop.test", "/").await.unwrap().1.status, 200);
}

#[tokio::test]
async fn a_handshake_has_a_deadline_and_a_shutdown_does_not_wait_for_it() {
    let mut world = World::new();
    let _v1 = shop(&mut world, "timeouts: { handshake: 300ms }").await;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00";
    let mut slow = [world.raw().await, world.raw().await];
    slow[1].write(hello).await.unwrap();
    let began = Instant::now();
    for raw in &mut slow {
        raw.until_closed(Duration::from_secs(5)).await.expect("it is closed");
    }
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(ended(&world, "timeout").await, 2.0);
    world.edit_and_wait(|text| text.replacen("handshake: 300ms", "handshake: 1h", 1)).await;
    let _silent = world.raw().await;
    let mut begun = world.raw().await;
    begun.write(hello).await.unwrap();
    until("both are there", || async { world.metric("switchback_tls_handshakes_open", &[]).await == 2.0 }).await;
    let began = Instant::now();
    assert_eq!(world.terminate().await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

#[tokio::test]
async fn clients_that_never_finish_keep_nobody_out() {
    let mut world = World::new();
    let _v1 = shop(&mut world, "limits: { handshakes: 20 }, timeouts: { handshake: 1h }").await;
    let mut slow = Vec::new();
    for _ in 0..60 {
        let mut raw = world.raw().await;
        raw.write(b"\x16\x03\x01\x02\x00\x01\x00").await.unwrap();
        slow.push(raw);
    }
    until("all places are taken", || async { world.metric("switchback_tls_handshakes_open", &[]).await == 20.0 }).await;
    let began = Instant::now();
    for _ in 0..10 {
        assert_eq!(TlsKind::new().get(world.web(), "shop.test", "/").await.unwrap().1.status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(ended(&world, "displaced").await >= 1.0);
    assert!(world.metric("switchback_tls_handshakes_open", &[]).await <= 20.0);
}
