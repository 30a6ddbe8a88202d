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
use super::io::Malformed;
use super::outgoing::Outgoing;
use super::session::{StreamSession, head_for_engine};
use crate::engine::app::Incoming;
use crate::engine::connection::{self, End, Engine};
use crate::engine::grpc::{self, Call};
use crate::engine::headers::Client;
use crate::engine::recall::Recall;
use crate::engine::respond;
use crate::engine::under_way::UnderWay;
use crate::net::{Fate, Link, clock};
use crate::sessions::connections::{Connection, Cut, Listed};
use crate::wire::head::{Refusal, RequestBody};
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
    let malformed = shared.watch.borrow().malformed();
    exchange(&engine, &place, client, request, malformed, &out).await;
    shared.over(place, out.is_ended());
}

async fn exchange(
    engine: &Rc<Engine>,
    place: &Place,
    client: Arc<Client>,
    request: Request<RecvStream>,
    malformed: Arc<Malformed>,
    out: &Outgoing,
) {
    let link = &place.link;
    let (parts, body) = request.into_parts();
    let grpc = Call::of(&parts.headers);
    let limits = connection::head_limits(&link.listener().config.load());
    let ended = body.is_end_stream();
    let head = match head2::check(&parts.method, &parts.uri, &parts.headers, ended, &limits) {
        Ok(head) => head,
        Err(Refusal { status, why }) => {
            connection::count_refusal(engine, link, status);
            answer(out, status, why, parts.method == http::Method::HEAD, grpc.is_some());
            return;
        }
    };
    link.begin_stream(head.body != RequestBody::None, head.expect_continue, connection::waits(link));
    let incoming =
        Incoming { link: link.clone(), client, upgrade: None, recall: place.recall.clone(), grpc: grpc.clone() };
    let session = StreamSession::new(head_for_engine(parts, head.host), body, malformed, out.clone(), link.clone());
    let session = ServerSession::new_custom(Box::new(session));
    let mut handled = engine.proxy.process_new_http(session, &engine.never);
    let mut under_way = UnderWay::new(engine, link, &place.recall, incoming);
    let mut answered_since = 0;
    let end = poll_fn(|cx| {
        link.connection.register(cx.waker());
        if under_way.poll(cx, handled.as_mut()).is_ready() {
            return Poll::Ready(End::Done(true));
        }
        if out.poll_left(cx).is_ready() {
            return Poll::Ready(End::Broken(Fate::ClientGone));
        }
        if let Some(fate) = under_way.fate(cx) {
            return Poll::Ready(End::Broken(fate));
        }
        if let Some(call) = grpc.as_ref().filter(|call| link.is_answered() && !call.is_stream()) {
            if answered_since == 0 {
                answered_since = clock::now_ms();
            }
            let stays_open = answered_since + grpc::STREAM_AFTER.as_millis() as u64;
            match stays_open <= clock::now_ms() {
                true => {
                    call.becomes_stream(link, link.connection.thread);
                    // The deadlines are others now.
                    link.connection.wake();
                }
                false => link.connection.wake_no_later_than(stays_open),
            }
        }
        Poll::Pending
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
            part(link, out, fate, head.is_head, grpc.is_some());
        }
    }
}

/// The last words to the client of an exchange that did not end by itself.
fn part(link: &Link, out: &Outgoing, fate: Fate, head_only: bool, is_grpc: bool) {
    if !out.is_begun() {
        match connection::last_answer(fate) {
            Some((status, why)) => answer(out, status, why, head_only, is_grpc),
            None => out.reset(Reason::CANCEL),
        }
        return;
    }
    let cut = match fate {
        Fate::Cut(Cut::DrainDeadline) => Some(response::Cut::Drain),
        Fate::Cut(Cut::Shutdown) => Some(response::Cut::Shutdown),
        Fate::Deadline(_) | Fate::ClientGone => None,
    };
    // Both fail only when the client has cancelled the stream meanwhile.
    match cut.and_then(|cut| link.farewell_of_payload(cut)).zip(connection::last_answer(fate)) {
        Some((_, (_, why))) if is_grpc => drop(out.trailers(grpc::farewell(why))),
        Some((farewell, _)) => drop(out.data(Bytes::from_static(farewell), true)),
        None => {}
    }
    out.reset(Reason::CANCEL);
}

/// An answer of our own to a request that the engine does not have.
fn answer(out: &Outgoing, status: u16, why: &str, head_only: bool, is_grpc: bool) {
    if is_grpc {
        if let Ok(head) = grpc::refusal(status, why) {
            // Fails only when the client has cancelled the stream meanwhile.
            let _ = out.head(Response::from_parts(head.as_owned_parts(), ()), true);
        }
        return;
    }
    let Ok(respond::Answer { head, body }) = respond::local(status, why, (status == 503).then_some(1)) else { return };
    let head_only = head_only || body.is_empty();
    let response = Response::from_parts(head.as_owned_parts(), ());
    // Both fail only when the client has cancelled the stream meanwhile.
    if out.head(response, head_only).is_ok() && !head_only {
        let _ = out.data(body, true);
    }
}
