//! Whether an endpoint has had its first requests: a fresh process is slow for a while, which says nothing about
//! its version.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Requests until an endpoint can be warm.
const REQUESTS: u32 = 200;

#[derive(Debug, Default)]
pub struct Warmth {
    /// Milliseconds of the first answer; 0 before.
    first_ms: AtomicU64,
    answers: AtomicU32,
    /// Milliseconds from the first answer on that an earlier process saw.
    earlier_ms: AtomicU64,
}

impl Warmth {
    /// So many answers, and so long after the first.
    pub fn is_warm(&self, now_ms: u64, period: Duration) -> bool {
        let first = self.first_ms.load(Ordering::Relaxed);
        let is_used = self.answers.load(Ordering::Relaxed) >= REQUESTS;
        let for_ms = || now_ms.saturating_sub(first).saturating_add(self.earlier_ms.load(Ordering::Relaxed));
        period.is_zero() || (is_used && first != 0 && for_ms() >= period.as_millis() as u64)
    }

    /// One more answer. Says whether the endpoint was warm before it.
    pub fn answered(&self, now_ms: u64, period: Duration) -> bool {
        if self.is_warm(now_ms, period) {
            return true;
        }
        if self.first_ms.load(Ordering::Relaxed) == 0 {
            // Whoever loses was as early.
            let _ = self.first_ms.compare_exchange(0, now_ms.max(1), Ordering::Relaxed, Ordering::Relaxed);
        }
        if self.answers.load(Ordering::Relaxed) < REQUESTS {
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
        false
    }

    /// It was down: whatever comes back is a fresh one.
    pub fn cool(&self) {
        self.first_ms.store(0, Ordering::Relaxed);
        self.answers.store(0, Ordering::Relaxed);
        self.earlier_ms.store(0, Ordering::Relaxed);
    }

    /// For a successor: the answers, and how long ago the first was. `None` before it.
    pub fn carried(&self, now_ms: u64) -> Option<(u32, u64)> {
        let first = self.first_ms.load(Ordering::Relaxed);
        let for_ms = now_ms.saturating_sub(first).saturating_add(self.earlier_ms.load(Ordering::Relaxed));
        (first != 0).then(|| (self.answers.load(Ordering::Relaxed), for_ms))
    }

    /// As the process before knew it, at the beginning of this one's clock.
    pub fn take_over(&self, (answers, for_ms): (u32, u64)) {
        self.first_ms.store(1, Ordering::Relaxed);
        self.answers.store(answers.min(REQUESTS), Ordering::Relaxed);
        self.earlier_ms.store(for_ms, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(30);

    #[test]
    fn warm_is_what_has_answered_enough_for_long_enough() {
        let warmth = Warmth::default();
        assert!((0..200).all(|at| !warmth.answered(1_000 + at, PERIOD)), "enough, but not for long");
        assert!(!warmth.answered(30_999, PERIOD));
        assert!(warmth.answered(31_000, PERIOD));
        warmth.cool();
        assert!((0..199).all(|at| !warmth.answered(40_000 + at * 1_000, PERIOD)), "long, but not enough");
        assert!(!warmth.answered(300_000, PERIOD));
        assert!(warmth.answered(300_001, PERIOD));
        assert!(Warmth::default().answered(0, Duration::ZERO), "nobody asks");
    }
}
