//! Second chances, ejection and circuits as written.

use serde_json::{Value as Json, json};

use crate::config::decode::{OneOrMany, Scalar, Wrong};
use crate::config::hint;
use crate::config::keys::keys;
use crate::config::model::RetryMethods;
use crate::config::scalar::{Count, Percent, Time};

keys! {
    /// Second chances of a request, always at another endpoint, before a byte of an answer has gone to the client.
    Retry {
        /// Further endpoints asked; 0 turns it off.
        attempts: Count<0, 10> = default("2"),
        /// What deserves a second chance, one or a list: `connect` (no connection; any method), `refused` (an HTTP/2
        /// endpoint said that it has not begun; any method), `reset` (the connection broke or what came was no
        /// answer), `timeout` (none within `per_try_timeout`), or a status from 500 on. Without it, `connect`,
        /// `refused` and `reset`.
        on: OneOrMany<RetryOn> = optional,
        /// The share of the live requests that may be asked again; what had no connection costs nothing. A few are
        /// always allowed.
        budget: Percent = default("20%"),
        /// Which requests may run twice: `safe` (GET, HEAD, OPTIONS, TRACE), or `idempotent` (PUT and DELETE, too).
        methods: RetryMethods = default("safe"),
        /// How long each attempt may stay without an answer. Only with `timeout` in `on`.
        per_try_timeout: Time<10> = optional,
    }
}

/// One entry of `retry.on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    Connect,
    Refused,
    Reset,
    Timeout,
    Status(u16),
}

const WORDS: [(&str, RetryOn); 4] = [
    ("connect", RetryOn::Connect),
    ("refused", RetryOn::Refused),
    ("reset", RetryOn::Reset),
    ("timeout", RetryOn::Timeout),
];

impl Scalar for RetryOn {
    const KIND: &'static str = "a reason to retry";
    fn parse(text: &str) -> Result<Self, Wrong> {
        if let Some((_, on)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*on);
        }
        match text.parse::<u16>() {
            Ok(status @ 500..=599) => return Ok(Self::Status(status)),
            Ok(_) => return Err(Wrong::because("only statuses from 500 to 599 are the endpoint's failure")),
            Err(_) => {}
        }
        let words = WORDS.map(|(word, _)| word);
        let wrong = Wrong::because(format!("it is one of {}, or a status such as `503`", hint::list(&words)));
        Err(match (text, hint::nearest(text, words)) {
            ("5xx", _) => wrong.hint("list the statuses: `502, 503, 504`"),
            (_, Some(near)) => wrong.hint(format!("did you mean `{near}`?")),
            (_, None) => wrong,
        })
    }
    fn shape() -> Json {
        json!({
            "anyOf": [
                { "type": "integer", "minimum": 500, "maximum": 599 },
                { "type": "string", "pattern": format!("^({}|5[0-9]{{2}})$", WORDS.map(|(word, _)| word).join("|")) },
            ]
        })
    }
}
