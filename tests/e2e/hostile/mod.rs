//! Hostile traffic: what is sent, what comes back, and what reached the other side. The tables here are the tests
//! and, in words, `docs/hostile-traffic.md`; `document` holds the two together.

use std::net::SocketAddr;
use std::time::Duration;

mod answers;
mod document;
mod expect;
mod http2;
mod http2_answers;
mod requests;
mod slow;
mod tap;

/// The host of the service whose deadlines are short.
const HURRIED: &str = "hurried.test";

const CLOSED: Duration = Duration::from_secs(8);

/// What no other route takes goes to `shop`.
const ROUTE: &str = "  - { name: all, match: { path_prefix: / }, service: shop }\n";

fn service(name: &str, address: SocketAddr, more: &str) -> String {
    format!("  {name}:\n    versions:\n      v1: {{ endpoints: [\"{address}\"] }}\n    active: v1\n{more}")
}

/// One service whose only endpoint is this.
fn service_at(address: SocketAddr) -> String {
    format!("routes:\n{ROUTE}services:\n{}", service("shop", address, ""))
}

/// The same twice, with `more` in each: one has time for everything, and the one at [`HURRIED`] waits for nobody long.
fn services_at(address: SocketAddr, more: &str) -> String {
    let within = |deadline: &str| {
        format!("    timeouts: {{ connect: {deadline}, request: {deadline}, idle: {deadline} }}\n{more}")
    };
    format!(
        "routes:\n  - {{ name: hurried, match: {{ host: {HURRIED} }}, service: hurried }}\n{ROUTE}services:\n{}{}",
        service("shop", address, &within("20s")),
        service("hurried", address, &within("700ms"))
    )
}
