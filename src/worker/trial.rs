//! Before a worker says that it is ready, a request goes the whole way through it: accepted by a data thread, read,
//! looked at, answered, sent. It asks for something that no service has to answer, on an address that nobody else knows.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::warn;

use crate::config::load::{Source, parse_with};
use crate::config::model::Listener;
use crate::net::Manager;

const PATIENCE: Duration = Duration::from_secs(10);
const CONFIGURATION: &str = "schema: 1\nlisteners: { trial: { bind: \"127.0.0.1:0\" } }\n";
/// Without a host: refused by the proxy itself.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 400";

/// An error says how far it came.
pub async fn pass(listeners: &Manager) -> Result<(), String> {
    let listener = listener().ok_or("there is no listener to try it on")?;
    let address = match listeners.accept_on_trial(listener) {
        Ok(address) => address,
        Err(error) => {
            warn!(%error, "there is no loopback address to try a request on: ready without it");
            return Ok(());
        }
    };
    let answered = tokio::time::timeout(PATIENCE, ask(address)).await;
    answered.map_err(|_| format!("no answer within {PATIENCE:?}"))?.map_err(|error| error.to_string())
}

async fn ask(address: SocketAddr) -> std::io::Result<()> {
    let mut client = TcpStream::connect(address).await?;
    client.write_all(REQUEST).await?;
    let mut answer = [0; ANSWER.len()];
    client.read_exact(&mut answer).await?;
    if answer == *ANSWER {
        return Ok(());
    }
    Err(std::io::Error::other(format!("the answer begins with {:?}", String::from_utf8_lossy(&answer))))
}

/// With the defaults of every key.
fn listener() -> Option<Listener> {
    let source = Source { path: PathBuf::from("trial"), text: CONFIGURATION.into() };
    let loaded = parse_with(vec![source], &|_| None).ok()?;
    loaded.config.listeners.values().next().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_private_listener_is_a_valid_one() {
        let listener = listener().expect("a configuration of our own");
        assert!(listener.bind.ip().is_loopback());
    }
}
