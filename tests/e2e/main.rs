//! The promises, kept on real sockets: every test starts the real binary, real origins and clients that
//! never retry, and looks at both ends. One file per promise; the invariants I1…I13 of the architecture
//! document have tests that carry their name.
//!
//! I5 (rollback is a pointer swap) and I10 (no shared lock, no allocation on the hot path) are properties
//! of the code, not of the wire: the micro benches hold them. Here I5 shows only as the receipt's
//! `flip_micros` in `switch.rs`.
//!
//! Each world lives on a loopback address of its own (127.x.y.z, so Linux), ports never collide, and the
//! tests run side by side. Nothing waits for a time: a test waits for a state, with a deadline.

/// Tests wait more than they compute: one for each core leaves half of a small machine idle.
#[ctor::ctor(unsafe)]
fn four_at_a_time() {
    const THREADS: &str = "RUST_TEST_THREADS";
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if std::env::var_os(THREADS).is_none() && cores < 4 {
        // SAFETY: nothing else runs before `main`.
        unsafe { std::env::set_var(THREADS, "4") };
    }
}

mod harness;

mod access_log;
mod admin;
mod bad_config;
mod bad_state;
mod cli;
mod deadlines;
mod demo;
mod drain;
mod endpoints_announced;
mod endpoints_balance;
mod endpoints_http2;
mod endpoints_names;
mod endpoints_tls;
mod errors_classified;
mod grpc;
mod grpc_streams;
mod headline;
mod health;
mod hold;
mod hostile;
mod http2_endpoints;
mod http2_front;
mod http2_hostile;
mod http2_refused;
mod http2_rollout;
mod http2_tls;
mod i11_drain_exact;
mod i12_bounded;
mod i13_explained;
mod i1_one_generation;
mod i2_nothing_breaks;
mod i3_bad_config;
mod i4_acknowledged;
mod i6_split_exact;
mod i7_pinned;
mod i8_owner_shown;
mod i9_state_survives;
mod listeners;
mod plan_explain;
mod policy_answers;
mod policy_clients;
mod policy_compression;
mod policy_limits;
mod policy_paths;
mod protocols_http;
mod protocols_streams;
mod reload_zd5;
mod resilience_health;
mod resilience_hedge;
mod resilience_kill;
mod resilience_retry;
mod rollout;
mod rollout_guardrails;
mod rollout_notices;
mod rollout_outside;
mod rollout_overruled;
mod rollout_report;
mod rollout_shield;
mod rollout_stages;
mod self_test;
mod shutdown;
mod simulate;
mod smuggling;
mod soak;
mod stale_reuse;
mod state_kept;
mod sticky;
mod supervisor_crash;
mod supervisor_drain;
mod supervisor_handover;
mod supervisor_systemd;
mod supervisor_upgrade;
mod switch;
mod tls_certificates;
mod tls_client_auth;
mod tls_handshake;
mod tls_tickets;
mod traffic;
mod zd8_endpoint_replacement;
