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

mod freeze;
mod judge;
mod seen;
mod series;
mod state;

pub use freeze::is_frozen;
pub use judge::{Failure, Judge};
pub use seen::{Meters, Seen, Thresholds};
pub use series::Series;
pub(crate) use state::share_of;
pub use state::{Breach, Command, Decision, Phase, Rollout, Waits};

use serde::{Deserialize, Serialize};

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
