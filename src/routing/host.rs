//! The Host of a request: what is acceptable, and its form for matching. RFC 9110 section 7.2.

/// `None` for anything that is not one host with an optional port (empty, spaces, userinfo, lists).
/// Returns the host in lower case without port and trailing dot; borrows when it already is.
pub fn normalise(_host: &[u8]) -> Option<std::borrow::Cow<'_, str>> {
    unimplemented!()
}
