//! Who is asked before a rollout goes on, who is told what it did, and what Prometheus says of it.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::load::Plan;
use crate::harness::origin::Received;
use crate::harness::rollouts::*;
use crate::harness::*;

/// Stages that need little time and no proof.
const QUICK: &str = "rollout:\n  stages: [25%, 50%, 100%]\n  promote_when: { hold: 500ms, promote_on_time: true }";
/// Stages that nothing but an operator ends.
const SLOW: &str = "rollout:\n  stages: [5%, 100%]\n  promote_when: { hold: 1h }";

fn load(world: &World) -> Load {
    Load::start(world.web(), &Plan { keep_alive: 8, fresh: 1, think: Duration::from_micros(500), ..Plan::default() })
}

/// `v1` is active, `more` is its rollout, `top` stands beside the services.
async fn start(world: &mut World, top: &str, more: &str) -> (Origin, Origin) {
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    v1.stop_recording();
    v2.stop_recording();
    world.start(&format!("{top}{}", one_service(&[&v1, &v2], &format!("active: v1\n{more}")))).await;
    (v1, v2)
}

fn body(received: &Received) -> Value {
    assert!(received.complete, "{received:?}");
    serde_json::from_slice(&received.body).unwrap_or_else(|why| panic!("{why}: {received:?}"))
}

fn bodies(origin: &Origin) -> Vec<Value> {
    origin.received().iter().map(body).collect()
}

async fn until_received(origin: &Origin, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until(what, || async { bodies(origin).iter().any(&wanted) }).await;
    bodies(origin).into_iter().find(|body| wanted(body)).expect("it was there a moment ago")
}

/// A webhook that only says where and when.
fn hook(at: &Origin, on: &str, more: &str) -> String {
    format!("\n  webhooks: [{{ url: \"http://{}/canary?token=t0ken\", on: {on}{more} }}]", at.address)
}

