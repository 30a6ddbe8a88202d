//! A client's socket, shared by the connection's task and the engine's view of one request.
//!
//! What the engine writes is gathered and sent at the end of the poll in which it was written: a head goes
//! out with the body that is already there, and never waits for one that is not. What the engine reads is
//! cut at the end of the request by its own framing, so bytes of a following request stay here.
//!
//! One task uses a link, so the lock inside is never contended; it is there because the engine demands
//! `Sync`.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::arrival::Arrived;
use super::buffers::{self, Input};
use super::clock::{self, after};
use super::listeners::ListenerState;
use super::socket::Socket;
use super::tls::Secured;
use super::tls::server::NOBODY;
use crate::limits::Entered;
use crate::sessions::connections::{Connection, Cut};
use crate::wire::body::BodyTracker;
use crate::wire::head::RequestBody;
use crate::wire::response::{self, Boundary, Farewell, ResponseTracker};

mod carried;

pub use carried::Offer;

/// Writes up to this size are gathered.
const SMALL_WRITE: usize = 8 * 1024;
/// Gathered bytes that make the engine wait for the client.
const OUTPUT_MAX: usize = 64 * 1024;
/// Bytes of a request body that the engine keeps for a second attempt.
pub const REPEATABLE: u64 = 64 * 1024;

#[derive(Debug)]
pub struct Link {
    pub client: SocketAddr,
    pub local: SocketAddr,
    /// What TLS knows of the connection; `None`: it is plain.
    pub secure: Option<Arc<Secured>>,
    pub connection: Arc<Connection>,
    listener: Arc<ListenerState>,
    /// Given back with the connection.
    _entered: Option<Entered>,
    state: Mutex<State>,
}

/// Why the engine was given an error instead of body bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFailure {
    /// The chunk framing of the request is broken.
    BadFraming,
    /// The body is larger than the service allows.
    TooLarge,
}

/// Which wait has lasted too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// The client sends no more of its body.
    Body,
    /// The client does not read.
    Write,
    /// The endpoint has not begun to answer.
    Response,
    /// As `Response`, for one attempt of several.
    Attempt,
    /// The endpoint fell silent in the middle of its answer, or both sides of an upgraded connection did.
    Silence,
    /// The whole exchange.
    Total,
}

/// How an exchange ended when the engine did not end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Deadline(Deadline),
    Cut(Cut),
    ClientGone,
}

/// The client has left, or takes nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientGone;

/// How long each wait of one exchange may last. `None`: for ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waits {
    pub body: Option<Duration>,
    pub write: Option<Duration>,
    pub silence: Option<Duration>,
    /// Least bytes a second of a body that is waited for, once all waits together have lasted for `body`.
    pub body_rate: Option<u64>,
    /// The same of an answer that the client takes, once they have lasted for `write`.
    pub send_rate: Option<u64>,
}

#[derive(Debug)]
struct State {
    socket: Socket,
    input: Option<Input>,
    /// Bytes of the head that the engine has not taken yet.
    head_left: usize,
    body: BodyTracker,
    body_max: Option<u64>,
    /// The exchange was upgraded: bytes pass both ways as they are.
    tunnel: bool,
    output: Vec<u8>,
    /// Response bytes taken from the engine for this request.
    written: u64,
    received: u64,
    read_failure: Option<ReadFailure>,
    waits: Waits,
    reading_since: u64,
    writing_since: u64,
    /// How long the client was waited for so far, and what came of it.
    read_pace: Pace,
    write_pace: Pace,
    last_progress: u64,
    /// How long the endpoint may take to begin its answer; `None` once it has.
    response_wait: Option<Duration>,
    /// As `response_wait`, for one attempt.
    attempt_wait: Option<Duration>,
    attempt_since: u64,
    /// When the engine last took bytes of the request.
    last_request_byte: u64,
    total_by: u64,
    watcher: Option<ResponseTracker>,
    /// Stop the engine's output at the next boundary of the stream.
    stop_at_boundary: bool,
    stopped: bool,
    unread: bool,
    answered: bool,
    truncated: bool,
    /// The client waits for `100 Continue`: that it sends nothing is not its fault.
    expecting: bool,
    /// The body of a stream's request has not ended.
    open: bool,
    /// The engine, which waits for the client to leave, is told that it did.
    interrupted: bool,
    fate: Option<Fate>,
}

