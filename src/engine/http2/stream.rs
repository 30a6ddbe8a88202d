//! One stream from its head to its end: an exchange of its own, with its own deadlines, its own entry among what
//! runs on a version, and an end that touches no other stream of the connection.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;

use super::Shared;
use super::outgoing::Outgoing;
use super::session::{StreamSession, head_for_engine};
use crate::engine::app::{Incoming, with_incoming};
use crate::engine::connection::{self, End, Engine};
use crate::engine::headers::Client;
use crate::engine::recall::{Called, Cause, Recall};
use crate::engine::respond;
use crate::net::{Fate, Link};
use crate::sessions::connections::{Connection, Cut, Listed};
use crate::wire::head::{HeadLimits, Refusal, RequestBody};
use crate::wire::{head2, response};

/// What a stream needs beside its request; used again by the next one.
pub struct Place {
    link: Arc<Link>,
    recall: Arc<Recall>,
    listed: Listed,
}

impl Place {
    pub fn new(engine: &Engine, of: &Link) -> Place {
        let connection = Arc::new(Connection::carried(of.connection.thread, of.connection.listener.clone()));
        let listed = engine.services.connections.add(connection.clone());
        Place { link: Link::of_stream(of, connection), recall: Arc::default(), listed }
    }

    /// Nobody else looks at it any more.
    pub fn is_free(&self) -> bool {
        Arc::strong_count(&self.link) == 1 && Arc::strong_count(&self.listed.connection) <= 3
    }
}

/// Serves one request. Whatever happens, only this stream ends.
pub async fn serve(
    engine: Rc<Engine>,
    shared: Rc<Shared>,
    client: Arc<Client>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let place = shared.place(&engine);
    let out = Outgoing::new(respond);
    exchange(&engine, &place, client, request, &out).await;
    shared.over(place, out.is_ended());
}

async fn exchange(
    engine: &Rc<Engine>,
    place: &Place,
    client: Arc<Client>,
    request: Request<RecvStream>,
    out: &Outgoing,
) {
    let link = &place.link;
    let (parts, body) = request.into_parts();
    let limits = {
        let limits = &link.listener().config.load().limits;
        HeadLimits { bytes: limits.header_bytes, fields: limits.header_fields, target_bytes: limits.target_bytes }
    };
    let ended = body.is_end_stream();
    let head = match head2::check(&parts.method, &parts.uri, &parts.headers, ended, &limits) {
        Ok(head) => head,
        Err(Refusal { status, why }) => {
            connection::count_refusal(engine, link, status);
            answer(out, status, why, parts.method == http::Method::HEAD);
            return;
        }
    };
    link.begin_stream(head.body != RequestBody::None, head.expect_continue, connection::waits(link));
    let incoming = Incoming { link: link.clone(), client, upgrade: None, recall: place.recall.clone() };
    let session = StreamSession::new(head_for_engine(parts, head.host), body, out.clone(), link.clone());
    let session = ServerSession::new_custom(Box::new(session));
    let mut handled = engine.proxy.process_new_http(session, &engine.never);
    let mut begun = false;
    let mut stopping_since = 0;
    let mut may_recall = true;
    let end = poll_fn(|cx| {
        link.connection.register(cx.waker());
        let polled = match begun {
            true => handled.as_mut().poll(cx),
            false => {
                let polled;
                (polled, begun) = with_incoming(&incoming, || handled.as_mut().poll(cx));
                polled
            }
        };
        if polled.is_ready() {
            return Poll::Ready(End::Done(true));
        }
        if out.poll_left(cx).is_ready() {
            return Poll::Ready(End::Broken(Fate::ClientGone));
        }
        if may_recall && link.connection.is_recalled() {
            // While there is no connection to the endpoint yet, the next poll asks again.
            may_recall = place.recall.call(link, Cause::Withdrawn) == Called::NothingWaits;
        }
        loop {
            let Ok(deadline) = link.after_poll(cx) else {
                return Poll::Ready(End::Broken(Fate::ClientGone));
            };
            match connection::interrupted(engine, link, deadline, &mut stopping_since) {
                Some(Fate::Deadline(deadline)) if place.recall.is_put_off(link, deadline) => {}
                Some(fate) => return Poll::Ready(End::Broken(fate)),
                None => return Poll::Pending,
            }
        }
    })
    .await;
    link.connection.wake_at(0);
    match end {
        // What the engine has not ended it has given up.
        End::Done(_) => out.reset(if out.is_begun() { Reason::INTERNAL_ERROR } else { Reason::CANCEL }),
        End::Broken(fate) => {
            link.set_fate(fate);
            // Accounts for the request, and lets go of the endpoint.
            drop(handled);
            part(link, out, fate, head.is_head);
        }
    }
}

/// The last words to the client of an exchange that did not end by itself.
fn part(link: &Link, out: &Outgoing, fate: Fate, head_only: bool) {
    if !out.is_begun() {
        match connection::last_answer(fate) {
            Some((status, why)) => answer(out, status, why, head_only),
            None => out.reset(Reason::CANCEL),
        }
        return;
    }
    let cut = match fate {
        Fate::Cut(Cut::DrainDeadline) => Some(response::Cut::Drain),
        Fate::Cut(Cut::Shutdown) => Some(response::Cut::Shutdown),
        Fate::Deadline(_) | Fate::ClientGone => None,
    };
    if let Some(farewell) = cut.and_then(|cut| link.farewell_of_payload(cut)) {
        let _ = out.data(Bytes::from_static(farewell), true);
    }
    out.reset(Reason::CANCEL);
}

/// An answer of our own to a request that the engine does not have.
fn answer(out: &Outgoing, status: u16, why: &str, head_only: bool) {
    let Ok(respond::Answer { head, body }) = respond::local(status, why, (status == 503).then_some(1)) else { return };
    let head_only = head_only || body.is_empty();
    let response = Response::from_parts(head.as_owned_parts(), ());
    // Both fail only when the client has cancelled the stream meanwhile.
    if out.head(response, head_only).is_ok() && !head_only {
        let _ = out.data(body, true);
    }
}
