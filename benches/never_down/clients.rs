//! Clients that never retry: those that keep their connection and think, and those that open one for each request.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::dice::Dice;

/// From the first byte sent to the last one received.
const PATIENCE: Duration = Duration::from_secs(20);
/// Drawn log-uniformly.
const THINKS: (f64, f64) = (0.002, 8.0);

const POST: &[u8] = b"POST /order HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 9\r\n\r\none order";
const POST_ONCE: &[u8] =
    b"POST /order HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\ncontent-length: 9\r\n\r\none order";
/// What the origin answers to it.
const ANSWER: &[u8] = b"xx";

/// What the clients of one proxy saw.
#[derive(Debug, Default)]
pub struct Book {
    pub answered: AtomicU64,
    /// Connections that a proxy closed while their client was thinking, before it sent anything.
    pub closed_idle: AtomicU64,
    /// Connections that an answer said would be closed.
    pub told: AtomicU64,
    /// Requests without their answer, by what happened instead.
    pub broken: Mutex<BTreeMap<&'static str, u64>>,
    longest_micros: AtomicU64,
    stop: AtomicBool,
}

impl Book {
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub fn broken(&self) -> BTreeMap<&'static str, u64> {
        self.broken.lock().expect("no client panics").clone()
    }

    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_micros.load(Ordering::Relaxed))
    }

    pub fn forget_longest(&self) {
        self.longest_micros.store(0, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn took(&self, time: Duration) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.longest_micros.fetch_max(time.as_micros() as u64, Ordering::Relaxed);
    }

    fn broke(&self, how: &'static str) {
        *self.broken.lock().expect("no client panics").entry(how).or_default() += 1;
    }
}

pub struct Load {
    pub book: Arc<Book>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// POSTs over kept connections.
    pub fn keep_alive(runtime: &Handle, address: SocketAddr, clients: u64) -> Load {
        Load::start(runtime, clients, |nth, book| keep_alive(address, Dice(nth), book))
    }

    /// POSTs that each have a connection of their own, with a pause between two.
    pub fn fresh(runtime: &Handle, address: SocketAddr, clients: u64, pause: Duration) -> Load {
        Load::start(runtime, clients, |_, book| fresh(address, pause, book))
    }

    fn start<C: Future<Output = ()> + Send + 'static>(
        runtime: &Handle,
        clients: u64,
        client: impl Fn(u64, Arc<Book>) -> C,
    ) -> Load {
        let book = Arc::new(Book::default());
        let clients = (0..clients).map(|nth| runtime.spawn(client(nth, book.clone()))).collect();
        Load { book, clients }
    }

    /// Once every client has what it waits for.
    pub fn stop(self, runtime: &Handle) -> Arc<Book> {
        self.book.stop.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            for client in self.clients {
                client.await.expect("a client does not panic");
            }
        });
        self.book
    }
}

/// Log-uniform between the two of [`THINKS`].
fn think(dice: &mut Dice) -> Duration {
    let even = (dice.roll() >> 11) as f64 / (1u64 << 53) as f64;
    Duration::from_secs_f64((THINKS.0.ln() + even * (THINKS.1 / THINKS.0).ln()).exp())
}

async fn keep_alive(address: SocketAddr, mut dice: Dice, book: Arc<Book>) {
    let mut socket: Option<TcpStream> = None;
    loop {
        // In pieces, so that the end of the bench does not wait for the longest one.
        let wakes = Instant::now() + think(&mut dice);
        while book.goes_on() && Instant::now() < wakes {
            tokio::time::sleep((wakes - Instant::now().min(wakes)).min(Duration::from_millis(200))).await;
        }
        if !book.goes_on() {
            return;
        }
        // As careful clients do: one that is closed already is not used.
        if socket.take_if(|socket| is_closed(socket)).is_some() {
            book.closed_idle.fetch_add(1, Ordering::Relaxed);
        }
        let reused = socket.is_some();
        let began = Instant::now();
        let mut open = match socket.take() {
            Some(socket) => socket,
            None => match connect(address).await {
                Ok(socket) => socket,
                Err(how) => {
                    book.broke(how);
                    continue;
                }
            },
        };
        match exchange(&mut open, POST).await {
            Ok(Answer { closes }) => {
                book.took(began.elapsed());
                match closes {
                    true => drop(book.told.fetch_add(1, Ordering::Relaxed)),
                    false => socket = Some(open),
                }
            }
            Err(How::Closed) if reused => book.broke("kept connection closed"),
            Err(how) => book.broke(how.text()),
        }
    }
}

async fn fresh(address: SocketAddr, pause: Duration, book: Arc<Book>) {
    while book.goes_on() {
        let began = Instant::now();
        match once(address).await {
            Ok(()) => book.took(began.elapsed()),
            Err(how) => book.broke(how),
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// One request on a connection of its own.
pub async fn once(address: SocketAddr) -> Result<(), &'static str> {
    let mut socket = connect(address).await?;
    exchange(&mut socket, POST_ONCE).await.map(|_| ()).map_err(How::text)
}

async fn connect(address: SocketAddr) -> Result<TcpStream, &'static str> {
    match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(socket)) => socket.set_nodelay(true).map(|()| socket).map_err(|_| "refused"),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err("refused"),
        Ok(Err(_)) => Err("not connected"),
        Err(_) => Err("not connected in time"),
    }
}

/// Whether the other side has closed it. Asks the kernel, not what the runtime has heard of.
fn is_closed(socket: &TcpStream) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let seen = socket2::SockRef::from(socket).peek(&mut byte);
    !matches!(seen, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

struct Answer {
    closes: bool,
}

enum How {
    /// Without a byte of an answer.
    Closed,
    Cut,
    Wrong,
    Silent,
}

impl How {
    fn text(self) -> &'static str {
        match self {
            How::Closed => "new connection closed",
            How::Cut => "cut in the answer",
            How::Wrong => "another answer",
            How::Silent => "no answer in time",
        }
    }
}

async fn exchange(socket: &mut TcpStream, request: &[u8]) -> Result<Answer, How> {
    tokio::time::timeout(PATIENCE, ask(socket, request)).await.unwrap_or(Err(How::Silent))
}

async fn ask(socket: &mut TcpStream, request: &[u8]) -> Result<Answer, How> {
    // An answer that is there all the same counts.
    let _ = socket.write_all(request).await;
    let mut seen = Vec::with_capacity(1024);
    loop {
        match socket.read_buf(&mut seen).await {
            Ok(0) | Err(_) if seen.is_empty() => return Err(How::Closed),
            Ok(0) | Err(_) => return Err(How::Cut),
            Ok(_) => {}
        }
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut fields);
        let Ok(parsed) = head.parse(&seen) else { return Err(How::Wrong) };
        let httparse::Status::Complete(length) = parsed else { continue };
        if head.code != Some(200) {
            return Err(How::Wrong);
        }
        let field = |name: &str| head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        if field("content-length").is_none_or(|field| field.value != b"2") {
            return Err(How::Wrong);
        }
        let closes = field("connection").is_some_and(|field| field.value.eq_ignore_ascii_case(b"close"));
        if seen.len() >= length + ANSWER.len() {
            return if &seen[length..] == ANSWER { Ok(Answer { closes }) } else { Err(How::Wrong) };
        }
    }
}
