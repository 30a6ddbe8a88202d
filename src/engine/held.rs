//! The snapshot as one data thread holds it.
//!
//! Requests of a thread share the thread's own reference, so that counting who still uses a generation
//! touches no cache line of another core.

use std::cell::RefCell;
use std::sync::Arc;

use http::HeaderValue;

use crate::control::{Live, Snapshot};

#[derive(Debug)]
pub struct Held {
    pub snapshot: Arc<Snapshot>,
    /// The generation's number, ready to be put into a response.
    pub number: HeaderValue,
}

thread_local! {
    static HELD: RefCell<Option<Arc<Held>>> = const { RefCell::new(None) };
}

/// What is live now: one load and a comparison, unless it changed.
pub fn current(live: &Live) -> Arc<Held> {
    HELD.with_borrow_mut(|held| {
        let now = live.pointer().load();
        if let Some(held) = held
            && Arc::ptr_eq(&held.snapshot, &now)
        {
            return held.clone();
        }
        let snapshot = arc_swap::Guard::into_inner(now);
        let number = HeaderValue::from(snapshot.generation.number());
        let fresh = Arc::new(Held { snapshot, number });
        *held = Some(fresh.clone());
        fresh
    })
}

/// Lets go of a snapshot that is live no longer.
pub fn refresh(live: &Live) -> u64 {
    current(live).snapshot.generation.number()
}

/// The thread ends.
pub fn forget() {
    HELD.with_borrow_mut(|held| *held = None);
}
