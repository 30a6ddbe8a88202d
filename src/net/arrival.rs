//! From an accepted connection to one that requests can be read from: what stands before HTTP is done here,
//! in its order.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::clock;
use super::entrance;
use super::listeners::ListenerState;
use super::proxy_protocol::Ends;
use super::socket::Socket;
use super::stage::StageFlag;
use super::tls::handshake::{Ended, Terms, handshake};
use super::tls::{self, Secured};
use crate::limits::Entered;
use crate::sessions::connections::Connection;

/// A connection that requests can be read from.
#[derive(Debug)]
pub struct Arrived {
    pub socket: Socket,
    /// Who the client is: the peer, or whom the peer announced.
    pub client: SocketAddr,
    /// Where it connected to.
    pub local: SocketAddr,
    /// What TLS knows of it; `None`: it is plain.
    pub secure: Option<Arc<Secured>>,
    /// Its place among the connections of its client; to be kept for as long as it is open.
    pub entered: Option<Entered>,
}

/// `None`: the connection ended before it began, and whoever had to be told was told.
pub async fn arrive(
    mut tcp: TcpStream,
    client: SocketAddr,
    listener: &ListenerState,
    connection: &Arc<Connection>,
    stage: &StageFlag,
) -> Option<Arrived> {
    let local = tcp.local_addr().ok()?;
    let (Ends { client, local }, entered) = entrance::pass(&mut tcp, Ends { client, local }, listener).await?;
    let (socket, secure) = match listener.tls.load_full() {
        None => (Socket::Plain(tcp), None),
        Some(server) => {
            let (socket, secured) = encrypt(tcp, &server, listener, connection, stage).await?;
            (socket, Some(Arc::new(secured)))
        }
    };
    Some(Arrived { socket, client, local, secure, entered })
}

async fn encrypt(
    tcp: TcpStream,
    server: &tls::Server,
    listener: &ListenerState,
    connection: &Arc<Connection>,
    stage: &StageFlag,
) -> Option<(Socket, Secured)> {
    let (deadline, at_once) = {
        let config = listener.config.load();
        (clock::deadline_in(config.timeouts.handshake), config.limits.handshakes)
    };
    let terms = Terms { server, gate: &listener.gate, at_once, deadline, connection, stage };
    // Large, and gone before the first request.
    match Box::pin(handshake(tcp, &terms)).await {
        Ok((stream, secured)) => {
            let ended = if secured.resumed { Ended::Resumed } else { Ended::Full };
            listener.handshakes.count(ended, Some(secured.version));
            Some((Socket::Tls(stream), secured))
        }
        Err(ended) => {
            listener.handshakes.count(ended, None);
            None
        }
    }
}
