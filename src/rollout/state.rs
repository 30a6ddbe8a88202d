//! The state machine of one rollout.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Moment;
use super::seen::Seen;
use crate::analysis::{HoldReason, Verdict};
use crate::config::model::{Proof, Rollout as Plan, Stage, StageTraffic, Then};

/// A canary without any usable endpoint for this long is rolled back; its requests go to stable meanwhile.
const UNHEALTHY: Duration = Duration::from_secs(1);
/// "Broken, but stable is no better" for this long is for people to look at.
const SHARED_INCIDENT: Duration = Duration::from_secs(10 * 60);
/// A latency hold for this long pauses whatever the ratio is.
const LATENCY_HOLD: Duration = Duration::from_secs(30 * 60);
/// A stage that is not proven after this many times its hold is inconclusive.
const STAGES_LONGEST: u32 = 4;
/// Restarts that are remembered: more than any rule may accept is not needed.
const RESTARTS_KEPT: usize = 1_000;

/// Why a canary is not kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Breach {
    /// More failures than allowed, and more than stable's.
    Errors,
    Crashes {
        restarts: usize,
    },
    /// None of its endpoints could be used.
    Unhealthy,
    Operator {
        who: String,
        reason: Option<String>,
    },
}

/// Why a rollout does not move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Waits {
    Operator {
        who: String,
        reason: Option<String>,
    },
    /// A guardrail whose `then` is pause.
    Breach(Breach),
    /// Failing, but stable is no better.
    SharedIncident,
    /// The canary is to be rolled back, but stable has no usable endpoint.
    StableBroken(Breach),
    /// Slower than stable for too long.
    Latency {
        ratio: Option<f64>,
    },
    /// Neither proven good nor bad in the longest time of a stage.
    Inconclusive,
    /// What was known of it could not be read after a restart.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// The stage runs.
    Staged,
    /// The gate of the next stage must say yes; traffic stays as it is.
    Waiting {
        gate: String,
    },
    Paused(Waits),
    RolledBack(Breach),
    Promoted,
    /// The operator or the file took the split over.
    Superseded {
        by: String,
    },
}

/// One rollout, from its start to its end and beyond: the end is remembered until the next begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    pub stable: String,
    pub canary: String,
    /// What the canary was when it began: its endpoints and revision.
    pub mark: String,
    /// Index of the stage that runs or ran last; `None` before the first has begun.
    pub stage: Option<usize>,
    pub phase: Phase,
    /// Of the phase.
    pub since: Moment,
    /// Of the stage.
    pub stage_since: Moment,
    /// Of the phase, for people: milliseconds since the Unix epoch.
    pub since_unix: u64,
    restarts: VecDeque<Moment>,
    unhealthy_since: Option<Moment>,
    shared_since: Option<Moment>,
    slow_since: Option<Moment>,
    /// The gate of this stage (its index) has said yes.
    approved: Option<usize>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    Stay,
    /// The canary gets the share of this stage.
    Advance {
        to: usize,
    },
    Wait {
        gate: String,
    },
    Pause(Waits),
    /// Everything to stable, now.
    RollBack(Breach),
    /// The canary is the new stable.
    Promote,
}

/// What an operator says.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Promote,
    Pause { reason: Option<String> },
    Resume,
    Abort { reason: Option<String> },
    Approve { gate: Option<String>, by: String },
}

impl Rollout {
    pub fn new(stable: String, canary: String, mark: String, now: Moment, now_unix: u64) -> Rollout {
        Rollout {
            stable,
            canary,
            mark,
            stage: None,
            phase: Phase::Staged,
            since: now,
            stage_since: now,
            since_unix: now_unix,
            restarts: VecDeque::new(),
            unhealthy_since: None,
            shared_since: None,
            slow_since: None,
            approved: None,
        }
    }

    pub fn is_running(&self) -> bool {
        match self.phase {
            Phase::Staged | Phase::Waiting { .. } | Phase::Paused(_) => true,
            Phase::RolledBack(_) | Phase::Promoted | Phase::Superseded { .. } => false,
        }
    }

