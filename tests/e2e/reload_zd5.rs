//! ZD-5: every way in which files are written, through the real process: the new content is live within a
//! second (six when only polling sees it), applied once, and never half-written.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::*;

const SOON: Duration = Duration::from_secs(2);
/// When every event was lost and only the poll sees it.
const BY_POLL: Duration = Duration::from_secs(8);

struct Reloading {
    world: World,
    v1: Origin,
    v2: Origin,
}

impl Reloading {
    async fn start() -> Reloading {
        let mut world = World::new();
        let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
        world.start(&one_service(&[&v1, &v2], "active: v1")).await;
        Reloading { world, v1, v2 }
    }

    fn text(&self, version: &str) -> String {
        self.world.preamble() + &one_service(&[&self.v1, &self.v2], &format!("active: {version}"))
    }

    /// Does `write` and expects the version to be live in time, by exactly one generation, without any
    /// complaint about a broken file on the way.
    async fn expect(&self, what: &str, version: &str, deadline: Duration, write: impl AsyncFnOnce(&World, &str)) {
        let before = self.world.generation().await;
        let bad = self.world.metric("switchback_config_reloads_total", &[("result", "invalid")]).await;
        write(&self.world, &self.text(version)).await;
        within(deadline, what, || async { self.world.get("/").await.origin() == Some(version) }).await;
        assert_eq!(self.world.generation().await, before + 1, "{what}: applied once");
        let now_bad = self.world.metric("switchback_config_reloads_total", &[("result", "invalid")]).await;
        assert_eq!(bad, now_bad, "{what}: no half-written file was read as a whole one");
    }
}

#[tokio::test]
async fn each_way_of_writing_a_file_is_seen_once() {
    let on = Reloading::start().await;
    on.expect("write and rename", "v2", SOON, async |world, text| world.write_config(text)).await;
    on.expect("write in place", "v1", SOON, async |world, text| fs::write(world.config(), text).unwrap()).await;
    on.expect("copy over", "v2", SOON, async |world, text| {
        fs::write(world.path("other"), text).unwrap();
        fs::copy(world.path("other"), world.config()).unwrap();
    })
    .await;
    on.expect("sed -i", "v1", SOON, async |world, _| {
        let config = world.config();
        let done = std::process::Command::new("sed").args(["-i", "s/active: v2/active: v1/"]).arg(config).status();
        assert!(done.unwrap().success());
    })
    .await;
    on.expect("an editor that keeps a backup", "v2", SOON, async |world, text| {
        // vim: the old file becomes the backup, a new one takes the name, the backup goes.
        fs::write(world.path("4913"), "").unwrap();
        fs::remove_file(world.path("4913")).unwrap();
        fs::rename(world.config(), world.path("switchback.yaml~")).unwrap();
        fs::write(world.config(), text).unwrap();
        fs::remove_file(world.path("switchback.yaml~")).unwrap();
    })
    .await;
    on.expect("touched and rewritten with the same content, then changed", "v1", SOON, async |world, text| {
        let same = fs::read_to_string(world.config()).unwrap();
        world.write_config(&same);
        world.write_config(text);
    })
    .await;
    on.expect("a flood of events in the folder", "v2", SOON, async |world, text| {
        for nth in 0..5000 {
            fs::write(world.path("noise"), nth.to_string()).unwrap();
        }
        world.write_config(text);
    })
    .await;
}

#[tokio::test]
async fn a_slow_partial_write_is_never_applied_half() {
    let on = Reloading::start().await;
    let text = on.text("v2");
    // The first half alone would be a valid file that says something else: cut before `active`.
    let before = on.world.generation().await;
    let mut file = fs::File::create(on.world.config()).unwrap();
    let pieces: Vec<&[u8]> = text.as_bytes().chunks(text.len() / 8 + 1).collect();
    let mut answered = Vec::new();
    for piece in pieces {
        file.write_all(piece).unwrap();
        file.flush().unwrap();
        let slice = Instant::now() + Duration::from_millis(60);
        while Instant::now() < slice {
            answered.push(on.world.get("/").await.status);
        }
    }
    drop(file);
    within(SOON, "the whole file is live", || async { on.world.get("/").await.origin() == Some("v2") }).await;
    assert!(answered.iter().all(|status| *status == 200));
    assert_eq!(on.world.generation().await, before + 1, "only the whole file became a generation");
}

#[tokio::test]
async fn deleted_and_recreated() {
    let on = Reloading::start().await;
    let before = on.world.generation().await;
    fs::remove_file(on.world.config()).unwrap();
    until("the loss is noticed", || async { on.world.status().await["config"]["last_reload_successful"] == false })
        .await;
    assert_eq!(on.world.get("/").await.origin(), Some("v1"), "what ran keeps running");
    assert_eq!(on.world.generation().await, before);
    fs::write(on.world.config(), on.text("v2")).unwrap();
    within(BY_POLL, "the new file is live", || async { on.world.get("/").await.origin() == Some("v2") }).await;
    until("status says so", || async { on.world.status().await["config"]["last_reload_successful"] == true }).await;
    assert_eq!(on.world.generation().await, before + 1);
}

