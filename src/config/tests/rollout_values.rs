//! Any rollout, gate and notification that a file can say without naming another file.

use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::model::Name;
use super::super::model::rollout::{
    Channel, CrashesRule, CustomEvent, CustomRule, ErrorsRule, Freeze, Gate, Guardrails, HookPoint, LatencyBelow,
    LatencyRule, NoticeKind, Notification, PromoteWhen, Proof, Rollout, Shield, Stage, StageMatch, StageTraffic,
    Strategy as RolloutStrategy, Then, Webhook, Weekday, WindowRule,
};
use super::round_trip::{header, name, some_text, time, value_match};

/// Milliseconds of the year 9999, the last that can be written.
const LAST_MS: u64 = 253_402_300_799_999;

fn long_time() -> impl Strategy<Value = Duration> {
    (1..100_u64).prop_map(Duration::from_secs)
}

fn rate() -> impl Strategy<Value = f64> {
    (1..100_000_u32).prop_map(|steps| f64::from(steps) / 100_000.0)
}

fn ratio() -> impl Strategy<Value = f64> {
    prop_oneof![(101..10_000_u32).prop_map(|hundredths| f64::from(hundredths) / 100.0), 1.000_001..1e9_f64]
}

fn quantile() -> impl Strategy<Value = f64> {
    select(vec![0.5, 0.95, 0.99])
}

fn then() -> impl Strategy<Value = Then> {
    select(vec![Then::RollBack, Then::Pause])
}

fn url() -> impl Strategy<Value = String> {
    "https?://[a-z]{1,8}(\\.test)?(:80)?(/[a-z0-9/]{0,8}(\\?[a-z]=1)?)?"
}

fn guardrails() -> impl Strategy<Value = Guardrails> {
    let errors = (rate(), ratio(), then()).prop_map(|(max, ratio, then)| ErrorsRule { max, ratio, then });
    let window = (rate(), long_time(), then()).prop_map(|(max, period, then)| WindowRule { max, period, then });
    let latency = (quantile(), ratio(), long_time(), long_time(), then()).prop_map(
        |(quantile, max_ratio, period, warm_up, then)| LatencyRule { quantile, max_ratio, period, warm_up, then },
    );
    let crashes = (0..1_000_u32, long_time(), then()).prop_map(|(more_than, within, then)| CrashesRule {
        more_than,
        within,
        then,
    });
    let own = name().prop_filter("a name of its own", |name| {
        !["errors", "error_window", "latency", "crashes", "custom", "restart"].contains(&&**name)
    });
    let rule = (event(), then()).prop_map(|(what, then)| CustomRule { what, then });
    let custom = btree_map(own, rule, 0..3).prop_map(|rules| rules.into_iter().collect());
    (of(errors), of(window), of(latency), of(crashes), custom).prop_map(
        |(errors, error_window, latency, crashes, custom)| Guardrails {
            errors,
            error_window,
            latency,
            crashes,
            custom,
        },
    )
}

fn event() -> impl Strategy<Value = CustomEvent> {
    let ranges = vec((100_u16..300, 300_u16..599), 1..3);
    let ranges = ranges.prop_map(|ranges| ranges.into_iter().map(|(from, to)| from..=to).collect());
    let codes = btree_set(1..=16_u8, 1..5).prop_map(|codes| codes.into_iter().collect());
    let number = prop_oneof![-1e12..1e12_f64, (0..100_i32).prop_map(f64::from), Just(1e300), Just(1e-7)];
    let periods = (long_time(), any::<bool>()).prop_map(|(every, zero)| {
        let period = if zero { Duration::ZERO } else { every * 2 };
        (every, period)
    });
    prop_oneof![
        (header(), value_match(), rate()).prop_map(|(name, value, max)| CustomEvent::Header { name, value, max }),
        (ranges, rate()).prop_map(|(ranges, max)| CustomEvent::Status { ranges, max }),
        (codes, rate()).prop_map(|(codes, max)| CustomEvent::GrpcStatus { codes, max }),
        (url(), some_text(), number, periods).prop_map(|(url, query, max, (every, period))| CustomEvent::Prometheus {
            url,
            query,
            max,
            every,
            period,
        }),
        (0..1_000_u32, long_time()).prop_map(|(more_than, within)| CustomEvent::Outside { more_than, within }),
    ]
}

fn matcher() -> impl Strategy<Value = StageMatch> {
    let headers = btree_map("x-[a-z]{1,6}", value_match(), 0..3)
        .prop_map(|map| map.into_iter().map(|(name, value)| (name.parse().unwrap(), value)).collect());
    let cookies = btree_map("[a-z]{1,6}", value_match(), 1..3).prop_map(|map| map.into_iter().collect());
    let users = (header(), btree_set(some_text(), 1..3).prop_map(|users| users.into_iter().collect()));
    (headers, cookies, of(users)).prop_map(|(headers, cookies, users)| StageMatch { headers, cookies, users })
}

