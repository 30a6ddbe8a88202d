//! Rollouts as the writer sees them: which run, what they are shown, and how what they decide is carried out.
//!
//! ```text
//! place.rs  a new configuration: which rollout begins, goes on, or ends
//! tick.rs   evidence → `rollout::Rollout::decide` → one generation for all that moved
//! recall.rs what waits for a canary that has gone back
//! asked.rs  what operators say
//! outside.rs  webhooks that are asked, Prometheus
//! tell.rs   notices and alarms
//! alarm.rs  who heard of an alarm
//! show.rs   for `status`
//! keep.rs   what the journal keeps
//! story.rs  what was decided and why, for people
//! ```
//!
//! A rollout owns the split of its service through an overlay entry whose author is [`AUTHOR`]. A failure is
//! judged on the data thread that met it; if that breaks a guardrail the canary is withdrawn there and then
//! ([`crate::evidence`]), and the generation that says so follows from here.

mod alarm;
mod asked;
mod keep;
mod late;
mod outside;
mod past;
mod place;
mod recall;
mod show;
mod story;
mod tell;
mod tick;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

pub use asked::cause;
pub use keep::{Kept, Rejection, Saved};
pub(crate) use outside::Outside;
pub use story::Samples;
pub(crate) use story::Stories;

use super::Snapshot;
use super::api::RolloutDecision;
use super::controller::Controller;
use super::overlay::Overlay;
use crate::config::model::{Intent, Rollout as Plan, StageTraffic};
use crate::endpoints::EndpointRuntime;
use crate::evidence::{Beside, Stamped, Trial};
use crate::rollout::{Judge, Moment, Rollout, guardrails_of, traffic_of, watches};
use crate::routing::table::CompiledService;
use crate::routing::{Bucket, ServiceIdx, Share, Split, Table, VersionIdx};
use alarm::{Gone, Told};
use tell::{Held, Untold};

/// Owner of what a rollout puts on top of the file.
pub(crate) const AUTHOR: &str = "rollout";

/// One service's rollout: the one that runs, or that ended last.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub rollout: Rollout,
    pub trial: Arc<Trial<Judge>>,
    /// When it began, in milliseconds since the Unix epoch: tells the rollouts of a service apart.
    pub started: u64,
    /// Replays before this process began.
    pub shielded_before: u64,
    /// An alarm is open: somebody was told to look.
    pub alarmed: bool,
    /// Who was told to look.
    pub told: Told,
    pub held: Held,
    pub untold: Vec<Untold>,
    /// Restarts of the canary's endpoints that are counted already, by incarnation.
    pub restarts: BTreeMap<u64, u32>,
}

impl Running {
    /// Those that happened since the last look. What an endpoint did before the first one is not the rollout's.
    fn count_restarts<'a>(&mut self, endpoints: impl Iterator<Item = &'a EndpointRuntime>, now: Moment) {
        let before = std::mem::take(&mut self.restarts);
        for endpoint in endpoints {
            let restarts = endpoint.restarts();
            let known = before.get(&endpoint.incarnation).copied().unwrap_or(restarts);
            (known..restarts).for_each(|_| self.rollout.seen_restarting(now));
            self.restarts.insert(endpoint.incarnation, restarts);
        }
    }

    /// Canary requests that stable answered instead.
    pub fn shielded(&self) -> u64 {
        self.shielded_before + self.trial.replays()
    }
}

/// All of them, with their clock.
#[derive(Debug)]
pub(crate) struct Rollouts {
    pub by_service: BTreeMap<String, Running>,
    /// By service and version.
    pub rejected: BTreeMap<String, BTreeMap<String, Rejection>>,
    /// Woken by a data thread that has withdrawn a canary.
    pub tripped: Arc<Notify>,
    /// The clock: where it stood when this process began, and since when it goes on.
    pub base: u64,
    pub since: Instant,
    pub kept_at: Instant,
    pub faded_at: Instant,
    pub sampled_at: Instant,
    /// Decided, and not yet told: what they belong to is not live yet.
    pub said: Vec<RolloutDecision>,
    /// Forgotten, and whoever heard of its alarm not yet told.
    pub gone: Vec<Gone>,
}

impl Rollouts {
    pub fn new() -> Rollouts {
        let now = Instant::now();
        Rollouts {
            by_service: BTreeMap::new(),
            rejected: BTreeMap::new(),
            tripped: Arc::new(Notify::new()),
            base: 0,
            since: now,
            kept_at: now,
            faded_at: now,
            sampled_at: now,
            said: Vec::new(),
            gone: Vec::new(),
        }
    }

