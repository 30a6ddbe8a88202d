//! Progressive delivery as configured: how a changed `active` reaches all clients, what stops it, who
//! must agree, who is told.
//!
//! Two kinds of number: *shares* of traffic are hundredths of a percent (`_bp`, 0..=10 000), exact;
//! *rates* of bad answers are `f64` between 0 and 1, written with up to three decimals of a percent.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::{Name, ValueMatch};

/// How a changed `active` reaches all clients. Only with `active:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    pub strategy: Strategy,
    /// Never empty, in this order: mirror stages, match stages, shares. Shares grow strictly and end at
    /// 100 %. Blue-green has one stage of 100 %, perhaps after mirror and match stages.
    pub stages: Vec<Stage>,
    /// Services of one group roll back together.
    pub group: Option<Name>,
    /// Replay of failed canary requests on stable. `None`: off.
    pub shield: Option<Shield>,
    pub guardrails: Guardrails,
    pub promote_when: PromoteWhen,
    /// Stable stays warm for this long after 100 %. Default 1 h.
    pub keep_idle: Duration,
    /// Keys of `Config::notifications`. `None`: all of them.
    pub notify: Option<Vec<Name>>,
    pub webhooks: Vec<Webhook>,
    /// No start, no advance, no promotion in these; rollback always.
    pub freeze: Vec<Freeze>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Stage by stage.
    Canary,
    /// Everything at once, then judged.
    BlueGreen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shield {
    /// Most replays, as a share of the service's requests. 1..=10 000, default 2 000 (20 %).
    pub budget_bp: u16,
}

/// One step of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    pub traffic: StageTraffic,
    /// The least time of this stage. `None`: `promote_when.hold`.
    pub hold: Option<Duration>,
    /// Canary requests seen before the stage may end. Default 0.
    pub min_requests: u64,
    /// The gate (a key of `Config::gates`) that must say yes before the stage begins.
    pub approve: Option<Name>,
    /// Stands for all of the rollout's guardrails in this stage.
    pub guardrails: Option<Guardrails>,
}

/// What the canary gets in a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum StageTraffic {
    /// This share of the clients, in bp, 1..=10 000.
    Share(u16),
    /// The clients that match, and nobody else.
    Match(StageMatch),
    /// Copies of this share of the requests, in bp, 1..=10 000; the answers are discarded.
    Mirror(u16),
}

/// Any of these sends a client to the canary. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageMatch {
    pub headers: Vec<(HeaderName, ValueMatch)>,
    pub cookies: Vec<(String, ValueMatch)>,
    /// A header that names the user, and the users; both given, at least one user.
    pub users: Option<(HeaderName, Vec<String>)>,
}

