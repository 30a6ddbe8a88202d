//! One reading of a request path, decided once: what was matched is what is forwarded.
//!
//! The normal form is RFC 3986 section 6.2.2: escapes of unreserved characters are decoded, other escapes
//! are in upper case, dot segments and empty segments are gone, characters that a path may not hold
//! unescaped are escaped. A trailing slash stays. What software behind us could read in two ways is
//! refused: encoded slashes, backslashes and control characters, and dot segments that hide behind
//! parameters (`/..;/`, which servlet containers resolve).
//!
//! Any other `;` is an ordinary character of its segment, as in the RFC. But servlet containers cut `;` and what follows
//! it off a segment, so a path with one is matched in both readings ([`Table::route_path`]), and refused where they go
//! to different routes. Overlong UTF-8 (`%C0%AE`, a dot to lenient decoders) is refused like the character that it stands
//! for.
//!
//! Left out on purpose: escapes of reserved characters (`%40`) stay distinct from the characters themselves, and
//! case is what it is. `docs/paths.md` says what an endpoint must not do behind this.

use std::borrow::Cow;

use super::matcher::RequestView;
use super::table::{RouteIdx, Table};

/// A path with two readings, refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    #[error("does not begin with a slash")]
    NotAbsolute,
    #[error("contains an encoded slash, backslash or control character, or a dot segment with parameters")]
    Ambiguous,
    #[error("leads elsewhere once the parameters of its segments are cut off")]
    Parameters,
    #[error("climbs above the root")]
    AboveRoot,
    #[error("contains a malformed percent sequence")]
    BadEscape,
    #[error("contains a control character, a space, a backslash or a fragment")]
    BadCharacter,
}

/// The normal form of a path without query. Borrows when nothing changes.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathProblem> {
    let Some(segments) = path.strip_prefix('/') else { return Err(PathProblem::NotAbsolute) };
    if is_normal(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let mut out = String::with_capacity(path.len() + 16);
    let mut segments = segments.split('/').peekable();
    while let Some(segment) = segments.next() {
        let start = out.len();
        out.push('/');
        push_segment(&mut out, segment)?;
        match &out[start + 1..] {
            "" | "." => out.truncate(start),
            ".." => {
                out.truncate(start);
                out.truncate(out.rfind('/').ok_or(PathProblem::AboveRoot)?);
            }
            plain if hides_dots(plain.as_bytes()) => return Err(PathProblem::Ambiguous),
            _ => continue,
        }
        if segments.peek().is_none() {
            out.push('/');
        }
    }
    Ok(Cow::Owned(out))
}

/// The path without `;` and what follows it in each segment, if it has any: what servlet containers make of it.
pub fn without_parameters(normal: &str) -> Option<Cow<'_, str>> {
    if !normal.contains([';', '%']) {
        return None;
    }
    let bare = |segment: &str| segment.find(';').into_iter().chain(segment.find("%3B")).min();
    if normal.split('/').all(|segment| bare(segment).is_none()) {
        return None;
    }
    let segments: Vec<&str> =
        normal.split('/').map(|segment| bare(segment).map_or(segment, |end| &segment[..end])).collect();
    let joined = segments.join("/");
    // Cutting may have left empty segments, never a dot segment: those that hide one are refused.
    Some(Cow::Owned(normalise(&joined).map_or_else(|_| joined.clone(), Cow::into_owned)))
}

impl Table {
    /// [`Table::route`] for a path in normal form, refused if another reading of the path leads to another route.
    pub fn route_path(&self, request: &RequestView<'_>) -> Result<Option<RouteIdx>, PathProblem> {
        let route = self.route(request);
        if let Some(bare) = without_parameters(request.path) {
            let other = RequestView { path: &bare, ..*request };
            if self.route(&other) != route {
                return Err(PathProblem::Parameters);
            }
        }
        Ok(route)
    }
}

/// Whether a path that begins with a slash is in normal form. May say no to one that is, never yes to one
/// that is not.
fn is_normal(path: &[u8]) -> bool {
    let mut at = 0;
    while at < path.len() {
        match CLASSES[path[at] as usize] {
            Class::Plain => {}
            Class::Slash => match path.get(at + 1) {
                Some(b'/') => return false,
                Some(b'.') if begins_with_dots_only(&path[at + 1..]) => return false,
                _ => {}
            },
            Class::Percent => match path.get(at + 1..at + 3).map(|digits| (digits, escaped(digits))) {
                Some((digits, Some(byte)))
                    if !digits.iter().any(u8::is_ascii_lowercase)
                        && !is_unreserved(byte)
                        && !is_refused(byte)
                        && !is_overlong(byte, &path[at + 3..]) =>
                {
                    at += 2;
                }
                _ => return false,
            },
            Class::Other => return false,
        }
        at += 1;
    }
    true
}

/// `.`, `..`, and whatever begins like them and could become or hide one of them.
fn begins_with_dots_only(segment: &[u8]) -> bool {
    let dots = segment.iter().take(2).take_while(|&&byte| byte == b'.').count();
    matches!(segment.get(dots), None | Some(b'/' | b';' | b'%'))
}

/// A segment in normal form that is a dot segment once its parameters are cut off.
fn hides_dots(segment: &[u8]) -> bool {
    let rest = segment.strip_prefix(b"..").or_else(|| segment.strip_prefix(b"."));
    rest.is_some_and(|rest| rest.starts_with(b";") || rest.starts_with(b"%3B"))
}

