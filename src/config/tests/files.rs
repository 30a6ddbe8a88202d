//! Files as they lie on disk: one, several, none, and what is not one.

use std::fs;

use proptest::prelude::*;

use super::super::load::{hash, parse, parse_with, read};
use super::{good, source, without_places};

const PARTS: &[(&str, &str)] = &[
    ("listeners", "  web: { bind: \"127.0.0.1:8080\" }\n"),
    ("listeners", "  two: { bind: \"127.0.0.1:8081\" }\n"),
    ("admin", "  bind: \"127.0.0.1:9901\"\n"),
    ("expose", "  response_headers: true\n"),
    ("routes", "  - { name: a, match: { path: /a }, service: a }\n"),
    ("routes", "  - { name: b, match: { path: /b }, service: b }\n"),
    ("routes", "  - { name: c, match: { path: /c }, respond: { body: c } }\n"),
    ("services", "  a: { versions: { v1: { endpoints: [\"127.0.0.1:1\"] } }, active: v1 }\n"),
    ("services", "  b: { versions: { v1: { endpoints: [\"127.0.0.1:2\"] } }, split: { v1: 1 } }\n"),
    ("expect", "  - { get: \"http://x/a\", service: a }\n"),
    ("expect", "  - { get: \"http://x/c\", status: 200 }\n"),
];

/// The parts that fall to one file, each under its key.
fn file(parts: &[(&str, &str)]) -> String {
    let mut text = String::from("schema: 1\n");
    let mut last = "";
    for (key, part) in parts {
        if *key != last {
            text.push_str(&format!("{key}:\n"));
        }
        last = key;
        text.push_str(part);
    }
    text
}

proptest! {
    #[test]
    fn any_partition_over_files_is_the_same_configuration(of in proptest::collection::vec(0..4_usize, PARTS.len())) {
        let whole = good(&file(PARTS));
        // Lists go on in file order: their parts are dealt out in ascending order.
        let mut of = of;
        for key in ["routes", "expect"] {
            let at: Vec<usize> = (0..PARTS.len()).filter(|part| PARTS[*part].0 == key).collect();
            let mut files: Vec<usize> = at.iter().map(|part| of[*part]).collect();
            files.sort_unstable();
            at.iter().zip(files).for_each(|(part, file)| of[*part] = file);
        }
        let sources = (0..4)
            .map(|n| {
                let parts: Vec<_> = PARTS.iter().zip(&of).filter(|(_, file)| **file == n).map(|(part, _)| *part).collect();
                source(&format!("{n}.yaml"), &file(&parts))
            })
            .collect();
        let loaded = parse_with(sources, &|_| None).map_err(|problems| TestCaseError::fail(problems.to_string()))?;
        prop_assert_eq!(without_places(&loaded), whole);
    }
}

#[test]
fn a_name_given_in_two_files_names_both_places() {
    let sources = vec![
        source("a.yaml", "listeners: { web: { bind: \"127.0.0.1:1\" } }\nadmin: {}\nroutes: []\n"),
        source("b.yaml", "\n\nlisteners: { web: { bind: \"127.0.0.1:2\" } }\nadmin: {}\n"),
    ];
    let text = parse_with(sources, &|_| None).unwrap_err().to_string();
    assert!(text.contains("error: `web` is given twice\n  --> b.yaml:3:14"), "{text}");
    assert!(text.contains("first in a.yaml:1"), "{text}");
    assert!(text.contains("error: `admin` is given twice\n  --> b.yaml:4:1"), "{text}");
}

#[test]
fn mistakes_of_all_files_are_named_and_a_broken_one_hides_no_other() {
    let sources = vec![
        source("a.yaml", "listeners: { web: { bind: \"127.0.0.1:1\" } }\nbackends: {}\n"),
        source("b.yaml", "services: [\n"),
        source("c.yaml", "routes: [{ name: x, service: in-b }]\nlistners: {}\n"),
    ];
    let text = parse_with(sources, &|_| None).unwrap_err().to_string();
    for part in ["a.yaml:2:1", "--> b.yaml:", "c.yaml:2:1"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains("in-b"), "b.yaml may define it:\n{text}");
}

