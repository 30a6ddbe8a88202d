//! Clients that never retry: each failure they see is one that a user would have seen.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two requests of one client.
const THINK: Duration = Duration::from_millis(4);

/// What became of one request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub started: Instant,
    pub took: Duration,
    /// Which version answered; `None` if nobody did.
    pub version: Option<String>,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// An answer, but 500 or above.
    Status(u16),
    /// No answer.
    Broken(String),
}

/// Everything the clients have seen.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    fn add(&self, seen: Seen) {
        self.0.lock().expect("no holder panics").push(seen);
    }

    pub fn since(&self, index: usize) -> Vec<Seen> {
        self.0.lock().expect("no holder panics").get(index..).unwrap_or_default().to_vec()
    }
}

pub struct Load {
    pub log: Log,
    stop: CancellationToken,
    clients: JoinSet<()>,
}

impl Load {
    /// `keeping` clients stay on their connection, `fresh` ones make a new one for each request.
    pub fn start(runtime: &tokio::runtime::Handle, proxy: SocketAddr, keeping: usize, fresh: usize) -> Load {
        let log = Log::default();
        let stop = CancellationToken::new();
        let mut clients = JoinSet::new();
        for index in 0..keeping + fresh {
            clients.spawn_on(client(proxy, log.clone(), stop.clone(), index < keeping), runtime);
        }
        Load { log, stop, clients }
    }

    pub async fn stop(mut self) -> Log {
        self.stop.cancel();
        while self.clients.join_next().await.is_some() {}
        self.log
    }
}

async fn client(proxy: SocketAddr, log: Log, stop: CancellationToken, keeps: bool) {
    let mut connection: Option<TcpStream> = None;
    while !stop.is_cancelled() {
        let started = Instant::now();
        let asked = tokio::time::timeout(PATIENCE, ask(proxy, &mut connection)).await;
        let (version, outcome) = match asked {
            Ok(Ok((status, version))) if status < 500 => (version, Outcome::Ok),
            Ok(Ok((status, version))) => (version, Outcome::Status(status)),
            Ok(Err(error)) => (None, Outcome::Broken(error.to_string())),
            Err(_) => (None, Outcome::Broken("no answer in time".into())),
        };
        if !keeps || matches!(outcome, Outcome::Broken(_)) {
            connection = None;
        }
        log.add(Seen { started, took: started.elapsed(), version, outcome });
        tokio::select! { () = tokio::time::sleep(THINK) => {}, () = stop.cancelled() => {} }
    }
}

/// One request on the connection, which is made if there is none.
async fn ask(proxy: SocketAddr, connection: &mut Option<TcpStream>) -> io::Result<(u16, Option<String>)> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(proxy).await?;
            stream.set_nodelay(true)?;
            connection.insert(stream)
        }
    };
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await?;
    let mut buffer = Vec::with_capacity(1024);
    loop {
        if let Some((status, version, closes)) = parse(&buffer)? {
            if closes {
                *connection = None;
            }
            return Ok((status, version));
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer was complete"));
        }
    }
}

/// A complete answer with a Content-Length, or not yet.
fn parse(buffer: &[u8]) -> io::Result<Option<(u16, Option<String>, bool)>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let head = match response.parse(buffer).map_err(io::Error::other)? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return Ok(None),
    };
    let field = |name: &str| {
        let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(field.value).ok()
    };
    let length: usize = field("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    if buffer.len() < head + length {
        return Ok(None);
    }
    let version = field("x-switchback-version").map(str::to_string);
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some((response.code.unwrap_or(0), version, closes)))
}
