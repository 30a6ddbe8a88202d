//! What the HTTP engine gets instead of a socket: one request's bytes in, gathered bytes out.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::link::Link;

/// The socket stays with the connection's task: dropping this closes nothing.
#[derive(Debug)]
pub struct EngineIo(pub Arc<Link>);

impl AsyncRead for EngineIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.engine_read(cx, buf)
    }
}

impl AsyncWrite for EngineIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.0.engine_write(cx, data)
    }

    /// Sending happens at the end of the poll: by then the rest of the answer may have joined.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The connection's task closes, after what was gathered has been sent.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl Shutdown for EngineIo {
    async fn shutdown(&mut self) {}
}

impl UniqueID for EngineIo {
    /// Only used by the engine to tell endpoint connections apart.
    fn id(&self) -> UniqueIDType {
        0
    }
}

impl Ssl for EngineIo {}

impl GetTimingDigest for EngineIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for EngineIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for EngineIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Peek for EngineIo {}
