//! The Host of a request: what is acceptable, and its form for matching. RFC 9110 section 7.2.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// Longest name of the DNS.
const BYTES_MAX: usize = 253;

/// `None` for anything that is not one host with an optional port (empty, spaces, userinfo, lists).
/// Returns the host in lower case without port and trailing dot; borrows when it already is.
///
/// Names hold letters, digits, `-`, `_` and single dots. IPv6 addresses keep their brackets and get their
/// shortest spelling.
pub fn normalise(host: &[u8]) -> Option<Cow<'_, str>> {
    if host.first() == Some(&b'[') {
        return bracketed(std::str::from_utf8(host).ok()?);
    }
    let (mut end, mut port) = (host.len(), &b""[..]);
    let (mut after_dot, mut has_upper) = (true, false);
    for (at, byte) in host.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => after_dot = false,
            b'.' if !after_dot => after_dot = true,
            b'A'..=b'Z' => (after_dot, has_upper) = (false, true),
            b':' => {
                (end, port) = (at, &host[at + 1..]);
                break;
            }
            _ => return None,
        }
    }
    // Nothing at all, or one trailing dot: a dot after another, or in front, has been refused.
    let end = if after_dot { end.checked_sub(1)? } else { end };
    if end > BYTES_MAX || !is_port(port) {
        return None;
    }
    let name = std::str::from_utf8(&host[..end]).ok()?;
    Some(if has_upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

fn bracketed(host: &str) -> Option<Cow<'_, str>> {
    let (address, port) = host.strip_prefix('[')?.split_once(']')?;
    let port = if port.is_empty() { port } else { port.strip_prefix(':')? };
    let plain = format!("[{}]", address.parse::<Ipv6Addr>().ok()?);
    let host = if host.starts_with(&plain) { Cow::Borrowed(&host[..plain.len()]) } else { Cow::Owned(plain) };
    is_port(port.as_bytes()).then_some(host)
}

/// Digits of a port, or none at all: RFC 3986 allows a colon with nothing behind it.
fn is_port(port: &[u8]) -> bool {
    let digits = port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    digits && port.iter().fold(0_u32, |value, digit| value * 10 + u32::from(digit - b'0')) <= u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_has_one_form() {
        for (written, host) in [
            ("shop.test", "shop.test"),
            ("Shop.TEST", "shop.test"),
            ("shop.test:8080", "shop.test"),
            ("shop.test:", "shop.test"),
            ("shop.test.", "shop.test"),
            ("shop.test.:80", "shop.test"),
            ("my_host-1", "my_host-1"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::1]", "[::1]"),
            ("[0:0:0:0:0:0:0:1]:8443", "[::1]"),
            ("[2001:DB8::A]", "[2001:db8::a]"),
        ] {
            assert_eq!(normalise(written.as_bytes()).as_deref(), Some(host), "{written}");
        }
        assert!(matches!(normalise(b"shop.test:80"), Some(Cow::Borrowed("shop.test"))));
    }

    #[test]
    fn what_is_not_one_host_is_refused() {
        let long = "a".repeat(254);
        for odd in [
            "",
            ".",
            ":80",
            "a b",
            "a/x",
            "a, b",
            "a,b",
            "a\"b",
            "u@h",
            "u:p@h",
            "a..b",
            ".a",
            "a..",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:+80",
            "a:000080",
            "[::1",
            "::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "[1.2.3.4]",
            "[]",
            "a%2eb",
            "é.test",
            "a\t",
            "a\0",
            "*.test",
            &long,
        ] {
            assert_eq!(normalise(odd.as_bytes()), None, "{odd:?}");
        }
        assert_eq!(normalise(b"\xff"), None);
    }
}
