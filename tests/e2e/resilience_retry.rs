//! Second chances: who gets one, at whom, how often, and that nothing runs twice that may not.

use std::time::{Duration, Instant};

use crate::harness::client::Seen;
use crate::harness::*;

/// A version with two endpoints, of which `bad` misbehaves as told.
async fn pair(more: &str) -> (World, Origin, Origin) {
    let mut world = World::new();
    let (good, bad) = (world.origin("v1").await, world.origin("v1").await);
    world.start(&one_service(&[&good, &bad], &format!("active: v1\n{more}"))).await;
    (world, good, bad)
}

/// Sends requests until the bad endpoint was asked, and gives the answer to that one.
async fn answer_when_asked(world: &World, bad: &Origin, method: &str, path: &str, body: &[u8]) -> Seen {
    let before = bad.requests();
    let mut client = world.client();
    for nth in 0..50 {
        let seen = client.send(method, &format!("{path}?nth={nth}"), &[], body).await;
        if bad.requests() > before {
            return seen;
        }
    }
    panic!("50 requests, and none came to the second endpoint");
}

async fn retries(world: &World, reason: &str) -> f64 {
    world.metric("switchback_retries_total", &[("service", "shop"), ("reason", reason)]).await
}

#[tokio::test]
async fn what_broke_is_asked_elsewhere_if_it_may_run_twice() {
    let (world, good, bad) = pair("retry: { on: [connect, reset, 500, 503] }").await;
    let garbage = Fault::Bytes(b"SSH-2.0-OpenSSH_9\r\n\r\n".to_vec());
    for (fault, reason, alone) in [
        (Fault::Reset, "reset", 502),
        (Fault::CloseUnanswered, "reset", 502),
        (garbage, "reset", 502),
        (Fault::Status(503), "status", 503),
        (Fault::Status(500), "status", 500),
    ] {
        bad.set(fault.clone());
        let before = retries(&world, reason).await;
        for method in ["GET", "HEAD", "OPTIONS"] {
            let seen = answer_when_asked(&world, &bad, method, "/x", b"").await;
            assert_eq!((seen.status, seen.field("x-origin")), (200, Some("v1")), "{method} {fault:?}");
        }
        assert_eq!(retries(&world, reason).await - before, 3.0, "{fault:?}");
        // A POST may have run: its failure is told, and nobody else is asked.
        let here = good.requests();
        let asked = bad.requests();
        let seen = answer_when_asked(&world, &bad, "POST", "/x", b"order").await;
        assert_eq!(seen.status, alone, "{fault:?}");
        assert_eq!(bad.requests() - asked, 1);
        assert_eq!(retries(&world, reason).await - before, 3.0, "POST {fault:?}");
        assert!(good.requests() - here <= 1, "at most those before it");
    }
    // Not in the list.
    bad.set(Fault::Status(502));
    assert_eq!(answer_when_asked(&world, &bad, "GET", "/x", b"").await.status, 502);
}

#[tokio::test]
async fn methods_may_be_widened_to_what_is_idempotent() {
    let (world, _good, bad) = pair("retry: { methods: idempotent }").await;
    bad.set(Fault::Reset);
    assert_eq!(answer_when_asked(&world, &bad, "PUT", "/x", b"whole").await.status, 200);
    assert_eq!(answer_when_asked(&world, &bad, "DELETE", "/x", b"").await.status, 200);
    assert_eq!(answer_when_asked(&world, &bad, "POST", "/x", b"order").await.status, 502);
}

#[tokio::test]
async fn the_last_attempt_is_passed_through_as_it_is() {
    let mut world = World::new();
    let all = [world.origin("v1").await, world.origin("v1").await, world.origin("v1").await];
    all.iter().for_each(|origin| origin.set(Fault::Status(503)));
    let more = "active: v1\nretry: { attempts: 1, on: [503] }";
    world.start(&one_service(&all.iter().collect::<Vec<_>>(), more)).await;
    let asked = || all.iter().map(Origin::requests).sum::<u64>();
    let seen = world.get("/x").await;
    assert_eq!((seen.status, seen.field("x-origin")), (503, Some("v1")), "the endpoint's own answer");
    assert!(seen.text().starts_with("v1 "), "{}", seen.text());
    assert_eq!(asked(), 2, "one further endpoint, not the same one");
    assert!(all.iter().all(|origin| origin.requests() <= 1));
    // With nobody else to ask, the first answer is the last.
    let alone = world.unused();
    let only = Origin::start("v1", alone).await;
    only.set(Fault::Status(503));
    world.edit_and_wait(|_| world.preamble() + &one_service(&[&only], more)).await;
    assert_eq!((world.get("/x").await.status, only.requests()), (503, 1));
}

