//! Endpoints with weights, limits and Unix sockets, and the ways to balance, as clients and origins see them.

use std::collections::HashMap;
use std::path::Path;

use tokio::net::{TcpStream, UnixListener};

use crate::harness::*;

/// One version whose endpoints are written as they are given.
fn with_endpoints(endpoints: &str, more: &str) -> String {
    let mut text = format!(
        "routes:\n  - {{ name: all, match: {{ path_prefix: / }}, service: shop }}\nservices:\n  shop:\n    versions: {{ v1: {{ \
         endpoints: [{endpoints}] }} }}\n    active: v1\n"
    );
    for line in more.lines() {
        text += &format!("    {line}\n");
    }
    text
}

/// A Unix socket behind which the origin answers.
fn unix_front(path: &Path, origin: &Origin) -> tokio::task::JoinHandle<()> {
    let (listener, to) = (UnixListener::bind(path).expect("a free path"), origin.address);
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut to) = TcpStream::connect(to).await {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    })
}

#[tokio::test]
async fn weights_are_those_of_the_file_and_a_reload_changes_them() {
    let mut world = World::new();
    let (a, b) = (world.origin("v1").await, world.origin("v1").await);
    let text = |weight: u32| {
        with_endpoints(&format!("{{ address: \"{}\", weight: {weight} }}, \"{}\"", a.address, b.address), "")
    };
    world.start(&text(3)).await;
    // One connection, so one data thread: its turns are exact.
    let mut client = world.client();
    for _ in 0..40 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!((a.requests(), b.requests()), (30, 10));
    world.edit_and_wait(|_| world.preamble() + &text(1)).await;
    for _ in 0..40 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!((a.requests(), b.requests()), (50, 30));
}

#[tokio::test]
async fn the_same_key_goes_to_the_same_endpoint_until_that_is_gone() {
    let mut world = World::new();
    let origins = [world.origin("v1").await, world.origin("v1").await, world.origin("v1").await];
    let listed = |origins: &[&Origin]| {
        origins.iter().map(|origin| format!("\"{}\"", origin.address)).collect::<Vec<_>>().join(", ")
    };
    let all: Vec<&Origin> = origins.iter().collect();
    let policy = "balance: { consistent_hash: { header: x-user } }";
    world.start(&with_endpoints(&listed(&all), policy)).await;
    let users: Vec<String> = (0..30).map(|nth| format!("user-{nth}")).collect();
    let mut clients = [world.client(), world.client()];
    let asked = async |clients: &mut [Client]| {
        let mut by_user: HashMap<String, usize> = HashMap::new();
        for client in clients {
            for user in &users {
                origins.iter().for_each(Origin::forget);
                assert_eq!(client.get_with("/", &[("x-user", user.as_str())]).await.status, 200);
                let at = origins.iter().position(|origin| !origin.received().is_empty()).expect("somebody answered");
                assert_eq!(*by_user.entry(user.clone()).or_insert(at), at, "{user} on another connection");
            }
        }
        by_user
    };
    let before = asked(&mut clients).await;
    for at in 0..3 {
        assert!(before.values().any(|it| *it == at), "each has some: {before:?}");
    }
    world.edit_and_wait(|_| world.preamble() + &with_endpoints(&listed(&all[..2]), policy)).await;
    let after = asked(&mut clients).await;
    for user in &users {
        assert!(after[user] == before[user] || before[user] == 2, "{user} moved without need");
        assert_ne!(after[user], 2);
    }
}

