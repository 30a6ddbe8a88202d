//! Stages before the first share, as scenarios.

use super::{Around, Bad, Breach, Decision, Failure, Judge, Moment, Rollout, Waits, traffic_of};
use crate::analysis::Arm;
use crate::config::load::{Source, parse};
use crate::config::model::Rollout as Plan;

const AROUND: Around =
    Around { canary_ready: 1, canary_endpoints: 1, canary_unknown: 0, stable_ready: true, frozen: false };

fn plan(stage: &str) -> Plan {
    let text = format!(
        "listeners: {{ web: {{ bind: 127.0.0.1:80 }} }}\nroutes: [{{ name: all, service: shop }}]\nservices: {{ shop: {{ \
         versions: {{ v1: {{ endpoints: [127.0.0.1:81] }}, v2: {{ endpoints: [127.0.0.1:82] }} }}, active: v1, rollout: {{ \
         stages: [{stage}, 50%, 100%], promote_when: {{ hold: 60s }} }} }} }}"
    );
    let loaded = parse(vec![Source { path: "test.yaml".into(), text }]).expect("the text is valid");
    loaded.config.services.values().find_map(|service| service.rollout.clone()).expect("it is in the text")
}

/// In its first stage since second 0.
fn begun(plan: &Plan) -> (Rollout, Judge) {
    let mut rollout = Rollout::new("v1".into(), "v2".into(), String::new(), Moment::secs(0), 0);
    let mut judge = Judge::new(plan);
    let decision = rollout.decide(plan, &judge.seen(AROUND), Moment::secs(0));
    assert_eq!(decision, Decision::Advance { to: 0 });
    rollout.apply(&decision, Moment::secs(0), 0);
    judge.enter((plan, &plan.guardrails), 0.0, 0, |_| false);
    judge.serves(traffic_of(plan, rollout.stage));
    (rollout, judge)
}

fn copies(judge: &mut Judge, good: u32, failed: u32) {
    (0..good).for_each(|_| judge.copied(200));
    (0..failed).for_each(|_| judge.copied(503));
}

fn failure(arm: Arm) -> Failure {
    Failure { arm, pi: 0.0, bucket: None, status: 500, bad: Bad::FAILED }
}

#[test]
fn a_mirror_stage_ends_with_its_time_and_its_copies_and_asks_for_no_proof() {
    let plan = plan("{ mirror: 10%, min_requests: 20 }");
    let (mut rollout, mut judge) = begun(&plan);
    copies(&mut judge, 19, 0);
    let missing = |rollout: &Rollout, judge: &Judge, at| rollout.missing(&plan, &judge.seen(AROUND), Moment::secs(at));
    // Looked at all the time, so that it is known since when all endpoints are well.
    assert_eq!(rollout.decide(&plan, &judge.seen(AROUND), Moment::secs(1)), Decision::Stay);
    assert_eq!(
        missing(&rollout, &judge, 59),
        ["1 s of the stage's hold", "1 requests", "60 s with all endpoints healthy"]
    );
    assert_eq!(missing(&rollout, &judge, 61), ["1 requests"]);
    copies(&mut judge, 0, 1);
    assert_eq!(rollout.decide(&plan, &judge.seen(AROUND), Moment::secs(61)), Decision::Advance { to: 1 });
    let meters = judge.meters();
    assert_eq!((meters.copies.total, meters.copies.failed, meters.canary.total), (20, 1, 0));
    assert_eq!((meters.errors, meters.proof), (1.0, 1.0), "no test learns of a copy");
}

#[test]
fn copies_that_fail_more_than_luck_the_limit_and_stable_pause_at_the_end_of_the_stage() {
    let plan = plan("{ mirror: 10% }");
    for (good, failed, stable_failures, pauses) in
        [(0, 4, 0, false), (20, 5, 0, true), (10_000, 5, 0, false), (80, 20, 200, false), (50, 50, 200, true)]
    {
        let (mut rollout, mut judge) = begun(&plan);
        judge.succeeded(Arm::Stable, 1_000 - stable_failures);
        for _ in 0..stable_failures {
            judge.failed(&failure(Arm::Stable));
        }
        copies(&mut judge, good, failed);
        let case = format!("{failed} of {} copies, {stable_failures} of 1000 of stable", good + failed);
        assert_eq!(rollout.decide(&plan, &judge.seen(AROUND), Moment::secs(0)), Decision::Stay, "{case}");
        let decision = rollout.decide(&plan, &judge.seen(AROUND), Moment::secs(60));
        let wanted = match pauses {
            true => Decision::Pause(Waits::Breach(Breach::Errors)),
            false => Decision::Advance { to: 1 },
        };
        assert_eq!(decision, wanted, "{case}");
        if pauses {
            judge.forgive(&Waits::Breach(Breach::Errors), &plan.guardrails);
            assert!(!judge.copies_fail(), "it begins anew");
        }
    }
}

#[test]
fn late_copies_say_nothing_about_the_stage_that_follows() {
    let plan = plan("{ mirror: 10% }");
    let (_, mut judge) = begun(&plan);
    copies(&mut judge, 10, 10);
    judge.enter((&plan, &plan.guardrails), 0.5, 0, |_| false);
    judge.serves(traffic_of(&plan, Some(1)));
    copies(&mut judge, 10, 10);
    let meters = judge.meters();
    assert_eq!((meters.copies.total, meters.stage.total), (20, 0));
    assert!(!judge.copies_fail());
}

#[test]
fn a_match_stage_rolls_back_by_its_own_clients_and_is_proven_by_them() {
    let plan = plan("{ match: { headers: { x-beta: \"1\" } } }");
    let (mut rollout, mut judge) = begun(&plan);
    let mut failures = 0;
    while rollout.decide(&plan, &judge.seen(AROUND), Moment::secs(1)) == Decision::Stay {
        judge.failed(&failure(Arm::Canary));
        judge.succeeded(Arm::Stable, 7);
        failures += 1;
    }
    assert_eq!(rollout.decide(&plan, &judge.seen(AROUND), Moment::secs(1)), Decision::RollBack(Breach::Errors));
    assert_eq!(failures, 12);

    let (_, mut judge) = begun(&plan);
    judge.succeeded(Arm::Stable, 9);
    (0..4_465).for_each(|_| judge.succeeded(Arm::Canary, 1));
    assert!(!judge.proven());
    judge.succeeded(Arm::Canary, 1);
    assert!(judge.proven(), "with the absolute half alone");
}

#[test]
fn late_failures_of_testers_are_not_held_against_the_next_stage() {
    let plan = plan("5%");
    let mut judge = Judge::new(&plan);
    judge.enter((&plan, &plan.guardrails), 0.05, 500, |bucket| bucket < 500);
    judge.serves(traffic_of(&plan, Some(0)));
    for bucket in 0..50 {
        assert!(!judge.failed(&Failure { bucket: Some(bucket), ..failure(Arm::Canary) }));
    }
    assert_eq!(judge.meters().canary.failed, 0);
}
