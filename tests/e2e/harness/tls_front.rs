//! TLS in front of an origin, and what it saw of who connected.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::tls::{Authority, Pair};

#[derive(Debug, Clone)]
pub struct Handshake {
    pub name: Option<String>,
    pub resumed: bool,
    pub alpn: Option<String>,
    /// The certificate that was shown, in DER.
    pub client: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Shared {
    done: Vec<Handshake>,
    failed: Vec<String>,
    open: u64,
}

/// Hands everything on to the origin. Connections end with it.
pub struct TlsFront {
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    accepting: JoinHandle<()>,
}

impl TlsFront {
    pub async fn start(address: SocketAddr, origin: SocketAddr, pair: &Pair) -> TlsFront {
        TlsFront::with(address, origin, pair, None, &["http/1.1"]).await
    }

    /// `asks`: clients must show a certificate of this authority.
    pub async fn with(
        address: SocketAddr,
        origin: SocketAddr,
        pair: &Pair,
        asks: Option<&Authority>,
        alpn: &[&str],
    ) -> TlsFront {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = match asks {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(vec![pair.der.clone().into()], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
        let listener = TcpListener::bind(address).await.unwrap_or_else(|why| panic!("{address}: {why}"));
        let shared = Arc::<Mutex<Shared>>::default();
        let accepting = tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), origin, shared.clone()));
        TlsFront { address, shared, accepting }
    }

    pub fn handshakes(&self) -> Vec<Handshake> {
        self.shared.lock().unwrap().done.clone()
    }

    /// Connections that are encrypted and not closed.
    pub fn open(&self) -> u64 {
        self.shared.lock().unwrap().open
    }

    pub fn failed(&self) -> Vec<String> {
        self.shared.lock().unwrap().failed.clone()
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, origin: SocketAddr, shared: Arc<Mutex<Shared>>) {
    let mut running = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        running.spawn(async move {
            let _ = stream.set_nodelay(true);
            match acceptor.accept(stream).await {
                Ok(mut secured) => {
                    let session = secured.get_ref().1;
                    let client = session.peer_certificates().and_then(|chain| chain.first()).map(|one| one.to_vec());
                    shared.lock().unwrap().open += 1;
                    shared.lock().unwrap().done.push(Handshake {
                        name: session.server_name().map(String::from),
                        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
                        alpn: session.alpn_protocol().map(|wire| String::from_utf8_lossy(wire).into_owned()),
                        client,
                    });
                    if let Ok(mut to) = TcpStream::connect(origin).await {
                        let _ = to.set_nodelay(true);
                        let _ = tokio::io::copy_bidirectional(&mut secured, &mut to).await;
                    }
                    shared.lock().unwrap().open -= 1;
                }
                Err(why) => shared.lock().unwrap().failed.push(why.to_string()),
            }
        });
    }
}