#[tokio::test]
async fn a_stage_begins_when_its_webhook_says_yes_and_a_no_pauses_until_somebody_resumes() {
    let mut world = World::new();
    let (gate, people) = (world.origin("gate").await, world.origin("people").await);
    gate.set(Fault::Bytes(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nfrozen".to_vec()));
    let top = format!("notifications: {{ people: {{ webhook: {{ url: \"http://{}/n\" }} }} }}\n", people.address);
    let _versions = start(&mut world, &top, &format!("{SLOW}{}", hook(&gate, "before_stage", ""))).await;
    world.edit_config(to_v2);
    let paused = until_phase(&world, "paused").await;
    let why = paused["why"].to_string();
    assert!(why.contains(&format!("http://{}/canary: it answered 403 Forbidden: frozen", gate.address)), "{why}");
    assert!(!why.contains("t0ken"), "{why}");
    assert_eq!(paused["stage"], 0, "no client has seen it: {paused}");
    assert_eq!(world.service_status("shop").await["effective"], json!({ "v1": 1 }));
    let asked = gate.received();
    assert_eq!(asked.len(), 1, "a 4xx is a final answer");
    assert_eq!(asked[0].line, "POST /canary?token=t0ken HTTP/1.1");
    assert_eq!(asked[0].field("x-switchback-signature"), None, "there is no key");
    let told = body(&asked[0]);
    let facts = ["point", "service", "version", "stable", "stage", "stages"].map(|key| told[key].clone());
    assert_eq!(
        facts,
        ["before_stage", "shop", "v2", "v1"]
            .map(Value::from)
            .into_iter()
            .chain([1.into(), 2.into()])
            .collect::<Vec<_>>()[..]
    );
    until_received(&people, "people are told", |notice| notice["kind"] == "failed").await;

    gate.set(Fault::None);
    world.cli(&["rollout", "resume", "shop"]).await.ok();
    until_stage(&world, 1).await;
    assert_eq!(gate.received().len(), 2, "asked again, once");
    until_received(&people, "people are told", |notice| notice["kind"] == "advanced").await;
    let events = world.events().await;
    let said: Vec<&Value> =
        events.iter().filter(|event| event["kind"] == "webhook").map(|event| &event["data"]["result"]).collect();
    assert_eq!(said, ["refused", "granted"], "and later one can see why");
    let kinds: Vec<Value> = bodies(&people).iter().map(|notice| notice["kind"].clone()).collect();
    assert_eq!(kinds, ["started", "failed", "resumed", "advanced"]);
}

#[tokio::test]
async fn a_webhook_that_hangs_talks_nonsense_or_is_not_there_is_a_no() {
    for (fault, want) in [
        (Some(Fault::Hang), "no answer within 200ms (tried 2 times)"),
        (Some(Fault::Bytes(b"\x00\x01 what?\r\n\r\n".to_vec())), "invalid HTTP"),
        (Some(Fault::Bytes(b"HTTP/1.1 302 Found\r\nLocation: /yes\r\nContent-Length: 0\r\n\r\n".to_vec())), "302"),
        (Some(Fault::Status(500)), "500 Internal Server Error"),
        (None, "refused"),
    ] {
        let mut world = World::new();
        let gate = world.origin("gate").await;
        match fault {
            Some(fault) => gate.set(fault),
            None => gate.refuse().await,
        }
        let more = hook(&gate, "before_stage", ", timeout: 200ms, attempts: 2");
        let _versions = start(&mut world, "", &format!("{SLOW}{more}")).await;
        world.edit_config(to_v2);
        let paused = until_phase(&world, "paused").await;
        assert!(paused["why"].to_string().contains(want), "{paused} instead of {want}");
        assert_eq!(paused["stage"], 0, "{paused}");
        let refused = [("service", "shop"), ("point", "before_stage"), ("result", "refused")];
        assert_eq!(world.metric("switchback_webhooks_total", &refused).await, 1.0);
    }
}

#[tokio::test]
async fn after_each_stage_and_before_the_end_somebody_is_asked_and_waited_for() {
    let mut world = World::new();
    let gate = world.origin("gate").await;
    let more = hook(&gate, "[after_stage, before_promote]", ", timeout: 10s, attempts: 2");
    let _versions = start(&mut world, "", &format!("{QUICK}{more}")).await;
    let load = load(&world);
    gate.set(Fault::CloseUnansweredAfter(0));
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    // The first try is broken off, the second is answered.
    until("asked after stage 1", || async { !gate.received().is_empty() }).await;
    gate.set(Fault::None);
    until_stage(&world, 2).await;
    gate.set(Fault::None);
    until_stage(&world, 3).await;
    until_phase(&world, "promoted").await;
    load.stop().await.assert_unbroken();
    let mut asked: Vec<(String, u64)> = bodies(&gate)
        .iter()
        .map(|body| (body["point"].as_str().unwrap().to_owned(), body["stage"].as_u64().unwrap()))
        .collect();
    asked.dedup();
    let want = [("after_stage", 1), ("after_stage", 2), ("after_stage", 3), ("before_promote", 3)];
    assert_eq!(asked, want.map(|(point, stage)| (point.to_owned(), stage)));
}

#[tokio::test]
async fn nothing_moves_on_while_a_webhook_thinks_and_a_restart_asks_again() {
    let mut world = World::new();
    let gate = world.origin("gate").await;
    gate.set(Fault::Hang);
    let _versions = start(&mut world, "", &format!("{SLOW}{}", hook(&gate, "before_stage", ", timeout: 60s"))).await;
    world.edit_config(to_v2);
    until("it is asked", || async { gate.requests() == 1 }).await;
    let waits = rollout(&world).await;
    assert_eq!((&waits["phase"], &waits["stage"]), (&json!("staged"), &json!(0)), "{waits}");
    until("status says so", || async { rollout(&world).await["why"].to_string().contains("have not answered") }).await;
    world.kill_9();
    world.restart().await;
    until("it is asked again", || async { gate.requests() == 2 }).await;
    // What is asked follows the configuration.
    gate.set(Fault::None);
    world.edit_config(|text| text.replace("timeout: 60s", "timeout: 59s"));
    until_stage(&world, 1).await;
    assert_eq!(gate.requests(), 3);
}

#[tokio::test]
async fn an_answer_for_a_rollout_that_has_ended_changes_nothing() {
    let mut world = World::new();
    let gate = world.origin("gate").await;
    gate.set(Fault::Hang);
    let _versions = start(&mut world, "", &format!("{SLOW}{}", hook(&gate, "before_stage", ", timeout: 60s"))).await;
    world.edit_config(to_v2);
    until("it is asked", || async { gate.requests() == 1 }).await;
    world.cli(&["rollout", "abort", "shop"]).await.ok();
    until("the question is withdrawn", || async { gate.open() == 0 }).await;
    assert_eq!(rollout(&world).await["phase"], "rolled_back");
}

#[tokio::test]
async fn a_rollback_is_told_to_its_webhook_signed_and_as_often_as_it_takes() {
    let mut world = World::new();
    let told = world.origin("told").await;
    told.set(Fault::Status(503));
    std::fs::write(world.path("key"), "s3cr3t\n").unwrap();
    let more = hook(&told, "on_rollback", ", secret_file: key, attempts: 8");
    let (_v1, v2) = start(&mut world, "", &format!("{SLOW}{more}")).await;
    v2.set(Fault::Status(500));
    let load = load(&world);
    world.edit_config(to_v2);
    // The rollback waits for nobody.
    until_phase(&world, "rolled_back").await;
    until("a first try", || async { !told.received().is_empty() }).await;
    told.set(Fault::None);
    let sent = [("channel", "webhooks"), ("result", "sent")];
    until("it is delivered", || async { world.metric("switchback_notices_total", &sent).await == 1.0 }).await;
    load.stop().await.assert_unbroken();
    let received = told.received();
    assert!(received.len() >= 2);
    for one in &received {
        assert_eq!(one.field("x-switchback-delivery"), received[0].field("x-switchback-delivery"));
        let signature = one.field("x-switchback-signature").expect("signed");
        let (at, hex) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("t and v1");
        let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cr3t").unwrap();
        mac.update(&[at.as_bytes(), b".", &one.body].concat());
        let want: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, want);
    }
    let call = body(&received[0]);
    assert_eq!((&call["point"], &call["version"], &call["share"]), (&json!("on_rollback"), &json!("v2"), &json!(0.05)));
    assert_eq!(call["evidence"]["reason"], "errors", "{call}");
}

#[tokio::test]
async fn a_webhook_that_cannot_be_told_of_a_rollback_is_told_to_people() {
    let mut world = World::new();
    let people = world.origin("people").await;
    let top =
        format!("notifications: {{ people: {{ webhook: {{ url: \"http://{}/n\" }}, on: failed }} }}\n", people.address);
    let nobody = world.unused();
    let more = format!("\n  webhooks: [{{ url: \"http://{nobody}/x\", on: on_rollback, attempts: 1 }}]");
    let _versions = start(&mut world, &top, &format!("{SLOW}{more}")).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    world.cli(&["rollout", "abort", "shop", "--reason", "complaints"]).await.ok();
    let notice = until_received(&people, "people are told", |notice| notice["kind"] == "failed").await;
    let message = notice["message"].as_str().unwrap();
    assert!(message.contains(&format!("http://{nobody}/x was not told of the rollback of v2")), "{message}");
    assert_eq!(bodies(&people).len(), 1, "of nothing else");
}

#[tokio::test]
async fn everybody_is_told_of_a_rollback_in_their_own_words_and_of_its_end() {
    let mut world = World::new();
    let (slack, pager, alerts, log) =
        (world.origin("slack").await, world.origin("pager").await, world.origin("am").await, world.origin("log").await);
    let silent = world.origin("silent").await;
    silent.set(Fault::Hang);
    std::fs::write(world.path("slack"), format!("http://{}/services/T0/B0/XyZ\n", slack.address)).unwrap();
    std::fs::write(world.path("routing"), "R0UT1NGKEYR0UT1NGKEYR0UT1NGKEY00").unwrap();
    let top = format!(
        "notifications:\n  chat: {{ slack: {{ url_file: slack }} }}\n  pager: {{ pagerduty: {{ routing_key_file: routing, url: \
         \"http://{}/v2/enqueue\", source: eu-1 }} }}\n  am: {{ alertmanager: {{ url: \"http://{}/\" }}, on: rolled_back }}\n  \
         log: {{ webhook: {{ url: \"http://{}/log\" }} }}\n  silent: {{ webhook: {{ url: \"http://{}/\" }} }}\n  not-asked: {{ webhook: \
         {{ url: \"http://{}/never\" }} }}\n",
        pager.address, alerts.address, log.address, silent.address, log.address
    );
    let (_v1, v2) = start(&mut world, &top, &format!("{SLOW}\n  notify: [silent, chat, pager, am, log]")).await;
    v2.set(Fault::Status(500));
    let load = self::load(&world);
    world.edit_config(to_v2);
    until_phase(&world, "rolled_back").await;
    load.stop().await.assert_unbroken();

    let notice = until_received(&log, "the log is told", |notice| notice["kind"] == "rolled_back").await;
    let facts = ["service", "version", "stable", "stage", "stages", "key"].map(|key| &notice[key]);
    let want = [json!("shop"), json!("v2"), json!("v1"), json!(1), json!(2), json!("switchback/shop/v2")];
    assert_eq!(facts, want.each_ref());
    assert!(notice["evidence"]["meters"]["canary"]["failed"].as_u64().unwrap() >= 3, "{notice}");

    let text = |message: &Value| message["text"].as_str().unwrap_or_default().to_owned();
    let message = until_received(&slack, "Slack is told", |message| text(message).contains("rollback v2")).await;
    assert!(text(&message).starts_with(":rotating_light: shop: rollback v2: "), "{message}");
    assert_eq!(message["blocks"][0]["text"]["type"], "mrkdwn");
    assert_eq!(slack.last().line, "POST /services/T0/B0/XyZ HTTP/1.1");

    let trigger = until_received(&pager, "the pager is told", |event| event["event_action"] == "trigger").await;
    assert_eq!(bodies(&pager).len(), 1, "nothing but the alarm");
    assert_eq!(trigger["routing_key"], "R0UT1NGKEYR0UT1NGKEYR0UT1NGKEY00");
    assert_eq!(trigger["dedup_key"], "switchback/shop/v2");
    let payload = &trigger["payload"];
    assert_eq!((&payload["severity"], &payload["source"]), (&json!("error"), &json!("eu-1")), "{trigger}");
    assert!(payload["summary"].as_str().unwrap().starts_with("shop: rollback v2: "), "{trigger}");

    let fires = until_received(&alerts, "Alertmanager is told", |alerts| alerts[0]["startsAt"].is_string()).await;
    assert_eq!(alerts.last().line, "POST /api/v2/alerts HTTP/1.1");
    assert_eq!(fires[0]["labels"]["version"], "v2");

    // A restart does not forget what is open; the next start closes it.
    world.terminate().await;
    world.restart().await;
    v2.set(Fault::None);
    world.cli(&["rollout", "start", "shop", "--again"]).await.ok();
    let resolve = until_received(&pager, "the pager hears the end", |event| event["event_action"] == "resolve").await;
    assert_eq!(resolve["dedup_key"], "switchback/shop/v2");
    let ends = until_received(&alerts, "the alert ends", |alerts| alerts[0]["startsAt"].is_null()).await;
    assert_eq!(ends[0]["labels"], fires[0]["labels"]);
    assert!(ends[0]["endsAt"].as_str() < fires[0]["endsAt"].as_str(), "{ends}");
    assert!(log.received().iter().all(|one| one.target() == "/log"), "who is not named is not told");
    until("it is counted", || async {
        world.metric("switchback_notices_total", &[("channel", "pager"), ("result", "sent")]).await == 1.0
    })
    .await;
    // What is secret is in no log, status or event.
    let seen = format!("{}{}{:?}", world.log(), world.status().await, world.events().await);
    assert!(!seen.contains("XyZ") && !seen.contains("R0UT1NG"), "a secret was shown");
    let shown = world.cli(&["config", "effective"]).await.ok().out;
    assert!(!shown.contains("XyZ") && !shown.contains("R0UT1NG"), "{shown}");
}

#[tokio::test]
async fn what_operators_do_opens_no_alarm_and_ends_one() {
    let mut world = World::new();
    let (pager, log) = (world.origin("pager").await, world.origin("log").await);
    std::fs::write(world.path("routing"), "key").unwrap();
    let top = format!(
        "notifications:\n  pager: {{ pagerduty: {{ routing_key_file: routing, url: \"http://{}/\" }} }}\n  log: {{ webhook: {{ url: \
         \"http://{}/\" }} }}\n",
        pager.address, log.address
    );
    let (_v1, v2) =
        start(&mut world, &top, &format!("{SLOW}\n  shield: false\n  guardrails: {{ errors: {{ then: pause }} }}"))
            .await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    world.cli(&["rollout", "pause", "shop", "--reason", "lunch"]).await.ok();
    world.cli(&["rollout", "resume", "shop"]).await.ok();
    until_received(&log, "all is told", |notice| notice["kind"] == "resumed").await;
    assert_eq!(bodies(&pager), Vec::<Value>::new(), "nobody is paged for lunch");
    v2.set(Fault::Status(500));
    let load = self::load(&world);
    until_received(&pager, "an alarm", |event| event["payload"]["severity"] == "warning").await;
    load.stop().await;
    world.cli(&["rollout", "abort", "shop"]).await.ok();
    until_received(&pager, "its end", |event| event["event_action"] == "resolve").await;
    assert_eq!(bodies(&pager).len(), 2);
}

/// An alarm of `v2` is open at `pager` and `am`, and nobody asks for anything any more; `log` is not told.
async fn alarmed(rollout: &str) -> (World, [Origin; 5]) {
    let mut world = World::new();
    let (pager, am, log) = (world.origin("pager").await, world.origin("am").await, world.origin("log").await);
    std::fs::write(world.path("routing"), "key").unwrap();
    let top = format!(
        "shutdown: {{ pre_drain: 0s, linger: 0s, timeout: 5s }}\nnotifications:\n  pager: {{ pagerduty: {{ routing_key_file: \
         routing, url: \"http://{}/\" }} }}\n  am: {{ alertmanager: {{ url: \"http://{}/\" }} }}\n  log: {{ webhook: {{ url: \"http://{}/\" }} }}\n",
        pager.address, am.address, log.address
    );
    let (v1, v2) = start(&mut world, &top, rollout).await;
    v2.set(Fault::Status(500));
    let load = self::load(&world);
    world.edit_config(to_v2);
    until_received(&pager, "an alarm", |event| event["event_action"] == "trigger").await;
    until_received(&am, "an alert", |alerts| alerts[0]["startsAt"].is_string()).await;
    load.stop().await;
    (world, [v1, v2, pager, am, log])
}

async fn until_resolved(pager: &Origin, am: &Origin) {
    let event = until_received(pager, "the pager hears the end", |event| event["event_action"] == "resolve").await;
    assert_eq!(event["dedup_key"], "switchback/shop/v2");
    let alerts = until_received(am, "the alert ends", |alerts| alerts[0]["startsAt"].is_null()).await;
    assert_eq!(alerts[0]["labels"]["version"], "v2");
    assert_eq!((bodies(pager).len(), bodies(am).len()), (2, 2), "once");
}

/// How a rollout goes out of the file: its `rollout:` or its service.
fn without_rollout(text: String) -> String {
    let (before, _) = text.split_once("    rollout:\n").expect("it has one, at the end");
    before.into()
}

fn without_service(text: String) -> String {
    text.replace("shop", "store")
}

#[tokio::test]
async fn an_alarm_ends_when_what_it_is_about_goes_out_of_the_file() {
    let rolls_back = format!("{SLOW}\n  notify: [pager, am]");
    let pauses = format!("{rolls_back}\n  shield: false\n  guardrails: {{ errors: {{ then: pause }} }}");
    for rollout in [&rolls_back, &pauses] {
        for edit in [without_rollout, without_service] {
            let (world, [_v1, _v2, pager, am, log]) = alarmed(rollout).await;
            world.edit_and_wait(edit).await;
            until_resolved(&pager, &am).await;
            assert_eq!(bodies(&log), Vec::<Value>::new(), "who was not named is not told");
        }
    }
}

#[tokio::test]
async fn an_alarm_ends_when_what_it_is_about_went_out_of_the_file_while_nobody_looked() {
    for edit in [without_rollout, without_service] {
        let (mut world, [_v1, _v2, pager, am, log]) = alarmed(&format!("{SLOW}\n  notify: [pager, am]")).await;
        world.terminate().await;
        world.edit_config(edit);
        world.restart().await;
        until_resolved(&pager, &am).await;
        assert_eq!(bodies(&log), Vec::<Value>::new(), "who was not named is not told");
        // And that it was told is not forgotten.
        world.terminate().await;
        world.restart().await;
        until("the second start is over", || async { world.generation().await > 0 }).await;
        world.terminate().await;
        assert_eq!((bodies(&pager).len(), bodies(&am).len()), (2, 2), "once");
    }
}

#[tokio::test]
async fn services_of_a_group_say_with_whom_they_went_back_and_an_operator_pages_nobody() {
    let mut world = World::new();
    let pager = world.origin("pager").await;
    let origins =
        [world.origin("v1").await, world.origin("v2").await, world.origin("v1").await, world.origin("v2").await];
    origins.iter().for_each(Origin::stop_recording);
    let [v1, v2, cart_v1, cart_v2] = &origins;
    std::fs::write(world.path("routing"), "key").unwrap();
    let top = format!(
        "notifications: {{ pager: {{ pagerduty: {{ routing_key_file: routing, url: \"http://{}/\" }} }} }}\n",
        pager.address
    );
    let more = "active: v1\nrollout: { group: suite, stages: [50%, 100%], promote_when: { hold: 1h } }";
    let text = one_service(&[v1, v2], more) + &service("cart", &[cart_v1, cart_v2], more);
    let routes = "routes:\n  - { name: cart, match: { path_prefix: /cart }, service: cart }\n";
    world.start(&format!("{top}{}", text.replacen("routes:\n", routes, 1))).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    world.cli(&["rollout", "abort", "cart", "--reason", "complaints"]).await.ok();
    let back = json!(["it goes back with `cart` of its group"]);
    assert_eq!(until_phase(&world, "rolled_back").await["why"], back);
    for name in ["shop", "cart"] {
        world.cli(&["rollout", "start", name, "--again"]).await.ok();
    }
    until_stage(&world, 1).await;
    assert_eq!(bodies(&pager), Vec::<Value>::new(), "nobody is paged for what an operator did");
    cart_v2.set(Fault::Status(500));
    let plan = Plan { keep_alive: 8, think: Duration::from_micros(500), path: "/cart".into(), ..Plan::default() };
    let load = Load::start(world.web(), &plan);
    assert_eq!(until_phase(&world, "rolled_back").await["why"], back);
    load.stop().await;
    until("both are alarms", || async { bodies(&pager).len() == 2 }).await;
    let again = world.cli(&["rollout", "start", "shop"]).await;
    assert!(again.err.contains("`v2` was rejected: it goes back with `cart` of its group"), "{}", again.err);
}

/// What Prometheus answers with one series of this value.
fn prometheus(value: &str) -> Fault {
    let body = format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1795600800.5,"{value}"]}}]}}}}"#
    );
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    Fault::Bytes((head + &body).into_bytes())
}

