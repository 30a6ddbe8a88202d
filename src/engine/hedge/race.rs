//! Two connections on which the same is asked, seen by the engine as one.
//!
//! The first has the request already; what the engine writes goes to the second. The engine then reads from one of
//! them, from its first byte to its last: which one is decided by how their answers begin, and the other one is
//! closed at that moment. So there is one answer, whole or broken, and nobody but the engine reads it as HTTP.
//!
//! The first answers as it would have without the second: whatever it says is the answer. The second must
//! say something good to be preferred; what it says counts without that only when the first is gone. A second attempt
//! can make an answer sooner, never worse.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::{Opening, opening};

/// More than any head that is let through, and no end of it.
const REQUEST_MAX: usize = 1024 * 1024;
/// Bytes read at once while it is undecided.
const PIECE: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrant {
    First,
    Second,
}

/// What is known of one of the two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Heard {
    /// Not enough.
    #[default]
    Nothing,
    /// The beginning of a good answer.
    Fine,
    /// That of a bad one.
    Failed,
    /// The connection is closed or broken, or could not be made.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Wait,
    Wins(Entrant),
    /// Both are gone.
    NobodyLeft,
}

pub fn decide(first: Heard, second: Heard) -> Verdict {
    match (first, second) {
        (Heard::Fine | Heard::Failed, _) => Verdict::Wins(Entrant::First),
        (Heard::Nothing | Heard::Gone, Heard::Fine) | (Heard::Gone, Heard::Failed) => Verdict::Wins(Entrant::Second),
        (Heard::Nothing, Heard::Nothing | Heard::Failed | Heard::Gone) | (Heard::Gone, Heard::Nothing) => Verdict::Wait,
        (Heard::Gone, Heard::Gone) => Verdict::NobodyLeft,
    }
}

/// What became of the two, for whoever accounts for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct News {
    pub first: Heard,
    pub second: Heard,
    /// The first began to answer before it could be taken over.
    pub is_lost: bool,
    /// There was a connection to the second endpoint.
    pub connected: bool,
    /// Nothing listens there.
    pub refused: bool,
    pub winner: Option<Entrant>,
}

/// One task uses it, so the lock is never contended; the engine demands `Sync`.
#[derive(Debug, Clone, Default)]
pub struct Report(Arc<Mutex<News>>);

impl Report {
    fn news(&self) -> MutexGuard<'_, News> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn read(&self) -> News {
        *self.news()
    }
}

/// Makes the second connection.
type Dialling<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

pub struct Race<S> {
    first: Lane<S>,
    second: Lane<S>,
    /// Never locked; it makes the whole `Sync`.
    dialling: Option<Mutex<Dialling<S>>>,
    /// Of the request: what the engine has written and the second connection has not taken.
    request: Vec<u8>,
    winner: Option<Entrant>,
    report: Report,
}

struct Lane<S> {
    connection: Option<S>,
    heard: Heard,
    /// Read while it was undecided, and not yet given to the engine.
    came: Vec<u8>,
}

impl<S> Race<S> {
    /// `first`: nothing of an answer was read from it. `None`: something was.
    pub fn new(
        first: Option<S>,
        second: impl Future<Output = io::Result<S>> + Send + 'static,
        report: Report,
    ) -> Race<S> {
        let heard = if first.is_some() { Heard::Nothing } else { Heard::Gone };
        report.news().is_lost = first.is_none();
        Race {
            first: Lane { connection: first, heard, came: Vec::new() },
            second: Lane { connection: None, heard: Heard::Nothing, came: Vec::new() },
            dialling: Some(Mutex::new(Box::pin(second))),
            request: Vec::new(),
            winner: None,
            report,
        }
    }
}

impl<S> Lane<S> {
    fn is_gone(&mut self) {
        self.heard = Heard::Gone;
        self.connection = None;
    }
}

