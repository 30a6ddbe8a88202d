//! I7: a pinned client never changes version except by drain deadline, rollback, force or loss of all
//! endpoints, and the reason is recorded.

use serde_json::json;

use crate::harness::*;

#[tokio::test]
async fn i7_a_pinned_client_stays_through_reloads_restarts_and_draining() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    let more = "split: { v1: 50, v2: 50 }\nsticky: { cookie: { name: sb, ttl: 12h } }\ndrain: { sessions: 5m }\nhealth: { path: /healthz, every: 100ms, timeout: 1s, pass: 1, fail: 1 }";
    world.start(&one_service(&[&v1, &v2], more)).await;
    world.until_health("v1", "healthy").await;
    world.until_health("v2", "healthy").await;
    let mut pinned = Vec::new();
    while pinned.len() < 20 {
        let first = world.get("/").await;
        let cookie = first.cookie("sb").expect("a new client gets a cookie");
        pinned.push((cookie, first.version().unwrap().to_string()));
    }
    assert!(pinned.iter().any(|(_, version)| version == "v1") && pinned.iter().any(|(_, version)| version == "v2"));

    let check = async |world: &World, reason: &str, only: &str| {
        let mut client = world.client();
        for (cookie, version) in pinned.iter().filter(|(_, version)| only.is_empty() || version == only) {
            let seen = client.get_with("/", &[("cookie", &format!("a=1; sb={cookie}; b=2"))]).await;
            assert_eq!((seen.version(), seen.reason()), (Some(version.as_str()), Some(reason)));
        }
    };
    check(&world, "sticky", "").await;
    world.reload_with_route(1).await;
    check(&world, "sticky", "").await;
    assert!(world.terminate().await.success());
    world.restart().await;
    world.until_health("v1", "healthy").await;
    world.until_health("v2", "healthy").await;
    check(&world, "sticky", "").await;
    // Raising v2 moves some clients from v1; nobody leaves v2.
    world.weights("shop", json!({ "v1": 20, "v2": 80 })).await;
    check(&world, "sticky", "v2").await;
    world.rollback("shop").await;
    check(&world, "sticky", "").await;
    // Weight 0: pinned clients stay, new ones do not come.
    world.order("services/shop/drain", json!({ "version": "v1" })).await;
    check(&world, "drain-pin", "v1").await;
    for _ in 0..10 {
        assert_eq!(world.get("/").await.version(), Some("v2"));
    }
    // Its only endpoint goes: the client moves, and the reason says why.
    v1.stop().await;
    until("v1 is down", || async { world.health("shop", "v1").await != "healthy" }).await;
    let (cookie, _) = pinned.iter().find(|(_, version)| version == "v1").unwrap();
    let moved = world.client().get_with("/", &[("cookie", &format!("sb={cookie}"))]).await;
    assert_eq!(moved.version(), Some("v2"));
    assert_ne!(moved.reason(), Some("drain-pin"));
}
