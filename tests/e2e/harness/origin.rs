//! A server of one version, inside the test: its identity is in every answer, every byte it receives is
//! kept, and it can misbehave in any way at any moment.

use std::collections::HashMap;
use std::io::ErrorKind::ConnectionRefused;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::serve;
use super::wire::{Headers, field, fields, split_head};

/// What an origin does with a request. Anything but [`Fault::None`] overrides what the path asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    None,
    Status(u16),
    /// Every so many requests, this status.
    StatusEvery(u64, u16),
    /// Accepts, reads, never answers.
    Hang,
    /// Answers properly, but only after this time.
    Late(Duration),
    /// Answers properly, but only after the next [`Origin::tick`].
    Held,
    /// Reads the whole request, then closes without a byte.
    CloseUnanswered,
    /// Reads the whole request, then resets the connection.
    Reset,
    /// Reads this much of the request's body, then resets the connection: the request was not executed.
    DieInBody(u64),
    /// Sends half of the promised body, then closes.
    CutBody,
    /// Sends half of the promised body, then resets.
    ResetBody,
    /// Sends half of the promised body, then nothing more.
    StallBody,
    /// Sends the head one byte at a time, at this interval.
    DribbleHead(Duration),
    /// Answers with these bytes and closes.
    Bytes(Vec<u8>),
    /// Answers with these bytes and keeps the connection.
    BytesKeep(Vec<u8>),
    /// Serves this many requests on a connection; the next one is read whole and the connection closed.
    CloseUnansweredAfter(u32),
    /// Answers at once, without reading the body, and closes.
    EarlyAnswer(u16),
    /// 103 Early Hints before the answer.
    EarlyHints,
}

/// A request as it reached the origin.
#[derive(Debug, Clone)]
pub struct Received {
    pub connection: u64,
    /// Nth request on its connection, from 1.
    pub nth: u32,
    pub line: String,
    pub headers: Headers,
    /// The first 64 KiB of the decoded body.
    pub body: Vec<u8>,
    pub body_bytes: u64,
    /// The body arrived to its end.
    pub complete: bool,
}

impl Received {
    pub fn new(connection: u64, nth: u32, head: &[u8]) -> Received {
        let (line, headers) = split_head(head);
        Received { connection, nth, line, headers, body: Vec::new(), body_bytes: 0, complete: false }
    }
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.headers, name)
    }
    pub fn fields(&self, name: &str) -> Vec<&str> {
        fields(&self.headers, name)
    }
    pub fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or("")
    }
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or("")
    }
}

/// What the accept loop and the connections share with the test.
pub struct Shared {
    pub name: String,
    /// Differs for every process that ever stood at this address.
    pub instance: String,
    pub fault: Mutex<Fault>,
    pub health: Mutex<u16>,
    /// Idle keep-alive connections are closed after this.
    pub idle: Mutex<Option<(Duration, Abort)>>,
    pub received: Mutex<Vec<Received>>,
    /// Keep what is received; loads turn it off.
    pub recording: std::sync::atomic::AtomicBool,
    pub requests: AtomicU64,
    pub connections: AtomicU64,
    pub open: AtomicU64,
    /// Sent on each `/sse` stream when bumped: one more event.
    pub ticks: watch::Sender<u64>,
    /// Fields added to every answer.
    pub extra: Mutex<String>,
    /// By path: how often it was executed.
    pub executed: Mutex<HashMap<String, u32>>,
}

/// How a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// FIN.
    Close,
    /// RST.
    Reset,
}

pub struct Origin {
    pub address: SocketAddr,
    pub shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
}

impl Origin {
    pub async fn start(name: &str, address: SocketAddr) -> Origin {
        Origin::instance(name, "1", address).await
    }

    /// As [`Origin::start`] with another identity of the process.
    pub async fn instance(name: &str, instance: &str, address: SocketAddr) -> Origin {
        let shared = Shared {
            name: name.into(),
            instance: instance.into(),
            fault: Mutex::new(Fault::None),
            health: Mutex::new(200),
            idle: Mutex::new(None),
            received: Mutex::default(),
            recording: true.into(),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            ticks: watch::Sender::new(0),
            extra: Mutex::default(),
            executed: Mutex::default(),
        };
        let (stop, _) = watch::channel(false);
        let listener = TcpListener::bind(address).await.unwrap_or_else(|why| panic!("{address}: {why}"));
        let address = listener.local_addr().expect("a bound socket has an address");
        let origin = Origin { address, shared: Arc::new(shared), accepting: Mutex::default(), stop };
        origin.accept_on(listener);
        origin
    }

    fn accept_on(&self, listener: TcpListener) {
        let task = tokio::spawn(serve::accept(listener, self.shared.clone(), self.stop.subscribe()));
        *self.accepting.lock().unwrap() = Some(task);
    }

    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = fault;
    }

    /// Status of `/healthz`.
    pub fn set_health(&self, status: u16) {
        *self.shared.health.lock().unwrap() = status;
    }

    pub fn close_idle_after(&self, idle: Duration, how: Abort) {
        *self.shared.idle.lock().unwrap() = Some((idle, how));
    }

    /// Adds complete header lines (each ending in CRLF) to every answer.
    pub fn add_headers(&self, lines: &str) {
        *self.shared.extra.lock().unwrap() = lines.into();
    }

    /// Connections are refused from now on; those that exist stay.
    pub async fn refuse(&self) {
        let task = self.accepting.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
            // Another test that starts a process has every descriptor twice, the listening socket too, until the
            // program is loaded.
            super::until("nobody listens", || async {
                tokio::net::TcpStream::connect(self.address).await.is_err_and(|why| why.kind() == ConnectionRefused)
            })
            .await;
        }
    }

    /// Accepts again after [`Origin::refuse`].
    pub async fn reopen(&self) {
        let listener = TcpListener::bind(self.address).await.unwrap_or_else(|why| panic!("{}: {why}", self.address));
        self.accept_on(listener);
    }

    /// As if the process had ended: nothing listens, every connection is closed.
    pub async fn stop(&self) {
        self.refuse().await;
        self.stop.send_replace(true);
        super::until("the origin's connections are closed", || async { self.open() == 0 }).await;
    }

    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// The last request, which must exist.
    pub fn last(&self) -> Received {
        self.received().pop().unwrap_or_else(|| panic!("nothing reached origin {}", self.shared.name))
    }

    pub fn forget(&self) {
        self.shared.received.lock().unwrap().clear();
    }

    /// Counts only; nothing is kept.
    pub fn stop_recording(&self) {
        self.shared.recording.store(false, Ordering::Relaxed);
    }

    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::SeqCst)
    }
    /// How often the request of that path ran here.
    pub fn executed(&self, path: &str) -> u32 {
        self.shared.executed.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    /// One more event on every open `/sse` stream.
    pub fn tick(&self) {
        self.shared.ticks.send_modify(|ticks| *ticks += 1);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(task) = self.accepting.lock().unwrap().take() {
            task.abort();
        }
    }
}
