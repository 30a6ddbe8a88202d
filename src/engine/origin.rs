//! Whose request it is, when proxies before this one may say so.
//!
//! Each proxy on the way adds the address it was asked from to the end of `X-Forwarded-For`. Reading from the end, the
//! first address that is none of ours is the client: what stands before it was written by the client itself, or by
//! somebody we do not know. RFC 7239 section 8.1.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use crate::config::model::Networks;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The client, for all that asks who it is: stickiness, limits, logs, access.
    pub client: IpAddr,
    /// The peer is a proxy that is believed: what it says of the way so far is passed on.
    pub is_proxied: bool,
}

impl Origin {
    pub fn peer(address: IpAddr) -> Origin {
        Origin { client: address.to_canonical(), is_proxied: false }
    }

    /// `peer` is who we are connected to, or whom the PROXY protocol announced.
    pub fn of(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> Origin {
        if !trusted.contains(peer) {
            return Origin::peer(peer);
        }
        let mut client = peer.to_canonical();
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        for hop in lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
            // What cannot be read was not added by a proxy of ours: the last that we know is the client.
            let Some(address) = address(hop.trim_ascii()) else { break };
            client = address;
            if !trusted.contains(address) {
                break;
            }
        }
        Origin { client, is_proxied: true }
    }
}

/// An address, as it is or with a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|it| it.ip())).ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_last_who_is_none_of_ours() {
        let trusted: Networks =
            ["10.0.0.0/8", "2001:db8::/32"].iter().map(|text| text.parse().expect("a network")).collect();
        for (peer, lines, client, is_proxied) in [
            ("203.0.113.9", &["10.0.0.1"][..], "203.0.113.9", false),
            ("10.0.0.1", &[], "10.0.0.1", true),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7", true),
            ("::ffff:10.0.0.1", &["198.51.100.7"], "198.51.100.7", true),
            // What the client wrote itself stands before.
            ("10.0.0.1", &["127.0.0.1, 198.51.100.7"], "198.51.100.7", true),
            ("10.0.0.1", &["127.0.0.1", "198.51.100.7"], "198.51.100.7", true),
            ("10.0.0.1", &["127.0.0.1, 198.51.100.7, 10.0.0.2 ,10.0.0.3"], "198.51.100.7", true),
            ("10.0.0.1", &["127.0.0.1", "198.51.100.7, 10.0.0.2", "2001:db8::5"], "198.51.100.7", true),
            // Ours all the way: the one that began it.
            ("10.0.0.1", &["10.0.0.9, 10.0.0.2"], "10.0.0.9", true),
            // Nothing before what cannot be read counts.
            ("10.0.0.1", &["198.51.100.7, unknown"], "10.0.0.1", true),
            ("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2", true),
            ("10.0.0.1", &["198.51.100.7,"], "10.0.0.1", true),
            ("10.0.0.1", &["198.51.100.7, 10.0.0.2:x"], "10.0.0.1", true),
            ("10.0.0.1", &[""], "10.0.0.1", true),
            // With ports, as some write it.
            ("10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7", true),
            ("10.0.0.1", &["[2001:db9::1]:443"], "2001:db9::1", true),
            ("10.0.0.1", &["[2001:db9::1]"], "2001:db9::1", true),
            ("10.0.0.1", &["2001:db9::1"], "2001:db9::1", true),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(X_FORWARDED_FOR, line.parse().expect("a value"));
            }
            let found = Origin::of(peer.parse().expect("an address"), &headers, &trusted);
            let wanted = Origin { client: client.parse().expect("an address"), is_proxied };
            assert_eq!(found, wanted, "{peer} with {lines:?}");
        }
    }
}
