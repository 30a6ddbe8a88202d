//! From an accepted connection to one that requests can be read from: what stands before HTTP is done here,
//! in its order.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::gate;
use super::listeners::ListenerState;
use super::proxy_protocol::Ends;
use super::socket::Socket;
use crate::limits::Entered;

/// A connection that requests can be read from.
#[derive(Debug)]
pub struct Arrived {
    pub socket: Socket,
    /// Who the client is: the peer, or whom the peer announced.
    pub client: SocketAddr,
    /// Where it connected to.
    pub local: SocketAddr,
    /// Its place among the connections of its client; to be kept for as long as it is open.
    pub entered: Option<Entered>,
}

/// `None`: the connection ended before it began, and whoever had to be told was told.
pub async fn arrive(mut tcp: TcpStream, client: SocketAddr, listener: &ListenerState) -> Option<Arrived> {
    let local = tcp.local_addr().ok()?;
    let (Ends { client, local }, entered) = gate::pass(&mut tcp, Ends { client, local }, listener).await?;
    Some(Arrived { socket: Socket::Plain(tcp), client, local, entered })
}
