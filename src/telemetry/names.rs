//! Every metric and its labels, in one place. Base units; labels are bounded by the configuration.

/// Counter. `service`, `version`, `route`, `code`.
pub const REQUESTS_TOTAL: &str = "switchback_requests_total";
/// Histogram, seconds. `service`, `version`.
pub const REQUEST_DURATION_SECONDS: &str = "switchback_request_duration_seconds";
/// Counter. `service`, `version`, `class`: see [`crate::outcome::ErrorClass`].
pub const REQUEST_ERRORS_TOTAL: &str = "switchback_request_errors_total";
/// Counter. `service`, `version`, `status`: its name in gRPC.
pub const GRPC_CALLS_TOTAL: &str = "switchback_grpc_calls_total";
/// Gauge. `service`, `version`, `kind`: see [`crate::sessions::Kind`].
pub const IN_FLIGHT: &str = "switchback_in_flight";
/// Gauge: number of the live generation.
pub const CONFIG_GENERATION: &str = "switchback_config_generation";
/// Gauge: 1 if the configuration on disk is what serves, 0 while it is broken.
pub const CONFIG_LAST_RELOAD_SUCCESSFUL: &str = "switchback_config_last_reload_successful";
/// Counter. `result`: `ok`, `unchanged`, `invalid`, `refused`.
pub const CONFIG_RELOADS_TOTAL: &str = "switchback_config_reloads_total";
/// Histogram, seconds: parse, check and compile together.
pub const CONFIG_COMPILE_SECONDS: &str = "switchback_config_compile_seconds";
/// Gauge: 1 while the last known good configuration serves because the file was broken at start.
pub const CONFIG_DEGRADED: &str = "switchback_config_degraded";
/// Counter: workers that ended although they were not to. Under a supervisor.
pub const WORKER_RESTARTS_TOTAL: &str = "switchback_worker_restarts_total";
/// Counter. `result`: `ok`, `refused`, `failed`. Under a supervisor.
pub const UPGRADES_TOTAL: &str = "switchback_upgrades_total";
/// Gauge: processes from before an upgrade that still finish what they had. Under a supervisor.
pub const RETIRED_WORKERS: &str = "switchback_retired_workers";
/// Gauge: what they have in flight. `kind`.
pub const RETIRED_IN_FLIGHT: &str = "switchback_retired_in_flight";
/// Gauge: 0 while the journal cannot be written, so that a restart would not remember the newest changes.
pub const JOURNAL_WRITABLE: &str = "switchback_journal_writable";
/// Gauge: 1 if the journal was damaged at the start and is its second copy.
pub const JOURNAL_RESTORED: &str = "switchback_journal_restored";
/// Counter: records that could not be written for so long that they were dropped.
pub const JOURNAL_LOST_TOTAL: &str = "switchback_journal_lost_total";
/// Gauge: generations that something still holds.
pub const GENERATIONS_LIVE: &str = "switchback_generations_live";
/// Gauge: target share in parts of the sum. `service`, `version`.
pub const SPLIT_WEIGHT: &str = "switchback_split_weight";
/// Gauge, 0 to 1: target share. `service`, `version`.
pub const SPLIT_TARGET_SHARE: &str = "switchback_split_target_share";
/// Gauge, 0 to 1: realised share since the split went live. `service`, `version`, `of`: `requests` or `clients`.
pub const SPLIT_REALISED_SHARE: &str = "switchback_split_realised_share";
/// Gauge, 0 or 1. `service`, `version`, `endpoint`.
pub const ENDPOINT_HEALTHY: &str = "switchback_endpoint_healthy";
/// Histogram, seconds: from trigger to pointer store.
pub const FLIP_SECONDS: &str = "switchback_flip_seconds";
/// Gauge: number of the stage that a rollout is in, from 1. `service`.
pub const ROLLOUT_STAGE: &str = "switchback_rollout_stage";
/// Counter. `service`, `decision`, `reason`.
pub const ROLLOUT_DECISIONS_TOTAL: &str = "switchback_rollout_decisions_total";
/// Counter. `channel` (its name in `notifications`, or `webhooks` for those told of a rollback), `result`: `sent`,
/// `failed`, `dropped`.
pub const NOTICES_TOTAL: &str = "switchback_notices_total";
/// Counter: answers of webhooks that can refuse. `service`, `point`, `result`: `granted`, `refused`.
pub const WEBHOOKS_TOTAL: &str = "switchback_webhooks_total";
/// Counter: requests that a canary failed, or was withdrawn from, and that stable was asked instead. `service`.
pub const SHIELDED_TOTAL: &str = "switchback_shielded_total";
/// Counter: copies of requests for a canary in a mirror stage. `service`, `result`: `answered`, `failed`, `dropped`.
pub const MIRRORED_TOTAL: &str = "switchback_mirrored_total";
/// Counter. `service`, `reason`: see [`crate::outcome::RetryReason`].
pub const RETRIES_TOTAL: &str = "switchback_retries_total";
/// Counter: requests that were not asked again because the budget was spent. `service`.
pub const RETRIES_DENIED_TOTAL: &str = "switchback_retries_denied_total";
/// Counter: requests that a second endpoint was asked, too. `service`, `version`, `outcome`: see [`crate::outcome::Hedged`].
pub const HEDGES_TOTAL: &str = "switchback_hedges_total";
/// Counter: requests turned away because a version works on as much as its circuit allows. `service`, `version`.
pub const CIRCUIT_REFUSED_TOTAL: &str = "switchback_circuit_refused_total";
/// Gauge, 0 or 1: so few endpoints are ready that all are asked. `service`, `version`.
pub const PANIC: &str = "switchback_panic";
/// Counter. `service`, `version`, `reason`: `consecutive`, `success_rate`, `latency`.
pub const EJECTIONS_TOTAL: &str = "switchback_ejections_total";
/// Gauge: exchanges left on a version that lost its place. `service`, `version`, `kind`.
pub const DRAIN_REMAINING: &str = "switchback_drain_remaining";
/// Gauge: open client connections. `listener`.
pub const CONNECTIONS: &str = "switchback_connections";
/// Counter: connections closed before TLS and HTTP. `listener`, `reason`: see [`crate::net::entrance::Closed`].
pub const CONNECTIONS_REFUSED_TOTAL: &str = "switchback_connections_refused_total";
/// Counter: requests that a policy refused. `service`, `reason`: see [`crate::limits::Refusal`].
pub const REFUSED_TOTAL: &str = "switchback_refused_total";
/// Gauge: seconds until a certificate ends, negative once it has. `listener`, `name`.
pub const TLS_CERTIFICATE_EXPIRY_SECONDS: &str = "switchback_tls_certificate_expiry_seconds";
/// Gauge: 0 while the files of a certificate on disk cannot be used. `listener`, `name`.
pub const TLS_CERTIFICATE_FILES_GOOD: &str = "switchback_tls_certificate_files_good";
/// Gauge: 0 while a name among the endpoints cannot be looked up. `service`, `name`.
pub const NAME_RESOLVED: &str = "switchback_name_resolved";
/// Gauge: seconds until the certificate that endpoints are shown ends, negative once it has. `service`.
pub const ENDPOINT_TLS_CERTIFICATE_EXPIRY_SECONDS: &str = "switchback_endpoint_tls_certificate_expiry_seconds";
/// Gauge: 0 while files for TLS to endpoints on disk cannot be used. `service`.
pub const ENDPOINT_TLS_FILES_GOOD: &str = "switchback_endpoint_tls_files_good";
/// Counter: changed files of certificates. `result`: `ok`, `failed`.
pub const TLS_CERTIFICATE_RELOADS_TOTAL: &str = "switchback_tls_certificate_reloads_total";
/// Counter. `listener`, `result`: `full`, `resumed` or why not; `version`: `1.2`, `1.3`, `none`.
pub const TLS_HANDSHAKES_TOTAL: &str = "switchback_tls_handshakes_total";
/// Gauge: handshakes at this moment. `listener`.
pub const TLS_HANDSHAKES_OPEN: &str = "switchback_tls_handshakes_open";
/// Gauge: requests waiting for a ready endpoint. `service`.
pub const HOLD_WAITING: &str = "switchback_hold_waiting";
/// Counter: access log lines dropped because the writer could not keep up.
pub const ACCESS_LOG_DROPPED_TOTAL: &str = "switchback_access_log_dropped_total";
/// Gauge, always 1. `version`.
pub const BUILD_INFO: &str = "switchback_build_info";
