//! The `rollout:` section of a service as written.

use serde_json::{Value as Json, json};

use super::{OrOff, ValueMatch};
use crate::config::decode::{Decode, List, Map, OneOrMany};
use crate::config::found::Found;
use crate::config::keys::keys;
use crate::config::model::rollout::{HookPoint, Strategy, Then, Weekday};
use crate::config::scalar::{
    Count, Flag, GrpcCode, Header, HttpUrl, Name, Number, Percent, Quantile, Rate, StatusRange, Text, Time,
};
use crate::config::tree::{Node, Value};

keys! {
    /// How a changed `active` reaches all clients: stage by stage, judged on every request. Only with `active`.
    Rollout {
        /// `canary`: stage by stage. `blue_green`: everything at once, then judged.
        strategy: Strategy = default("canary"),
        /// The steps, each a share of the clients or a map: `mirror` first, then `match`, then shares, which grow
        /// and end at `100%`. Without it a canary takes 5 %, 10 %, 25 %, 50 % and 100 %, blue-green 100 %.
        stages: List<Stage> = optional,
        /// Services of one group roll back together.
        group: Name = optional,
        /// Replays a failed canary request on stable when that is safe: `true`, `false`, or a map.
        shield: Shield = default("true"),
        /// What stops the rollout. Each rule can be `off`.
        guardrails: Guardrails = section,
        /// What a stage must prove before the next begins, and the last before the canary is the new stable.
        promote_when: PromoteWhen = section,
        /// Stable stays warm for this long after 100 %, for a flip back at once.
        keep_idle: Time<0> = default("1h"),
        /// Which of `notifications` are told; `[]` for none. Without it, all.
        notify: OneOrMany<Name> = optional,
        /// Outside services that are asked at points of the rollout.
        webhooks: List<Webhook> = optional,
        /// When nothing moves forward: no start, no stage, no promotion. A rollback always happens.
        freeze: List<Freeze> = optional,
    }
}

/// A share, or the keys of [`StageKeys`].
#[derive(Debug, Clone)]
pub enum Stage {
    Share(Percent),
    Full(Box<StageKeys>),
}

impl Decode for Stage {
    fn decode(node: &Node, label: &str, found: &mut Found) -> Option<Self> {
        match &node.value {
            Value::Map(_) => StageKeys::decode(node, label, found).map(|keys| Self::Full(Box::new(keys))),
            Value::Null | Value::Text(_) | Value::List(_) => {
                <Percent as Decode>::decode(node, label, found).map(Self::Share)
            }
        }
    }

    fn shape() -> Json {
        json!({ "anyOf": [<Percent as Decode>::shape(), StageKeys::shape()] })
    }
}

keys! {
    /// One step: exactly one of `weight`, `match` and `mirror`.
    StageKeys {
        /// The share of the clients that the canary takes.
        weight: Percent = optional,
        /// Only these clients, and nobody else: testers, or one side of an A/B test. Any of the keys below sends a
        /// client to the canary.
        matcher as "match": StageMatch = optional,
        /// Copies of this share of the requests with a safe method (`GET`, `HEAD`, `OPTIONS`) and no body; the answers
        /// are discarded.
        mirror: Percent = optional,
        /// The least time of this stage. Without it, `promote_when.hold`.
        hold: Time<0> = optional,
        /// Canary requests that must be seen before the stage may end.
        min_requests: Count<0, 1_000_000_000> = default("0"),
        /// One of `gates`: it must say yes before the stage begins.
        approve: Name = optional,
        /// Stand for all of the rollout's guardrails in this stage; keys left out have their defaults.
        guardrails: Guardrails = optional,
    }
}

keys! {
    /// Which clients: any of these sends a client to the canary.
    StageMatch {
        /// By request header: the exact value, or `{ present: true }`.
        headers: Map<Header, ValueMatch> = section,
        /// By cookie: the exact value, or `{ present: true }`.
        cookies: Map<Text, ValueMatch> = section,
        /// By user: a header that names the user, and the users.
        users: Users = optional,
    }
}

keys! {
    /// Users by the value of a header.
    Users {
        /// The header that names the user.
        header: Header = required,
        /// The users.
        list: OneOrMany<Text> = required,
    }
}

/// `true`, `false`, or the keys of [`ShieldKeys`].
#[derive(Debug, Clone)]
pub enum Shield {
    Flag(Flag),
    Keys(Box<ShieldKeys>),
}

impl Decode for Shield {
    fn decode(node: &Node, label: &str, found: &mut Found) -> Option<Self> {
        match &node.value {
            Value::Map(_) => ShieldKeys::decode(node, label, found).map(|keys| Self::Keys(Box::new(keys))),
            Value::Null | Value::Text(_) | Value::List(_) => {
                <Flag as Decode>::decode(node, label, found).map(Self::Flag)
            }
        }
    }

    fn shape() -> Json {
        json!({ "anyOf": [<Flag as Decode>::shape(), ShieldKeys::shape()] })
    }
}

keys! {
    /// Replay of failed canary requests on stable.
    ShieldKeys {
        /// Most replays, as a share of the service's requests.
        budget: Percent = default("20%"),
    }
}

keys! {
    /// What stops a rollout. Each rule can be `off`.
    Guardrails {
        /// Failed requests, judged one by one by sequential tests. A failure that stable shares never counts.
        errors: OrOff<Errors> = section,
        /// The literal rule: failed requests above a rate for a time.
        error_window: OrOff<ErrorWindow> = optional,
        /// Slower than stable for a time.
        latency: OrOff<Latency> = section,
        /// Restarts of the canary's endpoints.
        crashes: OrOff<Crashes> = section,
        /// Rules of your own, by name.
        custom: Map<Name, Custom> = section,
    }
}

