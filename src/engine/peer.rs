//! The endpoint of an attempt: which, and how the engine is to connect to it.

use std::os::unix::net::SocketAddr as UnixAddr;
use std::time::Duration;

use pingora_core::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;

use super::at_once::Boxed;
use super::context::{Attempt, Context};
use super::{at_once, decide, entropy, gate, protocol};
use crate::config::model::{Balance, BalanceBy, HashKey, Service};
use crate::endpoints::panic::pick_any;
use crate::endpoints::{Ask, At, Picked, Unpicked, VersionRuntime, pick};
use crate::net::clock;
use crate::routing::ClientKey;
use crate::routing::hash::fnv1a64;

/// Marks connections that are not to come from the pool.
const FRESH: u64 = 1 << 63;

/// Begins the next attempt of the request. Waits while every endpoint that could serve is full, and while somebody else
/// makes the connection that it is to share; nearly every request waits for neither.
pub fn next<'a>(request: &RequestHeader, ctx: &'a mut Context) -> Boxed<'a, Box<HttpPeer>> {
    let held = ctx.held.clone();
    let Some(destination) = &ctx.destination else {
        return at_once::is(Error::e_explain(ErrorType::InternalError, "forwarding without a destination"));
    };
    let service = &held.snapshot.generation.table.service(destination.service).service;
    let version = held.snapshot.runtime.service(destination.service).version(destination.choice.version);
    let ask = Wanted { key: key(&version.balance, request, ctx), anyway: destination.anyway };
    match choose(version, ctx, ask, false) {
        Err(Unpicked::Full) => Box::pin(next_when_there_is_room(ctx, ask)),
        picked => match begin(ctx, service, version, picked) {
            Ok((peer, None)) => at_once::is(Ok(peer)),
            Ok((peer, Some(shared))) => Box::pin(async move {
                ctx.connecting = gate::pass(shared).await;
                Ok(peer)
            }),
            Err(error) => at_once::is(Err(error)),
        },
    }
}

async fn next_when_there_is_room(ctx: &mut Context, ask: Wanted) -> Result<Box<HttpPeer>> {
    let held = ctx.held.clone();
    let Some(destination) = &ctx.destination else {
        return Error::e_explain(ErrorType::InternalError, "forwarding without a destination");
    };
    let service = &held.snapshot.generation.table.service(destination.service).service;
    let version = held.snapshot.runtime.service(destination.service).version(destination.choice.version);
    let hold = &service.hold;
    let take = || choose(version, ctx, ask, true).ok();
    let picked = version.core.room.wait(hold.max_wait, hold.max_requests, take).await.ok_or(Unpicked::Full);
    let (peer, shared) = begin(ctx, service, version, picked)?;
    if let Some(shared) = shared {
        ctx.connecting = gate::pass(shared).await;
    }
    Ok(peer)
}

/// How the engine is to connect, and the incarnation of the endpoint if its connection is shared.
fn begin(
    ctx: &mut Context,
    service: &Service,
    version: &VersionRuntime,
    picked: Result<Picked, Unpicked>,
) -> Result<(Box<HttpPeer>, Option<u64>)> {
    let Picked { endpoint, place } = match picked {
        Ok(picked) => picked,
        Err(Unpicked::Full) => {
            ctx.is_crowded = true;
            return Error::e_explain(ErrorType::HTTPStatus(503), "every endpoint is full");
        }
        Err(Unpicked::Nothing) => {
            return Error::e_explain(ErrorType::HTTPStatus(503), "no endpoint is resolved");
        }
    };
    let Some(at) = endpoint.at.clone() else {
        return Error::e_explain(ErrorType::InternalError, "an endpoint without an address was picked");
    };
    let incarnation = endpoint.incarnation;
    let mut peer = Box::new(peer(&at, incarnation, service, ctx.stale_retried)?);
    ctx.shared = protocol::speak(&mut peer, &service.upstream, ctx.upgrade);
    let timed = version.balance.by == BalanceBy::PeakEwma;
    ctx.attempt_at(Attempt { endpoint, at, place, reused: false, began: timed.then(std::time::Instant::now) });
    Ok((peer, ctx.shared.then_some(incarnation)))
}

/// What the choice of an endpoint depends on beside the request's past.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    key: Option<u64>,
    anyway: bool,
}

/// A second chance goes to an endpoint of whatever state, rather than to nobody.
fn choose(version: &VersionRuntime, ctx: &Context, wanted: Wanted, queued: bool) -> Result<Picked, Unpicked> {
    let Wanted { key, anyway } = wanted;
    let in_panic = version.core.panic.load(std::sync::atomic::Ordering::Relaxed);
    if in_panic && let Some(picked) = pick_any(version, ctx.thread, &ctx.tried) {
        return Ok(picked);
    }
    let ask = Ask { avoid: &ctx.tried, key, anyway, queued, ..Ask::new(ctx.thread, clock::now_ms(), entropy::next()) };
    match pick(version, &ask) {
        Err(Unpicked::Nothing) if !anyway => pick(version, &Ask { anyway: true, ..ask }),
        picked => picked,
    }
}

/// What the request is known by, if that matters.
fn key(balance: &Balance, request: &RequestHeader, ctx: &Context) -> Option<u64> {
    let BalanceBy::ConsistentHash(key) = &balance.by else { return None };
    match key {
        HashKey::Header(name) => request.headers.get(name).map(|value| fnv1a64(value.as_bytes())),
        HashKey::Cookie(name) => decide::cookie(&request.headers, name).map(|value| fnv1a64(value.as_bytes())),
        HashKey::ClientIp => Some(ClientKey::of_address(ctx.origin.client).0),
        HashKey::Path => Some(fnv1a64(request.uri.path().as_bytes())),
    }
}

/// `incarnation`: connections belong to this endpoint's life: one that was removed or replaced never gets them.
fn peer(at: &At, incarnation: u64, service: &Service, fresh: bool) -> Result<HttpPeer> {
    let mut peer = match at {
        At::Ip(address) => HttpPeer::new(address, false, String::new()),
        At::Unix(path) => {
            let Ok(address) = UnixAddr::from_pathname(path) else {
                return Error::e_explain(ErrorType::SocketError, "the path of a socket is too long");
            };
            let mut peer = HttpPeer::new((std::net::Ipv4Addr::LOCALHOST, 0), false, String::new());
            peer._address = PeerAddr::Unix(address);
            peer
        }
    };
    peer.group_key = incarnation;
    let options = &mut peer.options;
    // `headers::to_endpoint` does all of it.
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
    let connect = service.timeouts.connect.min(service.retry.per_try_timeout.unwrap_or(Duration::MAX));
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(connect);
    options.idle_timeout = Some(service.upstream.keepalive_idle);
    if fresh {
        // The second chance must not meet a second connection that was closed meanwhile.
        options.idle_timeout = Some(Duration::ZERO);
        peer.group_key |= FRESH;
    }
    Ok(peer)
}
