//! A short soak: `examples/soak` for ten seconds instead of hours.

use std::time::Duration;

#[path = "../../examples/soak/run/mod.rs"]
mod run;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_soak_breaks_nothing() {
    let plan = run::Plan {
        length: Duration::from_secs(12),
        every: Duration::from_millis(900),
        seed: 7,
        clients: 4,
        talks: false,
    };
    let report = run::run(&plan).await;
    assert!(report.problems().is_empty(), "{report}");
}
