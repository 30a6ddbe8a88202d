//! The PROXY protocol on the way to endpoints: each client's connections are its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::endpoints_tls::text;
use crate::harness::http2::H2Client;
use crate::harness::http2_origin::H2Origin;
use crate::harness::tls::{Authority, Pair, replace};
use crate::harness::*;

const MAGIC: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The header of a connection, of either version, to its last byte.
async fn header<S: AsyncRead + Unpin>(from: &mut S) -> Vec<u8> {
    let mut header = Vec::new();
    while let Ok(byte) = from.read_u8().await {
        header.push(byte);
        let is_whole = match header.starts_with(b"PROXY") || byte != b'\r' && header.len() == 1 {
            true => byte == b'\n',
            false => header.len() >= 16 && header.len() == 16 + usize::from(header[15]),
        };
        if is_whole || header.len() > 300 {
            break;
        }
    }
    header
}

/// The client's port that a header says; `None`: it is for nobody.
fn port(header: &[u8]) -> Option<u16> {
    match header.strip_prefix(MAGIC) {
        Some(rest) if rest[0] == 0x21 => Some(u16::from_be_bytes([rest[12], rest[13]])),
        Some(_) => None,
        None => String::from_utf8_lossy(header).split(' ').nth(4).and_then(|port| port.parse().ok()),
    }
}

type Headers = Arc<Mutex<Vec<Vec<u8>>>>;

