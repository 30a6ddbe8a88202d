//! Clients that never retry: keep-alive connections in a closed loop, on one thread.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::machine;
use crate::origin;
use crate::poller::Poller;

/// A client that cannot connect tries again after this long; each attempt counts as a broken request.
const RECONNECT: Duration = Duration::from_millis(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What every client sends, over and over.
#[derive(Debug, Clone)]
pub struct Ask {
    pub path: &'static str,
    /// Above 0 it is a POST.
    pub body: usize,
    pub clients: usize,
    /// From one request of a client to its next; `None`: as soon as it is answered.
    pub every: Option<Duration>,
    /// The first requests of all clients are spread evenly over this.
    pub ramp: Duration,
}

impl Ask {
    fn bytes(&self) -> Vec<u8> {
        let method = if self.body > 0 { "POST" } else { "GET" };
        let mut bytes = format!("{method} {} HTTP/1.1\r\nHost: bench.test\r\n", self.path).into_bytes();
        if self.body > 0 {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", self.body).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.resize(bytes.len() + self.body, b'y');
        bytes
    }
}

/// Watched from outside while the load runs.
#[derive(Debug, Default)]
pub struct Progress {
    stop: AtomicBool,
    /// Latencies are kept only while this is set.
    pub record: AtomicBool,
    pub answered: AtomicU64,
    /// Answers by the origin's address that gave them.
    pub answered_by: [AtomicU64; 2],
}

/// What became of it all.
#[derive(Debug, Default)]
pub struct Outcome {
    pub answered: u64,
    /// Microseconds from the first byte sent to the last byte received.
    pub latencies: Vec<u32>,
    /// Requests without their answer, by how.
    pub broken: BTreeMap<&'static str, u64>,
    /// Connections closed while no request was on its way: allowed, and noticed in time.
    pub closed_idle: u64,
}

impl Outcome {
    pub fn broken_total(&self) -> u64 {
        self.broken.values().sum()
    }

    /// Microseconds; 0 if nothing was recorded.
    pub fn percentile(&mut self, share: f64) -> u32 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        if self.latencies.is_empty() { 0 } else { *self.latencies.select_nth_unstable(at).1 }
    }
}

pub struct Load {
    pub progress: Arc<Progress>,
    thread: JoinHandle<io::Result<Outcome>>,
}

impl Load {
    pub fn start(ask: Ask, proxy: SocketAddr, core: usize) -> Load {
        let progress = Arc::new(Progress::default());
        let seen = progress.clone();
        let thread = std::thread::spawn(move || {
            machine::pin(core)?;
            Clients::new(ask, proxy, seen)?.run()
        });
        Load { progress, thread }
    }

    pub fn stop(self) -> io::Result<Outcome> {
        self.progress.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the load generator panicked")))
    }
}

struct Clients {
    proxy: SocketAddr,
    request: Vec<u8>,
    every: Option<Duration>,
    clients: Vec<Client>,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    poller: Poller,
    progress: Arc<Progress>,
    outcome: Outcome,
    scratch: Vec<u8>,
}

struct Client {
    socket: Option<TcpStream>,
    /// Requests answered on this connection.
    answered: u64,
    due: Instant,
    state: State,
}

enum State {
    Idle,
    Waiting { since: Instant, sent: usize, head: Vec<u8>, answer: Option<Answer> },
}

/// The rest of an answer whose head was read.
struct Answer {
    body: usize,
    by: usize,
    close: bool,
}

/// Why a connection came to its end.
struct Broken(&'static str);

impl Clients {
    fn new(ask: Ask, proxy: SocketAddr, progress: Arc<Progress>) -> io::Result<Clients> {
        let now = Instant::now();
        let clients = (0..ask.clients).map(|nth| {
            let due = now + ask.ramp * nth as u32 / ask.clients as u32;
            Client { socket: None, answered: 0, due, state: State::Idle }
        });
        let clients = clients.collect::<Vec<_>>();
        let due = clients.iter().enumerate().map(|(at, client)| Reverse((client.due, at))).collect();
        Ok(Clients {
            proxy,
            request: ask.bytes(),
            every: ask.every,
            clients,
            due,
            poller: Poller::new()?,
            progress,
            outcome: Outcome::default(),
            scratch: vec![0; 256 * 1024],
        })
    }

    fn run(mut self) -> io::Result<Outcome> {
        let mut tokens = Vec::new();
        while !self.progress.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            while let Some(Reverse((due, at))) = self.due.peek().copied()
                && due <= now
            {
                self.due.pop();
                self.begin(at);
            }
            let next = self.due.peek().map(|Reverse((due, _))| due.saturating_duration_since(Instant::now()));
            self.poller.wait(next.unwrap_or(RECONNECT).min(RECONNECT), &mut tokens)?;
            for at in &tokens {
                self.proceed(*at);
            }
        }
        self.outcome.answered = self.progress.answered.load(Ordering::Relaxed);
        Ok(self.outcome)
    }

    /// Sends the next request of a client, over a new connection if it has none. A close that came while
    /// the client was idle is seen first, as careful clients do.
    fn begin(&mut self, at: usize) {
        if self.every.is_some() {
            self.proceed(at);
        }
        if self.clients[at].socket.is_none() {
            match self.connect(at) {
                Ok(socket) => self.clients[at].socket = Some(socket),
                Err(_) => return self.broken(at, "no connection"),
            }
        }
        let since = Instant::now();
        self.clients[at].state = State::Waiting { since, sent: 0, head: Vec::new(), answer: None };
        self.proceed(at);
    }

    fn connect(&mut self, at: usize) -> io::Result<TcpStream> {
        let socket = TcpStream::connect_timeout(&self.proxy, CONNECT_TIMEOUT)?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        self.poller.add(&socket, at)?;
        self.clients[at].answered = 0;
        Ok(socket)
    }

    /// Goes on with a client until its socket has no more to give or take.
    fn proceed(&mut self, at: usize) {
        match self.clients[at].exchange(&self.request, &mut self.scratch) {
            Ok(Step::Nothing) => {}
            Ok(Step::ClosedIdle) => {
                self.outcome.closed_idle += 1;
                self.clients[at].socket = None;
            }
            Ok(Step::Answered { took, by, close }) => {
                self.progress.answered.fetch_add(1, Ordering::Relaxed);
                self.progress.answered_by[by].fetch_add(1, Ordering::Relaxed);
                if self.progress.record.load(Ordering::Relaxed) {
                    self.outcome.latencies.push(took.as_micros() as u32);
                }
                if close {
                    self.clients[at].socket = None;
                }
                self.schedule(at);
            }
            Err(Broken(how)) => self.broken(at, how),
        }
    }

    fn broken(&mut self, at: usize, how: &'static str) {
        *self.outcome.broken.entry(how).or_default() += 1;
        self.clients[at].socket = None;
        self.clients[at].state = State::Idle;
        self.clients[at].due = Instant::now() + RECONNECT;
        self.due.push(Reverse((self.clients[at].due, at)));
    }

    fn schedule(&mut self, at: usize) {
        let now = Instant::now();
        let client = &mut self.clients[at];
        client.due = self.every.map_or(now, |every| now.max(client.due + every));
        self.due.push(Reverse((client.due, at)));
    }
}

enum Step {
    Nothing,
    ClosedIdle,
    Answered { took: Duration, by: usize, close: bool },
}

impl Client {
    fn exchange(&mut self, request: &[u8], scratch: &mut [u8]) -> Result<Step, Broken> {
        let Some(socket) = &mut self.socket else { return Ok(Step::Nothing) };
        let State::Waiting { since, sent, head, answer } = &mut self.state else {
            // Nothing was asked: either the connection was closed, or this is only "writable".
            return match socket.read(scratch) {
                Ok(0) => Ok(Step::ClosedIdle),
                Ok(_) => Err(Broken("an answer to no request")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Nothing),
                Err(_) => Ok(Step::ClosedIdle),
            };
        };
        let reused = self.answered > 0;
        let closed = move |some: bool| match (some, reused) {
            (true, _) => Broken("closed within an answer"),
            (false, true) => Broken("closed under a request, connection reused"),
            (false, false) => Broken("closed under a request, connection new"),
        };
        while *sent < request.len() {
            match socket.write(&request[*sent..]) {
                Ok(count) => *sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err(closed(false)),
            }
        }
        loop {
            let count = match socket.read(scratch) {
                Ok(0) => return Err(closed(answer.is_some() || !head.is_empty())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Nothing),
                Err(_) => return Err(closed(answer.is_some() || !head.is_empty())),
            };
            let mut body = count;
            if answer.is_none() {
                head.extend_from_slice(&scratch[..count]);
                let Some((length, parsed)) = parse(head)? else { continue };
                body = head.len() - length;
                *answer = Some(parsed);
            }
            let Some(rest) = answer else { continue };
            rest.body = rest.body.checked_sub(body).ok_or(Broken("more than the answer"))?;
            if rest.body == 0 {
                let step = Step::Answered { took: since.elapsed(), by: rest.by, close: rest.close };
                if *sent < request.len() {
                    return Err(Broken("answered before it was asked"));
                }
                self.state = State::Idle;
                self.answered += 1;
                return Ok(step);
            }
            if count < scratch.len() {
                return Ok(Step::Nothing); // a short read emptied the socket, and more will be told
            }
        }
    }
}

/// The length of a complete head and what it says.
fn parse(head: &[u8]) -> Result<Option<(usize, Answer)>, Broken> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let status = response.parse(head).map_err(|_| Broken("not HTTP"))?;
    let httparse::Status::Complete(length) = status else { return Ok(None) };
    if response.code != Some(200) {
        return Err(Broken("status other than 200"));
    }
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    let body = value("content-length").and_then(|text| text.parse().ok()).ok_or(Broken("no length"))?;
    let by = value(origin::HEADER).and_then(|text| text.parse().ok()).filter(|by| *by < 2);
    let by = by.ok_or(Broken("not from the origin"))?;
    let close = value("connection").is_some_and(|text| text.eq_ignore_ascii_case("close"));
    Ok(Some((length, Answer { body, by, close })))
}
