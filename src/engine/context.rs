//! What one request carries through the engine's phases. Dropping it is the one place where the request is
//! accounted for, so a cancelled exchange, a panic or a vanished client leaks nothing.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::admit::Admitted;
use super::app::Incoming;
use super::compress::Encoder;
use super::gate::Connecting;
use super::grpc::{self, Call};
use super::headers;
use super::hedge::Hedging;
use super::held::Held;
use super::judged::Judged;
use super::origin::Origin;
use super::recall::{Recall, Why};
use super::request_id;
use super::services::Services;
use crate::config::model::Outlier;
use crate::endpoints::{At, EndpointRuntime, Place, VersionCore, VersionRuntime};
use crate::evidence::RequestId;
use crate::net::{Deadline, Fate, Link, clock};
use crate::outcome::ErrorClass;
use crate::routing::table::CompiledService;
use crate::routing::{Choice, RouteIdx, ServiceIdx, Thread};
use crate::sessions::Kind;
use crate::telemetry::access_log::AccessRecord;
use crate::wire::Upgrade;

/// Where a request goes.
#[derive(Debug)]
pub struct Destination {
    pub service: ServiceIdx,
    pub choice: Choice,
    pub anyway: bool,
    pub cookie: Option<HeaderValue>,
    /// What to ask the endpoint for, if it is not what the client sent.
    pub path_and_query: Option<String>,
}

/// The endpoint that works on the request now.
#[derive(Debug)]
pub struct Attempt {
    pub endpoint: Arc<EndpointRuntime>,
    pub at: At,
    /// Its place, if the endpoint has a limit.
    pub place: Option<Place>,
    pub reused: bool,
    /// Only while latency decides about endpoints.
    pub began: Option<Instant>,
}

#[derive(Debug)]
pub struct Context {
    pub services: Arc<Services>,
    pub link: Arc<Link>,
    pub client: Arc<headers::Client>,
    /// Whose request it is.
    pub origin: Origin,
    pub admitted: Admitted,
    /// Makes the answer's body smaller. Never shared: the engine demands `Sync`.
    pub encoder: Option<Mutex<Encoder>>,
    pub upgrade: Option<Upgrade>,
    pub held: Arc<Held>,
    pub thread: Thread,
    pub started: Instant,
    pub route: Option<RouteIdx>,
    pub service: Option<ServiceIdx>,
    pub destination: Option<Destination>,
    pub attempt: Option<Attempt>,
    pub hedging: Hedging,
    /// Incarnations of endpoints that failed the request, one entry per attempt.
    pub tried: Vec<u64>,
    pub attempts: u32,
    /// Every endpoint was full.
    pub is_crowded: bool,
    /// Interim answers so far.
    pub interim: u8,
    /// The connection to the endpoint carries other requests as well.
    pub shared: bool,
    /// It makes one that others wait for.
    pub connecting: Option<Connecting>,
    /// The second chance after a stale pooled connection has been used.
    pub stale_retried: bool,
    pub judged: Judged,
    /// The request was the canary's and is answered by stable.
    pub shielded: bool,
    /// Whether it is to be copied for the canary was decided.
    pub mirrored: bool,
    pub recall: Arc<Recall>,
    /// The present attempt can be recalled: `recall` knows of it.
    pub recallable: bool,
    /// The client knows no chunked coding: an answer without length ends with the connection.
    pub ends_with_connection: bool,
    pub grpc: Option<Arc<Call>>,
    /// The outcome of the call, once the endpoint has said it.
    pub grpc_status: Option<u8>,
    pub kind: Kind,
    /// Of the final answer, once it is being written; 0 before.
    pub status: u16,
    pub first_byte: Option<Duration>,
    pub connected: Option<Duration>,
    /// Body bytes of the answer; what an exchange that was cut has sent is counted with its head.
    pub body_bytes: Option<u64>,
    pub error: Option<ErrorClass>,
    fate: Option<Fate>,
    /// The name that came with the request, kept only while somebody may ask for it.
    pub sent_id: Option<HeaderValue>,
    /// What the request is called, once somebody has asked.
    id: Option<RequestId>,
    /// Request line for the access log, only kept while that is on.
    pub line: Option<Box<RequestLine>>,
}

