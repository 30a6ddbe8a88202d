//! Tree to raw types, collecting every problem on the way.
//!
//! Scalars say what they accept, maps and lists pass on; maps with fixed keys are described in
//! [`super::keys`].

use std::marker::PhantomData;

use serde_json::{Value as Json, json};

use super::found::{Found, Span, Spanned};
use super::hint;
use super::tree::{Node, Value};

/// Something that can be read from a node.
pub trait Decode: Sized {
    /// `label` names the value in messages: its key. `None`: every reason is in `found`.
    fn decode(node: &Node, label: &str, found: &mut Found) -> Option<Self>;
    /// The JSON Schema of it.
    fn shape() -> Json;
}

/// A value written as one scalar.
pub trait Scalar: Sized {
    /// For messages, with article: "a duration".
    const KIND: &'static str;
    fn parse(text: &str) -> Result<Self, Wrong>;
    fn shape() -> Json;
}

/// Why a scalar is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What would be right, with bounds and unit: "write a number with a unit, such as `30s`".
    pub why: String,
    pub hint: Option<String>,
}

impl Wrong {
    pub fn because(why: impl Into<String>) -> Self {
        Self { why: why.into(), hint: None }
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl<T: Scalar> Decode for T {
    fn decode(node: &Node, label: &str, found: &mut Found) -> Option<Self> {
        match &node.value {
            Value::Text(text) => match T::parse(text) {
                Ok(value) => Some(value),
                Err(wrong) => {
                    let shown: String = text.escape_debug().take(60).collect();
                    found
                        .error(node.span, format!("`{shown}` is not {} for `{label}`", T::KIND))
                        .why(wrong.why)
                        .maybe_hint(wrong.hint);
                    None
                }
            },
            Value::Null => {
                found.error(node.span, format!("`{label}` has no value")).why(format!("it takes {}", T::KIND));
                None
            }
            Value::List(_) | Value::Map(_) => {
                found.error(node.span, format!("`{label}` must be {}, not {}", T::KIND, node.value.kind()));
                None
            }
        }
    }

    fn shape() -> Json {
        let mut shape = <T as Scalar>::shape();
        let kind = T::KIND.strip_prefix("a ").or(T::KIND.strip_prefix("an ")).unwrap_or(T::KIND);
        let members = shape.as_object_mut().expect("every shape is an object");
        members.insert("title".into(), kind.into());
        shape
    }
}

/// A key's value: absent, wrong (already reported), or there (as written, or by default).
#[derive(Debug, Clone)]
pub enum Field<T> {
    Missing,
    Bad,
    Given {
        value: T,
        span: Span,
        /// `None` for a default.
        key: Option<Span>,
    },
}

impl<T> Field<T> {
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Given { value, .. } => Some(value),
            Self::Missing | Self::Bad => None,
        }
    }

    /// The value where it was written by the user; `None` for defaults.
    pub fn written(&self) -> Option<(&T, Span)> {
        match self {
            Self::Given { value, span, key: Some(_) } => Some((value, *span)),
            Self::Given { key: None, .. } | Self::Missing | Self::Bad => None,
        }
    }

    /// Where the key stands, if the user wrote it.
    pub fn key(&self) -> Option<Span> {
        match self {
            Self::Given { key, .. } => *key,
            Self::Missing | Self::Bad => None,
        }
    }

    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }

    /// The value, or a placeholder for one that was reported: nothing built from it is published.
    pub fn value(&self) -> T
    where
        T: Clone + Default,
    {
        self.get().cloned().unwrap_or_default()
    }
}

/// A map whose keys are chosen by the user. Entries of a bad key or value keep their place.
#[derive(Debug, Clone)]
pub struct Map<K, V>(pub Vec<Entry<V>>, PhantomData<K>);

#[derive(Debug, Clone)]
pub struct Entry<V> {
    pub key: Spanned<String>,
    pub value: Option<V>,
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self(Vec::new(), PhantomData)
    }
}

impl<K, V> Map<K, V> {
    pub fn iter(&self) -> std::slice::Iter<'_, Entry<V>> {
        self.0.iter()
    }
}

impl<K: Scalar, V: Decode> Decode for Map<K, V> {
    fn decode(node: &Node, label: &str, found: &mut Found) -> Option<Self> {
        let entries = as_map(node, label, found)?;
        let mut map = Self::default();
        for (key, node) in entries {
            let name = Node { span: key.span, value: Value::Text(key.value.clone()) };
            let good = <K as Decode>::decode(&name, label, found).is_some();
            let value = V::decode(node, &key.value, found);
            if good {
                map.0.push(Entry { key: key.clone(), value });
            }
        }
        Some(map)
    }

    fn shape() -> Json {
        json!({ "type": "object", "propertyNames": <K as Scalar>::shape(), "additionalProperties": V::shape() })
    }
}

/// A list; `None` marks an item that was reported.
#[derive(Debug, Clone)]
pub struct List<T>(pub Vec<(Option<T>, Span)>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> List<T> {
    pub fn good(&self) -> impl Iterator<Item = (&T, Span)> {
        self.0.iter().filter_map(|(item, span)| item.as_ref().map(|item| (item, *span)))
    }
}

impl<T: Decode> Decode for List<T> {
    fn decode(node: &Node, label: &str, found: &mut Found) -> Option<Self> {
        match &node.value {
            Value::List(items) => Some(Self::of(items, label, found)),
            Value::Null | Value::Text(_) | Value::Map(_) => {
                found
                    .error(node.span, format!("`{label}` must be a list, not {}", node.value.kind()))
                    .hint(format!("write `{label}: [ … ]`, or one `- …` per line"));
                None
            }
        }
    }

    fn shape() -> Json {
        json!({ "type": "array", "items": T::shape() })
    }
}

impl<T: Decode> List<T> {
    fn of(items: &[Node], label: &str, found: &mut Found) -> Self {
        Self(items.iter().map(|item| (T::decode(item, label, found), item.span)).collect())
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone)]
pub struct OneOrMany<T>(pub List<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(List::default())
    }
}

impl<T: Scalar> Decode for OneOrMany<T> {
    fn decode(node: &Node, label: &str, found: &mut Found) -> Option<Self> {
        match &node.value {
            Value::List(items) => Some(Self(List::of(items, label, found))),
            Value::Null | Value::Text(_) | Value::Map(_) => {
                let one = <T as Decode>::decode(node, label, found)?;
                Some(Self(List(vec![(Some(one), node.span)])))
            }
        }
    }

    fn shape() -> Json {
        json!({ "anyOf": [<T as Decode>::shape(), { "type": "array", "items": <T as Decode>::shape() }] })
    }
}

/// The entries of a map, or a message.
pub fn as_map<'n>(node: &'n Node, label: &str, found: &mut Found) -> Option<&'n [(Spanned<String>, Node)]> {
    match &node.value {
        Value::Map(entries) => Some(entries),
        Value::Null => {
            found
                .error(node.span, format!("`{label}` has nothing under it"))
                .hint("is what follows indented too little? an empty map is written `{}`");
            None
        }
        Value::Text(_) | Value::List(_) => {
            found
                .error(node.span, format!("{} must be a map, not {}", called(label), node.value.kind()))
                .maybe_hint(hint::misplaced(label));
            None
        }
    }
}

/// Label of the outermost map.
pub const ROOT: &str = "";

pub fn called(label: &str) -> String {
    if label == ROOT { "the configuration".into() } else { format!("`{label}`") }
}
