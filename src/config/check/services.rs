//! Services: versions with endpoints, one intent, policies within reason.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::decode::Field;
use super::super::found::{Found, Spanned};
use super::super::model::{self, Intent, Service, Version};
use super::super::raw;
use super::super::scalar::Time;
use super::notices::Known;
use super::rollout::rollout;
use super::secret::secret;
use super::{Around, endpoints, known_version, name, upstream};

pub fn service(
    key: &Spanned<String>,
    raw: &raw::Service,
    known: &Known<'_>,
    around: &Around<'_>,
    found: &mut Found,
) -> Service {
    let versions = versions(key, raw, around, found);
    Service {
        intent: intent(key, raw, found),
        rollout: rollout(key, raw, known, around, found),
        balance: endpoints::balance(raw, found),
        sticky: raw.sticky.get().and_then(|sticky| self::sticky(sticky, &raw.sticky, found)),
        force: raw.force.get().and_then(|force| self::force(force, around, found)),
        health: raw.health.get().and_then(|health| super::health::health(health, &raw.health, found)),
        outlier: raw.outlier.get().map(|it| super::resilience::outlier(it, found)),
        panic_below_bp: raw.panic_below.value().0,
        circuit: raw.circuit.get().and_then(|it| it.in_flight.get()).map(|it| it.0),
        retry: super::resilience::retry(raw, found),
        timeouts: timeouts(raw, found),
        limits: model::Limits {
            body: raw.limits.get().and_then(|it| it.body.value().0),
            in_flight: raw.limits.get().and_then(|it| it.in_flight.get()).map(|it| it.0),
        },
        upstream: upstream::upstream(raw, &versions, around, found),
        drain: drain(raw),
        hold: model::Hold {
            max_wait: raw.hold.get().map(|it| it.max_wait.value().0).unwrap_or_default(),
            max_requests: raw.hold.get().map_or(0, |it| it.max_requests.value().0 as usize),
        },
        policy: super::policy::service(raw, around, found),
        versions,
    }
}

fn versions(
    key: &Spanned<String>,
    raw: &raw::Service,
    around: &Around<'_>,
    found: &mut Found,
) -> BTreeMap<model::Name, Version> {
    let hashed = matches!(raw.balance.get(), Some(raw::Balance::By(_)));
    let mut versions = BTreeMap::new();
    let Some(map) = raw.versions.get() else { return versions };
    if map.0.is_empty() {
        found
            .error(raw.versions.key().unwrap_or(key.span), format!("service `{}` has no versions", key.value))
            .hint("add one: `versions: { v1: { endpoints: [\"10.0.0.1:3000\"] } }`");
    }
    for entry in map.iter() {
        let Some(version) = &entry.value else { continue };
        let Some(list) = version.endpoints.get() else { continue };
        if list.0.is_empty() {
            found
                .error(
                    entry.key.span,
                    format!("version `{}` of service `{}` has no endpoints", entry.key.value, key.value),
                )
                .hint("add one, or remove the version");
        }
        let called = format!("version `{}` of service `{}`", entry.key.value, key.value);
        let at = (version.endpoints.key().unwrap_or(entry.key.span), hashed);
        let endpoints = endpoints::endpoints(list, &called, at, around, found);
        versions.insert(
            name(&entry.key.value),
            Version { endpoints, revision: version.revision.get().map(|revision| revision.0.clone()) },
        );
    }
    versions
}

fn intent(key: &Spanned<String>, raw: &raw::Service, found: &mut Found) -> Intent {
    let service = key.value.as_str();
    let versions: Vec<&str> =
        raw.versions.get().into_iter().flat_map(|map| map.iter()).map(|it| it.key.value.as_str()).collect();
    // Without a readable list of versions nothing can be said about names.
    let known = raw.versions.get().is_some_and(|map| !map.0.is_empty());
    match (raw.active.is_missing(), raw.split.is_missing()) {
        (true, true) => {
            let finding = found.error(key.span, format!("service `{service}` does not say which version is live"));
            match versions.as_slice() {
                [] => finding.hint("add `active: …`, or `split: { … }`"),
                [first, ..] => finding.hint(format!("add `active: {first}`, or `split: {{ {first}: 100 }}`")),
            };
        }
        (false, false) => {
            let span = raw.split.key().or(raw.active.key()).unwrap_or(key.span);
            found
                .error(span, format!("service `{service}` has both `active` and `split`"))
                .why("they would contradict each other")
                .hint("keep `active` for blue-green, `split` for weights");
        }
        (true, false) | (false, true) => {}
    }
    if let Some((active, span)) = raw.active.written() {
        if known {
            known_version(service, &active.0, &versions, span, found);
        }
        return Intent::Active(name(&active.0));
    }
    let mut weights = BTreeMap::new();
    let Some((split, span)) = raw.split.written() else { return Intent::Split(weights) };
    let mut complete = true;
    for entry in split.iter() {
        if known {
            known_version(service, &entry.key.value, &versions, entry.key.span, found);
        }
        match entry.value {
            Some(weight) => drop(weights.insert(name(&entry.key.value), weight.0)),
            None => complete = false,
        }
    }
    let at = raw.split.key().unwrap_or(span);
    let sum: u64 = weights.values().map(|weight| u64::from(*weight)).sum();
    let divisor = weights.values().fold(0, |a, b| gcd(a, u64::from(*b)));
    if sum == 0 {
        if complete {
            found
                .error(at, format!("no version of service `{service}` gets traffic"))
                .why("every weight is 0")
                .hint("give one version a weight above 0");
        }
    } else if sum / divisor > SPLIT_SUM_MAX {
        found
            .error(at, format!("the split of service `{service}` is too fine"))
            .why(format!("reduced, its weights add up to {}; at most {SPLIT_SUM_MAX} are possible", sum / divisor))
            .hint("round the weights: one part in 10 000 is the smallest share");
    }
    Intent::Split(weights)
}