/// What the access log says of the request itself.
#[derive(Debug, Clone)]
pub struct RequestLine {
    pub method: http::Method,
    pub host: String,
    pub path: String,
    pub has_query: bool,
    pub protocol: &'static str,
    pub user_agent: Option<String>,
}

impl Context {
    pub fn new(services: Arc<Services>, incoming: Incoming, held: Arc<Held>, thread: Thread) -> Context {
        let Incoming { link, client, upgrade, recall, grpc } = incoming;
        Context {
            services,
            origin: Origin::peer(link.client.ip()),
            admitted: Admitted::default(),
            encoder: None,
            link,
            client,
            upgrade,
            held,
            thread,
            started: Instant::now(),
            route: None,
            service: None,
            destination: None,
            attempt: None,
            hedging: Hedging::Not,
            tried: Vec::new(),
            attempts: 0,
            is_crowded: false,
            interim: 0,
            shared: false,
            connecting: None,
            stale_retried: false,
            judged: Judged::Not,
            shielded: false,
            mirrored: false,
            recall,
            recallable: false,
            ends_with_connection: false,
            grpc,
            grpc_status: None,
            kind: Kind::Http,
            status: 0,
            first_byte: None,
            connected: None,
            body_bytes: None,
            error: None,
            fate: None,
            sent_id: None,
            id: None,
            line: None,
        }
    }

    /// Whose request it is, by what proxies that are believed say.
    pub fn learn_origin(&mut self, headers: &http::HeaderMap) {
        let listener = self.link.listener().config.load();
        let trusted = &listener.policy.trusted_proxies;
        if !trusted.is_empty() {
            self.origin = Origin::of(self.link.client.ip(), headers, trusted);
        }
    }

    pub fn compiled_service(&self) -> Option<&CompiledService> {
        let destination = self.destination.as_ref()?;
        Some(self.held.snapshot.generation.table.service(destination.service))
    }

    /// The id that the client sent, or one that is made now: a good request that nobody logs needs none.
    pub fn request_id(&mut self) -> RequestId {
        let sent = self.sent_id.as_ref().and_then(|sent| RequestId::sent(sent.as_bytes()));
        *self.id.get_or_insert_with(|| sent.unwrap_or_else(|| request_id::make(self.thread)))
    }

    /// What the request is called, as a field; `None` if requests are not named.
    pub fn name(&mut self) -> Option<(http::HeaderName, HeaderValue)> {
        let header = self.held.snapshot.generation.table.config.request_id.as_ref()?.header.clone();
        let id = self.request_id();
        Some((header, HeaderValue::from_str(id.as_str()).expect("an id is visible ASCII")))
    }

    /// The request now counts as in flight on its version.
    pub fn begin(&self) {
        if let Some(core) = self.version_core() {
            core.in_flight.begin(self.thread, self.kind);
            self.link.connection.begin(core.slot, self.services.live.nanos_at(self.started) / 1_000_000);
            if let Some(call) = &self.grpc {
                call.on(Some(core));
            }
        }
    }

    /// It is no longer in flight on its version, because it goes to another one.
    pub fn leave_version(&self) {
        if let Some(core) = self.version_core() {
            core.in_flight.end(self.thread, self.kind);
            self.link.connection.end();
            if let Some(call) = &self.grpc {
                call.on(None);
            }
        }
    }

    /// The exchange turned out to be a stream.
    pub fn becomes(&mut self, kind: Kind) {
        if let Some(core) = self.version_core() {
            core.in_flight.becomes(self.thread, self.kind, kind);
            self.link.connection.becomes(kind);
        }
        self.kind = kind;
    }

    /// A new endpoint works on the request.
    pub fn attempt_at(&mut self, attempt: Attempt) {
        self.end_attempt();
        attempt.endpoint.begin(self.thread);
        self.attempts += 1;
        self.judged = Judged::Not;
        self.attempt = Some(attempt);
        self.time_attempt();
    }

