//! A small model checker: every interleaving of evidence, operators' words, edits, restarts and health, to a depth at
//! which each of a set of planted bugs is found, and none in the machine itself.

use std::collections::HashSet;

use super::state_tests::{broken, plan, well, with_hook};
use super::*;
use crate::analysis::{HoldReason, Verdict};
use crate::config::model::{HookPoint, Rollout as Plan};

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Happens {
    /// The writer looks, and sees this.
    Look(Sight),
    Says(Word),
    /// The file is replaced by the other one.
    Edit,
    /// The process ends and begins anew.
    Restart,
    /// The webhooks that were asked say this.
    Answer(bool),
    Time,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Sight {
    Well,
    Broken,
    BrokenAndStableDown,
    Holding,
    NoEndpoint,
    Frozen,
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Word {
    Promote,
    Pause,
    Resume,
    Abort,
    Approve,
}

const ALL: [Happens; 17] = [
    Happens::Look(Sight::Well),
    Happens::Look(Sight::Broken),
    Happens::Look(Sight::BrokenAndStableDown),
    Happens::Look(Sight::Holding),
    Happens::Look(Sight::NoEndpoint),
    Happens::Look(Sight::Frozen),
    Happens::Look(Sight::Nothing),
    Happens::Says(Word::Promote),
    Happens::Says(Word::Pause),
    Happens::Says(Word::Resume),
    Happens::Says(Word::Abort),
    Happens::Says(Word::Approve),
    Happens::Edit,
    Happens::Restart,
    Happens::Answer(true),
    Happens::Answer(false),
    Happens::Time,
];

fn sight(sight: Sight) -> Seen {
    let mut seen = match sight {
        Sight::Broken | Sight::BrokenAndStableDown => broken(),
        Sight::Well | Sight::Holding | Sight::NoEndpoint | Sight::Frozen | Sight::Nothing => well(),
    };
    match sight {
        Sight::Well | Sight::Broken => {}
        Sight::BrokenAndStableDown => seen.around.stable_ready = false,
        Sight::Holding => seen.verdict = Verdict::Hold(HoldReason::Pending),
        Sight::NoEndpoint => seen.around.canary_ready = 0,
        Sight::Frozen => seen.around.frozen = true,
        Sight::Nothing => (seen.proven, seen.meters.stage.total) = (false, 0),
    }
    seen
}

/// The machine, or one with a bug planted.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    None,
    RollsBackOnlyWhileStaged,
    RollsBackToABrokenStable,
    SkipsAStage,
    IgnoresTheFreeze,
    MovesWhilePaused,
    GoesPastGates,
    GoesPastWebhooks,
    PromotesWithoutEvidence,
    ForgetsThePause,
    ComesBackToLife,
    AdvancesOnResume,
}

const BUGS: [Bug; 11] = [
    Bug::RollsBackOnlyWhileStaged,
    Bug::RollsBackToABrokenStable,
    Bug::SkipsAStage,
    Bug::IgnoresTheFreeze,
    Bug::MovesWhilePaused,
    Bug::GoesPastGates,
    Bug::GoesPastWebhooks,
    Bug::PromotesWithoutEvidence,
    Bug::ForgetsThePause,
    Bug::ComesBackToLife,
    Bug::AdvancesOnResume,
];

impl Bug {
    /// What the machine decides with this bug in it.
    fn decide(self, rollout: &mut Rollout, plan: &Plan, seen: &Seen, now: Moment) -> Decision {
        let mut seen = seen.clone();
        let before = rollout.clone();
        match self {
            Bug::RollsBackOnlyWhileStaged if rollout.phase != Phase::Staged => seen.broken = None,
            Bug::RollsBackToABrokenStable => seen.around.stable_ready = true,
            Bug::IgnoresTheFreeze => seen.around.frozen = false,
            Bug::PromotesWithoutEvidence => (seen.proven, seen.meters.stage.total) = (true, 10_000),
            Bug::MovesWhilePaused if matches!(rollout.phase, Phase::Paused(_)) => rollout.phase = Phase::Staged,
            Bug::ComesBackToLife if !rollout.is_running() => rollout.phase = Phase::Staged,
            _ => {}
        }
        let decision = match self {
            Bug::GoesPastGates => {
                let mut open = plan.clone();
                open.stages.iter_mut().for_each(|stage| stage.approve = None);
                rollout.decide(&open, &seen, now)
            }
            Bug::GoesPastWebhooks => {
                let mut open = plan.clone();
                open.webhooks.clear();
                rollout.decide(&open, &seen, now)
            }
            _ => rollout.decide(plan, &seen, now),
        };
        if decision == Decision::Stay {
            rollout.phase = before.phase;
        }
        match decision {
            Decision::Advance { to } if self == Bug::SkipsAStage && to + 1 < plan.stages.len() => {
                Decision::Advance { to: to + 1 }
            }
            decision => decision,
        }
    }

    fn restart(self, rollout: &Rollout) -> Rollout {
        let text = serde_json::to_string(rollout).expect("numbers and words");
        let mut read: Rollout = serde_json::from_str(&text).expect("as it was written");
        read.forget_asked();
        if self == Bug::ForgetsThePause && matches!(read.phase, Phase::Paused(_)) {
            read.phase = Phase::Staged;
        }
        read
    }

    fn command(self, rollout: &mut Rollout, plan: &Plan, word: Word, now: Moment) -> Result<Decision, String> {
        let command = match word {
            Word::Promote => Command::Promote,
            Word::Pause => Command::Pause { reason: None },
            Word::Resume => Command::Resume,
            Word::Abort => Command::Abort { reason: None },
            Word::Approve => Command::Approve { gate: None, by: "ada".into() },
        };
        match (self, rollout.command(plan, command, "ada", now)) {
            (Bug::AdvancesOnResume, Ok(Decision::Stay)) if word == Word::Resume => {
                Ok(Decision::Advance { to: rollout.stage.map_or(0, |at| at + 1).min(plan.stages.len() - 1) })
            }
            (_, said) => said,
        }
    }
}

struct Walk {
    bug: Bug,
    plans: [Plan; 2],
    seen: HashSet<String>,
    steps: u64,
}

#[derive(Clone)]
struct At {
    rollout: Rollout,
    plan: usize,
    now: Moment,
    path: Vec<Happens>,
    /// What the checker itself remembers: the gates that were approved, and the webhooks that said yes since the
    /// stage began.
    approved: HashSet<usize>,
    granted: Vec<HookPoint>,
    asked: Option<HookPoint>,
}

impl Walk {
    /// The first way in which something goes wrong.
    fn find(bug: Bug, depth: usize) -> Result<u64, String> {
        let hooks = [HookPoint::BeforeStage];
        let plans = [
            plan("stages: [5%, { weight: 50%, approve: sre }, 100%], promote_when: { hold: 1m }"),
            with_hook(plan("stages: [10%, 100%], promote_when: { hold: 1m }"), &hooks),
        ];
        let mut walk = Walk { bug, plans, seen: HashSet::new(), steps: 0 };
        let rollout = Rollout::new("v1".into(), "v2".into(), "mark".into(), Moment(0), 0);
        let start = At {
            rollout,
            plan: 0,
            now: Moment(0),
            path: Vec::new(),
            approved: HashSet::new(),
            granted: Vec::new(),
            asked: None,
        };
        walk.from(&start, depth)?;
        Ok(walk.steps)
    }

    fn from(&mut self, at: &At, depth: usize) -> Result<(), String> {
        if depth == 0 {
            return Ok(());
        }
        for happens in ALL {
            let mut next = at.clone();
            next.path.push(happens);
            self.steps += 1;
            self.step(&mut next, happens).map_err(|wrong| format!("{wrong} after {:?}", next.path))?;
            // The same place with as much or more to go has been looked at.
            let key = format!(
                "{depth} {} {} {:?} {:?} {}",
                next.plan,
                serde_json::to_string(&next.rollout).expect("it was written before"),
                next.now,
                next.granted,
                next.approved.len()
            );
            if self.seen.insert(key) {
                self.from(&next, depth - 1)?;
            }
        }
        Ok(())
    }

    fn step(&self, at: &mut At, happens: Happens) -> Result<(), String> {
        let plan = &self.plans[at.plan];
        let before = at.rollout.clone();
        match happens {
            Happens::Time => at.now = Moment(at.now.0 + 61_000),
            Happens::Edit => {
                at.plan = 1 - at.plan;
                let stages = self.plans[at.plan].stages.len();
                at.rollout.stage = at.rollout.stage.map(|stage| stage.min(stages - 1));
            }
            Happens::Restart => {
                at.rollout = self.bug.restart(&at.rollout);
                let same = (&at.rollout.phase, at.rollout.stage, &at.rollout.mark);
                if same != (&before.phase, before.stage, &before.mark) {
                    return Err(format!("a restart changed {:?} to {:?}", before.phase, at.rollout.phase));
                }
            }
            Happens::Answer(yes) => {
                if let Some(point) = at.asked.take() {
                    let answer = if yes { Ok(()) } else { Err("no".to_string()) };
                    at.rollout.answered(point, at.rollout.stage, answer);
                    if yes {
                        at.granted.push(point);
                    }
                }
            }
            Happens::Look(what) => {
                let seen = sight(what);
                let decision = self.bug.decide(&mut at.rollout, plan, &seen, at.now);
                looked(at, &before, plan, &seen, &decision)?;
                self.carry_out(at, &decision);
            }
            Happens::Says(word) => {
                let said = self.bug.command(&mut at.rollout, plan, word, at.now);
                said_something(at, &before, plan, word, &said)?;
                if let Ok(decision) = said {
                    self.carry_out(at, &decision);
                }
            }
        }
        // However it came: what has ended stays ended, where it was.
        if !before.is_running() && (at.rollout.is_running() || at.rollout.phase != before.phase) {
            return Err(format!("{:?} became {:?}", before.phase, at.rollout.phase));
        }
        Ok(())
    }

    fn carry_out(&self, at: &mut At, decision: &Decision) {
        at.rollout.apply(decision, at.now, 0);
        match decision {
            Decision::Ask(point) => at.asked = Some(*point),
            Decision::Advance { .. } | Decision::Pause(_) => (at.granted, at.asked) = (Vec::new(), None),
            Decision::Stay | Decision::Wait { .. } | Decision::RollBack(_) | Decision::Promote => {}
        }
    }
}

/// What must hold of a look.
fn looked(at: &At, before: &Rollout, plan: &Plan, seen: &Seen, decision: &Decision) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}: {decision:?} in {:?} at stage {:?}", before.phase, before.stage));
    let must_go_back = before.is_running() && seen.broken.is_some() && seen.around.stable_ready;
    match decision {
        Decision::RollBack(_) if !seen.around.stable_ready => return wrong("went back to a broken stable"),
        Decision::RollBack(_) => return Ok(()),
        _ if must_go_back => return wrong("a broken guardrail did not roll back"),
        _ => {}
    }
    if !before.is_running() && *decision != Decision::Stay {
        return wrong("what has ended decided something");
    }
    let next = before.stage.map_or(0, |stage| stage + 1);
    let moves = match decision {
        Decision::Advance { to } if *to != next => return wrong("a stage was left out"),
        Decision::Advance { to } => {
            let gated = plan.stages[*to].approve.is_some();
            if gated && !at.approved.contains(to) {
                return wrong("went past a gate");
            }
            let hooked = plan.webhooks.iter().any(|hook| hook.on.contains(&HookPoint::BeforeStage));
            if hooked && !at.granted.contains(&HookPoint::BeforeStage) {
                return wrong("went past a webhook");
            }
            true
        }
        Decision::Promote => true,
        Decision::Stay | Decision::Wait { .. } | Decision::Ask(_) | Decision::Pause(_) | Decision::RollBack(_) => false,
    };
    if moves && matches!(before.phase, Phase::Paused(_)) {
        return wrong("moved while paused");
    }
    if moves && seen.around.frozen {
        return wrong("moved in a freeze window");
    }
    let waited = at.now.since(before.stage_since) >= plan.promote_when.hold;
    let proven = seen.proven && seen.verdict == Verdict::Continue && waited;
    if moves && before.stage.is_some() && !proven {
        return wrong("moved without evidence");
    }
    Ok(())
}

