//! Who is told what rollouts do, who is asked before they go on, and what Prometheus says of them.
//!
//! ```text
//! notice.rs      what there is to tell                                  [pure]
//! payload/       the same in the words of Slack, PagerDuty, Alertmanager [pure]
//! client.rs      one POST or GET: deadline, no redirects, bounded answer
//! delivery.rs    attempts, backoff, Retry-After, signature
//! outbox.rs      a bounded queue for each destination
//! desk.rs        all of it for control: tell, ask, close
//! prometheus.rs  queries that are asked again and again
//! ```
//!
//! Everything runs on the control runtime and nothing here is waited for by the writer: a notice is queued, an
//! answer comes back through a closure. What is not here: which rollout wants what, and what an answer means; that is
//! control's.

mod client;
mod delivery;
mod desk;
mod notice;
mod outbox;
mod payload;
pub mod prometheus;
mod sign;

#[cfg(test)]
mod testing;

pub use client::Client;
pub use desk::{Asking, Desk, at};
pub use notice::{Alarm, Happened, Notice, Severity};
pub use payload::{HookCall, shown};
