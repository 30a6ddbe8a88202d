//! Why it was decided: the story of a rollout can be told afterwards, with the requests that clients saw fail.

use serde_json::{Value, json};

use crate::harness::client::Seen;
use crate::harness::load::Plan;
use crate::harness::rollouts::*;
use crate::harness::*;

/// Stages that nothing but an operator ends.
const SLOW: &str = "rollout:\n  stages: [25%, 50%, 100%]\n  promote_when: { hold: 1h }";

async fn two(more: &str) -> (World, Origin, Origin) {
    two_with("", more).await
}

async fn two_with(top: &str, more: &str) -> (World, Origin, Origin) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&(top.to_string() + &one_service(&[&v1, &v2], &format!("active: v1\n{more}")))).await;
    (world, v1, v2)
}

async fn report(world: &World) -> Value {
    world.cli(&["rollout", "report", "shop", "--json"]).await.ok().json()
}

/// With what is journaled: who gets this answer knows that all before it is written.
async fn report_of_all(world: &World) -> Value {
    let seen = world.admin_get("/api/v1/services/shop/rollout?all=true").await;
    assert_eq!(seen.status, 200, "{}", seen.text());
    seen.json()
}

/// One client that names its requests, until the rollout has ended: each name with what came back.
async fn ask_until_it_ends(world: &World) -> Vec<(String, Seen)> {
    let mut client = world.client();
    let mut all = Vec::new();
    loop {
        let id = format!("ask-{}", all.len());
        let seen = client.get_with("/", &[("x-request-id", &id)]).await;
        all.push((id, seen));
        let is_quiet = all.len() > 20 && all.iter().rev().take(20).all(|(_, seen)| seen.is_fine());
        if is_quiet && world.service_status("shop").await["rollout"]["phase"] == "rolled_back" {
            return all;
        }
        assert!(all.len() < 20_000, "it is never rolled back");
    }
}

fn decision<'a>(report: &'a Value, word: &str) -> &'a Value {
    let all = report["decisions"].as_array().expect("a list");
    all.iter().rev().find(|one| one["decision"] == word).unwrap_or_else(|| panic!("no `{word}` in {report}"))
}

fn words(report: &Value) -> Vec<&str> {
    report["decisions"].as_array().expect("a list").iter().map(|one| one["decision"].as_str().unwrap()).collect()
}

/// The receipt is complete once the data threads have let go of the generation before.
async fn until_proven(world: &World) -> Value {
    until("the flip is proven", || async {
        decision(&report(world).await, "rollback")["receipt"]["last_old_start_micros"].is_u64()
    })
    .await;
    report(world).await
}

#[tokio::test]
async fn a_rollback_names_the_rule_the_evidence_and_the_requests_that_clients_saw_fail() {
    let (mut world, _v1, v2) = two(&format!("{SLOW}\n  shield: false")).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    v2.set(Fault::Status(500));
    let asked = ask_until_it_ends(&world).await;
    let failed: Vec<&str> = asked.iter().filter(|(_, seen)| seen.status == 500).map(|(id, _)| &**id).collect();
    let told = until_proven(&world).await;

    assert_eq!(words(&told), ["start", "advance", "rollback"]);
    let rollback = decision(&told, "rollback");
    assert_eq!((&rollback["reason"], &rollback["author"]), (&json!("errors"), &json!("rollout")), "{rollback}");
    let evidence = &rollback["evidence"];
    for test in ["errors_absolute", "errors_relative"] {
        assert!(evidence[test].as_f64().unwrap() >= 200.0, "{test}: {evidence}");
    }
    assert_eq!(evidence["errors_limit"], 200.0);
    let canary = &evidence["canary"];
    assert_eq!(canary["failures"], failed.len(), "{canary}");
    assert_eq!(canary["first_failure"]["id"], failed[0], "{canary}");
    assert_eq!(canary["last_failure"]["id"], failed[failed.len() - 1], "{canary}");
    assert_eq!(canary["last_failure"]["endpoint"], v2.address.to_string());
    assert_eq!(evidence["statuses"], json!([[500, failed.len()]]));
    assert_eq!(evidence["stable"]["first_failure"], Value::Null);
    assert_eq!((&rollback["share"], &rollback["stage"]), (&json!(0.0), &json!(1)));
    let generations = world.admin_get("/api/v1/generations").await.json();
    let led_to = generations.as_array().unwrap().iter().find(|one| one["number"] == rollback["generation"]);
    assert_eq!(led_to.expect("it exists")["cause"], rollback["cause"]);
    assert!(rollback["receipt"]["flip_micros"].as_u64().unwrap() < 1_000_000, "{rollback}");
    let start = decision(&told, "start");
    assert_eq!(start["author"], "file");
    assert!(start["cause"].as_str().unwrap().starts_with("edit of"), "{start}");

    let text = world.cli(&["rollout", "report", "shop"]).await.ok().out;
    for word in ["rolled back", "rollback", "errors", failed[0], failed[failed.len() - 1], "500", "flip back"] {
        assert!(text.contains(word), "{word}: {text}");
    }

    // It survives the process, whole.
    let before = report_of_all(&world).await;
    world.kill_9();
    world.restart().await;
    let after = report(&world).await;
    for part in ["decisions", "evidence", "samples"] {
        assert_eq!(after[part], before[part], "{part}");
    }
    assert!(after["samples"].as_array().unwrap().len() >= 3, "{after}");
    assert_eq!(after["rollout"]["phase"], "rolled_back");

    // A version that was rolled back is not tried again, and that is a decision too.
    world.edit_and_wait(|text| text.replace("active: v2", "active: v1")).await;
    world.edit_and_wait(to_v2).await;
    let again = report(&world).await;
    assert_eq!(words(&again), ["start", "advance", "rollback", "reject"]);
    assert!(decision(&again, "reject")["why"].as_str().unwrap().contains("rolled back before"), "{again}");

    // The next rollout has a story of its own, and the one before is still known.
    v2.set(Fault::None);
    world.cli(&["rollout", "start", "shop", "--again"]).await.ok();
    until_stage(&world, 1).await;
    let next = report(&world).await;
    assert_eq!(words(&next), ["start", "advance"]);
    assert_eq!(decision(&next, "start")["reason"], "operator");
    let earlier = &report_of_all(&world).await["earlier"][0];
    assert_eq!(words(earlier), ["start", "advance", "rollback", "reject"]);
    let shown = world.cli(&["rollout", "report", "shop", "--all"]).await.ok().out;
    assert!(shown.contains("earlier rollouts"), "{shown}");
}

