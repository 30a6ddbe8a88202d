//! What the configuration can say of progressive delivery but nothing acts on yet. It is refused, because a
//! guardrail that is accepted and ignored is worse than none.

use super::super::found::Found;
use crate::config::model::{Config, CustomEvent, Rollout};

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
    let stages = rollout.stages.iter().filter_map(|stage| stage.guardrails.as_ref());
    let custom = std::iter::once(&rollout.guardrails).chain(stages).flat_map(|rules| &rules.custom);
    if custom.into_iter().any(|(_, rule)| matches!(rule.what, CustomEvent::Prometheus { .. })) {
        missing.push(("guardrails with `prometheus` are", "let an alert report: POST /api/v1/services/{s}/events"));
    }
    missing
}
