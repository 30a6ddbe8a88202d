//! `max_connections`: places on an endpoint, and the wait for one.
//!
//! Places are counted over all data threads, so a limit is exact. Only endpoints with a limit pay for it: one shared
//! counter, touched once when an exchange begins there and once when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// An endpoint may also become free of its limit without telling (a reload, a passed check): who waits looks again
/// this often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Where requests of a version wait while all its endpoints are full.
#[derive(Debug, Default)]
pub struct Room {
    waiting: AtomicUsize,
    /// One is woken for each place that becomes free, in the order in which they came.
    freed: Notify,
}

impl Room {
    /// Who comes now would overtake somebody.
    pub(super) fn has_queue(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// How many wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Tries until `take` gives something, for `max_wait`, with at most `max_waiting` others. `None`: no luck.
    pub async fn wait<T>(
        &self,
        max_wait: Duration,
        max_waiting: usize,
        mut take: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let until = Instant::now() + max_wait;
        let _queued = Queued::enter(&self.waiting, max_waiting)?;
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Enabled before trying: a place that is freed in between is not missed.
            freed.as_mut().enable();
            if let Some(taken) = take() {
                return Some(taken);
            }
            let now = Instant::now();
            if now >= until {
                return None;
            }
            // Woken or not, it is looked again.
            let _ = timeout_at(until.min(now + LOOK_AGAIN), freed).await;
        }
    }
}

/// One that waits; it leaves the queue when dropped.
struct Queued<'a>(&'a AtomicUsize);

impl<'a> Queued<'a> {
    fn enter(waiting: &'a AtomicUsize, max: usize) -> Option<Queued<'a>> {
        let queued = Queued(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < max).then_some(queued)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The limit of one endpoint.
#[derive(Debug)]
pub(super) struct Places {
    /// 0: no limit.
    max: AtomicU32,
    taken: AtomicU32,
    room: Arc<Room>,
}

impl Places {
    pub(super) fn new(room: Arc<Room>) -> Places {
        Places { max: AtomicU32::new(0), taken: AtomicU32::new(0), room }
    }

    pub(super) fn limit(&self, max: Option<u32>) {
        self.max.store(max.unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn max(&self) -> Option<u32> {
        Some(self.max.load(Ordering::Relaxed)).filter(|max| *max > 0)
    }

    /// Whether one could be taken now. `queued`: the asker has waited for it.
    pub(super) fn has_free(&self, queued: bool) -> bool {
        match self.max.load(Ordering::Relaxed) {
            0 => true,
            max => self.taken.load(Ordering::Relaxed) < max && (queued || !self.room.has_queue()),
        }
    }

    /// Takes one; `Err`: somebody else was faster.
    pub(super) fn take(self: &Arc<Self>) -> Result<Option<Place>, ()> {
        let max = self.max.load(Ordering::Relaxed);
        if max == 0 {
            return Ok(None);
        }
        let place = Place { places: self.clone() };
        // Given back at once, by dropping it, if that was one too many.
        if self.taken.fetch_add(1, Ordering::Relaxed) < max { Ok(Some(place)) } else { Err(()) }
    }
}

/// A place on an endpoint with a limit. Dropping it is giving it back.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        if self.places.room.has_queue() {
            self.places.room.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(max: u32) -> (Arc<Room>, Arc<Places>) {
        let room = Arc::<Room>::default();
        let places = Arc::new(Places::new(room.clone()));
        places.limit(Some(max));
        (room, places)
    }

    #[test]
    fn no_more_than_the_limit_and_every_place_comes_back() {
        let (_, places) = places(2);
        let one = places.take().expect("free").expect("counted");
        let two = places.take().expect("free");
        assert!(!places.has_free(false));
        assert_eq!(places.take().err(), Some(()));
        drop(one);
        assert!(places.has_free(false), "the one that was too many is not counted");
        drop(two);
        places.limit(None);
        assert!(places.take().expect("free").is_none(), "without a limit nothing is counted");
        assert_eq!(places.taken.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_first_is_served_first_and_nobody_overtakes() {
        let (room, places) = places(1);
        let held = places.take().expect("free");
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for nth in 0..3 {
            let (queue, places, order) = (room.clone(), places.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let taken = queue
                    .wait(Duration::from_secs(5), 10, || places.has_free(true).then(|| places.take().ok()).flatten());
                let place = taken.await.expect("in time");
                order.lock().expect("no panic").push(nth);
                tokio::time::sleep(Duration::from_millis(10)).await;
                drop(place);
            }));
            while room.waiting() != nth + 1 {
                tokio::task::yield_now().await;
            }
        }
        drop(held);
        assert!(!places.has_free(false), "free, but somebody waits for it");
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(*order.lock().expect("no panic"), [0, 1, 2]);
        assert_eq!((room.waiting(), places.has_free(false)), (0, true));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_bounded_in_time_and_number() {
        let (room, _) = places(1);
        let before = Instant::now();
        assert_eq!(room.wait(Duration::from_secs(3), 1, || None::<()>).await, None);
        assert_eq!(before.elapsed(), Duration::from_secs(3));
        assert_eq!(room.wait(Duration::from_secs(3), 0, || Some(())).await, None, "no place in the queue");
        assert_eq!(before.elapsed(), Duration::from_secs(3));
        assert_eq!(room.waiting(), 0);
    }
}
