//! A connection of our own to an endpoint: for checks and copies, never the traffic's.

use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::state::At;

/// What a connection is, whatever it runs over.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

pub type Dialled = Pin<Box<dyn Wire>>;

pub async fn dial(at: &At) -> io::Result<Dialled> {
    match at {
        At::Ip(address) => {
            let stream = TcpStream::connect(address).await?;
            // Delay is a matter of speed only.
            let _ = stream.set_nodelay(true);
            Ok(Box::pin(stream))
        }
        At::Unix(path) => Ok(Box::pin(UnixStream::connect(path).await?)),
    }
}

/// Nothing listens there: what is only slow or full does not refuse.
pub fn is_refused(error: &io::Error) -> bool {
    // A socket file that is not there is a process that is not there.
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}