fn guardrail(at: std::net::SocketAddr, then: &str) -> String {
    format!(
        "\n  guardrails: {{ custom: {{ queue: {{ prometheus: {{ url: \"http://{at}\", query: 'max(depth{{version=\"v2\"}})', max: 100, \
         every: 1s, for: 1s }}, then: {then} }} }} }}"
    )
}

#[tokio::test]
async fn a_query_that_stays_above_its_limit_rolls_back() {
    let mut world = World::new();
    let monitor = world.origin("monitor").await;
    monitor.set(prometheus("7"));
    let _versions = start(&mut world, "", &format!("{SLOW}{}", guardrail(monitor.address, "rollback"))).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    until("it is asked", || async { monitor.received().len() >= 2 }).await;
    assert_eq!(monitor.last().line, "GET /api/v1/query?query=max%28depth%7Bversion%3D%22v2%22%7D%29 HTTP/1.1");
    assert_eq!(rollout(&world).await["phase"], "staged");
    monitor.set(prometheus("101"));
    let ended = until_phase(&world, "rolled_back").await;
    assert!(ended["why"].to_string().contains("queue"), "{ended}");
    // Nobody wants to know any more.
    until("its connections are gone", || async { monitor.open() == 0 }).await;
    let asked = monitor.received().len();
    world.reload_with_route(1).await;
    assert!(monitor.received().len() <= asked + 1);
}

