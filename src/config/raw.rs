//! The configuration as written: every key of the format, with its place. What the keys mean together
//! is checked in [`super::check`]; the result is [`super::model`].
//!
//! The docs below are the reference: `docs/configuration.md` and the JSON Schema are made from them.

use serde_json::{Value as Json, json};

use super::decode::{Decode, Field, List, Map, OneOrMany, Scalar, Wrong};
use super::found::Found;
use super::keys::keys;
use super::scalar::{
    AdminBind, AnyText, Bind, BodyLimit, Count, Flag, Header, HeaderText, LogTarget, MethodName, Name, Network,
    Percent, Size, Text, Time, Weight,
};
use super::tree::{Node, Value};

mod dns;
mod endpoints;
mod http2;
mod notices;
mod policy;
mod resilience;
mod rollout;
mod tls;
mod upstream;

pub use dns::Dns;
pub use endpoints::{Balance, Endpoint, HashKey};
pub use http2::Http2;
pub use notices::{Gate, NoticeHook, Notification};
pub use policy::{Access, Compression, Maintenance, ProxyProtocol, RateKey, RateLimit, RequestIds};
pub use resilience::{Circuit, Health, Hedge, Outlier, Retry, RetryOn};
pub use rollout::{
    Custom, Events, Freeze, Guardrails, LatencyBelow, Prometheus, Rollout, Shield, Stage, StageKeys, StageMatch,
    Webhook,
};
pub use tls::{ClientAuth, Tls, TlsCertificate};
pub use upstream::{Upstream, UpstreamTls};

keys! {
    /// A switchback configuration: one YAML file, or a directory of files merged by name.
    Raw {
        /// Format of the file. This version reads 1.
        schema: Schema = default("1"),
        /// Directory for journal, history and the admin token, relative to this file. Without it all of
        /// them live in memory and end with the process.
        state_dir: Text = optional,
        /// Sockets that clients connect to, by name.
        listeners: Map<Name, Listener> = section,
        /// The admin API.
        admin: Admin = section,
        /// What responses tell clients about switchback.
        expose: Expose = section,
        /// One JSON line per request.
        access_log: AccessLog = section,
        /// Names requests. Without it a name that came with a request is passed on as it is, and only the log makes one.
        request_id: RequestIds = optional,
        /// What SIGTERM does. The defaults fit into the 10 s of `docker stop`.
        shutdown: Shutdown = section,
        /// How a new process takes over from the one that serves.
        upgrade: Upgrade = section,
        /// How names of endpoints are looked up.
        dns: Dns = section,
        /// Which request goes where. The most specific match wins: host, then path, then the number of other
        /// matchers; ties by order.
        routes: List<Route> = optional,
        /// Applications, by name.
        services: Map<Name, Service> = section,
        /// Who may approve stages of rollouts, by name.
        gates: Map<Name, Gate> = section,
        /// Who is told what rollouts do, by name.
        notifications: Map<Name, Notification> = section,
        /// Routing cases that must hold before a configuration is published.
        expect: List<Expect> = optional,
    }
}

keys! {
    /// A socket that clients connect to: HTTP/1.1 and HTTP/2, over TLS if it has certificates.
    Listener {
        /// IP address and port to accept on.
        bind: Bind = required,
        /// TLS. Without it, plain HTTP.
        tls: Tls = optional,
        /// How long a client may take.
        timeouts: ListenerTimeouts = section,
        /// How much a client may send.
        limits: ListenerLimits = section,
        /// `off`, or who announces whose connection is passed on (PROXY protocol).
        proxy_protocol: OrOff<ProxyProtocol> = optional,
        /// Networks or addresses of proxies before this one, whose `X-Forwarded-*` and `Forwarded` are believed.
        trusted_proxies: List<Network> = optional,
        /// Which client addresses may connect; others are closed before TLS.
        access: Access = optional,
        /// HTTP/2 connections of clients.
        http2: Http2 = section,
    }
}

