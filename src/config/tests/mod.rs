//! Configuration from text to values and back, as its users meet it.

mod broken;
mod files;
mod hostile;
mod messages;
mod policies;
mod rollout;
mod rollout_values;
mod round_trip;
mod tls;
mod upstream;

use std::path::Path;

use super::load::{Loaded, Source, parse_with};
use super::model::Config;
use super::problem::{Problems, Severity};

/// Reads one file without variables.
pub fn parse(text: &str) -> Result<Loaded, Problems> {
    parse_with(vec![source("f.yaml", text)], &|_| None)
}

pub fn source(path: &str, text: &str) -> Source {
    Source { path: path.into(), text: text.into() }
}

/// The configuration of a text that must be good; `expect` cases lose their places.
pub fn good(text: &str) -> Config {
    match parse(text) {
        Ok(loaded) => without_places(&loaded),
        Err(problems) => panic!("{problems}\n---\n{text}"),
    }
}

pub fn without_places(loaded: &Loaded) -> Config {
    let mut config = Config::clone(&loaded.config);
    for case in &mut config.expect {
        case.place.clear();
    }
    config
}

/// `line:column what | why | hint` of every error.
pub fn errors(text: &str) -> Vec<String> {
    let problems = match parse(text) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    };
    problems
        .0
        .into_iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| {
            let place = problem.place.map_or("-".into(), |place| format!("{}:{}", place.line, place.column));
            let (why, hint) = (problem.why.unwrap_or_default(), problem.hint.unwrap_or_default());
            format!("{place} {} | {why} | {hint}", problem.what)
        })
        .collect()
}

/// A file of the repository that is made from the code.
pub fn in_step(path: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "{} is out of date: UPDATE_REFERENCE=1 cargo test --lib config", path.display());
}

#[test]
fn every_example_passes() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        seen += 1;
        let loaded = super::load::read(&path).and_then(|sources| parse_with(sources, &|_| None));
        match loaded {
            Ok(loaded) => assert_eq!(loaded.warnings.to_string(), "", "{}", path.display()),
            Err(problems) => panic!("{problems}"),
        }
    }
    assert_eq!(seen, 4, "minimal, blue-green, canary, full");
}

#[test]
fn one_text_names_every_key() {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/tests/every_key.yaml")).unwrap();
    let mut missing = Vec::new();
    let mut keys = Vec::new();
    keys_of(&super::schema::schema(), &mut keys);
    for key in keys {
        if !text.contains(&format!("{key}:")) {
            missing.push(key);
        }
    }
    // The other requests of `expect`, and what can only be shown in a comment.
    missing.retain(|key| !["head", "put", "patch", "delete", "options"].contains(&key.as_str()));
    assert_eq!(missing, Vec::<String>::new());
}

fn keys_of(shape: &serde_json::Value, keys: &mut Vec<String>) {
    match shape {
        serde_json::Value::Object(members) => {
            for (name, member) in members {
                if let ("properties", Some(properties)) = (name.as_str(), member.as_object()) {
                    keys.extend(properties.keys().cloned());
                }
                keys_of(member, keys);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| keys_of(item, keys)),
        _ => {}
    }
}

#[test]
fn defaults_are_those_of_the_reference() {
    let config = good(
        "listeners: { web: { bind: \"127.0.0.1:0\" } }\n\
         routes: [{ name: a, service: a }]\n\
         services: { a: { versions: { v1: { endpoints: [\"127.0.0.1:1\"] } }, active: v1 } }\n",
    );
    let service = &config.services["a"];
    assert_eq!(service.retry.attempts, 2);
    assert_eq!(service.timeouts.request.as_secs(), 60);
    assert_eq!(service.limits.body, Some(64 << 20));
    assert_eq!(service.drain.sessions, service.drain.streams);
    assert_eq!(service.upstream.keepalive_idle.as_secs(), 4);
    assert_eq!(config.listeners["web"].limits.connections, 65_536);
    assert_eq!(config.shutdown.timeout.as_secs(), 9);
    assert_eq!(config.state_dir, None);
}

#[test]
fn a_version_named_like_a_number_stays_text() {
    let config = good(
        "listeners: { web: { bind: \"127.0.0.1:0\" } }\nroutes: [{ name: a, service: a }]\n\
         services: { a: { versions: { 1.20: { endpoints: [\"127.0.0.1:1\"] } }, split: { 1.20: 1 } } }\n",
    );
    assert!(config.services["a"].versions.contains_key("1.20"));
}

#[test]
fn an_alias_repeats_a_value() {
    let config = good(
        "listeners: { web: { bind: \"127.0.0.1:0\" } }\nroutes: [{ name: a, service: a }, { name: b, match: {path: /b}, service: b }]\n\
         services:\n  a: &it { versions: { v1: { endpoints: [\"127.0.0.1:1\"] } }, active: v1 }\n  b: *it\n",
    );
    assert_eq!(config.services["a"], config.services["b"]);
}
