//! A new process takes over: no client notices, whatever the new one is like.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::rollouts::*;
use crate::harness::supervised::{binary, kill_9, signal, state};
use crate::harness::*;

/// Retired workers do not stay for long.
const QUICK: &str = "upgrade: { ready_timeout: 20s, linger: 700ms, drain: 20s }\nshutdown: { pre_drain: 0s, linger: 0s, timeout: 3s }\n";

async fn running(more: &str) -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    v1.stop_recording();
    world.start_supervised(&(QUICK.to_string() + &one_service(&[&v1], &format!("active: v1\n{more}")))).await;
    (world, v1)
}

/// Keep-alive clients that POST and never retry, each with a think time of its own below the linger.
struct Posts {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: JoinSet<Vec<String>>,
}

impl Posts {
    fn start(world: &World, clients: u64) -> Posts {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut set = JoinSet::new();
        for nth in 0..clients {
            let (stop, sent, address) = (stop.clone(), sent.clone(), world.web());
            set.spawn(async move {
                let mut client = Client::new(address);
                let mut broken = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let seen = client.send("POST", "/", &[], b"one order").await;
                    sent.fetch_add(1, Ordering::Relaxed);
                    if seen.outcome != Outcome::Ok || seen.status != 200 {
                        broken.push(format!("{:?} {} reused: {}", seen.outcome, seen.status, seen.reused));
                    }
                    tokio::time::sleep(Duration::from_millis(2 + nth * nth * 4 % 400)).await;
                }
                broken
            });
        }
        Posts { stop, sent, clients: set }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    async fn more(&self, count: u64) {
        let goal = self.sent() + count;
        until("the clients go on", || async { self.sent() >= goal }).await;
    }

    /// What went wrong.
    async fn stop(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut broken = Vec::new();
        while let Some(more) = self.clients.join_next().await {
            broken.extend(more.expect("a client does not panic"));
        }
        broken
    }
}

#[track_caller]
fn assert_none(broken: &[String], world: &World) {
    assert!(broken.is_empty(), "{} broken, first: {}\n{}", broken.len(), broken[0], world.log());
}

#[tokio::test]
async fn upgrade_after_upgrade_under_load_breaks_nothing() {
    let (world, _v1) = running("").await;
    repeat(&world, 6).await;
}

/// By hand: `cargo test --test e2e -- --ignored a_hundred_upgrades`.
#[tokio::test]
#[ignore = "takes minutes"]
async fn a_hundred_upgrades_break_nothing() {
    let (world, _v1) = running("").await;
    repeat(&world, 100).await;
}

async fn repeat(world: &World, times: u64) {
    let posts = Posts::start(world, 16);
    posts.more(50).await;
    let supervisor = world.pid();
    for nth in 1..=times {
        let before = world.status().await["pid"].as_u64().unwrap() as u32;
        let counted = world.metric("switchback_requests_total", &[("code", "200")]).await;
        let ran = world.cli(&["upgrade", "--json"]).await.ok();
        let now = ran.json()["pid"].as_u64().unwrap() as u32;
        assert_ne!(now, before, "upgrade {nth}");
        assert_eq!(world.status().await["pid"], now, "whoever asks next, asks the new one");
        let counts = world.metric("switchback_requests_total", &[("code", "200")]).await;
        assert!(counts >= counted, "counters go on: {counted}, then {counts}");
        posts.more(20).await;
    }
    let sent = posts.sent();
    let broken = posts.stop().await;
    assert_none(&broken, world);
    assert!(sent > 50 + 20 * times);
    assert_eq!(world.pid(), supervisor);
    assert_eq!(world.metric("switchback_upgrades_total", &[("result", "ok")]).await, times as f64);
    within(Duration::from_secs(30), "retired workers end", || async { world.workers().len() == 1 }).await;
    // What they have counted to their end is there too.
    until("every request is counted", || async {
        world.metric("switchback_requests_total", &[("code", "200")]).await >= sent as f64
    })
    .await;
    let audit = world.admin_get("/api/v1/audit").await.json();
    let upgrades = audit.as_array().unwrap().iter().filter(|entry| entry["action"] == "upgrade").count() as u64;
    assert_eq!(upgrades, times.min(100), "{audit}");
}

