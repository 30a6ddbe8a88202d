//! Configurations made to hurt whoever reads them: each is refused where it stands, or costs what its size says.

use std::fmt::Write as _;
use std::time::Instant;

use super::{errors, parse};
use crate::routing::compile::compile;
use crate::routing::matcher::RequestView;

/// A file of one service and this route matcher.
fn with_match(matcher: &str) -> String {
    format!(
        "listeners: {{ web: {{ bind: \"127.0.0.1:0\" }} }}\nroutes:\n  - {{ name: a, match: {{ {matcher} }}, service: s }}\nservices:\n  s: {{ versions: {{ v: {{ endpoints: [\"h:1\"] }} }}, active: v }}\n"
    )
}

fn with_split(split: &str) -> String {
    with_match("path_prefix: /").replace("active: v", &format!("split: {split}"))
}

#[test]
fn patterns_that_explode_are_refused_where_they_stand() {
    let nested = format!("{}a{}", "(".repeat(1000), ")".repeat(1000));
    let wide = format!("/{}", "\\\\p{L}{1000}".repeat(20));
    for pattern in
        ["/(a{1000}){1000}", "/((a{100}){100}){100}", "/(a|b){4294967295}", "/(?:x{0,1000}){1000}", &nested, &wide]
    {
        let start = Instant::now();
        let found = errors(&with_match(&format!("path_regex: \"{pattern}\"")));
        assert_eq!(found.len(), 1, "{pattern:.40}: {found:?}");
        assert!(found[0].starts_with("3:"), "{found:?}");
        assert!(start.elapsed().as_secs() < 5, "{pattern:.40} took {:?}", start.elapsed());
    }
    // What would take a backtracking matcher for ever is an ordinary pattern here.
    let loaded = parse(&with_match("path_regex: \"^/(a+)+$\"")).expect("it is small");
    let table = compile(loaded.config).expect("it compiles");
    let path = format!("/{}!", "a".repeat(4000));
    let (method, headers) = (http::Method::GET, http::HeaderMap::new());
    let start = Instant::now();
    let view = RequestView { method: &method, host: "a", path: &path, query: None, headers: &headers };
    assert_eq!(table.route(&view), None);
    assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
}

#[test]
fn weights_that_overflow_are_refused_where_they_stand() {
    let many: String = (0..40).fold(String::new(), |mut all, nth| {
        let _ = write!(all, "v{nth}: 4294967295, ");
        all
    });
    for split in [
        "{ v: 4294967296 }",
        "{ v: 18446744073709551616 }",
        "{ v: 1e9 }",
        "{ v: -1 }",
        "{ v: .inf }",
        "{ v: 0x7fffffff }",
        "{ v: 0 }",
        &format!("{{ {many} }}"),
    ] {
        let found = errors(&with_split(split));
        assert!(!found.is_empty(), "{split:.60} is accepted");
        assert!(found.iter().all(|one| !one.starts_with('-')), "{split:.60}: {found:?}");
    }
}

#[test]
fn sixty_five_thousand_hosts_cost_what_they_weigh() {
    const HOSTS: usize = 65_536;
    let mut text = String::from("listeners: { web: { bind: \"127.0.0.1:0\" } }\nroutes:\n");
    for nth in 0..HOSTS {
        let _ = writeln!(text, "  - {{ name: r{nth}, match: {{ host: h{nth}.test }}, service: s }}");
    }
    text += "services:\n  s: { versions: { v: { endpoints: [\"h:1\"] } }, active: v }\n";
    let loaded = parse(&text).expect("the file is valid");
    let table = compile(loaded.config).expect("it compiles");
    let (method, headers) = (http::Method::GET, http::HeaderMap::new());
    for nth in [0, 1, 4711, HOSTS - 1] {
        let host = format!("h{nth}.test");
        let view = RequestView { method: &method, host: &host, path: "/", query: None, headers: &headers };
        let route = table.route(&view).map(|route| table.route_at(route).route.name.to_string());
        assert_eq!(route, Some(format!("r{nth}")));
    }
    let again = text.replace("host: h4711.test", "host: h4712.test");
    let found = errors(&again);
    assert!(found.iter().all(|one| !one.starts_with('-')), "{found:?}");
}

#[test]
fn names_and_values_without_end_are_refused_where_they_stand() {
    let long = "a".repeat(70_000);
    for matcher in [
        format!("host: {long}.test"),
        format!("host: \"{}test\"", "a.".repeat(200)),
        "host: \"a b\"".into(),
        "host: \"*.*.test\"".into(),
        "host: \"caf\u{e9}.test\"".into(),
        "path: /a/../b".into(),
        "path: \"/a\\r\\nx: y\"".into(),
        "path: \"/\u{0}\"".into(),
        "headers: { \"x y\": a }".into(),
        "headers: { x: \"a\\r\\nb\" }".into(),
        "method: \"GET /\"".into(),
    ] {
        let found = errors(&with_match(&matcher));
        assert!(!found.is_empty(), "{matcher:.60} is accepted");
    }
}
