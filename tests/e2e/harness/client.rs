//! Clients that never retry and write down what they saw.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::wire::{Headers, Reader, field, fields, split_head};

/// No answer for this long is a failure of its own kind.
const ANSWER: Duration = Duration::from_secs(20);

/// How an exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer.
    Ok,
    /// The connection could not be made.
    NotConnected(String),
    /// The connection was closed before the first byte of an answer.
    ClosedBeforeAnswer,
    /// The answer began and was cut.
    Truncated,
    /// Not HTTP.
    Malformed(String),
    /// Nothing for 20 s.
    TimedOut,
}

/// One exchange as the client saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub started: Instant,
    pub took: Duration,
    /// From the start to the last byte of the head.
    pub head_after: Duration,
    pub outcome: Outcome,
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
    /// Not the first on its connection.
    pub reused: bool,
    /// Bytes of the body, even when it was not kept.
    pub body_bytes: u64,
}

impl Seen {
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.headers, name)
    }
    pub fn fields(&self, name: &str) -> Vec<&str> {
        fields(&self.headers, name)
    }
    pub fn generation(&self) -> Option<u64> {
        self.field("x-switchback-generation")?.parse().ok()
    }
    /// Which version the proxy says it chose.
    pub fn version(&self) -> Option<&str> {
        self.field("x-switchback-version")
    }
    pub fn reason(&self) -> Option<&str> {
        self.field("x-switchback-reason")
    }
    /// Which origin says it answered.
    pub fn origin(&self) -> Option<&str> {
        self.field("x-origin")
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("not JSON ({why}): {}", self.text()))
    }
    /// A whole answer with a status below 500.
    pub fn is_fine(&self) -> bool {
        self.outcome == Outcome::Ok && (200..500).contains(&self.status)
    }
    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
    /// The cookie of that name that the answer sets, without attributes.
    pub fn cookie(&self, name: &str) -> Option<String> {
        self.fields("set-cookie").iter().find_map(|line| {
            let (have, value) = line.split(';').next()?.split_once('=')?;
            (have.trim() == name).then(|| value.trim().to_string())
        })
    }
}

/// A keep-alive client. It opens a new connection only when the last one was closed.
pub struct Client {
    pub address: SocketAddr,
    pub host: String,
    /// Source address; `None` lets the kernel choose.
    pub from: Option<std::net::IpAddr>,
    connection: Option<Raw>,
    /// Connections opened so far.
    pub opened: u64,
    /// Whether bodies are kept or only counted.
    pub keep_bodies: bool,
}

impl Client {
    pub fn new(address: SocketAddr) -> Client {
        Client { address, host: "shop.test".into(), from: None, connection: None, opened: 0, keep_bodies: true }
    }

    pub async fn get(&mut self, path: &str) -> Seen {
        self.send("GET", path, &[], b"").await
    }

    pub async fn get_with(&mut self, path: &str, headers: &[(&str, &str)]) -> Seen {
        self.send("GET", path, headers, b"").await
    }

    pub async fn post(&mut self, path: &str, body: &[u8]) -> Seen {
        self.send("POST", path, &[], body).await
    }

    /// Sends one request and reads its answer. A body is sent with Content-Length.
    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Seen {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("host: {}\r\n", self.host);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            head += &format!("content-length: {}\r\n", body.len());
        }
        let mut bytes = (head + "\r\n").into_bytes();
        bytes.extend_from_slice(body);
        self.exchange(method, &bytes).await
    }

    /// Closes the connection; the next request opens another.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }

    async fn exchange(&mut self, method: &str, bytes: &[u8]) -> Seen {
        let started = Instant::now();
        let reused = self.connection.is_some();
        let mut connection = match self.connection.take() {
            Some(open) => open,
            None => match Raw::connect_from(self.address, self.from).await {
                Ok(open) => {
                    self.opened += 1;
                    open
                }
                Err(why) => return failed(started, Outcome::NotConnected(why.to_string())),
            },
        };
        connection.keep_bodies = self.keep_bodies;
        // A peer that answers and closes while we still write is judged by its answer.
        let _ = connection.write(bytes).await;
        let seen = Seen { reused, ..connection.answer_to(method, started).await };
        if seen.outcome == Outcome::Ok && !seen.closes() && seen.status != 101 {
            self.connection = Some(connection);
        }
        seen
    }
}