    /// The canary's share in hundredths of a percent: what is to be live while the rollout runs.
    pub fn share(&self, plan: &Plan) -> u16 {
        self.stage.and_then(|at| plan.stages.get(at)).map_or(0, share_of)
    }

    /// The canary started again.
    pub fn restarted(&mut self, now: Moment) {
        if self.restarts.len() == RESTARTS_KEPT {
            self.restarts.pop_front();
        }
        self.restarts.push_back(now);
    }

    /// All that are remembered.
    pub fn restarts(&self) -> usize {
        self.restarts.len()
    }

    pub fn restarts_within(&self, period: Duration, now: Moment) -> usize {
        self.restarts.iter().filter(|at| now.since(**at) < period).count()
    }

    /// What to do next. Rollback first, in every running phase; then what stops; then what moves on.
    pub fn decide(&mut self, plan: &Plan, seen: &Seen, now: Moment) -> Decision {
        if !self.is_running() {
            return Decision::Stay;
        }
        self.remember(plan, seen, now);
        if let Some((breach, then)) = self.breach(plan, seen, now) {
            match then {
                Then::RollBack if seen.stable_ready => return Decision::RollBack(breach),
                // A broken stable is never the target of a rollback.
                Then::RollBack => return self.pause_once(Waits::StableBroken(breach)),
                Then::Pause => return self.pause_once(Waits::Breach(breach)),
            }
        }
        match &self.phase {
            Phase::Paused(_) => return Decision::Stay,
            // The gate may have said yes, or have been taken out of the plan.
            Phase::Waiting { .. } | Phase::Staged => {}
            Phase::RolledBack(_) | Phase::Promoted | Phase::Superseded { .. } => return Decision::Stay,
        }
        if let Some(waits) = self.stops(plan, seen, now) {
            return Decision::Pause(waits);
        }
        if seen.frozen {
            return Decision::Stay;
        }
        match self.stage {
            None if seen.canary_ready == 0 => Decision::Stay,
            None => self.begin(plan, 0),
            Some(_) if !self.is_done(plan, seen, now) => Decision::Stay,
            Some(at) if at + 1 < plan.stages.len() => self.begin(plan, at + 1),
            Some(_) => Decision::Promote,
        }
    }

    /// Carries a decision out in the state; the caller has published it.
    pub fn apply(&mut self, decision: &Decision, now: Moment, now_unix: u64) {
        match decision {
            Decision::Stay => return,
            Decision::Advance { to } => {
                self.stage = Some(*to);
                self.stage_since = now;
                self.slow_since = None;
                self.phase = Phase::Staged;
            }
            Decision::Wait { gate } => self.phase = Phase::Waiting { gate: gate.clone() },
            Decision::Pause(waits) => self.phase = Phase::Paused(waits.clone()),
            Decision::RollBack(breach) => self.phase = Phase::RolledBack(breach.clone()),
            Decision::Promote => self.phase = Phase::Promoted,
        }
        self.since = now;
        self.since_unix = now_unix;
    }

    /// What an operator's word comes to, or why it is refused. `Stay` is done without a new generation.
    pub fn command(&mut self, plan: &Plan, command: Command, who: &str, now: Moment) -> Result<Decision, String> {
        if !self.is_running() {
            return Err(format!("the rollout of `{}` has ended", self.canary));
        }
        match command {
            Command::Abort { reason } => Ok(Decision::RollBack(Breach::Operator { who: who.into(), reason })),
            Command::Pause { reason } => match self.phase {
                Phase::Paused(_) => Err("it is paused already".into()),
                _ => Ok(Decision::Pause(Waits::Operator { who: who.into(), reason })),
            },
            Command::Promote => match self.stage.map_or(0, |at| at + 1) {
                next if next < plan.stages.len() => Ok(Decision::Advance { to: next }),
                _ => Ok(Decision::Promote),
            },
            Command::Resume => match self.phase {
                Phase::Paused(_) => {
                    self.phase = Phase::Staged;
                    // What was waited for before the pause is not counted twice: the stage begins anew.
                    self.stage_since = now;
                    self.since = now;
                    self.shared_since = None;
                    self.slow_since = None;
                    Ok(Decision::Stay)
                }
                _ => Err("it is not paused".into()),
            },
            Command::Approve { gate, .. } => match &self.phase {
                Phase::Waiting { gate: waits } if gate.as_ref().is_none_or(|gate| gate == waits) => {
                    let next = self.stage.map_or(0, |at| at + 1);
                    self.approved = Some(next);
                    Ok(Decision::Advance { to: next })
                }
                Phase::Waiting { gate: waits } => Err(format!("it waits at gate `{waits}`")),
                _ => Err("it does not wait at a gate".into()),
            },
        }
    }

