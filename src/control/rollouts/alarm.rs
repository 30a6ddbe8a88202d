//! Who heard of an alarm, so that they hear of its end even when its rollout has gone out of the configuration.
//!
//! What is not here: what opens and closes an alarm; that is `tell.rs`.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Rollouts;
use super::tell::notice;
use crate::alerts::{Alarm, Happened};
use crate::config::model::{Name, Rollout as Plan};
use crate::control::controller::Controller;
use crate::rollout::Rollout;
use crate::routing::Table;

/// What a plan says about those who are told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Names of notifications; `None`: all of them.
    pub notify: Option<Vec<Name>>,
    /// How many stages there are, for the words.
    pub stages: usize,
}

impl Told {
    pub fn of(plan: &Plan) -> Told {
        Told { notify: plan.notify.clone(), stages: plan.stages.len() }
    }

    /// Those of `before`, too.
    pub fn and(self, before: &Told) -> Told {
        let both = self.notify.zip(before.notify.as_ref()).map(|(mut notify, before)| {
            notify.extend(before.iter().cloned());
            notify.sort();
            notify.dedup();
            notify
        });
        Told { notify: both, stages: self.stages }
    }
}

/// A rollout that is forgotten while its alarm is open.
#[derive(Debug)]
pub(crate) struct Gone {
    pub service: String,
    pub rollout: Rollout,
    pub told: Told,
}

impl Rollouts {
    /// Forgets the rollouts of services that this table does not have.
    pub(super) fn forget_gone(&mut self, table: &Table) {
        let gone = &mut self.gone;
        self.by_service.retain(|service, running| {
            let stays = table.service_named(service).is_some();
            if !stays && running.alarmed {
                let (rollout, told) = (running.rollout.clone(), running.told.clone());
                gone.push(Gone { service: service.clone(), rollout, told });
            }
            stays
        });
    }
}

impl Controller {
    pub(super) fn tell_gone(&mut self) {
        for Gone { service, rollout, told } in std::mem::take(&mut self.rollouts.gone) {
            let message = format!("rollout {} ended: it is not in the configuration any more", rollout.canary);
            let evidence = json!({ "reason": "file" });
            let notice = notice(&service, &rollout, told.stages, Happened::Ended, Alarm::Closes, message, evidence);
            self.send(&told, &notice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_told_is_told_of_the_end_once() {
        let told = |names: Option<&[&str]>| Told {
            notify: names.map(|names| names.iter().map(|name| Name::from(*name)).collect()),
            stages: 3,
        };
        for (now, before, wanted) in [
            (Some(&["a", "b"][..]), Some(&["b", "c"][..]), Some(&["a", "b", "c"][..])),
            (None, Some(&["a"][..]), None),
            (Some(&["a"][..]), None, None),
        ] {
            assert_eq!(told(now).and(&told(before)), told(wanted));
        }
    }
}