    /// The answer of the present attempt begins, or will not come. Says why it was recalled, if it was.
    pub fn waits_no_more(&mut self) -> Option<Why> {
        if !std::mem::take(&mut self.recallable) {
            return None;
        }
        // Should the engine not have noticed yet: the next attempt is not meant.
        self.link.take_interrupt();
        self.recall.settle()
    }

    pub fn end_attempt(&mut self) {
        self.waits_no_more();
        self.abandon_race();
        if let Some(attempt) = self.attempt.take() {
            attempt.endpoint.end(self.thread);
        }
    }

    /// The last attempt failed in a way that says something about its endpoint.
    pub fn attempt_failed(&self) {
        self.time_endpoint(true);
        let (Some(version), Some(service)) = (self.version(), self.compiled_service()) else { return };
        for attempt in self.under_way() {
            self.services.passive.failed(&attempt.endpoint, version, service.service.outlier.as_ref());
            if self.compares_endpoints() {
                attempt.endpoint.tally.failed(self.thread);
            }
        }
    }

    /// One attempt, or two while they race.
    fn under_way(&self) -> impl Iterator<Item = &Attempt> {
        self.attempt.iter().chain(self.hedging.first())
    }

    /// The answer begins; nobody is asked for the time who does not want to know.
    pub fn note_first_byte(&mut self) {
        if self.line.is_some() || self.compares_endpoints() {
            self.first_byte = Some(self.started.elapsed());
        }
    }

    pub(super) fn compares_endpoints(&self) -> bool {
        let outlier = self.compiled_service().and_then(|service| service.service.outlier.as_ref());
        outlier.is_some_and(Outlier::compares)
    }

    /// Its answer began, or it failed: how long that took.
    pub fn time_endpoint(&self, failed: bool) {
        for attempt in self.under_way() {
            let Some(began) = attempt.began else { continue };
            let latency = &attempt.endpoint.latency;
            match failed {
                true => latency.failed(micros(began.elapsed()), clock::now_ms()),
                false => latency.answered(micros(began.elapsed()), clock::now_ms()),
            }
        }
    }

    /// The version that the request goes to.
    pub(super) fn version(&self) -> Option<&Arc<VersionRuntime>> {
        let destination = self.destination.as_ref()?;
        Some(self.held.snapshot.runtime.service(destination.service).version(destination.choice.version))
    }

    pub(super) fn version_core(&self) -> Option<&Arc<VersionCore>> {
        Some(&self.version()?.core)
    }

    /// How a call of gRPC ended: as the endpoint said, or as its client learns that it did not say so.
    fn call_ended(&self) -> u8 {
        match (self.grpc_status, self.fate, self.error) {
            (Some(said), ..) => said,
            (None, Some(Fate::ClientGone), _) => grpc::CANCELLED,
            (None, Some(Fate::Cut(_)), _) => grpc::UNAVAILABLE,
            // It left before the end of an answer that had begun well.
            (None, _, Some(ErrorClass::DownstreamAbort)) if self.status < 400 => grpc::CANCELLED,
            (None, _, Some(_)) => grpc::status_for(self.status),
            (None, _, None) => grpc::UNKNOWN,
        }
    }

    /// Status and class of an exchange that the engine did not finish.
    fn settle(&mut self) {
        let (status, class) = match self.fate {
            None | Some(Fate::ClientGone | Fate::Deadline(Deadline::Write)) => (499, ErrorClass::DownstreamAbort),
            Some(Fate::Deadline(Deadline::Body)) => (408, ErrorClass::DownstreamAbort),
            Some(Fate::Deadline(Deadline::Response | Deadline::Attempt | Deadline::Silence | Deadline::Total)) => {
                (504, ErrorClass::Timeout)
            }
            Some(Fate::Cut(_)) => (503, ErrorClass::Local),
        };
        if self.status == 0 {
            self.status = status;
        }
        let is_endpoints_fault = match self.fate {
            Some(Fate::Deadline(Deadline::Response | Deadline::Attempt | Deadline::Silence)) => true,
            // It runs from the beginning; what an endpoint has begun to answer it may still be sending.
            Some(Fate::Deadline(Deadline::Total)) => !self.link.is_answered() && self.link.request_complete(),
            Some(Fate::Deadline(Deadline::Body | Deadline::Write) | Fate::Cut(_) | Fate::ClientGone) | None => false,
        };
        if is_endpoints_fault && self.kind == Kind::Http {
            self.attempt_failed();
            self.judge_failure();
        }
        // A silent tunnel that is closed, and a stream that is asked to come back, are no failures.
        let is_orderly = self.kind.is_stream()
            && matches!(self.fate, Some(Fate::Deadline(Deadline::Silence) | Fate::Cut(_) | Fate::ClientGone));
        if self.error.is_none() && !is_orderly {
            self.error = Some(class);
        }
    }

