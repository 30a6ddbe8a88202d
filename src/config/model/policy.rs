//! Who may come in, and how much of it: policies of listeners, services and routes.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::networks::Networks;

/// Which client addresses are let in. `deny` wins; without `allow` everybody else is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    pub allow: Option<Networks>,
    pub deny: Networks,
}

impl Access {
    pub fn is_open(&self) -> bool {
        self.allow.is_none() && self.deny.is_empty()
    }

    pub fn admits(&self, client: IpAddr) -> bool {
        !self.deny.contains(client) && self.allow.as_ref().is_none_or(|allow| allow.contains(client))
    }
}

/// Peers that announce whose connection they pass on. See `net::proxy_protocol`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    pub mode: ProxyMode,
    /// Who may announce another address. Not empty.
    pub from: Networks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// Those of `from` may send a header; everybody else is served as they are.
    Optional,
    /// Only those of `from` may connect, and must send a header.
    Required,
}

/// What a listener asks of a connection besides HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListenerPolicy {
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Proxies before this one: what they say in `X-Forwarded-*` and `Forwarded` is believed.
    pub trusted_proxies: Networks,
    pub access: Access,
    /// Connections open at once from one client address (an IPv6 client is its /64); more are closed.
    pub connections_per_client: Option<u32>,
    /// Bytes a second, see `net::link`.
    pub min_body_rate: Option<u64>,
    pub min_send_rate: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServicePolicy {
    pub access: Access,
    pub rate_limit: Option<RateLimit>,
    pub maintenance: Option<Maintenance>,
    pub compression: Option<Compression>,
    /// Requests at once of one client address; 429 above.
    pub in_flight_per_client: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct RoutePolicy {
    pub access: Access,
    pub rate_limit: Option<RateLimit>,
}

/// How often each client may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    pub key: RateKey,
    pub count: NonZeroU32,
    pub per: Duration,
    /// Requests at once after a pause.
    pub burst: NonZeroU32,
}

/// Who is one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateKey {
    ClientIp,
    Header(HeaderName),
}

/// An answer of our own instead of the service's.
#[derive(Debug, Clone, PartialEq)]
pub struct Maintenance {
    pub enabled: bool,
    pub status: u16,
    pub body: String,
    /// Where the body was read.
    pub file: Option<PathBuf>,
    pub content_type: HeaderValue,
    pub retry_after: Option<Duration>,
    /// Clients that are let through.
    pub allow: Networks,
}

/// Answers made smaller for clients that can read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression {
    /// Ours first; what the client likes best comes before.
    pub codings: Vec<Coding>,
    /// From 1 (fast) to 9 (small).
    pub level: u32,
    /// Smaller answers are left alone.
    pub min_size: u64,
    pub types: Vec<MediaType>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Brotli,
    Zstd,
}

impl Coding {
    pub const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    /// As in `Accept-Encoding`.
    pub fn as_str(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
        }
    }
}

/// `text/html`, or `text/*`; lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaType(String);

impl MediaType {
    pub fn new(text: &str) -> Option<MediaType> {
        let token = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
        };
        let (kind, subtype) = text.split_once('/')?;
        (token(kind) && (subtype == "*" || token(subtype))).then(|| MediaType(text.to_ascii_lowercase()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `essence`: without parameters.
    pub fn matches(&self, essence: &[u8]) -> bool {
        match self.0.strip_suffix('*') {
            Some(kind) => essence.get(..kind.len()).is_some_and(|it| it.eq_ignore_ascii_case(kind.as_bytes())),
            None => essence.eq_ignore_ascii_case(self.0.as_bytes()),
        }
    }
}

/// A name for each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestIds {
    pub header: HeaderName,
    /// Keeps the name that came with the request.
    pub trust: bool,
    /// Sends it back with the answer.
    pub respond: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_denied_stays_out_and_who_is_not_allowed_too() {
        let list = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a network")).collect::<Networks>();
        let open = Access::default();
        let inside = Access { allow: Some(list(&["10.0.0.0/8"])), deny: list(&["10.9.0.0/16"]) };
        let blocked = Access { allow: None, deny: list(&["203.0.113.0/24"]) };
        for (access, address, admitted) in [
            (&open, "203.0.113.1", true),
            (&inside, "10.1.0.1", true),
            (&inside, "10.9.0.1", false),
            (&inside, "11.0.0.1", false),
            (&inside, "::1", false),
            (&blocked, "203.0.113.1", false),
            (&blocked, "::ffff:203.0.113.1", false),
            (&blocked, "203.0.114.1", true),
        ] {
            assert_eq!(access.admits(address.parse().expect("an address")), admitted, "{address} of {access:?}");
        }
        assert!(open.is_open() && !inside.is_open() && !blocked.is_open());
    }
}
