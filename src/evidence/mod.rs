//! What requests leave behind for the judge of a rollout, and how a canary is withdrawn the moment it is judged.
//!
//! A good answer costs two relaxed adds in the data thread's own cache lines. A failure is judged at once, by
//! the thread that met it, unless another one is judging: then that one takes it along. A canary that is to be
//! rolled back is *withdrawn* there and then: from the next request on nobody is routed to it, whatever the
//! generation says, while the writer publishes the one that says so.

mod trial;

use std::sync::Arc;

use http::HeaderMap;
pub use trial::Trial;

use crate::rollout::{Judge, Watch};
use crate::routing::{Matched, VersionIdx};

/// A rollout as one generation sees it: what its requests are stamped with, and judged by, however late they end.
#[derive(Debug, Clone)]
pub struct Stamped {
    pub trial: Arc<Trial<Judge>>,
    pub stable: VersionIdx,
    pub canary: VersionIdx,
    /// The canary's share of new requests, 0 to 1.
    pub pi: f64,
    /// The guardrails of this stage that look at answers.
    pub watches: Arc<[Watch]>,
    /// How long a fresh endpoint of the canary is not judged by its speed.
    pub warm_up: std::time::Duration,
    /// Most replays in hundredths of a percent of all requests; `None` without shield.
    pub shield: Option<u16>,
    pub beside: Beside,
}

/// What the canary gets that the split does not say.
#[derive(Debug, Clone)]
pub enum Beside {
    Nothing,
    /// These clients.
    Match(Arc<Matched>),
    /// Copies of this share of the requests, in hundredths of a percent.
    Mirror(u16),
}

impl Stamped {
    /// The canary, if the stage sends a request with these fields there.
    pub fn matched(&self, headers: &HeaderMap) -> Option<VersionIdx> {
        match &self.beside {
            Beside::Match(matched) => matched.met(headers).map(|_| self.canary),
            Beside::Nothing | Beside::Mirror(_) => None,
        }
    }

    /// The canary, if it has clients of its own although the split does not name it.
    pub fn has_matched(&self) -> Option<VersionIdx> {
        match &self.beside {
            Beside::Match(_) => Some(self.canary),
            Beside::Nothing | Beside::Mirror(_) => None,
        }
    }
}

impl Beside {
    /// Whether requests fare the same under both.
    pub fn is_same(&self, other: &Beside) -> bool {
        match (self, other) {
            (Beside::Nothing, Beside::Nothing) => true,
            (Beside::Match(one), Beside::Match(other)) => Arc::ptr_eq(one, other),
            (Beside::Mirror(one), Beside::Mirror(other)) => one == other,
            (Beside::Nothing | Beside::Match(_) | Beside::Mirror(_), _) => false,
        }
    }
}
