//! What happens when, from a seed and nothing else.

use std::fmt;
use std::time::Duration;

use super::dice::Dice;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Reload,
    BadReload,
    Weights,
    Switch,
    Rollback,
    EndpointKilled,
    EndpointReplaced,
    DiskFull,
    CertificateSwapped,
    ClockJump,
    Upgrade,
    BadUpgrade,
    WorkerKilled,
}

/// Those that can be brought about everywhere.
pub const ALWAYS: [What; 12] = [
    What::Reload,
    What::BadReload,
    What::Weights,
    What::Switch,
    What::Rollback,
    What::EndpointKilled,
    What::EndpointReplaced,
    What::DiskFull,
    What::CertificateSwapped,
    What::Upgrade,
    What::BadUpgrade,
    What::WorkerKilled,
];

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            What::Reload => "reload",
            What::BadReload => "bad reload",
            What::Weights => "weights",
            What::Switch => "switch",
            What::Rollback => "rollback",
            What::EndpointKilled => "endpoint killed and restarted",
            What::EndpointReplaced => "endpoint replaced",
            What::DiskFull => "disk full, rollback, free again",
            What::CertificateSwapped => "certificate swap",
            What::ClockJump => "clock jump",
            What::Upgrade => "upgrade",
            What::BadUpgrade => "bad upgrade",
            What::WorkerKilled => "worker kill -9",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub at: Duration,
    pub what: What,
    /// Decides about its details.
    pub roll: u64,
}

/// Every kind once, in an order of its own, then every kind again: none is missing from a short run.
pub fn schedule(seed: u64, length: Duration, every: Duration, kinds: &[What]) -> Vec<Event> {
    let mut dice = Dice(seed);
    let mut bag: Vec<What> = Vec::new();
    let mut events = Vec::new();
    let mut at = every;
    while at < length {
        if bag.is_empty() {
            bag = kinds.to_vec();
        }
        let what = bag.swap_remove((dice.roll() % bag.len() as u64) as usize);
        events.push(Event { at, what, roll: dice.roll() });
        at += every;
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_schedule_and_no_kind_is_missing() {
        let of = |seed| schedule(seed, Duration::from_secs(100), Duration::from_secs(5), &ALWAYS);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        let mut first: Vec<What> = of(7).iter().take(ALWAYS.len()).map(|event| event.what).collect();
        first.sort();
        assert_eq!(first, ALWAYS);
        assert_eq!(of(7).len(), 19);
        assert_eq!(of(7)[18].at, Duration::from_secs(95));
    }
}
