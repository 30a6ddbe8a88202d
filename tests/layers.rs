//! Who may use whom: the walls between the modules, as a table.
//!
//! The arrow points down: `cli, demo → worker → admin, engine, net, control → endpoints, sessions, outcome,
//! telemetry, journal → routing → config`. The compiler does not hold these walls inside one crate, so this
//! test reads the sources. Every arrow that does not point down is listed with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module with the modules of its own crate that it may name.
const MAY_USE: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("routing", &["config"]),
    ("wire", &[]),
    ("sockets", &[]),
    // What a supervisor and its workers say.
    ("handover", &["sockets"]),
    ("supervisor", &["handover", "sockets", "telemetry"]),
    ("allocator", &[]),
    ("analysis", &[]),
    ("rollout", &["analysis", "config", "routing"]),
    // Rollouts that never happened.
    ("simulate", &["analysis", "rollout", "config", "routing"]),
    // Counters and the judge of a rollout, for the engine.
    ("evidence", &["analysis", "rollout", "routing"]),
    // How much one client may have, and how often it may ask.
    ("limits", &["config", "routing"]),
    // Counters per data thread: `routing::Thread` is their index.
    ("outcome", &["routing", "config"]),
    // Leases and connections by version; `Thread` as above.
    ("sessions", &["routing", "config", "outcome", "telemetry", "endpoints", "control"]),
    ("endpoints", &["limits", "routing", "config", "outcome", "sessions", "telemetry", "control", "wire"]),
    // The access log calls a request what the judge calls it.
    ("telemetry", &["limits", "routing", "config", "outcome", "sessions", "endpoints", "control", "evidence"]),
    ("journal", &["config", "routing", "control", "telemetry"]),
    // Who is told what rollouts do, who is asked, and what Prometheus says: for control.
    ("alerts", &["config", "telemetry"]),
    (
        "control",
        &[
            "alerts",
            "analysis",
            "rollout",
            "evidence",
            "config",
            "routing",
            "endpoints",
            "sessions",
            "outcome",
            "telemetry",
            "journal",
        ],
    ),
    (
        "net",
        &[
            "sockets",
            "limits",
            "config",
            "routing",
            "sessions",
            "outcome",
            "telemetry",
            "control",
            "wire",
            "engine",
            "endpoints",
        ],
    ),
    (
        "engine",
        &[
            "analysis",
            "limits",
            "rollout",
            "evidence",
            "config",
            "routing",
            "sessions",
            "outcome",
            "telemetry",
            "control",
            "wire",
            "net",
            "endpoints",
        ],
    ),
    (
        "admin",
        &["sockets", "handover", "config", "routing", "control", "sessions", "telemetry", "outcome", "endpoints"],
    ),
    (
        "worker",
        &[
            "config",
            "routing",
            "wire",
            "outcome",
            "sessions",
            "endpoints",
            "telemetry",
            "journal",
            "control",
            "net",
            "engine",
            "admin",
            "handover",
            "sockets",
        ],
    ),
    // The demo counts its own data threads as `run` does.
    ("demo", &["config", "worker", "control", "telemetry", "admin", "sessions", "engine"]),
    // Intervals of rates are for people.
    (
        "cli",
        &[
            "analysis",
            "config",
            "routing",
            "rollout",
            "simulate",
            "control",
            "supervisor",
            "worker",
            "demo",
            "telemetry",
            "admin",
            "endpoints",
            "sessions",
        ],
    ),
];

/// Arrows that point up or sideways, each narrowed to what it may name and why.
const EXCEPTIONS: &[(&str, &str, &[&str], &str)] = &[
    ("sessions", "control", &["control::"], "drains implement control's port and watch its snapshots"),
    ("endpoints", "control", &["control::"], "checks implement control's port and read the live snapshot"),
    ("telemetry", "control", &["control::"], "events carry control's record; gauges read the live snapshot"),
    ("journal", "control", &["control::"], "stores control's records as they are"),
];

/// Parts that decide and do nothing: no clock, no input or output, no runtime, no engine.
const PURE: &[&str] = &[
    "supervisor/machine",
    "alerts/notice",
    "alerts/payload",
    "analysis",
    "rollout",
    "simulate",
    "routing",
    "sessions/deadlines",
    "config/check",
    "control/decide",
    "control/overlay",
    "wire",
];

const FORBIDDEN_IN_PURE: &[&str] = &[
    "tokio",
    "pingora",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "rusqlite",
    "hyper::",
    "getrandom",
];

#[test]
fn modules_use_only_what_is_below_them() {
    let table: BTreeMap<&str, BTreeSet<&str>> =
        MAY_USE.iter().map(|(module, uses)| (*module, uses.iter().copied().collect())).collect();
    let mut wrong = Vec::new();
    for file in sources() {
        let module = module_of(&file);
        let Some(allowed) = table.get(module.as_str()) else {
            wrong.push(format!("{}: module `{module}` is not in the table", file.display()));
            continue;
        };
        for (line, used) in uses(&code_of(&file)) {
            if used != module && !allowed.contains(used.as_str()) {
                wrong.push(format!("{}:{line}: `{module}` must not use `{used}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_at_the_bottom_knows_the_top() {
    for (module, uses) in MAY_USE {
        let top = ["cli", "demo", "worker", "admin", "net", "engine"];
        let below = !matches!(*module, "cli" | "demo" | "worker" | "net" | "engine");
        assert!(!below || uses.iter().all(|used| !top.contains(used)), "`{module}` reaches up");
    }
    for (module, used, _, why) in EXCEPTIONS {
        let uses = MAY_USE.iter().find(|(name, _)| name == module).expect("the exception's module is in the table").1;
        assert!(uses.contains(used), "the exception {module} → {used} is not used any more: {why}");
    }
}

#[test]
fn the_pure_parts_name_no_clock_runtime_file_or_socket() {
    let mut wrong = Vec::new();
    for file in sources() {
        let path = file.strip_prefix(root()).expect("a source is under src").with_extension("");
        let path = path.to_string_lossy();
        if !PURE.iter().any(|pure| *path == **pure || path.starts_with(&format!("{pure}/"))) {
            continue;
        }
        for (number, line) in code_of(&file).lines().enumerate() {
            for word in FORBIDDEN_IN_PURE.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{}:{}: `{word}` in a pure module", file.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_scan_sees_a_use_of_every_form() {
    let text =
        "use crate::config::{A, B};\nlet x = crate::routing::split::Split::new();\nuse crate::{net, engine::app};\n";
    let found: Vec<String> = uses(text).into_iter().map(|(_, used)| used).collect();
    assert_eq!(found, ["config", "routing", "net", "engine"]);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source below `src/` that belongs to a module (not `lib.rs`, not `main.rs`).
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") && path.parent() != Some(&root()) {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 20, "the scan finds the sources");
    found.sort();
    found
}

fn module_of(file: &Path) -> String {
    let below = file.strip_prefix(root()).expect("a source is under src");
    below.components().next().expect("a source has a folder").as_os_str().to_string_lossy().into_owned()
}

/// The text without comments and without the tests at the end, which may use anything.
fn code_of(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a source can be read");
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or("");
    code.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line }).collect::<Vec<_>>().join("\n")
}

/// Line and first segment of every `crate::…` path.
fn uses(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or("").split(',').map(first_word).collect(),
            None => vec![first_word(rest)],
        };
        found.extend(names.into_iter().filter(|name| !name.is_empty()).map(|name| (line, name)));
    }
    found
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