#[tokio::test]
async fn a_prometheus_that_is_down_neither_rolls_back_nor_promotes() {
    let mut world = World::new();
    let monitor = world.origin("monitor").await;
    monitor.refuse().await;
    // Long enough not to be inconclusive meanwhile.
    let rollout_of_one = "rollout:\n  stages: [100%]\n  promote_when: { hold: 5s, promote_on_time: true }";
    let _versions = start(&mut world, "", &format!("{rollout_of_one}{}", guardrail(monitor.address, "rollback"))).await;
    let load = load(&world);
    world.edit_config(to_v2);
    until("nothing else is missing", || async {
        rollout(&world).await["missing"] == json!(["an answer to the query of `queue`"])
    })
    .await;
    until("status says why", || async {
        let why = rollout(&world).await["why"].to_string();
        why.contains("`queue` is not known") && why.contains("refused")
    })
    .await;
    let waits = rollout(&world).await;
    assert_eq!((&waits["phase"], &waits["stage"]), (&json!("staged"), &json!(1)), "{waits}");
    // No data is no number either.
    monitor.set(prometheus("NaN"));
    monitor.reopen().await;
    until("it is asked", || async { !monitor.received().is_empty() }).await;
    until("it is no problem any more", || async { rollout(&world).await["why"] == json!([]) }).await;
    assert_eq!(rollout(&world).await["stage"], 1);
    monitor.set(prometheus("5"));
    until_phase(&world, "promoted").await;
    load.stop().await.assert_unbroken();
}