#[tokio::test]
async fn whatever_the_new_program_is_like_the_old_one_serves_on() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    v1.stop_recording();
    v2.stop_recording();
    let policy = QUICK.replace("ready_timeout: 20s", "ready_timeout: 1s");
    world.start_supervised(&(policy + &one_service(&[&v1, &v2], "active: v1"))).await;
    let worker = world.worker();
    let posts = Posts::start(&world, 8);
    let folder = world.path("folder");
    std::fs::create_dir(&folder).unwrap();
    for (path, says) in [
        (world.path("missing"), "cannot be opened"),
        (folder, "not a file"),
        (world.program("plain", "#!/bin/sh\nexit 0\n", 0o644), "not executable"),
        (world.program("open", "#!/bin/sh\nexit 0\n", 0o777), "can be written by others"),
        // What is no program at all is read by the shell, as `execvp` has it.
        (world.program("noise", "\u{1}\u{2}\u{3} no program", 0o755), "exit code 127"),
        (world.program("empty", "", 0o755), "exit code 0"),
        (world.program("interpreter", "#!/no/such/interpreter\n", 0o755), "cannot be started"),
        (world.program("one", "#!/bin/sh\necho no such option >&2\nexit 1\n", 0o755), "exit code 1"),
        (world.program("zero", "#!/bin/sh\nexit 0\n", 0o755), "exit code 0"),
        (world.program("panics", "#!/bin/sh\nexit 101\n", 0o755), "exit code 101"),
        (world.program("dies", "#!/bin/sh\nkill -SEGV $$\n", 0o755), "signal 11"),
        (world.program("hangs", "#!/bin/sh\nexec sleep 60\n", 0o755), "not ready within 1s"),
        (world.program("deaf", "#!/bin/sh\ntrap '' TERM INT HUP\nexec sleep 60\n", 0o755), "not ready within 1s"),
    ] {
        let ran = world.cli(&["upgrade", "--binary", path.to_str().unwrap()]).await;
        assert_eq!(ran.code, Some(1), "{says}: {ran:?}");
        assert!(ran.err.contains(says), "{says}: {ran:?}");
        assert_eq!(world.worker(), worker, "{says}");
        assert!(world.log().contains(says), "the log says it too: {says}");
    }
    // One that comes as far as the state, and then cannot have a socket.
    let taken = std::net::TcpListener::bind(world.unused()).expect("free");
    let address = taken.local_addr().unwrap();
    world.edit_config(|text| text.replace("listeners:\n", &format!("listeners:\n  more: {{ bind: \"{address}\" }}\n")));
    until("the edit is refused", || async { world.status().await["config"]["last_reload_successful"] == false }).await;
    let ran = world.cli(&["upgrade"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(world.worker(), worker);
    drop(taken);
    // After all that it still decides, and remembers.
    world.switch("shop", "v2").await;
    assert_none(&posts.stop().await, &world);
    assert_eq!(world.metric("switchback_upgrades_total", &[("result", "failed")]).await, 14.0);
    let events = world.events().await;
    assert_eq!(events.iter().filter(|event| event["kind"] == "upgrade").count(), 14);
    world.edit_config(|text| {
        text.replace(&format!("  more: {{ bind: \"{address}\" }}\n"), "")
            .replace("ready_timeout: 1s", "ready_timeout: 20s")
    });
    until("the file is good", || async { world.status().await["config"]["last_reload_successful"] == true }).await;
    world.cli(&["upgrade"]).await.ok();
    assert_eq!(world.get("/").await.origin(), Some("v2"), "what was switched in between was journaled");
}

#[tokio::test]
async fn sigusr2_upgrades_and_the_file_may_have_been_replaced() {
    let (world, _v1) = running("").await;
    let before = world.worker();
    world.signal(libc::SIGUSR2);
    let next = world.successor_of(before).await;
    world.until_gone(before).await;
    assert_eq!(world.worker(), next);
    let audit = world.admin_get("/api/v1/audit").await.json();
    assert!(audit.as_array().unwrap().iter().any(|entry| entry["author"] == "signal:SIGUSR2"), "{audit}");
}

#[tokio::test]
async fn a_crash_after_an_upgrade_starts_the_program_that_was_ready_even_if_its_file_is_gone() {
    let (world, _v1) = running("").await;
    let path = world.install(env!("CARGO_BIN_EXE_switchback"), "switchback-new", 0o755);
    world.cli(&["upgrade", "--binary", path.to_str().unwrap()]).await.ok();
    let worker = world.status().await["pid"].as_u64().unwrap() as u32;
    std::fs::remove_file(&path).unwrap();
    world.program("switchback-new", "#!/bin/sh\nexit 1\n", 0o755);
    kill_9(worker).await;
    assert_eq!(world.get("/").await.status, 200);
    let next = world.successor_of(worker).await;
    let runs = std::fs::read_link(format!("/proc/{next}/exe")).unwrap();
    assert!(runs.to_str().unwrap().contains("switchback-new (deleted)"), "{runs:?}");
}

#[tokio::test]
async fn the_supervisor_becomes_the_new_program_too_unless_that_cannot_go_on() {
    let (mut world, _v1) = running("").await;
    let real = env!("CARGO_BIN_EXE_switchback");
    let runs = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let path = world.install(real, "switchback-new", 0o755);
    let supervisor = world.pid();
    let posts = Posts::start(&world, 8);
    world.cli(&["upgrade", "--binary", path.to_str().unwrap()]).await.ok();
    until("the supervisor runs it", || async { runs(supervisor) == path }).await;
    // A worker that is good, from a program that is no good as a supervisor.
    let text = format!("#!/bin/sh\ncase \"$*\" in *resume*) exit 1;; esac\nexec {real} \"$@\"\n");
    let half = world.program("half", &text, 0o755);
    world.cli(&["upgrade", "--binary", half.to_str().unwrap()]).await.ok();
    until("it stays what it was", || async { world.log().contains("stays the program it was") }).await;
    assert_eq!(runs(supervisor), path);
    assert_none(&posts.stop().await, &world);
    // It still does all it has to.
    within(Duration::from_secs(20), "retired workers end", || async { world.workers().len() == 1 }).await;
    let worker = world.worker();
    kill_9(worker).await;
    assert_eq!(world.get("/").await.status, 200);
    let worker = world.successor_of(worker).await;
    assert_eq!(world.metric("switchback_worker_restarts_total", &[]).await, 1.0);
    world.cli(&["upgrade", "--binary", path.to_str().unwrap()]).await.ok();
    world.until_gone(worker).await;
    assert_eq!(world.metric("switchback_upgrades_total", &[("result", "ok")]).await, 3.0);
    let name = || std::fs::read_to_string(format!("/proc/{supervisor}/comm")).unwrap();
    until("it has the name that `pgrep` looks for", || async { name().trim() == "switchback" }).await;
    assert_eq!(world.terminate().await.code(), Some(0), "{}", world.log());
}

#[tokio::test]
async fn streams_finish_where_they_began() {
    let (world, v1) = running("").await;
    let before = world.worker();
    let mut socket = WsClient::open(world.web(), "/ws").await;
    socket.ping_pong().await.unwrap();
    let mut stream = SseClient::open(world.web(), "/sse").await;
    stream.next().await.unwrap();
    let mut slow = world.client();
    let slow = tokio::spawn(async move { slow.get("/slow/1500").await });
    until("it runs", || async { world.version_status("shop", "v1").await["in_flight"]["http"] == 1 }).await;
    world.cli(&["upgrade"]).await.ok();
    let now = world.status().await["pid"].as_u64().unwrap() as u32;
    assert_ne!(now, before);
    assert_eq!(slow.await.unwrap().status, 200, "what ran was finished");
    for _ in 0..3 {
        socket.ping_pong().await.unwrap();
        v1.tick();
        stream.next().await.unwrap();
    }
    assert!(world.workers().contains(&before), "it stays for its streams");
    drop(stream);
    socket.close().await;
    world.until_gone(before).await;
    assert_eq!(world.worker(), now);
    assert!(!world.log().contains("work was cut"), "{}", world.log());
}

#[tokio::test]
async fn what_does_not_finish_is_cut_properly_at_the_deadline() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let policy = "upgrade: { linger: 100ms, drain: 2s }\n";
    world.start_supervised(&(policy.to_string() + &one_service(&[&v1], "active: v1"))).await;
    let before = world.worker();
    let mut socket = WsClient::open(world.web(), "/ws").await;
    socket.ping_pong().await.unwrap();
    world.cli(&["upgrade"]).await.ok();
    let end = soon("it ends", socket.end()).await;
    assert!(matches!(end, WsEnd::Closed(1001 | 1012)), "{end:?}");
    world.until_gone(before).await;
    until("the log says so", || async { world.log().contains("work was cut") }).await;
}

