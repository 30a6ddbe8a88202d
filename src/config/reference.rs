//! The reference in Markdown, made from the JSON Schema: `docs/configuration.md`.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::decode::Decode;
use super::raw::Raw;

const INTRODUCTION: &str = include_str!("reference.md");

/// The whole page.
pub fn reference() -> String {
    let mut out = INTRODUCTION.to_owned();
    out.push_str("\n## Keys\n\n`*` stands for a name of your choice, `[]` for each item of a list.\n");
    section(&mut out, "", &Raw::shape());
    out
}

/// One map with fixed keys, and the maps below it.
fn section(out: &mut String, path: &str, shape: &Value) {
    let Some(properties) = shape["properties"].as_object() else { return };
    let title = if path.is_empty() { "Top level".to_owned() } else { format!("`{path}`") };
    let about = shape["description"].as_str().unwrap_or_default();
    write!(out, "\n### {title}\n\n{about}\n\n| Key | Value | Default | Meaning |\n|---|---|---|---|\n")
        .expect(TO_STRING);
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
    for (key, shape) in properties {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        nested(out, &below, shape);
    }
}

fn nested(out: &mut String, path: &str, shape: &Value) {
    if shape["properties"].is_object() {
        section(out, path, shape);
    } else if shape["additionalProperties"].is_object() {
        nested(out, &format!("{path}.*"), &shape["additionalProperties"]);
    } else if shape["items"].is_object() {
        nested(out, &format!("{path}[]"), &shape["items"]);
    } else if let Some(choices) = shape["anyOf"].as_array() {
        for choice in choices.iter().filter(|choice| choice["properties"]["present"].is_null()) {
            nested(out, path, choice);
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
