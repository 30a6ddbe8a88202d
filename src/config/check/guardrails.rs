//! Guardrails: limits that mean something and do not contradict each other.

use super::super::decode::{Entry, Field};
use super::super::found::{Found, Span};
use super::super::model::ValueMatch;
use super::super::model::rollout::{
    CrashesRule, CustomEvent, CustomRule, ErrorsRule, Guardrails, LatencyRule, Then, WindowRule,
};
use super::super::raw::{self, OrOff};
use super::super::scalar::{Number, write_time};
use super::{name, routes};

/// Names of rules that exist without being defined.
const BUILT_IN: [&str; 5] = ["errors", "error_window", "latency", "crashes", "custom"];
/// The kind of event that `crashes` counts.
const RESTART: &str = "restart";

pub fn guardrails(raw: &raw::Guardrails, found: &mut Found) -> Guardrails {
    let errors = on(&raw.errors).map(|it| {
        let ratio = it.ratio.value().0;
        bounded(&it.ratio, ratio >= 1.0, "`ratio` is below 1", "the canary would have to be better than stable", found);
        ErrorsRule { max: it.max.value().0, ratio, then: then(&it.then, Then::RollBack) }
    });
    let error_window = on(&raw.error_window).map(|it| WindowRule {
        max: it.max.value().0,
        period: it.period.value().0,
        then: then(&it.then, Then::Pause),
    });
    let latency = on(&raw.latency).map(|it| {
        let max_ratio = it.max_ratio.value().0;
        let what = "`max_ratio` is not above 1";
        bounded(&it.max_ratio, max_ratio > 1.0, what, "a canary as fast as stable would break it", found);
        LatencyRule {
            quantile: it.quantile.value().0,
            max_ratio,
            period: it.period.value().0,
            warm_up: it.warm_up.value().0,
            then: then(&it.then, Then::Pause),
        }
    });
    let crashes = on(&raw.crashes).map(|it| CrashesRule {
        more_than: it.more_than.value().0 as u32,
        within: it.within.value().0,
        then: then(&it.then, Then::RollBack),
    });
    let custom = raw.custom.get().into_iter().flat_map(|map| map.iter());
    let custom = custom.filter_map(|entry| Some((name(&entry.key.value), custom_rule(entry, found)?))).collect();
    Guardrails { errors, error_window, latency, crashes, custom }
}

fn on<T>(field: &Field<OrOff<T>>) -> Option<&T> {
    match field.get()? {
        OrOff::On(rule) => Some(rule),
        OrOff::Off => None,
    }
}

fn then(field: &Field<Then>, default: Then) -> Then {
    field.get().copied().unwrap_or(default)
}

fn bounded(field: &Field<Number>, good: bool, what: &str, why: &str, found: &mut Found) {
    if let Some((_, span)) = field.written().filter(|_| !good) {
        found.error(span, what).why(why).hint("1.5 is one and a half times as much as stable");
    }
}

fn custom_rule(entry: &Entry<raw::Custom>, found: &mut Found) -> Option<CustomRule> {
    let raw = entry.value.as_ref()?;
    let (rule, at) = (entry.key.value.as_str(), entry.key.span);
    if BUILT_IN.contains(&rule) {
        found
            .error(at, format!("a guardrail of your own cannot be called `{rule}`"))
            .why("there is one of that name already")
            .hint("give it another name, or set the built-in one outside of `custom`");
    }
    if rule == RESTART && !raw.events.is_missing() {
        found
            .error(at, format!("events of the kind `{RESTART}` are counted by `crashes`"))
            .hint("give this guardrail another name, or set `crashes`");
    }
    let given: Vec<(&str, Option<Span>)> = [
        ("header", raw.header.key(), raw.header.is_missing()),
        ("status", raw.status.key(), raw.status.is_missing()),
        ("grpc_status", raw.grpc_status.key(), raw.grpc_status.is_missing()),
        ("prometheus", raw.prometheus.key(), raw.prometheus.is_missing()),
        ("events", raw.events.key(), raw.events.is_missing()),
    ]
    .into_iter()
    .filter(|(_, _, missing)| !missing)
    .map(|(key, span, _)| (key, span))
    .collect();
    let kind = match given.as_slice() {
        [] => {
            found
                .error(at, format!("guardrail `{rule}` does not say what to watch"))
                .hint("add `header`, `status`, `grpc_status`, `prometheus` or `events`");
            return None;
        }
        [(kind, _)] => *kind,
        [(first, _), (second, span), ..] => {
            found
                .error(span.unwrap_or(at), format!("`{first}` and `{second}` cannot be used together"))
                .hint("make two guardrails, each with its own name");
            return None;
        }
    };
    max_where_it_belongs(raw, rule, kind, at, found);
    Some(CustomRule { what: event(raw, found)?, then: then(&raw.then, Then::RollBack) })
}

