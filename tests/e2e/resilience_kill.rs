//! One of two endpoint processes is killed, or stands still, under load: who asks what may run twice sees nothing
//! of it, and nothing that may not runs twice.
//!
//! The endpoints are processes of this very program in front of one origin, which counts what was executed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::harness::client::Seen;
use crate::harness::*;

struct Fleet {
    world: World,
    endpoints: [World; 2],
    origin: Origin,
}

async fn fleet(more: &str) -> Fleet {
    let mut world = World::new();
    let origin = world.origin("shop").await;
    origin.stop_recording();
    let mut endpoints = [World::new(), World::new()];
    for endpoint in &mut endpoints {
        endpoint.start(&one_service(&[&origin], "active: shop")).await;
    }
    let addresses = endpoints.each_ref().map(|endpoint| format!("\"{}\"", endpoint.web())).join(", ");
    let text = format!(
        "routes:\n  - {{ name: all, match: {{ path_prefix: / }}, service: shop }}\nservices:\n  shop:\n    versions: {{ \
         v1: {{ endpoints: [{addresses}] }} }}\n    active: v1\n"
    );
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    world.start(&(text + &more)).await;
    Fleet { world, endpoints, origin }
}

/// Method, target, and what became of it.
type Sent = (&'static str, String, Seen);

/// Clients that send GETs and POSTs in turn, each with a target of its own, and never retry.
struct Mixed {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    seen: Arc<Mutex<Vec<Sent>>>,
    clients: JoinSet<()>,
}

impl Mixed {
    fn start(world: &World) -> Mixed {
        let (stop, sent, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::default());
        let mut mixed = Mixed { stop, sent, seen, clients: JoinSet::new() };
        for nth in 0..16 {
            let (stop, sent, all) = (mixed.stop.clone(), mixed.sent.clone(), mixed.seen.clone());
            let mut client = world.client();
            mixed.clients.spawn(async move {
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let method = if turn % 4 == 3 { "POST" } else { "GET" };
                    let target = format!("/slow/5?{nth}-{turn}");
                    let body: &[u8] = if method == "POST" { b"order" } else { b"" };
                    let seen = client.send(method, &target, &[], body).await;
                    sent.fetch_add(1, Ordering::Relaxed);
                    all.lock().unwrap().push((method, target, seen));
                }
            });
        }
        mixed
    }

    async fn more(&self, count: u64) {
        let goal = self.sent.load(Ordering::Relaxed) + count;
        until("the load makes progress", || async { self.sent.load(Ordering::Relaxed) >= goal }).await;
    }

    async fn stop(mut self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client does not panic");
        }
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// No GET failed, no POST ran twice, and each that was answered ran.
fn assert_unharmed(seen: &[Sent], executed: &HashMap<String, u32>) {
    let failed: Vec<_> = seen.iter().filter(|(method, _, seen)| *method == "GET" && seen.status != 200).collect();
    assert!(failed.is_empty(), "{} of {} failed, first: {:?}", failed.len(), seen.len(), failed[0]);
    for (_, target, seen) in seen.iter().filter(|(method, ..)| *method == "POST") {
        let times = executed.get(target).copied().unwrap_or(0);
        assert!(times <= 1, "{target} ran {times} times");
        assert!(seen.status != 200 || times == 1, "{target} was answered and did not run");
    }
}

/// When the endpoint gets nothing new any more, and why.
async fn until_out(world: &World, endpoint: usize) -> (Duration, String) {
    let begun = Instant::now();
    until("it is out", || async {
        let status = world.version_status("shop", "v1").await["endpoints"][endpoint].clone();
        status["ejected"] == true || status["health"] == "down"
    })
    .await;
    let status = world.version_status("shop", "v1").await["endpoints"][endpoint].clone();
    (begun.elapsed(), status["last_change"].as_str().unwrap_or("").to_string())
}

#[tokio::test]
async fn kill_9_of_one_of_two_is_seen_by_nobody() {
    let policy = "health: { path: /healthz, every: 300ms, timeout: 2s, pass: 1, fail: 1 }\noutlier: { \
                  consecutive_failures: 5 }";
    let mut fleet = fleet(policy).await;
    fleet.world.until_health("v1", "healthy").await;
    let load = Mixed::start(&fleet.world);
    load.more(400).await;
    fleet.endpoints[1].kill_9();
    let (took, why) = until_out(&fleet.world, 1).await;
    // One check, or five failures, whichever comes first; the rest is what a busy machine takes.
    assert!(took < Duration::from_secs(5), "{took:?}: {why}");
    load.more(400).await;
    let seen = load.stop().await;
    assert_unharmed(&seen, &fleet.origin.shared.executed.lock().unwrap());
    assert!(fleet.world.metric("switchback_retries_total", &[("service", "shop")]).await >= 1.0);
}

#[tokio::test]
async fn a_process_that_stands_still_is_seen_by_nobody() {
    let policy = "health: { path: /healthz, every: 60s, timeout: 1s }\noutlier: { consecutive_failures: 5 }\nretry: { on: \
                  [connect, reset, timeout], per_try_timeout: 1s }\ntimeouts: { request: 4s }";
    let fleet = fleet(policy).await;
    fleet.world.until_health("v1", "healthy").await;
    until("the second one is healthy", || async {
        fleet.world.version_status("shop", "v1").await["endpoints"][1]["health"] == "healthy"
    })
    .await;
    let load = Mixed::start(&fleet.world);
    load.more(400).await;
    fleet.endpoints[1].signal(libc::SIGSTOP);
    let (took, why) = until_out(&fleet.world, 1).await;
    assert!(why.contains("in a row"), "no check has spoken: {why}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    load.more(400).await;
    let seen = load.stop().await;
    fleet.endpoints[1].signal(libc::SIGCONT);
    assert_unharmed(&seen, &fleet.origin.shared.executed.lock().unwrap());
    let again = fleet.world.metric("switchback_retries_total", &[("service", "shop"), ("reason", "timeout")]).await;
    assert!(again >= 1.0, "{again}");
}
