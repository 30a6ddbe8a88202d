//! Sessions with endpoints, to resume instead of a whole handshake.
//!
//! A ticket of TLS 1.3 is used once (RFC 8446, appendix C.4), so as many handshakes can be resumed at once as there are
//! tickets. The library's own store keeps eight for a name, and names of 32 endpoints; this one keeps as many in all, for
//! whom they are. What else there is to remember of a server is left to the library.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// As many as the library keeps if nobody says anything else.
const ALL_MAX: usize = 256;
/// A busy name leaves room for others.
const EACH_MAX: usize = 64;

pub(super) struct Sessions {
    tickets: Mutex<Tickets<ServerName<'static>, Tls13ClientSessionValue>>,
    rest: ClientSessionMemoryCache,
}

impl Sessions {
    pub(super) fn new() -> Sessions {
        Sessions { tickets: Mutex::default(), rest: ClientSessionMemoryCache::new(ALL_MAX) }
    }

    fn tickets(&self) -> MutexGuard<'_, Tickets<ServerName<'static>, Tls13ClientSessionValue>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.rest.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.rest.kx_hint(name)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.rest.set_tls12_session(name, value);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.rest.tls12_session(name)
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.rest.remove_tls12_session(name);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.tickets().put(name, value);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.tickets().take(name)
    }
}

/// Oldest first. Few enough to be looked through beside a handshake.
struct Tickets<N, T>(VecDeque<(N, T)>);

impl<N, T> Default for Tickets<N, T> {
    fn default() -> Self {
        Tickets(VecDeque::new())
    }
}

impl<N: PartialEq, T> Tickets<N, T> {
    fn put(&mut self, name: N, ticket: T) {
        let own = self.0.iter().filter(|(other, _)| *other == name).count();
        let gives_way = match (own >= EACH_MAX, self.0.len() >= ALL_MAX) {
            (true, _) => self.0.iter().position(|(other, _)| *other == name),
            (false, true) => Some(0),
            (false, false) => None,
        };
        gives_way.map(|at| self.0.remove(at));
        self.0.push_back((name, ticket));
    }

    /// The youngest.
    fn take(&mut self, name: &N) -> Option<T> {
        let at = self.0.iter().rposition(|(other, _)| other == name)?;
        self.0.remove(at).map(|(_, ticket)| ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_given_once_the_youngest_first_and_there_is_an_end_to_them() {
        let mut tickets = Tickets::default();
        assert_eq!(tickets.take(&"shop"), None);
        tickets.put("other", 7);
        (0..1_000).for_each(|nth| tickets.put("shop", nth));
        let taken: Vec<i32> = std::iter::from_fn(|| tickets.take(&"shop")).collect();
        assert_eq!(taken, (1_000 - EACH_MAX as i32..1_000).rev().collect::<Vec<_>>());
        assert_eq!((tickets.take(&"other"), tickets.take(&"other")), (Some(7), None), "it was left alone");

        let mut tickets = Tickets::default();
        (0..1_000).for_each(|nth| tickets.put(nth, nth));
        assert_eq!(tickets.0.len(), ALL_MAX);
        assert_eq!((tickets.take(&999), tickets.take(&0)), (Some(999), None), "the oldest make way");
    }
}
