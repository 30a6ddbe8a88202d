//! One simulated rollout.

use std::time::Duration;

use super::dice::Dice;
use super::scenario::Scenario;
use super::story::{End, Step, Story};
use super::traffic::Traffic;
use super::world::World;
use crate::analysis::{Arm, HoldReason, Verdict};
use crate::config::model::{CustomEvent, Rollout as Plan};
use crate::rollout::{
    Around, Bad, Command, Decision, Failure, Judge, Meters, Moment, Rollout, STAGES_LONGEST, Seen, Waits,
    guardrails_of, hold_of, replays_allowed,
};

/// How often production looks, in milliseconds.
const LOOK_MS: u64 = 100;
/// No look is further from the last than this.
const LOOK_MS_MAX: u64 = 30_000;
/// Looks are as far apart as this part of the time since something was new.
const LOOK_PART: u64 = 20;
/// How soon old latencies of stable fade to half, as in production.
const FADE_MS: u64 = 60_000;
/// At least this long is simulated.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Holds and their ends that a story tells of: evidence near its limit comes and goes.
const HOLDS_TOLD: usize = 20;
/// Everything, in hundredths of a percent.
const WHOLE: u64 = 10_000;

/// How often the simulation looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Less often while nothing is new: after 5 % of the time since, and 30 s at most.
    Sparse,
    /// Every 100 ms, as production does.
    Every,
}

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    pub plan: &'a Plan,
    pub stable: &'a str,
    pub canary: &'a str,
    /// Of the canary; at least one.
    pub endpoints: usize,
    /// Clients stay on their version.
    pub sticky: bool,
    pub traffic: &'a Traffic,
    pub scenario: &'a Scenario,
    pub pace: Pace,
}

struct Run<'a> {
    setup: &'a Setup<'a>,
    dice: Dice,
    world: World,
    judge: Judge,
    rollout: Rollout,
    /// Milliseconds since the rollout began.
    now: u64,
    /// When something new happened.
    news: u64,
    faded: u64,
    looked: Option<u64>,
    latencies: [Vec<(i32, u64)>; 2],
    /// Requests until the next failure of each arm, and the rates they were drawn with.
    next: [(u64, f64); 2],
    /// Requests of this stage, and where its split began.
    turns: u64,
    phase: u64,
    holds: Option<&'static str>,
    told: usize,
    away: Option<usize>,
    answered: u64,
    replays: u64,
    seen: u64,
    unshielded: u64,
    steps: Vec<Step>,
    end: Option<End>,
}

/// The same seed tells the same story.
pub fn run(setup: &Setup<'_>, seed: u64) -> Story {
    let mut run = Run::new(setup, seed);
    loop {
        run.look();
        if let Some(end) = run.end {
            let meters = run.judge.meters();
            return Story {
                seed,
                end,
                took_ms: run.now,
                stage: run.rollout.stage.map_or(0, |at| at + 1),
                canary: meters.canary,
                stable: meters.stable,
                seen: run.seen,
                unshielded: run.unshielded,
                steps: run.steps,
            };
        }
        run.pass(run.next_look());
    }
}

