//! Where a rollout stands and what happens next. (pure)
//!
//! ```text
//!            ┌────────────── Pause ◀── breach `then: pause`, inconclusive, operator
//!            ▼                 │ resume
//!  start ─▶ Staged(n) ─ proven ─▶ Waiting(gate) ─ approve ─▶ Staged(n+1) … Staged(last) ─ proven ─▶ Promoted
//!            │                 │                              │
//!            └──── breach ─────┴────────── breach ────────────┴─▶ RolledBack (canary rejected)
//! ```
//!
//! Rollback is possible in every running phase and is looked at first. Everything a decision needs is handed
//! in: the plan (from the configuration), what was [`Seen`] of both arms, the [`Moment`]. The evidence is
//! summed up by [`Judge`]; the tests behind it are in [`crate::analysis`].
//!
//! What is deliberately absent: nothing here knows weights of other versions, sockets, or the file. The caller
//! publishes what is decided and journals it.

mod custom;
mod freeze;
mod judge;
#[cfg(test)]
mod judge_tests;
mod outside;
mod phase;
#[cfg(test)]
mod resume_tests;
mod rules;
mod seen;
mod series;
#[cfg(test)]
mod stages_tests;
mod state;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod walk_tests;
mod watch;
mod window;

pub use custom::Bad;
pub use freeze::is_frozen;
pub use judge::{Failure, Judge};
pub use phase::{Breach, Command, Decision, Phase, Waits};
pub use rules::{STAGES_LONGEST, hold_of};
pub use seen::{Around, Meters, Seen, Thresholds};
pub use series::Series;
pub use state::Rollout;
pub use watch::{Watch, bad, watches};

use serde::{Deserialize, Serialize};

use crate::config::model::{Guardrails, Rollout as Plan, Stage, StageTraffic};

/// Capital at which errors roll back, a latency holds, and a stage is proven: notes of [`crate::analysis`].
pub const ERRORS_LIMIT: f64 = 200.0;
pub const LATENCY_LIMIT: f64 = 100.0;
pub const PROOF_LIMIT: f64 = 20.0;

/// Milliseconds on the rollouts' own clock. It goes on where it stood after a restart and never jumps, so a
/// change of the wall clock neither ends a stage nor keeps one from ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Moment(pub u64);

impl Moment {
    pub fn secs(seconds: u64) -> Moment {
        Moment(seconds * 1000)
    }

    pub fn since(self, earlier: Moment) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The canary's share in a stage, in hundredths of a percent.
pub fn share_of(stage: &Stage) -> u16 {
    match &stage.traffic {
        StageTraffic::Share(share) => *share,
        StageTraffic::Match(_) | StageTraffic::Mirror(_) => 0,
    }
}

/// What applies in a stage: its own guardrails stand for all of the plan's.
/// What the canary gets in a stage; `None` before the first.
pub fn traffic_of(plan: &Plan, stage: Option<usize>) -> Option<&StageTraffic> {
    Some(&plan.stages.get(stage?)?.traffic)
}

/// A stage in a word or two: `5 %`, `match`, `mirror 10 %`.
pub fn label_of(stage: &Stage) -> String {
    let percent = |bp: &u16| format!("{} %", f64::from(*bp) / 100.0);
    match &stage.traffic {
        StageTraffic::Share(share) => percent(share),
        StageTraffic::Match(_) => "match".into(),
        StageTraffic::Mirror(share) => format!("mirror {}", percent(share)),
    }
}

pub fn guardrails_of(plan: &Plan, stage: Option<usize>) -> &Guardrails {
    let own = stage.and_then(|at| plan.stages.get(at)).and_then(|stage| stage.guardrails.as_ref());
    own.unwrap_or(&plan.guardrails)
}

/// Replays that are always allowed: a share of nothing is nothing.
const REPLAYS_FREE: u64 = 10;

/// How many failed canary requests may be replayed on stable after so many good answers of both.
pub fn replays_allowed(answered: u64, budget_bp: u16) -> u64 {
    REPLAYS_FREE + answered * u64::from(budget_bp) / 10_000
}
