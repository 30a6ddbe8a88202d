//! Stages: mirror first, then match, then shares that grow to everything.

use http::HeaderName;

use super::super::decode::{Field, Map};
use super::super::found::{Found, Span};
use super::super::model::ValueMatch;
use super::super::model::rollout::{Stage, StageMatch, StageTraffic, Strategy};
use super::super::raw;
use super::super::scalar::{Header, Percent, Text};
use super::notices::Known;
use super::rollout::percent;
use super::{guardrails, headers, name, routes};

const ALL_BP: u16 = 10_000;
const CANARY_BP: [u16; 5] = [500, 1_000, 2_500, 5_000, ALL_BP];

pub fn stages(
    service: &str,
    raw: &raw::Rollout,
    at: Span,
    strategy: Strategy,
    known: &Known<'_>,
    found: &mut Found,
) -> Vec<Stage> {
    let Some((list, _)) = raw.stages.written() else {
        let shares = match strategy {
            Strategy::Canary => CANARY_BP.to_vec(),
            Strategy::BlueGreen => vec![ALL_BP],
        };
        return shares.into_iter().map(|share| plain(StageTraffic::Share(share))).collect();
    };
    let at = raw.stages.key().unwrap_or(at);
    if list.0.is_empty() {
        found.error(at, "`stages` is empty").hint("leave it out for the default stages");
        return Vec::new();
    }
    let mut stages: Vec<(Stage, Span)> = Vec::new();
    let mut complete = true;
    for (item, span) in &list.0 {
        match item.as_ref().and_then(|item| stage(item, *span, known, found)) {
            Some(stage) => stages.push(stage),
            None => complete = false,
        }
    }
    in_order(&stages, found);
    if complete {
        to_the_end(service, strategy, &stages, at, found);
    }
    stages.into_iter().map(|(stage, _)| stage).collect()
}

fn plain(traffic: StageTraffic) -> Stage {
    Stage { traffic, hold: None, min_requests: 0, approve: None, guardrails: None }
}

/// The stage, and where it says what the canary gets.
fn stage(raw: &raw::Stage, span: Span, known: &Known<'_>, found: &mut Found) -> Option<(Stage, Span)> {
    let keys = match raw {
        raw::Stage::Share(share) => {
            return Some((plain(StageTraffic::Share(at_least_some(*share, span, found))), span));
        }
        raw::Stage::Full(keys) => keys,
    };
    if let Some((gate, span)) = keys.approve.written() {
        known.gate(&gate.0, span, found);
    }
    let guardrails = keys.guardrails.get().map(|raw| guardrails::guardrails(raw, found));
    let (traffic, at) = traffic(keys, span, found)?;
    let stage = Stage {
        traffic,
        hold: keys.hold.get().map(|hold| hold.0),
        min_requests: keys.min_requests.value().0,
        approve: keys.approve.get().map(|gate| name(&gate.0)),
        guardrails,
    };
    Some((stage, at))
}

fn traffic(keys: &raw::StageKeys, span: Span, found: &mut Found) -> Option<(StageTraffic, Span)> {
    let given: Vec<(&str, Option<Span>)> = [
        ("weight", keys.weight.key(), keys.weight.is_missing()),
        ("match", keys.matcher.key(), keys.matcher.is_missing()),
        ("mirror", keys.mirror.key(), keys.mirror.is_missing()),
    ]
    .into_iter()
    .filter(|(_, _, missing)| !missing)
    .map(|(key, span, _)| (key, span))
    .collect();
    match given.as_slice() {
        [] => {
            found
                .error(span, "this stage does not say what the canary gets")
                .hint("add `weight: 5%`, `match: { … }` or `mirror: 10%`");
            return None;
        }
        [_] => {}
        [(first, _), (second, at), ..] => {
            found
                .error(at.unwrap_or(span), format!("`{first}` and `{second}` cannot be used together"))
                .hint("make two stages");
            return None;
        }
    }
    if let Some((weight, span)) = keys.weight.written() {
        return Some((StageTraffic::Share(at_least_some(*weight, span, found)), span));
    }
    if let Some((share, span)) = keys.mirror.written() {
        return Some((StageTraffic::Mirror(at_least_some(*share, span, found)), span));
    }
    let (matcher, _) = keys.matcher.written()?;
    let at = keys.matcher.key().unwrap_or(span);
    Some((StageTraffic::Match(matched(matcher, at, found)), at))
}

fn at_least_some(share: Percent, span: Span, found: &mut Found) -> u16 {
    if share.0 == 0 {
        found
            .error(span, "a stage of 0% gives the canary nothing")
            .hint("the smallest share is `0.01%`; to try without users, write `{ mirror: 10% }`");
    }
    share.0 as u16
}

