//! Directs a request: matches, chooses, and waits for a ready version if there is none.
//!
//! Nearly every request is directed without waiting, and then nothing here is asynchronous.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, header};
use pingora_http::RequestHeader;

use super::admit::admit;
use super::answer::Answer;
use super::app::App;
use super::context::{Context, Destination};
use super::decide::{self, Ask, Unroutable};
use crate::config::model::{Action, Hold, Sticky};
use crate::endpoints::hold::{self, HoldEnd};
use crate::routing::ServiceIdx;
use crate::routing::table::CompiledRoute;

/// What becomes of a request on the snapshot it has.
pub enum Directed {
    /// Its destination is set.
    Forward,
    /// The answer is ours.
    Answer(Answer),
    /// No version of the service can take it now.
    NotReady(ServiceIdx),
}

impl App {
    /// On the snapshot that the request has. `waited_out`: it has waited for as long as it may.
    pub fn direct(&self, request: &RequestHeader, ctx: &mut Context, waited_out: bool) -> Directed {
        self.try_direct(request, ctx, waited_out).unwrap_or_else(Directed::Answer)
    }

    /// Waits for a version to be ready, then directs the request by what is live by then. Never `NotReady`.
    pub async fn direct_when_ready(&self, request: &RequestHeader, ctx: &mut Context, service: ServiceIdx) -> Directed {
        let since = Instant::now();
        let mut service = service;
        loop {
            let (ended, left) = self.wait(ctx, service, since).await;
            match ended {
                HoldEnd::Full => {
                    return Directed::Answer(Answer::busy("no endpoint is ready and too many requests wait", 1));
                }
                // Nothing was decided yet: the request is routed by what is live now.
                HoldEnd::Ready | HoldEnd::TimedOut => ctx.take_snapshot(),
            }
            match self.direct(request, ctx, ended == HoldEnd::TimedOut || left.is_zero()) {
                Directed::NotReady(again) => service = again,
                directed @ (Directed::Forward | Directed::Answer(_)) => return directed,
            }
        }
    }

    /// How the wait ended, and how much of the longest wait was left when it began.
    async fn wait(&self, ctx: &Context, service: ServiceIdx, since: Instant) -> (HoldEnd, Duration) {
        let snapshot = &ctx.held.snapshot;
        let compiled = snapshot.generation.table.service(service);
        let policy = &compiled.service.hold;
        let left = policy.max_wait.saturating_sub(since.elapsed());
        let policy = Hold { max_wait: left, max_requests: policy.max_requests };
        let live = &self.services.live;
        ctx.link.set_unread(true);
        let is_ready = || decide::is_ready_now(live, &compiled.name);
        let ended = hold::wait(snapshot.runtime.service(service), &policy, is_ready).await;
        ctx.link.set_unread(false);
        (ended, left)
    }

    fn try_direct(&self, request: &RequestHeader, ctx: &mut Context, waited_out: bool) -> Result<Directed, Answer> {
        let ask = Ask {
            method: &request.method,
            host: request.headers.get(header::HOST).map_or(b"", |value| value.as_bytes()),
            path: request.uri.path(),
            query: request.uri.query(),
            headers: &request.headers,
            client: ctx.origin.client,
        };
        if !ctx.link.admits(ask.host) {
            let why = "this host is served on another connection: it asks its clients for another certificate";
            return Err(Answer::error(421, why).closing());
        }
        if ask.method == Method::OPTIONS && request.raw_path() == b"*" {
            return Err(Answer::fixed(204, &[], ""));
        }
        let held = ctx.held.clone();
        let snapshot = &held.snapshot;
        let routed = decide::route(snapshot, &ask).map_err(|why| unroutable(&why))?;
        ctx.route = Some(routed.route);
        let table = &snapshot.generation.table;
        let compiled_route = table.route_at(routed.route);
        ctx.service = compiled_route.service;
        admit(snapshot, routed.route, ask.headers, ctx)?;
        match &compiled_route.route.action {
            Action::Forward { .. } => {}
            Action::Redirect { to, status } => return Err(Answer::redirect(*status, to)),
            Action::Respond { status, headers, body } => return Err(Answer::fixed(*status, headers, body)),
        }
        let service = compiled_route.service.expect("a forwarding route has a service");
        let compiled = table.service(service);
        let runtime = snapshot.runtime.service(service);
        let limits = &compiled.service.limits;
        if let Some(max) = limits.body
            && content_length(request).is_some_and(|length| length > max)
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
        let trial = snapshot.trial(service);
        let matched = trial.and_then(|trial| trial.matched(ask.headers));
        let known = decide::known(compiled, runtime, split, &ask, matched)
            .map_err(|_| Answer::error(400, "the forced version does not exist"))?;
        let anyway = || decide::version_anyway(compiled, runtime, split, &known, self.thread);
        let withdrawn = trial.filter(|it| it.trial.is_withdrawn()).map(|it| it.canary);
        let is_held = runtime.core.held.load(Ordering::Acquire);
        let chosen = match is_held {
            true => None,
            false => decide::version(compiled, runtime, split, &known, self.thread, withdrawn)
                // Nobody else in this split: the generation that knows better is being published.
                .or_else(|| decide::version(compiled, runtime, split, &known, self.thread, withdrawn.and(None)))
                .or_else(|| decide::is_hopeful(runtime, split).then(anyway)),
        };
        let chosen = match chosen {
            Some(chosen) => chosen,
            None if !waited_out => return Ok(Directed::NotReady(service)),
            None if is_held => return Err(Answer::busy("the service is held by an operator", 5)),
            None => anyway(),
        };
        decide::tally(split, self.thread, &chosen.choice);
        let core = &runtime.version(chosen.choice.version).core;
        if compiled.service.circuit.is_some_and(|max| core.in_flight.total() >= max) {
            core.meter.turned_away(self.thread);
            return Err(Answer::busy("the version works on as much as it may, try again", 1));
        }
        ctx.destination = Some(Destination {
            service,
            choice: chosen.choice,
            anyway: chosen.anyway,
            cookie: chosen.cookie.and_then(|cookie| set_cookie(compiled.service.sticky.as_ref(), cookie)),
            path_and_query: forwarded(&ask, routed.normal_path, compiled_route),
        });
        ctx.begin();
        ctx.count_for_budget();
        let timeouts = &compiled.service.timeouts;
        ctx.link.set_deadlines(timeouts.request, timeouts.total, timeouts.idle, limits.body);
        Ok(Directed::Forward)
    }
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
