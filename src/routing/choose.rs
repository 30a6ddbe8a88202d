//! Which version serves a request: force, then pin by drain, then sticky, then weight.

use super::split::{Bucket, Split, Thread};
use super::sticky::ClientKey;
use super::table::VersionIdx;

/// Why a version was chosen. The strings are an interface: header, log, metrics, `explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request named the version and was allowed to.
    Force,
    /// The client's cookie names a draining version.
    DrainPin,
    /// The client's bucket.
    Sticky,
    /// The weighted order.
    Weight,
    /// The chosen version had no ready endpoint; this one took its share.
    FallbackUnhealthy,
    /// No version has a ready endpoint: served anyway.
    Panic,
}

impl Reason {
    pub const ALL: [Reason; 6] =
        [Self::Force, Self::DrainPin, Self::Sticky, Self::Weight, Self::FallbackUnhealthy, Self::Panic];
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Force => "force",
            Self::DrainPin => "drain-pin",
            Self::Sticky => "sticky",
            Self::Weight => "weight",
            Self::FallbackUnhealthy => "fallback-unhealthy",
            Self::Panic => "panic",
        }
    }
}

/// What is known of the client before choosing.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// The version the request is allowed to force.
    pub force: Option<VersionIdx>,
    /// From the sticky key (cookie, header or address).
    pub key: Option<ClientKey>,
    /// Version that the cookie says the client is on.
    pub pinned: Option<VersionIdx>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub version: VersionIdx,
    pub reason: Reason,
    pub bucket: Option<Bucket>,
}

/// Whether a version can take a request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Yes,
    No,
}

/// `ready` is asked only for versions that come into question. `None`: no version of the split is
/// ready; the caller may wait (`hold`) and ask again, or call [`choose_anyway`].
pub fn choose(
    _split: &Split,
    _salt: u64,
    _client: &Client,
    _thread: Thread,
    _ready: impl Fn(VersionIdx) -> Ready,
) -> Option<Choice> {
    unimplemented!()
}

/// As [`choose`] without regard to readiness; the reason is [`Reason::Panic`] (or `Force`).
pub fn choose_anyway(_split: &Split, _salt: u64, _client: &Client, _thread: Thread) -> Choice {
    unimplemented!()
}
