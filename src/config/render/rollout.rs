//! Rollouts, gates and notifications as text.

use serde_json::{Map, Value, json};

use super::{text, value_match};
use crate::config::model::rollout::{
    Channel, CustomEvent, CustomRule, Freeze, Gate, Guardrails, NoticeKind, Notification, PromoteWhen, Proof, Rollout,
    Secret, Stage, StageMatch, StageTraffic, Webhook,
};
use crate::config::scalar::{GrpcCode, Word, write_date, write_minutes, write_percent, write_rate, write_time};

pub fn gate(gate: &Gate) -> Value {
    json!({ "approvers": gate.approvers.iter().map(|name| text(name)).collect::<Value>() })
}

pub fn notification(notification: &Notification) -> Value {
    let (key, channel) = match &notification.to {
        Channel::Slack { url } => ("slack", json!({ "url_file": file(url) })),
        Channel::PagerDuty { routing_key, url, source } => {
            let mut out = Map::new();
            out.insert("routing_key_file".into(), file(routing_key));
            out.insert("url".into(), text(url));
            if let Some(source) = source {
                out.insert("source".into(), text(source));
            }
            ("pagerduty", out.into())
        }
        Channel::Alertmanager { url } => ("alertmanager", json!({ "url": text(url) })),
        Channel::Webhook { url, secret } => {
            let mut out = Map::new();
            out.insert("url".into(), text(url));
            if let Some(secret) = secret {
                out.insert("secret_file".into(), file(secret));
            }
            ("webhook", out.into())
        }
    };
    json!({ key: channel, "on": words(&notification.on) })
}

pub fn rollout(rollout: &Rollout) -> Value {
    let mut out = Map::new();
    out.insert("strategy".into(), rollout.strategy.word().into());
    out.insert("stages".into(), rollout.stages.iter().map(stage).collect());
    if let Some(group) = &rollout.group {
        out.insert("group".into(), text(group));
    }
    let shield = match rollout.shield {
        None => json!(false),
        Some(shield) => json!({ "budget": share(shield.budget_bp) }),
    };
    out.insert("shield".into(), shield);
    out.insert("guardrails".into(), guardrails(&rollout.guardrails));
    out.insert("promote_when".into(), promote_when(&rollout.promote_when));
    out.insert("keep_idle".into(), write_time(rollout.keep_idle).into());
    if let Some(names) = &rollout.notify {
        out.insert("notify".into(), names.iter().map(|name| text(name)).collect());
    }
    if !rollout.webhooks.is_empty() {
        out.insert("webhooks".into(), rollout.webhooks.iter().map(webhook).collect());
    }
    if !rollout.freeze.is_empty() {
        out.insert("freeze".into(), rollout.freeze.iter().map(freeze).collect());
    }
    out.into()
}

/// A share alone is written as such.
fn stage(stage: &Stage) -> Value {
    let mut out = Map::new();
    match &stage.traffic {
        StageTraffic::Share(bp) => out.insert("weight".into(), share(*bp)),
        StageTraffic::Mirror(bp) => out.insert("mirror".into(), share(*bp)),
        StageTraffic::Match(matcher) => out.insert("match".into(), stage_match(matcher)),
    };
    if let Some(hold) = stage.hold {
        out.insert("hold".into(), write_time(hold).into());
    }
    if stage.min_requests > 0 {
        out.insert("min_requests".into(), stage.min_requests.into());
    }
    if let Some(gate) = &stage.approve {
        out.insert("approve".into(), text(gate));
    }
    if let Some(rules) = &stage.guardrails {
        out.insert("guardrails".into(), guardrails(rules));
    }
    match (&stage.traffic, out.len()) {
        (StageTraffic::Share(bp), 1) => share(*bp),
        (StageTraffic::Share(_) | StageTraffic::Mirror(_) | StageTraffic::Match(_), _) => out.into(),
    }
}

fn stage_match(matcher: &StageMatch) -> Value {
    let mut out = Map::new();
    if !matcher.headers.is_empty() {
        let headers = matcher.headers.iter().map(|(name, value)| (name.to_string(), value_match(value)));
        out.insert("headers".into(), headers.collect::<Map<_, _>>().into());
    }
    if !matcher.cookies.is_empty() {
        let cookies = matcher.cookies.iter().map(|(name, value)| (name.clone(), value_match(value)));
        out.insert("cookies".into(), cookies.collect::<Map<_, _>>().into());
    }
    if let Some((header, users)) = &matcher.users {
        let list: Value = users.iter().map(|user| text(user)).collect();
        out.insert("users".into(), json!({ "header": text(header.as_str()), "list": list }));
    }
    out.into()
}

