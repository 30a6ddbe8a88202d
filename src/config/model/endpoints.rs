//! Endpoints of a version, and how requests are spread over them.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

/// One line of `endpoints`. A name may stand for several addresses; weight and limit are those of each.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: EndpointAddress,
    /// Its part of the version's requests, beside the weights of the others; at least 1.
    pub weight: u32,
    /// Exchanges at once, all data threads together.
    pub max_connections: Option<u32>,
}

impl From<EndpointAddress> for Endpoint {
    fn from(address: EndpointAddress) -> Self {
        Self { address, weight: 1, max_connections: None }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        match (self.weight, self.max_connections) {
            (1, None) => Ok(()),
            (weight, None) => write!(f, " (weight {weight})"),
            (weight, Some(max)) => write!(f, " (weight {weight}, at most {max})"),
        }
    }
}

/// Where an endpoint is. [`Display`](fmt::Display) writes it as in the file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// `10.0.0.1:3000`
    Ip(SocketAddr),
    /// `shop.internal:3000`
    Name { host: String, port: u16 },
    /// `unix:/run/shop.sock`, absolute.
    Unix(PathBuf),
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How requests are spread over the ready endpoints of a version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balance {
    pub by: BalanceBy,
    /// An endpoint that became ready gets a growing share for this long. Zero: all of it at once.
    pub slow_start: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum BalanceBy {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// The better of two by requests in flight.
    LeastRequest,
    /// The better of two by latency and requests in flight.
    PeakEwma,
    /// The same key, the same endpoint.
    ConsistentHash(HashKey),
}

/// What a request is known by for [`BalanceBy::ConsistentHash`]. Requests without it take turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    Header(HeaderName),
    Cookie(String),
    ClientIp,
    Path,
}
