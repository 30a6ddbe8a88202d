//! Endpoints and balancing as written.

use serde_json::{Value as Json, json};

use super::super::decode::{Decode, Scalar, Wrong};
use super::super::found::Found;
use super::super::keys::keys;
use super::super::scalar::{Count, Flag, Header, Place, Text};
use super::super::tree::{Node, Value};

/// An address, or a map with the address and what is special about it.
#[derive(Debug, Clone)]
pub enum Endpoint {
    At(Place),
    With(Box<EndpointKeys>),
}

keys! {
    /// An endpoint with a weight or a limit.
    EndpointKeys {
        /// IP address or name, and port; or `unix:` and a path, relative to this file.
        address: Place = required,
        /// Its part of the version's requests, beside the weights of the others. Each address of a name has it.
        weight: EndpointWeight = default("1"),
        /// Exchanges at once on this endpoint (each address of a name). When all endpoints are full, requests wait as in
        /// `hold`, then get 503. Idle connections are not counted. Without it there is no bound.
        max_connections: Count<1, 1_000_000> = optional,
    }
}

impl Decode for Endpoint {
    fn decode(node: &Node, label: &str, found: &mut Found) -> Option<Self> {
        match &node.value {
            Value::Map(_) => EndpointKeys::decode(node, label, found).map(|keys| Self::With(Box::new(keys))),
            Value::Null | Value::Text(_) | Value::List(_) => Place::decode(node, label, found).map(Self::At),
        }
    }

    fn shape() -> Json {
        json!({ "anyOf": [<Place as Decode>::shape(), EndpointKeys::shape()] })
    }
}

/// At least 1: who is to get nothing is not an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointWeight(pub u32);

impl Default for EndpointWeight {
    fn default() -> Self {
        Self(1)
    }
}

impl EndpointWeight {
    pub const MAX: u64 = 1000;
}

impl Scalar for EndpointWeight {
    const KIND: &'static str = "a weight";
    fn parse(text: &str) -> Result<Self, Wrong> {
        match Count::<0, { Self::MAX }>::parse(text) {
            Ok(Count(0)) => Err(Wrong::because(format!("weights of endpoints are whole numbers, 1 to {}", Self::MAX))
                .hint("an endpoint that is to get nothing is left out of the list: it finishes what it has")),
            Ok(Count(weight)) => Ok(Self(weight as u32)),
            Err(wrong) => {
                Err(Wrong { why: format!("weights of endpoints are whole numbers, 1 to {}", Self::MAX), ..wrong })
            }
        }
    }
    fn shape() -> Json {
        json!({ "type": "integer", "minimum": 1, "maximum": Self::MAX })
    }
}

/// The name of a method, or `{ consistent_hash: … }`.
#[derive(Debug, Clone)]
pub enum Balance {
    RoundRobin,
    LeastRequest,
    PeakEwma,
    By(Box<BalanceBy>),
}

keys! {
    /// A method that needs more than its name.
    BalanceBy {
        /// The same key goes to the same endpoint, as long as it can take it.
        consistent_hash: HashKey = required,
    }
}

keys! {
    /// What a request is known by: exactly one of these. Requests without it take turns.
    HashKey {
        /// The value of a request header.
        header: Header = optional,
        /// The value of a cookie.
        cookie: Text = optional,
        /// `true`: the address of the client.
        client_ip: Flag = optional,
        /// `true`: the path, without the query.
        path: Flag = optional,
    }
}

impl Decode for Balance {
    fn decode(node: &Node, label: &str, found: &mut Found) -> Option<Self> {
        match &node.value {
            Value::Text(text) => match text.as_str() {
                "round_robin" => Some(Self::RoundRobin),
                "least_request" => Some(Self::LeastRequest),
                "peak_ewma" => Some(Self::PeakEwma),
                "consistent_hash" => {
                    found
                        .error(node.span, "`consistent_hash` needs to know what to hash")
                        .hint("write `{ consistent_hash: { header: x-user } }`, or `cookie`, `client_ip`, `path`");
                    None
                }
                other => {
                    let methods = ["round_robin", "least_request", "peak_ewma", "consistent_hash"];
                    let near = super::super::hint::nearest(other, methods);
                    found
                        .error(node.span, format!("`{other}` is not a way to balance"))
                        .why("it is `round_robin`, `least_request`, `peak_ewma` or `{ consistent_hash: … }`")
                        .maybe_hint(near.map(|near| format!("did you mean `{near}`?")));
                    None
                }
            },
            Value::Null | Value::List(_) | Value::Map(_) => {
                BalanceBy::decode(node, label, found).map(|by| Self::By(Box::new(by)))
            }
        }
    }

    fn shape() -> Json {
        json!({
            "anyOf": [{ "type": "string", "pattern": "^(round_robin|least_request|peak_ewma)$" }, BalanceBy::shape()]
        })
    }
}
