//! The bytes of a client connection as the HTTP/2 library reads and writes them, watched for frames that never end,
//! frames that bring nothing, and trailers that are none.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::{Link, clock};
use crate::wire::calm::{Allowed, Calm, Flood};
use crate::wire::frames::{Frames, Passing};
use crate::wire::trailers::Trailers;

/// Malformed requests that nobody reads to their end; more than these end the connection.
const MALFORMED_MAX: usize = 32;

/// Streams whose requests ended in a way that no request may end, for who reads them.
#[derive(Debug, Default)]
pub struct Malformed(Mutex<Vec<u32>>);

impl Malformed {
    fn note(&self, stream: u32) -> Result<(), Flood> {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.push(stream);
        if streams.len() > MALFORMED_MAX { Err(Flood::Malformed) } else { Ok(()) }
    }

    /// Whether it is one of them; told once. Only asked of streams with trailers.
    pub fn take(&self, stream: u32) -> bool {
        // One task at a time uses it, so the lock is never contended; the engine demands `Sync`.
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = streams.iter().position(|malformed| *malformed == stream);
        found.map(|at| streams.swap_remove(at)).is_some()
    }
}

/// What was seen of a connection's frames.
#[derive(Debug)]
pub struct Watch {
    frames: Frames,
    calm: Calm,
    allowed: Allowed,
    flood: Option<Flood>,
    owes_since: u64,
    trailers: Trailers,
    malformed: Arc<Malformed>,
}

impl Watch {
    pub fn new(allowed: Allowed) -> Rc<RefCell<Watch>> {
        // The client owes us the preface from the beginning.
        let (frames, owes_since) = (Frames::of_client(), clock::now_ms());
        Rc::new(RefCell::new(Watch {
            frames,
            calm: Calm::default(),
            allowed,
            flood: None,
            owes_since,
            trailers: Trailers::default(),
            malformed: Arc::default(),
        }))
    }

    pub fn malformed(&self) -> Arc<Malformed> {
        self.malformed.clone()
    }

    /// The client sends more of what costs us than it may.
    pub fn flood(&self) -> Option<Flood> {
        self.flood
    }

    /// Since when a frame or a block of fields is begun and not ended; 0: nothing is.
    pub fn owes_since(&self) -> u64 {
        self.owes_since
    }

    /// A stream was answered to its end.
    pub fn answered(&mut self) {
        self.calm.answered();
    }

    fn received(&mut self, bytes: &[u8]) {
        let Watch { frames, calm, allowed, flood, trailers, malformed, .. } = self;
        let now = clock::now_ms();
        let mut whole = 0;
        frames.read(bytes, |passing| {
            let verdict = match passing {
                Passing::Begins(frame) => {
                    whole += 1;
                    trailers.begins(&frame);
                    calm.saw(&frame, now, allowed)
                }
                Passing::Fields(fields) => trailers.read(fields).map_or(Ok(()), |stream| malformed.note(stream)),
            };
            if let Err(too_much) = verdict {
                flood.get_or_insert(too_much);
            }
        });
        self.owes_since = match (self.frames.owes(), self.owes_since, whole) {
            (false, ..) => 0,
            // A block of fields that goes on over many frames is one thing.
            (true, since @ 1.., 0) => since,
            (true, since @ 1.., _) if self.frames.is_in_block() => since,
            (true, ..) => now,
        };
    }
}

pub struct RawIo {
    pub link: Arc<Link>,
    pub watch: Rc<RefCell<Watch>>,
}

impl AsyncRead for RawIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut watch = self.watch.borrow_mut();
        if watch.flood.is_some() {
            // Whoever polls looks at it next.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = self.link.poll_read_raw(cx, buf);
        watch.received(&buf.filled()[before..]);
        polled
    }
}

impl AsyncWrite for RawIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.link.poll_write_raw(cx, slices);
        if let Poll::Ready(Ok(sent)) = &polled {
            self.watch.borrow_mut().calm.sent(*sent);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.poll_flush_raw(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.poll_close_write(cx)
    }
}