#[tokio::test]
async fn an_attempt_that_hangs_is_called_back() {
    let more = "retry: { on: [connect, timeout], per_try_timeout: 1s }\ntimeouts: { request: 3s }";
    let (world, good, bad) = pair(more).await;
    bad.set(Fault::Hang);
    let begun = Instant::now();
    let mut client = world.client();
    for nth in 0..2 {
        let seen = client.get(&format!("/x?nth={nth}")).await;
        assert_eq!(seen.status, 200, "{nth}");
        assert!(seen.took < Duration::from_millis(2_900), "{:?}", seen.took);
    }
    assert_eq!(client.opened, 1, "the client's connection does not suffer");
    assert!(begun.elapsed() >= Duration::from_millis(900), "somebody had to be waited for");
    assert_eq!(retries(&world, "timeout").await, bad.requests() as f64);
    // A POST is waited for, once, as long as the whole request may take.
    let asked = good.requests();
    let seen = answer_when_asked(&world, &bad, "POST", "/x", b"order").await;
    assert_eq!(seen.status, 504);
    assert!(seen.took >= Duration::from_millis(2_900), "{:?}", seen.took);
    assert!(good.requests() - asked <= 1);
}

#[tokio::test]
async fn a_slow_attempt_that_nobody_else_can_take_goes_on() {
    let more = "retry: { on: [connect, timeout], per_try_timeout: 200ms }";
    let (world, good, bad) = pair(more).await;
    good.stop().await;
    bad.set(Fault::Late(Duration::from_millis(500)));
    // The first finds out that one is gone; the other is slow, and still the best there is.
    for _ in 0..4 {
        let seen = world.get("/x").await;
        assert!(seen.status == 200 || seen.status == 502, "{}", seen.status);
    }
    let more = format!("active: v1\n{more}");
    world.edit_and_wait(|_| world.preamble() + &one_service(&[&bad], &more)).await;
    for _ in 0..2 {
        let seen = world.get("/x").await;
        assert_eq!(seen.status, 200);
        assert!(seen.took >= Duration::from_millis(500));
    }
}

#[tokio::test]
async fn when_everybody_fails_only_a_share_is_asked_again() {
    let (world, good, bad) = pair("retry: { on: [503], budget: 1% }").await;
    for origin in [&good, &bad] {
        origin.set(Fault::Status(503));
        origin.stop_recording();
    }
    let mut client = world.client();
    for _ in 0..300 {
        assert_eq!(client.get("/x").await.status, 503);
    }
    let again = retries(&world, "status").await;
    assert_eq!(again, 50.0, "the few that are always allowed on one thread");
    assert_eq!(good.requests() + bad.requests(), 350);
    assert_eq!(world.metric("switchback_retries_denied_total", &[("service", "shop")]).await, 250.0);
}

#[tokio::test]
async fn zd10_an_endpoint_that_dies_in_the_middle_of_a_body() {
    let (world, good, bad) = pair("retry: { methods: idempotent }").await;
    const BODY: usize = 60 * 1024;
    let body = vec![b'b'; BODY];
    for percent in [10, 50, 99] {
        bad.set(Fault::DieInBody((BODY * percent / 100) as u64));
        let path = format!("/put-{percent}");
        let seen = answer_when_asked(&world, &bad, "PUT", &path, &body).await;
        assert_eq!(seen.status, 200, "at {percent} %");
        let received = good.last();
        assert_eq!((received.body_bytes, received.complete), (BODY as u64, true), "all of it, from the beginning");
        assert!(received.body.iter().all(|byte| *byte == b'b'));
        assert_eq!((good.executed(received.target()), bad.executed(received.target())), (1, 0));
        // What may have run is not sent again.
        let seen = answer_when_asked(&world, &bad, "POST", &format!("/post-{percent}"), &body).await;
        assert_eq!(seen.status, 502, "at {percent} %");
    }
    // Too large to be kept: one clean answer, and soon.
    let body = vec![b'b'; 10 * 1024 * 1024];
    bad.set(Fault::DieInBody(5 * 1024 * 1024));
    let asked = bad.requests();
    let seen = answer_when_asked(&world, &bad, "PUT", "/large", &body).await;
    assert_eq!(seen.outcome, Outcome::Ok);
    assert_eq!((seen.status, bad.requests() - asked), (502, 1));
    assert!(seen.took < Duration::from_secs(5), "{:?}", seen.took);
}
