//! Maps with fixed keys.
//!
//! One description per map, written with [`keys!`], gives the type, its decoding, its defaults and its
//! JSON Schema, so the four cannot disagree.

use serde_json::{Value as Json, json};

use super::decode::{Decode, Field, called};
use super::found::{Found, Span, Spanned};
use super::hint;
use super::tree::{Node, Value};

/// What is known about one key, for messages and for the schema.
pub struct KeyInfo {
    pub name: &'static str,
    pub doc: String,
    pub need: Need,
    pub shape: fn() -> Json,
}

#[derive(Clone, Copy)]
pub enum Need {
    Required,
    Optional,
    Default(&'static str),
}

/// The map that a key belongs to.
#[derive(Clone, Copy)]
pub struct Owner<'a> {
    pub span: Span,
    pub label: &'a str,
    /// Keys that are there under a wrong name: nothing is said about them a second time.
    pub mistaken: &'a [&'static str],
}

/// The value of one key of a [`keys!`] map.
pub fn field<T: Decode>(
    entries: &[(Spanned<String>, Node)],
    name: &'static str,
    need: Need,
    owner: Owner<'_>,
    found: &mut Found,
) -> Field<T> {
    if let Some((key, node)) = entries.iter().find(|(key, _)| key.value == name) {
        return match T::decode(node, name, found) {
            Some(value) => Field::Given { value, span: node.span, key: Some(key.span) },
            None => Field::Bad,
        };
    }
    if owner.mistaken.contains(&name) {
        return Field::Bad;
    }
    let span = owner.span;
    match need {
        Need::Optional => Field::Missing,
        Need::Required => {
            found.error(span, format!("{} needs the key `{name}`", called(owner.label)));
            Field::Bad
        }
        Need::Default(text) => {
            let value = match text {
                "{}" => Value::Map(Vec::new()),
                text => Value::Text(text.to_owned()),
            };
            match T::decode(&Node { span, value }, name, found) {
                Some(value) => Field::Given { value, span, key: None },
                None => Field::Bad,
            }
        }
    }
}

/// Says which keys are not known, and what was probably meant. Returns the known keys that were meant.
pub fn unknown_keys(
    entries: &[(Spanned<String>, Node)],
    label: &str,
    known: &[&'static str],
    found: &mut Found,
) -> Vec<&'static str> {
    let mut mistaken = Vec::new();
    for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.value.as_str())) {
        let finding = found.error(key.span, format!("unknown key `{}`", key.value));
        if known.len() <= 8 {
            finding.why(format!("{} takes {}", called(label), hint::list(known)));
        } else {
            finding.why(format!("not a key of {}", called(label)));
        }
        finding.maybe_hint(hint::for_key(&key.value, known));
        if mistaken.len() < known.len() {
            mistaken.extend(hint::meant(&key.value, known));
        }
    }
    mistaken
}

/// JSON Schema of a map with fixed keys.
pub fn object_shape(doc: &str, keys: &[KeyInfo]) -> Json {
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for key in keys {
        let mut shape = (key.shape)();
        let members = shape.as_object_mut().expect("every shape is an object");
        let inner = members.remove("description");
        let mut description = key.doc.clone();
        if let (Some(Json::String(inner)), true) = (inner, description.is_empty()) {
            description = inner;
        }
        members.insert("description".into(), description.into());
        match key.need {
            Need::Required => required.push(key.name),
            Need::Optional => {}
            Need::Default("{}") => {}
            Need::Default(text) => {
                let typed = match members.get("type").and_then(Json::as_str) {
                    Some("integer" | "boolean") => serde_json::from_str(text).expect("a typed default is JSON"),
                    _ if matches!(text, "true" | "false") => Json::from(text == "true"),
                    Some("number") => serde_json::from_str(text).expect("a typed default is JSON"),
                    _ => Json::from(text),
                };
                members.insert("default".into(), typed);
            }
        }
        properties.insert(key.name.into(), shape);
    }
    let mut object = json!({
        "type": "object", "description": doc, "additionalProperties": false, "properties": properties,
    });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

/// Declares a map with fixed keys. Each key has its doc (shown in the reference), its type, and whether
/// it is `required`, `optional`, a `section` (a map of which everything is optional), or has a
/// `default("…")`, written as the user would write it.
macro_rules! keys {
    (@need required) => { $crate::config::keys::Need::Required };
    (@need optional) => { $crate::config::keys::Need::Optional };
    (@need section) => { $crate::config::keys::Need::Default("{}") };
    (@need default $text:literal) => { $crate::config::keys::Need::Default($text) };
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $( $(#[doc = $doc:literal])+ $key:ident $(as $text:literal)? : $ty:ty = $need:ident $(($default:literal))?, )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $key: $crate::config::decode::Field<$ty>, )+
        }

        impl $name {
            pub const KEYS: &'static [&'static str] = &[$( keys!(@name $key $($text)?) ),+];

            pub fn keys() -> Vec<$crate::config::keys::KeyInfo> {
                vec![$( $crate::config::keys::KeyInfo {
                    name: keys!(@name $key $($text)?),
                    doc: concat!($($doc, "\n"),+).lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned(),
                    need: keys!(@need $need $($default)?),
                    shape: <$ty as $crate::config::decode::Decode>::shape,
                } ),+]
            }
        }

        impl $crate::config::decode::Decode for $name {
            fn decode(
                node: &$crate::config::tree::Node,
                label: &str,
                found: &mut $crate::config::found::Found,
            ) -> Option<Self> {
                use $crate::config::{decode, keys};
                let entries = decode::as_map(node, label, found)?;
                let mistaken = keys::unknown_keys(entries, label, Self::KEYS, found);
                let owner = keys::Owner { span: node.span, label, mistaken: &mistaken };
                Some(Self {
                    $( $key: keys::field(
                        entries, keys!(@name $key $($text)?), keys!(@need $need $($default)?), owner, found,
                    ), )+
                })
            }

            fn shape() -> serde_json::Value {
                let about = concat!($($about, "\n"),+).lines().map(str::trim).collect::<Vec<_>>().join(" ");
                $crate::config::keys::object_shape(about.trim(), &Self::keys())
            }
        }
    };
    (@name $key:ident $text:literal) => { $text };
    (@name $key:ident) => { stringify!($key) };
}
pub(super) use keys;
