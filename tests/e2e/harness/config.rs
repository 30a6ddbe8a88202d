//! Pieces of configuration text.

use super::origin::Origin;

/// One service named `shop` behind one route that takes everything. `more` holds further keys of the
/// service, one a line, without indentation (`split: { v1: 50, v2: 50 }`).
pub fn one_service(origins: &[&Origin], more: &str) -> String {
    format!(
        "routes:\n  - {{ name: all, match: {{ path_prefix: / }}, service: shop }}\nservices:\n{}",
        service("shop", origins, more)
    )
}

/// A service whose versions are the origins, each named as the origin is; origins of one name are the
/// endpoints of one version.
pub fn service(name: &str, origins: &[&Origin], more: &str) -> String {
    let mut text = format!("  {name}:\n    versions:\n");
    let mut names: Vec<&str> = origins.iter().map(|origin| origin.shared.name.as_str()).collect();
    names.dedup();
    for version in names {
        let of_version = origins.iter().filter(|origin| origin.shared.name == version);
        let endpoints: Vec<String> = of_version.map(|origin| format!("\"{}\"", origin.address)).collect();
        text += &format!("      {version}: {{ endpoints: [{}] }}\n", endpoints.join(", "));
    }
    for line in more.lines() {
        text += &format!("    {line}\n");
    }
    text
}
