//! What an observer outside sees of a rollback, by the clients' own clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::load::{Plan, Report};
use crate::harness::*;

/// A canary at 5 % that fails so many of its requests; what the clients saw, and the receipt.
async fn rolled_back(fault: Fault, shield: bool) -> (World, Report, Value) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    v1.stop_recording();
    v2.stop_recording();
    v2.set(fault);
    let rollout =
        format!("active: v1\nrollout: {{ stages: [5%, 100%], shield: {shield}, promote_when: {{ hold: 1h }} }}");
    world.start(&one_service(&[&v1, &v2], &rollout)).await;
    let plan = Plan { keep_alive: 16, fresh: 0, think: Duration::from_millis(2), ..Plan::default() };
    let load = Load::start(world.web(), &plan);
    load.more(200).await;
    world.edit_config(|text| text.replace("active: v1", "active: v2"));
    within(Duration::from_secs(60), "v2 goes back by itself", || async {
        world.service_status("shop").await["rollout"]["phase"] == "rolled_back"
    })
    .await;
    load.more(500).await;
    let report = load.stop().await;
    let events = world.events().await;
    let receipts = events.iter().filter(|event| event["kind"] == "receipt").map(|event| event["data"].clone());
    let receipt =
        receipts.into_iter().find(|receipt| receipt["cause"].as_str().is_some_and(|why| why.starts_with("rollback")));
    (world, report, receipt.expect("there is a receipt"))
}

/// Microseconds since the Unix epoch at which the last request that v2 answered was sent.
fn last_of_v2(report: &Report) -> u64 {
    let (now, clock) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970"));
    let last = report.shots.iter().filter(|shot| shot.version == "v2").map(|shot| shot.started).max();
    (clock - now.duration_since(last.expect("v2 answered some"))).as_micros() as u64
}

#[tokio::test]
async fn versions_that_fail_all_half_or_few_of_their_requests_go_back_and_no_client_sees_it() {
    for (what, fault, most) in [
        ("all", Fault::Status(500), 60),
        ("half", Fault::StatusEvery(2, 500), 120),
        ("one in twenty", Fault::StatusEvery(20, 500), 1_500),
    ] {
        let (world, report, receipt) = rolled_back(fault, true).await;
        report.assert_unbroken();
        let rollout = &world.service_status("shop").await["rollout"];
        let judged = rollout["meters"]["canary_requests"].as_u64().expect("a count");
        assert!(judged <= most, "{what}: {judged} canary requests were needed");
        assert_eq!(receipt["to"]["shop"], json!({ "v1": 1 }), "{what}: {receipt}");
    }
}

#[tokio::test]
async fn the_receipt_says_what_the_clients_clocks_say() {
    for fault in [Fault::Status(500), Fault::StatusEvery(2, 500)] {
        let (_world, report, receipt) = rolled_back(fault, false).await;
        let micros = |key: &str| receipt[key].as_u64().expect("a number");
        // Milliseconds, rounded down: it may have been almost one later.
        let triggered = micros("triggered_at") * 1_000 + 1_000;
        let last_by_receipt = triggered + micros("last_old_start_micros");
        // Clients note the time before they send, so none of v2's may be later than the proxy's own word.
        let last = last_of_v2(&report);
        assert!(
            last <= last_by_receipt,
            "v2 answered a request sent {} us too late: {receipt}",
            last - last_by_receipt
        );
        // And the proxy does not claim less than was seen: the trigger is not before the failures it answers to.
        assert!(last + 1_000_000 > triggered, "the trigger is {} us after v2's last", triggered - last);
    }
}
