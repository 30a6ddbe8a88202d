//! The first bytes of a connection that a load balancer passes on: PROXY protocol, versions 1 and 2 (haproxy's
//! `proxy-protocol.txt`).
//!
//! `LOCAL` (a health check of the balancer), `UNKNOWN`, Unix sockets and datagrams say nothing of a client.
//! Type-length-values are skipped. Once there is a verdict, more bytes do not change it.

use std::net::{IpAddr, SocketAddr};

use ppp::{HeaderResult, PartialResult, v1, v2};

/// Longer headers are refused: addresses take 216 bytes at most, and what balancers add is short.
pub const BYTES_MAX: usize = 4096;

/// Who the client is, and where it connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub client: SocketAddr,
    pub local: SocketAddr,
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    #[error("the PROXY header is not valid")]
    Invalid,
    #[error("the PROXY header is longer than 4096 bytes")]
    TooLong,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The header ends after so many bytes. `None`: it names no client.
    Header {
        len: usize,
        ends: Option<Ends>,
    },
    /// The beginning of a header, perhaps.
    Part,
    /// Not a header.
    Other,
    Bad(Bad),
}

/// Pure; at least one byte.
pub fn parse(bytes: &[u8]) -> Seen {
    let v2_prefix = v2::PROTOCOL_PREFIX;
    let begins_like = |prefix: &[u8]| bytes.iter().zip(prefix).all(|(have, want)| have == want);
    let parsed = if begins_like(v2_prefix) {
        if bytes.len() < V2_BYTES_MIN {
            return Seen::Part;
        }
        let length = V2_BYTES_MIN + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        if length > BYTES_MAX {
            return Seen::Bad(Bad::TooLong);
        }
        HeaderResult::parse(bytes)
    } else if begins_like(V1_PREFIX) {
        // One line.
        let most = &bytes[..bytes.len().min(V1_BYTES_MAX)];
        match most.windows(2).position(|pair| pair == b"\r\n") {
            // The parser would take a bare CR for the end.
            Some(end) if bytes[..end].iter().all(|byte| matches!(byte, b' '..=b'~')) => {
                HeaderResult::parse(&bytes[..end + 2])
            }
            None if bytes.len() < V1_BYTES_MAX => return Seen::Part,
            Some(_) | None => return Seen::Bad(Bad::Invalid),
        }
    } else {
        return Seen::Other;
    };
    if parsed.is_incomplete() {
        // Of version 1 the whole line is here.
        return if begins_like(v2_prefix) { Seen::Part } else { Seen::Bad(Bad::Invalid) };
    }
    match parsed {
        HeaderResult::V1(Ok(header)) => Seen::Header { len: header.header.len(), ends: v1_ends(&header) },
        HeaderResult::V2(Ok(header)) => Seen::Header { len: header.len(), ends: v2_ends(&header) },
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Seen::Bad(Bad::Invalid),
    }
}

const V1_PREFIX: &[u8] = b"PROXY ";
const V1_BYTES_MAX: usize = 107;
/// Signature, command, family and length.
const V2_BYTES_MIN: usize = 16;

fn v1_ends(header: &v1::Header<'_>) -> Option<Ends> {
    match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(it) => {
            Some(ends((it.source_address.into(), it.source_port), (it.destination_address.into(), it.destination_port)))
        }
        v1::Addresses::Tcp6(it) => {
            Some(ends((it.source_address.into(), it.source_port), (it.destination_address.into(), it.destination_port)))
        }
    }
}

fn v2_ends(header: &v2::Header<'_>) -> Option<Ends> {
    if header.command == v2::Command::Local || header.protocol != v2::Protocol::Stream {
        return None;
    }
    match header.addresses {
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
        v2::Addresses::IPv4(it) => {
            Some(ends((it.source_address.into(), it.source_port), (it.destination_address.into(), it.destination_port)))
        }
        v2::Addresses::IPv6(it) => {
            Some(ends((it.source_address.into(), it.source_port), (it.destination_address.into(), it.destination_port)))
        }
    }
}