    pub fn now(&self) -> Moment {
        Moment(self.base + u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub fn any_runs(&self) -> bool {
        self.by_service.values().any(|running| running.rollout.is_running())
    }
}

/// What a version is, as far as a rejection is concerned.
pub(crate) fn mark_of(service: &CompiledService, version: &str) -> String {
    let Some(version) = service.service.versions.get(version) else { return String::new() };
    let mut parts: Vec<String> = version.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    parts.sort();
    parts.extend(version.revision.clone().map(|revision| format!("revision {revision}")));
    parts.join(" ")
}

/// The split of a rollout whose canary has `bp` hundredths of a percent. `None` if a version is gone.
pub(crate) fn shares_for(service: &CompiledService, rollout: &Rollout, bp: u16) -> Option<Vec<Share>> {
    let stable = service.version_named(&rollout.stable)?;
    let canary = service.version_named(&rollout.canary)?;
    let mut shares = vec![Share::Off; service.versions.len()];
    let bp = u32::from(bp.min(10_000));
    if bp < 10_000 {
        shares[usize::from(stable.0)] = Share::Weight(if bp == 0 { 1 } else { 10_000 - bp });
    }
    if bp > 0 {
        shares[usize::from(canary.0)] = Share::Weight(if bp == 10_000 { 1 } else { bp });
    }
    Some(shares)
}

/// How many buckets of sticky clients a version has.
fn buckets_of(service: &CompiledService, split: &Split, version: VersionIdx) -> u64 {
    match service.service.sticky {
        None => 0,
        Some(_) => Bucket::all().filter(|bucket| split.of_client(*bucket) == version).count() as u64,
    }
}

impl Rollouts {
    /// What the requests of a generation with these splits are stamped with.
    pub fn stamps(&self, table: &Table, splits: &[Arc<Split>]) -> Box<[Option<Stamped>]> {
        if !self.any_runs() {
            return Box::default();
        }
        let stamp = |(service, split): (&CompiledService, &Arc<Split>)| {
            let running = self.by_service.get(&*service.name).filter(|it| it.rollout.is_running())?;
            let plan = service.service.rollout.as_ref()?;
            let stable = service.version_named(&running.rollout.stable)?;
            let canary = service.version_named(&running.rollout.canary)?;
            let pi = crate::control::decide::part(split.shares(), canary);
            let rules = guardrails_of(plan, running.rollout.stage);
            let beside = self.beside(service);
            Some(Stamped {
                trial: running.trial.clone(),
                stable,
                canary,
                pi,
                watches: running.trial.judge(|judge| watches(rules, judge)).into(),
                warm_up: rules.latency.map_or(std::time::Duration::ZERO, |rule| rule.warm_up),
                shield: plan.shield.map(|shield| shield.budget_bp),
                beside,
            })
        };
        table.services.iter().zip(splits).map(stamp).collect()
    }

    /// What the present stage of a service's rollout gives the canary beside the split.
    fn beside(&self, service: &CompiledService) -> Beside {
        let running = self.by_service.get(&*service.name).filter(|it| it.rollout.is_running());
        let stage = running.and_then(|running| running.rollout.stage);
        let Some(plan) = &service.service.rollout else { return Beside::Nothing };
        match traffic_of(plan, stage) {
            Some(StageTraffic::Match(_)) => {
                let matched = stage.and_then(|stage| service.matched.get(stage)?.clone());
                matched.map_or(Beside::Nothing, Beside::Match)
            }
            Some(StageTraffic::Mirror(share)) => Beside::Mirror(*share),
            Some(StageTraffic::Share(_)) | None => Beside::Nothing,
        }
    }

    /// Whether requests of this service are stamped as they ought to be.
    pub fn fares_the_same(&self, live: &Snapshot, at: ServiceIdx) -> bool {
        let service = live.generation.table.service(at);
        let runs = self.by_service.get(&*service.name).is_some_and(|running| running.rollout.is_running());
        let stamped = live.trial(at);
        let now = stamped.map_or(&Beside::Nothing, |stamped| &stamped.beside);
        (runs || stamped.is_none()) && now.is_same(&self.beside(service))
    }

    /// Somebody else decides on the split of a service, even if it stays what it is: that ends its rollout. Says whether
    /// there was one.
    pub fn overrule(&mut self, service: &CompiledService, author: &str) -> bool {
        let runs = self.by_service.get(&*service.name).is_some_and(|running| running.rollout.is_running());
        let overruled = author != AUTHOR && runs;
        if overruled {
            self.end(&service.name, author);
        }
        overruled
    }

    /// An earlier generation comes back whole. A rollout goes on only if it leads to what that one names, or owned its
    /// split then.
    pub fn return_to(&mut self, table: &Table, overlay: &Overlay, author: &str) {
        for service in &table.services {
            let Some(running) = self.by_service.get(&*service.name) else { continue };
            let owned = overlay.get(&*service.name).is_some_and(|entry| entry.author == AUTHOR);
            let leads_there =
                matches!(&service.service.intent, Intent::Active(active) if **active == *running.rollout.canary);
            if !owned && !leads_there {
                self.end(&service.name, author);
            }
        }
    }
}

impl Controller {
    /// A rollout whose split is not what runs any more has been overruled.
    pub(crate) fn end_overruled(&mut self, table: &Table, splits: &[Arc<Split>], author: &str) {
        let overruled: Vec<String> = table
            .services
            .iter()
            .enumerate()
            .filter(|(at, service)| {
                let running = self.rollouts.by_service.get(&*service.name).filter(|it| it.rollout.is_running());
                let Some((running, plan)) = running.zip(service.service.rollout.as_ref()) else { return false };
                let wanted = shares_for(service, &running.rollout, running.rollout.share(plan));
                wanted.is_none_or(|wanted| splits[*at].shares() != wanted)
            })
            .map(|(_, service)| service.name.to_string())
            .collect();
        for service in overruled {
            self.rollouts.end(&service, author);
        }
    }

    pub(crate) fn plan_of(&self, service: &str) -> Option<Plan> {
        let live = self.live();
        let table = &live.generation.table;
        let at = table.service_named(service)?;
        table.service(at).service.rollout.clone()
    }
}