/// In order, growing, to the end. Every `approve` is a name to be replaced by that of a gate.
fn stages(strategy: RolloutStrategy) -> impl Strategy<Value = Vec<Stage>> {
    let mirrors = vec((1..=10_000_u16).prop_map(StageTraffic::Mirror), 0..2);
    let matches = vec(matcher().prop_map(StageTraffic::Match), 0..2);
    let steps = match strategy {
        RolloutStrategy::Canary => 0..4,
        RolloutStrategy::BlueGreen => 0..1,
    };
    let shares = btree_set(1..10_000_u16, steps)
        .prop_map(|shares| shares.into_iter().chain([10_000]).map(StageTraffic::Share).collect::<Vec<_>>());
    let rest = (of(long_time()), prop_oneof![Just(0), 0..1_000_000_u64], of(name()), of(guardrails()));
    (mirrors, matches, shares, vec(rest, 7)).prop_map(|(mirrors, matches, shares, rest)| {
        let traffic = mirrors.into_iter().chain(matches).chain(shares);
        let stage = |(traffic, (hold, min_requests, approve, guardrails))| Stage {
            traffic,
            hold,
            min_requests,
            approve,
            guardrails,
        };
        traffic.zip(rest).map(stage).collect()
    })
}

fn promote_when() -> impl Strategy<Value = PromoteWhen> {
    let latency = (quantile(), time()).prop_map(|(quantile, below)| LatencyBelow { quantile, below });
    let proof = select(vec![Proof::Evidence, Proof::Time]);
    (rate(), of(latency), any::<bool>(), time(), proof).prop_map(|(errors_below, latency, healthy, hold, proof)| {
        PromoteWhen { errors_below, latency, healthy, hold, proof }
    })
}

fn webhook() -> impl Strategy<Value = Webhook> {
    let points = [HookPoint::BeforeStage, HookPoint::AfterStage, HookPoint::BeforePromote, HookPoint::OnRollback];
    (url(), subsequence(points.to_vec(), 1..=4), time(), 1..=10_u32).prop_map(|(url, on, timeout, attempts)| Webhook {
        url,
        on,
        secret: None,
        timeout,
        attempts,
    })
}

fn freeze() -> impl Strategy<Value = Freeze> {
    use Weekday::{Friday, Monday, Saturday, Sunday, Thursday, Tuesday, Wednesday};
    let days = subsequence(vec![Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday], 1..=7);
    prop_oneof![
        (days, 0..700_u16, 700..=1_440_u16).prop_map(|(days, from, to)| Freeze::Weekly { days, from, to }),
        (0..LAST_MS / 2, LAST_MS / 2..=LAST_MS).prop_map(|(from_ms, to_ms)| Freeze::Dates { from_ms, to_ms }),
    ]
}

/// Names of gates and notifications are any; [`fit`] makes them known ones.
pub fn rollout() -> impl Strategy<Value = Rollout> {
    let kind = select(vec![RolloutStrategy::Canary, RolloutStrategy::BlueGreen]);
    let steps = kind.prop_flat_map(|strategy| (Just(strategy), stages(strategy)));
    let shield = of((1..=10_000_u16).prop_map(|budget_bp| Shield { budget_bp }));
    let notify = of(btree_set(name(), 0..3).prop_map(|names| names.into_iter().collect()));
    let around = (time(), notify, vec(webhook(), 0..2), vec(freeze(), 0..3));
    (steps, of(name()), shield, guardrails(), promote_when(), around).prop_map(
        |((strategy, stages), group, shield, guardrails, mut promote_when, (keep_idle, notify, webhooks, freeze))| {
            let rules = stages.iter().filter_map(|stage: &Stage| stage.guardrails.as_ref()).chain([&guardrails]);
            let limits = rules.filter_map(|rules| rules.errors).map(|rule| rule.max);
            promote_when.errors_below = limits.fold(promote_when.errors_below, f64::min);
            Rollout { strategy, stages, group, shield, guardrails, promote_when, keep_idle, notify, webhooks, freeze }
        },
    )
}

/// Replaces names that nothing defines.
pub fn fit(rollout: &mut Rollout, gates: &[Name], notifications: &[Name]) {
    for stage in &mut rollout.stages {
        stage.approve = stage.approve.take().and(gates.first().cloned());
    }
    if let Some(names) = &mut rollout.notify {
        let wanted = names.len();
        *names = notifications.iter().take(wanted).cloned().collect();
    }
}

pub fn gate() -> impl Strategy<Value = Gate> {
    btree_set("[!-~]([ -~]{0,8}[!-~])?", 0..3).prop_map(|names| Gate { approvers: names.into_iter().collect() })
}

pub fn notification() -> impl Strategy<Value = Notification> {
    let to = prop_oneof![
        url().prop_map(|url| Channel::Alertmanager { url }),
        url().prop_map(|url| Channel::Webhook { url, secret: None }),
    ];
    (to, subsequence(NoticeKind::ALL.to_vec(), 1..=8)).prop_map(|(to, on)| Notification { to, on })
}
