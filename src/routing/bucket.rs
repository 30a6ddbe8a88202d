//! Sticky clients are told apart by bucket only, so what is kept of them is bounded: one bit per bucket.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Which of 10 000 equal groups a sticky client belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket(pub u16);

impl Bucket {
    pub const COUNT: u16 = 10_000;

    pub fn all() -> impl Iterator<Item = Bucket> {
        (0..Self::COUNT).map(Bucket)
    }
}

/// The buckets that were seen, shared by all threads.
#[derive(Debug)]
pub(super) struct BucketSet([AtomicU64; (Bucket::COUNT as usize).div_ceil(64)]);

impl Default for BucketSet {
    fn default() -> Self {
        BucketSet([const { AtomicU64::new(0) }; _])
    }
}

impl BucketSet {
    /// Reads first: once all clients are known, nobody writes and the cache line stays shared.
    pub(super) fn insert(&self, bucket: Bucket) {
        let (word, bit) = (&self.0[bucket.0 as usize / 64], 1 << (bucket.0 % 64));
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.load(Relaxed).count_ones())).sum()
    }
}