/// Answers are judged by a rate; what comes from outside has its own limit.
fn max_where_it_belongs(raw: &raw::Custom, rule: &str, kind: &str, at: Span, found: &mut Found) {
    let judges_answers = matches!(kind, "header" | "status" | "grpc_status");
    if judges_answers && raw.max.is_missing() {
        found
            .error(at, format!("guardrail `{rule}` does not say how much is too much"))
            .hint("add the rate of bad answers, such as `max: 1%`");
    }
    if let (Some(span), false) = (raw.max.key(), judges_answers) {
        let finding = found.error(span, format!("`max` has no meaning beside `{kind}`"));
        match kind {
            "prometheus" => finding.hint("write it inside: `prometheus: { …, max: 0.5 }`"),
            _ => finding.hint("write how many are accepted: `events: { more_than: 0 }`"),
        };
    }
}

fn event(raw: &raw::Custom, found: &mut Found) -> Option<CustomEvent> {
    let max = raw.max.value().0;
    if let Some(header) = raw.header.get() {
        let value = header.value.get().map_or(ValueMatch::Present, routes::value_match);
        return Some(CustomEvent::Header { name: header.name.get()?.0.clone(), value, max });
    }
    if let Some((list, span)) = raw.status.written() {
        if list.0.0.is_empty() {
            found.error(span, "`status` is empty").why("no answer would be bad");
        }
        return Some(CustomEvent::Status { ranges: list.0.good().map(|(range, _)| range.0.clone()).collect(), max });
    }
    if let Some((list, span)) = raw.grpc_status.written() {
        if list.0.0.is_empty() {
            found.error(span, "`grpc_status` is empty").why("no answer would be bad");
        }
        let mut codes: Vec<u8> = list.0.good().map(|(code, _)| code.0).collect();
        codes.sort_unstable();
        codes.dedup();
        return Some(CustomEvent::GrpcStatus { codes, max });
    }
    if let Some(prometheus) = raw.prometheus.get() {
        return Some(asked(prometheus, found));
    }
    let events: &raw::Events = raw.events.get()?;
    Some(CustomEvent::Outside { more_than: events.more_than.value().0 as u32, within: events.within.value().0 })
}

fn asked(raw: &raw::Prometheus, found: &mut Found) -> CustomEvent {
    let (every, period) = (raw.every.value().0, raw.period.value().0);
    let spans = [raw.period.written().map(|it| it.1), raw.every.written().map(|it| it.1)];
    if let (Some(span), true) = (spans.into_iter().flatten().next(), every > period && !period.is_zero()) {
        found
            .error(span, "`every` is longer than `for`")
            .why(format!("asked every {}, nothing is known about {}", write_time(every), write_time(period)))
            .hint("raise `for`, or write `for: 0s` to act on one answer");
    }
    CustomEvent::Prometheus {
        url: raw.url.value().0,
        query: raw.query.value().0,
        max: raw.max.value().0,
        every,
        period,
    }
}
