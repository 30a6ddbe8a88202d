//! One client connection from accept to close: wait for a complete head, let the engine handle that one
//! request, repeat. Between requests there is a socket and a small task, and no buffer.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use pingora_core::apps::{HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;

use super::app::{App, Incoming};
use super::dialer::Dialer;
use super::headers;
use super::http2;
use super::recall::Recall;
use super::respond;
use super::services::Services;
use super::under_way::UnderWay;
use crate::config::model::Listener;
use crate::config::model::tls::Alpn;
use crate::net::{Deadline, EngineIo, Fate, Link, Stage, Waits, clock};
use crate::sessions::connections::Cut;
use crate::wire::body::BodyTracker;
use crate::wire::frames::{self, Begins};
use crate::wire::head::{self, Head, HeadLimits, Parsed, RequestBody};
use crate::wire::response;

/// How long a client may take to notice that we are done: reading what it still sends keeps the kernel
/// from resetting the connection and destroying the answer on its way.
const LINGER: Duration = Duration::from_secs(2);
/// Whoever has just connected is about to ask: such a connection is not idle yet, whatever `linger` says of idle ones.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
const LINGER_AT_THE_END: Duration = Duration::from_millis(250);

/// What a data thread handles requests with.
pub struct Engine {
    pub proxy: Arc<HttpProxy<App, Dialer>>,
    pub services: Arc<Services>,
    /// Never true: this proxy closes connections itself.
    pub never: watch::Receiver<bool>,
}

enum Next {
    Head(Head),
    /// The connection speaks HTTP/2.
    Http2,
    /// Nothing to answer: the client is gone, was idle for too long, or everything closes.
    Close,
    Refuse {
        status: u16,
        why: &'static str,
        head_only: bool,
    },
}

pub(super) enum End {
    /// The engine is done; whether the connection may serve another request.
    Done(bool),
    /// A deadline, a cut, or the client's disappearance ended it.
    Broken(Fate),
}

/// Serves a connection to its end.
pub async fn serve(engine: &Rc<Engine>, link: &Arc<Link>) {
    let client = Arc::new(headers::Client::new(link.client.ip(), link.local.port()));
    if link.secure.as_ref().is_some_and(|secured| secured.alpn == Some(Alpn::H2)) {
        // Large, and an HTTP/1 connection that does nothing is to be small.
        return Box::pin(http2::serve(engine, link, &client)).await;
    }
    let recall = Arc::new(Recall::default());
    let mut is_first = true;
    loop {
        let next = next_head(engine, link, std::mem::take(&mut is_first)).await;
        let keep = match next {
            Next::Http2 => return Box::pin(http2::serve(engine, link, &client)).await,
            Next::Head(head) => {
                let incoming = Incoming {
                    link: link.clone(),
                    client: client.clone(),
                    upgrade: head.upgrade,
                    recall: recall.clone(),
                    grpc: None,
                };
                exchange(engine, link, &recall, incoming, &head).await
            }
            Next::Close => return,
            Next::Refuse { status, why, head_only } => {
                count_refusal(engine, link, status);
                link.begin(0, BodyTracker::new(RequestBody::None), false, waits(link));
                link.push(&respond::raw(status, why, true, head_only));
                false
            }
        };
        if !sent(link).await {
            // What a client does not read would stay with the kernel for minutes after an ordinary close.
            link.reset();
            return;
        }
        if !keep {
            if !link.reset_if_truncated() {
                linger(engine, link).await;
            }
            return;
        }
    }
}

pub(super) fn head_limits(config: &Listener) -> HeadLimits {
    let limits = &config.limits;
    HeadLimits { bytes: limits.header_bytes, fields: limits.header_fields, target_bytes: limits.target_bytes }
}