impl Link {
    pub fn new(arrived: Arrived, listener: Arc<ListenerState>, connection: Arc<Connection>) -> Arc<Link> {
        let Arrived { socket, client, local, secure, entered } = arrived;
        let state = Mutex::new(State::new(socket));
        Arc::new(Link { client, local, secure, connection, listener, _entered: entered, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The listener is gone from the configuration.
    pub fn is_listener_draining(&self) -> bool {
        self.listener.is_draining()
    }

    pub fn listener(&self) -> &ListenerState {
        &self.listener
    }

    /// How the client came, for endpoints.
    pub fn scheme(&self) -> &'static str {
        if self.secure.is_some() { "https" } else { "http" }
    }

    /// Whether requests to this host may come on this connection, by what the client has proved on it.
    pub fn admits(&self, host: &[u8]) -> bool {
        // A connection from before the listener had TLS has proved nothing.
        let proved = self.secure.as_ref().map_or(NOBODY, |secured| secured.policy);
        self.listener.tls.load().as_ref().is_none_or(|server| server.admits(proved, host))
    }

    // ── between requests ────────────────────────────────────────────────────────────────────────────

    /// Looks at what has been received and not yet taken.
    pub fn with_input<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        look(self.state().input.as_ref().map_or(&[], Input::bytes))
    }

    /// Drops received bytes (empty lines before a request).
    pub fn skip(&self, count: usize) {
        self.state().consume(count);
    }

    /// Puts other bytes in the place of the first `count` received.
    pub fn replace_front(&self, count: usize, with: &[u8]) {
        if let Some(input) = &mut self.state().input {
            input.replace_front(count, with);
        }
    }

    /// Receives more, holding at most `limit` bytes. 0: the client has closed its side.
    pub fn poll_receive(&self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
        self.state().poll_receive(cx, limit)
    }

    /// The next `head_len` bytes are a request head with `body` behind it: what the engine sees now.
    pub fn begin(&self, head_len: usize, body: BodyTracker, expects_continue: bool, waits: Waits) {
        let state = &mut *self.state();
        state.head_left = head_len;
        state.body = body;
        state.body_max = None;
        state.tunnel = false;
        state.written = 0;
        state.received = 0;
        state.read_failure = None;
        state.waits = waits;
        state.reading_since = 0;
        state.writing_since = 0;
        state.read_pace = Pace::default();
        state.write_pace = Pace::default();
        state.last_progress = clock::now_ms();
        state.response_wait = None;
        state.attempt_wait = None;
        state.last_request_byte = state.last_progress;
        state.total_by = 0;
        state.watcher = None;
        state.stop_at_boundary = false;
        state.stopped = false;
        state.unread = false;
        state.answered = false;
        state.truncated = false;
        state.expecting = expects_continue;
        state.open = false;
        state.interrupted = false;
        state.fate = None;
    }

    // ── what the engine's side decides about the exchange ───────────────────────────────────────────

    /// The endpoint must begin to answer within `response` of the last byte it could have of the request, and
    /// everything end within `total` from now; the request may have `body_max` bytes of payload.
    pub fn set_deadlines(&self, response: Duration, total: Option<Duration>, silence: Duration, body_max: Option<u64>) {
        let state = &mut *self.state();
        state.body_max = body_max;
        state.response_wait = Some(response);
        // Waiting for a version to be ready was not the endpoint's time.
        state.last_request_byte = clock::now_ms();
        state.total_by = total.map_or(0, clock::deadline_in);
        state.waits.silence = Some(silence);
    }

    /// The answer is an event stream: silence is its nature, and it may be ended between two events.
    /// `coded`: its events are hidden by a content coding.
    pub fn becomes_stream(&self, coded: bool) {
        let state = &mut *self.state();
        state.waits.silence = None;
        state.total_by = 0;
        state.watcher = Some(match state.socket {
            Socket::Carried => ResponseTracker::of_events(coded),
            Socket::Plain(_) | Socket::Tls(_) => ResponseTracker::new(false),
        });
    }

    /// The exchange is being upgraded: bytes pass as they are.
    pub fn becomes_tunnel(&self, silence: Duration) {
        let state = &mut *self.state();
        state.tunnel = true;
        state.waits = Waits { write: state.waits.write, silence: Some(silence), ..Waits::default() };
        state.total_by = 0;
        state.watcher = Some(ResponseTracker::new(false));
    }

    /// The head of the final answer is being written.
    pub fn answered(&self) {
        let state = &mut *self.state();
        state.response_wait = None;
        state.attempt_wait = None;
        state.answered = true;
        state.last_progress = clock::now_ms();
    }

    /// Another endpoint is asked the same: the wait for the first byte of the answer begins anew.
    pub fn asked_again(&self) {
        self.state().last_request_byte = clock::now_ms();
    }

    /// An endpoint is asked that must begin to answer within `wait`, counted as in [`Link::set_deadlines`].
    pub fn attempt_begins(&self, wait: Duration) {
        let state = &mut *self.state();
        (state.attempt_wait, state.attempt_since) = (Some(wait), clock::now_ms());
    }

    /// It did not, but nobody else could: it is given as much time again.
    pub fn attempt_goes_on(&self) {
        self.state().attempt_since = clock::now_ms();
    }

    pub fn attempt_ends(&self) {
        self.state().attempt_wait = None;
    }

    /// Whether the engine can send the request once more: it is here to its end and was kept.
    pub fn is_repeatable(&self) -> bool {
        self.request_complete() && self.bytes_received() <= REPEATABLE
    }

    /// Makes the engine give up its present attempt without touching anything else: whoever waits for the client to
    /// leave is told that it did, once.
    pub fn interrupt(&self) {
        self.state().interrupted = true;
        self.connection.wake();
    }

    /// Whether to report that.
    pub fn take_interrupt(&self) -> bool {
        std::mem::take(&mut self.state().interrupted)
    }

    pub fn read_failure(&self) -> Option<ReadFailure> {
        self.state().read_failure
    }

    /// Bytes of the answer that the engine has written so far, head and framing included.
    pub fn bytes_written(&self) -> u64 {
        self.state().written
    }

    /// Payload bytes of the request body so far.
    pub fn bytes_received(&self) -> u64 {
        self.state().received
    }

    /// Whether the request has been received to its end.
    pub fn request_complete(&self) -> bool {
        let state = self.state();
        state.head_left == 0 && state.body.is_done() && !state.tunnel && !state.open
    }

    // ── the connection's task, after each poll of the engine ────────────────────────────────────────

    /// Sends what was gathered.
    pub fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state().poll_send(cx)
    }

