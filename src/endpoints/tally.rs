//! What an endpoint did with its requests: counted by the data threads, each in its own cache lines, and summed by
//! whoever compares endpoints. Only counted for services that compare.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::routing::Thread;

/// Two for each doubling, from 64 us to a minute.
const BUCKETS: usize = 40;

#[derive(Debug)]
pub struct Tally {
    lines: Box<[CachePadded<Line>]>,
}

#[derive(Debug)]
struct Line {
    requests: AtomicU64,
    failures: AtomicU64,
    times: [AtomicU64; BUCKETS],
}

impl Default for Line {
    fn default() -> Line {
        let times = std::array::from_fn(|_| AtomicU64::new(0));
        Line { requests: AtomicU64::new(0), failures: AtomicU64::new(0), times }
    }
}

/// All data threads together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    pub requests: u64,
    pub failures: u64,
    times: [u64; BUCKETS],
}

impl Default for Sum {
    fn default() -> Sum {
        Sum { requests: 0, failures: 0, times: [0; BUCKETS] }
    }
}

impl Tally {
    pub fn new(threads: usize) -> Tally {
        Tally { lines: (0..threads).map(|_| CachePadded::default()).collect() }
    }

    /// The endpoint answered, and began to after `took` if that says something about it.
    pub fn answered(&self, thread: Thread, took: Option<Duration>) {
        let line = &self.lines[thread.0 as usize];
        line.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(took) = took {
            line.times[bucket(took)].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn failed(&self, thread: Thread) {
        let line = &self.lines[thread.0 as usize];
        line.requests.fetch_add(1, Ordering::Relaxed);
        line.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        for line in &self.lines {
            sum.requests += line.requests.load(Ordering::Relaxed);
            sum.failures += line.failures.load(Ordering::Relaxed);
            for (sum, time) in sum.times.iter_mut().zip(&line.times) {
                *sum += time.load(Ordering::Relaxed);
            }
        }
        sum
    }
}

impl Sum {
    /// What came since `before`.
    pub fn since(&self, before: &Sum) -> Sum {
        let mut times = self.times;
        times.iter_mut().zip(before.times).for_each(|(now, before)| *now = now.saturating_sub(before));
        Sum {
            requests: self.requests.saturating_sub(before.requests),
            failures: self.failures.saturating_sub(before.failures),
            times,
        }
    }

    /// How many were timed.
    pub fn timed(&self) -> u64 {
        self.times.iter().sum()
    }

    /// The middle one's time, to within a half.
    pub fn median(&self) -> Option<Duration> {
        let middle = self.timed().div_ceil(2);
        let mut so_far = 0;
        let at = self.times.iter().position(|count| {
            so_far += count;
            so_far >= middle && so_far > 0
        })?;
        Some(Duration::from_micros(lower_bound(at)))
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(64);
    let octave = micros.ilog2();
    let upper_half = (micros >> (octave - 1)) & 1;
    ((octave as usize - 6) * 2 + upper_half as usize).min(BUCKETS - 1)
}

fn lower_bound(bucket: usize) -> u64 {
    let octave = 64 << (bucket / 2);
    octave + octave / 2 * (bucket as u64 % 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_bucket_that_begins_below_it() {
        for micros in [1, 63, 64, 95, 96, 127, 128, 1_000, 7_777, 50_000, 1_000_000, 59_000_000] {
            let at = bucket(Duration::from_micros(micros));
            let (from, to) = (lower_bound(at), lower_bound(at + 1));
            assert!(micros < to && (micros >= from || at == 0), "{micros} in {from}..{to}");
            assert!(to * 2 <= from * 3, "{from}..{to} is wider than a half");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_median_is_that_of_all_threads_and_of_the_time_asked_for() {
        let tally = Tally::new(2);
        assert_eq!(tally.sum().median(), None);
        let millis = |thread, millis: &[u64]| {
            millis.iter().for_each(|it| tally.answered(Thread(thread), Some(Duration::from_millis(*it))));
        };
        millis(0, &[1, 1, 1]);
        let before = tally.sum();
        millis(0, &[100, 100]);
        millis(1, &[100, 1, 1]);
        tally.answered(Thread(1), None);
        tally.failed(Thread(1));
        let since = tally.sum().since(&before);
        assert_eq!((since.requests, since.failures, since.timed()), (7, 1, 5));
        let median = since.median().expect("some were timed").as_millis();
        assert!((66..=100).contains(&median), "{median}");
        assert!(tally.sum().median().expect("some") < Duration::from_millis(2), "most of all were fast");
    }
}
