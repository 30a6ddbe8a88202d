//! What is known of both arms at one moment: the input of a decision.

use serde::{Deserialize, Serialize};

use crate::analysis::{Counts, Verdict};

/// The evidence in numbers, for decisions and for people.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Meters {
    /// Of the whole rollout.
    pub canary: Counts,
    pub stable: Counts,
    /// Canary requests of this stage.
    pub stage: Counts,
    /// Capital against the canary: of both error tests the lesser one.
    pub errors: f64,
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
    /// Canary's quantile of the latency promise, in milliseconds.
    pub promised_ms: Option<f64>,
}

/// Everything a decision looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub verdict: Verdict,
    pub latency_holds: bool,
    /// The canary is proven good enough in this stage.
    pub proven: bool,
    /// It is proven fast enough, or nothing of the kind is asked for.
    pub quick: bool,
    pub meters: Meters,
    /// Endpoints of the canary that may be used, and all of them.
    pub canary_ready: usize,
    pub canary_endpoints: usize,
    /// Stable could take everything.
    pub stable_ready: bool,
    /// A freeze window is open: nothing moves forward.
    pub frozen: bool,
}
