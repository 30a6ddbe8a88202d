//! Networks: an address with the length of its prefix, or one address.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::super::decode::{Scalar, Wrong};

/// `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl Scalar for Network {
    const KIND: &'static str = "a network";
    fn parse(text: &str) -> Result<Self, Wrong> {
        const WHY: &str = "write an address and the length of its prefix, such as `10.0.0.0/8` or `2001:db8::/32`";
        if let Ok(address) = text.parse::<IpAddr>() {
            return Self::canonical(IpNet::from(address));
        }
        let Ok(network) = text.parse::<IpNet>() else {
            let wrong = Wrong::because(WHY);
            return Err(match text.split_once('/') {
                Some((address, _)) if address.parse::<IpAddr>().is_ok_and(|it| it.is_ipv4()) => {
                    wrong.hint("the length of an IPv4 prefix is from 0 to 32")
                }
                Some((address, _)) if address.parse::<IpAddr>().is_ok() => {
                    wrong.hint("the length of an IPv6 prefix is from 0 to 128")
                }
                _ if text == "all" || text == "any" => wrong.hint("everybody is `0.0.0.0/0` and `::/0`"),
                _ => wrong,
            });
        };
        if network.trunc() != network {
            return Err(Wrong::because("the address has bits set behind its prefix").hint(format!(
                "did you mean `{}`, or `{}` alone?",
                network.trunc(),
                network.addr()
            )));
        }
        Self::canonical(network)
    }
    fn shape() -> Json {
        json!({ "type": "string", "examples": ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"] })
    }
}

impl Network {
    /// IPv4 in IPv6 clothes would match nobody: clients are compared by their IPv4 address.
    fn canonical(network: IpNet) -> Result<Self, Wrong> {
        match network.addr().to_canonical() {
            IpAddr::V4(address) if network.addr().is_ipv6() => match network.prefix_len().checked_sub(96) {
                Some(prefix) => Err(Wrong::because("IPv4 clients are compared by their IPv4 address")
                    .hint(format!("write `{address}/{prefix}`"))),
                None => Ok(Self(network)),
            },
            IpAddr::V4(_) | IpAddr::V6(_) => Ok(Self(network)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_prefixes_or_single_addresses() {
        for (text, written) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(Network::parse(text).unwrap().0.to_string(), written);
        }
        for (text, hint) in [
            ("10.0.0.1/8", Some("did you mean `10.0.0.0/8`, or `10.0.0.1` alone?")),
            ("10.0.0.0/33", Some("the length of an IPv4 prefix is from 0 to 32")),
            ("::/129", Some("the length of an IPv6 prefix is from 0 to 128")),
            ("::ffff:10.0.0.0/104", Some("write `10.0.0.0/8`")),
            ("all", Some("everybody is `0.0.0.0/0` and `::/0`")),
            ("10.0.0.0/255.0.0.0", Some("the length of an IPv4 prefix is from 0 to 32")),
            ("localhost", None),
            ("", None),
            ("10.0.0/8", None),
        ] {
            assert_eq!(Network::parse(text).unwrap_err().hint.as_deref(), hint, "{text}");
        }
    }
}
