//! Keeping a client on its version without remembering clients.
//!
//! The cookie holds a random client id and a tag of the version it was last sent to. The version is a
//! pure function of the id and the split, so a rollback moves everybody back without touching a cookie
//! and a restart forgets nothing. The tag matters only while its version is draining.

use super::split::Bucket;
use super::table::{CompiledService, VersionIdx};

/// Hash of whatever identifies the client, before the service's salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientKey(pub u64);

impl ClientKey {
    /// From a header's value or the bytes of an address.
    pub fn from_bytes(_bytes: &[u8]) -> ClientKey {
        unimplemented!()
    }
    pub fn bucket(self, _salt: u64) -> Bucket {
        unimplemented!()
    }
}

/// The parsed value of a sticky cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StickyCookie {
    pub id: u64,
    pub tag: u32,
}

impl StickyCookie {
    /// `None` for anything this proxy did not issue.
    pub fn parse(_value: &str) -> Option<StickyCookie> {
        unimplemented!()
    }
    pub fn to_value(self) -> String {
        unimplemented!()
    }
    pub fn key(self) -> ClientKey {
        ClientKey(self.id)
    }
    /// The version the tag names, if it still exists.
    pub fn version(self, _service: &CompiledService) -> Option<VersionIdx> {
        unimplemented!()
    }
    pub fn tag_of(_version_name: &str) -> u32 {
        unimplemented!()
    }
}