#[tokio::test]
async fn a_hold_is_told_once() {
    let mut world = World::new();
    let log = world.origin("log").await;
    let top = format!("notifications: {{ log: {{ webhook: {{ url: \"http://{}/\" }}, on: held }} }}\n", log.address);
    let (v1, v2) = start(&mut world, &top, &format!("{SLOW}\n  shield: false")).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    v1.set(Fault::Status(500));
    v2.set(Fault::Status(500));
    let load = load(&world);
    let notice = until_received(&log, "the hold is told", |notice| notice["kind"] == "held").await;
    assert!(notice["message"].as_str().unwrap().contains("stable is no better"), "{notice}");
    load.more(2_000).await;
    load.stop().await;
    assert_eq!(bodies(&log).len(), 1, "once");
}

#[tokio::test]
async fn a_configuration_that_is_refused_begins_no_rollout_and_tells_nobody() {
    let mut world = World::new();
    let log = world.origin("log").await;
    let top = format!("notifications: {{ log: {{ webhook: {{ url: \"http://{}/\" }} }} }}\n", log.address);
    let _versions = start(&mut world, &top, SLOW).await;
    let taken = std::net::TcpListener::bind(world.unused()).unwrap();
    let address = taken.local_addr().unwrap();
    let more = format!("listeners:\n  more: {{ bind: \"{address}\" }}\n");
    world.edit_config(|text| to_v2(text).replace("listeners:\n", &more));
    until("the edit is refused", || async { world.status().await["config"]["last_reload_successful"] == false }).await;
    let status = world.service_status("shop").await;
    assert_eq!((&status["rollout"], &status["effective"]), (&Value::Null, &json!({ "v1": 1 })), "{status}");
    drop(taken);
    let reload = world.admin_post("/api/v1/config/reload", json!({})).await;
    assert_eq!(reload.status, 200, "{reload:?}");
    until_stage(&world, 1).await;
    let started = until_received(&log, "its start is told", |notice| notice["kind"] == "started").await;
    assert_eq!(started["version"], "v2");
}
