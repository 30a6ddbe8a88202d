//! Progressive delivery: what people write, what it means, and what they get wrong.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::super::load::{Loaded, Source, parse_with, read};
use super::super::model::rollout::{
    Channel, CrashesRule, CustomEvent, ErrorsRule, Freeze, Guardrails, HookPoint, LatencyRule, NoticeKind, Proof,
    Rollout, Shield, Stage, StageTraffic, Strategy, Then, Weekday,
};
use super::super::model::{Config, ValueMatch};
use super::super::problem::Problems;
use super::super::render::to_yaml;
use super::{errors, good, parse, source, without_places};

/// Lines 1 to 9, with the rollout's keys at column 7.
const HEAD: &str = r#"listeners: { web: { bind: "127.0.0.1:8080" } }
routes: [{ name: api, service: api }]
services:
  api:
    versions:
      blue: { endpoints: ["127.0.0.1:1"] }
      green: { endpoints: ["127.0.0.1:2"] }
    active: blue
    rollout:
"#;

/// Named by the cases below; with `sre` asked, nothing is left to warn about.
const TAIL: &str = r#"gates: { sre: { approvers: [ada, grace] }, boss: {} }
notifications: { oncall: { alertmanager: { url: "http://127.0.0.1:9093" } }, team: { webhook: { url: "http://127.0.0.1:1/" } } }
"#;

fn text(rollout: &str) -> String {
    let lines: String = rollout.lines().map(|line| format!("      {line}\n")).collect();
    format!("{HEAD}{lines}{TAIL}")
}

fn rollout(keys: &str) -> Rollout {
    good(&text(keys)).services["api"].rollout.clone().expect("it is written")
}

fn guardrails(keys: &str) -> Guardrails {
    rollout(&format!("guardrails: {keys}")).guardrails
}

fn shares(rollout: &Rollout) -> Vec<u16> {
    let share = |stage: &Stage| match stage.traffic {
        StageTraffic::Share(bp) => bp,
        StageTraffic::Match(_) | StageTraffic::Mirror(_) => 0,
    };
    rollout.stages.iter().map(share).collect()
}

#[test]
fn an_empty_rollout_has_the_documented_defaults() {
    let it = rollout("{}");
    assert_eq!(it.strategy, Strategy::Canary);
    assert_eq!(shares(&it), [500, 1_000, 2_500, 5_000, 10_000]);
    assert!(it.stages.iter().all(|stage| stage.hold.is_none() && stage.min_requests == 0 && stage.approve.is_none()));
    assert_eq!(it.shield, Some(Shield { budget_bp: 2_000 }));
    let mins = |minutes: u64| Duration::from_secs(60 * minutes);
    let expected = Guardrails {
        errors: Some(ErrorsRule { max: 0.001, ratio: 1.25, then: Then::RollBack }),
        error_window: None,
        latency: Some(LatencyRule {
            quantile: 0.95,
            max_ratio: 1.5,
            period: mins(10),
            warm_up: Duration::from_secs(30),
            then: Then::Pause,
        }),
        crashes: Some(CrashesRule { more_than: 3, within: mins(10), then: Then::RollBack }),
        custom: Vec::new(),
    };
    assert_eq!(it.guardrails, expected);
    assert_eq!((it.promote_when.errors_below, it.promote_when.healthy), (0.001, true));
    assert_eq!((it.promote_when.latency, it.promote_when.hold), (None, mins(60)));
    assert_eq!(it.promote_when.proof, Proof::Evidence);
    assert_eq!((it.keep_idle, it.notify, it.group), (mins(60), None, None));
    assert!(it.webhooks.is_empty() && it.freeze.is_empty());
}

#[test]
fn without_the_section_there_is_no_rollout() {
    let without = format!("{}{TAIL}", HEAD.replace("    rollout:\n", ""));
    assert_eq!(good(&without).services["api"].rollout, None);
}

