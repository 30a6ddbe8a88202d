//! The words of a rollout: where it can stand, why it stops, what can be decided and said.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::model::HookPoint;

/// Why a canary is not kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Breach {
    /// More failures than allowed, and more than stable's.
    Errors,
    /// Its rate was above the limit for the whole of a window.
    ErrorWindow,
    /// A guardrail of the user's own.
    Custom {
        rule: String,
    },
    /// Slower than stable for too long, where that rolls back.
    Latency {
        ratio: Option<f64>,
    },
    Crashes {
        restarts: usize,
    },
    /// None of its endpoints could be used.
    Unhealthy,
    /// Another service of its group went back.
    Group {
        with: String,
    },
    Operator {
        who: String,
        reason: Option<String>,
    },
}

/// Why a rollout does not move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Waits {
    Operator {
        who: String,
        reason: Option<String>,
    },
    /// A guardrail whose `then` is pause.
    Breach(Breach),
    /// Failing, but stable is no better.
    SharedIncident,
    /// The canary is to be rolled back, but stable has no usable endpoint.
    StableBroken(Breach),
    /// Slower than stable for too long.
    Latency {
        ratio: Option<f64>,
    },
    /// Neither proven good nor bad in the longest time of a stage.
    Inconclusive,
    /// A webhook that is a gate said no, or nothing that can be understood.
    Refused {
        why: String,
    },
    /// What was known of it could not be read after a restart.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// The stage runs.
    Staged,
    /// The gate of the next stage must say yes; traffic stays as it is.
    Waiting {
        gate: String,
    },
    Paused(Waits),
    RolledBack(Breach),
    Promoted,
    /// The operator or the file took the split over.
    Superseded {
        by: String,
    },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    Stay,
    /// The canary gets the share of this stage.
    Advance {
        to: usize,
    },
    Wait {
        gate: String,
    },
    /// The webhooks of this point are to be asked; their answer comes through [`super::Rollout::answered`].
    Ask(HookPoint),
    Pause(Waits),
    /// Everything to stable, now.
    RollBack(Breach),
    /// The canary is the new stable.
    Promote,
}

/// What an operator says.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Promote,
    Pause { reason: Option<String> },
    Resume,
    Abort { reason: Option<String> },
    Approve { gate: Option<String>, by: String },
}

/// Why a canary is not kept, for people.
impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Breach::Errors => f.write_str("it failed more often than allowed and than stable"),
            Breach::ErrorWindow => f.write_str("its rate of errors was above the limit for the whole of the window"),
            Breach::Custom { rule } => write!(f, "it broke the guardrail `{rule}`"),
            Breach::Latency { ratio } => slow(f, *ratio),
            Breach::Crashes { restarts } => write!(f, "it restarted {restarts} times"),
            Breach::Unhealthy => f.write_str("none of its endpoints could be used"),
            Breach::Group { with } => write!(f, "it goes back with `{with}` of its group"),
            Breach::Operator { who, reason } => said(f, who, reason.as_deref()),
        }
    }
}

/// Why a rollout does not move, for people.
impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waits::Operator { who, reason } => said(f, who, reason.as_deref()),
            Waits::Breach(breach) => breach.fmt(f),
            Waits::SharedIncident => f.write_str("it fails more often than allowed, but stable is no better"),
            Waits::StableBroken(breach) => write!(f, "{breach}; but stable has no usable endpoint to go back to"),
            Waits::Latency { ratio } => slow(f, *ratio),
            Waits::Inconclusive => f.write_str("neither proven good nor bad in the longest time of a stage"),
            Waits::Refused { why } => f.write_str(why),
            Waits::Unknown => f.write_str("its evidence could not be read back after a restart"),
        }
    }
}

fn slow(f: &mut fmt::Formatter<'_>, ratio: Option<f64>) -> fmt::Result {
    f.write_str("slower than stable for too long")?;
    ratio.map_or(Ok(()), |ratio| write!(f, " ({ratio:.2} x)"))
}

fn said(f: &mut fmt::Formatter<'_>, who: &str, reason: Option<&str>) -> fmt::Result {
    match reason {
        Some(reason) => write!(f, "{who}: {reason}"),
        None => write!(f, "by {who}"),
    }
}
