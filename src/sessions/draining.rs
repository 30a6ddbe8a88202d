//! One drain: what it waits for, and what happens at its deadlines.
//!
//! It ends exactly when the last exchange on the version ends (I11): data threads tell of each end while
//! somebody waits, nothing is polled. What is still there at a deadline is cut: plain requests at
//! `requests`, streams one after the other from `streams` on, evenly over `reconnect_spread`; see [`super::deadlines`].
//!
//! While clients may still come (those pinned by cookie for `sessions`, those of a process that goes for `linger`), the
//! deadlines above are those of what ran when the drain began; what began later gets the same times again from
//! then on, and the drain lasts at least until then.
//!
//! A request may have been routed by the old generation and be counted only after the drain looked. So
//! a drain that ended early stays at its post until the deadlines have passed, with nothing but a timer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::connections::{Connection, Connections, Cut, Exchange, Running};
use super::deadlines::Deadlines;
use super::kind::Kind;
use crate::config::model::Drain;
use crate::control::api::DrainStatus;
use crate::endpoints::VersionCore;
use crate::telemetry::{Event, Events, unix_ms};

/// What was cut may take this long to say goodbye; then the drain ends without it.
const GOODBYE: Duration = Duration::from_secs(5);
/// Further away than any deadline that matters.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

#[derive(Debug)]
pub(super) struct Draining {
    core: Arc<VersionCore>,
    policy: Drain,
    why: Why,
    began: Instant,
    since_ms: u64,
    /// Clients may come until then: pinned ones, or on connections that they have. `None`: no more.
    comers: watch::Sender<Option<Instant>>,
    /// Milliseconds since the Unix epoch from which the deadlines of the last ones count.
    last_from_ms: AtomicU64,
    cut: AtomicU64,
    /// Milliseconds since the Unix epoch, or 0.
    finished_ms: AtomicU64,
    /// Finished although something would not end.
    gave_up: AtomicBool,
}

/// Why a version is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It lost its place, for which others are told.
    LostPlace,
    /// The process goes, and has nothing left at `by`.
    ProcessGoes { by: Instant },
}

impl Why {
    fn how(self) -> Cut {
        match self {
            Why::LostPlace => Cut::DrainDeadline,
            Why::ProcessGoes { .. } => Cut::Shutdown,
        }
    }

    fn is_told(self) -> bool {
        self == Why::LostPlace
    }
}

/// At `at`, what is left of some exchanges is cut.
struct Deadline {
    at: Instant,
    /// When `times` began.
    from: Instant,
    times: Deadlines,
    requests: bool,
    streams: bool,
    whom: Whom,
}

enum Whom {
    /// What ran when the drain began.
    Those(Arc<[Running]>),
    /// Whatever runs on the version then.
    Everyone,
}

impl Draining {
    /// `comers`: clients may come for this long. `None`: no more.
    pub(super) fn new(core: Arc<VersionCore>, policy: Drain, why: Why, comers: Option<Duration>) -> Draining {
        let (began, since_ms) = (Instant::now(), unix_ms());
        let until = comers.map(|time| after(began, time));
        let last_from_ms = since_ms.saturating_add(comers.map_or(0, ms));
        Draining {
            core,
            policy,
            why,
            began,
            since_ms,
            comers: watch::Sender::new(until),
            last_from_ms: AtomicU64::new(last_from_ms),
            cut: AtomicU64::new(0),
            finished_ms: AtomicU64::new(0),
            gave_up: AtomicBool::new(false),
        }
    }

    pub(super) fn slot(&self) -> u32 {
        self.core.slot
    }

    pub(super) fn core(&self) -> &Arc<VersionCore> {
        &self.core
    }

    pub(super) fn policy(&self) -> &Drain {
        &self.policy
    }

