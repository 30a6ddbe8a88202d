//! What stands before the first byte of TLS and HTTP: who passes the connection on, whether the client may come in, and
//! how many connections it has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;

use super::listeners::ListenerState;
use super::proxy_protocol::{self, Ends};
use crate::limits::{Entered, PerClient, Who};

/// What a listener knows of those who come, kept over reloads.
#[derive(Debug, Default)]
pub struct Entrance {
    /// Made when the limit is first used.
    clients: OnceLock<Arc<PerClient>>,
    refused: [AtomicU64; 3],
}

/// Why a connection was closed before it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The PROXY header is missing or bad, or its sender may not send any.
    ProxyProtocol = 0,
    /// The address may not connect.
    Access = 1,
    /// The address has as many connections as it may have.
    PerClient = 2,
}

impl Closed {
    pub const ALL: [Closed; 3] = [Closed::ProxyProtocol, Closed::Access, Closed::PerClient];

    pub fn as_str(self) -> &'static str {
        match self {
            Closed::ProxyProtocol => "proxy_protocol",
            Closed::Access => "access",
            Closed::PerClient => "connections_per_client",
        }
    }
}

impl Entrance {
    pub fn refused(&self, why: Closed) -> u64 {
        self.refused[why as usize].load(Ordering::Relaxed)
    }

    fn count(&self, why: Closed) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// The true ends of a connection that may come in, and its place among those of its client. `None`: it may not, and is to
/// be closed without a word.
pub async fn pass(tcp: &mut TcpStream, socket: Ends, listener: &ListenerState) -> Option<(Ends, Option<Entered>)> {
    let config = listener.config.load_full();
    let (policy, entrance) = (&config.policy, &listener.entrance);
    let ends = match &policy.proxy_protocol {
        None => socket,
        Some(proxies) => match proxy_protocol::read(tcp, socket, proxies, config.timeouts.header).await {
            Ok(ends) => ends,
            Err(why) => {
                tracing::debug!(listener = %listener.name, peer = %socket.client, %why, "connection closed");
                entrance.count(Closed::ProxyProtocol);
                return None;
            }
        },
    };
    if !policy.access.is_open() && !policy.access.admits(ends.client.ip()) {
        entrance.count(Closed::Access);
        return None;
    }
    let Some(max) = policy.connections_per_client else { return Some((ends, None)) };
    match entrance.clients.get_or_init(Arc::default).try_enter(Who::of(ends.client.ip()), max) {
        Some(entered) => Some((ends, Some(entered))),
        None => {
            entrance.count(Closed::PerClient);
            None
        }
    }
}
