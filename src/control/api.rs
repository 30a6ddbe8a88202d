//! What the controller is asked and what it answers: shared by the admin API, the CLI and the demo.

mod story;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::problem::Problem;
use crate::endpoints::Health;
use crate::sessions::Kind;

pub use story::{
    EarlierRollout, FailedRequest, RolloutArm, RolloutDecision, RolloutEvidence, RolloutReceipt, RolloutReport,
    RolloutSample,
};

/// Who asks. Journaled and shown with every generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author(pub String);

/// A change asked for by an operator.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Replace the whole configuration by this text (one file).
    Apply {
        text: String,
        name: String,
        confirm_ms: Option<u64>,
    },
    /// Read the configuration file or directory again (watcher, SIGHUP, `apply` of the running file).
    Reload,
    /// All traffic of each named service to the named version; several flip in one generation.
    Switch {
        to: BTreeMap<String, String>,
        force: bool,
    },
    /// New weights for one or more services, by service then version.
    Weights {
        to: BTreeMap<String, BTreeMap<String, u32>>,
        force: bool,
    },
    /// Back to the previous live split of the service.
    Rollback {
        service: String,
        reason: Option<String>,
    },
    /// Weight 0 for one version; its share goes to the others.
    Drain {
        service: String,
        version: String,
    },
    /// New requests of the service wait until `Release`.
    Hold {
        service: String,
    },
    Release {
        service: String,
    },
    /// Forget the overlay of a service: the file decides again.
    Clear {
        service: String,
    },
    /// Publish the configuration and splits of an earlier generation again.
    Revert {
        generation: u64,
    },
    /// Keep what an `apply --confirm` published; `None` means whichever waits.
    Confirm {
        generation: Option<u64>,
    },
    /// A word about the service's rollout.
    Rollout {
        service: String,
        action: RolloutAction,
    },
    /// Evidence from outside: something happened to a version. `kind` is `restart`.
    Report {
        service: String,
        version: String,
        kind: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutAction {
    /// Begin a rollout to `to` (default: the file's `active`). `again`: although it was rejected.
    Start {
        to: Option<String>,
        again: bool,
    },
    /// The next stage now, whatever the evidence says; in the last one, the end.
    Promote,
    /// Stay where it is until `Resume`. Rollback stays armed.
    Pause {
        reason: Option<String>,
    },
    Resume,
    /// Back to stable at once; the canary counts as rejected.
    Abort {
        reason: Option<String>,
    },
    /// Says yes at the gate that the rollout waits at.
    Approve {
        gate: Option<String>,
        by: Option<String>,
        comment: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub change: Change,
    pub author: Author,
    /// Refuse unless this generation is live (`If-Match`).
    pub if_match: Option<u64>,
}

/// Proof of a change: what moved, and how fast. Times are measured, not promised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    pub generation: u64,
    /// `false`: the asked-for state was live already; `generation` is the live one.
    pub changed: bool,
    /// Splits before, by service and version, of the services that changed.
    pub from: BTreeMap<String, BTreeMap<String, u32>>,
    pub to: BTreeMap<String, BTreeMap<String, u32>>,
    pub cause: String,
    pub author: String,
    /// Milliseconds since the Unix epoch.
    pub triggered_at: u64,
    pub published_at: u64,
    /// From trigger to the pointer store.
    pub flip_micros: u64,
    /// From trigger to the start of the last request that was routed by the old generation; 0 if none
    /// started after the trigger.
    pub last_old_start_micros: u64,
    /// Exchanges on the versions that lost their place, at the moment of the flip.
    pub in_flight_at_flip: u64,
    /// Requests that stable has answered in place of the canary that this takes back, since its rollout began.
    pub shielded: u64,
    pub warnings: Vec<String>,
}

/// Why a change was not made. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Refused {
    /// The configuration is wrong.
    Invalid { problems: Vec<Problem>, rendered: String },
    /// No such service, version or generation.
    NotFound { what: String, hint: Option<String> },
    /// Not now: the target is not healthy, nothing to roll back to, …
    Conflict { what: String, hint: Option<String> },
    /// `If-Match` did not hold.
    Stale { wanted: u64, live: u64 },
    /// A socket could not be bound, a file not read.
    Failed { what: String, hint: Option<String> },
}

