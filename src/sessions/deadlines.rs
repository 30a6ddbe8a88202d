//! When what a version has is to end, counted from the moment its drain began.
//!
//! A version that lost its place has the times that its service says. A process that goes has a last moment besides
//! (`upgrade.drain`, `shutdown.timeout`), at which nothing is left. Streams that would all meet it there are ended over
//! the time before, or their clients would come back in the same instant: over `reconnect_spread`, but no more than the
//! second half of the time there is, so that a long spread does not take a short time away from them.

use std::time::Duration;

use crate::config::model::Drain;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadlines {
    /// Plain requests.
    pub requests: Duration,
    /// The first of the streams.
    pub streams: Duration,
    /// All streams end within this time.
    window: Duration,
    /// A stream that is the only one.
    only: Duration,
}

impl Deadlines {
    /// As `policy` says, and nothing later than `most`.
    pub fn within(policy: &Drain, most: Duration) -> Deadlines {
        let only = policy.streams.min(most);
        let streams = only.min(most - policy.reconnect_spread.min(most / 2));
        Deadlines {
            requests: policy.requests.min(most),
            streams,
            window: policy.reconnect_spread.min(most - streams),
            only,
        }
    }

    /// The `nth` of `count` streams, from 0. Evenly over the window: at its beginning if streams have all their time,
    /// and as late in it as that if they have not.
    pub fn stream(&self, nth: usize, count: usize) -> Duration {
        let (nth, count) = (u32::try_from(nth).unwrap_or(u32::MAX), u32::try_from(count).unwrap_or(u32::MAX).max(1));
        let step = self.window / count;
        self.streams + step * nth + step.min(self.only - self.streams)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn policy(requests: u64, streams: u64, reconnect_spread: u64) -> Drain {
        Drain {
            requests: secs(requests),
            streams: secs(streams),
            sessions: secs(streams),
            reconnect_spread: secs(reconnect_spread),
        }
    }

    #[test]
    fn each_kind_has_its_own_deadline_and_streams_are_spread_before_the_last_moment() {
        // requests, streams, spread, most -> requests, the only stream, the first and the last of ten
        for (given, most, wanted) in [
            // Enough time: as the service says, however long the spread is.
            ((30, 100, 10), 1_000, [30, 100, 100, 109]),
            ((30, 100, 500), 1_000, [30, 100, 100, 550]),
            ((30, 100, 0), 1_000, [30, 100, 100, 100]),
            ((100, 30, 10), 1_000, [100, 30, 30, 39]),
            // The window just fits, and not quite any more.
            ((30, 100, 10), 110, [30, 100, 100, 109]),
            ((30, 100, 10), 105, [30, 100, 96, 105]),
            // As long as the process has: the window is before the end.
            ((30, 600, 30), 600, [30, 600, 573, 600]),
            ((30, 10_000, 30), 600, [30, 600, 573, 600]),
            ((900, 900, 0), 600, [600, 600, 600, 600]),
            // Not more than half of a short time.
            ((30, 600, 30), 20, [20, 20, 11, 20]),
            ((30, 8, 30), 20, [20, 8, 8, 18]),
            ((30, 600, 30), 0, [0, 0, 0, 0]),
            ((0, 0, 0), 20, [0, 0, 0, 0]),
        ] {
            let (requests, streams, spread) = given;
            let it = Deadlines::within(&policy(requests, streams, spread), secs(most));
            let seen = [it.requests, it.stream(0, 1), it.stream(0, 10), it.stream(9, 10)].map(|at| at.as_secs());
            assert_eq!(seen, wanted, "{given:?} within {most}");
        }
    }

    proptest! {
        #[test]
        fn streams_end_in_turn_evenly_and_in_time(
            streams in 0u64..2_000, spread in 0u64..2_000, most in 0u64..2_000, count in 1usize..300,
        ) {
            let it = Deadlines::within(&policy(30, streams, spread), secs(most));
            let ends: Vec<_> = (0..count).map(|nth| it.stream(nth, count)).collect();
            prop_assert!(ends[0] >= secs(streams).min(secs(most) / 2) && ends[count - 1] <= secs(most));
            prop_assert!(ends[count - 1] <= secs(streams) + secs(spread));
            // None is ended before its time for the sake of a longer spread than was asked for.
            prop_assert!(ends[0] + secs(spread) >= secs(streams).min(secs(most)));
            for pair in ends.windows(2) {
                prop_assert_eq!(pair[1] - pair[0], ends[1] - ends[0]);
            }
            // Half of what there is for it, or what was asked for.
            let window = (ends[count - 1] - ends[0]) + (ends.get(1).copied().unwrap_or(ends[0]) - ends[0]);
            let little = Duration::from_micros(1);
            prop_assert!(count == 1 || window + little >= secs(spread).min(secs(most) / 2));
            prop_assert_eq!(it.stream(0, 1), secs(streams).min(secs(most)));
        }
    }
}