    /// All that is due after each poll of the engine: sends what was gathered, notices that a client nobody
    /// reads from has left, and gives the earliest deadline of the exchange.
    pub fn after_poll(&self, cx: &mut Context<'_>) -> Result<Option<(u64, Deadline)>, ClientGone> {
        let state = &mut *self.state();
        if let Poll::Ready(Err(_)) = state.poll_send(cx) {
            return Err(ClientGone);
        }
        if state.unread && state.poll_left(cx).is_ready() {
            return Err(ClientGone);
        }
        Ok(state.next_deadline())
    }

    /// The exchange is about to be dropped: why.
    pub fn set_fate(&self, fate: Fate) {
        self.state().fate = Some(fate);
    }

    pub fn fate(&self) -> Option<Fate> {
        self.state().fate
    }

    /// When a client that does not read is given up.
    pub fn write_deadline(&self) -> Option<u64> {
        let state = self.state();
        let wait = state.waits.write?;
        (state.writing_since > 0).then(|| after(state.writing_since, wait))
    }

    /// Nobody reads from the client for now (the request is held): watch whether it leaves.
    pub fn set_unread(&self, unread: bool) {
        self.state().unread = unread;
    }

    /// Whether the head of the final answer has been handed over.
    pub fn is_answered(&self) -> bool {
        self.state().answered
    }

    /// The answer has no end of its own and is not whole: only a reset can tell the client.
    pub fn set_truncated(&self) {
        self.state().truncated = true;
    }