fn failed(started: Instant, outcome: Outcome) -> Seen {
    let took = started.elapsed();
    Seen {
        started,
        took,
        head_after: took,
        outcome,
        status: 0,
        headers: Vec::new(),
        body: Vec::new(),
        reused: false,
        body_bytes: 0,
    }
}

/// One connection on which exact bytes are sent.
pub struct Raw<R = OwnedReadHalf, W = OwnedWriteHalf> {
    pub reader: Reader<R>,
    pub writer: W,
    pub keep_bodies: bool,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> io::Result<Raw> {
        Raw::connect_from(address, None).await
    }

    pub async fn connect_from(address: SocketAddr, from: Option<std::net::IpAddr>) -> io::Result<Raw> {
        let stream = match from {
            None => TcpStream::connect(address).await?,
            Some(from) => {
                let socket = tokio::net::TcpSocket::new_v4()?;
                socket.bind(SocketAddr::new(from, 0))?;
                socket.connect(address).await?
            }
        };
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Raw::on(reader, writer))
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Raw<R, W> {
    pub fn on(reader: R, writer: W) -> Raw<R, W> {
        Raw { reader: Reader::new(reader), writer, keep_bodies: true }
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await
    }

    /// The answer to a GET.
    pub async fn answer(&mut self) -> Seen {
        self.answer_to("GET", Instant::now()).await
    }

    pub async fn answer_to(&mut self, method: &str, started: Instant) -> Seen {
        match tokio::time::timeout(ANSWER, self.read_answer(method, started)).await {
            Ok(seen) => seen,
            Err(_) => failed(started, Outcome::TimedOut),
        }
    }

    /// The next head, interim or final: status and fields.
    pub async fn head(&mut self) -> Result<(u16, Headers), Outcome> {
        let head = match self.reader.head().await {
            Ok(Some(head)) => head,
            Ok(None) => return Err(Outcome::ClosedBeforeAnswer),
            Err(_) if self.reader.buffered().is_empty() => return Err(Outcome::ClosedBeforeAnswer),
            Err(_) => return Err(Outcome::Truncated),
        };
        let (first, headers) = split_head(&head);
        let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
        match status {
            Some(status) => Ok((status, headers)),
            None => Err(Outcome::Malformed(first)),
        }
    }

    async fn read_answer(&mut self, method: &str, started: Instant) -> Seen {
        let (status, headers) = loop {
            match self.head().await {
                Ok((status, _)) if (100..200).contains(&status) && status != 101 => {}
                Ok(head) => break head,
                Err(outcome) => return failed(started, outcome),
            }
        };
        let mut seen = failed(started, Outcome::Ok);
        seen.status = status;
        seen.headers = headers;
        let bodiless = method == "HEAD" || status == 204 || status == 304 || status == 101;
        if !bodiless && let Err(why) = self.read_body(&mut seen).await {
            seen.outcome = match why.kind() {
                io::ErrorKind::InvalidData => Outcome::Malformed(why.to_string()),
                _ => Outcome::Truncated,
            };
        }
        seen.took = started.elapsed();
        seen
    }

    async fn read_body(&mut self, seen: &mut Seen) -> io::Result<()> {
        let chunked = seen.field("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = seen.field("content-length").map(|value| value.parse::<u64>());
        if chunked {
            while let Some(data) = self.reader.chunk().await? {
                self.keep(seen, data);
            }
            return Ok(());
        }
        match length {
            Some(Ok(length)) => {
                while seen.body_bytes < length {
                    let data = self.reader.some(length - seen.body_bytes).await?;
                    if data.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.keep(seen, data);
                }
                Ok(())
            }
            Some(Err(why)) => Err(super::wire::invalid(format!("content-length: {why}"))),
            None => {
                let data = self.reader.rest().await;
                self.keep(seen, data);
                seen.headers.push(("connection".into(), "close".into()));
                Ok(())
            }
        }
    }

    fn keep(&self, seen: &mut Seen, data: Vec<u8>) {
        seen.body_bytes += data.len() as u64;
        if self.keep_bodies {
            seen.body.extend(data);
        }
    }

    /// What comes until the peer closes; `None` if it does not close in time.
    pub async fn until_closed(&mut self, patience: Duration) -> Option<Vec<u8>> {
        tokio::time::timeout(patience, self.reader.rest()).await.ok()
    }
}
