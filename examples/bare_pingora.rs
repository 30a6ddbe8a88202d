//! Pingora with nothing on top: the floor that the end-to-end bench measures switchback against.
//!
//! One endpoint, no routing, no logging, no header work. What is tuned is how the engine is driven:
//!
//! - an accept loop of our own on one single-threaded runtime per thread, each with its own socket
//!   (`SO_REUSEPORT`) and its own pool of connections to the endpoint, so threads share nothing;
//! - an IO type of our own, [`ClientIo`]: it reads ahead into a 32 KiB buffer that it holds only while
//!   bytes are in it, and it keeps a response head back until the body comes, so both leave in one write;
//! - one engine call per request; between requests the connection is *parked*: a socket and a small
//!   task, no engine session;
//! - mimalloc.
//!
//! ```text
//! cargo run --release --example bare_pingora -- 127.0.0.1:8080 127.0.0.1:3000 1
//! ```

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use pingora_core::server::ShutdownWatch;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::Result;
use pingora_proxy::{HttpProxy, ProxyHttp, Session, http_proxy};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A client may stay silent this long between two requests.
const IDLE: Duration = Duration::from_secs(75);
/// Idle connections to the endpoint that a thread keeps.
const POOL: usize = 512;

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)).and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}\nusage: bare_pingora LISTEN-ADDRESS ENDPOINT-ADDRESS THREADS");
            ExitCode::from(2)
        }
    }
}

struct Arguments {
    listen: SocketAddr,
    endpoint: SocketAddr,
    threads: usize,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut next = |what: &str| words.next().ok_or(format!("{what} is missing"));
        let listen = next("LISTEN-ADDRESS")?.parse().map_err(|e| format!("LISTEN-ADDRESS: {e}"))?;
        let endpoint = next("ENDPOINT-ADDRESS")?.parse().map_err(|e| format!("ENDPOINT-ADDRESS: {e}"))?;
        let threads = next("THREADS")?.parse().map_err(|e| format!("THREADS: {e}"))?;
        Ok(Arguments { listen, endpoint, threads })
    }
}

/// Binds one socket per thread, then serves until the process is ended from outside.
fn serve(arguments: Arguments) -> Result<(), String> {
    let sockets = (0..arguments.threads.max(1)).map(|_| bind(arguments.listen)).collect::<io::Result<Vec<_>>>();
    let sockets = sockets.map_err(|e| format!("cannot listen on {}: {e}", arguments.listen))?;
    let threads = sockets.into_iter().map(|socket| {
        let endpoint = arguments.endpoint;
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(accept(socket, endpoint))
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().map_err(|_| "a thread panicked".to_string())?.map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// `TCP_NODELAY` is inherited by every accepted socket: one call less per connection.
fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

async fn accept(socket: std::net::TcpListener, endpoint: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    let conf = ServerConf { upstream_keepalive_pool_size: POOL, ..ServerConf::default() };
    let engine = Arc::new(http_proxy(&Arc::new(conf), Forward { peer: HttpPeer::new(endpoint, false, String::new()) }));
    // Never sent to: this program has no graceful end. Kept so that the engine has something to watch.
    let (_keep, shutdown) = watch::channel(false);
    loop {
        let (socket, peer) = listener.accept().await?;
        tokio::spawn(converse(engine.clone(), ClientIo::new(socket, peer), shutdown.clone()));
    }
}

/// One client connection from its first byte to its last: park, one request, park, …
async fn converse(engine: Arc<HttpProxy<Forward>>, io: ClientIo, shutdown: ShutdownWatch) {
    let mut io = Box::new(io);
    let mut settings = None;
    while matches!(tokio::time::timeout(IDLE, io.has_input()).await, Ok(Ok(()))) {
        let Some(reused) = exchange(&engine, io, settings, &shutdown).await else { return };
        let (stream, next) = reused.consume();
        let Ok(back) = stream.into_any().downcast() else { return };
        io = back;
        settings = next;
    }
}

/// One engine call. Not an `async fn`: the session would get a place in the task of every parked connection.
fn exchange<'a>(
    engine: &'a Arc<HttpProxy<Forward>>,
    io: Box<ClientIo>,
    settings: Option<HttpPersistentSettings>,
    shutdown: &'a ShutdownWatch,
) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'a>> {
    let mut session = ServerSession::new_http1(io as Stream);
    match settings {
        Some(settings) => settings.apply_to_session(&mut session),
        None => session.set_keepalive(Some(IDLE.as_secs())),
    }
    engine.process_new_http(session, shutdown)
}

/// Sends every request to one endpoint.
struct Forward {
    peer: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }
}

