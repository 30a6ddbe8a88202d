//! One delivery: attempts until an answer is final.
//!
//! Tried again are 5xx, 429, and no answer at all; every other answer is final, 3xx and the other 4xx included.
//! Waits double from half a second and are shortened by chance, so that many instances do not come back at once
//! ("equal jitter"); a `Retry-After` (RFC 9110, section 10.2.3) lengthens them up to a bound.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;

use super::client::{Answer, Ask, Client};
use super::payload::Post;
use super::sign;
use crate::config::model::Secret;
use crate::telemetry::unix_ms;

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Nothing in an answer to a notice is used but a word for people.
const ANSWER_MAX: usize = 16 * 1024;
/// Characters of an answer that are shown.
const SHOWN_MAX: usize = 120;

/// How often and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For one attempt.
    pub timeout: Duration,
    /// In all, at least 1.
    pub attempts: u32,
}

/// What is to be delivered.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub url: String,
    /// Where, for people.
    pub shown: String,
    body: Bytes,
    secret: Option<Secret>,
    id: String,
}

impl Delivery {
    pub fn new(post: Post) -> Delivery {
        let body = Value::to_string(&post.body).into();
        Delivery { url: post.url, shown: post.shown, body, secret: post.secret, id: sign::delivery_id() }
    }

    /// `Ok` after an answer of 2xx. The error says what was wrong in the end, and how often it was tried.
    pub async fn deliver(&self, client: &Client, patience: Patience) -> Result<(), String> {
        let mut tried = 0;
        loop {
            tried += 1;
            let answer = client.ask(&self.ask(unix_ms() / 1_000), patience.timeout).await;
            let (wrong, wait) = match &answer {
                Ok(answer) if answer.status.is_success() => return Ok(()),
                Ok(answer) => (said(answer), retry_after(answer)),
                Err(wrong) => (wrong.clone(), None),
            };
            let again = answer.as_ref().map_or(true, |it| it.status.is_server_error() || it.status.as_u16() == 429);
            if !again || tried >= patience.attempts {
                return Err(if tried == 1 { wrong } else { format!("{wrong} (tried {tried} times)") });
            }
            let wait = backoff(tried, chance()).max(wait.unwrap_or_default());
            tracing::debug!(to = self.shown, wrong, tried, ?wait, "not delivered, trying again");
            tokio::time::sleep(wait).await;
        }
    }

    fn ask(&self, unix_secs: u64) -> Ask {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let text = |text: &str| HeaderValue::from_str(text).expect("digits, letters, `,` and `=`");
        headers.insert(sign::DELIVERY, text(&self.id));
        if let Some(secret) = &self.secret {
            headers.insert(sign::SIGNATURE, text(&sign::signature(&secret.value, unix_secs, &self.body)));
        }
        Ask { method: Method::POST, url: self.url.clone(), headers, body: self.body.clone(), answer_max: ANSWER_MAX }
    }
}

/// An answer that is no yes, in a few words.
fn said(answer: &Answer) -> String {
    let text = readable(&answer.body);
    let status = answer.status;
    match text.is_empty() {
        true => format!("it answered {status}"),
        false => format!("it answered {status}: {text}"),
    }
}

/// The beginning of what somebody else wrote, on one line.
pub(super) fn readable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let words: Vec<&str> =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|it| !it.is_empty()).collect();
    super::notice::shortened(&words.join(" "), SHOWN_MAX)
}

/// `chance` is from 0 to 1.
fn backoff(tried: u32, chance: f64) -> Duration {
    let whole = FIRST_WAIT.saturating_mul(1 << (tried - 1).min(16)).min(LONGEST_WAIT);
    whole.mul_f64(0.5 + chance / 2.0)
}

fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = answer.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::super::testing::{Server, closed, reply, reply_with};
    use super::*;

    fn delivery(url: &str, secret: Option<&str>) -> Delivery {
        let secret = secret.map(|value| Secret { value: value.into(), file: "/run/key".into() });
        Delivery::new(Post { url: url.into(), shown: "somebody".into(), body: json!({ "a": 1 }), secret })
    }

    fn patience(attempts: u32) -> Patience {
        Patience { timeout: Duration::from_millis(500), attempts }
    }

    #[tokio::test]
    async fn what_is_sent_is_json_signed_and_named() {
        let server = Server::start(vec![reply(500, ""), reply(204, "")]).await;
        let sent = delivery(&server.url("/hook?x=1"), Some("s3cr3t"));
        assert_eq!(sent.deliver(&Client::default(), patience(2)).await, Ok(()));
        let heard = server.received();
        assert_eq!(heard.len(), 2);
        for one in &heard {
            assert_eq!(one.line, "POST /hook?x=1 HTTP/1.1");
            assert_eq!(one.field("content-type"), Some("application/json"));
            assert_eq!(one.body, br#"{"a":1}"#);
            assert_eq!(one.field("x-switchback-delivery"), heard[0].field("x-switchback-delivery"));
            let signature = one.field("x-switchback-signature").expect("a signature");
            let at: u64 = signature["t=".len()..].split(',').next().unwrap().parse().unwrap();
            assert!(unix_ms() / 1_000 - at < 60, "{signature}");
            assert_eq!(signature, sign::signature("s3cr3t", at, &one.body));
        }
    }

    #[tokio::test]
    async fn only_what_may_help_is_tried_again() {
        for (replies, attempts, heard, want) in [
            (vec![reply(500, ""), reply(200, "")], 3, 2, Ok(())),
            (vec![reply(429, ""), reply(202, "")], 3, 2, Ok(())),
            (vec![None, reply(200, "")], 3, 2, Ok(())),
            (vec![Some("garbage\r\n\r\n".into()), reply(200, "")], 3, 2, Ok(())),
            (vec![reply(400, "bad\n\tkey ")], 3, 1, Err("it answered 400 Bad Request: bad key")),
            (vec![reply(403, "")], 3, 1, Err("it answered 403 Forbidden")),
            (vec![reply_with(307, "Location: /elsewhere\r\n", "")], 3, 1, Err("it answered 307 Temporary Redirect")),
            (vec![reply(503, "down")], 2, 2, Err("it answered 503 Service Unavailable: down (tried 2 times)")),
            (vec![None], 1, 1, Err("no answer within 500ms")),
        ] {
            let server = Server::start(replies.clone()).await;
            let answer = delivery(&server.url("/"), None).deliver(&Client::default(), patience(attempts)).await;
            assert_eq!(answer, want.map_err(str::to_owned), "{replies:?}");
            assert_eq!(server.received().len(), heard, "{replies:?}");
        }
        let refused = delivery(&closed().await, None).deliver(&Client::default(), patience(2)).await.unwrap_err();
        assert!(refused.contains("refused") && refused.ends_with("(tried 2 times)"), "{refused}");
    }

    #[tokio::test]
    async fn an_answer_of_any_length_is_read_no_further_than_is_useful() {
        let endless = format!("HTTP/1.1 400 X\r\nContent-Length: 999999999\r\n\r\n{}", "x".repeat(ANSWER_MAX + 1));
        let server = Server::start(vec![Some(endless)]).await;
        let wrong = delivery(&server.url("/"), None).deliver(&Client::default(), patience(1)).await.unwrap_err();
        assert!(wrong.starts_with("it answered 400 Bad Request: xxx") && wrong.chars().count() < 200, "{wrong}");
    }

    #[tokio::test]
    async fn whoever_says_when_to_come_back_is_obeyed_within_reason() {
        let server = Server::start(vec![reply_with(429, "Retry-After: 1\r\n", ""), reply(200, "")]).await;
        let began = Instant::now();
        assert_eq!(delivery(&server.url("/"), None).deliver(&Client::default(), patience(2)).await, Ok(()));
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
        let after = |text: &str| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            retry_after(&Answer { status: http::StatusCode::TOO_MANY_REQUESTS, headers, body: Vec::new(), whole: true })
        };
        assert_eq!(after("99999"), Some(RETRY_AFTER_MAX));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO), "long ago");
        assert_eq!(after("soon"), None);
    }

    #[test]
    fn waits_double_up_to_a_bound_and_differ() {
        let all = [(1, 250, 500), (2, 500, 1_000), (3, 1_000, 2_000), (7, 15_000, 30_000), (99, 15_000, 30_000)];
        for (tried, least, most) in all {
            assert_eq!(backoff(tried, 0.0), Duration::from_millis(least));
            assert_eq!(backoff(tried, 1.0), Duration::from_millis(most));
        }
    }
}
