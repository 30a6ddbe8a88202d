//! `switchback simulate` needs no instance: it reads a file and tells what its rollout would do.

use crate::harness::*;

/// The example that ships.
const CANARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/canary.yaml");

fn first<'j>(json: &'j serde_json::Value, scenario: &str) -> &'j serde_json::Value {
    let all = json["scenarios"].as_array().expect("a list of scenarios");
    all.iter().find(|it| it["scenario"] == scenario).unwrap_or_else(|| panic!("{scenario} in {json}"))
}

#[tokio::test]
async fn a_policy_is_tried_without_an_instance() {
    let world = World::new();
    let scenarios =
        ["--scenario", "errors=50%", "--scenario", "outage=20%,from=1s,for=30s", "--scenario", "latency=4x"];
    let arguments = [&["simulate", "-c", CANARY, "--runs", "5", "--rps", "50", "--json"][..], &scenarios].concat();
    let ran = world.cli(&arguments).await.ok();
    let told = ran.json();
    assert_eq!((&told["service"], &told["stable"], &told["canary"]), (&"mcp".into(), &"v1".into(), &"v2".into()));
    let broken = &first(&told, "errors=50%")["summary"];
    assert_eq!((&broken["ends"][0]["end"], &broken["ends"][0]["runs"]), (&"rolled_back".into(), &5.into()));
    assert!(broken["canary_requests"]["p95"].as_u64().expect("a count") < 40, "{broken}");
    let slow = &first(&told, "latency=4x")["summary"];
    assert_eq!((&slow["ends"][0]["end"], &slow["ends"][0]["runs"]), (&"paused".into(), &5.into()));
    for ended in first(&told, "outage=20%,from=1s,for=30s")["summary"]["ends"].as_array().expect("a list") {
        assert_ne!(ended["end"], "rolled_back", "an outage of both");
    }
    assert_eq!(world.cli(&arguments).await.ok().out, ran.out, "the same seed tells the same");
}

#[tokio::test]
async fn one_scenario_has_a_timeline_and_too_little_traffic_a_warning() {
    let world = World::new();
    let ran =
        world.cli(&["simulate", "-c", CANARY, "--runs", "3", "--rps", "2", "--scenario", "errors=50%"]).await.ok();
    for wanted in [
        "warning: stage 5 % needs 4466 canary requests",
        "gets 1440 in 4 x 1h at 2 requests a second",
        "note: freeze windows are left out",
        "advance   the rollout begins",
        "rollback  it failed more often than allowed and than stable",
        "rolled back 100 % (stage 1)",
    ] {
        assert!(ran.out.contains(wanted), "{wanted}: {}", ran.out);
    }
}

#[tokio::test]
async fn what_an_access_log_recorded_is_the_traffic() {
    let world = World::new();
    let line = |at: u64, version: &str, status: u16| {
        format!(
            "{{\"at\":{at},\"method\":\"GET\",\"status\":{status},\"duration_us\":{},\"service\":\"mcp\",\
             \"version\":\"{version}\",\"kind\":\"http\"}}\n",
            2_000 + at % 1_000
        )
    };
    // 60 seconds of 50 requests each, one in a thousand of which fails.
    let mut log: String = (0..3_000).map(|at| line(at * 20, "v1", if at % 1_000 == 500 { 503 } else { 200 })).collect();
    log.push_str(&line(5, "v2", 200));
    log.push_str("half a li\n");
    std::fs::write(world.path("access.jsonl"), &log).unwrap();
    std::fs::write(world.path("tries"), "ours: errors=50%\nnothing wrong: healthy,rps=200\n").unwrap();
    let arguments = ["--from-access-log", "access.jsonl", "--scenario", "tries", "--runs", "2", "--json"];
    let told = world.cli(&[&["simulate", "-c", CANARY][..], &arguments].concat()).await.ok().json();
    let recorded = &told["recorded"];
    for (key, wanted) in [("requests", 3_000), ("failed", 3), ("seconds", 60), ("others", 1), ("unread", 1)] {
        assert_eq!(recorded[key], wanted, "{key}: {recorded}");
    }
    assert_eq!(told["rps"], 50.0);
    assert_eq!(first(&told, "ours")["summary"]["ends"][0]["end"], "rolled_back");
    assert!(first(&told, "nothing wrong")["story"]["stable"]["total"].as_u64().expect("a count") > 10_000);
}

#[tokio::test]
async fn what_cannot_be_simulated_is_said() {
    let world = World::new();
    let service = |name: &str, rest: &str| {
        format!("  {name}:\n    versions: {{ v1: {{ endpoints: [\"127.0.0.1:1\"] }} }}\n    active: v1\n{rest}")
    };
    let with = "    rollout: { stages: [5%, 100%] }\n";
    let route = |name: &str| format!("  - {{ name: {name}, match: {{ host: {name}.test }}, service: {name} }}\n");
    let config = |routes: &[&str], services: &str| {
        let routes: String = routes.iter().map(|name| route(name)).collect();
        format!("schema: 1\nlisteners:\n  web: {{ bind: \"127.0.0.1:8080\" }}\nroutes:\n{routes}services:\n{services}")
    };
    std::fs::write(world.path("none.yaml"), config(&["shop"], &service("shop", ""))).unwrap();
    let two = [service("api", with), service("shop", with), service("www", "")].concat();
    std::fs::write(world.path("two.yaml"), config(&["api", "shop", "www"], &two)).unwrap();
    std::fs::write(world.path("broken.yaml"), "listeners: {}\nbackends: {}\n").unwrap();
    std::fs::write(world.path("empty.jsonl"), "").unwrap();
    std::fs::write(world.path("tries"), "healthy\nsick\n").unwrap();
    for (arguments, code, wanted) in [
        ("-c none.yaml", 1, "no service in none.yaml has a rollout"),
        ("-c two.yaml", 1, "say whose to simulate with --service"),
        ("-c two.yaml --service shap", 1, "did you mean `shop`?"),
        ("-c two.yaml --service www", 1, "service `www` in two.yaml has no `rollout:` section"),
        ("-c missing.yaml", 1, "missing.yaml"),
        ("-c broken.yaml", 1, "backends"),
        ("-c two.yaml --service api --scenario erors=5%", 2, "did you mean `errors`?"),
        ("-c two.yaml --service api --scenario errors=5%,after=25%", 2, "its stages are `5%` and `100%`"),
        ("-c two.yaml --service api --scenario tries", 1, "line 2: `sick` is not known"),
        ("-c two.yaml --service api --from-access-log nowhere", 1, "cannot read the access log nowhere"),
        ("-c two.yaml --service api --from-access-log empty.jsonl", 1, "it is empty"),
        ("-c two.yaml --service api --from-access-log two.yaml", 1, "are no lines of an access log"),
        ("-c two.yaml --service api --rps 0", 2, "not a number of requests a second"),
        ("-c two.yaml --service api --runs lots", 2, "lots"),
    ] {
        let arguments: Vec<&str> = std::iter::once("simulate").chain(arguments.split(' ')).collect();
        let ran = world.cli(&arguments).await;
        assert_eq!(ran.code, Some(code), "{arguments:?}: {ran:?}");
        assert!(ran.err.contains(wanted) && ran.out.is_empty(), "{arguments:?}: {ran:?}");
    }
}