    /// Drops the connection in a way that the client cannot take for the end of an answer, if it must be.
    pub fn reset_if_truncated(&self) -> bool {
        let truncated = self.state().truncated;
        if truncated {
            self.reset();
        }
        truncated
    }

    /// The end of the connection will be a reset: nothing more is sent, and the client cannot take it for an end.
    pub fn reset(&self) {
        if let Some(tcp) = self.state().socket.tcp() {
            // Without it the client would see an end; there is nothing better to do if it fails.
            let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }

    /// Adds bytes of our own behind what the engine wrote (a farewell, a refusal).
    pub fn push(&self, bytes: &[u8]) {
        self.state().gather(bytes);
    }

    /// The stream is to end: stops the engine's output at the next boundary. `true` once it is there.
    pub fn stop_at_boundary(&self) -> bool {
        let state = &mut *self.state();
        state.stop_at_boundary = true;
        if let Some(watcher) = &state.watcher {
            state.stopped |= watcher.boundary() == Boundary::Clean;
        }
        state.stopped
    }

    /// What ends the stream properly from where it is; nothing for what is no stream.
    pub fn farewell(&self, cut: response::Cut) -> &'static [u8] {
        match self.state().watcher.as_ref().map(|watcher| watcher.farewell(cut)) {
            Some(Farewell::Say(bytes)) => bytes,
            Some(Farewell::Abrupt) | None => b"",
        }
    }

    /// No more from us: FIN.
    pub fn poll_close_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.state().socket).poll_shutdown(cx)
    }

    /// Receives and forgets. `Ready(false)`: the client has closed.
    pub fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let state = &mut *self.state();
        state.input = None;
        let mut scratch = [0u8; 4096];
        let mut buf = ReadBuf::new(&mut scratch);
        match ready!(Pin::new(&mut state.socket).poll_read(cx, &mut buf)) {
            Ok(()) => Poll::Ready(!buf.filled().is_empty()),
            Err(_) => Poll::Ready(false),
        }
    }

    // ── the engine's view ───────────────────────────────────────────────────────────────────────────

    pub(super) fn engine_read(&self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.state().engine_read(cx, out)
    }

    pub(super) fn engine_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.state().engine_write(cx, data)
    }
}

impl State {
    fn new(socket: Socket) -> State {
        State {
            socket,
            input: None,
            head_left: 0,
            body: BodyTracker::new(RequestBody::None),
            body_max: None,
            tunnel: false,
            output: Vec::new(),
            written: 0,
            received: 0,
            read_failure: None,
            waits: Waits::default(),
            reading_since: 0,
            writing_since: 0,
            read_pace: Pace::default(),
            write_pace: Pace::default(),
            last_progress: 0,
            response_wait: None,
            attempt_wait: None,
            attempt_since: 0,
            last_request_byte: 0,
            total_by: 0,
            watcher: None,
            stop_at_boundary: false,
            stopped: false,
            unread: false,
            answered: false,
            truncated: false,
            expecting: false,
            open: false,
            interrupted: false,
            fate: None,
        }
    }

