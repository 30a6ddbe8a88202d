//! SIGTERM: readiness goes first, nothing is refused while the load balancer looks away, and it ends the
//! moment it is idle.

use std::time::{Duration, Instant};

use crate::harness::load::Plan;
use crate::harness::streams::Watched;
use crate::harness::*;

async fn running(shutdown: &str) -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let shutdown = if shutdown.is_empty() { String::new() } else { format!("shutdown: {{ {shutdown} }}\n") };
    world.start(&(shutdown + &one_service(&[&v1], "active: v1"))).await;
    (world, v1)
}

#[tokio::test]
async fn the_order_of_a_shutdown() {
    let (mut world, _v1) = running("pre_drain: 2s, linger: 500ms, timeout: 15s").await;
    let mut kept = world.client();
    assert_eq!(kept.get("/").await.status, 200);
    let mut slow = world.client();
    let slow = tokio::spawn(async move { slow.get("/slow/3500").await });
    until("it runs", || async { world.version_status("shop", "v1").await["in_flight"]["http"] == 1 }).await;
    world.signal(libc::SIGTERM);
    let began = Instant::now();
    until("readiness is off", || async { world.admin_get("/readyz").await.status == 503 }).await;
    assert!(world.admin_get("/readyz").await.text().contains("draining"));
    assert_eq!(world.admin_get("/livez").await.status, 200);
    // Still accepting, for those whom the news has not reached.
    let fresh = world.get("/").await;
    assert_eq!(fresh.status, 200, "{:?}", fresh.outcome);
    // Lame duck: the answer says close, and new connections are refused.
    until("answers say close", || async {
        let seen = world.client().get("/").await;
        seen.closes() || matches!(seen.outcome, Outcome::NotConnected(_))
    })
    .await;
    let last = kept.get("/").await;
    assert!(last.outcome == Outcome::Ok || last.outcome == Outcome::ClosedBeforeAnswer, "{last:?}");
    let status = world.exit(Duration::from_secs(20)).await;
    let took = began.elapsed();
    let seen = slow.await.unwrap();
    assert_eq!((seen.status, &seen.outcome), (200, &Outcome::Ok), "what ran was finished");
    assert_eq!(status.code(), Some(0));
    assert!(
        took > Duration::from_secs(3) && took < Duration::from_secs(12),
        "it ends when the last request does: {took:?}"
    );
}

#[tokio::test]
async fn idle_it_ends_soon_and_within_ten_seconds_by_default() {
    let (mut world, _v1) = running("").await;
    let idle = world.raw().await;
    assert_eq!(world.get("/").await.status, 200);
    let began = Instant::now();
    let status = world.terminate().await;
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    drop(idle);
}

