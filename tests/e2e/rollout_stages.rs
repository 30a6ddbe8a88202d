//! Stages before the first share: clients that are chosen by who they are (`match`), and copies of requests
//! (`mirror`).

use std::time::Duration;

use serde_json::json;

use crate::harness::load::Plan;
use crate::harness::rollouts::*;
use crate::harness::*;

/// One stage for testers that nothing but an operator ends.
const MATCH: &str = "rollout:\n  stages: [{ match: { headers: { x-beta: \"1\" }, cookies: { beta: \"yes\" }, users: { header: x-user, list: \
                     [ada, bob] } } }, 50%, 100%]\n  promote_when: { hold: 1h }";
const TESTER: &[(&str, &str)] = &[("x-beta", "1")];

async fn two(more: &str) -> (World, Origin, Origin) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], &format!("active: v1\n{more}"))).await;
    (world, v1, v2)
}

async fn begin(world: &World) {
    world.edit_config(|text| text.replace("active: v1", "active: v2"));
    until_stage(world, 1).await;
}

fn load(world: &World) -> Load {
    Load::start(world.web(), &Plan { keep_alive: 4, fresh: 1, think: Duration::from_millis(1), ..Plan::default() })
}

#[tokio::test]
async fn a_match_stage_gives_the_canary_those_clients_and_nobody_else() {
    let (world, v1, v2) = two(MATCH).await;
    begin(&world).await;
    let mut client = world.client();
    for (fields, version, reason) in [
        (TESTER, "v2", "match"),
        (&[("cookie", "a=b; beta=yes")], "v2", "match"),
        (&[("x-user", "bob")], "v2", "match"),
        (&[("x-beta", "0"), ("cookie", "beta=no"), ("x-user", "eve")], "v1", "weight"),
        (&[], "v1", "weight"),
    ] {
        v1.forget();
        v2.forget();
        for _ in 0..50 {
            let seen = client.get_with("/", fields).await;
            assert_eq!((seen.version(), seen.reason()), (Some(version), Some(reason)), "{fields:?}");
            assert_eq!(seen.origin(), Some(version), "{fields:?}");
        }
        let counts = (v1.received().len(), v2.received().len());
        assert_eq!(counts, if version == "v1" { (50, 0) } else { (0, 50) }, "{fields:?}");
    }
    let status = world.service_status("shop").await;
    assert_eq!(status["effective"], json!({ "v1": 1 }), "the split gives it nothing: {status}");
    assert_eq!(status["rollout"]["labels"], json!(["match", "50 %", "100 %"]));
    assert_eq!(world.version_status("shop", "v2").await["state"], "matched");
    let explained = world.cli(&["explain", "GET", "http://shop.test/", "-H", "x-user: ada"]).await.ok().out;
    assert!(explained.contains("match") && explained.contains("the user that `x-user` names matches"), "{explained}");
    let asked = world.admin_get("/api/v1/explain?method=GET&url=http://shop.test/&h.x-beta=1").await.json();
    assert_eq!((&asked["version"], &asked["reason"]), (&json!("v2"), &json!("match")), "{asked}");
    let asked = world.admin_get("/api/v1/explain?method=GET&url=http://shop.test/&h.x-beta=2").await.json();
    assert_eq!((&asked["version"], &asked["reason"]), (&json!("v1"), &json!("weight")), "{asked}");
    let shown = world.cli(&["status", "shop"]).await.ok().out;
    assert!(shown.contains("[match] - 50 %"), "{shown}");
    // The stage is over: they go by the split again, like everybody.
    world.cli(&["rollout", "promote", "shop"]).await.ok();
    let mut canary = 0;
    for _ in 0..100 {
        let seen = client.get_with("/", TESTER).await;
        assert_eq!(seen.reason(), Some("weight"));
        canary += u32::from(seen.version() == Some("v2"));
    }
    assert!((49..=51).contains(&canary), "{canary} of 100");
}

