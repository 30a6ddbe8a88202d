//! I8: every weight has one owner, and the owner is shown.

use serde_json::json;

use crate::harness::*;

#[tokio::test]
async fn i8_owner_shown() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    let file = world.service_status("shop").await;
    assert_eq!(file["owner"], "file");
    assert_eq!(file["intent"], file["effective"]);

    world.weights("shop", json!({ "v1": 70, "v2": 30 })).await;
    let overlaid = world.service_status("shop").await;
    assert_ne!(overlaid["owner"], "file");
    assert!(overlaid["owner_cause"].as_str().unwrap().contains("70"), "{overlaid}");
    assert!(overlaid["owner_since"].as_u64().is_some());
    assert_eq!(overlaid["effective"], json!({ "v1": 70, "v2": 30 }));
    assert_eq!(overlaid["intent"]["v1"], file["intent"]["v1"], "the file still says what it says");
    let effective = world.admin_get("/api/v1/config/effective").await.text();
    assert!(
        effective.contains(overlaid["owner"].as_str().unwrap()),
        "the effective configuration names it: {effective}"
    );

    // An unrelated edit keeps the overlay.
    world.reload_with_route(1).await;
    assert_eq!(world.service_status("shop").await["effective"], json!({ "v1": 70, "v2": 30 }));
    // An edit of this service's split wins.
    world.edit_and_wait(|text| text.replace("active: v1", "active: v2")).await;
    let edited = world.service_status("shop").await;
    assert_eq!(edited["owner"], "file");
    assert_eq!(edited["effective"]["v2"], edited["intent"]["v2"]);
    assert_eq!(world.get("/").await.origin(), Some("v2"));
    // The operator gives it back.
    world.switch("shop", "v1").await;
    assert_ne!(world.service_status("shop").await["owner"], "file");
    world.order("services/shop/clear", json!({})).await;
    assert_eq!(world.service_status("shop").await["owner"], "file");
    assert_eq!(world.get("/").await.origin(), Some("v2"));
}