#[tokio::test]
async fn who_has_just_connected_is_answered_even_without_linger() {
    for _ in 0..5 {
        let (mut world, _v1) = running("pre_drain: 0s, linger: 0s, timeout: 5s").await;
        assert_eq!(world.get("/").await.status, 200, "it accepts");
        let mut raw = world.raw().await;
        let connected = Instant::now();
        world.signal(libc::SIGTERM);
        until("nothing more is accepted", || async { world.log().contains("no longer accepting") }).await;
        let _ = raw.write(b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
        let asked_after = connected.elapsed();
        let seen = raw.answer().await;
        assert_eq!(world.exit(Duration::from_secs(10)).await.code(), Some(0));
        // It has a second, which a busy machine may take for itself.
        if asked_after < Duration::from_millis(700) {
            return assert_eq!((seen.status, seen.closes()), (200, true), "{seen:?}");
        }
    }
    panic!("never quick enough to say anything");
}

#[tokio::test]
async fn keep_alive_clients_lose_nothing() {
    let (mut world, _v1) = running("pre_drain: 300ms, linger: 1s, timeout: 8s").await;
    let load = Load::start(world.web(), &Plan { keep_alive: 16, fresh: 0, ..Plan::default() });
    load.more(100).await;
    world.signal(libc::SIGTERM);
    let status = world.exit(Duration::from_secs(10)).await;
    let report = load.stop().await;
    assert_eq!(status.code(), Some(0));
    // A client that was told to close connects anew and finds nobody: that is what it was told. What it
    // asks on a connection that was kept must be answered.
    let broken: Vec<_> = report.failures().into_iter().filter(|shot| shot.reused).collect();
    assert!(broken.is_empty(), "{} broken, first {:?}", broken.len(), broken[0]);
}

#[tokio::test]
async fn what_cannot_finish_is_cut_properly_and_the_exit_code_says_so() {
    let (mut world, _v1) = running("pre_drain: 100ms, linger: 100ms, timeout: 1500ms").await;
    let mut socket = WsClient::open(world.web(), "/ws").await;
    socket.ping_pong().await.unwrap();
    let mut stream = SseClient::open(world.web(), "/sse").await;
    stream.next().await.unwrap();
    let mut slow = world.client();
    let slow = tokio::spawn(async move { slow.get("/slow/20000").await });
    until("it runs", || async { world.version_status("shop", "v1").await["in_flight"]["http"] == 1 }).await;
    world.signal(libc::SIGTERM);
    let began = Instant::now();
    let (ws, sse) = soon("both end", async { tokio::join!(socket.end(), stream.end()) }).await;
    assert!(matches!(ws, WsEnd::Closed(1001 | 1012)), "{ws:?}");
    assert_eq!(sse, SseEnd::Clean);
    let status = world.exit(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(3), "work was cut");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let _ = slow.await.unwrap();
}

#[tokio::test]
async fn a_second_signal_ends_it_now() {
    let (mut world, _v1) = running("pre_drain: 5s, linger: 1s, timeout: 9s").await;
    let mut slow = world.client();
    let slow = tokio::spawn(async move { slow.get("/slow/20000").await });
    until("it runs", || async { world.version_status("shop", "v1").await["in_flight"]["http"] == 1 }).await;
    world.signal(libc::SIGTERM);
    until("the first is noticed", || async { world.admin_get("/readyz").await.status == 503 }).await;
    world.signal(libc::SIGINT);
    let began = Instant::now();
    let status = world.exit(Duration::from_secs(5)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(status.code(), Some(3));
    let _ = slow.await.unwrap();
}

#[tokio::test]
async fn a_signal_during_the_start_ends_it_properly() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let shutdown = "shutdown: { pre_drain: 0s, linger: 0s, timeout: 2s }\n".to_string();
    world.write_config(&(world.preamble() + &shutdown + &one_service(&[&v1], "active: v1")));
    for nth in 0..5 {
        world.spawn();
        until("it says the first word", || async { !world.log().is_empty() }).await;
        assert_eq!(world.terminate().await.code(), Some(0), "start {nth}: {}", world.log());
    }
}

#[tokio::test]
async fn probes_at_the_moment_of_the_signal_do_not_hold_the_end_up() {
    // The moment is short: one try would seldom meet it.
    for round in 0..12 {
        let (mut world, _v1) = running("pre_drain: 0s, linger: 0s, timeout: 2s").await;
        let address = world.admin();
        let mut probes = tokio::task::JoinSet::new();
        for _ in 0..16 {
            probes.spawn(async move {
                let mut client = Client::new(address);
                client.host = address.to_string();
                while client.get("/readyz").await.status == 200 {}
            });
        }
        until("they ask", || async { world.get("/").await.status == 200 }).await;
        assert_eq!(world.terminate().await.code(), Some(0), "round {round}");
        probes.shutdown().await;
    }
}

#[tokio::test]
async fn streams_end_one_after_the_other_before_the_deadline_and_requests_have_all_the_time() {
    let (mut world, _v1) = running("pre_drain: 0s, linger: 0s, timeout: 3s").await;
    let streams = Watched::open(world.web(), 8).await;
    let slow = |millis: u64| {
        let mut client = world.client();
        tokio::spawn(async move { (client.get(&format!("/slow/{millis}")).await, Instant::now()) })
    };
    let (whole, cut) = (slow(500), slow(20000));
    until("they run", || async { world.version_status("shop", "v1").await["in_flight"]["http"] == 2 }).await;
    world.signal(libc::SIGTERM);
    let began = Instant::now();
    let ends = streams.ends().await;
    // 1.5 s are for the last words: the streams have half of the rest, and end over the other half.
    assert!(ends[0] - began >= Duration::from_millis(750), "{ends:?}");
    assert!(ends[7] - ends[0] >= Duration::from_millis(300), "{ends:?}");
    let (whole, cut) = (whole.await.unwrap().0, cut.await.unwrap());
    assert_eq!((whole.status, &whole.outcome), (200, &Outcome::Ok), "what finishes in time is not cut");
    assert!(cut.0.status == 503 && cut.1 - began >= Duration::from_millis(1400), "{cut:?}");
    assert_eq!(world.exit(Duration::from_secs(10)).await.code(), Some(3), "work was cut");
}
