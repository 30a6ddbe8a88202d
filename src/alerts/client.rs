//! One request to the outside, with a deadline for all of it.
//!
//! No redirects are followed: a signed request, or one with a routing key, goes where the configuration says and
//! nowhere else. No connection is kept: a notice is rare, and one that fails on a connection that was closed
//! meanwhile would be late. The answer is read up to a bound. HTTPS trusts the system's certificates
//! (`SSL_CERT_FILE` overrides them), which are read when the first address with `https` is asked.

use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;

type Plain = legacy::Client<HttpConnector, Full<Bytes>>;
type Tls = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

const USER_AGENT: &str = concat!("switchback/", env!("CARGO_PKG_VERSION"));

/// A client for all destinations. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Client {
    plain: Plain,
    tls: Arc<OnceLock<Result<Tls, String>>>,
}

/// One request to be sent.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub method: Method,
    pub url: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Bytes of the answer's body that are read.
    pub answer_max: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Its beginning, if it was longer than asked for.
    pub body: Vec<u8>,
    pub whole: bool,
}

impl Default for Client {
    fn default() -> Client {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Client { plain: unpooled().build(connector), tls: Arc::default() }
    }
}

fn unpooled() -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder.pool_max_idle_per_host(0);
    builder
}

impl Client {
    /// The error says what was wrong, without the address.
    pub(super) async fn ask(&self, ask: &Ask, within: Duration) -> Result<Answer, String> {
        match tokio::time::timeout(within, self.exchange(ask)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {within:?}")),
        }
    }

    async fn exchange(&self, ask: &Ask) -> Result<Answer, String> {
        let uri: Uri = ask.url.parse().map_err(|error| format!("its address cannot be used: {error}"))?;
        let is_tls = uri.scheme_str() == Some("https");
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = ask.headers.clone();
        let agent = header::HeaderValue::from_static(USER_AGENT);
        request.headers_mut().insert(header::USER_AGENT, agent);
        let response = match is_tls {
            true => self.tls()?.request(request).await,
            false => self.plain.request(request).await,
        };
        let (head, mut body) = response.map_err(|error| causes(&error))?.into_parts();
        let mut answer = Answer { status: head.status, headers: head.headers, body: Vec::new(), whole: true };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("its answer broke off: {}", causes(&error)))?;
            let Some(data) = frame.data_ref() else { continue };
            let left = ask.answer_max - answer.body.len();
            answer.body.extend_from_slice(&data[..data.len().min(left)]);
            if data.len() > left {
                answer.whole = false;
                break;
            }
        }
        Ok(answer)
    }

    fn tls(&self) -> Result<&Tls, String> {
        let made = self.tls.get_or_init(|| {
            let builder = HttpsConnectorBuilder::new()
                .with_provider_and_native_roots(ring::default_provider())
                .map_err(|error| format!("HTTPS cannot be used, no trusted certificates: {error}"))?;
            Ok(unpooled().build(builder.https_only().enable_http1().build()))
        });
        made.as_ref().map_err(String::clone)
    }
}

/// An error with what caused it.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::CertifiedKey;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Its address, and its certificate, which no system knows.
    async fn https_server() -> (String, CertificateDer<'static>) {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let certificate = cert.der().clone();
        let trusted = certificate.clone();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they belong together");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                // A client that does not trust it goes away.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") && stream.read_buf(&mut asked).await.is_ok_and(|read| read > 0) {}
                let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
                stream.write_all(answer).await.expect("writable");
                stream.shutdown().await.ok();
            }
        });
        (format!("https://localhost:{port}/"), trusted)
    }

    fn get(url: String) -> Ask {
        Ask { method: Method::GET, url, headers: HeaderMap::new(), body: Bytes::new(), answer_max: 1_024 }
    }

    fn trusting(certificate: CertificateDer<'static>) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("one that can be trusted");
        let config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().build();
        let tls = OnceLock::from(Ok(unpooled().build(connector)));
        Client { tls: Arc::new(tls), ..Client::default() }
    }

    #[tokio::test]
    async fn https_is_asked_where_its_certificate_is_trusted_and_nowhere_else() {
        let (url, certificate) = https_server().await;
        let trusting = trusting(certificate);
        let answer = trusting.ask(&get(url.clone()), Duration::from_secs(10)).await;
        assert_eq!(answer.expect("an answer").status, StatusCode::NO_CONTENT);
        let wrong = Client::default().ask(&get(url.clone()), Duration::from_secs(10)).await.unwrap_err();
        assert!(wrong.contains("certificate"), "{wrong}");
        let elsewhere = url.replace("localhost", "127.0.0.1");
        let wrong = trusting.ask(&get(elsewhere), Duration::from_secs(10)).await.unwrap_err();
        assert!(wrong.contains("certificate not valid for name"), "{wrong}");
    }
}
