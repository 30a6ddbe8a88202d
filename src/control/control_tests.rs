//! Control as a whole: real configuration, routing and journal, with sockets and endpoints made up.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::api::{Author, Change, DrainStatus, ListenerStatus, Receipt, Refused, Request, Status};
use super::boot::start_watching;
use super::ports::{AdminListener, Drains, Endpoints, Listeners, LogTarget, Ports, Prepared};
use super::watch::Settings;
use super::{Handle, Live, Options, Phase, Question, Snapshot, Source, StartError};
use crate::config::model::{AccessLog, Admin, Listener, Name};
use crate::outcome::CodesRegistry;
use crate::sessions::connections::Connections;
use crate::telemetry::Events;

const PATIENCE: Duration = Duration::from_secs(20);

/// Ports that open nothing and remember what they were told.
#[derive(Default)]
struct Made {
    port_taken: AtomicBool,
    commits: AtomicUsize,
    live: OnceLock<Arc<Live>>,
    /// What was called, and the generation that was live then.
    calls: Mutex<Vec<(&'static str, u64)>>,
    published: Mutex<Vec<(u64, u64)>>,
    /// The writer is kept between the flip and the telling of it.
    busy: AtomicBool,
}

impl Made {
    fn called(&self, what: &'static str) {
        let number = self.live.get().map_or(0, |live| live.load().generation.number());
        self.calls.lock().expect("not poisoned").push((what, number));
    }
}

impl Listeners for Made {
    fn prepare(&self, _: &BTreeMap<Name, Listener>) -> Result<Prepared, String> {
        match self.port_taken.load(Ordering::SeqCst) {
            true => Err("listener `web`: 127.0.0.1:8080 is taken".into()),
            false => Ok(Box::new(())),
        }
    }
    fn settle(&self, _: &Prepared) {
        self.called("settings of listeners");
    }
    fn commit(&self, _: Prepared) {
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.called("listeners");
    }
    fn status(&self) -> Vec<ListenerStatus> {
        Vec::new()
    }
    fn difference(&self, _: &BTreeMap<Name, Listener>) -> (Vec<String>, Vec<String>) {
        (vec!["web".into()], Vec::new())
    }
}
impl Endpoints for Made {
    fn reconcile(&self, _: &Arc<Snapshot>) {}
}
impl Drains for Made {
    fn published(&self, before: &Arc<Snapshot>, now: &Arc<Snapshot>) {
        if self.busy.load(Ordering::SeqCst) {
            // Not as the task of a thread that may be the one who looks after timers.
            tokio::task::block_in_place(|| {
                while self.busy.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let pair = (before.generation.number(), now.generation.number());
        self.published.lock().expect("not poisoned").push(pair);
    }
    fn status(&self) -> Vec<DrainStatus> {
        Vec::new()
    }
}
impl AdminListener for Made {
    fn prepare(&self, _: &Admin) -> Result<Prepared, String> {
        Ok(Box::new(()) as Box<dyn Any + Send>)
    }
    fn commit(&self, _: Prepared) {
        self.called("admin");
    }
    fn address(&self) -> Option<String> {
        None
    }
}
impl LogTarget for Made {
    fn prepare(&self, _: &AccessLog) -> Result<Prepared, String> {
        Ok(Box::new(()))
    }
    fn commit(&self, _: Prepared) {
        self.called("access log");
    }
}

struct World {
    handle: Handle,
    made: Arc<Made>,
    _phase: watch::Sender<Phase>,
}

async fn start(path: &Path) -> Result<World, StartError> {
    let made = Arc::new(Made::default());
    let (phase, seen) = watch::channel(Phase::Ready);
    let options = Options {
        source: Source::File(path.to_path_buf()),
        threads: 2,
        ports: Ports {
            listeners: made.clone(),
            endpoints: made.clone(),
            drains: made.clone(),
            admin: made.clone(),
            access_log: made.clone(),
        },
        events: Events::default(),
        codes: Arc::new(CodesRegistry::new(2)),
        phase: seen,
        connections: Connections::new(2),
        turn: None,
    };
    let handle = start_watching(options, Settings::default()).await?;
    Ok(World { handle, made, _phase: phase })
}

impl World {
    async fn ask(&self, change: Change) -> Result<Receipt, Refused> {
        let request = Request { change, author: Author("cli:ada".into()), if_match: None };
        self.handle.request(request).await
    }
    async fn switch(&self, to: &str) -> Result<Receipt, Refused> {
        self.ask(Change::Switch { to: BTreeMap::from([("shop".into(), to.into())]), force: false }).await
    }
    async fn rollback(&self) -> Result<Receipt, Refused> {
        self.ask(Change::Rollback { service: "shop".into(), reason: None }).await
    }
    /// `v1=1` and who owns it.
    fn shop(&self) -> (String, String) {
        let status = self.handle.status();
        let shop = status.services.iter().find(|service| service.name == "shop").expect("a service");
        (super::overlay::weights_text(&shop.effective), shop.owner.clone())
    }
    async fn until(&self, what: &str, holds: impl Fn(&Status) -> bool) {
        let began = Instant::now();
        while !holds(&self.handle.status()) {
            assert!(began.elapsed() < PATIENCE, "{what}: {:#?}", self.handle.status());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn text(split: &str, more: &str) -> String {
    format!(
        "schema: 1
state_dir: ./state
listeners:
  web: {{ bind: \"127.0.0.1:8080\" }}
admin: {{ bind: \"127.0.0.1:9900\" }}
routes:
  - {{ name: shop, match: {{ path_prefix: / }}, service: shop }}
services:
  shop:
    versions:
      v1: {{ endpoints: [\"127.0.0.1:3001\"] }}
      v2: {{ endpoints: [\"127.0.0.1:3002\"] }}
      v3: {{ endpoints: [\"127.0.0.1:3003\"] }}
    {split}
{more}"
    )
}

fn folder(content: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("switchback.yaml");
    std::fs::write(&path, content).expect("writable");
    (dir, path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_and_its_rollback_leave_proof_and_an_owner() {
    let (_dir, path) = folder(&text("active: v1", ""));
    let world = start(&path).await.expect("starts");
    assert_eq!(world.handle.live().load().generation.number(), 1);
    let table = world.handle.live().load().generation.table.clone();
    let receipt = world.switch("v2").await.expect("switched");
    assert_eq!((receipt.generation, receipt.changed, &*receipt.cause), (2, true, "switch shop to v2"));
    assert_eq!(receipt.from["shop"], BTreeMap::from([("v1".to_string(), 1)]));
    assert_eq!(receipt.to["shop"], BTreeMap::from([("v2".to_string(), 1)]));
    assert_eq!(receipt.warnings, [] as [String; 0]);
    assert_eq!(world.shop(), ("v2=1".into(), "cli:ada".into()));
    assert!(world.handle.effective().contains("the file says active v1"), "{}", world.handle.effective());

    let back = world.rollback().await.expect("back");
    assert_eq!(world.shop(), ("v1=1".into(), "file".into()), "what the file says is the file's");
    assert!(back.warnings.is_empty());
    let again = world.rollback().await.expect("undone");
    assert_eq!(world.shop().0, "v2=1");
    assert!(again.warnings[0].contains("undid a rollback"), "{:?}", again.warnings);

    let same = world.switch("v2").await.expect("nothing to do");
    assert_eq!((same.changed, same.generation), (false, 4));
    assert!(Arc::ptr_eq(&table, &world.handle.live().load().generation.table), "i5: the table was never built again");
    assert_eq!(*world.made.published.lock().expect("not poisoned"), [(1, 2), (2, 3), (3, 4)]);
}

/// Whoever learns that a generation is live must not meet the settings of the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_hold_before_their_generation_is_seen_and_new_listeners_open_behind_it() {
    let (_dir, path) = folder(&text("active: v1", ""));
    let world = start(&path).await.expect("starts");
    assert!(world.made.live.set(world.handle.live().clone()).is_ok());
    world.made.calls.lock().expect("not poisoned").clear();
    let edited = text("active: v1", "").replace("8080\"", "8080\", limits: { connections: 9 }");
    std::fs::write(&path, edited).expect("writable");
    world.until("it is live", |status| status.generation.number == 2).await;
    let all = [("settings of listeners", 1), ("admin", 1), ("access log", 1), ("listeners", 2)];
    world.until("all are told", |_| world.made.calls.lock().expect("not poisoned").len() == all.len()).await;
    assert_eq!(*world.made.calls.lock().expect("not poisoned"), all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_reads_of_one_generation_only() {
    let (_dir, path) = folder(&text("active: v1", ""));
    let world = start(&path).await.expect("starts");
    world.handle.settled().await;
    std::fs::write(&path, "schema: 2").expect("writable");
    world.until("it is said", |status| !status.config.last_reload_successful).await;
    world.made.busy.store(true, Ordering::SeqCst);
    std::fs::write(&path, text("active: v2", "")).expect("writable");
    world.until("it is live", |status| status.generation.number == 2).await;
    assert!(!world.handle.status().config.last_reload_successful, "the writer had no time yet to tell");
    let handle = world.handle.clone();
    let settled = tokio::spawn(async move {
        handle.settled().await;
        handle.status().config.last_reload_successful
    });
    world.made.busy.store(false, Ordering::SeqCst);
    assert!(settled.await.expect("no panic"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_a_rollback_stores_what_was_built_before() {
    let (_dir, path) = folder(&text("active: v1", ""));
    let world = start(&path).await.expect("starts");
    world.switch("v2").await.expect("switched");
    let before = world.handle.live().load();
    world.rollback().await.expect("back");
    let now = world.handle.live().load();
    assert!(Arc::ptr_eq(&before.runtime, &now.runtime) && Arc::ptr_eq(&before.codes, &now.codes));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_and_nothing_changes() {
    let (_dir, path) = folder(&text("active: v1", ""));
    let world = start(&path).await.expect("starts");
    assert!(matches!(world.switch("v9").await, Err(Refused::NotFound { .. })));
    assert!(matches!(world.rollback().await, Err(Refused::Conflict { .. })));
    let one_of_two = BTreeMap::from([("nope".to_string(), "v1".to_string()), ("shop".into(), "v2".into())]);
    assert!(matches!(world.ask(Change::Switch { to: one_of_two, force: true }).await, Err(Refused::NotFound { .. })));
    let author = Author("cli:ada".into());
    let change = Change::Drain { service: "shop".into(), version: "v1".into() };
    let stale = Request { change, author, if_match: Some(7) };
    assert_eq!(world.handle.request(stale).await, Err(Refused::Stale { wanted: 7, live: 1 }));
    assert!(matches!(world.ask(Change::Revert { generation: 99 }).await, Err(Refused::NotFound { .. })));
    world.made.port_taken.store(true, Ordering::SeqCst);
    let apply = Change::Apply { text: text("active: v2", ""), name: "sent".into(), confirm_ms: None };
    assert!(matches!(world.ask(apply).await, Err(Refused::Failed { .. })));
    assert_eq!((world.shop().0, world.handle.live().load().generation.number()), ("v1=1".into(), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_of_the_service_wins_and_any_other_edit_does_not() {
    let (_dir, path) = folder(&text("active: v1", ""));
    let world = start(&path).await.expect("starts");
    world.switch("v2").await.expect("switched");
    std::fs::write(&path, text("active: v1", "expose: { response_headers: true }\n")).expect("writable");
    world.until("the edit is live", |status| status.generation.number == 3).await;
    assert_eq!(world.shop(), ("v2=1".into(), "cli:ada".into()));
    std::fs::write(&path, text("split: { v1: 1, v3: 1 }", "")).expect("writable");
    world.until("the edit is live", |status| status.generation.number == 4).await;
    assert_eq!(world.shop(), ("v1=1 v3=1".into(), "file".into()));
    assert!(world.handle.status().warnings.iter().any(|warning| warning.contains("the edit wins")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_a_broken_file_changes_nothing_and_is_seen_until_fixed() {
    let (_dir, path) = folder(&text("active: v1", ""));
    let world = start(&path).await.expect("starts");
    for broken in ["services: {", &text("active: v7", ""), "\0\0\0"] {
        std::fs::write(&path, broken).expect("writable");
        world.until("it is said", |status| !status.config.last_reload_successful).await;
        let status = world.handle.status();
        assert!(!status.config.problems.is_empty() && status.generation.number == 1, "{status:#?}");
        std::fs::write(&path, text("active: v1", "")).expect("writable");
        world.until("it is good again", |status| status.config.last_reload_successful).await;
        assert!(world.handle.status().config.problems.is_empty());
    }
    assert_eq!(world.handle.live().load().generation.number(), 1, "the same content is no new generation");
    let failed = world.handle.events().subscribe(0).0.iter().filter(|event| event.kind == "reload_failed").count();
    assert_eq!(failed, 3, "once for each content");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_generation_comes_back_with_the_file_gone() {
    let (_dir, path) = folder(&text("active: v1", ""));
    let world = start(&path).await.expect("starts");
    for turn in 1..=25 {
        let text = text(&format!("split: {{ v1: {turn}, v2: 100 }}"), "");
        world.ask(Change::Apply { text, name: "sent".into(), confirm_ms: None }).await.expect("applied");
    }
    std::fs::remove_file(&path).expect("gone");
    assert!(world.handle.generations().len() >= 25);
    for number in [5, 12, 1] {
        let receipt = world.ask(Change::Revert { generation: number }).await.expect("reverted");
        assert!(receipt.changed);
        let expected = if number == 1 { "v1=1".into() } else { format!("v1={} v2=100", number - 1) };
        assert_eq!(world.shop().0, expected);
    }
    std::fs::write(&path, text("active: v3", "")).expect("writable");
    world.until("the next edit wins", |status| status.services[0].effective.contains_key("v3")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reverted_configuration_is_said_to_differ_and_survives_a_restart() {
    let (_dir, path) = folder(&text("active: v1", ""));
    let world = start(&path).await.expect("starts");
    std::fs::write(&path, text("active: v2", "")).expect("writable");
    world.until("the edit is live", |status| status.generation.number == 2).await;
    world.ask(Change::Revert { generation: 1 }).await.expect("reverted");
    let differs =
        |world: &World| world.handle.status().warnings.iter().any(|it| it.contains("the next edit of the file"));
    assert!(differs(&world), "{:?}", world.handle.status().warnings);
    world.handle.stop().await;
    drop(world);
    let world = start(&path).await.expect("starts again");
    assert_eq!((world.shop().0, world.handle.live().load().generation.number()), ("v1=1".into(), 3));
    assert!(differs(&world));
    world.ask(Change::Reload).await.expect("asked for the file");
    assert_eq!(world.shop().0, "v2=1");
    assert!(!differs(&world));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_was_asked_for_at_once_and_undone_before_it_came_to_rest_is_undone() {
    let (_dir, path) = folder(&text("active: v1", ""));
    let world = start(&path).await.expect("starts");
    std::fs::write(&path, text("active: v2", "")).expect("writable");
    world.ask(Change::Reload).await.expect("read at once");
    std::fs::write(&path, text("active: v1", "")).expect("writable");
    world.until("the file is what runs", |status| status.generation.number == 3).await;
    assert_eq!(world.shop().0, "v1=1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_what_operators_changed_survives_a_restart_unless_the_file_was_edited() {
    let (_dir, path) = folder(&text("active: v1", ""));
    let world = start(&path).await.expect("starts");
    world.switch("v2").await.expect("switched");
    world.handle.stop().await;
    assert!(matches!(world.switch("v3").await, Err(Refused::Failed { .. })), "it has stopped");
    drop(world);

    let world = start(&path).await.expect("starts again");
    assert_eq!(world.shop(), ("v2=1".into(), "cli:ada".into()));
    assert_eq!(world.handle.live().load().generation.number(), 2, "it is the same generation");
    let receipt = world.rollback().await.expect("the way back survived too");
    assert_eq!(receipt.generation, 3, "numbers go on");
    assert_eq!(world.shop().0, "v1=1");
    world.switch("v2").await.expect("switched");
    world.handle.stop().await;
    drop(world);

    std::fs::write(&path, text("active: v3", "")).expect("writable");
    let world = start(&path).await.expect("starts again");
    assert_eq!(world.shop(), ("v3=1".into(), "file".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_at_start_serves_the_last_known_good_generation() {
    let (_dir, path) = folder("services: {");
    let refused = start(&path).await.map(|_| ()).expect_err("nothing is known");
    assert!(refused.to_string().contains("nothing is served"), "{refused}");
    std::fs::write(&path, text("active: v1", "")).expect("writable");
    let world = start(&path).await.expect("starts");
    world.switch("v2").await.expect("switched");
    world.handle.stop().await;
    drop(world);

    std::fs::write(&path, "services: {").expect("writable");
    let world = start(&path).await.expect("serves what it knows");
    let status = world.handle.status();
    assert_eq!((&*status.state, status.config.degraded, status.generation.number), ("degraded", true, 2));
    assert_eq!(world.shop(), ("v2=1".into(), "cli:ada".into()));
    std::fs::write(&path, text("active: v1", "expose: { response_headers: true }\n")).expect("writable");
    world.until("it recovers", |status| status.state == "ready" && status.config.last_reload_successful).await;
    assert_eq!(world.shop().0, "v2=1", "the file's value is what it was, so the switch stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apply_that_nobody_confirms_goes_back() {
    let (_dir, path) = folder(&text("active: v1", ""));
    let world = start(&path).await.expect("starts");
    let apply = |confirm_ms| Change::Apply { text: text("active: v2", ""), name: "sent".into(), confirm_ms };
    world.ask(apply(Some(50))).await.expect("applied");
    world.until("it goes back", |status| status.generation.number == 3 && status.confirm_until.is_none()).await;
    assert_eq!((world.shop().0, world.handle.status().confirm_until), ("v1=1".into(), None));
    let receipt = world.ask(apply(Some(60_000))).await.expect("applied");
    assert!(world.handle.status().confirm_until.is_some());
    assert!(matches!(world.ask(apply(None)).await, Err(Refused::Conflict { .. })), "one at a time");
    world.ask(Change::Confirm { generation: Some(receipt.generation) }).await.expect("kept");
    assert_eq!((world.shop().0, world.handle.status().confirm_until), ("v2=1".into(), None));
    assert!(matches!(world.ask(Change::Confirm { generation: Some(4) }).await, Err(Refused::Conflict { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expected_case_that_does_not_hold_stops_the_publish() {
    let good = "expect:\n  - { get: \"http://x.test/a\", service: shop, version: v1 }\n";
    let (_dir, path) = folder(&text("active: v1", good));
    let world = start(&path).await.expect("the case holds");
    let apply = Change::Apply { text: text("active: v2", good), name: "sent".into(), confirm_ms: None };
    let Err(Refused::Invalid { problems, .. }) = world.ask(apply).await else { panic!("published") };
    assert_eq!(problems[0].why.as_deref(), Some("the version is `v2`, not `v1`"));
    assert!(problems[0].place.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hold_release_clear_and_drain_do_what_they_say() {
    let (_dir, path) = folder(&text("active: v1", ""));
    let world = start(&path).await.expect("starts");
    let shop = || "shop".to_string();
    assert!(world.ask(Change::Hold { service: shop() }).await.expect("held").changed);
    assert!(world.handle.status().services[0].held);
    assert!(world.ask(Change::Release { service: shop() }).await.expect("released").changed);
    assert!(!world.handle.status().services[0].held);
    let to = BTreeMap::from([(shop(), super::testing::weights("v1=9 v2=1"))]);
    world.ask(Change::Weights { to, force: false }).await.expect("weighted");
    world.ask(Change::Drain { service: shop(), version: "v1".into() }).await.expect("draining");
    assert_eq!(world.shop().0, "v1=0 v2=1");
    world.ask(Change::Clear { service: shop() }).await.expect("cleared");
    assert_eq!(world.shop(), ("v1=1".into(), "file".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_says_what_would_change_and_changes_nothing() {
    let (_dir, path) = folder(&text("active: v1", ""));
    let world = start(&path).await.expect("starts");
    let plan = world.handle.plan(Some((text("split: { v1: 50, v2: 50 }", ""), "sent".into()))).await.expect("valid");
    assert!(plan.changed && plan.base == 1);
    let split = plan.changes.iter().find(|line| line.text.contains("off -> 50")).expect("the split");
    assert_eq!((&*split.kind, &*split.subject, &*split.text), ("split", "shop", "v1 1 -> 50, v2 off -> 50"));
    assert!(plan.diff.contains("+") && plan.consequences.iter().any(|line| line.kind == "client"));
    let same = world.handle.plan(None).await.expect("valid");
    assert!(!same.changed && same.diff.is_empty(), "{same:#?}");
    assert_eq!(world.handle.live().load().generation.number(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_tells_each_step() {
    let (_dir, path) = folder(&text("active: v1\n    sticky: { header: x-user }", ""));
    let world = start(&path).await.expect("starts");
    let question = Question {
        method: "GET".into(),
        url: "http://shop.test/a/../b?c=1".into(),
        headers: vec![("x-user".into(), "ada".into())],
        client: None,
    };
    let told = world.handle.explain(&question).expect("a request");
    assert_eq!((told.route.as_deref(), told.version.as_deref()), (Some("shop"), Some("v1")));
    assert_eq!(told.reason.as_deref(), Some("sticky"));
    assert_eq!(told.forwarded_path.as_deref(), Some("/b?c=1"));
    assert!(told.steps.iter().any(|step| step.contains("is read as /b")), "{:?}", told.steps);
    let bad = Question { method: "GE T".into(), ..Question::default() };
    assert!(world.handle.explain(&bad).is_err());
}
