//! A coarse clock for deadlines: milliseconds since the process's epoch, moved on by each data thread's
//! sweep, so that looking at it costs a load.

use std::cell::Cell;
use std::time::Duration;

/// How often a data thread looks for passed deadlines: the error of every deadline on a client connection.
pub const TICK: Duration = Duration::from_millis(50);

thread_local! {
    static NOW_MS: Cell<u64> = const { Cell::new(1) };
}

/// As of the last tick of this thread; never 0.
pub fn now_ms() -> u64 {
    NOW_MS.get()
}

pub fn set(now_ms: u64) {
    NOW_MS.set(now_ms.max(1));
}

/// `wait` from now, never 0; saturates.
pub fn deadline_in(wait: Duration) -> u64 {
    after(now_ms(), wait).max(1)
}

/// `wait` from `since`; saturates.
pub fn after(since: u64, wait: Duration) -> u64 {
    since.saturating_add(wait.as_secs().saturating_mul(1000).saturating_add(u64::from(wait.subsec_millis())))
}
