//! Progressive delivery: what is bad goes back by itself, what is good gets everything, and nobody notices.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::load::Plan;
use crate::harness::rollouts::*;
use crate::harness::*;

/// Stages that need evidence but little time.
const CANARY: &str = "rollout:\n  stages: [25%, 50%, 100%]\n  promote_when: { hold: 500ms, promote_on_time: true }";
/// Stages that nothing but an operator ends.
const SLOW: &str = "rollout:\n  stages: [5%, 25%, 100%]\n  promote_when: { hold: 1h }";

async fn two(more: &str) -> (World, Origin, Origin) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    v1.stop_recording();
    v2.stop_recording();
    world.start(&one_service(&[&v1, &v2], &format!("active: v1\n{more}"))).await;
    (world, v1, v2)
}

fn load(world: &World) -> Load {
    Load::start(world.web(), &Plan { keep_alive: 8, fresh: 1, think: Duration::from_micros(500), ..Plan::default() })
}

/// The receipt of what has that cause. It is complete, and its generation on disk, some time after that is live.
pub async fn receipt_of(world: &World, cause: &str) -> Value {
    let find = async || {
        let events = world.events().await;
        let is_it = |data: &Value| data["cause"].as_str().is_some_and(|it| it.starts_with(cause));
        events.into_iter().find(|event| event["kind"] == "receipt" && is_it(&event["data"]))
    };
    until(&format!("`{cause}` has its receipt"), || async { find().await.is_some() }).await;
    find().await.expect("events stay")["data"].clone()
}

#[tokio::test]
async fn a_canary_that_fails_every_request_goes_back_and_no_client_sees_it() {
    let (world, _v1, v2) = two(SLOW).await;
    v2.set(Fault::Status(500));
    let load = load(&world);
    load.more(100).await;
    world.edit_config(to_v2);
    let ended = until_phase(&world, "rolled_back").await;
    load.more(200).await;
    let report = load.stop().await;
    report.assert_unbroken();
    assert_eq!(report.from("v2"), 0, "every answer of the canary was replaced by stable's");
    assert_eq!(ended["canary"], "v2", "{ended}");
    let failed = ended["meters"]["canary_failures"].as_u64().unwrap();
    assert!((3..200).contains(&failed), "it was judged by few requests: {ended}");
    assert!(world.metric("switchback_shielded_total", &[("service", "shop")]).await >= 3.0);
    let status = world.service_status("shop").await;
    assert_eq!((&status["effective"]["v1"], &status["owner"]), (&json!(1), &json!("rollout")), "{status}");
    let receipt = receipt_of(&world, "rollback").await;
    assert!(receipt["last_old_start_micros"].as_u64().unwrap() < 1_000_000, "{receipt}");
    assert!(receipt["cause"].as_str().unwrap().contains("requests failed"), "{receipt}");
}

#[tokio::test]
async fn without_the_shield_the_canary_answers_and_still_goes_back() {
    let (world, _v1, v2) = two(&format!("{SLOW}\n  shield: false")).await;
    v2.set(Fault::Status(503));
    let load = load(&world);
    world.edit_config(to_v2);
    until_phase(&world, "rolled_back").await;
    load.more(200).await;
    let report = load.stop().await;
    let seen = report.shots.iter().filter(|shot| shot.status == 503).count();
    assert!((3..200).contains(&seen), "{seen} clients saw it");
}

#[tokio::test]
async fn resets_and_refused_connections_of_a_canary_are_shielded_too() {
    for fault in [Some(Fault::Reset), None] {
        let (world, _v1, v2) = two(SLOW).await;
        match fault {
            Some(fault) => v2.set(fault),
            None => v2.refuse().await,
        }
        let load = load(&world);
        world.edit_config(to_v2);
        until_phase(&world, "rolled_back").await;
        load.more(100).await;
        load.stop().await.assert_unbroken();
    }
}

