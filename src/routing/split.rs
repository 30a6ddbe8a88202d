//! How the versions of one service share its new requests.
//!
//! Requests without a client key follow the exact random order of [`super::order`], one order per data
//! thread, so no two cores ever meet on a counter. Clients with a key are spread by weighted rendezvous
//! hashing over version *names*: each bucket draws one number per version and the best number in
//! proportion to its weight wins. A version whose weight rises can only win buckets, one whose weight falls can
//! only lose them, for any number of versions and in whatever order they are listed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crossbeam_utils::CachePadded;

use super::bucket::{Bucket, BucketSet};
use super::hash::{fnv1a64, mix64, stream};
use super::order::{Schedule, is_first};
use super::table::VersionIdx;
use crate::config::model::Name;

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

impl Share {
    /// Parts of the sum; 0 for a version that takes nobody new.
    pub fn weight(self) -> u32 {
        match self {
            Self::Off | Self::Draining => 0,
            Self::Weight(weight) => weight,
        }
    }
}

/// Index of a data thread, `0..threads`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thread(pub u16);

impl Thread {
    /// Somebody who only looks (`explain`, `expect:` cases): has an order of its own, so looking does not
    /// use up a turn of any data thread, and its tallies are not counted.
    pub const OBSERVER: Thread = Thread(u16::MAX);
}

/// One immutable split with its own tallies; a changed split starts them anew.
#[derive(Debug)]
pub struct Split {
    shares: Box<[Share]>,
    /// The versions with a weight above 0.
    live: Box<[Live]>,
    /// Sum of the reduced weights.
    whole: u64,
    salt: u64,
    /// One per data thread and a last one for [`Thread::OBSERVER`].
    cells: Box<[CachePadded<Cell>]>,
    /// By version, one bit per bucket; made when the first sticky client comes.
    buckets: OnceLock<Box<[BucketSet]>>,
}

#[derive(Debug)]
struct Live {
    version: VersionIdx,
    /// As given, for rendezvous.
    weight: f64,
    /// Divided by the greatest common divisor, for the order.
    reduced: u64,
    /// Hash of the version's name.
    seed: u64,
}

/// What one data thread changes. Only that thread writes, so plain loads and stores do.
#[derive(Debug)]
struct Cell {
    /// Unpinned requests so far, while two versions are live.
    turn: AtomicU64,
    /// By version, 16 to a line.
    tallies: Box<[CachePadded<[AtomicU64; 16]>]>,
    /// Never contended: no other thread takes it.
    order: Mutex<Order>,
}

#[derive(Debug, Default)]
struct Order {
    /// Made by the thread itself at its first pick, while three or more versions are live.
    schedule: Option<Schedule>,
    /// Smooth weighted round robin over the ready versions, for the picks of those that are not.
    credits: Vec<i64>,
}

impl Split {
    /// `versions` and `shares` by `VersionIdx`. `salt` makes the random order of two services (and of two splits of
    /// one service) independent; sticky clients do not depend on it.
    ///
    /// # Panics
    /// If no share has a weight above 0, or there is not one share per version.
    pub fn new(versions: &[Name], shares: Vec<Share>, salt: u64, threads: usize) -> Arc<Split> {
        assert_eq!(versions.len(), shares.len(), "one share per version");
        let weights = reduce(&shares);
        let live: Box<[Live]> = (0..shares.len())
            .filter(|&at| weights[at] > 0)
            .map(|at| Live {
                version: VersionIdx(at as u16),
                weight: f64::from(shares[at].weight()),
                reduced: weights[at],
                seed: mix64(fnv1a64(versions[at].as_bytes())),
            })
            .collect();
        assert!(!live.is_empty(), "a split needs a weight above 0");
        let lines = shares.len().div_ceil(16);
        let cells = (0..=threads)
            .map(|_| {
                CachePadded::new(Cell {
                    turn: AtomicU64::new(0),
                    tallies: (0..lines).map(|_| CachePadded::new(Default::default())).collect(),
                    order: Mutex::default(),
                })
            })
            .collect();
        let whole = weights.iter().sum();
        Arc::new(Split { shares: shares.into(), live, whole, salt, cells, buckets: OnceLock::new() })
    }

    pub fn shares(&self) -> &[Share] {
        &self.shares
    }

    pub fn share(&self, version: VersionIdx) -> Share {
        self.shares[version.0 as usize]
    }

    /// The version of the next unpinned request of this data thread. Exact (I6), in random order.
    pub fn next(&self, thread: Thread) -> VersionIdx {
        match &*self.live {
            [only] => only.version,
            [first, second] => {
                let turn = &self.cell(thread).turn;
                let now = turn.load(Relaxed);
                turn.store(now.wrapping_add(1), Relaxed);
                let is_first = is_first(now, first.reduced, self.whole, self.salt_of(thread));
                if is_first { first.version } else { second.version }
            }
            many => many[self.order(thread, |order| self.schedule(order, thread).pick())].version,
        }
    }

