//! Endpoints and balancing in the words of the file.

use serde_json::{Map, Value, json};

use super::super::model::{Balance, BalanceBy, Endpoint, HashKey};
use super::super::scalar::write_time;
use super::text;

pub fn endpoint(endpoint: &Endpoint) -> Value {
    let address = text(&endpoint.address.to_string());
    if endpoint.weight == 1 && endpoint.max_connections.is_none() {
        return address;
    }
    let mut out = Map::new();
    out.insert("address".into(), address);
    out.insert("weight".into(), endpoint.weight.into());
    if let Some(max) = endpoint.max_connections {
        out.insert("max_connections".into(), max.into());
    }
    out.into()
}

pub fn balance(balance: &Balance, out: &mut Map<String, Value>) {
    let by = match &balance.by {
        BalanceBy::RoundRobin => json!("round_robin"),
        BalanceBy::LeastRequest => json!("least_request"),
        BalanceBy::PeakEwma => json!("peak_ewma"),
        BalanceBy::ConsistentHash(key) => {
            let key = match key {
                HashKey::Header(name) => json!({ "header": text(name.as_str()) }),
                HashKey::Cookie(name) => json!({ "cookie": text(name) }),
                HashKey::ClientIp => json!({ "client_ip": true }),
                HashKey::Path => json!({ "path": true }),
            };
            json!({ "consistent_hash": key })
        }
    };
    out.insert("balance".into(), by);
    out.insert("slow_start".into(), write_time(balance.slow_start).into());
}
