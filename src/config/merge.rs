//! Several files, one configuration: maps by name, lists one after the other, anything else once.

use super::found::{Found, Span, Spanned};
use super::load::Source;
use super::tree::{Node, Value};

type Entries = Vec<(Spanned<String>, Node)>;

/// Maps whose entries may come from several files.
const BY_NAME: &[&str] = &["listeners", "services", "gates", "notifications"];
/// Lists that go on in the next file.
const IN_ORDER: &[&str] = &["routes", "expect"];
/// Says something about its own file, so every file may say it.
const PER_FILE: &[&str] = &["schema"];

/// Roots in file order to one root.
pub fn merge(roots: Vec<Node>, sources: &[Source], found: &mut Found) -> Option<Node> {
    let mut merged: Option<Node> = None;
    for root in roots {
        let Some(into) = &mut merged else {
            merged = Some(root);
            continue;
        };
        let (Value::Map(into), Value::Map(entries)) = (&mut into.value, root.value) else {
            found.error(root.span, "a configuration file must be a map");
            continue;
        };
        for (key, node) in entries {
            match into.iter_mut().find(|(known, _)| known.value == key.value) {
                None => into.push((key, node)),
                Some((first, value)) => join(first, value, key, node, sources, found),
            }
        }
    }
    merged
}

fn join(
    first: &Spanned<String>,
    into: &mut Node,
    key: Spanned<String>,
    node: Node,
    sources: &[Source],
    found: &mut Found,
) {
    let name = key.value.as_str();
    match (&mut into.value, node.value) {
        // Reported when it is decoded.
        (Value::Null, _) if BY_NAME.contains(&name) || IN_ORDER.contains(&name) => {}
        (Value::Map(into), Value::Map(entries)) if BY_NAME.contains(&name) => by_name(into, entries, sources, found),
        (Value::List(into), Value::List(items)) if IN_ORDER.contains(&name) => into.extend(items),
        (Value::Text(one), Value::Text(other)) if PER_FILE.contains(&name) && *one == other => {}
        (_, Value::Null) if BY_NAME.contains(&name) || IN_ORDER.contains(&name) => {
            found.error(node.span, format!("`{name}` has nothing under it"));
        }
        (_, other) if BY_NAME.contains(&name) => {
            found.error(node.span, format!("`{name}` must be a map, not {}", other.kind()));
        }
        (_, other) if IN_ORDER.contains(&name) => {
            found.error(node.span, format!("`{name}` must be a list, not {}", other.kind()));
        }
        _ => twice(name, first.span, key.span, sources, found),
    }
}

fn by_name(into: &mut Entries, entries: Entries, sources: &[Source], found: &mut Found) {
    let mut known: std::collections::HashMap<String, Span> =
        into.iter().map(|(key, _)| (key.value.clone(), key.span)).collect();
    for (key, node) in entries {
        match known.get(&key.value) {
            Some(first) => twice(&key.value, *first, key.span, sources, found),
            None => {
                known.insert(key.value.clone(), key.span);
                into.push((key, node));
            }
        }
    }
}

fn twice(name: &str, first: Span, second: Span, sources: &[Source], found: &mut Found) {
    found
        .error(second, format!("`{name}` is given twice"))
        .why(format!("first in {}", place(first, sources)))
        .hint("keep one of them");
}

/// `file:line`.
pub fn place(span: Span, sources: &[Source]) -> String {
    let source = &sources[span.file as usize];
    let before = source.text.as_bytes().get(..span.start as usize).unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    format!("{}:{line}", source.path.display())
}
