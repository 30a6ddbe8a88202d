//! Pingora's phases: which one calls what. Decisions are made in [`super::decide`], headers in
//! [`super::headers`], accounting in [`super::context`].

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::header;
use http::{HeaderValue, Version};
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::answer::Answer;
use super::context::{Attempt, Context, Destination, RequestLine};
use super::decide::{self, Ask, Unroutable};
use super::headers::{self, Hop, Persistence, Reply};
use super::held;
use super::services::Services;
use crate::config::model::{Action, HeaderEdits, Hold, Rewrite, Sticky};
use crate::endpoints::hold::{self, HoldEnd};
use crate::endpoints::pick::pick;
use crate::net::{Link, ReadFailure, Stage};
use crate::outcome::{ErrorClass, RetryReason};
use crate::routing::Thread;
use crate::routing::table::CompiledRoute;
use crate::sessions::Kind;
use crate::telemetry::access_log::bounded;
use crate::wire::Upgrade;

/// Marks connections that are not to come from the pool.
const FRESH: u64 = 1 << 63;

/// One per data thread.
#[derive(Debug)]
pub struct App {
    pub services: Arc<Services>,
    pub thread: Thread,
}

thread_local! {
    /// The request that the engine is about to begin; set around its first poll.
    static NEXT: RefCell<Option<Incoming>> = const { RefCell::new(None) };
}

/// What the connection's task knows of a request before the engine does.
#[derive(Debug, Clone)]
pub struct Incoming {
    pub link: Arc<Link>,
    pub client: Arc<headers::Client>,
    pub upgrade: Option<Upgrade>,
}

/// Runs `poll` with `incoming` as the request that begins in it. Also says whether one began.
pub fn with_incoming<R>(incoming: &Incoming, poll: impl FnOnce() -> R) -> (R, bool) {
    NEXT.set(Some(incoming.clone()));
    let result = poll();
    (result, NEXT.take().is_none())
}

