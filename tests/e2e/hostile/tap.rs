//! An endpoint that keeps every request exactly as it came, and answers from a script of bytes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::harness::origin::Received;
use crate::harness::wire::Reader;

/// One step of what an endpoint does once a request head is there.
#[derive(Debug, Clone)]
pub enum Step {
    Send(Vec<u8>),
    /// So many times the same.
    Repeat(usize, Vec<u8>),
    /// Byte by byte, until the other side has had enough or so long.
    Trickle(Vec<u8>, Duration),
    Pause(Duration),
    /// The rest of the request is read first.
    ReadBody,
    /// Nothing more, until the other side closes.
    Hang,
    Close,
    Reset,
}

/// What stands at an address and listens: requests by connection, scripts by target.
pub struct Tap {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    /// Bytes that never became a request head.
    scraps: Mutex<Vec<Vec<u8>>>,
    scripts: Mutex<HashMap<String, Vec<Step>>>,
    open: AtomicU64,
    connections: AtomicU64,
}

impl Tap {
    pub async fn start(address: SocketAddr) -> Tap {
        let listener = TcpListener::bind(address).await.unwrap_or_else(|why| panic!("{address}: {why}"));
        let shared = Arc::new(Shared::default());
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Tap { address, shared, accepting }
    }

    /// What to do with requests for this target. Without a script: read all of it, answer 200, keep the connection.
    pub fn script(&self, target: &str, steps: Vec<Step>) {
        self.shared.scripts.lock().unwrap().insert(target.into(), steps);
    }

    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    pub fn scraps(&self) -> Vec<Vec<u8>> {
        self.shared.scraps.lock().unwrap().clone()
    }

    /// Every connection there was has ended, so nothing can come any more.
    pub async fn all_closed(&self) {
        crate::harness::until("every connection to the endpoint has ended", || async {
            self.shared.open.load(Ordering::SeqCst) == 0
        })
        .await;
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The connections end with the tap.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let id = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let shared = shared.clone();
        connections.spawn(async move {
            serve(stream, id, &shared).await;
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, id: u64, shared: &Shared) {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = Reader::new(reader);
    for nth in 1.. {
        let head = match reader.head().await {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(_) => {
                shared.scraps.lock().unwrap().push(reader.buffered().to_vec());
                return;
            }
        };
        let mut received = Received::new(id, nth, &head);
        let script = shared.scripts.lock().unwrap().get(received.target()).cloned();
        let end = run(&mut reader, &mut writer, &mut received, script.as_deref()).await;
        if !reader.buffered().is_empty() && !received.complete {
            shared.scraps.lock().unwrap().push(reader.buffered().to_vec());
        }
        shared.received.lock().unwrap().push(received);
        match end {
            Some(End::Keep) => {}
            Some(End::Reset) => {
                let stream = reader.into_parts().0.unsplit(writer);
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                return;
            }
            Some(End::Close) => {
                let _ = writer.shutdown().await;
                // Closing with unread bytes would be a reset.
                reader.rest().await;
                return;
            }
            None => return,
        }
    }
}

enum End {
    Keep,
    Close,
    Reset,
}

/// `None`: the other side has closed.
async fn run(
    reader: &mut Reader<ReadHalf<TcpStream>>,
    writer: &mut WriteHalf<TcpStream>,
    received: &mut Received,
    script: Option<&[Step]>,
) -> Option<End> {
    let Some(script) = script else {
        read_body(reader, received).await?;
        let body = received.target().to_string();
        let head_only = received.method() == "HEAD";
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        if !head_only {
            answer += &body;
        }
        writer.write_all(answer.as_bytes()).await.ok()?;
        return Some(End::Keep);
    };
    for step in script {
        match step {
            Step::Send(bytes) => writer.write_all(bytes).await.ok()?,
            Step::Repeat(count, bytes) => {
                for _ in 0..*count {
                    writer.write_all(bytes).await.ok()?;
                }
            }
            Step::Trickle(bytes, pause) => {
                for byte in bytes {
                    writer.write_all(&[*byte]).await.ok()?;
                    tokio::time::sleep(*pause).await;
                }
            }
            Step::Pause(time) => tokio::time::sleep(*time).await,
            Step::ReadBody => read_body(reader, received).await?,
            Step::Hang => {
                reader.rest().await;
                return None;
            }
            Step::Close => return Some(End::Close),
            Step::Reset => return Some(End::Reset),
        }
    }
    Some(End::Keep)
}

/// Reads the body as its head frames it, in the plainest way.
async fn read_body(reader: &mut Reader<ReadHalf<TcpStream>>, received: &mut Received) -> Option<()> {
    if received.complete {
        return Some(());
    }
    let chunked = received.field("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    if chunked {
        while let Some(piece) = reader.chunk().await.ok()? {
            received.body.extend(piece);
        }
    } else {
        let length: u64 = received.field("content-length").map_or(Some(0), |value| value.parse().ok())?;
        while (received.body.len() as u64) < length {
            let piece = reader.some(length - received.body.len() as u64).await.ok()?;
            if piece.is_empty() {
                return None;
            }
            received.body.extend(piece);
        }
    }
    received.body_bytes = received.body.len() as u64;
    received.complete = true;
    Some(())
}