#[tokio::test]
async fn the_busy_one_is_left_alone() {
    let mut world = World::new();
    let (busy, idle) = (world.origin("v1").await, world.origin("v1").await);
    for method in ["least_request", "peak_ewma"] {
        let endpoints = format!("\"{}\", \"{}\"", busy.address, idle.address);
        let text = with_endpoints(&endpoints, &format!("balance: {method}"));
        match method {
            "least_request" => world.start(&text).await,
            _ => drop(world.edit_and_wait(|_| world.preamble() + &text).await),
        }
        busy.set(Fault::Held);
        idle.set(Fault::Held);
        // Streams that stay, some on each.
        let held: Vec<_> = (0..8)
            .map(|_| {
                let mut client = world.client();
                tokio::spawn(async move { client.get("/").await.status })
            })
            .collect();
        until("all are in flight", || async {
            let status = world.version_status("shop", "v1").await;
            let each = status["endpoints"].as_array().expect("a list").clone();
            each.iter().map(|it| it["in_flight"].as_u64().expect("a number")).sum::<u64>() == 8
        })
        .await;
        let status = world.version_status("shop", "v1").await;
        for endpoint in status["endpoints"].as_array().expect("a list") {
            let in_flight = endpoint["in_flight"].as_u64().expect("a number");
            assert!((2..=6).contains(&in_flight), "{method}: {status}");
        }
        busy.set(Fault::None);
        idle.set(Fault::None);
        busy.tick();
        idle.tick();
        for one in held {
            assert_eq!(one.await.expect("no panic"), 200);
        }
    }
}

#[tokio::test]
async fn a_unix_socket_is_an_endpoint_for_traffic_and_checks() {
    let mut world = World::new();
    let origin = world.origin("v1").await;
    let front = unix_front(&world.path("shop.sock"), &origin);
    let checked = "health: { path: /healthz, every: 100ms, pass: 1, fail: 1 }\nhold: { max_wait: 0s }";
    // Relative to the file that names it.
    world.start(&with_endpoints("\"unix:shop.sock\"", checked)).await;
    let mut client = world.client();
    until("its check passes", || async { world.get("/").await.status == 200 }).await;
    for nth in 0..20 {
        assert_eq!(client.get("/").await.status, 200, "GET {nth}");
    }
    assert_eq!(client.post("/echo", b"body").await.status, 200);
    let fresh = origin.received().iter().filter(|one| one.nth == 1 && one.target() != "/healthz").count();
    assert!(fresh <= 4, "connections are kept: {fresh}");
    let endpoint = world.version_status("shop", "v1").await["endpoints"][0].clone();
    assert!(endpoint["address"].as_str().unwrap().ends_with("/shop.sock"), "{endpoint}");
    assert_eq!(endpoint["health"], "healthy");
    front.abort();
    let _ = front.await;
    until("nothing listens there any more", || async {
        world.version_status("shop", "v1").await["endpoints"][0]["health"] == "down"
    })
    .await;
}

#[tokio::test]
async fn a_limit_holds_over_all_threads_and_who_waits_is_served() {
    let mut world = World::new();
    let origin = world.origin("v1").await;
    let endpoint = format!("{{ address: \"{}\", max_connections: 3 }}", origin.address);
    world.start(&with_endpoints(&endpoint, "hold: { max_wait: 5s, max_requests: 100 }")).await;
    origin.set(Fault::Held);
    let asked: Vec<_> = (0..12)
        .map(|_| {
            let mut client = world.client();
            tokio::spawn(async move { client.get("/").await.status })
        })
        .collect();
    until("three are there", || async { origin.requests() == 3 }).await;
    let status = world.version_status("shop", "v1").await;
    assert_eq!(status["endpoints"][0]["in_flight"], 3, "{status}");
    // Each tick answers those that are there, and as many of those that wait follow.
    until("all were served, three at a time", || async {
        assert!(origin.open() <= 3 + 8, "connections that idle are not counted, but those are few");
        let status = world.version_status("shop", "v1").await;
        assert!(status["endpoints"][0]["in_flight"].as_u64() <= Some(3), "{status}");
        origin.tick();
        origin.requests() == 12 && asked.iter().all(|one| one.is_finished())
    })
    .await;
    for one in asked {
        assert_eq!(one.await.expect("no panic"), 200);
    }

    // And an honest no for who has waited long enough.
    world.edit_and_wait(|text| text.replace("max_wait: 5s", "max_wait: 100ms")).await;
    let before = origin.requests();
    let held: Vec<_> = (0..3)
        .map(|_| {
            let mut client = world.client();
            tokio::spawn(async move { client.get("/").await.status })
        })
        .collect();
    until("it is full again", || async { origin.requests() == before + 3 }).await;
    let refused = world.get("/").await;
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")));
    origin.set(Fault::None);
    origin.tick();
    for one in held {
        assert_eq!(one.await.expect("no panic"), 200);
    }
    assert_eq!(world.get("/").await.status, 200);
}
