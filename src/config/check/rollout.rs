//! Rollouts: how a changed `active` reaches all clients.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::decode::Field;
use super::super::found::{Finding, Found, Span, Spanned};
use super::super::hint;
use super::super::model::rollout::{
    ErrorsRule, Freeze, Guardrails, LatencyBelow, PromoteWhen, Proof, Rollout, Shield, Stage, Strategy, Weekday,
};
use super::super::raw::{self, Raw};
use super::super::scalar::{self, Word, parse_date, parse_minutes, write_percent, write_rate};
use super::notices::{self, Known};
use super::{Around, guardrails, name, stages};

/// Without a word about it, promotion asks for fewer errors than this.
const ERRORS_BELOW: f64 = 0.001;
/// Guardrails of the user's own in one rollout.
const MOST_CUSTOMS: usize = 31;

pub fn rollout(
    key: &Spanned<String>,
    raw: &raw::Service,
    known: &Known<'_>,
    around: &Around<'_>,
    found: &mut Found,
) -> Option<Rollout> {
    let it = raw.rollout.get()?;
    let at = raw.rollout.key().unwrap_or(key.span);
    let service = key.value.as_str();
    if raw.active.is_missing() && !raw.split.is_missing() {
        found
            .error(at, format!("the rollout of service `{service}` has nothing to do"))
            .why("with `split` the weights are yours: no version is the new one")
            .hint("write `active: …` in place of `split`, or remove `rollout`");
    }
    if let Some(versions) = raw.versions.get().filter(|versions| versions.0.len() == 1) {
        let only = versions.0.first().map_or("", |entry| entry.key.value.as_str());
        found
            .warning(at, format!("the rollout of service `{service}` has nowhere to go"))
            .why(format!("`{only}` is its only version"))
            .hint("add the version to come; until then everything goes to the one");
    }
    let strategy = it.strategy.get().copied().unwrap_or(Strategy::Canary);
    let guardrails = it.guardrails.get().map_or(NO_GUARDRAILS, |raw| guardrails::guardrails(raw, found));
    let promote_when = promote_when(it, &guardrails, found);
    let stages = stages::stages(service, it, at, strategy, known, found);
    contradictions(it, &promote_when, found);
    too_many_customs(at, &guardrails, &stages, found);
    let notify = it.notify.written().map(|(list, _)| {
        let mut told: Vec<super::Name> = Vec::new();
        for (wanted, span) in list.0.good() {
            known.notification(&wanted.0, span, found);
            if told.iter().any(|other| **other == *wanted.0) {
                found.error(span, format!("`{}` is given twice", wanted.0)).hint("keep one");
            } else {
                told.push(name(&wanted.0));
            }
        }
        told
    });
    let webhooks = it.webhooks.get().into_iter().flat_map(|list| list.good());
    let webhooks = webhooks.map(|(hook, _)| notices::webhook(hook, around, found)).collect();
    let freezes = it.freeze.get().into_iter().flat_map(|list| list.good());
    Some(Rollout {
        strategy,
        stages,
        group: it.group.get().map(|group| name(&group.0)),
        shield: shield(&it.shield, found),
        guardrails,
        promote_when,
        keep_idle: it.keep_idle.value().0,
        notify,
        webhooks,
        freeze: freezes.filter_map(|(raw, span)| freeze(raw, span, found)).collect(),
    })
}

/// What an answer broke is noted in one word.
fn too_many_customs(at: Span, guardrails: &Guardrails, stages: &[Stage], found: &mut Found) {
    let own = stages.iter().filter_map(|stage| stage.guardrails.as_ref());
    let rules = std::iter::once(guardrails).chain(own).flat_map(|rules| &rules.custom);
    let names: BTreeSet<&str> = rules.map(|(name, _)| &**name).collect();
    if names.len() > MOST_CUSTOMS {
        found
            .error(at, format!("{} guardrails of your own are too many", names.len()))
            .why(format!("one rollout has {MOST_CUSTOMS} at most, all its stages together"))
            .hint("put several statuses or codes into one guardrail");
    }
}

