//! The world of a soak, and how each event is brought about in it.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::clock::Clock;
use super::excuse::{Cost, Span};
use super::meters::{self, Meter};
use super::schedule::{ALWAYS, Event, What};
use crate::harness::tls::{Authority, Pair, TlsKind};
use crate::harness::world::binary;
use crate::harness::{Origin, World, until, within};

/// Two versions with two endpoints each: one can be killed while the other serves.
const VERSIONS: [&str; 2] = ["v1", "v2"];
const ENDPOINTS: usize = 2;
/// Everything is quiet again within this.
const SETTLES: Duration = Duration::from_secs(30);

pub struct Stage {
    pub world: World,
    secure: SocketAddr,
    authority: Authority,
    /// `None`: the reason is on stderr.
    clock: Option<Clock>,
    /// By version.
    origins: Vec<Vec<Origin>>,
    /// Processes that ever stood at an endpoint.
    instances: u64,
    /// Routes that reloads added.
    routes: u64,
}

/// An event that happened.
#[derive(Debug)]
pub struct Done {
    pub what: What,
    pub span: Span,
    /// What was not as it should be.
    pub problems: Vec<String>,
}

impl Stage {
    pub async fn start(seed: u64) -> Stage {
        let world = World::new();
        let mut origins = Vec::new();
        for version in VERSIONS {
            let mut of_version = Vec::new();
            for nth in 0..ENDPOINTS {
                let origin = Origin::instance(version, &format!("{nth}"), world.unused()).await;
                origin.stop_recording();
                of_version.push(origin);
            }
            origins.push(of_version);
        }
        let (secure, authority) = (world.unused(), Authority::new("soak"));
        authority.issue(&["shop.test"]).write(world.dir.path(), "shop");
        let clock = Clock::new(world.dir.path());
        if let Err(why) = &clock {
            eprintln!("the clock does not jump in this run: {why}");
        }
        let clock = clock.ok();
        let mut stage = Stage { origins, instances: 0, routes: seed % 1000, world, secure, authority, clock };
        let text = stage.text();
        stage.world.write_config(&text);
        let mut command = Command::new(binary());
        command.args(["run", "-c", "switchback.yaml", "--threads", "2"]);
        if let Some(clock) = &stage.clock {
            clock.wind(&mut command);
        }
        stage.world.spawn_command(command);
        stage.world.ready().await;
        stage.all_healthy().await;
        stage
    }

    /// What can be brought about here.
    pub fn kinds(&self) -> Vec<What> {
        let mut kinds = ALWAYS.to_vec();
        if self.clock.is_some() {
            kinds.push(What::ClockJump);
        }
        kinds
    }

    /// Where clients come over TLS.
    pub fn secure(&self) -> SocketAddr {
        self.secure
    }

    fn family(&self) -> Vec<u32> {
        meters::family(self.world.pid())
    }

    pub fn meter(&self) -> Meter {
        meters::read(self.world.pid())
    }

