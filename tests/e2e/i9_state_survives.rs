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
    // The tail of the write-ahead log is torn off, as a crash of the machine may do.
    let wal = world.state_dir().join("switchback.db-wal");
    if let Ok(meta) = std::fs::metadata(&wal) {
        let file = std::fs::OpenOptions::new().write(true).open(&wal).unwrap();
        file.set_len(meta.len().saturating_sub(1000)).unwrap();
    }
    world.restart().await;
    assert!(world.generation().await + 2 >= before, "at most the last write is lost");
    world.kill_9();
    // Nothing can be read at all: the process says so and does not start over as if new.
    std::fs::write(world.state_dir().join("switchback.db"), vec![0xA5; 8192]).unwrap();
    let _ = std::fs::remove_file(&wal);
    world.spawn();
    let status = world.exit(std::time::Duration::from_secs(15)).await;
    assert_eq!(status.code(), Some(1));
    let log = world.log();
    assert!(log.contains("switchback.db"), "it names the file: {log}");
}
