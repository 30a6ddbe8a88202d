//! Tables made to hurt whoever asks them: what an answer costs does not depend on them.

use std::fmt::Write as _;
use std::sync::Arc;

use super::super::compile::compile;
use super::super::matcher::RequestView;
use super::super::table::Table;
use crate::config::load::{Source, parse_with};

const SERVICE: &str = "services:\n  s: { versions: { v: { endpoints: [\"h:1\"] } }, active: v }\n";

fn table(routes: &str) -> Table {
    let text = format!("listeners: {{ web: {{ bind: \"127.0.0.1:0\" }} }}\nroutes:\n{routes}{SERVICE}");
    let loaded = parse_with(vec![Source { path: "f.yaml".into(), text }], &|_| None);
    compile(Arc::clone(&loaded.unwrap_or_else(|why| panic!("{why}")).config)).expect("it compiles")
}

fn ask(table: &Table, host: &str, path: &str) -> Option<String> {
    let (method, headers) = (http::Method::GET, http::HeaderMap::new());
    let view = RequestView { method: &method, host, path, query: None, headers: &headers };
    table.route(&view).map(|route| table.route_at(route).route.name.to_string())
}

#[test]
fn a_pattern_that_others_backtrack_over_for_ever_is_linear_here() {
    let table = table("  - { name: a, match: { path_regex: \"^/(a+)+$\" }, service: s }\n");
    assert_eq!(ask(&table, "a", &format!("/{}!", "a".repeat(4000))), None);
    assert_eq!(ask(&table, "a", &format!("/{}", "a".repeat(4000))).as_deref(), Some("a"));
}

#[test]
fn sixty_five_thousand_hosts_are_told_apart() {
    const HOSTS: usize = 65_536;
    let mut routes = String::new();
    for nth in 0..HOSTS {
        let _ = writeln!(routes, "  - {{ name: r{nth}, match: {{ host: h{nth}.test }}, service: s }}");
    }
    let table = table(&routes);
    for nth in [0, 1, 4711, HOSTS - 1] {
        assert_eq!(ask(&table, &format!("h{nth}.test"), "/"), Some(format!("r{nth}")));
    }
    assert_eq!(ask(&table, "h65536.test", "/"), None);
}
