//! I2: a reload, switch, weight change or rollback closes no client connection and fails no request.

use serde_json::json;

use crate::harness::load::Plan;
use crate::harness::*;

#[tokio::test]
async fn i2_no_change_breaks_a_request_or_a_stream() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    let mut socket = WsClient::open(world.web(), "/ws").await;
    let mut stream = SseClient::open(world.web(), "/sse").await;
    stream.next().await.unwrap();
    let load = Load::start(world.web(), &Plan { keep_alive: 16, fresh: 2, ..Plan::default() });
    for round in 0..5 {
        load.more(20).await;
        world.switch("shop", "v2").await;
        load.more(20).await;
        world.weights("shop", json!({ "v1": 30, "v2": 70 })).await;
        load.more(20).await;
        world.rollback("shop").await;
        load.more(20).await;
        world.reload_with_route(round).await;
        load.more(20).await;
        world
            .edit_and_wait(|text| {
                text.replace("active: v1", "active: v3")
                    .replace("active: v2", "active: v1")
                    .replace("active: v3", "active: v2")
            })
            .await;
        socket.ping_pong().await.unwrap();
        v1.tick();
        stream.next().await.unwrap();
    }
    load.stop().await.assert_unbroken();
    assert_eq!(socket.who().await, "v1 1", "it stays where it began");
}
