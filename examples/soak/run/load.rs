//! Clients of eight kinds that never retry. What succeeds is counted; what fails is kept with its times.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::excuse::Broken;
use crate::harness::client::{Outcome, Raw, Seen};
use crate::harness::tls::TlsKind;
use crate::harness::{Client, SseEnd, WsClient, WsEnd};

/// A stream is left by its client after this long, and another begins. A replaced endpoint keeps its streams until then.
const STREAM: Duration = Duration::from_secs(2);
/// How long an event may be late before the stream counts as dead.
const SILENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct Failure {
    pub kind: &'static str,
    pub broken: Broken,
    pub what: String,
}

#[derive(Debug, Default)]
pub struct Tally {
    /// By kind: exchanges that went well.
    pub fine: BTreeMap<&'static str, u64>,
    pub failures: Vec<Failure>,
}

#[derive(Clone)]
struct Book {
    seen: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
}

pub struct Load {
    book: Book,
    clients: JoinSet<()>,
}

impl Load {
    pub fn start(address: SocketAddr, secure: SocketAddr, clients: usize) -> Load {
        let book = Book { seen: Arc::default(), stop: Arc::default() };
        let mut all = JoinSet::new();
        for nth in 0..clients {
            let think = Duration::from_millis([2, 5, 20, 50][nth % 4]);
            all.spawn(keep_alive(address, book.clone(), think));
        }
        for _ in 0..clients.div_ceil(4) {
            all.spawn(fresh(address, book.clone()));
            all.spawn(slow_answer(address, book.clone()));
            all.spawn(slow_body(address, book.clone()));
            all.spawn(events(address, book.clone()));
            all.spawn(web_socket(address, book.clone()));
            all.spawn(encrypted(secure, book.clone()));
        }
        for _ in 0..clients.div_ceil(2) {
            all.spawn(bodies(address, book.clone()));
        }
        Load { book, clients: all }
    }

    pub async fn stop(mut self) -> Tally {
        self.book.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client does not panic");
        }
        std::mem::take(&mut *self.book.seen.lock().expect("no client panics"))
    }
}

impl Book {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn fine(&self, kind: &'static str) {
        *self.seen.lock().expect("no client panics").fine.entry(kind).or_default() += 1;
    }

    fn failed(&self, kind: &'static str, begin: Instant, refused: bool, what: String) {
        self.failed_on(kind, begin, refused, None, what);
    }

    fn failed_on(&self, kind: &'static str, begin: Instant, refused: bool, kept_since: Option<Instant>, what: String) {
        let broken = Broken { begin, end: Instant::now(), refused, kept_since };
        self.seen.lock().expect("no client panics").failures.push(Failure { kind, broken, what });
    }

    /// A whole answer with 200 and, if it is known, this body.
    fn judge(&self, kind: &'static str, seen: &Seen, body: Option<&[u8]>) {
        self.judge_kept(kind, seen, body, &mut Instant::now());
    }

    /// The same. `asked`: when the client began the exchange before, on the same connection if that was kept.
    fn judge_kept(&self, kind: &'static str, seen: &Seen, body: Option<&[u8]>, asked: &mut Instant) {
        let kept_since = seen.reused.then_some(*asked);
        *asked = seen.started;
        let right = body.is_none_or(|body| seen.body == body);
        if seen.outcome == Outcome::Ok && seen.status == 200 && right {
            return self.fine(kind);
        }
        let refused = matches!(seen.outcome, Outcome::NotConnected(_));
        let wrong = if right { "" } else { ", not the body that was sent" };
        let what = format!("{:?} {}{wrong} after {:?}", seen.outcome, seen.status, seen.took);
        self.failed_on(kind, seen.started, refused, kept_since, what);
    }
}

async fn keep_alive(address: SocketAddr, book: Book, think: Duration) {
    let (mut client, mut asked) = (Client::new(address), Instant::now());
    while book.goes_on() {
        book.judge_kept("keep-alive GET", &client.get("/").await, None, &mut asked);
        tokio::time::sleep(think).await;
    }
}

