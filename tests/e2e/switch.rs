//! Moving traffic by command, call and file; the receipt; the way back.

use serde_json::{Value, json};

use crate::harness::load::Plan;
use crate::harness::*;

async fn blue_green() -> (World, Origin, Origin) {
    let mut world = World::new();
    let (blue, green) = (world.origin("blue").await, world.origin("green").await);
    world.start(&one_service(&[&blue, &green], "active: blue")).await;
    (world, blue, green)
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} of {value}"))
}

#[tokio::test]
async fn the_receipt_is_measured() {
    let (world, _blue, _green) = blue_green().await;
    let load = Load::start(
        world.web(),
        &Plan { keep_alive: 8, fresh: 0, think: std::time::Duration::from_micros(500), ..Plan::default() },
    );
    load.more(50).await;
    let before = world.generation().await;
    let receipt = world.switch("shop", "green").await;
    assert_eq!(number(&receipt, "generation"), before + 1);
    assert_eq!(receipt["changed"], true);
    assert!(number(&receipt["from"]["shop"], "blue") > 0);
    assert!(number(&receipt["to"]["shop"], "green") > 0);
    assert!(receipt["to"]["shop"]["blue"].as_u64().unwrap_or(0) == 0, "{receipt}");
    assert!(receipt["cause"].as_str().unwrap().contains("green"), "{receipt}");
    assert!(!receipt["author"].as_str().unwrap().is_empty());
    assert!(number(&receipt, "published_at") >= number(&receipt, "triggered_at"));
    assert!(number(&receipt, "flip_micros") < 1_000_000, "{receipt}");
    assert!(number(&receipt, "last_old_start_micros") < 1_000_000, "{receipt}");
    load.more(50).await;
    // Asking for what is live already changes nothing and says so.
    let again = world.switch("shop", "green").await;
    assert_eq!((&again["changed"], number(&again, "generation")), (&json!(false), before + 1));
    let back = world.rollback("shop").await;
    assert_eq!(back["to"], receipt["from"]);
    assert_eq!(back["from"], receipt["to"]);
    load.more(50).await;
    load.stop().await.assert_unbroken();
    assert!(world.metric("switchback_flip_seconds_count", &[]).await >= 2.0);
}

#[tokio::test]
async fn command_call_and_file_do_the_same() {
    let (world, _blue, _green) = blue_green().await;
    let live = async || world.get("/").await.origin().unwrap().to_string();
    let ran = world.cli(&["switch", "shop", "green"]).await.ok();
    assert!(ran.out.contains("green"), "{ran:?}");
    assert_eq!(live().await, "green");
    let ran = world.cli(&["rollback", "shop", "--reason", "smoke", "--json"]).await.ok();
    assert!(ran.json()["cause"].as_str().unwrap().contains("smoke"), "{ran:?}");
    assert_eq!(live().await, "blue");
    world.cli(&["weights", "shop", "blue=0", "green=1"]).await.ok();
    assert_eq!(live().await, "green");
    world.switch("shop", "blue").await;
    assert_eq!(live().await, "blue");
    world.edit_and_wait(|text| text.replace("active: blue", "active: green")).await;
    assert_eq!(live().await, "green");
    world.weights("shop", json!({ "blue": 50, "green": 50 })).await;
    world.order("services/shop/drain", json!({ "version": "green" })).await;
    assert_eq!(live().await, "blue");
}

#[tokio::test]
async fn several_services_flip_in_one_generation() {
    let mut world = World::new();
    let names = ["a1", "a2", "b1", "b2"];
    let mut origins = Vec::new();
    for name in names {
        origins.push(world.origin(name).await);
    }
    let text = "routes:\n  - { name: a, match: { path_prefix: /a }, service: a }\n  - { name: b, match: { path_prefix: /b }, service: b }\nservices:\n"
        .to_string()
        + &service("a", &[&origins[0], &origins[1]], "active: a1")
        + &service("b", &[&origins[2], &origins[3]], "active: b1");
    world.start(&text).await;
    let before = world.generation().await;
    let receipt = world.order("switch", json!({ "a": "a2", "b": "b2" })).await;
    assert_eq!(receipt["generation"], before + 1);
    assert!(receipt["to"]["a"].is_object() && receipt["to"]["b"].is_object(), "{receipt}");
    for (path, origin) in [("/a", "a2"), ("/b", "b2")] {
        let seen = world.get(path).await;
        assert_eq!((seen.origin(), seen.generation()), (Some(origin), Some(before + 1)));
    }
    let now = world
        .edit_and_wait(|text| text.replace("active: a1", "active: a2").replace("active: b1", "split: { b1: 1, b2: 1 }"))
        .await;
    assert_eq!(now, before + 2, "one edit, one generation");
    // One name that is wrong, and none of them moves.
    let refused = world.admin_post("/api/v1/switch", json!({ "a": "a1", "b": "b9" })).await;
    assert_eq!(refused.status, 404, "{}", refused.text());
    assert_eq!(world.get("/a").await.origin(), Some("a2"));
}

