//! Policies of listeners, services and routes: lists that can match somebody, and mean something.

use std::num::NonZeroU32;

use http::HeaderValue;

use super::super::decode::{Field, List};
use super::super::found::Found;
use super::super::model::networks::Networks;
use super::super::model::policy::{
    Access, Coding, Compression, ListenerPolicy, Maintenance, MediaType, ProxyProtocol, RateKey, RateLimit, RequestIds,
    RoutePolicy, ServicePolicy,
};
use super::super::raw::{self, Raw};
use super::super::scalar::Network;
use super::{Around, headers};

pub fn listener(raw: &raw::Listener, found: &mut Found) -> ListenerPolicy {
    let limits = raw.limits.get();
    ListenerPolicy {
        proxy_protocol: proxy_protocol(raw, found),
        trusted_proxies: networks(&raw.trusted_proxies, found),
        access: access(&raw.access, found),
        connections_per_client: limits.and_then(|it| it.connections_per_client.get()).map(|it| it.0 as u32),
        min_body_rate: limits.and_then(|it| it.min_body_rate.get()).map(|it| it.0),
        min_send_rate: limits.and_then(|it| it.min_send_rate.get()).map(|it| it.0),
    }
}

pub fn service(raw: &raw::Service, around: &Around<'_>, found: &mut Found) -> ServicePolicy {
    let limits = raw.limits.get();
    ServicePolicy {
        access: access(&raw.access, found),
        rate_limit: rate_limit(&raw.rate_limit),
        maintenance: maintenance(&raw.maintenance, around, found),
        compression: compression(&raw.compression, found),
        in_flight_per_client: limits.and_then(|it| it.in_flight_per_client.get()).map(|it| it.0 as u32),
    }
}

pub fn route(raw: &raw::Route, found: &mut Found) -> RoutePolicy {
    RoutePolicy { access: access(&raw.access, found), rate_limit: rate_limit(&raw.rate_limit) }
}

pub fn request_id(raw: &Raw, found: &mut Found) -> Option<RequestIds> {
    let raw = raw.request_id.get()?;
    if let Some((header, span)) = raw.header.written() {
        headers::editable(&header.0, span, found);
    }
    Some(RequestIds { header: raw.header.get()?.0.clone(), trust: raw.trust.value().0, respond: raw.respond.value().0 })
}

fn rate_limit(field: &Field<raw::RateLimit>) -> Option<RateLimit> {
    let raw = field.get()?;
    let rate = raw.rate.get()?;
    let burst = raw.burst.get().and_then(|burst| NonZeroU32::new(burst.0 as u32));
    let key = match raw.key.get()? {
        raw::RateKey::ClientIp => RateKey::ClientIp,
        raw::RateKey::By(by) => RateKey::Header(by.header.get()?.0.clone()),
    };
    Some(RateLimit { key, count: rate.count, per: rate.per, burst: burst.unwrap_or(rate.count) })
}

/// What is worth it: not what is compressed by its nature.
const COMPRESSIBLE: &[&str] = &[
    "text/html",
    "text/css",
    "text/plain",
    "text/csv",
    "text/xml",
    "text/javascript",
    "text/markdown",
    "application/javascript",
    "application/json",
    "application/ld+json",
    "application/manifest+json",
    "application/problem+json",
    "application/xml",
    "application/rss+xml",
    "application/atom+xml",
    "application/xhtml+xml",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "font/otf",
    "font/ttf",
    "image/svg+xml",
];

