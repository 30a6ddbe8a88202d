//! The endpoint of an attempt: which, and how the engine is to connect to it.

use std::os::unix::net::SocketAddr as UnixAddr;
use std::time::Duration;

use pingora_core::protocols::Digest;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora_core::protocols::tls::{ALPN, CustomALPN};
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;

use super::at_once::Boxed;
use super::context::{Attempt, Context};
use super::ways::{Way, WayTls, Ways};
use super::{at_once, decide, entropy, gate, hedge, protocol};
use crate::config::model::tls::Alpn;
use crate::config::model::{Balance, BalanceBy, HashKey, Service};
use crate::endpoints::keeping::Kept;
use crate::endpoints::panic::pick_any;
use crate::endpoints::proxy_header::Announced;
use crate::endpoints::{Ask, At, Picked, ServiceRuntime, Unpicked, VersionRuntime, pick};
use crate::net::clock;
use crate::routing::ClientKey;
use crate::routing::hash::fnv1a64;

/// Tells the engine to ask the [`Dialer`](super::dialer::Dialer) for a connection. It is never sent.
const BY_THE_DIALER: &[u8] = b"tls";

/// Begins the next attempt of the request. Waits while every endpoint that could serve is full, and while somebody else
/// makes the connection that it is to share; nearly every request waits for neither.
pub fn next<'a>(request: &RequestHeader, ctx: &'a mut Context, ways: &'a Ways) -> Boxed<'a, Box<HttpPeer>> {
    if let Some(second) = ctx.hedging.take_second() {
        return at_once::is(hedge::begin(*second, ctx));
    }
    let held = ctx.held.clone();
    let Some(destination) = &ctx.destination else {
        return at_once::is(Error::e_explain(ErrorType::InternalError, "forwarding without a destination"));
    };
    let service = &held.snapshot.generation.table.service(destination.service).service;
    let runtime = held.snapshot.runtime.service(destination.service);
    let version = runtime.version(destination.choice.version);
    let ask = Wanted { key: key(&version.balance, request, ctx), anyway: destination.anyway };
    match choose(version, ctx, ask, false) {
        Err(Unpicked::Full) => Box::pin(next_when_there_is_room(ctx, ways, ask)),
        picked => match begin(ctx, ways, service, runtime, picked) {
            Ok((peer, None)) => at_once::is(Ok(peer)),
            Ok((peer, Some(shared))) => Box::pin(async move {
                ctx.connecting = gate::pass(shared).await;
                Ok(peer)
            }),
            Err(error) => at_once::is(Err(error)),
        },
    }
}

async fn next_when_there_is_room(ctx: &mut Context, ways: &Ways, ask: Wanted) -> Result<Box<HttpPeer>> {
    let held = ctx.held.clone();
    let Some(destination) = &ctx.destination else {
        return Error::e_explain(ErrorType::InternalError, "forwarding without a destination");
    };
    let service = &held.snapshot.generation.table.service(destination.service).service;
    let runtime = held.snapshot.runtime.service(destination.service);
    let version = runtime.version(destination.choice.version);
    let hold = &service.hold;
    let take = || choose(version, ctx, ask, true).ok();
    let picked = version.core.room.wait(hold.max_wait, hold.max_requests, take).await.ok_or(Unpicked::Full);
    let (peer, shared) = begin(ctx, ways, service, runtime, picked)?;
    if let Some(shared) = shared {
        ctx.connecting = gate::pass(shared).await;
    }
    Ok(peer)
}