#[tokio::test]
async fn force_and_a_pin_by_drain_come_before_match_and_sticky_after() {
    let (world, _v1, v2) =
        two(&format!("force: {{ header: x-version }}\nsticky: {{ header: x-client }}\n{MATCH}")).await;
    begin(&world).await;
    let mut client = world.client();
    for (fields, version, reason) in [
        (&[("x-beta", "1"), ("x-version", "v1")][..], "v1", "force"),
        (&[("x-beta", "1"), ("x-client", "7")], "v2", "match"),
        (&[("x-client", "7")], "v1", "sticky"),
    ] {
        let seen = client.get_with("/", fields).await;
        assert_eq!((seen.version(), seen.reason()), (Some(version), Some(reason)), "{fields:?}");
    }
    drop(v2);
}

#[tokio::test]
async fn a_match_stage_waits_for_its_requests_and_then_the_rollout_goes_on() {
    let rollout_text = "rollout:\n  stages: [{ match: { headers: { x-beta: \"1\" } }, min_requests: 20, hold: 3s }, 50%, 100%]\n  \
                        promote_when: { hold: 500ms, promote_on_time: true }";
    let (world, v1, v2) = two(rollout_text).await;
    v1.stop_recording();
    v2.stop_recording();
    let load = load(&world);
    begin(&world).await;
    let mut tester = world.client();
    for _ in 0..19 {
        assert_eq!(tester.get_with("/", TESTER).await.version(), Some("v2"));
    }
    until("only a request is missing", || async { rollout(&world).await["missing"] == json!(["1 requests"]) }).await;
    assert_eq!(rollout(&world).await["stage"], 1);
    assert_eq!(tester.get_with("/", TESTER).await.version(), Some("v2"));
    until_phase(&world, "promoted").await;
    load.stop().await.assert_unbroken();
}

#[tokio::test]
async fn a_canary_that_fails_its_testers_goes_back_and_they_do_not_see_it() {
    let (world, v1, v2) = two(MATCH).await;
    v1.stop_recording();
    v2.stop_recording();
    v2.set(Fault::Status(500));
    begin(&world).await;
    let load = load(&world);
    let mut tester = world.client();
    let mut asked = 0;
    while rollout(&world).await["phase"] == "staged" {
        // One after the other, so that stable answers in between.
        assert_eq!(tester.get_with("/", TESTER).await.status, 200, "stable answers instead");
        load.more(2).await;
        asked += 1;
        assert!(asked < 200, "{}", rollout(&world).await);
    }
    let report = load.stop().await;
    report.assert_unbroken();
    assert_eq!(report.from("v2"), 0);
    let ended = rollout(&world).await;
    let failed = ended["meters"]["canary_failures"].as_u64().unwrap();
    assert!((8..=40).contains(&failed), "of {asked}: {ended}");
    assert!(ended["why"].to_string().contains("failed more often"), "{ended}");
    assert_eq!(tester.get_with("/", TESTER).await.version(), Some("v1"));
    let events = world.events().await;
    let receipt = events.iter().rev().find(|event| event["kind"] == "receipt").expect("a receipt");
    assert!(receipt["data"]["cause"].as_str().unwrap().starts_with("rollback v2"), "{receipt}");
}

#[tokio::test]
async fn an_outage_of_both_rolls_no_match_stage_back() {
    let (world, v1, v2) = two(&format!("{MATCH}\n  shield: false")).await;
    v1.stop_recording();
    v2.stop_recording();
    begin(&world).await;
    for origin in [&v1, &v2] {
        origin.set(Fault::Status(500));
    }
    let load = load(&world);
    let mut tester = world.client();
    for _ in 0..150 {
        assert_eq!(tester.get_with("/", TESTER).await.version(), Some("v2"));
    }
    load.stop().await;
    until("all of it is shown", || async { rollout(&world).await["meters"]["canary_failures"] == 150 }).await;
    let rollout = rollout(&world).await;
    assert_eq!((&rollout["phase"], &rollout["stage"]), (&json!("staged"), &json!(1)), "{rollout}");
    assert!(rollout["missing"].to_string().contains("stable is no better"), "{rollout}");
}