    /// What is left of the stage's least time; `None` before the first stage and after the end.
    pub fn hold_left(&self, plan: &Plan, now: Moment) -> Option<Duration> {
        let stage = self.stage.and_then(|at| plan.stages.get(at)).filter(|_| self.is_running())?;
        Some(hold_of(plan, stage).saturating_sub(now.since(self.stage_since)))
    }

    /// What is missing for the next step, for people.
    pub fn missing(&self, plan: &Plan, seen: &Seen, now: Moment) -> Vec<String> {
        let mut missing = Vec::new();
        if self.is_running() && self.stage.is_none() && seen.canary_ready == 0 {
            missing.push("an endpoint of the canary that passes its health check".into());
        }
        let Some(stage) = self.stage.and_then(|at| plan.stages.get(at)).filter(|_| self.is_running()) else {
            return missing;
        };
        let left = hold_of(plan, stage).saturating_sub(now.since(self.stage_since));
        if !left.is_zero() {
            missing.push(format!("{} s of the stage's hold", left.as_secs() + 1));
        }
        if seen.meters.stage.total < stage.min_requests {
            missing.push(format!("{} requests", stage.min_requests - seen.meters.stage.total));
        }
        if let Some(why) = hold_reason(seen) {
            missing.push(why.into());
        }
        match plan.promote_when.proof {
            Proof::Evidence if !seen.proven => {
                missing.push(format!("proof that errors are below {} %", plan.promote_when.errors_below * 100.0));
            }
            Proof::Evidence | Proof::Time => {}
        }
        if !seen.quick {
            missing.push("proof that it is fast enough".into());
        }
        if plan.promote_when.healthy && seen.canary_ready < seen.canary_endpoints {
            missing.push(format!("{} healthy endpoints", seen.canary_endpoints - seen.canary_ready));
        }
        if seen.frozen {
            missing.push("the end of the freeze window".into());
        }
        missing
    }

    fn remember(&mut self, plan: &Plan, seen: &Seen, now: Moment) {
        let since = |is: bool, since: Option<Moment>| is.then(|| since.unwrap_or(now));
        let has_traffic = self.share(plan) > 0;
        self.unhealthy_since = since(has_traffic && seen.canary_ready == 0, self.unhealthy_since);
        self.shared_since = since(seen.verdict == Verdict::Hold(HoldReason::Absolute), self.shared_since);
        self.slow_since = since(seen.latency_holds, self.slow_since);
    }

    fn breach(&self, plan: &Plan, seen: &Seen, now: Moment) -> Option<(Breach, Then)> {
        let rules = self.rules(plan);
        if let Some(rule) = rules.crashes {
            let restarts = self.restarts_within(rule.within, now);
            if restarts > rule.more_than as usize {
                return Some((Breach::Crashes { restarts }, rule.then));
            }
        }
        if self.unhealthy_since.is_some_and(|since| now.since(since) >= UNHEALTHY) {
            return Some((Breach::Unhealthy, Then::RollBack));
        }
        let rule = rules.errors.filter(|_| seen.verdict == Verdict::RollBack)?;
        Some((Breach::Errors, rule.then))
    }

