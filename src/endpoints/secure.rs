//! TLS to endpoints: one rustls configuration for all connections of a service, made when what it is made of
//! changes and never for a handshake, so that sessions are resumed.
//!
//! It is immutable. Another configuration, or other content of its files, is another one with another number, and
//! connections are pooled by that number: what was verified by one definition is never used under another.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tickets::Sessions;
use crate::config::model::tls::Alpn;
use crate::config::model::{EndpointAddress, Trust, UpstreamTls};

/// How connections to the endpoints of a service are encrypted.
pub struct Secure {
    /// What it was made from.
    pub of: Arc<UpstreamTls>,
    /// Unique in this process.
    pub number: u32,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure").field("of", &self.of).field("number", &self.number).finish_non_exhaustive()
    }
}

impl Secure {
    pub fn new(of: Arc<UpstreamTls>) -> Secure {
        static NEXT_NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Secure { http1: client(&of, Alpn::Http11), http2: client(&of, Alpn::H2), of, number }
    }

    /// With an endpoint that must prove `name`, for a connection that will speak this and nothing else. `Err`: why
    /// there is none, as [`explain`] says it.
    pub async fn handshake<S>(&self, name: &ServerName<'static>, alpn: Alpn, stream: S) -> Result<TlsStream<S>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(self.client(alpn).clone());
        let secured = connector.connect(name.clone(), stream).await.map_err(|error| explain(&error, name))?;
        match (alpn, secured.get_ref().1.alpn_protocol()) {
            // Who does not know ALPN speaks HTTP/1.1.
            (Alpn::Http11, _) | (Alpn::H2, Some(b"h2")) => Ok(secured),
            (Alpn::H2, _) => Err(NO_HTTP2.into()),
        }
    }

    /// For connections that speak this, and nothing else.
    fn client(&self, alpn: Alpn) -> &Arc<ClientConfig> {
        match alpn {
            Alpn::Http11 => &self.http1,
            Alpn::H2 => &self.http2,
        }
    }

    /// The name that an endpoint is asked for and must prove.
    pub fn name(&self, endpoint: &EndpointAddress) -> ServerName<'static> {
        let name = match (&self.of.sni, endpoint) {
            (Some(name), _) => ServerName::try_from(name.clone()).ok(),
            (None, EndpointAddress::Ip(address)) => Some(ServerName::from(address.ip())),
            (None, EndpointAddress::Name { host, .. }) => ServerName::try_from(host.clone()).ok(),
            (None, EndpointAddress::Unix(_)) => None,
        };
        // Without a name nothing is verified, or the configuration would have been refused; an address is not sent.
        name.unwrap_or(ServerName::from(IpAddr::from([0; 4])))
    }
}

fn client(of: &UpstreamTls, alpn: Alpn) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 need");
    let builder = match &of.trust {
        Trust::File { roots, .. } | Trust::System(roots) => builder.with_root_certificates(roots.store.clone()),
        Trust::Blind => builder.dangerous().with_custom_certificate_verifier(Arc::new(Blind(provider))),
    };
    let mut config = match &of.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let shown = rustls::sign::CertifiedKey::new(identity.material.chain.clone(), identity.material.key.clone());
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)))
        }
    };
    config.resumption = Resumption::store(Arc::new(Sessions::new()));
    config.alpn_protocols = vec![alpn.wire().to_vec()];
    Arc::new(config)
}

/// Believes whoever answers, but not that somebody else has signed.
#[derive(Debug)]
struct Blind(Arc<CryptoProvider>);

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Where a service keeps its [`Secure`]: replaced in place when its files change.
#[derive(Debug)]
pub struct SecureCell {
    now: ArcSwap<Secure>,
    /// Why the files, as they are now, cannot be used.
    pub trouble: ArcSwapOption<String>,
}

impl SecureCell {
    pub fn new(of: Arc<UpstreamTls>) -> SecureCell {
        SecureCell { now: ArcSwap::from_pointee(Secure::new(of)), trouble: ArcSwapOption::empty() }
    }

    pub fn load(&self) -> arc_swap::Guard<Arc<Secure>> {
        self.now.load()
    }

    pub fn get(&self) -> Arc<Secure> {
        self.now.load_full()
    }

