//! Rollouts as the writer sees them.

use super::api::{Refused, RolloutAction};
use super::controller::{By, Controller, Outcome};

/// How the history will call what an operator says about a rollout.
pub(crate) fn cause(service: &str, action: &RolloutAction) -> String {
    let because = |reason: &Option<String>| reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    match action {
        RolloutAction::Start { to: Some(to), again: _ } => format!("rollout start {service} {to}"),
        RolloutAction::Start { to: None, again: _ } => format!("rollout start {service}"),
        RolloutAction::Promote => format!("rollout promote {service}"),
        RolloutAction::Pause { reason } => format!("rollout pause {service}{}", because(reason)),
        RolloutAction::Resume => format!("rollout resume {service}"),
        RolloutAction::Abort { reason } => format!("rollout abort {service}{}", because(reason)),
        RolloutAction::Approve { gate, .. } => {
            format!("rollout approve {service}{}", gate.as_ref().map_or(String::new(), |gate| format!(" {gate}")))
        }
    }
}

impl Controller {
    pub(crate) fn rollout_asked(&mut self, service: &str, _action: RolloutAction, _by: By) -> Result<Outcome, Refused> {
        Err(super::decide::conflict(format!("service `{service}` has no rollout"), None))
    }

    pub(crate) fn reported(&mut self, service: &str, _version: &str, _kind: &str, _by: &By) -> Result<Outcome, Refused> {
        Err(super::decide::conflict(format!("service `{service}` has no rollout"), None))
    }
}
