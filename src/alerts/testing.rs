//! A server for the tests of this folder: it says what it was told to say and keeps what it heard.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes that answer one request; `None` is silence. The last one answers all that follow.
pub type Reply = Option<String>;

pub fn reply(status: u16, body: &str) -> Reply {
    reply_with(status, "", body)
}

/// `fields` are whole header lines.
pub fn reply_with(status: u16, fields: &str, body: &str) -> Reply {
    Some(format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{fields}\r\n{body}", body.len()))
}

#[derive(Debug, Clone)]
pub struct Heard {
    pub line: String,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Heard {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }
}

pub struct Server {
    address: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    arrived: Arc<tokio::sync::Notify>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Server {
    pub async fn start(replies: Vec<Reply>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let heard = Arc::<Mutex<Vec<Heard>>>::default();
        let arrived = Arc::new(tokio::sync::Notify::new());
        let (keep, bell) = (heard.clone(), arrived.clone());
        let task = tokio::spawn(async move {
            let mut silent = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let asked = hear(&mut stream).await;
                let nth = {
                    let mut heard = keep.lock().expect("no holder panics");
                    heard.push(asked);
                    heard.len() - 1
                };
                bell.notify_waiters();
                match replies.get(nth).or(replies.last()).and_then(Option::as_ref) {
                    // Whoever asked may have had enough.
                    Some(reply) => drop(stream.write_all(reply.as_bytes()).await),
                    None => silent.push(stream),
                }
            }
        });
        Server { address, heard, arrived, _task: tokio_util::task::AbortOnDropHandle::new(task) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn received(&self) -> Vec<Heard> {
        self.heard.lock().expect("no holder panics").clone()
    }

    /// What was heard, as soon as it is this many.
    pub async fn until(&self, count: usize) -> Vec<Heard> {
        let wait = async {
            loop {
                let next = self.arrived.notified();
                let heard = self.received();
                if heard.len() >= count {
                    return heard;
                }
                next.await;
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), wait).await;
        waited.unwrap_or_else(|_| panic!("{} of {count} requests", self.received().len()))
    }
}

/// Where nobody listens.
pub async fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    format!("http://{}", listener.local_addr().expect("bound"))
}

async fn hear(stream: &mut TcpStream) -> Heard {
    let mut bytes = Vec::new();
    let mut body_at = None;
    let mut length = 0;
    while body_at.is_none_or(|at| bytes.len() < at + length) {
        if stream.read_buf(&mut bytes).await.expect("readable") == 0 {
            break;
        }
        if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n").filter(|_| body_at.is_none()) {
            body_at = Some(at + 4);
            let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
            let field = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            length = field.map_or(0, |length| length.parse().expect("a length"));
        }
    }
    let at = body_at.expect("a whole head");
    let head = String::from_utf8(bytes[..at].to_vec()).expect("text");
    let mut lines = head.lines();
    let line = lines.next().expect("a request line").to_owned();
    let fields = lines.filter_map(|line| line.split_once(": "));
    let fields = fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Heard { line, fields, body: bytes[at..].to_vec() }
}
