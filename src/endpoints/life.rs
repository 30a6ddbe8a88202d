//! Restarts of the process behind an endpoint, as seen from outside: connections were taken, then refused, then taken
//! again. A refusal means that nothing listens; what is only slow or full does not refuse.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

// 0: it was never up yet.
const UP: u8 = 1;
const REFUSED: u8 = 2;

#[derive(Debug, Default)]
pub struct Life {
    state: AtomicU8,
    restarts: AtomicU32,
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
}
