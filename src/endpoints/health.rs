//! From single checks to a verdict: how many in a row it takes, and how long. No sockets; the clock is handed in.
//!
//! An endpoint starts unknown and serves after its first pass. Later, `fail` failures in a row take its
//! traffic and `pass` passes in a row give it back, so that an endpoint that answers every other check
//! does not flip. A process that has started again is unknown once more, and this time must pass as often as one that
//! was out. One that comes and goes must pass for longer each time (see [`super::flaps`]).

use std::time::Duration;

use tokio::time::Instant;

use super::flaps::Flaps;
use super::state::Health;
use crate::config::model;

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

/// What it takes.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Passes in a row that make an endpoint healthy.
    pub pass: u32,
    /// Failures in a row that make it unhealthy.
    pub fail: u32,
    /// What coming and going a second time costs; doubled each further time.
    pub step: Duration,
    /// The longest time that one which comes and goes must pass.
    pub damping: Duration,
}

impl Rules {
    pub fn of(definition: &model::Health) -> Rules {
        Rules {
            pass: definition.pass,
            fail: definition.fail,
            step: definition.every * definition.pass * 2,
            damping: definition.damping,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Verdict {
    health: Health,
    passes: u32,
    failures: u32,
    /// Of the passes in a row, when the first was.
    passes_since: Option<Instant>,
    /// Whatever serves there now has not served before.
    restarted: bool,
    flaps: Flaps,
}

impl Verdict {
    /// Goes on from what is known already: a changed check keeps the verdict until it has its own.
    pub fn from(health: Health, flaps: Flaps) -> Verdict {
        Verdict { health, passes: 0, failures: 0, passes_since: None, restarted: false, flaps }
    }

    /// The process behind the endpoint is another one. `Some` if the verdict changed.
    pub fn restart(&mut self, rules: &Rules, now: Instant) -> Option<Health> {
        (self.passes, self.passes_since, self.restarted) = (0, None, true);
        if self.health != Health::Healthy {
            return None;
        }
        self.flaps.went_out(now, rules.damping);
        self.health = Health::Unknown;
        Some(Health::Unknown)
    }

    /// Counts one check. `Some` if the verdict changed.
    pub fn count(&mut self, seen: &Seen, rules: &Rules, now: Instant) -> Option<Health> {
        let wanted = match seen {
            Seen::Pass => Health::Healthy,
            Seen::Wrong(_) => Health::Failing,
            Seen::Silent(_) | Seen::Refused(_) => Health::Down,
        };
        match seen {
            Seen::Pass => {
                (self.passes, self.failures) = (self.passes.saturating_add(1), 0);
                self.passes_since.get_or_insert(now);
            }
            Seen::Wrong(_) | Seen::Silent(_) | Seen::Refused(_) => {
                (self.passes, self.failures) = (0, self.failures.saturating_add(1));
                self.passes_since = None;
            }
        }
        let enough = match (self.health, wanted) {
            (Health::Unknown, Health::Healthy) if !self.restarted => true,
            (_, Health::Healthy) => self.passes >= rules.pass && self.still_to_pass(rules, now).is_zero(),
            // It gets no traffic either way: how it fails is told as it is.
            (Health::Failing | Health::Down, _) => true,
            _ => self.failures >= rules.fail,
        };
        if !enough || wanted == self.health {
            return None;
        }
        match wanted {
            Health::Healthy => self.restarted = false,
            Health::Failing | Health::Down if self.health == Health::Healthy => self.flaps.went_out(now, rules.damping),
            Health::Failing | Health::Down | Health::Unknown | Health::Unchecked => {}
        }
        self.health = wanted;
        Some(wanted)
    }

    pub fn health(&self) -> Health {
        self.health
    }

    /// Passes in a row so far.
    pub fn passes(&self) -> u32 {
        self.passes
    }

    /// Failures in a row so far.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    pub fn flaps(&self) -> Flaps {
        self.flaps
    }

    /// How much longer it must pass because it came and went.
    pub fn still_to_pass(&mut self, rules: &Rules, now: Instant) -> Duration {
        let needed = self.flaps.must_pass_for(now, rules.step, rules.damping);
        let passed = self.passes_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        needed.saturating_sub(passed)
    }
}

/// The wait until the next check: `every`, longer or shorter by up to `jitter_bp`. `luck` is between 0 and 1.
pub fn until_next(every: Duration, jitter_bp: u32, luck: f64) -> Duration {
    let jitter = f64::from(jitter_bp) / 10_000.0;
    every.mul_f64(1.0 - jitter + 2.0 * jitter * luck.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVERY: Duration = Duration::from_secs(1);

    fn rules(pass: u32, fail: u32, damping: u64) -> Rules {
        Rules { pass, fail, step: EVERY * pass * 2, damping: Duration::from_secs(damping) }
    }

    /// One letter per check, one check a second: `p`ass, `w`rong, `s`ilent; `r` is a restart before a pass. The health
    /// after each, by its first letter.
    fn story(from: Health, checks: &str, rules: &Rules) -> String {
        let (mut verdict, mut now) = (Verdict::from(from, Flaps::default()), Instant::now());
        let after = checks.chars().map(|check| {
            let seen = match check {
                'p' | 'r' => Seen::Pass,
                'w' => Seen::Wrong("status 500".into()),
                's' => Seen::Silent("refused".into()),
                other => panic!("no check `{other}`"),
            };
            if check == 'r' {
                verdict.restart(rules, now);
            }
            verdict.count(&seen, rules, now);
            now += EVERY;
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
            assert_eq!(story(from, checks, &rules(2, 3, 0)), after, "{from:?} {checks}");
        }
    }

    #[test]
    fn a_process_that_started_again_must_pass_as_often_as_one_that_was_out() {
        for (from, checks, after) in [
            (Health::Healthy, "prpp", "H??H"),
            (Health::Healthy, "rsppp", "????H"),
            (Health::Healthy, "rsss", "???D"),
            // Out already, or not in yet: it begins to count anew.
            (Health::Down, "prpp", "DDDH"),
            (Health::Unknown, "rpp", "??H"),
        ] {
            assert_eq!(story(from, checks, &rules(3, 3, 0)), after, "{from:?} {checks}");
        }
        assert_eq!(story(Health::Healthy, "r", &rules(1, 3, 0)), "H", "one pass is all that it takes");
    }

    #[test]
    fn who_comes_and_goes_must_pass_for_longer_each_time() {
        // One failure takes it out, one pass brings it back; the second time costs 2 s, then 4, 8.
        let checks = "wpwpppwppppppwppppppppp";
        assert_eq!(story(Health::Healthy, checks, &rules(1, 1, 60)), "FHFFFHFFFFFHHFFFFFFFFFH");
        assert_eq!(story(Health::Healthy, "wpwpwpwp", &rules(1, 1, 0)), "FHFHFHFH", "turned off");
    }

    #[test]
    fn zd19_an_endpoint_that_fails_every_other_check_changes_no_faster_than_the_damping() {
        const DAMPING: usize = 10;
        let after: Vec<char> =
            story(Health::Healthy, &"wp".repeat(100), &rules(1, 1, DAMPING as u64)).chars().collect();
        let back: Vec<usize> = (1..after.len()).filter(|at| after[at - 1] == 'F' && after[*at] == 'H').collect();
        assert_eq!(back[0], 1, "the first time costs nothing");
        assert!(back.windows(2).all(|two| two[1] - two[0] >= DAMPING), "{back:?}");
    }

    #[test]
    fn only_a_change_is_told() {
        let (mut verdict, now, rules) =
            (Verdict::from(Health::Unknown, Flaps::default()), Instant::now(), rules(2, 3, 0));
        assert_eq!(verdict.count(&Seen::Pass, &rules, now), Some(Health::Healthy));
        assert_eq!(verdict.count(&Seen::Pass, &rules, now), None);
        assert_eq!(verdict.restart(&rules, now), Some(Health::Unknown));
        assert_eq!(verdict.restart(&rules, now), None);
    }

    #[test]
    fn waits_are_spread_around_what_was_asked_for() {
        for (jitter_bp, luck, millis) in
            [(0, 0.7, 1_000), (1_000, 0.0, 900), (1_000, 0.5, 1_000), (1_000, 1.0, 1_100), (5_000, 1.0, 1_500)]
        {
            assert_eq!(until_next(EVERY, jitter_bp, luck).as_millis(), millis);
        }
    }

    proptest! {
        /// Whatever the checks say, an endpoint that flaps comes back no sooner after the one before than its damping,
        /// once that has grown to its limit.
        #[test]
        fn traffic_never_changes_faster_than_the_damping(checks in "[pw]{50,400}") {
            const DAMPING: usize = 8;
            let after: Vec<char> = story(Health::Healthy, &checks, &rules(1, 1, DAMPING as u64)).chars().collect();
            let back: Vec<usize> = (1..after.len()).filter(|at| after[at - 1] == 'F' && after[*at] == 'H').collect();
            let gone: Vec<usize> = (1..after.len()).filter(|at| after[at - 1] == 'H' && after[*at] == 'F').collect();
            for (nth, at) in back.iter().enumerate() {
                let recent = gone.iter().filter(|out| **out < *at && *at - **out < DAMPING).count();
                // Out more than once within the damping: it has passed for a while since the last time.
                let last_out = gone.iter().filter(|out| **out < *at).max().copied().unwrap_or(0);
                prop_assert!(recent < 2 || *at - last_out >= 2, "{nth}: {at} after {last_out}");
            }
            // On average, no more than one change of mind per damping but for the first ones.
            prop_assert!(back.len() <= 10 + checks.len() / (DAMPING / 2), "{} in {}", back.len(), checks.len());
        }
    }
}
