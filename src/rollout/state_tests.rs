//! What each rule comes to, as tables.

use std::time::Duration;

use super::*;
use crate::analysis::{Counts, HoldReason, Verdict};
use crate::config::load::{Source, parse};
use crate::config::model::{HookPoint, Rollout as Plan, Then};

/// The plan of a service `shop`, as a file would say it.
pub fn plan(rollout: &str) -> Plan {
    let text = format!(
        "listeners: {{ web: {{ bind: 127.0.0.1:80 }} }}\nroutes: [{{ name: all, service: shop }}]\ngates: {{ sre: {{ approvers: [] }} }}\n\
         services: {{ shop: {{ versions: {{ v1: {{ endpoints: [127.0.0.1:81] }}, v2: {{ endpoints: [127.0.0.1:82] }} }}, \
         active: v1, rollout: {{ {rollout} }} }} }}"
    );
    let loaded = parse(vec![Source { path: "test.yaml".into(), text: text.clone() }]);
    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    loaded.config.services.values().find_map(|service| service.rollout.clone()).expect("it is in the text")
}

/// A webhook at these points. Written here, because a file could name only one that can be reached.
pub fn with_hook(mut plan: Plan, on: &[HookPoint]) -> Plan {
    plan.webhooks.push(crate::config::model::Webhook {
        url: "http://127.0.0.1:1/".into(),
        on: on.to_vec(),
        secret: None,
        timeout: Duration::from_secs(1),
        attempts: 1,
    });
    plan
}

/// What is different from [`well`].
type Change = fn(&mut Seen);

/// Everything is well, and proven.
pub fn well() -> Seen {
    let counts = Counts { total: 10_000, failed: 0 };
    Seen {
        verdict: Verdict::Continue,
        broken: None,
        latency_holds: false,
        proven: true,
        quick: true,
        quick_now: true,
        copies_fail: false,
        meters: Meters {
            canary: counts,
            stable: counts,
            stage: counts,
            copies: Counts::default(),
            errors: 0.1,
            errors_absolute: 1.0,
            errors_relative: 1.0,
            errors_bake: None,
            latency: 0.1,
            proof: 50.0,
            quick: None,
            canary_p50: Some(2.0),
            canary_p95: Some(5.0),
            stable_p50: Some(2.0),
            stable_p95: Some(5.0),
            latency_ratio: Some(1.0),
            speeds_compared: true,
            promised_ms: None,
        },
        around: Around { canary_ready: 2, canary_endpoints: 2, canary_unknown: 0, stable_ready: true, frozen: false },
    }
}

pub fn broken() -> Seen {
    Seen { verdict: Verdict::RollBack, broken: Some((Breach::Errors, Then::RollBack)), ..well() }
}

const STAGES: &str = "stages: [5%, 25%, 100%], promote_when: { hold: 1m }";

fn at_stage(stage: usize) -> Rollout {
    let mut rollout = Rollout::new("v1".into(), "v2".into(), "mark".into(), Moment(0), 0);
    rollout.apply(&Decision::Advance { to: stage }, Moment(0), 0);
    rollout.endpoints([("a", true)].into_iter(), Moment(0));
    rollout.remember(&plan(STAGES), &well(), Moment(0));
    rollout
}

/// Looks once a second, and carries out, until it decides something.
fn until_decided(rollout: &mut Rollout, plan: &Plan, seen: &Seen, from: u64, seconds: u64) -> (u64, Decision) {
    for second in from..=from + seconds {
        match rollout.decide(plan, seen, Moment::secs(second)) {
            Decision::Stay => {}
            decision => {
                rollout.apply(&decision, Moment::secs(second), 0);
                return (second, decision);
            }
        }
    }
    (from + seconds, Decision::Stay)
}

#[test]
fn a_good_canary_goes_through_all_stages() {
    let plan = plan(STAGES);
    let mut rollout = Rollout::new("v1".into(), "v2".into(), "mark".into(), Moment(0), 0);
    let mut steps = Vec::new();
    let mut now = 0;
    while rollout.is_running() {
        let (at, decision) = until_decided(&mut rollout, &plan, &well(), now, 1_000);
        steps.push((at, decision, rollout.share(&plan)));
        now = at;
    }
    let advance = |to| Decision::Advance { to };
    assert_eq!(
        steps,
        [(0, advance(0), 500), (60, advance(1), 2_500), (120, advance(2), 10_000), (180, Decision::Promote, 10_000)]
    );
}

