//! What the configuration can say of progressive delivery but nothing acts on yet. It is refused, because a
//! guardrail that is accepted and ignored is worse than none.

use super::super::found::Found;
use crate::config::model::{Config, Rollout, StageTraffic};

pub fn pending(config: &Config, found: &mut Found) {
    let mut refuse = |what: String, hint: &str| {
        found.error_nowhere(what).why("this version of switchback does not act on it").hint(hint);
    };
    if !config.notifications.is_empty() {
        refuse("`notifications` are not available yet".into(), "follow GET /api/v1/events, or /metrics");
    }
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
    if !rollout.webhooks.is_empty() {
        missing.push(("`webhooks` are", "use `approve:` with a gate, and `switchback rollout approve`"));
    }
    if rollout.guardrails.error_window.is_some() {
        missing.push(("the guardrail `error_window` is", "`errors` judges each request, and sooner"));
    }
    if !rollout.guardrails.custom.is_empty() {
        missing.push(("custom guardrails are", "report from outside: switchback rollout abort SERVICE --reason .."));
    }
    if rollout.stages.iter().any(|stage| stage.guardrails.is_some()) {
        missing.push(("`guardrails` of a single stage are", "write them for the whole rollout"));
    }
    for stage in &rollout.stages {
        match stage.traffic {
            StageTraffic::Share(_) => {}
            StageTraffic::Match(_) => missing.push(("stages with `match` are", "use `force` for testers")),
            StageTraffic::Mirror(_) => missing.push(("stages with `mirror` are", "begin with a small share")),
        }
    }
    missing
}