    /// How many were ended at their deadlines so far.
    pub(super) fn cuts(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    /// The version is off now: nobody is sent there any more, pinned or not.
    pub(super) fn end_comers(&self) {
        self.comers.send_if_modified(|until| {
            let open = until.take().is_some();
            if open {
                self.last_from_ms.store(unix_ms(), Ordering::Relaxed);
            }
            open
        });
    }

    pub(super) fn finished_at(&self) -> Option<u64> {
        match self.finished_ms.load(Ordering::Relaxed) {
            0 => None,
            at => Some(at),
        }
    }

    /// The deadline of streams is when the first of them is cut.
    pub(super) fn status(&self) -> DrainStatus {
        let last_from = self.last_from_ms.load(Ordering::Relaxed);
        let until = |kind: Kind| {
            let time = if kind.is_stream() { self.policy.streams } else { self.policy.requests };
            (kind, last_from.saturating_add(ms(time)))
        };
        let remaining = self.remaining();
        let done = remaining.values().sum::<u64>() == 0 || self.gave_up.load(Ordering::Relaxed);
        DrainStatus {
            service: self.core.service.to_string(),
            version: self.core.name.to_string(),
            since: self.since_ms,
            remaining,
            deadline: Kind::ALL.into_iter().map(until).collect(),
            sessions_until: self.comers.borrow().map(|_| last_from),
            cut: self.cuts(),
            finished: done && self.finished_at().is_some(),
        }
    }

    pub(super) async fn run(self: Arc<Self>, connections: Arc<Connections>, events: Events) {
        let watching = self.core.in_flight.watch();
        let mut comers = self.comers.subscribe();
        let mut deadlines = Vec::new();
        let mut cuts: Vec<(Instant, Running)> = Vec::new();
        let mut last_set = false;
        let mut give_up = None;
        self.tell_started(&events);
        let some_come = comers.borrow().is_some();
        if some_come {
            let there = connections.running_on(self.core.slot).into();
            self.set_deadlines(&mut deadlines, self.began, || Whom::Those(Arc::clone(&there)));
        }
        loop {
            let ended = watching.ended();
            tokio::pin!(ended);
            // Before any count is read: an end in between is not missed.
            ended.as_mut().enable();
            let now = Instant::now();

            let open_until = *comers.borrow_and_update();
            if open_until.is_some_and(|until| until <= now) {
                match self.why {
                    Why::LostPlace => self.core.pins_ended.store(true, Ordering::Release),
                    // Who is pinned to it may be so in the process that serves.
                    Why::ProcessGoes { .. } => {}
                }
                self.end_comers();
            }
            let open_until = *comers.borrow_and_update();
            if open_until.is_none() && !last_set {
                // Where nobody came they count from the beginning, else from when nobody came any more.
                let from = if some_come { now } else { self.began };
                self.set_deadlines(&mut deadlines, from, || Whom::Everyone);
                last_set = true;
            }

            for deadline in deadlines.extract_if(.., |deadline| deadline.at <= now) {
                self.reached(&deadline, &connections, &mut cuts);
            }
            for (_, running) in cuts.extract_if(.., |(at, _)| *at <= now) {
                self.cut(&running);
            }

            let idle = self.core.in_flight.total() == 0;
            if open_until.is_none() {
                if idle && self.finished_at().is_none() {
                    self.finish(&events, false);
                }
                if deadlines.is_empty() && cuts.is_empty() {
                    let until = *give_up.get_or_insert(now + GOODBYE);
                    if idle || until <= now {
                        self.finish(&events, !idle);
                        return;
                    }
                }
            }

            let next = deadlines
                .iter()
                .map(|deadline| deadline.at)
                .chain(cuts.iter().map(|(at, _)| *at))
                .chain(open_until)
                .chain(give_up)
                .min()
                .unwrap_or(now + FAR);
            tokio::select! {
                () = ended => {}
                // The sender is in `self`: it cannot be closed.
                _ = comers.changed() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    fn set_deadlines(&self, deadlines: &mut Vec<Deadline>, from: Instant, whom: impl Fn() -> Whom) {
        let most = match self.why {
            Why::LostPlace => FAR,
            Why::ProcessGoes { by } => by.saturating_duration_since(from),
        };
        let times = Deadlines::within(&self.policy, most);
        let deadline = |at: Duration, requests, streams| {
            let at = after(from, at);
            Deadline { at, from, times, requests, streams, whom: whom() }
        };
        deadlines.push(deadline(times.requests, true, false));
        // A request that came too late for its own deadline goes with the streams.
        deadlines.push(deadline(times.streams, times.requests <= times.streams, true));
    }

    fn reached(&self, deadline: &Deadline, connections: &Connections, cuts: &mut Vec<(Instant, Running)>) {
        let left = match &deadline.whom {
            Whom::Those(there) => there.iter().filter_map(still_running).collect(),
            Whom::Everyone => connections.running_on(self.core.slot),
        };
        let (streams, requests): (Vec<_>, Vec<_>) = left.into_iter().partition(|left| left.exchange.kind().is_stream());
        if deadline.requests {
            for running in &requests {
                self.cut(running);
            }
        }
        if deadline.streams {
            let has_its_turn = turns(cuts);
            let streams: Vec<_> = streams.into_iter().filter(|running| !has_its_turn(running)).collect();
            let count = streams.len();
            for (nth, running) in streams.into_iter().enumerate() {
                cuts.push((deadline.from + deadline.times.stream(nth, count), running));
            }
        }
    }

    fn cut(&self, running: &Running) {
        if let Some(running) = still_running(running)
            && running.connection.is_cut().is_none()
        {
            // First: whoever sees the order finds it counted.
            self.cut.fetch_add(1, Ordering::Relaxed);
            running.connection.cut(running.exchange, self.why.how());
        }
    }

    fn remaining(&self) -> BTreeMap<Kind, u64> {
        Kind::ALL.into_iter().map(|kind| (kind, self.core.in_flight.count(kind))).collect()
    }

    fn tell_started(&self, events: &Events) {
        if !self.why.is_told() {
            return;
        }
        let (service, version) = (&self.core.service, &self.core.name);
        let DrainStatus { remaining, deadline, sessions_until, .. } = self.status();
        let count: u64 = remaining.values().sum();
        info!(%service, %version, in_flight = count, "drain started");
        events.emit(Event {
            kind: "drain_started",
            service: Some(service.to_string()),
            version: Some(version.to_string()),
            message: format!("{service} {version} is draining: {count} in flight"),
            data: json!({ "in_flight": remaining, "deadline": deadline, "sessions_until": sessions_until }),
        });
    }

    fn finish(&self, events: &Events, gave_up: bool) {
        let told = self.finished_at().is_some();
        self.gave_up.store(gave_up, Ordering::Relaxed);
        self.finished_ms.store(unix_ms().max(1), Ordering::Relaxed);
        if !self.why.is_told() || (told && !gave_up) {
            return;
        }
        let (service, version) = (&self.core.service, &self.core.name);
        let (cut, remaining) = (self.cuts(), self.remaining());
        let left: u64 = remaining.values().sum();
        let after_ms = ms(self.began.elapsed());
        if gave_up {
            warn!(%service, %version, cut, left, after_ms, "drain ended, but something would not end");
        } else {
            info!(%service, %version, cut, after_ms, "drain finished");
        }
        events.emit(Event {
            kind: "drain_finished",
            service: Some(service.to_string()),
            version: Some(version.to_string()),
            message: match (cut, left) {
                (0, 0) => format!("{service} {version} is drained: safe to stop"),
                (cut, 0) => format!("{service} {version} is drained: safe to stop; {cut} were cut at the deadline"),
                (cut, left) => format!("{service} {version}: {cut} were cut at the deadline, {left} would not end"),
            },
            data: json!({ "cut": cut, "remaining": remaining, "after_ms": after_ms }),
        });
    }
}

/// Whether an exchange is among those whose end is planned.
fn turns(planned: &[(Instant, Running)]) -> impl Fn(&Running) -> bool + use<> {
    let planned: HashMap<*const Connection, Exchange> =
        planned.iter().map(|(_, running)| (Arc::as_ptr(&running.connection), running.exchange)).collect();
    move |running| planned.get(&Arc::as_ptr(&running.connection)).is_some_and(|exchange| exchange.is(running.exchange))
}

/// As it is now, if it is still the same exchange.
fn still_running(seen: &Running) -> Option<Running> {
    let exchange = seen.connection.current();
    exchange.is(seen.exchange).then(|| Running { exchange, ..seen.clone() })
}

fn after(from: Instant, time: Duration) -> Instant {
    from + time.min(FAR)
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