#[test]
fn rollback_is_decided_in_every_running_phase_and_first() {
    let gated = plan("stages: [5%, { weight: 100%, approve: sre }], promote_when: { hold: 1m }");
    let phases = [
        Phase::Staged,
        Phase::Waiting { gate: "sre".into() },
        Phase::Paused(Waits::Inconclusive),
        Phase::Paused(Waits::Operator { who: "me".into(), reason: None }),
        Phase::Paused(Waits::Unknown),
    ];
    for phase in phases {
        let mut rollout = at_stage(0);
        rollout.phase = phase.clone();
        let mut seen = broken();
        seen.around.frozen = true;
        assert_eq!(rollout.decide(&gated, &seen, Moment(1)), Decision::RollBack(Breach::Errors), "{phase:?}");
    }
}

#[test]
fn what_has_ended_decides_nothing_more() {
    for phase in [Phase::RolledBack(Breach::Errors), Phase::Promoted, Phase::Superseded { by: "file".into() }] {
        let mut rollout = at_stage(1);
        rollout.phase = phase;
        assert_eq!(rollout.decide(&plan(STAGES), &broken(), Moment::secs(9_999)), Decision::Stay);
        assert!(rollout.command(&plan(STAGES), Command::Promote, "me", Moment(0)).is_err());
    }
}

#[test]
fn nothing_goes_back_to_a_broken_stable_and_it_is_said_once() {
    let mut rollout = at_stage(0);
    let mut seen = broken();
    seen.around.stable_ready = false;
    let (_, decision) = until_decided(&mut rollout, &plan(STAGES), &seen, 1, 10);
    assert_eq!(decision, Decision::Pause(Waits::StableBroken(Breach::Errors)));
    assert_eq!(until_decided(&mut rollout, &plan(STAGES), &seen, 12, 10).1, Decision::Stay);
    let (_, decision) = until_decided(&mut rollout, &plan(STAGES), &broken(), 23, 10);
    assert_eq!(decision, Decision::RollBack(Breach::Errors), "stable is back");
}

/// Everything that keeps a stage from ending although its time is over.
#[test]
fn a_stage_does_not_end_before_it_has_shown_everything() {
    let plan = plan(
        "stages: [{ weight: 5%, min_requests: 500 }, 100%], promote_when: { hold: 1m, latency: { quantile: 0.95, below: 10ms } }",
    );
    let cases: [(&str, Change); 10] = [
        ("0 more requests", |seen| seen.meters.stage.total = 499),
        ("doubt", |seen| seen.verdict = Verdict::Hold(HoldReason::Pending)),
        ("incident", |seen| seen.verdict = Verdict::Hold(HoldReason::Absolute)),
        ("worse than stable", |seen| seen.verdict = Verdict::Hold(HoldReason::Relative)),
        ("slowness", |seen| seen.latency_holds = true),
        ("proof", |seen| seen.proven = false),
        ("fast enough", |seen| seen.quick = false),
        ("an endpoint down", |seen| seen.around.canary_ready = 1),
        ("freeze", |seen| seen.around.frozen = true),
        ("all endpoints down, for less than a second", |seen| seen.around.canary_ready = 0),
    ];
    for (what, change) in cases {
        let mut rollout = at_stage(0);
        let mut seen = well();
        change(&mut seen);
        assert_eq!(rollout.decide(&plan, &seen, Moment::secs(61)), Decision::Stay, "{what}");
        assert!(!rollout.missing(&plan, &seen, Moment::secs(61)).is_empty(), "{what}");
    }
    assert_eq!(at_stage(0).decide(&plan, &well(), Moment::secs(61)), Decision::Advance { to: 1 });
}

#[test]
fn all_endpoints_have_been_healthy_for_a_while() {
    let plan = plan("stages: [5%, 100%], promote_when: { hold: 10m }");
    let mut rollout = at_stage(0);
    let mut ill = well();
    ill.around.canary_ready = 1;
    assert_eq!(rollout.decide(&plan, &ill, Moment::secs(590)), Decision::Stay);
    let (at, decision) = until_decided(&mut rollout, &plan, &well(), 591, 1_000);
    assert_eq!((at, decision), (591 + 300, Decision::Advance { to: 1 }));
}

