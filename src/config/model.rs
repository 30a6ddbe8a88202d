//! The configuration once every name is resolved, every default filled in and every value checked.
//!
//! This is what the rest of the program sees. The text as the user wrote it (with places, for
//! messages) is [`super::raw`]; the checks between the two are [`super::check`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

mod dns;
pub mod endpoints;
mod http2;
pub mod networks;
pub mod policy;
pub mod resilience;
pub mod rollout;
pub mod tls;
pub mod upstream;

pub use dns::{AddressFamily, Dns};
pub use endpoints::{Balance, BalanceBy, Endpoint, EndpointAddress, HashKey};
pub use http2::{Http2, Protocol};
pub use networks::Networks;
pub use policy::{
    Access, Coding, Compression, ListenerPolicy, Maintenance, MediaType, ProxyMode, ProxyProtocol, RateKey, RateLimit,
    RequestIds, RoutePolicy, ServicePolicy,
};
pub use resilience::{Outlier, Retry, RetryMethods, RetryOn, SlowRule, SuccessRule};
// All but `Strategy`, which tests know as a trait of proptest.
pub use rollout::{
    Channel, CrashesRule, CustomEvent, CustomRule, ErrorsRule, Freeze, Gate, Guardrails, HookPoint, LatencyBelow,
    LatencyRule, NoticeKind, Notification, PromoteWhen, Proof, Rollout, Secret, Shield, Stage, StageMatch,
    StageTraffic, Then, Webhook, Weekday, WindowRule,
};
pub use upstream::{ProxyHeader, Trust, Upstream, UpstreamTls, Verify};

/// A name given by the user: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
pub type Name = Arc<str>;

/// A whole configuration. Services, versions and listeners are ordered by name, routes as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Journal, history, admin token. `None` keeps everything in memory (demo, `--stateless`).
    pub state_dir: Option<PathBuf>,
    pub listeners: BTreeMap<Name, Listener>,
    pub admin: Admin,
    pub expose: Expose,
    pub access_log: AccessLog,
    pub request_id: Option<RequestIds>,
    pub shutdown: Shutdown,
    pub upgrade: Upgrade,
    pub dns: Dns,
    pub routes: Vec<Route>,
    pub services: BTreeMap<Name, Service>,
    /// Who may approve a stage that names the gate.
    pub gates: BTreeMap<Name, Gate>,
    /// Who is told what rollouts do.
    pub notifications: BTreeMap<Name, Notification>,
    /// Routing cases that must hold before a configuration is published.
    pub expect: Vec<Expect>,
}

/// A socket that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub bind: SocketAddr,
    /// `None`: plain HTTP.
    pub tls: Option<Arc<tls::Tls>>,
    pub timeouts: ListenerTimeouts,
    pub limits: ListenerLimits,
    pub policy: ListenerPolicy,
    pub http2: Http2,
}

/// How long a client may take. All are upper bounds on waiting for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTimeouts {
    /// From accept to the end of the TLS handshake. Default 10 s.
    pub handshake: Duration,
    /// From the first byte of a request head to its last; 408 after that. Default 10 s.
    pub header: Duration,
    /// Between two requests on one connection, and before the first. Default 75 s.
    pub idle: Duration,
    /// Between two reads of a request body; 408 after that. Default 30 s.
    pub body: Duration,
    /// For one write to make progress towards a client that does not read. Default 60 s.
    pub write: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Client connections open at once on this listener; more wait in the kernel's queue. Default 65 536.
    pub connections: usize,
    /// TLS handshakes at once; beyond that the oldest that makes no progress makes room. Default 4096.
    pub handshakes: usize,
    /// Bytes of a request head, request line included; 431 above. Default 32 KiB.
    pub header_bytes: usize,
    /// Header fields of a request; 431 above. Default 100.
    pub header_fields: usize,
    /// Bytes of a request target; 414 above. Default 8 KiB.
    pub target_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    pub bind: AdminBind,
    /// Allows a non-loopback TCP address although the API is plain HTTP.
    pub insecure: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminBind {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expose {
    /// Adds `x-switchback-{generation,version,reason}` to responses.
    pub response_headers: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    pub to: AccessLogTarget,
    /// Lines that may wait for the writer; more are dropped and counted. Default 8192.
    pub buffer: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTarget {
    Off,
    Stdout,
    File(PathBuf),
}

/// What SIGTERM does, in this order. The sum of the defaults stays under Docker's 10 s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// Readiness is off but new connections are still accepted. Default 2 s.
    pub pre_drain: Duration,
    /// Idle keep-alive connections are kept this long so that a request on its way is answered. Default 1 s.
    pub linger: Duration,
    /// Everything still running this long after the signal is cut. Default 9 s.
    pub timeout: Duration,
}

/// How a new process takes over from the one that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// For the new process to be ready. Default 30 s.
    pub ready_timeout: Duration,
    /// Idle keep-alive connections are kept this long by the one before. Default 10 s.
    pub linger: Duration,
    /// What still runs in it after this is cut. Default 10 min.
    pub drain: Duration,
}