#[test]
fn a_directory_is_read_in_name_order() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("20.yml"), "routes: [{ name: b, match: { path: /b }, respond: {} }]\n").unwrap();
    fs::write(at("10.yaml"), "listeners: { w: { bind: \"127.0.0.1:0\" } }\nroutes: [{ name: a, respond: {} }]\n")
        .unwrap();
    fs::write(at(".hidden.yaml"), "nonsense: true\n").unwrap();
    fs::write(at("notes.txt"), "nonsense\n").unwrap();
    fs::create_dir(at("sub.yaml")).unwrap();
    let loaded = parse(read(dir.path()).unwrap()).unwrap();
    let names: Vec<&str> = loaded.config.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn what_cannot_be_read_is_one_clear_problem() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("latin1.yaml"), b"schema: 1\nstate_dir: caf\xe9\n").unwrap();
    fs::write(at("huge.yaml"), "# ".repeat(9 << 20)).unwrap();
    for (name, words) in [
        ("nowhere.yaml", &["nowhere.yaml cannot be read", "no such file", "config init"][..]),
        ("empty", &["no configuration in the directory", "`.yaml`"]),
        ("latin1.yaml", &["not a text file in UTF-8", "latin1.yaml:2:15", "0xe9"]),
        ("huge.yaml", &["too large", "16 MiB"]),
    ] {
        let problems = read(&at(name)).unwrap_err();
        assert_eq!(problems.0.len(), 1, "{problems}");
        let text = problems.to_string();
        for word in words {
            assert!(text.contains(word), "{word} in\n{text}");
        }
    }
}

#[test]
fn relative_paths_start_at_the_file_that_names_them() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("token"), "let-me-in\n").unwrap();
    let path = dir.path().join("s.yaml");
    let text = "state_dir: ./state\naccess_log: { to: logs/a.log }\nadmin: { bind: \"unix:admin.sock\" }\n\
        listeners: { w: { bind: \"127.0.0.1:0\" } }\nroutes: [{ name: a, service: a }]\n\
        services: { a: { versions: { v1: { endpoints: [\"h:1\"] } }, active: v1, force: { header: x-v, token_file: token } } }\n";
    fs::write(&path, text).unwrap();
    let config = parse(read(&path).unwrap()).unwrap().config;
    assert_eq!(config.state_dir, Some(dir.path().join("./state")));
    let force = config.services["a"].force.clone().unwrap();
    assert_eq!(force.token.as_deref(), Some("let-me-in"));
    let shown = super::super::render::to_yaml(&config);
    assert!(!shown.contains("let-me-in") && shown.contains("token_file"), "{shown}");
    assert_eq!(without_places(&parse(vec![source("elsewhere.yaml", &shown)]).unwrap()), *config);
}

#[test]
fn the_hash_tells_contents_and_names_apart() {
    let one = [source("a.yaml", "ab"), source("b.yaml", "c")];
    let other = [source("a.yaml", "a"), source("b.yaml", "bc")];
    assert_ne!(hash(&one), hash(&other));
    assert_ne!(hash(&one[..1]), hash(&[source("c.yaml", "ab")]));
    assert_eq!(hash(&one[..1]), hash(&[source("elsewhere/a.yaml", "ab")]));
    assert_eq!(hash(&one).len(), 64);
}

#[test]
fn variables_are_filled_in_after_parsing() {
    let text =
        "listeners: { w: { bind: \"127.0.0.1:${PORT:-1}\" } }\nroutes: [{ name: a, respond: { body: \"${BODY}\" } }]\n";
    let lookup = |name: &str| (name == "BODY").then(|| "x\"}\nroutes: []".to_owned());
    let loaded = parse_with(vec![source("f.yaml", text)], &lookup).unwrap();
    assert_eq!(loaded.config.listeners["w"].bind.port(), 1);
    let body = match &loaded.config.routes[0].action {
        crate::config::model::Action::Respond { body, .. } => body.as_str(),
        other => panic!("{other:?}"),
    };
    assert_eq!(body, "x\"}\nroutes: []", "a value never becomes syntax");
}
