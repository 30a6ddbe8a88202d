//! Names for requests that came without one.
//!
//! A client or a proxy before this one names its request in `x-request-id`, as Envoy, HAProxy and nginx setups do;
//! that name is kept. Otherwise one is made, and only when it is needed: for the access log, or because a judged
//! attempt failed. With `request_id:` in the configuration each request is named, and the endpoint is told.

use std::cell::Cell;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::entropy;
use crate::config::model::RequestIds;
use crate::evidence::RequestId;
use crate::routing::Thread;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The name that came with a request, if it counts.
pub fn sent(ids: Option<&RequestIds>, headers: &HeaderMap) -> Option<HeaderValue> {
    match ids {
        None => headers.get(HEADER).cloned(),
        Some(ids) if ids.trust => headers.get(&ids.header).cloned(),
        Some(_) => None,
    }
}

thread_local! {
    /// One random number for the life of the thread, and how many ids were made with it.
    static MADE: Cell<(u64, u64)> = Cell::new((entropy::next(), 0));
}

/// Unique: 64 random bits of this thread and this start, the thread, a counter.
pub fn make(thread: Thread) -> RequestId {
    let (random, count) = MADE.get();
    MADE.set((random, count + 1));
    RequestId::made(random, u64::from(thread.0) << 48 | count & 0xffff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_alike() {
        let of = |thread| move || (0..100).map(|_| make(Thread(thread)).as_str().to_string()).collect::<Vec<_>>();
        let mut ids = of(0)();
        ids.extend(std::thread::spawn(of(1)).join().expect("it does not panic"));
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all);
    }
}
