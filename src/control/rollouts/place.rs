//! A new configuration meets the rollouts: which begins, goes on, or ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::story::Said;
use super::tell::{Held, Untold};
use super::tick::enter;
use super::{AUTHOR, Rollouts, Running, mark_of, shares_for};
use crate::config::model::{Intent, Rollout as Plan};
use crate::control::controller::Settlement;
use crate::control::overlay::{self, Asker, Weights};
use crate::evidence::Trial;
use crate::rollout::{Judge, Phase, Rollout, guardrails_of, traffic_of};
use crate::routing::table::CompiledService;
use crate::routing::{Share, Table, VersionIdx};

impl Rollouts {
    /// Changes what `settled` would make live so that a changed `active` begins a rollout instead. `before`
    /// is what ran of a service until now.
    pub fn place(
        &mut self,
        table: &Table,
        before: impl Fn(&str) -> Option<Weights>,
        settled: &mut Settlement,
        threads: usize,
        now_unix: u64,
    ) {
        self.forget_gone(table);
        for (at, service) in table.services.iter().enumerate() {
            let is_ours = settled.overlay.get(&*service.name).is_some_and(|entry| entry.author == AUTHOR);
            let (Some(plan), Intent::Active(active)) = (&service.service.rollout, &service.service.intent) else {
                let left = if is_ours { self.without_rollout(service) } else { None };
                self.end(&service.name, "file");
                if let Some((shares, note)) = left {
                    settled.notes.push(note);
                    let by = Asker { author: AUTHOR, cause: "its rollout was removed while it ran", now_ms: now_unix };
                    match overlay::entry_for(service, &shares, by) {
                        Some(entry) => settled.overlay.insert(service.name.to_string(), entry),
                        None => settled.overlay.remove(&*service.name),
                    };
                    settled.shares[at] = shares;
                }
                continue;
            };
            let ran = before(&service.name);
            let placed = if is_ours || self.is_whole(&service.name, active) {
                self.go_on(service, plan, (active, ran.as_ref()), threads, now_unix)
            } else if settled.overlay.contains_key(&*service.name) {
                // An operator's split stays; it is not the rollout's.
                self.end(&service.name, "an operator");
                None
            } else {
                // A service that did not run before flips at once, unless what it is to flip to was rejected.
                let ran = ran.or_else(|| self.instead_of(service, active));
                ran.and_then(|before| self.turn(service, plan, active, &before, threads, now_unix))
            };
            let Some(Placed { bp, cause, note }) = placed else { continue };
            settled.notes.extend(note);
            let shares = match self.by_service.get(&*service.name) {
                Some(running) if running.rollout.is_running() => shares_for(service, &running.rollout, bp),
                Some(_) | None => None,
            };
            let Some(shares) = shares.or_else(|| self.rejected_shares(service, active, &before)) else { continue };
            let by = Asker { author: AUTHOR, cause: &cause, now_ms: now_unix };
            match overlay::entry_for(service, &shares, by) {
                Some(entry) => settled.overlay.insert(service.name.to_string(), entry),
                None => settled.overlay.remove(&*service.name),
            };
            settled.shares[at] = shares;
        }
    }

    /// As they were before [`Rollouts::place`]: what was to be placed is not taken over.
    pub fn go_back(&mut self, before: BTreeMap<String, Running>, table: &Table) {
        self.by_service = before;
        // Nothing that was decided of it is ever told.
        self.said.clear();
        self.gone.clear();
        for (service, running) in &self.by_service {
            let plan = table.service_named(service).and_then(|at| table.service(at).service.rollout.as_ref());
            if let Some(plan) = plan {
                let rules = guardrails_of(plan, running.rollout.stage);
                running.trial.judge(|judge| judge.follow(plan, rules));
            }
        }
    }

    /// The rollout section is gone in the middle of a rollout: nothing is promoted by that.
    fn without_rollout(&self, service: &CompiledService) -> Option<(Vec<Share>, String)> {
        let running = self.by_service.get(&*service.name).filter(|running| running.rollout.is_running())?;
        let Rollout { stable, canary, .. } = &running.rollout;
        let shares = shares_for(service, &running.rollout, 0)?;
        let name = &service.name;
        let note = format!(
            "service `{name}`: its `rollout` was removed while it ran: `{stable}` has everything. To give it to `{canary}` at once: switchback clear {name}"
        );
        Some((shares, note))
    }

