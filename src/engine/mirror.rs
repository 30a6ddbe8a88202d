//! The mirror stage of a rollout as the data threads see it: which requests are copied, and the queue that copies leave by.
//!
//! The client is stable's; the copy must never cost it anything. So a copy is made only of a request that nobody waits
//! to be the second of: a safe method without a body. (A copied order would be placed twice.) It is what stable was
//! asked, with `x-switchback-mirror: 1`, and is sent and read by the control runtime ([`super::copies`]). A queue that
//! is full loses copies, never time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Uri};
use http_body_util::Empty;
use pingora_http::RequestHeader;
use tokio::sync::mpsc;

use super::context::Context;
use super::entropy;
use crate::analysis::Arm;
use crate::config::model::Name;
use crate::endpoints::dial::Line;
use crate::endpoints::{Ask, Place, pick};
use crate::evidence::{Beside, Trial};
use crate::net::clock;
use crate::rollout::Judge;
use crate::telemetry::names;

/// Tells the canary that nobody sees its answer.
const MARK: HeaderName = HeaderName::from_static("x-switchback-mirror");
/// Copies that wait to be sent; more are dropped.
const WAITING_MAX: usize = 1_024;

/// A request to the canary, and who learns of the answer.
pub struct Mirrored {
    pub service: Name,
    pub trial: Arc<Trial<Judge>>,
    /// The endpoint's life.
    pub incarnation: u64,
    pub line: Line,
    /// Held until the copy is answered, or thrown away.
    pub place: Option<Place>,
    pub made: Instant,
    pub timeouts: CopyTimeouts,
    pub request: Request<Empty<Bytes>>,
}

#[derive(Debug, Clone, Copy)]
pub struct CopyTimeouts {
    pub connect: Duration,
    /// For all of the exchange.
    pub exchange: Duration,
    /// A pooled connection is not used after so long.
    pub idle: Duration,
}

/// The data threads' end of the queue.
#[derive(Debug, Clone)]
pub struct Mirror {
    queue: mpsc::Sender<Mirrored>,
}

impl Mirror {
    pub fn new() -> (Mirror, mpsc::Receiver<Mirrored>) {
        let (queue, copies) = mpsc::channel(WAITING_MAX);
        (Mirror { queue }, copies)
    }

    /// Never waits.
    fn send(&self, copy: Mirrored) {
        if let Err(mpsc::error::TrySendError::Full(copy) | mpsc::error::TrySendError::Closed(copy)) =
            self.queue.try_send(copy)
        {
            count(&copy.service, "dropped");
        }
    }
}

/// `answered`, `failed` or `dropped`.
pub fn count(service: &Name, result: &'static str) {
    metrics::counter!(names::MIRRORED_TOTAL, "service" => service.to_string(), "result" => result).increment(1);
}

impl Context {
    /// Copies the request if its rollout is in a mirror stage and the lot says so. `client` is the request as it
    /// came, `sent` as it goes to stable.
    pub fn mirror(&mut self, client: &RequestHeader, sent: &RequestHeader) {
        // A second try at stable is the same request: the lot is drawn once.
        if std::mem::replace(&mut self.mirrored, true) {
            return;
        }
        let Some((stamped, Arm::Stable)) = self.trial() else { return };
        let Beside::Mirror(bp) = stamped.beside else { return };
        let is_copyable = client.method.is_safe() && has_no_body(&client.headers) && self.upgrade.is_none();
        if !is_copyable || stamped.trial.is_withdrawn() || !stamped.trial.is_copied(self.thread, bp) {
            return;
        }
        if let (Some(destination), Some(service)) = (&self.destination, self.compiled_service()) {
            let runtime = self.held.snapshot.runtime.service(destination.service);
            let ask = Ask::new(self.thread, clock::now_ms(), entropy::next());
            let picked = pick(runtime.version(stamped.canary), &ask).ok();
            let picked = picked.and_then(|picked| Some((Line::to(&picked.endpoint, runtime)?, picked)));
            match picked.zip(copy_of(sent)) {
                Some(((line, picked), request)) => self.services.mirror.send(Mirrored {
                    service: service.name.clone(),
                    trial: stamped.trial.clone(),
                    incarnation: picked.endpoint.incarnation,
                    line,
                    place: picked.place,
                    made: Instant::now(),
                    timeouts: CopyTimeouts {
                        connect: service.service.timeouts.connect,
                        exchange: service.service.timeouts.request,
                        idle: picked
                            .endpoint
                            .keeping
                            .now()
                            .idle
                            .unwrap_or(Duration::MAX)
                            .min(service.service.upstream.keepalive_idle),
                    },
                    request,
                }),
                // No endpoint is ready, or it is a target that only an HTTP/1 parser takes.
                None => count(&service.name, "dropped"),
            }
        }
    }
}

/// RFC 9112 section 6: without either field there is none.
fn has_no_body(headers: &HeaderMap) -> bool {
    let is_empty = headers.get(CONTENT_LENGTH).is_none_or(|length| length.as_bytes() == b"0");
    is_empty && !headers.contains_key(TRANSFER_ENCODING)
}

fn copy_of(sent: &RequestHeader) -> Option<Request<Empty<Bytes>>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = sent.method.clone();
    *request.uri_mut() = Uri::try_from(sent.raw_path()).ok()?;
    let mut headers = sent.headers.clone();
    for framing in [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION] {
        headers.remove(framing);
    }
    headers.insert(MARK, HeaderValue::from_static("1"));
    *request.headers_mut() = headers;
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_what_was_sent_and_says_that_it_is_one() {
        let mut sent = RequestHeader::build("GET", b"/a/../b?q=%20|x", None).expect("a request");
        for (name, value) in [
            ("host", "shop.test"),
            ("cookie", "a=b"),
            ("via", "1.1 x"),
            ("via", "1.1 switchback"),
            ("content-length", "0"),
        ] {
            sent.append_header(name, value).expect("a field");
        }
        let copy = copy_of(&sent).expect("it can be copied");
        assert_eq!((copy.method().as_str(), copy.uri().to_string().as_str()), ("GET", "/a/../b?q=%20|x"));
        let fields: Vec<String> =
            copy.headers().iter().map(|(name, value)| format!("{name}={}", value.to_str().expect("text"))).collect();
        assert_eq!(
            fields,
            ["host=shop.test", "cookie=a=b", "via=1.1 x", "via=1.1 switchback", "x-switchback-mirror=1"]
        );
    }

    #[test]
    fn only_what_has_no_body_is_copied() {
        for (fields, copied) in [
            (&[][..], true),
            (&[("content-length", "0")], true),
            (&[("content-length", "1")], false),
            (&[("transfer-encoding", "chunked")], false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            assert_eq!(has_no_body(&headers), copied, "{fields:?}");
        }
    }
}
