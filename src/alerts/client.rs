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
            let provider = rustls::crypto::ring::default_provider();
            let builder = HttpsConnectorBuilder::new()
                .with_provider_and_native_roots(provider)
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