    /// From now on.
    pub fn swap(&self, of: Arc<UpstreamTls>) {
        self.now.store(Arc::new(Secure::new(of)));
        self.trouble.store(None);
    }
}

/// The endpoint was asked for HTTP/2 and did not agree.
const NO_HTTP2: &str = "the endpoint does not speak HTTP/2 over TLS, and `protocol: h2` is configured";

/// Why a handshake with an endpoint failed, for operators. `name` is what it was to prove.
fn explain(error: &io::Error, name: &ServerName<'_>) -> String {
    let name = name.to_str();
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "the endpoint closed the connection during the TLS handshake".into(),
            _ => format!("TLS handshake: {error}"),
        };
    };
    said(error, &name)
}

fn said(error: &Error, name: &str) -> String {
    match error {
        Error::InvalidCertificate(why) => format!("certificate of {name} is not trusted: {}", untrusted(why)),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the endpoint asks for a client certificate, and none is configured (`cert_file`)".into()
        }
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the endpoint does not speak what `protocol` says over TLS".into()
        }
        Error::AlertReceived(alert) => format!("the endpoint refused the TLS handshake: {alert:?}"),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "the endpoint does not speak TLS".into(),
        other => format!("TLS handshake: {other}"),
    }
}

fn untrusted(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => "no authority that is trusted here has issued it".into(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not good yet".into(),
        CertificateError::NotValidForName => "it is for another name".into(),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "it is for no name".into()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            // As rustls has it: `DnsName("a.test")`.
            let bare = |name: &String| name.split('"').nth(1).unwrap_or(name).to_string();
            let names: Vec<String> = presented.iter().take(8).map(bare).collect();
            format!("it is for {}", names.join(", "))
        }
        other => other.to_string(),
    }
}

/// An error on a connection that was made: it may still be the endpoint's word on the handshake (TLS 1.3 clients are
/// done before servers have looked at their certificate).
pub fn explain_late(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(Error::AlertReceived(alert)) = inner(error) {
            return Some(said(&Error::AlertReceived(*alert), ""));
        }
        next = error.source();
    }
    None
}

fn inner<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Error> {
    let from_io = || error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<Error>();
    error.downcast_ref::<Error>().or_else(from_io)
}

#[cfg(test)]
mod tests {
    use rustls::HandshakeKind;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinSet;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// So many handshakes at once; how many were resumed.
    async fn handshakes(secure: &Arc<Secure>, count: usize, at: std::net::SocketAddr) -> usize {
        let mut all = JoinSet::new();
        let together = Arc::new(tokio::sync::Barrier::new(count));
        for _ in 0..count {
            let (secure, together) = (secure.clone(), together.clone());
            all.spawn(async move {
                let stream = TcpStream::connect(at).await.expect("it listens");
                let name = ServerName::try_from("shop.test").expect("a name");
                let mut stream = secure.handshake(&name, Alpn::Http11, stream).await.expect("it is believed");
                // None of them gives its tickets to another of this round.
                together.wait().await;
                assert_eq!(stream.read_u8().await.expect("a byte"), b'x');
                stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
            });
        }
        all.join_all().await.into_iter().filter(|resumed| *resumed).count()
    }

    #[tokio::test]
    async fn many_handshakes_at_once_are_resumed() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["shop.test".to_string()]).expect("a name");
        let certificate = params.self_signed(&key).expect("signed").der().clone();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().expect("ring has them").with_no_client_auth();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let mut config = builder.with_single_cert(vec![certificate], key).expect("they belong together");
        config.ticketer = rustls::crypto::ring::Ticketer::new().expect("chance");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("bound");
        let serving = tokio::spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                all.spawn(async move {
                    let mut stream = acceptor.accept(stream).await.expect("a handshake");
                    stream.write_all(b"x").await.expect("it reads");
                    let _ = stream.read_u8().await;
                });
            }
        });
        let of = UpstreamTls { trust: Trust::Blind, sni: None, identity: None };
        let secure = Arc::new(Secure::new(Arc::new(of)));
        assert_eq!(handshakes(&secure, 30, at).await, 0);
        assert_eq!(handshakes(&secure, 30, at).await, 30);
        serving.abort();
    }
}
