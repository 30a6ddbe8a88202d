//! How the rules about answers share their evidence.

use proptest::prelude::*;

use super::state_tests::plan;
use super::*;
use crate::analysis::{Arm, HoldReason, Verdict, bucket_of};
use crate::config::model::{Rollout as Plan, Then};

const THREE: &str = "stages: [5%, 100%], guardrails: { custom: { slow: { status: [418], max: 1% }, odd: { header: { name: x-odd }, \
                     max: 1% } } }";

fn entered(plan: &Plan, share: f64) -> Judge {
    let mut judge = Judge::new(plan);
    judge.enter((plan, &plan.guardrails), share, 0, |_| false);
    judge
}

fn bad(bad: Bad) -> Failure {
    Failure { arm: Arm::Canary, pi: 0.05, bucket: None, status: 418, bad }
}

/// Bad answers of the canary, 20 good ones of stable between them, until it goes back.
fn bad_until_rollback(judge: &mut Judge, what: Bad) -> usize {
    (1..1_000)
        .find(|_| {
            judge.succeeded(Arm::Stable, 19);
            judge.failed(&bad(what))
        })
        .expect("it goes back in the end")
}

#[test]
fn rules_that_roll_back_share_one_budget() {
    let alone = plan("stages: [5%, 100%], guardrails: { custom: { slow: { status: [418], max: 1% } }, errors: off }");
    let place = |judge: &Judge, rule: &str| Bad::custom(judge.place_of(rule).expect("it has one"));
    let mut judge = entered(&alone, 0.05);
    let slow = place(&judge, "slow");
    let needed_alone = bad_until_rollback(&mut judge, slow);
    let three = plan(THREE);
    let mut judge = entered(&three, 0.05);
    let slow = place(&judge, "slow");
    let needed_of_three = bad_until_rollback(&mut judge, slow);
    assert!(needed_of_three > needed_alone, "{needed_of_three} of three, {needed_alone} alone");
    assert_eq!(judge.broken(), Some((Breach::Custom { rule: "slow".into() }, Then::RollBack)));
    let mut judge = entered(&three, 0.05);
    let all = Bad::FAILED.or(place(&judge, "slow")).or(place(&judge, "odd"));
    assert!(bad_until_rollback(&mut judge, all) <= needed_of_three, "all three together need no more");
}

#[test]
fn a_bad_answer_is_a_good_one_for_the_other_rules() {
    let mut judge = entered(&plan(THREE), 0.05);
    let odd = Bad::custom(judge.place_of("odd").expect("it has one"));
    (0..3).for_each(|_| assert!(!judge.failed(&bad(odd))));
    let meters = judge.meters();
    assert_eq!((meters.canary.total, meters.canary.failed, meters.stage.failed), (3, 0, 0));
    assert!(judge.custom_evidence().iter().all(|(name, against)| (*against > 1.0) == (name == "odd")));
}

#[test]
fn a_rule_that_pauses_does_not_roll_back() {
    let mut judge = entered(&plan("stages: [5%, 100%], guardrails: { errors: { max: 1%, then: pause } }"), 0.05);
    for _ in 0..50 {
        judge.succeeded(Arm::Stable, 19);
        assert!(!judge.failed(&bad(Bad::FAILED)));
    }
    assert_eq!(judge.broken(), Some((Breach::Errors, Then::Pause)));
}

#[test]
fn a_new_stage_keeps_what_speaks_against_and_proves_anew() {
    let plan = plan("stages: [5%, 50%, 100%]");
    let mut judge = entered(&plan, 0.05);
    judge.succeeded(Arm::Canary, 10_000);
    judge.succeeded(Arm::Stable, 190_000);
    assert!(judge.proven());
    (0..2).for_each(|_| assert!(!judge.failed(&bad(Bad::FAILED))));
    let before = judge.meters();
    judge.enter((&plan, &plan.guardrails), 0.5, 0, |_| false);
    let after = judge.meters();
    assert_eq!((after.errors, after.canary), (before.errors, before.canary));
    assert!(!judge.proven() && after.stage.total == 0);
}

#[test]
fn rules_of_a_stage_come_and_go_and_keep_their_place() {
    let plan = plan(
        "stages: [{ weight: 5%, guardrails: { custom: { slow: { status: [418], max: 1% } } } }, \
         { weight: 50%, guardrails: { custom: { odd: { status: [404], max: 1% } } } }, 100%]",
    );
    let mut judge = Judge::new(&plan);
    let rules = |at| guardrails_of(&plan, Some(at));
    judge.enter((&plan, rules(0)), 0.05, 0, |_| false);
    let slow = judge.place_of("slow");
    judge.enter((&plan, rules(1)), 0.5, 0, |_| false);
    assert_eq!(judge.place_of("slow"), slow, "late answers find it");
    let present: Vec<String> = judge.custom_evidence().into_iter().map(|(name, _)| name).collect();
    assert_eq!(present, ["odd"]);
    let slow = Bad::custom(slow.expect("it has one"));
    assert!((0..100).all(|_| !judge.failed(&bad(slow))), "it has no say in this stage");
}

#[test]
fn a_sticky_client_that_fails_all_day_is_one_failure() {
    let plan = plan("stages: [5%, 100%]");
    let mut judge = Judge::new(&plan);
    judge.enter((&plan, &plan.guardrails), 0.05, 500, |bucket| bucket < 500);
    for _ in 0..300 {
        judge.succeeded(Arm::Stable, 19);
        assert!(!judge.failed(&Failure { bucket: Some(7), ..bad(Bad::FAILED) }));
    }
    assert_eq!(judge.verdict(), Verdict::Hold(HoldReason::Absolute));
}

