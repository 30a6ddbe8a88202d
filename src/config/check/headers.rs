//! Header names and values that configuration may set.

use http::{HeaderName, HeaderValue};

use super::super::decode::{List, Map, OneOrMany};
use super::super::found::{Found, Span};
use super::super::model::HeaderEdits;
use super::super::raw;
use super::super::scalar::{Header, HeaderText};

/// More headers in one place are a mistake.
const MANY: usize = 100;

/// What frames a message or speaks of one connection belongs to the proxy: RFC 9110 section 7.6.1.
const OURS: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub fn edits(raw: &raw::HeaderEdits, found: &mut Found) -> HeaderEdits {
    let none = List::default();
    let remove = raw.remove.get().unwrap_or(&none);
    for (header, span) in remove.good() {
        editable(&header.0, span, found);
    }
    let set = raw.set.get().map(|map| single(map, found)).unwrap_or_default();
    let add = raw.add.get().map(|map| many(map, found)).unwrap_or_default();
    HeaderEdits { remove: remove.good().map(|(header, _)| header.0.clone()).collect(), set, add }
}

/// Headers with one value each.
fn single(map: &Map<Header, HeaderText>, found: &mut Found) -> Vec<(HeaderName, HeaderValue)> {
    let mut out: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for entry in map.iter() {
        let (Some(name), Some(value)) = (header(&entry.key.value), &entry.value) else { continue };
        editable(&name, entry.key.span, found);
        once(&out, &name, entry.key.span, found);
        out.push((name, value.0.clone()));
    }
    out
}

/// Headers with one or more values each, for messages that are being made or changed.
pub fn many(map: &Map<Header, OneOrMany<HeaderText>>, found: &mut Found) -> Vec<(HeaderName, HeaderValue)> {
    let mut out = Vec::new();
    for entry in map.iter() {
        let (Some(name), Some(values)) = (header(&entry.key.value), &entry.value) else { continue };
        editable(&name, entry.key.span, found);
        once(&out, &name, entry.key.span, found);
        out.extend(values.0.good().map(|(value, _)| (name.clone(), value.0.clone())));
    }
    out
}

/// Headers of a request that is only imagined.
pub fn any(map: &Map<Header, OneOrMany<HeaderText>>, found: &mut Found) -> Vec<(HeaderName, HeaderValue)> {
    let mut out = Vec::new();
    for entry in map.iter() {
        let (Some(name), Some(values)) = (header(&entry.key.value), &entry.value) else { continue };
        once(&out, &name, entry.key.span, found);
        out.extend(values.0.good().map(|(value, _)| (name.clone(), value.0.clone())));
    }
    out
}

/// Reads a key that was checked when it was decoded.
pub fn header(name: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).ok()
}

/// The same name in another case is the same header.
pub fn once<T>(seen: &[(HeaderName, T)], name: &HeaderName, span: Span, found: &mut Found) {
    if seen.len() >= MANY {
        if seen.len() == MANY {
            found.error(span, format!("more than {MANY} headers")).hint("are they meant to be sent?");
        }
        return;
    }
    if seen.iter().any(|(other, _)| other == name) {
        found.error(span, format!("the header `{name}` is given twice")).why("names of headers ignore case");
    }
}

/// Refuses the headers that are the proxy's own.
pub fn editable(name: &HeaderName, span: Span, found: &mut Found) {
    if !OURS.contains(&name.as_str()) {
        return;
    }
    let finding = found.error(span, format!("the header `{name}` cannot be changed"));
    finding.why("it frames the message or belongs to one connection");
    match name.as_str() {
        "host" => finding.hint("to change the Host sent to endpoints use `rewrite: { host: … }`"),
        _ => finding.hint("remove it: the proxy writes it itself"),
    };
}
