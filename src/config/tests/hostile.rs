//! Configurations made to hurt whoever reads them: each is refused where it stands.

use std::fmt::Write as _;
use std::time::Instant;

use super::errors;

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
        "method: \"GET /\"".into(),
    ] {
        let found = errors(&with_match(&matcher));
        assert!(!found.is_empty(), "{matcher:.60} is accepted");
    }
}