#[test]
fn what_lasts_too_long_is_for_people() {
    let plan = plan("stages: [5%, 100%], promote_when: { hold: 1h }");
    let cases: [(&str, Change, u64, Waits); 3] = [
        (
            "slow by the ratio",
            |seen| (seen.latency_holds, seen.meters.latency_ratio) = (true, Some(1.6)),
            600,
            Waits::Latency { ratio: Some(1.6) },
        ),
        ("slow, not by the ratio", |seen| seen.latency_holds = true, 1_800, Waits::Latency { ratio: Some(1.0) }),
        ("no traffic", |seen| (seen.proven, seen.meters.stage.total) = (false, 0), 4 * 3_600, Waits::Inconclusive),
    ];
    for (what, change, after, waits) in cases {
        let mut rollout = at_stage(0);
        let mut seen = well();
        change(&mut seen);
        let decided = until_decided(&mut rollout, &plan, &seen, 0, 20_000);
        assert_eq!(decided, (after, Decision::Pause(waits)), "{what}");
        assert_eq!(rollout.share(&plan), 500, "{what}: it keeps what it has");
    }
}

#[test]
fn the_fourth_restart_in_ten_minutes_is_one_too_many() {
    let plan = plan(STAGES);
    for (restarts, wanted) in [
        (&[0, 1, 2][..], Decision::Stay),
        (&[0, 1, 2, 3], Decision::RollBack(Breach::Crashes { restarts: 4 })),
        (&[0, 1, 2, 700], Decision::Stay),
    ] {
        let mut rollout = at_stage(0);
        restarts.iter().for_each(|at| rollout.restarted(Moment::secs(*at)));
        let now = Moment::secs(*restarts.last().expect("some") + 1);
        let mut seen = well();
        seen.proven = false;
        rollout.stage_since = now;
        assert_eq!(rollout.decide(&plan, &seen, now), wanted, "{restarts:?}");
    }
}

#[test]
fn a_canary_without_endpoints_goes_back_after_a_second_but_not_before_it_has_traffic() {
    let plan = plan(STAGES);
    let mut seen = well();
    seen.around.canary_ready = 0;
    let mut fresh = Rollout::new("v1".into(), "v2".into(), "mark".into(), Moment(0), 0);
    assert_eq!(until_decided(&mut fresh, &plan, &seen, 0, 100).1, Decision::Stay);
    let mut rollout = at_stage(0);
    assert_eq!(rollout.decide(&plan, &seen, Moment(500)), Decision::Stay);
    assert_eq!(rollout.decide(&plan, &seen, Moment(1_499)), Decision::Stay);
    assert_eq!(rollout.decide(&plan, &seen, Moment(1_500)), Decision::RollBack(Breach::Unhealthy));
}

#[test]
fn slow_rolls_back_where_the_rule_says_so() {
    let plan = plan("stages: [5%, 100%], guardrails: { latency: { max_ratio: 1.5, for: 1m, then: rollback } }");
    let mut seen = well();
    (seen.latency_holds, seen.meters.latency_ratio) = (true, Some(2.0));
    let (at, decision) = until_decided(&mut at_stage(0), &plan, &seen, 0, 1_000);
    assert_eq!((at, decision), (60, Decision::RollBack(Breach::Latency { ratio: Some(2.0) })));
}

#[test]
fn slowness_is_nothing_to_a_rollout_without_the_rule() {
    let plan = plan("stages: [5%, 100%], promote_when: { hold: 1m }, guardrails: { latency: off }");
    let mut rollout = at_stage(0);
    let mut seen = well();
    (seen.latency_holds, seen.meters.latency_ratio) = (true, Some(9.0));
    assert_eq!(until_decided(&mut rollout, &plan, &seen, 0, 1_000), (60, Decision::Advance { to: 1 }));
    // Nor is it counted from then on, if the rule comes back.
    let back = self::plan("stages: [5%, 100%], promote_when: { hold: 1h }");
    let mut rollout = at_stage(0);
    (0..=1_000).for_each(|second| rollout.remember(&plan, &seen, Moment::secs(second)));
    let slow = Decision::Pause(Waits::Latency { ratio: Some(9.0) });
    assert_eq!(until_decided(&mut rollout, &back, &seen, 1_001, 9_000), (1_601, slow));
}