    fn text(&self) -> String {
        let secure = format!(
            "listeners:\n  secure: {{ bind: \"{}\", tls: {{ certificates: [{{ cert_file: shop.pem, key_file: shop.key }}] }} }}\n",
            self.secure
        );
        let mut text = self.world.preamble().replacen("listeners:\n", &secure, 1) + "routes:\n";
        text += &format!(
            "  - {{ name: r{0}, match: {{ path: /r{0} }}, respond: {{ status: 200, body: r }} }}\n",
            self.routes
        );
        text += "  - { name: all, match: { path_prefix: / }, service: shop }\nservices:\n  shop:\n    versions:\n";
        for (version, origins) in VERSIONS.iter().zip(&self.origins) {
            let endpoints: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address)).collect();
            text += &format!("      {version}: {{ endpoints: [{}] }}\n", endpoints.join(", "));
        }
        text + "    split: { v1: 1, v2: 1 }\n    health: { path: /healthz, every: 200ms, timeout: 2s, pass: 1, fail: 2 }\n    \
                drain: { requests: 5s, streams: 400ms, reconnect_spread: 200ms }\n    hold: { max_wait: 5s }\n"
    }

    pub async fn perform(&mut self, event: &Event) -> Done {
        let mut problems = Vec::new();
        let begin = Instant::now();
        let mut span = Span { begin, end: begin, cost: Cost::Nothing };
        let expect = |problems: &mut Vec<String>, holds: bool, what: String| {
            if !holds {
                problems.push(what);
            }
        };
        match event.what {
            What::Reload => {
                self.routes += 1;
                self.publish().await;
            }
            What::BadReload => {
                let good = self.text();
                let bad = [
                    good.replace("service: shop", "service: shpo"),
                    good[..good.len() / 2].to_string() + "\n  x: [",
                    "\0".into(),
                ];
                self.world.write_config(&bad[(event.roll % 3) as usize]);
                self.taken_over(0.0).await;
                self.world.write_config(&good);
                self.taken_over(1.0).await;
            }
            What::Weights => {
                let share = event.roll % 99 + 1;
                let seen = self.order("weights", json!({ "v1": share, "v2": 100 - share })).await;
                expect(&mut problems, seen == 200, format!("weights: {seen}"));
            }
            What::Switch => {
                let seen = self.order("switch", json!({ "to": VERSIONS[(event.roll % 2) as usize] })).await;
                expect(&mut problems, seen == 200, format!("switch: {seen}"));
            }
            What::Rollback => {
                let seen = self.order("rollback", json!({ "reason": "soak" })).await;
                // Nothing to go back to, at the very beginning.
                expect(&mut problems, matches!(seen, 200 | 409), format!("rollback: {seen}"));
            }
            What::EndpointKilled => {
                let (version, nth) = self.pick(event.roll);
                let origin = &self.origins[version][nth];
                span.begin = Instant::now();
                span.cost = Cost::InFlight;
                origin.stop().await;
                span.end = Instant::now();
                self.instances += 1;
                let again =
                    Origin::instance(VERSIONS[version], &format!("again {}", self.instances), origin.address).await;
                again.stop_recording();
                self.origins[version][nth] = again;
                self.all_healthy().await;
            }
            What::EndpointReplaced => {
                let (version, nth) = self.pick(event.roll);
                self.instances += 1;
                let new =
                    Origin::instance(VERSIONS[version], &format!("new {}", self.instances), self.world.unused()).await;
                new.stop_recording();
                let old = std::mem::replace(&mut self.origins[version][nth], new);
                self.publish().await;
                within(SETTLES, "the replaced endpoint has nothing to do any more", || async { old.open() == 0 }).await;
                self.all_healthy().await;
            }
            What::DiskFull => {
                for pid in self.family() {
                    self.world.limit_files_of(pid, 0);
                }
                for version in VERSIONS {
                    let seen = self.order("switch", json!({ "to": version })).await;
                    expect(&mut problems, seen == 200, format!("switch on a full disk: {seen}"));
                }
                let seen = self.order("rollback", json!({ "reason": "soak" })).await;
                expect(&mut problems, seen == 200, format!("rollback on a full disk: {seen}"));
                until("the full disk is reported", || async {
                    self.world.metric("switchback_journal_writable", &[]).await == 0.0
                })
                .await;
                for pid in self.family() {
                    self.world.limit_files_of(pid, libc::RLIM_INFINITY);
                }
                let seen = self.order("weights", json!({ "v1": 1, "v2": 1 })).await;
                expect(&mut problems, seen == 200, format!("weights with room again: {seen}"));
                until("the journal is written again", || async {
                    self.world.metric("switchback_journal_writable", &[]).await == 1.0
                })
                .await;
            }
            What::CertificateSwapped => {
                let pair = self.authority.issue(&["shop.test"]);
                pair.write(self.world.dir.path(), "shop");
                self.shows(&pair).await;
            }
            What::ClockJump => {
                let before = self.world.service_status("shop").await["effective"].clone();
                let by = self.clock.as_ref().map_or(0, |clock| clock.jump(event.roll));
                let after = self.world.service_status("shop").await["effective"].clone();
                expect(&mut problems, before == after, format!("clock jump: the split was {before}, then {after}"));
                // What is written down at the new time is taken, whatever stands before it.
                let generation = self.world.generation().await;
                self.routes += 1;
                self.publish().await;
                expect(&mut problems, self.world.generation().await > generation, "clock jump: no reload".into());
                let at = self.world.status().await["generation"]["at"].as_i64().unwrap_or(0) / 1000;
                let off = at - by - SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
                expect(&mut problems, off.abs() < 60, format!("clock jump: {off} s from where it was put"));
            }
            What::Upgrade => {
                let before = self.world.generation().await;
                let ran = self.world.cli(&["upgrade"]).await;
                expect(&mut problems, ran.code == Some(0), format!("upgrade: {ran:?}"));
                let after = self.world.generation().await;
                expect(&mut problems, after >= before, format!("upgrade: generation {before}, then {after}"));
            }
            What::BadUpgrade => {
                let bad = self.world.path("bad");
                let (text, mode) = [
                    ("#!/bin/sh\nexit 1\n", 0o755),
                    ("#!/bin/sh\nkill -9 $$\n", 0o755),
                    ("nothing that runs", 0o755),
                    ("", 0o644),
                ][(event.roll % 4) as usize];
                std::fs::write(&bad, text).expect("the folder is ours");
                let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
                std::fs::set_permissions(&bad, mode).expect("the folder is ours");
                let ran = self.world.cli(&["upgrade", "--binary", &bad.display().to_string()]).await;
                expect(&mut problems, ran.code == Some(1), format!("bad upgrade: {ran:?}"));
            }
            What::WorkerKilled => {
                let worker = self.worker().await;
                let before = self.world.service_status("shop").await["effective"].clone();
                span.begin = Instant::now();
                span.cost = Cost::Connections;
                // SAFETY: a plain system call; the process is a child of our child.
                let sent = unsafe { libc::kill(worker as i32, libc::SIGKILL) };
                expect(&mut problems, sent == 0, format!("kill -9 of {worker}"));
                until("the worker is gone", || async { !self.family().contains(&worker) }).await;
                span.end = Instant::now();
                until("another one is ready", || async { self.world.admin_get("/readyz").await.status == 200 }).await;
                let after = self.world.service_status("shop").await["effective"].clone();
                expect(&mut problems, before == after, format!("kill -9: the split was {before}, then {after}"));
                self.all_healthy().await;
            }
        }
        if span.cost == Cost::Nothing {
            span.end = Instant::now();
        }
        Done { what: event.what, span, problems }
    }

    fn pick(&self, roll: u64) -> (usize, usize) {
        ((roll % 2) as usize, (roll / 2 % ENDPOINTS as u64) as usize)
    }

    /// The process that serves; those that an upgrade left are gone first.
    async fn worker(&self) -> u32 {
        within(SETTLES, "only one worker is left", || async { self.family().len() == 2 }).await;
        self.family()[1]
    }

    async fn order(&self, call: &str, body: serde_json::Value) -> u16 {
        self.world.admin_post(&format!("/api/v1/services/shop/{call}"), body).await.status
    }

    /// Writes the file and waits until it is live.
    async fn publish(&self) {
        let before = self.world.generation().await;
        self.world.write_config(&self.text());
        self.world.newer_than(before).await;
    }

    /// Until whoever comes without a ticket sees this certificate.
    async fn shows(&self, pair: &Pair) {
        within(SETTLES, "the new certificate is shown", || async {
            let shown = TlsKind::new().connect(self.secure, "shop.test").await;
            shown.is_ok_and(|connection| connection.tls.shown == pair.der)
        })
        .await;
    }

    async fn taken_over(&self, wanted: f64) {
        until("the file was looked at", || async {
            self.world.metric("switchback_config_last_reload_successful", &[]).await == wanted
        })
        .await;
    }

    async fn all_healthy(&self) {
        let all = (VERSIONS.len() * ENDPOINTS) as f64;
        within(SETTLES, "every endpoint is healthy", || async {
            self.world.metric("switchback_endpoint_healthy", &[("service", "shop")]).await == all
        })
        .await;
    }

    /// Once nobody asks any more: what is still held, and what should not be.
    pub async fn settled(&self, idle: &Meter) -> (Meter, Vec<String>) {
        let in_flight = async || self.world.metric("switchback_in_flight", &[]).await;
        let end = Instant::now() + SETTLES;
        loop {
            let meter = self.meter();
            let mut left = Vec::new();
            let running = in_flight().await;
            let connections = self.world.metric("switchback_connections", &[("listener", "web")]).await;
            let generations = self.world.metric("switchback_generations_live", &[]).await;
            if running > 0.0 {
                left.push(format!("{running} exchanges in flight with no client left"));
            }
            if connections > 0.0 {
                left.push(format!("{connections} client connections with no client left"));
            }
            if generations > 2.0 {
                left.push(format!("{generations} generations held"));
            }
            // Connections to endpoints are kept for a while; the journal's files and the like come with the first change.
            if meter.descriptors > idle.descriptors + 24 {
                left.push(format!("{} descriptors, {} before the load", meter.descriptors, idle.descriptors));
            }
            // Threads for files and names come when they are needed, and stay for a while.
            if meter.threads > idle.threads + 8 {
                left.push(format!("{} threads, {} before the load", meter.threads, idle.threads));
            }
            if left.is_empty() || Instant::now() > end {
                return (meter, left);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The end of it: exit code and what stands in the log that should not.
    pub async fn end(mut self) -> Vec<String> {
        let status = self.world.terminate().await;
        let log = self.world.log();
        let mut problems = Vec::new();
        if status.code() != Some(0) {
            problems.push(format!("it ended with {status}"));
        }
        if let Some(panic) = log.lines().find(|line| line.contains("panicked")) {
            problems.push(format!("the log has: {panic}"));
        }
        problems
    }
}
