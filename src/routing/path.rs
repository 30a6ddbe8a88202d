//! One reading of a request path, decided once: what was matched is what is forwarded.

use std::borrow::Cow;

/// A path with two readings, refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    #[error("does not begin with a slash")]
    NotAbsolute,
    #[error("contains an encoded slash, backslash or NUL")]
    Ambiguous,
    #[error("climbs above the root")]
    AboveRoot,
    #[error("contains a malformed percent sequence")]
    BadEscape,
    #[error("contains a control character, a space or a backslash")]
    BadCharacter,
}

/// RFC 3986 section 6.2.2: unreserved characters decoded, escapes in upper case, dot segments and
/// empty segments removed. Borrows when nothing changes.
pub fn normalise(_path: &str) -> Result<Cow<'_, str>, PathProblem> {
    unimplemented!()
}
