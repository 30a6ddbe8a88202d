//! The way out: readiness off, lame duck, finish, and exit the moment nothing runs any more. A process whose successor
//! serves goes the same way without the first step, and with more time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::instance::{ADMIN_PATIENCE, Instance};
use crate::control::Phase;
use crate::net::Stage;
use crate::telemetry::Counts;

/// How long cut exchanges get for their last words.
const LAST_WORDS: Duration = Duration::from_millis(1500);

/// Why it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By the `shutdown` policy.
    Stop,
    /// Another process serves: by the `upgrade` policy.
    Retire,
}

/// What shortens the way.
#[derive(Debug, Clone)]
pub struct Hurry {
    /// Only for a retired process: it has no more time than a shutdown has.
    pub soon: CancellationToken,
    pub now: CancellationToken,
}

/// What the shutdown cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Exchanges that were still running at the deadline.
    pub cut: usize,
}

impl Instance {
    /// Takes the proxy down by the `shutdown` policy.
    pub fn stop(self) -> Ended {
        self.shutdown(Way::Stop, Hurry::default(), None)
    }

    /// Takes the proxy down by the policy of the live configuration. `counts`: what a successor knows already.
    pub fn shutdown(self, way: Way, hurry: Hurry, counts: Option<Counts>) -> Ended {
        let runtime = self.control.handle().clone();
        let ended = runtime.block_on(self.wind_down(way, hurry));
        if let Some(counts) = counts {
            self.tell_counts(&counts);
        }
        self.end();
        ended
    }

    async fn wind_down(&self, way: Way, hurry: Hurry) -> Ended {
        let config = self.handle.live().load().generation.table.config.clone();
        let began = Instant::now();
        let (linger, timeout) = match way {
            Way::Stop => (config.shutdown.linger, config.shutdown.timeout),
            Way::Retire => (config.upgrade.linger, config.upgrade.drain),
        };
        let deadline = began + timeout.saturating_sub(LAST_WORDS);
        match way {
            Way::Stop => {
                let policy = &config.shutdown;
                self.phase.send_replace(Phase::PreDrain);
                info!(pre_drain = ?policy.pre_drain, timeout = ?policy.timeout, "shutting down: not ready any more, still accepting");
                let pre_drain_ends = (began + policy.pre_drain).min(deadline);
                tokio::select! { () = sleep_until(pre_drain_ends) => {}, () = hurry.now.cancelled() => {} }
            }
            Way::Retire => {
                info!(?linger, ?timeout, "another process serves now: finishing what runs");
                self.handle.retire().await;
                // First, so that nobody is told here that the instance goes away.
                self.admin.close(ADMIN_PATIENCE).await;
            }
        }

        self.phase.send_replace(Phase::LameDuck);
        self.set_stage(Stage::LameDuck);
        self.listeners.close_all().over().await;
        info!(connections = self.connections.open(), "no longer accepting; finishing what runs");
        let linger_ends = (Instant::now() + linger).min(deadline);
        tokio::select! {
            _ = timeout_at(linger_ends, self.connections.all_closed()) => {}
            () = hurry.soon.cancelled() => {}
            () = hurry.now.cancelled() => {}
        }
        self.set_stage(Stage::CloseIdle);
        tokio::select! {
            _ = timeout_at(deadline, self.connections.all_closed()) => {}
            () = soon_over(&hurry, config.shutdown.timeout) => {}
            () = hurry.now.cancelled() => {}
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
        let last_words = if hurry.now.is_cancelled() { Duration::from_millis(200) } else { LAST_WORDS };
        let closed = tokio::time::timeout(last_words, self.connections.all_closed()).await.is_ok();
        if cut > 0 {
            warn!(cut, "shutdown deadline: exchanges were cut");
        } else {
            info!(all_closed = closed, took = ?began.elapsed(), "all work is finished");
        }
        Ended { cut }
    }
}

/// A retired process that is told to end has the time that a shutdown has.
async fn soon_over(hurry: &Hurry, timeout: Duration) {
    hurry.soon.cancelled().await;
    tokio::time::sleep(timeout.saturating_sub(LAST_WORDS)).await;
}