#[tokio::test]
async fn a_stop_ends_retired_workers_too() {
    let (mut world, _v1) = running("").await;
    let before = world.worker();
    let mut socket = WsClient::open(world.web(), "/ws").await;
    socket.ping_pong().await.unwrap();
    world.cli(&["upgrade"]).await.ok();
    let began = Instant::now();
    world.signal(libc::SIGTERM);
    assert_eq!(world.exit(Duration::from_secs(15)).await.code(), Some(3), "a stream was cut");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(state(before), None);
    drop(socket);
}

#[tokio::test]
async fn a_rollout_goes_on_where_it_was_with_one_owner() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    v1.stop_recording();
    v2.stop_recording();
    let plan = "active: v1\nrollout:\n  stages: [25%, 50%, 100%]\n  promote_when: { hold: 1h }\n";
    world.start_supervised(&(QUICK.to_string() + &one_service(&[&v1, &v2], plan))).await;
    let posts = Posts::start(&world, 8);
    posts.more(50).await;
    world.edit_config(to_v2);
    until_stage(&world, 1).await;
    let before = rollout(&world).await;
    world.cli(&["upgrade"]).await.ok();
    let after = rollout(&world).await;
    for key in ["stage", "phase", "stable", "canary", "started"] {
        assert_eq!(after[key], before[key], "{key}: {before} {after}");
    }
    // Evidence from before is not forgotten, and the new process is the one that decides.
    let seen = |rollout: &serde_json::Value| rollout["meters"]["canary_requests"].as_u64().unwrap_or(0);
    assert!(seen(&after) >= seen(&before), "{before} {after}");
    for stage in 2..4 {
        world.cli(&["rollout", "promote", "shop"]).await.ok();
        until_stage(&world, stage).await;
    }
    world.cli(&["rollout", "promote", "shop"]).await.ok();
    until_phase(&world, "promoted").await;
    assert_none(&posts.stop().await, &world);
    // A canary that fails goes back in the new process as in the old.
    world.cli(&["upgrade"]).await.ok();
    v1.set(Fault::Status(500));
    world.edit_config(|text| text.replace("active: v2", "active: v1"));
    let load = Load::start(world.web(), &load::Plan::default());
    until_phase(&world, "rolled_back").await;
    load.stop().await.assert_unbroken();
}

