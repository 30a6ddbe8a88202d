//! Listeners come and go while everything runs.

use std::time::Duration;

use crate::harness::*;

async fn running() -> (World, Origin) {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    world.start(&one_service(&[&v1], "active: v1")).await;
    (world, v1)
}

#[tokio::test]
async fn a_listener_is_added_and_removed_at_run_time() {
    let (world, _v1) = running().await;
    let second = world.unused();
    let mut kept = world.client();
    assert_eq!(kept.get("/").await.status, 200);
    let line = format!("listeners:\n  second: {{ bind: \"{second}\" }}\n");
    world.edit_and_wait(|text| text.replace("listeners:\n", &line)).await;
    let mut on_second = Client::new(second);
    assert_eq!(on_second.get("/").await.status, 200);
    let mut socket = WsClient::open(second, "/ws").await;
    let status = world.status().await;
    assert_eq!(status["listeners"].as_array().unwrap().len(), 2, "{status}");
    world.edit_and_wait(|text| text.replace(&line, "listeners:\n")).await;
    until("it does not accept any more", || async {
        matches!(Client::new(second).get("/").await.outcome, Outcome::NotConnected(_))
    })
    .await;
    // What it had goes on until it is done: the WebSocket, and one more answer on a kept connection.
    socket.ping_pong().await.unwrap();
    let last = on_second.get("/").await;
    assert!(last.outcome == Outcome::Ok || last.outcome == Outcome::ClosedBeforeAnswer, "{last:?}");
    assert_eq!(kept.get("/").await.status, 200);
    assert_eq!(kept.opened, 1, "the other listener's connections are untouched");
    // The address can be had again.
    world.edit_and_wait(|text| text.replace("listeners:\n", &line)).await;
    assert_eq!(Client::new(second).get("/").await.status, 200);
}

#[tokio::test]
async fn an_address_that_is_taken_is_refused_and_nothing_changes() {
    let (world, v1) = running().await;
    let taken = std::net::TcpListener::bind(world.unused()).unwrap();
    let address = taken.local_addr().unwrap();
    let before = world.generation().await;
    let text = world.preamble().replace("listeners:\n", &format!("listeners:\n  other: {{ bind: \"{address}\" }}\n"))
        + &one_service(&[&v1], "active: v1");
    let refused = world.post_config("apply", &text).await;
    assert!((400..=500).contains(&refused.status), "{}", refused.text());
    for word in ["other", &address.to_string()] {
        assert!(refused.text().contains(word), "{word}: {}", refused.text());
    }
    world.write_config(&text);
    until("the file is noticed", || async { world.status().await["config"]["last_reload_successful"] == false }).await;
    assert_eq!(world.generation().await, before);
    assert_eq!(world.get("/").await.status, 200);
    // Once it is free the same file is good (by SIGHUP: the file itself has not changed).
    drop(taken);
    world.signal(libc::SIGHUP);
    world.newer_than(before).await;
    assert_eq!(Client::new(address).get("/").await.status, 200);
}

#[tokio::test]
async fn a_port_taken_at_start_is_said() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let taken = std::net::TcpListener::bind(world.web()).unwrap();
    world.write_config(&(world.preamble() + &one_service(&[&v1], "active: v1")));
    world.spawn();
    let status = world.exit(Duration::from_secs(15)).await;
    assert_eq!(status.code(), Some(1));
    let log = world.log();
    assert!(log.contains(&world.web().to_string()) && log.contains("web"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    drop(taken);
}

#[tokio::test]
async fn the_admin_address_moves_too() {
    let (world, v1) = running().await;
    let next = world.unused();
    let moved = world
        .preamble()
        .replace(&format!("admin: {{ bind: \"{}\"", world.admin()), &format!("admin: {{ bind: \"{next}\""))
        + &one_service(&[&v1], "active: v1");
    world.write_config(&moved);
    let mut client = Client::new(next);
    client.host = next.to_string();
    until("it answers at the new address", || async {
        Client::new(next).get_with("/livez", &[("host", &next.to_string())]).await.status == 200
    })
    .await;
    until("the old one is closed", || async {
        matches!(Client::new(world.admin()).get("/livez").await.outcome, Outcome::NotConnected(_))
    })
    .await;
    assert_eq!(client.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn connections_over_the_limit_wait_their_turn() {
    let mut world = World::new();
    let v1 = world.origin("v1").await;
    let text = world.preamble().replace("8080\" }", "8080\", limits: { connections: 4 } }")
        + &one_service(&[&v1], "active: v1");
    world.start_text(&text).await;
    let mut holders = Vec::new();
    for _ in 0..4 {
        let mut client = world.client();
        assert_eq!(client.get("/").await.status, 200);
        holders.push(client);
    }
    let mut fifth = world.client();
    let waiting = tokio::time::timeout(Duration::from_millis(300), fifth.get("/")).await;
    assert!(waiting.is_err(), "{waiting:?}");
    let mut sixth = world.client();
    let served = tokio::spawn(async move { sixth.get("/").await.status });
    holders.clear();
    assert_eq!(soon("it gets its turn", served).await.unwrap(), 200);
}
