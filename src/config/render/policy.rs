//! Policies of listeners, services and routes, written out where they differ from none.

use serde_json::{Map, Value, json};

use super::super::model::networks::Networks;
use super::super::model::policy::{
    Access, ListenerPolicy, Maintenance, RateKey, RateLimit, RequestIds, RoutePolicy, ServicePolicy,
};
use super::super::scalar::{Word, write_frequency, write_size, write_time};
use super::{text, value};

/// Adds the keys of a listener, and those of its `limits`.
pub fn listener(policy: &ListenerPolicy, out: &mut Map<String, Value>) {
    if let Some(it) = &policy.proxy_protocol {
        out.insert("proxy_protocol".into(), json!({ "mode": it.mode.word(), "from": networks(&it.from) }));
    }
    if !policy.trusted_proxies.is_empty() {
        out.insert("trusted_proxies".into(), networks(&policy.trusted_proxies));
    }
    access(&policy.access, out);
    if let Some(count) = policy.connections_per_client {
        limits(out).insert("connections_per_client".into(), count.into());
    }
    for (key, rate) in [("min_body_rate", policy.min_body_rate), ("min_send_rate", policy.min_send_rate)] {
        if let Some(rate) = rate {
            limits(out).insert(key.into(), write_size(rate).into());
        }
    }
}

/// Adds the keys of a service, and those of its `limits`.
pub fn service(policy: &ServicePolicy, out: &mut Map<String, Value>) {
    access(&policy.access, out);
    rate_limit(policy.rate_limit.as_ref(), out);
    if let Some(it) = &policy.maintenance {
        out.insert("maintenance".into(), maintenance(it));
    }
    if let Some(it) = &policy.compression {
        let codings: Value = it.codings.iter().map(|coding| Value::from(coding.as_str())).collect();
        let types: Value = it.types.iter().map(|it| text(it.as_str())).collect();
        let min_size = write_size(it.min_size);
        let compression = json!({ "algorithms": codings, "level": it.level, "min_size": min_size, "types": types });
        out.insert("compression".into(), compression);
    }
    if let Some(count) = policy.in_flight_per_client {
        limits(out).insert("in_flight_per_client".into(), count.into());
    }
}

pub fn route(policy: &RoutePolicy, out: &mut Map<String, Value>) {
    access(&policy.access, out);
    rate_limit(policy.rate_limit.as_ref(), out);
}

pub fn request_id(ids: &RequestIds) -> Value {
    json!({ "header": text(ids.header.as_str()), "trust": ids.trust, "respond": ids.respond })
}

fn rate_limit(limit: Option<&RateLimit>, out: &mut Map<String, Value>) {
    let Some(limit) = limit else { return };
    let key = match &limit.key {
        RateKey::ClientIp => json!("client_ip"),
        RateKey::Header(name) => json!({ "header": text(name.as_str()) }),
    };
    let rate = write_frequency(limit.count, limit.per);
    out.insert("rate_limit".into(), json!({ "key": key, "rate": rate, "burst": limit.burst }));
}

fn maintenance(it: &Maintenance) -> Value {
    let mut out = Map::new();
    out.insert("enabled".into(), it.enabled.into());
    out.insert("status".into(), it.status.into());
    match &it.file {
        Some(file) => out.insert("file".into(), text(&file.to_string_lossy())),
        None => out.insert("body".into(), text(&it.body)),
    };
    out.insert("content_type".into(), value(&it.content_type));
    if let Some(after) = it.retry_after {
        out.insert("retry_after".into(), write_time(after).into());
    }
    if !it.allow.is_empty() {
        out.insert("allow".into(), networks(&it.allow));
    }
    out.into()
}

fn access(access: &Access, out: &mut Map<String, Value>) {
    let mut lists = Map::new();
    if let Some(allow) = &access.allow {
        lists.insert("allow".into(), networks(allow));
    }
    if !access.deny.is_empty() {
        lists.insert("deny".into(), networks(&access.deny));
    }
    if !lists.is_empty() {
        out.insert("access".into(), lists.into());
    }
}

fn networks(networks: &Networks) -> Value {
    networks.iter().map(|network| Value::from(network.to_string())).collect()
}

fn limits(out: &mut Map<String, Value>) -> &mut Map<String, Value> {
    out.entry("limits").or_insert_with(|| Map::new().into()).as_object_mut().expect("limits are a map")
}
