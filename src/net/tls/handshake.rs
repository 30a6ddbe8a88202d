//! From an accepted socket to an encrypted one. Every wait is for the client, all of them share one deadline,
//! and none outlasts the moment at which idle connections are closed.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::gate::{Entered, Gate};
use super::secured::Secured;
use super::server::Server;
use crate::config::load;
use crate::config::model::tls::TlsVersion;
use crate::net::clock;
use crate::net::stage::{Stage, StageFlag};
use crate::sessions::connections::Connection;

/// What became of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Full,
    Resumed,
    /// One side did not accept the other: no common version, a certificate that is not good enough, garbage.
    Failed,
    /// The client left.
    Left,
    /// The deadline.
    Late,
    /// It made no progress while others had to wait.
    Displaced,
    /// Plain HTTP, which was told so.
    PlainHttp,
    /// The proxy ends.
    Closing,
}

impl Ended {
    pub const ALL: [Ended; 8] = [
        Ended::Full,
        Ended::Resumed,
        Ended::Failed,
        Ended::Left,
        Ended::Late,
        Ended::Displaced,
        Ended::PlainHttp,
        Ended::Closing,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Ended::Full => "full",
            Ended::Resumed => "resumed",
            Ended::Failed => "failed",
            Ended::Left => "client_left",
            Ended::Late => "timeout",
            Ended::Displaced => "displaced",
            Ended::PlainHttp => "plain_http",
            Ended::Closing => "closing",
        }
    }
}

/// How many ended how, by version of TLS where there is one.
#[derive(Debug, Default)]
pub struct Handshakes([[AtomicU64; 3]; Ended::ALL.len()]);

impl Handshakes {
    pub fn count(&self, ended: Ended, version: Option<TlsVersion>) {
        self.0[ended as usize][column(version)].fetch_add(1, Ordering::Relaxed);
    }

    /// `(result, version, count)` of everything that can have happened.
    pub fn counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut counts = Vec::new();
        for ended in Ended::ALL {
            let versions = match ended {
                Ended::Full | Ended::Resumed => &[Some(TlsVersion::V12), Some(TlsVersion::V13)][..],
                _ => &[None][..],
            };
            for version in versions {
                let shown = match version {
                    Some(TlsVersion::V12) => "1.2",
                    Some(TlsVersion::V13) => "1.3",
                    None => "none",
                };
                let count = self.0[ended as usize][column(*version)].load(Ordering::Relaxed);
                counts.push((ended.as_str(), shown, count));
            }
        }
        counts
    }
}

fn column(version: Option<TlsVersion>) -> usize {
    match version {
        None => 0,
        Some(TlsVersion::V12) => 1,
        Some(TlsVersion::V13) => 2,
    }
}

/// Under which conditions it is done.
pub struct Terms<'a> {
    pub server: &'a Server,
    pub gate: &'a Arc<Gate>,
    /// Handshakes at once.
    pub at_once: usize,
    /// On the clock of the data thread.
    pub deadline: u64,
    pub connection: &'a Arc<Connection>,
    pub stage: &'a StageFlag,
}

/// First byte of a TLS record with a handshake message.
const HANDSHAKE: u8 = 0x16;

const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\
    content-length: 59\r\n\r\nthis port speaks https, and the request came as plain http\n";

/// How long the client of a plain request may take to notice its answer, in milliseconds.
const LAST_WORDS_MS: u64 = 500;

/// How it ended, and if well, with what.
pub async fn handshake(tcp: TcpStream, terms: &Terms<'_>) -> Result<(Box<TlsStream<TcpStream>>, Secured), Ended> {
    let place = enter(terms).await?;
    let mut first = [0];
    match wait(terms, Some(&place), terms.deadline, tcp.peek(&mut first)).await? {
        Ok(0) | Err(_) => return Err(Ended::Left),
        Ok(_) if first[0] == HANDSHAKE => {}
        // A method, and nothing that any version of TLS begins with.
        Ok(_) if first[0].is_ascii_uppercase() => {
            refuse_plain(tcp, terms, &place).await;
            return Err(Ended::PlainHttp);
        }
        Ok(_) => return Err(Ended::Failed),
    }
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp);
    let hello = wait(terms, Some(&place), terms.deadline, hello).await?.map_err(|error| failed(&error))?;
    let entry = terms.server.entry(hello.client_hello().server_name());
    let (config, policy) = (entry.config.clone(), entry.policy);
    let stream = wait(terms, Some(&place), terms.deadline, hello.into_stream(config)).await?;
    let stream = Box::new(stream.map_err(|error| failed(&error))?);
    let secured = Secured::of(stream.get_ref().1, policy, load::now()).map_err(|why| {
        debug!(%why, "TLS connection refused");
        Ended::Failed
    })?;
    Ok((stream, secured))
}

fn failed(error: &std::io::Error) -> Ended {
    debug!(%error, "TLS handshake failed");
    match error.kind() {
        std::io::ErrorKind::InvalidData => Ended::Failed,
        _ => Ended::Left,
    }
}

async fn enter(terms: &Terms<'_>) -> Result<Entered, Ended> {
    loop {
        let entered = terms.gate.try_enter(terms.at_once, clock::now_ms(), terms.connection);
        match entered {
            Some(entered) => return Ok(entered),
            // Nobody may be left to wake us when the oldest has waited for long enough: the sweep does.
            None => match wait(terms, None, terms.deadline.min(clock::now_ms() + 100), terms.gate.freed()).await {
                Err(Ended::Late) if clock::now_ms() < terms.deadline => {}
                Err(ended) => return Err(ended),
                Ok(()) => {}
            },
        }
    }
}

/// Waits for the client: until then, or until everything closes, or until others need the place more.
async fn wait<T>(
    terms: &Terms<'_>,
    place: Option<&Entered>,
    deadline: u64,
    what: impl Future<Output = T>,
) -> Result<T, Ended> {
    let mut what = pin!(what);
    let mut begun = false;
    poll_fn(|cx| {
        terms.connection.register(cx.waker());
        if let Poll::Ready(done) = what.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if terms.stage.get() >= Stage::CloseIdle {
            return Poll::Ready(Err(Ended::Closing));
        }
        if place.is_some_and(Entered::is_lost) {
            return Poll::Ready(Err(Ended::Displaced));
        }
        let now = clock::now_ms();
        if now >= deadline {
            return Poll::Ready(Err(Ended::Late));
        }
        if let Some(place) = place.filter(|_| !begun) {
            place.waits(now);
            begun = true;
        }
        terms.connection.wake_at(deadline);
        Poll::Pending
    })
    .await
}

/// Tells a client that speaks plain HTTP to this port so.
async fn refuse_plain(mut tcp: TcpStream, terms: &Terms<'_>, place: &Entered) {
    let until = terms.deadline.min(clock::now_ms() + LAST_WORDS_MS);
    // What is not read would reset the connection under the answer.
    let mut scratch = [0; 4096];
    while matches!(tcp.try_read(&mut scratch), Ok(count) if count == scratch.len()) {}
    let answer = async {
        tcp.write_all(PLAIN_HTTP).await?;
        tcp.shutdown().await?;
        loop {
            tcp.readable().await?;
            match tcp.try_read(&mut scratch) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    // The client may not want to know.
    let _: Result<std::io::Result<()>, Ended> = wait(terms, Some(place), until, answer).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_http_is_as_long_as_it_says() {
        let text = std::str::from_utf8(PLAIN_HTTP).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