    fn log(&mut self, took: Duration) {
        let Some(line) = self.line.take() else { return };
        let request_id = self.request_id();
        let generation = &self.held.snapshot.generation;
        let destination = self.destination.as_ref();
        let service = destination.map(|to| generation.table.service(to.service));
        self.services.access_log.submit(AccessRecord {
            at: crate::telemetry::unix_ms(),
            request_id,
            client: self.origin.client,
            peer: Some(self.link.client.ip().to_canonical()).filter(|peer| *peer != self.origin.client),
            listener: self.link.connection.listener.clone(),
            method: line.method,
            host: line.host,
            path: line.path,
            has_query: line.has_query,
            protocol: line.protocol,
            status: self.status,
            request_bytes: self.link.bytes_received(),
            response_bytes: self.body_bytes.unwrap_or_else(|| self.link.bytes_written()),
            duration_us: micros(took),
            ttfb_us: self.first_byte.map(micros),
            connect_us: self.connected.map(micros),
            generation: generation.number(),
            route: self.route.map(|route| generation.table.route_at(route).route.name.clone()),
            service: service.map(|service| service.name.clone()),
            version: destination.zip(service).map(|(to, service)| service.version_name(to.choice.version).clone()),
            endpoint: self.attempt.as_ref().map(|attempt| attempt.at.clone()),
            reason: destination.map(|to| to.choice.reason.as_str()),
            kind: self.kind,
            error: self.error,
            attempts: self.attempts,
            hedge: self.hedging.outcome(),
            user_agent: line.user_agent,
        });
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Drop for Context {
    fn drop(&mut self) {
        self.fate = self.link.fate();
        if self.grpc.as_ref().is_some_and(|call| call.is_stream()) {
            self.kind = Kind::Grpc;
        }
        if self.status == 0 || self.fate.is_some() {
            self.settle();
        }
        if self.error.is_some() && self.ends_with_connection {
            self.link.set_truncated();
        }
        let is_whole = self.error.is_none() && !matches!(self.status, 502..=504);
        if let Some(attempt) = self.attempt.as_ref().filter(|_| is_whole) {
            self.services.passive.succeeded(&attempt.endpoint);
            if self.compares_endpoints() {
                // The wait of a first attempt is the endpoint's alone.
                let is_its_own = self.attempts == 1 || (self.attempts == 2 && self.hedging.first_won());
                let waited = self.first_byte.filter(|_| is_its_own);
                match self.status {
                    500.. => attempt.endpoint.tally.failed(self.thread),
                    _ => attempt.endpoint.tally.answered(self.thread, waited),
                }
            }
        }
        let took = self.started.elapsed();
        self.judge_end(took);
        let snapshot = &self.held.snapshot;
        let version = self.destination.as_ref().map(|to| to.choice.version);
        snapshot.codes.codes(&snapshot.generation, self.route, version).count(self.thread, self.status);
        if let Some(core) = self.version_core() {
            if let Some(class) = self.error {
                core.meter.failed(self.thread, class);
            }
            // How long a stream stayed says nothing about how fast the version is.
            if !self.kind.is_stream() {
                core.meter.answered(self.thread, took);
            }
            if self.grpc.is_some() {
                core.grpc.count(self.thread, self.call_ended());
            }
            core.in_flight.end(self.thread, self.kind);
            self.link.connection.end();
        } else if let (Some(service), Some(class)) = (self.service, self.error) {
            // Refused before a version was chosen.
            snapshot.runtime.service(service).core.errors.count(class);
        }
        self.log(took);
        self.end_attempt();
    }
}
