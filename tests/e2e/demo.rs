//! The show of the README, in short.

use crate::harness::*;

#[tokio::test]
async fn the_demo_promotes_what_is_good_and_takes_back_what_is_bad_without_an_error() {
    let world = World::new();
    let ran = world.cli(&["demo", "--duration", "10s"]).await.ok();
    for wanted in ["rollout v2 promoted", "rollback v3: ", "rollout v4 paused: slower than stable", " 0 failed"] {
        assert!(ran.out.contains(wanted), "no {wanted:?} in:\n{}", ran.out);
    }
}
