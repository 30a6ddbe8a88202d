//! Policies of listeners, services and routes, written out where they differ from none.

use serde_json::{Map, Value, json};

use super::super::model::networks::Networks;
use super::super::model::policy::{Access, ListenerPolicy, RoutePolicy, ServicePolicy};
use super::super::scalar::Word;

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
}

pub fn service(policy: &ServicePolicy, out: &mut Map<String, Value>) {
    access(&policy.access, out);
}

pub fn route(policy: &RoutePolicy, out: &mut Map<String, Value>) {
    access(&policy.access, out);
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
