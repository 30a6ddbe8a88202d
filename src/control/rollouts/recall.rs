//! What waits for a canary that has just been rolled back is asked of stable.
//!
//! Only told here, after the generation is live, to the connections that run something on the canary: whether
//! a request may run twice, and whether the shield's budget allows it, is known to its connection alone (the
//! engine's `recall`). A request that was routed before and appears on the canary only after this look finds
//! it withdrawn when it is sent. Streams and answers that have begun are the drain's.

use crate::control::controller::Controller;

impl Controller {
    /// Recalls the plain requests on the canary of `service`.
    pub(super) fn recall(&self, service: &str) {
        let live = self.live();
        let Some(running) = self.rollouts.by_service.get(service) else { return };
        let Some(canary) = live.version_named(service, &running.rollout.canary) else { return };
        for waiting in self.shared.connections.running_on(canary.core.slot) {
            if !waiting.exchange.kind().is_stream() {
                waiting.connection.recall(waiting.exchange);
            }
        }
    }
}