/// The whole state, for `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub started_at: u64,
    pub uptime_ms: u64,
    /// `starting`, `ready`, `degraded` or `draining`.
    pub state: String,
    pub generation: GenerationInfo,
    pub generations_live: u64,
    pub config: ConfigStatus,
    pub listeners: Vec<ListenerStatus>,
    pub services: Vec<ServiceStatus>,
    pub draining: Vec<DrainStatus>,
    /// Processes from before an upgrade that still finish what they had.
    #[serde(default)]
    pub retired: Vec<RetiredStatus>,
    /// Set while an `apply --confirm` waits.
    pub confirm_until: Option<u64>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredStatus {
    pub pid: u32,
    /// Kinds with nothing are left out.
    pub in_flight: BTreeMap<Kind, u64>,
    /// Of clients, idle ones too.
    pub connections: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerationInfo {
    pub number: u64,
    pub hash: String,
    pub author: String,
    pub cause: String,
    pub at: u64,
    /// Live splits by service and version.
    #[serde(default)]
    pub splits: BTreeMap<String, BTreeMap<String, u32>>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ConfigStatus {
    pub source: String,
    pub last_reload_successful: bool,
    pub last_reload_at: Option<u64>,
    /// Serving the last known good configuration because the file was broken at start.
    pub degraded: bool,
    /// The file as it is now, if it is broken: every problem, and the same as text.
    pub problems: Vec<Problem>,
    pub rendered: Option<String>,
    /// The file cannot be seen to change (stale single-file bind mount, unreadable directory).
    pub unwatchable: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    pub name: String,
    pub address: String,
    pub connections: u64,
    pub draining: bool,
    /// Connections that were closed before they began, by reason.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// Only of a listener with TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TlsStatus {
    pub certificates: Vec<CertificateStatus>,
    /// Other files that cannot be used as they are on disk; what was read before goes on.
    pub problems: Vec<String>,
    /// Handshakes at this moment.
    pub handshakes_open: u64,
    /// Result, version of TLS or `none`, and how many since the listener was opened.
    pub handshakes: Vec<(String, String, u64)>,
}

/// A certificate that clients are shown. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The first of `names`.
    pub name: String,
    pub names: Vec<String>,
    pub subject: String,
    pub issuer: String,
    pub not_before: u64,
    pub not_after: u64,
    /// SHA-256, hex.
    pub fingerprint: String,
    /// `off`, `optional` or `required`.
    pub client_auth: String,
    pub stapled: bool,
    /// Why the files as they are on disk now cannot be used; what was read before goes on.
    pub problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    pub held: bool,
    /// Clients get the page of `maintenance` instead.
    #[serde(default)]
    pub maintenance: bool,
    pub waiting: u64,
    pub sticky: String,
    /// What the file asks for.
    pub intent: BTreeMap<String, u32>,
    /// What runs.
    pub effective: BTreeMap<String, u32>,
    /// Who owns the effective split: `file`, or the author of the overlay.
    pub owner: String,
    pub owner_cause: Option<String>,
    pub owner_since: Option<u64>,
    pub versions: Vec<VersionStatus>,
    /// The rollout that runs or ended last.
    #[serde(default)]
    pub rollout: Option<RolloutStatus>,
}

/// Where a rollout stands and on which evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// `staged`, `waiting` (for a gate), `paused`, `rolled_back`, `promoted`,
    /// `superseded`: the file or an operator decides.
    pub phase: String,
    pub stable: String,
    pub canary: String,
    /// From 1; 0 before the first stage has begun.
    pub stage: usize,
    /// The canary's share of each stage, 0 to 1.
    pub stages: Vec<f64>,
    /// Each stage in a word or two: `5 %`, `match`, `mirror 10 %`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Milliseconds since the Unix epoch: of this stage, or of the end.
    pub since: u64,
    /// When the rollout began.
    #[serde(default)]
    pub started: u64,
    /// What is left of the stage's least time, in milliseconds; `None` before the first stage and after the end.
    #[serde(default)]
    pub hold_left_ms: Option<u64>,
    /// Until when the version before a promoted one is to stay as it is, for a way back at once (`keep_idle`). Milliseconds
    /// since the Unix epoch.
    #[serde(default)]
    pub kept_until: Option<u64>,
    /// Why it is paused, waits, was rolled back or holds, for people.
    pub why: Vec<String>,
    /// The gate it waits at.
    pub gate: Option<String>,
    /// What is still missing for the next stage, for people; empty once it ended.
    pub missing: Vec<String>,
    pub meters: Option<RolloutMeters>,
}