#[test]
fn blue_green_gives_everything_at_once() {
    assert_eq!(shares(&rollout("strategy: blue_green")), [10_000]);
    let it = rollout("strategy: blue_green\nstages: [{ mirror: 5% }, { weight: 100%, approve: boss }]");
    assert_eq!(it.stages[0].traffic, StageTraffic::Mirror(500));
    assert_eq!(it.stages[1].approve.as_deref(), Some("boss"));
}

#[test]
fn a_stage_is_a_share_or_a_map() {
    let it = rollout(
        "stages:\n- 0.01%\n- { weight: 12.5%, hold: 10m, min_requests: 1000, approve: sre, guardrails: { latency: off } }\n- 100%",
    );
    assert_eq!(shares(&it), [1, 1_250, 10_000]);
    assert_eq!((it.stages[1].hold, it.stages[1].min_requests), (Some(Duration::from_secs(600)), 1_000));
    // It stands for all of the rollout's, so what is left out has its default.
    let of_stage = it.stages[1].guardrails.as_ref().unwrap();
    assert!(of_stage.latency.is_none() && of_stage.errors.is_some() && of_stage.crashes.is_some());
}

#[test]
fn a_match_stage_names_headers_cookies_and_users() {
    let it = rollout(
        "stages: [{ match: { headers: { X-Beta: { present: true } }, cookies: { ab: b }, users: { header: x-user, list: [ada, bob] } } }, 100%]",
    );
    let StageTraffic::Match(matcher) = &it.stages[0].traffic else { panic!("{:?}", it.stages) };
    assert_eq!(matcher.headers, [("x-beta".parse().unwrap(), ValueMatch::Present)]);
    assert_eq!(matcher.cookies, [("ab".to_owned(), ValueMatch::Exact("b".into()))]);
    assert_eq!(matcher.users, Some(("x-user".parse().unwrap(), vec!["ada".into(), "bob".into()])));
}

#[test]
fn every_rule_can_be_off() {
    let rules = guardrails("{ errors: off, error_window: off, latency: off, crashes: off }");
    assert!(
        rules.errors.is_none() && rules.error_window.is_none() && rules.latency.is_none() && rules.crashes.is_none()
    );
}

#[test]
fn what_promotion_asks_follows_the_guardrail() {
    for (keys, errors_below) in [
        ("guardrails: { errors: { max: 2% } }", 0.02),
        ("guardrails: { errors: off }", 0.001),
        ("guardrails: { errors: { max: 2% } }\npromote_when: { errors_below: 0.001% }", 0.000_01),
    ] {
        assert_eq!(rollout(keys).promote_when.errors_below, errors_below, "{keys}");
    }
}

#[test]
fn custom_rules_keep_their_order() {
    let rules = guardrails(
        "{ custom: { z: { header: { name: x-app-error }, max: 1% }, a: { status: 404, max: 0.5%, then: pause }, \
         g: { grpc_status: [14, INTERNAL, UNAVAILABLE], max: 0.1% }, p: { prometheus: { url: \"http://p:9090\", query: up, max: -1.5 } }, \
         e: { events: {} } } }",
    );
    let names: Vec<&str> = rules.custom.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["z", "a", "g", "p", "e"]);
    let what = |at: usize| &rules.custom[at].1.what;
    let name = "x-app-error".parse().unwrap();
    assert_eq!(*what(0), CustomEvent::Header { name, value: ValueMatch::Present, max: 0.01 });
    assert_eq!(*what(1), CustomEvent::Status { ranges: vec![404..=404], max: 0.005 });
    assert_eq!(*what(2), CustomEvent::GrpcStatus { codes: vec![13, 14], max: 0.001 });
    let (every, period) = (Duration::from_secs(15), Duration::from_secs(60));
    let (url, query) = ("http://p:9090".to_owned(), "up".to_owned());
    assert_eq!(*what(3), CustomEvent::Prometheus { url, query, max: -1.5, every, period });
    assert_eq!(*what(4), CustomEvent::Outside { more_than: 0, within: Duration::from_secs(600) });
    assert_eq!((rules.custom[0].1.then, rules.custom[1].1.then), (Then::RollBack, Then::Pause));
}