/// Waits for the next request on an idle connection, until its head is complete.
async fn next_head(engine: &Engine, link: &Arc<Link>, is_first: bool) -> Next {
    let (limits, idle, header, may_begin_http2) = {
        let config = link.listener().config.load();
        // With TLS the handshake has said what is spoken.
        let may_begin_http2 = is_first && link.secure.is_none() && config.http2.prior_knowledge;
        (head_limits(&config), config.timeouts.idle, config.timeouts.header, may_begin_http2)
    };
    // One byte more than a head may have, so that too much can be told from not yet enough.
    let room = limits.bytes + 1;
    let idle_until = clock::deadline_in(idle);
    let expected_until = if is_first { clock::deadline_in(FIRST_REQUEST) } else { 0 };
    let mut head_until = 0;
    let mut scanned = 0;
    poll_fn(|cx| {
        link.connection.register(cx.waker());
        loop {
            let begins = link.with_input(|input| match input {
                b"" => None,
                input if may_begin_http2 => Some(frames::begins(input)),
                _ => Some(Begins::Otherwise),
            });
            let parsed = match begins {
                None => None,
                Some(Begins::WithPreface) => return Poll::Ready(Next::Http2),
                Some(Begins::Unclear) => Some(Parsed::Incomplete { scanned: 0 }),
                Some(Begins::Otherwise) => link.with_input(|input| Some(head::parse(input, scanned, &limits))),
            };
            match parsed {
                Some(Parsed::Complete(head)) => {
                    // The engine takes no absolute target; the same request without one is parsed instead.
                    let plain = link.with_input(|input| head::origin_form(&head, &input[head.skip..][..head.len]));
                    let Some(plain) = plain else { return Poll::Ready(Next::Head(head)) };
                    link.replace_front(head.skip + head.len, &plain);
                    scanned = 0;
                    continue;
                }
                Some(Parsed::Refused(refusal)) => {
                    let (status, why) = (refusal.status, refusal.why);
                    return Poll::Ready(Next::Refuse { status, why, head_only: false });
                }
                Some(Parsed::Incomplete { scanned: so_far }) => {
                    scanned = so_far;
                    if head_until == 0 {
                        head_until = clock::deadline_in(header);
                    }
                }
                None => {}
            }
            // What has arrived is read before anything is decided: a request in the kernel's buffer counts.
            match link.poll_receive(cx, room) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Close),
                Poll::Ready(Ok(_)) => continue,
                Poll::Pending => {}
            }
            let stage = engine.services.stage.get();
            let is_idle = head_until == 0;
            let is_expected = expected_until > clock::now_ms();
            if stage == Stage::Cut || (is_idle && stage == Stage::CloseIdle && !is_expected) {
                return Poll::Ready(Next::Close);
            }
            let deadline = match (is_idle, stage) {
                (true, Stage::CloseIdle) => expected_until.min(idle_until),
                (true, _) => idle_until,
                (false, _) => head_until,
            };
            if deadline <= clock::now_ms() {
                return Poll::Ready(match is_idle {
                    true => Next::Close,
                    false => {
                        Next::Refuse { status: 408, why: "the request head did not arrive in time", head_only: false }
                    }
                });
            }
            link.connection.wake_at(deadline);
            return Poll::Pending;
        }
    })
    .await
}

/// Lets the engine handle one request. `true`: the connection may serve another.
async fn exchange(engine: &Engine, link: &Arc<Link>, recall: &Recall, incoming: Incoming, head: &Head) -> bool {
    link.skip(head.skip);
    link.begin(head.len, BodyTracker::new(head.body), head.expect_continue, waits(link));
    let mut handled = handle(engine, link);
    let mut under_way = UnderWay::new(engine, link, recall, incoming);
    let end = poll_fn(|cx| {
        link.connection.register(cx.waker());
        match under_way.poll(cx, handled.as_mut()) {
            Poll::Ready(reusable) => Poll::Ready(End::Done(reusable.is_some())),
            Poll::Pending => under_way.fate(cx).map_or(Poll::Pending, |fate| Poll::Ready(End::Broken(fate))),
        }
    })
    .await;
    match end {
        End::Done(keep) => keep && link.request_complete(),
        End::Broken(fate) => {
            link.set_fate(fate);
            // Accounts for the request, and closes the connection to the endpoint.
            drop(handled);
            part(link, fate, head.is_head);
            false
        }
    }
}

type Handled<'a> = Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'a>>;

/// The engine's work on one request. Not an `async fn`: the session would have a place in the task of every connection.
fn handle<'a>(engine: &'a Engine, link: &Arc<Link>) -> Handled<'a> {
    let mut session = ServerSession::new_http1(Box::new(EngineIo(link.clone())));
    // Lives until the client's wish is known; idle time between requests is this module's.
    session.set_keepalive(Some(0));
    engine.proxy.process_new_http(session, &engine.never)
}

