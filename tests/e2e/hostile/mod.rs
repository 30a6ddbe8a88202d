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

const CLOSED: Duration = Duration::from_secs(8);

/// One service whose only endpoint is this.
fn service_at(address: SocketAddr) -> String {
    format!(
        "routes:\n  - {{ name: all, match: {{ path_prefix: / }}, service: shop }}\nservices:\n  shop:\n    versions:\n      v1: {{ endpoints: [\"{address}\"] }}\n    active: v1\n"
    )
}