#[test]
fn freezes_are_utc() {
    let it = rollout(
        "freeze:\n- { weekdays: [fri, sunday], from: 16:00 }\n- { from: \"2026-12-20T02:00+02:00\", to: \"2027-01-02T00:00Z\" }",
    );
    let weekly = Freeze::Weekly { days: vec![Weekday::Friday, Weekday::Sunday], from: 960, to: 1_440 };
    let dates = Freeze::Dates { from_ms: 1_797_724_800_000, to_ms: 1_798_848_000_000 };
    assert_eq!(it.freeze, [weekly, dates]);
}

#[test]
fn who_is_told_may_be_all_some_or_none() {
    assert_eq!(rollout("{}").notify, None);
    assert_eq!(rollout("notify: oncall").notify, Some(vec!["oncall".into()]));
    assert_eq!(rollout("notify: []").notify, Some(vec![]));
    assert_eq!(good(&text("{}")).notifications["team"].on, NoticeKind::ALL);
}

/// Secrets are read from their files, and never shown.
#[test]
fn secrets_come_from_files_and_stay_there() {
    let dir = tempfile::tempdir().unwrap();
    for (file, content) in
        [("slack", "https://hooks.slack.test/T0/s3cret\n"), ("key", " s3cret-key\n"), ("hmac", "s3cret-hmac")]
    {
        fs::write(dir.path().join(file), content).unwrap();
    }
    let keys = "webhooks: [{ url: \"http://h/\", on: before_promote, secret_file: hmac }]";
    let notifications = "notifications: { a: { slack: { url_file: slack } }, b: { pagerduty: { routing_key_file: key } }, \
         c: { webhook: { url: \"https://h/\", secret_file: hmac }, on: [failed] } }\n";
    let path = dir.path().join("s.yaml");
    let lines = text(keys);
    fs::write(&path, format!("{}{notifications}", &lines[..lines.find("notifications:").unwrap()])).unwrap();
    let config = parse_sources(read(&path).unwrap()).unwrap().config;
    let Channel::Slack { url } = &config.notifications["a"].to else { panic!() };
    assert_eq!(
        (url.value.as_str(), url.file.as_path()),
        ("https://hooks.slack.test/T0/s3cret", &*dir.path().join("slack"))
    );
    let Channel::PagerDuty { routing_key, url, source: None } = &config.notifications["b"].to else { panic!() };
    assert_eq!((routing_key.value.as_str(), url.as_str()), ("s3cret-key", "https://events.pagerduty.com/v2/enqueue"));
    let hook = &config.services["api"].rollout.as_ref().unwrap().webhooks[0];
    assert_eq!((hook.on.as_slice(), hook.attempts), (&[HookPoint::BeforePromote][..], 3));
    assert_eq!(hook.secret.as_ref().unwrap().value, "s3cret-hmac");

    let shown = to_yaml(&config);
    assert!(!shown.contains("s3cret") && !format!("{config:?}").contains("s3cret"), "{shown}");
    assert_eq!(without_places(&parse_sources(vec![source("elsewhere.yaml", &shown)]).unwrap()), Config::clone(&config));

    fs::write(dir.path().join("slack"), "s3cret but no address").unwrap();
    let problems = parse_sources(read(&path).unwrap()).unwrap_err().to_string();
    assert!(problems.contains("`slack` does not hold the address") && !problems.contains("s3cret"), "{problems}");
    fs::write(dir.path().join("slack"), "s3cret-not-a-url").unwrap();
    let problems = parse_sources(read(&path).unwrap()).unwrap_err().to_string();
    assert!(problems.contains("must begin with `https://`") && !problems.contains("s3cret"), "{problems}");
}

