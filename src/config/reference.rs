//! The reference in Markdown, made from the JSON Schema: `docs/configuration.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::decode::Decode;
use super::raw::Raw;

const INTRODUCTION: &str = include_str!("reference.md");

/// The whole page.
pub fn reference() -> String {
    let mut out = INTRODUCTION.to_owned();
    out.push_str("\n## Keys\n\n`*` stands for a name of your choice, `[]` for each item of a list.\n");
    let shape = Raw::shape();
    let mut homes = Homes::new();
    below(&shape, "", &mut |path, shape| {
        let home = homes.entry(shape["properties"].to_string()).or_insert_with(|| path.to_owned());
        if path.matches('.').count() < home.matches('.').count() {
            *home = path.to_owned();
        }
        true
    });
    below(&shape, "", &mut |path, shape| section(&mut out, path, shape, &homes));
    out
}

/// Where keys that stand in several places are described: the path with the fewest steps.
type Homes = BTreeMap<String, String>;

/// One map with fixed keys. Says whether its own maps are described below it.
fn section(out: &mut String, path: &str, shape: &Value, homes: &Homes) -> bool {
    let Some(properties) = shape["properties"].as_object() else { return false };
    let title = if path.is_empty() { "Top level".to_owned() } else { format!("`{path}`") };
    let about = shape["description"].as_str().unwrap_or_default();
    write!(out, "\n### {title}\n\n{about}\n").expect(TO_STRING);
    if let Some(home) = homes.get(&shape["properties"].to_string()).filter(|home| *home != path) {
        writeln!(out, "\nThe same keys as `{home}`.").expect(TO_STRING);
        return false;
    }
    write!(out, "\n| Key | Value | Default | Meaning |\n|---|---|---|---|\n").expect(TO_STRING);
    let required = |key: &str| shape["required"].as_array().is_some_and(|keys| keys.iter().any(|it| it == key));
    for (key, shape) in properties {
        let default = match &shape["default"] {
            Value::Null if required(key) => "**required**".to_owned(),
            Value::Null => String::new(),
            Value::String(text) if text.is_empty() => "empty".into(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let meaning = shape["description"].as_str().unwrap_or_default().replace('|', "\\|");
        writeln!(out, "| `{key}` | {} | {default} | {meaning} |", kind(shape)).expect(TO_STRING);
    }
    true
}

/// Every map with fixed keys, from here on, with its path. Goes deeper where `each` says so.
fn below(shape: &Value, path: &str, each: &mut dyn FnMut(&str, &Value) -> bool) {
    if let Some(properties) = shape["properties"].as_object() {
        if !each(path, shape) {
            return;
        }
        for (key, shape) in properties {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            below(shape, &path, each);
        }
    } else if shape["additionalProperties"].is_object() {
        below(&shape["additionalProperties"], &format!("{path}.*"), each);
    } else if shape["items"].is_object() {
        below(&shape["items"], &format!("{path}[]"), each);
    } else if let Some(choices) = shape["anyOf"].as_array() {
        for choice in choices.iter().filter(|choice| choice["properties"]["present"].is_null()) {
            below(choice, path, each);
        }
    }
}

/// What may be written, in a few words.
fn kind(shape: &Value) -> String {
    if let Some(title) = shape["title"].as_str() {
        return match (&shape["minimum"], &shape["maximum"]) {
            (Value::Number(min), Value::Number(max)) if min != max => format!("{title}, {min} to {max}"),
            _ => title.to_owned(),
        };
    }
    if let Some(choices) = shape["anyOf"].as_array() {
        return choices.iter().map(kind).collect::<Vec<_>>().join(", or ");
    }
    if let Some(constant) = shape["const"].as_str() {
        return format!("`{constant}`");
    }
    match shape["type"].as_str() {
        Some("array") => format!("list of: {}", kind(&shape["items"])),
        Some("object") if shape["additionalProperties"].is_object() => {
            format!("map of: {}", kind(&shape["additionalProperties"]))
        }
        Some("object") => match shape["properties"].as_object().map(Map::len) {
            Some(1) if !shape["properties"]["present"].is_null() => "`{ present: true }`".into(),
            _ => "map, see below".into(),
        },
        Some(other) => other.to_owned(),
        None => String::new(),
    }
}

const TO_STRING: &str = "writing to a string does not fail";

#[cfg(test)]
mod tests {
    use crate::config::tests::in_step;

    /// `UPDATE_REFERENCE=1` writes the file again.
    #[test]
    fn the_reference_in_the_repository_is_in_step() {
        in_step("docs/configuration.md", &super::reference());
    }
}
