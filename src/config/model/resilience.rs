//! What a service does about endpoints that fail: ejection, second chances.

use std::time::Duration;

use http::Method;

/// Passive ejection: an endpoint that fails the traffic gets none for a while.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Outlier {
    pub consecutive_failures: u32,
    pub success_rate: Option<SuccessRule>,
    pub latency: Option<SlowRule>,
    /// How often endpoints are compared.
    pub every: Duration,
    pub eject_for: Duration,
    /// What `eject_for` grows to.
    pub eject_for_max: Duration,
    /// Hundredths of a percent of a version's endpoints that may be ejected at once. One endpoint
    /// may always be ejected if the version has another.
    pub max_ejected_bp: u32,
}

/// Fails more than its peers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SuccessRule {
    pub below_peers_bp: u32,
    pub min_requests: u64,
}

/// Is slower than its peers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SlowRule {
    /// Hundredths: 300 is three times.
    pub max_ratio_hundredths: u32,
    pub at_least: Duration,
    pub min_requests: u64,
}

impl Default for Outlier {
    fn default() -> Outlier {
        Outlier {
            consecutive_failures: 5,
            success_rate: None,
            latency: None,
            every: Duration::from_secs(10),
            eject_for: Duration::from_secs(30),
            eject_for_max: Duration::from_secs(300),
            max_ejected_bp: 5_000,
        }
    }
}

impl Outlier {
    /// Endpoints are compared, so what they do is counted.
    pub fn compares(&self) -> bool {
        self.success_rate.is_some() || self.latency.is_some()
    }
}

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
    /// How long the first endpoint may stay without a byte of an answer before a second is asked, too.
    pub hedge_after: Option<Duration>,
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
            hedge_after: None,
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