#[tokio::test]
async fn a_shielded_failure_has_the_id_that_the_access_log_has() {
    let (world, _v1, v2) = two_with("access_log: { to: access.log }\n", SLOW).await;
    v2.set(Fault::Status(503));
    world.edit_config(to_v2);
    let log = || {
        let text = std::fs::read_to_string(world.path("access.log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect::<Vec<_>>()
    };
    // Clients that name nothing: the proxy makes the ids.
    let load = Load::start(world.web(), &Plan { keep_alive: 4, ..Plan::default() });
    until("it is rolled back", || async { world.service_status("shop").await["rollout"]["phase"] == "rolled_back" })
        .await;
    load.stop().await.assert_unbroken();
    let told = report(&world).await;
    let canary = &told["evidence"]["canary"];
    for which in ["first_failure", "last_failure"] {
        let id = canary[which]["id"].as_str().expect("an id");
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        until("the request is in the access log", || async { log().iter().any(|line| line["request_id"] == id) }).await;
        let all = log();
        let lines: Vec<&Value> = all.iter().filter(|line| line["request_id"] == id).collect();
        assert_eq!(lines.len(), 1, "{id}");
        // Its client saw stable's answer, the second attempt.
        assert_eq!(
            (&lines[0]["status"], &lines[0]["version"], &lines[0]["attempts"]),
            (&json!(200), &json!("v1"), &json!(2))
        );
        assert_eq!(canary[which]["status"], 503);
    }
    assert!(told["evidence"]["shielded"].as_u64().unwrap() >= 3, "{told}");
    // A client's own name is kept, made fit for a log.
    let mut client = world.client();
    client.get_with("/", &[("x-request-id", "4bf92f35-\"77b3\" da6")]).await;
    until("it is logged", || async { log().iter().any(|line| line["request_id"] == "4bf92f35-\"77b3\"_da6") }).await;
    let sent = v2.received();
    assert!(sent.iter().all(|request| request.field("x-request-id").is_none()), "a made id is not sent on");
}

#[tokio::test]
async fn a_deadline_that_passes_is_found_by_its_id_too() {
    let (world, _v1, v2) = two(&format!("{SLOW}\n  shield: false\ntimeouts: {{ request: 1s }}")).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    v2.set(Fault::Hang);
    let asked = ask_until_it_ends(&world).await;
    let late: Vec<&str> = asked.iter().filter(|(_, seen)| seen.status == 504).map(|(id, _)| &**id).collect();
    let told = report(&world).await;
    let canary = &told["evidence"]["canary"];
    assert_eq!((&canary["first_failure"]["id"], &canary["first_failure"]["status"]), (&json!(late[0]), &json!(0)));
    assert_eq!(canary["last_failure"]["id"], late[late.len() - 1]);
    let text = world.cli(&["rollout", "report", "shop"]).await.ok().out;
    assert!(text.contains("no answer"), "{text}");
}

#[tokio::test]
async fn what_operators_say_is_told_with_who_and_why() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    let rollout = "rollout:\n  stages: [10%, { weight: 50%, approve: sre, hold: 1h }, 100%]\n  promote_when: { hold: 1s, promote_on_time: true }";
    let text = one_service(&[&v1, &v2], &format!("active: v1\n{rollout}"));
    world.start(&format!("gates: {{ sre: {{ approvers: [ada] }} }}\n{text}")).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    world.cli(&["rollout", "pause", "shop", "--reason", "<script>alert('x')</script>"]).await.ok();
    world.cli(&["rollout", "resume", "shop"]).await.ok();
    let load = Load::start(world.web(), &Plan::default());
    until("it waits", || async { world.service_status("shop").await["rollout"]["phase"] == "waiting" }).await;
    load.stop().await.assert_unbroken();
    world.cli(&["rollout", "approve", "shop", "--by", "ada", "--comment", "fine by me"]).await.ok();
    until_stage(&world, 2).await;
    world.edit_and_wait(|text| text.replace("active: v2", "active: v1")).await;
    let told = report(&world).await;
    assert_eq!(words(&told), ["start", "advance", "pause", "resume", "wait", "approve", "advance", "superseded"]);
    for (word, reason, part) in [
        ("pause", "operator", "<script>"),
        ("resume", "operator", "begins anew"),
        ("wait", "gate", "gate sre"),
        ("approve", "gate", "fine by me"),
        ("superseded", "file", "file decides"),
    ] {
        let one = decision(&told, word);
        assert_eq!(one["reason"], reason, "{one}");
        assert!(format!("{} {}", one["why"], one["cause"]).contains(part), "{part}: {one}");
    }
    assert!(decision(&told, "pause")["author"].as_str().unwrap().starts_with("admin:"), "{told}");
    assert_eq!(decision(&told, "approve")["share"], 0.1, "what it had when somebody said yes");

    let file = world.path("report.html");
    let shown = world.cli(&["rollout", "report", "shop", "--format", "html", "-o", file.to_str().unwrap()]).await.ok();
    assert_eq!(shown.out, "");
    let page = std::fs::read_to_string(&file).unwrap();
    assert_eq!(page.matches("<svg").count(), 4, "share, failures, latency, evidence");
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script"), "a reason is text");
    let page = page.replace("http://www.w3.org/1999/xhtml", "");
    for word in ["http://", "https://", "src=", "href=", "url("] {
        assert!(!page.contains(word), "{word} loads something");
    }
    assert_tags_match(&page);
}

/// Every tag that is opened is closed, in the right order.
fn assert_tags_match(page: &str) {
    let mut open = Vec::new();
    for piece in page.split('<').skip(2) {
        let (tag, _) = piece.split_once('>').expect("a tag ends");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name.to_string())),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split_whitespace().next().expect("a name").to_string()),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[tokio::test]
