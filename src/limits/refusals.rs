//! Requests that a policy of a service refused, counted by reason.

use std::sync::atomic::{AtomicU64, Ordering};

/// Which policy refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The client's address may not use the route or the service: 403.
    Access = 0,
    /// The service is under maintenance.
    Maintenance = 1,
    /// The client asks too often: 429.
    RateLimit = 2,
    /// The client has as many requests in flight as it may have: 429.
    InFlightPerClient = 3,
}

impl Refusal {
    pub const ALL: [Refusal; 4] =
        [Refusal::Access, Refusal::Maintenance, Refusal::RateLimit, Refusal::InFlightPerClient];

    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Access => "access",
            Refusal::Maintenance => "maintenance",
            Refusal::RateLimit => "rate_limit",
            Refusal::InFlightPerClient => "in_flight_per_client",
        }
    }
}

/// Refusing is rare, or an attack; the threads share the cells.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Refusal::ALL.len()]);

impl Refusals {
    pub fn count(&self, why: Refusal) {
        self.0[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn of(&self, why: Refusal) -> u64 {
        self.0[why as usize].load(Ordering::Relaxed)
    }
}
