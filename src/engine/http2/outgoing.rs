//! The sending side of one stream, shared by the engine's view of it and the stream's own task: whoever has the last
//! word can say it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, Response};

#[derive(Clone)]
pub struct Outgoing(Arc<Mutex<Sending>>);

struct Sending {
    respond: SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
    ended: bool,
}

impl Outgoing {
    pub fn new(respond: SendResponse<Bytes>) -> Outgoing {
        Outgoing(Arc::new(Mutex::new(Sending { respond, body: None, ended: false })))
    }

    fn lock(&self) -> MutexGuard<'_, Sending> {
        // One task uses it, so the lock is never contended; the engine demands `Sync`.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_ended(&self) -> bool {
        self.lock().ended
    }

    /// The head of the final answer is out.
    pub fn is_begun(&self) -> bool {
        self.lock().body.is_some()
    }

    /// How many there may be is bounded by [`crate::engine::app`], for clients of every version.
    pub fn interim(&self, head: Response<()>) -> Result<(), h2::Error> {
        let sending = &mut *self.lock();
        match sending.body {
            Some(_) => Ok(()),
            None => sending.respond.send_informational(head),
        }
    }

    pub fn head(&self, head: Response<()>, ends: bool) -> Result<(), h2::Error> {
        let sending = &mut *self.lock();
        if sending.body.is_none() {
            sending.body = Some(sending.respond.send_response(head, ends)?);
            sending.ended = ends;
        }
        Ok(())
    }

    /// How much of `wanted` bytes the client takes now. `None`: the stream is gone.
    pub fn poll_room(&self, cx: &mut Context<'_>, wanted: usize) -> Poll<Option<Result<usize, h2::Error>>> {
        let sending = &mut *self.lock();
        let Some(body) = &mut sending.body else { return Poll::Ready(None) };
        body.reserve_capacity(wanted);
        body.poll_capacity(cx)
    }

    /// For what there is room for, or nothing at all.
    pub fn data(&self, data: Bytes, ends: bool) -> Result<(), h2::Error> {
        let sending = &mut *self.lock();
        let Some(body) = sending.body.as_mut().filter(|_| !sending.ended) else { return Ok(()) };
        body.send_data(data, ends)?;
        sending.ended = ends;
        Ok(())
    }

    pub fn trailers(&self, trailers: HeaderMap) -> Result<(), h2::Error> {
        let sending = &mut *self.lock();
        let Some(body) = sending.body.as_mut().filter(|_| !sending.ended) else { return Ok(()) };
        body.send_trailers(trailers)?;
        sending.ended = true;
        Ok(())
    }

    /// Ends the stream alone, in a way that no client takes for the end of an answer.
    pub fn reset(&self, why: Reason) {
        let sending = &mut *self.lock();
        if !sending.ended {
            sending.ended = true;
            match &mut sending.body {
                Some(body) => body.send_reset(why),
                None => sending.respond.send_reset(why),
            }
        }
    }

    /// Ready when the client has cancelled the stream, or is gone.
    pub fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        let sending = &mut *self.lock();
        if sending.ended {
            return Poll::Pending;
        }
        let polled = match &mut sending.body {
            Some(body) => body.poll_reset(cx),
            None => sending.respond.poll_reset(cx),
        };
        polled.map(drop)
    }
}
