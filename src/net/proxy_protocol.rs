//! Whose connection a load balancer passes on: PROXY protocol, versions 1 and 2 (haproxy's `proxy-protocol.txt`).
//!
//! The header stands before TLS and HTTP. It is looked at in the kernel's buffer until it is whole and then taken out of
//! it, so not a byte of what follows is touched, and in optional mode a connection without a header loses nothing. Only
//! peers that the configuration names are listened to: from anybody else the same bytes are not a header but bad HTTP, so a
//! client cannot choose its own address. What the bytes say is [`crate::wire::proxy_header`]'s to know.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;

use crate::config::model::{ProxyMode, ProxyProtocol};
pub use crate::wire::proxy_header::Ends;
use crate::wire::proxy_header::{BYTES_MAX, Bad, Seen, parse};

/// Why a connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the peer may not announce clients")]
    Stranger,
    #[error("there is no PROXY header")]
    Missing,
    #[error(transparent)]
    Bad(#[from] Bad),
    #[error("the PROXY header did not arrive in time")]
    Late,
    #[error("the connection broke")]
    Broken,
}

/// Takes the header off the connection, if there is to be one. `socket`: both ends as the kernel knows them.
pub async fn read(
    tcp: &mut TcpStream,
    socket: Ends,
    policy: &ProxyProtocol,
    patience: Duration,
) -> Result<Ends, Refused> {
    if !policy.from.contains(socket.client.ip()) {
        return match policy.mode {
            ProxyMode::Required => Err(Refused::Stranger),
            ProxyMode::Optional => Ok(socket),
        };
    }
    let taken = tokio::time::timeout(patience, take(tcp, policy.mode)).await;
    Ok(taken.map_err(|_| Refused::Late)??.unwrap_or(socket))
}

async fn take(tcp: &mut TcpStream, mode: ProxyMode) -> Result<Option<Ends>, Refused> {
    let (len, ends) = match tcp.async_io(Interest::READABLE, || look(tcp)).await {
        Ok(Seen::Header { len, ends }) => (len, ends),
        Ok(Seen::Other) if mode == ProxyMode::Optional => return Ok(None),
        Ok(Seen::Other) => return Err(Refused::Missing),
        Ok(Seen::Bad(why)) => return Err(why.into()),
        Ok(Seen::Part) | Err(_) => return Err(Refused::Broken),
    };
    let mut header = [0; BYTES_MAX];
    tcp.read_exact(&mut header[..len]).await.map_err(|_| Refused::Broken)?;
    Ok(ends)
}

/// `WouldBlock` while more must come: the next bytes wake whoever waits, these do not.
fn look(tcp: &TcpStream) -> io::Result<Seen> {
    let mut buffer = [MaybeUninit::uninit(); BYTES_MAX];
    let count = socket2::SockRef::from(tcp).peek(&mut buffer)?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: the kernel has written the first `count` bytes.
    let bytes = unsafe { &*(&raw const buffer[..count] as *const [u8]) };
    match parse(bytes) {
        Seen::Part => Err(io::ErrorKind::WouldBlock.into()),
        seen => Ok(seen),
    }
}
