//! A connection of our own to an endpoint: for checks and copies, never the traffic's.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::proxy_header::Announced;
use super::secure::SecureCell;
use super::state::{At, EndpointRuntime, ServiceRuntime};
use crate::config::model::tls::Alpn;
use crate::config::model::{Protocol, ProxyHeader};

/// What a connection is, whatever it runs over.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

pub type Dialled = Pin<Box<dyn Wire>>;

/// How to connect to an endpoint.
#[derive(Debug, Clone)]
pub struct Line {
    pub at: At,
    /// What is spoken over it.
    pub protocol: Protocol,
    /// Says first that nobody else is behind it.
    pub announce: Option<ProxyHeader>,
    pub tls: Option<LineTls>,
}

#[derive(Debug, Clone)]
pub struct LineTls {
    pub cell: Arc<SecureCell>,
    pub name: ServerName<'static>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NoLine {
    #[error("{0}")]
    Connect(#[from] io::Error),
    /// Somebody is there, but not who it should be.
    #[error("{0}")]
    Tls(String),
}

impl Line {
    /// To an endpoint of a service that connects like this. `None`: the endpoint has no address.
    pub fn to(endpoint: &EndpointRuntime, service: &ServiceRuntime) -> Option<Line> {
        let tls = service
            .secure
            .as_ref()
            .map(|cell| LineTls { cell: cell.clone(), name: cell.load().name(&endpoint.address) });
        let upstream = &service.upstream;
        Some(Line { at: endpoint.at.clone()?, protocol: upstream.protocol, announce: upstream.proxy_protocol, tls })
    }

    /// What connections over it are of: another number, another definition. 0 without TLS.
    pub fn number(&self) -> u32 {
        self.tls.as_ref().map_or(0, |tls| tls.cell.load().number)
    }
}

/// `alpn` is what will be spoken, if it is over TLS.
pub async fn dial(line: &Line, alpn: Alpn) -> Result<Dialled, NoLine> {
    match &line.at {
        At::Ip(address) => {
            let stream = TcpStream::connect(address).await?;
            // Delay is a matter of speed only.
            let _ = stream.set_nodelay(true);
            begin(stream, line, alpn).await
        }
        At::Unix(path) => begin(UnixStream::connect(path).await?, line, alpn).await,
    }
}

async fn begin<S: Wire + 'static>(mut stream: S, line: &Line, alpn: Alpn) -> Result<Dialled, NoLine> {
    if let Some(version) = line.announce {
        stream.write_all(&Announced::Nobody.header(version)).await?;
    }
    let Some(LineTls { cell, name }) = &line.tls else { return Ok(Box::pin(stream)) };
    let secure = cell.load();
    Ok(Box::pin(secure.handshake(name, alpn, stream).await.map_err(NoLine::Tls)?))
}

/// Nothing listens there: what is only slow or full does not refuse.
pub fn is_refused(error: &io::Error) -> bool {
    // A socket file that is not there is a process that is not there.
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}
