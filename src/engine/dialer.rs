//! Connections to endpoints that the engine cannot make by itself: it would build a TLS configuration for each, and
//! knows no PROXY protocol.
//!
//! The engine has an interface for protocols that are not its own. For HTTP/1.1 it is given a connection only, over which
//! it then speaks and which it keeps for the next request like any other; for HTTP/2 a stream ([`super::shared`]).

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::connectors::http::custom::{Connection, Connector};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{GetProxyDigest, GetSocketDigest, SocketDigest, UniqueID};
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use super::secured::Secured;
use super::shared::{Pool, Shared};
use super::ways::{Way, WayTls, Ways};
use crate::config::model::tls::Alpn;
use crate::endpoints::dial::is_refused;

/// How a handshake that did not end in time is told from a connection that was not made.
pub const HANDSHAKE_LATE: &str = "the endpoint did not finish the TLS handshake";

#[derive(Debug)]
pub struct Dialer {
    ways: Arc<Ways>,
    shared: Arc<Pool>,
}

impl Dialer {
    pub fn new(ways: Arc<Ways>) -> Dialer {
        Dialer { ways, shared: Arc::default() }
    }
}

#[async_trait]
impl Connector for Dialer {
    type Session = Shared;

    async fn get_http_session<P: Peer + Send + Sync + 'static>(&self, asked: &P) -> Result<(Connection<Shared>, bool)> {
        let asked: &dyn Any = asked;
        let asked = asked.downcast_ref::<HttpPeer>().and_then(|peer| Some((peer, self.ways.find(peer.group_key)?)));
        let Some((peer, way)) = asked else {
            return Error::e_explain(ErrorType::InternalError, "a connection was asked for that nobody described");
        };
        let made = connect(peer, &way).await?;
        match way.alpn {
            Alpn::Http11 => Ok((Connection::Stream(made), false)),
            Alpn::H2 => {
                let idle = peer.options.idle_timeout.unwrap_or_default();
                let shared = self.shared.begin(peer.reuse_hash(), made, peer, idle).await?;
                Ok((Connection::Session(shared), false))
            }
        }
    }

    async fn reused_http_session<P: Peer + Send + Sync + 'static>(&self, peer: &P) -> Option<Shared> {
        // Connections for one request at a time are in the engine's own pool, by other keys.
        self.shared.join(peer.reuse_hash(), peer.idle_timeout().unwrap_or_default()).await
    }

    /// It is kept by dropping it: so are those that the engine does not give back.
    async fn release_http_session<P: Peer + Send + Sync + 'static>(&self, _: Shared, _: &P, _: Option<Duration>) {}
}

async fn connect(peer: &HttpPeer, way: &Way) -> Result<pingora_core::protocols::Stream> {
    let until = Instant::now() + way.patience;
    let late = |what: &str| Error::explain(ErrorType::ConnectTimedout, format!("{what} within {:?}", way.patience));
    let reached = timeout_at(until, reach(&peer._address, way)).await;
    let stream = reached.map_err(|_| late("no connection"))??;
    let Some(WayTls { secure, name }) = &way.tls else { return Ok(Box::new(stream)) };
    match timeout_at(until, secure.handshake(name, way.alpn, stream)).await {
        Ok(Ok(stream)) => Ok(Box::new(Secured(stream))),
        Ok(Err(why)) => Error::e_explain(ErrorType::TLSHandshakeFailure, why),
        Err(_) => Err(late(HANDSHAKE_LATE)),
    }
}

/// The connection below, with what is said before anything else.
async fn reach(address: &SocketAddr, way: &Way) -> Result<Stream> {
    let stream: io::Result<Stream> = match address {
        SocketAddr::Inet(address) => TcpStream::connect(address).await.map(Stream::from),
        SocketAddr::Unix(path) => match path.as_pathname() {
            Some(path) => UnixStream::connect(path).await.map(Stream::from),
            None => Err(io::ErrorKind::NotFound.into()),
        },
    };
    let mut stream = stream.map_err(|error| {
        let kind = match error.kind() {
            _ if is_refused(&error) => ErrorType::ConnectRefused,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => ErrorType::ConnectNoRoute,
            _ => ErrorType::ConnectError,
        };
        Error::because(kind, "connecting to an endpoint", error)
    })?;
    // Delay is a matter of speed only.
    let _ = stream.set_nodelay();
    let digest = SocketDigest::from_raw_fd(stream.id());
    // Asked for once, if at all, and known already.
    let _ = digest.peer_addr.set(Some(address.clone()));
    stream.set_socket_digest(digest);
    if let Some((whom, version)) = &way.announce {
        let said = async {
            stream.write_all(&whom.header(*version)).await?;
            stream.flush().await
        };
        let said: io::Result<()> = said.await;
        said.map_err(|error| Error::because(ErrorType::ConnectError, "saying who the client is", error))?;
        // The engine has a place for what a proxy answered; nothing did.
        stream.set_proxy_digest(ProxyDigest::new(Box::new(ResponseHeader::build(200, None)?), Some(Box::new(*whom))));
    }
    Ok(stream)
}
