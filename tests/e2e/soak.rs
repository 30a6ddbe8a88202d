//! A short soak: `examples/soak` for some seconds instead of hours.

use std::time::Duration;

#[path = "../../examples/soak/run/mod.rs"]
mod run;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_soak_breaks_nothing() {
    let plan = run::Plan {
        length: Duration::from_secs(8),
        every: Duration::from_millis(600),
        seed: 7,
        clients: 4,
        talks: false,
    };
    let report = run::run(&plan).await;
    assert!(report.problems().is_empty(), "{report}");
}