/// What is off is said, so that reading it again does not turn it on.
fn guardrails(rules: &Guardrails) -> Value {
    let errors =
        rules.errors.map(|rule| json!({ "max": write_rate(rule.max), "ratio": rule.ratio, "then": rule.then.word() }));
    let latency = rules.latency.map(|rule| {
        json!({
            "quantile": rule.quantile,
            "max_ratio": rule.max_ratio,
            "for": write_time(rule.period),
            "warm_up": write_time(rule.warm_up),
            "then": rule.then.word(),
        })
    });
    let crashes = rules.crashes.map(
        |rule| json!({ "more_than": rule.more_than, "within": write_time(rule.within), "then": rule.then.word() }),
    );
    let window = rules
        .error_window
        .map(|rule| json!({ "max": write_rate(rule.max), "for": write_time(rule.period), "then": rule.then.word() }));
    let mut out = Map::new();
    for (key, rule) in [("errors", errors), ("error_window", window), ("latency", latency), ("crashes", crashes)] {
        out.insert(key.into(), rule.unwrap_or("off".into()));
    }
    if !rules.custom.is_empty() {
        let custom = rules.custom.iter().map(|(name, rule)| (name.to_string(), custom(rule)));
        out.insert("custom".into(), custom.collect::<Map<_, _>>().into());
    }
    out.into()
}

fn custom(rule: &CustomRule) -> Value {
    let mut out = Map::new();
    match &rule.what {
        CustomEvent::Header { name, value, max } => {
            out.insert("header".into(), json!({ "name": text(name.as_str()), "value": value_match(value) }));
            out.insert("max".into(), write_rate(*max).into());
        }
        CustomEvent::Status { ranges, max } => {
            let ranges = ranges.iter().map(|range| Value::from(format!("{}-{}", range.start(), range.end())));
            out.insert("status".into(), ranges.collect());
            out.insert("max".into(), write_rate(*max).into());
        }
        CustomEvent::GrpcStatus { codes, max } => {
            out.insert("grpc_status".into(), codes.iter().map(|code| GrpcCode::name(*code)).collect());
            out.insert("max".into(), write_rate(*max).into());
        }
        CustomEvent::Prometheus { url, query, max, every, period } => {
            let prometheus = json!({
                "url": text(url),
                "query": text(query),
                "max": max,
                "every": write_time(*every),
                "for": write_time(*period),
            });
            out.insert("prometheus".into(), prometheus);
        }
        CustomEvent::Outside { more_than, within } => {
            out.insert("events".into(), json!({ "more_than": more_than, "within": write_time(*within) }));
        }
    }
    out.insert("then".into(), rule.then.word().into());
    out.into()
}

fn promote_when(it: &PromoteWhen) -> Value {
    let mut out = Map::new();
    out.insert("errors_below".into(), write_rate(it.errors_below).into());
    if let Some(latency) = it.latency {
        out.insert("latency".into(), json!({ "quantile": latency.quantile, "below": write_time(latency.below) }));
    }
    out.insert("healthy".into(), it.healthy.into());
    out.insert("hold".into(), write_time(it.hold).into());
    let on_time = match it.proof {
        Proof::Evidence => false,
        Proof::Time => true,
    };
    out.insert("promote_on_time".into(), on_time.into());
    out.into()
}

fn webhook(hook: &Webhook) -> Value {
    let mut out = Map::new();
    out.insert("url".into(), text(&hook.url));
    out.insert("on".into(), hook.on.iter().map(|point| point.word()).collect());
    if let Some(secret) = &hook.secret {
        out.insert("secret_file".into(), file(secret));
    }
    out.insert("timeout".into(), write_time(hook.timeout).into());
    out.insert("attempts".into(), hook.attempts.into());
    out.into()
}

fn freeze(freeze: &Freeze) -> Value {
    match freeze {
        Freeze::Weekly { days, from, to } => json!({
            "weekdays": days.iter().map(|day| day.word()).collect::<Value>(),
            "from": write_minutes(*from),
            "to": write_minutes(*to),
        }),
        Freeze::Dates { from_ms, to_ms } => json!({ "from": write_date(*from_ms), "to": write_date(*to_ms) }),
    }
}

fn words(kinds: &[NoticeKind]) -> Value {
    kinds.iter().map(|kind| kind.word()).collect()
}

fn file(secret: &Secret) -> Value {
    text(&secret.file.to_string_lossy())
}

fn share(bp: u16) -> Value {
    write_percent(u32::from(bp)).into()
}
