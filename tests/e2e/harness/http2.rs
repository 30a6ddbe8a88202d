//! An HTTP/2 client that never retries and writes down what it saw, and one that sends frames of its own making.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::soon;

/// One connection with many requests on it.
pub struct H2Client {
    send: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

/// How one stream ended.
#[derive(Debug, Clone, Default)]
pub struct H2Seen {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// Status codes of interim answers.
    pub interim: Vec<u16>,
    /// Their fields.
    pub interim_fields: Vec<HeaderMap>,
    /// The stream was reset, or the connection ended: why.
    pub broken: Option<Broken>,
    pub took: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Reset(Reason),
    GoAway(Reason),
    /// The connection is gone without a word.
    Gone,
}

impl H2Seen {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name)?.to_str().ok()
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn is_whole(&self) -> bool {
        self.broken.is_none()
    }
}

/// A request under way: body still to be sent, answer still to be read.
pub struct H2Exchange {
    pub body: SendStream<Bytes>,
    response: ResponseFuture,
    started: Instant,
}

/// An answer whose head is here.
pub struct H2Answer {
    pub seen: H2Seen,
    body: Option<h2::RecvStream>,
    started: Instant,
}

impl H2Client {
    pub async fn connect(address: SocketAddr) -> H2Client {
        Self::connect_with(address, &h2::client::Builder::new()).await
    }

    pub async fn connect_with(address: SocketAddr, builder: &h2::client::Builder) -> H2Client {
        let tcp = TcpStream::connect(address).await.expect("the listener accepts");
        tcp.set_nodelay(true).expect("a TCP socket");
        Self::over(tcp, builder).await
    }

    /// On what stands between: a TCP connection, or TLS on one.
    pub async fn over<T>(transport: T, builder: &h2::client::Builder) -> H2Client
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (send, connection) = builder.handshake(transport).await.expect("the preface is sent");
        H2Client { send, driver: tokio::spawn(connection) }
    }

    /// How the connection ended, once it has.
    pub async fn end(self) -> Result<(), h2::Error> {
        drop(self.send);
        soon("the end of an HTTP/2 connection", self.driver).await.expect("it does not panic")
    }

    pub fn is_closed(&self) -> bool {
        self.driver.is_finished()
    }

    pub async fn get(&self, path: &str) -> H2Seen {
        self.send(request("GET", path, &[]), b"").await
    }

    pub async fn get_with(&self, path: &str, fields: &[(&str, &str)]) -> H2Seen {
        self.send(request("GET", path, fields), b"").await
    }

    pub async fn post(&self, path: &str, body: &[u8]) -> H2Seen {
        self.send(request("POST", path, &[]), body).await
    }

    pub async fn send(&self, request: Request<()>, body: &[u8]) -> H2Seen {
        match self.begin(request, body.is_empty()).await {
            Ok(mut exchange) => {
                if !body.is_empty() {
                    let _ = exchange.body.send_data(Bytes::copy_from_slice(body), true);
                }
                exchange.answer().await
            }
            Err(why) => H2Seen { broken: Some(broken(&why)), ..H2Seen::default() },
        }
    }

    /// Sends the head. `ends`: there is no body.
    pub async fn begin(&self, request: Request<()>, ends: bool) -> Result<H2Exchange, h2::Error> {
        let mut send = self.send.clone().ready().await?;
        let (response, body) = send.send_request(request, ends)?;
        Ok(H2Exchange { body, response, started: Instant::now() })
    }
}

impl H2Exchange {
    /// The whole answer, or how it ended.
    pub async fn answer(self) -> H2Seen {
        let answer = self.head().await;
        answer.rest().await
    }

    /// Waits for the head of the answer. The stream is cancelled when what comes back is dropped.
    pub async fn head(self) -> H2Answer {
        let H2Exchange { body, mut response, started } = self;
        let mut seen = H2Seen::default();
        let both = std::future::poll_fn(|cx| {
            while let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
                seen.interim.push(interim.status().as_u16());
                seen.interim_fields.push(interim.into_parts().0.headers);
            }
            Pin::new(&mut response).poll(cx)
        });
        let head = soon("the head of an answer", both).await;
        drop(body);
        match head {
            Ok(head) => {
                let (parts, body) = head.into_parts();
                seen.status = parts.status.as_u16();
                seen.headers = parts.headers;
                seen.took = started.elapsed();
                H2Answer { seen, body: Some(body), started }
            }
            Err(why) => {
                seen.broken = Some(broken(&why));
                seen.took = started.elapsed();
                H2Answer { seen, body: None, started }
            }
        }
    }

    /// Waits for an interim answer with this status.
    pub async fn until_interim(&mut self, status: u16) {
        let response = &mut self.response;
        let interim = std::future::poll_fn(|cx| match response.poll_informational(cx) {
            Poll::Ready(Some(Ok(interim))) => Poll::Ready(interim.status().as_u16()),
            Poll::Ready(other) => panic!("no interim answer: {:?}", other.map(|it| it.map(|it| it.status()))),
            Poll::Pending => Poll::Pending,
        });
        assert_eq!(soon("an interim answer", interim).await, status);
    }

    /// Cancels it.
    pub fn cancel(mut self) {
        self.body.send_reset(Reason::CANCEL);
    }
}

