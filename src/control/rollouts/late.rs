//! Requests that are still waited for count as slow once they are: those of a version that hangs would be seen last
//! of all otherwise.

use super::Running;
use crate::analysis::{Arm, bucket_of};
use crate::control::controller::Controller;

impl Controller {
    /// Adds what is in flight on one arm and slower already than anything that stable does.
    pub(super) fn take_late(&self, service: &str, running: &Running, arm: Arm, seen: &mut Vec<(i32, u64)>) {
        let Some(slowest) = running.trial.judge(|judge| judge.slowest(arm)) else { return };
        let version = match arm {
            Arm::Canary => &running.rollout.canary,
            Arm::Stable => &running.rollout.stable,
        };
        let live = self.live();
        let Some(version) = live.version_named(service, version) else { return };
        let now_ms = self.shared.live.nanos() / 1_000_000;
        self.shared.connections.each_on(version.core.slot, |connection, exchange, began_ms| {
            let age = now_ms.saturating_sub(began_ms) as f64;
            if age > slowest && connection.may_count(exchange) {
                seen.push((bucket_of(age), 1));
            }
        });
    }
}