/// How the engine is to connect, and the incarnation of the endpoint if its connection is shared.
fn begin(
    ctx: &mut Context,
    ways: &Ways,
    service: &Service,
    runtime: &ServiceRuntime,
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
    let kept = endpoint.keeping.now();
    let mut peer = peer(&at, service, kept, ctx.stale_retried)?;
    ctx.shared = protocol::speak(&mut peer, &service.upstream, ctx.upgrade);
    let mut pooled = Pooled { incarnation, era: kept.era, secure: 0, shared: ctx.shared };
    let secure = runtime.secure.as_ref().map(|cell| cell.load());
    pooled.secure = secure.as_ref().map_or(0, |secure| secure.number);
    if !ctx.stale_retried {
        peer.group_key = pooled.key();
    }
    let announce = service.upstream.proxy_protocol.map(|version| (announced(ctx), version));
    if let Some(whom) = &announce {
        peer.group_key = ways.key_for(peer.group_key, whom);
    }
    if secure.is_some() || announce.is_some() {
        peer.options.alpn = ALPN::Custom(CustomALPN::new(BY_THE_DIALER.to_vec()));
        let patience = connect_within(service);
        ways.leave(peer.group_key, patience, || {
            let tls = secure.map(|secure| WayTls { name: secure.name(&endpoint.address), secure: secure.clone() });
            Way { tls, announce, alpn: if ctx.shared { Alpn::H2 } else { Alpn::Http11 }, patience }
        });
    }
    let timed = service.balance.by == BalanceBy::PeakEwma;
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
pub(super) fn key(balance: &Balance, request: &RequestHeader, ctx: &Context) -> Option<u64> {
    let BalanceBy::ConsistentHash(key) = &balance.by else { return None };
    match key {
        HashKey::Header(name) => request.headers.get(name).map(|value| fnv1a64(value.as_bytes())),
        HashKey::Cookie(name) => decide::cookie(&request.headers, name).map(|value| fnv1a64(value.as_bytes())),
        HashKey::ClientIp => Some(ClientKey::of_address(ctx.origin.client).0),
        HashKey::Path => Some(fnv1a64(request.uri.path().as_bytes())),
    }
}

/// Whom a connection for this request is for, if it says that.
pub fn announced(ctx: &Context) -> Announced {
    Announced::Client { from: ctx.link.client, to: ctx.link.local }
}

/// The connection is for this request's client, if its service announces clients.
pub fn is_for(ctx: &Context, digest: Option<&Digest>) -> bool {
    let service = ctx.compiled_service();
    if service.is_none_or(|service| service.service.upstream.proxy_protocol.is_none()) {
        return true;
    }
    let said = digest.and_then(|digest| digest.proxy_digest.as_ref()).and_then(|said| said.user_data.as_ref());
    said.and_then(|said| said.downcast_ref()) == Some(&announced(ctx))
}

/// Marks groups of one connection, which is not to come from the pool.
const FRESH: u64 = 1 << 63;

/// What connections are pooled by, besides their address.
#[derive(Debug, Clone, Copy)]
struct Pooled {
    /// Connections belong to this endpoint's life: one that was removed or replaced never gets them.
    incarnation: u64,
    /// Of what the endpoint has said about idle connections.
    era: u8,
    /// The definition of TLS that they were verified by; 0 without.
    secure: u32,
    /// With other requests.
    shared: bool,
}

impl Pooled {
    /// The number of the definition comes back to itself after a million changes, that of an endpoint never.
    fn key(self) -> u64 {
        u64::from(self.shared) << 62
            | u64::from(self.era & 0x3F) << 56
            | u64::from(self.secure & 0xF_FFFF) << 36
            | self.incarnation & 0xF_FFFF_FFFF
    }
}

fn connect_within(service: &Service) -> Duration {
    service.timeouts.connect.min(service.retry.per_try_timeout.unwrap_or(Duration::MAX))
}

pub(super) fn peer(at: &At, service: &Service, kept: Kept, fresh: bool) -> Result<Box<HttpPeer>> {
    let mut peer = match at {
        At::Ip(address) => Box::new(HttpPeer::new(address, false, String::new())),
        At::Unix(path) => {
            let Ok(address) = UnixAddr::from_pathname(path) else {
                return Error::e_explain(ErrorType::SocketError, "the path of a socket is too long");
            };
            let mut peer = Box::new(HttpPeer::new((std::net::Ipv4Addr::LOCALHOST, 0), false, String::new()));
            peer._address = PeerAddr::Unix(address);
            peer
        }
    };
    let options = &mut peer.options;
    // `headers::to_endpoint` does all of it.
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
    let connect = connect_within(service);
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(connect);
    let idle = service.upstream.keepalive_idle;
    options.idle_timeout = Some(kept.idle.map_or(idle, |kept| idle.min(kept)));
    if fresh {
        // The second chance must not meet a second connection that was closed meanwhile, or one that another second
        // chance left behind: it has a group of its own.
        options.idle_timeout = Some(Duration::ZERO);
        peer.group_key = FRESH | entropy::next();
    }
    Ok(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_another_definition_are_other_connections() {
        let one = Pooled { incarnation: 7, era: 0, secure: 0, shared: false };
        let others = [
            one,
            Pooled { incarnation: 8, ..one },
            Pooled { secure: 1, ..one },
            Pooled { secure: 2, ..one },
            Pooled { shared: true, ..one },
            Pooled { era: 1, ..one },
            Pooled { era: 63, ..one },
            Pooled { secure: 1, shared: true, ..one },
        ];
        let keys: std::collections::BTreeSet<u64> = others.into_iter().map(Pooled::key).collect();
        assert_eq!(keys.len(), others.len());
    }
}
