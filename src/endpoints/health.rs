//! From single checks to a verdict: how many in a row it takes. No clock, no sockets.
//!
//! An endpoint starts unknown and serves after its first pass. Later, `fail` failures in a row take its
//! traffic and `pass` passes in a row give it back, so that an endpoint that answers every other check
//! does not flip.

use super::state::Health;

/// What one check saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Pass,
    /// It answers, but not as it should.
    Wrong(String),
    /// It does not answer.
    Silent(String),
    /// Nothing listens there.
    Refused(String),
}

#[derive(Debug, Clone)]
pub struct Verdict {
    health: Health,
    passes: u32,
    failures: u32,
}

impl Verdict {
    /// Goes on from what is known already: a changed check keeps the verdict until it has its own.
    pub fn from(health: Health) -> Verdict {
        Verdict { health, passes: 0, failures: 0 }
    }

    /// Counts one check. `Some` if the verdict changed.
    pub fn count(&mut self, seen: &Seen, pass: u32, fail: u32) -> Option<Health> {
        let wanted = match seen {
            Seen::Pass => Health::Healthy,
            Seen::Wrong(_) => Health::Failing,
            Seen::Silent(_) | Seen::Refused(_) => Health::Down,
        };
        match seen {
            Seen::Pass => (self.passes, self.failures) = (self.passes.saturating_add(1), 0),
            Seen::Wrong(_) | Seen::Silent(_) | Seen::Refused(_) => {
                (self.passes, self.failures) = (0, self.failures.saturating_add(1))
            }
        }
        let enough = match (self.health, wanted) {
            (Health::Unknown, Health::Healthy) => true,
            (_, Health::Healthy) => self.passes >= pass,
            // It gets no traffic either way: how it fails is told as it is.
            (Health::Failing | Health::Down, _) => true,
            _ => self.failures >= fail,
        };
        if !enough || wanted == self.health {
            return None;
        }
        self.health = wanted;
        Some(wanted)
    }

    pub fn health(&self) -> Health {
        self.health
    }

    /// Failures in a row so far.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One letter per check: `p`ass, `w`rong, `s`ilent. The health after each, by its first letter.
    fn story(from: Health, checks: &str) -> String {
        let mut verdict = Verdict::from(from);
        let after = checks.chars().map(|check| {
            let seen = match check {
                'p' => Seen::Pass,
                'w' => Seen::Wrong("status 500".into()),
                's' => Seen::Silent("refused".into()),
                other => panic!("no check `{other}`"),
            };
            verdict.count(&seen, 2, 3);
            match verdict.health() {
                Health::Unknown => '?',
                Health::Unchecked => '-',
                Health::Healthy => 'H',
                Health::Failing => 'F',
                Health::Down => 'D',
            }
        });
        after.collect()
    }

    #[test]
    fn it_takes_so_many_in_a_row() {
        for (from, checks, after) in [
            (Health::Unknown, "p", "H"),
            (Health::Unknown, "sspss", "??HHH"),
            (Health::Unknown, "sss", "??D"),
            (Health::Healthy, "wwpwww", "HHHHHF"),
            (Health::Healthy, "wws", "HHD"),
            (Health::Down, "pp", "DH"),
            (Health::Down, "pspp", "DDDH"),
            (Health::Failing, "sws", "DFD"),
            // Every other check fails: no flapping.
            (Health::Healthy, "pwpwpwpwpw", "HHHHHHHHHH"),
            (Health::Down, "pspspspsps", "DDDDDDDDDD"),
        ] {
            assert_eq!(story(from, checks), after, "{from:?} {checks}");
        }
    }

    #[test]
    fn only_a_change_is_told() {
        let mut verdict = Verdict::from(Health::Unknown);
        assert_eq!(verdict.count(&Seen::Pass, 2, 3), Some(Health::Healthy));
        assert_eq!(verdict.count(&Seen::Pass, 2, 3), None);
    }
}
