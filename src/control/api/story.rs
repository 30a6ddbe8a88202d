//! The story of a rollout: what was decided, when, by whom and on which evidence.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::RolloutStatus;

/// One decision about a rollout, as it is journaled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutDecision {
    /// Numbers all decisions of an instance; later is higher.
    pub id: u64,
    /// Milliseconds since the Unix epoch.
    pub at: u64,
    pub service: String,
    /// When the rollout began, in milliseconds since the Unix epoch: what tells the rollouts of a service apart.
    pub rollout: u64,
    pub stable: String,
    pub canary: String,
    /// From 1, after the decision; 0 before the first stage.
    pub stage: usize,
    /// The canary's share of new requests after the decision, 0 to 1.
    pub share: f64,
    /// `start`, `advance`, `wait` (for a gate), `approve`, `pause`, `resume`, `rollback`, `promote`, `superseded` (the
    /// file or an operator decides), `reject` (a version that was rolled back before is not tried again).
    pub decision: String,
    /// The rule: `evidence`, `errors`, `error_window`, `custom`, `crashes`, `unhealthy`, `latency`,
    /// `shared_incident`, `inconclusive`, `refused` (by a webhook), `unknown_state`, `operator`, `file`, `gate`, `group`, `rejected`.
    pub reason: String,
    /// For people.
    pub why: String,
    /// `rollout` if the evidence decided.
    pub author: String,
    /// As the history calls it.
    pub cause: String,
    /// The generation that was live from then on; `None` if the process ended before it was known.
    pub generation: Option<u64>,
    pub evidence: RolloutEvidence,
    /// Of the flip, if there was one.
    pub receipt: Option<RolloutReceipt>,
}

/// The measured times of a flip; see [`super::Receipt`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutReceipt {
    pub triggered_at: u64,
    pub published_at: u64,
    pub flip_micros: u64,
    /// `None` until the last data thread has let go of the generation before.
    pub last_old_start_micros: Option<u64>,
    pub in_flight_at_flip: u64,
    /// Canary requests of this rollout that stable answered instead.
    pub shielded: u64,
}

/// What was known when a decision was made. Each `errors_*`, `latency`, `proof` and `quick` is a betting test's
/// capital; its limit stands beside it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RolloutEvidence {
    pub canary: RolloutArm,
    pub stable: RolloutArm,
    /// Canary requests and failures of the stage in which it was decided.
    pub stage_requests: u64,
    pub stage_failures: u64,
    /// "More failures than `errors_max`", and "more than `errors_ratio` times stable's". Both roll back.
    pub errors_absolute: f64,
    pub errors_relative: f64,
    /// The only test while the canary has everything: "more than `errors_max_at_100`".
    pub errors_bake: Option<f64>,
    pub errors_limit: f64,
    /// Guardrails of the user's own about answers: name and capital. They share a budget with the error tests: what
    /// counts is the average of all that roll back, against `errors_limit`.
    #[serde(default)]
    pub custom: Vec<(String, f64)>,
    pub latency: f64,
    pub latency_limit: f64,
    /// Canary's quantile of the latency guardrail over stable's.
    pub latency_ratio: Option<f64>,
    pub proof: f64,
    pub proof_limit: f64,
    /// "Fast enough", if that is promised; its limit is `proof_limit`.
    pub quick: Option<f64>,
    /// The promised quantile of the canary and its limit, in milliseconds.
    pub quick_ms: Option<f64>,
    pub quick_max_ms: Option<f64>,
    /// Rates, 0 to 1.
    pub errors_max: f64,
    pub errors_ratio: f64,
    pub errors_max_at_100: f64,
    pub errors_below: f64,
    pub restarts: u64,
    /// Copies that mirror stages sent, and those of them that failed.
    #[serde(default)]
    pub copies: u64,
    #[serde(default)]
    pub copies_failed: u64,
    /// Canary requests that stable answered instead.
    pub shielded: u64,
    /// The canary's bad answers by status, most frequent first; 0 is no answer.
    pub statuses: Vec<(u16, u64)>,
}

impl RolloutEvidence {
    /// What stands against [`RolloutEvidence::errors_limit`].
    pub fn errors(&self) -> f64 {
        self.errors_bake.unwrap_or(self.errors_absolute.min(self.errors_relative))
    }
}

/// One version in a rollout: counts of all of it, quantiles of the present stage.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RolloutArm {
    pub requests: u64,
    pub failures: u64,
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub first_failure: Option<FailedRequest>,
    pub last_failure: Option<FailedRequest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRequest {
    /// The client's `x-request-id`, or the one in the access log.
    pub id: String,
    pub at: u64,
    /// What the endpoint answered; 0 if it did not.
    pub status: u16,
    pub endpoint: Option<SocketAddr>,
}

/// The evidence at one moment, for charts. Counts grow over the whole rollout.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RolloutSample {
    /// Milliseconds since the Unix epoch; 0 in the journal, which keeps the time beside it.
    #[serde(default)]
    pub at: u64,
    pub stage: usize,
    pub share: f64,
    pub canary_requests: u64,
    pub canary_failures: u64,
    pub stable_requests: u64,
    pub stable_failures: u64,
    pub canary_p50_ms: Option<f64>,
    pub canary_p95_ms: Option<f64>,
    pub stable_p50_ms: Option<f64>,
    pub stable_p95_ms: Option<f64>,
    pub errors: f64,
    pub latency: f64,
    pub proof: f64,
}

/// `GET /api/v1/services/{s}/rollout`: the rollout that runs or ended last, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutReport {
    pub service: String,
    /// When this was answered, in milliseconds since the Unix epoch.
    pub at: u64,
    /// When the rollout began; see [`RolloutDecision::rollout`].
    pub started: u64,
    /// As in `status`; `None` if the service has no `rollout:` any more.
    pub rollout: Option<RolloutStatus>,
    /// The newest that is known: while it runs at most a second old.
    pub evidence: RolloutEvidence,
    /// Oldest first.
    pub decisions: Vec<RolloutDecision>,
    /// Oldest first.
    pub samples: Vec<RolloutSample>,
    /// Earlier rollouts of the service, newest first. Only with `?all=true`.
    #[serde(default)]
    pub earlier: Vec<EarlierRollout>,
}

/// A rollout that another one followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EarlierRollout {
    pub started: u64,
    pub decisions: Vec<RolloutDecision>,
}
