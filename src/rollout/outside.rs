//! What happens around a rollout besides requests: restarts, reported events, values of outside signals, endpoints
//! that come and go. All of it bounded: more than a rule may accept is not remembered.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Moment;

/// Events of one kind that are remembered: more than any rule may accept is not needed.
const KEPT: usize = 1_000;
/// An endpoint that changes this often within [`FLAPPING_WITHIN`] flaps.
const FLAPPING: usize = 3;
pub const FLAPPING_WITHIN: Duration = Duration::from_secs(5 * 60);

/// Times of one kind of event, the latest last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally(VecDeque<Moment>);

impl Tally {
    pub fn add(&mut self, now: Moment) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    pub fn within(&self, period: Duration, now: Moment) -> usize {
        self.0.iter().filter(|at| now.since(**at) < period).count()
    }

    pub fn all(&self) -> usize {
        self.0.len()
    }
}

/// An outside value, such as the answer to a Prometheus query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// What it was when it was last known.
    pub value: Option<f64>,
    /// When it was last known.
    pub known_at: Option<Moment>,
    /// Since when it has been above its limit without a break.
    over_since: Option<Moment>,
}

impl Signal {
    /// `None`: there is no answer, or none that is a number. That is no breach, and no good news either.
    pub fn learn(&mut self, value: Option<f64>, max: f64, now: Moment) {
        let value = value.filter(|value| !value.is_nan());
        self.over_since = value.filter(|value| *value > max).map(|_| self.over_since.unwrap_or(now));
        self.known_at = value.map(|_| now).or(self.known_at);
        self.value = value;
    }

    /// Above its limit for as long as the rule says, by an answer that is not older than `fresh`.
    pub fn is_over(&self, period: Duration, fresh: Duration, now: Moment) -> bool {
        self.is_known(fresh, now) && self.over_since.is_some_and(|since| now.since(since) >= period)
    }

    /// Above its limit when it was last known.
    pub fn is_above(&self) -> bool {
        self.over_since.is_some()
    }

    /// Inside its limit, by an answer that is not older than `fresh`.
    pub fn is_good(&self, fresh: Duration, now: Moment) -> bool {
        self.is_known(fresh, now) && self.over_since.is_none()
    }

    pub fn is_known(&self, fresh: Duration, now: Moment) -> bool {
        self.value.is_some() && self.known_at.is_some_and(|at| now.since(at) <= fresh)
    }
}

/// Which endpoints of the canary change between ready and not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Flaps(BTreeMap<String, (bool, VecDeque<Moment>)>);

impl Flaps {
    /// What every endpoint is now. Those that are gone are forgotten.
    pub fn look<'a>(&mut self, endpoints: impl Iterator<Item = (&'a str, bool)>, now: Moment) {
        let mut before = std::mem::take(&mut self.0);
        for (address, ready) in endpoints {
            let (was, mut changes) = before.remove(address).unwrap_or((ready, VecDeque::new()));
            if was != ready {
                changes.push_back(now);
            }
            while changes.len() > FLAPPING || changes.front().is_some_and(|at| now.since(*at) >= FLAPPING_WITHIN) {
                changes.pop_front();
            }
            self.0.insert(address.into(), (ready, changes));
        }
    }

    pub fn flapping(&self, now: Moment) -> Option<&str> {
        let flaps = |changes: &VecDeque<Moment>| {
            changes.iter().filter(|at| now.since(**at) < FLAPPING_WITHIN).count() >= FLAPPING
        };
        self.0.iter().find(|(_, (_, changes))| flaps(changes)).map(|(address, _)| address.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_tally_counts_what_is_recent_and_stays_small() {
        let mut tally = Tally::default();
        (0..5_000).for_each(|at| tally.add(Moment(at)));
        assert_eq!(tally.all(), KEPT);
        assert_eq!(tally.within(Duration::from_millis(10), Moment(5_000)), 9);
    }

    #[test]
    fn a_signal_is_over_only_after_its_period_and_only_while_it_is_known() {
        let mut signal = Signal::default();
        let at = Moment::secs;
        for (now, value, over, good) in [
            (0, Some(0.5), false, true),
            (10, Some(2.0), false, false),
            (69, Some(3.0), false, false),
            (70, Some(3.0), true, false),
            (80, None, false, false),
            (90, Some(3.0), false, false),
            (150, Some(3.0), true, false),
            (151, Some(f64::NAN), false, false),
            (160, Some(1.0), false, true),
        ] {
            signal.learn(value, 1.0, at(now));
            assert_eq!(signal.is_over(MINUTE, MINUTE, at(now)), over, "{now}");
            assert_eq!(signal.is_good(MINUTE, at(now)), good, "{now}");
        }
        assert!(!signal.is_good(MINUTE, at(221)), "too old to rely on");
    }

    #[test]
    fn an_endpoint_that_comes_and_goes_flaps_until_it_has_been_quiet() {
        let mut flaps = Flaps::default();
        for (second, ready) in [(0, true), (1, false), (2, true), (3, true)] {
            flaps.look([("a", ready), ("b", true)].into_iter(), Moment::secs(second));
            assert_eq!(flaps.flapping(Moment::secs(second)), None);
        }
        flaps.look([("a", false), ("b", true)].into_iter(), Moment::secs(4));
        assert_eq!(flaps.flapping(Moment::secs(4)), Some("a"));
        assert_eq!(flaps.flapping(Moment::secs(301)), None);
    }
}
