//! What the journal keeps of rollouts, and how it is read back.
//!
//! Evidence that cannot be read back is not taken for none: its rollout is paused with everything on stable.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::tell::{Held, Untold};
use super::{Rollouts, Running};
use crate::evidence::Trial;
use crate::rollout::{Decision, Judge, Rollout, Waits, guardrails_of, traffic_of};

/// A version that was rolled back: it gets no traffic until it is another one or an operator insists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Endpoints and revision at that time.
    pub mark: String,
    pub why: String,
    /// Milliseconds since the Unix epoch.
    pub at: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    pub rollout: Rollout,
    /// The evidence, in a form that only this version of the program has to understand.
    pub judge: serde_json::Value,
    /// Somebody was told to look, and not yet that it is over.
    #[serde(default)]
    pub alarmed: bool,
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
            alarmed: running.alarmed,
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
            let Some(plan) = plan_of(&service) else { continue };
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
            rollout.forget_asked();
            let trial = Arc::new(Trial::new(judge, threads, rollouts.tripped.clone()));
            rollouts
                .by_service
                .insert(service, Running { rollout, trial, alarmed: saved.alarmed, held: Held::No, untold });
        }
        (rollouts, notes)
    }
}