fn push_segment(out: &mut String, segment: &str) -> Result<(), PathProblem> {
    let bytes = segment.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        at += 1;
        match CLASSES[byte as usize] {
            Class::Plain => out.push(char::from(byte)),
            Class::Percent => {
                let byte = bytes.get(at..at + 2).and_then(escaped).ok_or(PathProblem::BadEscape)?;
                at += 2;
                if is_refused(byte) || is_overlong(byte, &bytes[at..]) {
                    return Err(PathProblem::Ambiguous);
                }
                if is_unreserved(byte) { out.push(char::from(byte)) } else { push_escape(out, byte) }
            }
            Class::Slash | Class::Other if byte <= b' ' || matches!(byte, 0x7f | b'\\' | b'#' | b'?') => {
                return Err(PathProblem::BadCharacter);
            }
            Class::Slash | Class::Other => push_escape(out, byte),
        }
    }
    Ok(())
}

fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

fn escaped(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(digits[at]).to_digit(16);
    Some((digit(0)? << 4 | digit(1)?) as u8)
}

/// Bytes that some software takes for structure once it has decoded them.
fn is_refused(byte: u8) -> bool {
    byte < b' ' || matches!(byte, 0x7f | b'/' | b'\\')
}

/// Begins a longer spelling of a character than UTF-8 has, with the escape of the next byte in `rest`. Valid text never
/// does; Latin-1 hardly ever.
fn is_overlong(byte: u8, rest: &[u8]) -> bool {
    if !matches!(byte, 0xc0 | 0xc1 | 0xe0 | 0xf0) {
        return false;
    }
    let Some(next) = rest.strip_prefix(b"%").and_then(|rest| rest.get(..2)).and_then(escaped) else { return false };
    match byte {
        0xc0 | 0xc1 => (0x80..=0xbf).contains(&next),
        0xe0 => (0x80..=0x9f).contains(&next),
        _ => (0x80..=0x8f).contains(&next),
    }
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[derive(Clone, Copy)]
enum Class {
    /// May stand in a path as it is.
    Plain,
    Slash,
    Percent,
    Other,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' => Class::Plain,
            byte if is_unreserved(byte) => Class::Plain,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_paths_are_borrowed() {
        for path in ["/", "/a", "/a/", "/a/b.html", "/.well-known/x", "/..a/...", "/a%20b/%C3%A9", "/a;v=1/b@c:d"] {
            assert!(matches!(normalise(path), Ok(Cow::Borrowed(same)) if same == path), "{path}");
        }
    }

    #[test]
    fn every_spelling_becomes_the_same_path() {
        for (path, normal) in [
            ("/%66orbidden", "/forbidden"),
            ("/x/../forbidden", "/forbidden"),
            ("//forbidden", "/forbidden"),
            ("/./forbidden", "/forbidden"),
            ("/x/%2e%2e/forbidden", "/forbidden"),
            ("/x/.%2E/forbidden", "/forbidden"),
            ("/%2e/forbidden", "/forbidden"),
            ("/forbidden//", "/forbidden/"),
            ("/forbidden/.", "/forbidden/"),
            ("/forbidden/x/..", "/forbidden/"),
            ("/a/..", "/"),
            ("/.", "/"),
            ("//", "/"),
            ("/%7euser", "/~user"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/a[0]|b", "/a%5B0%5D%7Cb"),
            ("/%252f", "/%252f"),
            ("/%2541", "/%2541"),
            ("/a%2fb/..%20", ""),
        ] {
            match normalise(path) {
                Ok(found) => assert_eq!(found, normal, "{path}"),
                Err(problem) => assert_eq!((problem, normal), (PathProblem::Ambiguous, ""), "{path}"),
            }
        }
    }

    #[test]
    fn parameters_are_cut_off_every_segment() {
        for (path, bare) in [
            ("/a/b", None),
            ("/a%20b", None),
            ("/a;x=1/b", Some("/a/b")),
            ("/a%3Bx/b;y", Some("/a/b")),
            ("/;x/a", Some("/a")),
            ("/a;/;/b;", Some("/a/b")),
            ("/;", Some("/")),
            ("/a/;x", Some("/a/")),
            ("/a%3B;b", Some("/a")),
        ] {
            assert_eq!(without_parameters(path).as_deref(), bare, "{path}");
        }
    }

    #[test]
    fn two_readings_are_refused() {
        use PathProblem::*;
        for (path, problem) in [
            ("", NotAbsolute),
            ("a/b", NotAbsolute),
            ("*", NotAbsolute),
            ("/a%2fb", Ambiguous),
            ("/a%2Fb", Ambiguous),
            ("/a%5cb", Ambiguous),
            ("/a%00", Ambiguous),
            ("/a%0d%0ab", Ambiguous),
            ("/a%7f", Ambiguous),
            ("/x/..;/forbidden", Ambiguous),
            ("/%c0%ae%c0%ae/forbidden", Ambiguous),
            ("/%C0%AFforbidden", Ambiguous),
            ("/%e0%80%af", Ambiguous),
            ("/%f0%80%80%af", Ambiguous),
            ("/x/..;a=b/forbidden", Ambiguous),
            ("/x/.;/forbidden", Ambiguous),
            ("/x/%2e%2e%3b/forbidden", Ambiguous),
            ("/..", AboveRoot),
            ("/a/../../b", AboveRoot),
            ("/%2e%2e/b", AboveRoot),
            ("/%", BadEscape),
            ("/%2", BadEscape),
            ("/%zz", BadEscape),
            ("/%+1", BadEscape),
            ("/a\\b", BadCharacter),
            ("/a b", BadCharacter),
            ("/a\tb", BadCharacter),
            ("/a\0", BadCharacter),
            ("/a\u{7f}", BadCharacter),
            ("/a#b", BadCharacter),
        ] {
            assert_eq!(normalise(path), Err(problem), "{path:?}");
        }
    }
}
