//! What the configuration can say of progressive delivery but nothing acts on yet. It is refused, because a
//! guardrail that is accepted and ignored is worse than none.

use super::super::found::Found;
use crate::config::model::{Config, Rollout, StageTraffic};

pub fn pending(config: &Config, found: &mut Found) {
    let mut refuse = |what: String, hint: &str| {
        found.error_nowhere(what).why("this version of switchback does not act on it").hint(hint);
    };
    for (service, rollout) in
        config.services.iter().filter_map(|(name, service)| Some((name, service.rollout.as_ref()?)))
    {
        for (what, hint) in missing(rollout) {
            refuse(format!("service `{service}`: {what} not available yet"), hint);
        }
    }
}

fn missing(rollout: &Rollout) -> Vec<(&'static str, &'static str)> {
    let mut missing = Vec::new();
    for stage in &rollout.stages {
        match stage.traffic {
            StageTraffic::Share(_) => {}
            StageTraffic::Match(_) => missing.push(("stages with `match` are", "use `force` for testers")),
            StageTraffic::Mirror(_) => missing.push(("stages with `mirror` are", "begin with a small share")),
        }
    }
    missing
}
