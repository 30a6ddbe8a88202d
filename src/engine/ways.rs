//! How connections that the engine cannot make by itself are made.
//!
//! The engine asks for such a connection with nothing but its own description of the endpoint. So what it needs is
//! left here under the number that its connections are pooled by, and found again when there is none to reuse. One
//! per data thread: its lock is never waited for.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::config::model::ProxyHeader;
use crate::config::model::tls::Alpn;
use crate::endpoints::Secure;
use crate::endpoints::proxy_header::Announced;
use crate::net::clock;

/// After its last use, in milliseconds: connections are asked for right after a way was left.
const KEPT_MS: u64 = 5_000;
const SWEEP_FROM: usize = 256;

#[derive(Debug, Clone)]
pub struct Way {
    pub tls: Option<WayTls>,
    /// Whom the connection is for, and how that is said. It is for nobody else then.
    pub announce: Option<(Announced, ProxyHeader)>,
    pub alpn: Alpn,
    /// For all of it.
    pub patience: Duration,
}

#[derive(Debug, Clone)]
pub struct WayTls {
    pub secure: Arc<Secure>,
    /// What the endpoint must prove.
    pub name: ServerName<'static>,
}

#[derive(Debug, Default)]
pub struct Ways {
    known: Mutex<Known>,
    /// Unknown to clients, who could otherwise look for two that meet.
    seed: RandomState,
}

#[derive(Debug, Default)]
struct Known {
    /// With the time until which it is kept.
    ways: HashMap<u64, (Way, u64)>,
    sweep_at: usize,
}

impl Ways {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What connections are pooled by if they are for one client connection only.
    pub fn key_for(&self, key: u64, whom: &(Announced, ProxyHeader)) -> u64 {
        self.seed.hash_one((key, whom))
    }

    /// Before the engine is asked for a connection of this key. `make` is only asked if nothing is left there.
    pub fn leave(&self, key: u64, patience: Duration, make: impl FnOnce() -> Way) {
        let now = clock::now_ms();
        let until = now + KEPT_MS + patience.as_millis() as u64;
        let mut known = self.known();
        if let Some((way, kept)) = known.ways.get_mut(&key) {
            (way.patience, *kept) = (patience, until);
            return;
        }
        if known.ways.len() >= known.sweep_at {
            known.ways.retain(|_, (_, until)| *until > now);
            known.sweep_at = SWEEP_FROM.max(known.ways.len() * 2);
        }
        known.ways.insert(key, (make(), until));
    }

    pub fn find(&self, key: u64) -> Option<Way> {
        self.known().ways.get(&key).map(|(way, _)| way.clone())
    }
}
