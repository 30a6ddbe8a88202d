//! Every way in which a file changes on real systems (ZD-5), on a real directory.
//!
//! Each case says what to do and what must be seen: the new content, once, and nothing in between.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::watch::{Known, Seen, Settings, watch};
use crate::config::load;

/// Far more than any case needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const OLD: &str = "schema: 1\n# old\n";
const NEW: &str = "schema: 1\n# new\n";

struct World {
    _dir: tempfile::TempDir,
    root: PathBuf,
    seen: mpsc::Receiver<Seen>,
    _stop: DropGuard,
}

impl World {
    /// `prepare` lays the files out and names the configuration, which is in use as it is.
    async fn with(settings: Settings, prepare: impl FnOnce(&Path) -> PathBuf) -> World {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("exists");
        let config = prepare(&root);
        let known = Known::default();
        known.set(&load::hash(&load::read(&config).expect("readable")));
        let (sender, seen) = mpsc::channel(1);
        let stop = CancellationToken::new();
        tokio::spawn(watch(config, settings, known, sender, stop.clone()));
        World { _dir: dir, root, seen, _stop: stop.drop_guard() }
    }

    async fn of_one_file() -> World {
        World::with(Settings::default(), |root| {
            let config = root.join("switchback.yaml");
            std::fs::write(&config, OLD).expect("writable");
            config
        })
        .await
    }

    fn config(&self) -> PathBuf {
        self.root.join("switchback.yaml")
    }

    /// The next settled content.
    async fn text(&mut self) -> String {
        match tokio::time::timeout(PATIENCE, self.seen.recv()).await.expect("in time") {
            Some(Seen::Settled { sources, .. }) => sources.into_iter().map(|source| source.text).collect(),
            other => panic!("{other:?}"),
        }
    }

    async fn must_see(&mut self, text: &str) {
        assert_eq!(self.text().await, text);
    }

    /// A further change is seen next, so nothing else was to be said in between.
    async fn and_nothing_else(mut self) {
        std::fs::write(self.root.join("last"), "schema: 1\n# last\n").expect("writable");
        std::fs::rename(self.root.join("last"), self.config()).expect("replaced");
        self.must_see("schema: 1\n# last\n").await;
    }
}

