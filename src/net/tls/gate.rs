//! How many handshakes one listener has at once. A handshake costs memory from the first byte on, and a client
//! that does not go on with it costs that for as long as the deadline allows.
//!
//! At the limit, the oldest handshake that waits for its client makes room for the next one, if it has waited
//! for longer than any honest client needs. So clients that begin and do not go on cannot keep others out, and
//! many honest ones at once, for which we are the slow side, only wait their turn.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::sessions::connections::Connection;

/// An honest client answers within a few round trips.
const STALLED: Duration = Duration::from_secs(1);

/// One per listener. Its lock is taken twice in a handshake, never for a request.
#[derive(Debug, Default)]
pub struct Gate {
    inside: Mutex<Inside>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    places: BTreeMap<u64, Arc<Place>>,
}

#[derive(Debug)]
struct Place {
    connection: Arc<Connection>,
    /// When the handshake last began to wait for its client.
    waits_since: AtomicU64,
    lost: AtomicBool,
}

/// A place for one handshake; dropped when it is over.
#[derive(Debug)]
pub struct Entered {
    gate: Arc<Gate>,
    number: u64,
    place: Arc<Place>,
}

impl Gate {
    /// `None`: all places are taken by handshakes that go on.
    pub fn try_enter(self: &Arc<Self>, max: usize, now_ms: u64, connection: &Arc<Connection>) -> Option<Entered> {
        let mut inside = self.inside();
        if inside.places.len() >= max {
            let oldest = inside.places.first_entry()?;
            let waits_since = oldest.get().waits_since.load(Ordering::Relaxed);
            if now_ms < waits_since.saturating_add(STALLED.as_millis() as u64) {
                return None;
            }
            let oldest = oldest.remove();
            oldest.lost.store(true, Ordering::Release);
            oldest.connection.wake();
        }
        let number = inside.next;
        inside.next += 1;
        let place =
            Place { connection: connection.clone(), waits_since: AtomicU64::new(now_ms), lost: AtomicBool::new(false) };
        let place = Arc::new(place);
        inside.places.insert(number, place.clone());
        Some(Entered { gate: self.clone(), number, place })
    }

    /// Resolves when a place was given back since this future was first polled.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Handshakes at this moment.
    pub fn inside_now(&self) -> usize {
        self.inside().places.len()
    }

    fn inside(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().expect("no holder panics")
    }
}

impl Entered {
    /// The place was given to another: this handshake must end.
    pub fn is_lost(&self) -> bool {
        self.place.lost.load(Ordering::Acquire)
    }

    /// All that was there has been dealt with: now it is the client's turn.
    pub fn waits(&self, now_ms: u64) {
        self.place.waits_since.store(now_ms, Ordering::Relaxed);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.gate.inside().places.remove(&self.number);
        self.gate.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::Thread;

    fn connection() -> Arc<Connection> {
        Arc::new(Connection::new(Thread(0), "web".into()))
    }

    #[test]
    fn the_oldest_that_waits_makes_room_and_no_other() {
        let gate = Arc::new(Gate::default());
        let enter = |now| gate.try_enter(2, now, &connection());
        let (first, second) = (enter(1000).expect("room"), enter(1100).expect("room"));
        assert!(enter(1500).is_none(), "both are young");
        first.waits(1900);
        assert!(enter(2500).is_none(), "it has just gone on");
        let third = enter(2900).expect("the first waits for a second");
        assert!(first.is_lost() && !second.is_lost() && !third.is_lost());
        drop(first);
        assert_eq!(gate.inside_now(), 2, "what is lost is not given back twice");
        drop((second, third));
        assert_eq!(gate.inside_now(), 0);
    }

    #[tokio::test]
    async fn a_place_that_is_given_back_wakes_who_waits() {
        let gate = Arc::new(Gate::default());
        let held = gate.try_enter(1, 1, &connection()).expect("room");
        let waits = gate.freed();
        tokio::pin!(waits);
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(waits.as_mut().poll(cx).is_pending())).await);
        drop(held);
        waits.await;
    }
}
