//! A request that waits for the first byte of an answer is called back, and asked of somebody else instead: one of
//! a canary of stable, one that waits for longer than `retry.per_try_timeout` of another endpoint.
//!
//! The engine has no word for that, and dropping its future would end the exchange with the client. So the
//! connection to the endpoint is shut down under it: the engine meets the end of the endpoint's side, reports a
//! broken connection to [`super::app`], and is sent on from there. Should the answer arrive at that
//! moment, it is refused there too, because what follows its first bytes will never come.
//!
//! A connection that others use (HTTP/2) must not be shut down. There the engine, which also watches whether the
//! client leaves, is told that it did: it cancels the one stream, reports a broken client, and is sent to stable.
//!
//! A request that is to be asked of a second endpoint *beside* the first (see [`super::hedge`]) is called back in the second
//! way, whatever its connection: the engine lets go of it, and the race takes it over.
//!
//! What may be called back is known here only while the answer is waited for. All of it happens in the
//! connection's own task: between a look at this and the shutdown no answer can begin.

use std::net::Shutdown;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task;

use pingora_core::protocols::{Digest, SocketDigest};

use super::context::Context;
use super::hedge::{Hedge, Second};
use super::held::Held;
use super::judged::stable_takes_one;
use super::retry::Elsewhere;
use crate::endpoints::At;
use crate::net::{Deadline, Link};
use crate::routing::ServiceIdx;

/// Why an attempt was called back.
#[derive(Debug)]
pub enum Why {
    /// The canary did not answer in time.
    Late,
    /// The canary was withdrawn; it may have been about to answer.
    Withdrawn,
    /// The endpoint did not answer within the time of one attempt, and another one is to be asked.
    Silent,
    /// The endpoint has not begun to answer, and a second one is to be asked beside it.
    Slow(Box<Second>),
}

/// What has happened while the answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// `timeouts.request` is over.
    RequestDeadline,
    /// `retry.per_try_timeout` is over.
    AttemptDeadline,
    Withdrawn,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Called {
    /// The request is on its way back.
    Back,
    /// It may not run twice, nobody else can take it, or the budget is spent: it goes on as if nobody had called.
    Refused,
    /// Nothing that could be called back waits for an endpoint.
    NothingWaits,
}

/// One per client connection.
#[derive(Debug, Default)]
pub struct Recall {
    state: Mutex<State>,
    /// What waits may be hedged.
    hedges: AtomicBool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Nothing,
    Waiting(Waiting),
    Recalled(Why),
}

/// An attempt of a request that may run twice.
#[derive(Debug)]
pub struct Waiting {
    pub held: Arc<Held>,
    pub service: ServiceIdx,
    pub reach: Reach,
    /// It is at the canary of a rollout with a shield.
    pub is_shielded: bool,
    pub elsewhere: Option<Elsewhere>,
    pub hedge: Option<Hedge>,
}

/// How the attempt is ended without the engine's help.
#[derive(Debug)]
pub enum Reach {
    /// Its connection to the endpoint is its own.
    Socket(Socket),
    /// Others use the connection, or it is two: the engine is told that the client's side broke, and gives up this one attempt.
    Client,
}

impl Reach {
    /// `None`: nothing can be reached.
    pub fn of(ctx: &Context, fd: RawFd, connection: Option<&Digest>) -> Option<Reach> {
        if ctx.shared || ctx.hedging.is_race() {
            return Some(Reach::Client);
        }
        let peer = ctx.attempt.as_ref()?.at.clone();
        let connection = connection?;
        let is_plain = connection.ssl_digest.is_none();
        Some(Reach::Socket(Socket { is_plain, ..Socket::new(fd, connection.socket_digest.as_ref()?, peer) }))
    }

    fn is_there(&self) -> bool {
        match self {
            Reach::Socket(socket) => socket.is_there(),
            Reach::Client => true,
        }
    }

    fn end_attempt(&self, link: &Link) {
        match self {
            Reach::Socket(socket) => socket.shut_down(),
            Reach::Client => link.interrupt(),
        }
    }
}

impl Waiting {
    /// Where it is to go, if anybody takes it.
    fn turn_to(&self, cause: Cause) -> Option<Why> {
        let snapshot = &self.held.snapshot;
        let stable = |why| (self.is_shielded && stable_takes_one(snapshot, self.service)).then_some(why);
        match cause {
            Cause::Withdrawn => stable(Why::Withdrawn),
            Cause::RequestDeadline => stable(Why::Late),
            Cause::AttemptDeadline => stable(Why::Late).or_else(|| {
                let takes_one = self.elsewhere.as_ref()?.takes_one(snapshot, self.service);
                takes_one.then_some(Why::Silent)
            }),
        }
    }
}

/// The connection to an endpoint, as seen from outside the engine, which owns it.
#[derive(Debug)]
pub struct Socket {
    fd: RawFd,
    /// Lives as long as the connection: a descriptor of the same number is another connection's after that.
    connection: Weak<SocketDigest>,
    peer: At,
    /// What passes over it is what the engine reads and writes: no TLS.
    pub(super) is_plain: bool,
}

