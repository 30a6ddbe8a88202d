//! Health decides who gets new requests: per endpoint, per version, and never by failing everybody.

use std::time::Duration;

use serde_json::json;

use crate::harness::*;

const CHECK: &str = "health: { path: /healthz, every: 100ms, timeout: 500ms, pass: 2, fail: 2, status: 200-299 }";

async fn checked(split: &str) -> (World, Origin, Origin) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], &format!("{split}\n{CHECK}"))).await;
    world.until_health("v1", "healthy").await;
    world.until_health("v2", "healthy").await;
    (world, v1, v2)
}

#[tokio::test]
async fn an_endpoint_gets_traffic_after_its_first_passes() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    v2.set_health(503);
    world.start(&one_service(&[&v1, &v2], &format!("split: {{ v1: 50, v2: 50 }}\n{CHECK}"))).await;
    world.until_health("v1", "healthy").await;
    assert_ne!(world.health("shop", "v2").await, "healthy");
    for _ in 0..20 {
        let seen = world.get("/").await;
        assert_eq!((seen.status, seen.origin()), (200, Some("v1")));
    }
    assert_eq!(v2.requests(), 0);
    v2.set_health(200);
    world.until_health("v2", "healthy").await;
    until("v2 takes its share", || async { world.get("/").await.origin() == Some("v2") }).await;
}

#[tokio::test]
async fn a_version_without_healthy_endpoints_gives_its_share_away_loudly() {
    let (world, _v1, v2) = checked("split: { v1: 50, v2: 50 }").await;
    v2.set_health(500);
    world.until_health("v2", "failing").await;
    let mut reasons = std::collections::HashSet::new();
    let before = v2.requests();
    for _ in 0..40 {
        let seen = world.get("/").await;
        assert_eq!((seen.status, seen.origin()), (200, Some("v1")));
        reasons.insert(seen.reason().unwrap().to_string());
    }
    assert_eq!(v2.requests(), before);
    assert!(reasons.contains("fallback-unhealthy"), "{reasons:?}");
    assert_eq!(world.metric("switchback_endpoint_healthy", &[("version", "v2")]).await, 0.0);
    assert_eq!(world.metric("switchback_endpoint_healthy", &[("version", "v1")]).await, 1.0);
    assert!(world.events().await.iter().any(|event| event["kind"] == "health" && event["version"] == "v2"));
    assert!(world.log().contains("v2"), "and the log says it");
    v2.set_health(200);
    world.until_health("v2", "healthy").await;
    until("it takes its share again", || async { world.get("/").await.origin() == Some("v2") }).await;
}

#[tokio::test]
async fn when_all_are_unhealthy_all_are_asked() {
    let (world, v1, v2) = checked("split: { v1: 50, v2: 50 }\nhold: { max_wait: 0s }").await;
    v1.set_health(500);
    v2.set_health(500);
    world.until_health("v1", "failing").await;
    world.until_health("v2", "failing").await;
    for _ in 0..10 {
        let seen = world.get("/").await;
        assert_eq!((seen.status, seen.reason()), (200, Some("panic")), "a failing check is no reason for 503");
    }
}

#[tokio::test]
async fn a_switch_to_an_unhealthy_version_is_refused_unless_forced() {
    let (world, _v1, v2) = checked("active: v1").await;
    v2.set_health(500);
    world.until_health("v2", "failing").await;
    let before = world.generation().await;
    let refused = world.admin_post("/api/v1/services/shop/switch", json!({ "to": "v2" })).await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.text().contains("v2"), "{}", refused.text());
    let ran = world.cli(&["switch", "shop", "v2"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("v2") && ran.err.contains("health"), "{ran:?}");
    assert_eq!(world.generation().await, before);
    world.cli(&["switch", "shop", "v2", "--force"]).await.ok();
    assert_eq!(world.service_status("shop").await["effective"]["v1"].as_u64().unwrap_or(0), 0);
    assert_eq!(world.generation().await, before + 1);
}

