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

    /// Forgets the counters that `keep` refuses and that no table in use counts with.
    pub fn retire(&self, keep: impl Fn(&CodesKey) -> bool) {
        let mut all = self.all.lock().expect("no holder panics");
        // Under the lock nobody new can get hold of a counter that only the registry holds.
        all.retain(|key, codes| keep(key) || Arc::strong_count(codes) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(route: &str) -> CodesKey {
        CodesKey { route: route.into(), service: "shop".into(), version: "v1".into() }
    }

    #[test]
    fn a_code_is_counted_by_itself_or_by_its_class() {
        let registry = CodesRegistry::new(2);
        let codes = registry.get(key("web"));
        for (thread, status) in [(0, 200), (1, 200), (0, 418), (1, 299), (0, 999), (0, 0), (1, 101)] {
            codes.count(Thread(thread), status);
        }
        let seen: Vec<_> = codes.seen().into_iter().map(|(code, count)| format!("{code}:{count}")).collect();
        assert_eq!(seen, ["101:1", "200:2", "1xx:1", "2xx:1", "4xx:1", "5xx:1"]);
    }

    #[test]
    fn the_codes_are_in_order() {
        assert!(CODES.is_sorted(), "they are searched by halving");
    }

    #[test]
    fn one_combination_has_one_counter_and_is_forgotten_only_when_nobody_counts_with_it() {
        let registry = CodesRegistry::new(1);
        let held = registry.get(key("web"));
        assert!(Arc::ptr_eq(&held, &registry.get(key("web"))));
        registry.get(key("old"));
        registry.retire(|_| true);
        assert_eq!(registry.snapshot().len(), 2);
        registry.retire(|_| false);
        let left: Vec<_> = registry.snapshot().into_iter().map(|(key, _)| key.route).collect();
        assert_eq!(left, ["web".into()]);
    }
}
