//! JSON Schema of the format, made from the same description that reads it: completion and checks in
//! editors. Kept in `config/switchback.schema.json`.

use serde_json::{Map, Value, json};

use super::decode::Decode;
use super::raw::Raw;

/// The schema as JSON.
pub fn schema() -> Value {
    let mut body = Raw::shape();
    variables(&mut body);
    let mut root = Map::new();
    root.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
    root.insert("title".into(), json!("switchback configuration"));
    if let Value::Object(body) = body {
        root.extend(body);
    }
    root.into()
}

/// The schema as text, as kept in the repository.
pub fn text() -> String {
    let text = serde_json::to_string_pretty(&schema()).expect("a schema is plain data");
    format!("{text}\n")
}

/// `${NAME}` may stand for any scalar. Names of maps stay as they are.
fn variables(shape: &mut Value) {
    match shape {
        Value::Object(members) => {
            if let Some(Value::String(pattern)) = members.get_mut("pattern") {
                *pattern = format!("{pattern}|\\$\\{{");
            }
            let scalar = members.get("type").is_some_and(|it| it == "integer" || it == "number" || it == "boolean");
            if scalar {
                let of_number = members.remove("type").unwrap_or_default();
                members.insert("type".into(), json!([of_number, "string"]));
                members.insert("pattern".into(), json!("\\$\\{"));
            }
            for (key, member) in members.iter_mut() {
                if key != "propertyNames" {
                    variables(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(variables),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::in_step;

    /// `UPDATE_REFERENCE=1` writes the file again.
    #[test]
    fn the_schema_in_the_repository_is_in_step() {
        in_step("config/switchback.schema.json", &super::text());
    }
}
