//! ZD-9: a pooled connection that the endpoint has just closed costs no client an error, and no POST runs
//! twice.

use std::time::Duration;

use crate::harness::origin::Abort;
use crate::harness::*;

#[tokio::test]
async fn gets_survive_an_endpoint_that_closes_idle_connections() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], "active: v1\nupstream: { keepalive: { idle: 60s } }")).await;
    v1.stop_recording();
    for how in [Abort::Close, Abort::Reset] {
        v1.close_idle_after(Duration::from_millis(20), how);
        let clients: Vec<_> = (0..16u64)
            .map(|nth| {
                let mut client = world.client();
                tokio::spawn(async move {
                    let mut bad = Vec::new();
                    for round in 0..60 {
                        let seen = client.get("/").await;
                        if !seen.is_fine() {
                            bad.push(format!("{:?} {}", seen.outcome, seen.status));
                        }
                        // Think times just before, at and after the moment of closing.
                        tokio::time::sleep(Duration::from_micros(17_000 + (nth * 7 + round * 13) % 60 * 100)).await;
                    }
                    (bad, client.opened)
                })
            })
            .collect();
        for client in clients {
            let (bad, opened) = client.await.unwrap();
            assert_eq!((bad, opened), (Vec::<String>::new(), 1), "{how:?}");
        }
    }
}

#[tokio::test]
async fn the_default_idle_time_stays_below_that_of_common_servers() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], "active: v1")).await;
    v1.close_idle_after(Duration::from_secs(30), Abort::Close);
    assert_eq!(world.get("/").await.status, 200);
    assert_eq!(v1.open(), 1, "the connection is pooled");
    let began = std::time::Instant::now();
    within(Duration::from_secs(6), "the proxy closes it first", || async { v1.open() == 0 }).await;
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_post_is_never_executed_twice() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], "active: v1")).await;
    // Each connection serves one request, reads the next whole and closes without a word.
    v1.set(Fault::CloseUnansweredAfter(1));
    let mut client = world.client();
    for nth in 0..20 {
        let path = format!("/order/{nth}");
        let seen = client.post(&path, b"one please").await;
        assert_eq!(v1.executed(&path), 1, "{path}: {:?} {}", seen.outcome, seen.status);
        assert!(seen.outcome == Outcome::Ok && (seen.status == 200 || seen.status == 502), "{path}: {seen:?}");
    }
    // Nor when the first connection is closed after the whole request was read.
    v1.set(Fault::CloseUnanswered);
    let seen = client.post("/order/last", b"one please").await;
    assert_eq!((seen.status, v1.executed("/order/last")), (502, 1));
    v1.set(Fault::Reset);
    let seen = client.post("/order/reset", b"one please").await;
    assert_eq!((seen.status, v1.executed("/order/reset")), (502, 1));
}