/// What must hold of an operator's word.
fn said_something(
    at: &mut At,
    before: &Rollout,
    plan: &Plan,
    word: Word,
    said: &Result<Decision, String>,
) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}: {word:?} came to {said:?} in {:?}", before.phase));
    if !before.is_running() {
        return if said.is_err() { Ok(()) } else { wrong("what has ended was commanded") };
    }
    let next = before.stage.map_or(0, |stage| stage + 1);
    match (word, said) {
        (Word::Abort, Ok(Decision::RollBack(_))) | (Word::Pause, Ok(Decision::Pause(_))) => Ok(()),
        (Word::Abort, _) => wrong("abort did not roll back"),
        (Word::Promote, Ok(Decision::Advance { to })) if *to == next => Ok(()),
        (Word::Promote, Ok(Decision::Promote)) if next >= plan.stages.len() => Ok(()),
        (Word::Approve, Ok(Decision::Stay)) => {
            at.approved.insert(next);
            if matches!(before.phase, Phase::Waiting { .. }) { Ok(()) } else { wrong("nobody had asked") }
        }
        (Word::Resume, Ok(Decision::Stay)) if matches!(before.phase, Phase::Paused(_)) => Ok(()),
        (Word::Pause | Word::Resume | Word::Approve, Err(_)) => Ok(()),
        (Word::Promote | Word::Pause | Word::Resume | Word::Approve, _) => wrong("not what was said"),
    }
}

const DEPTH: usize = 6;

#[test]
fn no_interleaving_breaks_a_promise() {
    match Walk::find(Bug::None, DEPTH) {
        Ok(steps) => assert!(steps > 10_000, "only {steps} steps were taken"),
        Err(wrong) => panic!("{wrong}"),
    }
}

#[test]
fn every_planted_bug_is_found() {
    for bug in BUGS {
        assert!(Walk::find(bug, DEPTH).is_err(), "{bug:?} was not found");
    }
}