#[tokio::test]
async fn the_end_of_a_match_stage_is_live_at_once_whoever_ends_it() {
    for end in ["abort", "switch", "weights", "file"] {
        let (world, v1, _v2) = two(MATCH).await;
        begin(&world).await;
        let mut tester = world.client();
        assert_eq!(tester.get_with("/", TESTER).await.version(), Some("v2"));
        let before = world.generation().await;
        let mut stream = SseClient::open_with(world.web(), "/sse", TESTER).await;
        soon("the stream runs", stream.next()).await.expect("it is open");
        match end {
            "abort" => drop(world.cli(&["rollout", "abort", "shop", "--reason", "test"]).await.ok()),
            "switch" => drop(world.switch("shop", "v1").await),
            "weights" => drop(world.weights("shop", json!({ "v1": 1 })).await),
            _ => drop(world.edit_and_wait(|text| text.replace("active: v2", "active: v1")).await),
        }
        let seen = tester.get_with("/", TESTER).await;
        assert_eq!((seen.version(), seen.origin()), (Some("v1"), Some("v1")), "{end}");
        assert!(seen.generation() > Some(before), "{end}");
        let status = world.service_status("shop").await;
        let phase = if end == "abort" { "rolled_back" } else { "superseded" };
        assert_eq!(status["rollout"]["phase"], phase, "{end}: {status}");
        let owner = match end {
            "abort" => "rollout",
            "file" => "file",
            _ => "admin",
        };
        assert!(status["owner"].as_str().unwrap().starts_with(owner), "{end}: {status}");
        // What ran there has its deadlines, as on any version that lost its place.
        let draining = world.status().await["draining"].clone();
        assert!(draining.to_string().contains("v2"), "{end}: {draining}");
        drop(v1);
    }
}

#[tokio::test]
async fn a_canary_that_loses_its_endpoints_in_a_match_stage_goes_back() {
    let health = "health: { path: /healthz, every: 100ms, timeout: 5s, pass: 1, fail: 2 }";
    let (world, v1, v2) = two(&format!("{MATCH}\n{health}")).await;
    world.until_health("v2", "healthy").await;
    begin(&world).await;
    v2.set_health(503);
    world.until_health("v2", "failing").await;
    // At once, and for good after a second.
    let seen = world.client().get_with("/", TESTER).await;
    assert_eq!(seen.version(), Some("v1"), "{seen:?}");
    let ended = until_phase(&world, "rolled_back").await;
    assert!(ended["why"].to_string().contains("endpoints"), "{ended}");
    drop(v1);
}

#[tokio::test]
async fn i9_a_match_stage_survives_kill_9() {
    let (mut world, v1, v2) = two(MATCH).await;
    v1.stop_recording();
    v2.stop_recording();
    begin(&world).await;
    let mut tester = world.client();
    for _ in 0..30 {
        assert_eq!(tester.get_with("/", TESTER).await.version(), Some("v2"));
    }
    until("they are counted", || async { rollout(&world).await["meters"]["canary_requests"] == 30 }).await;
    // A new generation is journaled with all that is known.
    world.reload_with_route(1).await;
    world.kill_9();
    world.restart().await;
    let after = rollout(&world).await;
    assert_eq!((&after["stage"], &after["phase"]), (&json!(1), &json!("staged")), "{after}");
    assert!(after["meters"]["canary_requests"].as_u64() >= Some(30), "{after}");
    let mut tester = world.client();
    assert_eq!(tester.get_with("/", TESTER).await.reason(), Some("match"));
    assert_eq!(tester.get("/").await.version(), Some("v1"));
    // It is judged on.
    v2.set(Fault::Status(500));
    let load = load(&world);
    for asked in 0.. {
        tester.get_with("/", TESTER).await;
        load.more(2).await;
        if rollout(&world).await["phase"] == "rolled_back" {
            break;
        }
        assert!(asked < 200, "{}", rollout(&world).await);
    }
    load.stop().await.assert_unbroken();
}

/// One stage of copies that nothing but an operator ends.
const MIRROR: &str =
    "rollout:\n  stages: [{ mirror: 20% }, 50%, 100%]\n  promote_when: { hold: 1h }\ntimeouts: { request: 1s }";

/// Copies that were dealt with, by result.
async fn copies(world: &World, result: &str) -> f64 {
    world.metric("switchback_mirrored_total", &[("service", "shop"), ("result", result)]).await
}

