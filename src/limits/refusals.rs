//! Requests that a policy of a service refused, counted by reason.

use std::sync::atomic::{AtomicU64, Ordering};

/// Which policy refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The client's address may not use the route or the service: 403.
    Access = 0,
}

impl Refusal {
    pub const ALL: [Refusal; 1] = [Refusal::Access];

    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Access => "access",
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
