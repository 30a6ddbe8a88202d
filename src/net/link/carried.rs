//! The link of one stream on a connection that carries many (HTTP/2): the same deadlines and counters, but no bytes
//! of its own. Whoever moves the bytes tells what became of them.
//!
//! And the bytes of such a connection itself, for whoever cuts them into frames.

use super::*;

/// What may be sent of what the engine wants to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    UpTo(usize),
    /// The stream ends here; the stream's task knows.
    Stopped,
}

impl Link {
    /// For a stream on the connection of `of`.
    pub fn of_stream(of: &Link, connection: Arc<Connection>) -> Arc<Link> {
        let state = Mutex::new(State::new(Socket::Carried));
        Arc::new(Link {
            client: of.client,
            local: of.local,
            secure: of.secure.clone(),
            connection,
            listener: of.listener.clone(),
            _entered: None,
            state,
        })
    }

    /// A request begins. `open`: it has a body, which is still to come.
    pub fn begin_stream(&self, open: bool, expects_continue: bool, waits: Waits) {
        self.begin(0, BodyTracker::new(RequestBody::None), expects_continue, waits);
        self.state().open = open;
    }

    /// The engine wants more of the body, and there is nothing.
    pub fn body_waits(&self) {
        let state = &mut *self.state();
        if !state.expecting && state.reading_since == 0 {
            state.reading_since = clock::now_ms();
            state.read_pace.begin(state.received);
        }
    }

    /// So many bytes of the body go to the engine. `Err`: they are too many, and do not.
    pub fn body_came(&self, len: usize) -> Result<(), ReadFailure> {
        let state = &mut *self.state();
        state.received += len as u64;
        state.read_pace.waited(state.reading_since);
        state.reading_since = 0;
        state.expecting = false;
        state.last_request_byte = clock::now_ms();
        if state.body_max.is_some_and(|max| state.received > max) {
            state.read_failure = Some(ReadFailure::TooLarge);
            return Err(ReadFailure::TooLarge);
        }
        Ok(())
    }

    /// The request is here to its end.
    pub fn body_ended(&self) {
        let state = &mut *self.state();
        state.open = false;
        state.reading_since = 0;
        state.last_request_byte = clock::now_ms();
    }

    /// The client takes nothing for now.
    pub fn write_waits(&self) {
        self.state().waits_to_write();
    }

    /// How much of the answer's payload may go out.
    pub fn offer(&self, data: &[u8]) -> Offer {
        let state = self.state();
        if state.stopped {
            return Offer::Stopped;
        }
        match &state.watcher {
            Some(watcher) if state.stop_at_boundary => match watcher.safe_split(data) {
                0 => Offer::UpTo(data.len()),
                split => Offer::UpTo(split),
            },
            _ => Offer::UpTo(data.len()),
        }
    }

    /// These bytes of the answer are on their way.
    pub fn wrote(&self, bytes: &[u8]) {
        let state = &mut *self.state();
        state.written += bytes.len() as u64;
        state.last_progress = clock::now_ms();
        state.writes_again();
        state.expecting = false;
        if state.reading_since > 0 {
            state.reading_since = state.last_progress;
        }
        let stops = state.stop_at_boundary;
        if let Some(watcher) = &mut state.watcher {
            watcher.wrote(bytes);
            state.stopped |= stops && watcher.boundary() == Boundary::Clean;
        }
    }

    /// The payload that ends a stream of events properly from where it is. `None`: nothing does.
    pub fn farewell_of_payload(&self, cut: response::Cut) -> Option<&'static [u8]> {
        match self.state().watcher.as_ref()?.farewell(cut) {
            Farewell::Say(bytes) => Some(bytes),
            Farewell::Abrupt => None,
        }
    }

    // ── the bytes of a connection with streams ──────────────────────────────────────────────────────

    /// What was received first, then what comes.
    pub fn poll_read_raw(&self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state();
        if let Some(input) = &state.input {
            let bytes = input.bytes();
            let count = bytes.len().min(out.remaining());
            out.put_slice(&bytes[..count]);
            state.consume(count);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut state.socket).poll_read(cx, out)
    }

    pub fn poll_write_raw(&self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let state = &mut *self.state();
        let polled = Pin::new(&mut state.socket).poll_write_vectored(cx, slices);
        state.wrote_raw(polled.is_pending());
        polled
    }

    pub fn poll_flush_raw(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state();
        let polled = Pin::new(&mut state.socket).poll_flush(cx);
        if polled.is_pending() {
            state.wrote_raw(true);
        }
        polled
    }
}

impl State {
    fn wrote_raw(&mut self, waits: bool) {
        match waits {
            true if self.writing_since == 0 => self.writing_since = clock::now_ms(),
            true => {}
            false => self.writing_since = 0,
        }
    }
}
