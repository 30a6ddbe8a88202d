//! The path an endpoint is asked for when a route rewrites it.

use regex::Regex;

use super::table::CompiledRoute;
use crate::config::model::{Action, PathMatch, Route};

/// The pattern whose match is replaced, for routes that rewrite by `path_regex`. The matcher has compiled the
/// same pattern without complaint.
pub(super) fn pattern(route: &Route) -> Option<Regex> {
    match (&route.action, &route.matcher.path) {
        (Action::Forward { rewrite, .. }, PathMatch::Regex(pattern)) if rewrite.path_prefix.is_some() => {
            Regex::new(pattern).ok()
        }
        (Action::Forward { .. } | Action::Redirect { .. } | Action::Respond { .. }, _) => None,
    }
}

impl CompiledRoute {
    /// The normalised `path` with the part that matched replaced, or `None` if the route leaves it alone.
    /// Slashes do not double where the two parts meet.
    pub fn rewrite(&self, path: &str) -> Option<String> {
        let to = match &self.route.action {
            Action::Forward { rewrite, .. } => rewrite.path_prefix.as_deref()?,
            Action::Redirect { .. } | Action::Respond { .. } => return None,
        };
        let rest = match (&self.route.matcher.path, &self.rewritten) {
            (PathMatch::Prefix(prefix), _) => path.strip_prefix(prefix.trim_end_matches('/')).unwrap_or(path),
            (PathMatch::Regex(_), Some(pattern)) => pattern.find(path).map_or(path, |found| &path[found.end()..]),
            (PathMatch::Regex(_) | PathMatch::Any | PathMatch::Exact(_), _) => path,
        };
        let (to, rest) = (to.trim_end_matches('/'), rest.trim_start_matches('/'));
        let ends_with_slash = path.ends_with('/');
        Some(match (to, rest) {
            ("", rest) => format!("/{rest}"),
            (to, "") if !ends_with_slash => to.to_string(),
            (to, rest) => format!("{to}/{rest}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load::{Source, parse};
    use crate::routing::compile::compile;

    fn rewritten(matching: &str, to: &str, path: &str) -> String {
        let text = format!(
            "listeners: {{ web: {{ bind: \"127.0.0.1:8080\" }} }}\n\
             routes: [{{ name: r, match: {{ {matching} }}, service: s, rewrite: {{ path_prefix: \"{to}\" }} }}]\n\
             services: {{ s: {{ versions: {{ v: {{ endpoints: [\"127.0.0.1:1\"] }} }}, active: v }} }}\n"
        );
        let loaded =
            parse(vec![Source { path: "t.yaml".into(), text }]).unwrap_or_else(|problems| panic!("{problems}"));
        let table = compile(loaded.config).expect("it was checked");
        table.routes[0].rewrite(path).expect("the route rewrites")
    }

    #[test]
    fn the_matched_part_is_replaced_and_slashes_do_not_double() {
        for (matching, to, path, wanted) in [
            ("path_prefix: /api", "/", "/api/7", "/7"),
            ("path_prefix: /api", "/", "/api", "/"),
            ("path_prefix: /api/", "/v2/", "/api/7", "/v2/7"),
            ("path_prefix: /api", "/v2", "/api", "/v2"),
            ("path_prefix: /api", "/v2", "/api/", "/v2/"),
            ("path_prefix: /", "/base", "/x/y", "/base/x/y"),
            ("path_regex: \"^/v[0-9]+/\"", "/", "/v12/users", "/users"),
            ("path_regex: \"^/v[0-9]+\"", "/api", "/v1/users/", "/api/users/"),
        ] {
            assert_eq!(rewritten(matching, to, path), wanted, "{matching} -> {to}: {path}");
        }
    }
}