/// Shares are counted exactly over this many requests at most.
const SPLIT_SUM_MAX: u64 = 10_000;

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn sticky(raw: &raw::Sticky, field: &Field<raw::Sticky>, found: &mut Found) -> Option<model::Sticky> {
    let raw::Sticky::By(by) = raw else { return Some(model::Sticky::ClientIp) };
    let at = field.key().unwrap_or_default();
    match (by.cookie.is_missing(), by.header.is_missing()) {
        (true, true) => drop(found.error(at, "`sticky` is empty").hint("write `cookie`, `header` or `client_ip`")),
        (false, false) => drop(found.error(at, "`cookie` and `header` cannot be used together").hint("keep one")),
        (true, false) | (false, true) => {}
    }
    if let Some(header) = by.header.get() {
        return Some(model::Sticky::Header(header.0.clone()));
    }
    let cookie = by.cookie.get()?;
    let (cookie_name, span) = cookie.name.written()?;
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if !cookie_name.0.chars().all(token) || cookie_name.0.len() > 64 {
        found
            .error(span, format!("`{}` is not the name of a cookie", cookie_name.0))
            .why("1 to 64 letters, digits, `-`, `_` or `.`");
    } else if cookie_name.0.starts_with("__Host-") || cookie_name.0.starts_with("__Secure-") {
        found
            .error(span, format!("clients would refuse the cookie `{}`", cookie_name.0))
            .why("`__Host-` and `__Secure-` need the attribute Secure, which this cookie is sent without");
    }
    Some(model::Sticky::Cookie { name: cookie_name.0.clone(), ttl: cookie.ttl.get().map(|ttl| ttl.0) })
}

fn force(raw: &raw::Force, around: &Around<'_>, found: &mut Found) -> Option<model::Force> {
    let token = secret(&raw.token_file, "a token", around, found);
    let header = raw.header.get()?;
    if let Some((header, span)) = raw.header.written() {
        super::headers::editable(&header.0, span, found);
    }
    let (token, token_file) = token.map(|it| (it.value, it.file)).unzip();
    Some(model::Force { header: header.0.clone(), token, token_file })
}

fn timeouts(raw: &raw::Service, found: &mut Found) -> model::Timeouts {
    let it = raw.timeouts.get();
    let time = |pick: fn(&raw::Timeouts) -> &Field<Time<1>>| it.map_or(Duration::ZERO, |it| pick(it).value().0);
    let timeouts = model::Timeouts {
        connect: time(|it| &it.connect),
        request: time(|it| &it.request),
        idle: time(|it| &it.idle),
        upgrade_idle: time(|it| &it.upgrade_idle),
        total: it.and_then(|it| it.total.get()).map(|total| total.0),
    };
    if let Some(it) = it {
        let written = it.request.written().map(|it| it.1).or(it.connect.written().map(|it| it.1));
        if let (Some(span), true) = (written, it.request.get().is_some() && timeouts.connect > timeouts.request) {
            found.warning(span, "`connect` can never be reached").why("`request` is shorter and includes it");
        }
    }
    timeouts
}

fn drain(raw: &raw::Service) -> model::Drain {
    let it = raw.drain.get();
    let time = |pick: fn(&raw::Drain) -> &Field<Time<0>>| it.map_or(Duration::ZERO, |it| pick(it).value().0);
    let streams = time(|it| &it.streams);
    model::Drain {
        requests: time(|it| &it.requests),
        streams,
        sessions: it.and_then(|it| it.sessions.get()).map_or(streams, |sessions| sessions.0),
        reconnect_spread: time(|it| &it.reconnect_spread),
    }
}