#[async_trait]
impl ProxyHttp for App {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        let incoming = NEXT.take().expect("a request begins inside `with_incoming`");
        let held = held::current(&self.services.live);
        let context = Context::new(self.services.clone(), incoming, held, self.thread);
        context.note_start(context.started);
        context
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        self.prepare(session, ctx);
        let answer = match self.direct(session.req_header(), ctx).await {
            Ok(()) => return Ok(false),
            Err(answer) => answer,
        };
        answer.send(session, ctx).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        let Some(destination) = &ctx.destination else {
            return Error::e_explain(ErrorType::InternalError, "forwarding without a destination");
        };
        let snapshot = &ctx.held.snapshot;
        let runtime = snapshot.runtime.service(destination.service).version(destination.choice.version);
        // A second chance goes to an endpoint of whatever state, rather than to nobody.
        let picked = pick(runtime, ctx.thread, &ctx.tried, destination.anyway)
            .or_else(|| pick(runtime, ctx.thread, &ctx.tried, true));
        let Some(picked) = picked else {
            return Error::e_explain(ErrorType::HTTPStatus(503), "no endpoint is resolved");
        };
        let service = &snapshot.generation.table.service(destination.service).service;
        let mut peer = HttpPeer::new(picked.address, false, String::new());
        // Connections belong to this endpoint's life: one that was removed or replaced never gets them.
        peer.group_key = picked.endpoint.incarnation;
        let stale_before = ctx.stale_retried;
        let options = &mut peer.options;
        // `headers::to_endpoint` does all of it.
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
        options.connection_timeout = Some(service.timeouts.connect);
        options.total_connection_timeout = Some(service.timeouts.connect);
        options.idle_timeout = Some(service.upstream.keepalive_idle);
        if stale_before {
            // The second chance must not meet a second connection that was closed meanwhile.
            options.idle_timeout = Some(Duration::ZERO);
            peer.group_key |= FRESH;
        }
        ctx.attempt_at(Attempt { endpoint: picked.endpoint, address: picked.address, reused: false });
        Ok(Box::new(peer))
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        _digest: Option<&pingora_core::protocols::Digest>,
        ctx: &mut Context,
    ) -> Result<()> {
        if let Some(attempt) = &mut ctx.attempt {
            attempt.reused = reused;
        }
        if !reused {
            ctx.connected = Some(ctx.started.elapsed());
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let Some(destination) = &ctx.destination else {
            return Error::e_explain(ErrorType::InternalError, "forwarding without a destination");
        };
        let table = &ctx.held.snapshot.generation.table;
        let Some(rewrite) = ctx.rewrite() else {
            return Error::e_explain(ErrorType::InternalError, "forwarding on a route that does not");
        };
        let force = table.service(destination.service).service.force.as_ref();
        if let Some(force) = force.filter(|force| force.token.is_some()) {
            // The token is between the client and this proxy.
            request.remove_header(&force.header);
        }
        let hop = Hop {
            client: &ctx.client,
            scheme: "http",
            path_and_query: destination.path_and_query.as_deref(),
            upgrade: ctx.upgrade,
            host_rewrite: rewrite.host.as_ref(),
            edits: &rewrite.request_headers,
        };
        headers::to_endpoint(request, session.req_header().version, &hop)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        headers::check_response(response, ctx.upgrade)
            .map_err(|bad| Error::explain(ErrorType::InvalidHTTPHeader, bad.why).into_up())?;
        let status = response.status.as_u16();
        let is_final = !response.status.is_informational() || status == 101;
        if is_final {
            self.answered(status, ctx);
            if status == 101 {
                let silence = ctx.compiled_service().map(|service| service.service.timeouts.upgrade_idle);
                ctx.becomes(Kind::WebSocket);
                ctx.link.becomes_tunnel(silence.unwrap_or_default());
            } else if is_event_stream(response) {
                ctx.becomes(Kind::Sse);
                ctx.link.becomes_stream();
            }
        }
        let none = HeaderEdits::default();
        let reply = Reply {
            http10: session.req_header().version == Version::HTTP_10,
            close: self.is_last(ctx),
            edits: ctx.rewrite().map_or(&none, |rewrite| &rewrite.response_headers),
            exposed: None,
            cookie: None,
        };
        if headers::to_client(response, &reply)? == Persistence::Close {
            session.set_keepalive(None);
        }
        ctx.ends_with_connection = reply.http10 && !response.headers.contains_key(header::CONTENT_LENGTH);
        if is_final {
            ctx.decorate(response)?;
            ctx.status = status;
            ctx.link.answered();
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Context,
        client_reused: bool,
    ) -> Box<Error> {
        let from_endpoint = *error.esource() == ErrorSource::Upstream;
        let untouched = session.response_written().is_none();
        let replayable = session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated();
        // RFC 9110 section 9.2.2: once more, on a fresh connection, and only what may run twice.
        // The engine's own mark is not asked: it does not count a reset that is met while the head is written.
        let retry = is_stale(&error, ctx, client_reused) && untouched && replayable && !ctx.stale_retried;
        error.set_retry(retry);
        if retry {
            ctx.stale_retried = true;
            if let Some(core) = ctx.version_meter() {
                core.failed(ctx.thread, ErrorClass::ReusedStale);
                core.retried_for(ctx.thread, RetryReason::ReusedStale);
            }
        } else if from_endpoint && !is_stale(&error, ctx, client_reused) {
            ctx.attempt_failed();
        }
        error
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        ctx.attempt_failed();
        if let Some(attempt) = &ctx.attempt {
            ctx.tried.push(attempt.endpoint.incarnation);
            attempt.endpoint.rest(attempt.address);
        }
        let attempts = ctx.compiled_service().map_or(0, |service| service.service.retry.attempts);
        let others = ctx.addresses_of_version() > ctx.tried.len();
        // Nothing was sent, so any method may be tried on another endpoint.
        let retry = others && ctx.tried.len() <= attempts as usize;
        error.set_retry(retry);
        if retry && let Some(meter) = ctx.version_meter() {
            meter.retried(ctx.thread);
        }
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        let (status, class) = classify(error, ctx);
        // A client that leaves a stream is how streams end.
        let is_orderly = ctx.kind.is_stream() && class == ErrorClass::DownstreamAbort;
        ctx.error = (!is_orderly).then_some(class);
        if session.response_written().is_some_and(|written| !written.status.is_informational()) {
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        if status == 499 {
            ctx.status = 499;
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        session.set_keepalive(None);
        // The client is gone if this fails; there is nobody left to tell.
        let _ = Answer::error(status, explain(status, ctx)).send(session, ctx).await;
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut Context) {
        ctx.body_bytes = Some(session.body_bytes_sent() as u64);
    }

    fn suppress_error_log(&self, _session: &Session, ctx: &Context, error: &Error) -> bool {
        tracing::debug!(
            client = %ctx.link.client,
            endpoint = ctx.attempt.as_ref().map(|attempt| attempt.address.to_string()),
            error = %error,
            "request failed"
        );
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Context, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}

impl App {
    fn prepare(&self, session: &mut Session, ctx: &mut Context) {
        // Every wait on the client has its deadline in the link.
        session.set_read_timeout(None);
        if session.req_header().version == Version::HTTP_10 {
            session.set_ignore_info_resp(true);
        }
        if self.is_last(ctx) {
            session.set_keepalive(None);
        }
        if self.services.access_log.enabled() {
            let request = session.req_header();
            let text = |name: header::HeaderName| request.headers.get(name).map(|value| bounded(value.as_bytes()));
            ctx.line = Some(Box::new(RequestLine {
                method: request.method.clone(),
                host: text(header::HOST).unwrap_or_default(),
                path: request.uri.path().to_string(),
                has_query: request.uri.query().is_some(),
                protocol: if request.version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" },
                user_agent: text(header::USER_AGENT),
            }));
        }
    }

    /// The endpoint has begun its final answer.
    fn answered(&self, status: u16, ctx: &mut Context) {
        ctx.first_byte = Some(ctx.started.elapsed());
        if matches!(status, 502..=504) {
            ctx.attempt_failed();
        }
    }

    /// The answer to this request says `Connection: close`.
    fn is_last(&self, ctx: &Context) -> bool {
        self.services.stage.get() >= Stage::LameDuck || ctx.link.is_listener_draining()
    }

    /// Finds where the request goes, waiting for a ready endpoint if need be. `Err`: the answer is ours.
    async fn direct(&self, request: &RequestHeader, ctx: &mut Context) -> std::result::Result<(), Answer> {
        let ask = Ask {
            method: &request.method,
            host: request.headers.get(header::HOST).map_or(b"", |value| value.as_bytes()),
            path: request.uri.path(),
            query: request.uri.query(),
            headers: &request.headers,
            client: ctx.link.client.ip(),
        };
        if ask.method == http::Method::OPTIONS && request.raw_path() == b"*" {
            return Err(Answer::fixed(204, &[], ""));
        }
        let waiting_since = Instant::now();
        let mut waited_out = false;
        loop {
            let routed = decide::route(&ctx.held.snapshot, &ask).map_err(|why| unroutable(&why))?;
            ctx.route = Some(routed.route);
            let held = ctx.held.clone();
            let snapshot = &held.snapshot;
            let table = &snapshot.generation.table;
            let compiled_route = table.route_at(routed.route);
            match &compiled_route.route.action {
                Action::Forward { .. } => {}
                Action::Redirect { to, status } => return Err(Answer::redirect(*status, to)),
                Action::Respond { status, headers, body } => return Err(Answer::fixed(*status, headers, body)),
            }
            let service = compiled_route.service.expect("a forwarding route has a service");
            ctx.service = Some(service);
            let compiled = table.service(service);
            let runtime = snapshot.runtime.service(service);
            let limits = &compiled.service.limits;
            if let (Some(max), Some(length)) = (limits.body, content_length(request))
                && length > max
            {
                return Err(Answer::error(413, format!("the request body is larger than {max} bytes")).closing());
            }
            if let Some(max) = limits.in_flight {
                let now: u64 = runtime.versions.iter().map(|version| version.core.in_flight.total()).sum();
                if now >= max {
                    return Err(Answer::busy("too many requests in flight, try again", 1));
                }
            }
            let split = snapshot.generation.split(service);
            let known = decide::known(compiled, runtime, split, &ask)
                .map_err(|_| Answer::error(400, "the forced version does not exist"))?;
            let is_held = runtime.core.held.load(std::sync::atomic::Ordering::Acquire);
            let chosen = match is_held {
                true => None,
                false => decide::version(compiled, runtime, split, &known, self.thread).or_else(|| {
                    decide::is_hopeful(runtime, split)
                        .then(|| decide::version_anyway(compiled, runtime, split, &known, self.thread))
                }),
            };
            let chosen = match chosen {
                Some(chosen) => chosen,
                None if waited_out && is_held => {
                    return Err(Answer::busy("the service is held by an operator", 5));
                }
                None if waited_out => decide::version_anyway(compiled, runtime, split, &known, self.thread),
                None => {
                    let policy = &compiled.service.hold;
                    let left = policy.max_wait.saturating_sub(waiting_since.elapsed());
                    let policy = Hold { max_wait: left, max_requests: policy.max_requests };
                    let name = compiled.name.clone();
                    let live = &self.services.live;
                    ctx.link.set_unread(true);
                    let ended = hold::wait(runtime, &policy, || decide::is_ready_now(live, &name)).await;
                    ctx.link.set_unread(false);
                    match ended {
                        HoldEnd::Full => {
                            return Err(Answer::busy("no endpoint is ready and too many requests wait", 1));
                        }
                        HoldEnd::Ready | HoldEnd::TimedOut => {
                            // Nothing was decided yet: the request is routed by what is live now.
                            waited_out = ended == HoldEnd::TimedOut || left.is_zero();
                            ctx.take_snapshot();
                            continue;
                        }
                    }
                }
            };
            decide::tally(split, self.thread, &chosen.choice);
            ctx.destination = Some(Destination {
                service,
                choice: chosen.choice,
                anyway: chosen.anyway,
                cookie: chosen.cookie.and_then(|cookie| set_cookie(compiled.service.sticky.as_ref(), cookie)),
                path_and_query: forwarded(&ask, routed.normal_path, compiled_route),
            });
            ctx.begin();
            let timeouts = &compiled.service.timeouts;
            ctx.link.set_deadlines(timeouts.request, timeouts.total, timeouts.idle);
            ctx.link.set_body_max(limits.body);
            return Ok(());
        }
    }
}

impl Context {
    fn note_start(&self, at: Instant) {
        self.held.snapshot.note_start(self.thread, self.services.live.nanos_at(at));
    }

    fn take_snapshot(&mut self) {
        self.held = held::current(&self.services.live);
        self.route = None;
        self.service = None;
        self.note_start(Instant::now());
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        let table = &self.held.snapshot.generation.table;
        match &table.route_at(self.route?).route.action {
            Action::Forward { rewrite, .. } => Some(rewrite),
            Action::Redirect { .. } | Action::Respond { .. } => None,
        }
    }

    fn version_meter(&self) -> Option<&crate::outcome::Meter> {
        let destination = self.destination.as_ref()?;
        let service = self.held.snapshot.runtime.service(destination.service);
        Some(&service.version(destination.choice.version).core.meter)
    }

    fn addresses_of_version(&self) -> usize {
        self.destination
            .as_ref()
            .map_or(0, |to| self.held.snapshot.runtime.service(to.service).version(to.choice.version).addresses())
    }

    /// What this proxy adds to a response: the sticky cookie, and the decision if it may be shown.
    pub fn decorate(&self, response: &mut ResponseHeader) -> Result<()> {
        let generation = &self.held.snapshot.generation;
        if generation.table.config.expose.response_headers {
            response.insert_header("x-switchback-generation", &self.held.number)?;
        }
        let Some(destination) = &self.destination else { return Ok(()) };
        if let Some(cookie) = &destination.cookie {
            response.append_header(header::SET_COOKIE, cookie)?;
        }
        if generation.table.config.expose.response_headers {
            let service = generation.table.service(destination.service);
            response.insert_header("x-switchback-version", &**service.version_name(destination.choice.version))?;
            response.insert_header("x-switchback-reason", destination.choice.reason.as_str())?;
        }
        Ok(())
    }
}

fn is_event_stream(response: &ResponseHeader) -> bool {
    let content_type = response.headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| crate::wire::events::is_event_stream(value.as_bytes()))
}

fn content_length(request: &RequestHeader) -> Option<u64> {
    request.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn set_cookie(sticky: Option<&Sticky>, cookie: crate::routing::StickyCookie) -> Option<HeaderValue> {
    let (name, ttl) = match sticky {
        Some(Sticky::Cookie { name, ttl }) => (name, ttl),
        Some(Sticky::Header(_) | Sticky::ClientIp) | None => return None,
    };
    let age = ttl.map_or(String::new(), |ttl| format!("; Max-Age={}", ttl.as_secs()));
    HeaderValue::try_from(format!("{name}={}; Path=/; HttpOnly; SameSite=Lax{age}", cookie.to_value())).ok()
}

/// The target to ask the endpoint for, if it is not what the client sent: what was matched is what is
/// forwarded.
fn forwarded(ask: &Ask<'_>, normal: Option<String>, route: &CompiledRoute) -> Option<String> {
    let rewritten = route.rewrite(normal.as_deref().unwrap_or(ask.path));
    let path = rewritten.or(normal)?;
    Some(match ask.query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    })
}

fn unroutable(why: &Unroutable) -> Answer {
    match why {
        Unroutable::BadHost => Answer::error(400, "the Host is not valid").closing(),
        Unroutable::BadPath(problem) => Answer::error(400, format!("the path {problem}")).closing(),
        Unroutable::NoRoute => Answer::error(404, "no route matches this request"),
    }
}

/// A pooled connection turned out to be closed, before a byte of the answer.
fn is_stale(error: &Error, ctx: &Context, reused: bool) -> bool {
    let is_closed = matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError);
    reused && ctx.status == 0 && is_closed && *error.esource() == ErrorSource::Upstream
}

/// The status for the client and the class for the counters.
fn classify(error: &Error, ctx: &Context) -> (u16, ErrorClass) {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, HTTPStatus, InvalidHTTPHeader, ReadTimedout,
        WriteTimedout,
    };
    match ctx.link.read_failure() {
        Some(ReadFailure::TooLarge) => return (413, ErrorClass::Local),
        Some(ReadFailure::BadFraming) => return (400, ErrorClass::DownstreamAbort),
        None => {}
    }
    if let HTTPStatus(status) = error.etype() {
        return (*status, ErrorClass::Local);
    }
    match error.esource() {
        ErrorSource::Downstream => match error.etype() {
            InvalidHTTPHeader => (400, ErrorClass::DownstreamAbort),
            _ => (499, ErrorClass::DownstreamAbort),
        },
        ErrorSource::Upstream => match error.etype() {
            ConnectTimedout => (504, ErrorClass::Connect),
            ConnectRefused | ConnectNoRoute | ConnectError | ErrorType::SocketError | ErrorType::BindError => {
                (502, ErrorClass::Connect)
            }
            ReadTimedout | WriteTimedout => (504, ErrorClass::Timeout),
            _ if is_stale(error, ctx, ctx.attempt.as_ref().is_some_and(|attempt| attempt.reused)) => {
                (502, ErrorClass::ReusedStale)
            }
            _ => (502, ErrorClass::Reset),
        },
        ErrorSource::Internal | ErrorSource::Unset => (500, ErrorClass::Local),
    }
}

fn explain(status: u16, ctx: &Context) -> &'static str {
    match status {
        400 => "the request is not valid HTTP",
        413 => "the request body is too large",
        502 if ctx.attempts == 0 => "no endpoint could be reached",
        502 => "the endpoint did not give a valid answer",
        503 => "no endpoint is ready",
        504 => "the endpoint did not answer in time",
        _ => "the request failed",
    }
}