    /// What a rejected version was to replace, for a service of which nothing else is known.
    fn instead_of(&self, service: &CompiledService, active: &str) -> Option<Weights> {
        let rejection = self.rejection(&service.name, active, &mark_of(service, active))?;
        let stable = rejection.stable.clone().filter(|stable| service.version_named(stable).is_some())?;
        Some(Weights::from([(stable, 1)]))
    }

    /// The last stage gives everything to the version that the file names: no overlay says so.
    fn is_whole(&self, service: &str, active: &str) -> bool {
        self.by_service.get(service).is_some_and(|running| {
            running.rollout.is_running() && running.rollout.canary == active && running.rollout.stage.is_some()
        })
    }

    /// The rollout that owns the split goes on under the new configuration.
    fn go_on(
        &mut self,
        service: &CompiledService,
        plan: &Plan,
        (active, before): (&str, Option<&Weights>),
        threads: usize,
        now_unix: u64,
    ) -> Option<Placed> {
        let now = self.now();
        let name: &str = &service.name;
        let running = self.by_service.get_mut(name)?;
        let rollout = &mut running.rollout;
        let has_ended = match rollout.phase {
            Phase::Staged | Phase::Waiting { .. } | Phase::Paused(_) => false,
            // What was rolled back is begun anew if it is another one, by the file that still names it.
            Phase::RolledBack(_) => rollout.canary != active,
            Phase::Promoted | Phase::Superseded { .. } => true,
        };
        if has_ended {
            return before.and_then(|before| self.turn(service, plan, active, before, threads, now_unix));
        }
        let gone = [&rollout.stable, &rollout.canary].into_iter().find(|it| service.version_named(it).is_none());
        if let Some(gone) = gone {
            let note = format!("service `{name}`: its rollout ends, because version `{gone}` no longer exists");
            self.end(name, "file");
            return Some(Placed { bp: 0, cause: String::new(), note: Some(note) });
        }
        let mark = mark_of(service, &rollout.canary);
        let wants = rollout.is_running() || matches!(rollout.phase, Phase::RolledBack(_));
        if wants && mark != rollout.mark {
            let (stable, canary) = (rollout.stable.clone(), rollout.canary.clone());
            let note = format!("service `{name}`: `{canary}` is another one now: its rollout begins anew");
            let cause = format!("rollout of {canary} begins anew");
            let rollout = Rollout::new(stable, canary, mark, now, now_unix);
            self.insert(name, rollout, plan, threads, None);
            return Some(Placed { bp: 0, cause, note: Some(note) });
        }
        if !rollout.is_running() {
            return None;
        }
        // The plan may have other stages now. The canary gets no more by that than it has.
        let live = before.map_or(rollout.share(plan), |before| part_of(before, &rollout.canary));
        let moves = rollout.refit(plan, live, now);
        let (bp, stage, canary) = (rollout.share(plan), rollout.stage, rollout.canary.clone());
        let rules = guardrails_of(plan, stage);
        if let Some(shares) = shares_for(service, rollout, bp).filter(|_| moves) {
            enter(&running.trial, service, rollout, plan, &shares, threads);
        }
        running.trial.judge(|judge| {
            judge.follow(plan, rules);
            judge.serves(traffic_of(plan, stage));
        });
        let cause = format!("rollout of {canary} goes on");
        let note = moves.then(|| {
            let stage = stage.map_or("before its first stage".into(), |at| format!("at stage {}", at + 1));
            format!("service `{name}`: the stages are others now: the rollout of `{canary}` goes on {stage}")
        });
        Some(Placed { bp, cause, note })
    }

