//! A rollout whose ground moves: edits of its stages, operators who decide otherwise, and what comes after the end.

use serde_json::json;

use crate::harness::load::Plan;
use crate::harness::rollouts::*;
use crate::harness::*;

async fn two(section: &str) -> (World, Origin, Origin) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    v1.stop_recording();
    v2.stop_recording();
    world.start(&one_service(&[&v1, &v2], &format!("active: v1\nrollout: {{ {section} }}"))).await;
    world.edit_config(|text| text.replace("active: v1", "active: v2"));
    until("the rollout has begun", || async { rollout(&world).await["canary"] == "v2" }).await;
    (world, v1, v2)
}

fn load(world: &World) -> Load {
    Load::start(world.web(), &Plan { keep_alive: 8, ..Plan::default() })
}

#[tokio::test]
async fn a_switch_to_what_runs_already_ends_a_rollout_that_waits() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    let rollout = "active: v1\nrollout: { stages: [{ weight: 10%, approve: sre }, 100%], promote_when: { hold: 1h } }";
    world.start(&format!("gates: {{ sre: {{}} }}\n{}", one_service(&[&v1, &v2], rollout))).await;
    let before = world.generation().await;
    world.edit_config(|text| text.replace("active: v1", "active: v2"));
    until_phase(&world, "waiting").await;
    world.cli(&["switch", "shop", "v1"]).await.ok();
    until_phase(&world, "superseded").await;
    let refused = world.cli(&["rollout", "approve", "shop"]).await;
    assert!(refused.code == Some(1) && refused.err.contains("has ended"), "{refused:?}");
    // Back to when the file still named v1: nothing that leads elsewhere goes on.
    world.cli(&["rollout", "start", "shop", "v2", "--again"]).await.ok();
    until_phase(&world, "waiting").await;
    world.cli(&["revert", &before.to_string()]).await.ok();
    until_phase(&world, "superseded").await;
    assert_eq!(world.service_status("shop").await["effective"], json!({ "v1": 1 }));
}

#[tokio::test]
async fn an_edit_of_the_stages_never_gives_the_canary_more_than_it_has_proven() {
    let (world, _v1, _v2) = two("stages: [5%, 25%, 100%], promote_when: { hold: 1h }").await;
    until_stage(&world, 1).await;
    world.edit_and_wait(|text| text.replace("[5%, 25%, 100%]", "[2%, 50%, 100%]")).await;
    until("the canary has 2 %", || async {
        world.service_status("shop").await["effective"] == json!({ "v1": 9800, "v2": 200 })
    })
    .await;
    let rollout = rollout(&world).await;
    assert_eq!((&rollout["phase"], &rollout["stage"]), (&json!("staged"), &json!(1)), "{rollout}");
}

#[tokio::test]
async fn what_an_operator_splits_is_judged_by_nobody() {
    let (world, _v1, v2) = two("stages: [5%, 100%], shield: false, promote_when: { hold: 1h }").await;
    until_stage(&world, 1).await;
    world.cli(&["weights", "shop", "v1=50", "v2=50"]).await.ok();
    until_phase(&world, "superseded").await;
    v2.set(Fault::Status(500));
    let load = load(&world);
    load.more(1_000).await;
    let report = load.stop().await;
    let failed = report.shots.iter().filter(|shot| shot.status == 500).count();
    assert!(failed > 400, "v2 keeps its half: {failed} of {}", report.shots.len());
}

#[tokio::test]
async fn after_the_promotion_nobody_stands_in_for_the_new_stable() {
    let (world, v1, v2) = two("stages: [50%, 100%], promote_when: { hold: 500ms, promote_on_time: true }").await;
    let first = load(&world);
    until_phase(&world, "promoted").await;
    first.stop().await.assert_unbroken();
    let before = v1.requests();
    v2.set(Fault::Status(500));
    let seen = world.client().get("/").await;
    assert_eq!((seen.status, seen.version()), (500, Some("v2")));
    assert_eq!(v1.requests(), before, "v1 is asked no more");
}

#[tokio::test]
async fn a_rollout_that_is_taken_out_of_the_file_promotes_nothing() {
    let section = "rollout: { stages: [5%, 100%], promote_when: { hold: 1h } }";
    let (world, _v1, _v2) = two("stages: [5%, 100%], promote_when: { hold: 1h }").await;
    until_stage(&world, 1).await;
    world.edit_and_wait(|text| text.replace(section, "")).await;
    until("v1 has everything", || async { world.service_status("shop").await["effective"] == json!({ "v1": 1 }) })
        .await;
    world.edit_and_wait(|text| text.replace("active: v2", &format!("active: v2\n    {section}"))).await;
    until_stage(&world, 1).await;
    assert_eq!(rollout(&world).await["phase"], "staged", "it begins anew");
}

#[tokio::test]
async fn a_hang_that_only_the_total_ends_is_a_failure_too() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    let more = "active: v1\ntimeouts: { request: 60s, total: 1s }\n\
                rollout: { stages: [50%, 100%], promote_when: { hold: 1h } }";
    world.start(&one_service(&[&v1, &v2], more)).await;
    v2.set(Fault::Hang);
    world.edit_config(|text| text.replace("active: v1", "active: v2"));
    until_stage(&world, 1).await;
    let load = load(&world);
    until_phase(&world, "rolled_back").await;
    load.stop().await;
}
