//! Is the canary slower than stable? An event is a request above a threshold that was known before it: stable's
//! own quantile for stable, [`MARGIN`] times that for the canary.

use serde::{Deserialize, Serialize};

use super::{EProc, Grid, theta0};

/// Quantiles and their weight in the average.
pub const LEVELS: [(f64, f64); 3] = [(0.50, 0.25), (0.95, 0.50), (0.99, 0.25)];
/// How much slower the canary may be before anything counts.
pub const MARGIN: f64 = 1.2;
/// 1 in 100 healthy rollouts at most is ever held.
const HOLD_AT: f64 = 100.0;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyJudge {
    levels: [EProc; 3],
}

impl LatencyJudge {
    pub fn new() -> LatencyJudge {
        LatencyJudge { levels: [(); 3].map(|()| EProc::new(Grid::Against)) }
    }

    /// Of `all` events at a level since the last tick, `canary` were the canary's; `pi` is its share of requests.
    pub fn batch(&mut self, level: usize, canary: u64, all: u64, pi: f64) {
        self.levels[level].batch(canary, all, theta0(pi, 1.0));
    }

    /// One request; bit `n` of `flags` says that it was above the threshold of level `n`.
    pub fn observe(&mut self, canary: bool, flags: u8, pi: f64) {
        for (at, level) in self.levels.iter_mut().enumerate() {
            if flags >> at & 1 == 1 {
                level.update(canary, theta0(pi, 1.0));
            }
        }
    }

    pub fn value(&self) -> f64 {
        self.values().into_iter().zip(LEVELS).map(|(value, (_, weight))| weight * value).sum()
    }

    /// By level.
    pub fn values(&self) -> [f64; 3] {
        std::array::from_fn(|at| self.levels[at].value())
    }

    pub fn is_holding(&self) -> bool {
        self.value() >= HOLD_AT
    }
}

impl Default for LatencyJudge {
    fn default() -> LatencyJudge {
        LatencyJudge::new()
    }
}