    fn consume(&mut self, count: usize) {
        if let Some(input) = &mut self.input {
            input.consume(count);
            if input.is_empty() {
                self.input = None;
            }
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
        let mut input = match self.input.take() {
            Some(input) => input,
            None => {
                // Most often there is nothing yet, and to learn that no buffer is needed.
                ready!(self.socket.poll_readable(cx))?;
                Input::take()
            }
        };
        let mut buf = ReadBuf::new(input.room(limit));
        if buf.remaining() == 0 {
            self.input = Some(input);
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        let polled = Pin::new(&mut self.socket).poll_read(cx, &mut buf);
        let count = buf.filled().len();
        input.received(count);
        if !input.is_empty() {
            self.input = Some(input);
        }
        ready!(polled)?;
        Poll::Ready(Ok(count))
    }

    fn engine_read(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.tunnel {
            return self.tunnel_read(cx, out);
        }
        loop {
            let finished = self.head_left == 0 && self.body.is_done();
            if let Some(input) = self.input.as_ref().filter(|_| !finished) {
                let bytes = input.bytes();
                let offered = &bytes[..bytes.len().min(out.remaining())];
                let taken = if self.head_left > 0 {
                    let taken = offered.len().min(self.head_left);
                    self.head_left -= taken;
                    taken
                } else {
                    match self.body.admit(offered) {
                        Ok(taken) => taken,
                        Err(_) => return self.fail_read(ReadFailure::BadFraming),
                    }
                };
                out.put_slice(&offered[..taken]);
                self.consume(taken);
                self.received = self.body.data_bytes();
                if self.body_max.is_some_and(|max| self.received > max) {
                    return self.fail_read(ReadFailure::TooLarge);
                }
                self.read_pace.waited(self.reading_since);
                self.reading_since = 0;
                self.expecting &= self.received == 0;
                self.last_request_byte = clock::now_ms();
                if taken > 0 {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if finished {
                if std::mem::take(&mut self.interrupted) {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                // More bytes are the next request's; only that the client leaves is of interest.
                return self.poll_left(cx);
            }
            match self.poll_receive(cx, 0) {
                Poll::Pending => {
                    if !self.expecting && self.reading_since == 0 {
                        self.reading_since = clock::now_ms();
                        self.read_pace.begin(self.received);
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // The client has closed: the engine decides what that means.
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {}
            }
        }
    }

    /// Receives ahead; ready when the client has closed or the connection is broken.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match ready!(self.poll_receive(cx, 0)) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {}
                // No room to read on: the client is certainly there.
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn tunnel_read(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(input) = &self.input {
            let bytes = input.bytes();
            let count = bytes.len().min(out.remaining());
            out.put_slice(&bytes[..count]);
            self.consume(count);
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut self.socket).poll_read(cx, out);
        if polled.is_ready() {
            self.last_progress = clock::now_ms();
        }
        polled
    }

    fn fail_read(&mut self, failure: ReadFailure) -> Poll<io::Result<()>> {
        self.read_failure = Some(failure);
        Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
    }

    fn engine_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.stopped {
            // The connection's task ends the exchange in this very poll.
            return Poll::Pending;
        }
        let mut offered = data;
        if self.stop_at_boundary
            && let Some(watcher) = &self.watcher
        {
            let split = watcher.safe_split(data);
            if split > 0 {
                offered = &data[..split];
            }
        }
        let accepted = ready!(self.accept(cx, offered))?;
        self.written += accepted as u64;
        self.last_progress = clock::now_ms();
        self.expecting = false;
        if self.reading_since > 0 {
            // While the answer makes its way the client is not the one who is waited for.
            self.reading_since = self.last_progress;
        }
        if let Some(watcher) = &mut self.watcher {
            watcher.wrote(&offered[..accepted]);
            if self.stop_at_boundary && watcher.boundary() == Boundary::Clean {
                self.stopped = true;
            }
        }
        Poll::Ready(Ok(accepted))
    }

    fn gather(&mut self, bytes: &[u8]) {
        if self.output.capacity() == 0 {
            self.output = buffers::take_output();
        }
        self.output.extend_from_slice(bytes);
    }

    /// Small writes are gathered, large ones go out together with what was gathered before them.
    fn accept(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.len() <= SMALL_WRITE && self.output.len() + data.len() <= OUTPUT_MAX {
            self.gather(data);
            return Poll::Ready(Ok(data.len()));
        }
        loop {
            let slices = [io::IoSlice::new(&self.output), io::IoSlice::new(data)];
            let slices = if self.output.is_empty() { &slices[1..] } else { &slices[..] };
            let sent = match Pin::new(&mut self.socket).poll_write_vectored(cx, slices) {
                Poll::Pending => {
                    self.waits_to_write();
                    return Poll::Pending;
                }
                Poll::Ready(sent) => sent?,
            };
            self.writes_again();
            let gathered = self.output.len();
            self.output.drain(..sent.min(gathered));
            if sent > gathered {
                return Poll::Ready(Ok(sent - gathered));
            }
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, &self.output) {
                Poll::Pending => {
                    self.waits_to_write();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(sent)) => {
                    self.writes_again();
                    self.last_progress = clock::now_ms();
                    self.output.drain(..sent);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        buffers::give_output(std::mem::take(&mut self.output));
        if self.socket.keeps_writes() {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(flushed) => {
                    flushed?;
                    self.writes_again();
                }
                Poll::Pending => {
                    self.waits_to_write();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn waits_to_write(&mut self) {
        if self.writing_since == 0 {
            self.writing_since = clock::now_ms();
            self.write_pace.begin(self.written);
        }
    }

    fn writes_again(&mut self) {
        self.write_pace.waited(self.writing_since);
        self.writing_since = 0;
    }

    fn next_deadline(&self) -> Option<(u64, Deadline)> {
        let after = |since: u64, wait: Option<Duration>| match wait {
            Some(wait) if since > 0 => after(since, wait),
            Some(_) | None => 0,
        };
        let (reads, writes) = (self.reading_since > 0, self.writing_since > 0);
        // While the client is the one who does not read or send, the endpoint's silence is not its fault.
        let silence = if self.response_wait.is_none() && !reads && !writes && (self.written > 0 || self.tunnel) {
            after(self.last_progress, self.waits.silence)
        } else {
            0
        };
        let response = if reads || writes { 0 } else { after(self.last_request_byte, self.response_wait) };
        let asked = self.attempt_since.max(self.last_request_byte);
        let attempt = if reads || writes { 0 } else { after(asked, self.attempt_wait) };
        let body = if writes { 0 } else { after(self.reading_since, self.waits.body) };
        let slow_body = if writes {
            0
        } else {
            self.read_pace.until(self.reading_since, self.received, self.waits.body, self.waits.body_rate)
        };
        let slow_client =
            self.write_pace.until(self.writing_since, self.written, self.waits.write, self.waits.send_rate);
        let total = match (writes, reads) {
            (true, _) => Deadline::Write,
            (false, true) => Deadline::Body,
            (false, false) => Deadline::Total,
        };
        [
            (body, Deadline::Body),
            (slow_body, Deadline::Body),
            (slow_client, Deadline::Write),
            (after(self.writing_since, self.waits.write), Deadline::Write),
            // The last word of the request has precedence over that of an attempt.
            (response, Deadline::Response),
            (attempt, Deadline::Attempt),
            (silence, Deadline::Silence),
            (self.total_by, total),
        ]
        .into_iter()
        .filter(|(at, _)| *at > 0)
        .min_by_key(|(at, _)| *at)
    }
}

/// How a client keeps up while it is waited for. What came before the first wait earns nothing: it lay in buffers.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    begun: bool,
    /// Bytes that were there when the first wait began.
    from: u64,
    waited_ms: u64,
}

impl Pace {
    fn begin(&mut self, bytes: u64) {
        if !self.begun {
            *self = Pace { begun: true, from: bytes, waited_ms: 0 };
        }
    }

    /// A wait that began then is over. 0: there was none.
    fn waited(&mut self, since: u64) {
        if since > 0 {
            self.waited_ms += clock::now_ms().saturating_sub(since);
        }
    }

    /// When the present wait has lasted for too long in view of what came of all so far; 0: never.
    fn until(&self, since: u64, bytes: u64, grace: Option<Duration>, rate: Option<u64>) -> u64 {
        let (Some(grace), Some(rate), true) = (grace, rate, since > 0) else { return 0 };
        let earned = (bytes - self.from.min(bytes)).saturating_mul(1000) / rate;
        after(since, grace).saturating_add(earned).saturating_sub(self.waited_ms).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_keeps_the_pace_may_go_on_and_one_that_does_not_may_not() {
        let (grace, rate) = (Some(Duration::from_millis(500)), Some(100));
        let mut pace = Pace::default();
        pace.begin(1000);
        assert_eq!(pace.until(0, 1000, grace, rate), 0, "nobody waits");
        assert_eq!(pace.until(10_000, 1000, grace, None), 0, "there is no least");
        assert_eq!(pace.until(10_000, 1000, grace, rate), 10_500, "what was there before earns nothing");
        assert_eq!(pace.until(10_000, 1050, grace, rate), 11_000, "50 bytes are half a second");
        pace.waited_ms = 400;
        assert_eq!(pace.until(10_000, 1050, grace, rate), 10_600, "and waits add up");
        pace.begin(5000);
        assert_eq!(pace.from, 1000, "it begins once");
    }
}
