//! Restarts of the process behind an endpoint, as seen from outside: connections were taken, then refused, then taken
//! again, or its checks are answered by another instance. A refusal means that nothing listens; what is only slow or
//! full does not refuse.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

// 0: it was never up yet.
const UP: u8 = 1;
const REFUSED: u8 = 2;

#[derive(Debug, Default)]
pub struct Life {
    state: AtomicU8,
    restarts: AtomicU32,
    /// Who answered the last check; 0: nobody has said.
    instance: AtomicU64,
    /// How many restarts were known then.
    restarts_then: AtomicU32,
}

impl Life {
    /// A new connection was taken.
    pub fn connected(&self) {
        match self.state.load(Ordering::Relaxed) {
            UP => {}
            state => {
                let is_first = self.state.compare_exchange(state, UP, Ordering::Relaxed, Ordering::Relaxed).is_ok();
                if is_first && state == REFUSED {
                    self.restarts.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// A connection was refused. What was never up has not gone down.
    pub fn refused(&self) {
        // Whoever loses has seen the same.
        let _ = self.state.compare_exchange(UP, REFUSED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Who answered a check, by a hash of its name. By the task of the check only.
    pub fn answered(&self, instance: u64) {
        let before = self.instance.swap(instance, Ordering::Relaxed);
        // A restart that was seen as a refusal already is the same one.
        if before != instance && before != 0 && self.restarts() == self.restarts_then.load(Ordering::Relaxed) {
            self.restarts.fetch_add(1, Ordering::Relaxed);
        }
        self.restarts_then.store(self.restarts(), Ordering::Relaxed);
    }

    /// Since the endpoint is known.
    pub fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_up_then_refused_then_up() {
        let life = Life::default();
        let mut seen = Vec::new();
        for refused in [true, false, false, true, true, false, true, false] {
            if refused {
                life.refused()
            } else {
                life.connected()
            }
            seen.push(life.restarts());
        }
        assert_eq!(seen, [0, 0, 0, 0, 0, 1, 1, 2], "coming up for the first time is none");
    }

    #[test]
    fn another_instance_is_a_restart_and_counts_once() {
        let life = Life::default();
        let mut seen = Vec::new();
        // A letter is an instance that answers, `!` a refusal before it.
        for check in ["a", "a", "b", "b", "!c", "c", "!c", "d", "!d", "!e"] {
            if let Some(instance) = check.strip_prefix('!') {
                life.refused();
                life.connected();
                life.answered(instance.as_bytes()[0].into());
            } else {
                life.connected();
                life.answered(check.as_bytes()[0].into());
            }
            seen.push(life.restarts());
        }
        // A refusal and `d` are two: whoever answered in between said it was `c`.
        assert_eq!(seen, [0, 0, 1, 1, 2, 2, 3, 4, 5, 6]);
    }
}
