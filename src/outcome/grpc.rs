//! Outcomes of gRPC calls by status, counted per data thread; a version without calls keeps no counters.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::routing::Thread;

/// As many as gRPC has codes.
pub const CODES: usize = 17;
/// For a code that nobody knows, and for a call without any.
const UNKNOWN: usize = 2;

#[derive(Debug)]
pub struct GrpcCodes {
    threads: usize,
    lines: OnceLock<Box<[CachePadded<[AtomicU64; CODES]>]>>,
}

impl GrpcCodes {
    pub fn new(threads: usize) -> GrpcCodes {
        GrpcCodes { threads, lines: OnceLock::new() }
    }

    pub fn count(&self, thread: Thread, code: u8) {
        let lines = self.lines.get_or_init(|| {
            (0..self.threads).map(|_| CachePadded::new([const { AtomicU64::new(0) }; CODES])).collect()
        });
        let slot = if usize::from(code) < CODES { usize::from(code) } else { UNKNOWN };
        lines[thread.0 as usize][slot].fetch_add(1, Ordering::Relaxed);
    }

    pub fn counts(&self) -> [u64; CODES] {
        let mut counts = [0; CODES];
        for line in self.lines.get().into_iter().flatten() {
            for (count, cell) in counts.iter_mut().zip(line.iter()) {
                *count += cell.load(Ordering::Relaxed);
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_counted_over_all_threads() {
        let codes = GrpcCodes::new(2);
        assert_eq!(codes.counts(), [0; CODES]);
        for (thread, code) in [(0, 0), (1, 0), (1, 14), (0, 99)] {
            codes.count(Thread(thread), code);
        }
        let counts = codes.counts();
        assert_eq!((counts[0], counts[14], counts[2]), (2, 1, 1));
    }
}
