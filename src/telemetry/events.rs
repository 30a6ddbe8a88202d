//! Everything worth telling an operator, in order, for `GET /api/v1/events`, `status` and the journal.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast;

use crate::control::api::EventRecord;

/// Events kept for a subscriber that comes later or was away.
const KEPT: usize = 1024;

#[derive(Debug, Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    recent: Mutex<VecDeque<EventRecord>>,
    sender: broadcast::Sender<EventRecord>,
}

/// What an event is about; everything optional but the kind and the message.
#[derive(Debug, Clone, Default)]
pub struct Event {
    pub kind: &'static str,
    pub service: Option<String>,
    pub version: Option<String>,
    pub message: String,
    pub data: serde_json::Value,
}

impl Default for Events {
    fn default() -> Self {
        let inner = Inner { recent: Mutex::default(), sender: broadcast::Sender::new(KEPT) };
        Events { inner: Arc::new(inner) }
    }
}

impl Events {
    pub fn emit(&self, event: Event) {
        let mut recent = self.inner.recent.lock().expect("no holder panics");
        let record = EventRecord {
            id: recent.back().map_or(1, |last| last.id + 1),
            at: unix_ms(),
            kind: event.kind.to_string(),
            service: event.service,
            version: event.version,
            message: event.message,
            data: event.data,
        };
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(record.clone());
        // Nobody listening is not an error.
        let _ = self.inner.sender.send(record);
    }

    /// Kept events with an id above `after`, then everything that follows.
    pub fn subscribe(&self, after: u64) -> (Vec<EventRecord>, broadcast::Receiver<EventRecord>) {
        let recent = self.inner.recent.lock().expect("no holder panics");
        let kept = recent.iter().filter(|record| record.id > after).cloned().collect();
        (kept, self.inner.sender.subscribe())
    }
}

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
