//! What happened in a simulation, and what many of them have in common.

use serde::Serialize;

use crate::analysis::Counts;
use crate::rollout::Meters;

/// How a story ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    Promoted,
    RolledBack,
    /// A person is needed: a guardrail, a latency, a shared incident, a broken stable.
    Paused,
    /// Neither proven good nor bad in the longest time of a stage.
    Inconclusive,
    /// Nothing was decided in the longest time that is simulated.
    Unfinished,
}

impl End {
    pub const ALL: [End; 5] = [End::Promoted, End::RolledBack, End::Paused, End::Inconclusive, End::Unfinished];

    pub fn as_str(self) -> &'static str {
        match self {
            End::Promoted => "promoted",
            End::RolledBack => "rolled back",
            End::Paused => "paused",
            End::Inconclusive => "inconclusive",
            End::Unfinished => "unfinished",
        }
    }
}

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Milliseconds since the rollout began.
    pub at_ms: u64,
    /// Of the stage that runs now, from 1; 0 before the first.
    pub stage: usize,
    /// The canary's share of new requests from now on, 0 to 1.
    pub share: f64,
    pub what: String,
    pub why: String,
    pub meters: Meters,
}

/// One rollout.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Story {
    pub seed: u64,
    pub steps: Vec<Step>,
    pub end: End,
    pub took_ms: u64,
    /// Of the last stage, from 1.
    pub stage: usize,
    /// Requests that were evidence.
    pub canary: Counts,
    pub stable: Counts,
    /// Failures of the canary that clients saw, and would have seen without the shield.
    pub seen: u64,
    pub unshielded: u64,
}

/// Median and 95th percentile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    pub median: u64,
    pub p95: u64,
}

impl Quantiles {
    /// `None` of nothing.
    pub fn of(mut values: Vec<u64>) -> Option<Quantiles> {
        values.sort_unstable();
        let at = |part: f64| values.get(((part * values.len() as f64).ceil() as usize).max(1) - 1).copied();
        Some(Quantiles { median: at(0.5)?, p95: at(0.95)? })
    }
}

/// Stories that ended alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ended {
    pub end: End,
    pub runs: usize,
    pub took_ms: Quantiles,
    pub canary_requests: Quantiles,
    /// Median number of the stage it ended in.
    pub stage: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub runs: usize,
    /// The most frequent end first; ends that never came are left out.
    pub ends: Vec<Ended>,
    pub took_ms: Option<Quantiles>,
    pub canary_requests: Option<Quantiles>,
    pub seen: Option<Quantiles>,
    pub unshielded: Option<Quantiles>,
}

impl Summary {
    pub fn of(stories: &[Story]) -> Summary {
        let all = |value: fn(&Story) -> u64| Quantiles::of(stories.iter().map(value).collect());
        let ended = |end: End| {
            let alike: Vec<&Story> = stories.iter().filter(|story| story.end == end).collect();
            Some(Ended {
                end,
                runs: alike.len(),
                took_ms: Quantiles::of(alike.iter().map(|story| story.took_ms).collect())?,
                canary_requests: Quantiles::of(alike.iter().map(|story| story.canary.total).collect())?,
                stage: Quantiles::of(alike.iter().map(|story| story.stage as u64).collect())?.median as usize,
            })
        };
        let mut ends: Vec<Ended> = End::ALL.into_iter().filter_map(ended).collect();
        ends.sort_by_key(|ended| std::cmp::Reverse(ended.runs));
        Summary {
            runs: stories.len(),
            ends,
            took_ms: all(|story| story.took_ms),
            canary_requests: all(|story| story.canary.total),
            seen: all(|story| story.seen),
            unshielded: all(|story| story.unshielded),
        }
    }

    /// How many ended so.
    pub fn count(&self, end: End) -> usize {
        self.ends.iter().find(|ended| ended.end == end).map_or(0, |ended| ended.runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_there() {
        assert_eq!(Quantiles::of(Vec::new()), None);
        assert_eq!(Quantiles::of(vec![7]), Some(Quantiles { median: 7, p95: 7 }));
        assert_eq!(Quantiles::of((1..=100).rev().collect()), Some(Quantiles { median: 50, p95: 95 }));
    }
}
