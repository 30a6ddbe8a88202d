//! Every client connection, so that control can end what runs on one version and touch nothing else.
//!
//! A connection publishes what it is doing in one atomic word (version slot, kind, a running number), so
//! that an order to cut names exactly one exchange: by the time the order is read, the connection may be
//! busy with the next one, and that one must not be hurt. The list of connections is kept per data
//! thread; its lock is taken by that thread when a connection opens or closes, and by control when it
//! looks for something to end, never per request.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use atomic_waker::AtomicWaker;
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

    /// The same exchange, perhaps of another kind by now.
    pub fn is(self, other: Exchange) -> bool {
        const WITHOUT_KIND: u64 = !(((1 << KIND_BITS) - 1) << COUNT_BITS);
        (self.0 ^ other.0) & WITHOUT_KIND == 0
    }

    pub fn kind(self) -> Kind {
        match (self.0 >> COUNT_BITS) & 3 {
            0 => Kind::Http,
            1 => Kind::Sse,
            2 => Kind::WebSocket,
            _ => Kind::Grpc,
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
    /// A stream on a connection that carries many and is listed itself.
    carried: bool,
    current: AtomicU64,
    /// Milliseconds on the clock of `Live::nanos` at which the current exchange began.
    began_ms: AtomicU64,
    /// The exchange that is to be cut, or 0.
    cut: AtomicU64,
    cut_how: AtomicU8,
    /// The exchange that is to be put to another version, or 0.
    recalled: AtomicU64,
    /// The exchange whose time is evidence and was not counted yet, or 0.
    timed: AtomicU64,
    /// Wakes the connection's task to look at `cut`, `recalled`, and the phase of its thread.
    wake: AtomicWaker,
    /// When the connection's task wants to be woken for a deadline, on the clock of `began_ms`; 0: never.
    deadline_ms: AtomicU64,
}

impl Connection {
    pub fn new(thread: Thread, listener: Name) -> Connection {
        Connection::of(thread, listener, false)
    }

    /// One stream of an HTTP/2 connection: an exchange like any other, but no connection to count.
    pub fn carried(thread: Thread, listener: Name) -> Connection {
        Connection::of(thread, listener, true)
    }

    fn of(thread: Thread, listener: Name, carried: bool) -> Connection {
        Connection {
            thread,
            listener,
            carried,
            current: AtomicU64::new(0),
            began_ms: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            cut_how: AtomicU8::new(0),
            recalled: AtomicU64::new(0),
            timed: AtomicU64::new(0),
            wake: AtomicWaker::new(),
            deadline_ms: AtomicU64::new(0),
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

    /// By the connection's own task: how long the current exchange takes is evidence.
    pub fn time_it(&self) {
        self.timed.store(self.current.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whoever counts the time of this exchange asks here first: `true` once, and only of one that is timed.
    pub fn may_count(&self, exchange: Exchange) -> bool {
        exchange != Exchange::NONE
            && self.timed.compare_exchange(exchange.0, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Orders the end of exactly this exchange. Does nothing if it is over by then.
    pub fn cut(&self, exchange: Exchange, how: Cut) {
        self.cut_how.store(how as u8, Ordering::Relaxed);
        self.cut.store(exchange.0, Ordering::Release);
        self.wake.wake();
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

    /// Asks that exactly this exchange be put to another version, if it still waits for its answer and may run
    /// twice. Whether it may is for the connection's own task to say; does nothing if it is over by then.
    pub fn recall(&self, exchange: Exchange) {
        self.recalled.store(exchange.0, Ordering::Release);
        self.wake.wake();
    }

    /// By the connection's own task: whether the current exchange is to be put to another version.
    pub fn is_recalled(&self) -> bool {
        let recalled = self.recalled.load(Ordering::Acquire);
        recalled >> COUNT_BITS != 0 && recalled == self.current.load(Ordering::Relaxed)
    }

    pub fn wake(&self) {
        self.wake.wake();
    }

    /// By the connection's own task, in each poll before it looks at anything: who to wake.
    pub fn register(&self, waker: &std::task::Waker) {
        self.wake.register(waker);
    }

    /// By the connection's own task: when it wants to be woken; 0: never.
    pub fn wake_at(&self, deadline_ms: u64) {
        self.deadline_ms.store(deadline_ms, Ordering::Relaxed);
    }

    /// By the connection's own task, after [`Self::wake_at`]: also then.
    pub fn wake_no_later_than(&self, deadline_ms: u64) {
        let before = self.deadline_ms.load(Ordering::Relaxed);
        if before == 0 || deadline_ms < before {
            self.deadline_ms.store(deadline_ms, Ordering::Relaxed);
        }
    }

    /// By the sweep of the connection's thread.
    pub fn is_due(&self, now_ms: u64) -> bool {
        let deadline = self.deadline_ms.load(Ordering::Relaxed);
        deadline != 0 && deadline <= now_ms
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
    /// Told whenever a connection is off the list.
    closed: Notify,
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
        self.connections.closed.notify_waiters();
    }
}

impl Connections {
    pub fn new(threads: usize) -> Arc<Connections> {
        Arc::new(Connections { threads: (0..threads).map(|_| Mutex::default()).collect(), closed: Notify::new() })
    }

    pub fn add(self: &Arc<Self>, connection: Arc<Connection>) -> Listed {
        let key = self.list(connection.thread).insert(connection.clone());
        Listed { connections: self.clone(), key, connection }
    }

    /// Every exchange that runs on version `slot` now.
    pub fn running_on(&self, slot: u32) -> Vec<Running> {
        self.filtered(|exchange| exchange.slot() == slot)
    }

    /// Looks at every exchange that runs on version `slot` now, where it is.
    pub fn each_on(&self, slot: u32, mut look: impl FnMut(&Connection, Exchange, u64)) {
        self.each(
            |exchange| exchange.slot() == slot,
            |connection, exchange, began_ms| look(connection, exchange, began_ms),
        );
    }

    /// Every exchange that runs now.
    pub fn running(&self) -> Vec<Running> {
        self.filtered(|exchange| exchange.slot() != 0)
    }

    pub fn open(&self) -> usize {
        self.count(|_| true)
    }

    pub fn open_on(&self, listener: &str) -> usize {
        self.count(|connection| &*connection.listener == listener)
    }

    fn count(&self, wanted: impl Fn(&Connection) -> bool) -> usize {
        let on = |thread| {
            let list = self.list(Thread(thread as u16));
            list.iter().filter(|(_, connection)| !connection.carried && wanted(connection)).count()
        };
        (0..self.threads.len()).map(on).sum()
    }

    /// Wakes the connections of one data thread whose deadline has passed.
    pub fn sweep(&self, thread: Thread, now_ms: u64) {
        for (_, connection) in self.list(thread).iter() {
            if connection.is_due(now_ms) {
                connection.wake();
            }
        }
    }

    /// Resolves when no connection is open.
    pub async fn all_closed(&self) {
        loop {
            let closed = self.closed.notified();
            tokio::pin!(closed);
            closed.as_mut().enable();
            if self.open() == 0 {
                return;
            }
            closed.await;
        }
    }

    /// Wakes every connection, so that idle ones notice a shutdown.
    pub fn wake_all(&self) {
        for thread in 0..self.threads.len() {
            for (_, connection) in self.list(Thread(thread as u16)).iter() {
                connection.wake();
            }
        }
    }

    /// Wakes the connections of one listener on one data thread.
    pub fn wake_on(&self, thread: Thread, listener: &str) {
        for (_, connection) in self.list(thread).iter() {
            if &*connection.listener == listener {
                connection.wake();
            }
        }
    }

    fn filtered(&self, wanted: impl Fn(Exchange) -> bool) -> Vec<Running> {
        let mut running = Vec::new();
        self.each(wanted, |connection, exchange, began_ms| {
            running.push(Running { connection: connection.clone(), exchange, began_ms });
        });
        running
    }

    fn each(&self, wanted: impl Fn(Exchange) -> bool, mut look: impl FnMut(&Arc<Connection>, Exchange, u64)) {
        for thread in 0..self.threads.len() {
            for (_, connection) in self.list(Thread(thread as u16)).iter() {
                let exchange = connection.current();
                let began_ms = connection.began_ms();
                if wanted(exchange) && connection.current() == exchange {
                    look(connection, exchange, began_ms);
                }
            }
        }
    }

    fn list(&self, thread: Thread) -> std::sync::MutexGuard<'_, Slab<Arc<Connection>>> {
        self.threads[thread.0 as usize].lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(connections: &Arc<Connections>, thread: u16) -> Listed {
        connections.add(Arc::new(Connection::new(Thread(thread), "web".into())))
    }

    #[test]
    fn the_time_of_an_exchange_counts_once_and_never_for_the_next() {
        let connection = Connection::new(Thread(0), "web".into());
        connection.begin(7, 1);
        assert!(!connection.may_count(connection.current()), "it is not timed");
        connection.time_it();
        let first = connection.current();
        assert!(connection.may_count(first) && !connection.may_count(first));
        connection.end();
        connection.begin(7, 2);
        connection.time_it();
        assert!(!connection.may_count(first), "that one is over");
        assert!(connection.may_count(connection.current()));
    }

    #[test]
    fn an_order_to_cut_hurts_only_the_exchange_it_names() {
        let connections = Connections::new(1);
        let listed = connection(&connections, 0);
        let connection = &listed.connection;
        connection.begin(7, 0);
        let seen = connection.current();
        assert_eq!((seen.slot(), seen.kind()), (7, Kind::Http));
        connection.end();
        connection.begin(7, 1);
        connection.cut(seen, Cut::DrainDeadline);
        assert_eq!(connection.is_cut(), None, "the next one on the same connection");
        connection.cut(connection.current(), Cut::Shutdown);
        assert_eq!(connection.is_cut(), Some(Cut::Shutdown));
        connection.end();
        assert_eq!(connection.is_cut(), None);
    }

    #[test]
    fn a_recall_means_one_exchange_that_has_not_become_a_stream() {
        let connections = Connections::new(1);
        let listed = connection(&connections, 0);
        let connection = &listed.connection;
        connection.recall(connection.current());
        assert!(!connection.is_recalled(), "nothing runs");
        connection.begin(7, 0);
        let seen = connection.current();
        connection.recall(seen);
        assert!(connection.is_recalled());
        assert_eq!(connection.is_cut(), None, "it is not ended");
        connection.becomes(Kind::Sse);
        assert!(!connection.is_recalled(), "a stream is left to drain");
        connection.end();
        connection.begin(7, 0);
        assert!(!connection.is_recalled(), "the next one on the same version");
        connection.recall(seen);
        assert!(!connection.is_recalled(), "an order that comes late");
    }

    #[test]
    fn an_exchange_stays_itself_when_it_becomes_a_stream() {
        let connections = Connections::new(1);
        let listed = connection(&connections, 0);
        listed.connection.begin(7, 0);
        let before = listed.connection.current();
        listed.connection.becomes(Kind::WebSocket);
        let after = listed.connection.current();
        assert_eq!(after.kind(), Kind::WebSocket);
        assert!(before != after && before.is(after));
        listed.connection.end();
        listed.connection.begin(7, 0);
        assert!(!before.is(listed.connection.current()));
    }

    #[test]
    fn what_runs_is_found_by_version() {
        let connections = Connections::new(2);
        let all: Vec<_> = (0..6).map(|nth| connection(&connections, nth % 2)).collect();
        for (listed, slot) in all.iter().zip([1, 2, 1, 2]) {
            listed.connection.begin(slot, 0);
        }
        assert_eq!(connections.running_on(1).len(), 2);
        assert_eq!((connections.running().len(), connections.open(), connections.open_on("web")), (4, 6, 6));
        assert_eq!(connections.open_on("tls"), 0);
    }

    #[tokio::test]
    async fn the_last_connection_to_close_is_not_missed() {
        let connections = Connections::new(1);
        let all: Vec<_> = (0..3).map(|_| connection(&connections, 0)).collect();
        let closed = tokio::spawn({
            let connections = connections.clone();
            async move { connections.all_closed().await }
        });
        for listed in all {
            assert!(!closed.is_finished());
            drop(listed);
            tokio::task::yield_now().await;
        }
        closed.await.expect("no panic");
    }
}
