//! I4: after a switch or rollback is acknowledged, no request that starts later is routed by the old
//! generation.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::load::{Plan, Report};
use crate::harness::*;

/// Requests that started after an acknowledgement and were routed by an older generation.
pub fn stale(report: &Report, mut acknowledged: Vec<(Instant, u64)>) -> Vec<String> {
    acknowledged.sort();
    let mut newest = 0;
    // Files and calls may be acknowledged out of order: the highest so far counts.
    for (_, generation) in &mut acknowledged {
        newest = newest.max(*generation);
        *generation = newest;
    }
    let mut stale = Vec::new();
    for shot in &report.shots {
        let upto = acknowledged.partition_point(|(at, _)| *at < shot.started);
        let wanted = if upto == 0 { 0 } else { acknowledged[upto - 1].1 };
        if shot.outcome == Outcome::Ok && shot.generation < wanted {
            stale.push(format!("generation {} after {wanted} was acknowledged", shot.generation));
        }
    }
    stale
}

#[tokio::test]
async fn i4_nothing_starts_on_the_old_generation_after_the_acknowledgement() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    world.start(&one_service(&[&v1, &v2], "active: v1")).await;
    let think = Duration::from_micros(300);
    let load = Load::start(world.web(), &Plan { keep_alive: 16, fresh: 4, think, ..Plan::default() });
    load.more(20).await;
    let mut acknowledged = Vec::new();
    let mut last = 0;
    for nth in 0..200 {
        let receipt = match nth % 4 {
            0 => world.switch("shop", "v2").await,
            1 => world.rollback("shop").await,
            2 => world.weights("shop", json!({ "v1": 1, "v2": 3 })).await,
            _ => world.switch("shop", "v1").await,
        };
        let generation = receipt["generation"].as_u64().unwrap();
        assert!(generation > last, "{receipt}");
        last = generation;
        acknowledged.push((Instant::now(), generation));
        load.more(3).await;
    }
    let report = load.stop().await;
    report.assert_unbroken();
    assert_eq!(stale(&report, acknowledged), Vec::<String>::new());
}
