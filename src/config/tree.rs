//! YAML text to a tree that knows where everything was written.
//!
//! serde stops at the first error and forgets how a scalar was spelled (`1.20` becomes a float), so
//! the tree is built from the events of serde-saphyr's own parser and decoded by [`super::decode`].
//! Bounded: depth, nodes, and what aliases may unfold to. Tags, merge keys, several documents and keys
//! that are not text are refused: nothing here needs them.

use std::collections::{HashMap, HashSet};

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span as Range, options};

use super::found::{Found, Span, Spanned};

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub span: Span,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing after the colon, `~` or `null`.
    Null,
    /// Any scalar as text: what it means is decided by who asks.
    Text(String),
    List(Vec<Node>),
    /// In the order of the file, keys unique.
    Map(Vec<(Spanned<String>, Node)>),
}

impl Value {
    /// For messages: "must be a map, not a list".
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

const DEPTH_MAX: usize = 32;
const NODES_MAX: usize = 4_000_000;
/// Nodes that aliases may add: enough for shared snippets, nothing for a bomb.
const ALIAS_NODES_MAX: usize = 100_000;

/// The root of one file; `None` when it has no content or is not YAML, which is then in `found`.
pub fn parse(file: u32, text: &str, found: &mut Found) -> Option<Node> {
    let mut builder =
        Builder { file, text, found, stack: Vec::new(), root: None, anchors: HashMap::new(), nodes: 0, aliased: 0 };
    let options = options! { emit_comments: false, emit_unresolved_aliases: true };
    for event in Parser::new_from_str_with_options(text, options) {
        let step = match event {
            Ok((event, range)) => builder.take(event, range),
            Err(error) => Err(builder.syntax(&error)),
        };
        if let Err(Stop) = step {
            return None;
        }
    }
    builder.root
}

/// The file cannot be read on; why is in `found`.
struct Stop;

/// An unfinished list or map.
struct Open {
    anchor: usize,
    node: Node,
    keys: HashSet<String>,
    key: Option<Key>,
}

enum Key {
    Good(Spanned<String>),
    /// Reported already; its value is dropped.
    Bad,
}

struct Builder<'a, 'f> {
    file: u32,
    text: &'a str,
    found: &'f mut Found,
    stack: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    aliased: usize,
}

impl Builder<'_, '_> {
    fn take(&mut self, event: Event<'_>, range: Range) -> Result<(), Stop> {
        let span = self.span(&range);
        if let Some(tag) = event.tag() {
            let what = format!("the tag `{tag}` is not used here");
            let at = range.tag_span().map_or(span, |tag| self.span(&tag));
            self.found.error(at, what).hint("remove it: values are read by what their key takes");
        }
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Comment(..) | Event::Anchor(..) => {
                Ok(())
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                self.found
                    .error(span, "a second YAML document begins here")
                    .hint("one document per file: use a directory of files instead of `---`");
                Err(Stop)
            }
            Event::DocumentStart(..) => Ok(()),
            Event::Scalar(text, style, anchor, _) => {
                let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if null { Value::Null } else { Value::Text(text.into_owned()) };
                self.count(1, span)?;
                self.add(Node { span, value }, anchor, 1)
            }
            Event::SequenceStart(_, anchor, _) => self.open(anchor, Node { span, value: Value::List(Vec::new()) }),
            Event::MappingStart(_, anchor, _) => self.open(anchor, Node { span, value: Value::Map(Vec::new()) }),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(mut open) = self.stack.pop() else { return Ok(()) };
                // Flow collections end at their bracket; block ones only at whatever follows.
                if open.node.span.end > open.node.span.start {
                    open.node.span.end = span.end;
                }
                let size = if open.anchor == 0 { 1 } else { size(&open.node) };
                self.add(open.node, open.anchor, size)
            }
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id) else {
                    self.found.error(span, "this alias stands inside what it names");
                    return Err(Stop);
                };
                self.aliased += size;
                if self.aliased > ALIAS_NODES_MAX {
                    return Err(self.too_much(span, "aliases unfold to too many values"));
                }
                let (node, size) = (node.clone(), *size);
                self.add(node, 0, size)
            }
            Event::UnresolvedAlias(name) => {
                self.found.error(span, format!("nothing is named `&{name}` above"));
                Err(Stop)
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, anchor: usize, node: Node) -> Result<(), Stop> {
        self.count(1, node.span)?;
        if self.stack.len() >= DEPTH_MAX {
            return Err(self.too_much(node.span, "maps and lists are nested too deeply"));
        }
        self.stack.push(Open { anchor, node, keys: HashSet::new(), key: None });
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Stop> {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.node.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match open.key.take() {
                None => open.key = Some(key(node, entries, &mut open.keys, self.text, self.found)),
                Some(Key::Good(key)) => entries.push((key, node)),
                Some(Key::Bad) => {}
            },
            Value::Null | Value::Text(_) => unreachable!("only lists and maps are opened"),
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(self.too_much(span, "the file holds too many values"));
        }
        Ok(())
    }

    fn too_much(&mut self, span: Span, what: &str) -> Stop {
        let limits = format!("at most {DEPTH_MAX} levels, {NODES_MAX} values, {ALIAS_NODES_MAX} by aliases");
        self.found.error(span, what).why(limits);
        Stop
    }

    fn syntax(&mut self, error: &ScanError) -> Stop {
        let start = error.marker().byte_offset().unwrap_or(self.text.len()) as u32;
        let span = Span { file: self.file, start, end: start };
        let line_start = self.text[..start as usize].rfind('\n').map_or(0, |at| at + 1);
        let indent_has_tab = self.text[line_start..].chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t');
        let hint = if indent_has_tab {
            "indent with blanks, not tabs"
        } else {
            "check the indentation of this line and the one above, and that quotes and brackets are closed"
        };
        self.found.error(span, format!("not valid YAML: {}", error.info())).hint(hint);
        Stop
    }

    fn span(&self, range: &Range) -> Span {
        let start = range.start.byte_offset().unwrap_or_default() as u32;
        let end = range.end.byte_offset().unwrap_or_default() as u32;
        Span { file: self.file, start, end: end.max(start) }
    }
}

fn key(
    node: Node,
    entries: &[(Spanned<String>, Node)],
    seen: &mut HashSet<String>,
    text: &str,
    found: &mut Found,
) -> Key {
    let Value::Text(name) = node.value else {
        found.error(node.span, format!("a key must be a name, not {}", node.value.kind()));
        return Key::Bad;
    };
    if seen.insert(name.clone()) {
        return Key::Good(Spanned { value: name, span: node.span });
    }
    if found.is_full() {
        found.error(node.span, format!("the key `{name}` is given twice"));
        return Key::Bad;
    }
    let first = entries.iter().find(|(key, _)| key.value == name).map_or(0, |(key, _)| key.span.start as usize);
    let line = text[..first].matches('\n').count() + 1;
    found
        .error(node.span, format!("the key `{name}` is given twice"))
        .why(format!("first on line {line}"))
        .hint("keep one of them, or give them different names");
    Key::Bad
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Text(_) => 1,
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|(_, node)| 1 + size(node)).sum::<usize>(),
    }
}
