//! How long an endpoint takes to answer: an average that jumps up at once and comes down slowly (peak EWMA, after
//! Finagle).

use std::sync::atomic::{AtomicU64, Ordering};

/// After this long without an answer an estimate has lost most of its weight.
const DECAY_MS: f64 = 10_000.0;
/// What a failure counts as at least: failing fast is not being fast.
const FAILURE_US: f64 = 1_000_000.0;
/// Of an endpoint that works on its first requests and has not answered any.
const UNKNOWN_US: f64 = 1_000_000.0;

/// Shared by the data threads. Two that write at once may lose one observation, never the estimate.
#[derive(Debug, Default)]
pub struct Ewma {
    /// Microseconds, as the bits of an `f64`; 0 before the first answer.
    estimate: AtomicU64,
    /// When it was made, in milliseconds.
    at_ms: AtomicU64,
}

impl Ewma {
    /// An answer began after `micros`.
    pub fn answered(&self, micros: u64, now_ms: u64) {
        let (seen, old) = (micros as f64, self.estimate(now_ms));
        let new = if seen >= old { seen } else { seen + (self.fresh() - seen) * self.kept(now_ms) };
        self.set(new.max(1.0), now_ms);
    }

    /// It failed, whenever that was.
    pub fn failed(&self, micros: u64, now_ms: u64) {
        self.set((micros as f64).max(FAILURE_US).max(self.estimate(now_ms)), now_ms);
    }

    /// What one more request costs while `in_flight` are there.
    pub fn cost(&self, in_flight: u64, now_ms: u64) -> f64 {
        match self.estimate(now_ms) {
            // Nothing is known: one request finds out.
            0.0 if in_flight == 0 => 0.0,
            0.0 => UNKNOWN_US * in_flight as f64,
            estimate => estimate * (in_flight + 1) as f64,
        }
    }

    /// The estimate fades while nothing is heard, so that who was slow is asked again.
    fn estimate(&self, now_ms: u64) -> f64 {
        self.fresh() * self.kept(now_ms)
    }

    fn fresh(&self) -> f64 {
        f64::from_bits(self.estimate.load(Ordering::Relaxed))
    }

    fn kept(&self, now_ms: u64) -> f64 {
        let age = now_ms.saturating_sub(self.at_ms.load(Ordering::Relaxed));
        (-(age as f64) / DECAY_MS).exp()
    }

    /// For a successor, in microseconds; 0: nothing is known.
    pub fn carried(&self, now_ms: u64) -> f64 {
        self.estimate(now_ms)
    }

    /// As the process before knew it, at the beginning of this one's clock.
    pub fn take_over(&self, micros: f64) {
        if micros.is_finite() && micros > 0.0 {
            self.set(micros, 0);
        }
    }

    fn set(&self, estimate: f64, now_ms: u64) {
        self.estimate.store(estimate.to_bits(), Ordering::Relaxed);
        self.at_ms.store(now_ms, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_jumps_up_and_comes_down_slowly() {
        let ewma = Ewma::default();
        assert_eq!(ewma.cost(0, 1), 0.0, "unknown: asked first");
        assert!(ewma.cost(1, 1) > 100_000.0, "but not by everybody at once");
        ewma.answered(1_000, 1_000);
        assert_eq!((ewma.cost(0, 1_000), ewma.cost(3, 1_000)), (1_000.0, 4_000.0));
        ewma.answered(50_000, 1_000);
        assert_eq!(ewma.cost(0, 1_000), 50_000.0);
        ewma.answered(1_000, 2_000);
        let after = ewma.cost(0, 2_000);
        assert!((40_000.0..50_000.0).contains(&after), "a second later most is kept: {after}");
        assert!(ewma.cost(0, 62_000) < 200.0, "a minute of silence is a new chance");
    }

    #[test]
    fn failing_fast_is_slow() {
        let ewma = Ewma::default();
        ewma.answered(500, 1_000);
        ewma.failed(20, 1_000);
        assert_eq!(ewma.cost(0, 1_000), 1_000_000.0);
    }
}
