//! Responses counted by route, version and status code: created on first use, then one atomic add.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_utils::CachePadded;

use crate::config::model::Name;
use crate::routing::Thread;

/// Codes counted by themselves; any other goes to its class (`2xx`…), so that a label has few values.
const CODES: [u16; 35] = [
    101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409, 410, 411, 413, 414,
    415, 417, 422, 429, 431, 499, 500, 501, 502, 503, 504, 505,
];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const SLOTS: usize = CODES.len() + CLASSES.len();

/// What a counter of responses is for. `service` and `version` are empty for redirects, fixed responses
/// and requests that matched no route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CodesKey {
    pub route: Name,
    pub service: Name,
    pub version: Name,
}

#[derive(Debug)]
pub struct Codes {
    lines: Box<[CachePadded<[AtomicU64; SLOTS]>]>,
}

impl Codes {
    fn new(threads: usize) -> Codes {
        Codes { lines: (0..threads).map(|_| CachePadded::new([const { AtomicU64::new(0) }; SLOTS])).collect() }
    }

    pub fn count(&self, thread: Thread, status: u16) {
        let slot = match CODES.binary_search(&status) {
            Ok(slot) => slot,
            Err(_) => CODES.len() + usize::from(status / 100).clamp(1, 5) - 1,
        };
        self.lines[thread.0 as usize][slot].fetch_add(1, Ordering::Relaxed);
    }

    /// Label and count of every code seen.
    pub fn seen(&self) -> Vec<(String, u64)> {
        let mut seen = Vec::new();
        for slot in 0..SLOTS {
            let count = self.lines.iter().map(|line| line[slot].load(Ordering::Relaxed)).sum();
            if count > 0 {
                let label = match CODES.get(slot) {
                    Some(code) => code.to_string(),
                    None => CLASSES[slot - CODES.len()].to_string(),
                };
                seen.push((label, count));
            }
        }
        seen
    }
}

/// All response counters of the process. Locked only when a combination is seen for the first time
/// and by the telemetry task.
#[derive(Debug)]
pub struct CodesRegistry {
    threads: usize,
    all: Mutex<HashMap<CodesKey, Arc<Codes>>>,
}

impl CodesRegistry {
    pub fn new(threads: usize) -> CodesRegistry {
        CodesRegistry { threads, all: Mutex::default() }
    }

    pub fn get(&self, key: CodesKey) -> Arc<Codes> {
        let mut all = self.all.lock().expect("no holder panics");
        all.entry(key).or_insert_with(|| Arc::new(Codes::new(self.threads))).clone()
    }

    pub fn snapshot(&self) -> Vec<(CodesKey, Arc<Codes>)> {
        let all = self.all.lock().expect("no holder panics");
        all.iter().map(|(key, codes)| (key.clone(), codes.clone())).collect()
    }

    /// Forgets counters whose service and version are gone; returns what was forgotten.
    pub fn retire(&self, keep: impl Fn(&CodesKey) -> bool) -> Vec<CodesKey> {
        let mut all = self.all.lock().expect("no holder panics");
        let gone: Vec<CodesKey> = all.keys().filter(|key| !keep(key)).cloned().collect();
        for key in &gone {
            all.remove(key);
        }
        gone
    }
}
