//! Bounded load: how much more than its share an endpoint may have before consistent hashing passes on to the next.
//!
//! A share is of what all *ready* endpoints have in flight, by weight. Nobody adds that up for each request: a data
//! thread looks at all endpoints now and then, and what has changed since is the difference of one count that the
//! version keeps, a line for each data thread. That makes the sum as exact as the counts of the endpoints are, as long as
//! what is in flight is in flight on ready endpoints.
//!
//! - An endpoint that becomes ready, or stops being so, makes every thread look again at its next request that needs a
//!   share. So does another group.
//! - What is in flight elsewhere (on endpoints that are not ready, or not of the version any more) is not part of the
//!   sum; when it ends before the next look, the sum is too small by that, and endpoints pass on too early rather than
//!   too late. While there is any, the next look is within [`UNSURE_MS`].
//! - What other threads begin and end while one looks may be missed or counted twice until the next look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::routing::Thread;

/// Looks are at most so far apart.
const SURE_MS: u64 = 100;
const UNSURE_MS: u64 = 10;
/// 1.25, in 256ths.
const LOAD_MAX: u64 = 320;

/// What all endpoints of a version have begun and not ended, wherever they are by now.
#[derive(Debug)]
pub(super) struct Together {
    /// Of each data thread, which alone writes it.
    lines: Box<[CachePadded<AtomicU64>]>,
    /// How often an endpoint became ready or stopped being so, from 1.
    changes: AtomicU64,
}

impl Together {
    pub(super) fn new(threads: usize) -> Together {
        Together { lines: (0..threads).map(|_| Default::default()).collect(), changes: AtomicU64::new(1) }
    }

    pub(super) fn begin(&self, thread: Thread) {
        self.add(thread, 1);
    }

    pub(super) fn end(&self, thread: Thread) {
        self.add(thread, u64::MAX);
    }

    /// An endpoint became ready, or stopped being so.
    pub(super) fn ready_changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    fn add(&self, thread: Thread, number: u64) {
        let line = &self.lines[thread.0 as usize];
        line.store(line.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
    }

    fn total(&self) -> u64 {
        self.lines.iter().fold(0, |sum, line| sum.wrapping_add(line.load(Ordering::Relaxed)))
    }
}

/// What the ready endpoints of a group have in flight and weigh, as each data thread knows it.
#[derive(Debug)]
pub(super) struct Shares {
    together: Arc<Together>,
    /// Of each data thread, which alone reads and writes it.
    looks: Box<[CachePadded<Look>]>,
}

#[derive(Debug, Default)]
struct Look {
    /// Of [`Together`] at that time; 0: never looked.
    changes: AtomicU64,
    total: AtomicU64,
    at_ms: AtomicU64,
    ready: AtomicU64,
    weights: AtomicU64,
    /// Something was in flight on others than the ready ones.
    unsure: AtomicBool,
}

/// What the ready endpoints have in flight, and their weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    pub in_flight: u64,
    pub weights: u64,
}

impl Ready {
    /// Whether one more is within 1.25 of the share, rounded up (Mirrokni, Thorup, Zadimoghaddam 2016), of a ready
    /// endpoint that has so many and weighs so much.
    pub(super) fn lets(self, in_flight: u64, weight: u32) -> bool {
        // The sum may lag behind, but has its own part.
        let all = self.in_flight.max(in_flight) + 1;
        in_flight < (all * LOAD_MAX * u64::from(weight)).div_ceil(256 * self.weights.max(1))
    }
}

impl Shares {
    pub(super) fn new(together: Arc<Together>) -> Shares {
        Shares { looks: together.lines.iter().map(|_| Default::default()).collect(), together }
    }

    /// As of now. `look` adds up all endpoints; it is called only if the last look of this thread says too little.
    pub(super) fn ready(&self, thread: Thread, now_ms: u64, look: impl FnOnce() -> Ready) -> Ready {
        let last = &self.looks[thread.0 as usize];
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let may_age = if last.unsure.load(Ordering::Relaxed) { UNSURE_MS } else { SURE_MS };
        // A clock that goes back is another reason to look.
        let age = now_ms.wrapping_sub(of(&last.at_ms));
        if age >= may_age || of(&last.changes) != self.together.changes.load(Ordering::Acquire) {
            return self.look(thread, now_ms, look);
        }
        let since = self.together.total().wrapping_sub(of(&last.total));
        // Below nothing if what was elsewhere has ended.
        let in_flight = of(&last.ready).wrapping_add(since).cast_signed().max(0).cast_unsigned();
        Ready { in_flight, weights: of(&last.weights) }
    }

