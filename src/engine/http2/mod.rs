//! One HTTP/2 connection of a client: takes streams, runs each as an exchange of its own, and closes gracefully.
//!
//! The connection's task reads and writes for all streams; each stream is a task of its own on the same thread. A
//! stream ends alone: a drain, a deadline or a failed endpoint never touches its siblings. The connection ends when
//! it is idle for too long, when its listener or the process goes away (GOAWAY, and once more with the last stream
//! that was taken), or when the client floods it. RFC 9113 sections 5, 6.8 and 10.5.

mod io;
mod outgoing;
mod session;
mod stream;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{self, Connection, SendResponse};
use http::Request;
use pingora_core::protocols::http::v2::server::default_h2_options;

use self::io::{RawIo, Watch};
use self::stream::Place;
use super::connection::{self, Engine};
use super::headers;
use crate::config::model::Listener;
use crate::net::clock::{self, after};
use crate::net::{Link, Stage};
use crate::wire::body::BodyTracker;
use crate::wire::calm::Allowed;
use crate::wire::head::RequestBody;

/// Bytes of an answer that wait for a client that does not take them, for each stream.
const SEND_BUFFER: usize = 64 * 1024;
/// A connection's window, in windows of a stream.
const CONNECTION_WINDOWS: u32 = 4;
/// How long a client may take to close after the last stream of a connection that we want to end.
const CLOSING: Duration = Duration::from_secs(2);
/// Places for streams that a connection keeps for the next ones.
const PLACES_KEPT: usize = 4;

/// What the streams of one connection share.
pub struct Shared {
    link: Arc<Link>,
    watch: Rc<RefCell<Watch>>,
    active: Cell<usize>,
    idle_since: Cell<u64>,
    places: RefCell<Vec<Place>>,
}

impl Shared {
    fn place(&self, engine: &Engine) -> Place {
        let kept = self.places.borrow_mut().pop();
        kept.unwrap_or_else(|| Place::new(engine, &self.link))
    }

    /// A stream has ended. `answered`: not because of the client.
    fn over(&self, place: Place, answered: bool) {
        if answered {
            self.watch.borrow_mut().answered();
        }
        let mut places = self.places.borrow_mut();
        if places.len() < PLACES_KEPT && place.is_free() {
            places.push(place);
        }
    }
}

/// Counts one stream, for as long as it lives.
struct Active(Rc<Shared>);

impl Active {
    fn new(shared: &Rc<Shared>) -> Active {
        shared.active.set(shared.active.get() + 1);
        Active(shared.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let left = self.0.active.get() - 1;
        self.0.active.set(left);
        if left == 0 {
            self.0.idle_since.set(clock::now_ms());
            self.0.link.connection.wake();
        }
    }
}

/// Serves a connection whose first bytes are the preface of HTTP/2, to its end.
pub async fn serve(engine: &Rc<Engine>, link: &Arc<Link>, client: &Arc<headers::Client>) {
    link.begin(0, BodyTracker::new(RequestBody::None), false, connection::waits(link));
    let (options, allowed) = {
        let config = link.listener().config.load();
        (options(&config), Allowed { resets: config.http2.resets, control_frames: config.http2.control_frames })
    };
    let watch = Watch::new(allowed);
    let io = RawIo { link: link.clone(), watch: watch.clone() };
    let shared = Rc::new(Shared {
        link: link.clone(),
        watch,
        active: Cell::new(0),
        idle_since: Cell::new(clock::now_ms()),
        places: RefCell::default(),
    });
    let Some(h2) = handshake(engine, &shared, options.handshake(io)).await else { return };
    let mut driven = Driven { engine, client, shared, h2, leaving: Leaving::No };
    poll_fn(|cx| driven.poll(cx)).await;
    // Streams that are left learn that the client is gone.
    drop(driven);
    connection::linger(engine, link).await;
}

fn options(config: &Listener) -> server::Builder {
    let mut options = default_h2_options();
    options
        .max_header_list_size(config.limits.header_bytes as u32)
        .max_concurrent_streams(config.http2.streams)
        .initial_window_size(config.http2.window)
        .initial_connection_window_size(config.http2.window * CONNECTION_WINDOWS)
        .max_send_buffer_size(SEND_BUFFER);
    options
}

/// `None`: the preface or the first SETTINGS did not come, or were none.
async fn handshake(
    engine: &Engine,
    shared: &Shared,
    handshake: server::Handshake<RawIo, Bytes>,
) -> Option<Connection<RawIo, Bytes>> {
    let mut handshake = std::pin::pin!(handshake);
    let link = &shared.link;
    let until = clock::deadline_in(link.listener().config.load().timeouts.header);
    poll_fn(|cx| {
        link.connection.register(cx.waker());
        if let Poll::Ready(h2) = handshake.as_mut().poll(cx) {
            return Poll::Ready(h2.ok());
        }
        if until <= clock::now_ms() || engine.services.stage.get() >= Stage::CloseIdle {
            return Poll::Ready(None);
        }
        link.connection.wake_at(until);
        Poll::Pending
    })
    .await
}

/// How far a connection is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// The client was told to ask no more here; what it had asked before it knew is still taken.
    Told,
    /// Nothing more is taken. The connection closes once the client has been told so.
    Now {
        until: u64,
    },
}