/// The evidence. Every meter is a betting test's capital; see `docs/rollouts.md`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RolloutMeters {
    pub canary_requests: u64,
    pub canary_failures: u64,
    pub stable_requests: u64,
    pub stable_failures: u64,
    /// Capital against the canary, and where it rolls back.
    pub errors: f64,
    pub errors_limit: f64,
    /// Both error tests; `errors` is the lesser, or the one that is left while the canary has everything.
    #[serde(default)]
    pub errors_absolute: f64,
    #[serde(default)]
    pub errors_relative: f64,
    /// Capital of "slower than stable", and where it holds.
    pub latency: f64,
    pub latency_limit: f64,
    /// Capital for the canary, and where it is proven good.
    pub proof: f64,
    pub proof_limit: f64,
    /// Capital for "fast enough", if that is promised; its limit is `proof_limit`.
    #[serde(default)]
    pub quick: Option<f64>,
    /// Milliseconds of this stage, as far as known.
    pub canary_p50_ms: Option<f64>,
    pub canary_p95_ms: Option<f64>,
    pub stable_p50_ms: Option<f64>,
    pub stable_p95_ms: Option<f64>,
    pub restarts: u64,
    /// Copies of requests that mirror stages sent, and those of them that failed. No client saw an answer.
    #[serde(default)]
    pub copies: u64,
    #[serde(default)]
    pub copies_failed: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionStatus {
    pub name: String,
    /// `live`, `draining`, `off` or `rejected`; `matched`, `mirrored`: gets what a stage of the rollout gives it beside
    /// the split.
    pub state: String,
    pub weight: u32,
    /// Shares between 0 and 1 since the present split went live.
    pub target_share: f64,
    pub realised_requests: f64,
    pub realised_clients: Option<f64>,
    pub requests: u64,
    pub errors: BTreeMap<String, u64>,
    pub in_flight: BTreeMap<Kind, u64>,
    /// What it may work on at once, if that is bounded.
    pub in_flight_max: Option<u64>,
    /// Requests turned away because of that.
    pub turned_away: u64,
    /// So few of its endpoints are ready that all are asked.
    pub panic: bool,
    pub endpoints: Vec<EndpointStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    pub address: String,
    pub resolved: Vec<String>,
    pub health: Health,
    pub ejected: bool,
    pub in_flight: u64,
    pub last_change: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrainStatus {
    pub service: String,
    pub version: String,
    pub since: u64,
    /// Remaining exchanges and their deadline, by kind.
    pub remaining: BTreeMap<Kind, u64>,
    pub deadline: BTreeMap<Kind, u64>,
    /// Pinned clients may come back until then.
    pub sessions_until: Option<u64>,
    pub cut: u64,
    pub finished: bool,
}

/// `POST /api/v1/config/plan`: what an apply would do, and what it would mean now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub base: u64,
    pub changed: bool,
    /// One line each, aligned for people: "service shop: split v1 90 -> 50, v2 10 -> 50".
    pub changes: Vec<PlanLine>,
    /// What the change would do to what is running now.
    pub consequences: Vec<PlanLine>,
    /// Unified text diff of the effective configuration.
    pub diff: String,
    pub warnings: Vec<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanLine {
    /// `route`, `service`, `split`, `endpoint`, `listener`, `policy`, `stream`, `client`.
    pub kind: String,
    pub subject: String,
    pub text: String,
}

/// `GET /api/v1/explain`: the decision and every step that led to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    pub generation: u64,
    pub method: String,
    pub host: String,
    pub path: String,
    pub route: Option<String>,
    pub action: String,
    pub service: Option<String>,
    pub version: Option<String>,
    pub reason: Option<String>,
    pub bucket: Option<u16>,
    pub endpoints: Vec<EndpointStatus>,
    /// What the endpoint would be asked.
    pub forwarded_path: Option<String>,
    pub status: Option<u16>,
    /// In order, for people.
    pub steps: Vec<String>,
}

/// One entry of `GET /api/v1/events` and of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    pub id: u64,
    pub at: u64,
    /// `publish`, `reload_failed`, `health`, `ejected`, `drain_started`, `drain_finished`, `hold`,
    /// `release`, `confirm`, `rollout`, `receipt`, `listener`, `state`, `warning`.
    pub kind: String,
    pub service: Option<String>,
    pub version: Option<String>,
    pub message: String,
    pub data: serde_json::Value,
}

/// One entry of `GET /api/v1/audit`: a state-changing call and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    pub at: u64,
    pub author: String,
    pub from: String,
    pub action: String,
    pub result: String,
    pub generation: Option<u64>,
}
