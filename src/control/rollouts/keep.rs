//! What the journal keeps of rollouts, and how it is read back.
//!
//! Evidence that cannot be read back is not taken for none: its rollout is paused with everything on stable.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::alarm::{Gone, Told};
use super::story::Said;
use super::tell::{Held, Untold};
use super::{AUTHOR, Rollouts, Running};
use crate::evidence::{Failing, Trial};
use crate::rollout::{Decision, Judge, Rollout, Waits, guardrails_of, traffic_of};

/// A version that was rolled back: it gets no traffic until it is another one or an operator insists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Endpoints and revision at that time.
    pub mark: String,
    pub why: String,
    /// Milliseconds since the Unix epoch.
    pub at: u64,
    /// What it was to replace.
    #[serde(default)]
    pub stable: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    pub rollout: Rollout,
    /// The evidence, in a form that only this version of the program has to understand.
    pub judge: serde_json::Value,
    /// When it began; 0 if an earlier version of the program kept it.
    #[serde(default)]
    pub started: u64,
    /// The failing requests that are known, stable's and the canary's.
    #[serde(default)]
    pub failing: [Option<Failing>; 2],
    #[serde(default)]
    pub shielded: u64,
    /// Somebody was told to look, and not yet that it is over.
    #[serde(default)]
    pub alarmed: bool,
    #[serde(default)]
    pub told: Told,
}

/// Everything about rollouts that survives a crash.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    #[serde(default)]
    pub by_service: BTreeMap<String, Saved>,
    #[serde(default)]
    pub rejected: BTreeMap<String, BTreeMap<String, Rejection>>,
    /// Where the rollouts' clock stands.
    #[serde(default)]
    pub clock: u64,
}

impl Rollouts {
    pub fn kept(&self) -> Kept {
        let saved = |running: &Running| Saved {
            rollout: running.rollout.clone(),
            judge: running.trial.judge(|judge| serde_json::to_value(&*judge).expect("numbers and lists")),
            started: running.started,
            failing: running.trial.failing(),
            shielded: running.shielded(),
            alarmed: running.alarmed,
            told: running.told.clone(),
        };
        Kept {
            by_service: self.by_service.iter().map(|(service, running)| (service.clone(), saved(running))).collect(),
            rejected: self.rejected.clone(),
            clock: self.now().0,
        }
    }

    /// As it was kept, for the plans of the first table. Says what could not be read.
    pub fn restore(
        kept: Kept,
        plan_of: impl Fn(&str) -> Option<crate::config::model::Rollout>,
        threads: usize,
    ) -> (Rollouts, Vec<String>) {
        let mut rollouts = Rollouts { rejected: kept.rejected, base: kept.clock, ..Rollouts::new() };
        let mut notes = Vec::new();
        for (service, saved) in kept.by_service {
            let Some(plan) = plan_of(&service) else {
                if saved.alarmed {
                    rollouts.gone.push(Gone { service, rollout: saved.rollout, told: saved.told });
                }
                continue;
            };
            let mut rollout = saved.rollout;
            let mut untold = Vec::new();
            let mut judge: Judge = serde_json::from_value(saved.judge).unwrap_or_else(|error| {
                if rollout.is_running() {
                    notes.push(format!(
                        "service `{service}`: the evidence of its rollout cannot be read back ({error}): paused with everything on stable"
                    ));
                    let now = rollouts.now();
                    rollout.stage = None;
                    untold.push(Untold::Unread);
                    rollout.apply(&Decision::Pause(Waits::Unknown), now, crate::telemetry::unix_ms());
                }
                Judge::new(&plan)
            });
            // The file may have changed meanwhile, and whoever was asked when the process ended cannot answer.
            judge.follow(&plan, guardrails_of(&plan, rollout.stage));
            judge.serves(traffic_of(&plan, rollout.stage));
            rollout.starts_again();
            let trial = Trial::new(judge, threads, rollouts.tripped.clone()).with_failing(saved.failing);
            let is_lost = !untold.is_empty();
            let running = Running {
                started: if saved.started == 0 { rollout.since_unix } else { saved.started },
                rollout,
                trial: Arc::new(trial),
                shielded_before: saved.shielded,
                alarmed: saved.alarmed,
                told: saved.told,
                held: Held::No,
                untold,
                restarts: BTreeMap::new(),
            };
            rollouts.by_service.insert(service.clone(), running);
            if is_lost {
                let why = super::show::why_waits(&Waits::Unknown);
                let (decision, reason) = ("pause", "unknown_state");
                rollouts.say(&service, Said { decision, reason, why, author: AUTHOR, cause: "start", meters: None });
            }
        }
        (rollouts, notes)
    }
}

#[cfg(test)]
impl Saved {
    /// A rollout of `v2` that began then, without evidence.
    pub fn begun(started: u64) -> Saved {
        let now = crate::rollout::Moment::default();
        let rollout = Rollout::new("v1".into(), "v2".into(), "mark".into(), now, started);
        let (judge, failing, told) = (serde_json::Value::Null, [None; 2], Told::default());
        Saved { rollout, judge, started, failing, shielded: 0, alarmed: false, told }
    }
}
