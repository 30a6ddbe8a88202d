//! Routes: one action each, patterns that can match, names that exist, none hidden behind another.

use std::collections::{HashMap, HashSet};

use http::HeaderValue;

use super::super::decode::{Field, List};
use super::super::found::{Found, Span};
use super::super::model::{self, Action, HostMatch, Match, PathMatch, Route};
use super::super::raw::{self, Raw};
use super::{Names, headers, name, paths};

pub fn routes(raw: &Raw, known: &Names<'_>, found: &mut Found) -> Vec<Route> {
    let mut routes = Vec::new();
    let empty = List::default();
    let list = match &raw.routes {
        Field::Bad => return routes,
        Field::Missing => &empty,
        Field::Given { value, .. } => value,
    };
    if list.0.is_empty() {
        found.warning_nowhere("there are no routes").why("every request is answered with 404");
    }
    let mut names: HashSet<&str> = HashSet::new();
    let mut matches: HashMap<String, &str> = HashMap::new();
    for (route, span) in list.good() {
        let errors_before = found.errors();
        let label = route.name.get().map_or("", |name| name.0.as_str());
        if let Some((name, span)) = route.name.written().filter(|(name, _)| !names.insert(name.0.as_str())) {
            found
                .error(span, format!("two routes are named `{}`", name.0))
                .hint("metrics and logs tell routes apart by name: give each its own");
        }
        let Some(raw_match) = route.matcher.get() else { continue };
        let matcher = matcher(raw_match, found);
        let policy = super::policy::route(route, found);
        let action = action(known, route, raw_match, &matcher, span, found);
        if found.errors() > errors_before {
            // What follows compares values, some of which are placeholders now.
            continue;
        }
        if let Some(first) = matches.insert(canonical(&matcher), label) {
            found
                .warning(route.name.written().map_or(span, |it| it.1), format!("route `{label}` gets no requests"))
                .why(format!("`{first}` above matches the same and comes first"));
        }
        routes.extend(action.map(|action| Route { name: name(label), matcher, policy, action }));
    }
    routes
}

/// More methods in one match are a mistake.
const METHODS_MAX: usize = 32;

/// Two matches with the same text match the same requests.
fn canonical(matcher: &Match) -> String {
    let mut sorted = matcher.clone();
    sorted.headers.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    sorted.query.sort_by(|a, b| a.0.cmp(&b.0));
    sorted.methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    format!("{sorted:?}")
}

fn matcher(raw: &raw::Match, found: &mut Found) -> Match {
    let host = raw.host.written().map_or(HostMatch::Any, |(text, span)| {
        accept(paths::host(&text.0), || format!("`{}` is not a host to match", text.0), span, found).unwrap_or_default()
    });
    let mut path = PathMatch::Any;
    let mut first: Option<(&str, Span)> = None;
    for (key, field) in [("path", &raw.path), ("path_prefix", &raw.path_prefix), ("path_regex", &raw.path_regex)] {
        let Some((text, span)) = field.written() else { continue };
        if let Some((other, _)) = first {
            let at = field.key().unwrap_or(span);
            found
                .error(at, format!("`{other}` and `{key}` cannot be used together"))
                .hint("keep one, or make two routes");
            continue;
        }
        first = Some((key, span));
        path = match key {
            "path" => accept(paths::path(&text.0), || format!("`{}` is not a path to match", text.0), span, found)
                .map(PathMatch::Exact),
            "path_prefix" => {
                accept(paths::path(&text.0), || format!("`{}` is not a path to match", text.0), span, found)
                    .map(PathMatch::Prefix)
            }
            _ => accept(paths::regex(&text.0), || format!("`{}` is not a regular expression", text.0), span, found)
                .map(PathMatch::Regex),
        }
        .unwrap_or_default();
    }
    let mut methods: Vec<http::Method> = Vec::new();
    for (method, span) in raw.method.get().into_iter().flat_map(|many| many.0.good()) {
        if methods.len() == METHODS_MAX {
            found.error(span, format!("more than {METHODS_MAX} methods"));
            break;
        }
        if methods.contains(&method.0) {
            found.error(span, format!("the method `{}` is given twice", method.0));
        }
        methods.push(method.0.clone());
    }
    if let Some((_, span)) = raw.method.written().filter(|(many, _)| many.0.0.is_empty()) {
        found.error(span, "`method` is empty").hint("leave it out to match every method");
    }
    let mut by_header = Vec::new();
    for entry in raw.headers.get().into_iter().flat_map(|map| map.iter()) {
        let (Some(header), Some(value)) = (headers::header(&entry.key.value), &entry.value) else { continue };
        headers::once(&by_header, &header, entry.key.span, found);
        if header == http::header::HOST {
            found.error(entry.key.span, "the Host is matched by `host`").hint("write `match: { host: … }`");
        }
        by_header.push((header, value_match(value)));
    }
    let query = raw
        .query
        .get()
        .into_iter()
        .flat_map(|map| map.iter())
        .filter_map(|entry| Some((entry.key.value.clone(), value_match(entry.value.as_ref()?))))
        .collect();
    Match { host, path, methods, headers: by_header, query }
}

pub fn value_match(raw: &raw::ValueMatch) -> model::ValueMatch {
    match raw {
        raw::ValueMatch::Exact(text) => model::ValueMatch::Exact(text.clone()),
        raw::ValueMatch::Present => model::ValueMatch::Present,
    }
}