/// A mounted ConfigMap: `switchback.yaml -> ..data/switchback.yaml`, `..data -> ..<time>`.
fn mount(folder: &Path, stamp: &str, text: &str) {
    let dir = folder.join(stamp);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("switchback.yaml"), text).unwrap();
    let link = folder.join("..data_tmp");
    symlink(stamp, &link).unwrap();
    fs::rename(&link, folder.join("..data")).unwrap();
}

#[tokio::test]
async fn symlinks_are_followed_at_every_step() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    let text =
        |world: &World, version: &str| world.preamble() + &one_service(&[&v1, &v2], &format!("active: {version}"));
    let mounted = world.path("mounted");
    fs::create_dir(&mounted).unwrap();
    mount(&mounted, "..2026_01", &text(&world, "v1"));
    symlink("..data/switchback.yaml", mounted.join("switchback.yaml")).unwrap();
    symlink("mounted/switchback.yaml", world.config()).unwrap();
    world.restart().await;
    let on = Reloading { world, v1, v2 };
    on.expect("a ConfigMap is updated", "v2", SOON, async |_, text| {
        mount(&mounted, "..2026_02", text);
        fs::remove_dir_all(mounted.join("..2026_01")).unwrap();
    })
    .await;
    on.expect("and again", "v1", SOON, async |_, text| mount(&mounted, "..2026_03", text)).await;
    on.expect("the outer link is retargeted", "v2", SOON, async |world, text| {
        fs::create_dir(world.path("elsewhere")).unwrap();
        fs::write(world.path("elsewhere/c.yaml"), text).unwrap();
        symlink("elsewhere/c.yaml", world.path("link.new")).unwrap();
        fs::rename(world.path("link.new"), world.config()).unwrap();
    })
    .await;
    on.expect("the file behind the new link is edited", "v1", SOON, async |world, text| {
        fs::write(world.path("elsewhere/c.yaml"), text).unwrap();
    })
    .await;
    on.expect("its folder is replaced", "v2", BY_POLL, async |world, text| {
        fs::create_dir(world.path("fresh")).unwrap();
        fs::write(world.path("fresh/c.yaml"), text).unwrap();
        fs::rename(world.path("elsewhere"), world.path("gone")).unwrap();
        fs::rename(world.path("fresh"), world.path("elsewhere")).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_signal_or_a_call_reloads_too() {
    let on = Reloading::start().await;
    on.expect("SIGHUP", "v2", SOON, async |world, text| {
        world.write_config(text);
        world.signal(libc::SIGHUP);
    })
    .await;
    on.expect("the reload call", "v1", SOON, async |world, text| {
        world.write_config(text);
        world.order("config/reload", serde_json::json!({})).await;
    })
    .await;
    on.expect("apply", "v2", SOON, async |world, text| {
        world.write_config(text);
        let ran = world.cli(&["apply", "-c", "switchback.yaml"]).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
    })
    .await;
}

#[tokio::test]
async fn a_folder_of_files_is_merged_and_watched() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    let folder = world.path("conf.d");
    fs::create_dir(&folder).unwrap();
    let preamble = world.preamble().replace("./state", "../state");
    fs::write(folder.join("00-base.yaml"), preamble).unwrap();
    fs::write(folder.join("10-shop.yaml"), one_service(&[&v1], "active: v1")).unwrap();
    fs::write(folder.join("ignored.txt"), "not yaml: [").unwrap();
    world.spawn_with(&["run", "--no-supervisor", "-c", "conf.d", "--threads", "2"]);
    world.ready().await;
    assert_eq!(world.get("/").await.origin(), Some("v1"));
    let other = "routes:\n  - { name: api, match: { path_prefix: /api }, service: api }\nservices:\n".to_string()
        + &service("api", &[&v2], "active: v2");
    fs::write(folder.join("20-api.yaml"), other).unwrap();
    within(SOON, "a new file counts", || async { world.get("/api").await.origin() == Some("v2") }).await;
    // The same name twice: both places are named, nothing changes.
    fs::write(folder.join("30-again.yaml"), "services:\n".to_string() + &service("api", &[&v1], "active: v1")).unwrap();
    until("the clash is noticed", || async { world.status().await["config"]["last_reload_successful"] == false }).await;
    let rendered = world.status().await["config"]["rendered"].as_str().unwrap().to_string();
    assert!(rendered.contains("20-api.yaml") && rendered.contains("30-again.yaml"), "{rendered}");
    assert_eq!(world.get("/api").await.origin(), Some("v2"));
    fs::remove_file(folder.join("30-again.yaml")).unwrap();
    until("the clash is gone", || async { world.status().await["config"]["last_reload_successful"] == true }).await;
    fs::remove_file(folder.join("20-api.yaml")).unwrap();
    within(SOON, "a removed file counts", || async { world.get("/api").await.origin() == Some("v1") }).await;
}