#[tokio::test]
async fn rollback_is_undoing_step_by_step_or_says_there_is_nothing() {
    let (world, _blue, _green) = blue_green().await;
    let nothing = world.admin_post("/api/v1/services/shop/rollback", json!({})).await;
    assert_eq!(nothing.status, 409, "{}", nothing.text());
    assert_eq!(world.cli(&["rollback", "shop"]).await.code, Some(1));
    world.weights("shop", json!({ "blue": 90, "green": 10 })).await;
    world.weights("shop", json!({ "blue": 50, "green": 50 })).await;
    let back = world.rollback("shop").await;
    assert_eq!(back["to"]["shop"], json!({ "blue": 90, "green": 10 }));
}

#[tokio::test]
async fn unknown_names_and_nonsense_are_told_apart() {
    let (world, _blue, _green) = blue_green().await;
    let before = world.generation().await;
    for (path, body, status, says) in [
        ("services/shopp/switch", json!({ "to": "green" }), 404, "shop"),
        ("services/shop/switch", json!({ "to": "gren" }), 404, "green"),
        ("services/shop/switch", json!({}), 400, "to"),
        ("services/shop/switch", json!({ "to": 1 }), 400, ""),
        ("services/shop/switch", json!({ "to": "green", "now": true }), 400, "now"),
        ("services/shop/weights", json!({ "blue": 0, "green": 0 }), 0, ""),
        ("services/shop/weights", json!({ "red": 1 }), 404, "red"),
        ("services/shop/weights", json!({ "blue": -1, "green": 2 }), 400, ""),
        ("services/shop/drain", json!({ "version": "red" }), 404, "red"),
        ("generations/9999/revert", json!({}), 404, "9999"),
    ] {
        let seen = world.admin_post(&format!("/api/v1/{path}"), body.clone()).await;
        let fits = if status == 0 { (400..500).contains(&seen.status) } else { seen.status == status };
        assert!(fits, "{path} {body}: {} {}", seen.status, seen.text());
        assert_eq!(seen.field("content-type"), Some("application/problem+json"), "{path} {body}");
        assert!(seen.text().contains(says), "{path} {body}: {}", seen.text());
    }
    for arguments in [["switch", "shopp", "green"], ["switch", "shop", "gren"]] {
        let ran = world.cli(&arguments).await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains("did you mean"), "{ran:?}");
    }
    assert_eq!(world.generation().await, before);
}

#[tokio::test]
async fn a_revert_brings_back_file_and_splits_even_with_the_file_gone() {
    let (world, blue, green) = blue_green().await;
    let first = world.generation().await;
    for nth in 0..25 {
        world.reload_with_route(nth).await;
    }
    world.switch("shop", "green").await;
    std::fs::remove_file(world.config()).unwrap();
    let history = world.admin_get("/api/v1/generations").await.json();
    assert!(history.as_array().unwrap().len() >= 20, "{}", history.as_array().unwrap().len());
    let wanted = first + 10;
    let receipt = world.order(&format!("generations/{wanted}/revert"), json!({})).await;
    assert!(number(&receipt, "generation") > wanted);
    assert_eq!(world.get("/").await.origin(), Some("blue"));
    assert_eq!(world.get("/m9").await.text(), "m");
    assert_ne!(world.get("/m20").await.text(), "m", "a route that came later is gone");
    let ran = world.cli(&["revert", &(wanted + 1).to_string()]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    drop((blue, green));
}

#[tokio::test]
async fn many_orders_at_once_are_carried_out_one_after_the_other() {
    let (world, _blue, _green) = blue_green().await;
    let before = world.generation().await;
    let orders = (1..=20u32).map(|nth| world.weights("shop", json!({ "blue": nth, "green": 1000 - nth })));
    let receipts = futures_util::future::join_all(orders).await;
    let mut generations: Vec<u64> = receipts.iter().map(|receipt| number(receipt, "generation")).collect();
    generations.sort_unstable();
    assert_eq!(generations, (before + 1..=before + 20).collect::<Vec<_>>(), "each its own");
    // Each began where another ended.
    let mut from: Vec<String> = receipts.iter().map(|receipt| receipt["from"].to_string()).collect();
    from.sort();
    from.dedup();
    assert_eq!(from.len(), 20);
}