fn matched(raw: &raw::StageMatch, at: Span, found: &mut Found) -> StageMatch {
    let cookies = by_name(&raw.cookies);
    for entry in raw.cookies.get().into_iter().flat_map(|map| map.iter()) {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if !entry.key.value.chars().all(token) {
            found
                .error(entry.key.span, format!("`{}` is not the name of a cookie", entry.key.value))
                .why("letters, digits, `-`, `_` or `.`");
        }
    }
    let no_header = raw.headers.get().is_some_and(|map| map.0.is_empty());
    let no_cookie = raw.cookies.get().is_some_and(|map| map.0.is_empty());
    if no_header && no_cookie && raw.users.is_missing() {
        found.error(at, "this stage matches nobody").hint("add `headers: { x-beta: \"1\" }`, `cookies` or `users`");
    }
    StageMatch { headers: by_header(&raw.headers, found), cookies, users: users(raw, found) }
}

fn by_header(field: &Field<Map<Header, raw::ValueMatch>>, found: &mut Found) -> Vec<(HeaderName, ValueMatch)> {
    let mut out = Vec::new();
    for entry in field.get().into_iter().flat_map(|map| map.iter()) {
        let (Some(header), Some(value)) = (headers::header(&entry.key.value), &entry.value) else { continue };
        headers::once(&out, &header, entry.key.span, found);
        out.push((header, routes::value_match(value)));
    }
    out
}

fn by_name(field: &Field<Map<Text, raw::ValueMatch>>) -> Vec<(String, ValueMatch)> {
    let entries = field.get().into_iter().flat_map(|map| map.iter());
    entries.filter_map(|it| Some((it.key.value.clone(), routes::value_match(it.value.as_ref()?)))).collect()
}

fn users(raw: &raw::StageMatch, found: &mut Found) -> Option<(HeaderName, Vec<String>)> {
    let users = raw.users.get()?;
    let mut names: Vec<String> = Vec::new();
    let (list, span) = users.list.written()?;
    if list.0.0.is_empty() {
        found.error(span, "`list` is empty").why("no user would reach the canary").hint("name at least one");
    }
    for (user, span) in list.0.good() {
        if names.contains(&user.0) {
            found.error(span, format!("`{}` is given twice", user.0)).hint("keep one");
        } else {
            names.push(user.0.clone());
        }
    }
    Some((users.header.get()?.0.clone(), names))
}

/// Mirror, match, shares; each share larger than the one before.
fn in_order(stages: &[(Stage, Span)], found: &mut Found) {
    let rank = |traffic: &StageTraffic| match traffic {
        StageTraffic::Mirror(_) => (0, "mirror"),
        StageTraffic::Match(_) => (1, "match"),
        StageTraffic::Share(_) => (2, "share"),
    };
    let mut last = 0;
    let mut share_before = 0;
    for (stage, span) in stages {
        let (at, kind) = rank(&stage.traffic);
        if at < last {
            found
                .error(*span, format!("this {kind} stage comes too late"))
                .why("stages go from nobody to everybody: mirror first, then match, then shares")
                .hint("move it up");
        }
        last = last.max(at);
        let StageTraffic::Share(share) = stage.traffic else { continue };
        if share <= share_before && share > 0 {
            found
                .error(*span, format!("the share does not grow: {} after {}", percent(share), percent(share_before)))
                .why("each stage must give the canary more than the one before")
                .hint("sort the stages, and write each share once");
        }
        share_before = share_before.max(share);
    }
}

/// The last stage is everybody.
fn to_the_end(service: &str, strategy: Strategy, stages: &[(Stage, Span)], at: Span, found: &mut Found) {
    let shares: Vec<(u16, Span)> = stages
        .iter()
        .filter_map(|(stage, span)| match stage.traffic {
            StageTraffic::Share(share) => Some((share, *span)),
            StageTraffic::Match(_) | StageTraffic::Mirror(_) => None,
        })
        .collect();
    if strategy == Strategy::BlueGreen
        && let Some((share, span)) = shares.first().filter(|(share, _)| *share != ALL_BP)
    {
        found
            .error(*span, format!("blue-green has no stage of {}", percent(*share)))
            .why("it gives everything at once")
            .hint("keep `100%`, or write `strategy: canary`");
        return;
    }
    match shares.last() {
        Some((ALL_BP, _)) => {}
        Some((share, span)) => {
            found
                .error(*span, format!("the rollout of service `{service}` would stay at {}", percent(*share)))
                .why("the last stage must be everybody")
                .hint("add `100%` at the end");
        }
        None => {
            found
                .error(at, format!("the rollout of service `{service}` never reaches all clients"))
                .why("the last stage must be everybody")
                .hint("add `100%` at the end");
        }
    }
}
