//! How names are looked up, as written.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value as Json, json};

use crate::config::decode::{List, Scalar, Wrong};
use crate::config::keys::keys;
use crate::config::model::AddressFamily;
use crate::config::scalar::Time;

keys! {
    /// How names of endpoints are looked up: in `/etc/hosts`, then by DNS.
    Dns {
        /// DNS servers: IP addresses, with a port if it is not 53. Without it, those of `/etc/resolv.conf`, with its
        /// search domains.
        servers: List<DnsServer> = optional,
        /// An answer is used for its TTL, but at least this long.
        ttl_min: Time<100> = default("5s"),
        /// An answer is used for its TTL, but at most this long.
        ttl_max: Time<100> = default("60s"),
        /// Which addresses of a name are endpoints: `both`, `ipv4` or `ipv6`.
        family: AddressFamily = default("both"),
    }
}

/// `10.0.0.2`, or `10.0.0.2:5353`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsServer(pub SocketAddr);

impl Scalar for DnsServer {
    const KIND: &'static str = "a DNS server";
    fn parse(text: &str) -> Result<Self, Wrong> {
        let with_port = text.parse::<SocketAddr>().ok().filter(|address| address.port() > 0);
        let alone = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53));
        match with_port.or_else(alone) {
            Some(address) => Ok(Self(address)),
            None => Err(Wrong::because("write an IP address, with or without port: `10.0.0.2` or `10.0.0.2:5353`")),
        }
    }
    fn shape() -> Json {
        json!({ "type": "string", "examples": ["10.0.0.2", "10.0.0.2:5353"] })
    }
}
