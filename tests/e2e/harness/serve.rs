//! The origin's side of a connection. Without a fault the path says what is answered:
//!
//! | Path | Answer |
//! |---|---|
//! | `/healthz` | the health status; not counted as a request |
//! | `/bytes/N` | N bytes with Content-Length; `/chunked/N` the same in chunks of 16 KiB |
//! | `/status/N` | that status |
//! | `/slow/MS` | after that many milliseconds |
//! | `/echo` | the request's body; `/echo-chunked` the same, piece by piece as it comes |
//! | `/late-body/MS` | the head at once, the body that much later |
//! | `/sse` | an event stream, one event per [`super::Origin::tick`]; `/sse-timed` one per 50 ms |
//! | `/ws` | WebSocket echo |
//! | anything else | `name instance target` |

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::origin::{Abort, Fault, Received, Shared};
use super::wire::Reader;

/// Bytes of a body that are kept.
const KEPT: usize = 64 * 1024;

struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

pub async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: watch::Receiver<bool>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let id = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        shared.open.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(shared.clone());
        let mut stop = stop.clone();
        let shared = shared.clone();
        tokio::spawn(async move {
            let _counted = counted;
            tokio::select! {
                _ = serve(stream, id, &shared) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
    }
}

/// What happens to the connection after an answer.
enum Next {
    Keep,
    Close,
    Reset,
    WebSocket(String),
}

async fn serve(stream: TcpStream, id: u64, shared: &Arc<Shared>) -> io::Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = Reader::new(reader);
    let mut nth = 0;
    loop {
        let idle = *shared.idle.lock().unwrap();
        let head = match idle {
            // The first request may take its time: only a used connection is idle.
            Some((after, how)) if nth > 0 => match tokio::time::timeout(after, reader.head()).await {
                Ok(head) => head?,
                Err(_) if reader.buffered().is_empty() => {
                    if how == Abort::Reset {
                        reset(reader, writer);
                    }
                    return Ok(());
                }
                Err(_) => reader.head().await?,
            },
            Some(_) | None => reader.head().await?,
        };
        let Some(head) = head else { return Ok(()) };
        nth += 1;
        let mut received = Received::new(id, nth, &head);
        let next = exchange(&mut reader, &mut writer, &mut received, shared).await;
        if received.target() != "/healthz" && shared.recording.load(Ordering::Relaxed) {
            shared.received.lock().unwrap().push(received);
        }
        match next? {
            Next::Keep => {}
            Next::Close => return writer.shutdown().await,
            Next::Reset => {
                reset(reader, writer);
                return Ok(());
            }
            Next::WebSocket(key) => return echo(reader, writer, &key, shared).await,
        }
    }
}