impl Default for Upgrade {
    fn default() -> Upgrade {
        let secs = Duration::from_secs;
        Upgrade { ready_timeout: secs(30), linger: secs(10), drain: secs(600) }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub name: Name,
    pub matcher: Match,
    pub policy: RoutePolicy,
    pub action: Action,
}

/// All given parts must match.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Match {
    pub host: HostMatch,
    pub path: PathMatch,
    /// Empty: any method.
    pub methods: Vec<Method>,
    pub headers: Vec<(HeaderName, ValueMatch)>,
    pub query: Vec<(String, ValueMatch)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostMatch {
    #[default]
    Any,
    /// Lower case, without port.
    Exact(String),
    /// `*.example.com` is kept as `example.com`; matches one or more labels in front of it.
    Wildcard(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PathMatch {
    #[default]
    Any,
    Exact(String),
    /// Ends at a segment: `/api` matches `/api` and `/api/x`, never `/apiary`.
    Prefix(String),
    /// Anchored as written by the user; tried on the normalised path.
    Regex(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueMatch {
    Present,
    Exact(String),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Forward { service: Name, rewrite: Rewrite },
    Redirect { to: String, status: u16 },
    Respond { status: u16, headers: Vec<(HeaderName, HeaderValue)>, body: String },
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rewrite {
    /// Replaces what matched: the prefix of `path_prefix`, or the part that a `path_regex` matched, which then
    /// begins with `^`. `None` with any other match.
    pub path_prefix: Option<String>,
    /// Replaces the Host sent to the endpoint.
    pub host: Option<HeaderValue>,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
}

/// Applied in this order: remove, set, add.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeaderEdits {
    pub remove: Vec<HeaderName>,
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub versions: BTreeMap<Name, Version>,
    pub intent: Intent,
    /// How a changed `active` reaches all clients. `None`: at once. Always `None` with a split.
    pub rollout: Option<Rollout>,
    pub sticky: Option<Sticky>,
    pub force: Option<Force>,
    pub balance: Balance,
    pub health: Option<Health>,
    pub outlier: Option<Outlier>,
    /// Hundredths of a percent: with fewer endpoints ready, all are asked.
    pub panic_below_bp: u32,
    /// Requests that one version may work on at once. Default none.
    pub circuit: Option<u64>,
    pub retry: Retry,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub upstream: Upstream,
    pub drain: Drain,
    pub hold: Hold,
    pub policy: ServicePolicy,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    /// At least one, no duplicates.
    pub endpoints: Vec<Endpoint>,
    /// Any text. Another text says that the same addresses run another build: a rejected version
    /// becomes eligible again when its endpoints or its revision change.
    pub revision: Option<String>,
}

/// What the file says should be live.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Intent {
    /// `active: X`: everything to one version.
    Active(Name),
    /// `split`: weights, at least one above 0, reduced sum at most 10 000. A listed 0 is *draining*,
    /// an absent version is *off*.
    Split(BTreeMap<Name, u32>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sticky {
    /// Proxy-issued opaque cookie. `ttl: None` makes it a session cookie.
    Cookie {
        name: String,
        ttl: Option<Duration>,
    },
    Header(HeaderName),
    ClientIp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Force {
    pub header: HeaderName,
    /// With a token the header's value is `version:token`, compared in constant time; without, `version`.
    pub token: Option<String>,
    /// Where the token was read: what is shown instead of it.
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Health {
    pub check: HealthCheck,
    pub every: Duration,
    pub timeout: Duration,
    /// Passes in a row that make an endpoint healthy.
    pub pass: u32,
    /// Failures in a row that make it unhealthy.
    pub fail: u32,
    /// Hundredths of a percent by which a wait may be longer or shorter.
    pub jitter_bp: u32,
    /// The longest time that an endpoint which comes and goes must pass. 0: nothing is damped.
    pub damping: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HealthCheck {
    Http {
        path: String,
        host: Option<String>,
        status: Vec<RangeInclusive<u16>>,
        /// Differs for each process.
        instance: Option<HeaderName>,
    },
    /// grpc.health.v1; empty: the endpoint as a whole.
    Grpc {
        service: String,
        host: Option<String>,
    },
    Tcp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connect to an endpoint. Default 2 s.
    pub connect: Duration,
    /// From the end of the request head to the response head, retries included; 504 after that. Default 60 s.
    pub request: Duration,
    /// Longest silence of an endpoint in the middle of a response body. Default 75 s. Streams
    /// (`text/event-stream`) are exempt.
    pub idle: Duration,
    /// Longest silence on an upgraded connection (WebSocket), both ways together. Default 1 h.
    pub upgrade_idle: Duration,
    /// The whole exchange, head to last byte, for everything but streams. Default none.
    pub total: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Request body bytes; 413 above. Default 64 MiB; `None` is unlimited.
    pub body: Option<u64>,
    /// Requests in flight for the whole service; 503 with Retry-After above. Default none.
    pub in_flight: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// Plain requests may finish for this long. Default 30 s.
    pub requests: Duration,
    /// WebSockets and event streams may stay for this long. Default 10 min.
    pub streams: Duration,
    /// Pinned clients may start new requests on a draining version for this long. Default: as `streams`.
    pub sessions: Duration,
    /// Streams that reach the deadline are ended evenly over this window. Default 30 s.
    pub reconnect_spread: Duration,
}

/// Waiting instead of 503 while a service has no ready endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Longest wait; 0 answers 503 at once. Default 5 s.
    pub max_wait: Duration,
    /// Requests that may wait at once; more get 503. Default 1024.
    pub max_requests: usize,
}

/// One routing case: the request and what must become of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Expect {
    pub method: Method,
    /// Absolute URL; only host, path and query count.
    pub url: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub want: Want,
    /// Where it was written: `file:line`.
    pub place: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Want {
    pub route: Option<Name>,
    pub service: Option<Name>,
    pub version: Option<Name>,
    pub status: Option<u16>,
}
