//! HTTP/2 over connections of our own: many requests on one, as many connections as they need.
//!
//! The engine's session does the work. What is here makes it one that the engine takes for a protocol of somebody
//! else's, and keeps the connections: the engine's own pool takes none that it has not made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use h2::SendStream;
use http::HeaderMap;
use pingora_core::connectors::http::v2::{ConnectionRef, H2HandshakeSettings, handshake};
use pingora_core::protocols::http::custom::client::Session;
use pingora_core::protocols::http::custom::{BodyWrite, CustomMessageWrite};
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::protocols::http::v2::write_body;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::{Digest, Stream as IoStream, UniqueIDType};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::runtime::Handle;

/// What the engine asks of a protocol that has messages beside the body.
pub type Messages = Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>;

/// The connections of one data thread, by what the engine pools by. Its lock is never waited for.
#[derive(Debug, Default)]
pub struct Pool(Mutex<HashMap<u64, Vec<Kept>>>);

struct Kept {
    connection: ConnectionRef,
    /// How often a request has begun on it.
    used: u64,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("used", &self.used).finish_non_exhaustive()
    }
}

impl Pool {
    fn kept(&self) -> MutexGuard<'_, HashMap<u64, Vec<Kept>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream on a connection that has room for it.
    pub async fn join(self: &Arc<Self>, key: u64, idle: Duration) -> Option<Shared> {
        let connection = {
            let mut all = self.kept();
            let of_key = all.get_mut(&key)?;
            of_key.retain(|kept| !kept.connection.is_closed() && !kept.connection.is_shutting_down());
            let kept = of_key.iter_mut().find(|kept| kept.connection.can_accept_streams(1))?;
            kept.used += 1;
            kept.connection.clone()
        };
        // Who cannot be joined after all is closed or full: another connection is made.
        let stream = connection.spawn_stream().await.ok().flatten()?;
        Some(Shared::new(stream, Keep { pool: self.clone(), key, idle }))
    }

    /// A stream on a connection that was just made.
    pub async fn begin(self: &Arc<Self>, key: u64, made: IoStream, peer: &HttpPeer, idle: Duration) -> Result<Shared> {
        let options = &peer.options;
        let mut settings = H2HandshakeSettings::new();
        settings.max_streams = options.max_h2_streams;
        settings.ping_interval = options.h2_ping_interval;
        settings.stream_window_size = options.h2_stream_window_size;
        settings.connection_window_size = options.h2_connection_window_size;
        let connection = handshake(made, settings).await?;
        let Some(stream) = connection.spawn_stream().await? else {
            return Error::e_explain(ErrorType::H2Error, "a new connection takes no stream");
        };
        self.kept().entry(key).or_default().push(Kept { connection, used: 1 });
        Ok(Shared::new(stream, Keep { pool: self.clone(), key, idle }))
    }

    fn uses(&self, key: u64, of: UniqueIDType) -> Option<u64> {
        Some(self.kept().get(&key)?.iter().find(|kept| kept.connection.id() == of)?.used)
    }

    /// Lets go of a connection on which nothing has begun since `used` was counted.
    fn drop_idle(&self, key: u64, id: UniqueIDType, used: u64) {
        let mut all = self.kept();
        let Some(of_key) = all.get_mut(&key) else { return };
        let is_idle = |kept: &Kept| kept.connection.id() == id && kept.used == used && kept.connection.is_idle();
        of_key.retain(|kept| !is_idle(kept) && !kept.connection.is_closed());
        if of_key.is_empty() {
            all.remove(&key);
        }
    }
}

/// Where a stream's connection is kept when the stream is over.
struct Keep {
    pool: Arc<Pool>,
    key: u64,
    idle: Duration,
}

/// One request on a connection.
pub struct Shared {
    /// `None` while it is being dropped.
    stream: Option<Http2Session>,
    /// The whole request was in its head.
    ended: bool,
    keep: Keep,
}

