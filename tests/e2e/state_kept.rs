//! I9 from outside: killed at any instant, on a full disk, in a directory that cannot be written.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::harness::load::Plan;
use crate::harness::*;

/// Instants that differ from run to run; a failure names the seed.
struct Instants(u64);

impl Instants {
    fn new() -> Instants {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        Instants(since.as_nanos() as u64)
    }

    fn within(&mut self, longest: Duration) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros((self.0 >> 33) % longest.as_micros() as u64)
    }
}

/// Parts of a split: a prime, so that no weight can be reduced.
const OF: u64 = 9_973;

/// What an operator was told is done.
#[derive(Debug, Default)]
struct Acknowledged {
    /// v2's share.
    weight: u64,
    generation: u64,
    held: bool,
    actions: usize,
}

/// Changes one after the other, until the process no longer answers. Returns what was sent last.
async fn change_until_the_end(world: &World, told: &mut Acknowledged, done: &AtomicUsize) -> (u64, bool) {
    let (mut weight, mut held) = (told.weight, told.held);
    loop {
        weight += 1;
        let seen = world.admin_post("/api/v1/services/shop/weights", json!({ "v1": OF - weight, "v2": weight })).await;
        if seen.status != 200 {
            return (weight, held);
        }
        let receipt = seen.json();
        assert_eq!(receipt["warnings"], json!([]), "{receipt}");
        (told.weight, told.generation, told.actions) =
            (weight, receipt["generation"].as_u64().unwrap(), told.actions + 1);
        done.fetch_add(1, Ordering::Relaxed);
        held = !held;
        let call = if held { "hold" } else { "release" };
        let seen = world.admin_post(&format!("/api/v1/services/cart/{call}"), json!({})).await;
        if seen.status != 200 {
            return (weight, held);
        }
        (told.held, told.actions) = (held, told.actions + 1);
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn i9_killed_at_any_instant_it_remembers_what_was_acknowledged() {
    let mut instants = Instants::new();
    let seed = instants.0;
    let mut world = World::new();
    let (v1, v2, cart) = (world.origin("v1").await, world.origin("v2").await, world.origin("a").await);
    let text = one_service(&[&v1, &v2], "split: { v1: 9972, v2: 1 }") + &service("cart", &[&cart], "active: a");
    let text =
        text.replacen("routes:\n", "routes:\n  - { name: cart, match: { path_prefix: /cart }, service: cart }\n", 1);
    world.start(&text).await;
    let mut told = Acknowledged { weight: 1, ..Acknowledged::default() };
    for round in 0..6 {
        let (wait, first) = (instants.within(Duration::from_millis(30)), round % 3);
        let done = AtomicUsize::new(0);
        let (sent, ()) = tokio::join!(change_until_the_end(&world, &mut told, &done), async {
            until("some changes are acknowledged", || async { done.load(Ordering::Relaxed) >= first }).await;
            tokio::time::sleep(wait).await;
            world.signal(libc::SIGKILL);
        });
        world.exit(Duration::from_secs(5)).await;
        if round % 2 == 1 {
            // A start that is killed too.
            world.spawn();
            tokio::time::sleep(instants.within(Duration::from_millis(60))).await;
            world.kill_9();
        }
        world.restart().await;
        let status = world.status().await;
        let what = format!("seed {seed}, round {round}: {told:?}, sent {sent:?}; {status}");
        assert_eq!(status["warnings"], json!([]), "{what}");
        let shop = status["services"].as_array().unwrap().iter().find(|it| it["name"] == "shop").unwrap();
        let weight = shop["effective"]["v2"].as_u64().unwrap();
        assert!((told.weight..=sent.0).contains(&weight), "{what}");
        assert!(status["generation"]["number"].as_u64().unwrap() >= told.generation, "{what}");
        let held = world.service_status("cart").await["held"].as_bool().unwrap();
        assert!(held == told.held || held == sent.1, "{what}");
        let audit = world.admin_get("/api/v1/audit?limit=1000").await.json();
        let audited = audit.as_array().unwrap().len();
        assert!((told.actions..=told.actions + 1).contains(&audited), "{audited} audited, {what}");
        // What was sent and not answered counts if it was taken.
        (told.weight, told.held, told.actions) = (weight, held, audited);
    }
    assert!(told.actions >= 6, "{told:?}");
}

#[tokio::test]
async fn a_hold_outlives_a_crash() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], "active: v1\nhold: { max_wait: 10s }")).await;
    world.order("services/shop/hold", json!({})).await;
    world.kill_9();
    world.restart().await;
    assert_eq!(world.service_status("shop").await["held"], true);
    let mut client = world.client();
    let waits = tokio::spawn(async move { client.get("/").await });
    until("it waits", || async { world.service_status("shop").await["waiting"] == 1 }).await;
    world.order("services/shop/release", json!({})).await;
    assert_eq!(waits.await.unwrap().status, 200);
    world.kill_9();
    world.restart().await;
    assert_eq!(world.service_status("shop").await["held"], false);
}

