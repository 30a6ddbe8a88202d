//! A request that waits for the first byte of a canary's answer is called back, and asked of stable instead.
//!
//! The engine has no word for that, and dropping its future would end the exchange with the client. So the
//! connection to the endpoint is shut down under it: the engine meets the end of the endpoint's side, reports a
//! broken connection to [`super::app`], and is sent to stable from there. Should the answer arrive at that
//! moment, it is refused there too, because what follows its first bytes will never come.
//!
//! What may be called back is known here only while the answer is waited for. All of it happens in the
//! connection's own task: between a look at this and the shutdown no answer can begin.

use std::net::Shutdown;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pingora_core::protocols::SocketDigest;

use super::held::Held;
use super::judged::stable_takes_one;
use crate::endpoints::At;
use crate::net::Link;
use crate::routing::ServiceIdx;

/// Why an attempt was called back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The canary did not answer in time.
    Late,
    /// The canary was withdrawn; it may have been about to answer.
    Withdrawn,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Called {
    /// The request is on its way back.
    Back,
    /// It may not run twice, stable cannot take it, or the budget is spent: it goes on as if nobody had called.
    Refused,
    /// Nothing that could be called back waits for an endpoint.
    NothingWaits,
}

/// One per client connection.
#[derive(Debug, Default)]
pub struct Recall(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Nothing,
    Waiting(Waiting),
    Recalled(Why),
}

/// An attempt of a request that may run twice, at the canary of a rollout with a shield.
#[derive(Debug)]
pub struct Waiting {
    pub held: Arc<Held>,
    pub service: ServiceIdx,
    pub socket: Socket,
}

/// The connection to an endpoint, as seen from outside the engine, which owns it.
#[derive(Debug)]
pub struct Socket {
    fd: RawFd,
    /// Lives as long as the connection: a descriptor of the same number is another connection's after that.
    connection: Weak<SocketDigest>,
    peer: At,
}

impl Recall {
    fn state(&self) -> MutexGuard<'_, State> {
        // One task uses it, so the lock is never contended; the engine demands `Sync`.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wait(&self, waiting: Waiting) {
        *self.state() = State::Waiting(waiting);
    }

    /// The answer begins, or will not come. Says whether it was called back, and why.
    pub fn settle(&self) -> Option<Why> {
        match std::mem::take(&mut *self.state()) {
            State::Nothing | State::Waiting(_) => None,
            State::Recalled(why) => Some(why),
        }
    }

    /// Calls back what waits, once.
    pub fn call(&self, link: &Link, why: Why) -> Called {
        let mut state = self.state();
        match &*state {
            State::Nothing | State::Recalled(_) => return Called::NothingWaits,
            State::Waiting(waiting) => {
                if !link.is_repeatable()
                    || !stable_takes_one(&waiting.held.snapshot, waiting.service)
                    || !waiting.socket.shut_down()
                {
                    return Called::Refused;
                }
            }
        }
        *state = State::Recalled(why);
        link.asked_again();
        Called::Back
    }
}

impl Socket {
    pub fn new(fd: RawFd, connection: &Arc<SocketDigest>, peer: At) -> Socket {
        Socket { fd, connection: Arc::downgrade(connection), peer }
    }

    fn is_peer(&self, peer: &socket2::SockAddr) -> bool {
        match &self.peer {
            At::Ip(address) => peer.as_socket() == Some(*address),
            At::Unix(path) => peer.as_pathname() == Some(path),
        }
    }

    /// Ends both directions, so that whoever reads from or writes to it is told. `false`: it is not there.
    fn shut_down(&self) -> bool {
        if self.connection.strong_count() == 0 {
            return false;
        }
        // SAFETY: the connection, which owns the descriptor, exists, and ends in this task only.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        let socket = socket2::SockRef::from(&fd);
        match socket.peer_addr() {
            Ok(peer) if self.is_peer(&peer) => {
                // It fails only if the endpoint was faster.
                let _ = socket.shutdown(Shutdown::Both);
                true
            }
            Ok(_) => false,
            // Broken already: the engine is about to notice.
            Err(_) => true,
        }
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
        assert!(socket.shut_down());
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
        assert!(!gone.shut_down());
        // It is said to exist, but the descriptor leads elsewhere.
        let digest = Arc::new(SocketDigest::from_raw_fd(ours.as_raw_fd()));
        let elsewhere = Socket::new(ours.as_raw_fd(), &digest, At::Ip("127.0.0.1:1".parse().unwrap()));
        assert!(!elsewhere.shut_down());
        endpoint.write_all(b"still here").unwrap();
        assert_eq!(ours.read(&mut [0; 16]).unwrap(), 10);
    }
}