keys! {
    /// How long a client may take. All are upper bounds on waiting for the client.
    ListenerTimeouts {
        /// From accept to the end of the TLS handshake.
        handshake: Time<1> = default("10s"),
        /// From the first byte of a request head to its last; 408 after that.
        header: Time<1> = default("10s"),
        /// Between two requests on one connection, and before the first.
        idle: Time<1> = default("75s"),
        /// Between two reads of a request body; 408 after that.
        body: Time<1> = default("30s"),
        /// For one write to make progress towards a client that does not read.
        write: Time<1> = default("60s"),
    }
}

keys! {
    /// How much a client may send.
    ListenerLimits {
        /// Connections open at once; more wait in the kernel's queue.
        connections: Count<1, 10_000_000> = default("65536"),
        /// Connections open at once from one client address, an IPv6 client being its /64; more are closed.
        /// Without it there is no bound.
        connections_per_client: Count<1, 1_000_000> = optional,
        /// TLS handshakes at once. Beyond that the oldest is closed if it has waited for its client for a second;
        /// else the newest waits.
        handshakes: Count<1, 1_000_000> = default("4096"),
        /// A request head, request line included; 431 above.
        header_bytes: Size<1024, 1_048_576> = default("32KiB"),
        /// Header fields of a request; 431 above.
        header_fields: Count<1, 1_000> = default("100"),
        /// A request target; 414 above. At most `header_bytes`.
        target_bytes: Size<64, 1_048_576> = default("8KiB"),
        /// Least bytes a second of a request body while it is waited for, after `timeouts.body` in all; 408 below. Without
        /// it only the single wait is bounded.
        min_body_rate: Size<1, 1_073_741_824> = optional,
        /// Least bytes a second of an answer that a client must take while it is waited for, after `timeouts.write` in
        /// all; its connection is closed below. Without it only the single wait is bounded.
        min_send_rate: Size<1, 1_073_741_824> = optional,
    }
}

keys! {
    /// The admin API.
    Admin {
        /// IP address and port, or `unix:` and a path.
        bind: AdminBind = default("127.0.0.1:9900"),
        /// Allows an address other machines can reach, although the API is plain HTTP.
        insecure: Flag = default("false"),
    }
}

keys! {
    /// What responses tell clients about switchback.
    Expose {
        /// Adds `x-switchback-generation`, `-version` and `-reason` to responses.
        response_headers: Flag = default("false"),
    }
}

keys! {
    /// One JSON line per request, written off the request path.
    AccessLog {
        /// `off`, `stdout`, or a path relative to this file.
        to: LogTarget = default("off"),
        /// Lines that may wait for the writer; more are dropped and counted.
        buffer: Count<1, 1_000_000> = default("8192"),
    }
}

keys! {
    /// What SIGTERM does, in this order.
    Shutdown {
        /// Readiness is off, but new connections are still accepted.
        pre_drain: Time<0> = default("2s"),
        /// Idle keep-alive connections are kept, so that a request on its way is answered.
        linger: Time<0> = default("1s"),
        /// Everything still running this long after the signal is cut. Streams end one after the other before that.
        timeout: Time<1> = default("9s"),
    }
}

keys! {
    /// How a new process takes over from the one that serves. Only under the supervisor.
    Upgrade {
        /// The new process must be ready within this time, or it is ended and the one before stays.
        ready_timeout: Time<1000> = default("30s"),
        /// The one before keeps idle keep-alive connections for this long, so that a request on its way is answered.
        linger: Time<0> = default("10s"),
        /// What still runs in it after this is cut. Streams end before, as the `drain` of their service says.
        drain: Time<1> = default("10m"),
    }
}

keys! {
    /// A match rule and what becomes of the requests it matches: exactly one of `service`, `redirect`, `respond`.
    Route {
        /// Unique; shown by `explain`, metrics and logs.
        name: Name = required,
        /// All given parts must match; nothing given matches everything.
        matcher as "match": Match = section,
        /// Which client addresses may use the route; 403 for others.
        access: Access = optional,
        /// How often each client may ask for this route, besides what its service says.
        rate_limit: RateLimit = optional,
        /// The service that answers.
        service: Name = optional,
        /// Changes made on the way to the service and back. Only with `service`.
        rewrite: Rewrite = optional,
        /// Answers with another place.
        redirect: Redirect = optional,
        /// Answers by itself.
        respond: Respond = optional,
    }
}

