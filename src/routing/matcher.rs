//! Most specific route wins: host, then path, then number of matchers; ties by order in the file.

use super::table::{RouteIdx, Table};

#[derive(Debug, Default)]
pub struct Matcher {}

/// What of a request routing looks at. Borrowed, nothing is copied.
pub struct RequestView<'a> {
    pub method: &'a http::Method,
    /// Lower case, without port; empty when there is none.
    pub host: &'a str,
    /// Normalised (see [`super::path`]), without query.
    pub path: &'a str,
    /// Without the `?`; `None` when there is none.
    pub query: Option<&'a str>,
    pub headers: &'a http::HeaderMap,
}

impl Table {
    /// `None`: nothing matches, 404.
    pub fn route(&self, _request: &RequestView<'_>) -> Option<RouteIdx> {
        unimplemented!()
    }
}