#[tokio::test]
async fn a_mirror_stage_copies_its_share_of_the_requests_and_clients_are_stables() {
    let (world, v1, v2) = two(MIRROR).await;
    begin(&world).await;
    let mut client = world.client();
    for nth in 0..500 {
        let fields = [("x-nth", nth.to_string()), ("x-switchback-mirror", "no".into())];
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let seen = client.get_with("/item?q=%20", &fields).await;
        assert_eq!((seen.status, seen.origin(), seen.reason()), (200, Some("v1"), Some("weight")));
    }
    // One connection is one data thread, on which the share is exact.
    until("the copies are answered", || async { copies(&world, "answered").await >= 100.0 }).await;
    let (asked, copied) = (v1.received(), v2.received());
    assert_eq!((asked.len(), copied.len()), (500, 100));
    for copy in &copied {
        assert_eq!(copy.field("x-switchback-mirror"), Some("1"));
        let original = asked.iter().find(|asked| asked.field("x-nth") == copy.field("x-nth")).expect("it was asked");
        assert_eq!(original.field("x-switchback-mirror"), None, "a client cannot say so");
        let others = |of: &crate::harness::origin::Received| {
            let mut fields = of.headers.clone();
            fields.retain(|(name, _)| name != "x-switchback-mirror");
            fields.sort();
            (of.line.clone(), fields)
        };
        assert_eq!(others(copy), others(original), "it is what stable was asked");
    }
    assert!(v2.shared.connections.load(std::sync::atomic::Ordering::SeqCst) <= 64, "connections are kept");
    let status = world.service_status("shop").await;
    assert_eq!(status["effective"], json!({ "v1": 1 }), "{status}");
    assert_eq!(status["rollout"]["labels"], json!(["mirror 20 %", "50 %", "100 %"]));
    assert_eq!(world.version_status("shop", "v2").await["state"], "mirrored");
    until("they are counted", || async { rollout(&world).await["meters"]["copies"] == 100 }).await;
    assert_eq!(rollout(&world).await["meters"]["canary_requests"], 0, "no user was there");
    let explained = world.cli(&["explain", "GET", "http://shop.test/"]).await.ok().out;
    assert!(explained.contains("copies of 20 %"), "{explained}");
}

#[tokio::test]
async fn what_may_not_run_twice_is_not_copied() {
    let (world, v1, v2) = two(&MIRROR.replace("20%", "100%")).await;
    begin(&world).await;
    let mut client = world.client();
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        assert_eq!(client.send(method, "/order", &[], b"one").await.status, 200);
    }
    // Safe, but with a body.
    assert_eq!(client.send("GET", "/search", &[], b"query").await.status, 200);
    assert_eq!(client.send("HEAD", "/head", &[], b"").await.status, 200);
    assert_eq!(client.send("GET", "/get", &[], b"").await.status, 200);
    until("the copies arrive", || async { v2.received().len() >= 2 }).await;
    let mut copied: Vec<String> = v2.received().iter().map(|copy| copy.line.clone()).collect();
    copied.sort();
    assert_eq!(copied, ["GET /get HTTP/1.1", "HEAD /head HTTP/1.1"]);
    assert_eq!(v1.received().len(), 7);
}

#[tokio::test]
async fn clients_do_not_notice_whatever_a_mirrored_canary_does() {
    for fault in [
        Some(Fault::Hang),
        Some(Fault::Status(500)),
        Some(Fault::CloseUnanswered),
        Some(Fault::Reset),
        Some(Fault::CutBody),
        Some(Fault::StallBody),
        Some(Fault::Bytes(b"SSH-2.0-OpenSSH_9\r\n".to_vec())),
        None,
    ] {
        let (world, v1, v2) = two(&MIRROR.replace("20%", "100%").replace("request: 1s", "request: 2s")).await;
        v1.stop_recording();
        v2.stop_recording();
        match fault.clone() {
            Some(fault) => v2.set(fault),
            None => v2.refuse().await,
        }
        begin(&world).await;
        let load = load(&world);
        load.more(300).await;
        let report = load.stop().await;
        report.assert_unbroken();
        assert_eq!(report.from("v1"), report.shots.len(), "{fault:?}");
        let longest = report.shots.len() as f64;
        until("every copy is accounted for", || async {
            copies(&world, "failed").await + copies(&world, "dropped").await >= longest
        })
        .await;
        assert_eq!(copies(&world, "answered").await, 0.0, "{fault:?}");
        let rollout = rollout(&world).await;
        assert_eq!((&rollout["phase"], &rollout["stage"]), (&json!("staged"), &json!(1)), "{fault:?}: {rollout}");
    }
}

