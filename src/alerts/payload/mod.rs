//! Notices in the words of those who are told. (pure)
//!
//! ```text
//! slack.rs         incoming webhook: text and blocks
//! pagerduty.rs     Events API v2: trigger and resolve with one dedup_key
//! alertmanager.rs  API v2: an alert that fires until it is resolved
//! json.rs          our own JSON, for notices and for webhooks
//! ```

mod alertmanager;
mod json;
mod pagerduty;
mod slack;

#[cfg(test)]
mod testing;

use http::Uri;
use serde_json::Value;

pub use json::{HookCall, hook};

use super::notice::Notice;
use crate::config::model::{Channel, Secret};

/// One POST of JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Post {
    pub url: String,
    /// Where it goes, without what must not be shown.
    pub shown: String,
    pub body: Value,
    /// Key of its signature.
    pub secret: Option<Secret>,
}

/// What a channel is sent for this notice, in this order. Empty: it is none of its business.
pub fn posts(to: &Channel, notice: &Notice) -> Vec<Post> {
    match to {
        Channel::Slack { url } => {
            let shown = format!("Slack ({})", url.file.display());
            vec![Post { url: url.value.clone(), shown, body: slack::message(notice), secret: None }]
        }
        Channel::PagerDuty { routing_key, url, source } => {
            pagerduty::events(notice, &routing_key.value, source.as_deref())
                .into_iter()
                .map(|body| Post { url: url.clone(), shown: shown(url), body, secret: None })
                .collect()
        }
        Channel::Alertmanager { url } => {
            let url = join(url, "/api/v2/alerts");
            let post = |body| Post { shown: shown(&url), url: url.clone(), body, secret: None };
            alertmanager::alerts(notice).map(post).into_iter().collect()
        }
        Channel::Webhook { url, secret } => {
            vec![Post { url: url.clone(), shown: shown(url), body: json::notice(notice), secret: secret.clone() }]
        }
    }
}

/// A URL without query, fragment, user and password, for messages.
pub fn shown(url: &str) -> String {
    let Ok(uri) = url.parse::<Uri>() else { return "an address that cannot be read".into() };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{}://{host}{}", uri.scheme_str().unwrap_or("http"), uri.path())
}

/// The address of an API with the path of one of its calls.
pub fn join(base: &str, path: &str) -> String {
    let base = base.split(['?', '#']).next().unwrap_or(base);
    format!("{}{path}", base.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_shown() {
        for (url, want) in [
            ("https://u:p@hooks.test:8443/canary?key=1#x", "https://hooks.test:8443/canary"),
            ("http://h", "http://h/"),
            ("not a url", "an address that cannot be read"),
        ] {
            assert_eq!(shown(url), want);
        }
        let slack = Channel::Slack { url: testing::secret("https://hooks.slack.test/services/T0/B0/XyZ") };
        let post = posts(&slack, &testing::notice()).remove(0);
        assert!(!post.shown.contains("XyZ"), "{}", post.shown);
    }

    #[test]
    fn paths_are_joined_with_one_slash() {
        for base in ["http://am:9093", "http://am:9093/", "http://am:9093/?x=1"] {
            assert_eq!(join(base, "/api/v2/alerts"), "http://am:9093/api/v2/alerts");
        }
        assert_eq!(join("http://h/am/", "/api/v2/alerts"), "http://h/am/api/v2/alerts");
    }
}