#[tokio::test]
async fn endpoints_need_no_new_check_and_a_split_stays() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    let more = "active: v1\nhealth: { path: /healthz, every: 60s, pass: 1 }\nhold: { max_wait: 0s }\nsticky: { header: x-user }\n";
    world.start_supervised(&(QUICK.to_string() + &one_service(&[&v1, &v2], more))).await;
    world.until_health("v1", "healthy").await;
    world.until_health("v2", "healthy").await;
    world.weights("shop", json!({ "v1": 50, "v2": 50 })).await;
    let mut of = Vec::new();
    for user in 0..20 {
        let user = format!("user-{user}");
        let seen = world.client().get_with("/", &[("x-user", &user)]).await;
        of.push((user, seen.origin().unwrap().to_string()));
    }
    // A check that would have to pass first would not.
    v2.set_health(500);
    world.cli(&["upgrade"]).await.ok();
    assert_eq!(world.health("shop", "v2").await, "healthy", "as the process before knew it");
    for (user, version) in &of {
        let seen = world.client().get_with("/", &[("x-user", user)]).await;
        assert_eq!((seen.status, seen.origin()), (200, Some(version.as_str())), "{user}");
    }
}

#[tokio::test]
async fn what_would_be_lost_is_in_the_way() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start_supervised(&(QUICK.to_string() + &one_service(&[&v1, &v2], "active: v1"))).await;
    let worker = world.worker();
    let text = std::fs::read_to_string(world.config()).unwrap().replace("active: v1", "active: v2");
    world.admin_post_with("/api/v1/config/apply?confirm=60s", &[("content-type", "application/yaml")], &text).await;
    let ran = world.cli(&["upgrade"]).await;
    assert!(ran.code == Some(1) && ran.err.contains("waits for its confirmation"), "{ran:?}");
    assert_eq!(world.worker(), worker);
    world.cli(&["confirm"]).await.ok();
    world.cli(&["upgrade"]).await.ok();
    assert_eq!(world.get("/").await.origin(), Some("v2"));
}

