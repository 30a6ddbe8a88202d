//! The way out: readiness off, lame duck, finish, and exit the moment nothing runs any more.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::instance::Instance;
use crate::control::Phase;
use crate::net::Stage;

/// How long cut exchanges get for their last words.
const LAST_WORDS: Duration = Duration::from_millis(1500);

/// What the shutdown cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Exchanges that were still running at the deadline.
    pub cut: usize,
}

impl Instance {
    /// Takes the proxy down by the `shutdown` policy of the live configuration; `hurry` ends it now.
    pub fn shutdown(self, hurry: CancellationToken) -> Ended {
        let runtime = self.control.handle().clone();
        let ended = runtime.block_on(self.wind_down(hurry));
        self.end();
        ended
    }

    async fn wind_down(&self, hurry: CancellationToken) -> Ended {
        let policy = self.handle.live().load().generation.table.config.shutdown.clone();
        let began = Instant::now();
        let deadline = began + policy.timeout.saturating_sub(LAST_WORDS);
        self.phase.send_replace(Phase::PreDrain);
        info!(pre_drain = ?policy.pre_drain, timeout = ?policy.timeout, "shutting down: not ready any more, still accepting");
        let pre_drain_ends = (began + policy.pre_drain).min(deadline);
        tokio::select! { () = sleep_until(pre_drain_ends) => {}, () = hurry.cancelled() => {} }

        self.phase.send_replace(Phase::LameDuck);
        self.set_stage(Stage::LameDuck);
        self.listeners.close_all();
        info!(connections = self.connections.open(), "no longer accepting; finishing what runs");
        let linger_ends = (Instant::now() + policy.linger).min(deadline);
        tokio::select! {
            _ = timeout_at(linger_ends, self.connections.all_closed()) => {}
            () = hurry.cancelled() => {}
        }
        self.set_stage(Stage::CloseIdle);
        tokio::select! {
            _ = timeout_at(deadline, self.connections.all_closed()) => {}
            () = hurry.cancelled() => {}
        }

        let held: u64 = self
            .handle
            .live()
            .load()
            .runtime
            .services
            .iter()
            .map(|service| service.core.waiting.load(Ordering::Relaxed))
            .sum();
        let cut = self.connections.running().len() + held as usize;
        self.phase.send_replace(Phase::Ending);
        self.set_stage(Stage::Cut);
        let last_words = if hurry.is_cancelled() { Duration::from_millis(200) } else { LAST_WORDS };
        let closed = tokio::time::timeout(last_words, self.connections.all_closed()).await.is_ok();
        if cut > 0 {
            warn!(cut, "shutdown deadline: exchanges were cut");
        } else {
            info!(all_closed = closed, took = ?began.elapsed(), "all work is finished");
        }
        Ended { cut }
    }
}