struct Driven<'a> {
    engine: &'a Rc<Engine>,
    client: &'a Arc<headers::Client>,
    shared: Rc<Shared>,
    h2: Connection<RawIo, Bytes>,
    leaving: Leaving,
}

impl Driven<'_> {
    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let link = self.shared.link.clone();
        link.connection.register(cx.waker());
        loop {
            match self.h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => match self.next_step() {
                    // The library has something new to say.
                    Step::Poll => {}
                    Step::Wait(at) => {
                        link.connection.wake_at(at);
                        return Poll::Pending;
                    }
                    Step::Close => return Poll::Ready(()),
                },
            }
        }
    }

    fn begin(&mut self, request: Request<h2::RecvStream>, respond: SendResponse<Bytes>) {
        let active = Active::new(&self.shared);
        let stream = stream::serve(self.engine.clone(), self.shared.clone(), self.client.clone(), request, respond);
        tokio::task::spawn_local(async move {
            stream.await;
            drop(active);
        });
    }

    fn next_step(&mut self) -> Step {
        let (link, now) = (&self.shared.link, clock::now_ms());
        let config = link.listener().config.load();
        if link.write_deadline().is_some_and(|at| at <= now) {
            return Step::Close;
        }
        let owes_since = self.shared.watch.borrow().owes_since();
        let owes_until = if owes_since > 0 { after(owes_since, config.timeouts.header) } else { u64::MAX };
        let is_idle = self.shared.active.get() == 0;
        let idle_until = if is_idle { after(self.shared.idle_since.get(), config.timeouts.idle) } else { u64::MAX };
        let stage = self.engine.services.stage.get();
        match self.leaving {
            Leaving::Now { until } => {
                return if until <= now { Step::Close } else { Step::Wait(until) };
            }
            Leaving::No | Leaving::Told => {}
        }
        if self.shared.watch.borrow().flood().is_some() {
            return self.leave_now(Reason::ENHANCE_YOUR_CALM);
        }
        if owes_until <= now {
            return self.leave_now(Reason::ENHANCE_YOUR_CALM);
        }
        let ends = self.leaving == Leaving::Told && after(self.shared.idle_since.get(), CLOSING) <= now;
        if is_idle && (ends || stage >= Stage::CloseIdle) {
            return self.leave_now(Reason::NO_ERROR);
        }
        if self.leaving == Leaving::No && (idle_until <= now || stage >= Stage::LameDuck || link.is_listener_draining())
        {
            self.leaving = Leaving::Told;
            self.shared.idle_since.set(now);
            self.h2.graceful_shutdown();
            return Step::Poll;
        }
        let leaves_at = match self.leaving {
            Leaving::Told if is_idle => after(self.shared.idle_since.get(), CLOSING),
            _ => u64::MAX,
        };
        let next = [owes_until, idle_until, leaves_at, link.write_deadline().unwrap_or(u64::MAX)];
        let next = next.into_iter().filter(|at| *at > now).min().unwrap_or(u64::MAX);
        Step::Wait(if next == u64::MAX { 0 } else { next })
    }

    fn leave_now(&mut self, why: Reason) -> Step {
        self.leaving = Leaving::Now { until: clock::deadline_in(CLOSING) };
        self.h2.abrupt_shutdown(why);
        Step::Poll
    }
}

enum Step {
    Poll,
    /// Until then; 0: for whatever comes.
    Wait(u64),
    Close,
}