impl Recall {
    fn state(&self) -> MutexGuard<'_, State> {
        // One task uses it, so the lock is never contended; the engine demands `Sync`.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wait(&self, waiting: Waiting) {
        self.hedges.store(waiting.hedge.is_some(), Ordering::Relaxed);
        *self.state() = State::Waiting(waiting);
    }

    /// The answer begins, or will not come. Says whether it was called back, and why.
    pub fn settle(&self) -> Option<Why> {
        self.hedges.store(false, Ordering::Relaxed);
        match std::mem::take(&mut *self.state()) {
            State::Nothing | State::Waiting(_) => None,
            State::Recalled(why) => Some(why),
        }
    }

    /// A deadline of the exchange is over. `true`: it goes on, and has another deadline now. If it was called back, the
    /// engine will notice.
    pub fn is_put_off(&self, link: &Link, deadline: Deadline) -> bool {
        match deadline {
            Deadline::Response => self.call(link, Cause::RequestDeadline) == Called::Back,
            Deadline::Attempt => {
                match self.call(link, Cause::AttemptDeadline) {
                    Called::Back | Called::NothingWaits => link.attempt_ends(),
                    // Somebody may take it later.
                    Called::Refused => link.attempt_goes_on(),
                }
                true
            }
            Deadline::Body | Deadline::Write | Deadline::Silence | Deadline::Total => false,
        }
    }

    /// When the first endpoint has had its time, the request is on its way to a second one, too, or never will be.
    pub fn poll_hedge(&self, link: &Link, cx: &mut task::Context<'_>) {
        if !self.hedges.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        let State::Waiting(waiting) = &mut *state else { return };
        if waiting.hedge.as_mut().is_some_and(|hedge| hedge.poll_due(cx).is_pending()) {
            return;
        }
        self.hedges.store(false, Ordering::Relaxed);
        let Some(hedge) = waiting.hedge.take() else { return };
        let Reach::Socket(socket) = &waiting.reach else { return };
        let is_all_here = link.request_complete() && link.bytes_received() == 0;
        if is_all_here
            && socket.is_there()
            && let Some(second) = hedge.second(&waiting.held, waiting.service, socket)
        {
            *state = State::Recalled(Why::Slow(Box::new(second)));
            link.interrupt();
            link.attempt_ends();
        }
    }

    /// Calls back what waits, once.
    pub fn call(&self, link: &Link, cause: Cause) -> Called {
        let mut state = self.state();
        let why = match &*state {
            State::Nothing | State::Recalled(_) => return Called::NothingWaits,
            State::Waiting(waiting) if link.is_repeatable() && waiting.reach.is_there() => {
                match waiting.turn_to(cause) {
                    Some(why) => {
                        waiting.reach.end_attempt(link);
                        why
                    }
                    None => return Called::Refused,
                }
            }
            State::Waiting(_) => return Called::Refused,
        };
        match why {
            Why::Late | Why::Withdrawn => link.asked_again(),
            // `timeouts.request` bounds all attempts together.
            Why::Silent | Why::Slow(_) => {}
        }
        *state = State::Recalled(why);
        link.attempt_ends();
        Called::Back
    }
}

impl Socket {
    pub fn new(fd: RawFd, connection: &Arc<SocketDigest>, peer: At) -> Socket {
        Socket { fd, connection: Arc::downgrade(connection), peer, is_plain: true }
    }

    fn is_peer(&self, peer: &socket2::SockAddr) -> bool {
        match &self.peer {
            At::Ip(address) => peer.as_socket() == Some(*address),
            At::Unix(path) => peer.as_pathname() == Some(path),
        }
    }

    pub(super) fn with<R>(&self, look: impl FnOnce(socket2::SockRef<'_>) -> R) -> Option<R> {
        if self.connection.strong_count() == 0 {
            return None;
        }
        // SAFETY: the connection, which owns the descriptor, exists, and ends in this task only.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        Some(look(socket2::SockRef::from(&fd)))
    }

    /// The connection exists and leads to the endpoint, or is broken already, which the engine is about to notice.
    fn is_there(&self) -> bool {
        let is_there = self.with(|socket| match socket.peer_addr() {
            Ok(peer) => self.is_peer(&peer),
            Err(_) => true,
        });
        is_there.unwrap_or(false)
    }

    /// Ends both directions, so that whoever reads from or writes to it is told.
    fn shut_down(&self) {
        // It fails only if the endpoint was faster.
        let _ = self.with(|socket| socket.shutdown(Shutdown::Both));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    fn connected(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn a_connection_is_shut_down_under_its_reader() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut ours, mut endpoint) = connected(&listener);
        let digest = Arc::new(SocketDigest::from_raw_fd(ours.as_raw_fd()));
        let socket = Socket::new(ours.as_raw_fd(), &digest, At::Ip(listener.local_addr().unwrap()));
        assert!(socket.is_there());
        socket.shut_down();
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0, "the reader is told");
        assert_eq!(endpoint.read(&mut [0; 8]).unwrap(), 0, "and the endpoint");
    }

    #[test]
    fn a_descriptor_that_is_anothers_by_now_is_left_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = At::Ip(listener.local_addr().unwrap());
        let (mut ours, mut endpoint) = connected(&listener);
        // The connection is gone, and its descriptor belongs to another one, even to the same endpoint.
        let gone = Socket::new(ours.as_raw_fd(), &Arc::new(SocketDigest::from_raw_fd(ours.as_raw_fd())), address);
        assert!(!gone.is_there());
        // It is said to exist, but the descriptor leads elsewhere.
        let digest = Arc::new(SocketDigest::from_raw_fd(ours.as_raw_fd()));
        let elsewhere = Socket::new(ours.as_raw_fd(), &digest, At::Ip("127.0.0.1:1".parse().unwrap()));
        assert!(!elsewhere.is_there());
        endpoint.write_all(b"still here").unwrap();
        assert_eq!(ours.read(&mut [0; 16]).unwrap(), 10);
    }
}