async fn before_any_rollout_the_report_says_so() {
    let (world, _v1, _v2) = two(SLOW).await;
    let refused = world.cli(&["rollout", "report", "shop"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.err.contains("`shop` has had no rollout yet") && refused.err.contains("rollout start"),
        "{refused:?}"
    );
    // A configuration that is refused begins none either.
    let taken = std::net::TcpListener::bind(world.unused()).unwrap();
    let more = format!("listeners:\n  more: {{ bind: \"{}\" }}\n", taken.local_addr().unwrap());
    world.edit_config(|text| to_v2(text).replace("listeners:\n", &more));
    until("the edit is refused", || async { world.status().await["config"]["last_reload_successful"] == false }).await;
    assert_eq!(world.cli(&["rollout", "report", "shop"]).await.code, Some(1));
    let refused = world.cli(&["rollout", "report", "shpo"]).await;
    assert!(refused.code == Some(1) && refused.err.contains("did you mean `shop`"), "{refused:?}");
}

#[tokio::test]
async fn a_full_disk_stops_no_rollback_and_its_story_is_written_later() {
    let (mut world, _v1, v2) = two(SLOW).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    world.fill_the_disk();
    v2.set(Fault::Reset);
    ask_until_it_ends(&world).await;
    let told = report(&world).await;
    assert_eq!(decision(&told, "rollback")["reason"], "errors");
    world.empty_the_disk();
    until("the journal is written again", || async {
        !world.status().await["warnings"].to_string().contains("journal")
    })
    .await;
    world.kill_9();
    world.restart().await;
    assert_eq!(words(&report(&world).await), words(&told));
}