keys! {
    /// All given parts must match. At most one of `path`, `path_prefix`, `path_regex`.
    Match {
        /// Host without port: `shop.example.com`, or `*.example.com` for one or more labels in front.
        host: Text = optional,
        /// The whole path, in normal form.
        path: Text = optional,
        /// The beginning of the path, ending at a slash: `/api` matches `/api` and `/api/x`, never `/apiary`.
        path_prefix: Text = optional,
        /// A regular expression on the path, anchored only where it says so.
        path_regex: Text = optional,
        /// One method or a list.
        method: OneOrMany<MethodName> = optional,
        /// By header name: the exact value, or `{ present: true }`.
        headers: Map<Header, ValueMatch> = section,
        /// By parameter: the exact value after decoding, or `{ present: true }`.
        query: Map<Text, ValueMatch> = section,
    }
}

keys! {
    /// Changes made on the way to the service and back.
    Rewrite {
        /// Replaces what `path_prefix` matched, or what a `path_regex` that begins with `^` matched.
        path_prefix: Text = optional,
        /// Replaces the Host sent to the endpoint; the client's goes to `x-forwarded-host`.
        host: Text = optional,
        /// Changes to the request's headers.
        request_headers: HeaderEdits = section,
        /// Changes to the response's headers.
        response_headers: HeaderEdits = section,
    }
}

keys! {
    /// Changes to headers, in this order: `remove`, `set`, `add`. Framing and hop-by-hop headers cannot be changed.
    HeaderEdits {
        /// Names to remove.
        remove: List<Header> = optional,
        /// Names with the value that replaces all others.
        set: Map<Header, HeaderText> = section,
        /// Names with one more value, or a list of them.
        add: Map<Header, OneOrMany<HeaderText>> = section,
    }
}

keys! {
    /// Answers with another place.
    Redirect {
        /// `https://…`, `http://…`, or a path.
        to: Text = required,
        /// 301, 302, 303, 307 or 308.
        status: Count<300, 399> = default("307"),
    }
}

keys! {
    /// Answers by itself.
    Respond {
        /// Status of the answer.
        status: Count<200, 599> = default("200"),
        /// Headers, each with one value or a list.
        headers: Map<Header, OneOrMany<HeaderText>> = section,
        /// The text sent; Content-Length is set from it.
        body: AnyText = default(""),
    }
}

keys! {
    /// One application. Its policies treat all its versions alike.
    Service {
        /// Deployed builds, by name.
        versions: Map<Name, Version> = required,
        /// Integer weights by version; 0 is *draining* (keeps pinned clients, gets nobody new), absent is *off*.
        /// Exactly one of `split` and `active`.
        split: Map<Name, Weight> = optional,
        /// The version that gets everything: blue-green. Editing this line is the deployment.
        active: Name = optional,
        /// How a changed `active` reaches all clients. Without it, all at once.
        rollout: Rollout = optional,
        /// Keeps a client on its version: `{ cookie: … }`, `{ header: x-user }` or `client_ip`.
        sticky: Sticky = optional,
        /// Lets a request name its version: preview and QA.
        force: Force = optional,
        /// Which endpoint of a version serves: `round_robin` (in turn, by weight), `least_request` (the better of two by
        /// requests in flight), `peak_ewma` (the better of two by latency and requests in flight), or
        /// `{ consistent_hash: { header: x-user } }` (also `cookie: …`, `client_ip: true`, `path: true`).
        balance: Balance = default("round_robin"),
        /// An endpoint that is new, or healthy again, gets a growing share for this long, from a tenth to all of it.
        slow_start: Time<0> = default("0s"),
        /// Active checks of every endpoint. Without it endpoints count as healthy.
        health: Health = optional,
        /// Takes an endpoint out for a while when requests to it fail.
        outlier: Outlier = optional,
        /// While less than this share of a version's endpoints is ready, all of them are asked, ready or not. `0%`: only
        /// when none is.
        panic_below: Percent = default("0%"),
        /// Turns requests away before a version drowns in them.
        circuit: Circuit = section,
        /// Second chances at another endpoint.
        retry: Retry = section,
        /// How long the service may take.
        timeouts: Timeouts = section,
        /// How much the service takes.
        limits: Limits = section,
        /// Connections to the endpoints.
        upstream: Upstream = section,
        /// How a version that lost its place is emptied.
        drain: Drain = section,
        /// Waiting instead of 503 while no endpoint is ready.
        hold: Hold = section,
        /// Which client addresses may use the service; 403 for others.
        access: Access = optional,
        /// How often each client may ask.
        rate_limit: RateLimit = optional,
        /// Answers instead of the service, testers excepted.
        maintenance: Maintenance = optional,
        /// Makes answers smaller. Off without the section.
        compression: Compression = optional,
    }
}