impl Shared {
    fn new(stream: Http2Session, keep: Keep) -> Shared {
        Shared { stream: Some(stream), ended: false, keep }
    }

    fn stream(&mut self) -> &mut Http2Session {
        self.stream.as_mut().expect("taken only in `drop`")
    }

    fn seen(&self) -> &Http2Session {
        self.stream.as_ref().expect("taken only in `drop`")
    }
}

/// However the request ends: the engine says nothing of those that are cut.
impl Drop for Shared {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        let connection = stream.conn.clone();
        drop(stream);
        let (pool, key, idle) = (self.keep.pool.clone(), self.keep.key, self.keep.idle);
        let id = connection.id();
        if !connection.is_idle() {
            return;
        }
        // The thread may be ending, and its connections with it.
        if let (Some(used), Ok(runtime)) = (pool.uses(key, id), Handle::try_current()) {
            runtime.spawn(async move {
                tokio::time::sleep(idle).await;
                pool.drop_idle(key, id, used);
            });
        }
    }
}

struct Body {
    to: SendStream<Bytes>,
    ended: bool,
    patience: Option<Duration>,
}

#[async_trait]
impl BodyWrite for Body {
    async fn write_all_buf(&mut self, data: &mut Bytes) -> Result<()> {
        match self.ended {
            true => Ok(()),
            false => write_body(&mut self.to, std::mem::take(data), false, self.patience).await,
        }
    }

    async fn finish(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.ended, true) {
            true => Ok(()),
            false => write_body(&mut self.to, Bytes::new(), true, self.patience).await,
        }
    }

    async fn cleanup(&mut self) -> Result<()> {
        Ok(())
    }

    fn upgrade_body_writer(&mut self) {}
}

#[async_trait]
impl Session for Shared {
    async fn write_request_header(&mut self, request: Box<RequestHeader>, end: bool) -> Result<()> {
        self.ended = end;
        self.stream().write_request_header(request, end)
    }

    async fn write_request_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.stream().write_request_body(data, end).await
    }

    async fn finish_request_body(&mut self) -> Result<()> {
        self.stream().finish_request_body()
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.stream().read_timeout = timeout;
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.stream().write_timeout = timeout;
    }

    async fn read_response_header(&mut self) -> Result<()> {
        self.stream().read_response_header().await
    }

    async fn read_response_body(&mut self) -> Result<Option<Bytes>> {
        self.stream().read_response_body().await
    }

    fn response_finished(&self) -> bool {
        self.seen().response_finished()
    }

    async fn shutdown(&mut self, _code: u32, _why: &str) {
        self.stream().shutdown();
    }

    fn response_header(&self) -> Option<&ResponseHeader> {
        self.seen().response_header()
    }

    fn was_upgraded(&self) -> bool {
        false
    }

    fn digest(&self) -> Option<&Digest> {
        self.seen().digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.stream().digest_mut()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.seen().server_addr()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.seen().client_addr()
    }

    async fn read_trailers(&mut self) -> Result<Option<HeaderMap>> {
        self.stream().read_trailers().await
    }

    fn fd(&self) -> UniqueIDType {
        self.seen().fd()
    }

    async fn check_response_end_or_error(&mut self, _of_head: bool) -> Result<bool> {
        self.stream().check_response_end_or_error()
    }

    fn take_request_body_writer(&mut self) -> Option<Box<dyn BodyWrite>> {
        let (ended, patience) = (self.ended, self.stream().write_timeout);
        let to = self.stream().take_request_body_writer()?;
        Some(Box::new(Body { to, ended, patience }))
    }

    // HTTP/2 has no messages beside the body.
    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<Messages> {
        Some(Box::new(NoMessages))
    }

    async fn drain_custom_messages(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        Some(Box::new(()))
    }
}

/// Ends at once.
pub struct NoMessages;

impl Stream for NoMessages {
    type Item = Result<Bytes>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(None)
    }
}
