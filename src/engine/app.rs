//! Pingora's phases: which one calls what. Decisions are made in [`super::decide`], headers in
//! [`super::headers`], accounting in [`super::context`].

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::Version;
use http::header;
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorSource, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::answer::Answer;
use super::at_once::{self, Boxed};
use super::compress::{self, Asked, Encoder, Verdict};
use super::context::{Context, RequestLine};
use super::direct::Directed;
use super::failure::{classify, explain, is_stale};
use super::grpc::{self, Call};
use super::headers::{self, Hop, Persistence, Reply};
use super::held;
use super::judged::Sent;
use super::peer;
use super::protocol;
use super::recall::{Reach, Recall, Why};
use super::request_id;
use super::retry;
use super::services::Services;
use super::trouble;
use super::ways::Ways;
use crate::config::model::{Action, HeaderEdits, Rewrite};
use crate::net::{Link, Stage};
use crate::outcome::{ErrorClass, Meter, RetryReason};
use crate::routing::Thread;
use crate::sessions::Kind;
use crate::telemetry::access_log::bounded;
use crate::wire::Upgrade;

/// For clients that found every endpoint full, in seconds.
const CROWDED_RETRY_AFTER: u32 = 1;
/// Interim answers (1xx) that may precede a final one.
const INTERIM_MAX: u8 = 32;
/// Fields of an answer; the engine bounds them over HTTP/1.1 only.
const ANSWER_FIELDS_MAX: usize = 256;

/// One per data thread.
#[derive(Debug)]
pub struct App {
    pub services: Arc<Services>,
    pub thread: Thread,
    pub ways: Arc<Ways>,
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
    pub recall: Arc<Recall>,
    /// It is a gRPC call that is answered as one.
    pub grpc: Option<Arc<Call>>,
}

/// Runs `poll` with `incoming` as the request that begins in it. Gives it back if none began.
pub fn with_incoming<R>(incoming: Incoming, poll: impl FnOnce() -> R) -> (R, Option<Incoming>) {
    NEXT.set(Some(incoming));
    let result = poll();
    (result, NEXT.take())
}

#[async_trait]
impl ProxyHttp for App {
    /// In a box: the engine's future has room for it in three places, and is moved for each request.
    type CTX = Box<Context>;

    fn new_ctx(&self) -> Box<Context> {
        let incoming = NEXT.take().expect("a request begins inside `with_incoming`");
        let held = held::current(&self.services.live);
        let context = Box::new(Context::new(self.services.clone(), incoming, held, self.thread));
        context.note_start(context.started);
        context
    }

    /// None: the engine's own, which does nothing here, would be set up for each request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    fn early_request_filter<'a, 'b, 'c, 'd>(&'a self, _: &'b mut Session, _: &'c mut Box<Context>) -> Boxed<'d, ()>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
    {
        at_once::done(Ok(()))
    }

