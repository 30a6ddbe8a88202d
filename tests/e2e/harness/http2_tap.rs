//! An endpoint that speaks HTTP/2 by hand: it writes down which requests came, whole or not, and answers each with
//! frames of the test's making.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RawFrame, SETTINGS, WINDOW_UPDATE, block, frame,
};

/// A request, once it is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Nth connection, from 1.
    pub connection: u64,
    pub stream: u32,
}

/// One step of what it does then.
#[derive(Debug, Clone)]
pub enum Act {
    Send(Vec<u8>),
    Close,
}

type Script = dyn Fn(Asked) -> Vec<Act> + Send + Sync;

struct Shared {
    script: Mutex<Arc<Script>>,
    asked: Mutex<Vec<Asked>>,
    connections: AtomicU64,
}

pub struct H2Tap {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl H2Tap {
    /// Answers `ok` to everything until it is told otherwise.
    pub async fn start(address: SocketAddr) -> H2Tap {
        let listener = TcpListener::bind(address).await.unwrap_or_else(|why| panic!("{address}: {why}"));
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(|asked: Asked| vec![Act::Send(ok(asked.stream))])),
            asked: Mutex::default(),
            connections: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        H2Tap { address, shared, accepting }
    }

    pub fn script(&self, script: impl Fn(Asked) -> Vec<Act> + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Arc::new(script);
    }

    /// Whole requests, in the order in which they came.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for H2Tap {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A whole answer: 200 and `ok`.
pub fn ok(stream: u32) -> Vec<u8> {
    [frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")])), frame(DATA, END_STREAM, stream, b"ok")]
        .concat()
}

/// The head of an answer, and nothing behind it yet.
pub fn head_of_answer(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(&[&[(":status", "200")], fields].concat()))
}

pub fn goaway(last: u32, reason: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat())
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Connections end with the tap.
    let mut running = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let connection = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let shared = shared.clone();
        running.spawn(async move { serve(stream, connection, &shared).await });
    }
}

/// To the end of the connection, from either side.
async fn serve(stream: TcpStream, connection: u64, shared: &Shared) -> Option<()> {
    let _ = stream.set_nodelay(true);
    let (reader, mut writer) = stream.into_split();
    let mut frames = Frames { reader, buffer: Vec::new() };
    frames.take(24).await?;
    writer.write_all(&frame(SETTINGS, 0, 0, b"")).await.ok()?;
    while let Some(got) = frames.next().await {
        let asked = Asked { connection, stream: got.stream };
        match got.kind {
            SETTINGS if got.flags == 0 => writer.write_all(&frame(SETTINGS, 1, 0, b"")).await.ok()?,
            PING if got.flags == 0 => writer.write_all(&frame(PING, 1, 0, &got.payload)).await.ok()?,
            DATA if !got.payload.is_empty() => {
                // Both windows stay as wide as they were.
                let more = (got.payload.len() as u32).to_be_bytes();
                let wider = [frame(WINDOW_UPDATE, 0, 0, &more), frame(WINDOW_UPDATE, 0, got.stream, &more)].concat();
                writer.write_all(&wider).await.ok()?;
            }
            _ => {}
        }
        if matches!(got.kind, HEADERS | DATA | CONTINUATION) && got.flags & END_STREAM != 0 {
            shared.asked.lock().unwrap().push(asked);
            let script = shared.script.lock().unwrap().clone();
            act(&mut writer, script(asked)).await?;
        }
    }
    None
}

/// `None`: the connection is over.
async fn act(writer: &mut OwnedWriteHalf, acts: Vec<Act>) -> Option<()> {
    for act in acts {
        match act {
            Act::Send(bytes) => writer.write_all(&bytes).await.ok()?,
            Act::Close => {
                let _ = writer.shutdown().await;
                return None;
            }
        }
    }
    Some(())
}

struct Frames {
    reader: OwnedReadHalf,
    buffer: Vec<u8>,
}

impl Frames {
    async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        use tokio::io::AsyncReadExt;
        while self.buffer.len() < count {
            if self.reader.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    async fn next(&mut self) -> Option<RawFrame> {
        let head = self.take(9).await?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes(head[5..9].try_into().expect("four bytes"));
        Some(RawFrame { kind: head[3], flags: head[4], stream, payload: self.take(len).await? })
    }
}
