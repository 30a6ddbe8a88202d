//! Who a stage with `match` sends to the canary, whatever the split says: clients with one of the headers, one of the
//! cookies, or a name on the list.

use std::collections::HashSet;

use http::{HeaderMap, HeaderName};

use super::conditions::has_header;
use crate::config::model::{StageMatch, ValueMatch};

/// A stage's `match`, ready to ask.
#[derive(Debug)]
pub struct Matched {
    headers: Box<[(HeaderName, ValueMatch)]>,
    cookies: Box<[(String, ValueMatch)]>,
    /// The header that names the user, and the users.
    users: Option<(HeaderName, Users)>,
}

type Users = HashSet<Box<[u8]>, foldhash::fast::RandomState>;

/// The condition that a request meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met<'a> {
    Header(&'a HeaderName),
    Cookie(&'a str),
    /// The user that this header names is on the list.
    User(&'a HeaderName),
}

impl Matched {
    pub fn of(stage: &StageMatch) -> Matched {
        let users = stage.users.as_ref().map(|(header, users)| {
            (header.clone(), users.iter().map(|user| user.as_bytes().into()).collect::<Users>())
        });
        Matched { headers: stage.headers.as_slice().into(), cookies: stage.cookies.as_slice().into(), users }
    }

    /// The first condition that the request meets; any is enough.
    pub fn met(&self, headers: &HeaderMap) -> Option<Met<'_>> {
        let header = self.headers.iter().find(|(name, wanted)| has_header(headers, name, wanted));
        if let Some((name, _)) = header {
            return Some(Met::Header(name));
        }
        let cookie = self.cookies.iter().find(|(name, wanted)| has_cookie(headers, name, wanted));
        if let Some((name, _)) = cookie {
            return Some(Met::Cookie(name));
        }
        let (name, users) = self.users.as_ref()?;
        let is_listed = headers.get_all(name).iter().any(|user| users.contains(user.as_bytes()));
        is_listed.then_some(Met::User(name))
    }
}

/// RFC 6265 section 4.2.1. Of several cookies with one name, any may have the wanted value.
fn has_cookie(headers: &HeaderMap, name: &str, wanted: &ValueMatch) -> bool {
    let lines = headers.get_all(http::header::COOKIE).iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        Some((pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii()))
    });
    pairs.any(|(have, value)| {
        have == name.as_bytes()
            && match wanted {
                ValueMatch::Present => true,
                ValueMatch::Exact(wanted) => value == wanted.as_bytes(),
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage() -> Matched {
        let exact = |value: &str| ValueMatch::Exact(value.into());
        Matched::of(&StageMatch {
            headers: vec![
                (HeaderName::from_static("x-beta"), exact("1")),
                (HeaderName::from_static("x-any"), ValueMatch::Present),
            ],
            cookies: vec![("beta".into(), exact("yes")), ("qa".into(), ValueMatch::Present)],
            users: Some((HeaderName::from_static("x-user"), vec!["ada".into(), "bob".into()])),
        })
    }

    #[test]
    fn any_of_headers_cookies_and_users_is_enough() {
        let matched = stage();
        for (fields, met) in [
            (&[("x-beta", "1")][..], Some("header x-beta")),
            (&[("x-beta", "0"), ("x-beta", "1")], Some("header x-beta")),
            (&[("x-any", "")], Some("header x-any")),
            (&[("cookie", "a=b; beta=yes")], Some("cookie beta")),
            (&[("cookie", "beta=no; beta = yes ")], Some("cookie beta")),
            (&[("cookie", "a=b"), ("cookie", "qa=")], Some("cookie qa")),
            (&[("x-user", "bob")], Some("user x-user")),
            (&[("x-user", "eve"), ("x-user", "ada")], Some("user x-user")),
            // And nobody else.
            (&[], None),
            (&[("x-beta", "11")], None),
            (&[("x-beta", "")], None),
            (&[("cookie", "beta=yes2")], None),
            (&[("cookie", "xbeta=yes; qa")], None),
            (&[("x-user", "Ada")], None),
            (&[("x-user", "ada,bob")], None),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(HeaderName::from_static(name), value.parse().expect("a value"));
            }
            let got = matched.met(&headers).map(|met| match met {
                Met::Header(name) => format!("header {name}"),
                Met::Cookie(name) => format!("cookie {name}"),
                Met::User(name) => format!("user {name}"),
            });
            assert_eq!(got.as_deref(), met, "{fields:?}");
        }
    }
}
