//! How the versions of one service share its new requests.

use std::sync::Arc;

use super::table::VersionIdx;

/// What one version of a service may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Share {
    /// Not in the split: nothing, not even pinned clients.
    Off,
    /// Weight 0: pinned clients stay, nobody new comes.
    Draining,
    /// This many parts of the sum.
    Weight(u32),
}

/// One immutable split with its own tallies; a changed split starts them anew.
#[derive(Debug)]
pub struct Split {
    shares: Box<[Share]>,
}

/// Index of a data thread, `0..threads`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thread(pub u16);

/// Which of 10 000 equal groups a sticky client belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket(pub u16);

impl Split {
    /// `shares` by `VersionIdx`; at least one weight above 0. `salt` makes the random order of two
    /// services (and of two splits of one service) independent.
    pub fn new(_shares: Vec<Share>, _salt: u64, _threads: usize) -> Arc<Split> {
        unimplemented!()
    }
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }
    pub fn share(&self, version: VersionIdx) -> Share {
        self.shares[version.0 as usize]
    }
    /// The version of the next unpinned request of this data thread. Exact (I6), in random order.
    pub fn next(&self, _thread: Thread) -> VersionIdx {
        unimplemented!()
    }
    /// The version of a sticky client: weighted rendezvous hashing, so that raising a weight moves
    /// clients only to the raised version.
    pub fn of_client(&self, _bucket: Bucket) -> VersionIdx {
        unimplemented!()
    }
    /// Counts a decision; `bucket` for sticky clients.
    pub fn tally(&self, _thread: Thread, _version: VersionIdx, _bucket: Option<Bucket>) {
        unimplemented!()
    }
    /// Requests decided for each version since this split went live.
    pub fn requests_by_version(&self) -> Vec<u64> {
        unimplemented!()
    }
    /// Distinct sticky buckets seen on each version since this split went live.
    pub fn buckets_by_version(&self) -> Vec<u64> {
        unimplemented!()
    }
}
