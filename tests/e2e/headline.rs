//! The headline: keep-alive clients, fresh connections, WebSockets and event streams under a thousand
//! random changes. Nothing fails, nothing is closed, nothing is cut, nothing is stale.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::i4_acknowledged::stale;
use crate::harness::load::Plan;
use crate::harness::*;

const CHANGES: usize = 1000;
const SOCKETS: usize = 50;
const STREAMS: usize = 50;

/// A small generator of our own, so that a failure can be repeated: the seed is printed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn seed() -> u64 {
    match std::env::var("SWITCHBACK_E2E_SEED") {
        Ok(text) => text.parse().expect("SWITCHBACK_E2E_SEED is a number"),
        Err(_) => Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id()) << 20 | 1,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headline_a_thousand_changes_break_nothing() {
    let seed = seed();
    println!("SWITCHBACK_E2E_SEED={seed}");
    let mut dice = Dice(seed);
    let mut world = World::new();
    let origins = [world.origin("v1").await, world.origin("v2").await, world.origin("v3").await];
    for origin in &origins {
        origin.stop_recording();
    }
    let all: Vec<&Origin> = origins.iter().collect();
    let text = |split: &str, mark: u64| {
        let more = format!("{split}\ndrain: {{ requests: 5m, streams: 5m, sessions: 5m }}");
        let routes = "routes:\n  - { name: all, match: { path_prefix: / }, service: shop }\n";
        let marked =
            format!("  - {{ name: m{mark}, match: {{ path: /mark/{mark} }}, respond: {{ status: 200, body: m }} }}\n");
        format!("{routes}{marked}services:\n{}", service("shop", &all, &more))
    };
    world.start(&text("active: v1", 0)).await;

    let stop = Arc::new(AtomicBool::new(false));
    let echoes = Arc::new(AtomicU64::new(0));
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        let mut socket = WsClient::open(world.web(), "/ws").await;
        let (stop, echoes) = (stop.clone(), echoes.clone());
        sockets.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                socket.ping_pong().await?;
                echoes.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok::<(), WsEnd>(())
        }));
    }
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = SseClient::open(world.web(), "/sse").await;
        stream.next().await.unwrap();
        streams.push(tokio::spawn(async move { (stream.end().await, stream.text) }));
    }
    let think = Duration::from_millis(20);
    let load = Load::start(world.web(), &Plan { keep_alive: 64, fresh: 4, think, ..Plan::default() });
    load.more(100).await;

    let began = Instant::now();
    let mut acknowledged = Vec::new();
    let (mut refused, mut ticks) = (0, 0);
    for nth in 1..=CHANGES as u64 {
        let versions = ["v1", "v2", "v3"];
        let pick = versions[dice.roll(3) as usize];
        let weights = [dice.roll(100) + 1, dice.roll(100), dice.roll(100)];
        let answer = match dice.roll(80) {
            // A file edit takes the watcher's time: few of the changes go that way.
            0 => {
                let generation =
                    world.edit_and_wait(|_| world.preamble() + &text(&format!("active: {pick}"), nth)).await;
                acknowledged.push((Instant::now(), generation));
                continue;
            }
            1..=20 => world.post_config("apply", &(world.preamble() + &text(&format!("active: {pick}"), nth))).await,
            21..=40 => world.admin_post("/api/v1/services/shop/switch", json!({ "to": pick })).await,
            41..=66 => {
                let body = json!({ "v1": weights[0], "v2": weights[1], "v3": weights[2] });
                world.admin_post("/api/v1/services/shop/weights", body).await
            }
            _ => world.admin_post("/api/v1/services/shop/rollback", json!({ "reason": "dice" })).await,
        };
        match answer.status {
            200 => acknowledged.push((Instant::now(), answer.json()["generation"].as_u64().unwrap())),
            409 => refused += 1,
            other => panic!("change {nth} (seed {seed}): {other} {}", answer.text()),
        }
        if nth % 50 == 0 {
            ticks += 1;
            origins.iter().for_each(Origin::tick);
        }
    }
    let took = began.elapsed();
    load.more(200).await;
    let report = load.stop().await;
    report.assert_unbroken();
    assert_eq!(stale(&report, acknowledged), Vec::<String>::new());
    assert!(refused < CHANGES / 4, "{refused} changes were refused");

    stop.store(true, Ordering::Relaxed);
    for socket in sockets {
        assert_eq!(socket.await.unwrap(), Ok(()), "a WebSocket was cut");
    }
    assert!(echoes.load(Ordering::Relaxed) > SOCKETS as u64);
    for stream in &mut streams {
        if stream.is_finished() {
            panic!("an event stream ended: {:?}", stream.await);
        }
    }
    for origin in origins {
        origin.stop().await;
    }
    for stream in streams {
        let (_, text) = soon("the stream ends with its origin", stream).await.unwrap();
        let ids: Vec<usize> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
        assert_eq!(ids, (0..ids.len()).collect::<Vec<_>>(), "no event is lost or doubled");
        assert!(ids.len() > ticks / 2, "{} of {ticks}: ticks may melt into one, not vanish", ids.len());
    }
    println!("{CHANGES} changes in {took:?}, {} requests", report.shots.len());
}