impl<'a> Run<'a> {
    fn new(setup: &'a Setup<'a>, seed: u64) -> Run<'a> {
        let (stable, canary) = (setup.stable.to_string(), setup.canary.to_string());
        let hold = setup.plan.stages.first().map_or(Duration::ZERO, |stage| hold_of(setup.plan, stage));
        Run {
            setup,
            dice: Dice::new(seed),
            world: World::new(setup.scenario, setup.traffic, hold),
            judge: Judge::new(setup.plan),
            rollout: Rollout::new(stable, canary, String::new(), Moment(0), 0),
            now: 0,
            news: 0,
            faded: 0,
            looked: None,
            latencies: Default::default(),
            // No rate is negative: the first ones are drawn before they are used.
            next: [(0, -1.0); 2],
            turns: 0,
            phase: 0,
            holds: None,
            told: 0,
            away: None,
            answered: 0,
            replays: 0,
            seen: 0,
            unshielded: 0,
            steps: Vec::new(),
            end: None,
        }
    }

    /// As the controller does on its tick: latencies to the judge, then a decision.
    fn look(&mut self) {
        if self.end.is_some() {
            return;
        }
        let now = Moment(self.now);
        let [stable, canary] = &self.latencies;
        self.judge.latencies(canary, stable);
        self.latencies.iter_mut().for_each(Vec::clear);
        if self.now - self.faded >= FADE_MS {
            self.faded = self.now;
            self.judge.fade();
        }
        for _ in 0..self.world.restarts(self.looked, self.now) {
            self.rollout.restarted(now);
        }
        self.looked = Some(self.now);
        let away = self.world.away(self.now, self.setup.endpoints);
        if away != self.away {
            (self.away, self.news) = (away, self.now);
        }
        let names: Vec<String> = (1..=self.setup.endpoints).map(|at| format!("endpoint {at}")).collect();
        let ready = names.iter().enumerate().map(|(at, name)| (name.as_str(), Some(at) != away));
        self.rollout.endpoints(ready, now);
        self.signals();
        self.decide();
        let longest: Duration = self.setup.plan.stages.iter().map(|stage| self.longest(stage)).sum();
        if self.end.is_none() && now.since(Moment(0)) >= LONGEST.max(longest * 2) {
            let meters = self.judge.meters();
            self.step("unfinished", "nothing was decided in the longest time that is simulated".into(), meters);
            self.end = Some(End::Unfinished);
        }
    }

    fn longest(&self, stage: &crate::config::model::Stage) -> Duration {
        hold_of(self.setup.plan, stage) * STAGES_LONGEST
    }

    /// Outside signals are inside their limits: nothing is known of them here.
    fn signals(&mut self) {
        for (name, rule) in &guardrails_of(self.setup.plan, self.rollout.stage).custom {
            if let CustomEvent::Prometheus { max, .. } = &rule.what {
                self.rollout.signal(self.setup.plan, name, Some(*max), Moment(self.now));
            }
        }
    }

    fn decide(&mut self) {
        let around = Around {
            canary_ready: self.setup.endpoints - usize::from(self.away.is_some()),
            canary_endpoints: self.setup.endpoints,
            canary_unknown: 0,
            stable_ready: self.world.stable_ready(self.now),
            frozen: false,
        };
        let seen = self.judge.seen(around);
        self.note_hold(&seen);
        let decision = self.rollout.decide(self.setup.plan, &seen, Moment(self.now));
        self.carry_out(decision, &seen.meters);
    }

    fn note_hold(&mut self, seen: &Seen) {
        let rules = guardrails_of(self.setup.plan, self.rollout.stage);
        let holds = match seen.verdict {
            Verdict::Hold(HoldReason::Pending) => Some("it may fail more often than stable"),
            Verdict::Hold(HoldReason::Absolute) => Some("too many failures, but stable is no better"),
            Verdict::Hold(HoldReason::Relative) => Some("worse than stable, though inside the limit"),
            Verdict::RollBack => self.holds,
            Verdict::Continue if seen.latency_holds && rules.latency.is_some() => Some("slower than stable"),
            Verdict::Continue => None,
        };
        if holds != self.holds {
            (self.holds, self.news) = (holds, self.now);
            self.told += 1;
            let rest = if self.told == HOLDS_TOLD { " (of more holds nothing is told)" } else { "" };
            match holds {
                _ if self.told > HOLDS_TOLD => {}
                Some(why) => self.step("hold", format!("{why}{rest}"), seen.meters),
                None => self.step("clear", format!("nothing holds any more{rest}"), seen.meters),
            }
        }
    }

    fn carry_out(&mut self, decision: Decision, meters: &Meters) {
        let now = Moment(self.now);
        self.rollout.apply(&decision, now, self.now);
        match decision {
            Decision::Stay => return,
            Decision::Ask(point) => self.rollout.answered(point, self.rollout.stage, Ok(())),
            Decision::Wait { gate } => {
                self.step("wait", format!("gate `{gate}`, which says yes at once here"), *meters);
                let approve = Command::Approve { gate: None, by: "simulation".into() };
                if let Ok(next) = self.rollout.command(self.setup.plan, approve, "simulation", now) {
                    self.carry_out(next, meters);
                }
            }
            Decision::Advance { to } => {
                self.enter();
                let why = if to == 0 { "the rollout begins" } else { "the stage before is proven" };
                self.step("advance", why.into(), *meters);
            }
            Decision::Pause(waits) => {
                let (what, end) = match waits {
                    Waits::Inconclusive => ("inconclusive", End::Inconclusive),
                    _ => ("pause", End::Paused),
                };
                self.step(what, waits.to_string(), *meters);
                self.end = Some(end);
            }
            Decision::RollBack(breach) => {
                self.step("rollback", breach.to_string(), *meters);
                self.end = Some(End::RolledBack);
            }
            Decision::Promote => {
                self.step("promote", "the last stage is proven".into(), *meters);
                self.end = Some(End::Promoted);
            }
        }
        self.news = self.now;
    }

    /// The judge learns of the stage before its first request.
    fn enter(&mut self) {
        let (plan, bp) = (self.setup.plan, self.share());
        let buckets = if self.setup.sticky { u64::from(bp) } else { 0 };
        let rules = guardrails_of(plan, self.rollout.stage);
        self.judge.enter((plan, rules), f64::from(bp) / WHOLE as f64, buckets, |bucket| bucket < bp);
        self.world.stage(bp, self.now);
        (self.turns, self.phase) = (0, u64::from(self.dice.below(WHOLE as u16)));
    }

    fn share(&self) -> u16 {
        self.rollout.share(self.setup.plan)
    }

    fn step(&mut self, what: &str, why: String, meters: Meters) {
        self.steps.push(Step {
            at_ms: self.now,
            stage: self.rollout.stage.map_or(0, |at| at + 1),
            share: if self.rollout.is_running() || what == "promote" {
                f64::from(self.share()) / WHOLE as f64
            } else {
                0.0
            },
            what: what.into(),
            why,
            meters,
        });
    }

    fn next_look(&self) -> u64 {
        let plan = self.setup.plan;
        let most = guardrails_of(plan, self.rollout.stage)
            .error_window
            .map_or(LOOK_MS_MAX, |rule| (rule.period.as_millis() as u64 / 60).clamp(LOOK_MS, LOOK_MS_MAX));
        let step = match self.setup.pace {
            Pace::Every => LOOK_MS,
            Pace::Sparse => ((self.now - self.news) / LOOK_PART / LOOK_MS * LOOK_MS).clamp(LOOK_MS, most),
        };
        // What has a time of its own is looked at then.
        let stage = self.rollout.stage.and_then(|at| plan.stages.get(at));
        let begun = self.rollout.stage_since.0;
        let ends = stage.into_iter().flat_map(|stage| {
            [hold_of(plan, stage), self.longest(stage)].map(|after| begun + after.as_millis() as u64)
        });
        let times = ends.chain(self.world.next_change(self.now)).filter(|at| *at > self.now);
        times.fold(self.now + step, u64::min)
    }

    /// Traffic until `to`, or until a failure rolls the canary back.
    fn pass(&mut self, to: u64) {
        let from = self.now;
        let all = self.world.traffic.arrivals(from, to, &mut self.dice);
        let picked = |turns: u64, phase: u64, bp: u16| (turns * u64::from(bp) + phase) / WHOLE;
        let bp = self.share();
        let of_canary = picked(self.turns + all, self.phase, bp) - picked(self.turns, self.phase, bp);
        self.turns += all;
        let mut many = [all - of_canary, of_canary];
        // A version without any endpoint: the other one answers, and nobody learns anything of it.
        let rates = [Arm::Stable, Arm::Canary].map(|arm| self.world.errors(arm, from));
        if !self.world.stable_ready(from) {
            let failed = if bp == 0 { 0 } else { self.dice.binomial(many[0], rates[1]) };
            self.seen += failed;
            self.unshielded += failed;
            many[0] = 0;
        }
        if self.away.is_some() && self.setup.endpoints == 1 {
            many[1] = 0;
        }
        for (arm, rate) in rates.into_iter().enumerate() {
            if self.next[arm].1 != rate {
                self.next[arm] = (self.dice.gap(rate), rate);
            }
        }
        let done = self.judge_until(from, to, many, rates);
        let now = self.now;
        for (index, arm) in [Arm::Stable, Arm::Canary].into_iter().enumerate() {
            let mut into = std::mem::take(&mut self.latencies[index]);
            self.world.latency(arm, from).draw(done[index], &mut self.dice, &mut into);
            self.latencies[index] = into;
        }
        self.now = if self.end.is_some() { now } else { to };
        // Something changes here: it is looked at closely from now on.
        if self.world.next_change(from) == Some(self.now) {
            self.news = self.now;
        }
    }

    /// Tells the judge of each failure at its time, and of the successes in between. Returns the good answers of each
    /// arm.
    fn judge_until(&mut self, from: u64, to: u64, many: [u64; 2], rates: [f64; 2]) -> [u64; 2] {
        let (mut told, mut good) = ([0, 0], [0, 0]);
        // Both arms are spread evenly over the time: where in it, 0 to 1, the next failure of an arm is.
        let place = |told: [u64; 2], next: [(u64, f64); 2], arm: usize| {
            let at = told[arm] + next[arm].0;
            (at <= many[arm]).then(|| (at as f64 - 0.5) / many[arm] as f64)
        };
        loop {
            let (stable, canary) = (place(told, self.next, 0), place(told, self.next, 1));
            let (index, place) = match (stable, canary) {
                (None, None) => break,
                (Some(stable), None) => (0, stable),
                (None, Some(canary)) => (1, canary),
                (Some(stable), Some(canary)) => {
                    if canary <= stable {
                        (1, canary)
                    } else {
                        (0, stable)
                    }
                }
            };
            for arm in 0..2 {
                // The other arm's next failure is later than this one.
                let until = if arm == index {
                    told[arm] + self.next[arm].0 - 1
                } else {
                    ((many[arm] as f64 * place) as u64)
                        .clamp(told[arm], (told[arm] + self.next[arm].0 - 1).min(many[arm]))
                };
                self.succeeded(arm, until - told[arm]);
                good[arm] += until - told[arm];
                self.next[arm].0 -= until - told[arm];
                told[arm] = until;
            }
            told[index] += 1;
            self.next[index].0 = self.dice.gap(rates[index]);
            self.now = from + ((to - from) as f64 * place) as u64;
            self.failed(index, rates[0]);
            if self.end.is_some() {
                return good;
            }
        }
        for arm in 0..2 {
            let rest = many[arm] - told[arm];
            self.succeeded(arm, rest);
            good[arm] += rest;
            self.next[arm].0 -= rest;
        }
        good
    }

    fn succeeded(&mut self, index: usize, many: u64) {
        self.answered += many;
        self.judge.succeeded(if index == 0 { Arm::Stable } else { Arm::Canary }, many);
    }

    fn failed(&mut self, index: usize, stable_rate: f64) {
        let (arm, bp) = (if index == 0 { Arm::Stable } else { Arm::Canary }, self.share());
        let bucket = self.setup.sticky.then(|| match arm {
            Arm::Canary => self.dice.below(bp),
            Arm::Stable => bp + self.dice.below(WHOLE as u16 - bp),
        });
        if arm == Arm::Canary {
            self.unshielded += 1;
            self.seen += u64::from(!self.is_shielded(stable_rate));
        }
        let failure = Failure { arm, pi: f64::from(bp) / WHOLE as f64, bucket, status: 500, bad: Bad::FAILED };
        if self.judge.failed(&failure) {
            self.decide();
        }
    }

    /// Stable answers instead, within the budget.
    fn is_shielded(&mut self, stable_rate: f64) -> bool {
        let Some(shield) = self.setup.plan.shield else { return false };
        let may = self.world.stable_ready(self.now) && self.replays < replays_allowed(self.answered, shield.budget_bp);
        if !may || !self.dice.hits(self.world.traffic.replayable) {
            return false;
        }
        self.replays += 1;
        !self.dice.hits(stable_rate)
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
