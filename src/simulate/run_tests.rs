use super::*;
use crate::config::load::{Source, parse_with};
use crate::simulate::Summary;

/// A plan of stages 5, 25 and 100 % that hold ten minutes each.
const PLAN: &str = "promote_when: { errors_below: 0.1%, hold: 10m }\nstages: [5%, 25%, 100%]\n";

fn plan(rollout: &str) -> Plan {
    let indented = rollout.trim_end().replace('\n', "\n      ");
    let text = format!(
        "schema: 1\nlisteners:\n  web: {{ bind: \"127.0.0.1:8080\" }}\nroutes:\n  - name: shop\n    match: {{ host: shop.test }}\n    \
         service: shop\nservices:\n  shop:\n    versions:\n      v1: {{ endpoints: [\"127.0.0.1:1\"] }}\n      \
         v2: {{ endpoints: [\"127.0.0.1:2\"] }}\n    active: v1\n    rollout:\n      {indented}\ngates: {{ sre: {{ approvers: [] }} }}\n"
    );
    let sources = vec![Source { path: "f.yaml".into(), text }];
    let loaded = parse_with(sources, &|_| None).unwrap_or_else(|problems| panic!("{}", problems.render(None)));
    loaded.config.services["shop"].rollout.clone().expect("it was written")
}

struct Try {
    plan: Plan,
    rps: f64,
    endpoints: usize,
    sticky: bool,
    pace: Pace,
}

impl Default for Try {
    fn default() -> Try {
        Try { plan: plan(PLAN), rps: 200.0, endpoints: 2, sticky: false, pace: Pace::Sparse }
    }
}

impl Try {
    fn story(&self, scenario: &str, seed: u64) -> Story {
        let scenario = Scenario::parse(scenario).expect(scenario);
        let traffic = Traffic::made(self.rps, 1e-4, 3.0, 7.0);
        let setup = Setup {
            plan: &self.plan,
            stable: "v1",
            canary: "v2",
            endpoints: self.endpoints,
            sticky: self.sticky,
            traffic: &traffic,
            scenario: &scenario,
            pace: self.pace,
        };
        run(&setup, seed)
    }

    fn stories(&self, scenario: &str, runs: u64) -> Vec<Story> {
        (0..runs).map(|seed| self.story(scenario, seed)).collect()
    }

    fn summary(&self, scenario: &str, runs: u64) -> Summary {
        Summary::of(&self.stories(scenario, runs))
    }
}

#[test]
fn a_healthy_canary_is_promoted_when_its_stages_have_held() {
    let stories = Try::default().stories("healthy", 40);
    let promoted: Vec<&Story> = stories.iter().filter(|story| story.end == End::Promoted).collect();
    assert!(promoted.len() >= 38, "{}", promoted.len());
    let quickest = promoted.iter().map(|story| story.took_ms).min().expect("some are promoted");
    assert_eq!(quickest, 30 * 60_000, "three stages of ten minutes");
}

#[test]
fn a_broken_canary_is_gone_after_a_few_requests_and_the_shield_hides_them() {
    for story in Try::default().stories("errors=50%", 40) {
        assert_eq!((story.end, story.stage), (End::RolledBack, 1), "{story:?}");
        assert!(story.canary.total <= 25 && story.took_ms < 5_000, "{story:?}");
        assert!(story.unshielded >= 3 && story.seen <= 1, "{story:?}");
    }
}

#[test]
fn without_a_shield_clients_see_what_the_canary_does() {
    let plan = plan(&format!("{PLAN}shield: false\n"));
    let story = Try { plan, ..Try::default() }.story("errors=50%", 1);
    assert_eq!(story.seen, story.unshielded);
}

#[test]
fn it_is_found_in_the_stage_in_which_it_begins() {
    for story in Try::default().stories("errors=5%,after=25%", 20) {
        assert_eq!((story.end, story.stage), (End::RolledBack, 2), "{:?}", story.steps.last());
    }
}

#[test]
fn an_outage_of_both_is_never_rolled_back() {
    for scenario in ["outage,for=20m", "outage=50%,for=20m"] {
        let summary = Try { rps: 20.0, ..Try::default() }.summary(scenario, 10);
        assert_eq!(summary.count(End::RolledBack), 0, "{scenario}: {:?}", summary.ends);
        assert_eq!(summary.count(End::Paused), 10, "{scenario}: {:?}", summary.ends);
    }
    let over = Try { rps: 20.0, ..Try::default() }.summary("outage", 10);
    let ends = (over.count(End::RolledBack), over.count(End::Paused));
    assert_eq!(ends, (0, 0), "after five minutes nobody is needed: {:?}", over.ends);
    let short = Try::default().summary("outage=1%,for=30s", 10);
    assert!(short.count(End::Promoted) >= 9, "a short one clears by itself: {:?}", short.ends);
}

