//! I9: state survives kill -9 and torn writes; a broken store is never read as "empty".

use serde_json::json;

use crate::harness::*;

#[tokio::test]
async fn i9_state_survives_kill_9() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    let token = world.token();
    for round in 0..3 {
        world.weights("shop", json!({ "v1": 60 + round, "v2": 40 - round })).await;
        let last = world.switch("shop", "v2").await;
        // At once: whatever was acknowledged must be on disk.
        world.kill_9();
        world.restart().await;
        let status = world.service_status("shop").await;
        assert_eq!(status["effective"]["v2"], last["to"]["shop"]["v2"], "{status}");
        assert_ne!(status["owner"], "file");
        for _ in 0..10 {
            assert_eq!(world.get("/").await.origin(), Some("v2"));
        }
        let generations = world.admin_get("/api/v1/generations").await.json();
        let numbers: Vec<u64> =
            generations.as_array().unwrap().iter().map(|one| one["number"].as_u64().unwrap()).collect();
        assert!(numbers.contains(&last["generation"].as_u64().unwrap()), "{numbers:?}");
        assert!(numbers.windows(2).all(|pair| pair[0] > pair[1]), "newest first, none twice: {numbers:?}");
        assert_eq!(world.token(), token);
        // The way back is there too.
        let back = world.rollback("shop").await;
        assert_eq!(back["to"]["shop"]["v1"], json!(60 + round), "{back}");
    }
}

#[tokio::test]
async fn i9_a_torn_store_is_not_an_empty_one() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    world.switch("shop", "v2").await;
    let before = world.generation().await;
    world.kill_9();
    // Each of two files holds everything that was acknowledged.
    let store = world.state_dir().join("switchback.db");
    let copy = world.state_dir().join("switchback.db.copy");
    let whole = std::fs::read(&store).unwrap();
    std::fs::remove_file(&copy).unwrap();
    let cut = |length: usize| whole[..length.min(whole.len() - 1)].to_vec();
    for broken in [cut(0), cut(100), cut(3000), cut(4096), cut(20_000), cut(usize::MAX), vec![0xA5; 8192]] {
        for more in ["switchback.db-wal", "switchback.db-journal"] {
            let _ = std::fs::remove_file(world.state_dir().join(more));
        }
        std::fs::write(&store, &broken).unwrap();
        world.spawn();
        let status = world.exit(std::time::Duration::from_secs(15)).await;
        assert_eq!(status.code(), Some(1), "cut to {} bytes", broken.len());
        let log = world.log();
        assert!(log.contains("switchback.db"), "it names the file: {log}");
    }
    std::fs::write(&store, cut(4096)).unwrap();
    std::fs::write(&copy, &whole).unwrap();
    world.restart().await;
    assert_eq!(world.metric("switchback_journal_restored", &[]).await, 1.0);
    let status = world.status().await;
    assert!(status["warnings"].to_string().contains("restored from its second copy"), "{status}");
    assert!(world.generation().await >= before);
    assert_eq!(world.get("/").await.origin(), Some("v2"));
}

/// A configuration that differs from the one of `world` in a route, and waits for its confirmation.
async fn apply_unconfirmed(world: &World, service: &str) {
    let text = std::fs::read_to_string(world.config()).unwrap().replace("active: v1", service);
    let text = text.replacen("name: all", "name: renamed", 1);
    std::fs::write(world.path("next.yaml"), text).unwrap();
    let ran = world.cli(&["apply", "-c", "next.yaml", "--confirm", "10m"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[tokio::test]
async fn i9_a_crash_before_the_confirmation_finds_what_was_live_before_the_apply() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    world.switch("shop", "v2").await;
    apply_unconfirmed(&world, "split: { v1: 1, v2: 1 }").await;
    world.kill_9();
    world.restart().await;
    let shop = world.service_status("shop").await;
    assert_eq!(shop["effective"], json!({ "v2": 1 }), "{shop}");
    assert_ne!(shop["owner"], "file", "{shop}");
}

#[tokio::test]
async fn i9_a_revert_ends_the_wait_for_a_confirmation_for_good() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    let number = world.switch("shop", "v2").await["generation"].as_u64().unwrap();
    world.switch("shop", "v1").await;
    apply_unconfirmed(&world, "split: { v1: 1, v2: 1 }").await;
    world.order(&format!("generations/{number}/revert"), json!({})).await;
    assert_eq!(world.get("/").await.origin(), Some("v2"));
    world.kill_9();
    world.restart().await;
    assert_eq!(world.get("/").await.origin(), Some("v2"), "the acknowledged revert is still there");
}

#[tokio::test]
async fn i8_what_an_operator_orders_before_the_confirmation_outlives_it() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    world.switch("shop", "v2").await;
    let text = std::fs::read_to_string(world.config()).unwrap().replacen("name: all", "name: renamed", 1);
    std::fs::write(world.path("next.yaml"), text).unwrap();
    let ran = world.cli(&["apply", "-c", "next.yaml", "--confirm", "1s"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    world.rollback("shop").await;
    assert_eq!(world.get("/").await.origin(), Some("v1"));
    until("the apply is taken back", || async { world.status().await["confirm_until"].is_null() }).await;
    assert_eq!(world.get("/").await.origin(), Some("v1"), "the rollback stays");
    let effective = world.admin_get("/api/v1/config/effective").await.text();
    assert!(effective.contains("all") && !effective.contains("renamed"), "{effective}");
}

#[tokio::test]
async fn a_restart_of_the_same_is_the_same_generation() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], "active: v1")).await;
    let number = world.generation().await;
    for _ in 0..3 {
        world.kill_9();
        world.restart().await;
    }
    assert_eq!(world.generation().await, number);
    let history = world.admin_get("/api/v1/generations").await.json();
    assert_eq!(history.as_array().unwrap().len(), 1, "{history}");
}

/// SIGHUP and `apply` do the same, also where only a secret beside the file changed.
#[tokio::test]
async fn a_signal_reads_a_token_file_again() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    std::fs::write(world.path("force"), "old").unwrap();
    world.start(&one_service(&[&v1, &v2], "active: v1\nforce: { header: x-version, token_file: force }")).await;
    let forced =
        async |token: &str| world.client().get_with("/", &[("x-version", token)]).await.origin().map(String::from);
    assert_eq!(forced("v2:old").await.as_deref(), Some("v2"));
    std::fs::write(world.path("force"), "new").unwrap();
    world.signal(libc::SIGHUP);
    until("the new token counts", || async { forced("v2:new").await.as_deref() == Some("v2") }).await;
    assert_eq!(forced("v2:old").await.as_deref(), Some("v1"));
}