fn compression(field: &Field<raw::Compression>, found: &mut Found) -> Option<Compression> {
    let raw = field.get()?;
    let mut codings: Vec<Coding> = Vec::new();
    for (coding, span) in raw.algorithms.get().into_iter().flat_map(|many| many.0.good()) {
        if codings.contains(coding) {
            found.error(span, format!("`{}` is given twice", coding.as_str()));
        }
        codings.push(*coding);
    }
    for (is_empty, written, key) in [
        (raw.algorithms.get().is_some_and(|many| many.0.0.is_empty()), raw.algorithms.key(), "algorithms"),
        (raw.types.get().is_some_and(|list| list.0.is_empty()), raw.types.key(), "types"),
    ] {
        if let (true, Some(span)) = (is_empty, written) {
            found.error(span, format!("`{key}` is empty")).hint("leave `compression` out to turn it off");
        }
    }
    if codings.is_empty() {
        codings.extend(Coding::ALL);
    }
    let types = match raw.types.get() {
        Some(list) => list.good().map(|(it, _)| it.0.clone()).collect(),
        None => COMPRESSIBLE.iter().filter_map(|text| MediaType::new(text)).collect(),
    };
    Some(Compression { codings, level: raw.level.value().0 as u32, min_size: raw.min_size.value().0, types })
}

fn maintenance(field: &Field<raw::Maintenance>, around: &Around<'_>, found: &mut Found) -> Option<Maintenance> {
    let raw = field.get()?;
    let file = raw.file.written().map(|(name, span)| (around.path(&name.0, span), name, span));
    let body = match (&file, raw.body.written()) {
        (Some(_), Some((_, span))) => {
            found.error(span, "`body` and `file` cannot be used together").hint("keep one");
            String::new()
        }
        (Some((path, name, span)), None) => match (around.read_page)(path) {
            Ok(text) => text,
            Err(why) => {
                found
                    .error(*span, format!("`{}` cannot be read", name.0))
                    .why(why)
                    .hint("paths are relative to the file that names them");
                String::new()
            }
        },
        (None, body) => body.map(|(body, _)| body.0.clone()).unwrap_or_default(),
    };
    let status = raw.status.value().0 as u16;
    if let (204 | 205 | 304, false, Some((_, span))) = (status, body.is_empty(), raw.status.written()) {
        found.error(span, format!("an answer with status {status} has no body"));
    }
    Some(Maintenance {
        enabled: raw.enabled.value().0,
        status,
        body,
        file: file.map(|(path, _, _)| path),
        content_type: raw.content_type.get().map_or(HeaderValue::from_static("text/plain"), |it| it.0.clone()),
        retry_after: raw.retry_after.get().map(|it| it.0),
        allow: networks(&raw.allow, found),
    })
}

fn access(field: &Field<raw::Access>, found: &mut Found) -> Access {
    let Some(raw) = field.get() else { return Access::default() };
    if let Some((list, span)) = raw.allow.written()
        && list.0.is_empty()
    {
        found
            .error(span, "`allow` is empty")
            .why("nobody could come in")
            .hint("leave it out to let everybody in; to keep everybody out write `deny: [0.0.0.0/0, \"::/0\"]`");
    }
    let allow = raw.allow.get().filter(|list| !list.0.is_empty()).map(|_| networks(&raw.allow, found));
    Access { allow, deny: networks(&raw.deny, found) }
}

fn proxy_protocol(raw: &raw::Listener, found: &mut Found) -> Option<ProxyProtocol> {
    let raw::OrOff::On(raw) = raw.proxy_protocol.get()? else { return None };
    if let Some((list, span)) = raw.from.written()
        && list.0.is_empty()
    {
        found
            .error(span, "`from` is empty")
            .why("nobody could announce a client")
            .hint("name the load balancers, or write `proxy_protocol: off`");
    }
    Some(ProxyProtocol { mode: *raw.mode.get()?, from: networks(&raw.from, found) })
}

/// Everybody may be on a list that believes them only if that is what was written.
fn networks(field: &Field<List<Network>>, found: &mut Found) -> Networks {
    let Some(list) = field.get() else { return Networks::default() };
    let mut seen = std::collections::HashSet::new();
    for (network, span) in list.good() {
        if !seen.insert(network.0) {
            found.warning(span, format!("`{}` is given twice", network.0));
        }
    }
    list.good().map(|(network, _)| network.0).collect()
}