keys! {
    /// Failed requests, judged one by one.
    Errors {
        /// The rate that is too much, `0.001%` at least.
        max: Rate = default("0.1%"),
        /// And how many times stable's rate, 1 at least.
        ratio: Number = default("1.25"),
        /// What happens then.
        then: Then = default("rollback"),
    }
}

keys! {
    /// Failed requests above a rate for a time.
    ErrorWindow {
        /// The rate that is too much.
        max: Rate = required,
        /// For how long without a break.
        period as "for": Time<1_000> = default("5m"),
        /// What happens then.
        then: Then = default("pause"),
    }
}

keys! {
    /// Slower than stable for a time.
    Latency {
        /// 0.5, 0.95 or 0.99.
        quantile: Quantile = default("0.95"),
        /// How many times stable's, above 1.
        max_ratio: Number = default("1.5"),
        /// For how long without a break.
        period as "for": Time<1_000> = default("10m"),
        /// Answers of an endpoint of the canary say nothing for this long after its first one, nor do its first 200. 0 s: they do.
        warm_up: Time<0> = default("30s"),
        /// What happens then.
        then: Then = default("pause"),
    }
}

keys! {
    /// Restarts of the canary's endpoints.
    Crashes {
        /// Restarts that are still accepted.
        more_than: Count<0, 1_000_000> = default("3"),
        /// Within this time.
        within: Time<1_000> = default("10m"),
        /// What happens then.
        then: Then = default("rollback"),
    }
}

keys! {
    /// A rule of your own, by exactly one of `header`, `status`, `grpc_status`, `prometheus` and `events`.
    Custom {
        /// A response header marks a bad answer. Needs `max`.
        header: CustomHeader = optional,
        /// These statuses are bad answers: one, a range, or a list of them. Needs `max`.
        status: OneOrMany<StatusRange> = optional,
        /// These gRPC statuses are bad answers: one or a list, by name or number. Needs `max`.
        grpc_status: OneOrMany<GrpcCode> = optional,
        /// The answer to a query.
        prometheus: Prometheus = optional,
        /// Breaches reported through `POST /api/v1/services/{s}/events`, with the rule's name as kind.
        events: Events = optional,
        /// The rate of bad answers that is too much.
        max: Rate = optional,
        /// What happens then.
        then: Then = default("rollback"),
    }
}

keys! {
    /// A response header that marks a bad answer.
    CustomHeader {
        /// Its name.
        name: Header = required,
        /// The exact value, or `{ present: true }`. Without it, any value.
        value: ValueMatch = optional,
    }
}

keys! {
    /// A number that Prometheus knows.
    Prometheus {
        /// Address of its API: `http://prometheus:9090`.
        url: HttpUrl = required,
        /// A query that answers with one number.
        query: Text = required,
        /// The largest number that is right.
        max: Number = required,
        /// Between two queries.
        every: Time<1_000> = default("15s"),
        /// For how long without a break, `every` at least.
        period as "for": Time<0> = default("1m"),
    }
}

keys! {
    /// Breaches that others report.
    Events {
        /// Reports that are still accepted.
        more_than: Count<0, 1_000_000> = default("0"),
        /// Within this time.
        within: Time<1_000> = default("10m"),
    }
}

keys! {
    /// What a stage must prove before the next begins, and the last before the canary is the new stable.
    PromoteWhen {
        /// Fewer failed requests than this; at most `guardrails.errors.max`, which it is without being written.
        errors_below: Rate = optional,
        /// Fast enough in itself.
        latency: LatencyBelow = optional,
        /// Every endpoint of the canary is healthy.
        healthy: Flag = default("true"),
        /// The least time of a stage that does not say its own.
        hold: Time<0> = default("60m"),
        /// `true`: the limits kept for as long as `hold` are enough, no statistical proof is asked for.
        promote_on_time: Flag = default("false"),
    }
}

keys! {
    /// Fast enough in itself.
    LatencyBelow {
        /// 0.5, 0.95 or 0.99.
        quantile: Quantile = default("0.95"),
        /// Its upper bound.
        below: Time<1> = required,
    }
}

keys! {
    /// An outside service that is asked with a POST. Before and after a stage and before promotion it can refuse; no
    /// answer is a refusal. On rollback it is only told.
    Webhook {
        /// `http://…` or `https://…`.
        url: HttpUrl = required,
        /// One or a list of `before_stage`, `after_stage`, `before_promote`, `on_rollback`.
        on: OneOrMany<HookPoint> = required,
        /// A file with the key of the HMAC signature, relative to this file. Without it, requests are not signed.
        secret_file: Text = optional,
        /// For one try.
        timeout: Time<1> = default("10s"),
        /// Tries in all.
        attempts: Count<1, 10> = default("3"),
    }
}

keys! {
    /// A time in which nothing moves forward. Everything is UTC. With `weekdays`, times of day; without, two moments.
    Freeze {
        /// One day or a list: `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`.
        weekdays: OneOrMany<Weekday> = optional,
        /// The beginning: `16:00` (without it, `00:00`), or `2026-12-20T00:00Z`.
        from: Text = optional,
        /// The end: `24:00` (also without it), or `2027-01-02T00:00Z`.
        to: Text = optional,
    }
}