    /// The pick was not used, because nobody is ready: it comes again at the next call of [`Self::next`].
    pub(super) fn put_back(&self, thread: Thread, picked: VersionIdx) {
        match &*self.live {
            [_] => {}
            [_, _] => {
                let turn = &self.cell(thread).turn;
                turn.store(turn.load(Relaxed).wrapping_sub(1), Relaxed);
            }
            many => {
                if let Some(at) = many.iter().position(|live| live.version == picked) {
                    self.order(thread, |order| self.schedule(order, thread).put_back(at));
                }
            }
        }
    }

    /// Who takes a pick of a version that is not ready: the ready ones in turn, in proportion to their weights.
    pub(super) fn next_instead(&self, thread: Thread, ready: impl Fn(VersionIdx) -> bool) -> Option<VersionIdx> {
        self.order(thread, |order| {
            order.credits.resize(self.live.len(), 0);
            let mut best: Option<usize> = None;
            let mut given = 0;
            for (at, live) in self.live.iter().enumerate().filter(|(_, live)| ready(live.version)) {
                order.credits[at] += live.reduced as i64;
                given += live.reduced as i64;
                if best.is_none_or(|best| order.credits[at] > order.credits[best]) {
                    best = Some(at);
                }
            }
            let best = best?;
            order.credits[best] -= given;
            Some(self.live[best].version)
        })
    }

    /// The version of a sticky client: weighted rendezvous hashing, so that raising a weight moves
    /// clients only to the raised version.
    pub fn of_client(&self, bucket: Bucket) -> VersionIdx {
        match &*self.live {
            [only] => only.version,
            _ => self.of_client_among(bucket, |_| true).expect("a split has a live version"),
        }
    }

    /// As [`Self::of_client`] if only the versions that are `ready` existed.
    pub(super) fn of_client_among(&self, bucket: Bucket, ready: impl Fn(VersionIdx) -> bool) -> Option<VersionIdx> {
        let salt = u64::from(bucket.0) + 1;
        let mut best: Option<(f64, VersionIdx)> = None;
        for live in self.live.iter().filter(|live| ready(live.version)) {
            // Exponentially distributed with rate `weight`: the smallest one wins in proportion to the weights.
            let uniform = ((stream(live.seed, salt) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            let arrival = -uniform.ln() / live.weight;
            if best.is_none_or(|(first, _)| arrival < first) {
                best = Some((arrival, live.version));
            }
        }
        best.map(|(_, version)| version)
    }

    /// Counts a decision; `bucket` for sticky clients.
    pub fn tally(&self, thread: Thread, version: VersionIdx, bucket: Option<Bucket>) {
        let Some(cell) = self.cells[..self.cells.len() - 1].get(thread.0 as usize) else { return };
        let at = version.0 as usize;
        let tally = &cell.tallies[at / 16][at % 16];
        tally.store(tally.load(Relaxed).wrapping_add(1), Relaxed);
        if let Some(bucket) = bucket {
            let sets = self.buckets.get_or_init(|| self.shares.iter().map(|_| BucketSet::default()).collect());
            sets[at].insert(bucket);
        }
    }

    /// Requests decided for each version since this split went live.
    pub fn requests_by_version(&self) -> Vec<u64> {
        let (_, threads) = self.cells.split_last().expect("the observer's cell is always there");
        let of = |at: usize| threads.iter().map(|cell| cell.tallies[at / 16][at % 16].load(Relaxed)).sum();
        (0..self.shares.len()).map(of).collect()
    }

    /// Distinct sticky buckets seen on each version since this split went live.
    pub fn buckets_by_version(&self) -> Vec<u64> {
        match self.buckets.get() {
            Some(sets) => sets.iter().map(BucketSet::len).collect(),
            None => vec![0; self.shares.len()],
        }
    }

    fn cell(&self, thread: Thread) -> &Cell {
        &self.cells[(thread.0 as usize).min(self.cells.len() - 1)]
    }

    fn salt_of(&self, thread: Thread) -> u64 {
        self.salt ^ mix64(u64::from(thread.0))
    }

    fn order<T>(&self, thread: Thread, act: impl FnOnce(&mut Order) -> T) -> T {
        act(&mut self.cell(thread).order.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn schedule<'a>(&self, order: &'a mut Order, thread: Thread) -> &'a mut Schedule {
        order.schedule.get_or_insert_with(|| {
            Schedule::new(self.live.iter().map(|live| live.reduced), self.whole, self.salt_of(thread))
        })
    }
}

/// Weights divided by their greatest common divisor, and halved until they sum to at most 2^31 (the
/// configuration allows 10 000).
fn reduce(shares: &[Share]) -> Vec<u64> {
    let mut weights: Vec<u64> = shares.iter().map(|share| u64::from(share.weight())).collect();
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, b)).max(1);
    weights.iter_mut().for_each(|weight| *weight /= divisor);
    while weights.iter().sum::<u64>() > 1 << 31 {
        weights.iter_mut().for_each(|weight| *weight = weight.div_ceil(2));
    }
    weights
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
