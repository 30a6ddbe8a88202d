//! Which version serves a request: force, then pin by drain, then match, then sticky, then
//! weight.

use super::bucket::Bucket;
use super::split::{Share, Split, Thread};
use super::sticky::ClientKey;
use super::table::VersionIdx;

/// Why a version was chosen. The strings are an interface: header, log, metrics, `explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request named the version and was allowed to.
    Force,
    /// The client's cookie names a draining version.
    DrainPin,
    /// A stage of the rollout sends clients like this one to the canary.
    Match,
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
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Force => "force",
            Self::DrainPin => "drain-pin",
            Self::Match => "match",
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
    /// The canary, if the stage of the rollout matches the client.
    pub matched: Option<VersionIdx>,
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
/// ready (or the forced one is not); the caller may wait (`hold`) and ask again, or call [`choose_anyway`].
///
/// A forced request is never sent elsewhere: who asks for a version wants that one. A version that is not
/// ready gives its share to the other weighted ones in proportion; never to a draining one, which is on its
/// way out.
pub fn choose(
    split: &Split,
    salt: u64,
    client: &Client,
    thread: Thread,
    ready: impl Fn(VersionIdx) -> Ready,
) -> Option<Choice> {
    let is_ready = |version| ready(version) == Ready::Yes;
    if let Some(version) = client.force {
        return is_ready(version).then_some(Choice { version, reason: Reason::Force, bucket: None });
    }
    let bucket = client.key.map(|key| key.bucket(salt));
    let pinned = pinned_by_drain(split, client);
    if let Some(version) = pinned
        && is_ready(version)
    {
        return Some(Choice { version, reason: Reason::DrainPin, bucket });
    }
    if let Some(version) = client.matched
        && is_ready(version)
    {
        let reason = if pinned.is_some() { Reason::FallbackUnhealthy } else { Reason::Match };
        return Some(Choice { version, reason, bucket });
    }
    let (version, reason) = by_split(split, bucket, thread);
    if is_ready(version) {
        // A client whose version has no ready endpoint is moved, and told so.
        let reason = if pinned.or(client.matched).is_some() { Reason::FallbackUnhealthy } else { reason };
        return Some(Choice { version, reason, bucket });
    }
    let instead = match bucket {
        Some(bucket) => split.of_client_among(bucket, is_ready),
        None => split.next_instead(thread, is_ready),
    };
    if instead.is_none() && bucket.is_none() {
        split.put_back(thread, version);
    }
    Some(Choice { version: instead?, reason: Reason::FallbackUnhealthy, bucket })
}

/// As [`choose`] without regard to readiness; the reason is [`Reason::Panic`] (or `Force`).
pub fn choose_anyway(split: &Split, salt: u64, client: &Client, thread: Thread) -> Choice {
    if let Some(version) = client.force {
        return Choice { version, reason: Reason::Force, bucket: None };
    }
    let bucket = client.key.map(|key| key.bucket(salt));
    let version = pinned_by_drain(split, client).unwrap_or_else(|| by_split(split, bucket, thread).0);
    Choice { version, reason: Reason::Panic, bucket }
}

/// Only a draining version holds on to its clients: those of a weighted one follow the split, those of one
/// that is off move on.
fn pinned_by_drain(split: &Split, client: &Client) -> Option<VersionIdx> {
    client.pinned.filter(|&version| split.share(version) == Share::Draining)
}

fn by_split(split: &Split, bucket: Option<Bucket>, thread: Thread) -> (VersionIdx, Reason) {
    match bucket {
        Some(bucket) => (split.of_client(bucket), Reason::Sticky),
        None => (split.next(thread), Reason::Weight),
    }
}
