//! Promises that cannot be kept: proof takes requests, and some traffic does not bring them in time.

use std::time::Duration;

use serde::Serialize;

use crate::analysis::{fast_requests_needed, requests_needed};
use crate::config::model::{Proof, Rollout as Plan};
use crate::rollout::{STAGES_LONGEST, hold_of, share_of};

/// What a stage asks for and does not get.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shortfall {
    /// From 1.
    pub stage: usize,
    /// In hundredths of a percent.
    pub share_bp: u16,
    pub what: Needs,
    /// Canary requests.
    pub needs: u64,
    pub gets: u64,
    /// The longest time of the stage.
    #[serde(skip)]
    pub within: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Needs {
    /// Clean requests that prove the promise about errors.
    Errors,
    /// Quick requests that prove the promise about latency.
    Latency,
    /// `min_requests`.
    Fewest,
}

impl Needs {
    pub fn purpose(self) -> &'static str {
        match self {
            Needs::Errors => "to prove that it fails as seldom as promised",
            Needs::Latency => "to prove that it is as fast as promised",
            Needs::Fewest => "because of its `min_requests`",
        }
    }
}

/// Stages that cannot end well with so many requests a second, even if every one is good.
pub fn shortfalls(plan: &Plan, rps: f64) -> Vec<Shortfall> {
    let promise = &plan.promote_when;
    let mut needs = Vec::new();
    if promise.proof == Proof::Evidence {
        needs.push((Needs::Errors, requests_needed(promise.errors_below)));
        needs.extend(promise.latency.map(|latency| (Needs::Latency, fast_requests_needed(latency.quantile))));
    }
    let mut found = Vec::new();
    for (at, stage) in plan.stages.iter().enumerate() {
        let within = hold_of(plan, stage) * STAGES_LONGEST;
        let share_bp = share_of(stage);
        if share_bp == 0 || within.is_zero() {
            continue;
        }
        let gets = (rps * f64::from(share_bp) / 1e4 * within.as_secs_f64()) as u64;
        let fewest = (stage.min_requests > 0).then_some((Needs::Fewest, stage.min_requests));
        // The most that is asked for says it all.
        let most = needs.iter().copied().chain(fewest).max_by_key(|(_, needs)| *needs);
        if let Some((what, needs)) = most.filter(|(_, needs)| *needs > gets) {
            found.push(Shortfall { stage: at + 1, share_bp, what, needs, gets, within });
        }
    }
    found
}