#[tokio::test]
async fn one_at_a_time_and_going_back_does_not_wait_for_it() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start_supervised(&(QUICK.to_string() + &one_service(&[&v1, &v2], "active: v1"))).await;
    world.switch("shop", "v2").await;
    let hangs = world.program("hangs", "#!/bin/sh\nexec sleep 60\n", 0o755);
    let body = json!({ "binary": hangs });
    let (first, second) = tokio::join!(world.admin_post("/api/v1/upgrade", body), async {
        until("the first has begun", || async { world.workers().len() == 2 }).await;
        let second = world.cli(&["upgrade"]).await;
        assert_eq!(world.get("/").await.origin(), Some("v2"));
        // It has not come as far as the state: a rollback is carried out at once.
        world.rollback("shop").await;
        let worker = world.status().await["pid"].as_u64().unwrap() as u32;
        let new = world.workers().into_iter().find(|pid| *pid != worker).unwrap();
        signal(new, libc::SIGKILL);
        second
    });
    assert!(second.code == Some(1) && second.err.contains("one at a time"), "{second:?}");
    assert_eq!(first.status, 500, "{}", first.text());
    assert!(first.text().contains("signal 9"), "{}", first.text());
    assert_eq!(world.get("/").await.origin(), Some("v1"));
}

/// Stops the new process in the moment in which it has the state. `None`: it was quicker.
async fn stuck_with_the_state(world: &World) -> Option<(u32, tokio::task::JoinHandle<world::Ran>)> {
    let before = world.worker();
    let frozen = world.log().matches("frozen:").count();
    let mut command = binary();
    command.args(["upgrade", "--admin", &world.admin().to_string()]);
    command.args(["--token-file", world.state_dir().join("admin.token").to_str().unwrap()]);
    let upgrade = tokio::spawn(world::run(command));
    let end = Instant::now() + Duration::from_secs(10);
    while world.log().matches("frozen:").count() == frozen && Instant::now() < end {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let new = world.workers().into_iter().find(|pid| *pid != before)?;
    signal(new, libc::SIGSTOP);
    if world.log().matches("another process serves now").count() > 0 {
        signal(new, libc::SIGCONT);
        let _ = upgrade.await;
        return None;
    }
    Some((new, upgrade))
}

#[tokio::test]
async fn a_new_process_that_hangs_with_the_state_gives_it_back() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start_supervised(&(QUICK.to_string() + &one_service(&[&v1, &v2], "active: v1"))).await;
    world.switch("shop", "v2").await;
    let Some((stuck, upgrade)) = stuck_with_the_state(&world).await else {
        eprintln!("skipped: the new process was ready before it could be stopped");
        return;
    };
    // Serving goes on, and so does looking.
    assert_eq!(world.get("/").await.origin(), Some("v2"));
    assert_eq!(world.admin_get("/readyz").await.status, 200);
    // Going back does not wait until the new process is given up.
    let began = Instant::now();
    world.rollback("shop").await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(world.get("/").await.origin(), Some("v1"));
    let ran = upgrade.await.expect("the command ends");
    assert!(ran.code == Some(1) && ran.err.contains("does not wait for an upgrade"), "{ran:?}");
    assert_eq!(state(stuck), None, "it is killed, however it hangs");
    // What was decided since is in the journal.
    let worker = world.worker();
    kill_9(worker).await;
    world.successor_of(worker).await;
    assert_eq!(world.get("/").await.origin(), Some("v1"));
    world.cli(&["upgrade"]).await.ok();
    assert_eq!(world.get("/").await.origin(), Some("v1"));
}