fn run(command: &str, dir: &Path) {
    let done = std::process::Command::new("sh").args(["-c", command]).current_dir(dir).status().expect("a shell");
    assert!(done.success(), "{command}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_replace_a_file_is_seen_once() {
    for (how, command) in [
        ("write and rename", "printf 'schema: 1\\n# new\\n' > t && mv t switchback.yaml"),
        ("in place", "printf 'schema: 1\\n# new\\n' > switchback.yaml"),
        ("sed -i", "sed -i s/old/new/ switchback.yaml"),
        ("cp over", "printf 'schema: 1\\n# new\\n' > t && cp t switchback.yaml"),
        (
            "vim's backup",
            "mv switchback.yaml switchback.yaml~ && printf 'schema: 1\\n# new\\n' > switchback.yaml && rm switchback.yaml~",
        ),
        (
            "an older file moved in",
            "printf 'schema: 1\\n# new\\n' > t && touch -d 2001-01-01 t && mv t switchback.yaml",
        ),
    ] {
        let mut world = World::of_one_file().await;
        run(command, &world.root);
        let began = Instant::now();
        world.must_see(NEW).await;
        // The promise is 1 s; the machine of a test may be busy.
        assert!(began.elapsed() < Duration::from_secs(4), "{how}: {:?}", began.elapsed());
        world.and_nothing_else().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_writer_is_waited_for_although_each_prefix_is_valid() {
    let mut world = World::of_one_file().await;
    // Once this is seen, so is every write.
    std::fs::write(world.config(), NEW).expect("writable");
    world.must_see(NEW).await;
    let lines: Vec<String> = (0..5).map(|line| format!("key{line}: value\n")).collect();
    let whole = lines.concat();
    let path = world.config();
    let writer = std::thread::spawn(move || {
        let mut file = std::fs::File::create(path).expect("writable");
        for line in lines {
            file.write_all(line.as_bytes()).expect("writable");
            // Longer than the quiet time: only the missing close says that more will come.
            std::thread::sleep(Duration::from_millis(450));
        }
    });
    world.must_see(&whole).await;
    writer.join().expect("wrote");
    world.and_nothing_else().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_map_swap_is_seen() {
    let layout = |root: &Path| {
        for (version, text) in [("..1", OLD), ("..2", NEW)] {
            std::fs::create_dir(root.join(version)).expect("writable");
            std::fs::write(root.join(version).join("switchback.yaml"), text).expect("writable");
        }
        symlink("..1", root.join("..data")).expect("writable");
        symlink("..data/switchback.yaml", root.join("switchback.yaml")).expect("writable");
        root.join("switchback.yaml")
    };
    let mut world = World::with(Settings::default(), layout).await;
    symlink("..2", world.root.join("..tmp")).expect("writable");
    std::fs::rename(world.root.join("..tmp"), world.root.join("..data")).expect("swapped");
    std::fs::remove_dir_all(world.root.join("..1")).expect("gone");
    world.must_see(NEW).await;
    // The watch follows into the new directory.
    std::fs::write(world.root.join("..2/switchback.yaml"), "schema: 1\n# third\n").expect("writable");
    world.must_see("schema: 1\n# third\n").await;
    world.and_nothing_else().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_points_elsewhere_is_seen() {
    let mut world = World::with(Settings::default(), |root| {
        for (version, text) in [("a", OLD), ("b", NEW)] {
            std::fs::create_dir(root.join(version)).expect("writable");
            std::fs::write(root.join(version).join("f.yaml"), text).expect("writable");
        }
        symlink("a/f.yaml", root.join("switchback.yaml")).expect("writable");
        root.join("switchback.yaml")
    })
    .await;
    run("ln -sfn b/f.yaml switchback.yaml", &world.root);
    world.must_see(NEW).await;
    world.and_nothing_else().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_directory_is_seen() {
    let mut world = World::with(Settings::default(), |root| {
        std::fs::create_dir(root.join("conf")).expect("writable");
        std::fs::write(root.join("conf/switchback.yaml"), OLD).expect("writable");
        root.join("conf/switchback.yaml")
    })
    .await;
    std::fs::create_dir(world.root.join("next")).expect("writable");
    std::fs::write(world.root.join("next/switchback.yaml"), NEW).expect("writable");
    run("mv conf before && mv next conf", &world.root);
    world.must_see(NEW).await;
    std::fs::write(world.root.join("conf/switchback.yaml"), "schema: 1\n# third\n").expect("writable");
    world.must_see("schema: 1\n# third\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_file_is_said_and_its_return_is_seen() {
    let mut world = World::of_one_file().await;
    std::fs::remove_file(world.config()).expect("gone");
    let said = tokio::time::timeout(PATIENCE, world.seen.recv()).await.expect("in time");
    assert!(matches!(said, Some(Seen::Unreadable(_))), "{said:?}");
    std::fs::write(world.config(), NEW).expect("writable");
    world.must_see(NEW).await;
    world.and_nothing_else().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_files_is_watched_as_one() {
    let mut world = World::with(Settings::default(), |root| {
        std::fs::create_dir(root.join("conf")).expect("writable");
        std::fs::write(root.join("conf/a.yaml"), OLD).expect("writable");
        root.join("conf")
    })
    .await;
    std::fs::write(world.root.join("conf/b.yaml"), "routes: []\n").expect("writable");
    world.must_see(&format!("{OLD}routes: []\n")).await;
    std::fs::remove_file(world.root.join("conf/a.yaml")).expect("gone");
    world.must_see("routes: []\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_other_events_hides_nothing() {
    let mut world = World::of_one_file().await;
    let root = world.root.clone();
    let flood = std::thread::spawn(move || {
        for turn in 0..20_000 {
            std::fs::write(root.join(format!("noise{}", turn % 7)), "x").expect("writable");
            if turn == 10_000 {
                std::fs::write(root.join("t"), NEW).expect("writable");
                std::fs::rename(root.join("t"), root.join("switchback.yaml")).expect("replaced");
            }
        }
    });
    world.must_see(NEW).await;
    flood.join().expect("done");
    world.and_nothing_else().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_events_the_poll_sees_it() {
    let settings = Settings { events: false, poll: Duration::from_millis(200), ..Settings::default() };
    let mut world = World::with(settings, |root| {
        std::fs::write(root.join("switchback.yaml"), OLD).expect("writable");
        root.join("switchback.yaml")
    })
    .await;
    std::fs::write(world.config(), NEW).expect("writable");
    world.must_see(NEW).await;
    world.and_nothing_else().await;
}