/// Stands for what could not be read.
const NO_GUARDRAILS: Guardrails =
    Guardrails { errors: None, error_window: None, latency: None, crashes: None, custom: Vec::new() };

fn shield(field: &Field<raw::Shield>, found: &mut Found) -> Option<Shield> {
    const BUDGET_BP: u16 = 2_000;
    match field.get()? {
        raw::Shield::Flag(flag) => flag.0.then_some(Shield { budget_bp: BUDGET_BP }),
        raw::Shield::Keys(keys) => {
            let budget_bp = keys.budget.value().0 as u16;
            if let Some((_, span)) = keys.budget.written().filter(|(budget, _)| budget.0 == 0) {
                found.error(span, "a shield without a budget replays nothing").hint("write `shield: false`");
            }
            Some(Shield { budget_bp })
        }
    }
}

fn promote_when(rollout: &raw::Rollout, guardrails: &Guardrails, found: &mut Found) -> PromoteWhen {
    let of_guardrail = guardrails.errors.as_ref().map_or(ERRORS_BELOW, |rule| rule.max);
    let Some(raw) = rollout.promote_when.get() else {
        return PromoteWhen {
            errors_below: of_guardrail,
            latency: None,
            healthy: true,
            hold: Duration::ZERO,
            proof: Proof::Evidence,
        };
    };
    if let (Some((below, span)), Some(ErrorsRule { max, .. })) = (raw.errors_below.written(), &guardrails.errors)
        && below.0 > *max
    {
        found
            .error(span, "promotion would allow what the guardrail forbids")
            .why(format!("`guardrails.errors.max` is {}", write_rate(*max)))
            .hint(format!("write {} or less, or raise `errors.max`", write_rate(*max)));
    }
    let latency = raw.latency.get().map(|latency: &raw::LatencyBelow| LatencyBelow {
        quantile: latency.quantile.value().0,
        below: latency.below.value().0,
    });
    PromoteWhen {
        errors_below: raw.errors_below.get().map_or(of_guardrail, |below| below.0),
        latency,
        healthy: raw.healthy.value().0,
        hold: raw.hold.value().0,
        proof: if raw.promote_on_time.value().0 { Proof::Time } else { Proof::Evidence },
    }
}

/// What stages and promotion say about each other.
fn contradictions(rollout: &raw::Rollout, promote_when: &PromoteWhen, found: &mut Found) {
    let Some(raw) = rollout.promote_when.get() else { return };
    let stages = rollout.stages.get().into_iter().flat_map(|list| list.good());
    let full: Vec<&raw::StageKeys> = stages
        .filter_map(|(stage, _)| match stage {
            raw::Stage::Full(keys) => Some(&**keys),
            raw::Stage::Share(_) => None,
        })
        .collect();
    if promote_when.proof == Proof::Time {
        let holds = full.iter().filter_map(|keys| keys.hold.written()).map(|(hold, span)| (hold.0, span));
        let holds = holds.chain(raw.hold.written().map(|(hold, span)| (hold.0, span)));
        for (_, span) in holds.filter(|(hold, _)| hold.is_zero()) {
            found
                .error(span, "nothing would be asked of the canary")
                .why("with `promote_on_time` the time is the only proof, and this is none")
                .hint("write a time such as `10m`, or leave out `promote_on_time`");
        }
    }
    let Some((below, _)) = raw.errors_below.written() else { return };
    for keys in full {
        let errors = keys.guardrails.get().and_then(|it| it.errors.get());
        if let Some(raw::OrOff::On(errors)) = errors
            && let Some((max, span)) = errors.max.written()
            && below.0 > max.0
        {
            found
                .error(span, "promotion would allow what this guardrail forbids")
                .why(format!("`promote_when.errors_below` is {}", write_rate(below.0)))
                .hint("raise this, or lower `errors_below`");
        }
    }
}

fn freeze(raw: &raw::Freeze, span: Span, found: &mut Found) -> Option<Freeze> {
    if raw.weekdays.is_missing() { dates(raw, span, found) } else { weekly(raw, found) }
}

