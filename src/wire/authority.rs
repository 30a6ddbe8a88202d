//! Whether bytes are one host with an optional port, as in `Host` and in an absolute-form target.
//! RFC 9110 section 7.2, RFC 3986 section 3.2.
//!
//! Narrower than RFC 3986 on purpose: no userinfo, no percent-encoding, no sub-delimiters, no zone. Each of
//! them has been read in two ways by two programs.

use std::net::Ipv6Addr;

use super::token::alphanumeric_or;

const LONGEST: usize = 255;

/// `example.com`, `example.com.:8080`, `127.0.0.1`, `[::1]:80`. The port may be empty (`a:`) as the grammar says.
pub fn is_host(bytes: &[u8]) -> bool {
    if let Some(rest) = bytes.strip_prefix(b"[") {
        let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
        let (literal, after) = (&rest[..end], &rest[end + 1..]);
        return is_ipv6(literal) && (after.is_empty() || after.strip_prefix(b":").is_some_and(is_port));
    }
    match bytes.iter().position(|byte| *byte == b':') {
        Some(colon) => is_name(&bytes[..colon]) && is_port(&bytes[colon + 1..]),
        None => is_name(bytes),
    }
}

fn is_ipv6(literal: &[u8]) -> bool {
    std::str::from_utf8(literal).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// Labels of letters, digits, `-`, `_` and `~`; one dot may end the name.
fn is_name(name: &[u8]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.is_empty() || name.len() > LONGEST {
        return false;
    }
    let mut after_dot = true;
    for byte in name {
        match IN_LABELS[usize::from(*byte)] {
            true => after_dot = false,
            false if *byte == b'.' && !after_dot => after_dot = true,
            false => return false,
        }
    }
    !after_dot
}

/// What a label may hold, by byte.
const IN_LABELS: [bool; 256] = alphanumeric_or(b"-_~");

fn is_port(digits: &[u8]) -> bool {
    if digits.is_empty() {
        return true;
    }
    digits.len() <= 5 && super::token::decimal(digits).is_some_and(|port| (1..=65_535).contains(&port))
}

#[cfg(test)]
mod tests {
    use super::is_host;

    #[test]
    fn one_host_with_an_optional_port() {
        for host in
            ["a", "shop.test", "shop.test.", "SHOP.test:8080", "a:", "127.0.0.1:1", "[::1]", "[2001:db8::1]:443"]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for long in [&[b'a'; 255][..], b"a_b-c~d"] {
            assert!(is_host(long));
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let hosts = [
            "",
            " ",
            "a b",
            "a/x",
            "a, b",
            "a,b",
            "a\"b",
            "user@a",
            "a:b",
            "a:80:90",
            "a:65536",
            "a:0",
            "a:-1",
            "a:+1",
            ":80",
            ".",
            "a..b",
            ".a",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:x",
            "[fe80::1%25eth0]",
            "[v1.a]",
            "a%2eb",
            "a?b",
            "a#b",
            "a\\b",
            "a\0b",
            "é",
            "http://a",
            "a;b",
            "*",
        ];
        for host in hosts {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
        assert!(!is_host(&[b'a'; 256]));
    }
}
