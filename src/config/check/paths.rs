//! Patterns of hosts and paths: only those that some request can match.

use super::super::model::HostMatch;
use super::super::scalar::is_host_name;

/// What is wrong, and what to write instead.
pub type Bad = (String, Option<String>);

/// A host pattern.
pub fn host(text: &str) -> Result<HostMatch, Bad> {
    if text == "*" {
        return Err(("every host matches when there is no `host`".into(), Some("leave `host` out".into())));
    }
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('.').unwrap_or(&lower);
    if lower.parse::<std::net::Ipv4Addr>().is_ok() {
        return Ok(HostMatch::Exact(lower.into()));
    }
    if let Some(inner) = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match inner.parse::<std::net::Ipv6Addr>() {
            Ok(address) => Ok(HostMatch::Exact(format!("[{address}]"))),
            Err(_) => Err(("not an IPv6 address".into(), None)),
        };
    }
    if let Some((_, rest)) = text.split_once("://") {
        return Err(("a host has no scheme".into(), Some(format!("did you mean `{}`?", rest.trim_end_matches('/')))));
    }
    if let Some((host, _)) = lower.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
        return Err(("ports are not matched".into(), Some(format!("did you mean `{host}`?"))));
    }
    if !text.is_ascii() {
        return Err((
            "write international names in their ASCII form".into(),
            Some("such as `xn--bcher-kva.example`".into()),
        ));
    }
    if let Some(parent) = lower.strip_prefix("*.") {
        return if is_host_name(parent) {
            Ok(HostMatch::Wildcard(parent.into()))
        } else {
            Err(("`*.` must be followed by a host name".into(), None))
        };
    }
    if lower.contains('*') {
        return Err(("`*` can only stand for the labels in front: `*.example.com`".into(), None));
    }
    if is_host_name(lower) { Ok(HostMatch::Exact(lower.into())) } else { Err(("not a host name".into(), None)) }
}

/// A path or prefix, in the form that requests have when they are matched.
pub fn path(text: &str) -> Result<String, Bad> {
    if !text.starts_with('/') {
        return Err(("paths begin with `/`".into(), Some(format!("did you mean `/{text}`?"))));
    }
    if text.contains(['?', '#']) {
        return Err(("a path ends before `?` and `#`".into(), Some("match parameters with `query`".into())));
    }
    if text.contains('*') && (text.ends_with("/*") || text.ends_with("/**")) {
        let prefix = text.trim_end_matches('*');
        return Err(("`*` has no meaning in a path".into(), Some(format!("write `path_prefix: {prefix}`"))));
    }
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '\\' | '"' | '<' | '>' | '^' | '`')) {
        return Err((format!("{bad:?} must be written percent-encoded"), None));
    }
    if text.contains("//") || text.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(("no request matches it: paths are matched without `//`, `.` and `..`".into(), None));
    }
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('%') {
        let code = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) else {
            return Err(("`%` must be followed by two hexadecimal digits".into(), None));
        };
        let code = code.unwrap_or_default();
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            let plain = char::from(byte);
            return Err((
                format!("no request matches it: `%{code}` arrives decoded"),
                Some(format!("write `{plain}`")),
            ));
        }
        if matches!(byte, b'/' | b'\\' | 0) {
            return Err((format!("no request matches it: `%{code}` in a path is refused"), None));
        }
        if code.chars().any(|c| c.is_ascii_lowercase()) {
            let upper = code.to_ascii_uppercase();
            return Err((
                "no request matches it: escapes arrive in capitals".into(),
                Some(format!("write `%{upper}`")),
            ));
        }
    }
    Ok(text.to_owned())
}

/// A regular expression of bounded size.
pub fn regex(text: &str) -> Result<String, Bad> {
    let built = regex::RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
    match built {
        Ok(_) => Ok(text.to_owned()),
        Err(regex::Error::CompiledTooBig(_)) => Err((
            format!("it takes more than {} KiB when compiled", REGEX_BYTES_MAX >> 10),
            Some("lower its repetitions".into()),
        )),
        Err(error) => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let around =
                text.contains("look-around").then(|| "look-around and back-references do not exist here".into());
            Err((reason, around))
        }
    }
}

const REGEX_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_exact_or_below_a_name() {
        for (text, want) in [
            ("Shop.Example.com", HostMatch::Exact("shop.example.com".into())),
            ("*.example.com", HostMatch::Wildcard("example.com".into())),
            ("127.0.0.1", HostMatch::Exact("127.0.0.1".into())),
            ("[::1]", HostMatch::Exact("[::1]".into())),
        ] {
            assert_eq!(host(text), Ok(want), "{text}");
        }
        for text in ["*", "a.*.com", "*a.com", "shop:80", "http://shop/", "a b", "bücher.de", "", "*."] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_that_no_request_can_have_is_refused() {
        for text in ["/", "/a/b", "/a%20b", "/a:b@c", "/%2A"] {
            assert!(path(text).is_ok(), "{text}");
        }
        for text in [
            "a", "/a?b", "/a#b", "/a//b", "/a/../b", "/a/.", "/%41", "/%2f", "/%2a", "/%zz", "/%", "/a b", "/ä",
            "/api/*",
        ] {
            assert!(path(text).is_err(), "{text}");
        }
    }
}