#[test]
fn a_rule_that_rolls_back_goes_before_one_that_pauses() {
    let plan = plan(
        "stages: [5%, 100%], guardrails: { crashes: { more_than: 0, within: 1m, then: pause }, \
         custom: { alarm: { events: { more_than: 0, within: 1m } } } }",
    );
    let mut rollout = at_stage(0);
    rollout.restarted(Moment(0));
    assert!(rollout.reported(&plan, "alarm", Moment(0)));
    let broken = Breach::Custom { rule: "alarm".into() };
    assert_eq!(rollout.decide(&plan, &well(), Moment(1)), Decision::RollBack(broken));
}

#[test]
fn an_outside_value_breaks_its_rule_and_an_unknown_one_only_waits() {
    let mut plan = plan("stages: [5%, 100%], promote_when: { hold: 1m }");
    let what = crate::config::model::CustomEvent::Prometheus {
        url: "http://127.0.0.1:1".into(),
        query: "up".into(),
        max: 1.0,
        every: Duration::from_secs(10),
        period: Duration::from_secs(60),
    };
    plan.guardrails.custom.push(("load".into(), crate::config::model::CustomRule { what, then: Then::RollBack }));
    // Never asked, never answered: no rollback, and no promotion.
    let mut rollout = at_stage(0);
    assert_eq!(rollout.decide(&plan, &well(), Moment::secs(61)), Decision::Stay);
    assert!(rollout.missing(&plan, &well(), Moment::secs(61)).concat().contains("an answer to the query of `load`"));
    rollout.signal(&plan, "load", Some(0.5), Moment::secs(62));
    assert_eq!(rollout.decide(&plan, &well(), Moment::secs(62)), Decision::Advance { to: 1 });
    for second in (62..=122).step_by(10) {
        rollout.signal(&plan, "load", Some(7.0), Moment::secs(second));
    }
    let broken = Breach::Custom { rule: "load".into() };
    assert_eq!(rollout.decide(&plan, &well(), Moment::secs(122)), Decision::RollBack(broken));
    rollout.signal(&plan, "load", None, Moment::secs(132));
    assert_eq!(rollout.decide(&plan, &well(), Moment::secs(132)), Decision::Stay, "Prometheus is down");
}

#[test]
fn a_gate_waits_for_its_approver_and_a_promotion_goes_past_it() {
    let plan = plan("stages: [5%, { weight: 100%, approve: sre }], promote_when: { hold: 1m }");
    let mut rollout = at_stage(0);
    let wait = Decision::Wait { gate: "sre".into() };
    assert_eq!(until_decided(&mut rollout, &plan, &well(), 0, 100).1, wait);
    assert_eq!(until_decided(&mut rollout, &plan, &well(), 101, 10_000).1, Decision::Stay, "however long it takes");
    let approve = |gate: &str| Command::Approve { gate: Some(gate.into()), by: "ada".into() };
    assert!(rollout.command(&plan, approve("qa"), "ada", Moment(0)).is_err());
    let next = Decision::Advance { to: 1 };
    let mut approved = rollout.clone();
    let late = Moment::secs(20_000);
    assert_eq!(approved.command(&plan, approve("sre"), "ada", late), Ok(Decision::Stay));
    let mut frozen = well();
    frozen.around.frozen = true;
    let mut held = well();
    held.verdict = Verdict::Hold(HoldReason::Pending);
    for seen in [&frozen, &held] {
        assert_eq!(approved.decide(&plan, seen, late), Decision::Stay, "a yes does not outvote what holds");
    }
    assert_eq!(approved.decide(&plan, &well(), late), next);
    assert_eq!(rollout.command(&plan, Command::Promote, "ada", Moment(0)), Ok(next));
}

#[test]
fn webhooks_have_the_last_word_on_a_step() {
    let plan = with_hook(plan(STAGES), &[HookPoint::AfterStage, HookPoint::BeforeStage, HookPoint::BeforePromote]);
    let mut rollout = Rollout::new("v1".into(), "v2".into(), "mark".into(), Moment(0), 0);
    let next = |rollout: &mut Rollout, second| until_decided(rollout, &plan, &well(), second, 100).1;
    assert_eq!(next(&mut rollout, 0), Decision::Ask(HookPoint::BeforeStage));
    assert_eq!(next(&mut rollout, 1), Decision::Stay, "asked once");
    rollout.forget_asked();
    assert_eq!(next(&mut rollout, 102), Decision::Ask(HookPoint::BeforeStage), "asked again after a restart");
    rollout.answered(HookPoint::BeforeStage, Some(7), Err("late, of another stage".into()));
    rollout.answered(HookPoint::BeforeStage, None, Ok(()));
    assert_eq!(next(&mut rollout, 203), Decision::Advance { to: 0 });
    assert_eq!(next(&mut rollout, 300), Decision::Ask(HookPoint::AfterStage));
    rollout.answered(HookPoint::AfterStage, Some(0), Err("it said no".into()));
    assert_eq!(next(&mut rollout, 400), Decision::Pause(Waits::Refused { why: "it said no".into() }));
    rollout.command(&plan, Command::Resume, "me", Moment::secs(500)).expect("it is paused");
    assert_eq!(next(&mut rollout, 501), Decision::Ask(HookPoint::AfterStage), "asked again");
}

