//! What a rollout does after an operator lets it go on although a guardrail had paused it.

use std::time::Duration;

use proptest::prelude::*;

use super::state_tests::plan;
use super::*;
use crate::analysis::Arm;
use crate::config::model::{CustomEvent, CustomRule, Rollout as Plan, Then};

const AROUND: Around =
    Around { canary_ready: 1, canary_endpoints: 1, canary_unknown: 0, stable_ready: true, frozen: false };

/// All rules pause.
const PAUSING: &str = "stages: [5%, 100%], promote_when: { hold: 10h }, guardrails: { errors: { max: 1%, then: pause }, \
                       error_window: { max: 1%, for: 1m, then: pause }, crashes: { more_than: 2, within: 10h, then: pause }, \
                       custom: { odd: { status: [418], max: 1%, then: pause }, alarm: { events: { more_than: 2, within: \
                       10h }, then: pause } } }";

/// Something that speaks against the canary.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    Failure,
    Odd,
    Restart,
    Alarm,
    Slow,
}

/// A rollout and its evidence.
struct Run {
    plan: Plan,
    rollout: Rollout,
    judge: Judge,
    now: u64,
}

impl Run {
    fn begun(plan: Plan) -> Run {
        let mut rollout = Rollout::new("v1".into(), "v2".into(), String::new(), Moment(0), 0);
        rollout.apply(&Decision::Advance { to: 0 }, Moment(0), 0);
        let mut judge = Judge::new(&plan);
        judge.enter((&plan, &plan.guardrails), 0.05, 0, |_| false);
        // What stable's speed is.
        judge.latencies(&[], &[(100, 1_000)]);
        Run { plan, rollout, judge, now: 0 }
    }

    fn happens(&mut self, wrong: Wrong) {
        let now = Moment::secs(self.now);
        let place = |judge: &Judge| Bad::custom(judge.place_of("odd").expect("it has one"));
        let bad = match wrong {
            Wrong::Failure => Bad::FAILED,
            Wrong::Odd => place(&self.judge),
            Wrong::Restart => return self.rollout.restarted(now),
            Wrong::Alarm => return assert!(self.rollout.reported(&self.plan, "alarm", now)),
            Wrong::Slow => return self.judge.latencies(&[(200, 5)], &[(100, 95)]),
        };
        self.judge.failed(&Failure { arm: Arm::Canary, pi: 0.05, bucket: None, status: 500, bad });
    }

    /// A second passes in which stable answers.
    fn second(&mut self) -> Decision {
        self.now += 1;
        self.judge.succeeded(Arm::Stable, 19);
        let decision = self.rollout.decide(&self.plan, &self.judge.seen(AROUND), Moment::secs(self.now));
        self.rollout.apply(&decision, Moment::secs(self.now), 0);
        decision
    }

    /// What is decided while this happens every second.
    fn until_decided(&mut self, wrong: Wrong) -> Decision {
        (0..10_000)
            .find_map(|_| {
                self.happens(wrong);
                Some(self.second()).filter(|decision| *decision != Decision::Stay)
            })
            .expect("it is too much in the end")
    }

    fn resume(&mut self) {
        let Phase::Paused(waits) = self.rollout.phase.clone() else { panic!("{:?}", self.rollout.phase) };
        let said = self.rollout.command(&self.plan, Command::Resume, "ada", Moment::secs(self.now));
        assert_eq!(said, Ok(Decision::Stay));
        self.judge.forgive(&waits, &self.plan.guardrails);
    }
}

fn custom(rule: &str) -> Breach {
    Breach::Custom { rule: rule.into() }
}

#[test]
fn it_goes_on_until_its_guardrail_is_broken_again() {
    let of =
        |rules: &str| plan(&format!("stages: [5%, 100%], promote_when: {{ hold: 10h }}, guardrails: {{ {rules} }}"));
    for (rules, wrong, breach) in [
        ("errors: { max: 1%, then: pause }", Wrong::Failure, Breach::Errors),
        ("errors: off, error_window: { max: 1%, for: 1m, then: pause }", Wrong::Failure, Breach::ErrorWindow),
        ("custom: { odd: { status: [418], max: 1%, then: pause } }", Wrong::Odd, custom("odd")),
        ("crashes: { more_than: 2, within: 10h, then: pause }", Wrong::Restart, Breach::Crashes { restarts: 3 }),
        ("custom: { alarm: { events: { more_than: 2, within: 10h }, then: pause } }", Wrong::Alarm, custom("alarm")),
    ] {
        let mut run = Run::begun(of(rules));
        for time in ["the first time", "again", "and again"] {
            let paused = Decision::Pause(Waits::Breach(breach.clone()));
            assert_eq!(run.until_decided(wrong), paused, "{rules}: {time}");
            assert_eq!((run.second(), run.rollout.share(&run.plan)), (Decision::Stay, 500), "{rules}: said once");
            run.resume();
            assert!((0..1_000).all(|_| run.second() == Decision::Stay), "{rules}: it goes on, {time}");
            assert_eq!(run.rollout.phase, Phase::Staged, "{rules}");
        }
    }
}