fn action(
    known: &Names<'_>,
    route: &raw::Route,
    raw_match: &raw::Match,
    matcher: &Match,
    span: Span,
    found: &mut Found,
) -> Option<Action> {
    let at = route.name.written().map_or(span, |it| it.1);
    let given: Vec<(&str, Span)> = [
        ("service", !route.service.is_missing(), route.service.key()),
        ("redirect", !route.redirect.is_missing(), route.redirect.key()),
        ("respond", !route.respond.is_missing(), route.respond.key()),
    ]
    .into_iter()
    .filter(|(_, given, _)| *given)
    .map(|(key, _, span)| (key, span.unwrap_or(at)))
    .collect();
    match given.as_slice() {
        [] => {
            found
                .error(at, format!("route `{}` does nothing", route.name.get().map_or("", |name| &name.0)))
                .hint("give it one of `service`, `redirect` and `respond`");
        }
        [_] => {}
        [(first, _), .., (last, span)] => {
            found
                .error(*span, format!("`{first}` and `{last}` cannot be used together"))
                .why("a route does one thing")
                .hint("keep one, or make two routes");
        }
    }
    if let (Some(key), true) = (route.rewrite.key(), route.service.is_missing() && !given.is_empty()) {
        found.error(key, "`rewrite` only works with `service`").hint("`redirect` and `respond` say their own headers");
    }
    if let Some((service, span)) = route.service.written() {
        known.service(service, span, found);
        let rewrite = route.rewrite.get().map(|raw| rewrite(raw, raw_match, matcher, found)).unwrap_or_default();
        return Some(Action::Forward { service: name(&service.0), rewrite });
    }
    if let Some(redirect) = route.redirect.get() {
        return Some(self::redirect(redirect, found));
    }
    route.respond.get().map(|raw| respond(raw, found))
}

fn rewrite(raw: &raw::Rewrite, raw_match: &raw::Match, matcher: &Match, found: &mut Found) -> model::Rewrite {
    let path_prefix = raw.path_prefix.written().and_then(|(text, span)| {
        let anchored = match &matcher.path {
            PathMatch::Prefix(_) => true,
            PathMatch::Regex(regex) => regex.starts_with('^'),
            // A pattern that was refused was reported; it says nothing about the rewrite.
            PathMatch::Any => !raw_match.path_prefix.is_missing() || !raw_match.path_regex.is_missing(),
            PathMatch::Exact(_) => false,
        };
        if !anchored {
            found
                .error(raw.path_prefix.key().unwrap_or(span), "there is no prefix to replace")
                .why("`match` has neither `path_prefix` nor a `path_regex` that begins with `^`")
                .hint("match by `path_prefix`");
        }
        accept(paths::path(&text.0), || format!("`{}` is not a path", text.0), span, found)
    });
    let host = raw.host.written().and_then(|(text, span)| {
        let valid = text.0.parse::<http::uri::Authority>().is_ok_and(|it| !it.as_str().contains('@'));
        match HeaderValue::from_str(&text.0) {
            Ok(value) if valid => Some(value),
            _ => {
                found.error(span, format!("`{}` is not a Host", text.0)).why("write a host name, and a port if needed");
                None
            }
        }
    });
    let request_headers = raw.request_headers.get().map(|raw| headers::edits(raw, found)).unwrap_or_default();
    let response_headers = raw.response_headers.get().map(|raw| headers::edits(raw, found)).unwrap_or_default();
    model::Rewrite { path_prefix, host, request_headers, response_headers }
}

fn redirect(raw: &raw::Redirect, found: &mut Found) -> Action {
    if let Some((status, span)) = raw.status.written().filter(|(it, _)| ![301, 302, 303, 307, 308].contains(&it.0)) {
        found
            .error(span, format!("`{}` is not a status to redirect with", status.0))
            .why("301 and 308 are permanent, 302, 303 and 307 are not; 307 and 308 keep the method");
    }
    if let Some((to, span)) = raw.to.written() {
        let absolute = to.0.starts_with("https://") || to.0.starts_with("http://");
        let uri =
            to.0.parse::<http::Uri>().is_ok_and(|uri| !absolute || uri.host().is_some_and(|host| !host.is_empty()));
        let local = to.0.starts_with('/') && !to.0.starts_with("//");
        if !(absolute || local) || !uri {
            found
                .error(span, format!("`{}` is not a place to redirect to", to.0))
                .why("write `https://…`, `http://…`, or a path that begins with one `/`");
        }
    }
    Action::Redirect { to: raw.to.value().0, status: raw.status.value().0 as u16 }
}

fn respond(raw: &raw::Respond, found: &mut Found) -> Action {
    let headers = raw.headers.get().map(|map| headers::many(map, found)).unwrap_or_default();
    let status = raw.status.value().0 as u16;
    let body = raw.body.value().0;
    if let (204 | 205 | 304, Some((_, span)), false) = (status, raw.body.written(), body.is_empty()) {
        found.error(span, format!("an answer with status {status} has no body")).hint("remove `body`");
    }
    Action::Respond { status, headers, body }
}

fn accept<T>(result: Result<T, paths::Bad>, what: impl FnOnce() -> String, span: Span, found: &mut Found) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err((why, hint)) => {
            found.error(span, what()).why(why).maybe_hint(hint);
            None
        }
    }
}
