//! What a service does about endpoints that fail: second chances.

use std::time::Duration;

use http::Method;

/// Second chances of a request, always at another endpoint, before a byte of an answer has gone to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Further endpoints asked. Default 2; 0 turns it off.
    pub attempts: u32,
    pub on: RetryOn,
    pub methods: RetryMethods,
    /// Hundredths of a percent of the live requests that may be asked again.
    pub budget_bp: u32,
    /// How long an attempt may stay without the head of an answer; only with `on.timeout`.
    pub per_try_timeout: Option<Duration>,
}

/// What deserves a second chance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryOn {
    /// No connection: nothing was sent, so any method may be.
    pub connect: bool,
    /// The endpoint said that it has not begun (HTTP/2): any method.
    pub refused: bool,
    /// The connection broke, or what came was no answer.
    pub reset: bool,
    /// No answer within `per_try_timeout`.
    pub timeout: bool,
    /// Statuses from 500 on, ascending.
    pub statuses: Vec<u16>,
}

/// Which requests may run twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryMethods {
    /// GET, HEAD, OPTIONS, TRACE.
    Safe,
    /// PUT and DELETE as well.
    Idempotent,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            attempts: 2,
            on: RetryOn { connect: true, refused: true, reset: true, timeout: false, statuses: Vec::new() },
            methods: RetryMethods::Safe,
            budget_bp: 2_000,
            per_try_timeout: None,
        }
    }
}

impl RetryMethods {
    pub fn cover(self, method: &Method) -> bool {
        match self {
            Self::Safe => method.is_safe(),
            Self::Idempotent => method.is_idempotent(),
        }
    }
}