    fn request_filter<'a, 'b, 'c, 'd>(&'a self, session: &'b mut Session, ctx: &'c mut Box<Context>) -> Boxed<'d, bool>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
    {
        self.prepare(session, ctx);
        match self.direct(session.req_header(), ctx, false) {
            Directed::Forward => at_once::no(),
            directed => Box::pin(self.finish(directed, session, ctx)),
        }
    }

    fn proxy_upstream_filter<'a, 'b, 'c, 'd>(&'a self, _: &'b mut Session, _: &'c mut Box<Context>) -> Boxed<'d, bool>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
    {
        at_once::yes()
    }

    fn upstream_peer<'a, 'b, 'c, 'd>(
        &'a self,
        session: &'b mut Session,
        ctx: &'c mut Box<Context>,
    ) -> Boxed<'d, Box<HttpPeer>>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
    {
        peer::next(session.req_header(), ctx, &self.ways)
    }

    fn request_body_filter<'a, 'b, 'c, 'd, 'e>(
        &'a self,
        _: &'b mut Session,
        _: &'c mut Option<Bytes>,
        _end_of_stream: bool,
        _: &'d mut Box<Context>,
    ) -> Boxed<'e, ()>
    where
        'a: 'e,
        'b: 'e,
        'c: 'e,
        'd: 'e,
    {
        at_once::done(Ok(()))
    }

    fn connected_to_upstream<'a, 'b, 'c, 'd, 'e, 'f>(
        &'a self,
        session: &'b mut Session,
        reused: bool,
        _peer: &'c HttpPeer,
        fd: std::os::unix::io::RawFd,
        digest: Option<&'d pingora_core::protocols::Digest>,
        ctx: &'e mut Box<Context>,
    ) -> Boxed<'f, ()>
    where
        'a: 'f,
        'b: 'f,
        'c: 'f,
        'd: 'f,
        'e: 'f,
    {
        ctx.connecting = None;
        if !peer::is_for(ctx, digest) {
            // Its endpoint would take this client for another. The key of the pool cannot be met twice, but for chance.
            let failed = Error::explain(ErrorType::InternalError, "a connection for somebody else");
            return at_once::done(Err(failed));
        }
        if let Some(attempt) = &mut ctx.attempt {
            attempt.reused = reused;
        }
        if !reused && !ctx.hedging.is_race() {
            ctx.connected = Some(ctx.started.elapsed());
            if let Some(attempt) = &ctx.attempt {
                attempt.endpoint.took_connection(true);
            }
        }
        ctx.waits(session, |ctx| Reach::of(ctx, fd, digest));
        at_once::done(Ok(()))
    }

    fn upstream_request_filter<'a, 'b, 'c, 'd, 'e>(
        &'a self,
        session: &'b mut Session,
        request: &'c mut RequestHeader,
        ctx: &'d mut Box<Context>,
    ) -> Boxed<'e, ()>
    where
        'a: 'e,
        'b: 'e,
        'c: 'e,
        'd: 'e,
    {
        let forwarded = forward(session, request, ctx);
        if forwarded.is_ok() {
            ctx.mirror(session.req_header(), request);
        }
        // The engine drops interim answers of endpoints that speak HTTP/2, so nobody would hear that the body is wanted.
        if forwarded.is_ok() && ctx.shared && request.remove_header(&header::EXPECT).is_some() && ctx.interim == 0 {
            ctx.interim = 1;
            return Box::pin(invite(session));
        }
        at_once::done(forwarded)
    }