impl H2Answer {
    /// The next piece of the body; `None` at its end, proper or not.
    pub async fn next(&mut self) -> Option<Bytes> {
        let body = self.body.as_mut()?;
        match soon("more of a body", body.data()).await {
            Some(Ok(data)) => {
                let _ = body.flow_control().release_capacity(data.len());
                self.seen.body.extend_from_slice(&data);
                Some(data)
            }
            Some(Err(why)) => {
                self.seen.broken = Some(broken(&why));
                self.body = None;
                None
            }
            None => {
                match soon("trailers", body.trailers()).await {
                    Ok(trailers) => self.seen.trailers = trailers,
                    Err(why) => self.seen.broken = Some(broken(&why)),
                }
                self.body = None;
                None
            }
        }
    }

    pub async fn rest(mut self) -> H2Seen {
        while self.next().await.is_some() {}
        self.seen.took = self.started.elapsed();
        self.seen
    }
}

pub fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("http://shop.test{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.version(http::Version::HTTP_2).body(()).expect("a request")
}

fn broken(why: &h2::Error) -> Broken {
    match why.reason() {
        Some(reason) if why.is_go_away() => Broken::GoAway(reason),
        Some(reason) => Broken::Reset(reason),
        None => Broken::Gone,
    }
}

/// A connection on which exact frames are sent.
pub struct H2Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

impl RawFrame {
    /// The reason of a RST_STREAM or GOAWAY.
    pub fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![len[1], len[2], len[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Fields as HPACK literals that use no table.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_bytes(), value.as_bytes()] {
            integer(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// The status at the beginning of a block: it stands first, by its index or with its name's.
pub fn status(block: &[u8]) -> Option<u16> {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match *block {
        // A table size may stand before it.
        [0x20..0x40, ref rest @ ..] => status(rest),
        [index @ 0x88..=0x8e, ..] => Some(INDEXED[usize::from(index - 0x88)]),
        [0x08 | 0x18 | 0x48, 3, a, b, c, ..] => std::str::from_utf8(&[a, b, c]).ok()?.parse().ok(),
        // Digits have Huffman codes of five and six bits: 0 to 2 are 00000 to 00010, 3 to 9 are 011001 to 011111.
        [0x08 | 0x18 | 0x48, coded @ 0x81..=0x83, ref rest @ ..] => {
            let bits =
                rest.iter().take(usize::from(coded & 0x7f)).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
            let mut left = u32::from(coded & 0x7f) * 8;
            let mut number = 0;
            for _ in 0..3 {
                let take = |count: u32, left: u32| bits >> (left - count) & ((1 << count) - 1);
                let five = take(5, left);
                let (digit, size) = if five <= 2 { (five, 5) } else { (take(6, left) - 0x19 + 3, 6) };
                (number, left) = (number * 10 + digit as u16, left - size);
            }
            Some(number)
        }
        _ => None,
    }
}

/// With a prefix of seven bits (RFC 7541 section 5.1).
fn integer(out: &mut Vec<u8>, value: usize) {
    if value < 127 {
        out.push(value as u8);
        return;
    }
    out.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// The four pseudo-fields of a request, then `more`.
pub fn head<'a>(method: &'a str, path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":authority", "shop.test"), (":path", path)];
    block(&[&pseudo[..], more].concat())
}

impl H2Raw {
    /// Nothing is sent yet.
    pub async fn bare(address: SocketAddr) -> H2Raw {
        let stream = TcpStream::connect(address).await.expect("the listener accepts");
        stream.set_nodelay(true).expect("a TCP socket");
        H2Raw { stream, buffer: Vec::new() }
    }

    /// After the preface and SETTINGS.
    pub async fn connect(address: SocketAddr) -> H2Raw {
        Self::connect_with(address, &[]).await
    }

    pub async fn connect_with(address: SocketAddr, settings: &[(u16, u32)]) -> H2Raw {
        let mut raw = Self::bare(address).await;
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        raw.write(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &payload)[..]].concat()).await;
        raw
    }

    /// A peer that has closed is judged by what it said.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.write(&frame(kind, flags, stream, payload)).await
    }

    /// A request that is nothing but a head of these fields.
    pub async fn request(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields)).await;
    }

    /// The status of the answer on a stream; `None`: it was reset, or the connection has ended.
    pub async fn status_of(&mut self, stream: u32) -> Option<u16> {
        let is_verdict = |frame: &RawFrame| {
            frame.kind == GOAWAY || (frame.stream == stream && matches!(frame.kind, HEADERS | RESET))
        };
        status(&self.until(is_verdict).await.filter(|frame| frame.kind == HEADERS)?.payload)
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<RawFrame> {
        loop {
            if self.buffer.len() >= 9 {
                let len = u32::from_be_bytes([0, self.buffer[0], self.buffer[1], self.buffer[2]]) as usize;
                if self.buffer.len() >= 9 + len {
                    let bytes: Vec<u8> = self.buffer.drain(..9 + len).collect();
                    let stream = u32::from_be_bytes(bytes[5..9].try_into().expect("four bytes"));
                    return Some(RawFrame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() });
                }
            }
            match soon("a frame", self.stream.read_buf(&mut self.buffer)).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The first frame that is wanted; acknowledges SETTINGS and PINGs on the way. `None` at the end.
    pub async fn until(&mut self, wanted: impl Fn(&RawFrame) -> bool) -> Option<RawFrame> {
        while let Some(frame) = self.next().await {
            if wanted(&frame) {
                return Some(frame);
            }
            if frame.kind == SETTINGS && frame.flags == 0 {
                self.send(SETTINGS, 1, 0, b"").await;
            }
            if frame.kind == PING && frame.flags == 0 {
                self.send(PING, 1, 0, &frame.payload).await;
            }
        }
        None
    }

    /// Reads whatever comes; `false` at the end of the connection.
    pub async fn next_raw(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(read) if read > 0)
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> Vec<RawFrame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }
}
