//! I13: every published generation can be explained: who or what, when, why.

use serde_json::{Value, json};

use crate::harness::*;

#[tokio::test]
async fn i13_every_publish_is_explained() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    world.switch("shop", "v2").await;
    world.weights("shop", json!({ "v1": 1, "v2": 3 })).await;
    world.rollback("shop").await;
    world.edit_and_wait(|text| text.replace("active: v1", "split: { v1: 1, v2: 1 }")).await;
    world.cli(&["switch", "shop", "v1"]).await.ok();
    let live = world.generation().await;
    let check = |generations: &Value| {
        let all = generations.as_array().unwrap();
        let numbers: Vec<u64> = all.iter().map(|one| one["number"].as_u64().unwrap()).collect();
        let newest = numbers[0];
        assert!(newest >= live);
        assert_eq!(numbers, (1..=newest).rev().collect::<Vec<_>>(), "none is missing");
        for one in all {
            for field in ["hash", "author", "cause"] {
                assert!(one[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {one}");
            }
            assert!(one["at"].as_u64().unwrap() > 1_600_000_000_000, "{one}");
            assert!(one["splits"]["shop"].is_object(), "{one}");
        }
    };
    let generations = world.admin_get("/api/v1/generations").await.json();
    check(&generations);
    let causes: Vec<String> = generations.as_array().unwrap().iter().map(|one| one["cause"].to_string()).collect();
    for word in ["switch", "weights", "roll"] {
        assert!(causes.iter().any(|cause| cause.contains(word)), "{word} in {causes:?}");
    }
    let authors: Vec<String> = generations.as_array().unwrap().iter().map(|one| one["author"].to_string()).collect();
    assert!(authors.iter().any(|author| author.contains("file")), "{authors:?}");
    assert!(authors.iter().any(|author| author.contains("uid-")), "{authors:?}");
    // Each has its event, and each call its line in the audit.
    let events = world.events().await;
    let published = events.iter().filter(|event| event["kind"] == "publish").count() as u64;
    assert!(published >= live - 1, "{published} publish events for generation {live}");
    let audit = world.admin_get("/api/v1/audit").await.json();
    let actions: Vec<String> = audit.as_array().unwrap().iter().map(|one| one["action"].to_string()).collect();
    assert!(actions.len() >= 4, "{actions:?}");
    // After a restart the explanation is still there.
    world.kill_9();
    world.restart().await;
    check(&world.admin_get("/api/v1/generations").await.json());
}