fn reset(reader: Reader<ReadHalf<TcpStream>>, writer: WriteHalf<TcpStream>) {
    let stream = reader.into_parts().0.unsplit(writer);
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

async fn exchange(
    reader: &mut Reader<ReadHalf<TcpStream>>,
    writer: &mut WriteHalf<TcpStream>,
    received: &mut Received,
    shared: &Arc<Shared>,
) -> io::Result<Next> {
    let target = received.target().to_string();
    if target == "/healthz" {
        let status = *shared.health.lock().unwrap();
        let fault = shared.fault.lock().unwrap().clone();
        if fault == Fault::Hang {
            reader.rest().await;
            return Ok(Next::Close);
        }
        answer(writer, shared, status, "", b"health\n", false).await?;
        return Ok(Next::Keep);
    }
    let nth = shared.requests.fetch_add(1, Ordering::SeqCst);
    let fault = shared.fault.lock().unwrap().clone();
    if let Fault::EarlyAnswer(status) = fault {
        answer(writer, shared, status, "connection: close\r\n", b"early\n", false).await?;
        return Ok(Next::Close);
    }
    if let Fault::DieInBody(bytes) = fault {
        while received.body_bytes < bytes {
            received.body_bytes += reader.some(bytes - received.body_bytes).await?.len() as u64;
        }
        return Ok(Next::Reset);
    }
    if received.field("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    if target.starts_with("/echo-chunked") {
        writer.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
        read_body(reader, received, Some(writer)).await?;
        writer.write_all(b"0\r\n\r\n").await?;
        return Ok(Next::Keep);
    }
    read_body(reader, received, None).await?;
    // From here on a tick is not missed.
    let mut held = shared.ticks.subscribe();
    *shared.executed.lock().unwrap().entry(target.clone()).or_default() += 1;
    let head_only = received.method() == "HEAD";
    let text = format!("{} {} {}\n", shared.name, shared.instance, target);
    match fault {
        Fault::None | Fault::EarlyAnswer(_) | Fault::DieInBody(_) => {}
        Fault::StatusEvery(every, _) if !nth.is_multiple_of(every) => {}
        Fault::Status(status) | Fault::StatusEvery(_, status) => {
            answer(writer, shared, status, "", text.as_bytes(), head_only).await?;
            return Ok(Next::Keep);
        }
        Fault::Hang => {
            reader.rest().await;
            return Ok(Next::Close);
        }
        Fault::Late(time) => tokio::time::sleep(time).await,
        Fault::Held => {
            // An origin that is gone answers nobody.
            let _ = held.changed().await;
        }
        Fault::CloseUnanswered => return Ok(Next::Close),
        Fault::Reset => return Ok(Next::Reset),
        Fault::CutBody | Fault::ResetBody | Fault::StallBody => {
            let half = vec![b'h'; 500];
            let head = format!("HTTP/1.1 200 OK\r\nx-origin: {}\r\ncontent-length: 1000\r\n\r\n", shared.name);
            writer.write_all(head.as_bytes()).await?;
            writer.write_all(&half).await?;
            writer.flush().await?;
            return match fault {
                Fault::CutBody => Ok(Next::Close),
                Fault::StallBody => {
                    reader.rest().await;
                    Ok(Next::Close)
                }
                _ => {
                    // Lets the half arrive before the reset destroys what is not yet read.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Ok(Next::Reset)
                }
            };
        }
        Fault::DribbleHead(interval) => {
            for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\nok" {
                writer.write_all(&[*byte]).await?;
                tokio::time::sleep(interval).await;
            }
            return Ok(Next::Keep);
        }
        Fault::Bytes(bytes) => {
            writer.write_all(&bytes).await?;
            return Ok(Next::Close);
        }
        Fault::BytesKeep(bytes) => {
            writer.write_all(&bytes).await?;
            return Ok(Next::Keep);
        }
        Fault::CloseUnansweredAfter(served) if received.nth > served => return Ok(Next::Close),
        Fault::CloseUnansweredAfter(_) => {}
        Fault::EarlyHints => {
            writer.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n").await?;
        }
    }
    by_path(writer, received, shared, &target, head_only, &text).await
}

async fn by_path(
    writer: &mut WriteHalf<TcpStream>,
    received: &Received,
    shared: &Arc<Shared>,
    target: &str,
    head_only: bool,
    text: &str,
) -> io::Result<Next> {
    let path = target.split('?').next().unwrap_or(target);
    let number = path.rsplit('/').next().and_then(|last| last.parse::<u64>().ok());
    let kind = path.trim_start_matches('/').split('/').next().unwrap_or("");
    match (kind, number) {
        ("ws", _) if received.field("upgrade").is_some() => {
            return Ok(Next::WebSocket(received.field("sec-websocket-key").unwrap_or("").to_string()));
        }
        ("sse", _) => events(writer, shared, None).await?,
        ("sse-timed", _) => events(writer, shared, Some(Duration::from_millis(50))).await?,
        ("bytes", Some(count)) => {
            writer.write_all(head(shared, 200, &format!("content-length: {count}\r\n")).as_bytes()).await?;
            let block = vec![b'x'; 64 * 1024];
            let mut left = if head_only { 0 } else { count };
            while left > 0 {
                let take = left.min(block.len() as u64);
                writer.write_all(&block[..take as usize]).await?;
                left -= take;
            }
        }
        ("chunked", Some(count)) => {
            writer.write_all(head(shared, 200, "transfer-encoding: chunked\r\n").as_bytes()).await?;
            let mut left = if head_only { 0 } else { count };
            while left > 0 {
                let take = left.min(16 * 1024);
                writer.write_all(format!("{take:x}\r\n").as_bytes()).await?;
                writer.write_all(&vec![b'c'; take as usize]).await?;
                writer.write_all(b"\r\n").await?;
                left -= take;
            }
            if !head_only {
                writer.write_all(b"0\r\n\r\n").await?;
            }
        }
        ("status", Some(status)) => answer(writer, shared, status as u16, "", text.as_bytes(), head_only).await?,
        ("slow", Some(millis)) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            answer(writer, shared, 200, "", text.as_bytes(), head_only).await?;
        }
        ("late-body", Some(millis)) => {
            writer.write_all(head(shared, 200, "content-length: 5\r\n").as_bytes()).await?;
            writer.flush().await?;
            tokio::time::sleep(Duration::from_millis(millis)).await;
            writer.write_all(b"late\n").await?;
        }
        ("echo", _) => answer(writer, shared, 200, "", &received.body, head_only).await?,
        _ => answer(writer, shared, 200, "", text.as_bytes(), head_only).await?,
    }
    writer.flush().await?;
    Ok(Next::Keep)
}

