//! The header of the PROXY protocol that an endpoint is sent (haproxy.org/download/3.0/doc/proxy-protocol.txt).

use std::net::SocketAddr;

use ppp::v1;
use ppp::v2::{Addresses, Builder, Command, Protocol, Version};

use crate::config::model::ProxyHeader;

/// Whom a connection is announced for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Announced {
    /// A client and where it connected to.
    Client { from: SocketAddr, to: SocketAddr },
    /// The proxy itself: a check.
    Nobody,
}

impl Announced {
    pub fn header(self, as_version: ProxyHeader) -> Vec<u8> {
        match as_version {
            ProxyHeader::V1 => match self.canonical() {
                Announced::Client { from: SocketAddr::V4(from), to: SocketAddr::V4(to) } => {
                    v1::Addresses::new_tcp4(*from.ip(), *to.ip(), from.port(), to.port()).to_string().into_bytes()
                }
                Announced::Client { from, to } => {
                    v1::Addresses::new_tcp6(v6(from), v6(to), from.port(), to.port()).to_string().into_bytes()
                }
                Announced::Nobody => v1::Addresses::Unknown.to_string().into_bytes(),
            },
            ProxyHeader::V2 => {
                let built = match self.canonical() {
                    Announced::Client { from, to } => {
                        let pair = match (from, to) {
                            (SocketAddr::V4(_), SocketAddr::V4(_)) => (from, to),
                            (from, to) => (
                                SocketAddr::new(v6(from).into(), from.port()),
                                SocketAddr::new(v6(to).into(), to.port()),
                            ),
                        };
                        Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, pair).build()
                    }
                    Announced::Nobody => Builder::with_addresses(
                        Version::Two | Command::Local,
                        Protocol::Unspecified,
                        Addresses::Unspecified,
                    )
                    .build(),
                };
                built.expect("a few bytes into memory, far below the length that fits")
            }
        }
    }

    /// An IPv4 client of a socket that takes both is an IPv4 client.
    fn canonical(self) -> Announced {
        let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        match self {
            Announced::Client { from, to } => Announced::Client { from: plain(from), to: plain(to) },
            Announced::Nobody => Announced::Nobody,
        }
    }
}

fn v6(address: SocketAddr) -> std::net::Ipv6Addr {
    match address.ip() {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        std::net::IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(from: &str, to: &str) -> Announced {
        Announced::Client { from: from.parse().expect("an address"), to: to.parse().expect("an address") }
    }

    #[test]
    fn the_text_form() {
        for (announced, header) in [
            (client("192.0.2.7:5000", "198.51.100.1:443"), "PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n"),
            (client("[2001:db8::7]:5000", "[2001:db8::1]:443"), "PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n"),
            (
                client("[::ffff:192.0.2.7]:5000", "[::ffff:198.51.100.1]:443"),
                "PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n",
            ),
            (Announced::Nobody, "PROXY UNKNOWN\r\n"),
        ] {
            assert_eq!(String::from_utf8_lossy(&announced.header(ProxyHeader::V1)), header);
        }
    }

    #[test]
    fn the_binary_form() {
        const MAGIC: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
        let header = client("192.0.2.7:5000", "198.51.100.1:443").header(ProxyHeader::V2);
        let rest = [0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0x13, 0x88, 0x01, 0xBB];
        assert_eq!(header, [MAGIC, &rest].concat());
        let header = client("[2001:db8::7]:5000", "[2001:db8::1]:443").header(ProxyHeader::V2);
        assert_eq!((header[12], header[13], header.len()), (0x21, 0x21, 16 + 36));
        assert_eq!(Announced::Nobody.header(ProxyHeader::V2), [MAGIC, &[0x20, 0x00, 0, 0]].concat());
    }
}
