//! The state machine of one rollout: what is decided, and what it comes to. Which rule says so is in
//! [`super::rules`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::outside::{Flaps, Signal, Tally};
use super::phase::{Breach, Command, Decision, Phase, Waits};
use super::seen::Seen;
use super::window::{Sliding, Window};
use super::{Moment, hold_of, share_of};
use crate::config::model::{CustomEvent, HookPoint, Rollout as Plan, Then};

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
    pub(super) restarts: Tally,
    /// Those that were seen here: the same ones may have been reported.
    #[serde(default)]
    pub(super) restarts_seen: Tally,
    #[serde(default)]
    pub(super) events: BTreeMap<String, Tally>,
    #[serde(default)]
    pub(super) signals: BTreeMap<String, Signal>,
    #[serde(default)]
    pub(super) flaps: Flaps,
    #[serde(default)]
    pub(super) window: Window,
    /// Of this stage.
    #[serde(default)]
    pub(super) recent: Sliding,
    /// How many requests of the canary had failed at the last look, and when that changed last.
    #[serde(default)]
    pub(super) failing: (u64, Moment),
    pub(super) unhealthy_since: Option<Moment>,
    #[serde(default)]
    pub(super) healthy_since: Option<Moment>,
    pub(super) shared_since: Option<Moment>,
    pub(super) slow_since: Option<Moment>,
    /// What the file named when an operator began it; `None`: the file did.
    #[serde(default)]
    pub intent: Option<String>,
    /// The gate of this stage (its index) has said yes.
    approved: Option<usize>,
    /// What the webhooks of the next step were asked, and their word.
    #[serde(default)]
    asked: Vec<(HookPoint, Word)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Word {
    Asked,
    Granted,
    Refused(String),
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
            restarts: Tally::default(),
            restarts_seen: Tally::default(),
            events: BTreeMap::new(),
            signals: BTreeMap::new(),
            flaps: Flaps::default(),
            window: Window::default(),
            recent: Sliding::default(),
            failing: (0, now),
            unhealthy_since: None,
            healthy_since: None,
            shared_since: None,
            slow_since: None,
            intent: None,
            approved: None,
            asked: Vec::new(),
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
        self.restarts.add(now);
    }

    /// An endpoint of the canary refused connections and takes them again.
    pub fn seen_restarting(&mut self, now: Moment) {
        self.restarts_seen.add(now);
    }

    /// As reported or as seen here, whichever is more: most were both.
    pub(super) fn restarts_within(&self, period: std::time::Duration, now: Moment) -> usize {
        self.restarts.within(period, now).max(self.restarts_seen.within(period, now))
    }

    pub fn restarts(&self) -> usize {
        self.restarts.all().max(self.restarts_seen.all())
    }

    /// Something was reported that a guardrail of the user's own counts. `false`: none does.
    pub fn reported(&mut self, plan: &Plan, kind: &str, now: Moment) -> bool {
        let is_counted =
            self.customs(plan).any(|(name, what)| name == kind && matches!(what, CustomEvent::Outside { .. }));
        if is_counted {
            self.events.entry(kind.into()).or_default().add(now);
        }
        is_counted
    }

    /// An outside signal was asked: its value, or `None` if there is no answer or none that is a number.
    pub fn signal(&mut self, plan: &Plan, rule: &str, value: Option<f64>, now: Moment) {
        let limit = self.customs(plan).find_map(|(name, what)| match what {
            CustomEvent::Prometheus { max, .. } if name == rule => Some(*max),
            _ => None,
        });
        if let Some(max) = limit {
            self.signals.entry(rule.into()).or_default().learn(value, max, now);
        }
    }

    /// The last known value of an outside signal.
    pub fn signal_value(&self, rule: &str) -> Option<f64> {
        self.signals.get(rule)?.value
    }

    /// The canary's endpoints and whether each may be used now.
    pub fn endpoints<'a>(&mut self, endpoints: impl Iterator<Item = (&'a str, bool)>, now: Moment) {
        self.flaps.look(endpoints, now);
    }

    /// The webhooks of a point have said yes, or why not. An answer that nobody waits for changes nothing.
    pub fn answered(&mut self, point: HookPoint, stage: Option<usize>, answer: Result<(), String>) {
        if stage != self.stage {
            return;
        }
        if let Some((_, word)) = self.asked.iter_mut().find(|(asked, word)| *asked == point && *word == Word::Asked) {
            *word = match answer {
                Ok(()) => Word::Granted,
                Err(why) => Word::Refused(why),
            };
        }
    }

    /// The point whose webhooks have been asked and have not answered.
    pub fn asks_now(&self) -> Option<HookPoint> {
        self.asked.iter().find(|(_, word)| *word == Word::Asked).map(|(point, _)| *point)
    }

    /// After a restart, or when it is somebody else now: whoever was asked is asked again.
    pub fn forget_asked(&mut self) {
        self.asked.retain(|(_, word)| *word != Word::Asked);
    }

    /// The process began anew: whoever was asked is asked again, and nothing is known yet of any endpoint.
    pub fn starts_again(&mut self) {
        self.forget_asked();
        self.unhealthy_since = None;
    }

    /// The plan has changed while the canary has `live` hundredths of a percent. Goes to the last stage that gives it no
    /// more than that, to begin it; before the first one if there is none. Says whether it had to.
    pub fn refit(&mut self, plan: &Plan, live: u16, now: Moment) -> bool {
        let Some(at) = self.stage else { return false };
        if plan.stages.get(at).is_some_and(|stage| share_of(stage) == live) {
            return false;
        }
        self.stage = plan.stages.iter().rposition(|stage| share_of(stage) <= live);
        self.stage_since = now;
        self.approved = None;
        self.asked.clear();
        self.recent = Sliding::default();
        if let Phase::Waiting { .. } = self.phase {
            self.phase = Phase::Staged;
        }
        true
    }

    /// What to do next. Rollback first, in every running phase; then what stops; then what moves on.
    pub fn decide(&mut self, plan: &Plan, seen: &Seen, now: Moment) -> Decision {
        if !self.is_running() {
            return Decision::Stay;
        }
        self.remember(plan, seen, now);
        if let Some((breach, then)) = self.breach(plan, seen, now) {
            return match then {
                Then::RollBack if seen.around.stable_ready => Decision::RollBack(breach),
                // A broken stable is never the target of a rollback.
                Then::RollBack => self.pause_once(Waits::StableBroken(breach)),
                Then::Pause => self.pause_once(Waits::Breach(breach)),
            };
        }
        match &self.phase {
            // The gate may have said yes, or have been taken out of the plan.
            Phase::Waiting { .. } | Phase::Staged => {}
            Phase::Paused(_) | Phase::RolledBack(_) | Phase::Promoted | Phase::Superseded { .. } => {
                return Decision::Stay;
            }
        }
        if let Some(waits) = self.stops(plan, seen, now) {
            return Decision::Pause(waits);
        }
        if seen.around.frozen {
            return Decision::Stay;
        }
        match self.stage {
            None if seen.around.canary_ready == 0 => Decision::Stay,
            None => self.begin(plan, 0),
            Some(_) if !self.is_done(plan, seen, now) => Decision::Stay,
            Some(at) if at + 1 < plan.stages.len() => self.begin(plan, at + 1),
            Some(_) => self.asks(plan, &[HookPoint::AfterStage, HookPoint::BeforePromote]).unwrap_or(Decision::Promote),
        }
    }

    /// Carries a decision out in the state; the caller has published it.
    pub fn apply(&mut self, decision: &Decision, now: Moment, now_unix: u64) {
        match decision {
            Decision::Stay => return,
            Decision::Ask(point) => {
                self.asked.retain(|(asked, _)| asked != point);
                self.asked.push((*point, Word::Asked));
                return;
            }
            Decision::Advance { to } => {
                self.stage = Some(*to);
                self.stage_since = now;
                self.slow_since = None;
                self.recent = Sliding::default();
                self.asked.clear();
                self.phase = Phase::Staged;
            }
            Decision::Wait { gate } => self.phase = Phase::Waiting { gate: gate.clone() },
            Decision::Pause(waits) => {
                self.asked.clear();
                self.phase = Phase::Paused(waits.clone());
            }
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
            Command::Resume => match &self.phase {
                Phase::Paused(waits) => {
                    if matches!(waits, Waits::Breach(_)) {
                        self.forgive(plan, now);
                    }
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
                    self.approved = Some(self.stage.map_or(0, |at| at + 1));
                    // The next look goes on, if nothing else speaks against it by now.
                    self.phase = Phase::Staged;
                    self.since = now;
                    Ok(Decision::Stay)
                }
                Phase::Waiting { gate: waits } => Err(format!("it waits at gate `{waits}`")),
                _ => Err("it does not wait at a gate".into()),
            },
        }
    }

    /// What is left of the stage's least time; `None` before the first stage and after the end.
    pub fn hold_left(&self, plan: &Plan, now: Moment) -> Option<std::time::Duration> {
        let stage = self.stage.and_then(|at| plan.stages.get(at)).filter(|_| self.is_running())?;
        Some(hold_of(plan, stage).saturating_sub(now.since(self.stage_since)))
    }

    /// Until when the version before a promoted one is kept for a way back, in milliseconds since the Unix epoch.
    pub fn kept_until(&self, plan: &Plan) -> Option<u64> {
        let keep = u64::try_from(plan.keep_idle.as_millis()).unwrap_or(u64::MAX);
        (self.phase == Phase::Promoted).then(|| self.since_unix.saturating_add(keep))
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

    fn begin(&self, plan: &Plan, next: usize) -> Decision {
        let after: &[HookPoint] = if next == 0 { &[] } else { &[HookPoint::AfterStage] };
        if let Some(decision) = self.asks(plan, after) {
            return decision;
        }
        match &plan.stages[next].approve {
            Some(gate) if self.approved != Some(next) => match &self.phase {
                Phase::Waiting { gate: waits } if **waits == **gate => Decision::Stay,
                _ => Decision::Wait { gate: gate.to_string() },
            },
            _ => self.asks(plan, &[HookPoint::BeforeStage]).unwrap_or(Decision::Advance { to: next }),
        }
    }

    /// What the webhooks of these points keep from happening. `None`: all have said yes.
    fn asks(&self, plan: &Plan, points: &[HookPoint]) -> Option<Decision> {
        let has_hook = |point: &HookPoint| plan.webhooks.iter().any(|hook| hook.on.contains(point));
        points.iter().filter(|point| has_hook(point)).find_map(|point| {
            match self.asked.iter().find(|(asked, _)| asked == point).map(|(_, word)| word) {
                None => Some(Decision::Ask(*point)),
                Some(Word::Asked) => Some(Decision::Stay),
                Some(Word::Refused(why)) => Some(Decision::Pause(Waits::Refused { why: why.clone() })),
                Some(Word::Granted) => None,
            }
        })
    }
}
