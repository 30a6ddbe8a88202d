//! Policies of listeners, services and routes: lists that can match somebody, and mean something.

use super::super::decode::{Field, List};
use super::super::found::Found;
use super::super::model::networks::Networks;
use super::super::model::policy::{Access, ListenerPolicy, ProxyProtocol, RoutePolicy, ServicePolicy};
use super::super::raw;
use super::super::scalar::Network;

pub fn listener(raw: &raw::Listener, found: &mut Found) -> ListenerPolicy {
    let limits = raw.limits.get();
    ListenerPolicy {
        proxy_protocol: proxy_protocol(raw, found),
        trusted_proxies: networks(&raw.trusted_proxies, found),
        access: access(&raw.access, found),
        connections_per_client: limits.and_then(|it| it.connections_per_client.get()).map(|it| it.0 as u32),
    }
}

pub fn service(raw: &raw::Service, found: &mut Found) -> ServicePolicy {
    ServicePolicy { access: access(&raw.access, found) }
}

pub fn route(raw: &raw::Route, found: &mut Found) -> RoutePolicy {
    RoutePolicy { access: access(&raw.access, found) }
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