    /// Looks in any case.
    pub(super) fn look(&self, thread: Thread, now_ms: u64, look: impl FnOnce() -> Ready) -> Ready {
        let last = &self.looks[thread.0 as usize];
        // Before what it is about: what changes meanwhile is another change.
        let changes = self.together.changes.load(Ordering::Acquire);
        let total = self.together.total();
        let ready = look();
        last.changes.store(changes, Ordering::Relaxed);
        last.total.store(total, Ordering::Relaxed);
        last.at_ms.store(now_ms, Ordering::Relaxed);
        last.ready.store(ready.in_flight, Ordering::Relaxed);
        last.weights.store(ready.weights, Ordering::Relaxed);
        last.unsure.store(total != ready.in_flight, Ordering::Relaxed);
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Thread = Thread(0);
    const OTHER: Thread = Thread(1);

    fn shares() -> (Arc<Together>, Shares) {
        let together = Arc::new(Together::new(2));
        (together.clone(), Shares::new(together))
    }

    fn ready(in_flight: u64) -> Ready {
        Ready { in_flight, weights: 4 }
    }

    #[test]
    fn a_share_is_rounded_up_and_the_request_itself_counts() {
        for (in_flight, weights, its, weight, lets) in [
            (0, 4, 0, 1, true),
            // 1.25 x 4 / 4 is 2 of whole ones, 1.25 x 3 / 4 is 1.
            (3, 4, 1, 1, true),
            (2, 4, 1, 1, false),
            (99, 4, 31, 1, true),
            (99, 4, 32, 1, false),
            (99, 4, 93, 3, true),
            (99, 4, 94, 3, false),
            // Alone it has everything, whatever the sum says.
            (0, 1, 70, 1, true),
        ] {
            let ready = Ready { in_flight, weights };
            assert_eq!(ready.lets(its, weight), lets, "{its} of {in_flight}, {weight} of {weights}");
        }
    }

    #[test]
    fn it_is_looked_once_for_many_requests_and_the_sum_is_right_all_the_same() {
        let (together, shares) = shares();
        let mut looks = 0;
        for nth in 0..1_000_u64 {
            let seen = shares.ready(ONE, 1 + nth / 100, || {
                looks += 1;
                ready(nth)
            });
            assert_eq!(seen, ready(nth), "whoever began it");
            together.begin(if nth % 3 == 0 { OTHER } else { ONE });
        }
        assert_eq!(looks, 1);
        assert_eq!(shares.ready(OTHER, 9, || ready(1_000)), ready(1_000), "each thread looks for itself");
        for _ in 0..600 {
            together.end(ONE);
        }
        assert_eq!(shares.ready(ONE, 50, || unreachable!("it has looked")), ready(400));
        assert_eq!(shares.ready(ONE, 1 + SURE_MS, || ready(401)), ready(401), "what was missed is missed for so long");
        assert_eq!(shares.ready(ONE, 2, || ready(400)), ready(400), "another clock");
    }

    #[test]
    fn a_change_is_seen_by_the_next_request_of_each_thread() {
        let (together, shares) = shares();
        for thread in [ONE, OTHER] {
            shares.ready(thread, 1, || Ready { in_flight: 0, weights: 4 });
        }
        together.ready_changed();
        for thread in [ONE, OTHER] {
            let three = Ready { in_flight: 0, weights: 3 };
            assert_eq!(shares.ready(thread, 1, || three), three);
            assert_eq!(shares.ready(thread, 1, || unreachable!("it has looked")), three);
        }
    }

    #[test]
    fn what_ends_elsewhere_makes_the_sum_too_small_for_a_moment_only() {
        let (together, shares) = shares();
        for _ in 0..8 {
            together.begin(ONE);
        }
        // Five of them are on endpoints that are not ready.
        assert_eq!(shares.ready(ONE, 1, || ready(3)), ready(3));
        for ended in 1..=5 {
            together.end(ONE);
            assert_eq!(shares.ready(ONE, UNSURE_MS, || unreachable!()).in_flight, 3_u64.saturating_sub(ended));
        }
        assert_eq!(shares.ready(ONE, 1 + UNSURE_MS, || ready(3)), ready(3));
        assert_eq!(shares.ready(ONE, SURE_MS, || unreachable!("it is sure again")), ready(3));
    }
}
