//! Guardrails of the user's own, of a window, and of one stage.

use serde_json::json;

use crate::harness::load::Plan;
use crate::harness::rollouts::*;
use crate::harness::*;

async fn rolling(guardrails: &str, stages: &str) -> (World, Origin, Origin, Load) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    v1.stop_recording();
    v2.stop_recording();
    let rollout =
        format!("active: v1\nrollout:\n  stages: {stages}\n  promote_when: {{ hold: 1h }}\n  guardrails: {guardrails}");
    world.start(&one_service(&[&v1, &v2], &rollout)).await;
    let load = Load::start(world.web(), &Plan { keep_alive: 8, ..Plan::default() });
    world.edit_config(|text| text.replace("active: v1", "active: v2"));
    until_stage(&world, 1).await;
    (world, v1, v2, load)
}

#[tokio::test]
async fn a_response_header_marks_bad_answers() {
    let rule = "{ custom: { degraded: { header: { name: x-degraded, value: \"yes\" }, max: 1% } } }";
    let (world, _v1, v2, load) = rolling(rule, "[25%, 100%]").await;
    load.more(300).await;
    assert_eq!(rollout(&world).await["phase"], "staged", "nothing is wrong yet");
    v2.add_headers("x-degraded: yes\r\n");
    let ended = until_phase(&world, "rolled_back").await;
    assert_eq!(ended["why"], json!(["it broke the guardrail `degraded`"]), "{ended}");
    assert_eq!(ended["meters"]["canary_failures"], 0, "its answers did not fail: {ended}");
    load.stop().await.assert_unbroken();
}

#[tokio::test]
async fn statuses_are_bad_answers_if_a_guardrail_says_so_and_then_may_be_a_pause() {
    let rule = "{ custom: { missing: { status: [404], max: 1%, then: pause } } }";
    let (world, _v1, v2, load) = rolling(rule, "[25%, 100%]").await;
    v2.set(Fault::Status(404));
    let paused = until_phase(&world, "paused").await;
    assert_eq!(paused["why"], json!(["it broke the guardrail `missing`"]), "{paused}");
    load.stop().await;
}

#[tokio::test]
async fn what_both_versions_do_breaks_no_guardrail() {
    let rule = "{ custom: { missing: { status: [404], max: 1% } } }";
    let (world, v1, v2, load) = rolling(rule, "[25%, 100%]").await;
    v1.set(Fault::Status(404));
    v2.set(Fault::Status(404));
    load.more(2_000).await;
    let rollout = rollout(&world).await;
    assert_eq!(rollout["phase"], "staged", "{rollout}");
    assert!(rollout["missing"].to_string().contains("stable is no better"), "{rollout}");
    load.stop().await;
}

#[tokio::test]
async fn events_from_outside_are_counted_under_the_guardrails_name() {
    let rule = "{ custom: { alarm: { events: { more_than: 1, within: 10m } } } }";
    let (world, _v1, _v2, load) = rolling(rule, "[25%, 100%]").await;
    let unknown = world.cli(&["rollout", "event", "shop", "v2", "alarms"]).await;
    assert!(unknown.code == Some(1) && unknown.err.contains("did you mean `alarm`"), "{}", unknown.err);
    world.cli(&["rollout", "event", "shop", "v1", "alarm"]).await.ok();
    world.cli(&["rollout", "event", "shop", "v1", "alarm"]).await.ok();
    world.cli(&["rollout", "event", "shop", "v2", "alarm"]).await.ok();
    assert_eq!(rollout(&world).await["phase"], "staged", "one is accepted, and stable's do not count");
    world.cli(&["rollout", "event", "shop", "v2", "alarm"]).await.ok();
    let ended = until_phase(&world, "rolled_back").await;
    assert_eq!(ended["why"], json!(["it broke the guardrail `alarm`"]), "{ended}");
    load.stop().await.assert_unbroken();
}

#[tokio::test]
async fn the_literal_window_rule_pauses() {
    let rule = "{ errors: off, error_window: { max: 1%, for: 2s } }";
    let (world, _v1, v2, load) = rolling(rule, "[10%, 100%]").await;
    v2.set(Fault::Status(500));
    let paused = until_phase(&world, "paused").await;
    assert!(paused["why"].to_string().contains("for the whole of the window"), "{paused}");
    load.stop().await.assert_unbroken();
}