#[tokio::test]
async fn a_good_canary_is_promoted_stage_by_stage() {
    let (world, _v1, _v2) = two(CANARY).await;
    let load = load(&world);
    let before = world.generation().await;
    world.edit_config(to_v2);
    until_phase(&world, "promoted").await;
    load.more(100).await;
    load.stop().await.assert_unbroken();
    let generations = world.admin_get("/api/v1/generations").await.json();
    let causes: Vec<&str> = generations
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["number"].as_u64().unwrap() > before && one["author"] == "rollout")
        // The evidence that follows differs each time.
        .map(|one| one["cause"].as_str().unwrap().split(':').next().unwrap())
        .rev()
        .collect();
    assert_eq!(
        causes,
        [
            "rollout v2 to 25 % (stage 1)",
            "rollout v2 to 50 % (stage 2)",
            "rollout v2 to 100 % (stage 3)",
            "rollout v2 promoted"
        ]
    );
    let status = world.service_status("shop").await;
    assert_eq!((&status["effective"]["v2"], &status["owner"]), (&json!(1), &json!("file")), "{status}");
    // The way back from the end is stable, not the stage before.
    let back = world.rollback("shop").await;
    assert_eq!(back["to"]["shop"], json!({ "v1": 1 }), "{back}");
}

#[tokio::test]
async fn an_outage_of_both_versions_rolls_nothing_back() {
    let (world, v1, v2) = two(&format!("{SLOW}\n  shield: false")).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    v1.set(Fault::Status(500));
    v2.set(Fault::Status(500));
    let load = load(&world);
    load.more(3_000).await;
    load.stop().await;
    let rollout = rollout(&world).await;
    assert_eq!((&rollout["phase"], &rollout["stage"]), (&json!("staged"), &json!(1)), "{rollout}");
    assert!(rollout["meters"]["canary_failures"].as_u64().unwrap() > 50, "{rollout}");
    assert!(rollout["missing"].to_string().contains("stable is no better"), "{rollout}");
}

#[tokio::test]
async fn a_rejected_version_stays_rejected_until_it_is_another_one_or_somebody_insists() {
    let (mut world, _v1, v2) = two(CANARY).await;
    let load = load(&world);
    v2.set(Fault::Status(500));
    world.edit_config(to_v2);
    until_phase(&world, "rolled_back").await;
    v2.set(Fault::None);
    let unchanged = async |world: &World| {
        let status = world.service_status("shop").await;
        assert_eq!((&status["effective"]["v1"], &status["rollout"]["phase"]), (&json!(1), &json!("rolled_back")));
    };
    world.reload_with_route(1).await;
    unchanged(&world).await;
    load.stop().await.assert_unbroken();
    world.kill_9();
    world.restart().await;
    unchanged(&world).await;
    let refused = world.cli(&["rollout", "start", "shop"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("rejected") && refused.err.contains("--again"), "{refused:?}");
    world.cli(&["rollout", "start", "shop", "--again"]).await.ok();
    let load = self::load(&world);
    until_phase(&world, "promoted").await;
    load.stop().await.assert_unbroken();
}

#[tokio::test]
async fn operators_pause_resume_promote_and_abort() {
    let (world, _v1, _v2) = two(SLOW).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    let share = async || world.service_status("shop").await["effective"].clone();
    assert_eq!(share().await, json!({ "v1": 9500, "v2": 500 }));
    world.cli(&["rollout", "pause", "shop", "--reason", "lunch"]).await.ok();
    let paused = until_phase(&world, "paused").await;
    assert!(paused["why"].to_string().contains("lunch"), "{paused}");
    world.cli(&["rollout", "resume", "shop"]).await.ok();
    until_phase(&world, "staged").await;
    let receipt = world.cli(&["rollout", "promote", "shop", "--json"]).await.ok().json();
    assert_eq!(receipt["to"]["shop"], json!({ "v1": 7500, "v2": 2500 }), "{receipt}");
    let receipt = world.cli(&["rollout", "abort", "shop", "--reason", "complaints", "--json"]).await.ok().json();
    assert_eq!(receipt["to"]["shop"], json!({ "v1": 1 }), "{receipt}");
    let ended = until_phase(&world, "rolled_back").await;
    assert!(ended["why"].to_string().contains("complaints"), "{ended}");
    let shown = world.cli(&["status", "shop"]).await.ok().out;
    assert!(shown.contains("rollout v1 -> v2") && shown.contains("[25 %]"), "{shown}");
}

#[tokio::test]
async fn a_rollback_in_the_middle_goes_to_stable_and_the_file_can_take_it_back_too() {
    let (world, _v1, _v2) = two(SLOW).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    world.cli(&["rollout", "promote", "shop"]).await.ok();
    let back = world.rollback("shop").await;
    assert_eq!(back["to"]["shop"], json!({ "v1": 1 }), "{back}");
    let (world, _v1, _v2) = two(SLOW).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    world.edit_and_wait(|text| text.replace("active: v2", "active: v1")).await;
    until("the file owns the split again", || async {
        let status = world.service_status("shop").await;
        status["owner"] == "file"
            && status["effective"] == json!({ "v1": 1 })
            && status["rollout"]["phase"] == "superseded"
    })
    .await;
}

#[tokio::test]
async fn a_gate_waits_for_its_approver() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    let rollout = "rollout:\n  stages: [{ weight: 10%, approve: sre }, 100%]\n  promote_when: { hold: 1h }";
    let text = one_service(&[&v1, &v2], &format!("active: v1\n{rollout}"));
    world.start(&format!("gates: {{ sre: {{ approvers: [ada] }} }}\n{text}")).await;
    world.edit_config(to_v2);
    let waits = until_phase(&world, "waiting").await;
    assert_eq!((&waits["gate"], &waits["stage"]), (&json!("sre"), &json!(0)), "{waits}");
    let refused = world.cli(&["rollout", "approve", "shop", "--by", "bob"]).await;
    assert!(refused.code == Some(1) && refused.err.contains("may not approve"), "{refused:?}");
    let refused = world.cli(&["rollout", "approve", "shop", "--gate", "srr", "--by", "ada"]).await;
    assert!(refused.err.contains("did you mean `sre`"), "{refused:?}");
    world.cli(&["rollout", "approve", "shop", "--by", "ada", "--comment", "fine"]).await.ok();
    until_stage(&world, 1).await;
    assert_eq!(world.service_status("shop").await["effective"]["v2"], 1000);
}

