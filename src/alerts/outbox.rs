//! What is to be sent, in a bounded queue for each destination.
//!
//! One delivery of a destination after the other, so that it learns things in the order in which they happened;
//! destinations do not wait for one another. A queue that is full loses its oldest: the newest says how
//! things stand. A queue has a task for as long as there is something in it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::Client;
use super::delivery::{Delivery, Patience};
use crate::telemetry::{Event, Events, names};

/// Deliveries that may wait for one destination.
const QUEUE: usize = 128;

/// Called with what was wrong, when a delivery has failed for good.
pub(super) type OnFailure = Box<dyn FnOnce(&str) + Send>;

pub(super) struct Letter {
    pub delivery: Delivery,
    pub patience: Patience,
    /// Of the metric.
    pub channel: String,
    pub on_failure: Option<OnFailure>,
}

#[derive(Clone)]
pub(super) struct Outbox {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: tokio::runtime::Handle,
    client: Client,
    events: Events,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// By destination; one that is here has a task.
    queues: Mutex<BTreeMap<String, VecDeque<Letter>>>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outbox")
    }
}

impl Outbox {
    pub fn new(runtime: tokio::runtime::Handle, client: Client, events: Events) -> Outbox {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Outbox { inner: Arc::new(Inner { runtime, client, events, tasks, stop, queues: Mutex::default() }) }
    }

    /// Waits for nothing.
    pub fn post(&self, to: &str, letter: Letter) {
        let inner = &self.inner;
        if inner.tasks.is_closed() {
            return inner.lost(&letter, "dropped", "this process is ending");
        }
        let mut queues = inner.queues.lock().expect("no holder panics");
        let dropped = match queues.get_mut(to) {
            Some(queue) => {
                let dropped = (queue.len() >= QUEUE).then(|| queue.pop_front()).flatten();
                queue.push_back(letter);
                dropped
            }
            None => {
                queues.insert(to.into(), VecDeque::from([letter]));
                inner.tasks.spawn_on(empty(self.inner.clone(), to.into()), &inner.runtime);
                None
            }
        };
        drop(queues);
        if let Some(letter) = dropped {
            inner.lost(&letter, "dropped", "too many wait for this destination");
        }
    }

    /// Takes no more, and waits until all is sent, but no longer than this. The rest is lost, and said to be.
    pub async fn close(&self, patience: Duration) {
        self.inner.tasks.close();
        if tokio::time::timeout(patience, self.inner.tasks.wait()).await.is_ok() {
            return;
        }
        self.inner.stop.cancel();
        self.inner.tasks.wait().await;
        for letter in std::mem::take(&mut *self.inner.queues.lock().expect("no holder panics")).into_values().flatten()
        {
            self.inner.lost(&letter, "dropped", "this process ended");
        }
    }
}

/// Sends what waits for one destination, and ends.
async fn empty(inner: Arc<Inner>, to: String) {
    loop {
        let next = {
            let mut queues = inner.queues.lock().expect("no holder panics");
            let next = queues.get_mut(&to).and_then(VecDeque::pop_front);
            if next.is_none() {
                queues.remove(&to);
            }
            next
        };
        let Some(mut letter) = next else { return };
        let sent = tokio::select! {
            sent = letter.delivery.deliver(&inner.client, letter.patience) => sent,
            () = inner.stop.cancelled() => {
                inner.lost(&letter, "dropped", "this process ended");
                return;
            }
        };
        match sent {
            Ok(()) => inner.count(&letter.channel, "sent"),
            Err(wrong) => {
                inner.lost(&letter, "failed", &wrong);
                if let Some(on_failure) = letter.on_failure.take() {
                    on_failure(&wrong);
                }
            }
        }
    }
}

impl Inner {
    fn count(&self, channel: &str, result: &'static str) {
        metrics::counter!(names::NOTICES_TOTAL, "channel" => channel.to_owned(), "result" => result).increment(1);
    }

    fn lost(&self, letter: &Letter, result: &'static str, why: &str) {
        self.count(&letter.channel, result);
        let (channel, to) = (&*letter.channel, &*letter.delivery.shown);
        tracing::warn!(channel, to, why, "a notice was not delivered");
        let message = format!("`{channel}`: {to} was not told: {why}");
        let data = json!({ "channel": channel, "result": result });
        self.events.emit(Event { kind: "warning", message, data, ..Event::default() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::payload::Post;
    use super::super::testing::{Server, closed, reply};
    use super::*;

    fn outbox(events: &Events) -> Outbox {
        Outbox::new(tokio::runtime::Handle::current(), Client::default(), events.clone())
    }

    fn letter(url: &str, number: usize) -> Letter {
        let post = Post { url: url.into(), shown: "somebody".into(), body: number.into(), secret: None };
        let patience = Patience { timeout: Duration::from_secs(10), attempts: 1 };
        Letter { delivery: Delivery::new(post), patience, channel: "ops".into(), on_failure: None }
    }

    #[tokio::test]
    async fn letters_arrive_in_order_and_a_silent_destination_delays_no_other() {
        let (silent, well) = (Server::start(vec![None]).await, Server::start(vec![reply(200, "")]).await);
        let outbox = outbox(&Events::default());
        for number in 0..5 {
            outbox.post("silent", letter(&silent.url("/"), number));
            outbox.post("well", letter(&well.url("/"), number));
        }
        let bodies: Vec<Value> = well.until(5).await.iter().map(|heard| heard.json()).collect();
        assert_eq!(bodies, [0, 1, 2, 3, 4].map(Value::from));
        assert_eq!(silent.until(1).await.len(), 1, "one after the other");
    }

    #[tokio::test]
    async fn a_full_queue_loses_its_oldest_and_says_so() {
        let silent = Server::start(vec![None]).await;
        let events = Events::default();
        let outbox = outbox(&events);
        outbox.post("ops", letter(&silent.url("/"), 0));
        // The first is on its way now; the queue is empty.
        silent.until(1).await;
        for number in 1..=QUEUE + 2 {
            outbox.post("ops", letter(&silent.url("/"), number));
        }
        let waits = outbox.inner.queues.lock().unwrap()["ops"].len();
        assert_eq!(waits, QUEUE);
        assert_eq!(events.subscribe(0).0.len(), 2, "two were lost");
        outbox.close(Duration::from_millis(10)).await;
        assert_eq!(events.subscribe(0).0.len(), 2 + 1 + QUEUE, "the rest at the end");
    }

    #[tokio::test]
    async fn closing_waits_for_what_is_on_its_way() {
        let well = Server::start(vec![reply(200, "")]).await;
        let events = Events::default();
        let outbox = outbox(&events);
        for number in 0..3 {
            outbox.post("ops", letter(&well.url("/"), number));
        }
        outbox.close(Duration::from_secs(20)).await;
        assert_eq!(well.received().len(), 3);
        outbox.post("ops", letter(&well.url("/"), 4));
        assert!(events.subscribe(0).0[0].message.contains("this process is ending"), "too late is said to be");
    }

    #[tokio::test]
    async fn whoever_wants_to_know_is_told_of_a_failure() {
        let outbox = outbox(&Events::default());
        let (sender, told) = tokio::sync::oneshot::channel();
        let on_failure: OnFailure = Box::new(move |why| drop(sender.send(why.to_owned())));
        outbox.post("ops", Letter { on_failure: Some(on_failure), ..letter(&closed().await, 0) });
        let why = tokio::time::timeout(Duration::from_secs(20), told).await.expect("in time").expect("told");
        assert!(why.contains("refused"), "{why}");
    }
}