/// Answers every request with the client's port that its connection began with, over TLS if there is a certificate.
async fn announced(at: SocketAddr, pair: Option<&Pair>) -> Headers {
    let acceptor = pair.map(|pair| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let config = builder.with_no_client_auth().with_single_cert(vec![pair.der.clone().into()], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    });
    let listener = TcpListener::bind(at).await.unwrap();
    let seen = Headers::default();
    let told = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let (told, acceptor) = (told.clone(), acceptor.clone());
            tokio::spawn(async move {
                let header = header(&mut from).await;
                told.lock().unwrap().push(header.clone());
                match acceptor {
                    None => answer(from, &header).await,
                    Some(acceptor) => match acceptor.accept(from).await {
                        Ok(secured) => answer(secured, &header).await,
                        Err(why) => panic!("{why}"),
                    },
                }
            });
        }
    });
    seen
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, header: &[u8]) {
    let said = port(header).map_or("nobody".to_string(), |port| port.to_string());
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{said}", said.len());
    let mut asked = Vec::new();
    while matches!(stream.read_buf(&mut asked).await, Ok(1..)) {
        while let Some(end) = asked.windows(4).position(|four| four == b"\r\n\r\n") {
            asked.drain(..end + 4);
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// A client that says which port it came from.
struct Knower(TcpStream);

impl Knower {
    async fn connect(world: &World) -> Knower {
        Knower(TcpStream::connect(world.web()).await.unwrap())
    }

    /// The port that the endpoint took it for.
    async fn asks(&mut self) -> u16 {
        self.0.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        loop {
            assert!(soon("an answer", self.0.read_buf(&mut answer)).await.unwrap() > 0, "closed");
            let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            assert!(head.starts_with("http/1.1 200"), "{text}");
            let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                return body.parse().unwrap();
            }
        }
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }
}

async fn nobody_is_taken_for_somebody_else(upstream: &str, pair: Option<(&Authority, &Pair)>) -> Vec<Vec<u8>> {
    let mut world = World::new();
    if let Some((authority, _)) = pair {
        replace(&world.path("ca.pem"), &authority.pem);
    }
    let at = world.unused();
    let seen = announced(at, pair.map(|(_, pair)| pair)).await;
    world.start(&text(&at.to_string(), &format!("upstream: {{ {upstream}, keepalive: {{ idle: 1h }} }}"))).await;
    // Many clients, whose requests meet in time; some leave and others come to the same data threads.
    let mut clients = JoinSet::new();
    let web = world.web();
    for _ in 0..24 {
        clients.spawn(async move {
            for _ in 0..3 {
                let mut client = Knower(TcpStream::connect(web).await.unwrap());
                for _ in 0..6 {
                    assert_eq!(client.asks().await, client.port());
                }
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.expect("every client is itself");
    }
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 72, "one connection for each of a client's, kept for its other requests");
    let mut client = Knower::connect(&world).await;
    assert_eq!(client.asks().await, client.port());
    seen
}

#[tokio::test]
async fn clients_are_announced_in_text_and_share_no_connection() {
    let seen = nobody_is_taken_for_somebody_else("proxy_protocol: v1", None).await;
    let first = String::from_utf8(seen[0].clone()).unwrap();
    let parts: Vec<&str> = first.trim_end().split(' ').collect();
    assert_eq!((parts[0], parts[1], parts.len(), parts[2] == parts[3]), ("PROXY", "TCP4", 6, false), "{first}");
    assert!(parts[3].starts_with("127.") && parts[5] == "8080", "where it connected to: {first}");
}

#[tokio::test]
async fn clients_are_announced_in_binary_before_tls() {
    let authority = Authority::new("endpoints");
    let pair = authority.issue(&["shop.test"]);
    let tls = "proxy_protocol: v2, tls: { ca_file: ca.pem, sni: shop.test }";
    let seen = nobody_is_taken_for_somebody_else(tls, Some((&authority, &pair))).await;
    assert_eq!((&seen[0][..12], seen[0][12], seen[0][13], seen[0].len()), (MAGIC, 0x21, 0x11, 28), "TCP over IPv4");
}

#[tokio::test]
async fn checks_say_that_nobody_is_behind_them() {
    let mut world = World::new();
    let at = world.unused();
    let seen = announced(at, None).await;
    for (version, said) in [("v1", b"PROXY UNKNOWN\r\n".to_vec()), ("v2", [MAGIC, &[0x20, 0, 0, 0]].concat())] {
        let upstream =
            format!("upstream: {{ proxy_protocol: {version} }}\nhealth: {{ path: /, every: 100ms, pass: 1 }}");
        let text = text(&at.to_string(), &upstream);
        match version {
            "v1" => world.start(&text).await,
            _ => drop(world.edit_and_wait(|_| world.preamble() + &text).await),
        }
        until("a check introduced itself", || async { seen.lock().unwrap().contains(&said) }).await;
        world.until_health("v1", "healthy").await;
    }
}

#[tokio::test]
async fn a_shared_connection_is_one_clients_too() {
    let mut world = World::new();
    let origin = H2Origin::start("v1", world.unused()).await;
    let (at, to) = (world.unused(), origin.address);
    let listener = TcpListener::bind(at).await.unwrap();
    let seen = Headers::default();
    let told = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let told = told.clone();
            tokio::spawn(async move {
                let header = header(&mut from).await;
                told.lock().unwrap().push(header);
                let mut to = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    world.start(&text(&at.to_string(), "upstream: { protocol: h2c, proxy_protocol: v1 }")).await;
    let (one, two) = (H2Client::connect(world.web()).await, H2Client::connect(world.web()).await);
    for nth in 0..10 {
        let path = format!("/{nth}");
        let (a, b) = tokio::join!(one.get(&path), two.get(&path));
        assert_eq!((a.status, b.status), (200, 200));
    }
    let seen = seen.lock().unwrap().clone();
    let mut ports: Vec<u16> = seen.iter().filter_map(|header| port(header)).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!((seen.len(), ports.len()), (2, 2), "{seen:?}");
}

#[tokio::test]
async fn a_connection_is_not_kept_longer_than_the_endpoint_says() {
    let mut world = World::new();
    let origin = world.origin("v1").await;
    origin.add_headers("Keep-Alive: timeout=1, max=100\r\n");
    world.start(&text(&origin.address.to_string(), "upstream: { keepalive: { idle: 1h } }")).await;
    let mut client = world.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let connections = origin.received().iter().filter(|one| one.nth == 1).count();
    assert_eq!(connections, 2, "the first one was made before it was known, and is not used again");
    // The endpoint closes nothing by itself, and the configuration would keep it for an hour.
    until("it is closed before the endpoint would", || async { origin.open() <= 1 }).await;
    assert_eq!(client.get("/").await.status, 200);
}
