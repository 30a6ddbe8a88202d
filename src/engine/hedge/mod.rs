//! A second endpoint is asked the same when the first has not begun to answer (`retry.hedge`).
//!
//! The engine binds a request to one connection and gives up nothing of it. So the connection is taken over beside it:
//!
//! 1. When the time is over and nothing of an answer was read ([`taken`]), another endpoint is picked, and a second
//!    descriptor of the connection is made, which keeps it open ([`Hedge::second`]).
//! 2. The engine is made to give up its attempt, as it does when the client leaves ([`super::recall`]), and asked for
//!    another one. Its connection is closed on its side only.
//! 3. The next attempt's connection is a [`race`] of the two: what the engine writes goes to the second endpoint, what
//!    it reads is the answer of whoever begins first.
//!
//! From there on it is an attempt like any other. Connections of a race are not pooled; those of requests that were
//! answered in time are. Account is given for both endpoints: each has the request in flight until the race is over or
//! the exchange ends, and one that failed in it failed an attempt.

pub mod race;
mod taken;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::context::{Attempt, Context};
use super::held::Held;
use super::peer;
use super::recall::Socket;
use super::retry::Elsewhere;
use crate::endpoints::{At, Picked};
use crate::net::clock;
use crate::outcome::Hedged;
use crate::routing::ServiceIdx;
use race::{Entrant, Heard, Race, Report};

/// The wait for the first endpoint, and what comes then. Only for requests that may be hedged.
#[derive(Debug)]
pub struct Hedge {
    due: Pin<Box<Sleep>>,
    elsewhere: Elsewhere,
    /// What the request is known by, if endpoints are picked by that.
    key: Option<u64>,
    /// Bytes read from the connection when the request began on it.
    taken: u64,
}

/// All that a second attempt needs.
#[derive(Debug)]
pub struct Second {
    picked: Picked,
    at: SocketAddr,
    first: TcpStream,
    taken: u64,
}

/// How far a request is.
#[derive(Debug, Default)]
pub enum Hedging {
    #[default]
    Not,
    /// The engine has given up the first attempt, and asks where to go.
    Begins(Box<Second>),
    /// The context's attempt is the second; this one is the first.
    Races(Box<Attempt>, Report),
    /// Whose answer came; `None`: nobody's. There is no second hedge for the same request.
    Over(Option<Entrant>),
}

impl Hedge {
    pub fn new(after: Duration, elsewhere: Elsewhere, key: Option<u64>, connection: &Socket) -> Option<Hedge> {
        let taken = connection.with(|socket| taken::taken(&socket.as_fd()))??.taken;
        Some(Hedge { due: Box::pin(tokio::time::sleep(after)), elsewhere, key, taken })
    }

    pub fn poll_due(&mut self, cx: &mut std::task::Context<'_>) -> Poll<()> {
        self.due.as_mut().poll(cx)
    }

    /// `None`: an answer begins, nobody else can take the request, or the budget is spent.
    pub fn second(self, held: &Held, service: ServiceIdx, connection: &Socket) -> Option<Second> {
        let untouched = taken::Taken { taken: self.taken, waiting: 0 };
        let first = connection.with(|socket| {
            let is_untouched = taken::taken(&socket.as_fd()) == Some(untouched);
            is_untouched.then(|| socket.try_clone().ok()).flatten()
        })??;
        let picked = self.elsewhere.hedge(&held.snapshot, service, self.key)?;
        let Some(At::Ip(at)) = picked.endpoint.at else { return None };
        // Too many descriptors, or none of the runtime's: then there is no hedge.
        let first = TcpStream::from_std(first.into()).ok()?;
        Some(Second { picked, at, first, taken: self.taken })
    }
}

/// Gives the engine the connection of a race, once.
#[derive(Debug)]
struct Hand(Mutex<Option<Race<TcpStream>>>);

#[async_trait]
impl L4Connect for Hand {
    async fn connect(&self, _: &PeerAddr) -> Result<Stream> {
        let race = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(race) = race else { return Error::e_explain(ErrorType::InternalError, "a race is run once") };
        Ok(Stream::from(VirtualSocketStream::new(Box::new(race))))
    }
}

