//! Long-lived clients: WebSocket and server-sent events, which tell a proper end from a cut.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::client::{Outcome, Raw};
use super::wait::{PATIENCE, soon};
use super::wire::{Headers, field};

/// How a WebSocket ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WsEnd {
    /// A close frame with this code.
    Closed(u16),
    /// The connection ended without one.
    Cut(String),
}

pub struct WsClient {
    socket: WebSocketStream<TcpStream>,
    pub headers: Headers,
    sent: u64,
}

impl WsClient {
    pub async fn open(address: SocketAddr, path: &str) -> WsClient {
        Self::try_open(address, path, &[]).await.unwrap_or_else(|why| panic!("WebSocket {path}: {why}"))
    }

    pub async fn try_open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<WsClient, String> {
        let stream = TcpStream::connect(address).await.map_err(|why| why.to_string())?;
        let mut request = format!("ws://shop.test{path}").into_client_request().map_err(|why| why.to_string())?;
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).map_err(|why| why.to_string())?;
            request.headers_mut().insert(name, value.parse().map_err(|_| format!("bad value {value}"))?);
        }
        let opening = tokio_tungstenite::client_async(request, stream);
        let opened = tokio::time::timeout(PATIENCE, opening).await;
        let (socket, response) = opened.map_err(|_| "no answer".to_string())?.map_err(|why| why.to_string())?;
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        Ok(WsClient { socket, headers, sent: 0 })
    }

    pub fn version(&self) -> Option<&str> {
        field(&self.headers, "x-switchback-version")
    }

    /// Sends one message and waits for its echo.
    pub async fn ping_pong(&mut self) -> Result<(), WsEnd> {
        self.sent += 1;
        let text = format!("message {}", self.sent);
        self.send(&text).await.map_err(WsEnd::Cut)?;
        match tokio::time::timeout(PATIENCE, self.receive()).await {
            Ok(Ok(back)) if back == text => Ok(()),
            Ok(Ok(other)) => Err(WsEnd::Cut(format!("sent {text:?}, came back {other:?}"))),
            Ok(Err(end)) => Err(end),
            Err(_) => Err(WsEnd::Cut("no echo".into())),
        }
    }

    pub async fn send(&mut self, text: &str) -> Result<(), String> {
        self.socket.send(Message::text(text)).await.map_err(|why| why.to_string())
    }

    /// The next text message, or how it ended.
    pub async fn receive(&mut self) -> Result<String, WsEnd> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(Message::Close(frame))) => {
                    return Err(WsEnd::Closed(frame.map_or(1005, |frame| frame.code.into())));
                }
                Some(Ok(_)) => {}
                Some(Err(why)) => return Err(WsEnd::Cut(why.to_string())),
                None => return Err(WsEnd::Cut("end of stream".into())),
            }
        }
    }

    /// Which origin is at the other end.
    pub async fn who(&mut self) -> String {
        self.send("who").await.expect("the WebSocket is open");
        self.receive().await.expect("the WebSocket is open")
    }

    /// Waits for the end.
    pub async fn end(&mut self) -> WsEnd {
        loop {
            if let Err(end) = self.receive().await {
                return end;
            }
        }
    }

    pub async fn close(mut self) {
        let _ = self.socket.close(None).await;
    }
}

/// How an event stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SseEnd {
    /// With the terminating chunk.
    Clean,
    /// In the middle of the chunked body.
    Cut(String),
}

/// Event streams that are open, each watched for its end.
pub struct Watched(Vec<JoinHandle<(SseEnd, Instant)>>);

impl Watched {
    pub async fn open(address: SocketAddr, count: usize) -> Watched {
        let mut streams = Vec::new();
        for _ in 0..count {
            let mut stream = SseClient::open(address, "/sse").await;
            stream.next().await.unwrap();
            streams.push(tokio::spawn(async move { (stream.end().await, Instant::now()) }));
        }
        Watched(streams)
    }

    /// When they ended, each properly; the first first.
    pub async fn ends(self) -> Vec<Instant> {
        let mut ends = Vec::new();
        for stream in self.0 {
            let (end, at) = soon("a stream ends", stream).await.unwrap();
            assert_eq!(end, SseEnd::Clean);
            ends.push(at);
        }
        ends.sort();
        ends
    }
}

/// How many of these lie within so short a time, at most.
pub fn most_within(times: &[Instant], window: Duration) -> usize {
    let after = |from: &Instant| times.iter().filter(|at| **at >= *from && **at < *from + window).count();
    times.iter().map(after).max().unwrap_or(0)
}

pub struct SseClient {
    raw: Raw,
    pub status: u16,
    pub headers: Headers,
    pub text: String,
}

impl SseClient {
    pub async fn open(address: SocketAddr, path: &str) -> SseClient {
        Self::open_with(address, path, &[]).await
    }

    pub async fn open_with(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> SseClient {
        let mut raw = Raw::connect(address).await.expect("the listener accepts");
        let mut head = format!("GET {path} HTTP/1.1\r\naccept: text/event-stream\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += "host: shop.test\r\n";
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        raw.write((head + "\r\n").as_bytes()).await.expect("the request is sent");
        let answer: Result<(u16, Headers), Outcome> = super::soon("the head of an event stream", raw.head()).await;
        let (status, headers) = answer.unwrap_or_else(|why| panic!("event stream {path}: {why:?}"));
        SseClient { raw, status, headers, text: String::new() }
    }

    /// The next chunk of events.
    pub async fn next(&mut self) -> Result<String, SseEnd> {
        match self.raw.reader.chunk().await {
            Ok(Some(data)) => {
                let text = String::from_utf8_lossy(&data).into_owned();
                self.text += &text;
                Ok(text)
            }
            Ok(None) => Err(SseEnd::Clean),
            Err(why) => Err(SseEnd::Cut(why.to_string())),
        }
    }

    /// Waits for the end.
    pub async fn end(&mut self) -> SseEnd {
        loop {
            if let Err(end) = self.next().await {
                return end;
            }
        }
    }
}
