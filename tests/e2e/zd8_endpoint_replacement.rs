//! ZD-8: a removed or replaced endpoint's connections are never used again.

use std::collections::HashSet;

use crate::harness::*;

#[tokio::test]
async fn zd8_one_address_in_sequence_under_two_versions() {
    let mut world = World::new();
    let address = world.unused();
    let blue = Origin::instance("blue", "b1", address).await;
    let text = |version: &str| {
        format!(
            "routes:\n  - {{ name: all, match: {{ path_prefix: / }}, service: shop }}\nservices:\n  shop:\n    versions: {{ {version}: {{ \
             endpoints: [\"{address}\"] }} }}\n    active: {version}\n"
        )
    };
    world.start(&text("blue")).await;
    let mut clients: Vec<Client> = (0..8).map(|_| world.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").await.field("x-instance"), Some("b1"));
    }
    assert!(blue.open() > 0, "its connections are pooled");
    // The old process stops listening but its connections live on; the new one takes the address.
    blue.refuse().await;
    let green = Origin::instance("green", "g1", address).await;
    world.edit_and_wait(|_| world.preamble() + &text("green")).await;
    for client in &mut clients {
        let seen = client.get("/").await;
        assert_eq!((seen.version(), seen.field("x-instance")), (Some("green"), Some("g1")));
    }
    until("the old connections are closed", || async { blue.open() == 0 }).await;
    assert!(clients.iter().all(|client| client.opened == 1));
    drop(green);
}

#[tokio::test]
async fn an_endpoint_that_stays_keeps_its_connections_over_reloads() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    let mut client = world.client();
    client.get("/").await;
    for nth in 0..10 {
        world.reload_with_route(nth).await;
        client.get("/").await;
    }
    let used: HashSet<u64> = v1.received().iter().map(|one| one.connection).collect();
    assert!(used.len() <= 2, "one connection per data thread served all: {used:?}");
}

#[tokio::test]
async fn a_removed_endpoint_finishes_what_it_has_and_gets_nothing_new() {
    let mut world = World::new();
    let (a, b) = (world.origin("v1").await, world.origin("v1").await);
    world.start(&one_service(&[&a, &b], "active: v1")).await;
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let mut client = world.client();
            tokio::spawn(async move { client.get("/slow/600").await })
        })
        .collect();
    until("all are on their way", || async { a.requests() + b.requests() == 20 }).await;
    assert!(a.requests() > 0 && b.requests() > 0, "both endpoints take a share");
    world.edit_and_wait(|text| text.replace(&format!(", \"{}\"", b.address), "")).await;
    let at_removal = b.requests();
    for _ in 0..20 {
        assert_eq!(world.get("/").await.status, 200);
    }
    for one in slow {
        assert_eq!(one.await.unwrap().status, 200);
    }
    assert_eq!(b.requests(), at_removal);
    until("its connections are closed", || async { b.open() == 0 }).await;
}
