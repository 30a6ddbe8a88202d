//! One request makes a shared connection to an endpoint; those that come meanwhile wait for it instead of making one
//! each. A data thread's own matter: connections are not shared between threads.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;

thread_local! {
    /// By the endpoint's incarnation: who waits for the connection that is being made.
    static CONNECTING: RefCell<HashMap<u64, Arc<Notify>>> = RefCell::default();
}

/// The request that connects. Dropped when there is a connection, or none.
#[derive(Debug)]
pub struct Connecting {
    endpoint: u64,
    waiting: Arc<Notify>,
}

/// `Some`: nobody else is connecting now. `None` after having waited for somebody who was; whether that went well
/// shows in the pool, and who finds nothing there connects without waiting once more.
pub async fn pass(endpoint: u64) -> Option<Connecting> {
    let waiting = CONNECTING.with_borrow_mut(|connecting| match connecting.get(&endpoint) {
        Some(waiting) => Err(waiting.clone()),
        None => {
            let waiting = Arc::new(Notify::new());
            connecting.insert(endpoint, waiting.clone());
            Ok(waiting)
        }
    });
    match waiting {
        Ok(waiting) => Some(Connecting { endpoint, waiting }),
        Err(waiting) => {
            waiting.notified().await;
            None
        }
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        // The thread may be ending.
        let _ = CONNECTING.try_with(|connecting| connecting.borrow_mut().remove(&self.endpoint));
        self.waiting.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_connects_and_the_others_wait_for_it() {
        let first = pass(7).await.expect("nobody connects yet");
        assert!(pass(8).await.is_some(), "another endpoint is another matter");
        let waiting = async {
            let (a, b) = tokio::join!(pass(7), pass(7));
            assert!(a.is_none() && b.is_none());
        };
        tokio::join!(waiting, async {
            tokio::task::yield_now().await;
            drop(first);
        });
        assert!(pass(7).await.is_some(), "the next one connects again if it must");
    }
}