fn ends(client: (IpAddr, u16), local: (IpAddr, u16)) -> Ends {
    Ends { client: client.into(), local: local.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2_header(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([0x20 | command, family]);
        header.extend((payload.len() as u16).to_be_bytes());
        header.extend(payload);
        header
    }

    fn at(client: &str, local: &str) -> Option<Ends> {
        Some(Ends { client: client.parse().expect("an address"), local: local.parse().expect("an address") })
    }

    /// Well-formed headers and what they announce.
    fn headers() -> Vec<(Vec<u8>, Option<Ends>)> {
        let v4: &[u8] = &[192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 1, 0xbb];
        let mut v6 = [0; 36];
        v6[..2].copy_from_slice(&[0x20, 0x01]);
        v6[15] = 1;
        v6[16..18].copy_from_slice(&[0x20, 0x01]);
        v6[31] = 2;
        v6[32..].copy_from_slice(&[0, 80, 1, 0xbb]);
        let tlvs = [v4, &[0x04, 0, 3, 1, 2, 3, 0x20, 0, 0]].concat();
        let four = at("192.0.2.1:12345", "10.0.0.1:443");
        vec![
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 443\r\n".to_vec(), four),
            (b"PROXY TCP6 2001::1 2001::2 80 443\r\n".to_vec(), at("[2001::1]:80", "[2001::2]:443")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:: ffff:: 1 2\r\n".to_vec(), None),
            (v2_header(1, 0x11, v4), four),
            (v2_header(1, 0x11, &tlvs), four),
            (v2_header(1, 0x21, &v6), at("[2001::1]:80", "[2001::2]:443")),
            // Nobody is announced.
            (v2_header(0, 0x11, v4), None),
            (v2_header(0, 0x00, &[]), None),
            (v2_header(1, 0x00, &[]), None),
            (v2_header(1, 0x12, v4), None),
            (v2_header(1, 0x31, &[0; 216]), None),
        ]
    }

    #[test]
    fn exactly_the_header_is_taken_however_it_comes() {
        for (header, ends) in headers() {
            for follows in
                [&b""[..], b"G", b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", b"\x16\x03\x01"]
            {
                let bytes = [&header, follows].concat();
                let text = String::from_utf8_lossy(&header).into_owned();
                assert_eq!(parse(&bytes), Seen::Header { len: header.len(), ends }, "{text}");
            }
            for cut in 1..header.len() {
                assert_eq!(parse(&header[..cut]), Seen::Part, "{cut} bytes of {header:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_told_from_a_bad_one() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0\r\n", b"POST", b"\r\n\r\nGET", b"\x16\x03\x01", b"proxy tcp4"]
        {
            assert_eq!(parse(bytes), Seen::Other, "{bytes:?}");
        }
        for bytes in [&b"P"[..], b"PR", b"PROXY", b"\r\n", b"\r\n\r\n\0"] {
            assert_eq!(parse(bytes), Seen::Part, "{bytes:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(120));
        for bytes in [
            &b"PROXY TCP4 192.0.2.1 10.0.0.1 12345\r\n"[..],
            b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 443 7\r\n",
            b"PROXY TCP4 192.0.2.256 10.0.0.1 12345 443\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 65536 443\r\n",
            b"PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n",
            b"PROXY  TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
            b"PROXY \r\n",
            b"PROXY \xff\r\n",
            b"PROXY UNKNOWN x\rGET / HTTP/1.1\r\n",
            b"PROXY UNKNOWN x\nGET / HTTP/1.1\r\n",
            b"PROXY UNKNOWN \0\r\n",
            long.as_bytes(),
            &v2_header(1, 0x11, &[1, 2, 3]),
            &v2_header(2, 0x11, &[0; 12]),
            &v2_header(1, 0x51, &[0; 12]),
            &[v2::PROTOCOL_PREFIX, &[0x11, 0x11, 0, 12], &[0; 12]].concat(),
        ] {
            assert_eq!(parse(bytes), Seen::Bad(Bad::Invalid), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(parse(&v2_header(1, 0x11, &[0; 5000])), Seen::Bad(Bad::TooLong));
        assert_eq!(
            parse(&v2_header(1, 0x11, &[0; 5000])[..16]),
            Seen::Bad(Bad::TooLong),
            "known from its length alone"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn no_bytes_panic_and_more_bytes_do_not_change_a_verdict(
            prefix in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", v2::PROTOCOL_PREFIX]),
            rest in prop::collection::vec(any::<u8>(), 1..64), more in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = [prefix, &rest].concat();
            let seen = parse(&bytes);
            if let Seen::Header { len, .. } = seen {
                prop_assert!(len <= bytes.len());
            }
            if seen != Seen::Part {
                prop_assert_eq!(parse(&[&bytes[..], &more].concat()), seen);
            }
        }
    }
}