/// What stops a rollout. `None`: that rule is off.
#[derive(Debug, Clone, PartialEq)]
pub struct Guardrails {
    /// Judged on each request by sequential tests. On by default.
    pub errors: Option<ErrorsRule>,
    /// The literal rule over a window. Off by default.
    pub error_window: Option<WindowRule>,
    /// On by default.
    pub latency: Option<LatencyRule>,
    /// On by default.
    pub crashes: Option<CrashesRule>,
    /// In the order of the file, names unique and none of the four above.
    pub custom: Vec<(Name, CustomRule)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorsRule {
    /// The rate of failed requests that is too much: above 0, below 1. Default 0.001.
    pub max: f64,
    /// And how many times stable's rate: at least 1. Default 1.25.
    pub ratio: f64,
    /// Default rollback.
    pub then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowRule {
    /// The rate of failed requests that is too much: above 0, below 1.
    pub max: f64,
    /// For how long without a break.
    pub period: Duration,
    /// Default pause.
    pub then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyRule {
    /// 0.5, 0.95 or 0.99. Default 0.95.
    pub quantile: f64,
    /// How many times stable's: above 1. Default 1.5.
    pub max_ratio: f64,
    /// For how long without a break. Default 10 min.
    pub period: Duration,
    /// An endpoint of the canary that is younger, or has answered fewer than 200 requests, is not judged. Zero: it
    /// is. Default 30 s.
    pub warm_up: Duration,
    /// Default pause.
    pub then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashesRule {
    /// Restarts that are still accepted. Default 3.
    pub more_than: u32,
    /// Default 10 min.
    pub within: Duration,
    /// Default rollback.
    pub then: Then,
}

/// What a broken guardrail does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    RollBack,
    Pause,
}

/// A guardrail of the user's own.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomRule {
    pub what: CustomEvent,
    /// Default rollback.
    pub then: Then,
}

/// What a custom guardrail watches. Every `max` is above 0 and below 1, except that of `Prometheus`.
#[derive(Debug, Clone, PartialEq)]
pub enum CustomEvent {
    /// A response header marks a bad answer.
    Header { name: HeaderName, value: ValueMatch, max: f64 },
    /// These statuses are bad answers.
    Status { ranges: Vec<RangeInclusive<u16>>, max: f64 },
    /// These gRPC statuses (1..=16, sorted, no duplicates) are bad answers.
    GrpcStatus { codes: Vec<u8>, max: f64 },
    /// A query that must not be above `max` (any number) for `period`. Asked every `every`.
    Prometheus { url: String, query: String, max: f64, every: Duration, period: Duration },
    /// Breaches reported through `POST …/events` with the guardrail's name as kind.
    Outside { more_than: u32, within: Duration },
}

/// What a stage must prove before the next begins, and the last before the canary is the new stable.
#[derive(Debug, Clone, PartialEq)]
pub struct PromoteWhen {
    /// Above 0, below 1, at most `errors.max`. Default: `errors.max`, or 0.001 without that rule.
    pub errors_below: f64,
    /// Default none.
    pub latency: Option<LatencyBelow>,
    /// Every endpoint of the canary healthy. Default true.
    pub healthy: bool,
    /// The least time of a stage that does not say its own. Default 60 min.
    pub hold: Duration,
    pub proof: Proof,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyBelow {
    /// 0.5, 0.95 or 0.99. Default 0.95.
    pub quantile: f64,
    pub below: Duration,
}

/// What counts as proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A sequential test that says so.
    Evidence,
    /// `promote_on_time: true`: the limits kept for as long as `hold`.
    Time,
}

/// Who may say yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Names, no duplicates. Empty: anybody with the admin token.
    pub approvers: Vec<String>,
}

/// A secret that was read from a file. Its `Debug` shows the file only.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Without blanks at either end, never empty.
    pub value: String,
    /// Absolute: what is shown instead of it.
    pub file: PathBuf,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.file.display())
    }
}

/// An outside service that is asked at points of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// `http://` or `https://`, without a user or password.
    pub url: String,
    /// When it is asked; never empty, no duplicates.
    pub on: Vec<HookPoint>,
    /// Key of the HMAC signature. `None`: not signed.
    pub secret: Option<Secret>,
    /// For one attempt. Default 10 s.
    pub timeout: Duration,
    /// Tries in all, at least 1. Default 3.
    pub attempts: u32,
}

/// When a webhook is asked. The first three can refuse; a rollback is only told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookPoint {
    BeforeStage,
    AfterStage,
    BeforePromote,
    OnRollback,
}

impl HookPoint {
    /// As it is written in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            HookPoint::BeforeStage => "before_stage",
            HookPoint::AfterStage => "after_stage",
            HookPoint::BeforePromote => "before_promote",
            HookPoint::OnRollback => "on_rollback",
        }
    }
}

/// Somebody who is told what rollouts do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub to: Channel,
    /// No duplicates, never empty. Default all of [`NoticeKind::ALL`].
    pub on: Vec<NoticeKind>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// The address of an incoming webhook is a secret.
    Slack { url: Secret },
    PagerDuty {
        routing_key: Secret,
        /// Default `https://events.pagerduty.com/v2/enqueue`.
        url: String,
        /// `payload.source` of the events. `None`: the sender chooses.
        source: Option<String>,
    },
    /// Its address without the path of the API: `http://alertmanager:9093`.
    Alertmanager { url: String },
    /// JSON, signed if there is a secret.
    Webhook { url: String, secret: Option<Secret> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeKind {
    Started,
    Advanced,
    Held,
    Paused,
    /// A gate waits for somebody.
    Approval,
    RolledBack,
    Promoted,
    /// A webhook failed, or stable is broken as well: somebody must look.
    Failed,
}

impl NoticeKind {
    pub const ALL: [Self; 8] = [
        Self::Started,
        Self::Advanced,
        Self::Held,
        Self::Paused,
        Self::Approval,
        Self::RolledBack,
        Self::Promoted,
        Self::Failed,
    ];
}

/// A stretch of time in which nothing moves forward. Always UTC; `from` belongs to it, `to` does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freeze {
    /// On each of these days (never empty, no duplicates), in minutes since midnight, `from < to <= 1440`.
    Weekly { days: Vec<Weekday>, from: u16, to: u16 },
    /// Milliseconds since 1970, `from_ms < to_ms`.
    Dates { from_ms: u64, to_ms: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}