impl<S: AsyncRead + Unpin> Lane<S> {
    /// Reads until it is known how the answer begins.
    fn poll_opening(&mut self, cx: &mut Context<'_>) {
        let mut piece = [0; PIECE];
        while self.heard == Heard::Nothing
            && let Some(connection) = &mut self.connection
        {
            let mut buf = ReadBuf::new(&mut piece);
            match Pin::new(connection).poll_read(cx, &mut buf) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.came.extend_from_slice(buf.filled());
                    self.heard = match opening(&self.came) {
                        Opening::Short => Heard::Nothing,
                        Opening::Fine => Heard::Fine,
                        Opening::Failed => Heard::Failed,
                    };
                }
                Poll::Ready(Ok(()) | Err(_)) => self.is_gone(),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Race<S> {
    /// Connects to the second and sends it the request.
    fn poll_ask(&mut self, cx: &mut Context<'_>) {
        if let Some(dialling) = &mut self.dialling {
            let dialling = dialling.get_mut().unwrap_or_else(PoisonError::into_inner);
            let Poll::Ready(dialled) = dialling.as_mut().poll(cx) else { return };
            self.dialling = None;
            let mut news = self.report.news();
            match dialled {
                Ok(connection) => {
                    news.connected = true;
                    self.second.connection = Some(connection);
                }
                Err(error) => {
                    news.refused = crate::endpoints::dial::is_refused(&error);
                    drop(news);
                    self.second.is_gone();
                }
            }
        }
        while !self.request.is_empty()
            && let Some(connection) = &mut self.second.connection
        {
            match Pin::new(connection).poll_write(cx, &self.request) {
                Poll::Pending => return,
                Poll::Ready(Ok(sent)) if sent > 0 => drop(self.request.drain(..sent)),
                Poll::Ready(Ok(_) | Err(_)) => self.second.is_gone(),
            }
        }
    }

    fn poll_winner(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Entrant>> {
        if let Some(winner) = self.winner {
            return Poll::Ready(Ok(winner));
        }
        self.poll_ask(cx);
        self.first.poll_opening(cx);
        self.second.poll_opening(cx);
        let verdict = decide(self.first.heard, self.second.heard);
        let mut news = self.report.news();
        (news.first, news.second) = (self.first.heard, self.second.heard);
        match verdict {
            Verdict::Wait => Poll::Pending,
            Verdict::Wins(winner) => {
                news.winner = Some(winner);
                drop(news);
                self.winner = Some(winner);
                self.dialling = None;
                let loser = match winner {
                    Entrant::First => &mut self.second,
                    Entrant::Second => &mut self.first,
                };
                *loser = Lane { connection: None, heard: loser.heard, came: Vec::new() };
                Poll::Ready(Ok(winner))
            }
            Verdict::NobodyLeft => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    fn of(&mut self, entrant: Entrant) -> &mut Lane<S> {
        match entrant {
            Entrant::First => &mut self.first,
            Entrant::Second => &mut self.second,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Race<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let winner = ready!(this.poll_winner(cx))?;
        let lane = this.of(winner);
        if !lane.came.is_empty() {
            let count = lane.came.len().min(out.remaining());
            out.put_slice(&lane.came[..count]);
            lane.came.drain(..count);
            return Poll::Ready(Ok(()));
        }
        match &mut lane.connection {
            Some(connection) => Pin::new(connection).poll_read(cx, out),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Race<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match (this.winner, &mut this.second.connection) {
            (None, _) if this.request.len() + data.len() > REQUEST_MAX => {
                Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()))
            }
            (None, _) => {
                this.request.extend_from_slice(data);
                Poll::Ready(Ok(data.len()))
            }
            // It has the request.
            (Some(Entrant::First), _) => Poll::Ready(Ok(data.len())),
            (Some(Entrant::Second), Some(connection)) if this.request.is_empty() => {
                Pin::new(connection).poll_write(cx, data)
            }
            // It answered before it had everything.
            (Some(Entrant::Second), _) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().second.connection {
            Some(connection) => Pin::new(connection).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.dialling = None;
        (this.first.connection, this.second.connection) = (None, None);
        Poll::Ready(Ok(()))
    }
}

impl<S> fmt::Debug for Race<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Race").field("news", &self.report.read()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "race_tests.rs"]
mod tests;
