//! I6: the split is exact, per data thread, whatever the number of versions.

use crate::harness::*;

#[tokio::test]
async fn i6_split_exact() {
    let mut world = World::new();
    let origins = [world.origin("a").await, world.origin("b").await, world.origin("c").await];
    let all: Vec<&Origin> = origins.iter().collect();
    world.start(&one_service(&all, "split: { a: 5, b: 25, c: 70 }")).await;
    // One connection stays on one data thread.
    let mut client = world.client();
    let mut counts = [0u32; 3];
    for n in 1..=2000u32 {
        let seen = client.get("/").await;
        assert_eq!(seen.reason(), Some("weight"));
        let at = ["a", "b", "c"].iter().position(|name| seen.version() == Some(name)).expect("one of the three");
        assert_eq!(seen.origin(), seen.version());
        counts[at] += 1;
        for (count, weight) in counts.iter().zip([0.05, 0.25, 0.70]) {
            let share = f64::from(n) * weight;
            assert!((f64::from(*count) - share).abs() <= 1.0 + 1e-9, "after {n}: {counts:?}");
        }
    }
    assert_eq!(client.opened, 1);
    let status = world.version_status("shop", "b").await;
    assert_eq!(status["target_share"], 0.25);
    assert!((status["realised_requests"].as_f64().unwrap() - 0.25).abs() < 0.001, "{status}");
}

#[tokio::test]
async fn the_order_within_a_split_is_not_a_pattern() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "split: { v1: 90, v2: 10 }")).await;
    let mut client = world.client();
    let mut gaps = std::collections::HashSet::new();
    let mut since = 0;
    for _ in 0..1000 {
        since += 1;
        if client.get("/").await.version() == Some("v2") {
            gaps.insert(since);
            since = 0;
        }
    }
    assert!(gaps.len() > 5, "every n-th request would alias with a periodic client: gaps {gaps:?}");
}
