//! ZD-4: broken files of every sort in one process: traffic unchanged, metric 0, the message names the
//! place; then a good file, and the metric is 1 again.

use std::fmt::Write;

use crate::harness::load::Plan;
use crate::harness::*;

struct Bad {
    what: String,
    text: Vec<u8>,
    /// What the message must contain.
    says: &'static str,
}

fn bad(what: &str, text: impl Into<Vec<u8>>, says: &'static str) -> Bad {
    Bad { what: what.into(), text: text.into(), says }
}

fn broken_files(good: &str) -> Vec<Bad> {
    let replaced = |what: &str, from: &str, to: &str, says: &'static str| {
        assert!(good.contains(from), "{what}: {from}");
        bad(what, good.replacen(from, to, 1), says)
    };
    let mut deep = String::from(good) + "x: ";
    for _ in 0..5000 {
        deep.push('[');
    }
    let mut bomb = String::from("a0: &a0 [x, x]\n");
    for nth in 1..40 {
        let _ = writeln!(bomb, "a{nth}: &a{nth} [*a{}, *a{}]", nth - 1, nth - 1);
    }
    let huge = format!("{good}# {}\n{}", "x".repeat(10 * 1024 * 1024), "nonsense: [");
    let mut files = vec![
        bad("empty", "", "schema"),
        bad("binary", vec![0u8, 159, 146, 150, 0, 1, 2, 3], ""),
        bad("a NUL byte", good.replace("shop", "sh\0op"), ""),
        bad("not a map", "- just\n- a list\n", ""),
        bad("tabs", good.replace("    versions", "\tversions"), ""),
        bad("nested too deep", deep, ""),
        bad("aliases that multiply", bomb, ""),
        bad("10 MB and then broken", huge, ""),
        replaced("unknown key", "active:", "activ:", "activ"),
        replaced("unknown key at the top", "routes:", "routing:", "routing"),
        replaced("key of a peer", "services:", "backends:", "services"),
        replaced("duplicate key", "    active: v1\n", "    active: v1\n    active: v2\n", "active"),
        replaced("unknown version", "active: v1", "active: v11", "v11"),
        replaced("unknown service", "service: shop", "service: shopp", "shopp"),
        replaced("split and active", "    active: v1\n", "    active: v1\n    split: { v1: 1 }\n", "split"),
        replaced("neither", "    active: v1\n", "", "active"),
        replaced("weights that sum to nothing", "active: v1", "split: { v1: 0, v2: 0 }", "split"),
        replaced("a negative weight", "active: v1", "split: { v1: -1, v2: 2 }", "-1"),
        replaced("a weight that is no number", "active: v1", "split: { v1: lots }", "lots"),
        replaced("a bad unit", "active: v1", "active: v1\n    timeouts: { connect: 2 parsecs }", "parsecs"),
        replaced("a bad size", "active: v1", "active: v1\n    limits: { body: 3QiB }", "QiB"),
        replaced("a bad address", "127.", "999.", "999."),
        replaced("an endpoint without port", "endpoints: [\"", "endpoints: [\"shop.internal\", \"", "port"),
        replaced("a regex that cannot be", "path_prefix: /", "path_regex: \"(\"", "regex"),
        replaced("a later feature", "active: v1", "active: v1\n    mirror: { to: v2 }", "mirror"),
        replaced("a wrong schema", "schema: 1", "schema: 99", "schema"),
        replaced("a wrong type", "versions:", "versions: nonsense\n    was:", ""),
        replaced("an unset variable", "active: v1", "active: \"${SB_E2E_UNSET}\"", "SB_E2E_UNSET"),
        replaced(
            "a public admin address",
            "admin: { bind: \"127.",
            "admin: { bind: \"0.0.0.0:9900\" }\nx: { y: \"",
            "",
        ),
        bad(
            "an expectation that fails",
            format!("{good}expect:\n  - {{ url: \"http://a.test/\", service: other }}\n"),
            "",
        ),
    ];
    for tenth in 1..10 {
        let mut cut = good.len() * tenth / 10;
        // A cut at the end of a line may leave a valid file: cut in the middle of a word.
        while !good.as_bytes()[cut].is_ascii_alphanumeric() || !good.as_bytes()[cut - 1].is_ascii_alphanumeric() {
            cut -= 1;
        }
        files.push(bad(&format!("cut at {tenth}0 %"), &good[..cut], ""));
    }
    files
}