#[test]
fn several_files_may_bring_gates_and_notifications() {
    let one = source("1.yaml", &text("stages: [{ weight: 100%, approve: lead }]\nnotify: [more]"));
    let two =
        source("2.yaml", "gates: { lead: {} }\nnotifications: { more: { alertmanager: { url: \"http://a:1\" } } }\n");
    let config = parse_sources(vec![one, two]).unwrap().config;
    assert_eq!((config.gates.len(), config.notifications.len()), (3, 3));
}

/// The keys of a rollout: where the error is (the first key is on line 10, column 7), and words of it.
type Case = (&'static str, &'static str, &'static [&'static str]);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("strategy: blue", "10:17", &["`blue` is not a strategy", "`canary` and `blue_green`"]),
    ("strategy: canry", "10:17", &["did you mean `canary`?"]),
    ("steps: [5%]", "10:7", &["unknown key `steps`", "here it is called `stages`"]),
    ("errors: { max: 1% }", "10:7", &["unknown key `errors`", "belongs to a rollout's `guardrails`"]),
    // Stages.
    ("stages: []", "10:7", &["`stages` is empty", "leave it out"]),
    ("stages: [5, 100%]", "10:16", &["`5` is not a percentage", "did you mean `5%`?"]),
    ("stages: [0%, 100%]", "10:16", &["gives the canary nothing", "mirror"]),
    ("stages: [5%, 50%]", "10:20", &["would stay at 50%", "add `100%`"]),
    ("stages: [10%, 5%, 100%]", "10:21", &["does not grow: 5% after 10%", "sort the stages"]),
    ("stages: [5%, 5%, 100%]", "10:20", &["does not grow: 5% after 5%"]),
    ("stages: [100%, 100%]", "10:22", &["does not grow"]),
    ("stages: [5%, { weight: 2%, hold: 1m }, 100%]", "10:30", &["does not grow: 2% after 5%"]),
    ("stages: [{ match: { cookies: { a: b } } }]", "10:7", &["never reaches all clients", "add `100%`"]),
    ("stages: [5%, { mirror: 10% }, 100%]", "10:30", &["this mirror stage comes too late", "mirror first"]),
    ("stages: [5%, { match: { cookies: { a: b } } }, 100%]", "10:22", &["this match stage comes too late"]),
    ("stages: [{ match: { cookies: { a: b } } }, { mirror: 10% }, 100%]", "10:60", &["this mirror stage comes too late"]),
    ("stages: [{ hold: 1m }, 100%]", "10:16", &["does not say what the canary gets", "weight: 5%"]),
    ("stages: [{ weight: 5%, mirror: 5% }, 100%]", "10:30", &["`weight` and `mirror` cannot be used together"]),
    ("stages: [{ traffic: 5% }, 100%]", "10:18", &["unknown key `traffic`", "here it is called `weight`"]),
    ("stages: [{ pause: 5m, weight: 5% }, 100%]", "10:18", &["here it is called `hold`"]),
    ("stages: [{ match: {} }, 100%]", "10:18", &["matches nobody", "x-beta"]),
    ("stages: [{ match: { headers: { a: x, A: y } } }, 100%]", "10:44", &["given twice", "ignore case"]),
    ("stages: [{ match: { cookies: { \"a b\": x } } }, 100%]", "10:38", &["not the name of a cookie"]),
    ("stages: [{ match: { users: { header: x-u, list: [] } } }, 100%]", "10:55", &["`list` is empty"]),
    ("stages: [{ match: { users: { header: x-u, list: [a, a] } } }, 100%]", "10:59", &["`a` is given twice"]),
    ("stages: [{ match: { users: { list: [a] } } }, 100%]", "10:34", &["needs the key `header`"]),
    ("stages: [{ weight: 5%, min_requests: -1 }, 100%]", "10:44", &["not a whole number"]),
    ("strategy: blue_green\nstages: [5%, 100%]", "11:16", &["blue-green has no stage of 5%", "strategy: canary"]),
    ("stages: [{ weight: 100%, approve: srr }]", "10:41", &["there is no gate `srr`", "`sre` and `boss`", "did you mean `sre`?"]),
    // Guardrails.
    ("guardrails: { errors: { max: 0% } }", "10:36", &["not a rate", "proves that none", "0.001%"]),
    ("guardrails: { errors: { max: 100% } }", "10:36", &["not a rate", "below `100%`"]),
    ("guardrails: { errors: { max: 0.0001% } }", "10:36", &["the smallest rate is `0.001%`"]),
    ("guardrails: { errors: { max: 0.001 } }", "10:36", &["did you mean `0.1%`?"]),
    ("guardrails: { errors: { ratio: 0.9 } }", "10:38", &["`ratio` is below 1", "better than stable"]),
    ("guardrails: { errors: { ratio: 125% } }", "10:38", &["not a number", "no unit"]),
    ("guardrails: { errors: false }", "10:29", &["must be a map or `off`", "did you mean `off`?"]),
    ("guardrails: { errors: { then: promote } }", "10:37", &["not `rollback` or `pause`"]),
    ("guardrails: { error_window: { for: 5m } }", "10:35", &["needs the key `max`"]),
    ("guardrails: { latency: { quantile: 0.9 } }", "10:42", &["not a quantile", "0.5, 0.95 and 0.99"]),
    ("guardrails: { latency: { quantile: p95 } }", "10:42", &["did you mean `0.95`?"]),
    ("guardrails: { latency: { max_ratio: 1 } }", "10:43", &["`max_ratio` is not above 1"]),
    ("guardrails: { latency: { for: 10 } }", "10:37", &["did you mean `10s`?"]),
    ("guardrails: { crashes: { more_than: 3% } }", "10:43", &["not a whole number", "write `3`"]),
    ("guardrails: { custom: { latency: { status: 404, max: 1% } } }", "10:31", &["cannot be called `latency`"]),
    ("guardrails: { custom: { restart: { events: {} } } }", "10:31", &["counted by `crashes`"]),
    ("guardrails: { custom: { a: { status: 404, max: 1% }, a: { status: 405, max: 1% } } }", "10:60", &["`a` is given twice"]),
    ("guardrails: { custom: { a: { max: 1% } } }", "10:31", &["does not say what to watch"]),
    ("guardrails: { custom: { a: { status: 404 } } }", "10:31", &["how much is too much", "max: 1%"]),
    ("guardrails: { custom: { a: { status: 404, events: {}, max: 1% } } }", "10:49", &["`status` and `events` cannot be used together"]),
    ("guardrails: { custom: { a: { events: {}, max: 1% } } }", "10:48", &["`max` has no meaning beside `events`", "more_than"]),
    ("guardrails: { custom: { a: { status: [], max: 1% } } }", "10:44", &["`status` is empty"]),
    ("guardrails: { custom: { a: { grpc_status: OK, max: 1% } } }", "10:49", &["`OK` is no failure"]),
    ("guardrails: { custom: { a: { grpc_status: UNAVAILABL, max: 1% } } }", "10:49", &["did you mean `UNAVAILABLE`?"]),
    ("guardrails: { custom: { a: { grpc_status: 17, max: 1% } } }", "10:49", &["not a gRPC status"]),
    ("guardrails: { custom: { a: { prometheus: { url: p, query: up, max: 1 } } } }", "10:55", &["not a URL", "did you mean `https://p`?"]),
    ("guardrails: { custom: { a: { prometheus: { url: \"http://p\", query: up, max: .nan } } } }", "10:83", &["not a number"]),
    ("guardrails: { custom: { a: { prometheus: { url: \"http://p\", query: up, max: 1, every: 5m } } } }", "10:93", &["`every` is longer than `for`", "raise `for`"]),
    // Promotion.
    ("promote_when: { errors_below: 1% }", "10:37", &["would allow what the guardrail forbids", "0.1%"]),
    ("promote_when: { errors_below: 0.05% }\nstages: [{ weight: 100%, guardrails: { errors: { max: 0.01% } } }]", "11:61", &["what this guardrail forbids"]),
    ("promote_when: { promote_on_time: true, hold: 0s }", "10:52", &["nothing would be asked"]),
    ("promote_when: { promote_on_time: true }\nstages: [{ weight: 100%, hold: 0s }]", "11:38", &["nothing would be asked"]),
    ("promote_when: { latency: { quantile: 0.95 } }", "10:32", &["needs the key `below`"]),
    // Around.
    ("shield: { budget: 0% }", "10:25", &["replays nothing", "shield: false"]),
    ("shield: yes", "10:15", &["did you mean `true`?"]),
    ("notify: [onkall]", "10:16", &["there is no notification `onkall`", "did you mean `oncall`?"]),
    ("notify: [team, team]", "10:22", &["`team` is given twice"]),
    ("webhooks: [{ url: \"ftp://h/\", on: before_stage }]", "10:25", &["must begin with `http://` or `https://`"]),
    ("webhooks: [{ url: \"https://u:p@h/\", on: before_stage }]", "10:25", &["password", "config effective"]),
    ("webhooks: [{ url: \"http://h/\" }]", "10:18", &["needs the key `on`"]),
    ("webhooks: [{ url: \"http://h/\", on: [] }]", "10:42", &["`on` is empty"]),
    ("webhooks: [{ url: \"http://h/\", on: [after_stage, after_stage] }]", "10:56", &["`after_stage` is given twice"]),
    ("webhooks: [{ url: \"http://h/\", on: befor_stage }]", "10:42", &["did you mean `before_stage`?"]),
    ("webhooks: [{ url: \"http://h/\", on: on_rollback, secret: x }]", "10:55", &["unknown key `secret`", "give `secret_file`"]),
    ("webhooks: [{ url: \"http://h/\", on: on_rollback, secret_file: /nowhere/at/all }]", "10:68", &["cannot be read"]),
    ("freeze: [{ weekdays: fri, from: \"18:00\", to: \"16:00\" }]", "10:52", &["ends before it begins", "two entries"]),
    ("freeze: [{ weekdays: fri, from: \"16:00\", to: \"16:00\" }]", "10:52", &["ends before it begins"]),
    ("freeze: [{ weekdays: fri, from: 4pm }]", "10:39", &["not a time of day", "`16:00`"]),
    ("freeze: [{ weekdays: friyay }]", "10:28", &["not a day of the week", "`fri`"]),
    ("freeze: [{ weekdays: [fri, friday] }]", "10:34", &["`fri` is given twice"]),
    ("freeze: [{ from: \"16:00\", to: \"2026-12-21T00:00Z\" }]", "10:24", &["not a moment", "add `weekdays`"]),
    ("freeze: [{ from: \"2026-12-20T00:00\", to: \"2026-12-21T00:00Z\" }]", "10:24", &["not a moment", "time zone"]),
    ("freeze: [{ from: \"2026-12-20T00:00Z\" }]", "10:16", &["this freeze has no `to`"]),
    ("freeze: [{ from: \"2027-01-02T00:00Z\", to: \"2026-12-20T00:00Z\" }]", "10:49", &["ends before it begins"]),
];