#[tokio::test]
async fn health_is_kept_over_reloads() {
    let (world, _v1, v2) = checked("split: { v1: 50, v2: 50 }").await;
    v2.set_health(500);
    world.until_health("v2", "failing").await;
    for nth in 0..5 {
        world.reload_with_route(nth).await;
        assert_eq!(world.health("shop", "v1").await, "healthy", "not unknown again");
        assert_eq!(world.health("shop", "v2").await, "failing");
        assert_eq!(world.get("/").await.origin(), Some("v1"));
    }
}

#[tokio::test]
async fn a_tcp_check_and_an_endpoint_that_is_down() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    let check = "health: { tcp: true, every: 100ms, timeout: 500ms, pass: 1, fail: 1 }";
    world.start(&one_service(&[&v1, &v2], &format!("split: {{ v1: 50, v2: 50 }}\n{check}"))).await;
    world.until_health("v1", "healthy").await;
    world.until_health("v2", "healthy").await;
    v2.stop().await;
    world.until_health("v2", "down").await;
    for _ in 0..10 {
        assert_eq!(world.get("/").await.origin(), Some("v1"));
    }
    v2.reopen().await;
    world.until_health("v2", "healthy").await;
}

#[tokio::test]
async fn an_endpoint_that_fails_in_a_row_is_ejected_for_a_while() {
    let mut world = World::new();
    let (good, bad) = (world.origin("v1").await, world.origin("v1").await);
    let more =
        "active: v1\noutlier: { consecutive_failures: 3, eject_for: 1s, max_ejected: 50% }\nretry: { attempts: 0 }";
    world.start(&one_service(&[&good, &bad], more)).await;
    bad.set(Fault::Status(503));
    until("it is ejected", || async {
        world.get("/").await;
        world.version_status("shop", "v1").await["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["ejected"] == true)
    })
    .await;
    let at_ejection = bad.requests();
    for _ in 0..20 {
        assert_eq!(world.get("/").await.status, 200);
    }
    assert_eq!(bad.requests(), at_ejection, "it is left alone");
    assert!(world.events().await.iter().any(|event| event["kind"] == "ejected"));
    bad.set(Fault::None);
    within(Duration::from_secs(10), "it comes back", || async {
        world.get("/").await;
        bad.requests() > at_ejection
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_is_tried_elsewhere() {
    let mut world = World::new();
    let (good, gone) = (world.origin("v1").await, world.origin("v1").await);
    world.start(&one_service(&[&good, &gone], "active: v1")).await;
    gone.stop().await;
    for nth in 0..20 {
        assert_eq!(world.get("/").await.status, 200, "GET {nth}");
        assert_eq!(world.client().post("/", b"x").await.status, 200, "POST {nth}: nothing was sent yet");
    }
    assert!(world.metric("switchback_retries_total", &[("service", "shop")]).await >= 1.0);
}

#[tokio::test]
async fn names_are_resolved_in_the_background() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let named = Origin::start("v2", "127.0.0.1:0".parse().unwrap()).await;
    let text = one_service(&[&v1, &named], "split: { v1: 50, v2: 50 }\nhold: { max_wait: 0s }");
    let by_name = text.replace("127.0.0.1:", "localhost:");
    world.start(&by_name).await;
    until("the name is resolved and served", || async { world.get("/").await.origin() == Some("v2") }).await;
    let endpoint = world.version_status("shop", "v2").await["endpoints"][0].clone();
    assert!(endpoint["address"].as_str().unwrap().starts_with("localhost:"), "{endpoint}");
    assert!(endpoint["resolved"].to_string().contains("127.0.0.1"), "{endpoint}");
    // A name that nobody knows: its version's share goes to the other, and everybody can see why.
    world.edit_and_wait(|text| text.replace("localhost:", "nobody.invalid:")).await;
    for _ in 0..20 {
        let seen = world.get("/").await;
        assert_eq!((seen.status, seen.origin()), (200, Some("v1")));
    }
    assert_eq!(world.version_status("shop", "v2").await["endpoints"][0]["resolved"], json!([]));
}