#[tokio::test]
async fn a_stage_may_have_guardrails_of_its_own() {
    let stages = "[{ weight: 10%, guardrails: { errors: { max: 0.1%, then: pause } } }, 100%]";
    let (world, _v1, v2, load) = rolling("{ errors: { max: 0.1%, then: rollback } }", stages).await;
    v2.set(Fault::Status(500));
    let paused = until_phase(&world, "paused").await;
    assert!(paused["why"].to_string().contains("failed more often"), "{paused}");
    load.stop().await.assert_unbroken();
}

#[tokio::test]
async fn requests_that_hang_are_slow_before_they_end() {
    let rule = "{ errors: off, latency: { warm_up: 0s } }";
    let (world, _v1, v2, load) = rolling(rule, "[10%, 100%]").await;
    load.more(1_000).await;
    let before = rollout(&world).await;
    assert!(before["meters"]["latency"].as_f64().unwrap() < 100.0, "{before}");
    load.stop().await;
    v2.set(Fault::Hang);
    // Each in turn ends up at the canary, and stays there.
    let clients = (0..40).map(|_| {
        let mut client = world.client();
        tokio::spawn(async move { while client.get("/").await.is_fine() {} })
    });
    let clients: Vec<_> = clients.collect();
    until("the latency test holds", || async { rollout(&world).await["meters"]["latency"].as_f64() >= Some(100.0) })
        .await;
    let held = rollout(&world).await;
    assert!(held["missing"].to_string().contains("an end of its slowness"), "{held}");
    clients.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_resumed_rollout_goes_on_until_its_guardrail_is_broken_again() {
    let rule = "{ errors: { then: pause }, custom: { odd: { status: [500], max: 1%, then: pause } } }";
    let (world, _v1, v2, load) = rolling(rule, "[25%, 100%]").await;
    for _ in 0..2 {
        v2.set(Fault::Status(500));
        until_phase(&world, "paused").await;
        // Both rules know of it.
        load.more(1_000).await;
        v2.set(Fault::None);
        load.more(100).await;
        world.cli(&["rollout", "resume", "shop"]).await.ok();
        let hour = 3_600_000;
        until("it is looked at many times", || async {
            rollout(&world).await["hold_left_ms"].as_u64().is_some_and(|left| left <= hour - 1_000)
        })
        .await;
        assert_eq!(rollout(&world).await["phase"], "staged");
    }
    load.stop().await;
    let events = world.events().await;
    let pauses = events.iter().filter(|event| event["data"]["decision"] == "pause").count();
    assert_eq!(pauses, 2, "each is said once");
}

#[tokio::test]
async fn the_fourth_restart_is_seen_without_being_told() {
    let mut world = World::new();
    let (v1, v2, steady) = (world.origin("v1").await, world.origin("v2").await, world.origin("v2").await);
    v1.stop_recording();
    let text = format!(
        "routes: [{{ name: all, service: shop }}]\nservices:\n  shop:\n    versions:\n      v1: {{ endpoints: [\"{}\"] }}\n      \
         v2: {{ endpoints: [\"{}\", \"{}\"] }}\n    active: v1\n    health: {{ path: /healthz, every: 100ms, timeout: 5s, pass: 1, \
         fail: 1 }}\n    rollout: {{ stages: [50%, 100%], promote_when: {{ hold: 1h }}, guardrails: {{ errors: off }} }}\n",
        v1.address, v2.address, steady.address
    );
    world.start(&text).await;
    world.edit_config(|text| text.replace("active: v1", "active: v2"));
    until_stage(&world, 1).await;
    let load = Load::start(world.web(), &Plan { keep_alive: 4, ..Plan::default() });
    for restarts in 1..=4 {
        v2.refuse().await;
        let down = || async { world.service_status("shop").await.to_string().contains("refused") };
        until("it is seen to be away", down).await;
        v2.reopen().await;
        until("the restart is counted", || async {
            rollout(&world).await["meters"]["restarts"].as_u64() == Some(restarts)
        })
        .await;
    }
    let ended = until_phase(&world, "rolled_back").await;
    assert_eq!(ended["why"], json!(["it restarted 4 times"]), "{ended}");
    load.stop().await.assert_unbroken();
}
