//! HTTP/2 over TLS: negotiated, and otherwise the same.

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::harness::http2::{H2Client, request};
use crate::harness::tls::{Authority, TlsKind};
use crate::harness::*;
use crate::tls_certificates::serving;

async fn shop(world: &mut World) -> Origin {
    Authority::new("ca").issue(&["shop.test"]).write(world.dir.path(), "shop");
    serving(world, "{ cert_file: shop.pem, key_file: shop.key }", "").await
}

async fn h2_over_tls(world: &World) -> H2Client {
    let tcp = TcpStream::connect(world.web()).await.expect("the listener accepts");
    let connector = TlsConnector::from(TlsKind::new().offering(&["h2", "http/1.1"]).config);
    let tls = connector.connect(ServerName::try_from("shop.test").unwrap(), tcp).await.expect("a handshake");
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    H2Client::over(tls, &h2::client::Builder::new()).await
}

#[tokio::test]
async fn clients_that_offer_it_get_it_and_endpoints_are_told_https() {
    let mut world = World::new();
    let v1 = shop(&mut world).await;
    let client = h2_over_tls(&world).await;
    let asked = (0..20).map(|nth| {
        let client = &client;
        async move { client.get(&format!("/{nth}")).await }
    });
    for seen in futures_util::future::join_all(asked).await {
        assert_eq!((seen.status, seen.is_whole()), (200, true), "{seen:?}");
    }
    let last = v1.last();
    assert_eq!((last.field("x-forwarded-proto"), last.field("host")), (Some("https"), Some("shop.test")));
    let large = client.get("/bytes/3000000").await;
    assert_eq!((large.body.len(), large.is_whole()), (3_000_000, true));
    assert_eq!(client.post("/", &vec![7; 500_000]).await.status, 200);
    assert_eq!(v1.last().body_bytes, 500_000);
    // Who offers HTTP/1.1 alone, or nothing, gets that.
    for offer in [&["http/1.1"][..], &[]] {
        let (tls, seen) = TlsKind::new().offering(offer).get(world.web(), "shop.test", "/").await.unwrap();
        assert_eq!((tls.alpn.as_deref(), seen.status), (offer.first().copied(), 200));
    }
    // Nobody begins with the preface who negotiated something else.
    let mut wrong = TlsKind::new().offering(&["http/1.1"]).connect(world.web(), "shop.test").await.unwrap();
    wrong.raw.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    assert_eq!(wrong.raw.answer().await.status, 505);
}

#[tokio::test]
async fn a_drain_over_tls_ends_the_stream_alone() {
    let mut world = World::new();
    let v1 = shop(&mut world).await;
    let client = h2_over_tls(&world).await;
    let mut events = client.begin(request("GET", "/sse", &[]), true).await.unwrap().head().await;
    v1.tick();
    assert!(events.next().await.is_some());
    world.signal(libc::SIGTERM);
    let events = events.rest().await;
    assert!(events.is_whole() && events.text().ends_with(": switchback: shutting down, reconnect\n\n"), "{events:?}");
    assert!(client.end().await.is_ok());
    assert_eq!(world.exit(std::time::Duration::from_secs(15)).await.code(), Some(3));
}
