//! What is known of both arms at one moment: the input of a decision.

use serde::{Deserialize, Serialize};

use super::phase::Breach;
use crate::analysis::{Counts, Verdict};
use crate::config::model::Then;

/// The evidence in numbers, for decisions and for people.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Meters {
    /// Of the whole rollout.
    pub canary: Counts,
    pub stable: Counts,
    /// Canary requests of this stage; copies in a mirror stage.
    pub stage: Counts,
    /// Copies that mirror stages sent.
    #[serde(default)]
    pub copies: Counts,
    /// Capital against the canary: of both error tests the lesser one.
    pub errors: f64,
    /// "More than the limit" and "more than stable", one by one; and the only test while the canary has everything.
    pub errors_absolute: f64,
    pub errors_relative: f64,
    pub errors_bake: Option<f64>,
    pub latency: f64,
    pub proof: f64,
    /// Capital for "fast enough"; `None` if no such promise is asked for.
    pub quick: Option<f64>,
    /// Quantiles in milliseconds of this stage.
    pub canary_p50: Option<f64>,
    pub canary_p95: Option<f64>,
    pub stable_p50: Option<f64>,
    pub stable_p95: Option<f64>,
    /// Canary's quantile of the latency guardrail over stable's, as far as both are known.
    pub latency_ratio: Option<f64>,
    /// Whether speeds are compared: not at 100 %, nor while the canary's endpoints have much more to do.
    pub speeds_compared: bool,
    /// Canary's quantile of the latency promise, in milliseconds.
    pub promised_ms: Option<f64>,
}

/// What is known of the world around the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Around {
    /// Endpoints of the canary that may be used, and all of them.
    pub canary_ready: usize,
    pub canary_endpoints: usize,
    /// Those of which nothing is known yet: neither checked nor resolved since they are there.
    pub canary_unknown: usize,
    /// Stable could take everything.
    pub stable_ready: bool,
    /// A freeze window is open: nothing moves forward.
    pub frozen: bool,
}

/// Everything a decision looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// What the error rules say as long as none is broken.
    pub verdict: Verdict,
    /// The rule that answers break, if one is broken: a rollback before a pause.
    pub broken: Option<(Breach, Then)>,
    pub latency_holds: bool,
    /// The canary is proven good enough in this stage.
    pub proven: bool,
    /// It is proven fast enough, or nothing of the kind is asked for.
    pub quick: bool,
    /// It is fast enough in this stage, proven or not, or nothing of the kind is asked for.
    pub quick_now: bool,
    /// The copies of a mirror stage speak against the canary.
    pub copies_fail: bool,
    pub meters: Meters,
    pub around: Around,
}

/// What the evidence is held against, for people.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// The rate of failures that is too much, and how many times stable's is.
    pub errors_max: f64,
    pub errors_ratio: f64,
    /// The rate that is too much while the canary has everything: higher if stable did worse.
    pub errors_max_at_100: f64,
    /// The rate that a promotion promises to stay below.
    pub errors_below: f64,
    /// The promised quantile and its limit in milliseconds.
    pub quick: Option<(f64, f64)>,
}