    fn upstream_response_filter<'a, 'b, 'c, 'd, 'e>(
        &'a self,
        _: &'b mut Session,
        _: &'c mut ResponseHeader,
        _: &'d mut Box<Context>,
    ) -> Boxed<'e, ()>
    where
        'a: 'e,
        'b: 'e,
        'c: 'e,
        'd: 'e,
    {
        at_once::done(Ok(()))
    }

    fn response_filter<'a, 'b, 'c, 'd, 'e>(
        &'a self,
        session: &'b mut Session,
        response: &'c mut ResponseHeader,
        ctx: &'d mut Box<Context>,
    ) -> Boxed<'e, ()>
    where
        'a: 'e,
        'b: 'e,
        'c: 'e,
        'd: 'e,
    {
        at_once::done(self.reply(session, response, ctx))
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut header::HeaderMap,
        ctx: &mut Box<Context>,
    ) -> Result<Option<bytes::Bytes>> {
        ctx.judge_trailers(trailers);
        Ok(None)
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Box<Context>,
    ) -> Result<Option<Duration>> {
        if let Some(encoder) = &mut ctx.encoder {
            let encoder = encoder.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
            let piece = body.take().unwrap_or_default();
            let encoded = encoder.encode(&piece, end_of_stream);
            let encoded = encoded.or_err(ErrorType::InternalError, "the body cannot be compressed")?;
            *body = (!encoded.is_empty()).then_some(encoded);
            if end_of_stream {
                ctx.encoder = None;
            }
        }
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Box<Context>,
        client_reused: bool,
    ) -> Box<Error> {
        // The connection is closed by now, and what was kept of it must not outlive it.
        let recalled = ctx.waits_no_more();
        if ctx.attempt.is_none() {
            // It is on its way to somebody else already.
            error.set_retry(true);
            return error;
        }
        let from_endpoint = *error.esource() == ErrorSource::Upstream;
        if let Some(why) = recalled {
            // The connection broke because we broke it.
            let is_ours = from_endpoint || ctx.shared || ctx.hedging.is_race() || matches!(why, Why::Slow(_));
            ctx.judge_recall(&why);
            error.set_retry(is_ours && ctx.follow(why));
            return error;
        }
        ctx.end_race();
        let untouched = session.response_written().is_none();
        // What the endpoint has not begun with may be anything.
        let refused = protocol::was_refused(&error);
        let may_run_twice = refused || session.req_header().method.is_idempotent();
        let replayable = may_run_twice && !session.as_ref().retry_buffer_truncated();
        // RFC 9110 section 9.2.2: once more, on a fresh connection, and only what may run twice.
        // The engine's own mark is not asked: it does not count a reset that is met while the head is written.
        let is_stale_or_refused = refused || is_stale(&error, ctx, client_reused);
        let retry = is_stale_or_refused && untouched && replayable && !ctx.stale_retried;
        error.set_retry(retry);
        if retry {
            ctx.stale_retried = true;
            if let Some(core) = ctx.version_meter() {
                core.failed(ctx.thread, ErrorClass::ReusedStale);
                core.retried_for(ctx.thread, RetryReason::ReusedStale);
            }
        } else if from_endpoint {
            // A pooled connection that was closed says nothing of this one endpoint's health. But nobody made up
            // for it, so it is the version's failure: who closes under every POST must not pass for good.
            if !is_stale(&error, ctx, client_reused) {
                ctx.attempt_failed();
            }
            trouble::after_connect(&error, ctx);
            ctx.judge_failure();
            // What was repeated after a connection broke may have run the first time; a POST is repeated only if it was
            // refused.
            let has_run = !refused || (ctx.stale_retried && session.req_header().method.is_idempotent());
            let sent = if has_run { Sent::Maybe } else { Sent::Nothing };
            if ctx.shield(session, sent) || ctx.try_elsewhere(session, retry::reason(&error)) {
                error.set_retry(true);
            }
        }
        error
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Box<Context>,
        mut error: Box<Error>,
    ) -> Box<Error> {
        ctx.connecting = None;
        if ctx.shared && !ctx.stale_retried && protocol::is_gone(&error) {
            // There was a connection, but it ended before this request could join it.
            ctx.stale_retried = true;
            if let Some(meter) = ctx.version_meter() {
                meter.retried_for(ctx.thread, RetryReason::ReusedStale);
            }
            error.set_retry(true);
            return error;
        }
        ctx.attempt_failed();
        ctx.judge_failure();
        trouble::to_connect(&error, ctx);
        if let Some(attempt) = &ctx.attempt {
            if *error.etype() == ErrorType::ConnectRefused {
                attempt.endpoint.took_connection(false);
            }
            if let Some(version) = ctx.version() {
                version.rest(&attempt.endpoint);
            }
        }
        // A first attempt on a stale connection may have been read before the endpoint was gone.
        let sent = if ctx.stale_retried { Sent::Maybe } else { Sent::Nothing };
        error.set_retry(ctx.try_elsewhere(session, RetryReason::Connect) || ctx.shield(session, sent));
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Box<Context>) -> FailToProxy {
        let (status, class) = classify(error, ctx);
        // A client that leaves a stream is how streams end.
        let is_orderly = ctx.kind.is_stream() && class == ErrorClass::DownstreamAbort;
        let is_orderly = is_orderly || (ctx.status != 0 && protocol::ended_early(error));
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
        let answer = match ctx.is_crowded && status == 503 {
            true => Answer::busy("every endpoint is busy", CROWDED_RETRY_AFTER),
            false => Answer::error(status, explain(status, ctx)),
        };
        let _ = answer.send(session, ctx).await;
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    fn logging<'a, 'b, 'c, 'd, 'e>(
        &'a self,
        session: &'b mut Session,
        _error: Option<&'c Error>,
        ctx: &'d mut Box<Context>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'e>>
    where
        'a: 'e,
        'b: 'e,
        'c: 'e,
        'd: 'e,
    {
        ctx.body_bytes = Some(session.body_bytes_sent() as u64);
        at_once::nothing()
    }

    fn suppress_error_log(&self, _session: &Session, ctx: &Box<Context>, error: &Error) -> bool {
        tracing::debug!(
            client = %ctx.link.client,
            endpoint = ctx.attempt.as_ref().map(|attempt| attempt.at.to_string()),
            error = %error,
            "request failed"
        );
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Box<Context>, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}

impl App {
    fn prepare(&self, session: &mut Session, ctx: &mut Context) {
        headers::forget_letter_case(session.req_header_mut());
        // Every wait on the client has its deadline in the link.
        session.set_read_timeout(None);
        if session.req_header().version == Version::HTTP_10 {
            session.set_ignore_info_resp(true);
        }
        if self.is_last(ctx) {
            session.set_keepalive(None);
        }
        ctx.learn_origin(&session.req_header().headers);
        let logs = self.services.access_log.enabled();
        let ids = ctx.held.snapshot.generation.table.config.request_id.as_ref();
        if ids.is_some() || logs || ctx.held.snapshot.judges() {
            ctx.sent_id = request_id::sent(ids, &session.req_header().headers);
        }
        if logs {
            let request = session.req_header();
            let text = |name: header::HeaderName| request.headers.get(name).map(|value| bounded(value.as_bytes()));
            ctx.line = Some(Box::new(RequestLine {
                method: request.method.clone(),
                host: text(header::HOST).unwrap_or_default(),
                path: request.uri.path().to_string(),
                has_query: request.uri.query().is_some(),
                protocol: headers::protocol(request.version),
                user_agent: text(header::USER_AGENT),
            }));
        }
    }

    /// What is left of the rare requests that are not simply forwarded: a wait, or an answer of our own.
    async fn finish(&self, directed: Directed, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let directed = match directed {
            Directed::NotReady(service) => self.direct_when_ready(session.req_header(), ctx, service).await,
            directed @ (Directed::Forward | Directed::Answer(_)) => directed,
        };
        match directed {
            Directed::Forward | Directed::NotReady(_) => Ok(false),
            Directed::Answer(answer) => {
                answer.send(session, ctx).await?;
                Ok(true)
            }
        }
    }

    /// Makes an endpoint's head one to the client, and learns from it what kind of exchange this is.
    fn reply(&self, session: &mut Session, response: &mut ResponseHeader, ctx: &mut Context) -> Result<()> {
        match ctx.waits_no_more() {
            // It begins at the very moment in which a second endpoint was to be asked: nobody is.
            None | Some(Why::Slow(_)) => {}
            Some(why) => {
                // It comes too late, on a connection that is shut down: nothing of it is used.
                ctx.judge_recall(&why);
                ctx.follow(why);
                return Err(Error::explain(ErrorType::HTTPStatus(504), "recalled").into_up());
            }
        }
        ctx.end_race();
        if response.headers.len() > ANSWER_FIELDS_MAX {
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, "too many fields").into_up());
        }
        let noticed = headers::check_response(response, ctx.upgrade)
            .map_err(|bad| Error::explain(ErrorType::InvalidHTTPHeader, bad.why).into_up())?;
        let status = response.status.as_u16();
        let is_final = !response.status.is_informational() || status == 101;
        if !is_final {
            ctx.interim += 1;
            if ctx.interim > INTERIM_MAX {
                return Err(Error::explain(ErrorType::InvalidHTTPHeader, "interim answers without end").into_up());
            }
        }
        if is_final {
            if ctx.grpc.is_some() {
                ctx.grpc_status = grpc::status(&response.headers);
            }
            self.answered(status, ctx);
            if let (Some(kept), Some(attempt)) = (noticed.kept_for, &ctx.attempt) {
                attempt.endpoint.keeping.said(kept);
            }
            if ctx.judge_head(status, &response.headers) && ctx.shield(session, Sent::Maybe) {
                // Nothing of this answer is used, and its connection is not used again.
                return Err(Error::explain(ErrorType::HTTPStatus(status), "shielded").into_up());
            }
            if ctx.try_elsewhere_after(session, status) {
                return Err(Error::explain(ErrorType::HTTPStatus(status), "asked again").into_up());
            }
            if status == 101 {
                let silence = ctx.compiled_service().map(|service| service.service.timeouts.upgrade_idle);
                ctx.becomes(Kind::WebSocket);
                ctx.link.becomes_tunnel(silence.unwrap_or_default());
            } else if ctx.grpc.is_some() {
                ctx.link.carries_messages();
            } else if noticed.is_event_stream {
                ctx.becomes(Kind::Sse);
                ctx.link.becomes_stream(response.headers.contains_key(header::CONTENT_ENCODING));
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
        // The end of an HTTP/2 body may come with trailers, after which nothing can be sent.
        let may_compress = is_final && status != 101 && response.version < Version::HTTP_2;
        if headers::to_client(response, &reply)? == Persistence::Close {
            session.set_keepalive(None);
        }
        ctx.ends_with_connection = reply.http10 && !response.headers.contains_key(header::CONTENT_LENGTH);
        if may_compress {
            ctx.compress(session.req_header(), response)?;
        }
        if is_final {
            ctx.decorate(response)?;
            ctx.status = status;
            ctx.link.answered();
        }
        Ok(())
    }

    /// The endpoint has begun its final answer.
    fn answered(&self, status: u16, ctx: &mut Context) {
        ctx.note_first_byte();
        match matches!(status, 502..=504) || ctx.grpc_status == Some(grpc::UNAVAILABLE) {
            true => ctx.attempt_failed(),
            false => ctx.time_endpoint(false),
        }
    }

    /// The answer to this request says `Connection: close`.
    fn is_last(&self, ctx: &Context) -> bool {
        self.services.stage.get() >= Stage::LameDuck || ctx.link.is_listener_draining()
    }
}

/// Tells the client that its body is wanted.
async fn invite(session: &mut Session) -> Result<()> {
    let head = ResponseHeader::build(http::StatusCode::CONTINUE, None)?;
    session.as_downstream_mut().write_response_header(Box::new(head)).await.map_err(|error| error.into_down())
}

/// Makes the client's request one to the endpoint.
fn forward(session: &Session, request: &mut RequestHeader, ctx: &mut Context) -> Result<()> {
    let name = ctx.name();
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
    if ctx.shared {
        headers::strip_what_the_client_nominated(request, &session.req_header().headers);
    }
    let hop = Hop {
        client: &ctx.client,
        proxied: ctx.origin.is_proxied.then_some(ctx.origin.client),
        scheme: ctx.link.scheme(),
        certificate: ctx.link.secure.as_ref().and_then(|secured| secured.client.as_deref()),
        path_and_query: destination.path_and_query.as_deref(),
        upgrade: ctx.upgrade,
        trailers: ctx.shared,
        host_rewrite: rewrite.host.as_ref(),
        name: name.as_ref(),
        edits: &rewrite.request_headers,
    };
    headers::to_endpoint(request, session.req_header().version, &hop)
}

impl Context {
    fn note_start(&self, at: Instant) {
        self.held.snapshot.note_start(self.thread, self.services.live.nanos_at(at));
    }

    /// Looks again at what is live, before anything was decided.
    pub fn take_snapshot(&mut self) {
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

    /// Makes the answer smaller, if that is wanted and the client can read it.
    fn compress(&mut self, request: &RequestHeader, response: &mut ResponseHeader) -> Result<()> {
        let Some(policy) = self.compiled_service().and_then(|service| service.service.policy.compression.as_ref())
        else {
            return Ok(());
        };
        let asked = Asked { version: request.version, headers: &request.headers };
        let mut verdict = compress::decide(policy, asked, response);
        let mut encoder = None;
        if let Verdict::Encode(coding) = verdict
            && request.method != http::Method::HEAD
        {
            encoder = Encoder::new(coding, policy.level);
            if encoder.is_none() {
                verdict = Verdict::LeaveForThisClient;
            }
        }
        compress::adjust(response, verdict, request.version == Version::HTTP_11)?;
        self.encoder = encoder.map(std::sync::Mutex::new);
        Ok(())
    }

    fn version_meter(&self) -> Option<&Meter> {
        Some(&self.version_core()?.meter)
    }

    /// What this proxy adds to a response: the sticky cookie, and the decision if it may be shown.
    pub fn decorate(&mut self, response: &mut ResponseHeader) -> Result<()> {
        if self.held.snapshot.generation.table.config.request_id.as_ref().is_some_and(|ids| ids.respond)
            && let Some((header, name)) = self.name()
        {
            response.insert_header(header, name)?;
        }
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