#[test]
fn a_mistake_in_a_rollout_is_named_where_it_was_made() {
    let mut missed = Vec::new();
    for (keys, place, words) in CASES {
        let errors = errors(&text(keys));
        let named =
            |error: &String| error.starts_with(&format!("{place} ")) && words.iter().all(|word| error.contains(word));
        if !errors.iter().any(named) {
            missed.push(format!("{keys:?} at {place} with {words:?}, but:\n  {}", errors.join("\n  ")));
        } else if errors.len() > 1 {
            missed.push(format!("{keys:?} is one mistake, but:\n  {}", errors.join("\n  ")));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// Instead of the two lines of [`TAIL`], which are 11 and 12 here.
#[rustfmt::skip]
const TAIL_CASES: &[Case] = &[
    ("gates: { sre: { approvers: [ada, ada] } }", "11:34", &["`ada` approves for `sre` twice"]),
    ("gates: { sre: { approvers: [\" ada\"] } }", "11:29", &["nobody can be called"]),
    ("gates: { sre: [ada] }", "11:15", &["must be a map"]),
    ("gates: { ops: {} }", "10:41", &["there is no gate `sre`", "the gates are `ops`"]),
    ("gates: {}", "10:41", &["there is no gate `sre`", "there are no `gates`", "gates: { sre:"]),
    ("gates: { sre: {} }\nnotifications: { a: {} }", "12:18", &["`a` tells nobody", "`slack`"]),
    ("gates: { sre: {} }\nnotifications: { a: { alertmanager: { url: \"http://a\" }, webhook: { url: \"http://b\" } } }", "12:58", &["cannot be used together", "two notifications"]),
    ("gates: { sre: {} }\nnotifications: { a: { slack: { url: \"https://hooks.slack.com/x\" } } }", "12:32", &["unknown key `url`", "give `url_file`"]),
    ("gates: { sre: {} }\nnotifications: { a: { pagerduty: { routing_key: x } } }", "12:36", &["give `routing_key_file`"]),
    ("gates: { sre: {} }\nnotifications: { a: { alertmanager: { url: \"alerts:9093\" } } }", "12:44", &["not a URL"]),
    ("gates: { sre: {} }\nnotifications: { a: { alertmanager: { url: \"http://a\" }, on: [promotd] } }", "12:63", &["did you mean `promoted`?"]),
    ("gates: { sre: {} }\nnotifications: { a: { alertmanager: { url: \"http://a\" }, on: [] } }", "12:62", &["`on` is empty"]),
    ("gates: { sre: {} }\nalerts: {}", "12:1", &["here it is called `notifications`"]),
];

#[test]
fn a_mistake_in_gates_and_notifications_is_named_where_it_was_made() {
    let before = text("stages: [{ weight: 100%, approve: sre }]").replace(TAIL, "");
    let mut missed = Vec::new();
    for (tail, place, words) in TAIL_CASES {
        let errors = errors(&format!("{before}{tail}\n"));
        let named =
            |error: &String| error.starts_with(&format!("{place} ")) && words.iter().all(|word| error.contains(word));
        if !errors.iter().any(named) || errors.len() > 1 {
            missed.push(format!("{tail:?} at {place} with {words:?}, but:\n  {}", errors.join("\n  ")));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

fn report(text: &str) -> String {
    match parse(text) {
        Ok(loaded) => loaded.warnings.to_string(),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn a_rollout_of_a_split() {
    let text =
        format!("{}{TAIL}", HEAD.replace("active: blue", "split: { blue: 1 }").replace("rollout:\n", "rollout: {}\n"));
    assert_eq!(errors(&text).len(), 1);
    let problems = parse(&text).unwrap_err();
    insta::assert_snapshot!(problems.to_string().split("\n\n").next().unwrap(), @r"
    error: the rollout of service `api` has nothing to do
      --> f.yaml:9:5
    9 |     rollout: {}
      |     ^^^^^^^ with `split` the weights are yours: no version is the new one
      = help: write `active: …` in place of `split`, or remove `rollout`
    ");
}

#[test]
fn more_guardrails_than_one_word_can_note() {
    let rules: Vec<String> = (0..32).map(|at| format!("g{at}: {{ status: [4{at:02}], max: 1% }}")).collect();
    let problems = report(&text(&format!("guardrails: {{ custom: {{ {} }} }}", rules.join(", "))));
    assert!(problems.contains("32 guardrails of your own are too many"), "{problems}");
}

#[test]
fn promotion_above_the_guardrail() {
    let text = text("guardrails: { errors: { max: 0.05% } }\npromote_when: { errors_below: 0.1% }");
    insta::assert_snapshot!(report(&text).split("\n\n").next().unwrap(), @r"
    error: promotion would allow what the guardrail forbids
       --> f.yaml:11:37
    11 |       promote_when: { errors_below: 0.1% }
       |                                     ^^^^ `guardrails.errors.max` is 0.05%
       = help: write 0.05% or less, or raise `errors.max`
    ");
}

#[test]
fn what_is_probably_forgotten_is_a_warning() {
    let text = format!(
        "{}{TAIL}",
        HEAD.replace("      green: { endpoints: [\"127.0.0.1:2\"] }\n", "")
            .replace("rollout:\n", "rollout: { notify: [team], group: checkuot }\n")
    );
    insta::assert_snapshot!(report(&text), @r#"
    warning: the rollout of service `api` has nowhere to go
      --> f.yaml:8:5
    8 |     rollout: { notify: [team], group: checkuot }
      |     ^^^^^^^ `blue` is its only version
      = help: add the version to come; until then everything goes to the one

    warning: the group `checkuot` has one service only
      --> f.yaml:8:39
    8 |     rollout: { notify: [team], group: checkuot }
      |                                       ^^^^^^^^ there is nothing that could roll back together with it

    warning: gate `sre` is never asked
      --> f.yaml:9:10
    9 | gates: { sre: { approvers: [ada, grace] }, boss: {} }
      |          ^^^ no stage of a rollout names it
      = help: add `approve: sre` to a stage, or remove the gate

    warning: gate `boss` is never asked
      --> f.yaml:9:44
    9 | gates: { sre: { approvers: [ada, grace] }, boss: {} }
      |                                            ^^^^ no stage of a rollout names it
      = help: add `approve: boss` to a stage, or remove the gate

    warning: notification `oncall` is never sent
       --> f.yaml:10:18
    10 | notifications: { oncall: { alertmanager: { url: "http://127.0.0.1:9093" } }, team: { webhook: { url: "http://127.0.0.1:1/" } } }
       |                  ^^^^^^ no service has a `rollout` that names it
    "#);
}

#[test]
fn a_group_of_one_is_probably_a_typo() {
    let service = |name: &str, group: &str| {
        format!(
            "  {name}: {{ versions: {{ a: {{ endpoints: [\"h:1\"] }}, b: {{ endpoints: [\"h:2\"] }} }}, active: a, rollout: {{ group: {group} }} }}\n"
        )
    };
    let services = ["checkout", "checkout", "chekout"].map(|group| group.to_owned());
    let services: String = services.iter().enumerate().map(|(at, group)| service(&format!("s{at}"), group)).collect();
    let text = format!(
        "listeners: {{ web: {{ bind: \"127.0.0.1:8080\" }} }}\n\
         routes: [{{ name: a, match: {{ path: /0 }}, service: s0 }}, {{ name: b, match: {{ path: /1 }}, service: s1 }}, {{ name: c, service: s2 }}]\n\
         services:\n{services}"
    );
    let warnings = report(&text);
    assert!(warnings.contains("the group `chekout` has one service only"), "{warnings}");
    assert!(warnings.contains("did you mean `checkout`?"), "{warnings}");
    assert_eq!(warnings.matches("warning:").count(), 1, "{warnings}");
}

#[test]
fn the_canary_example_is_the_story_of_the_readme() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/canary.yaml");
    let config = good(&fs::read_to_string(path).unwrap());
    let it = config.services["mcp"].rollout.as_ref().unwrap();
    assert_eq!(shares(it), [500, 1_000, 2_500, 5_000, 10_000]);
    assert_eq!(it.stages[4].approve.as_deref(), Some("sre"));
    assert_eq!(it.promote_when.latency.unwrap().below, Duration::from_millis(10));
    assert!(it.shield.is_some());
}

fn parse_sources(sources: Vec<Source>) -> Result<Loaded, Problems> {
    parse_with(sources, &|_| None)
}