#[test]
fn what_a_file_says_of_one_stage_applies_in_that_stage() {
    let plan = plan(
        "stages: [{ weight: 5%, guardrails: { crashes: { more_than: 0, within: 1m, then: pause } } }, 100%], \
         promote_when: { hold: 1m }",
    );
    for (stage, wanted) in [(0, Decision::Pause(Waits::Breach(Breach::Crashes { restarts: 1 }))), (1, Decision::Stay)] {
        let mut rollout = at_stage(stage);
        rollout.restarted(Moment(0));
        assert_eq!(rollout.decide(&plan, &well(), Moment(1)), wanted);
    }
}

#[test]
fn an_incident_that_is_over_neither_pauses_nor_spoils_the_stage() {
    let plan = plan("stages: [5%, 100%], promote_when: { hold: 1h }");
    let mut rollout = at_stage(0);
    let mut seen = well();
    (seen.meters.stage, seen.meters.canary) = (Counts::default(), Counts::default());
    let mut decided = Vec::new();
    for second in 0..3 * 3_600 {
        let fails = (600..900).contains(&second);
        for counts in [&mut seen.meters.stage, &mut seen.meters.canary] {
            counts.total += 10;
            counts.failed += if fails { 10 } else { 0 };
        }
        // Evidence fades much later than the incident is over.
        let holds = (600..3_000).contains(&second);
        seen.verdict = if holds { Verdict::Hold(HoldReason::Absolute) } else { Verdict::Continue };
        match rollout.decide(&plan, &seen, Moment::secs(second)) {
            Decision::Stay => {}
            decision => {
                decided.push((second, decision));
                break;
            }
        }
    }
    let [(at, Decision::Advance { to: 1 })] = decided[..] else { panic!("{decided:?}") };
    assert!((4_400..5_000).contains(&at), "an hour after its last failure, about: {at}");
}

#[test]
fn an_incident_that_goes_on_is_for_people() {
    let plan = plan("stages: [5%, 100%], promote_when: { hold: 1h }");
    let mut rollout = at_stage(0);
    let mut seen = well();
    seen.verdict = Verdict::Hold(HoldReason::Absolute);
    let paused = (0..3_600).find(|second| {
        seen.meters.canary.failed += u64::from(second % 30 == 0);
        rollout.decide(&plan, &seen, Moment::secs(*second)) == Decision::Pause(Waits::SharedIncident)
    });
    assert_eq!(paused, Some(600));
}

#[test]
fn endpoints_that_were_never_looked_at_are_not_away() {
    let plan = plan(STAGES);
    let mut rollout = at_stage(0);
    let mut seen = well();
    (seen.around.canary_ready, seen.around.canary_unknown) = (0, 2);
    assert_eq!(until_decided(&mut rollout, &plan, &seen, 1, 30).1, Decision::Stay);
    seen.around.canary_unknown = 0;
    let (_, decision) = until_decided(&mut rollout, &plan, &seen, 32, 10);
    assert_eq!(decision, Decision::RollBack(Breach::Unhealthy));
}

#[test]
fn an_edit_of_the_stages_gives_the_canary_no_more_than_it_has() {
    for (stages, live, stage, moves) in [
        ("[5%, 25%, 100%]", 500, Some(0), false),
        ("[1%, 5%, 25%, 100%]", 500, Some(1), true),
        ("[1%, 10%, 100%]", 500, Some(0), true),
        ("[100%]", 500, None, true),
        ("[10%, 100%]", 500, None, true),
    ] {
        let plan = plan(&format!("stages: {stages}"));
        let mut rollout = at_stage(0);
        assert_eq!(rollout.refit(&plan, live, Moment::secs(7)), moves, "{stages}");
        assert_eq!(rollout.stage, stage, "{stages}");
        assert!(rollout.share(&plan) <= live, "{stages}");
    }
}
