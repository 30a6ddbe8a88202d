//! The story of a service's last rollout as one answer, and of those before it if they are asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use super::api::{EarlierRollout, Refused, RolloutDecision, RolloutReport};
use super::decide::unknown;
use super::shared::Shared;
use crate::telemetry::unix_ms;

/// Longest wait for the journal.
const READ: Duration = Duration::from_secs(3);

/// `all`: with every rollout that the journal knows of.
pub(crate) async fn report(shared: &Shared, service: &str, all: bool) -> Result<RolloutReport, Refused> {
    let told = shared.stories.last(service);
    let journaled = match &shared.journal {
        Some(journal) if all || told.is_none() => {
            // A disk that hangs must not keep what is known from who asks.
            tokio::time::timeout(READ, journal.decisions(service)).await.unwrap_or_default()
        }
        Some(_) | None => Vec::new(),
    };
    let mut rollouts = by_rollout(journaled);
    let (started, samples, evidence) = match told {
        Some(story) => {
            // What is in memory may not be in the journal yet.
            let known = rollouts.entry(story.started).or_default();
            known.extend(story.decisions.into_iter().map(|decision| (decision.id, decision)));
            let samples = story.samples.points().map(|(at, sample)| super::api::RolloutSample { at: *at, ..*sample });
            (story.started, samples.collect(), Some(story.evidence))
        }
        None => match rollouts.keys().next_back() {
            Some(newest) => (*newest, Vec::new(), None),
            None => return Err(nothing(shared, service)),
        },
    };
    let decisions: Vec<RolloutDecision> = rollouts.remove(&started).unwrap_or_default().into_values().collect();
    let known = || decisions.last().map(|decision| decision.evidence.clone()).unwrap_or_default();
    let evidence = evidence.unwrap_or_else(known);
    let earlier = rollouts
        .into_iter()
        .rev()
        .filter(|_| all)
        .map(|(started, decisions)| EarlierRollout { started, decisions: decisions.into_values().collect() })
        .collect();
    let status = shared.view().rollouts.get(service).filter(|status| status.started == started).cloned();
    let service = service.into();
    Ok(RolloutReport { service, at: unix_ms(), started, rollout: status, evidence, decisions, samples, earlier })
}

fn by_rollout(decisions: Vec<RolloutDecision>) -> BTreeMap<u64, BTreeMap<u64, RolloutDecision>> {
    let mut rollouts: BTreeMap<u64, BTreeMap<u64, RolloutDecision>> = BTreeMap::new();
    for decision in decisions {
        rollouts.entry(decision.rollout).or_default().insert(decision.id, decision);
    }
    rollouts
}

fn nothing(shared: &Shared, service: &str) -> Refused {
    let live = shared.live.load();
    let table = &live.generation.table;
    let Some(at) = table.service_named(service) else {
        return unknown("service", service, table.services.iter().map(|service| &*service.name));
    };
    let hint = match table.service(at).service.rollout {
        Some(_) => format!("one begins when `active` changes, or by: switchback rollout start {service} VERSION"),
        None => "give it `active:` and `rollout:` in the configuration; see docs/rollouts.md".into(),
    };
    Refused::NotFound { what: format!("service `{service}` has had no rollout yet"), hint: Some(hint) }
}
