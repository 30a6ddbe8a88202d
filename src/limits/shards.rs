//! A table that all data threads share, cut into pieces with a lock each.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use crossbeam_utils::CachePadded;

/// Many more than threads: that two meet is rare.
pub const SHARDS: usize = 256;

/// Nobody outside knows the seed, so chosen keys do not crowd one shard.
type Hasher = foldhash::fast::RandomState;
pub type Shard<V> = HashMap<u64, V, Hasher>;

#[derive(Debug)]
pub struct Shards<V> {
    hasher: Hasher,
    shards: Box<[CachePadded<Mutex<Shard<V>>>]>,
}

impl<V> Default for Shards<V> {
    fn default() -> Self {
        let hasher = Hasher::default();
        let shards = (0..SHARDS).map(|_| CachePadded::new(Mutex::new(HashMap::with_hasher(hasher.clone())))).collect();
        Shards { hasher, shards }
    }
}

impl<V> Shards<V> {
    pub fn of(&self, key: u64) -> MutexGuard<'_, Shard<V>> {
        let hash = std::hash::BuildHasher::hash_one(&self.hasher, key);
        // The low bits choose the place inside the shard.
        self.nth((hash >> 32) as usize)
    }

    /// Counted around.
    pub fn nth(&self, at: usize) -> MutexGuard<'_, Shard<V>> {
        self.shards[at % SHARDS].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Entries of all.
    pub fn count(&self) -> usize {
        (0..SHARDS).map(|at| self.nth(at).len()).sum()
    }
}
