//! A short soak: `examples/soak` for some seconds instead of hours, with every kind of event once: upgrades, bad upgrades and
//! the death of the worker among them.

use std::time::Duration;

#[path = "../../examples/soak/run/mod.rs"]
mod run;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_soak_breaks_nothing() {
    let plan = run::Plan {
        length: Duration::from_secs(7),
        every: Duration::from_millis(500),
        seed: 7,
        clients: 4,
        talks: false,
    };
    let report = run::run(&plan).await;
    assert!(report.problems().is_empty(), "{report}");
    let happened = report.happened();
    for what in ["upgrade", "bad upgrade", "worker kill -9"] {
        assert!(happened.iter().any(|it| it == what), "no {what} among {happened:?}");
    }
}
