//! Engine-independent: what a request is to become, decided on one snapshot.

use http::{HeaderMap, Method};
use subtle::ConstantTimeEq;

use super::entropy;
use crate::config::model::{Action, Force, Sticky};
use crate::control::{Live, Snapshot};
use crate::endpoints::{EndpointRuntime, Health, ServiceRuntime, VersionRuntime};
use crate::routing::matcher::RequestView;
use crate::routing::table::CompiledService;
use crate::routing::{
    Bucket, Choice, Client, ClientKey, Ready, Reason, RouteIdx, ServiceIdx, Share, Split, StickyCookie, Thread,
    VersionIdx, choose, choose_anyway, host, path,
};

/// The parts of a request that decide where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub method: &'a Method,
    /// As received, port included.
    pub host: &'a [u8],
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub client: std::net::IpAddr,
}

/// Why a request has no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unroutable {
    BadHost,
    BadPath(path::PathProblem),
    NoRoute,
}

/// The route of a request, and its path as it was matched if that differs from what was sent.
pub struct Routed {
    pub route: RouteIdx,
    pub normal_path: Option<String>,
}

pub fn route(snapshot: &Snapshot, ask: &Ask<'_>) -> Result<Routed, Unroutable> {
    let host = match ask.host {
        b"" => std::borrow::Cow::Borrowed(""),
        host => host::normalise(host).ok_or(Unroutable::BadHost)?,
    };
    let normal = path::normalise(ask.path).map_err(Unroutable::BadPath)?;
    let view = RequestView { method: ask.method, host: &host, path: &normal, query: ask.query, headers: ask.headers };
    let table = &snapshot.generation.table;
    let route = table.route_path(&view).map_err(Unroutable::BadPath)?.ok_or(Unroutable::NoRoute)?;
    let normal_path = (*normal != *ask.path).then(|| normal.into_owned());
    Ok(Routed { route, normal_path })
}

/// The version of a request, with what must be told to the client so that it stays there.
#[derive(Debug, Clone)]
pub struct Chosen {
    pub choice: Choice,
    /// A sticky cookie to set.
    pub cookie: Option<StickyCookie>,
    /// The version was chosen without regard to health.
    pub anyway: bool,
}

/// What is known of the client of one request, before a version is chosen.
pub struct Known {
    client: Client,
    cookie: Option<StickyCookie>,
    /// The client sent the cookie as it is.
    has_cookie: bool,
}

/// A client that names a version that does not exist, and may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSuchVersion;

/// `matched`: the canary, if a stage of its rollout sends this client there.
pub fn known(
    service: &CompiledService,
    runtime: &ServiceRuntime,
    split: &Split,
    ask: &Ask<'_>,
    matched: Option<VersionIdx>,
) -> Result<Known, NoSuchVersion> {
    let force = match &service.service.force {
        Some(force) => forced(force, service, ask.headers)?,
        None => None,
    };
    let mut known =
        Known { client: Client { force, key: None, pinned: None, matched }, cookie: None, has_cookie: false };
    match &service.service.sticky {
        None => {}
        Some(Sticky::ClientIp) => {
            known.client.key = Some(ClientKey::of_address(ask.client));
        }
        Some(Sticky::Header(name)) => {
            known.client.key = ask.headers.get(name).map(|value| ClientKey::from_bytes(value.as_bytes()));
        }
        Some(Sticky::Cookie { name, .. }) => {
            let sent = cookie(ask.headers, name).and_then(StickyCookie::parse);
            known.has_cookie = sent.is_some();
            let cookie = sent.unwrap_or_else(|| StickyCookie { id: entropy::next(), tag: 0 });
            known.client.key = Some(cookie.key());
            known.client.pinned = sent.and_then(|sent| pinned(sent, service, runtime, split));
            known.cookie = Some(cookie);
        }
    }
    Ok(known)
}

/// The draining version that the cookie says the client is on, while its clients may still come back.
fn pinned(
    sent: StickyCookie,
    service: &CompiledService,
    runtime: &ServiceRuntime,
    split: &Split,
) -> Option<VersionIdx> {
    let version = sent.version(service)?;
    let ended = runtime.version(version).core.pins_ended.load(std::sync::atomic::Ordering::Relaxed);
    (split.share(version) == Share::Draining && !ended).then_some(version)
}

fn forced(force: &Force, service: &CompiledService, headers: &HeaderMap) -> Result<Option<VersionIdx>, NoSuchVersion> {
    let Some(value) = headers.get(&force.header).and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    let name = match &force.token {
        None => value,
        Some(token) => match value.split_once(':') {
            Some((name, given)) if bool::from(given.as_bytes().ct_eq(token.as_bytes())) => name,
            // Not allowed: treated like anybody else, and told nothing.
            Some(_) | None => return Ok(None),
        },
    };
    service.version_named(name.trim()).map(Some).ok_or(NoSuchVersion)
}