/// Bytes on their way, in a buffer that goes back to its thread's pool as soon as it is empty.
#[derive(Debug)]
struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    const SIZE: usize = 32 * 1024;
    /// Buffers a thread keeps for reuse: enough for its busy connections, bounded after a burst.
    const KEPT: usize = 256;

    fn take() -> Buffer {
        let bytes = POOLED.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; Buffer::SIZE].into_boxed_slice());
        Buffer { bytes, start: 0, end: 0 }
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }
}

thread_local! {
    static POOLED: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // While a thread ends its pool may be gone already; then the buffer is simply freed.
        let _ = POOLED.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < Buffer::KEPT {
                pool.push(bytes);
            }
        });
    }
}

/// A client's socket as the engine sees it.
#[derive(Debug)]
struct ClientIo {
    socket: TcpStream,
    digest: Arc<SocketDigest>,
    /// Read from the socket, not yet taken by the engine. Never an empty buffer.
    ahead: Option<Buffer>,
    /// Written by the engine, not yet sent: a response head that waits for its body.
    held: Option<Buffer>,
    /// The next write is the first since the last flush and may be held back.
    may_hold: bool,
}

impl ClientIo {
    /// A larger first write is no response head, or one that may as well go alone.
    const HOLD_MAX: usize = 8 * 1024;

    fn new(socket: TcpStream, peer: SocketAddr) -> ClientIo {
        let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
        // Known from `accept`: saves a `getpeername`. It is not set yet, so this cannot fail.
        let _ = digest.peer_addr.set(Some(PeerAddr::Inet(peer)));
        ClientIo { socket, digest: Arc::new(digest), ahead: None, held: None, may_hold: true }
    }

    /// Resolves when there is something to read (or the client is gone, which reading then tells).
    async fn has_input(&self) -> io::Result<()> {
        match self.ahead {
            Some(_) => Ok(()),
            None => self.socket.readable().await,
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        if std::mem::take(&mut self.may_hold) && length <= Self::HOLD_MAX {
            let held = self.held.insert(Buffer::take());
            pieces.iter().for_each(|piece| held.append(piece));
            return Poll::Ready(Ok(length));
        }
        while let Some(held) = &mut self.held {
            let mut all = [IoSlice::new(&[]); 8];
            all[0] = IoSlice::new(held.filled());
            let count = pieces.len().min(all.len() - 1);
            all[1..=count].copy_from_slice(&pieces[..count]);
            let sent = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, &all[..=count]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let rest = held.filled().len();
            if sent < rest {
                held.start += sent;
                continue;
            }
            self.held = None;
            if sent > rest {
                return Poll::Ready(Ok(sent - rest));
            }
        }
        Pin::new(&mut self.socket).poll_write_vectored(cx, pieces)
    }

    fn poll_send_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(held) = &mut self.held {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, held.filled()))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            held.start += sent;
            if held.filled().is_empty() {
                self.held = None;
            }
        }
        self.may_hold = true;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut buffer = match this.ahead.take() {
            Some(ahead) => ahead,
            // Reading ahead would only add a copy.
            None if into.remaining() >= Buffer::SIZE => return Pin::new(&mut this.socket).poll_read(cx, into),
            None => {
                let mut buffer = Buffer::take();
                let mut room = ReadBuf::new(&mut buffer.bytes);
                ready!(Pin::new(&mut this.socket).poll_read(cx, &mut room))?;
                buffer.end = room.filled().len();
                buffer
            }
        };
        let count = buffer.filled().len().min(into.remaining());
        into.put_slice(&buffer.filled()[..count]);
        buffer.start += count;
        if !buffer.filled().is_empty() {
            this.ahead = Some(buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send_held(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send_held(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for ClientIo {
    async fn shutdown(&mut self) {
        // The client may be gone: nobody is left to tell.
        let _ = tokio::io::AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for ClientIo {
    fn id(&self) -> UniqueIDType {
        self.socket.as_raw_fd()
    }
}

impl Ssl for ClientIo {}

impl GetTimingDigest for ClientIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for ClientIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for ClientIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.digest.clone())
    }
}

impl Peek for ClientIo {}
