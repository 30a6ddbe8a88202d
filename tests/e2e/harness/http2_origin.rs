//! An endpoint that speaks HTTP/2 without TLS and can misbehave in its ways.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What it does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum H2Fault {
    None,
    /// The first stream of each connection is refused, unread.
    RefuseFirst,
    /// The connection goes away, with the last stream it took before this one.
    GoAwayBefore,
    /// Reads, never answers.
    Hang,
    /// RST_STREAM once the whole request is there.
    ResetUnanswered,
    /// RST_STREAM after the head of the answer.
    ResetAfterHead,
    /// 413 after the first bytes of the body, and no more of it is read (RFC 9113 section 8.1).
    AnswerEarly,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct H2Received {
    pub method: String,
    pub path: String,
    pub authority: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// It came to its end.
    pub complete: bool,
}

struct Shared {
    name: String,
    fault: Mutex<H2Fault>,
    received: Mutex<Vec<H2Received>>,
    connections: AtomicU64,
    /// Streams that were cancelled by the other side while they waited.
    cancelled: AtomicU64,
    /// Answers of `/open` get one more message each time.
    ticks: watch::Sender<u64>,
}

pub struct H2Origin {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl H2Origin {
    pub async fn start(name: &str, address: SocketAddr) -> H2Origin {
        let listener = TcpListener::bind(address).await.unwrap_or_else(|why| panic!("{address}: {why}"));
        let shared = Arc::new(Shared {
            name: name.into(),
            fault: Mutex::new(H2Fault::None),
            received: Mutex::default(),
            connections: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            ticks: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        H2Origin { address, shared, accepting }
    }

    pub fn set(&self, fault: H2Fault) {
        *self.shared.fault.lock().unwrap() = fault;
    }

    pub fn received(&self) -> Vec<H2Received> {
        self.shared.received.lock().unwrap().clone()
    }

    pub fn last(&self) -> H2Received {
        self.received().pop().expect("a request reached it")
    }

    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub fn cancelled(&self) -> u64 {
        self.shared.cancelled.load(Ordering::SeqCst)
    }

    pub fn tick(&self) {
        self.shared.ticks.send_modify(|ticks| *ticks += 1);
    }
}

impl Drop for H2Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Connections end with the origin.
    let mut running = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        running.spawn(connection(stream, shared.clone()));
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let Ok(mut h2) = h2::server::handshake(stream).await else { return };
    let mut running = tokio::task::JoinSet::new();
    let mut nth = 0;
    while let Some(Ok((request, mut respond))) = h2.accept().await {
        nth += 1;
        let fault = *shared.fault.lock().unwrap();
        match fault {
            H2Fault::RefuseFirst if nth == 1 => respond.send_reset(Reason::REFUSED_STREAM),
            H2Fault::GoAwayBefore => {
                // The library names the last stream it has seen; an earlier one needs a connection of its own.
                respond.send_reset(Reason::REFUSED_STREAM);
                h2.graceful_shutdown();
            }
            _ => drop(running.spawn(exchange(request, respond, fault, shared.clone()))),
        }
    }
}

/// | Path | Answer |
/// |---|---|
/// | `/open` | one message of gRPC at once, one more per tick, never an end |
/// | anything else | the body that came, or the path; with `grpc-status` of `x-status` in the trailers for gRPC |
async fn exchange(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, fault: H2Fault, shared: Arc<Shared>) {
    let (parts, mut body) = request.into_parts();
    let mut received = H2Received {
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map(|path| path.to_string()).unwrap_or_default(),
        authority: parts.uri.authority().map(|it| it.to_string()).unwrap_or_default(),
        headers: parts.headers,
        body: Vec::new(),
        trailers: None,
        complete: false,
    };
    if fault == H2Fault::AnswerEarly {
        let _ = body.data().await;
        let head = Response::builder().status(413).body(()).expect("a head");
        let Ok(mut out) = respond.send_response(head, false) else { return };
        // Once the answer is out, the library says that it reads no more: RST_STREAM with NO_ERROR.
        let _ = out.send_data(Bytes::from_static(b"too much"), true);
        return;
    }
    let mut whole = true;
    while let Some(data) = body.data().await {
        let Ok(data) = data else {
            whole = false;
            break;
        };
        let _ = body.flow_control().release_capacity(data.len());
        received.body.extend_from_slice(&data);
    }
    if whole {
        received.trailers = body.trailers().await.ok().flatten();
        received.complete = true;
    }
    let (path, sent) = (received.path.clone(), received.body.clone());
    let is_grpc = received.headers.get("content-type").is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
    let status = received.headers.get("x-status").cloned();
    shared.received.lock().unwrap().push(received);
    if fault == H2Fault::Hang {
        let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        shared.cancelled.fetch_add(1, Ordering::SeqCst);
        return;
    }
    if fault == H2Fault::ResetUnanswered {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return;
    }
    let mut head = Response::builder().status(200).header("x-origin", &shared.name);
    if is_grpc {
        head = head.header("content-type", "application/grpc");
    }
    let head = head.body(()).expect("a head");
    let Ok(mut out) = respond.send_response(head, false) else { return };
    if fault == H2Fault::ResetAfterHead {
        let _ = out.send_data(Bytes::from_static(b"half"), false);
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        out.send_reset(Reason::INTERNAL_ERROR);
        return;
    }
    if path == "/open" {
        let mut ticks = shared.ticks.subscribe();
        loop {
            if out.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), false).is_err() {
                return;
            }
            tokio::select! {
                _ = ticks.changed() => {}
                _ = std::future::poll_fn(|cx| out.poll_reset(cx)) => {
                    shared.cancelled.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
        }
    }
    let answer = if sent.is_empty() { path.into_bytes() } else { sent };
    let _ = out.send_data(Bytes::from(answer), !is_grpc);
    if is_grpc {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.unwrap_or(http::HeaderValue::from_static("0")));
        trailers.insert("x-checksum", http::HeaderValue::from_static("ok"));
        let _ = out.send_trailers(trailers);
    }
}