#[tokio::test]
async fn without_a_supervisor_there_is_nobody_to_ask() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], "active: v1")).await;
    let ran = world.cli(&["upgrade"]).await;
    assert!(ran.code == Some(1) && ran.err.contains("no supervisor"), "{ran:?}");
    world.signal(libc::SIGUSR2);
    until("it says so", || async { world.log().contains("SIGUSR2 asks a supervisor") }).await;
    assert_eq!(world.get("/").await.status, 200);
    // A worker's argument without its supervisor.
    let mut command = binary();
    command.args(["run", "-c", world.config().to_str().unwrap(), "--worker-fd", "77"]);
    let ran = world::run(command).await;
    assert!(ran.code == Some(1) && ran.err.contains("no supervisor behind"), "{ran:?}");
}

#[tokio::test]
async fn strangers_may_not_ask() {
    let (world, _v1) = running("").await;
    let mut client = Client::new(world.admin());
    client.host = world.admin().to_string();
    let seen = client.send("POST", "/api/v1/upgrade", &[("content-type", "application/json")], b"{}").await;
    assert_eq!(seen.status, 401, "{}", seen.text());
    let seen = world.admin_post("/api/v1/upgrade", json!({ "binary": "relative" })).await;
    assert_eq!(seen.status, 400, "{}", seen.text());
    let seen = world.admin_post("/api/v1/upgrade", json!({ "program": "/x" })).await;
    assert_eq!(seen.status, 400, "{}", seen.text());
    assert_eq!(world.workers().len(), 1);
}

#[tokio::test]
async fn no_descriptors_left_is_a_reason_and_no_end() {
    let (world, _v1) = running("").await;
    let worker = world.worker();
    let open = std::fs::read_dir(format!("/proc/{}/fd", world.pid())).unwrap().count() as u64;
    let limit = |soft: u64| {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: 4096 };
        // SAFETY: both structures outlive the call.
        let set = unsafe { libc::prlimit(world.pid() as i32, libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut()) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    };
    limit(open);
    let ran = world.cli(&["upgrade"]).await;
    assert!(ran.code == Some(1) && ran.err.contains("Too many open files"), "{ran:?}");
    assert_eq!((world.worker(), world.get("/").await.status), (worker, 200));
    limit(1024);
    world.cli(&["upgrade"]).await.ok();
}
