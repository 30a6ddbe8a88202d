//! Routing cases: one request each, and only names that exist.

use http::Method;

use super::super::found::{Found, Span};
use super::super::model::{Expect, Want};
use super::super::raw::{self, Raw};
use super::{Around, Names, headers, known_version, name};

pub fn expect(raw: &Raw, known: &Names<'_>, around: &mut Around<'_>, found: &mut Found) -> Vec<Expect> {
    let cases = raw.expect.get().into_iter().flat_map(|list| list.good());
    cases.filter_map(|(case, span)| one(raw, known, case, span, around, found)).collect()
}

fn one(
    raw: &Raw,
    known: &Names<'_>,
    case: &raw::Expect,
    span: Span,
    around: &mut Around<'_>,
    found: &mut Found,
) -> Option<Expect> {
    let request = request(case, span, found);
    let headers = case.headers.get().map(|map| headers::any(map, found)).unwrap_or_default();
    if let (Some((route, span)), true) = (case.route.written(), raw.routes.get().is_some() || raw.routes.is_missing()) {
        known.route(route, span, found);
    }
    if let Some((service, span)) = case.service.written() {
        known.service(service, span, found);
    }
    version(known, case, found);
    let nothing =
        case.route.is_missing() && case.service.is_missing() && case.version.is_missing() && case.status.is_missing();
    if nothing {
        found.error(span, "this case expects nothing").hint("add one of `route`, `service`, `version` and `status`");
    }
    let (method, url) = request?;
    Some(Expect {
        method,
        url,
        headers,
        want: Want {
            route: case.route.get().map(|it| name(&it.0)),
            service: case.service.get().map(|it| name(&it.0)),
            version: case.version.get().map(|it| name(&it.0)),
            status: case.status.get().map(|it| it.0 as u16),
        },
        place: (around.place)(span),
    })
}

/// The version must be one of the named service, or of any when none is named.
fn version(known: &Names<'_>, case: &raw::Expect, found: &mut Found) {
    let Some((version, span)) = case.version.written().filter(|_| known.complete) else { return };
    match case.service.get() {
        Some(service) => {
            if let Some(versions) = known.versions.get(service.0.as_str()) {
                known_version(&service.0, &version.0, versions, span, found);
            }
        }
        None if known.any_version.contains(version.0.as_str()) => {}
        None => drop(found.error(span, format!("no service has a version `{}`", version.0))),
    }
}

fn request(case: &raw::Expect, span: Span, found: &mut Found) -> Option<(Method, String)> {
    let by_method = [
        (Method::GET, &case.get),
        (Method::HEAD, &case.head),
        (Method::POST, &case.post),
        (Method::PUT, &case.put),
        (Method::PATCH, &case.patch),
        (Method::DELETE, &case.delete),
        (Method::OPTIONS, &case.options),
    ];
    let missing = by_method.iter().all(|(_, field)| field.is_missing()) && case.request.is_missing();
    if missing {
        found.error(span, "this case has no request").hint("add one, such as `get: \"https://shop.example.com/\"`");
        return None;
    }
    let mut given: Vec<(Method, &str, Span)> = by_method
        .into_iter()
        .filter_map(|(method, field)| field.written().map(|(url, span)| (method, url.0.as_str(), span)))
        .collect();
    if let Some((text, span)) = case.request.written() {
        let (method, url) = text.0.split_once(' ').unwrap_or(("", &text.0));
        match Method::from_bytes(method.as_bytes()) {
            Ok(method) => given.push((method, url.trim(), span)),
            Err(_) => {
                found.error(span, format!("`{}` is not a request", text.0)).why("write method, a blank and the URL");
            }
        }
    }
    let (method, url, span) = match given.as_slice() {
        [] => return None,
        [one] => one,
        [_, .., (_, _, span)] => {
            found.error(*span, "this case has two requests").hint("make two cases");
            return None;
        }
    };
    let uri = url
        .parse::<http::Uri>()
        .ok()
        .filter(|uri| uri.host().is_some_and(|host| !host.is_empty()) && uri.scheme().is_some());
    if uri.is_none() {
        found
            .error(*span, format!("`{url}` is not a whole URL"))
            .why("write scheme, host and path: `https://shop.example.com/cart`");
        return None;
    }
    Some((method.clone(), (*url).to_owned()))
}