/// The value of the first cookie of that name.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(http::header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// The version now, or `None` while no version of the split has a ready endpoint. `withdrawn`: a canary that a
/// guardrail has stopped; only who forces it gets it.
pub fn version(
    service: &CompiledService,
    runtime: &ServiceRuntime,
    split: &Split,
    known: &Known,
    thread: Thread,
    withdrawn: Option<VersionIdx>,
) -> Option<Chosen> {
    let is_withdrawn = |version| withdrawn == Some(version) && known.client.force != withdrawn;
    let ready = |version: VersionIdx| match runtime.version(version).has_ready() && !is_withdrawn(version) {
        true => Ready::Yes,
        false => Ready::No,
    };
    let choice = choose(split, service.salt, &known.client, thread, ready)?;
    Some(chosen(service, known, choice, false))
}

/// As [`version`] when nothing is ready: an endpoint that answers, only not as its check wants, before one
/// that does not; better a slim chance than a certain 503.
pub fn version_anyway(
    service: &CompiledService,
    runtime: &ServiceRuntime,
    split: &Split,
    known: &Known,
    thread: Thread,
) -> Chosen {
    let answering = |version: VersionIdx| match runtime.version(version).now().endpoints.iter().any(|it| answers(it)) {
        true => Ready::Yes,
        false => Ready::No,
    };
    let choice = match choose(split, service.salt, &known.client, thread, answering) {
        Some(choice) if choice.reason == Reason::Force => choice,
        Some(choice) => Choice { reason: Reason::Panic, ..choice },
        None => choose_anyway(split, service.salt, &known.client, thread),
    };
    chosen(service, known, choice, true)
}

fn chosen(service: &CompiledService, known: &Known, choice: Choice, anyway: bool) -> Chosen {
    let tag = StickyCookie::tag_of(service.version_name(choice.version));
    let cookie = known
        .cookie
        .filter(|cookie| !known.has_cookie || cookie.tag != tag)
        // A preview must not change where the client normally is.
        .filter(|_| choice.reason != Reason::Force)
        .map(|cookie| StickyCookie { id: cookie.id, tag });
    Chosen { choice, cookie, anyway }
}

/// The service of a route, if it forwards.
pub fn service_of(snapshot: &Snapshot, route: RouteIdx) -> Option<ServiceIdx> {
    let compiled = snapshot.generation.table.route_at(route);
    match &compiled.route.action {
        Action::Forward { .. } => compiled.service,
        Action::Redirect { .. } | Action::Respond { .. } => None,
    }
}

/// Bucket and version are counted where the decision is used, not where it is only explained.
pub fn tally(split: &Split, thread: Thread, choice: &Choice) {
    let bucket: Option<Bucket> = choice.bucket;
    match choice.reason {
        Reason::Force => {}
        Reason::DrainPin
        | Reason::Match
        | Reason::Sticky
        | Reason::Weight
        | Reason::FallbackUnhealthy
        | Reason::Panic => {
            split.tally(thread, choice.version, bucket);
        }
    }
}

/// No version is ready, but one that gets traffic has an endpoint that answers: trying it beats waiting.
pub fn is_hopeful(runtime: &ServiceRuntime, split: &Split) -> bool {
    with_traffic(runtime, split).any(|version| version.now().endpoints.iter().any(|endpoint| answers(endpoint)))
}

/// Speaks, only not as its check wants, or was ejected for what it said.
fn answers(endpoint: &EndpointRuntime) -> bool {
    match endpoint.health() {
        Health::Failing | Health::Healthy | Health::Unchecked => endpoint.is_resolved(),
        Health::Unknown | Health::Down => false,
    }
}

fn with_traffic<'a>(runtime: &'a ServiceRuntime, split: &'a Split) -> impl Iterator<Item = &'a VersionRuntime> {
    let gets_traffic = |share: &Share| match share {
        Share::Weight(weight) => *weight > 0,
        Share::Off | Share::Draining => false,
    };
    let shares = split.shares().iter();
    shares.zip(&runtime.versions).filter(move |(share, _)| gets_traffic(share)).map(|(_, version)| &**version)
}

/// For a waiting request: whether asking again would find a version now.
pub fn is_ready_now(live: &Live, service: &str) -> bool {
    let snapshot = live.pointer().load();
    let Some(index) = snapshot.generation.table.service_named(service) else {
        return true;
    };
    let runtime = snapshot.runtime.service(index);
    if runtime.core.held.load(std::sync::atomic::Ordering::Acquire) {
        return false;
    }
    let split = snapshot.generation.split(index);
    with_traffic(runtime, split).any(VersionRuntime::has_ready) || is_hopeful(runtime, split)
}
