//! The literal rule "more than so many errors for so long": a rate over a sliding window, compared with its limit
//! and with stable, without a break for as long as the window is.
//!
//! It is an option beside the sequential tests: near the limit it trips on luck, and with little traffic on next
//! to nothing, which is why it asks for some failures and for stable to do better.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Moment;
use crate::analysis::Counts;
use crate::config::model::WindowRule;

/// How finely a window is cut.
const PARTS: u32 = 60;
/// Fewer failures than this in a window are luck.
const FEWEST: u64 = 5;
/// How many times stable's rate is tolerated.
const RATIO: f64 = 1.25;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Point {
    at: Moment,
    canary: Counts,
    stable: Counts,
}

/// What was counted lately, from counts that only grow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sliding(VecDeque<Point>);

impl Sliding {
    /// `canary` and `stable`: everything counted until now. Returns what came in the last `period`, cut in so many parts, or
    /// `None` if the present part is not over.
    pub fn look(
        &mut self,
        (period, parts): (Duration, u32),
        canary: Counts,
        stable: Counts,
        now: Moment,
    ) -> Option<(Counts, Counts)> {
        if self.0.back().is_some_and(|last| now.since(last.at) < period / parts) {
            return None;
        }
        self.0.push_back(Point { at: now, canary, stable });
        while self.0.get(1).is_some_and(|second| now.since(second.at) >= period) {
            self.0.pop_front();
        }
        let first = self.0[0];
        Some((since(canary, first.canary), since(stable, first.stable)))
    }

    /// What came of the canary since the beginning of the window.
    pub fn canary(&self, canary: Counts) -> Counts {
        self.0.front().map_or(canary, |first| since(canary, first.canary))
    }
}

/// The literal rule's memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    counts: Sliding,
    over_since: Option<Moment>,
}

impl Window {
    /// `canary` and `stable`: everything counted since the rollout began.
    pub fn look(&mut self, rule: &WindowRule, canary: Counts, stable: Counts, now: Moment) {
        let Some((canary, stable)) = self.counts.look((rule.period, PARTS), canary, stable, now) else { return };
        let is_over = canary.failed >= FEWEST && canary.rate() > rule.max && canary.rate() > RATIO * stable.rate();
        self.over_since = is_over.then(|| self.over_since.unwrap_or(now));
    }

    pub fn is_broken(&self, rule: &WindowRule, now: Moment) -> bool {
        self.over_since.is_some_and(|since| now.since(since) >= rule.period)
    }
}

fn since(now: Counts, then: Counts) -> Counts {
    Counts { total: now.total.saturating_sub(then.total), failed: now.failed.saturating_sub(then.failed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Then;

    const RULE: WindowRule = WindowRule { max: 0.001, period: Duration::from_secs(300), then: Then::Pause };

    /// Seconds until it breaks, with so many requests and failures of the canary and of stable in each.
    fn broken_after(canary: (u64, u64), stable: (u64, u64), breaks: std::ops::Range<u64>) -> Option<u64> {
        let mut window = Window::default();
        let (mut seen, mut seen_stable) = (Counts::default(), Counts::default());
        (0..3_600).find(|second| {
            let failed = if breaks.contains(second) { 0 } else { canary.1 };
            seen = Counts { total: seen.total + canary.0, failed: seen.failed + failed };
            seen_stable = Counts { total: seen_stable.total + stable.0, failed: seen_stable.failed + stable.1 };
            window.look(&RULE, seen, seen_stable, Moment::secs(*second));
            window.is_broken(&RULE, Moment::secs(*second))
        })
    }

    #[test]
    fn too_many_errors_for_the_whole_period_break_it() {
        assert_eq!(broken_after((50, 1), (950, 0), 0..0), Some(305));
    }

    #[test]
    fn a_shared_incident_few_errors_and_a_good_canary_do_not() {
        assert_eq!(broken_after((50, 1), (1_000, 20), 0..0), None);
        assert_eq!(broken_after((50, 0), (950, 0), 0..0), None);
        assert_eq!(broken_after((0, 0), (950, 0), 0..0), None, "no data is no evidence");
    }

    #[test]
    fn the_period_begins_anew_after_a_good_window() {
        let broken = broken_after((50, 1), (950, 0), 10..400).expect("it goes on");
        assert!(broken > 400 + 300, "{broken}");
    }

    #[test]
    fn it_stays_small() {
        let mut window = Window::default();
        for second in 0..10_000 {
            window.look(&RULE, Counts::default(), Counts::default(), Moment::secs(second));
        }
        assert!(window.counts.0.len() <= PARTS as usize + 2, "{}", window.counts.0.len());
    }
}