#[tokio::test]
async fn the_fourth_restart_within_ten_minutes_rolls_back() {
    let (world, _v1, _v2) = two(SLOW).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    for _ in 0..3 {
        world.cli(&["rollout", "event", "shop", "v2", "restart"]).await.ok();
    }
    // Stable's restarts and those of strangers are not the canary's.
    world.cli(&["rollout", "event", "shop", "v1", "restart"]).await.ok();
    for (version, kind) in [("v9", "restart"), ("v2", "explode")] {
        assert_eq!(world.cli(&["rollout", "event", "shop", version, kind]).await.code, Some(1));
    }
    assert_eq!(rollout(&world).await["phase"], "staged");
    world.cli(&["rollout", "event", "shop", "v2", "restart"]).await.ok();
    let ended = until_phase(&world, "rolled_back").await;
    assert!(ended["why"].to_string().contains("restarted 4 times"), "{ended}");
}

#[tokio::test]
async fn a_canary_that_loses_all_its_endpoints_goes_back() {
    let health = "health: { path: /healthz, every: 100ms, timeout: 5s, pass: 1, fail: 2 }";
    let (world, v1, v2) = two(&format!("{SLOW}\n{health}")).await;
    world.until_health("v2", "healthy").await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    v2.set_health(503);
    let ended = until_phase(&world, "rolled_back").await;
    assert!(ended["why"].to_string().contains("endpoints"), "{ended}");
    drop(v1);
}

#[tokio::test]
async fn a_broken_stable_is_never_gone_back_to() {
    let health = "health: { path: /healthz, every: 100ms, timeout: 5s, pass: 1, fail: 2 }";
    let (world, v1, v2) = two(&format!("{SLOW}\n{health}")).await;
    world.until_health("v2", "healthy").await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    v1.set_health(503);
    world.until_health("v1", "failing").await;
    for _ in 0..4 {
        world.cli(&["rollout", "event", "shop", "v2", "restart"]).await.ok();
    }
    let paused = until_phase(&world, "paused").await;
    assert!(paused["why"].to_string().contains("no usable endpoint to go back to"), "{paused}");
    drop(v2);
    // As soon as it is well again, what was to be done is done.
    v1.set_health(200);
    until_phase(&world, "rolled_back").await;
}

