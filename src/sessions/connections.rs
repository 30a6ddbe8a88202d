//! Every client connection, so that control can end what runs on one version and touch nothing else.
//!
//! A connection publishes what it is doing in one atomic word (version slot, kind, a running number), so
//! that an order to cut names exactly one exchange: by the time the order is read, the connection may be
//! busy with the next one, and that one must not be hurt. The list of connections is kept per data
//! thread; its lock is taken by that thread when a connection opens or closes, and by control when it
//! looks for something to end, never per request.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;

use super::kind::Kind;
use crate::config::model::Name;
use crate::routing::Thread;

/// One exchange on one connection. 0 is "nothing": the connection is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange(u64);

const SLOT_BITS: u32 = 30;
const KIND_BITS: u32 = 2;
const COUNT_BITS: u32 = 32;

impl Exchange {
    pub const NONE: Exchange = Exchange(0);

    fn new(slot: u32, kind: Kind, count: u32) -> Exchange {
        let slot = u64::from(slot) & ((1 << SLOT_BITS) - 1);
        Exchange(slot << (KIND_BITS + COUNT_BITS) | (kind as u64) << COUNT_BITS | u64::from(count))
    }

    pub fn slot(self) -> u32 {
        (self.0 >> (KIND_BITS + COUNT_BITS)) as u32
    }

    pub fn kind(self) -> Kind {
        match (self.0 >> COUNT_BITS) & 3 {
            0 => Kind::Http,
            1 => Kind::Sse,
            _ => Kind::WebSocket,
        }
    }
}

/// How an exchange is to end before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    /// The version's drain deadline has passed.
    DrainDeadline = 1,
    /// The proxy itself is going away.
    Shutdown = 2,
}

/// The part of a connection that others may see.
#[derive(Debug)]
pub struct Connection {
    pub thread: Thread,
    pub listener: Name,
    current: AtomicU64,
    /// Milliseconds on the clock of `Live::nanos` at which the current exchange began.
    began_ms: AtomicU64,
    /// The exchange that is to be cut, or 0.
    cut: AtomicU64,
    cut_how: AtomicU8,
    /// Wakes the connection's task to look at `cut` and at the phase of its thread.
    wake: Notify,
}

impl Connection {
    pub fn new(thread: Thread, listener: Name) -> Connection {
        Connection {
            thread,
            listener,
            current: AtomicU64::new(0),
            began_ms: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            cut_how: AtomicU8::new(0),
            wake: Notify::new(),
        }
    }

    /// By the connection's own task: an exchange on version `slot` begins.
    pub fn begin(&self, slot: u32, now_ms: u64) {
        let count = (self.current.load(Ordering::Relaxed) as u32).wrapping_add(1);
        self.began_ms.store(now_ms, Ordering::Relaxed);
        self.current.store(Exchange::new(slot, Kind::Http, count).0, Ordering::Release);
    }

    /// The current exchange turned out to be a stream.
    pub fn becomes(&self, kind: Kind) {
        let now = Exchange(self.current.load(Ordering::Relaxed));
        self.current.store(Exchange::new(now.slot(), kind, now.0 as u32).0, Ordering::Release);
    }

    /// The exchange is over; its number is kept so that the next one gets another.
    pub fn end(&self) {
        let now = self.current.load(Ordering::Relaxed);
        self.current.store(u64::from(now as u32), Ordering::Release);
    }

    pub fn current(&self) -> Exchange {
        Exchange(self.current.load(Ordering::Acquire))
    }

    /// Milliseconds (clock of `Live::nanos`) at which the current exchange began.
    pub fn began_ms(&self) -> u64 {
        self.began_ms.load(Ordering::Relaxed)
    }

    /// Orders the end of exactly this exchange. Does nothing if it is over by then.
    pub fn cut(&self, exchange: Exchange, how: Cut) {
        self.cut_how.store(how as u8, Ordering::Relaxed);
        self.cut.store(exchange.0, Ordering::Release);
        self.wake.notify_one();
    }

    /// By the connection's own task: whether the current exchange is to end now.
    pub fn is_cut(&self) -> Option<Cut> {
        let cut = self.cut.load(Ordering::Acquire);
        let current = self.current.load(Ordering::Relaxed);
        if cut == 0 || cut >> COUNT_BITS == 0 || cut != current {
            return None;
        }
        match self.cut_how.load(Ordering::Relaxed) {
            1 => Some(Cut::DrainDeadline),
            _ => Some(Cut::Shutdown),
        }
    }

    pub fn wake(&self) {
        self.wake.notify_one();
    }

    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// Something that runs on a version now.
#[derive(Debug, Clone)]
pub struct Running {
    pub connection: Arc<Connection>,
    pub exchange: Exchange,
    pub began_ms: u64,
}

/// All client connections of the process.
#[derive(Debug)]
pub struct Connections {
    threads: Box<[Mutex<Slab<Arc<Connection>>>]>,
}

/// Takes a connection off the list when dropped.
#[derive(Debug)]
pub struct Listed {
    connections: Arc<Connections>,
    key: usize,
    pub connection: Arc<Connection>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.connections.list(self.connection.thread).remove(self.key);
    }
}

impl Connections {
    pub fn new(threads: usize) -> Arc<Connections> {
        Arc::new(Connections { threads: (0..threads).map(|_| Mutex::default()).collect() })
    }

    pub fn add(self: &Arc<Self>, connection: Arc<Connection>) -> Listed {
        let key = self.list(connection.thread).insert(connection.clone());
        Listed { connections: self.clone(), key, connection }
    }

    /// Every exchange that runs on version `slot` now.
    pub fn running_on(&self, slot: u32) -> Vec<Running> {
        self.filtered(|exchange| exchange.slot() == slot)
    }

    /// Every exchange that runs now.
    pub fn running(&self) -> Vec<Running> {
        self.filtered(|exchange| exchange.slot() != 0)
    }

    pub fn open(&self) -> usize {
        (0..self.threads.len()).map(|thread| self.list(Thread(thread as u16)).len()).sum()
    }

    pub fn open_on(&self, listener: &str) -> usize {
        let on = |thread| {
            let list = self.list(Thread(thread as u16));
            list.iter().filter(|(_, connection)| &*connection.listener == listener).count()
        };
        (0..self.threads.len()).map(on).sum()
    }

    /// Wakes every connection, so that idle ones notice a shutdown.
    pub fn wake_all(&self) {
        for thread in 0..self.threads.len() {
            for (_, connection) in self.list(Thread(thread as u16)).iter() {
                connection.wake();
            }
        }
    }

    fn filtered(&self, wanted: impl Fn(Exchange) -> bool) -> Vec<Running> {
        let mut running = Vec::new();
        for thread in 0..self.threads.len() {
            for (_, connection) in self.list(Thread(thread as u16)).iter() {
                let exchange = connection.current();
                let began_ms = connection.began_ms();
                if wanted(exchange) && connection.current() == exchange {
                    running.push(Running { connection: connection.clone(), exchange, began_ms });
                }
            }
        }
        running
    }

    fn list(&self, thread: Thread) -> std::sync::MutexGuard<'_, Slab<Arc<Connection>>> {
        self.threads[thread.0 as usize].lock().expect("no holder panics")
    }
}

/// When the `nth` of `count` streams is to end, so that clients do not come back all at once.
pub fn spread(nth: usize, count: usize, window: Duration) -> Duration {
    match u32::try_from(count) {
        Ok(count) if count > 1 => window * (nth as u32) / count,
        _ => Duration::ZERO,
    }
}
