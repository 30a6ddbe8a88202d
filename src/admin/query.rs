//! Query strings: read with nothing ignored, written with nothing misread.

use std::fmt::Write;

/// The parameters of one call. Each is taken once; what is left at the end is a mistake.
#[derive(Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub fn parse(query: Option<&str>) -> Result<Query, String> {
        let parts = query.unwrap_or("").split('&').filter(|part| !part.is_empty());
        let pairs = parts.map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decode(key, true)?, decode(value, true)?))
        });
        Ok(Query { pairs: pairs.collect::<Result<_, String>>()? })
    }

    /// The value of `key`; given twice is a mistake.
    pub fn take(&mut self, key: &str) -> Result<Option<String>, String> {
        let mut found = None;
        for value in self.pairs.extract_if(.., |(name, _)| name == key).map(|(_, value)| value) {
            if found.replace(value).is_some() {
                return Err(format!("query parameter `{key}` is given twice"));
            }
        }
        Ok(found)
    }

    /// `force`, `force=true` and `force=1` say yes.
    pub fn take_flag(&mut self, key: &str) -> Result<bool, String> {
        match self.take(key)?.as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => Err(format!("query parameter `{key}` is `true` or `false`, not `{other}`")),
        }
    }

    /// Everything whose name starts with `prefix`, without it, in order.
    pub fn take_prefixed(&mut self, prefix: &str) -> Vec<(String, String)> {
        let taken = self.pairs.extract_if(.., |(name, _)| name.starts_with(prefix));
        taken.map(|(name, value)| (name[prefix.len()..].to_string(), value)).collect()
    }

    /// A parameter nobody knows is refused: `?forse=true` must not read as "not forced".
    pub fn finish(self) -> Result<(), String> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("this call knows no query parameter `{name}`")),
        }
    }
}

/// Undoes percent-encoding; with `form` a `+` is a space.
pub fn decode(text: &str, form: bool) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' if form => b' ',
            b'%' => {
                let digits =
                    [rest.next(), rest.next()].map(|digit| digit.and_then(|digit| (digit as char).to_digit(16)));
                let [Some(high), Some(low)] = digits else {
                    return Err(format!("`{text}` has a `%` without two hex digits"));
                };
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| format!("`{text}` is not UTF-8 once decoded"))
}

/// Percent-encodes everything but unreserved characters (RFC 3986 2.3): safe in a segment and in a query.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            byte => write!(out, "%{byte:02X}").expect("a String takes everything"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_reads_back() {
        for text in ["", "plain", "http://shop.test/a b?x=1&y=%2f", "ünïcode/…", "+&=#"] {
            assert_eq!(decode(&encode(text), true).as_deref(), Ok(text));
            assert_eq!(decode(&encode(text), false).as_deref(), Ok(text));
        }
    }

    #[test]
    fn broken_encodings_are_refused() {
        for text in ["%", "%4", "%zz", "%ff"] {
            assert!(decode(text, true).is_err(), "{text}");
        }
    }

    #[test]
    fn every_parameter_must_be_known_and_single() {
        let mut query = Query::parse(Some("force&h.x-a=1&h.x-b=two+words&name=n")).unwrap();
        assert_eq!(query.take_flag("force"), Ok(true));
        assert_eq!(query.take_flag("again"), Ok(false));
        let headers = query.take_prefixed("h.");
        assert_eq!(headers, [("x-a".into(), "1".into()), ("x-b".into(), "two words".into())]);
        assert!(query.finish().unwrap_err().contains("`name`"));

        let mut twice = Query::parse(Some("a=1&a=2")).unwrap();
        assert!(twice.take("a").is_err());
        assert!(Query::parse(Some("force=perhaps")).unwrap().take_flag("force").is_err());
    }
}
