//! How long an endpoint says that it keeps an idle connection: `Keep-Alive: timeout=N` (RFC 2068 section 19.7.1.1, still
//! what servers send).
//!
//! Connections that were made before it was known are kept for as long as the configuration says, which may be too long.
//! So there are eras: whoever learns of a shorter time begins another, and connections of an earlier one are not used.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Beyond this it is no bound.
const LONGEST: u32 = 24 * 3600;
/// Of the word: whole milliseconds and one, 0 for "never said".
const TIME_BITS: u32 = 40;

#[derive(Debug, Default)]
pub struct Keeping(AtomicU64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// A connection that has been idle for longer is not used. `None`: the endpoint has not said.
    pub idle: Option<Duration>,
    /// Goes round after 64.
    pub era: u8,
}

impl Keeping {
    pub fn now(&self) -> Kept {
        let word = self.0.load(Ordering::Relaxed);
        let time = word & ((1 << TIME_BITS) - 1);
        Kept { idle: time.checked_sub(1).map(Duration::from_millis), era: (word >> TIME_BITS) as u8 & 63 }
    }

    /// The endpoint closes what was idle for `seconds`. Two threads that learn it at once may begin one era or two.
    pub fn said(&self, seconds: u32) {
        let idle = usable(seconds);
        let before = self.now();
        if before.idle == Some(idle) {
            return;
        }
        let is_shorter = before.idle.is_none_or(|known| idle < known);
        let era = if is_shorter { before.era.wrapping_add(1) & 63 } else { before.era };
        self.0.store(u64::from(era) << TIME_BITS | (idle.as_millis() as u64 + 1), Ordering::Relaxed);
    }
}

/// What is on its way when the endpoint closes comes too late: a second less, or a quarter if that is less.
fn usable(seconds: u32) -> Duration {
    let said = Duration::from_secs(u64::from(seconds.min(LONGEST)));
    said - (said / 4).min(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_time_begins_an_era_and_a_longer_one_does_not() {
        let keeping = Keeping::default();
        assert_eq!(keeping.now(), Kept::default());
        for (said, idle, era) in
            [(60, 59_000, 1), (60, 59_000, 1), (5, 4_000, 2), (75, 74_000, 2), (1, 750, 3), (0, 0, 4)]
        {
            keeping.said(said);
            assert_eq!(keeping.now(), Kept { idle: Some(Duration::from_millis(idle)), era }, "{said}");
        }
        keeping.said(u32::MAX);
        assert_eq!(keeping.now().idle, Some(Duration::from_secs(24 * 3600 - 1)));
        for _ in 0..200 {
            keeping.said(9);
            keeping.said(5);
        }
        assert!(keeping.now().era < 64);
    }
}
