//! How names are looked up, in the words of the file.

use serde_json::{Map, Value};

use super::super::model::Dns;
use super::super::scalar::{Word, write_time};

pub fn dns(dns: &Dns) -> Value {
    let mut out = Map::new();
    if !dns.servers.is_empty() {
        out.insert("servers".into(), dns.servers.iter().map(|server| Value::from(server.to_string())).collect());
    }
    out.insert("ttl_min".into(), write_time(dns.ttl_min).into());
    out.insert("ttl_max".into(), write_time(dns.ttl_max).into());
    out.insert("family".into(), dns.family.word().into());
    out.into()
}
