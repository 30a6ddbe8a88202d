//! Waiting instead of an error while a service has nothing that could serve, or while an operator holds
//! it. Bounded in time and in number (ZD-22).
//!
//! All that wait are woken at once and ask for themselves; a data thread runs them in the order in which
//! they came. A strict order over all threads would need a queue shared by them, for no gain: whoever
//! waits is let go in the same moment.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::{Instant, timeout_at};

use super::state::{Runtime, ServiceCore, ServiceRuntime};
use crate::config::model::Hold;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldEnd {
    /// Something can serve now, and nobody holds the service.
    Ready,
    /// `max_wait` is over.
    TimedOut,
    /// `max_requests` wait already.
    Full,
}

impl ServiceCore {
    /// New requests wait, or all that wait may go. Says what was so before.
    pub fn hold(&self, hold: bool) -> bool {
        let was = self.held.swap(hold, Ordering::SeqCst);
        if !hold {
            self.changed.notify_waiters();
        }
        was
    }
}

impl Runtime {
    /// The services whose requests an operator makes wait.
    pub fn held(&self) -> BTreeSet<String> {
        let held = self.services.iter().filter(|service| service.core.held.load(Ordering::SeqCst));
        held.map(|service| service.name.to_string()).collect()
    }
}

/// Waits until `ready` says so and the service is not held. `ready` is asked again whenever something
/// about the service changed; it must not block.
pub async fn wait(service: &ServiceRuntime, policy: &Hold, ready: impl Fn() -> bool) -> HoldEnd {
    let core = &service.core;
    let may_go = || !core.held.load(Ordering::Acquire) && ready();
    if may_go() {
        return HoldEnd::Ready;
    }
    if policy.max_wait.is_zero() {
        return HoldEnd::TimedOut;
    }
    let until = Instant::now() + policy.max_wait;
    let Some(_place) = Place::take(&core.waiting, policy.max_requests) else {
        return HoldEnd::Full;
    };
    loop {
        let changed = core.changed.notified();
        tokio::pin!(changed);
        // Enabled before asking: a change between the question and the wait is not missed.
        changed.as_mut().enable();
        if may_go() {
            return HoldEnd::Ready;
        }
        if timeout_at(until, changed).await.is_err() {
            return if may_go() { HoldEnd::Ready } else { HoldEnd::TimedOut };
        }
    }
}

/// One of the places in the queue; given back when dropped, also if the client goes away.
struct Place<'a> {
    waiting: &'a AtomicU64,
}

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicU64, max: usize) -> Option<Place<'a>> {
        let place = Place { waiting };
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        (before < max as u64).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use super::*;
    use crate::endpoints::ServiceCore;

    fn service() -> Arc<ServiceRuntime> {
        Arc::new(ServiceRuntime {
            name: "shop".into(),
            versions: Box::default(),
            core: Arc::new(ServiceCore::default()),
            upstream: Default::default(),
            secure: None,
        })
    }

    fn policy(max_requests: usize) -> Hold {
        Hold { max_wait: Duration::from_secs(5), max_requests }
    }

    async fn until_waiting(service: &ServiceRuntime, count: u64) {
        while service.core.waiting.load(Ordering::Relaxed) != count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_does_not_wait() {
        let before = Instant::now();
        assert_eq!(wait(&service(), &policy(0), || true).await, HoldEnd::Ready, "not even with no place");
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_until_an_endpoint_is_ready() {
        let service = service();
        let ready = Arc::new(AtomicBool::new(false));
        let waiting = tokio::spawn({
            let (service, ready) = (service.clone(), ready.clone());
            async move { wait(&service, &policy(1), || ready.load(Ordering::Relaxed)).await }
        });
        until_waiting(&service, 1).await;
        service.core.changed.notify_waiters();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!waiting.is_finished(), "woken, but not ready");
        ready.store(true, Ordering::Relaxed);
        service.core.changed.notify_waiters();
        assert_eq!(waiting.await.expect("not aborted"), HoldEnd::Ready);
        assert_eq!(service.core.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_after_max_wait_and_not_before() {
        let before = Instant::now();
        assert_eq!(wait(&service(), &policy(1), || false).await, HoldEnd::TimedOut);
        assert_eq!(before.elapsed(), Duration::from_secs(5));
        let at_once = Hold { max_wait: Duration::ZERO, max_requests: 1 };
        assert_eq!(wait(&service(), &at_once, || false).await, HoldEnd::TimedOut);
        assert_eq!(before.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_max_requests_wait() {
        let service = service();
        let mut waiting = Vec::new();
        for nth in 1..=3 {
            let service = service.clone();
            waiting.push(tokio::spawn({
                let service = service.clone();
                async move { wait(&service, &policy(3), || false).await }
            }));
            until_waiting(&service, nth).await;
        }
        assert_eq!(wait(&service, &policy(3), || false).await, HoldEnd::Full);
        assert_eq!(service.core.waiting.load(Ordering::Relaxed), 3);
        for one in &waiting {
            one.abort();
        }
        until_waiting(&service, 0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_service_waits_although_it_is_ready() {
        let service = service();
        service.core.held.store(true, Ordering::Release);
        let waiting = tokio::spawn({
            let service = service.clone();
            async move { wait(&service, &policy(1), || true).await }
        });
        until_waiting(&service, 1).await;
        service.core.held.store(false, Ordering::Release);
        service.core.changed.notify_waiters();
        assert_eq!(waiting.await.expect("not aborted"), HoldEnd::Ready);
    }
}