fn weekly(raw: &raw::Freeze, found: &mut Found) -> Option<Freeze> {
    const DAY: u16 = 24 * 60;
    let (list, at) = raw.weekdays.written()?;
    if list.0.0.is_empty() {
        found.error(at, "`weekdays` is empty").hint("name at least one, such as `fri`");
    }
    let mut days: Vec<Weekday> = Vec::new();
    for (day, span) in list.0.good() {
        if days.contains(day) {
            found.error(span, format!("`{}` is given twice", day.word())).hint("keep one");
        } else {
            days.push(*day);
        }
    }
    let mut minutes = |field: &Field<scalar::Text>, default: u16| -> Option<u16> {
        match field {
            Field::Missing => Some(default),
            Field::Bad => None,
            Field::Given { value, span, .. } => {
                let minutes = parse_minutes(&value.0);
                if minutes.is_none() {
                    found
                        .error(*span, format!("`{}` is not a time of day", value.0))
                        .why("with `weekdays`, write hours and minutes in UTC: `16:00`");
                }
                minutes
            }
        }
    };
    let (from, to) = (minutes(&raw.from, 0)?, minutes(&raw.to, DAY)?);
    if from >= to {
        ends_too_early(raw, at, found).hint("a night is two entries: one until `24:00`, one from `00:00`");
    }
    Some(Freeze::Weekly { days, from, to })
}

fn dates(raw: &raw::Freeze, at: Span, found: &mut Found) -> Option<Freeze> {
    for (field, key) in [(&raw.from, "from"), (&raw.to, "to")] {
        if field.is_missing() {
            found
                .error(at, format!("this freeze has no `{key}`"))
                .hint("write `{ from: \"2026-12-20T00:00Z\", to: \"2027-01-02T00:00Z\" }`, or add `weekdays`");
        }
    }
    let mut moment = |field: &Field<scalar::Text>| {
        let (text, span) = field.written()?;
        match parse_date(&text.0) {
            Ok(ms) => Some(ms),
            Err(why) => {
                let finding = found.error(span, format!("`{}` is not a moment", text.0));
                finding.why(why);
                if parse_minutes(&text.0).is_some() {
                    finding.hint("for a time of day, add `weekdays`");
                }
                None
            }
        }
    };
    let (from, to) = (moment(&raw.from), moment(&raw.to));
    let (from_ms, to_ms) = (from?, to?);
    if from_ms >= to_ms {
        ends_too_early(raw, at, found);
    }
    Some(Freeze::Dates { from_ms, to_ms })
}

fn ends_too_early<'f>(raw: &raw::Freeze, at: Span, found: &'f mut Found) -> &'f mut Finding {
    let span = raw.to.written().or(raw.from.written()).map_or(at, |it| it.1);
    let finding = found.error(span, "this freeze ends before it begins");
    finding.why("`from` must be before `to`")
}

/// A group of one service: its name is probably a typo, so a warning.
pub fn groups(raw: &Raw, found: &mut Found) {
    let mut groups: BTreeMap<&str, Vec<Span>> = BTreeMap::new();
    for entry in raw.services.get().into_iter().flat_map(|map| map.iter()) {
        let rollout = entry.value.as_ref().and_then(|service| service.rollout.get());
        if let Some((group, span)) = rollout.and_then(|rollout| rollout.group.written()) {
            groups.entry(group.0.as_str()).or_default().push(span);
        }
    }
    for (group, spans) in &groups {
        let [span] = spans.as_slice() else { continue };
        let near = hint::nearest(group, groups.keys().copied().filter(|other| other != group));
        found
            .warning(*span, format!("the group `{group}` has one service only"))
            .why("there is nothing that could roll back together with it")
            .maybe_hint(near.map(|near| format!("did you mean `{near}`?")));
    }
}

/// "5%", for messages.
pub fn percent(bp: u16) -> String {
    write_percent(u32::from(bp))
}