impl VirtualSocket for Race<TcpStream> {
    /// Both connections have their options.
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

async fn dial(at: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    let connection = tokio::time::timeout(within, TcpStream::connect(at)).await??;
    // Delay is a matter of speed only.
    let _ = connection.set_nodelay(true);
    Ok(connection)
}

/// Begins the second attempt beside the first.
pub fn begin(second: Second, ctx: &mut Context) -> Result<Box<HttpPeer>> {
    let Second { picked: Picked { endpoint, place }, at, first, taken } = second;
    let first_attempt = ctx.attempt.take();
    let (Some(service), Some(first_attempt)) = (ctx.compiled_service(), first_attempt) else {
        return Error::e_explain(ErrorType::InternalError, "a hedge without a first attempt");
    };
    // The engine may have looked once more before it gave up.
    let is_untouched = taken::taken(&first).is_some_and(|now| now.taken == taken);
    let report = Report::default();
    let race = Race::new(is_untouched.then_some(first), dial(at, service.service.timeouts.connect), report.clone());
    let at = At::Ip(at);
    let mut peer = peer::peer(&at, &service.service, endpoint.keeping.now(), true)?;
    peer.options.custom_l4 = Some(Arc::new(Hand(Mutex::new(Some(race)))));
    endpoint.begin(ctx.thread);
    ctx.attempts += 1;
    let began = first_attempt.began.map(|_| std::time::Instant::now());
    ctx.attempt = Some(Attempt { endpoint, at, place, reused: false, began });
    ctx.hedging = Hedging::Races(Box::new(first_attempt), report);
    Ok(peer)
}

impl Hedging {
    /// What is to begin now.
    pub fn take_second(&mut self) -> Option<Box<Second>> {
        match std::mem::take(self) {
            Hedging::Begins(second) => Some(second),
            other => {
                *self = other;
                None
            }
        }
    }

    pub fn is_race(&self) -> bool {
        matches!(self, Hedging::Races(..))
    }

    /// The first of two attempts that are under way.
    pub fn first(&self) -> Option<&Attempt> {
        match self {
            Hedging::Races(first, _) => Some(first),
            Hedging::Not | Hedging::Begins(_) | Hedging::Over(_) => None,
        }
    }

    pub fn first_won(&self) -> bool {
        matches!(self, Hedging::Over(Some(Entrant::First)))
    }

    /// For the access log: whose answer it was.
    pub fn outcome(&self) -> Option<Hedged> {
        match self {
            Hedging::Not | Hedging::Begins(_) => None,
            Hedging::Races(..) | Hedging::Over(None) => Some(Hedged::Neither),
            Hedging::Over(Some(Entrant::First)) => Some(Hedged::First),
            Hedging::Over(Some(Entrant::Second)) => Some(Hedged::Second),
        }
    }
}

impl Context {
    /// An answer begins, or the engine says that the connection broke: the race is over, and the attempt that goes on is
    /// the winner's. One that failed in it failed an attempt, though nobody saw it.
    pub fn end_race(&mut self) {
        if !self.hedging.is_race() {
            return;
        }
        let Hedging::Races(first, report) = std::mem::take(&mut self.hedging) else { return };
        let news = report.read();
        if let Some(second) = &self.attempt {
            if news.connected {
                second.endpoint.took_connection(true);
            }
            if news.refused {
                second.endpoint.took_connection(false);
                if let Some(version) = self.version() {
                    version.rest(&second.endpoint);
                }
            }
        }
        let is_bad = |heard| matches!(heard, Heard::Failed | Heard::Gone);
        // A pooled connection that was closed says nothing of its endpoint, and somebody makes up for it.
        let first_failed = is_bad(news.first) && !news.is_lost && !(news.first == Heard::Gone && first.reused);
        match (news.winner, self.attempt.take()) {
            (Some(Entrant::First), second) => {
                self.leave(second, is_bad(news.second));
                self.attempt = Some(*first);
            }
            (Some(Entrant::Second), second) => {
                if !first_failed {
                    self.note_slow(&first);
                }
                self.leave(Some(*first), first_failed);
                self.attempt = second;
            }
            (None, second) => {
                self.tried.push(first.endpoint.incarnation);
                self.leave(Some(*first), first_failed);
                self.attempt = second;
            }
        }
        self.race_ends(news.winner);
    }

    /// It has lost.
    fn leave(&mut self, attempt: Option<Attempt>, failed: bool) {
        let Some(attempt) = attempt else { return };
        let endpoint = attempt.endpoint.clone();
        if failed {
            self.attempt = Some(attempt);
            self.attempt_failed();
            self.judge_failure();
            self.judged = super::judged::Judged::Not;
            self.attempt = None;
        }
        endpoint.end(self.thread);
    }

    /// The first endpoint took at least this long: without it, the slow ones would be the ones that nobody times.
    fn note_slow(&self, first: &Attempt) {
        if let Some(began) = first.began {
            first.endpoint.latency.answered(super::context::micros(began.elapsed()), clock::now_ms());
        }
        if self.attempts == 2 && self.compares_endpoints() {
            first.endpoint.tally.answered(self.thread, Some(self.started.elapsed()));
        }
    }

    fn race_ends(&mut self, winner: Option<Entrant>) {
        self.hedging = Hedging::Over(winner);
        if let (Some(core), Some(outcome)) = (self.version_core(), self.hedging.outcome()) {
            core.meter.hedged(self.thread, outcome);
        }
    }

    /// Nothing of two attempts goes on: both endpoints are rid of the request.
    pub fn abandon_race(&mut self) {
        match std::mem::take(&mut self.hedging) {
            Hedging::Not => {}
            Hedging::Races(first, _) => {
                first.endpoint.end(self.thread);
                self.race_ends(None);
            }
            Hedging::Begins(_) | Hedging::Over(_) => self.hedging = Hedging::Over(None),
        }
    }
}