#[tokio::test]
async fn broken_files_change_nothing_and_say_where() {
    let mut world = World::new();
    let (v1, v2) = (world.origin("v1").await, world.origin("v2").await);
    let good = world.preamble() + &one_service(&[&v1, &v2], "active: v1");
    world.start_text(&good).await;
    let generation = world.generation().await;
    let load = Load::start(world.web(), &Plan { keep_alive: 4, fresh: 0, ..Plan::default() });
    let mut silent = Vec::new();
    for file in broken_files(&good) {
        std::fs::write(world.path("candidate.yaml"), &file.text).unwrap();
        let checked = world.cli(&["check", "-c", "candidate.yaml"]).await;
        if checked.code != Some(1) || !checked.err.contains(file.says) && !checked.out.contains(file.says) {
            silent.push(format!("{}: check {checked:?}", file.what).chars().take(600).collect::<String>());
        }
        // The same through the API: refused with a problem document, nothing changed.
        if let Ok(text) = std::str::from_utf8(&file.text) {
            let seen = world.post_config("apply", text).await;
            if !(400..500).contains(&seen.status) {
                silent.push(format!("{}: apply answered {} {:.300}", file.what, seen.status, seen.text()));
            }
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n\n"));
    assert_eq!(world.generation().await, generation);
    // Through the watcher, one after the other: each is noticed as its own failure.
    for file in broken_files(&good).iter().filter(|file| !file.what.contains("expectation")).step_by(4) {
        std::fs::write(world.path("next"), &file.text).unwrap();
        std::fs::rename(world.path("next"), world.config()).unwrap();
        until(&format!("{} is noticed", file.what), || async {
            let status = world.status().await;
            let rendered = status["config"]["rendered"].as_str().unwrap_or("").to_string();
            status["config"]["last_reload_successful"] == false && rendered.contains(file.says)
        })
        .await;
        assert_eq!(world.metric("switchback_config_last_reload_successful", &[]).await, 0.0, "{}", file.what);
        assert_eq!(world.generation().await, generation, "{}", file.what);
    }
    world.write_config(&good.replace("active: v1", "active: v2"));
    until("the good file is live", || async { world.get("/").await.origin() == Some("v2") }).await;
    let successful = || async { world.metric("switchback_config_last_reload_successful", &[]).await };
    until("and said to be good", || async { successful().await == 1.0 }).await;
    load.stop().await.assert_unbroken();
}

#[tokio::test]
async fn all_errors_of_a_file_come_in_one_run() {
    let world = World::new();
    let text = "schema: 1\nlisteners:\n  web: { bind: \"127.0.0.1:1\" }\nroutes:\n  - { name: a, match: { path: /a }, service: nope \
                }\n  - { name: b, match: { path_regex: \"(\" }, service: api }\nservices:\n  api:\n    versions:\n      blue: { \
                endpoints: [\"127.0.0.1:9\"] }\n    active: gren\n    timeouts: { conect: 1s }\n";
    std::fs::write(world.path("bad.yaml"), text).unwrap();
    let human = world.cli(&["check", "-c", "bad.yaml"]).await;
    assert_eq!(human.code, Some(1));
    let said = format!("{}{}", human.out, human.err);
    for expected in ["nope", "gren", "conect", "did you mean", "bad.yaml:"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let json = world.cli(&["check", "-c", "bad.yaml", "--format", "json"]).await;
    assert_eq!(json.code, Some(1));
    let problems = json.json();
    assert!(problems.to_string().contains("\"line\""), "{problems}");
    let github = world.cli(&["check", "-c", "bad.yaml", "--format", "github"]).await;
    assert!(github.out.contains("::error file=bad.yaml,line="), "{github:?}");
}
