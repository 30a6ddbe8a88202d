//! One exchange while the engine works on it, the same over HTTP/1 and HTTP/2: begins it, calls it back, and says
//! when it must end.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::app::{Incoming, with_incoming};
use super::connection::Engine;
use super::recall::{Called, Cause, Recall};
use crate::net::{Deadline, Fate, Link, Stage, clock};
use crate::sessions::connections::Cut;

/// How long a stream that must end is given to reach the end of its current event or frame.
const BOUNDARY: Duration = Duration::from_millis(1000);

pub(super) struct UnderWay<'a> {
    engine: &'a Engine,
    link: &'a Link,
    recall: &'a Recall,
    /// Until the engine has begun with it.
    incoming: Option<Incoming>,
    stopping_since: u64,
    may_recall: bool,
}

impl<'a> UnderWay<'a> {
    /// `link` and `recall` are those of `incoming`.
    pub fn new(engine: &'a Engine, link: &'a Link, recall: &'a Recall, incoming: Incoming) -> UnderWay<'a> {
        UnderWay { engine, link, recall, incoming: Some(incoming), stopping_since: 0, may_recall: true }
    }

    /// Lets the engine go on.
    pub fn poll<F: Future + ?Sized>(&mut self, cx: &mut Context<'_>, handled: Pin<&mut F>) -> Poll<F::Output> {
        let Some(incoming) = self.incoming.take() else { return handled.poll(cx) };
        let polled;
        (polled, self.incoming) = with_incoming(incoming, || handled.poll(cx));
        polled
    }

    /// Once the engine waits: how the exchange must end now, if it must. If not, the connection is woken in time to ask
    /// again.
    pub fn fate(&mut self, cx: &mut Context<'_>) -> Option<Fate> {
        let (link, recall) = (self.link, self.recall);
        if self.may_recall && link.connection.is_recalled() {
            // While there is no connection to the endpoint yet, the next poll asks again.
            self.may_recall = recall.call(link, Cause::Withdrawn) == Called::NothingWaits;
        }
        recall.poll_hedge(link, cx);
        loop {
            let Ok(deadline) = link.after_poll(cx) else { return Some(Fate::ClientGone) };
            match self.interrupted(deadline) {
                Some(Fate::Deadline(deadline)) if recall.is_put_off(link, deadline) => {}
                fate => return fate,
            }
        }
    }

    /// Whether the exchange must end now, and when to look again.
    fn interrupted(&mut self, deadline: Option<(u64, Deadline)>) -> Option<Fate> {
        let (link, now) = (self.link, clock::now_ms());
        let cut = link
            .connection
            .is_cut()
            .or_else(|| (self.engine.services.stage.get() == Stage::Cut).then_some(Cut::Shutdown));
        if let Some(cut) = cut {
            if self.stopping_since == 0 {
                self.stopping_since = now;
            }
            let is_stream = link.connection.current().kind().is_stream();
            let waited_enough = now >= self.stopping_since + BOUNDARY.as_millis() as u64;
            if !is_stream || link.stop_at_boundary() || waited_enough {
                return Some(Fate::Cut(cut));
            }
            link.connection.wake_at(now + 1);
            return None;
        }
        match deadline {
            Some((at, deadline)) if at <= now => Some(Fate::Deadline(deadline)),
            Some((at, _)) => {
                link.connection.wake_at(at);
                None
            }
            None => {
                link.connection.wake_at(0);
                None
            }
        }
    }
}