fn head(shared: &Shared, status: u16, more: &str) -> String {
    let extra = shared.extra.lock().unwrap().clone();
    format!(
        "HTTP/1.1 {status} Status\r\nx-origin: {}\r\nx-instance: {}\r\n{extra}{more}\r\n",
        shared.name, shared.instance
    )
}

async fn answer(
    writer: &mut WriteHalf<TcpStream>,
    shared: &Shared,
    status: u16,
    more: &str,
    body: &[u8],
    head_only: bool,
) -> io::Result<()> {
    let bodiless = status == 204 || status == 304;
    let length = if bodiless { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let mut bytes = head(shared, status, &(length + more)).into_bytes();
    if !head_only && !bodiless {
        bytes.extend_from_slice(body);
    }
    writer.write_all(&bytes).await
}

async fn events(writer: &mut WriteHalf<TcpStream>, shared: &Arc<Shared>, every: Option<Duration>) -> io::Result<()> {
    let fields = "content-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n";
    writer.write_all(head(shared, 200, fields).as_bytes()).await?;
    let mut ticks = shared.ticks.subscribe();
    let mut nth = 0;
    loop {
        let event = format!("id: {nth}\ndata: {} {}\n\n", shared.name, nth);
        writer.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
        writer.flush().await?;
        nth += 1;
        match every {
            Some(every) => tokio::time::sleep(every).await,
            None => {
                if ticks.changed().await.is_err() {
                    return writer.write_all(b"0\r\n\r\n").await;
                }
            }
        }
    }
}

async fn echo(
    reader: Reader<ReadHalf<TcpStream>>,
    mut writer: WriteHalf<TcpStream>,
    key: &str,
    shared: &Shared,
) -> io::Result<()> {
    let accept = derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: \
         {accept}\r\nx-origin: {}\r\n\r\n",
        shared.name
    );
    writer.write_all(head.as_bytes()).await?;
    let (half, early) = reader.into_parts();
    let stream = half.unsplit(writer);
    let mut socket = WebSocketStream::from_partially_read(stream, early, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            let answered = match message.to_text() {
                Ok("who") => format!("{} {}", shared.name, shared.instance).into(),
                _ => message,
            };
            if socket.send(answered).await.is_err() {
                break;
            }
        }
    }
    Ok(())
}

/// Reads the body as the head frames it; with `back`, sends each piece back as a chunk.
async fn read_body(
    reader: &mut Reader<ReadHalf<TcpStream>>,
    received: &mut Received,
    mut back: Option<&mut WriteHalf<TcpStream>>,
) -> io::Result<()> {
    let chunked = received.field("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let length: u64 = received.field("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    while chunked || received.body_bytes < length {
        let piece = if chunked {
            match reader.chunk().await? {
                Some(piece) => piece,
                None => break,
            }
        } else {
            reader.some(length - received.body_bytes).await?
        };
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.body_bytes += piece.len() as u64;
        let room = KEPT - received.body.len().min(KEPT);
        received.body.extend_from_slice(&piece[..piece.len().min(room)]);
        if let Some(writer) = back.as_deref_mut() {
            writer.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            writer.write_all(&piece).await?;
            writer.write_all(b"\r\n").await?;
            writer.flush().await?;
        }
    }
    received.complete = true;
    Ok(())
}
