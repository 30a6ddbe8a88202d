//! From an accepted connection to one that requests can be read from: what stands before HTTP is done here,
//! in its order.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::listeners::ListenerState;
use super::socket::Socket;

/// A connection that requests can be read from.
#[derive(Debug)]
pub struct Arrived {
    pub socket: Socket,
    /// Who the client is.
    pub client: SocketAddr,
    /// Where it connected to.
    pub local: SocketAddr,
}

/// `None`: the connection ended before it began, and whoever had to be told was told.
pub async fn arrive(tcp: TcpStream, client: SocketAddr, _listener: &ListenerState) -> Option<Arrived> {
    let local = tcp.local_addr().ok()?;
    Some(Arrived { socket: Socket::Plain(tcp), client, local })
}