keys! {
    /// One deployed build.
    Version {
        /// IP address or name, and port; or `unix:` and a path, relative to this file. Names are resolved again in the
        /// background, and each of their addresses is an endpoint. `{ address: …, weight: 3, max_connections: 100 }` says
        /// more.
        endpoints: List<Endpoint> = required,
        /// Any text, such as a build number. Another text says that the same addresses run another build: a version
        /// that was rolled back may then be tried again.
        revision: Text = optional,
    }
}

keys! {
    /// Keeps a client on its version, by exactly one of these.
    StickyBy {
        /// By a cookie that the proxy issues.
        cookie: StickyCookie = optional,
        /// By the value of a request header.
        header: Header = optional,
    }
}

keys! {
    /// A cookie with an opaque value.
    StickyCookie {
        /// Its name.
        name: Text = required,
        /// How long clients keep it. Without it, until the browser is closed.
        ttl: Time<1_000> = optional,
    }
}

keys! {
    /// Lets a request name its version.
    Force {
        /// The header that carries the version's name, or `version:token` with a token.
        header: Header = required,
        /// A file with the token that must follow the name, relative to this file.
        token_file: Text = optional,
    }
}

keys! {
    /// How long the service may take.
    Timeouts {
        /// To connect to an endpoint.
        connect: Time<1> = default("2s"),
        /// From the end of the request head to the response head, retries included; 504 after that.
        request: Time<1> = default("60s"),
        /// Longest silence in the middle of a response body. Event streams are exempt.
        idle: Time<1> = default("75s"),
        /// Longest silence on an upgraded connection (WebSocket), both ways together.
        upgrade_idle: Time<1> = default("1h"),
        /// The whole exchange, for everything but streams. Without it there is no bound.
        total: Time<1> = optional,
    }
}

keys! {
    /// How much the service takes.
    Limits {
        /// A request body; 413 above. A size, or `unlimited`.
        body: BodyLimit = default("64MiB"),
        /// Requests at once; 503 above. Without it there is no bound.
        in_flight: Count<1, 1_000_000_000> = optional,
        /// Requests at once of one client address, an IPv6 client being its /64; 429 above. Without it there is no bound.
        in_flight_per_client: Count<1, 1_000_000> = optional,
    }
}

keys! {
    /// How a version that lost its place is emptied, and the streams of a process that an upgrade replaced.
    Drain {
        /// Plain requests may finish for this long.
        requests: Time<0> = default("30s"),
        /// WebSockets, event streams and gRPC streams may stay for this long.
        streams: Time<0> = default("10m"),
        /// Pinned clients may come back for this long. Without it, as long as `streams`.
        sessions: Time<0> = optional,
        /// Streams at their deadline are ended evenly over this window; those of a process that stops, before it.
        reconnect_spread: Time<0> = default("30s"),
    }
}

keys! {
    /// Waiting instead of 503 while no endpoint is ready.
    Hold {
        /// Longest wait; `0s` answers 503 at once.
        max_wait: Time<0> = default("5s"),
        /// Requests that may wait at once; more get 503.
        max_requests: Count<0, 1_000_000> = default("1024"),
    }
}