#[tokio::test]
async fn i9_a_rollout_survives_kill_9_in_every_stage() {
    let (mut world, _v1, v2) = two(SLOW).await;
    world.edit_config(to_v2);
    receipt_of(&world, "rollout v2 to 5 %").await;
    for stage in 1..=3_u64 {
        until_stage(&world, stage).await;
        let before = world.service_status("shop").await;
        world.kill_9();
        world.restart().await;
        let after = world.service_status("shop").await;
        assert_eq!(after["effective"], before["effective"], "stage {stage}");
        assert_eq!(after["rollout"]["stage"], stage, "{after}");
        assert_eq!(after["rollout"]["phase"], "staged", "{after}");
        if stage < 3 {
            world.cli(&["rollout", "promote", "shop"]).await.ok();
        }
    }
    // It is judged on, in the last stage too.
    v2.set(Fault::Status(500));
    let load = load(&world);
    until_phase(&world, "rolled_back").await;
    load.stop().await;
}

#[tokio::test]
async fn evidence_survives_kill_9() {
    let (mut world, _v1, v2) = two(&format!("{SLOW}\n  shield: false")).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    let load = load(&world);
    let judged = async || rollout(&world).await["meters"]["canary_requests"].as_u64().unwrap();
    until("there is evidence", || async { judged().await >= 80 }).await;
    let before = judged().await;
    // What status shows is handed to the journal; two looks later it is written.
    for _ in 0..2 {
        let shown = judged().await;
        until("a later look", || async { judged().await > shown }).await;
    }
    load.stop().await;
    world.kill_9();
    world.restart().await;
    let after = rollout(&world).await["meters"]["canary_requests"].as_u64().unwrap();
    assert!(after >= before, "{after} of {before}");
    drop(v2);
}

#[tokio::test]
async fn services_of_one_group_go_back_together() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    let rollout = "active: v1\nrollout: { group: suite, stages: [50%, 100%], promote_when: { hold: 1h } }";
    let text = one_service(&[&v1, &v2], rollout) + &service("cart", &[&v1, &v2], rollout);
    let routes = "routes:\n  - { name: cart, match: { path_prefix: /cart }, service: cart }\n";
    world.start(&text.replacen("routes:\n", routes, 1)).await;
    world.edit_config(to_v2);
    until("both are in stage 1", || async {
        let status = world.status().await;
        ["shop", "cart"].iter().all(|name| world::named(&status["services"], name)["rollout"]["stage"] == 1)
    })
    .await;
    let before = world.generation().await;
    let receipt = world.cli(&["rollout", "abort", "cart", "--json"]).await.ok().json();
    assert_eq!(receipt["generation"].as_u64(), Some(before + 1));
    assert_eq!(receipt["to"], json!({ "cart": { "v1": 1 }, "shop": { "v1": 1 } }), "{receipt}");
}

#[tokio::test]
async fn who_was_promoted_goes_back_with_its_group_while_the_version_before_is_kept() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    let rollout = |hold: &str| {
        format!(
            "active: v1\nrollout: {{ group: suite, stages: [50%, 100%], promote_when: {{ hold: {hold}, promote_on_time: true }} }}"
        )
    };
    let text = one_service(&[&v1, &v2], &rollout("500ms")) + &service("cart", &[&v1, &v2], &rollout("1h"));
    let routes = "routes:\n  - { name: cart, match: { path_prefix: /cart }, service: cart }\n";
    world.start(&text.replacen("routes:\n", routes, 1)).await;
    world.edit_config(to_v2);
    let load = load(&world);
    until_phase(&world, "promoted").await;
    load.stop().await.assert_unbroken();
    world.cli(&["rollout", "abort", "cart"]).await.ok();
    let ended = until_phase(&world, "rolled_back").await;
    assert_eq!(ended["why"], json!(["it goes back with `cart` of its group"]), "{ended}");
    assert_eq!(world.service_status("shop").await["effective"], json!({ "v1": 1 }));
}

#[tokio::test]
async fn a_canary_that_breaks_pooled_connections_under_posts_goes_back() {
    let (world, _v1, v2) = two(SLOW).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    world.cli(&["rollout", "promote", "shop"]).await.ok();
    until_stage(&world, 2).await;
    // Every second request on a connection is read whole, then the connection is closed without a word.
    v2.set(Fault::CloseUnansweredAfter(1));
    let mut client = world.client();
    let mut refused = 0;
    for _ in 0..400 {
        refused += u32::from(client.post("/order", b"one please").await.status == 502);
    }
    // No POST runs twice, so clients see these; but the judge sees them too.
    until_phase(&world, "rolled_back").await;
    assert!((3..25).contains(&refused), "{refused} clients saw a 502 of the canary");
}