    /// The file decides, and may name another version than the one that runs.
    fn turn(
        &mut self,
        service: &CompiledService,
        plan: &Plan,
        active: &str,
        before: &Weights,
        threads: usize,
        now_unix: u64,
    ) -> Option<Placed> {
        let name: &str = &service.name;
        let ran = self.by_service.get(name).filter(|running| running.rollout.is_running());
        let stable = match ran {
            // It has no share yet, or none any more, that could tell whose the split is.
            Some(running) if running.rollout.canary == active || running.rollout.intent.as_deref() == Some(active) => {
                return self.go_on(service, plan, (active, Some(before)), threads, now_unix);
            }
            Some(running) if running.rollout.stable == active => {
                self.end(name, "file");
                return None;
            }
            Some(running) => running.rollout.stable.clone(),
            None => {
                let others = before.iter().filter(|(version, weight)| **weight > 0 && *version != active);
                others.max_by_key(|(_, weight)| **weight).map(|(version, _)| version.clone())?
            }
        };
        if service.version_named(&stable).is_none() {
            self.end(name, "file");
            let note = format!("service `{name}`: `{stable}` no longer exists, so `{active}` gets everything at once");
            return Some(Placed { bp: 10_000, cause: String::new(), note: Some(note) });
        }
        let mark = mark_of(service, active);
        if let Some(rejection) = self.rejection(name, active, &mark) {
            let note = format!(
                "service `{name}`: `{active}` was rejected ({}); `{stable}` stays. To try again: switchback rollout start {name} --again",
                rejection.why
            );
            let why = format!("`{active}` was rolled back before: {}", rejection.why);
            self.end(name, "file");
            let (decision, reason) = ("reject", "rejected");
            self.say(name, Said { decision, reason, why, author: "", cause: "", meters: None });
            return Some(Placed { bp: 0, cause: format!("{active} is rejected"), note: Some(note) });
        }
        let now = self.now();
        self.insert(name, Rollout::new(stable, active.into(), mark, now, now_unix), plan, threads, None);
        Some(Placed { bp: 0, cause: format!("rollout of {active} begins"), note: None })
    }

    /// Everything on what ran, because what the file names was rejected.
    fn rejected_shares(
        &self,
        service: &CompiledService,
        active: &str,
        before: &impl Fn(&str) -> Option<Weights>,
    ) -> Option<Vec<Share>> {
        self.rejection(&service.name, active, &mark_of(service, active))?;
        let before = before(&service.name).or_else(|| self.instead_of(service, active))?;
        let others = before.iter().filter(|(version, weight)| **weight > 0 && *version != active);
        let (stable, _) = others.max_by_key(|(_, weight)| **weight)?;
        let stable: VersionIdx = service.version_named(stable)?;
        let mut shares = vec![Share::Off; service.versions.len()];
        shares[usize::from(stable.0)] = Share::Weight(1);
        Some(shares)
    }

    pub fn rejection(&self, service: &str, version: &str, mark: &str) -> Option<&super::Rejection> {
        self.rejected.get(service)?.get(version).filter(|rejection| rejection.mark == mark)
    }

    /// A rollout begins, instead of the one that may run. `by`: who said so and why, if not the configuration.
    pub fn insert(&mut self, service: &str, rollout: Rollout, plan: &Plan, threads: usize, by: Option<(&str, &str)>) {
        self.end(service, "file");
        let trial = Arc::new(Trial::new(Judge::new(plan), threads, self.tripped.clone()));
        let started = self.next_start(service, rollout.since_unix);
        let before = self.by_service.get(service).filter(|before| before.alarmed);
        let told = before.map(|before| before.told.clone()).unwrap_or_default();
        let before = before.map(|before| before.rollout.canary.clone());
        let untold = vec![Untold::Begun { before }];
        let why = format!("{} instead of {}", rollout.canary, rollout.stable);
        let running = Running {
            rollout,
            trial,
            started,
            shielded_before: 0,
            alarmed: false,
            told,
            held: Held::No,
            untold,
            restarts: BTreeMap::new(),
        };
        self.by_service.insert(service.into(), running);
        let reason = if by.is_some() { "operator" } else { "file" };
        let (author, cause) = by.unwrap_or_default();
        self.say(service, Said { decision: "start", reason, why, author, cause, meters: None });
    }

    /// Somebody else decides now.
    pub fn end(&mut self, service: &str, by: &str) {
        let now = self.now();
        if let Some(running) = self.by_service.get_mut(service).filter(|running| running.rollout.is_running()) {
            running.rollout.phase = Phase::Superseded { by: by.into() };
            running.rollout.since = now;
            running.rollout.since_unix = crate::telemetry::unix_ms();
            running.untold.push(Untold::Overruled);
            let (author, reason) = match by {
                "file" => ("", "file"),
                "an operator" => ("", "operator"),
                author => (author, "operator"),
            };
            let why = format!("{by} decides now");
            self.say(service, Said { decision: "superseded", reason, why, author, cause: "", meters: None });
        }
    }
}

/// A version's part of all weights, in hundredths of a percent.
fn part_of(weights: &Weights, version: &str) -> u16 {
    let all: u64 = weights.values().map(|weight| u64::from(*weight)).sum();
    let part = weights.get(version).map_or(0, |weight| u64::from(*weight));
    (part * 10_000).checked_div(all).unwrap_or(0) as u16
}

struct Placed {
    bp: u16,
    cause: String,
    note: Option<String>,
}
