//! I12: memory is bounded: generations, descriptors and resident memory stay flat over reloads.

use crate::harness::load::Plan;
use crate::harness::*;

fn descriptors(world: &World) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", world.pid())).map_or(0, |entries| entries.count())
}

pub fn resident_kib(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.pid())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0)
}

fn threads(world: &World) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", world.pid())).map_or(0, |entries| entries.count())
}

#[tokio::test]
async fn i12_memory_bounded() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    v1.stop_recording();
    v2.stop_recording();
    let text = one_service(&[&v1, &v2], "active: v1");
    world.start(&text).await;
    let load = Load::start(world.web(), &Plan { keep_alive: 4, fresh: 0, ..Plan::default() });
    let apply = async |nth: usize| {
        // Each has a service, a version and a route that no other has.
        let extra = format!(
            "  s{nth}:\n    versions: {{ x{nth}: {{ endpoints: [\"{}\"] }} }}\n    active: x{nth}\n",
            v1.address
        );
        let text = text.replace("active: v1", if nth.is_multiple_of(2) { "active: v1" } else { "active: v2" });
        let body = world.preamble() + &text + &extra;
        let seen = world.post_config("apply", &body).await;
        assert_eq!(seen.status, 200, "{}", seen.text());
    };
    for nth in 0..50 {
        apply(nth).await;
    }
    let before = (descriptors(&world), threads(&world), resident_kib(&world));
    for nth in 50..350 {
        apply(nth).await;
    }
    load.more(10).await;
    until("old generations are let go", || async { world.metric("switchback_generations_live", &[]).await <= 4.0 })
        .await;
    let after = (descriptors(&world), threads(&world), resident_kib(&world));
    load.stop().await.assert_unbroken();
    assert!(after.0 <= before.0 + 8, "descriptors: {before:?} to {after:?}");
    assert!(after.1 <= before.1 + 2, "threads: {before:?} to {after:?}");
    assert!(after.2 <= before.2 + 16 * 1024, "KiB resident: {before:?} to {after:?}");
    let history = world.admin_get("/api/v1/generations").await.json();
    assert!((20..=200).contains(&history.as_array().unwrap().len()), "{}", history.as_array().unwrap().len());
}
