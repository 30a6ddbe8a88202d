//! `${NAME}` and `${NAME:-default}` in scalars, replaced after parsing: a value can never become syntax.
//! `$${` is a literal `${`. Keys are left alone.

use super::found::{Found, Span};
use super::tree::{Node, Value};

/// Looks a variable up.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

pub fn substitute(node: &mut Node, lookup: Lookup<'_>, found: &mut Found) {
    match &mut node.value {
        Value::Null => {}
        Value::Text(text) => {
            if text.contains("${") {
                *text = replace(text, node.span, lookup, found);
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| substitute(item, lookup, found)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| substitute(value, lookup, found)),
    }
}

/// One value with the variables of the process filled in; `None` if one is missing or the text is malformed.
pub fn expanded(text: &str) -> Option<String> {
    let mut found = Found::default();
    let out = replace(text, Span { file: 0, start: 0, end: 0 }, &|name| std::env::var(name).ok(), &mut found);
    (!found.has_errors()).then_some(out)
}

/// The inverse, for rendering: no part of the text is taken for a variable.
pub fn escape(text: &str) -> String {
    text.replace("${", "$${")
}

fn replace(text: &str, span: Span, lookup: Lookup<'_>, found: &mut Found) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at]);
            out.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('}') else {
            found.error(span, "`${` is not closed").hint("close it with `}`, or write `$${` for a literal `${`");
            return out;
        };
        let inner = &rest[at + 2..at + end];
        rest = &rest[at + end + 1..];
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        let good = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.chars().next().is_some_and(|c| !c.is_ascii_digit());
        if !good {
            found
                .error(span, format!("`{name}` is not the name of an environment variable"))
                .why("letters, digits and `_`")
                .hint("write `$${` for a literal `${`");
            continue;
        }
        match (lookup(name), default) {
            (Some(value), None) => out.push_str(&value),
            (Some(value), Some(_)) if !value.is_empty() => out.push_str(&value),
            (_, Some(default)) => out.push_str(default),
            (None, None) => {
                found
                    .error(span, format!("the environment variable `{name}` is not set"))
                    .hint(format!("set it, or give a default: `${{{name}:-…}}`"));
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<String, String> {
        let mut found = Found::default();
        let lookup = |name: &str| match name {
            "PORT" => Some("8080".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let out = replace(text, Span::default(), &lookup, &mut found);
        let problems = found.into_problems(&[crate::config::load::Source { path: "f".into(), text: text.into() }]);
        problems.0.first().map_or(Ok(out), |problem| Err(problem.what.clone()))
    }

    #[test]
    fn variables_are_replaced_and_defaults_fill_in() {
        for (text, want) in [
            ("${PORT}", "8080"),
            ("a:${PORT}/${PORT}", "a:8080/8080"),
            ("${NONE:-x}", "x"),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY}", ""),
            ("$${PORT}", "${PORT}"),
            ("$PORT", "$PORT"),
        ] {
            assert_eq!(run(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_an_error() {
        for (text, want) in [("${NONE}", "`NONE` is not set"), ("${PORT", "not closed"), ("${a b}", "not the name")] {
            assert!(run(text).unwrap_err().contains(want), "{text}");
        }
    }

    #[test]
    fn escaping_is_undone_by_replacing() {
        for text in ["${PORT}", "$${PORT}", "$$${x", "$$", "a$"] {
            assert_eq!(run(&escape(text)).as_deref(), Ok(text), "{text}");
        }
    }
}