#[test]
fn slowness_is_measured_anew() {
    let mut run = Run::begun(plan("stages: [5%, 100%], promote_when: { hold: 10h }"));
    for _ in 0..2 {
        assert!(matches!(run.until_decided(Wrong::Slow), Decision::Pause(Waits::Latency { .. })));
        run.resume();
        assert!((0..3_600).all(|_| run.second() == Decision::Stay), "nothing is slow any more");
    }
}

#[test]
fn an_outside_value_must_be_heard_of_again() {
    let mut plan = plan("stages: [5%, 100%], promote_when: { hold: 10h }");
    let (every, period) = (Duration::from_secs(10), Duration::from_secs(60));
    let what = CustomEvent::Prometheus { url: "http://h".into(), query: "up".into(), max: 1.0, every, period };
    plan.guardrails.custom.push(("load".into(), CustomRule { what, then: Then::Pause }));
    let mut run = Run::begun(plan.clone());
    let over = |run: &mut Run| run.rollout.signal(&plan, "load", Some(7.0), Moment::secs(run.now));
    for _ in 0..2 {
        let before = run.now;
        let decision = (0..100).find_map(|_| {
            over(&mut run);
            Some(run.second()).filter(|decision| *decision != Decision::Stay)
        });
        assert_eq!(decision, Some(Decision::Pause(Waits::Breach(custom("load")))));
        assert_eq!(run.now - before, 60, "above its limit for the whole of its time");
        run.resume();
        assert!((0..100).all(|_| run.second() == Decision::Stay));
        let missing = run.rollout.missing(&run.plan, &run.judge.seen(AROUND), Moment::secs(run.now));
        assert!(missing.contains(&"an answer to the query of `load`".into()), "it is not taken for good: {missing:?}");
    }
}

#[test]
fn rules_that_roll_back_forget_nothing() {
    let mut run = Run::begun(plan(
        "stages: [5%, 100%], promote_when: { hold: 10h }, guardrails: { errors: { max: 1% }, crashes: { more_than: 2, within: \
         10h }, custom: { odd: { status: [418], max: 1%, then: pause }, alarm: { events: { more_than: 2, within: 10h } } } }",
    ));
    for wrong in [Wrong::Failure, Wrong::Failure, Wrong::Restart, Wrong::Restart, Wrong::Alarm, Wrong::Alarm] {
        run.happens(wrong);
    }
    assert_eq!(run.until_decided(Wrong::Odd), Decision::Pause(Waits::Breach(custom("odd"))));
    let before = run.judge.meters();
    assert!(before.errors > 1.0);
    run.resume();
    assert_eq!(run.judge.meters(), before, "what is counted, and the evidence of `errors`");
    assert_eq!(run.second(), Decision::Stay);
    for (wrong, breach) in [(Wrong::Restart, Breach::Crashes { restarts: 3 }), (Wrong::Alarm, custom("alarm"))] {
        let mut run =
            Run { plan: run.plan.clone(), rollout: run.rollout.clone(), judge: run.judge.clone(), now: run.now };
        run.happens(wrong);
        assert_eq!(run.second(), Decision::RollBack(breach), "the third");
    }
}

#[test]
fn a_pause_of_an_operator_forgives_nothing() {
    let mut run = Run::begun(plan(PAUSING));
    let pause = run.rollout.command(&run.plan, Command::Pause { reason: None }, "ada", Moment(0)).expect("it runs");
    run.rollout.apply(&pause, Moment(0), 0);
    (0..50).for_each(|_| run.happens(Wrong::Failure));
    assert_eq!(run.second(), Decision::Stay, "somebody has stopped it already");
    run.resume();
    assert_eq!(run.second(), Decision::Pause(Waits::Breach(Breach::Errors)), "nobody was told of this one yet");
}

#[test]
fn clients_that_failed_before_a_resume_count_again() {
    let plan = plan("stages: [5%, 100%], guardrails: { errors: { max: 1%, then: pause } }");
    let mut judge = Judge::new(&plan);
    judge.enter((&plan, &plan.guardrails), 0.05, 500, |bucket| bucket < 500);
    let mut all_fail = || {
        for bucket in 0..40 {
            judge.succeeded(Arm::Stable, 19);
            judge.failed(&Failure { arm: Arm::Canary, pi: 0.05, bucket: Some(bucket), status: 500, bad: Bad::FAILED });
        }
        let broken = judge.broken();
        judge.forgive(&Waits::Breach(Breach::Errors), &plan.guardrails);
        (broken, judge.broken())
    };
    let wanted = (Some((Breach::Errors, Then::Pause)), None);
    assert_eq!([all_fail(), all_fail()], [wanted.clone(), wanted]);
}

proptest! {
    #[test]
    fn without_anything_new_there_is_no_new_pause(what in prop::collection::vec(0_u8..4, 1..400)) {
        let mut run = Run::begun(plan(PAUSING));
        for wrong in what {
            run.happens([Wrong::Failure, Wrong::Odd, Wrong::Restart, Wrong::Alarm][usize::from(wrong)]);
            if run.second() != Decision::Stay {
                run.resume();
                for _ in 0..3 {
                    prop_assert_eq!(run.second(), Decision::Stay);
                }
            }
        }
    }
}
