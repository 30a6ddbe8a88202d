//! Certificates made for one test, and clients that look at what they are shown.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion, SignatureScheme};
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::{Raw, Seen};

/// An authority of one test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate with its key.
pub struct Pair {
    pub cert: String,
    pub key: String,
    pub der: Vec<u8>,
    key_der: Vec<u8>,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_after = date_time_ymd(3000, 1, 1);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_with(names, |_| {})
    }

    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody"));
        params.not_after = date_time_ymd(3000, 1, 1);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem(), der: cert.der().to_vec(), key_der: key.serialize_der() }
    }
}

impl Pair {
    /// As `NAME.pem` and `NAME.key`, each written beside and renamed over.
    pub fn write(&self, dir: &Path, name: &str) {
        replace(&dir.join(format!("{name}.pem")), &self.cert);
        replace(&dir.join(format!("{name}.key")), &self.key);
    }
}

pub fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("the folder is ours");
    std::fs::rename(&beside, path).expect("the folder is ours");
}

/// An OCSP answer that calls the certificate with this serial number good, with an empty signature. RFC 6960.
pub fn ocsp_answer(serial: &[u8], from: &str, to: &str) -> Vec<u8> {
    let tlv = |tag: u8, parts: &[&[u8]]| {
        let content = parts.concat();
        let mut out = vec![tag, 0x82, (content.len() >> 8) as u8, content.len() as u8];
        out.extend(content);
        out
    };
    let algorithm = tlv(0x30, &[&tlv(0x06, &[&[0x2b, 0x0e, 0x03, 0x02, 0x1a]])]);
    let id = tlv(0x30, &[&algorithm, &tlv(0x04, &[&[1; 20]]), &tlv(0x04, &[&[2; 20]]), &tlv(0x02, &[serial])]);
    let next = tlv(0xa0, &[&tlv(0x18, &[to.as_bytes()])]);
    let single = tlv(0x30, &[&id, &[0x80, 0], &tlv(0x18, &[from.as_bytes()]), &next]);
    let responder = tlv(0xa2, &[&tlv(0x04, &[&[3; 20]])]);
    let data = tlv(0x30, &[&responder, &tlv(0x18, &[from.as_bytes()]), &tlv(0x30, &[&single])]);
    let basic = tlv(0x30, &[&data, &algorithm, &tlv(0x03, &[&[0]])]);
    let kind = [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];
    let body = tlv(0x30, &[&tlv(0x06, &[&kind]), &tlv(0x04, &[&basic])]);
    tlv(0x30, &[&[0x0a, 0x01, 0x00], &tlv(0xa0, &[&body])])
}

/// Believes every certificate: the tests compare it themselves. Remembers the last staple.
#[derive(Debug, Default)]
struct Anything {
    staple: Arc<Mutex<Vec<u8>>>,
}

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        staple: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.staple.lock().unwrap() = staple.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::ring::default_provider().signature_verification_algorithms
}

/// A kind of client: what it offers, what it shows, and the tickets it remembers.
#[derive(Clone)]
pub struct TlsKind {
    pub config: Arc<ClientConfig>,
    staple: Arc<Mutex<Vec<u8>>>,
}

impl TlsKind {
    /// Remembers tickets; shows no certificate.
    pub fn new() -> TlsKind {
        TlsKind::with(None, &[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    pub fn only(version: &'static rustls::SupportedProtocolVersion) -> TlsKind {
        TlsKind::with(None, &[version])
    }

    pub fn showing(pair: &Pair) -> TlsKind {
        TlsKind::with(Some(pair), &[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    fn with(pair: Option<&Pair>, versions: &[&'static rustls::SupportedProtocolVersion]) -> TlsKind {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let anything = Anything::default();
        let staple = anything.staple.clone();
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(anything));
        let mut config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::Pkcs8(pair.key_der.clone().into());
                builder.with_client_auth_cert(vec![pair.der.clone().into()], key).unwrap()
            }
        };
        config.resumption = Resumption::in_memory_sessions(64);
        TlsKind { config: Arc::new(config), staple }
    }

    /// The OCSP answer of the last full handshake; empty if there was none.
    pub fn staple(&self) -> Vec<u8> {
        self.staple.lock().unwrap().clone()
    }

    /// Offers these protocols.
    pub fn offering(mut self, alpn: &[&str]) -> TlsKind {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
        self
    }

    /// A handshake for this name.
    pub async fn connect(&self, address: SocketAddr, name: &str) -> io::Result<TlsRaw> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_string()).expect("a name");
        let stream = TlsConnector::from(self.config.clone()).connect(name, tcp).await?;
        let session = stream.get_ref().1;
        let shown = session.peer_certificates().and_then(|chain| chain.first()).map(|der| der.to_vec());
        let seen = TlsSeen {
            shown: shown.unwrap_or_default(),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            version: session.protocol_version().expect("the handshake is over"),
            alpn: session.alpn_protocol().map(|wire| String::from_utf8_lossy(wire).into_owned()),
        };
        let (reader, writer) = split(stream);
        Ok(TlsRaw { tls: seen, raw: Raw::on(reader, writer) })
    }

    /// A handshake and one GET, host and name being the same.
    pub async fn get(&self, address: SocketAddr, name: &str, path: &str) -> io::Result<(TlsSeen, Seen)> {
        let mut connection = self.connect(address, name).await?;
        let seen = connection.get(name, path).await;
        Ok((connection.tls.clone(), seen))
    }
}

/// What a client learns from a handshake.
#[derive(Debug, Clone)]
pub struct TlsSeen {
    /// The server's certificate.
    pub shown: Vec<u8>,
    pub resumed: bool,
    pub version: ProtocolVersion,
    pub alpn: Option<String>,
}

/// One encrypted connection on which exact bytes are sent.
pub struct TlsRaw {
    pub tls: TlsSeen,
    pub raw: Raw<ReadHalf<TlsStream<TcpStream>>, WriteHalf<TlsStream<TcpStream>>>,
}

impl TlsRaw {
    pub async fn get(&mut self, host: &str, path: &str) -> Seen {
        self.get_with(host, path, "").await
    }

    /// `lines`: further header lines, each ending in CRLF.
    pub async fn get_with(&mut self, host: &str, path: &str, lines: &str) -> Seen {
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n");
        // A peer that answers and closes while we still write is judged by its answer.
        let _ = self.raw.write(head.as_bytes()).await;
        self.raw.answer().await
    }
}