async fn fresh(address: SocketAddr, book: Book) {
    let mut client = Client::new(address);
    while book.goes_on() {
        book.judge("fresh GET", &client.get("/").await, None);
        client.hang_up();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn bodies(address: SocketAddr, book: Book) {
    let (mut client, mut asked) = (Client::new(address), Instant::now());
    let mut nth = 0u64;
    while book.goes_on() {
        nth += 1;
        // From nothing to 48 KiB, each different.
        let length = (nth * 7919) % (48 * 1024);
        let body: Vec<u8> = (0..length).map(|at| (at + nth) as u8).collect();
        book.judge_kept("POST with a body", &client.post("/echo", &body).await, Some(&body), &mut asked);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn slow_answer(address: SocketAddr, book: Book) {
    let (mut client, mut asked) = (Client::new(address), Instant::now());
    while book.goes_on() {
        book.judge_kept("slow answer", &client.get("/slow/300").await, None, &mut asked);
    }
}

/// A client that sends its body in pieces.
async fn slow_body(address: SocketAddr, book: Book) {
    let kind = "slow body";
    while book.goes_on() {
        let begin = Instant::now();
        let mut raw = match Raw::connect(address).await {
            Ok(raw) => raw,
            Err(why) => {
                book.failed(kind, begin, true, why.to_string());
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let mut written = raw.write(b"POST /echo HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 10\r\n\r\n").await;
        for piece in [b"01", b"23", b"45", b"67", b"89"] {
            tokio::time::sleep(Duration::from_millis(60)).await;
            written = written.and(raw.write(piece).await);
        }
        // An answer that came all the same counts, whatever became of the rest of the body.
        drop(written);
        book.judge(kind, &raw.answer_to("POST", begin).await, Some(b"0123456789"));
    }
}

async fn events(address: SocketAddr, book: Book) {
    let kind = "event stream";
    while book.goes_on() {
        let begin = Instant::now();
        let opened = async {
            let mut raw = Raw::connect(address).await.map_err(|why| (true, why.to_string()))?;
            let head = b"GET /sse-timed HTTP/1.1\r\nhost: shop.test\r\naccept: text/event-stream\r\n\r\n";
            // What is wrong with it shows in the answer.
            let _ = raw.write(head).await;
            match tokio::time::timeout(SILENCE, raw.head()).await {
                Ok(Ok((200, _))) => Ok(raw),
                Ok(other) => Err((false, format!("{other:?}"))),
                Err(_) => Err((false, "no head".to_string())),
            }
        };
        let mut raw = match opened.await {
            Ok(raw) => raw,
            Err((refused, what)) => {
                book.failed(kind, begin, refused, what);
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let end = loop {
            if !book.goes_on() || begin.elapsed() > STREAM {
                break None;
            }
            match tokio::time::timeout(SILENCE, raw.reader.chunk()).await {
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => break Some(SseEnd::Clean),
                Ok(Err(why)) => break Some(SseEnd::Cut(why.to_string())),
                Err(_) => break Some(SseEnd::Cut("no event any more".into())),
            }
        };
        match end {
            // A drain ends a stream properly; its client comes back.
            None | Some(SseEnd::Clean) => book.fine(kind),
            Some(SseEnd::Cut(why)) => book.failed(kind, begin, false, why),
        }
    }
}

async fn web_socket(address: SocketAddr, book: Book) {
    let kind = "WebSocket";
    while book.goes_on() {
        let begin = Instant::now();
        let mut socket = match WsClient::try_open(address, "/ws", &[]).await {
            Ok(socket) => socket,
            Err(why) => {
                book.failed(kind, begin, why.contains("refused"), why);
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let end = loop {
            if !book.goes_on() || begin.elapsed() > STREAM {
                break None;
            }
            if let Err(end) = socket.ping_pong().await {
                break Some(end);
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        };
        match end {
            None => {
                socket.close().await;
                book.fine(kind);
            }
            Some(WsEnd::Closed(_)) => book.fine(kind),
            Some(WsEnd::Cut(why)) => book.failed(kind, begin, false, why),
        }
    }
}

/// Comes back again and again with the tickets it was given.
async fn encrypted(address: SocketAddr, book: Book) {
    let kind = "GET over TLS";
    let client = TlsKind::new();
    while book.goes_on() {
        let begin = Instant::now();
        let mut connection = match tokio::time::timeout(SILENCE, client.connect(address, "shop.test")).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(why)) => {
                let refused = why.kind() == std::io::ErrorKind::ConnectionRefused;
                book.failed(kind, begin, refused, why.to_string());
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            Err(_) => {
                book.failed(kind, begin, false, "no handshake in time".into());
                continue;
            }
        };
        let mut asked = begin;
        for _ in 0..4 {
            let mut seen = connection.get("shop.test", "/").await;
            // The first exchange on it was the handshake.
            seen.reused = true;
            book.judge_kept(kind, &seen, None, &mut asked);
            if seen.outcome != Outcome::Ok || seen.closes() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
