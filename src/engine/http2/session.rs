//! One stream as the engine sees it: a request whose head is here, a body to read, an answer to write.
//!
//! The engine has a session of its own for HTTP/2. This one is ours because only here can it be seen who waits for
//! whom, which is what every deadline is about; and it passes interim answers on, which the engine's drops.
//! Trailers of a request end here: the engine has no place for them. What may not stand in them makes the request
//! malformed all the same (RFC 9113 section 8.1.1): its stream is reset, and no endpoint gets it as whole.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream};
use http::header::{CONNECTION, DATE, HeaderMap, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{Response, Version};
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use super::io::Malformed;
use super::outgoing::Outgoing;
use crate::engine::shared::{Messages, NoMessages};
use crate::net::link::REPEATABLE;
use crate::net::{Link, Offer};
use crate::wire::trailers;

pub struct StreamSession {
    head: RequestHeader,
    body: RecvStream,
    body_done: bool,
    body_read: usize,
    kept: Option<Kept>,
    malformed: Arc<Malformed>,
    out: Outgoing,
    link: Arc<Link>,
    written: Option<Box<ResponseHeader>>,
    body_sent: usize,
    /// The engine forwards what is beside the body, of which there is nothing.
    has_messages: bool,
}

/// The body so far, for another endpoint.
enum Kept {
    All(BytesMut),
    TooMuch,
}

impl StreamSession {
    /// `malformed`: of the connection.
    pub fn new(
        head: RequestHeader,
        body: RecvStream,
        malformed: Arc<Malformed>,
        out: Outgoing,
        link: Arc<Link>,
    ) -> StreamSession {
        let body_done = body.is_end_stream();
        StreamSession {
            head,
            body,
            body_done,
            body_read: 0,
            kept: None,
            malformed,
            out,
            link,
            written: None,
            body_sent: 0,
            has_messages: false,
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if self.body_done {
            return Poll::Ready(Ok(None));
        }
        match self.body.poll_data(cx) {
            Poll::Pending => {
                self.link.body_waits();
                Poll::Pending
            }
            Poll::Ready(None) => {
                let trailers = ready!(self.body.poll_trailers(cx)).map_err(cancelled)?;
                if trailers.is_some_and(|trailers| self.is_malformed(&trailers)) {
                    self.out.reset(Reason::PROTOCOL_ERROR);
                    return Poll::Ready(Error::e_explain(ErrorType::InvalidHTTPHeader, "the trailers").map_err(down));
                }
                self.body_done = true;
                self.link.body_ended();
                Poll::Ready(Ok(None))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(cancelled(error))),
            Poll::Ready(Some(Ok(data))) => {
                if self.link.body_came(data.len()).is_err() {
                    return Poll::Ready(Error::e_explain(ErrorType::ReadError, "body too large").map_err(down));
                }
                // It is the engine's now. This fails only on a stream that is gone, which the next call tells.
                let _ = self.body.flow_control().release_capacity(data.len());
                self.body_read += data.len();
                match &mut self.kept {
                    Some(Kept::All(kept)) if kept.len() + data.len() <= REPEATABLE as usize => {
                        kept.extend_from_slice(&data)
                    }
                    Some(kept) => *kept = Kept::TooMuch,
                    None => {}
                }
                if self.body.is_end_stream() {
                    self.body_done = true;
                    self.link.body_ended();
                }
                Poll::Ready(Ok(Some(data)))
            }
        }
    }

    fn is_malformed(&self, trailers: &HeaderMap) -> bool {
        let is_noted = self.malformed.take(self.body.stream_id().into());
        is_noted || trailers.keys().any(|name| trailers::is_forbidden(name.as_str().as_bytes()))
    }

    /// Ready only when the present attempt is to be given up.
    fn poll_interrupt(&self) -> Poll<Result<Option<Bytes>>> {
        match self.link.take_interrupt() {
            true => Poll::Ready(Error::e_explain(ErrorType::ReadError, "called back").map_err(down)),
            false => Poll::Pending,
        }
    }

    fn send_head(&mut self, mut head: Box<ResponseHeader>, ends: bool) -> Result<()> {
        // These belong to HTTP/1 connections (RFC 9113 section 8.2.2).
        for name in [TRANSFER_ENCODING, CONNECTION, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION] {
            head.remove_header(&name);
        }
        if head.status.is_informational() {
            let interim = Response::from_parts(head.as_owned_parts(), ());
            // Who was told to go on with the body is waited for again.
            self.link.wrote(b"");
            return self.out.interim(interim).map_err(|error| gone("an interim answer", error));
        }
        if self.written.is_some() {
            return Ok(());
        }
        head.insert_header(DATE, get_cached_date())?;
        let response = Response::from_parts(head.as_owned_parts(), ());
        self.out.head(response, ends).map_err(|error| gone("the head", error))?;
        self.link.wrote(b"");
        self.written = Some(head);
        Ok(())
    }

    async fn send_data(&mut self, mut data: Bytes, ends: bool) -> Result<()> {
        while !data.is_empty() {
            let room = poll_fn(|cx| self.poll_room(cx, &data)).await?;
            let part = data.split_to(room.min(data.len()));
            self.link.wrote(&part);
            self.body_sent += part.len();
            let last = ends && data.is_empty();
            self.out.data(part, last).map_err(|error| gone("the body", error))?;
            if last {
                return Ok(());
            }
        }
        match ends {
            true => self.end(),
            false => Ok(()),
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize>> {
        let offered = match self.link.offer(data) {
            Offer::UpTo(offered) => offered,
            // The stream's task ends it in this very poll.
            Offer::Stopped => return Poll::Pending,
        };
        match self.out.poll_room(cx, offered) {
            Poll::Ready(Some(Ok(room))) if room > 0 => Poll::Ready(Ok(room.min(offered))),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {
                self.link.write_waits();
                Poll::Pending
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(gone("the body", error))),
            Poll::Ready(None) => Poll::Ready(Error::e_explain(ErrorType::H2Error, "the stream is gone").map_err(down)),
        }
    }

    fn end(&mut self) -> Result<()> {
        match self.written {
            Some(_) => self.out.data(Bytes::new(), true).map_err(|error| gone("the end", error)),
            None => Ok(()),
        }
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

fn down(error: Box<Error>) -> Box<Error> {
    error.into_down()
}

fn cancelled(error: h2::Error) -> Box<Error> {
    down(Error::because(ErrorType::ReadError, "the client cancelled its request", error))
}

fn gone(what: &'static str, error: h2::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, format!("the client did not take {what}"), error).into_down()
}

#[async_trait]
impl Session for StreamSession {
    fn req_header(&self) -> &RequestHeader {
        &self.head
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_body(cx)).await
    }

    /// What is not wanted is not waited for: the stream's end tells the client.
    async fn drain_request_body(&mut self) -> Result<()> {
        Ok(())
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, ends: bool) -> Result<()> {
        self.send_head(head, ends)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, ends: bool) -> Result<()> {
        self.send_head(Box::new(head.clone()), ends)
    }

    async fn write_body(&mut self, data: Bytes, ends: bool) -> Result<()> {
        self.send_data(data, ends).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.out.trailers(trailers).map_err(|error| gone("the trailers", error))
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut ended = false;
        for task in tasks {
            ended |= match task {
                HttpTask::Header(head, ends) => {
                    self.send_head(head, ends)?;
                    ends
                }
                HttpTask::Body(data, ends) => {
                    if let Some(data) = data.filter(|data| !data.is_empty()) {
                        self.send_data(data, ends).await?;
                    }
                    ends
                }
                HttpTask::UpgradedBody(..) => {
                    return Error::e_explain(ErrorType::InternalError, "an upgrade over HTTP/2");
                }
                HttpTask::Trailer(trailers) => {
                    if let Some(trailers) = trailers {
                        self.out.trailers(*trailers).map_err(|error| gone("the trailers", error))?;
                    }
                    true
                }
                HttpTask::Done => true,
                HttpTask::Failed(error) => return Err(error),
            };
        }
        if ended {
            self.end()?;
        }
        Ok(ended)
    }

    // Every wait on the client has its deadline in the link.
    fn set_read_timeout(&mut self, _timeout: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, _timeout: Option<Duration>) {}

    fn get_write_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_total_drain_timeout(&mut self, _timeout: Option<Duration>) {}

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        None
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.head.method, self.head.uri.path())
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    async fn shutdown(&mut self, _code: u32, _why: &str) {
        self.out.reset(Reason::INTERNAL_ERROR);
    }

    fn is_body_done(&mut self) -> bool {
        self.body_done
    }

    async fn finish(&mut self) -> Result<()> {
        self.end()
    }

    fn is_body_empty(&mut self) -> bool {
        self.body_read == 0 && self.body_done
    }

    /// Whether the client leaves is watched by the stream's task.
    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        match no_body_expected || self.body_done {
            true => poll_fn(|_| self.poll_interrupt()).await,
            false => self.read_body_bytes().await,
        }
    }

    fn body_bytes_sent(&self) -> usize {
        self.body_sent
    }

    fn body_bytes_read(&self) -> usize {
        self.body_read
    }

    fn digest(&self) -> Option<&Digest> {
        None
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        None
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    /// For the engine's subrequests, which are not used.
    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {
        self.kept.get_or_insert_with(|| Kept::All(BytesMut::new()));
    }

    fn retry_buffer_truncated(&self) -> bool {
        matches!(self.kept, Some(Kept::TooMuch))
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        match &self.kept {
            Some(Kept::All(kept)) if !kept.is_empty() => Some(Bytes::copy_from_slice(kept)),
            _ => None,
        }
    }

    // HTTP/2 has no messages beside the body.
    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    /// Asked for first only towards an endpoint whose connection is our own ([`crate::engine::shared`]).
    fn take_custom_message_reader(&mut self) -> Option<Messages> {
        self.has_messages = true;
        Some(Box::new(NoMessages))
    }

    fn restore_custom_message_reader(&mut self, _reader: Messages) -> Result<()> {
        Ok(())
    }

    /// Towards other endpoints the engine begins with this, and without it takes no further trouble.
    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        std::mem::take(&mut self.has_messages).then(|| Box::new(()) as Box<dyn CustomMessageWrite>)
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}

/// The request to the engine: in origin form, with a Host, and cookies in one piece.
pub fn head_for_engine(mut parts: http::request::Parts, host: http::HeaderValue) -> RequestHeader {
    crate::wire::head2::join_cookies(&mut parts.headers);
    parts.headers.insert(http::header::HOST, host);
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = parts.uri.into_parts().path_and_query;
    parts.uri = http::Uri::from_parts(uri).unwrap_or_default();
    parts.version = Version::HTTP_2;
    RequestHeader::from(parts)
}