proptest! {
    #[test]
    fn what_was_kept_goes_on_as_if_nothing_had_happened(
        events in prop::collection::vec((any::<bool>(), 0_u64..40, 0_u8..8), 1..120),
        cut in 0_usize..120,
    ) {
        let plan = plan(THREE);
        let mut judge = entered(&plan, 0.25);
        let mut kept = judge.clone();
        for (at, (is_canary, good, rules)) in events.into_iter().enumerate() {
            if at == cut {
                kept = serde_json::from_str(&serde_json::to_string(&judge).unwrap()).unwrap();
            }
            let arm = if is_canary { Arm::Canary } else { Arm::Stable };
            let mut broken = if rules & 1 == 1 { Bad::FAILED } else { Bad::default() };
            for place in 0..2 {
                broken = if rules >> (place + 1) & 1 == 1 { broken.or(Bad::custom(place)) } else { broken };
            }
            let failure = Failure { arm, pi: 0.25, bucket: None, status: 500, bad: broken };
            let said = [&mut judge, &mut kept].map(|judge| {
                judge.succeeded(arm, good);
                judge.latencies(&[(at as i32 % 50, good)], &[(at as i32 % 40, good * 3)]);
                judge.failed(&failure)
            });
            prop_assert_eq!(said[0], said[1]);
        }
        prop_assert_eq!(judge, kept);
    }

    #[test]
    fn nothing_makes_the_evidence_anything_but_numbers(
        events in prop::collection::vec((any::<bool>(), 0_u64..100_000, any::<bool>(), 0.0_f64..=1.0), 0..80),
    ) {
        let mut judge = entered(&plan(THREE), 0.05);
        for (is_canary, good, fails, pi) in events {
            let arm = if is_canary { Arm::Canary } else { Arm::Stable };
            judge.succeeded(arm, good);
            if fails {
                judge.failed(&Failure { arm, pi, bucket: None, status: 0, bad: Bad::FAILED });
            }
        }
        let meters = judge.meters();
        prop_assert!([meters.errors, meters.latency, meters.proof].iter().all(|value| value.is_finite() && *value >= 0.0));
    }
}

#[test]
fn speeds_are_compared_between_endpoints_with_about_the_same_load() {
    let plan = plan("stages: [50%, 100%]");
    for (canary, stable, compared) in [(1, 1, true), (1, 10, false), (10, 10, true), (10, 1, true), (0, 0, true)] {
        let mut judge = entered(&plan, 0.5);
        judge.endpoints(canary, stable);
        for _ in 0..100 {
            judge.latencies(&[(200, 50)], &[(100, 50)]);
        }
        assert_eq!(judge.latency_holds(), compared, "{canary} and {stable} endpoints");
        assert_eq!(judge.meters().speeds_compared, compared);
    }
}

const LIMIT_1: &str = "stages: [5%, 100%], guardrails: { errors: { max: 1% } }, promote_when: { errors_below: 1% }";

#[test]
fn an_edited_limit_is_proven_anew_and_an_unchanged_one_keeps_its_proof() {
    let before = plan(LIMIT_1);
    let mut judge = entered(&before, 0.05);
    judge.succeeded(Arm::Canary, 1_000);
    assert!(judge.proven());
    judge.follow(&before, &before.guardrails);
    assert!(judge.proven(), "a reload that changes nothing");
    let stricter =
        plan("stages: [5%, 100%], guardrails: { errors: { max: 1% } }, promote_when: { errors_below: 0.1% }");
    judge.follow(&stricter, &stricter.guardrails);
    assert_eq!(judge.thresholds().errors_below, 0.001);
    assert!(!judge.proven(), "1000 requests say nothing about 0.1 %");
    judge.succeeded(Arm::Canary, 10_000);
    assert!(judge.proven());
}

#[test]
fn a_latency_promise_comes_changes_and_goes_with_the_file() {
    let promise = |below: &str| {
        plan(&format!(
            "stages: [5%, 100%], guardrails: {{ errors: {{ max: 1% }} }}, promote_when: {{ errors_below: 1%, latency: {{ quantile: 0.95, below: {below} }} }}"
        ))
    };
    let without = plan(LIMIT_1);
    let mut judge = entered(&without, 0.05);
    judge.succeeded(Arm::Canary, 1_000);
    let fast = |judge: &mut Judge| judge.latencies(&[(bucket_of(4.0), 1_000)], &[]);
    fast(&mut judge);
    for (plan, quick, quick_after) in [
        (without.clone(), true, true),
        (promise("10ms"), false, true),
        (promise("10ms"), true, true),
        (promise("2ms"), false, false),
        (promise("10ms"), false, true),
        (without.clone(), true, true),
    ] {
        judge.follow(&plan, &plan.guardrails);
        let promised = plan.promote_when.latency.map(|it| (it.quantile, it.below.as_secs_f64() * 1e3));
        assert_eq!(judge.thresholds().quick, promised);
        assert_eq!(judge.quick(), quick, "{promised:?}");
        fast(&mut judge);
        assert_eq!(judge.quick(), quick_after, "{promised:?}");
        assert!(judge.proven(), "the errors are another matter");
    }
}