    fn rules<'a>(&self, plan: &'a Plan) -> &'a crate::config::model::Guardrails {
        let stage = self.stage.and_then(|at| plan.stages.get(at));
        stage.and_then(|stage| stage.guardrails.as_ref()).unwrap_or(&plan.guardrails)
    }

    /// A pause is said once, not on every tick.
    fn pause_once(&self, waits: Waits) -> Decision {
        let same = |old: &Waits| std::mem::discriminant(old) == std::mem::discriminant(&waits);
        match &self.phase {
            Phase::Paused(old) if same(old) => Decision::Stay,
            // An operator's pause is not overwritten by one that asks for no more.
            Phase::Paused(Waits::Operator { .. }) if matches!(waits, Waits::Breach(_)) => Decision::Stay,
            _ => Decision::Pause(waits),
        }
    }

    fn stops(&self, plan: &Plan, seen: &Seen, now: Moment) -> Option<Waits> {
        let lasts = |since: Option<Moment>, period| since.is_some_and(|since| now.since(since) >= period);
        if lasts(self.shared_since, SHARED_INCIDENT) {
            return Some(Waits::SharedIncident);
        }
        if let Some(rule) = self.rules(plan).latency {
            let ratio = seen.meters.latency_ratio;
            let worse = ratio.is_some_and(|ratio| ratio > rule.max_ratio);
            if (worse && lasts(self.slow_since, rule.period)) || lasts(self.slow_since, LATENCY_HOLD) {
                return Some(Waits::Latency { ratio });
            }
        }
        let stage = self.stage.and_then(|at| plan.stages.get(at))?;
        let longest = hold_of(plan, stage) * STAGES_LONGEST;
        let is_late = now.since(self.stage_since) >= longest && !longest.is_zero();
        (is_late && !self.is_done(plan, seen, now) && !seen.frozen).then_some(Waits::Inconclusive)
    }

    /// The stage has shown what it had to.
    fn is_done(&self, plan: &Plan, seen: &Seen, now: Moment) -> bool {
        let Some(stage) = self.stage.and_then(|at| plan.stages.get(at)) else { return false };
        let waited = now.since(self.stage_since) >= hold_of(plan, stage);
        let enough = seen.meters.stage.total >= stage.min_requests;
        let healthy = !plan.promote_when.healthy || seen.canary_ready == seen.canary_endpoints;
        let good = match plan.promote_when.proof {
            Proof::Evidence => seen.proven && seen.quick,
            Proof::Time => {
                let rate = seen.meters.stage.rate();
                let promise = plan.promote_when.latency;
                let quick = promise.is_none_or(|promise| {
                    seen.meters.promised_ms.is_some_and(|at| at < promise.below.as_secs_f64() * 1e3)
                });
                rate < plan.promote_when.errors_below && quick
            }
        };
        waited && enough && healthy && good && hold_reason(seen).is_none()
    }

    fn begin(&self, plan: &Plan, next: usize) -> Decision {
        match &plan.stages[next].approve {
            Some(gate) if self.approved != Some(next) => match &self.phase {
                Phase::Waiting { gate: waits } if **waits == **gate => Decision::Stay,
                _ => Decision::Wait { gate: gate.to_string() },
            },
            _ => Decision::Advance { to: next },
        }
    }
}

/// Why nothing is promoted now although nothing is broken.
fn hold_reason(seen: &Seen) -> Option<&'static str> {
    match seen.verdict {
        Verdict::RollBack => Some("an end of its errors"),
        Verdict::Hold(HoldReason::Pending) => Some("an end of the doubt: it may fail more often than stable"),
        Verdict::Hold(HoldReason::Absolute) => {
            Some("an end of the incident: too many failures, but stable is no better")
        }
        Verdict::Hold(HoldReason::Relative) => Some("an end of the doubt: worse than stable, though inside the limit"),
        Verdict::Continue if seen.latency_holds => Some("an end of its slowness"),
        Verdict::Continue => None,
    }
}

pub(crate) fn share_of(stage: &Stage) -> u16 {
    match &stage.traffic {
        StageTraffic::Share(share) => *share,
        StageTraffic::Match(_) | StageTraffic::Mirror(_) => 0,
    }
}

fn hold_of(plan: &Plan, stage: &Stage) -> Duration {
    stage.hold.unwrap_or(plan.promote_when.hold)
}