#[test]
fn a_slow_canary_holds_and_pauses() {
    for story in Try::default().stories("latency=2x", 10) {
        assert_eq!((story.end, story.stage), (End::Paused, 1), "{:?}", story.steps.last());
        let hold = story.steps.iter().find(|step| step.what == "hold").expect("it holds first");
        assert!(hold.at_ms < 30_000 && story.took_ms >= 10 * 60_000, "{hold:?}");
    }
}

#[test]
fn looking_less_often_finds_the_same() {
    let impatient = plan(&format!("{PLAN}guardrails: {{ latency: {{ quantile: 0.95, max_ratio: 1.1, for: 1s }} }}\n"));
    let median = |pace| {
        let of = Try { plan: impatient.clone(), pace, rps: 100.0, ..Try::default() };
        let summary = of.summary("latency=2x", 60);
        assert_eq!(summary.count(End::Paused), 60, "{:?}", summary.ends);
        summary.took_ms.expect("there were runs").median as f64
    };
    let (sparse, every) = (median(Pace::Sparse), median(Pace::Every));
    assert!((sparse / every - 1.0).abs() < 0.25, "{sparse} ms, every tick {every} ms");
}

#[test]
fn crashes_and_a_lonely_endpoint_that_is_away_go_back() {
    let story = Try::default().story("crashes", 1);
    let last = story.steps.last().expect("it ends");
    assert_eq!((story.end, last.why.as_str()), (End::RolledBack, "it restarted 4 times"));
    assert_eq!(story.took_ms, 3 * 60_000, "the fourth restart");
}

#[test]
fn with_too_little_traffic_nothing_is_guessed() {
    let summary = Try::default().summary("low-traffic", 5);
    assert_eq!(summary.count(End::Inconclusive), 5, "{:?}", summary.ends);
    assert_eq!(summary.took_ms.map(|took| took.median), Some(40 * 60_000), "four times ten minutes");
}

#[test]
fn a_broken_stable_is_never_gone_back_to() {
    let of = Try::default();
    let story = of.story("stable-outage,errors=50%,from=0s", 1);
    assert_ne!(story.end, End::RolledBack);
    let summary = of.summary("stable-outage", 10);
    assert_eq!(summary.count(End::RolledBack), 0, "{:?}", summary.ends);
}

#[test]
fn gates_say_yes_and_sticky_clients_are_judged() {
    let gated = plan("promote_when: { hold: 10m }\nstages: [50%, { weight: 100%, approve: sre }]\n");
    let of = Try { plan: gated, sticky: true, ..Try::default() };
    let story = of.story("healthy", 3);
    assert!(story.steps.iter().any(|step| step.what == "wait"), "{:?}", story.steps);
    assert_eq!(story.end, End::Promoted);
    let summary = of.summary("errors=5%", 10);
    assert_eq!(summary.count(End::RolledBack), 10, "{:?}", summary.ends);
}

#[test]
fn the_same_seed_tells_the_same_story_and_the_clock_never_goes_back() {
    let of = Try::default();
    for scenario in Scenario::DEFAULTS {
        let story = of.story(scenario, 7);
        assert_eq!(story, of.story(scenario, 7), "{scenario}");
        assert!(story.steps.is_sorted_by_key(|step| step.at_ms), "{scenario}");
        assert!(story.steps.last().is_some_and(|step| step.at_ms <= story.took_ms), "{scenario}");
    }
    assert_ne!(of.story("errors=1%", 1), of.story("errors=1%", 2));
}

#[test]
fn what_cannot_be_proven_with_so_little_traffic_is_said() {
    use crate::simulate::shortfalls;
    let plan = plan(PLAN);
    assert_eq!(shortfalls(&plan, 200.0), []);
    let short = shortfalls(&plan, 10.0);
    let told: Vec<_> = short.iter().map(|it| (it.stage, it.share_bp, it.needs, it.gets)).collect();
    assert_eq!(told, [(1, 500, 4_466, 1_200)]);
    let time = plan_on_time();
    assert_eq!(shortfalls(&time, 0.1), [], "no proof is asked for");
}

fn plan_on_time() -> Plan {
    plan("promote_when: { hold: 10m, promote_on_time: true }\nstages: [5%, 100%]\n")
}
