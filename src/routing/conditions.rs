//! What a route asks of a request beyond host and path: method, headers, query.

use http::{HeaderMap, HeaderName, Method};

use super::matcher::RequestView;
use crate::config::model::{Match, ValueMatch};

#[derive(Debug)]
pub(super) struct Conditions {
    methods: Box<[Method]>,
    headers: Box<[(HeaderName, ValueMatch)]>,
    query: Box<[(String, ValueMatch)]>,
}

impl Conditions {
    /// `None` when there are none.
    pub(super) fn of(matcher: &Match) -> Option<Conditions> {
        (Self::count(matcher) > 0).then(|| Conditions {
            methods: matcher.methods.as_slice().into(),
            headers: matcher.headers.as_slice().into(),
            query: matcher.query.as_slice().into(),
        })
    }

    /// How specific they are: the list of methods counts once, every header and every parameter once.
    pub(super) fn count(matcher: &Match) -> usize {
        usize::from(!matcher.methods.is_empty()) + matcher.headers.len() + matcher.query.len()
    }

    pub(super) fn hold(&self, request: &RequestView<'_>) -> bool {
        (self.methods.is_empty() || self.methods.contains(request.method))
            && self.headers.iter().all(|(name, wanted)| has_header(request.headers, name, wanted))
            && self.query.iter().all(|(name, wanted)| has_parameter(request.query, name, wanted))
    }
}

/// Of several fields with one name, any may have the wanted value.
pub(super) fn has_header(headers: &HeaderMap, name: &HeaderName, wanted: &ValueMatch) -> bool {
    match wanted {
        ValueMatch::Present => headers.contains_key(name),
        ValueMatch::Exact(value) => headers.get_all(name).iter().any(|have| have.as_bytes() == value.as_bytes()),
    }
}

fn has_parameter(query: Option<&str>, name: &str, wanted: &ValueMatch) -> bool {
    query.unwrap_or_default().split('&').any(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        !pair.is_empty()
            && decodes_to(key, name)
            && match wanted {
                ValueMatch::Present => true,
                ValueMatch::Exact(wanted) => decodes_to(value, wanted),
            }
    })
}

/// `application/x-www-form-urlencoded`: `+` is a space; a malformed escape stands for itself.
fn decodes_to(raw: &str, plain: &str) -> bool {
    let mut raw = raw.as_bytes();
    let mut plain = plain.bytes();
    while let [first, rest @ ..] = raw {
        let (byte, rest) = match (*first, rest) {
            (b'+', _) => (b' ', rest),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', rest),
            },
            (byte, _) => (byte, rest),
        };
        if plain.next() != Some(byte) {
            return false;
        }
        raw = rest;
    }
    plain.next().is_none()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_compared_decoded() {
        let exact = |value: &str| ValueMatch::Exact(value.to_owned());
        for (query, name, wanted, holds) in [
            ("beta=1", "beta", exact("1"), true),
            ("a=2&beta=1", "beta", exact("1"), true),
            ("beta=2&beta=1", "beta", exact("1"), true),
            ("b%65ta=%31", "beta", exact("1"), true),
            ("q=a+b%20c", "q", exact("a b c"), true),
            ("q=100%", "q", exact("100%"), true),
            ("q=%zz", "q", exact("%zz"), true),
            ("beta", "beta", ValueMatch::Present, true),
            ("beta", "beta", exact(""), true),
            ("beta=", "beta", exact("1"), false),
            ("beta=11", "beta", exact("1"), false),
            ("beta=1", "bet", ValueMatch::Present, false),
            ("betax=1", "beta", ValueMatch::Present, false),
            ("", "", ValueMatch::Present, false),
        ] {
            assert_eq!(has_parameter(Some(query), name, &wanted), holds, "{query}");
        }
        assert!(!has_parameter(None, "beta", &ValueMatch::Present));
    }
}