/// A world in which v2 is live against the file, and which has ended.
async fn ended() -> (World, Origin, Origin) {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    world.switch("shop", "v2").await;
    world.kill_9();
    (world, v1, v2)
}

async fn serves_and_rolls_back_without_a_disk(world: &World) {
    assert_eq!(world.get("/").await.origin(), Some("v2"), "as the journal says");
    until("status says so", || async { world.status().await["warnings"].to_string().contains("journal") }).await;
    assert_eq!(world.metric("switchback_journal_writable", &[]).await, 0.0);
    let load = Load::start(world.web(), &Plan::default());
    let receipt = world.rollback("shop").await;
    assert!(receipt["warnings"].to_string().contains("not yet in the journal"), "{receipt}");
    assert_eq!(world.get("/").await.origin(), Some("v1"));
    load.more(30).await;
    load.stop().await.assert_unbroken();
}

async fn goes_on_with_a_disk(world: &mut World) {
    // A change has the journal try again at once.
    let last = world.weights("shop", json!({ "v1": 3, "v2": 1 })).await;
    until("the warning ends", || async { world.status().await["warnings"] == json!([]) }).await;
    assert_eq!(world.metric("switchback_journal_writable", &[]).await, 1.0);
    world.kill_9();
    world.hardship = Hardship::None;
    world.restart().await;
    assert_eq!(world.service_status("shop").await["effective"], last["to"]["shop"]);
    let audit = world.admin_get("/api/v1/audit").await.text();
    assert!(audit.contains("rollback shop"), "nothing was lost: {audit}");
}

#[tokio::test]
async fn a_start_on_a_full_disk_serves_what_is_remembered() {
    let (mut world, _v1, _v2) = ended().await;
    world.hardship = Hardship::FullDisk;
    world.restart().await;
    serves_and_rolls_back_without_a_disk(&world).await;
    world.empty_the_disk();
    goes_on_with_a_disk(&mut world).await;
}

fn set_mode(world: &World, directory: u32, file: u32) {
    for entry in std::fs::read_dir(world.state_dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains(".db") {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(file)).unwrap();
        }
    }
    std::fs::set_permissions(world.state_dir(), std::fs::Permissions::from_mode(directory)).unwrap();
}

#[tokio::test]
async fn a_start_in_a_read_only_directory_serves_what_is_remembered() {
    let (mut world, _v1, _v2) = ended().await;
    set_mode(&world, 0o500, 0o400);
    world.hardship = Hardship::Unprivileged;
    world.restart().await;
    serves_and_rolls_back_without_a_disk(&world).await;
    set_mode(&world, 0o700, 0o600);
    goes_on_with_a_disk(&mut world).await;
}

#[tokio::test]
async fn a_state_of_a_newer_switchback_is_refused_and_kept() {
    let (mut world, _v1, _v2) = ended().await;
    let store = world.state_dir().join("switchback.db");
    let mut bytes = std::fs::read(&store).unwrap();
    // `user_version` in the header of the file.
    bytes[60..64].copy_from_slice(&99u32.to_be_bytes());
    std::fs::write(&store, &bytes).unwrap();
    world.spawn();
    assert_eq!(world.exit(Duration::from_secs(15)).await.code(), Some(1));
    let log = world.log();
    for word in ["newer switchback", "format is 99", "switchback.db", "help"] {
        assert!(log.contains(word), "{word}: {log}");
    }
    assert_eq!(std::fs::read(&store).unwrap(), bytes);
}
