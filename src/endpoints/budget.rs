//! How many requests may be asked again: a share of those that live through the same ten seconds.
//!
//! Second chances help while few endpoints fail; when all of them do, they are load on top of load. So a data
//! thread counts the requests of a service and the ones asked again, by second, and stops asking again when the
//! share is used up. A few are always allowed, so that a service with little traffic has second chances at all.
//!
//! Pure: the clock is handed in. Each line has one writer, its data thread, so counting is a load and a store.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::routing::Thread;

/// Seconds that count.
const WINDOW: usize = 10;
/// Second chances per window and thread that no share can forbid.
const ALWAYS: u64 = 50;

#[derive(Debug)]
pub struct Budget {
    lines: Box<[CachePadded<Line>]>,
}

#[derive(Debug, Default)]
struct Line {
    second: AtomicU64,
    requests: [AtomicU32; WINDOW],
    again: [AtomicU32; WINDOW],
    /// Since the start: requests that were not asked again because the budget was spent.
    denied: AtomicU64,
}

impl Default for Budget {
    /// For one thread.
    fn default() -> Budget {
        Budget::new(1)
    }
}

impl Budget {
    pub fn new(threads: usize) -> Budget {
        Budget { lines: (0..threads).map(|_| CachePadded::default()).collect() }
    }

    /// A request begins.
    pub fn request(&self, thread: Thread, now_ms: u64) {
        let line = &self.lines[thread.0 as usize];
        add_one(&line.requests[line.at(now_ms)]);
    }

    /// May one more be asked again? Counts it if so.
    pub fn take(&self, thread: Thread, now_ms: u64, share_bp: u32) -> bool {
        let line = &self.lines[thread.0 as usize];
        let at = line.at(now_ms);
        let sum = |cells: &[AtomicU32]| cells.iter().map(|cell| u64::from(cell.load(Ordering::Relaxed))).sum::<u64>();
        let is_allowed = share_bp > 0 && sum(&line.again) < allowed(sum(&line.requests), share_bp);
        match is_allowed {
            true => add_one(&line.again[at]),
            false => drop(line.denied.fetch_add(1, Ordering::Relaxed)),
        }
        is_allowed
    }

    /// Requests that were not asked again because the budget was spent.
    pub fn denied(&self) -> u64 {
        self.lines.iter().map(|line| line.denied.load(Ordering::Relaxed)).sum()
    }
}

/// Of so many requests, so many may be asked again.
fn allowed(requests: u64, share_bp: u32) -> u64 {
    (requests * u64::from(share_bp) / 10_000).max(ALWAYS)
}

fn add_one(cell: &AtomicU32) {
    cell.store(cell.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
}

impl Line {
    /// The place of this second; seconds that are too long ago are forgotten.
    fn at(&self, now_ms: u64) -> usize {
        let now = now_ms / 1_000;
        let before = self.second.load(Ordering::Relaxed);
        if now > before {
            for second in (before + 1..=now).rev().take(WINDOW) {
                let place = second as usize % WINDOW;
                self.requests[place].store(0, Ordering::Relaxed);
                self.again[place].store(0, Ordering::Relaxed);
            }
            self.second.store(now, Ordering::Relaxed);
        }
        now.max(before) as usize % WINDOW
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THREAD: Thread = Thread(0);

    fn taken(budget: &Budget, now_ms: u64, share_bp: u32, tries: u32) -> usize {
        (0..tries).filter(|_| budget.take(THREAD, now_ms, share_bp)).count()
    }

    #[test]
    fn a_few_are_always_allowed_and_a_share_of_many() {
        for (requests, share_bp, again) in [
            (0, 2_000, 50),
            (100, 2_000, 50),
            (1_000, 2_000, 200),
            (1_000, 10_000, 1_000),
            (1_000, 0, 0),
            (1_000_000, 1, 100),
        ] {
            let budget = Budget::default();
            (0..requests).for_each(|_| budget.request(THREAD, 5_000));
            assert_eq!(taken(&budget, 5_999, share_bp, 2_000), again, "{requests} at {share_bp}");
            assert_eq!(budget.denied(), 2_000 - again as u64);
        }
    }

    #[test]
    fn what_was_spent_comes_back_after_ten_seconds() {
        let budget = Budget::default();
        assert_eq!(taken(&budget, 1_000, 2_000, 90), 50);
        assert_eq!(taken(&budget, 10_999, 2_000, 90), 0);
        assert_eq!(taken(&budget, 11_000, 2_000, 90), 50);
        assert_eq!(taken(&budget, 1_000_000, 2_000, 90), 50, "after a long silence");
        assert_eq!(taken(&budget, 0, 2_000, 90), 0, "a clock that goes back gives nothing");
    }

    #[test]
    fn threads_have_budgets_of_their_own() {
        let budget = Budget::new(2);
        assert_eq!(taken(&budget, 0, 2_000, 90), 50);
        assert!(budget.take(Thread(1), 0, 2_000));
    }

    proptest! {
        /// In no ten seconds is more asked again than the share of what came in them, or the few.
        #[test]
        fn no_window_has_more_than_its_share(
            steps in proptest::collection::vec((0u64..3_000, 0u32..400, 0u32..200), 1..60),
            share_bp in 0u32..=10_000,
        ) {
            let (budget, mut now) = (Budget::default(), 0);
            let mut seen: Vec<(u64, u64, u64)> = Vec::new();
            for (pause, requests, tries) in steps {
                now += pause;
                (0..requests).for_each(|_| budget.request(THREAD, now));
                seen.push((now / 1_000, u64::from(requests), taken(&budget, now, share_bp, tries) as u64));
                let recent = seen.iter().filter(|(second, ..)| second + 10 > now / 1_000);
                let (came, again) = recent.fold((0, 0), |sum, it| (sum.0 + it.1, sum.1 + it.2));
                // What was allowed by requests that have left the window by now was allowed then.
                let most = seen.iter().map(|(second, ..)| {
                    let then = seen.iter().filter(|it| it.0 <= *second && it.0 + 10 > *second);
                    allowed(then.map(|it| it.1).sum(), share_bp)
                });
                let most = most.max().unwrap_or(0).max(allowed(came, share_bp));
                prop_assert!(again <= if share_bp == 0 { 0 } else { most }, "{again} of {came}");
            }
        }
    }
}
