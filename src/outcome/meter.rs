//! Per-thread counters of one version. A request moves a few of them, in its own thread's cache lines;
//! the telemetry task reads all lines and hands the sums to the metrics recorder.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::routing::Thread;

/// Why a proxied request failed. Each failure moves exactly one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ErrorClass {
    /// The client went away or broke the protocol.
    DownstreamAbort = 0,
    /// No connection to the endpoint could be made.
    Connect = 1,
    /// A pooled connection turned out to be closed before any response byte.
    ReusedStale = 2,
    /// The endpoint broke the connection or the protocol after the request was sent.
    Reset = 3,
    /// A deadline towards the endpoint passed.
    Timeout = 4,
    /// Refused or ended by this proxy itself: limits, hold, drain deadline, no endpoint.
    Local = 5,
}

impl ErrorClass {
    pub const ALL: [ErrorClass; 6] =
        [Self::DownstreamAbort, Self::Connect, Self::ReusedStale, Self::Reset, Self::Timeout, Self::Local];
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DownstreamAbort => "downstream_abort",
            Self::Connect => "connect",
            Self::ReusedStale => "reused_stale",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Local => "local",
        }
    }
}

/// Why a request was sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetryReason {
    /// No connection could be made, so nothing was sent.
    Connect = 0,
    /// A pooled connection turned out to be closed before any response byte.
    ReusedStale = 1,
    /// The endpoint said that it has not begun.
    Refused = 2,
    /// The connection broke, or what came was no answer.
    Reset = 3,
    /// No answer in time.
    Timeout = 4,
    /// A status that the service retries.
    Status = 5,
}

impl RetryReason {
    pub const COUNT: usize = 6;
    pub const ALL: [RetryReason; Self::COUNT] =
        [Self::Connect, Self::ReusedStale, Self::Refused, Self::Reset, Self::Timeout, Self::Status];
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ReusedStale => "reused_stale",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status => "status",
        }
    }
}

/// Two endpoints were asked the same at once: whose answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Hedged {
    First = 0,
    Second = 1,
    /// Both failed, or the exchange ended before either began.
    Neither = 2,
}

impl Hedged {
    pub const ALL: [Hedged; 3] = [Self::First, Self::Second, Self::Neither];
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
            Self::Neither => "neither",
        }
    }
}

/// Failures that belong to no version. Rare, so all threads share the cells.
#[derive(Debug, Default)]
pub struct Errors([AtomicU64; 6]);

impl Errors {
    pub fn count(&self, class: ErrorClass) {
        self.0[class as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn of(&self, class: ErrorClass) -> u64 {
        self.0[class as usize].load(Ordering::Relaxed)
    }
}

/// Upper bounds of the duration histogram, in seconds; one more bucket takes the rest.
pub const DURATION_BOUNDS: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

const BOUNDS_US: [u64; 16] = [
    500, 1000, 2000, 3000, 5000, 7500, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000, 60_000_000,
];

#[derive(Debug, Default)]
struct Line {
    errors: [AtomicU64; 6],
    retries: [AtomicU64; RetryReason::COUNT],
    hedges: [AtomicU64; 3],
    turned_away: AtomicU64,
    buckets: [AtomicU64; 17],
    micros: [AtomicU64; 17],
}

#[derive(Debug)]
pub struct Meter {
    lines: Box<[CachePadded<Line>]>,
}

/// Counts and summed microseconds per duration bucket; the last bucket has no upper bound.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Durations {
    pub counts: [u64; 17],
    pub micros: [u64; 17],
}

impl Meter {
    pub fn new(threads: usize) -> Meter {
        Meter { lines: (0..threads).map(|_| CachePadded::default()).collect() }
    }

    pub fn answered(&self, thread: Thread, took: Duration) {
        let micros = took.as_micros() as u64;
        let bucket = BOUNDS_US.partition_point(|bound| *bound < micros);
        let line = &self.lines[thread.0 as usize];
        line.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        line.micros[bucket].fetch_add(micros, Ordering::Relaxed);
    }

    pub fn failed(&self, thread: Thread, class: ErrorClass) {
        self.lines[thread.0 as usize].errors[class as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A request is asked once more.
    pub fn retried_for(&self, thread: Thread, reason: RetryReason) {
        self.lines[thread.0 as usize].retries[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A race of two endpoints is over.
    pub fn hedged(&self, thread: Thread, outcome: Hedged) {
        self.lines[thread.0 as usize].hedges[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The circuit was open: the version works on as much as it may.
    pub fn turned_away(&self, thread: Thread) {
        self.lines[thread.0 as usize].turned_away.fetch_add(1, Ordering::Relaxed);
    }

    pub fn all_turned_away(&self) -> u64 {
        self.lines.iter().map(|line| line.turned_away.load(Ordering::Relaxed)).sum()
    }

    pub fn errors(&self, class: ErrorClass) -> u64 {
        self.lines.iter().map(|line| line.errors[class as usize].load(Ordering::Relaxed)).sum()
    }

    pub fn retries(&self, reason: RetryReason) -> u64 {
        self.lines.iter().map(|line| line.retries[reason as usize].load(Ordering::Relaxed)).sum()
    }

    pub fn hedges(&self, outcome: Hedged) -> u64 {
        self.lines.iter().map(|line| line.hedges[outcome as usize].load(Ordering::Relaxed)).sum()
    }

    pub fn durations(&self) -> Durations {
        let mut all = Durations::default();
        for line in &self.lines {
            for at in 0..17 {
                all.counts[at] += line.buckets[at].load(Ordering::Relaxed);
                all.micros[at] += line.micros[at].load(Ordering::Relaxed);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_reaches_it() {
        let meter = Meter::new(2);
        let buckets = [(0, 0), (500, 0), (501, 1), (1000, 1), (9_999, 6), (60_000_000, 15), (60_000_001, 16)];
        for (nth, (micros, bucket)) in buckets.into_iter().enumerate() {
            let before = meter.durations().counts[bucket];
            meter.answered(Thread(nth as u16 % 2), Duration::from_micros(micros));
            assert_eq!(meter.durations().counts[bucket], before + 1, "{micros} us");
        }
        let all = meter.durations();
        let sum: u64 = buckets.iter().map(|(micros, _)| micros).sum();
        assert_eq!((all.counts.iter().sum::<u64>(), all.micros.iter().sum::<u64>()), (7, sum));
    }

    #[test]
    fn bounds_in_seconds_and_microseconds_agree() {
        for (seconds, micros) in DURATION_BOUNDS.iter().zip(BOUNDS_US) {
            assert_eq!((seconds * 1e6).round() as u64, micros);
        }
    }

    #[test]
    fn a_failure_moves_exactly_one_class() {
        let meter = Meter::new(2);
        for class in ErrorClass::ALL {
            let before = ErrorClass::ALL.map(|class| meter.errors(class));
            meter.failed(Thread(1), class);
            let moved: Vec<_> =
                ErrorClass::ALL.into_iter().zip(before).filter(|(c, b)| meter.errors(*c) != *b).collect();
            assert_eq!(moved.len(), 1, "{}", class.as_str());
            assert_eq!(moved[0].0, class);
        }
        meter.retried_for(Thread(0), RetryReason::Connect);
        meter.retried_for(Thread(1), RetryReason::Status);
        assert_eq!(RetryReason::ALL.map(|reason| meter.retries(reason)), [1, 0, 0, 0, 0, 1]);
        meter.hedged(Thread(1), Hedged::Second);
        assert_eq!(Hedged::ALL.map(|outcome| meter.hedges(outcome)), [0, 1, 0]);
    }
}
