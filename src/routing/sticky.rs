//! Keeping a client on its version without remembering clients.
//!
//! The cookie holds a random client id and a tag of the version it was last sent to. The version is a
//! pure function of the id and the split, so a rollback moves everybody back without touching a cookie
//! and a restart forgets nothing. The tag matters only while its version is draining.
//!
//! The value is not signed: whoever makes one up chooses a bucket, and that is all it can choose.

use std::net::IpAddr;

use super::bucket::Bucket;
use super::hash::{fnv1a64, mix64, scale};
use super::table::{CompiledService, VersionIdx};

/// Hash of whatever identifies the client, before the service's salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientKey(pub u64);

impl ClientKey {
    /// From a header's value.
    pub fn from_bytes(bytes: &[u8]) -> ClientKey {
        ClientKey(fnv1a64(bytes))
    }

    pub fn of_address(address: IpAddr) -> ClientKey {
        match address {
            IpAddr::V4(ip) => ClientKey::from_bytes(&ip.octets()),
            IpAddr::V6(ip) => ClientKey::from_bytes(&ip.octets()),
        }
    }

    pub fn bucket(self, salt: u64) -> Bucket {
        Bucket(scale(mix64(self.0 ^ salt), u64::from(Bucket::COUNT)) as u16)
    }
}

/// The parsed value of a sticky cookie: `1`, sixteen hex digits of id, eight of tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StickyCookie {
    pub id: u64,
    pub tag: u32,
}

/// First character of a value: another layout will have another one.
const LAYOUT: u8 = b'1';
const LENGTH: usize = 1 + 16 + 8;

impl StickyCookie {
    /// `None` for anything that has not the form this proxy issues.
    pub fn parse(value: &str) -> Option<StickyCookie> {
        let bytes: &[u8; LENGTH] = value.as_bytes().try_into().ok()?;
        let (layout, rest) = bytes.split_first()?;
        let (id, tag) = rest.split_at(16);
        if *layout != LAYOUT {
            return None;
        }
        Some(StickyCookie { id: hex(id)?, tag: hex(tag)? as u32 })
    }

    pub fn to_value(self) -> String {
        format!("1{:016x}{:08x}", self.id, self.tag)
    }

    pub fn key(self) -> ClientKey {
        ClientKey(self.id)
    }

    /// The version the tag names, if it still exists.
    pub fn version(self, service: &CompiledService) -> Option<VersionIdx> {
        let at = service.versions.iter().position(|name| Self::tag_of(name) == self.tag)?;
        Some(VersionIdx(at as u16))
    }

    pub fn tag_of(version_name: &str) -> u32 {
        (mix64(fnv1a64(version_name.as_bytes())) >> 32) as u32
    }
}

/// Lower-case digits only: a value has one spelling.
fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_comes_back_as_it_was_and_nothing_else_is_one() {
        let cookie = StickyCookie { id: 0x0123_4567_89ab_cdef, tag: 0xfeed_0001 };
        assert_eq!(cookie.to_value(), "10123456789abcdeffeed0001");
        assert_eq!(StickyCookie::parse(&cookie.to_value()), Some(cookie));
        let long = "1".repeat(5000);
        for odd in [
            "",
            "1",
            "v2",
            "20123456789abcdeffeed0001",
            "10123456789ABCDEFFEED0001",
            "10123456789abcdeffeed000",
            "10123456789abcdeffeed00011",
            "1+123456789abcdeffeed0001",
            "1 123456789abcdeffeed0001",
            "10123456789abcdeffeed000é",
            long.as_str(),
        ] {
            assert_eq!(StickyCookie::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn buckets_are_those_of_the_reference() {
        let keys = ["", "a", "user-0", "user-1", "user-2", "203.0.113.7", "session=4f2a9c", "ключ"];
        let buckets = keys.map(|key| ClientKey::from_bytes(key.as_bytes()).bucket(1).0);
        assert_eq!(buckets, [4973, 5023, 9196, 4688, 4015, 9397, 5671, 7381]);
    }
}
