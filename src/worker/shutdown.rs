//! The way out: readiness off, lame duck, finish, and exit the moment nothing runs any more. A process whose successor
//! serves goes the same way without the first step, and with more time, of which streams have what the `drain` of their
//! service says. Either way streams end one after the other, so that their clients do not come back all at once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::instance::{ADMIN_PATIENCE, Instance};
use crate::control::Phase;
use crate::net::Stage;
use crate::sessions::{Going, Leaving};
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
    /// Exchanges that were still running at their deadline.
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
        let now = Instant::now();
        let linger_ends = (now + linger).min(deadline);
        let mut leaving = vec![self.leave(way == Way::Retire, linger_ends - now, deadline)];
        tokio::select! {
            _ = timeout_at(linger_ends, self.connections.all_closed()) => {}
            () = hurry.soon.cancelled() => {}
            () = hurry.now.cancelled() => {}
        }
        self.set_stage(Stage::CloseIdle);
        let told_to_end = tokio::select! {
            _ = timeout_at(deadline, self.connections.all_closed()) => false,
            () = hurry.soon.cancelled(), if way == Way::Retire => true,
            () = hurry.now.cancelled() => false,
        };
        if told_to_end {
            // A retired process that is told to end has the time that a shutdown has.
            let by = (Instant::now() + config.shutdown.timeout.saturating_sub(LAST_WORDS)).min(deadline);
            leaving.push(self.leave(false, Duration::ZERO, by));
            tokio::select! {
                _ = timeout_at(by, self.connections.all_closed()) => {}
                () = hurry.now.cancelled() => {}
            }
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
        // Those whose end has been ordered are counted there.
        let running = self.connections.running().iter().filter(|one| one.connection.is_cut().is_none()).count();
        let cut = running + held as usize + leaving.iter().map(Leaving::cuts).sum::<usize>();
        drop(leaving);
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

    /// What runs ends one after the other, from now on.
    fn leave(&self, by_service: bool, comers: Duration, by: Instant) -> Leaving {
        self.drains.leave(&self.handle.live().load(), Going { by_service, comers, by })
    }
}
