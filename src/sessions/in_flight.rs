//! How many exchanges of each kind a version has, counted per data thread.
//!
//! Each data thread adds and subtracts in its own cache line; a reader sums the lines. An exchange ends
//! on the thread it began on, so a line never goes below zero.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::kind::Kind;
use crate::routing::Thread;

#[derive(Debug)]
pub struct InFlight {
    lines: Box<[CachePadded<[AtomicU64; Kind::COUNT]>]>,
    /// How many wait for an end and want to be told. None in normal operation.
    watchers: AtomicU32,
    ended: Notify,
}

/// While this exists, ends are told.
#[derive(Debug)]
pub struct Watching<'a> {
    in_flight: &'a InFlight,
}

impl InFlight {
    pub fn new(threads: usize) -> InFlight {
        InFlight {
            lines: (0..threads).map(|_| CachePadded::new(Default::default())).collect(),
            watchers: AtomicU32::new(0),
            ended: Notify::new(),
        }
    }

    pub fn begin(&self, thread: Thread, kind: Kind) {
        self.line(thread, kind).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts down, then looks for watchers; a watcher announces itself, then counts. Sequentially
    /// consistent on both sides, so that one of the two sees the other.
    pub fn end(&self, thread: Thread, kind: Kind) {
        self.line(thread, kind).fetch_sub(1, Ordering::SeqCst);
        if self.watchers.load(Ordering::SeqCst) > 0 {
            self.ended.notify_waiters();
        }
    }

    /// An exchange of kind `from` turned out to be of kind `to`.
    pub fn becomes(&self, thread: Thread, from: Kind, to: Kind) {
        // First up, then down: the total never misses it.
        self.begin(thread, to);
        self.end(thread, from);
    }

    pub fn count(&self, kind: Kind) -> u64 {
        self.lines.iter().map(|line| line[kind as usize].load(Ordering::SeqCst)).sum()
    }

    pub fn total(&self) -> u64 {
        Kind::ALL.iter().map(|kind| self.count(*kind)).sum()
    }

    /// Makes ends known as long as the answer lives.
    pub fn watch(&self) -> Watching<'_> {
        self.watchers.fetch_add(1, Ordering::SeqCst);
        Watching { in_flight: self }
    }

    fn line(&self, thread: Thread, kind: Kind) -> &AtomicU64 {
        &self.lines[thread.0 as usize][kind as usize]
    }
}

impl<'a> Watching<'a> {
    /// Resolves at the next end of an exchange. Create and enable it before reading the counts.
    pub fn ended(&self) -> Notified<'a> {
        self.in_flight.ended.notified()
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.in_flight.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn counts_are_by_kind_and_sum_over_threads() {
        let in_flight = InFlight::new(2);
        in_flight.begin(Thread(0), Kind::Http);
        in_flight.begin(Thread(1), Kind::Http);
        in_flight.becomes(Thread(1), Kind::Http, Kind::WebSocket);
        let counts = Kind::ALL.map(|kind| in_flight.count(kind));
        assert_eq!((counts, in_flight.total()), ([1, 0, 1, 0], 2));
        in_flight.end(Thread(1), Kind::WebSocket);
        in_flight.end(Thread(0), Kind::Http);
        assert_eq!(in_flight.total(), 0);
    }

    #[tokio::test]
    async fn no_end_is_missed_by_a_watcher() {
        let in_flight = Arc::new(InFlight::new(1));
        for _ in 0..2_000 {
            in_flight.begin(Thread(0), Kind::Sse);
            let ending = std::thread::spawn({
                let in_flight = in_flight.clone();
                move || in_flight.end(Thread(0), Kind::Sse)
            });
            let watching = in_flight.watch();
            let idle = async {
                loop {
                    let ended = watching.ended();
                    tokio::pin!(ended);
                    ended.as_mut().enable();
                    if in_flight.total() == 0 {
                        return;
                    }
                    ended.await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(10), idle).await.expect("told of the end");
            ending.join().expect("no panic");
        }
        assert_eq!(in_flight.watchers.load(Ordering::SeqCst), 0);
    }
}
