//! Where the process is in its life. The worker moves it on; data threads, admin and status watch it.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not yet listening.
    Starting,
    Ready,
    /// SIGTERM was received: readiness is off, new connections are still accepted.
    PreDrain,
    /// Every answer says `Connection: close`; no new connections; idle ones linger.
    LameDuck,
    /// What still runs is cut.
    Ending,
}

impl Phase {
    pub fn is_draining(self) -> bool {
        match self {
            Phase::Starting | Phase::Ready => false,
            Phase::PreDrain | Phase::LameDuck | Phase::Ending => true,
        }
    }
}
