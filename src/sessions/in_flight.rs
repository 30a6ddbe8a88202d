//! How many exchanges of each kind a version has, counted per data thread.
//!
//! Each data thread adds and subtracts in its own cache line; a reader sums the lines. An exchange ends
//! on the thread it began on, so a line never goes below zero.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use tokio::sync::Notify;

use super::kind::Kind;
use crate::routing::Thread;

#[derive(Debug)]
pub struct InFlight {
    lines: Box<[CachePadded<[AtomicU64; 3]>]>,
    /// Somebody waits for an end: tell it. Off in normal operation.
    watched: AtomicBool,
    ended: Notify,
}

impl InFlight {
    pub fn new(threads: usize) -> InFlight {
        InFlight {
            lines: (0..threads).map(|_| CachePadded::new(Default::default())).collect(),
            watched: AtomicBool::new(false),
            ended: Notify::new(),
        }
    }

    pub fn begin(&self, thread: Thread, kind: Kind) {
        self.line(thread, kind).fetch_add(1, Ordering::Relaxed);
    }

    pub fn end(&self, thread: Thread, kind: Kind) {
        self.line(thread, kind).fetch_sub(1, Ordering::Release);
        if self.watched.load(Ordering::Relaxed) {
            self.ended.notify_waiters();
        }
    }

    pub fn count(&self, kind: Kind) -> u64 {
        self.lines.iter().map(|line| line[kind as usize].load(Ordering::Acquire)).sum()
    }

    pub fn total(&self) -> u64 {
        Kind::ALL.iter().map(|kind| self.count(*kind)).sum()
    }

    /// Resolves at the next end of an exchange. Create (and enable) it before reading the counts.
    pub fn ended(&self) -> tokio::sync::futures::Notified<'_> {
        self.watched.store(true, Ordering::SeqCst);
        self.ended.notified()
    }

    fn line(&self, thread: Thread, kind: Kind) -> &AtomicU64 {
        &self.lines[thread.0 as usize][kind as usize]
    }
}