/// The last words to the client of an exchange that did not end by itself.
fn part(link: &Link, fate: Fate, head_only: bool) {
    if fate == Fate::Deadline(Deadline::Write) {
        // An ordinary close would leave what it does not read with the kernel, for minutes.
        link.set_truncated();
    }
    if !link.is_answered() {
        if let Some((status, why)) = last_answer(fate) {
            link.push(&respond::raw(status, why, true, head_only));
        }
        return;
    }
    let cut = match fate {
        Fate::Cut(Cut::DrainDeadline) => response::Cut::Drain,
        Fate::Cut(Cut::Shutdown) => response::Cut::Shutdown,
        // A tunnel that fell silent is closed as if both sides were going away.
        Fate::Deadline(Deadline::Silence) => response::Cut::Shutdown,
        Fate::Deadline(Deadline::Body | Deadline::Write | Deadline::Response | Deadline::Attempt | Deadline::Total)
        | Fate::ClientGone => {
            return;
        }
    };
    link.push(link.farewell(cut));
}

/// What a client is answered whose exchange ended like that before an answer began.
pub(super) fn last_answer(fate: Fate) -> Option<(u16, &'static str)> {
    Some(match fate {
        Fate::ClientGone | Fate::Deadline(Deadline::Write) => return None,
        Fate::Deadline(Deadline::Body) => (408, "the request body did not arrive in time"),
        Fate::Deadline(Deadline::Response | Deadline::Attempt | Deadline::Silence | Deadline::Total) => {
            (504, "the endpoint did not answer in time")
        }
        Fate::Cut(Cut::DrainDeadline) => (503, "the version is being taken out of service, try again"),
        Fate::Cut(Cut::Shutdown) => (503, "the proxy is shutting down, try again"),
    })
}

/// Sends what is left. `false`: the client does not take it.
async fn sent(link: &Link) -> bool {
    poll_fn(|cx| {
        link.connection.register(cx.waker());
        if let Poll::Ready(result) = link.poll_send(cx) {
            return Poll::Ready(result.is_ok());
        }
        match link.write_deadline() {
            Some(at) if at <= clock::now_ms() => Poll::Ready(false),
            Some(at) => {
                link.connection.wake_at(at);
                Poll::Pending
            }
            None => Poll::Pending,
        }
    })
    .await
}

/// Closes our side and reads on for a while. RFC 9112 section 9.6.
pub(super) async fn linger(engine: &Engine, link: &Link) {
    let begun = clock::now_ms();
    poll_fn(|cx| {
        link.connection.register(cx.waker());
        // A process that wants to end does not wait for a client that does not.
        let most = if engine.services.stage.get() >= Stage::CloseIdle { LINGER_AT_THE_END } else { LINGER };
        let until = begun + most.as_millis() as u64;
        if ready!(link.poll_close_write(cx)).is_err() {
            return Poll::Ready(());
        }
        while clock::now_ms() < until {
            link.connection.wake_at(until);
            if !ready!(link.poll_discard(cx)) {
                break;
            }
        }
        Poll::Ready(())
    })
    .await;
}

pub(super) fn waits(link: &Link) -> Waits {
    let config = link.listener().config.load();
    Waits {
        body: Some(config.timeouts.body),
        write: Some(config.timeouts.write),
        silence: None,
        body_rate: config.policy.min_body_rate,
        send_rate: config.policy.min_send_rate,
    }
}

/// Refused before the engine saw it: counted without a route.
pub(super) fn count_refusal(engine: &Engine, link: &Link, status: u16) {
    if link.listener().is_trial() {
        return;
    }
    let snapshot = engine.services.live.pointer().load();
    snapshot.codes.codes(&snapshot.generation, None, None).count(link.connection.thread, status);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function gives for such arguments.
    fn size_of_future<F: Future>(_: impl FnOnce(&'static Rc<Engine>, &'static Arc<Link>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_connection_has_no_room_for_what_an_idle_one_does_not_need() {
        let bytes = size_of_future(serve);
        assert!(bytes <= 1024, "{bytes} bytes for each connection, whatever it does");
    }
}
