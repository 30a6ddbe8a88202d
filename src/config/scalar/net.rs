//! Addresses: where to accept, where a version runs.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::super::decode::{Scalar, Wrong};
use super::super::model::EndpointAddress;

/// An address to accept on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind(pub SocketAddr);

impl Default for Bind {
    fn default() -> Self {
        Self(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

impl Scalar for Bind {
    const KIND: &'static str = "an address";
    fn parse(text: &str) -> Result<Self, Wrong> {
        text.parse().map(Self).map_err(|_| {
            let wrong = Wrong::because("write IP address and port, such as `0.0.0.0:8080` or `[::]:8080`");
            let port = text.rsplit(':').next().unwrap_or_default();
            match port.parse::<u16>() {
                Ok(port) if text.starts_with(':') || text.starts_with("*:") || !text.contains(':') => {
                    wrong.hint(format!("did you mean `0.0.0.0:{port}`?"))
                }
                Ok(port) if text.starts_with("localhost:") => wrong.hint(format!("did you mean `127.0.0.1:{port}`?")),
                _ => wrong,
            }
        })
    }
    fn shape() -> Json {
        json!({ "type": "string", "examples": ["0.0.0.0:8080", "[::]:8080"] })
    }
}

/// Where the admin API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminBind {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Default for AdminBind {
    fn default() -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

impl Scalar for AdminBind {
    const KIND: &'static str = "an address";
    fn parse(text: &str) -> Result<Self, Wrong> {
        match text.strip_prefix("unix:") {
            Some(path) if path.is_empty() || path.len() > 100 => {
                Err(Wrong::because("write `unix:` and a path of at most 100 bytes"))
            }
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => Bind::parse(text)
                .map(|bind| Self::Tcp(bind.0))
                .map_err(|wrong| Wrong { why: "write `127.0.0.1:9900`, or `unix:` and a path".into(), ..wrong }),
        }
    }
    fn shape() -> Json {
        json!({ "type": "string", "examples": ["127.0.0.1:9900", "unix:/run/switchback/admin.sock"] })
    }
}

/// Where a version runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(pub EndpointAddress);

impl Scalar for Place {
    const KIND: &'static str = "an endpoint";
    fn parse(text: &str) -> Result<Self, Wrong> {
        const WHY: &str =
            "write address and port: `10.0.0.1:3000`, `[::1]:3000`, `shop.internal:3000` or `unix:/run/shop.sock`";
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.contains('\0') {
                return Err(Wrong::because("write `unix:` and the path of a socket, such as `unix:/run/shop.sock`"));
            }
            return Ok(Self(EndpointAddress::Unix(path.into())));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            if address.port() == 0 {
                return Err(Wrong::because("the port must be from 1 to 65535"));
            }
            return Ok(Self(EndpointAddress::Ip(address)));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let rest = rest.trim_end_matches('/');
            let wrong = Wrong::because(WHY);
            return Err(match scheme {
                "http" if Self::parse(rest).is_ok() => wrong.hint(format!("write `{rest}`: there is no scheme here")),
                _ => wrong.hint("there is no scheme here; endpoints are spoken to in plain HTTP"),
            });
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(Wrong::because(WHY).hint("the port is missing"));
        };
        let port = match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return Err(Wrong::because("the port must be a number from 1 to 65535")),
        };
        // All digits and dots, but not an address: a typo, not a name (RFC 3696: no all-numeric last label).
        let numeric = host.rsplit('.').next().is_some_and(|label| label.chars().all(|c| c.is_ascii_digit()));
        if numeric || !is_host_name(host) {
            return Err(Wrong::because(WHY));
        }
        Ok(Self(EndpointAddress::Name { host: host.to_ascii_lowercase(), port }))
    }
    fn shape() -> Json {
        json!({ "type": "string", "examples": ["10.0.0.1:3000", "shop.internal:3000", "unix:/run/shop.sock"] })
    }
}

/// Where an outside service is asked or told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpUrl(pub String);

impl Scalar for HttpUrl {
    const KIND: &'static str = "a URL";
    fn parse(text: &str) -> Result<Self, Wrong> {
        const WHY: &str = "write scheme, host and path: `https://hooks.internal/canary`";
        let Ok(uri) = text.parse::<http::Uri>() else { return Err(Wrong::because(WHY)) };
        match uri.scheme_str() {
            Some("http" | "https") => {}
            Some(_) => return Err(Wrong::because("it must begin with `http://` or `https://`")),
            None => {
                let wrong = Wrong::because(WHY);
                let whole = format!("https://{text}");
                return Err(match whole.parse::<http::Uri>() {
                    Ok(uri) if uri.host().is_some_and(is_host_name) && !text.starts_with('/') => {
                        wrong.hint(format!("did you mean `{whole}`?"))
                    }
                    Ok(_) | Err(_) => wrong,
                });
            }
        }
        match uri.authority() {
            Some(authority) if authority.as_str().contains('@') => {
                Err(Wrong::because("a user or password here would be shown by `config effective`"))
            }
            Some(authority) if !authority.host().is_empty() => Ok(Self(text.to_owned())),
            Some(_) | None => Err(Wrong::because(WHY)),
        }
    }
    fn shape() -> Json {
        json!({ "type": "string", "pattern": "^https?://[^/@]+(/.*)?$" })
    }
}

/// Labels of letters, digits, `-` and `_`, 1 to 63 each; 253 in all.
pub fn is_host_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_http_and_hold_no_password() {
        for text in ["http://127.0.0.1:9/a?b=c", "https://hooks.internal", "https://[::1]/x", "HTTP://h/"] {
            assert!(HttpUrl::parse(text).is_ok(), "{text}");
        }
        for text in ["", "/a", "ftp://h/", "https://", "https://u:p@h/", "https://h /", "h", "unix:/a"] {
            assert!(HttpUrl::parse(text).is_err(), "{text}");
        }
        let wrong = HttpUrl::parse("hooks.internal").unwrap_err();
        assert_eq!(wrong.hint.as_deref(), Some("did you mean `https://hooks.internal`?"));
    }

    #[test]
    fn endpoints_are_addresses_or_names_with_a_port() {
        for text in ["10.0.0.1:3000", "[::1]:3000", "shop:80", "shop_v2.internal:3000", "unix:/run/a.sock", "unix:a"] {
            assert!(Place::parse(text).is_ok(), "{text}");
        }
        for text in [
            "10.0.0.1",
            "shop",
            "10.0.0.256:80",
            "shop:0",
            "shop:99999",
            "http://shop:80",
            "a b:80",
            ":80",
            "-x:80",
            "unix:",
            "unix://",
        ] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }
}