keys! {
    /// One routing case: a request, by exactly one of the first eight keys, and what must become of it.
    Expect {
        /// URL of a GET.
        get: Text = optional,
        /// URL of a HEAD.
        head: Text = optional,
        /// URL of a POST.
        post: Text = optional,
        /// URL of a PUT.
        put: Text = optional,
        /// URL of a PATCH.
        patch: Text = optional,
        /// URL of a DELETE.
        delete: Text = optional,
        /// URL of an OPTIONS.
        options: Text = optional,
        /// Any other method and URL: `PROPFIND https://shop.example.com/`.
        request: Text = optional,
        /// Headers of the request.
        headers: Map<Header, OneOrMany<HeaderText>> = section,
        /// The route that must match.
        route: Name = optional,
        /// The service that must answer.
        service: Name = optional,
        /// The version that must answer.
        version: Name = optional,
        /// The status of a `redirect` or `respond` route; 404 for no route.
        status: Count<200, 599> = optional,
    }
}

/// The format's number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Schema;

impl Scalar for Schema {
    const KIND: &'static str = "a schema number";
    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "1" => Ok(Self),
            _ => Err(Wrong::because("this version of switchback reads `schema: 1`")),
        }
    }
    fn shape() -> Json {
        json!({ "type": "integer", "minimum": 1, "maximum": 1 })
    }
}

/// `client_ip`, or one of the keys of [`StickyBy`].
#[derive(Debug, Clone)]
pub enum Sticky {
    ClientIp,
    By(Box<StickyBy>),
}

impl Decode for Sticky {
    fn decode(node: &Node, label: &str, found: &mut Found) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text == "client_ip" => Some(Self::ClientIp),
            Value::Text(text) => {
                found
                    .error(node.span, format!("`{text}` is not a way to be sticky"))
                    .hint("write `{ cookie: { name: … } }`, `{ header: x-user }` or `client_ip`");
                None
            }
            Value::Map(entries) if entries.iter().any(|(key, _)| key.value == "client_ip") => {
                found.error(node.span, "`client_ip` takes no value").hint("write `sticky: client_ip`");
                None
            }
            Value::Null | Value::List(_) | Value::Map(_) => {
                StickyBy::decode(node, label, found).map(|by| Self::By(Box::new(by)))
            }
        }
    }

    fn shape() -> Json {
        json!({ "anyOf": [{ "const": "client_ip" }, StickyBy::shape()] })
    }
}

keys! {
    /// Matches whatever the value is.
    Present {
        /// `true`: there must be a value, any.
        present: Flag = required,
    }
}

/// The keys of a rule, or `off`.
#[derive(Debug, Clone)]
pub enum OrOff<T> {
    Off,
    On(T),
}

impl<T: Decode> Decode for OrOff<T> {
    fn decode(node: &Node, label: &str, found: &mut Found) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text == "off" => Some(Self::Off),
            Value::Text(text) => {
                let finding = found.error(node.span, format!("`{label}` must be a map or `off`, not `{text}`"));
                if matches!(text.as_str(), "false" | "no" | "none" | "disabled") {
                    finding.hint("did you mean `off`?");
                }
                None
            }
            Value::Null | Value::List(_) | Value::Map(_) => T::decode(node, label, found).map(Self::On),
        }
    }

    fn shape() -> Json {
        json!({ "anyOf": [{ "const": "off" }, T::shape()] })
    }
}

/// A value, or `{ present: true }`.
#[derive(Debug, Clone)]
pub enum ValueMatch {
    Exact(String),
    Present,
}

impl Decode for ValueMatch {
    fn decode(node: &Node, label: &str, found: &mut Found) -> Option<Self> {
        match &node.value {
            Value::Text(text) => Some(Self::Exact(text.clone())),
            Value::Map(_) => match Present::decode(node, label, found)?.present {
                Field::Given { value: Flag(true), .. } => Some(Self::Present),
                Field::Given { span, .. } => {
                    found.error(span, "`present` can only be `true`").hint("absence cannot be matched; order routes");
                    None
                }
                Field::Missing | Field::Bad => None,
            },
            Value::Null | Value::List(_) => {
                found
                    .error(
                        node.span,
                        format!("`{label}` must be a value or `{{ present: true }}`, not {}", node.value.kind()),
                    )
                    .hint("an empty value is written `\"\"`");
                None
            }
        }
    }

    fn shape() -> Json {
        json!({ "anyOf": [{ "type": "string" }, Present::shape()] })
    }
}
