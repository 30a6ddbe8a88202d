//! State that cannot be read or written, and a start with a broken file.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::harness::load::Plan;
use crate::harness::*;

fn text(world: &World, origin: &Origin) -> String {
    world.preamble() + &one_service(&[origin], "active: v1")
}

async fn fails_to_start(world: &mut World, says: &[&str]) {
    world.spawn();
    let status = world.exit(Duration::from_secs(15)).await;
    let log = world.log();
    assert_eq!(status.code(), Some(1), "{log}");
    for word in says {
        assert!(log.contains(word), "{word}: {log}");
    }
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn a_state_dir_that_is_a_file_or_cannot_be_made() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.write_config(&text(&world, &v1));
    std::fs::write(world.state_dir(), "not a folder").unwrap();
    fails_to_start(&mut world, &["state"]).await;
    std::fs::remove_file(world.state_dir()).unwrap();
    std::fs::write(world.path("file"), "").unwrap();
    world.edit_config(|text| text.replace("./state", "./file/state"));
    fails_to_start(&mut world, &["file/state"]).await;
}

#[tokio::test]
async fn a_corrupt_store_is_named_and_kept() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start_text(&text(&world, &v1)).await;
    assert_eq!(world.terminate().await.code(), Some(0));
    let store = world.state_dir().join("switchback.db");
    let good = std::fs::read(&store).unwrap();
    std::fs::remove_file(world.state_dir().join("switchback.db.copy")).unwrap();
    for broken in [b"this is not a database, it is a sentence of some length".to_vec(), good[..good.len() / 2].to_vec()]
    {
        std::fs::write(&store, &broken).unwrap();
        fails_to_start(&mut world, &["switchback.db"]).await;
        assert!(std::fs::read_dir(world.state_dir()).unwrap().count() >= 1, "nothing is thrown away");
    }
    std::fs::write(&store, good).unwrap();
    world.restart().await;
}

#[tokio::test]
async fn a_token_open_to_others_is_refused_with_the_cure() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start_text(&text(&world, &v1)).await;
    world.terminate().await;
    let token = world.state_dir().join("admin.token");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    fails_to_start(&mut world, &["admin.token", "chmod 600"]).await;
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    world.restart().await;
}

#[tokio::test]
async fn a_broken_file_at_start_boots_the_last_good_one_and_says_so() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    world.switch("shop", "v2").await;
    world.kill_9();
    world.edit_config(|text| text.replace("service: shop", "service: shpo"));
    world.restart().await;
    let status = world.status().await;
    assert_eq!(status["state"], "degraded");
    assert_eq!(status["config"]["degraded"], true);
    assert!(status["config"]["rendered"].as_str().unwrap().contains("shpo"), "{status}");
    assert!(world.admin_get("/readyz").await.text().contains("degraded"));
    assert_eq!(world.metric("switchback_config_degraded", &[]).await, 1.0);
    assert_eq!(world.get("/").await.origin(), Some("v2"), "with the overlay it had");
    world.edit_config(|text| text.replace("service: shpo", "service: shop"));
    until("the good file ends it", || async { world.status().await["config"]["degraded"] == false }).await;
    assert_eq!(world.metric("switchback_config_degraded", &[]).await, 0.0);
    assert_eq!(world.get("/").await.origin(), Some("v2"));
}

#[tokio::test]
async fn a_broken_file_at_the_very_first_start_is_an_error() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.write_config(&text(&world, &v1).replace("service: shop", "service: shpo"));
    fails_to_start(&mut world, &["shpo", "did you mean", "switchback.yaml:"]).await;
    world.spawn_with(&["run", "-c", "missing.yaml", "--threads", "2"]);
    assert_eq!(world.exit(Duration::from_secs(15)).await.code(), Some(1));
    assert!(world.log().contains("missing.yaml"), "{}", world.log());
}

#[tokio::test]
async fn two_processes_do_not_share_one_state_dir() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start_text(&text(&world, &v1)).await;
    let mut other = World::new();
    let shared = world.state_dir();
    other.write_config(&text(&other, &v1).replace("./state", shared.to_str().unwrap()));
    fails_to_start(&mut other, &["state"]).await;
    assert_eq!(world.get("/").await.status, 200);
}

#[tokio::test]
async fn a_full_disk_stops_no_traffic_and_no_rollback() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    let load = Load::start(world.web(), &Plan::default());
    world.switch("shop", "v2").await;
    world.fill_the_disk();
    let back = world.rollback("shop").await;
    assert_eq!(world.get("/").await.origin(), Some("v1"), "{back}");
    let told = async || {
        let status = world.status().await;
        status["warnings"].to_string() + &back["warnings"].to_string()
    };
    until("the operator is told", || async {
        told().await.contains("journal") || told().await.contains("switchback.db")
    })
    .await;
    for to in ["v2", "v1", "v2"] {
        world.switch("shop", to).await;
        assert_eq!(world.get("/").await.origin(), Some(to));
    }
    load.more(50).await;
    load.stop().await.assert_unbroken();
    // With room again what is live is written down.
    world.empty_the_disk();
    world.switch("shop", "v1").await;
    let last = world.switch("shop", "v2").await["generation"].as_u64().unwrap();
    until("the warning ends", || async { world.status().await["warnings"].as_array().unwrap().is_empty() }).await;
    world.kill_9();
    world.restart().await;
    assert!(world.generation().await >= last);
    assert_eq!(world.get("/").await.origin(), Some("v2"));
}