#[tokio::test]
async fn copies_that_fail_let_no_user_in_and_the_next_try_counts_anew() {
    let rollout_text =
        "rollout:\n  stages: [{ mirror: 50% }, 50%, 100%]\n  promote_when: { hold: 2s, promote_on_time: true }";
    let (world, v1, v2) = two(rollout_text).await;
    v1.stop_recording();
    v2.stop_recording();
    v2.set(Fault::Status(500));
    begin(&world).await;
    let load = load(&world);
    let paused = until_phase(&world, "paused").await;
    assert_eq!(paused["stage"], 1, "{paused}");
    assert!(paused["why"].to_string().contains("failed more often than allowed and than stable"), "{paused}");
    assert!(paused["missing"].to_string().contains("copies that do not fail"), "{paused}");
    v2.set(Fault::None);
    world.cli(&["rollout", "resume", "shop"]).await.ok();
    until_phase(&world, "promoted").await;
    load.stop().await.assert_unbroken();
}

#[tokio::test]
async fn from_copies_to_testers_to_everybody() {
    let rollout_text = "rollout:\n  stages: [{ mirror: 10%, min_requests: 20 }, { match: { headers: { x-beta: \"1\" } }, min_requests: 10 }, \
                        50%, 100%]\n  promote_when: { hold: 1s, promote_on_time: true }";
    let (world, v1, v2) = two(rollout_text).await;
    v1.stop_recording();
    v2.stop_recording();
    let before = world.generation().await;
    begin(&world).await;
    let load = load(&world);
    until_stage(&world, 2).await;
    let mut tester = world.client();
    for _ in 0..10 {
        assert_eq!(tester.get_with("/", TESTER).await.status, 200);
    }
    until_phase(&world, "promoted").await;
    load.stop().await.assert_unbroken();
    let generations = world.admin_get("/api/v1/generations").await.json();
    let causes: Vec<&str> = generations
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["number"].as_u64().unwrap() > before && one["author"] == "rollout")
        .map(|one| one["cause"].as_str().unwrap().split(':').next().unwrap())
        .rev()
        .collect();
    let wanted =
        ["to mirror 10 % (stage 1)", "to match (stage 2)", "to 50 % (stage 3)", "to 100 % (stage 4)", "promoted"];
    assert_eq!(causes, wanted.map(|what| format!("rollout v2 {what}")));
}

#[tokio::test]
async fn i9_a_mirror_stage_survives_kill_9() {
    let (mut world, v1, v2) = two(&MIRROR.replace("20%", "100%")).await;
    begin(&world).await;
    let mut client = world.client();
    for _ in 0..30 {
        assert_eq!(client.get("/").await.version(), Some("v1"));
    }
    until("the copies are counted", || async { rollout(&world).await["meters"]["copies"] == 30 }).await;
    world.reload_with_route(1).await;
    world.kill_9();
    world.restart().await;
    let after = rollout(&world).await;
    assert_eq!((&after["stage"], &after["meters"]["copies"]), (&json!(1), &json!(30)), "{after}");
    v2.forget();
    assert_eq!(world.get("/again").await.version(), Some("v1"));
    until("it is copied", || async { v2.received().iter().any(|copy| copy.target() == "/again") }).await;
    // An operator's word ends it, although the split is what it was.
    world.switch("shop", "v1").await;
    v2.forget();
    assert_eq!(world.get("/over").await.version(), Some("v1"));
    assert_eq!(world.version_status("shop", "v2").await["state"], "off");
    assert_eq!(v2.received().len(), 0);
    drop(v1);
}
