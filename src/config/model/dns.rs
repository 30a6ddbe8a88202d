//! How names of endpoints are looked up.

use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// An answer is used for at least this long. Default 5 s.
    pub ttl_min: Duration,
    /// An answer is used for at most this long. Default 60 s.
    pub ttl_max: Duration,
    pub family: AddressFamily,
}

/// Which addresses of a name are endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressFamily {
    #[default]
    Both,
    Ipv4,
    Ipv6,
}

impl Default for Dns {
    fn default() -> Dns {
        Dns {
            servers: Vec::new(),
            ttl_min: Duration::from_secs(5),
            ttl_max: Duration::from_secs(60),
            family: AddressFamily::default(),
        }
    }
}
