//! From outcomes to evidence. (pure)
//!
//! One primitive does all judging: [`EProc`], a betting test of "this event has at most the probability p0". Its
//! value starts at 1; while the hypothesis holds it ever reaches x with probability at most 1/x (Ville 1939), so
//! it may be looked at after every request. [`ErrorJudge`] combines two of them (too many failures, and more
//! than stable's), [`LatencyJudge`] three, [`PromoteGate`] two that bet the other way.
//!
//! Sources: Ville, Étude critique de la notion de collectif, 1939. Howard, Ramdas, McAuliffe, Sekhon, Time-uniform
//! confidence sequences, Ann. Statist. 2021. Shin, Ramdas, Rinaldo, E-detectors, NEJSDS 2023. Vovk, Wang,
//! E-values, Ann. Statist. 2021 (an average of e-values is one under any dependence). Masson, Rim, Lee, DDSketch,
//! VLDB 2019.
//!
//! [`rate_interval`] is for people only: nothing is decided by it.
//!
//! What is left out on purpose: time. Nothing here knows when something happened.

mod eproc;
mod errors;
mod interval;
mod latency;
mod promote;
mod sketch;

use serde::{Deserialize, Serialize};

pub use eproc::{EProc, Grid, theta0};
pub use errors::{ErrorJudge, ErrorLimits, ErrorMeters, HoldReason, Verdict, bake_limit};
pub use interval::{rate_interval, wilson};
pub use latency::{LEVELS, LatencyJudge, MARGIN};
pub use promote::{PromoteGate, QuickEnough, fast_requests_needed, requests_needed};
pub use sketch::{MAX_BUCKET, MIN_BUCKET, Sketch, bucket_of, value_of};

/// Which version of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    Stable,
    Canary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    pub total: u64,
    pub failed: u64,
}

impl Counts {
    /// Failed of all, 0 to 1; 0 of none.
    pub fn rate(self) -> f64 {
        if self.total == 0 { 0.0 } else { self.failed as f64 / self.total as f64 }
    }
}
