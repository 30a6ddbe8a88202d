//! Health, ejection and second chances as text.

use serde_json::{Map, Value, json};

use super::super::model::{Health, HealthCheck, Outlier, Retry};
use super::super::scalar::{Word, write_percent, write_time};
use super::text;

pub(super) fn retry(retry: &Retry) -> Value {
    let mut out = Map::new();
    out.insert("attempts".into(), retry.attempts.into());
    let on = &retry.on;
    let words = [("connect", on.connect), ("refused", on.refused), ("reset", on.reset), ("timeout", on.timeout)];
    let words = words.into_iter().filter(|(_, is_on)| *is_on).map(|(word, _)| json!(word));
    out.insert("on".into(), words.chain(on.statuses.iter().map(|status| json!(status))).collect());
    out.insert("budget".into(), write_percent(retry.budget_bp).into());
    out.insert("methods".into(), retry.methods.word().into());
    if let Some(time) = retry.per_try_timeout {
        out.insert("per_try_timeout".into(), write_time(time).into());
    }
    if let Some(after) = retry.hedge_after {
        out.insert("hedge".into(), json!({ "after": write_time(after) }));
    }
    out.into()
}

pub(super) fn health(health: &Health) -> Value {
    let mut out = Map::new();
    let named = |out: &mut Map<String, Value>, host: &Option<String>| {
        if let Some(host) = host {
            out.insert("host".into(), text(host));
        }
    };
    match &health.check {
        HealthCheck::Tcp => drop(out.insert("tcp".into(), json!(true))),
        HealthCheck::Grpc { service, host } => {
            let of = if service.is_empty() { json!({}) } else { json!({ "service": text(service) }) };
            out.insert("grpc".into(), of);
            named(&mut out, host);
        }
        HealthCheck::Http { path, host, status, instance } => {
            out.insert("path".into(), text(path));
            named(&mut out, host);
            let ranges = status.iter().map(|range| Value::from(format!("{}-{}", range.start(), range.end())));
            out.insert("status".into(), ranges.collect());
            if let Some(header) = instance {
                out.insert("instance_header".into(), text(header.as_str()));
            }
        }
    }
    for (key, time) in [("every", health.every), ("timeout", health.timeout), ("damping", health.damping)] {
        out.insert(key.into(), write_time(time).into());
    }
    out.insert("jitter".into(), write_percent(health.jitter_bp).into());
    out.insert("pass".into(), health.pass.into());
    out.insert("fail".into(), health.fail.into());
    out.into()
}

pub(super) fn outlier(outlier: &Outlier) -> Value {
    let mut out = Map::new();
    out.insert("consecutive_failures".into(), outlier.consecutive_failures.into());
    if let Some(rule) = &outlier.success_rate {
        let below = write_percent(rule.below_peers_bp);
        out.insert("success_rate".into(), json!({ "below_peers_by": below, "min_requests": rule.min_requests }));
    }
    if let Some(rule) = &outlier.latency {
        let rule = json!({
            "max_ratio": f64::from(rule.max_ratio_hundredths) / 100.0,
            "at_least": write_time(rule.at_least),
            "min_requests": rule.min_requests,
        });
        out.insert("latency".into(), rule);
    }
    for (key, time) in
        [("every", outlier.every), ("eject_for", outlier.eject_for), ("eject_for_max", outlier.eject_for_max)]
    {
        out.insert(key.into(), write_time(time).into());
    }
    out.insert("max_ejected".into(), write_percent(outlier.max_ejected_bp).into());
    out.into()
}
